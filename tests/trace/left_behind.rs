//! What a trace places goes with it, however it ends.

use std::{
    fs::File,
    os::{fd::AsRawFd, unix::process::ExitStatusExt},
    path::PathBuf,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use rand_chacha::ChaCha8Rng;
use rand_core::{Rng, SeedableRng};
use vpnd::{lab::Ping, sys::random::os_rng, trace::Page};

use super::{
    common::need_root,
    world::{PATIENCE, Spec, VPND, Watcher, World, ip, on, until},
};

#[test]
fn a_killed_trace_leaves_no_table_behind() {
    if !need_root() {
        return;
    }
    let world = World::new("kill");
    let before = on(&world.right, "nft list ruleset");
    let mut watcher = Watcher::start(&world.right, &world.daemons[1], "icmp", "killed");
    let table = format!("vpnd_trace_{}", watcher.pid());
    assert!(on(&world.right, "nft list tables").contains(&table));
    assert!(has_instance(&table), "the kernel's reasons are watched");
    watcher.kill9();
    until("the table is gone", || on(&world.right, "nft list ruleset") == before);
    until("its instance of tracefs is gone", || !has_instance(&table));
}

/// Has the kernel an instance of tracefs of a trace with that name?
#[track_caller]
fn has_instance(name: &str) -> bool {
    let root = vpnd::sys::tracefs::open().expect("tracefs, which root may see");
    let instances = PathBuf::from(format!("/proc/self/fd/{}/instances", root.as_raw_fd()));
    let names = std::fs::read_dir(instances).expect("it can be looked into");
    let names = names.map(|entry| entry.expect("an entry").file_name().into_string().expect("its name"));
    // One for each direction.
    names
        .into_iter()
        .any(|other| other == name || other.strip_prefix(name).is_some_and(|end| end.starts_with('_')))
}

/// Whoever ends a trace has its page, whatever it was at; and what comes by meanwhile takes nothing from it.
#[test]
fn a_trace_that_is_ended_at_any_moment_prints_its_page_and_leaves_nothing() {
    const RUNS: usize = 24;
    let Some(world) = World::ready("ends", &Spec::default()) else { return };
    let before = on(&world.right, "nft list ruleset");
    let seed = os_rng().next_u64();
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    // Between the start and some time after it watches, while packets come by.
    let moments: Vec<_> = (0..RUNS).map(|_| Duration::from_micros(random.next_u64() % 700_000)).collect();
    let watched: usize = thread::scope(|scope| {
        let pings = scope.spawn(|| {
            let pings = Ping { count: 200, interval: Duration::from_millis(20), ..Ping::to(ip("10.77.0.2")) };
            world.left.ping_with(&pings).expect("pings")
        });
        let ended = |(run, moment): (usize, &Duration)| is_ended_at(&world, run, *moment, seed);
        // Four at once.
        let quarters = (0..4).map(|quarter| {
            let own = moments.iter().enumerate().skip(quarter).step_by(4);
            scope.spawn(move || own.map(ended).filter(|watched| *watched).count())
        });
        let quarters: Vec<_> = quarters.collect();
        let watched = quarters.into_iter().map(|quarter| quarter.join().expect("a quarter")).sum();
        pings.join().expect("pings");
        watched
    });
    assert!(watched > 0, "no trace came so far as to watch: seed {seed}");
    until("all tables are gone", || on(&world.right, "nft list ruleset") == before);
}

/// Had it begun to watch? Then it has told what there was.
#[track_caller]
fn is_ended_at(world: &World, run: usize, moment: Duration, seed: u64) -> bool {
    let about = format!("run {run}, ended after {moment:?}, seed {seed}");
    let file = world.right.folder().join(format!("ends-{run}.json"));
    let mut command = Command::new(VPND);
    command.args(["trace", "--json", "--seconds", "60", "--packets", "1000", "--follow", "icmp"]);
    command.arg("--run-dir").arg(world.daemons[1].run_dir()).stdout(File::create(&file).expect("a file"));
    let begun = Instant::now();
    let mut process = world.right.spawn(&format!("ends-{run}"), command).expect("vpnd trace starts");
    thread::sleep(moment.saturating_sub(begun.elapsed()));
    let watched = process.log().contains("watching");
    let status = process.terminate(PATIENCE).unwrap_or_else(|| panic!("it does not end: {about}"));
    let instance = format!("vpnd_trace_{}", process.pid());
    until("its instance of tracefs is gone", || !has_instance(&instance));
    let said = process.log();
    let text = std::fs::read_to_string(&file).expect("its file");
    let pages: Vec<Page> = text
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}: {about}")))
        .collect();
    if watched {
        assert!(status.signal().is_none() && !pages.is_empty(), "{status}: {said}: {about}");
        assert!(pages.iter().all(|page| page.hosts.len() == 1), "{about}");
    } else if pages.is_empty() {
        // By the signal itself before it could listen for one, or in words.
        let by_signal = status.signal() == Some(15);
        assert!(by_signal || said.contains("ended before it watched"), "{status}: {said}: {about}");
    }
    watched
}
