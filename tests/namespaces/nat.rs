//! A router with NAT between the two ends: left 192.168.1.100 – router – right 10.0.0.100, as in `netns.sh`.

use std::{net::IpAddr, time::Duration};

use vpnd::{
    lab::{Host, Ping, link},
    noise::PrivateKey,
    sys::random::os_rng,
};

use crate::{
    common::need_root,
    world::{Kind, Node, NodeFile, PORT, PeerText, sh, start_vpnd, wait_until},
};

struct World {
    left: Node,
    router: Host,
    right: Node,
}

impl World {
    /// The router forgets a UDP flow after two seconds, and hides the left net behind 10.0.0.1. The right end does
    /// not know where the left one is.
    fn start(name: &str, keepalive: u16) -> Self {
        let [left, router, right] =
            ["l", "m", "r"].map(|end| Host::create(&format!("vpnd-{name}-{end}")).expect("a namespace"));
        for (host, address, device) in
            [(&left, "192.168.1.100/24", "inside"), (&right, "10.0.0.100/24", "outside")]
        {
            link::veth(host, "eth0", &router, device).expect("a cable");
            host.add_address("eth0", address).expect("an address");
        }
        router.add_address("inside", "192.168.1.1/24").expect("an address");
        router.add_address("outside", "10.0.0.1/24").expect("an address");
        left.add_route("10.0.0.0/24", Some(ip("192.168.1.1")), "eth0").expect("a route");
        router.sysctl("ipv4.ip_forward", "1").expect("a router");
        sh(
            &router,
            "nft add table ip nat; nft add chain ip nat out '{ type nat hook postrouting priority 100; }'; \
             nft add rule ip nat out ip saddr 192.168.1.0/24 ip daddr 10.0.0.0/24 snat to 10.0.0.1",
        );
        // They are there once conntrack is in use.
        for timeout in ["nf_conntrack_udp_timeout", "nf_conntrack_udp_timeout_stream"] {
            router.sysctl(&format!("netfilter.{timeout}"), "2").expect("a timeout");
        }
        let keys = [(); 2].map(|()| PrivateKey::generate(&mut os_rng()));
        let right = start(right, &keys[1], &keys[0], 2, None, 0);
        let left = start(left, &keys[0], &keys[1], 1, Some((ip("10.0.0.100"), PORT)), keepalive);
        Self { left, router, right }
    }

    /// Flows that the router knows.
    fn flows(&self) -> usize {
        let table = sh(&self.router, "cat /proc/net/nf_conntrack");
        table.lines().filter(|flow| flow.contains(&format!("dport={PORT}"))).count()
    }
}

fn start(
    host: Host,
    own: &PrivateKey,
    other: &PrivateKey,
    number: u8,
    endpoint: Option<(IpAddr, u16)>,
    keepalive: u16,
) -> Node {
    let peer = PeerText {
        key: other.public_key(),
        preshared: None,
        endpoint,
        allowed_ips: vec![format!("10.77.0.{}/32", 3 - number)],
        keepalive,
    };
    let address = [format!("10.77.0.{number}/24")];
    let file = NodeFile { private: own, address: &address, mtu: 1420, interface: "", peers: &peer.toml() };
    Node {
        running: start_vpnd(&host, &file.toml(), &[]),
        kind: Kind::Vpnd,
        private: own.clone(),
        inner4: ip(&format!("10.77.0.{number}")),
        inner6: ip(&format!("fd77::{number}")),
        outer: ip(if number == 1 { "192.168.1.100" } else { "10.0.0.100" }),
        host,
    }
}

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

/// Scenario 14.
#[test]
fn a_nat_that_forgets_after_two_seconds_shuts_the_way_back_until_the_inner_end_speaks() {
    if !need_root() {
        return;
    }
    let world = World::start("snat", 0);
    world.left.ping(world.right.inner4, 1);
    world.right.ping(world.left.inner4, 1);
    let seen = world.right.shown("endpoints", &world.left.key());
    assert!(seen.starts_with("10.0.0.1:"), "{seen}");

    let forgotten = wait_until(Duration::from_secs(6), || world.flows() == 0);
    assert!(forgotten, "the router still knows the flow");
    assert!(!world.right.reaches(world.left.inner4), "through a router that has forgotten");
    // The right end's answer goes to where the next authentic packet comes from.
    world.left.ping(world.right.inner4, 1);
    world.right.ping(world.left.inner4, 1);
}

/// Scenario 15.
#[test]
fn a_persistent_keepalive_holds_the_nat_open() {
    if !need_root() {
        return;
    }
    let world = World::start("snatkeep", 1);
    let connected = wait_until(Duration::from_secs(5), || world.right.last_handshake(&world.left.key()) != 0);
    assert!(connected, "a keepalive makes the session: {}", world.left.log());
    let forgotten = wait_until(Duration::from_secs(4), || world.flows() == 0);
    assert!(!forgotten, "the router forgot the flow");
    world.right.ping(world.left.inner4, 3);
    assert!(world.right.shown("endpoints", &world.left.key()).starts_with("10.0.0.1:"));
}

/// Scenario 21: the router pings a host behind the right end, which hides it behind its own tunnel address. The
/// answer that nobody is there is about the hidden packet, and yet finds the router.
#[test]
fn an_icmp_error_comes_back_along_the_right_path_through_nat() {
    if !need_root() {
        return;
    }
    let world = World::start("icmpnat", 0);
    let right = &world.right.host;
    right.sysctl("ipv4.ip_forward", "1").expect("a router");
    sh(
        right,
        "nft add table ip nat; nft add chain ip nat out '{ type nat hook postrouting priority 100; }'; \
         nft add rule ip nat out ip saddr 10.0.0.0/24 ip daddr 10.77.0.0/24 snat to 10.77.0.2",
    );
    world.router.add_route("10.77.0.0/24", Some(ip("10.0.0.100")), "outside").expect("a route");
    let ping = Ping { patience: Duration::from_secs(5), ..Ping::to(world.left.inner4) };

    world.left.ping(world.right.inner4, 1); // so that the right end knows where the left one is
    let answered = world.router.ping_with(&ping).expect("ping runs");
    assert_eq!((answered.received, answered.refused), (1, 0), "through the NAT while the peer is there");

    world.right.set(&format!("peer {} remove", world.left.key()));
    let refused = world.router.ping_with(&ping).expect("ping runs");
    assert_eq!((refused.received, refused.refused), (0, 1), "host unreachable, from {}", world.left.inner4);
    assert_eq!(world.right.refused("no_peer"), 1, "{:#}", world.right.status()["refusals"]);
}
