//! What takes too long for CI: 1 GB each way, and ten minutes of mixed traffic over the real 120 s rekey, with
//! each implementation. `make long` runs it as root, with the release build, and prints the figures.
//! `VPND_LONG_SECONDS` shortens the ten minutes; below 130 there is no rekey to see. And 10 GB of TCP and of numbered
//! datagrams through four workers; `VPND_LONG_BYTES` makes it less. And half an hour as fast as the machine can;
//! `VPND_LONG_SOAK` is its seconds.

#![allow(clippy::disallowed_methods, reason = "tests measure how long things take")]

#[path = "common/mod.rs"]
mod common;
#[path = "namespaces/mixture.rs"]
mod mixture;
#[path = "namespaces/streams.rs"]
mod streams;
#[path = "namespaces/world.rs"]
mod world;

use std::{
    fmt,
    process::{Command, Stdio},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use common::need_root;
use mixture::{Recipe, Way, losses};
use streams::Load;
use vpnd::plane::Clock;
use world::{Kind, Node, Pair, Running, Spec, run, wait_until};

const GIGABYTE: u64 = 1_000_000_000;
/// iperf3 ends when all is sent, and does not count what is still on its way.
const TAIL: u64 = 20_000_000;
/// RSS may differ by this between the two halves of a run.
const FLAT: u64 = 2 << 20;
const OTHERS: [Kind; 3] = [Kind::WireguardGo, Kind::Boringtun, Kind::Gotatun];

#[test]
#[ignore = "takes minutes: make long"]
fn a_gigabyte_goes_each_way_with_each_implementation() {
    if !need_root() {
        return;
    }
    // TCP fills queues until something is dropped: by the device before the tunnel, or by a slow receiver's socket.
    println!(
        "\n{:<24} Mbit/s  retransmitted: dropped by device, by socket  CPU s of sender, receiver",
        "1 GB of TCP"
    );
    for right in [Kind::Vpnd].into_iter().chain(OTHERS) {
        let pair = Pair::start("gigabyte", &Spec { right, ..Spec::default() });
        pair.left.ping(pair.right.inner4, 1);
        for (from, to) in [(&pair.left, &pair.right), (&pair.right, &pair.left)] {
            let before = [from, to].map(cpu_seconds);
            let (device, socket) = (dropped(from), overflows(to));
            let Throughput { megabits, retransmits } = gigabyte(from, to);
            let (device, socket) = (dropped(from) - device, overflows(to) - socket);
            let after = [from, to].map(cpu_seconds);
            let way = format!("{:?} → {:?}", from.kind, to.kind);
            let [sender, receiver] = [after[0] - before[0], after[1] - before[1]];
            println!(
                "{way:<24} {megabits:>6.0} {retransmits:>14} {device:>18} {socket:>10} {sender:>16.2} {receiver:>9.2}"
            );
            assert!(to.kind != Kind::Vpnd || socket == 0, "vpnd left {socket} datagrams in its socket");
        }
        for node in [&pair.left, &pair.right] {
            assert_eq!(complaints(node), Vec::<String>::new());
        }
    }
}

struct Throughput {
    megabits: f64,
    retransmits: u64,
}

/// iperf3 over IPv4.
fn gigabyte(from: &Node, to: &Node) -> Throughput {
    let mut server = Command::new("iperf3");
    server.args(["--server", "--one-off", "--bind", &to.inner4.to_string()]).stdout(Stdio::null());
    let mut server = to.host.spawn("iperf3", server).expect("iperf3 starts");
    let listens = || world::sh(&to.host, "ss -Htln").contains(":5201");
    assert!(wait_until(Duration::from_secs(5), listens), "iperf3 does not listen: {}", server.log());
    let mut client = Command::new("timeout");
    client.args(["300", "iperf3", "--json", "--client", &to.inner4.to_string()]);
    client.args(["--bytes", &(GIGABYTE + TAIL).to_string()]);
    let answer: serde_json::Value =
        serde_json::from_str(&run(&from.host, client)).expect("iperf3 speaks JSON");
    let received = &answer["end"]["sum_received"];
    assert!(received["bytes"].as_u64().is_some_and(|bytes| bytes >= GIGABYTE), "{answer}");
    assert!(server.wait(Duration::from_secs(10)).is_some(), "iperf3 serves one client");
    Throughput {
        megabits: received["bits_per_second"].as_f64().expect("a rate") / 1e6,
        retransmits: answer["end"]["sum_sent"]["retransmits"].as_u64().expect("a count"),
    }
}

/// What was printed of one pair.
struct Outcome {
    name: String,
    ways: [Way; 2],
    /// Of vpnd; of both ends where both are vpnd.
    memory: Vec<Memory>,
    rekeys: usize,
    complaints: Vec<String>,
    /// For the message, if something went wrong.
    losses: String,
}

/// VmRSS in bytes.
#[derive(Clone, Copy, Default)]
struct Memory {
    start: u64,
    first_half: u64,
    last_half: u64,
    end: u64,
}

impl fmt::Display for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [start, first, last, end] =
            [self.start, self.first_half, self.last_half, self.end].map(|bytes| bytes >> 10);
        write!(f, "RSS of vpnd in kB: {start} at the start, ")?;
        write!(f, "at most {first} and {last} in the halves, {end} at the end")
    }
}

#[test]
#[ignore = "takes ten minutes: make long"]
fn ten_minutes_of_mixed_traffic_lose_nothing_and_leak_nothing() {
    if !need_root() {
        return;
    }
    let seconds =
        std::env::var("VPND_LONG_SECONDS").map_or(600, |text| text.parse().expect("a number of seconds"));
    let recipe = Recipe {
        duration: Duration::from_secs(seconds),
        pace: Duration::from_millis(20),
        interval: Duration::from_millis(100),
        pause: Duration::from_secs(5),
    };
    // The left end begins, and so it is the one that rekeys.
    let theirs = OTHERS.map(|other| [(Kind::Vpnd, other), (other, Kind::Vpnd)]).concat();
    let pairs: Vec<_> = [(Kind::Vpnd, Kind::Vpnd)].into_iter().chain(theirs).collect();
    let ended: Vec<thread::Result<Outcome>> = thread::scope(|scope| {
        let start = |(number, &(left, right)): (usize, &(Kind, Kind))| {
            let (name, recipe) = (format!("long{number}"), &recipe);
            scope.spawn(move || {
                observed(&Pair::start(&name, &Spec { left, right, ..Spec::default() }), recipe)
            })
        };
        let running: Vec<_> = pairs.iter().enumerate().map(start).collect();
        running.into_iter().map(|pair| pair.join()).collect()
    });
    // What the others saw is told, too, if one of them failed.
    ended.iter().flatten().for_each(print);
    let outcomes: Vec<Outcome> =
        ended.into_iter().map(|end| end.unwrap_or_else(|panic| std::panic::resume_unwind(panic))).collect();
    let wrong: Vec<String> = outcomes.iter().filter_map(|outcome| fault(outcome, seconds)).collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn observed(pair: &Pair, recipe: &Recipe) -> Outcome {
    pair.left.ping(pair.right.inner4, 3);
    let ours: Vec<&Node> =
        [&pair.left, &pair.right].into_iter().filter(|node| node.kind == Kind::Vpnd).collect();
    let over = AtomicBool::new(false);
    let (ways, memory) = thread::scope(|scope| {
        let watched: Vec<_> =
            ours.iter().map(|node| scope.spawn(|| watch(node, recipe.duration, &over))).collect();
        let ways = mixture::run(pair, recipe);
        over.store(true, Ordering::Release);
        (ways, watched.into_iter().map(|thread| thread.join().expect("it only reads")).collect())
    });
    Outcome {
        name: format!("{:?} ↔ {:?}", pair.left.kind, pair.right.kind),
        ways,
        memory,
        rekeys: ours[0].log().matches("session renewed").count(),
        complaints: ours.iter().flat_map(|node| complaints(node)).collect(),
        losses: losses(pair),
    }
}

/// Looks at its memory each second.
fn watch(node: &Node, duration: Duration, over: &AtomicBool) -> Memory {
    let (begin, start) = (Clock.boot(), resident(node));
    let mut memory = Memory { start, ..Memory::default() };
    while !over.load(Ordering::Acquire) {
        memory.end = resident(node);
        let half = match Clock.boot().since(begin) < duration / 2 {
            true => &mut memory.first_half,
            false => &mut memory.last_half,
        };
        *half = memory.end.max(*half);
        thread::sleep(Duration::from_secs(1));
    }
    memory
}

fn print(outcome: &Outcome) {
    let Outcome { name, ways, memory, rekeys, complaints, .. } = outcome;
    println!("\n{name}: {rekeys} rekeys, {} warnings", complaints.len());
    println!("  there {}\n  back  {}", ways[0], ways[1]);
    for memory in memory {
        println!("  {memory}");
    }
}

/// What went wrong with a pair, if anything did.
fn fault(outcome: &Outcome, seconds: u64) -> Option<String> {
    let Outcome { name, ways, memory, rekeys, complaints, losses } = outcome;
    let fault = if !ways.iter().all(Way::whole) {
        format!("there {}; back {}\n{losses}", ways[0], ways[1])
    } else if memory.iter().any(|memory| memory.last_half > memory.first_half + FLAT) {
        "its memory grows".to_owned()
    } else if (*rekeys as u64) < seconds / 130 {
        format!("{rekeys} rekeys in {seconds} s")
    } else if !complaints.is_empty() {
        complaints.join("\n")
    } else {
        return None;
    };
    Some(format!("{name}: {fault}"))
}

#[test]
#[ignore = "takes minutes: make long"]
fn four_workers_reorder_nothing_of_ten_gigabytes_of_tcp_and_of_datagrams() {
    if !need_root() {
        return;
    }
    let bytes: u64 = std::env::var("VPND_LONG_BYTES")
        .map_or(10 * GIGABYTE, |text| text.parse().expect("a number of bytes"));
    let pair = Pair::start("workers", &Spec { interface: "workers = 4".to_owned(), ..Spec::default() });
    let each_way = Load {
        tcp: bytes / 2,
        udp: bytes / 2,
        pace: Duration::from_millis(1),
        small: Duration::from_micros(100),
        limit: Duration::from_secs(1800),
    };
    let ways = streams::both_ways(&pair, each_way);
    streams::in_order(&pair, &ways);
    assert!(ways.iter().all(|way| way.trains.sent * 1200 >= bytes / 2), "not all was sent in time");
}

#[test]
#[ignore = "takes half an hour: make long"]
fn half_an_hour_at_full_rate_reorders_nothing_and_its_memory_stays() {
    if !need_root() {
        return;
    }
    let duration = Duration::from_secs(
        std::env::var("VPND_LONG_SOAK").map_or(1800, |text| text.parse().expect("a number of seconds")),
    );
    let pair = Pair::start("soak", &Spec::default());
    let each_way = Load {
        tcp: 5 * GIGABYTE,
        udp: GIGABYTE / 10,
        pace: Duration::from_millis(5),
        small: Duration::from_millis(1),
        limit: Duration::from_secs(600),
    };
    let over = AtomicBool::new(false);
    let (carried, memory) = thread::scope(|scope| {
        let watched = [&pair.left, &pair.right].map(|node| scope.spawn(|| watch(node, duration, &over)));
        let begin = Clock.boot();
        let mut carried = 0;
        while Clock.boot().since(begin) < duration {
            let ways = streams::both_ways(&pair, each_way);
            if ways.iter().flat_map(|way| [&way.trains, &way.small]).any(|flow| !flow.lost.is_empty()) {
                println!("{}", losses(&pair));
            }
            streams::in_order(&pair, &ways);
            carried += 2 * each_way.tcp;
        }
        over.store(true, Ordering::Release);
        (carried, watched.map(|thread| thread.join().expect("it only reads")))
    });
    let rekeys = pair.left.log().matches("session renewed").count();
    println!("{} GB of TCP in {} s, {rekeys} rekeys", carried / GIGABYTE, duration.as_secs());
    for memory in memory {
        println!("  {memory}");
        assert!(memory.last_half <= memory.first_half + FLAT, "its memory grows");
    }
    assert!(rekeys as u64 >= duration.as_secs() / 130, "{rekeys} rekeys");
    for node in [&pair.left, &pair.right] {
        assert_eq!(complaints(node), Vec::<String>::new());
    }
}

/// The lines in which vpnd warns.
fn complaints(node: &Node) -> Vec<String> {
    if !matches!(node.running, Running::Vpnd(_)) {
        return Vec::new();
    }
    let loud = |line: &&str| line.contains(" WARN ") || line.contains(" ERROR ");
    node.log().lines().filter(loud).map(str::to_owned).collect()
}

/// VmRSS in bytes.
fn resident(node: &Node) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", node.pid())).expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("it has memory");
    line.trim_end_matches("kB").trim().parse::<u64>().expect("a number") << 10
}

/// Packets for which the queue of its tunnel device had no room.
fn dropped(node: &Node) -> u64 {
    let text = world::sh(&node.host, "cat /sys/class/net/vpn0/statistics/tx_dropped");
    text.trim().parse().expect("a number")
}

/// Datagrams that found no room in a socket of this host.
fn overflows(node: &Node) -> u64 {
    let text = world::sh(&node.host, "nstat -asz UdpRcvbufErrors Udp6RcvbufErrors");
    let counts =
        text.lines().filter(|line| !line.starts_with('#')).filter_map(|line| line.split_whitespace().nth(1));
    counts.map(|count| count.parse::<u64>().expect("a number")).sum()
}

/// User and system time of the process so far.
fn cpu_seconds(node: &Node) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", node.pid())).expect("it runs");
    // Behind the name, which may hold anything: utime and stime are the 12th and 13th, in ticks of 10 ms.
    let fields = stat.rsplit(')').next().expect("there is a last part").split_whitespace();
    fields.skip(11).take(2).map(|ticks| ticks.parse::<f64>().expect("a number") / 100.0).sum()
}
