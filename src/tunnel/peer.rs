//! One peer's truth: what was configured, what its handshakes stand at, which sessions it has.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::Arc,
    time::Duration,
};

use ipnet::IpNet;

use super::{COOKIE_LIFETIME, INITIATION_INTERVAL, REKEY_TIMEOUT, keypairs::Keypairs};
use crate::{
    forward::{Peer, PeerId, Refusal, Time},
    noise::{
        PresharedKey, PublicKey, Tai64n,
        handshake::{Initiating, Remote},
        macs::{Cookie, MacKeys},
    },
};

/// A peer.
pub(super) struct PeerState {
    /// What the data threads have of it.
    pub(super) shared: Arc<Peer>,
    /// For handshakes with it; none while we have no private key.
    pub(super) remote: Option<Remote>,
    pub(super) preshared_key: PresharedKey,
    /// Seconds, 0: off.
    pub(super) persistent_keepalive: u16,
    /// It was switched on, or the device came up: do not wait for the interval to pass.
    pub(super) keepalive_at_once: bool,
    /// Wall time from which on it is not let in.
    pub(super) expires: Option<Duration>,
    pub(super) allowed_ips: BTreeSet<IpNet>,
    pub(super) handshake: Handshake,
    pub(super) keypairs: Keypairs,
    /// Where it was when that was last told.
    pub(super) told_endpoint: Option<SocketAddr>,
    /// Where a change said that it is, whatever was heard since.
    pub(super) set_endpoint: Option<SocketAddr>,
    /// Wall time of the last completed handshake.
    pub(super) last_handshake: Option<Duration>,
}

/// What a peer's handshakes stand at.
pub(super) struct Handshake {
    /// Mac keys of what we send to it.
    pub(super) macs: MacKeys,
    /// Our initiation that waits for its response.
    pub(super) pending: Option<Initiating>,
    /// Unanswered initiations in a row.
    pub(super) attempts: u32,
    /// Those since somebody last wanted a session.
    pub(super) retries: u32,
    /// Answers of ours in a row that the peer did not take up: it began anew instead.
    pub(super) untaken: u32,
    /// When the last initiation or response went out.
    pub(super) sent: Option<Time>,
    /// The newest timestamp that we sent.
    pub(super) sent_timestamp: Tai64n,
    /// The newest timestamp that we accepted.
    pub(super) newest_timestamp: Tai64n,
    /// When that was.
    pub(super) accepted: Option<Time>,
    /// The cookie that the peer gave us, and when.
    pub(super) cookie: Option<(Cookie, Time)>,
    /// mac1 of what we sent last: a cookie reply is bound to it. None: no reply is awaited.
    pub(super) sent_mac1: Option<[u8; 16]>,
}

impl PeerState {
    /// A peer without any configuration, who is never sent a timestamp up to `floor`.
    pub(super) fn new(shared: Arc<Peer>, remote: Option<Remote>, floor: Tai64n) -> Self {
        let handshake = Handshake {
            macs: MacKeys::new(&shared.public_key),
            pending: None,
            attempts: 0,
            retries: 0,
            untaken: 0,
            sent: None,
            sent_timestamp: floor,
            newest_timestamp: Tai64n::default(),
            accepted: None,
            cookie: None,
            sent_mac1: None,
        };
        Self {
            shared,
            remote,
            preshared_key: PresharedKey::default(),
            persistent_keepalive: 0,
            keepalive_at_once: false,
            expires: None,
            allowed_ips: BTreeSet::new(),
            handshake,
            keypairs: Keypairs::default(),
            told_endpoint: None,
            set_endpoint: None,
            last_handshake: None,
        }
    }

    /// Its name, for events.
    pub(super) fn label(&self) -> String {
        self.shared.label.load().as_ref().clone()
    }

    /// A keepalive is due this long after anything authentic went either way.
    pub(super) fn persistent_interval(&self) -> Option<Duration> {
        (self.persistent_keepalive > 0).then(|| Duration::from_secs(self.persistent_keepalive.into()))
    }

    /// Is its time over?
    pub(super) fn has_expired(&self, wall: Duration) -> bool {
        self.expires.is_some_and(|moment| moment <= wall)
    }

    /// Does it lack a session to seal with that is young enough?
    pub(super) fn needs_session(&self, now: Time) -> bool {
        let Some(session) = self.keypairs.current() else { return true };
        !session.can_send(now) || session.wants_rekey(now) || self.shared.staged() > 0
    }
}

impl Handshake {
    /// When the next initiation may go out, if not now.
    pub(super) fn must_wait(&self, now: Time) -> Option<Time> {
        let earliest = self.sent? + REKEY_TIMEOUT;
        (earliest > now).then_some(earliest)
    }

    /// A timestamp for the next initiation: later than each before, even if the wall clock went back.
    pub(super) fn next_timestamp(&mut self, wall: Duration) -> Tai64n {
        self.sent_timestamp = Tai64n::from_unix(wall).max(self.sent_timestamp.next());
        self.sent_timestamp
    }

    /// Is an authentic initiation with this timestamp neither a replay nor too soon?
    pub(super) fn check_initiation(&self, timestamp: Tai64n, now: Time) -> Result<(), Refusal> {
        if timestamp <= self.newest_timestamp {
            return Err(Refusal::TimestampNotNewer);
        }
        if self.accepted.is_some_and(|last| last + INITIATION_INTERVAL > now) {
            return Err(Refusal::InitiationFlood);
        }
        Ok(())
    }

    /// Fills the macs of a message to this peer, and remembers what a cookie reply must be bound to.
    pub(super) fn fill_macs(&mut self, message: &mut [u8], now: Time) {
        let cookie =
            self.cookie.filter(|(_, got)| now.since(*got) < COOKIE_LIFETIME).map(|(cookie, _)| cookie);
        self.sent_mac1 = Some(self.macs.fill(message, cookie.as_ref()));
    }

    /// A handshake is complete.
    pub(super) fn complete(&mut self) {
        self.attempts = 0;
        self.retries = 0;
        self.untaken = 0;
    }
}

/// All peers, by id (the order in which they were made) and by key.
#[derive(Default)]
pub(super) struct Peers {
    by_id: BTreeMap<PeerId, PeerState>,
    by_key: BTreeMap<PublicKey, PeerId>,
    last: u64,
}

impl Peers {
    /// A new id, never given before.
    pub(super) fn new_id(&mut self) -> PeerId {
        self.last += 1;
        PeerId(self.last)
    }

    pub(super) fn insert(&mut self, peer: PeerState) {
        self.by_key.insert(peer.shared.public_key, peer.shared.id);
        self.by_id.insert(peer.shared.id, peer);
    }

    pub(super) fn remove(&mut self, id: PeerId) -> Option<PeerState> {
        let peer = self.by_id.remove(&id)?;
        self.by_key.remove(&peer.shared.public_key);
        Some(peer)
    }

    pub(super) fn of(&self, id: PeerId) -> Option<&PeerState> {
        self.by_id.get(&id)
    }

    pub(super) fn of_mut(&mut self, id: PeerId) -> Option<&mut PeerState> {
        self.by_id.get_mut(&id)
    }

    pub(super) fn id(&self, key: &PublicKey) -> Option<PeerId> {
        self.by_key.get(key).copied()
    }

    pub(super) fn ids(&self) -> Vec<PeerId> {
        self.by_id.keys().copied().collect()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &PeerState> {
        self.by_id.values()
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut PeerState> {
        self.by_id.values_mut()
    }

    pub(super) fn len(&self) -> usize {
        self.by_id.len()
    }
}
