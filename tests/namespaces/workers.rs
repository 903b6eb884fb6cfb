//! One thread, one for each direction, or several: each flow arrives in the order in which it was sent, and whole.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use crate::{
    common::{flow::Flow, need_root, program},
    streams::{Load, both_ways, in_order},
    world::{Node, Pair, Spec, wait_until},
};

/// A few seconds of all, with many batches on their way.
const DENSE: Load = Load {
    tcp: 30_000_000,
    udp: 5_000_000,
    pace: Duration::from_millis(4),
    small: Duration::from_micros(100),
    limit: PATIENCE,
};
/// What one core has time for.
const EASY: Load =
    Load { tcp: 10_000_000, pace: Duration::from_millis(10), small: Duration::from_millis(1), ..DENSE };
const PATIENCE: Duration = Duration::from_secs(120);

/// The names of a daemon's data threads.
fn data_threads(node: &Node) -> BTreeSet<String> {
    naps(node).into_keys().collect()
}

/// How often each data thread of a daemon went to sleep.
fn naps(node: &Node) -> BTreeMap<String, u64> {
    let tasks = std::fs::read_dir(format!("/proc/{}/task", node.pid())).expect("it runs");
    let tasks = tasks.flatten().filter_map(|task| std::fs::read_to_string(task.path().join("status")).ok());
    let field = |status: &str, name: &str| {
        status.lines().find_map(|line| line.strip_prefix(name)).map(|value| value.trim().to_owned())
    };
    tasks
        .filter_map(|status| {
            let switches = field(&status, "voluntary_ctxt_switches:")?;
            Some((field(&status, "Name:")?, switches.parse().ok()?))
        })
        .filter(|(name, _)| {
            ["vpnd-in", "vpnd-out", "vpnd-data", "vpnd-relief"].iter().any(|kind| name.starts_with(kind))
        })
        .collect()
}

/// The nice values and policies of a daemon's data threads.
fn places(node: &Node) -> BTreeSet<[String; 2]> {
    let tasks = std::fs::read_dir(format!("/proc/{}/task", node.pid())).expect("it runs");
    let stats = tasks.flatten().filter_map(|task| std::fs::read_to_string(task.path().join("stat")).ok());
    let kinds = ["(vpnd-data", "(vpnd-relief", "(vpnd-in", "(vpnd-out"];
    let data = stats.filter(|stat| kinds.iter().any(|kind| stat.contains(kind)));
    data.map(|stat| place(&stat)).collect()
}

/// Fields 19 and 41 of proc_pid_stat(5).
fn place(stat: &str) -> [String; 2] {
    let behind_the_name: Vec<_> = stat.rsplit(") ").next().expect("fields").split(' ').collect();
    [19, 41].map(|field| behind_the_name[field - 3].to_owned())
}

/// What its log says of offloads and workers.
fn told(node: &Node) -> String {
    let log = node.log();
    let line = log.lines().find_map(|line| line.split_once("offloads tso=").map(|(_, rest)| rest.to_owned()));
    format!("tso={}", line.unwrap_or_else(|| panic!("it does not say which offloads are in force: {log}")))
}

const ALL: &str = "tso=true uso=true udp_segment=true udp_gro=true";
const NONE: &str = "tso=false uso=false udp_segment=false udp_gro=false";

/// Both ends so: these threads, these words in the log, and all arrives in order.
fn arrives_in_order(name: &str, spec: Spec, load: Load, threads: &[&str], words: &str) {
    if !need_root() {
        return;
    }
    let pair = Pair::start(name, &spec);
    for node in [&pair.left, &pair.right] {
        assert_eq!(data_threads(node), threads.iter().map(|name| (*name).to_owned()).collect());
        assert_eq!(told(node), words);
    }
    in_order(&pair, &both_ways(&pair, load));
}

fn with(interface: &str) -> Spec {
    Spec { interface: interface.to_owned(), ..Spec::default() }
}

/// As on a machine that has only these.
fn on_cores(cores: &str) -> Spec {
    let before = format!("taskset -c {cores}");
    Spec { before, ..with("workers = \"auto\"\noffload = \"auto\"") }
}

const FOUR: [&str; 8] = [
    "vpnd-in-0",
    "vpnd-in-1",
    "vpnd-in-2",
    "vpnd-in-3",
    "vpnd-out-0",
    "vpnd-out-1",
    "vpnd-out-2",
    "vpnd-out-3",
];

#[test]
fn four_workers_keep_the_order_of_every_flow() {
    let spec = with("workers = 4\noffload = \"auto\"");
    arrives_in_order("four", spec, DENSE, &FOUR, &format!("{ALL} workers=4 threads=8"));
}

#[test]
fn four_workers_without_offloads_keep_it_too() {
    let spec = with("workers = 4\noffload = \"off\"");
    arrives_in_order("fouroff", spec, DENSE, &FOUR, &format!("{NONE} workers=4 threads=8"));
}

#[test]
fn a_thread_for_each_direction_keeps_it() {
    let spec = with("workers = 1\noffload = \"auto\"");
    arrives_in_order("one", spec, EASY, &["vpnd-in", "vpnd-out"], &format!("{ALL} workers=1 threads=2"));
}

#[test]
fn one_packet_a_system_call_keeps_it() {
    let spec = with("workers = 1\noffload = \"off\"");
    arrives_in_order("off", spec, EASY, &["vpnd-in", "vpnd-out"], &format!("{NONE} workers=1 threads=2"));
}

#[test]
fn the_thread_that_relieves_the_other_keeps_it() {
    let spec = on_cores("0,1");
    let threads = ["vpnd-data", "vpnd-relief"];
    arrives_in_order("auto", spec, DENSE, &threads, &format!("{ALL} workers=1 threads=2"));
}

/// The second thread works while there is much to do, and sleeps through what one can do.
#[test]
fn the_second_thread_is_called_by_a_load_and_not_by_a_ping() {
    if !need_root() {
        return;
    }
    let pair = Pair::start("relief", &on_cores("0,1"));
    let slept = || naps(&pair.left)["vpnd-relief"];
    let before = slept();
    pair.left.ping(pair.right.inner4, 20);
    assert_eq!(slept(), before, "it met none of twenty pings");
    in_order(&pair, &both_ways(&pair, EASY));
    assert!(slept() > before, "it took part in the load");
    // What is left of the load may still come, then it lies down.
    let lies_down = || {
        let before = slept();
        std::thread::sleep(Duration::from_millis(100));
        slept() == before
    };
    assert!(wait_until(Duration::from_secs(20), lies_down));
    let before = naps(&pair.left);
    pair.left.ping(pair.right.inner4, 20);
    let after = naps(&pair.left);
    assert_eq!(after["vpnd-relief"], before["vpnd-relief"], "it sleeps again");
    assert!(after["vpnd-data"] >= before["vpnd-data"] + 20, "the first one does it all");
}

/// Where there is one core, one thread does all.
#[test]
fn one_thread_on_one_core_keeps_it() {
    let spec = on_cores("0");
    arrives_in_order("core", spec, EASY, &["vpnd-data"], &format!("{ALL} workers=1 threads=1"));
}

#[test]
fn four_workers_end_at_once_in_the_middle_of_a_flood() {
    if !need_root() {
        return;
    }
    let mut pair = Pair::start("end", &with("workers = 4"));
    pair.left.ping(pair.right.inner4, 1);
    let (from, to) = (pair.right.host.clone(), pair.left.host.clone());
    let flows = [1, 32].map(|datagrams| {
        Flow::trains(&from, &to, pair.left.inner4, Duration::from_micros(100), 1200, datagrams)
    });
    let key = pair.right.key();
    let flows_in = || pair.left.transfer(&key).0 > 1_000_000;
    assert!(wait_until(Duration::from_secs(20), flows_in), "nothing arrives: {}", pair.left.log());
    let status = pair.left.vpnd().stop().unwrap_or_else(|error| panic!("{error}"));
    assert!(status.success(), "{status}: {}", pair.left.log());
    assert!(flows.into_iter().all(|flow| flow.finish().in_order()));
}

/// SCHED_BATCH, and the nice value of the file; -10 where it names none.
#[test]
fn data_threads_stand_where_the_file_says_among_the_threads_of_the_machine() {
    if !need_root() {
        return;
    }
    let batch = "3";
    for (n, (line, nice)) in [("", "-10"), ("nice = 0", "0"), ("nice = 7", "7")].into_iter().enumerate() {
        let pair = Pair::start(&format!("nice{n}"), &with(line));
        // Without CAP_SYS_NICE it can be raised alone.
        let [own, _] = place(&std::fs::read_to_string("/proc/self/stat").expect("this process"));
        let value = |nice: &str| nice.parse::<i32>().expect("a number");
        let nice = if program::user().is_some() && value(&own) > value(nice) { own.as_str() } else { nice };
        assert_eq!(places(&pair.left), BTreeSet::from([[nice, batch].map(str::to_owned)]), "{line:?}");
    }
}

/// What it was given is kept, and what cannot be had is said.
#[test]
fn a_nice_value_that_is_not_granted_leaves_the_tunnel_running() {
    if !need_root() {
        return;
    }
    let denied = "setpriv --bounding-set -sys_nice";
    let pair = Pair::start("nodenied", &Spec { before: denied.to_owned(), ..with("nice = -5") });
    let [own, _] = place(&std::fs::read_to_string("/proc/self/stat").expect("this process"));
    assert_eq!(places(&pair.left), BTreeSet::from([[own, "3".to_owned()]]));
    let log = pair.left.log();
    assert!(log.contains("interface.nice: needs CAP_SYS_NICE") && log.contains("wanted=-5"), "{log}");
}
