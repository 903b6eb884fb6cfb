//! Packets that die at a device by which they were to leave, or wait there: a packet socket sees none of it.
//!
//! Each has a length that no other packet has, so that it can be told from all others in this kernel.

use std::{net::UdpSocket, process::Command, time::Duration};

use vpnd::{
    lab::{Host, Ping},
    trace::{Killer, Outcome, Place, Walk},
};

use super::world::{Spec, Traced, Watcher, World, ip, on, until};

/// Headers of an echo request, or of a datagram, in IPv4.
const HEADERS: usize = 28;

/// Bytes of the carrier by IPv4 of a packet with so many: it is padded, and has headers around it, and a tag.
fn carrier(bytes: usize) -> usize {
    bytes.next_multiple_of(16) + 32 + HEADERS
}

/// Packets of this length.
fn long(bytes: usize) -> String {
    format!("greater {bytes} and less {bytes}")
}

/// A ping of that length, for which nobody waits.
fn ping(bytes: usize) -> Ping {
    Ping { payload: bytes - HEADERS, patience: Duration::ZERO, ..Ping::to(ip("10.77.0.2")) }
}

/// It died at this station, of this reason, in one of these functions; the station's facts.
#[track_caller]
fn assert_given_up(traced: &Traced, at: &str, reasons: &[&str], functions: &[&str]) -> String {
    let all = format!("{}\n{}", traced.as_text(), traced.said);
    let (place, killer, _) = traced.death();
    assert_eq!((place.as_str(), killer), (at, Killer::Kernel), "{all}");
    let Outcome::Died(death) = &traced.page().outcome else { unreachable!("it has died") };
    let reason = death.drop_reason.as_deref().unwrap_or_else(|| panic!("no reason: {all}"));
    let reason = reason.strip_prefix("SKB_DROP_REASON_").expect("the kernel's prefix");
    assert!(reasons.contains(&reason), "{reason}: {all}");
    let station = &traced.page().stations[death.station];
    assert!(!station.inferred && station.at_us.is_some(), "the kernel saw it there: {all}");
    let facts = station.facts.join("\n");
    assert!(functions.iter().any(|by| facts.contains(&format!(" in {by} (skb:kfree_skb)"))), "{all}");
    facts
}

/// Until the kernel's account is whole: what others do in this kernel fills its buffers, too. It says so where it is not.
#[track_caller]
fn told_whole(mut trace: impl FnMut() -> Traced) -> Traced {
    const TRIES: usize = 8;
    for _ in 1..TRIES {
        let traced = trace();
        if !traced.page().notes.iter().any(|note| note.contains("account of what it dropped is not whole")) {
            return traced;
        }
    }
    trace()
}

#[track_caller]
fn why(traced: &Traced) -> String {
    traced.death().2
}

#[test]
fn a_packet_that_finds_the_queue_of_the_tunnels_device_full_dies_there() {
    let Some(world) = World::ready("full", &Spec::default()) else { return };
    on(&world.left, "ip link set vpn0 txqueuelen 4");
    const BYTES: usize = 599;
    let follow = format!("udp and dst port 9 and {}", long(BYTES));
    let traced = told_whole(|| {
        let mut watcher = Watcher::start(&world.left, &world.daemons[0], &follow, "watch");
        // It stands still, as a program does that has no core; and nobody reads the device.
        let stopped = Stopped::stop(world.daemons[0].pid());
        world.left.run(|| {
            let socket = UdpSocket::bind("10.77.0.1:0").expect("a socket");
            for _ in 0..200 {
                socket.send_to(&[1; 60], "10.77.0.2:9").expect("the device takes it, or not");
            }
            socket.send_to(&[2; BYTES - HEADERS], "10.77.0.2:9").expect("who sends is told nothing");
        });
        watcher.ended_or_stopped();
        drop(stopped);
        Traced::read(watcher.pages(), watcher.said())
    });
    traced.assert_way(&[
        "l program socket",
        "l inner OUTPUT",
        "l inner routing",
        "l inner POSTROUTING",
        "l inner vpn0 dropped",
    ]);
    assert_given_up(&traced, "l inner vpn0 dropped", &["FULL_RING"], &["tun_net_xmit"]);
    assert!(why(&traced).contains("the ring of vpn0 is full"), "{}", why(&traced));
}

/// A process that stands still until this is dropped.
struct Stopped(u32);

impl Stopped {
    #[track_caller]
    fn stop(process: u32) -> Self {
        signal("STOP", process);
        let state = || std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
        let stopped = Self(process);
        until("it stands still", || {
            state().rsplit_once(") ").is_some_and(|(_, state)| state.starts_with('T'))
        });
        stopped
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        signal("CONT", self.0);
    }
}

#[track_caller]
fn signal(name: &str, process: u32) {
    let status = Command::new("kill").arg(format!("-{name}")).arg(process.to_string()).status();
    assert!(status.expect("kill runs").success(), "SIG{name} to {process}");
}

#[test]
fn a_packet_for_a_device_without_a_carrier_dies_in_its_queue_in_both_families() {
    let Some(world) = World::ready("nocarrier", &Spec::default()) else { return };
    on(&world.left, "ip link set vpn0 carrier off");
    // Its queue is taken away a moment later.
    until("the kernel knows it", || on(&world.left, "ip link show vpn0").contains("state DOWN"));
    for (to, header) in [("10.77.0.2", 20), ("fd77::2", 40)] {
        let size = 631 - header - 8;
        let traced = told_whole(|| world.trace(&format!("{to} --size {size} --seconds 3")));
        let dead = "l inner vpn0 dropped";
        assert_eq!(traced.way().last().map(String::as_str), Some(dead), "{}", traced.as_text());
        let facts = assert_given_up(&traced, dead, &["QDISC_DROP"], &["__dev_queue_xmit"]);
        assert!(why(&traced).contains("the queueing discipline (qdisc) of vpn0"), "{}", why(&traced));
        assert!(facts.contains("vpn0 is down, or has no carrier"), "{facts}");
        assert!(facts.contains("the only packet of 631 bytes that was to leave by vpn0"), "{facts}");
        assert_eq!(traced.code, Some(1));
    }
}

/// A queue that takes what is short, such as a handshake, and no carrier of ours.
const SHORT_QUEUE: &str = "tc qdisc add dev eth0 root bfifo limit 400";

#[test]
fn a_carrier_that_the_queue_of_the_outer_device_drops_has_not_left() {
    let Some(world) = World::ready("qdisc", &Spec::default()) else { return };
    on(&world.left, SHORT_QUEUE);
    let probe = format!("10.77.0.2 --size {} --seconds 3", 663 - HEADERS);
    let traced = told_whole(|| world.trace(&probe));
    let dead = "l outer eth0 dropped";
    let way = traced.way();
    let expected = ["l program vpnd", "l outer OUTPUT", "l outer routing", "l outer POSTROUTING", dead];
    assert_eq!(way[5..], expected, "{}", traced.as_text());
    let facts = assert_given_up(&traced, dead, &["QDISC_DROP"], &["__dev_queue_xmit"]);
    assert!(why(&traced).contains("the queueing discipline (qdisc) of eth0"), "{}", why(&traced));
    let known = format!("the only packet of {} bytes that was to leave by eth0", carrier(663));
    assert!(facts.contains(&known), "{facts}");
    let text = traced.as_text();
    let words = text.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(words.contains("dropped it. The kernel's reason: SKB_DROP_REASON_QDISC_DROP."), "{text}");
    // One that is short enough takes the same way, and leaves.
    let traced = world.trace("10.77.0.2 --seconds 3");
    assert!(matches!(traced.page().outcome, Outcome::Left { answered_us: Some(_) }), "{}", traced.as_text());
}

/// The functions that end what waits for a neighbour, by the names of several kernels.
const INVALIDATE: [&str; 3] = ["neigh_invalidate", "arp_error_report", "ndisc_error_report"];
/// A kernel may say no reason there.
const NEIGH: [&str; 2] = ["NEIGH_FAILED", "NOT_SPECIFIED"];

/// The right end is no longer there.
#[track_caller]
fn leave(world: &World, address: &str) {
    on(&world.right, &format!("ip addr del {address} dev eth0"));
}

/// A host has forgotten all neighbours behind this device.
#[track_caller]
fn forget(host: &Host, device: &str) {
    on(host, &format!("ip neigh flush dev {device}"));
}

#[test]
fn a_carrier_whose_next_hop_does_not_say_its_address_dies_of_that_in_both_families() {
    const BYTES: usize = 695;
    for (name, spec, address, length) in [
        ("arp", Spec::default(), "192.0.2.2/24", carrier(BYTES)),
        ("ndisc", Spec { v6_endpoints: true, ..Spec::default() }, "2001:db8::2/64", carrier(BYTES) + 20),
    ] {
        let Some(world) = World::ready(name, &spec) else { return };
        leave(&world, address);
        let traced = told_whole(|| {
            forget(&world.left, "eth0");
            world.trace(&format!("10.77.0.2 --size {}", BYTES - HEADERS))
        });
        let dead = "l outer eth0 dropped";
        assert_eq!(traced.way().last().map(String::as_str), Some(dead), "{}", traced.as_text());
        let facts = assert_given_up(&traced, dead, &NEIGH, &INVALIDATE);
        let (next_hop, _) = address.split_once('/').expect("a prefix");
        assert!(
            why(&traced).contains(&format!("its next hop {next_hop} on eth0 did not say")),
            "{}",
            why(&traced)
        );
        assert!(facts.contains(&format!("the neighbour {next_hop} failed")), "{facts}");
        let post = traced.at("l", Walk::Outer, Place::Postrouting);
        assert_eq!(post.packet.as_ref().and_then(|packet| packet.bytes), Some(length as u64), "{post:?}");
    }
}

#[test]
fn who_follows_a_packet_that_waits_for_a_neighbour_waits_with_it_and_says_so() {
    let Some(world) = World::ready("waits", &Spec::default()) else { return };
    leave(&world, "192.0.2.2/24");
    const BYTES: usize = 727;
    let follow = format!("icmp and dst host 10.77.0.2 and {}", long(BYTES));
    let wait = |label: &str, end: fn(&mut Watcher)| {
        told_whole(|| {
            forget(&world.left, "eth0");
            let mut watcher = Watcher::start(&world.left, &world.daemons[0], &follow, label);
            assert_eq!(world.left.ping_with(&ping(BYTES)).expect("a ping is sent").received, 0);
            until("it waits", || watcher.said().contains("waits for 192.0.2.2 on eth0"));
            end(&mut watcher);
            Traced::read(watcher.pages(), watcher.said())
        })
    };
    let traced = wait("whole", Watcher::ended);
    assert_given_up(&traced, "l outer eth0 dropped", &NEIGH, &INVALIDATE);
    // Who is not given the time says where it is.
    let traced = wait("short", Watcher::stop);
    let Outcome::Unknown { why } = &traced.page().outcome else { panic!("{}", traced.as_text()) };
    assert!(why.contains("it waits until its next hop 192.0.2.2 on eth0"), "{why}");
    assert_eq!(traced.way().last().map(String::as_str), Some("l outer eth0 unknown"), "{}", traced.as_text());
}

/// A host between the ends, and what it says of the carrier of one ping with this many bytes.
struct Middle {
    world: World,
    host: Host,
}

impl Middle {
    fn draw(name: &str) -> Option<Self> {
        let world = World::ready(name, &Spec::default())?;
        let host = Host::create(&format!("vpnd-trace-{name}-m")).expect("a namespace");
        world.pull_through(&host);
        Some(Self { world, host })
    }

    #[track_caller]
    fn follow_a_ping(&self, label: &str) -> Traced {
        const BYTES: usize = 759;
        let follow = format!("udp port 51820 and {}", long(carrier(BYTES)));
        let mut watcher = Watcher::between_for(&self.host, &follow, label, &[]);
        assert_eq!(self.world.left.ping_with(&ping(BYTES)).expect("a ping is sent").received, 0);
        watcher.ended();
        Traced::read(watcher.pages(), watcher.said())
    }
}

#[test]
fn a_carrier_that_dies_on_a_host_in_the_middle_dies_at_the_device_by_which_it_was_to_leave() {
    let Some(middle) = Middle::draw("mid-out") else { return };
    on(&middle.host, "tc qdisc add dev right root bfifo limit 400");
    let traced = told_whole(|| middle.follow_a_ping("qdisc"));
    let dead = "m outer right dropped";
    traced.assert_way(&[
        "m outer left",
        "m outer PREROUTING",
        "m outer routing",
        "m outer FORWARD",
        "m outer POSTROUTING",
        dead,
    ]);
    assert_given_up(&traced, dead, &["QDISC_DROP"], &["__dev_queue_xmit"]);
    on(&middle.host, "tc qdisc del dev right root");
    // The cable is whole, and nobody behind it has that address.
    on(&middle.world.right, "ip addr flush dev eth0");
    on(&middle.world.right, "ip addr flush dev eth1");
    let traced = told_whole(|| {
        forget(&middle.host, "right");
        middle.follow_a_ping("arp")
    });
    assert_given_up(&traced, dead, &NEIGH, &INVALIDATE);
    assert!(why(&traced).contains("its next hop 192.0.2.2 on right did not say"), "{}", why(&traced));
}
