//! Everything that can be seen of a tunnel.

use std::{
    net::SocketAddr,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use ipnet::IpNet;

use super::{Now, Tunnel, peer::PeerState};
use crate::forward::{Evidence, PeerId, Refusal, Time};
use crate::noise::{PresharedKey, PrivateKey, PublicKey};

/// A tunnel at one moment.
#[derive(Clone, Debug)]
pub struct Status {
    /// Our key pair, if we have one. The private key is for the control socket's `get` alone.
    pub private_key: Option<PrivateKey>,
    /// Our public key.
    pub public_key: Option<PublicKey>,
    /// In the order in which they were made.
    pub peers: Vec<PeerStatus>,
    /// Reasons that were counted at least once.
    pub refusals: Vec<(Refusal, u64, Option<Evidence>)>,
    /// Are cookies demanded?
    pub under_load: bool,
    /// SYNs of TCP whose MSS was lowered to what the tunnel carries.
    pub mss_clamped: u64,
}

/// A peer at one moment.
#[derive(Clone, Debug)]
pub struct PeerStatus {
    /// Names it for the life of the process.
    pub id: PeerId,
    /// Its static key.
    pub public_key: PublicKey,
    /// Its name.
    pub label: String,
    /// Set and not zero.
    pub preshared_key: Option<PresharedKey>,
    /// Where it is.
    pub endpoint: Option<SocketAddr>,
    /// Where a change said that it is; it may have moved since.
    pub set_endpoint: Option<SocketAddr>,
    /// From which of our addresses we talk to it.
    pub local: Option<std::net::IpAddr>,
    /// Wall time (since the epoch) of the last completed handshake.
    pub last_handshake: Option<Duration>,
    /// Wall time since which it had a session without a break; none: it has none that lives.
    pub connected_since: Option<Duration>,
    /// Age of the session that we seal with, if it lives.
    pub session_age: Option<Duration>,
    /// Since the last authentic packet from it.
    pub last_received: Option<Duration>,
    /// UDP payload bytes of authentic messages.
    pub rx_bytes: u64,
    /// UDP payload bytes sent.
    pub tx_bytes: u64,
    /// Data packets delivered.
    pub rx_packets: u64,
    /// Data packets sealed.
    pub tx_packets: u64,
    /// Seconds, 0: off.
    pub persistent_keepalive: u16,
    /// Wall time (since the epoch) from which on it is not let in.
    pub expires: Option<Duration>,
    /// Is that over?
    pub expired: bool,
    /// Sorted.
    pub allowed_ips: Vec<IpNet>,
    /// Packets that wait for a session.
    pub staged: usize,
    /// Unanswered initiations in a row.
    pub attempts: u32,
    /// Answers of ours in a row that it did not take up, as they did not arrive, or did not open for it.
    pub untaken: u32,
}

impl Tunnel {
    pub(super) fn look(&self, now: Now) -> Status {
        let identity = self.ours.as_ref().map(|ours| &ours.identity);
        let counted = Refusal::ALL.into_iter().filter_map(|refusal| {
            let (count, evidence) = self.forward.refusals.read(refusal);
            (count > 0).then_some((refusal, count, evidence))
        });
        Status {
            private_key: identity.map(|identity| identity.private_key().clone()),
            public_key: identity.map(|identity| *identity.public_key()),
            peers: self.peers.iter().map(|peer| peer.look(now)).collect(),
            refusals: counted.collect(),
            under_load: self.load.is_under(),
            mss_clamped: self.forward.mss.clamped(),
        }
    }
}

impl PeerState {
    pub(super) fn look(&self, now: Now) -> PeerStatus {
        let (wall, now) = (now.wall, now.boot);
        let shared = &self.shared;
        let endpoint = shared.endpoint();
        let activity = &shared.activity;
        let number = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let received = Some(number(&activity.received)).filter(|&received| received != 0);
        let age = self.live_session_age(now);
        PeerStatus {
            id: shared.id,
            public_key: shared.public_key,
            label: self.label(),
            preshared_key: Some(self.preshared_key.clone()).filter(|key| !key.is_zero()),
            endpoint: endpoint.map(|endpoint| endpoint.remote),
            set_endpoint: self.set_endpoint,
            local: endpoint.and_then(|endpoint| endpoint.local).map(|local| local.address),
            last_handshake: self.last_handshake,
            connected_since: self.connected_since.filter(|_| age.is_some()),
            session_age: age,
            last_received: received.map(|received| now.since(Time(received))),
            rx_bytes: number(&activity.rx_bytes),
            tx_bytes: number(&activity.tx_bytes),
            rx_packets: number(&activity.rx_packets),
            tx_packets: number(&activity.tx_packets),
            persistent_keepalive: self.persistent_keepalive,
            expires: self.expires,
            expired: self.has_expired(wall),
            allowed_ips: self.allowed_ips.iter().copied().collect(),
            staged: shared.staged(),
            attempts: self.handshake.attempts,
            untaken: self.handshake.untaken,
        }
    }
}
