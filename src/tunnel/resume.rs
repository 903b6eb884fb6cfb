//! What a tunnel takes over from the process before it: where peers were, which of them to call at once, and which
//! timestamps were used. Never a key, never a counter.

use super::{Tunnel, timers::Timer};
use crate::forward::{Endpoint, Time};
use crate::noise::{PublicKey, Tai64n};

/// What is remembered of a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Remembered {
    /// Where it was, authentically.
    pub endpoint: Endpoint,
    /// The newest timestamp that it sent: older initiations are replays, to the next process, too.
    pub newest_timestamp: Tai64n,
}

impl Tunnel {
    /// From now on no initiation bears a timestamp at or before this one: it may have been sent under this key by a
    /// process before us, whose wall clock may have been ahead of ours.
    pub fn never_before(&mut self, floor: Tai64n) {
        self.timestamp_floor = self.timestamp_floor.max(floor);
        for peer in self.peers.iter_mut() {
            peer.handshake.sent_timestamp = peer.handshake.sent_timestamp.max(floor);
        }
    }

    /// The newest timestamp that any peer was sent by this tunnel; the first of all labels if there was none.
    pub fn newest_timestamp(&self) -> Tai64n {
        self.newest_timestamp
    }

    /// What the next process would have to know of this peer. None while nobody knows where it is.
    pub fn remembered(&self, key: &PublicKey) -> Option<Remembered> {
        let peer = self.peers.id(key).and_then(|id| self.peers.of(id))?;
        let newest_timestamp = peer.handshake.newest_timestamp;
        peer.shared.endpoint().map(|endpoint| Remembered { endpoint, newest_timestamp })
    }

    /// Takes over what the process before us knew of this peer; false if there is no such peer. `call`: the peer had
    /// a session then, and still sends what only that process could open: it gets an initiation at that moment, unless
    /// there is a new session before.
    pub fn resume(&mut self, key: &PublicKey, known: Remembered, call: Option<Time>) -> bool {
        let Some(peer) = self.peers.id(key).and_then(|id| self.peers.of_mut(id)) else { return false };
        peer.shared.set_endpoint(Some(known.endpoint));
        peer.told_endpoint = Some(known.endpoint.remote);
        peer.handshake.newest_timestamp = peer.handshake.newest_timestamp.max(known.newest_timestamp);
        if let Some(at) = call {
            let id = peer.shared.id;
            self.timers.set(id, Timer::Resume, at);
            // A keepalive would be its call, too, and all of them at once.
            if self.timers.is_set(id, Timer::Persistent) {
                self.timers.set(id, Timer::Persistent, at);
            }
        }
        true
    }
}
