//! Tunnels in tunnels, hosts behind hosts, and ways that lead back to where they began.

use std::{net::IpAddr, time::Duration};

use vpnd::{
    lab::{Daemon, Host, Ping, Setup, link, tcp_transfer, udp_echo},
    noise::{PrivateKey, PublicKey},
    sys::random::os_rng,
};

use crate::{
    common::{need_root, program},
    world::{NodeFile, PORT, Pair, PeerText, Spec, as_in_matrix, carries, start_vpnd, wait_until},
};

/// A second vpnd on a host that has one already.
pub struct Second<'a> {
    pub private: &'a PrivateKey,
    pub port: u16,
    pub address: &'a [&'a str],
    pub mtu: u16,
    pub peer: PeerText<'a>,
}

impl Second<'_> {
    pub fn start(&self, host: &Host) -> Daemon {
        let toml = format!(
            "[interface]\nname = \"vpn1\"\nprivate_key = \"{}\"\nlisten_port = {}\naddress = {:?}\nmtu = {}\n{}",
            *self.private.to_base64(),
            self.port,
            self.address,
            self.mtu,
            self.peer.toml()
        );
        let mut setup = Setup::new(program::daemon(), as_in_matrix(&toml));
        setup.label = "second".to_owned();
        if program::user().is_some() {
            // Its port is that of `netns.sh`: 5.
            host.sysctl("ipv4.ip_unprivileged_port_start", "0").expect("a setting");
        }
        Daemon::start(host, &setup).unwrap_or_else(|error| panic!("the second vpnd does not start: {error}"))
    }
}

pub fn peer(key: PublicKey, endpoint: Option<(&str, u16)>, allowed_ips: &[&str]) -> PeerText<'static> {
    PeerText {
        key,
        preshared: None,
        endpoint: endpoint.map(|(address, port)| (ip(address), port)),
        allowed_ips: allowed_ips.iter().map(|prefix| (*prefix).to_owned()).collect(),
        keepalive: 0,
    }
}

pub fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

/// Scenario 12.
#[test]
fn a_tunnel_runs_inside_a_tunnel() {
    if !need_root() {
        return;
    }
    let pair = Pair::start("onion", &Spec::default());
    let keys = [PrivateKey::generate(&mut os_rng()), PrivateKey::generate(&mut os_rng())];
    let _daemons = [(&pair.left, 1), (&pair.right, 2)].map(|(node, number)| {
        let other = 3 - number;
        let (outer, inner4, inner6) =
            (format!("fd77::{other}"), format!("10.78.0.{other}/32"), format!("fd78::{other}/128"));
        let second = Second {
            private: &keys[number - 1],
            port: 5,
            address: &[&format!("10.78.0.{number}/24"), &format!("fd78::{number}/64")],
            mtu: 1340,
            peer: peer(keys[other - 1].public_key(), Some((&outer, 5)), &[&inner4, &inner6]),
        };
        second.start(&node.host)
    });
    let (left, right) = (&pair.left, &pair.right);
    for inner in ["10.78.0.2", "fd78::2"] {
        left.ping(ip(inner), 100);
    }
    for inner in ["10.78.0.1", "fd78::1"] {
        right.ping(ip(inner), 100);
    }
    let limit = Duration::from_secs(60);
    let there = tcp_transfer(&left.host, &right.host, ip("10.78.0.2"), 4_000_000, limit).expect("TCP");
    let back = tcp_transfer(&right.host, &left.host, ip("fd78::1"), 4_000_000, limit).expect("TCP");
    assert!(there.intact && back.intact);
    let echo = udp_echo(&left.host, &right.host, ip("fd78::2"), 100, 1200).expect("UDP runs");
    assert_eq!(echo.echoed, echo.sent);
    assert_eq!((left.refused("routing_loop"), right.refused("routing_loop")), (0, 0));
}

/// Beside scenario 13 (`loops`): the file refuses such an endpoint, `wg set` cannot know the host's routes.
#[test]
fn an_endpoint_inside_its_own_tunnel_makes_no_storm() {
    if !need_root() {
        return;
    }
    let pair = Pair::start("loop", &Spec::default());
    let (left, right) = (&pair.left, &pair.right);
    left.ping(right.inner4, 1);
    for endpoint in [format!("{}:{PORT}", right.inner4), format!("[{}]:{PORT}", right.inner6)] {
        left.set(&format!("peer {} endpoint {endpoint}", right.key()));
        let sent = || left.transfer(&right.key()).1;
        let (before, loops) = (sent(), left.refused("routing_loop"));
        for payload in [56, 1392] {
            let ping =
                Ping { count: 5, payload, patience: Duration::from_millis(20), ..Ping::to(right.inner4) };
            assert_eq!(left.host.ping_with(&ping).expect("ping runs").received, 0);
        }
        let storm = wait_until(Duration::from_secs(1), || sent() - before >= 70_000);
        assert!(!storm, "{} bytes were sent into the loop", sent() - before);
        assert!(left.refused("routing_loop") >= loops + 10);
    }
    left.set(&format!("peer {} endpoint {}:{PORT}", right.key(), right.outer));
    let again = wait_until(Duration::from_secs(10), || left.reaches(right.inner4));
    assert!(again, "log: {}", left.log());
}

/// Scenarios 18 and 19: a third peer whose endpoint is an address inside the tunnel to the second; then one that
/// is inside the tunnel to itself.
#[test]
fn a_third_peer_is_reached_through_the_tunnel_to_the_second_but_not_through_its_own() {
    if !need_root() {
        return;
    }
    let mut pair = Pair::start("third", &Spec::default());
    let (left, right) = (&pair.left, &pair.right);
    let third = PrivateKey::generate(&mut os_rng());
    let second = Second {
        private: &third,
        port: 5,
        address: &["10.78.0.2/24"],
        mtu: 1340,
        peer: peer(left.key(), None, &["10.78.0.1/32"]),
    };
    let _daemon = second.start(&right.host);
    left.host.add_address("vpn0", "10.78.0.1/24").expect("an address");
    let third = third.public_key();
    left.set(&format!("peer {third} allowed-ips 10.78.0.2/32 endpoint 10.77.0.2:5"));
    left.ping(ip("10.78.0.2"), 5);
    assert_eq!(left.refused("routing_loop"), 0);

    left.set(&format!("peer {third} endpoint 10.78.0.2:5"));
    let ping = Ping { count: 5, patience: Duration::from_millis(20), ..Ping::to(ip("10.78.0.2")) };
    assert_eq!(left.host.ping_with(&ping).expect("ping runs").received, 0);
    assert!(wait_until(Duration::from_secs(10), || left.refused("routing_loop") >= 5));
    left.ping(right.inner4, 5);
    assert!(pair.left.vpnd().ended().is_none(), "log: {}", pair.left.log());
}

#[test]
fn a_host_behind_a_host_is_reached_through_two_tunnels() {
    if !need_root() {
        return;
    }
    let pair = Pair::start("hub", &Spec::default());
    let (left, hub) = (&pair.left, &pair.right);
    let host = Host::create("vpnd-hub-third").expect("a namespace");
    link::veth(&host, "eth0", &hub.host, "eth1").expect("a cable");
    host.add_address("eth0", "198.51.100.3/24").expect("an address");
    hub.host.add_address("eth1", "198.51.100.2/24").expect("an address");
    hub.host.sysctl("ipv4.ip_forward", "1").expect("a sysctl of this host");
    carries(&host, &hub.host, ["198.51.100.2"]);
    let private = PrivateKey::generate(&mut os_rng());
    let peers = peer(hub.key(), Some(("198.51.100.2", PORT)), &["10.77.0.0/24"]).toml();
    let address = ["10.77.0.3/32".to_owned()];
    let file = NodeFile { private: &private, address: &address, mtu: 1420, interface: "", peers: &peers };
    let _third = start_vpnd(&host, &file.toml(), &[]);
    hub.set(&format!("peer {} allowed-ips 10.77.0.3/32", private.public_key()));
    left.set(&format!("peer {} allowed-ips 10.77.0.0/24", hub.key()));
    assert_eq!(host.ping(left.inner4, 5).expect("ping runs").received, 5, "log: {}", hub.log());
    left.ping(ip("10.77.0.3"), 5);
}
