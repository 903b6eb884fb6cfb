//! Handshake messages and keepalives that go out, and what was staged until there was a session.

use std::sync::Arc;

use bytes::Bytes;

use super::{Now, REKEY_JITTER, REKEY_TIMEOUT, Transmit, Tunnel, timers::Timer};
use crate::{
    forward::{Endpoint, Evidence, PeerId, Refusal, Session, Time},
    noise::{KeyLog, handshake::initiate},
    wire::{
        message::{INITIATION_LEN, Index, RESPONSE_LEN, Response},
        outer::Outer,
    },
};

/// Turns in which staged packets may leave before data threads get the session. Where packets come faster than
/// they can be sent, so that the queue overflows anyway, it has to end some time: what waits in the last turn is lost,
/// not overtaken.
const HANDOVER_TURNS: u32 = 16;

/// A session on its way to the data threads: what was staged is being sent.
pub(super) struct Handover {
    peer: PeerId,
    session: Arc<Session>,
    now: Time,
    turns: u32,
}

impl Tunnel {
    /// Somebody has something to send: a handshake, if it takes one. Counts from there when it is given up.
    pub(super) fn session_wanted(&mut self, id: PeerId, now: Now) {
        let Some(peer) = self.peers.of_mut(id) else { return };
        if peer.has_expired(now.wall) {
            return self.drop_staged(id, now);
        }
        peer.handshake.retries = 0;
        if peer.needs_session(now.boot) && !self.hands_over(id) {
            self.send_initiation(id, now);
        }
    }

    /// Sends an initiation; if the last handshake message is too young, sees to it that one goes out later. If
    /// it is seen to already, that turn is not hurried: its jitter keeps two ends from staying in step.
    pub(super) fn send_initiation(&mut self, id: PeerId, now: Now) {
        if self.timers.is_set(id, Timer::Retransmit) {
            return;
        }
        let Some(peer) = self.peers.of(id) else { return };
        if peer.shared.endpoint().is_none() || peer.has_expired(now.wall) {
            return; // counted where the packet came from
        }
        if peer.remote.is_none() {
            self.refuse(Refusal::NoPrivateKey, self.about(id, now));
            return;
        }
        if let Some(turn) = peer.handshake.must_wait(now.boot) {
            self.retransmit_after(id, turn);
            return;
        }
        if let Some(mut message) = self.new_initiation(id, now) {
            let pending = self.peers.of(id).and_then(|peer| peer.handshake.pending.as_ref());
            let keys = pending.and_then(|pending| self.key_log(id, pending.ephemeral()));
            self.transmit_handshake(id, &mut message, keys, now);
            self.retransmit_after(id, now.boot + REKEY_TIMEOUT);
        }
    }

    /// Sets the timer for the next initiation, not quite at that moment.
    pub(super) fn retransmit_after(&mut self, id: PeerId, earliest: Time) {
        let at = earliest + self.jitter();
        self.timers.set(id, Timer::Retransmit, at);
    }

    /// A fresh ephemeral key, a later timestamp; the initiation before it is forgotten.
    fn new_initiation(&mut self, id: PeerId, now: Now) -> Option<[u8; INITIATION_LEN]> {
        let index = self.indices.draw(id, &mut *self.rng);
        let peer = self.peers.of_mut(id)?;
        peer.handshake.sent = Some(now.boot);
        let timestamp = peer.handshake.next_timestamp(now.wall);
        self.newest_timestamp = self.newest_timestamp.max(timestamp);
        match initiate(peer.remote.as_ref()?, index, timestamp, &mut *self.rng) {
            Ok((pending, initiation)) => {
                if let Some(before) = peer.handshake.pending.replace(pending) {
                    self.indices.release(before.index());
                }
                Some(initiation.to_bytes())
            }
            Err(error) => {
                tracing::debug!(peer = peer.label(), %error, "no initiation");
                self.indices.release(index);
                self.refuse(Refusal::LowOrderKey, self.about(id, now));
                None
            }
        }
    }

    pub(super) fn send_response(&mut self, id: PeerId, response: &Response, now: Now) {
        let Some(peer) = self.peers.of_mut(id) else { return };
        peer.handshake.sent = Some(now.boot); // we do not initiate while the peer does
        let mut message: [u8; RESPONSE_LEN] = response.to_bytes();
        self.transmit_handshake(id, &mut message, None, now);
    }

    /// `keys`: what a capture is told of it.
    fn transmit_handshake(&mut self, id: PeerId, message: &mut [u8], keys: Option<KeyLog>, now: Now) {
        let Some(peer) = self.peers.of_mut(id) else { return };
        peer.handshake.fill_macs(message, now.boot);
        if let Some(endpoint) = peer.shared.endpoint() {
            self.tell_sent(Some(id), endpoint, message, keys.as_ref(), now);
        }
        self.transmit_empty(id, Bytes::copy_from_slice(message), now.boot);
    }

    /// The answer under load: smaller than the question, and all that its sender gets.
    pub(super) fn send_cookie(&mut self, message: &[u8], sender: Index, to: &Endpoint, now: Now) {
        let cookie = self.cookie_secret(now).cookie(&to.remote);
        let Some(ours) = &self.ours else { return };
        let reply = ours.macs.seal_cookie(sender, message, &cookie, &mut *self.rng);
        let datagram = Bytes::copy_from_slice(&reply.to_bytes());
        self.tell_sent(None, *to, &datagram, None, now);
        let transmit = Transmit { peer: None, to: *to, outer: Outer::default(), datagram };
        if !self.outbox.transmit(transmit) {
            self.forward.refusals.add(Refusal::HandshakeQueueFull, 1);
        }
    }

    /// An empty packet; a new session if there is none to seal it with, or only an old one.
    pub(super) fn send_keepalive(&mut self, id: PeerId, now: Now) {
        let Some(peer) = self.peers.of_mut(id) else { return };
        let current = peer.keypairs.current().cloned();
        let sealed = current.as_ref().and_then(|session| session.seal(&[], 0, now.boot));
        let old = current.is_none_or(|session| session.wants_rekey(now.boot));
        let wanted = old || sealed.is_none();
        if let Some(datagram) = sealed {
            self.transmit_empty(id, datagram.into(), now.boot);
        }
        if wanted {
            self.session_wanted(id, now);
        }
    }

    /// The data threads are to seal with this session. What was staged leaves first; says how many that are.
    pub(super) fn seal_with(&mut self, id: PeerId, session: Arc<Session>, now: Now) -> usize {
        self.hand_over(Handover { peer: id, session, now: now.boot, turns: 0 })
    }

    /// What the last turn of a handover sealed has been sent: the next turn. False if there is none to be taken.
    pub(super) fn next_handover(&mut self) -> bool {
        let Some(handover) = self.handovers.pop_front() else { return false };
        // Another session may have come meanwhile, or the peer gone.
        let current = self.peers.of(handover.peer).and_then(|peer| peer.keypairs.current());
        if current.is_some_and(|current| Arc::ptr_eq(current, &handover.session)) {
            self.hand_over(handover);
        }
        true
    }

    /// Is this peer's session not yet the one that data threads seal with?
    pub(super) fn hands_over(&self, id: PeerId) -> bool {
        self.handovers.iter().any(|handover| handover.peer == id)
    }

    fn hand_over(&mut self, handover: Handover) -> usize {
        let Handover { peer: id, session, now, turns } = handover;
        let Some(peer) = self.peers.of(id) else { return 0 };
        if turns + 1 == HANDOVER_TURNS {
            let lost = peer.shared.hand_over_at_last(&session);
            self.forward.refusals.add(Refusal::StagedOverflow, lost as u64);
            return 0;
        }
        let staged = peer.shared.hand_over(&session, now);
        if let Some(look) = self.forward.tap.look() {
            look.handed_over(&self.forward, &peer.shared, &staged, now);
        }
        let count = staged.len();
        for datagram in staged {
            self.transmit(id, datagram.outer, datagram.bytes.into());
        }
        self.arm_activity_timers(id, now);
        if count > 0 {
            self.handovers.push_back(Handover { peer: id, session, now, turns: turns + 1 });
        }
        count
    }

    /// Queues a handshake message or keepalive: authentic, and no data.
    fn transmit_empty(&mut self, id: PeerId, datagram: Bytes, now: Time) {
        let bytes = datagram.len() as u64;
        if self.transmit(id, Outer::default(), datagram)
            && let Some(peer) = self.peers.of(id)
        {
            peer.shared.activity.authentic_sent(bytes, now);
        }
    }

    /// Queues a datagram to where the peer is; false if there is no such place, or no room.
    fn transmit(&mut self, id: PeerId, outer: Outer, datagram: Bytes) -> bool {
        let endpoint = self.peers.of(id).and_then(|peer| peer.shared.endpoint());
        let Some(to) = endpoint else { return false };
        let queued = self.outbox.transmit(Transmit { peer: Some(id), to, outer, datagram });
        if !queued {
            self.forward.refusals.add(Refusal::HandshakeQueueFull, 1);
        }
        queued
    }

    /// A little time, by chance.
    pub(super) fn jitter(&mut self) -> std::time::Duration {
        let most = u64::try_from(REKEY_JITTER.as_nanos()).expect("a third of a second");
        std::time::Duration::from_nanos(self.rng.next_u64() % (most + 1))
    }

    /// Evidence about a peer alone.
    pub(super) fn about(&self, id: PeerId, now: Now) -> Evidence {
        let key = self.peers.of(id).map(|peer| peer.shared.public_key);
        Evidence { at: now.boot, peer: Some(id), key, ..Evidence::default() }
    }
}
