//! A session: two keys, a send counter, a replay window, a birth.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

pub use super::sessions::Sessions;
use super::{
    Time,
    aead::{Forged, Key},
    padding::padded_len,
    replay::{ReplayWindow, WINDOW},
};
use crate::{
    noise::SessionKeys,
    wire::message::{Index, TAG_LEN, TRANSPORT_HEADER_LEN, TransportHeader},
};

#[cfg(test)]
mod tests;

/// After this many seconds an initiator asks for a new session when it sends (paper, section 6.1).
pub const REKEY_AFTER_TIME: Duration = Duration::from_secs(120);
/// After this many seconds a session is dead in both directions.
pub const REJECT_AFTER_TIME: Duration = Duration::from_secs(180);
/// After this many messages the sender asks for a new session, whichever side it is (the kernel's
/// `keep_key_fresh`).
pub const REKEY_AFTER_MESSAGES: u64 = 1 << 60;
/// No counter at or above this is ever used or accepted.
pub const REJECT_AFTER_MESSAGES: u64 = u64::MAX - WINDOW - 1;

/// From this age on an initiator that only receives asks for a new session, so that it can still answer
/// (paper, section 6.2): REJECT_AFTER_TIME − KEEPALIVE_TIMEOUT − REKEY_TIMEOUT.
const REKEY_ON_RECEIVE_AFTER: Duration = Duration::from_secs(180 - 10 - 5);

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
    pub rekey_after: Duration,
}

/// One session; shared by both halves and all data threads. The AEAD keys erase themselves when the last of
/// these lets go.
pub struct Session {
    start: SessionStart,
    send_key: Key,
    receive_key: Key,
    confirmed: AtomicBool,
    /// It was said that this session is about to die while only receiving.
    last_minute: AtomicBool,
    next: OwnLine<AtomicU64>,
    window: OwnLine<Mutex<ReplayWindow>>,
}

/// Sending and receiving threads write to different cache lines.
#[repr(align(64))]
struct OwnLine<T>(T);

impl Session {
    /// From a finished handshake. An initiator's session is confirmed at once; a responder's by the first
    /// authentic packet.
    pub fn new(start: SessionStart, keys: &SessionKeys) -> Arc<Self> {
        Arc::new(Self {
            send_key: Key::new(&keys.send),
            receive_key: Key::new(&keys.receive),
            confirmed: AtomicBool::new(start.initiator),
            last_minute: AtomicBool::new(false),
            next: OwnLine(AtomicU64::new(0)),
            window: OwnLine(Mutex::new(ReplayWindow::new())),
            start,
        })
    }
    /// Facts.
    pub fn start(&self) -> &SessionStart {
        &self.start
    }
    /// How many counters were used.
    pub fn sent(&self) -> u64 {
        self.next.0.load(Ordering::Relaxed)
    }
    /// Has the peer proven that it has the keys?
    pub fn confirmed(&self) -> bool {
        self.confirmed.load(Ordering::Acquire)
    }
    /// Is it too old for either direction?
    pub fn expired(&self, now: Time) -> bool {
        now.since(self.start.birth) >= REJECT_AFTER_TIME
    }
    /// May it still seal? Age below REJECT_AFTER_TIME, counter below REJECT_AFTER_MESSAGES.
    pub fn can_send(&self, now: Time) -> bool {
        !self.expired(now) && self.sent() < REJECT_AFTER_MESSAGES
    }
    /// Is it time for a new one, as we send (paper, section 6.2)? After REKEY_AFTER_MESSAGES on both sides,
    /// after REKEY_AFTER_TIME on the initiator's.
    pub fn wants_rekey(&self, now: Time) -> bool {
        let old = self.start.initiator && now.since(self.start.birth) >= self.start.rekey_after;
        old || self.sent() >= REKEY_AFTER_MESSAGES
    }
    /// Is it so old that an initiator asks for a new one even if it only receives?
    pub(super) fn at_last_minute(&self, now: Time) -> bool {
        self.start.initiator && now.since(self.start.birth) >= REKEY_ON_RECEIVE_AFTER
    }
    /// True for the first caller in the session's life: it asks for the new one.
    pub(super) fn take_last_minute(&self) -> bool {
        !self.last_minute.load(Ordering::Relaxed) && !self.last_minute.swap(true, Ordering::Relaxed)
    }

    /// Takes the next `n` counters; the first of them. `None`: fewer are left, or the session has expired. No
    /// counter is given out twice, and none at or above REJECT_AFTER_MESSAGES.
    pub fn reserve(&self, n: u64, now: Time) -> Option<u64> {
        if self.expired(now) {
            return None;
        }
        let take = |next: u64| next.checked_add(n).filter(|end| *end <= REJECT_AFTER_MESSAGES);
        self.next.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).ok()
    }
    /// Makes a transport message of `datagram` in place: 16 bytes of room for the header, the padded plaintext,
    /// 16 bytes of room for the tag. `counter` comes from [`Self::reserve`] and is used once.
    pub fn seal_in_place(&self, counter: u64, datagram: &mut [u8]) {
        let (header, rest) = datagram.split_first_chunk_mut().expect("room for the header");
        let (text, tag) = rest.split_last_chunk_mut::<TAG_LEN>().expect("room for the tag");
        TransportHeader { receiver: self.start.remote, counter }.write(header);
        *tag = self.send_key.seal(counter, text);
    }
    /// Seals one packet (empty: a keepalive) into a new datagram, padded to 16 but not beyond `mtu`.
    /// `None`: the counter or the age is at its limit. For the upper half; data threads seal in place.
    pub fn seal(&self, packet: &[u8], mtu: usize, now: Time) -> Option<Vec<u8>> {
        let counter = self.reserve(1, now)?;
        let mut datagram = vec![0; TRANSPORT_HEADER_LEN + padded_len(packet.len(), mtu) + TAG_LEN];
        datagram[TRANSPORT_HEADER_LEN..][..packet.len()].copy_from_slice(packet);
        self.seal_in_place(counter, &mut datagram);
        Some(datagram)
    }

    /// Decrypts what follows a transport header, in place. Says nothing of replay: [`Self::accept`] does.
    pub fn open<'a>(&self, counter: u64, sealed: &'a mut [u8]) -> Result<&'a mut [u8], Forged> {
        self.receive_key.open(counter, sealed)
    }
    /// Marks the counter of an authentic message as seen; false if it must be refused (see [`ReplayWindow`]).
    pub fn accept(&self, counter: u64) -> bool {
        // The window is whole between any two statements of its update, so a panic cannot spoil it.
        self.window.0.lock().unwrap_or_else(PoisonError::into_inner).accept(counter)
    }
    /// Has the peer sealed anything with it?
    pub fn is_heard(&self) -> bool {
        self.window.0.lock().unwrap_or_else(PoisonError::into_inner).is_touched()
    }
    /// An authentic message came; true if it was the first that the peer proved itself with.
    pub(super) fn confirm(&self) -> bool {
        !self.confirmed() && !self.confirmed.swap(true, Ordering::AcqRel)
    }

    /// Tests only move the counter forward; used by the tests of the limits.
    pub fn skip_to(&self, counter: u64) {
        self.next.0.fetch_max(counter, Ordering::Relaxed);
    }
}
