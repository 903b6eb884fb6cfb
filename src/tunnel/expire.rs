//! What time brings, by the kind of timer.

use std::sync::atomic::Ordering;

use super::{
    Event, KEEPALIVE_TIMEOUT, MAX_ATTEMPTS, Now, REKEY_TIMEOUT, Tunnel,
    hooks::{Wait, last_traversal},
    timers::Timer,
};
use crate::forward::{PeerId, Refusal, Time};

/// Timers that one call of `expire` serves, so that ten thousand handshakes at once neither hold up what comes
/// in nor overflow what goes out.
pub const EXPIRE_BATCH: usize = 256;

impl Tunnel {
    pub(super) fn expire_timers(&mut self, now: Now) {
        for _ in 0..EXPIRE_BATCH {
            let Some((id, timer)) = self.timers.pop_due(now.boot) else { return };
            match timer {
                Timer::Retransmit => self.initiation_unanswered(id, now),
                Timer::Resume => self.session_wanted(id, now),
                Timer::Unanswered => self.data_unanswered(id, now),
                Timer::Keepalive => self.keepalive_owed(id, now),
                Timer::Persistent => self.persistent_keepalive_due(id, now),
                Timer::Reject => self.sessions_died(id),
                Timer::Retire => self.retire_session(id, now),
                Timer::Erase => self.erase_sessions(id, now),
            }
        }
    }

    /// REKEY_TIMEOUT went by: another initiation, or none any more.
    fn initiation_unanswered(&mut self, id: PeerId, now: Now) {
        let Some(peer) = self.peers.of_mut(id) else { return };
        if let Some(turn) = peer.handshake.must_wait(now.boot) {
            self.retransmit_after(id, turn); // we answered the peer in the meantime
            return;
        }
        if peer.handshake.pending.is_some() {
            peer.handshake.attempts += 1;
            peer.handshake.retries += 1;
            let (attempts, retries) = (peer.handshake.attempts, peer.handshake.retries);
            let (key, label) = (peer.shared.public_key, peer.label());
            peer.shared.forget_local(); // perhaps it is our address that has gone
            self.outbox.event(Event::Unanswered { peer: id, key, label, attempts });
            if retries >= MAX_ATTEMPTS {
                self.give_up(id);
                return;
            }
        }
        self.send_initiation(id, now);
    }

    /// 90 s of initiations: what is staged is thrown away, and nothing more is sent until there is a reason.
    fn give_up(&mut self, id: PeerId) {
        let Some(peer) = self.peers.of_mut(id) else { return };
        peer.handshake.retries = 0;
        let pending = peer.handshake.pending.take().map(|pending| pending.index());
        let purged = peer.shared.purge_staged();
        let (key, label) = (peer.shared.public_key, peer.label());
        self.forward.refusals.add(Refusal::HandshakeGivenUp, purged as u64);
        self.outbox.event(Event::GivenUp { peer: id, key, label });
        self.forget_indices(pending.into_iter().collect());
    }

    /// Data was sent and nothing authentic came for 15 s: the peer may have lost the session.
    fn data_unanswered(&mut self, id: PeerId, now: Now) {
        let Some(peer) = self.peers.of_mut(id) else { return };
        let waiting = Wait::Unanswered.since(&peer.shared.activity);
        let since = waiting.load(Ordering::SeqCst);
        if since != 0 && now.boot.since(Time(since)) >= KEEPALIVE_TIMEOUT + REKEY_TIMEOUT {
            // One handshake for this silence; data sent from now on begins another.
            let _ = waiting.compare_exchange(since, 0, Ordering::SeqCst, Ordering::SeqCst);
            peer.handshake.retries = 0;
            peer.shared.forget_local();
            self.send_initiation(id, now);
        }
        self.arm(id, Wait::Unanswered, now.boot);
    }

    /// Data came 10 s ago and we sent nothing since.
    fn keepalive_owed(&mut self, id: PeerId, now: Now) {
        let Some(peer) = self.peers.of(id) else { return };
        let waiting = Wait::Owed.since(&peer.shared.activity);
        let since = waiting.load(Ordering::SeqCst);
        if since != 0 && now.boot.since(Time(since)) >= KEEPALIVE_TIMEOUT {
            let _ = waiting.compare_exchange(since, 0, Ordering::SeqCst, Ordering::SeqCst);
            self.send_keepalive(id, now);
        }
        self.arm(id, Wait::Owed, now.boot);
    }

    fn persistent_keepalive_due(&mut self, id: PeerId, now: Now) {
        let Some(peer) = self.peers.of_mut(id) else { return };
        let Some(interval) = peer.persistent_interval() else { return };
        let at_once = std::mem::take(&mut peer.keepalive_at_once);
        let due = last_traversal(&peer.shared.activity) + interval;
        if due > now.boot && !at_once {
            self.timers.set(id, Timer::Persistent, due);
            return;
        }
        self.timers.set(id, Timer::Persistent, now.boot + interval);
        self.send_keepalive(id, now);
    }

    /// The keys of the session before this one are of no more use, or will be at its end: nothing then.
    fn retire_session(&mut self, id: PeerId, now: Now) {
        let Some(peer) = self.peers.of_mut(id) else { return };
        match peer.keypairs.retire() {
            Ok(gone) => self.forget_indices(gone),
            // Two looks for each session: an idle tunnel sleeps.
            Err(Some(end)) if end > now.boot => self.timers.set(id, Timer::Retire, end),
            Err(Some(_)) => {
                let gone = peer.keypairs.drop_previous();
                self.forget_indices(gone);
            }
            Err(None) => {}
        }
    }

    /// The sessions are too old to be used (each completed handshake puts this off).
    fn sessions_died(&mut self, id: PeerId) {
        let Some(peer) = self.peers.of(id) else { return };
        let (key, label) = (peer.shared.public_key, peer.label());
        self.outbox.event(Event::Silent { peer: id, key, label });
    }
}
