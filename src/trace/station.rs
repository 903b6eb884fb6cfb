//! The words of a page: hosts, stations, and what is known of each. `--json` prints them as they are here; what nobody
//! can know is absent, and the station says in words that it is (`unknown`).

use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

/// Of the JSON; a field keeps its name, type and meaning within one.
pub const VERSION: u32 = 1;

/// One packet's way through one host or several.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Page {
    /// [`VERSION`].
    pub version: u32,
    /// Did it happen, or would it?
    pub kind: Kind,
    /// The packet inside the tunnel, as its sender made it; absent where nobody could read it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub packet: Option<Packet>,
    /// What stands in the clear on its carrier: two pages with the same one are halves of one way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub carrier: Option<Carrier>,
    /// In the order in which the packet met them.
    pub hosts: Vec<Host>,
    /// In the order in which the packet met them.
    pub stations: Vec<Station>,
    /// How it ended.
    pub outcome: Outcome,
    /// What could not be seen of the whole way, and why: sentences.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

/// What tells one carrier from others to everybody on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Carrier {
    /// Receiver index.
    pub session: u32,
    /// The low half of the counter: as much of it as netfilter's trace shows.
    pub counter_low: u32,
}

/// Did it happen?
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// A packet went this way.
    Trace,
    /// No packet was sent: the kernel and vpnd were asked.
    Plan,
}

/// What tells this packet from others.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Packet {
    /// Source address.
    pub source: IpAddr,
    /// Destination address.
    pub destination: IpAddr,
    /// `icmp`, `icmpv6`, `tcp`, `udp`, or the protocol's number.
    pub protocol: String,
    /// TCP, UDP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source_port: Option<u16>,
    /// TCP, UDP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub destination_port: Option<u16>,
    /// Of an echo: identifier and sequence number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub echo: Option<[u16; 2]>,
    /// From the IP header on; of a super-packet all of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
}

/// One host on the way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Host {
    /// Its name, with that of the network namespace where it has one.
    pub name: String,
    /// The tunnel's device there; `None`: it only forwards the carrier.
    pub interface: Option<String>,
    /// The same for hosts that share a kernel, and so a clock.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub boot_id: Option<String>,
    /// Wall time of this host's time 0, in nanoseconds since the Unix epoch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub began_ns: Option<u64>,
}

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
    /// Which of [`Page::hosts`].
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

/// What vpnd did with the packet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "did", rename_all = "snake_case")]
pub enum Vpnd {
    /// Sealed it, and handed the carrier to the kernel.
    Sealed(Sealed),
    /// Opened the carrier, and handed the packet to the TUN.
    Opened(Opened),
    /// Kept it until there is a session.
    Staged {
        /// Whose it is.
        peer: String,
        /// That peer's key.
        public_key: String,
        /// By which of its prefixes.
        prefix: String,
    },
    /// Refused it.
    Refused(Refused),
    /// A plan: this peer would get it.
    Owned {
        /// Whose it is.
        peer: String,
        /// That peer's key.
        public_key: String,
        /// By which of its prefixes.
        prefix: String,
        /// The next shorter prefix that holds the address, and whose that is.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        second: Option<[String; 2]>,
        /// Where the carrier would go.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        endpoint: Option<SocketAddr>,
        /// Is there a session to seal it with?
        session: bool,
    },
}

/// A packet that was sealed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sealed {
    /// Whose it is.
    pub peer: String,
    /// That peer's key.
    pub public_key: String,
    /// The prefix by which the destination is that peer's.
    pub prefix: String,
    /// Receiver index: the peer's number for the session, written in the clear.
    pub session: u32,
    /// Number of the message in its session; of a super-packet the first one's.
    pub counter: u64,
    /// Packets that were cut from what the TUN gave: 1, or more of a super-packet.
    pub segments: u64,
    /// Bytes that the TUN gave, from the IP header on.
    pub inner_bytes: u64,
    /// Bytes of the first datagram: header, padded packet, tag.
    pub datagram_bytes: u64,
    /// It waited for a session.
    pub staged: bool,
    /// From which of our addresses, where that is fixed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub local: Option<IpAddr>,
    /// Where the carrier goes.
    pub endpoint: SocketAddr,
    /// Mark of the socket that it leaves by; 0: none.
    pub mark: u32,
    /// The send that it left in; absent: it has not left.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub batch: Option<Batch>,
    /// What the kernel said, where it would not send it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// Datagrams that were handed over by one call (UDP_SEGMENT, UDP_GRO).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Batch {
    /// How many; 1: it went alone.
    pub datagrams: u64,
    /// Which of them this one is, from 0 on.
    pub place: u64,
    /// Bytes of all.
    pub bytes: u64,
    /// The counter of the first of them, which is what netfilter's trace shows of all.
    pub first: u64,
}

/// A packet that was opened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Opened {
    /// Who sealed it.
    pub peer: String,
    /// That peer's key.
    pub public_key: String,
    /// The prefix by which the source is that peer's.
    pub prefix: String,
    /// Receiver index: our number for the session.
    pub session: u32,
    /// Number of the message in its session.
    pub counter: u64,
    /// Where the carrier came from.
    pub from: SocketAddr,
    /// Bytes of the datagram.
    pub datagram_bytes: u64,
    /// Bytes of the packet inside.
    pub inner_bytes: u64,
    /// The receive that it came in.
    pub batch: Batch,
    /// Packets that were written to the TUN as one; 1: it went alone.
    pub merged: u64,
}

/// A packet that was refused, with evidence.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refused {
    /// Why, by the name that the status and the metrics count it under.
    pub reason: String,
    /// The peer that it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peer: Option<String>,
    /// That peer's key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub public_key: Option<String>,
    /// Inbound: where the carrier came from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<SocketAddr>,
    /// Inbound: receiver index.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<u32>,
    /// Inbound: number of the message.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub counter: Option<u64>,
    /// The inner address that it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inner: Option<IpAddr>,
    /// Who owns that address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
    /// By which prefix.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner_prefix: Option<String>,
}

/// How it ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "end", rename_all = "snake_case")]
pub enum Outcome {
    /// It came where it was to go.
    Arrived {
        /// Microseconds from the probe to its answer, where there was one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        answered_us: Option<f64>,
    },
    /// Its carrier left this host; nobody looked on the other.
    Left {
        /// Microseconds from the probe to its answer, where there was one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        answered_us: Option<f64>,
    },
    /// It ended on the way.
    Died(Death),
    /// Nobody saw its end: what was seen, in a sentence.
    Unknown {
        /// The sentence.
        why: String,
    },
    /// A plan has no end.
    Planned,
}

/// Where and by what a packet died.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Death {
    /// Which of [`Page::stations`].
    pub station: usize,
    /// By whom.
    pub by: Killer,
    /// What it was, in a sentence that names rule, route or refusal.
    pub why: String,
    /// The kernel's own reason (`SKB_DROP_REASON_…`), where it could be had.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drop_reason: Option<String>,
}

/// By whom a packet was ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Killer {
    /// A rule or policy that nftables traces.
    Netfilter,
    /// Something between the first and the last chain of a hook that nftables does not see: iptables-legacy, or a module.
    UnseenNetfilter,
    /// Routing.
    Route,
    /// vpnd.
    Vpnd,
    /// The kernel elsewhere.
    Kernel,
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
