//! A host's routing, drawn by chance: tables, routes of all kinds, rules with all selectors, peers.

use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;
use rand_chacha::ChaCha8Rng;
use vpnd::{
    noise::PublicKey,
    tunnel::{AllowedIpOp, PeerChange},
};

use super::world::{TUNNEL, WIRES, batch, below, one_of, own, sysctl};

/// Tables that rules lead to, and routes stand in.
const TABLES: [&str; 5] = ["main", "main", "100", "101", "1000"];
/// What is ours among the routes.
const PROTOCOL: u8 = 42;

pub const MARKS: [u32; 4] = [0, 0, 1, 0x23];
pub const PORTS: [u16; 4] = [4000, 4001, 4100, 5000];

/// A rule of ours: its priority, what it asks, what it does.
#[derive(Clone, Debug)]
pub struct RuleText {
    pub priority: u32,
    pub inverted: bool,
    pub asks: String,
    pub does: String,
}

#[derive(Clone, Debug)]
pub struct Topology {
    pub v6: bool,
    pub rules: Vec<RuleText>,
    pub routes: Vec<String>,
    pub peers: Vec<PeerChange>,
    pub fwmark: u32,
    pub forwards: bool,
    /// Of each wire.
    pub rp_filter: [u8; 3],
}

/// An address of the small world: some are ours, many are routed, some are not.
pub fn address(rng: &mut ChaCha8Rng, v6: bool) -> IpAddr {
    if below(rng, 12) == 0 {
        let n = below(rng, WIRES.len() + 1);
        return own(v6, n);
    }
    let network = one_of(rng, &[0u8, 1, 2, 3, 9, 40]);
    let subnet = one_of(rng, &[0u8, 0, 1, 64]);
    let host = one_of(rng, &[2u8, 3, 9, 17, 130]);
    match v6 {
        false => [10, network, subnet, host].into(),
        true => format!("fd00:{network}:0:{subnet:x}::{host:x}").parse().expect("an address"),
    }
}

/// A prefix that holds such an address.
pub fn prefix(rng: &mut ChaCha8Rng, v6: bool) -> IpNet {
    let length = match v6 {
        false => one_of(rng, &[0u8, 8, 12, 16, 16, 18, 24, 24, 28, 32, 32]),
        true => one_of(rng, &[0u8, 16, 24, 32, 32, 50, 64, 64, 124, 128, 128]),
    };
    IpNet::new(address(rng, v6), length).expect("a valid length").trunc()
}

impl Topology {
    pub fn draw(rng: &mut ChaCha8Rng, v6: bool) -> Self {
        let mut priorities: Vec<u32> = (0..below(rng, 8)).map(|_| 1 + below(rng, 900) as u32).collect();
        priorities.sort_unstable();
        priorities.dedup();
        let rules = priorities.iter().map(|&priority| rule(rng, v6, priority, &priorities)).collect();
        Self {
            v6,
            rules,
            routes: (0..3 + below(rng, 14)).map(|_| route(rng, v6)).collect(),
            peers: (0..below(rng, 6)).map(|n| peer(rng, v6, n as u8)).collect(),
            fwmark: one_of(rng, &[0, 0, 1, 0x23, 0xca6c]),
            forwards: below(rng, 4) > 0,
            rp_filter: [0; 3].map(|_: i32| one_of(rng, &[0u8, 0, 1, 2])),
        }
    }

    /// Takes the place of whatever was there before.
    pub fn install(&self) {
        let mut commands = vec![
            "rule flush".to_owned(),
            "rule add priority 32766 lookup main".to_owned(),
            if self.v6 { String::new() } else { "rule add priority 32767 lookup default".to_owned() },
            format!("route flush table all proto {PROTOCOL}"),
        ];
        commands.extend(self.routes.iter().map(|route| format!("route add {route} proto {PROTOCOL}")));
        // Gotos need their targets.
        commands.extend(self.rules.iter().rev().map(|rule| format!("rule add {}", rule.words())));
        batch(self.v6, &commands);
        let on = if self.forwards { "1" } else { "0" };
        sysctl(if self.v6 { "ipv6/conf/all/forwarding" } else { "ipv4/conf/all/forwarding" }, on);
        for (wire, filter) in WIRES.iter().zip(self.rp_filter) {
            sysctl(&format!("ipv4/conf/{wire}/rp_filter"), &filter.to_string());
        }
    }
}

impl RuleText {
    pub fn words(&self) -> String {
        let not = if self.inverted { "not " } else { "" };
        format!("{not}{} priority {} {}", self.asks, self.priority, self.does)
    }

    /// The same selectors, but what matches is refused.
    pub fn prohibiting(&self) -> String {
        let not = if self.inverted { "not " } else { "" };
        format!("{not}{} priority {} prohibit", self.asks, self.priority)
    }
}

fn rule(rng: &mut ChaCha8Rng, v6: bool, priority: u32, all: &[u32]) -> RuleText {
    let mut asks = Vec::new();
    let mut maybe = |rng: &mut ChaCha8Rng, chance: usize, text: String| {
        if below(rng, chance) == 0 {
            asks.push(text);
        }
    };
    let from = prefix(rng, v6);
    maybe(rng, 4, format!("from {from}"));
    let to = prefix(rng, v6);
    maybe(rng, 3, format!("to {to}"));
    let iif = one_of(rng, &["lo", "e0", "e1", "gone0"]);
    maybe(rng, 6, format!("iif {iif}"));
    let oif = one_of(rng, &["e0", "gone0"]);
    maybe(rng, 20, format!("oif {oif}"));
    let mark = one_of(rng, &["0x1", "0x23", "0x0/0x1", "0x20/0xf0", "0xca6c"]);
    maybe(rng, 4, format!("fwmark {mark}"));
    let protocol = one_of(rng, &["udp", "tcp"]);
    maybe(rng, 10, format!("ipproto {protocol}"));
    let ports = one_of(rng, &["4000", "4000-4050", "1-60000"]);
    maybe(rng, 12, format!("ipproto udp sport {ports}"));
    maybe(rng, 12, format!("ipproto udp dport {ports}"));
    let users = one_of(rng, &["0-0", "1000-2000"]);
    maybe(rng, 10, format!("uidrange {users}"));
    // `ip` takes each word once.
    let mut seen = Vec::new();
    asks.retain(|text| {
        let word = text.split(' ').next().unwrap_or_default().to_owned();
        let first = !seen.contains(&word);
        seen.push(word);
        first
    });
    let later: Vec<u32> = all.iter().copied().filter(|other| *other > priority).collect();
    let table = one_of(rng, &TABLES);
    let does = match below(rng, 14) {
        0 => "blackhole".to_owned(),
        1 => "unreachable".to_owned(),
        2 => "prohibit".to_owned(),
        3 => "nop".to_owned(),
        4 if !later.is_empty() => format!("goto {}", one_of(rng, &later)),
        5..=7 => {
            let longest = if v6 { [0, 16, 32, 64] } else { [0, 8, 16, 24] };
            format!("lookup {table} suppress_prefixlength {}", one_of(rng, &longest))
        }
        _ => format!("lookup {table}"),
    };
    RuleText { priority, inverted: below(rng, 8) == 0, asks: asks.join(" "), does }
}

fn route(rng: &mut ChaCha8Rng, v6: bool) -> String {
    let (to, table) = (prefix(rng, v6), one_of(rng, &TABLES));
    let wire = below(rng, WIRES.len());
    let gateway = |n: usize| match v6 {
        false => format!("10.{n}.0.77"),
        true => format!("fd00:{n}::77"),
    };
    let kind = match below(rng, 12) {
        0 => "blackhole",
        1 => "unreachable",
        2 => "prohibit",
        3 => "throw",
        _ => "unicast",
    };
    let way = match (kind, below(rng, 8)) {
        ("unicast", 0..=2) => format!("dev {TUNNEL}"),
        ("unicast", 3..=4) => format!("via {} dev {}", gateway(wire), WIRES[wire]),
        ("unicast", _) => format!("dev {}", WIRES[wire]),
        _ => String::new(),
    };
    let source = match (kind, below(rng, 5)) {
        ("unicast", 0) => {
            let n = below(rng, WIRES.len() + 1);
            format!("src {}", own(v6, n))
        }
        _ => String::new(),
    };
    let metric = one_of(rng, &["", "", "metric 5", "metric 10"]);
    format!("{kind} {to} {way} table {table} {source} {metric}")
}

fn peer(rng: &mut ChaCha8Rng, v6: bool, n: u8) -> PeerChange {
    let mut key = [n + 1; 32];
    key[31] = 0x40;
    let mut peer = PeerChange::new(PublicKey(key));
    peer.name = Some(format!("peer-{n}"));
    if below(rng, 5) > 0 {
        let port = one_of(rng, &PORTS);
        peer.endpoint = Some(SocketAddr::new(address(rng, v6), port));
    }
    peer.allowed_ips = (0..1 + below(rng, 4)).map(|_| AllowedIpOp::Add(prefix(rng, v6))).collect();
    peer
}
