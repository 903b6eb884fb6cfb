//! A router with NAT between the two ends: left 192.168.1.100 – router – right 10.0.0.100, as in `netns.sh`.

use std::{
    net::{IpAddr, SocketAddr, TcpStream},
    path::PathBuf,
    time::Duration,
};

use vpnd::{
    lab::{Daemon, Host, Ping, Setup, link},
    noise::PrivateKey,
    sys::random::os_rng,
};

use crate::{
    common::{need_root, program},
    world::{Kind, Node, NodeFile, PORT, PeerText, Running, sh, wait_until},
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
        Self::start_with(name, keepalive, &vpnd)
    }

    /// The same where the right end runs another program.
    fn start_with(name: &str, keepalive: u16, right_runs: &dyn Fn(&Host) -> PathBuf) -> Self {
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
        let program = right_runs(&right);
        let right = start(right, program, [&keys[1], &keys[0]], 2, None, 0);
        let program = vpnd(&left);
        let left = start(left, program, [&keys[0], &keys[1]], 1, Some((ip("10.0.0.100"), PORT)), keepalive);
        Self { left, router, right }
    }

    /// Flows that the router knows.
    fn flows(&self) -> usize {
        let table = sh(&self.router, "cat /proc/net/nf_conntrack");
        table.lines().filter(|flow| flow.contains(&format!("dport={PORT}"))).count()
    }
}

/// The vpnd that is tested.
fn vpnd(_: &Host) -> PathBuf {
    program::daemon().into()
}

fn start(
    host: Host,
    program: PathBuf,
    [own, other]: [&PrivateKey; 2],
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
        running: Running::Vpnd(Daemon::start(&host, &Setup::new(program, file.toml())).expect("vpnd starts")),
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

/// The router's way to a host behind the right end, which hides the router behind its own tunnel address; the peer
/// that has that host is gone.
fn hidden_router(name: &str, right_runs: &dyn Fn(&Host) -> PathBuf) -> World {
    let world = World::start_with(name, 0, right_runs);
    let right = &world.right.host;
    right.sysctl("ipv4.ip_forward", "1").expect("a router");
    sh(
        right,
        "nft add table ip nat; nft add chain ip nat out '{ type nat hook postrouting priority 100; }'; \
         nft add rule ip nat out ip saddr 10.0.0.0/24 ip daddr 10.77.0.0/24 snat to 10.77.0.2",
    );
    world.router.add_route("10.77.0.0/24", Some(ip("10.0.0.100")), "outside").expect("a route");
    world.left.ping(world.right.inner4, 1); // so that the right end knows where the left one is
    let ping = Ping { patience: Duration::from_secs(5), ..Ping::to(world.left.inner4) };
    let answered = world.router.ping_with(&ping).expect("ping runs");
    assert_eq!((answered.received, answered.refused), (1, 0), "through the NAT while the peer is there");
    world.right.set(&format!("peer {} remove", world.left.key()));
    world
}

/// Scenario 21. The router takes nothing but what comes from the net between, as in `netns.sh`.
#[test]
fn an_icmp_error_comes_back_along_the_right_path_through_nat() {
    if !need_root() || program::lacks("CAP_NET_RAW") {
        return;
    }
    let world = hidden_router("icmpnat", &vpnd);
    sh(
        &world.router,
        "nft add table ip filter; nft add chain ip filter in '{ type filter hook input priority 0; }'; \
         nft add rule ip filter in iifname outside ip saddr != 10.0.0.0/24 drop",
    );
    let page = sh(&world.router, &format!("LANG=C ping -W 5 -c 1 {} || true", world.left.inner4));
    assert!(page.contains("From 10.0.0.100 icmp_seq=1 Destination Host Unreachable"), "{page}");
    assert_eq!(world.right.refused("no_peer"), 1, "{:#}", world.right.status()["refusals"]);

    // With a port that the NAT has changed: the error finds the socket all the same.
    sh(
        &world.right.host,
        "nft flush chain ip nat out; nft add rule ip nat out ip protocol tcp snat to 10.77.0.2:7",
    );
    let nobody = SocketAddr::new(world.left.inner4, 80);
    let connect = || TcpStream::connect_timeout(&nobody, Duration::from_secs(5));
    let error = world.router.run(connect).expect_err("nobody is there");
    assert_eq!(error.raw_os_error(), Some(libc::EHOSTUNREACH), "without an answer it would be TimedOut");
}

/// Without the right to open a raw socket the error speaks in the name of its destination, and finds the router, too.
#[test]
fn an_icmp_error_comes_back_through_nat_without_a_raw_socket() {
    if !need_root() {
        return;
    }
    let world = hidden_router("icmptun", &without_raw_sockets);
    let page = sh(&world.router, &format!("LANG=C ping -W 5 -c 1 {0} || true", world.left.inner4));
    let expected = format!("From {} icmp_seq=1 Destination Host Unreachable", world.left.inner4);
    assert!(page.contains(&expected), "{page}");
}

/// A program that starts vpnd without CAP_NET_RAW.
fn without_raw_sockets(host: &Host) -> PathBuf {
    let path = host.folder().join("without-raw");
    let vpnd = env!("CARGO_BIN_EXE_vpnd");
    let script =
        format!("#!/bin/sh\nexec setpriv --bounding-set -net_raw --inh-caps -net_raw {vpnd} \"$@\"\n");
    program::script(&path, &script, 0o700);
    path
}
