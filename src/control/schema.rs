//! `GET /v1/status`, as JSON. The names and meanings here are stable: fields may be added, none changes.
//! No secret ever stands in it.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use ipnet::IpNet;
use serde::{Deserialize, Serialize, Serializer};

use super::{InterfaceStatus, Operation, Sandbox, explain};
use crate::forward::{Evidence, PeerId, Refusal, Time};
use crate::noise::PublicKey;
use crate::tunnel::PeerStatus;

/// A session older than this is dead (REJECT_AFTER_TIME; paper, section 6.1).
const SESSION_LIFE: Duration = Duration::from_secs(180);

/// An interface at one moment. `P`: the peers as they are read, or as they are written.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StatusReport<P = Vec<PeerReport>> {
    /// Device name.
    pub interface: String,
    /// Base64; null: there is no private key.
    pub public_key: Option<String>,
    /// UDP port in use.
    pub listen_port: u16,
    /// Mark of the tunnel's own packets, 0: none.
    pub fwmark: u32,
    /// Of the device.
    pub mtu: u16,
    /// Are cookies demanded?
    pub under_load: bool,
    /// SYNs of TCP whose MSS was lowered to what the tunnel carries.
    pub mss_clamped: u64,
    /// Wall time of this report, in Unix seconds.
    pub now: f64,
    /// Reloads, what was changed by hand, and what others did to the device.
    pub operation: Operation,
    /// What is in force of the sandbox.
    #[serde(default)]
    pub sandbox: Sandbox,
    /// In the order in which they were made.
    pub peers: P,
    /// What was refused at least once, by reason.
    pub refusals: Vec<RefusalReport>,
}

/// A peer at one moment.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PeerReport {
    /// For people.
    pub name: String,
    /// Base64.
    pub public_key: String,
    /// Is there a preshared key?
    pub preshared: bool,
    /// Where it is.
    pub endpoint: Option<SocketAddr>,
    /// From which of our addresses we talk to it.
    pub local: Option<IpAddr>,
    /// Is there a session younger than 180 s?
    pub connected: bool,
    /// Since when without a break, wall time in Unix seconds; null: it is not connected.
    pub connected_since: Option<f64>,
    /// Age of the session that we seal with, in seconds.
    pub session_age_s: Option<f64>,
    /// Wall time of the last handshake, in Unix seconds.
    pub last_handshake: Option<f64>,
    /// Seconds since the last authentic packet from it.
    pub last_received_s: Option<f64>,
    /// UDP payload bytes of authentic messages received.
    pub rx_bytes: u64,
    /// UDP payload bytes sent.
    pub tx_bytes: u64,
    /// Data packets delivered.
    pub rx_packets: u64,
    /// Data packets sealed.
    pub tx_packets: u64,
    /// `address/length`, sorted.
    pub allowed_ips: Vec<String>,
    /// Seconds, 0: off.
    pub persistent_keepalive: u16,
    /// Wall time from which on it is not let in, in Unix seconds; null: none.
    #[serde(default)]
    pub expires: Option<f64>,
    /// Is that over?
    #[serde(default)]
    pub expired: bool,
    /// Packets that wait for a session.
    pub staged: usize,
    /// Unanswered initiations in a row.
    pub attempts: u32,
    /// Answers to its initiations, in a row, that it did not take up.
    pub untaken: u32,
}

/// What was refused for one reason.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RefusalReport {
    /// Its name in snake_case.
    pub reason: String,
    /// How often.
    pub count: u64,
    /// The last time, if evidence was kept.
    pub last: Option<EvidenceReport>,
    /// A sentence for people.
    pub text: String,
}

/// What was seen when something was refused for the last time; null: not known.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EvidenceReport {
    /// Seconds ago.
    pub ago_s: f64,
    /// The UDP address it came from.
    pub from: Option<SocketAddr>,
    /// The name of the peer it is about.
    pub peer: Option<String>,
    /// The public key it is about, base64.
    pub key: Option<String>,
    /// The inner address it is about.
    pub inner: Option<IpAddr>,
    /// Who owns `inner`: the name of a peer, else its key.
    pub owner: Option<String>,
}

/// Peers that become a [`PeerReport`] one after another while they are written: ten thousand at once would
/// take 8 MB that the allocator then keeps.
pub struct Peers<'a>(&'a [PeerStatus]);

impl Serialize for Peers<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.iter().map(PeerReport::from))
    }
}

impl<'a> From<&'a InterfaceStatus> for StatusReport<Peers<'a>> {
    fn from(status: &'a InterfaceStatus) -> Self {
        let tunnel = &status.tunnel;
        let refused = tunnel.refusals.iter().map(|(what, count, last)| {
            let last = last.as_ref().map(|last| EvidenceReport::of(last, status));
            RefusalReport::new(*what, *count, last)
        });
        Self {
            interface: status.name.clone(),
            public_key: tunnel.public_key.map(|key| key.to_string()),
            listen_port: status.listen_port,
            fwmark: status.fwmark,
            mtu: status.mtu,
            under_load: tunnel.under_load,
            mss_clamped: tunnel.mss_clamped,
            now: status.now.as_secs_f64(),
            operation: status.operation.clone(),
            sandbox: status.sandbox.clone(),
            peers: Peers(&tunnel.peers),
            refusals: refused.collect(),
        }
    }
}

impl From<&PeerStatus> for PeerReport {
    fn from(status: &PeerStatus) -> Self {
        Self {
            name: status.label.clone(),
            public_key: status.public_key.to_string(),
            preshared: status.preshared_key.is_some(),
            endpoint: status.endpoint,
            local: status.local,
            connected: status.session_age.is_some_and(|age| age < SESSION_LIFE),
            connected_since: status.connected_since.map(|at| at.as_secs_f64()),
            session_age_s: status.session_age.map(|age| age.as_secs_f64()),
            last_handshake: status.last_handshake.map(|at| at.as_secs_f64()),
            last_received_s: status.last_received.map(|ago| ago.as_secs_f64()),
            rx_bytes: status.rx_bytes,
            tx_bytes: status.tx_bytes,
            rx_packets: status.rx_packets,
            tx_packets: status.tx_packets,
            allowed_ips: status.allowed_ips.iter().map(IpNet::to_string).collect(),
            persistent_keepalive: status.persistent_keepalive,
            expires: status.expires.map(|at| at.as_secs_f64()),
            expired: status.expired,
            staged: status.staged,
            attempts: status.attempts,
            untaken: status.untaken,
        }
    }
}

impl EvidenceReport {
    fn of(evidence: &Evidence, status: &InterfaceStatus) -> Self {
        let peers = &status.tunnel.peers;
        let by_id = |id: PeerId| peers.iter().find(|peer| peer.id == id).map(|peer| peer.label.clone());
        let by_key =
            |key: PublicKey| peers.iter().find(|peer| peer.public_key == key).map(|peer| peer.label.clone());
        Self::new(evidence, status.boot, by_id, by_key)
    }

    /// Evidence, seen at `now`, with the names of those whom it is about.
    pub fn new(
        evidence: &Evidence,
        now: Time,
        by_id: impl FnOnce(PeerId) -> Option<String>,
        by_key: impl FnOnce(PublicKey) -> Option<String>,
    ) -> Self {
        Self {
            ago_s: now.since(evidence.at).as_secs_f64(),
            from: evidence.from,
            peer: evidence.peer.and_then(by_id),
            key: evidence.key.map(|key| key.to_string()),
            inner: evidence.inner,
            owner: evidence.owner.map(|key| by_key(key).unwrap_or_else(|| key.to_string())),
        }
    }
}

impl RefusalReport {
    /// With its sentence.
    pub fn new(what: Refusal, count: u64, last: Option<EvidenceReport>) -> Self {
        let text = explain::sentence(what, count, last.as_ref());
        Self { reason: what.name().to_owned(), count, last, text }
    }
}
