//! The table of deadlines, by peer and kind: a peer without deadlines costs nothing, the next one of all is
//! found at once.

use std::collections::{BTreeMap, BTreeSet};

use crate::forward::{PeerId, Time};

/// What a deadline is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Timer {
    /// An initiation was sent and not answered: send another.
    Retransmit,
    /// The peer had a session with the process before us: call it.
    Resume,
    /// Data was sent and nothing came back: try a new handshake.
    Unanswered,
    /// Data came and nothing was sent back: send an empty packet.
    Keepalive,
    /// The operator wants a packet this often.
    Persistent,
    /// The sessions are too old to be used.
    Reject,
    /// There is a newer session than the previous one, which may go.
    Retire,
    /// All that is secret is to be erased.
    Erase,
}

/// Deadlines, at most one for each peer and kind.
#[derive(Default)]
pub(super) struct Timers {
    due: BTreeSet<(Time, PeerId, Timer)>,
    set: BTreeMap<(PeerId, Timer), Time>,
}

impl Timers {
    /// From now on this deadline, and no other of its kind.
    pub(super) fn set(&mut self, peer: PeerId, timer: Timer, at: Time) {
        if let Some(before) = self.set.insert((peer, timer), at) {
            self.due.remove(&(before, peer, timer));
        }
        self.due.insert((at, peer, timer));
    }

    /// No deadline of this kind.
    pub(super) fn clear(&mut self, peer: PeerId, timer: Timer) {
        if let Some(at) = self.set.remove(&(peer, timer)) {
            self.due.remove(&(at, peer, timer));
        }
    }

    /// Is there a deadline of this kind?
    pub(super) fn is_set(&self, peer: PeerId, timer: Timer) -> bool {
        self.set.contains_key(&(peer, timer))
    }

    /// The deadline of this kind.
    pub(super) fn at(&self, peer: PeerId, timer: Timer) -> Option<Time> {
        self.set.get(&(peer, timer)).copied()
    }

    /// No deadline of this peer at all.
    pub(super) fn forget(&mut self, peer: PeerId) {
        let kinds = (peer, Timer::Retransmit)..=(peer, Timer::Erase);
        let all: Vec<_> = self.set.range(kinds).map(|(&(_, timer), _)| timer).collect();
        for timer in all {
            self.clear(peer, timer);
        }
    }

    /// The earliest deadline.
    pub(super) fn next(&self) -> Option<Time> {
        self.due.first().map(|&(at, ..)| at)
    }

    /// Takes the earliest deadline out, if it has come.
    pub(super) fn pop_due(&mut self, now: Time) -> Option<(PeerId, Timer)> {
        let &(at, peer, timer) = self.due.first()?;
        if at > now {
            return None;
        }
        self.clear(peer, timer);
        Some((peer, timer))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: PeerId = PeerId(1);
    const B: PeerId = PeerId(2);

    #[test]
    fn a_deadline_is_due_at_its_moment_and_not_a_nanosecond_before() {
        let mut timers = Timers::default();
        timers.set(A, Timer::Keepalive, Time(100));
        assert_eq!(timers.next(), Some(Time(100)));
        assert_eq!(timers.pop_due(Time(99)), None);
        assert_eq!(timers.pop_due(Time(100)), Some((A, Timer::Keepalive)));
        assert_eq!(timers.pop_due(Time(100)), None);
        assert_eq!(timers.next(), None);
    }

    #[test]
    fn a_deadline_set_again_replaces_the_one_before() {
        let mut timers = Timers::default();
        timers.set(A, Timer::Retransmit, Time(100));
        timers.set(A, Timer::Retransmit, Time(50));
        assert_eq!(timers.pop_due(Time(50)), Some((A, Timer::Retransmit)));
        assert_eq!(timers.pop_due(Time(1000)), None);
    }

    #[test]
    fn deadlines_come_out_in_order_whoever_set_them() {
        let mut timers = Timers::default();
        timers.set(B, Timer::Erase, Time(30));
        timers.set(A, Timer::Reject, Time(20));
        timers.set(B, Timer::Retransmit, Time(10));
        let order: Vec<_> = std::iter::from_fn(|| timers.pop_due(Time(30))).collect();
        assert_eq!(order, [(B, Timer::Retransmit), (A, Timer::Reject), (B, Timer::Erase)]);
    }

    #[test]
    fn a_forgotten_peer_has_no_deadlines_and_the_others_keep_theirs() {
        let mut timers = Timers::default();
        timers.set(A, Timer::Retransmit, Time(1));
        timers.set(A, Timer::Erase, Time(2));
        timers.set(B, Timer::Erase, Time(3));
        timers.forget(A);
        assert!(!timers.is_set(A, Timer::Erase));
        assert_eq!(timers.pop_due(Time(9)), Some((B, Timer::Erase)));
        assert_eq!(timers.pop_due(Time(9)), None);
    }
}
