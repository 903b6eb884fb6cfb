//! The field that floods are sent on: a victim, a friend with a tunnel to it, a newcomer that it knows by key alone, and
//! an attacker, each on a cable of its own.

use std::{
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

use vpnd::{
    lab::{Host, link},
    noise::PrivateKey,
    sys::random::os_rng,
};

use crate::world::{
    DEVICE, Kind, Node, NodeFile, PORT, PeerText, cable, carries, sh, start_vpnd, wait_until,
};

/// The victim, as the attacker reaches it.
pub const VICTIM4: &str = "203.0.113.1";
pub const VICTIM6: &str = "2001:db8:a::1";
/// A port of the victim that is bound and never read.
pub const UNREAD: u16 = 9;

pub struct Field {
    pub victim: Node,
    pub friend: Node,
    pub attacker: Host,
    newcomer: Host,
    newcomer_key: PrivateKey,
    /// Takes what a control flood sends.
    _unread: [std::net::UdpSocket; 2],
}

impl Field {
    /// `interface`: more lines for the victim's file.
    pub fn new(name: &str, interface: &str) -> Self {
        let (friend, victim) = cable(name, 1500);
        let attacker = Host::create(&format!("vpnd-{name}-a")).expect("a namespace");
        let newcomer = Host::create(&format!("vpnd-{name}-n")).expect("a namespace");
        join(&victim, "eth1", [VICTIM4, VICTIM6], &attacker, ["203.0.113.2", "2001:db8:a::2"]);
        join(&victim, "eth2", ["203.0.113.5", "2001:db8:b::1"], &newcomer, ["203.0.113.6", "2001:db8:b::2"]);
        // What is sent in somebody's name is answered to somebody, who does not care.
        let by = |text: &str| Some(text.parse::<IpAddr>().expect("an address"));
        victim.add_route("198.18.0.0/15", by("203.0.113.2"), "eth1").expect("a route");
        victim.add_route("2001:db8:bad::/48", by("2001:db8:a::2"), "eth1").expect("a route");
        for device in ["all", "default", "eth0", "eth1", "eth2"] {
            victim.sysctl(&format!("ipv4.conf.{device}.rp_filter"), "0").expect("a setting");
        }
        let _unread = [VICTIM4, VICTIM6].map(|address| {
            let address = SocketAddr::new(address.parse().expect("an address"), UNREAD);
            victim.run(|| std::net::UdpSocket::bind(address)).expect("a port is free")
        });
        let keys = [(); 3].map(|()| PrivateKey::generate(&mut os_rng()));
        let peer = |n: usize, endpoint: Option<&str>| PeerText {
            key: keys[n - 1].public_key(),
            preshared: None,
            endpoint: endpoint.map(|address| (address.parse().expect("an address"), PORT)),
            allowed_ips: vec![format!("10.77.0.{n}/32"), format!("fd77::{n}/128")],
            keepalive: 0,
        };
        let start = |n: usize, host: Host, outer: &str, interface: &str, peers: &str| {
            let address = [format!("10.77.0.{n}/24"), format!("fd77::{n}/64")];
            let file = NodeFile { private: &keys[n - 1], address: &address, mtu: 1420, interface, peers };
            Node {
                kind: Kind::Vpnd,
                private: keys[n - 1].clone(),
                inner4: format!("10.77.0.{n}").parse().expect("an address"),
                inner6: format!("fd77::{n}").parse().expect("an address"),
                outer: outer.parse().expect("an address"),
                running: start_vpnd(&host, &file.toml(), &[]),
                host,
            }
        };
        let known = [peer(1, Some("192.0.2.1")), peer(3, None)].map(|peer| peer.toml()).concat();
        let victim = start(2, victim, "192.0.2.2", interface, &known);
        let friend = start(1, friend, "192.0.2.1", "", &peer(2, Some("192.0.2.2")).toml());
        friend.ping(victim.inner4, 1);
        let [_, _, newcomer_key] = keys;
        Self { victim, friend, attacker, newcomer, newcomer_key, _unread }
    }

    /// Where a flood goes to.
    pub fn target(&self) -> SocketAddr {
        SocketAddr::new(VICTIM4.parse().expect("an address"), PORT)
    }

    pub fn target6(&self) -> SocketAddr {
        SocketAddr::new(VICTIM6.parse().expect("an address"), PORT)
    }

    /// Starts a peer that the victim knows by its key alone, and stops it again; how long it took from its first
    /// initiation until it was connected.
    pub fn newcomer_connects(&self, limit: Duration) -> Option<Duration> {
        let peer = PeerText {
            key: self.victim.key(),
            preshared: None,
            endpoint: Some(("203.0.113.5".parse().expect("an address"), PORT)),
            allowed_ips: vec!["10.77.0.2/32".to_owned()],
            keepalive: 25,
        };
        let address = ["10.77.0.3/24".to_owned()];
        let peers = peer.toml();
        let file = NodeFile {
            private: &self.newcomer_key,
            address: &address,
            mtu: 1420,
            interface: "",
            peers: &peers,
        };
        let crate::world::Running::Vpnd(daemon) = start_vpnd(&self.newcomer, &file.toml(), &[]) else {
            unreachable!("it is vpnd")
        };
        let begin = Instant::now(); // its keepalive asks for a session when it is ready
        let connected = || daemon.status(DEVICE).is_ok_and(|status| status["peers"][0]["connected"] == true);
        wait_until(limit, connected).then(|| begin.elapsed())
    }

    /// VmRSS of the victim in kB.
    pub fn resident(&self) -> u64 {
        memory_kb(self.victim.pid())
    }

    pub fn under_load(&self) -> bool {
        self.victim.status()["under_load"] == true
    }

    /// Where the victim believes its friend to be.
    pub fn friend_is_at(&self) -> String {
        self.victim.shown("endpoints", &self.friend.key())
    }
}

/// VmRSS in kB.
pub fn memory_kb(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("it has memory");
    line.trim_end_matches("kB").trim().parse().expect("a number")
}

/// A cable from `device` of the one to `eth0` of the other.
fn join(host: &Host, device: &str, own: [&str; 2], other: &Host, theirs: [&str; 2]) {
    link::veth(host, device, other, "eth0").expect("a cable");
    for (host, device, addresses) in [(host, device, own), (other, "eth0", theirs)] {
        link::mtu(host, device, 1500).expect("an MTU");
        host.add_address(device, &format!("{}/30", addresses[0])).expect("an address");
        host.add_address(device, &format!("{}/64", addresses[1])).expect("an address");
    }
    carries(host, other, theirs);
    sh(other, "true");
}
