//! One place on a packet's way, by the kernel's and netfilter's names, and what is known of it: chains and rules, the
//! routing answer, what vpnd did.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::{deed::Vpnd, page::Packet};

/// Which of the two packets is at a station.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Walk {
    /// The program's own packet.
    Inner,
    /// Between the two: vpnd, and the programs at the ends.
    Program,
    /// The UDP packet that carries it.
    Outer,
}

/// Down the stack or up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Direction {
    /// From a program, or another device, to this device.
    Out,
    /// From a device to a program, or on to another device.
    In,
}

/// Where a station is, by the kernel's and netfilter's names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Place {
    /// A program's socket.
    Socket,
    /// netfilter's hook for what programs of this host send.
    Output,
    /// The routing decision.
    Route,
    /// netfilter's hook for what is about to leave by a device.
    Postrouting,
    /// A device: the TUN, or the one that leads to the wire.
    Device,
    /// netfilter's hook for what a device brought, before routing.
    Prerouting,
    /// netfilter's hook for what is for programs of this host.
    Input,
    /// netfilter's hook for what goes on to another host.
    Forward,
    /// Inside vpnd.
    Vpnd,
}

/// What a station did with the packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// It was seen here, and went on.
    Passed,
    /// It ended here, in silence.
    Dropped,
    /// It ended here, and its sender was told.
    Rejected,
    /// vpnd refused it.
    Refused,
    /// It waits here for a session.
    Staged,
    /// It never came here.
    Absent,
    /// Nobody saw it here, and it may have been here all the same: see [`Station::unknown`].
    Unknown,
    /// A plan: it would go on.
    Would,
    /// A plan: it would end here.
    WouldNot,
}

/// Who looked at the clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Clock {
    /// The kernel stamped the packet there.
    Kernel,
    /// vpnd did.
    Vpnd,
    /// The tracer, when it read the kernel's message: not before it happened.
    Reader,
}

/// One place on the way.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Station {
    /// Which of the hosts of [`Page`](super::Page).
    pub host: usize,
    /// Which packet.
    pub walk: Walk,
    /// Which way.
    pub direction: Direction,
    /// Where.
    pub place: Place,
    /// What became of it here.
    pub verdict: Verdict,
    /// Microseconds since the host's time 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at_us: Option<f64>,
    /// By whose clock.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clock: Option<Clock>,
    /// The device: that it leaves by or came in by, as far as this place knows it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<String>,
    /// Nobody saw it at this device: it follows from the hook beside it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub inferred: bool,
    /// How the packet looked here, where that was seen: NAT changes it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub packet: Option<Packet>,
    /// The mark on it; 0: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mark: Option<u32>,
    /// Each chain and rule of netfilter that saw it, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rules: Vec<Rule>,
    /// The kernel's routing answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub route: Option<Route>,
    /// What vpnd did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vpnd: Option<Vpnd>,
    /// Facts in a sentence each, such as a counter of the kernel that moved meanwhile.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub facts: Vec<String>,
    /// What nobody tells about this place: a sentence each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unknown: Vec<String>,
}

/// What netfilter did in one chain: a rule that matched, a chain's policy, or its end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rule {
    /// `ip`, `ip6`, `inet`, …
    pub family: String,
    /// Table.
    pub table: String,
    /// Chain.
    pub chain: String,
    /// What it is.
    pub step: Step,
    /// The rule's handle, by which `nft -a list ruleset` names it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub handle: Option<u64>,
    /// The rule, in nft's words; absent where it was gone when the tracer asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// `accept`, `drop`, `continue`, `jump NAME`, `goto NAME`, `return`, `queue`, `stolen`.
    pub verdict: String,
}

/// What in a chain spoke.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Step {
    /// A rule that matched.
    Rule,
    /// The policy, as no rule had decided.
    Policy,
    /// The end of a chain that was jumped to.
    Return,
}

/// A routing decision: the kernel's answer to exactly this question.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Route {
    /// Asked: destination.
    pub destination: Option<IpAddr>,
    /// Asked: source, where the packet has one already.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<IpAddr>,
    /// Asked: device by which it came in; absent for a packet of this host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub iif: Option<String>,
    /// Asked: mark.
    #[serde(default)]
    pub mark: u32,
    /// `unicast`, `local`, `broadcast`, `multicast`, `blackhole`, `unreachable`, `prohibit`; absent: an error.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answer: Option<String>,
    /// The error that the kernel gave instead of a route: its name (`ENETUNREACH`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Device.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<String>,
    /// Next hop.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub via: Option<IpAddr>,
    /// The source address that a packet gets that has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<IpAddr>,
    /// Table that the answer stands in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub table: Option<u32>,
    /// The prefix of the route that matched (fib match).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prefix: Option<String>,
    /// The route, in the words of `ip route`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// The policy rule that led to that table, as far as it can be told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule: Option<RoutingRule>,
}

/// A rule of the routing policy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RoutingRule {
    /// Its priority: `ip rule` shows it first.
    pub priority: u32,
    /// The rule, in the words of `ip rule`.
    pub text: String,
}

impl Station {
    /// A place, of which nothing is known yet.
    pub fn new(host: usize, walk: Walk, direction: Direction, place: Place, verdict: Verdict) -> Self {
        Self {
            host,
            walk,
            direction,
            place,
            verdict,
            at_us: None,
            clock: None,
            device: None,
            inferred: false,
            packet: None,
            mark: None,
            rules: Vec::new(),
            route: None,
            vpnd: None,
            facts: Vec::new(),
            unknown: Vec::new(),
        }
    }

    /// Its name, as netfilter and the kernel write it; of a device its own.
    pub fn name(&self) -> String {
        match (self.place, &self.device) {
            (Place::Device, Some(device)) => device.clone(),
            (place, _) => place.name().to_owned(),
        }
    }
}

impl Place {
    /// As netfilter and the kernel write it.
    pub fn name(self) -> &'static str {
        match self {
            Place::Socket => "socket",
            Place::Output => "OUTPUT",
            Place::Route => "routing",
            Place::Postrouting => "POSTROUTING",
            Place::Device => "device",
            Place::Prerouting => "PREROUTING",
            Place::Input => "INPUT",
            Place::Forward => "FORWARD",
            Place::Vpnd => "vpnd",
        }
    }
}
