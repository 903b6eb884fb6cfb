//! Battery B: pings, TCP, UDP and parallel streams, over both families, at the usual MTU and at a large one.

use std::{
    net::IpAddr,
    process::{Command, Stdio},
    time::Duration,
};

use serde_json::Value;
use vpnd::lab::{Host, Ping, tcp_transfer, udp_echo};

use crate::{
    common::need_root,
    world::{Node, Outer, Pair, Spec, counter, run, sh, wait_until},
};

/// The kernel's own test has it: 34816 on the cable, less what a tunnel adds.
const LARGE: u16 = 34_736;

/// Scenario 3.
#[test]
fn everything_passes_over_ipv4() {
    passes("b4", Outer::V4, 1420);
}

/// Scenario 4.
#[test]
fn everything_passes_over_ipv4_in_large_packets() {
    passes("b4l", Outer::V4, LARGE);
}

/// Scenario 5.
#[test]
fn everything_passes_over_ipv6() {
    passes("b6", Outer::V6, 1420);
}

/// Scenario 6.
#[test]
fn everything_passes_over_ipv6_in_large_packets() {
    passes("b6l", Outer::V6, LARGE);
}

fn passes(name: &str, outer: Outer, mtu: u16) {
    if !need_root() {
        return;
    }
    let pair = Pair::start(name, &Spec { outer, mtu, ..Spec::default() });
    let hosts = [&pair.left.host, &pair.right.host];
    hosts.iter().for_each(|host| count_fragments(host));
    battery(&pair);
    let seen = hosts.map(|host| counter(host, "fragments"));
    assert_eq!(seen, [0, 0], "an outer packet was larger than the cable");
}

/// Before anything puts them together again.
fn count_fragments(host: &Host) {
    let rules = "iifname eth0 ip frag-off & 0x3fff != 0 counter name fragments; \
                 iifname eth0 exthdr frag exists counter name fragments;";
    let chain = format!("chain pre {{ type filter hook prerouting priority -500; {rules} }};");
    sh(host, &format!("nft 'table inet vpnd_test {{ counter fragments {{ }}; {chain} }}'"));
}

fn battery(pair: &Pair) {
    let (left, right) = (&pair.left, &pair.right);
    for (from, to) in [(right, left), (left, right)] {
        for inner in [to.inner4, to.inner6] {
            from.ping(inner, 500);
            full_sized_ping(from, inner);
        }
    }
    for (from, to, inner) in [(left, right, right.inner4), (right, left, left.inner6)] {
        let sent = tcp_transfer(&from.host, &to.host, inner, 8_000_000, Duration::from_secs(60));
        assert!(sent.expect("all bytes arrive").intact, "TCP to {inner} was altered");
    }
    for (from, to, inner) in [(right, left, left.inner4), (left, right, right.inner6)] {
        let echo = udp_echo(&from.host, &to.host, inner, 200, 1300).expect("UDP runs");
        assert_eq!((echo.sent, echo.echoed), (200, 200), "UDP to {inner}");
        flood(from, to, inner);
    }
    for streams in [4, 5, 50] {
        parallel(left, right, right.inner4, streams);
    }
}

/// As large as the device lets through, in one piece: such a packet must fit into one outer packet, too.
#[track_caller]
fn full_sized_ping(from: &Node, inner: IpAddr) {
    let mtu: usize = sh(&from.host, "cat /sys/class/net/vpn0/mtu").trim().parse().expect("an MTU");
    let headers = if inner.is_ipv4() { 20 + 8 } else { 40 + 8 };
    let ping = Ping { payload: mtu - headers, count: 3, ..Ping::patiently(inner) };
    assert_eq!(from.host.ping_with(&ping).expect("ping runs").received, 3, "{} to {inner}", from.host.name());
}

/// UDP as fast as it goes: some of it is lost on the way, none of the tunnel.
#[track_caller]
fn flood(from: &Node, to: &Node, inner: IpAddr) {
    let report = iperf(from, to, inner, "-u -b 0 -n 10M -l 1300");
    let sum = &report["end"]["sum"];
    let (packets, lost) = (sum["packets"].as_u64(), sum["lost_packets"].as_u64());
    assert!(packets > lost && packets >= Some(8_000), "nothing arrived: {sum}");
    from.ping(inner, 1);
}

/// Many TCP streams at once; every byte of each gets through.
fn parallel(from: &Node, to: &Node, inner: IpAddr, streams: usize) {
    let stream = || tcp_transfer(&from.host, &to.host, inner, 300_000, Duration::from_secs(60));
    let ended: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..streams).map(|_| scope.spawn(stream)).collect();
        threads.into_iter().map(|thread| thread.join().expect("no panic")).collect()
    });
    for transfer in ended {
        assert!(transfer.expect("all bytes of each stream arrive").intact, "one of {streams} was altered");
    }
}

/// Runs iperf3 between two nodes; its report.
#[track_caller]
fn iperf(from: &Node, to: &Node, address: IpAddr, arguments: &str) -> Value {
    let mut server = Command::new("iperf3");
    server.args(["--server", "--one-off", "--bind", &address.to_string()]).stdout(Stdio::null());
    let mut server = to.host.spawn("iperf", server).expect("iperf3 is installed");
    let listens = || !sh(&to.host, "ss -Hltn 'sport = :5201'").is_empty();
    assert!(wait_until(Duration::from_secs(10), listens), "iperf3 does not listen: {}", server.log());
    let mut client = Command::new("iperf3");
    client.args(["--json", "--connect-timeout", "5000", "--client", &address.to_string()]);
    client.args(arguments.split_whitespace());
    let report = run(&from.host, client);
    assert!(server.wait(Duration::from_secs(10)).is_some(), "the server does not end: {}", server.log());
    serde_json::from_str(&report).expect("iperf3 speaks JSON")
}
