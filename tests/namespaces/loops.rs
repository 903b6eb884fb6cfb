//! Ways to endpoints that lead through other tunnels back to where they began: what goes in comes to an end.

use std::time::Duration;

use vpnd::{
    lab::{Daemon, Host, Ping, link},
    noise::{PrivateKey, PublicKey},
    sys::random::os_rng,
};

use crate::{
    common::need_root,
    nested::{Second, ip, peer},
    world::{DEVICE, Kind, Node, NodeFile, PORT, Pair, Spec, carries, start_vpnd, try_wg, wait_until},
};

/// What `netns.sh` lets a loop send, from its pings on until a second after them.
const STORM: u64 = 70_000;

/// Three hosts as in `netns.sh`: a tunnel runs from the second to the third, past the first; another from the first
/// to the third inside it.
///
/// There a device is made in the second host and moved to the first, while its socket stays. A vpnd ends when its
/// device leaves; here the first host's packets take the way by a cable instead.
struct Ring {
    first: Host,
    inner: Daemon,
    second: Node,
    third: Host,
    third_key: PublicKey,
    thirds: [Daemon; 2],
}

impl Ring {
    fn start() -> Self {
        let [first, second, third] =
            ["0", "1", "2"].map(|end| Host::create(&format!("vpnd-ring-{end}")).expect("a namespace"));
        cables(&first, &second, &third);
        let keys = [(); 4].map(|()| PrivateKey::generate(&mut os_rng()));
        let public = keys.each_ref().map(PrivateKey::public_key);
        // The first host's own address is behind the second, for the third.
        let behind = ["fd00:5::1/128", "fd00:6::/64"];
        let outer = |host: &Host, own: usize, address: &str, peers: &str| {
            let address = [address.to_owned()];
            let file = NodeFile { private: &keys[own], address: &address, mtu: 1420, interface: "", peers };
            start_vpnd(host, &file.toml(), &[])
        };
        let inner = |host: &Host, own: usize, address: &str, peer| {
            Second { private: &keys[own], port: 5, address: &[address], mtu: 1340, peer }.start(host)
        };
        let to_second = peer(public[0], None, &behind).toml();
        let crate::world::Running::Vpnd(third_outer) = outer(&third, 1, "fd00:5::2/112", &to_second) else {
            unreachable!("it is vpnd")
        };
        let third_inner = inner(&third, 3, "192.168.241.2/24", peer(public[2], None, &["192.168.241.1/32"]));
        let to_third = peer(public[1], Some(("198.51.100.2", PORT)), &["fd00:5::2/128"]).toml();
        let running = outer(&second, 0, "fd00:5::1/112", &to_third);
        let through = peer(public[3], Some(("fd00:5::2", 5)), &["192.168.241.2/32"]);
        Self {
            inner: inner(&first, 2, "192.168.241.1/24", through),
            second: Node {
                running,
                kind: Kind::Vpnd,
                private: keys[0].clone(),
                inner4: ip("192.0.2.2"),
                inner6: ip("fd00:5::1"),
                outer: ip("192.0.2.2"),
                host: second,
            },
            third_key: public[1],
            thirds: [third_outer, third_inner],
            first,
            third,
        }
    }
}

fn cables(first: &Host, second: &Host, third: &Host) {
    for (host, device, net) in [(second, "eth1", "192.0.2"), (third, "eth2", "198.51.100")] {
        link::veth(host, "eth0", first, device).expect("a cable");
        first.add_address(device, &format!("{net}.1/24")).expect("an address");
        host.add_address("eth0", &format!("{net}.2/24")).expect("an address");
        host.add_route("0.0.0.0/0", Some(ip(&format!("{net}.1"))), "eth0").expect("a route");
    }
    first.add_address("eth1", "fd00:6::1/64").expect("an address");
    second.add_address("eth0", "fd00:6::2/64").expect("an address");
    for host in [first, second] {
        host.sysctl("ipv4.ip_forward", "1").expect("a router");
        host.sysctl("ipv6.conf.all.forwarding", "1").expect("a router");
    }
    first.add_route("fd00:5::/112", Some(ip("fd00:6::2")), "eth1").expect("a route");
    carries(first, second, ["192.0.2.2", "fd00:6::2"]);
    carries(second, third, ["198.51.100.2"]);
}

/// Bytes that all tunnels of a daemon have sent.
fn sent(host: &Host, daemon: &Daemon, device: &str) -> u64 {
    let shown = try_wg(host, &daemon.run_dir().join("wireguard"), &["show", device, "transfer"]);
    let shown = shown.expect("wg shows it");
    shown.lines().filter_map(|line| line.split_whitespace().nth(2)?.parse::<u64>().ok()).sum()
}

/// How often a daemon refused something that was sealed too often.
fn too_deep(daemon: &Daemon, device: &str) -> u64 {
    let status = daemon.status(device).expect("a status");
    let refusals = status["refusals"].as_array().expect("a list");
    let found = refusals.iter().find(|refusal| refusal["reason"] == "nested_too_deep");
    found.map_or(0, |refusal| refusal["count"].as_u64().expect("a count"))
}

/// Sends pings into a loop: none is answered, and what the loop sends, until a second after them, is no storm.
#[track_caller]
fn ping_into(host: &Host, ping: &Ping, sent: impl Fn() -> u64) {
    let before = sent();
    assert_eq!(host.ping_with(ping).expect("ping runs").received, 0);
    wait_until(Duration::from_secs(1), || sent() - before >= STORM);
    let sent = sent() - before;
    // At the least each ping itself was sealed: the loop is one.
    assert!(
        (u64::from(ping.count) * ping.payload as u64..STORM).contains(&sent),
        "{sent} bytes went into the loop"
    );
}

/// As `ping -f` does, which waits 10 ms.
fn flood(destination: &str, count: u16, payload: usize) -> Ping {
    Ping { count, payload, patience: Duration::from_millis(10), ..Ping::to(ip(destination)) }
}

/// Scenario 13.
#[test]
fn a_loop_between_two_namespaces_makes_no_storm() {
    if !need_root() {
        return;
    }
    let mut ring = Ring::start();
    let answered = wait_until(Duration::from_secs(10), || {
        ring.first.reaches(ip("192.168.241.2")).is_ok_and(|answered| answered)
    });
    assert!(answered, "log: {}\n{}", ring.inner.log(), ring.second.log());

    ring.second.set(&format!("peer {} endpoint 192.168.241.2:7", ring.third_key));
    for daemon in &mut ring.thirds {
        daemon.stop().expect("it ends");
    }
    let both =
        || sent(&ring.first, &ring.inner, "vpn1") + sent(&ring.second.host, ring.second.daemon(), DEVICE);
    ping_into(&ring.first, &flood("192.168.241.2", 10, 56), both);
    assert_eq!(too_deep(&ring.inner, "vpn1"), 10, "each ping came round, and that was that");
    assert_eq!(too_deep(ring.second.daemon(), DEVICE), 0);
    drop(ring.third);
}

/// A second pair of daemons on the hosts of the first, over the same cable.
fn beside(pair: &Pair) -> [Daemon; 2] {
    let keys = [PrivateKey::generate(&mut os_rng()), PrivateKey::generate(&mut os_rng())];
    [(&pair.left, 1), (&pair.right, 2)].map(|(node, number)| {
        let other = 3 - number;
        let second = Second {
            private: &keys[number - 1],
            port: 5,
            address: &[&format!("10.78.0.{number}/24"), &format!("fd78::{number}/64")],
            mtu: 1420,
            peer: peer(
                keys[other - 1].public_key(),
                Some((&format!("192.0.2.{other}"), 5)),
                &[&format!("10.78.0.{other}/32"), &format!("fd78::{other}/128")],
            ),
        };
        second.start(&node.host)
    })
}

/// Sets the endpoint of a daemon's only peer.
fn move_peer(host: &Host, daemon: &Daemon, device: &str, endpoint: &str) {
    let sockets = daemon.run_dir().join("wireguard");
    let key = try_wg(host, &sockets, &["show", device, "peers"]).expect("wg shows it");
    try_wg(host, &sockets, &["set", device, "peer", key.trim(), "endpoint", endpoint]).expect("wg sets it");
}

#[test]
fn two_daemons_whose_endpoints_lie_inside_each_others_tunnels_make_no_storm() {
    if !need_root() {
        return;
    }
    let pair = Pair::start("cross", &Spec::default());
    let [second, _far] = beside(&pair);
    let left = &pair.left;
    left.ping(pair.right.inner4, 1);
    left.ping(ip("10.78.0.2"), 1);
    let both = || sent(&left.host, left.daemon(), DEVICE) + sent(&left.host, &second, "vpn1");
    let deep = || too_deep(left.daemon(), DEVICE) + too_deep(&second, "vpn1");

    for (into_second, into_first) in [("10.78.0.2", "10.77.0.2"), ("[fd78::2]", "[fd77::2]")] {
        move_peer(&left.host, left.daemon(), DEVICE, &format!("{into_second}:{PORT}"));
        move_peer(&left.host, &second, "vpn1", &format!("{into_first}:5"));
        let before = deep();
        ping_into(&left.host, &flood("10.77.0.2", 10, 56), both);
        ping_into(&left.host, &flood("fd78::2", 10, 56), both);
        assert_eq!(deep() - before, 20);
        // Cut into fragments in each lap.
        ping_into(&left.host, &flood("10.77.0.2", 3, 1392), both);
    }

    move_peer(&left.host, left.daemon(), DEVICE, &format!("192.0.2.2:{PORT}"));
    let again = wait_until(Duration::from_secs(10), || left.reaches(pair.right.inner4));
    assert!(again, "log: {}", left.log());
}

#[test]
fn two_peers_whose_endpoints_lie_inside_each_others_allowed_ips_make_no_storm() {
    if !need_root() {
        return;
    }
    let pair = Pair::start("each", &Spec::default());
    let (left, right) = (&pair.left, &pair.right);
    let private = PrivateKey::generate(&mut os_rng());
    let second = Second {
        private: &private,
        port: 5,
        address: &["10.78.0.2/24"],
        mtu: 1420,
        peer: peer(left.key(), None, &["10.78.0.1/32"]),
    };
    let _daemon = second.start(&right.host);
    let other = private.public_key();
    left.host.add_address(DEVICE, "10.78.0.1/24").expect("an address");
    left.set(&format!("peer {other} allowed-ips 10.78.0.2/32 endpoint 192.0.2.2:5"));
    left.ping(right.inner4, 1);
    left.ping(ip("10.78.0.2"), 1);

    left.set(&format!("peer {} endpoint 10.78.0.2:{PORT}", right.key()));
    left.set(&format!("peer {other} endpoint 10.77.0.2:5"));
    let both = || sent(&left.host, left.daemon(), DEVICE);
    for into in ["10.77.0.2", "10.78.0.2"] {
        let before = left.refused("nested_too_deep");
        ping_into(&left.host, &flood(into, 10, 56), both);
        assert_eq!(left.refused("nested_too_deep") - before, 10);
        ping_into(&left.host, &flood(into, 3, 1392), both);
    }
    let refusal = left.refusal("nested_too_deep").expect("it was counted");
    assert!(refusal["text"].as_str().is_some_and(|text| text.contains("each other's tunnels")), "{refusal}");

    left.set(&format!("peer {} endpoint 192.0.2.2:{PORT}", right.key()));
    let again = wait_until(Duration::from_secs(10), || left.reaches(right.inner4));
    assert!(again, "log: {}", left.log());
}
