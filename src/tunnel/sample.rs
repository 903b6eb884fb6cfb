//! The figures of many peers at one moment, made cheaply: for a live view each second, and for metrics. No prefix is
//! copied, and who did nothing since the last sample may be left out.

use std::{net::SocketAddr, sync::Arc, sync::atomic::Ordering, time::Duration};

use super::{Now, Tunnel, peer::PeerState};
use crate::forward::{PeerId, Refusal, Time, session::REJECT_AFTER_TIME};
use crate::noise::PublicKey;

/// A tunnel's figures.
#[derive(Clone, Debug)]
pub struct Sample {
    /// Alters with each change that was asked of the tunnel: names, keys, peers.
    pub generation: u64,
    /// How many peers there are.
    pub total: usize,
    /// How many have a session younger than 180 s.
    pub connected: usize,
    /// Are all peers here, or only those of which something came or went?
    pub whole: bool,
    /// In the order in which they were made.
    pub peers: Vec<PeerSample>,
    /// All reasons, in order.
    pub refusals: [u64; Refusal::ALL.len()],
    /// Are cookies demanded?
    pub under_load: bool,
    /// SYNs of TCP whose MSS was lowered.
    pub mss_clamped: u64,
    /// Our public key.
    pub public_key: Option<PublicKey>,
}

/// A peer's figures; each as in [`super::PeerStatus`].
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub struct PeerSample {
    pub id: PeerId,
    pub public_key: PublicKey,
    pub label: Arc<String>,
    pub endpoint: Option<SocketAddr>,
    pub last_handshake: Option<Duration>,
    pub connected_since: Option<Duration>,
    pub session_age: Option<Duration>,
    pub last_received: Option<Duration>,
    pub rx_bytes: u64,
    pub tx_bytes: u64,
    pub rx_packets: u64,
    pub tx_packets: u64,
    pub staged: usize,
    pub attempts: u32,
    pub untaken: u32,
}

impl Tunnel {
    /// The figures. `known`: the time and the generation of a sample that the asker has; if nothing was changed
    /// since, only peers with traffic after it are told.
    pub fn sample(&self, known: Option<(Time, u64)>, now: Now) -> Sample {
        let since = known.filter(|(_, generation)| *generation == self.generation).map(|(since, _)| since);
        let wanted = self.peers.iter().filter(|peer| since.is_none_or(|since| peer.last_active() >= since));
        Sample {
            generation: self.generation,
            total: self.peers.len(),
            connected: self.peers.iter().filter(|peer| peer.live_session_age(now.boot).is_some()).count(),
            whole: since.is_none(),
            peers: wanted.map(|peer| peer.sample(now.boot)).collect(),
            refusals: Refusal::ALL.map(|what| self.forward.refusals.counted(what)),
            under_load: self.load.is_under(),
            mss_clamped: self.forward.mss.clamped(),
            public_key: self.ours.as_ref().map(|ours| *ours.identity.public_key()),
        }
    }
}

impl PeerState {
    /// When anything authentic last went either way: no figure changes without.
    fn last_active(&self) -> Time {
        let activity = &self.shared.activity;
        Time(activity.sent.load(Ordering::Relaxed).max(activity.received.load(Ordering::Relaxed)))
    }

    /// Age of the session that we seal with, if it lives.
    pub(super) fn live_session_age(&self, now: Time) -> Option<Duration> {
        let age = self.keypairs.current().map(|session| now.since(session.start().birth));
        age.filter(|&age| age < REJECT_AFTER_TIME)
    }

    fn sample(&self, now: Time) -> PeerSample {
        let shared = &self.shared;
        let activity = &shared.activity;
        let session_age = self.live_session_age(now);
        let received = Some(activity.received.load(Ordering::Relaxed)).filter(|&received| received != 0);
        PeerSample {
            id: shared.id,
            public_key: shared.public_key,
            label: shared.label.load_full(),
            endpoint: shared.endpoint().map(|endpoint| endpoint.remote),
            last_handshake: self.last_handshake,
            connected_since: self.connected_since.filter(|_| session_age.is_some()),
            session_age,
            last_received: received.map(|received| now.since(Time(received))),
            rx_bytes: activity.rx_bytes.load(Ordering::Relaxed),
            tx_bytes: activity.tx_bytes.load(Ordering::Relaxed),
            rx_packets: activity.rx_packets.load(Ordering::Relaxed),
            tx_packets: activity.tx_packets.load(Ordering::Relaxed),
            staged: shared.staged(),
            attempts: self.handshake.attempts,
            untaken: self.handshake.untaken,
        }
    }
}
