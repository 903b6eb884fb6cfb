//! A session: two keys, a send counter, a replay window, a birth; and the table that finds it by index.

use std::sync::Arc;

use super::{Peer, Time};
use crate::{noise::SessionKeys, wire::message::Index};

/// After this many seconds an initiator asks for a new session when it sends (paper, section 6.1).
pub const REKEY_AFTER_TIME: std::time::Duration = std::time::Duration::from_secs(120);
/// After this many seconds a session is dead in both directions.
pub const REJECT_AFTER_TIME: std::time::Duration = std::time::Duration::from_secs(180);
/// After this many messages an initiator asks for a new session.
pub const REKEY_AFTER_MESSAGES: u64 = 1 << 60;
/// No counter at or above this is ever used or accepted.
pub const REJECT_AFTER_MESSAGES: u64 = u64::MAX - super::replay::WINDOW - 1;

/// Facts of a new session.
pub struct SessionStart {
    /// Our index: the peer writes it into what it sends us.
    pub local: Index,
    /// The peer's index: we write it into what we send.
    pub remote: Index,
    /// Did we initiate? Only the initiator rekeys by time.
    pub initiator: bool,
    /// When the handshake ended.
    pub birth: Time,
    /// REKEY_AFTER_TIME, or shorter in tests.
    pub rekey_after: std::time::Duration,
}

/// One session; shared by both halves and all data threads.
pub struct Session {/* private: SessionStart, aead keys, AtomicU64 send counter, Mutex<ReplayWindow>, AtomicBool confirmed */}

impl Session {
    /// From a finished handshake. An initiator's session is confirmed at once; a responder's by the first
    /// authentic packet.
    pub fn new(start: SessionStart, keys: &SessionKeys) -> Arc<Self> {
        todo!()
    }
    /// Facts.
    pub fn start(&self) -> &SessionStart {
        todo!()
    }
    /// How many counters were used.
    pub fn sent(&self) -> u64 {
        todo!()
    }
    /// Has the peer proven that it has the keys?
    pub fn confirmed(&self) -> bool {
        todo!()
    }
    /// May it still seal? Age below REJECT_AFTER_TIME, counter below REJECT_AFTER_MESSAGES.
    pub fn can_send(&self, now: Time) -> bool {
        todo!()
    }
    /// Seals one packet (empty: a keepalive) into a new datagram, padded to 16 but not beyond `mtu`.
    /// `None`: the counter or the age is at its limit. For the upper half; data threads seal in place.
    pub fn seal(&self, packet: &[u8], mtu: usize, now: Time) -> Option<Vec<u8>> {
        todo!()
    }
    /// Tests only move the counter forward; used by the tests of the limits.
    pub fn skip_to(&self, counter: u64) {
        todo!()
    }
}

/// Receiver index → (session, peer): 256 shards by the index's first byte, each an immutable table behind an
/// atomic pointer, so that one handshake among 10,000 peers copies a few dozen entries.
pub struct Sessions {/* private */}

impl Sessions {
    /// The session that the peer means by this index.
    pub fn find(&self, index: Index) -> Option<(Arc<Session>, Arc<Peer>)> {
        todo!()
    }
    /// Upper half: makes a session known under its local index.
    pub fn insert(&self, session: Arc<Session>, peer: Arc<Peer>) {
        todo!()
    }
    /// Upper half: forgets it; its keys are erased when the last data thread lets go.
    pub fn remove(&self, index: Index) {
        todo!()
    }
    /// Is the index taken?
    pub fn contains(&self, index: Index) -> bool {
        todo!()
    }
}
