//! The hostile world, row by row. Quick forms of the rows are tests; `make torture` runs each at its full size, prints a
//! table of figures and writes it to `docs/torture.md`.
//!
//! `TORTURE="--row strangers --scale 0.1 --seed 7"` chooses rows and how much of them; `--row` may come again.

#![allow(clippy::disallowed_methods, reason = "tests measure how long things take")]

#[path = "../common/mod.rs"]
mod common;
mod crowd;
#[path = "../trains/dice.rs"]
#[allow(dead_code, reason = "the rows need a part of it")]
mod dice;
mod disk;
mod faults;
mod field;
mod flaps;
mod flood;
mod floods;
mod goodput;
mod inner;
#[path = "../namespaces/keys.rs"]
mod keys;
#[path = "../model/world.rs"]
#[allow(dead_code, reason = "the rows need a part of it")]
mod model;
mod network;
mod outages;
mod paths;
mod payload;
mod pure;
#[path = "../namespaces/relay.rs"]
mod relay;
mod report;
mod sandbox;
mod secrets;
mod soak;
#[path = "../namespaces/world.rs"]
mod world;

use std::{
    io::Write,
    path::Path,
    time::{Duration, Instant},
};

use common::need_root;
use report::{Figure, Outcome, Report};

/// How much of a row, and which chance.
#[derive(Clone, Copy, Debug)]
pub struct Torment {
    /// 1: as the figures ask.
    pub scale: f64,
    /// Where all chance comes from.
    pub seed: u64,
}

impl Torment {
    /// So many at full size, and never less than this.
    pub fn count(&self, full: u64, least: u64) -> u64 {
        ((full as f64 * self.scale) as u64).max(least)
    }

    /// So long at full size, and never less than half a second.
    pub fn time(&self, full: Duration) -> Duration {
        full.mul_f64(self.scale).max(Duration::from_millis(500)).min(full)
    }

    /// Rounds of a comparison.
    pub fn rounds(&self) -> u64 {
        self.count(5, 1)
    }

    /// Is it more than a quick test?
    pub fn is_full(&self) -> bool {
        self.scale >= 0.05
    }
}

/// A row of the table.
struct Row {
    name: &'static str,
    class: &'static str,
    run: fn(&Torment) -> Vec<Figure>,
    /// Too long for each `make torture`: runs when it is asked for.
    asked: bool,
}

const ROWS: &[Row] = &[
    Row { name: "malformed", class: "malformed datagrams", run: floods::malformed, asked: false },
    Row {
        name: "wrong-mac1",
        class: "floods of initiations to somebody else",
        run: floods::wrong_mac1,
        asked: false,
    },
    Row {
        name: "strangers",
        class: "floods of initiations of unknown keys",
        run: floods::strangers,
        asked: false,
    },
    Row {
        name: "odd-handshakes",
        class: "floods of other handshake messages",
        run: floods::odd_handshakes,
        asked: false,
    },
    Row {
        name: "bad-tags",
        class: "data with a live index and a bad tag",
        run: floods::bad_tags,
        asked: false,
    },
    Row { name: "replays", class: "recorded traffic replayed", run: floods::replays, asked: false },
    Row { name: "loss", class: "a bad network", run: network::loss, asked: false },
    Row {
        name: "half-lost",
        class: "handshakes while half of all is lost",
        run: network::handshakes,
        asked: false,
    },
    Row {
        name: "sources",
        class: "inner sources that are not the sender's",
        run: inner::sources,
        asked: false,
    },
    Row { name: "late", class: "packets that others overtook", run: pure::late, asked: false },
    Row {
        name: "counters",
        class: "the last counters, and copies on many threads",
        run: pure::counters,
        asked: false,
    },
    Row { name: "crowd", class: "ten thousand peers, a million changes", run: crowd::crowd, asked: false },
    Row {
        name: "path-mtu",
        class: "paths that are narrower than they seem",
        run: paths::narrow_paths,
        asked: false,
    },
    Row { name: "kills", class: "kill -9 at any moment", run: outages::kills, asked: false },
    Row { name: "stops", class: "SIGSTOP, as a machine that sleeps", run: outages::stops, asked: false },
    Row { name: "clocks", class: "other clocks at the next start", run: outages::clocks, asked: false },
    Row { name: "flaps", class: "links and addresses that come and go", run: flaps::flaps, asked: false },
    Row { name: "faults", class: "system calls that fail", run: faults::faults, asked: false },
    Row {
        name: "disk",
        class: "a disk that is full, read-only, or torn from its writer",
        run: disk::disk,
        asked: false,
    },
    Row {
        name: "secrets",
        class: "what memory, cores, the environment and texts give away",
        run: secrets::secrets,
        asked: false,
    },
    Row {
        name: "sandbox",
        class: "the whole suite as nobody, and ways out of the sandbox",
        run: sandbox::sandbox,
        asked: false,
    },
    Row { name: "soak", class: "an hour of mixed traffic", run: soak::soak, asked: true },
];

/// What a quick form may take from the machine.
const QUICK: Torment = Torment { scale: 0.002, seed: 1 };

/// Runs the quick form of a row: what must hold on any machine holds.
#[track_caller]
fn quick(name: &str) {
    if !need_root() {
        return;
    }
    let row = ROWS.iter().find(|row| row.name == name).expect("a row of that name");
    let figures = (row.run)(&QUICK);
    figures.iter().for_each(|figure| println!("{}", line(figure)));
    let missed: Vec<_> = figures.iter().filter(|figure| !figure.met && !figure.speed).map(line).collect();
    assert!(missed.is_empty(), "{}", missed.join("\n"));
}

fn line(figure: &Figure) -> String {
    let Figure { what, asked, reached, met, note, .. } = figure;
    let met = if *met { "met" } else { "NOT MET" };
    format!("{met:>7}  {what}: {reached} (asked: {asked}) {note}")
}

#[test]
fn malformed_datagrams_are_counted_answered_by_nothing_and_leave_no_trace() {
    quick("malformed");
}

#[test]
fn floods_of_handshakes_let_a_new_peer_in_and_end() {
    quick("wrong-mac1");
    quick("strangers");
    quick("odd-handshakes");
}

#[test]
fn data_with_a_bad_tag_move_nothing() {
    quick("bad-tags");
}

#[test]
fn what_is_replayed_is_delivered_once_and_moves_nothing() {
    quick("replays");
}

#[test]
fn a_bad_network_loses_what_it_loses_and_nothing_more() {
    quick("loss");
}

#[test]
fn sources_of_others_are_delivered_by_nobody_but_them() {
    quick("sources");
}

#[test]
fn late_packets_have_their_window() {
    quick("late");
}

#[test]
fn counters_end_where_they_must_and_copies_are_delivered_once() {
    quick("counters");
}

#[test]
fn a_crowd_that_comes_back_at_once_is_let_in_and_costs_no_memory() {
    quick("crowd");
}

#[test]
fn tcp_of_hosts_behind_the_tunnel_fits_into_narrow_paths() {
    quick("path-mtu");
}

#[test]
fn a_start_after_a_kill_at_any_moment_is_as_a_clean_one() {
    quick("kills");
}

#[test]
fn a_process_that_slept_goes_on() {
    quick("stops");
}

#[test]
fn other_clocks_at_the_next_start_lock_nobody_out() {
    quick("clocks");
}

#[test]
fn links_and_addresses_that_come_and_go_are_survived() {
    quick("flaps");
}

#[test]
fn system_calls_that_fail_end_nothing() {
    quick("faults");
}

#[test]
fn a_full_or_read_only_disk_and_a_killed_writer_tear_nothing() {
    quick("disk");
}

#[test]
fn no_secret_is_in_memory_a_core_the_environment_or_any_text() {
    quick("secrets");
}

#[test]
#[ignore = "takes long: make torture"]
fn every_row_at_its_full_size() {
    if !need_root() {
        return;
    }
    let Asked { rows, torment } = asked(&std::env::var("TORTURE").unwrap_or_default());
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs");
    let (json, markdown) = (folder.join("torture.json"), folder.join("torture.md"));
    let chosen =
        |row: &&Row| if rows.is_empty() { !row.asked } else { rows.iter().any(|name| name == row.name) };
    let mut short = Vec::new();
    for row in ROWS.iter().filter(chosen) {
        say(&format!("\n{}: {}", row.name, row.class));
        let begin = Instant::now();
        // A row that breaks is a figure that is not met; the others are still to be seen.
        let figures = std::panic::catch_unwind(|| (row.run)(&torment)).unwrap_or_else(|panic| {
            let words = panic.downcast_ref::<String>().map_or("it panicked", String::as_str);
            let first = words.lines().next().unwrap_or_default();
            vec![Figure::hard("the row itself", "runs to its end", first, false)]
        });
        figures.iter().for_each(|figure| say(&line(figure)));
        let missed = figures.iter().filter(|figure| !figure.met);
        short.extend(missed.map(|figure| format!("{}: {}", row.name, line(figure))));
        let outcome = Outcome {
            class: row.class.to_owned(),
            date: report::date(),
            machine: report::machine(),
            seed: torment.seed,
            scale: torment.scale,
            seconds: begin.elapsed().as_secs_f64(),
            figures,
        };
        let mut report = Report::load(&json);
        report.set(row.name, outcome);
        report.save(&json, &markdown);
    }
    say(&format!("\n{} figures fall short\n{}", short.len(), short.join("\n")));
}

/// What was asked for.
struct Asked {
    rows: Vec<String>,
    torment: Torment,
}

fn asked(text: &str) -> Asked {
    let mut asked = Asked { rows: Vec::new(), torment: Torment { scale: 1.0, seed: 1 } };
    let mut words = text.split_whitespace();
    while let Some(word) = words.next() {
        let value = words.next().unwrap_or_else(|| panic!("{word} wants a value"));
        match word {
            "--row" => {
                let known: Vec<_> = ROWS.iter().map(|row| row.name).collect();
                assert!(known.contains(&value), "no row {value}; there are: {}", known.join(", "));
                asked.rows.push(value.to_owned());
            }
            "--scale" => asked.torment.scale = value.parse().expect("a number"),
            "--seed" => asked.torment.seed = value.parse().expect("a number"),
            _ => panic!("{word} is none of --row, --scale, --seed"),
        }
    }
    asked
}

/// At once, also where the harness holds back what a test prints.
fn say(line: &str) {
    writeln!(std::io::stdout(), "{line}").expect("standard output is open");
}

#[test]
fn what_is_asked_for_is_understood() {
    let all = asked("");
    assert!(all.rows.is_empty());
    assert_eq!((all.torment.scale, all.torment.seed), (1.0, 1));
    let some = asked("--row replays --scale 0.5 --row malformed --seed 9");
    assert_eq!(some.rows, ["replays", "malformed"]);
    assert_eq!((some.torment.scale, some.torment.seed), (0.5, 9));
}
