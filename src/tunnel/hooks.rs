//! What happened, as the timers hear it; each hook is named by what happened.

use std::sync::atomic::{AtomicU64, Ordering};

use super::{
    ERASE_AFTER_TIME, Event, KEEPALIVE_TIMEOUT, Now, REKEY_TIMEOUT, RETIRE_AFTER_TIME, Tunnel,
    keypairs::Confirmed, timers::Timer,
};
use crate::forward::{Activity, Peer, PeerId, Time, activity};

/// One of the two times in [`Activity`] that data threads set and a timer waits on.
#[derive(Clone, Copy)]
pub(super) enum Wait {
    /// `unanswered_since`.
    Unanswered,
    /// `owed_since`.
    Owed,
}

impl Wait {
    pub(super) fn since(self, activity: &Activity) -> &AtomicU64 {
        match self {
            Wait::Unanswered => &activity.unanswered_since,
            Wait::Owed => &activity.owed_since,
        }
    }

    fn bit(self) -> u32 {
        match self {
            Wait::Unanswered => activity::UNANSWERED_ARMED,
            Wait::Owed => activity::OWED_ARMED,
        }
    }

    fn timer(self) -> Timer {
        match self {
            Wait::Unanswered => Timer::Unanswered,
            Wait::Owed => Timer::Keepalive,
        }
    }
}

impl Tunnel {
    /// The keys of a new session exist: erase them some day, whatever else happens.
    pub(super) fn session_derived(&mut self, id: PeerId, now: Time) {
        self.timers.set(id, Timer::Erase, now + ERASE_AFTER_TIME);
    }

    /// Both ends have proven themselves. `first`: the peer had no session that lived.
    pub(super) fn handshake_complete(&mut self, id: PeerId, first: bool, initiator: bool, now: Now) {
        self.timers.clear(id, Timer::Retransmit);
        let Some(peer) = self.peers.of_mut(id) else { return };
        peer.handshake.complete();
        peer.last_handshake = Some(now.wall);
        if first {
            peer.connected_since = Some(now.wall);
        }
        if let Some(end) = peer.keypairs.lives_until() {
            self.timers.set(id, Timer::Reject, end);
        }
        if peer.keypairs.has_previous() {
            self.timers.set(id, Timer::Retire, now.boot + RETIRE_AFTER_TIME);
        }
        let Some(from) = peer.shared.endpoint().map(|endpoint| endpoint.remote) else { return };
        let (key, label) = (peer.shared.public_key, peer.label());
        self.outbox.event(Event::Connected { peer: id, key, label, from, initiator, first });
    }

    /// A session that we answered got its first authentic packet.
    pub(super) fn session_confirmed(&mut self, id: PeerId, now: Now) {
        let Some(own) = self.ours.as_ref().map(|ours| *ours.identity.public_key()) else { return };
        let Some(peer) = self.peers.of_mut(id) else { return };
        let first = peer.keypairs.lives_until().is_none_or(|end| end <= now.boot);
        let yields = own < peer.shared.public_key;
        let Some((confirmed, mut gone)) = peer.keypairs.confirmed(yields) else { return };
        let Some(session) = peer.keypairs.current().cloned() else { return };
        if confirmed == Confirmed::Promoted {
            // Our own attempt, if any, has become needless.
            gone.extend(peer.handshake.pending.take().map(|pending| pending.index()));
            self.handshake_complete(id, first, false, now);
        }
        self.forget_indices(gone);
        self.seal_with(id, session, now);
    }

    /// Data threads began to wait for something: a timer for it, if there is none.
    pub(super) fn arm_activity_timers(&mut self, id: PeerId, now: Time) {
        for wait in [Wait::Unanswered, Wait::Owed] {
            if !self.timers.is_set(id, wait.timer()) {
                self.arm(id, wait, now);
            }
        }
    }

    /// Sets the timer for what the data threads wait for; if they wait for nothing, there is none, and they
    /// are to say so when they do again.
    pub(super) fn arm(&mut self, id: PeerId, wait: Wait, now: Time) {
        let Some(shared) = self.peers.of(id).map(|peer| peer.shared.clone()) else { return };
        let Some(since) = waiting_since(&shared, wait) else { return };
        let after = match wait {
            Wait::Unanswered => KEEPALIVE_TIMEOUT + REKEY_TIMEOUT + self.jitter(),
            Wait::Owed => KEEPALIVE_TIMEOUT,
        };
        self.timers.set(id, wait.timer(), (since + after).max(now));
    }
}

/// When something authentic last went either way.
pub(super) fn last_traversal(activity: &Activity) -> Time {
    let sent = activity.sent.load(Ordering::Relaxed);
    Time(sent.max(activity.received.load(Ordering::Relaxed)))
}

/// Since when the data threads wait; marks that a timer is armed for it, or, if they do not wait, that none is.
/// They look at the mark after they set the time, we at the time after we cleared the mark: one of us sees.
fn waiting_since(peer: &Peer, wait: Wait) -> Option<Time> {
    let activity = &peer.activity;
    let since = || Some(wait.since(activity).load(Ordering::SeqCst)).filter(|&since| since != 0);
    activity.armed.fetch_and(!wait.bit(), Ordering::SeqCst);
    let since = since()?;
    activity.armed.fetch_or(wait.bit(), Ordering::SeqCst);
    Some(Time(since))
}
