//! A packet's whole way: hosts, stations, and how it ended. `--json` prints it as it is here; what nobody can know is
//! absent, and the station says in words that it is (`unknown`).

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::station::Station;

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
    /// What came back for it, where that was looked for and seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answer: Option<Answer>,
    /// What could not be seen of the whole way, and why: sentences.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

/// The way back of what answers a packet: a reply, or a complaint that it was not delivered.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Answer {
    /// As whoever answered made it; absent where nobody could read it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub packet: Option<Packet>,
    /// What stands in the clear on its carrier.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub carrier: Option<Carrier>,
    /// In the order in which it met them; their hosts are [`Page::hosts`].
    pub stations: Vec<Station>,
    /// How it ended.
    pub outcome: Outcome,
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
