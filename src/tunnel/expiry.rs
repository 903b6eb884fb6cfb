//! Until when peers are let in. That is a moment of the wall clock, which may be set, and goes on while the machine
//! sleeps: it is looked at anew whenever somebody comes by, and nothing here is done with by having been seen once.

use std::{collections::BTreeSet, time::Duration};

use super::{EXPIRE_BATCH, Event, Now, Tunnel, change::Expires};
use crate::forward::{PeerId, Refusal};

/// The moments that are to come, and how far the wall clock has come among them.
#[derive(Default)]
pub(super) struct Expiries {
    moments: BTreeSet<(Duration, PeerId)>,
    /// Those up to here have been acted on.
    reached: Option<(Duration, PeerId)>,
}

impl Expiries {
    fn replace(&mut self, peer: PeerId, before: Option<Duration>, after: Option<Duration>) {
        if let Some(before) = before {
            self.moments.remove(&(before, peer));
        }
        self.moments.extend(after.map(|after| (after, peer)));
    }

    /// When the next one comes.
    fn next(&self) -> Option<Duration> {
        self.first().map(|(at, _)| at)
    }

    fn first(&self) -> Option<(Duration, PeerId)> {
        use std::ops::Bound::{Excluded, Unbounded};
        let after = self.reached.map_or(Unbounded, Excluded);
        self.moments.range((after, Unbounded)).next().copied()
    }

    /// A clock that was set back has those before it again that it had passed.
    fn follow_back(&mut self, wall: Duration) {
        if self.reached.is_some_and(|(reached, _)| reached > wall) {
            self.reached = Some((wall, PeerId(u64::MAX)));
        }
    }

    /// The next peer whose moment has come, each once.
    fn pop_due(&mut self, wall: Duration) -> Option<PeerId> {
        let due = self.first().filter(|&(at, _)| at <= wall)?;
        self.reached = Some(due);
        Some(due.1)
    }
}

impl Tunnel {
    /// When `expire` is wanted next by the wall clock (since the Unix epoch), beside [`Tunnel::deadline`].
    pub fn wall_deadline(&self) -> Option<Duration> {
        self.expiries.next()
    }

    /// Ends the sessions of peers whose time is over.
    pub(super) fn expire_peers(&mut self, now: Now) {
        self.expiries.follow_back(now.wall);
        for _ in 0..EXPIRE_BATCH {
            let Some(id) = self.expiries.pop_due(now.wall) else { return };
            self.end_peer(id, now);
        }
    }

    pub(super) fn set_expiry(&mut self, id: PeerId, expires: Expires, now: Now) {
        let after = match expires {
            Expires::Never => None,
            Expires::At(moment) => Some(moment),
        };
        self.expiries.follow_back(now.wall);
        let Some(peer) = self.peers.of_mut(id) else { return };
        let before = std::mem::replace(&mut peer.expires, after);
        self.expiries.replace(id, before, after);
        let was_over = before.is_some_and(|before| before <= now.wall);
        if peer.has_expired(now.wall) && !was_over {
            self.end_peer(id, now);
        }
    }

    pub(super) fn forget_expiry(&mut self, id: PeerId) {
        let before = self.peers.of(id).and_then(|peer| peer.expires);
        self.expiries.replace(id, before, None);
    }

    /// Its sessions and handshake are gone, and what waited for one.
    fn end_peer(&mut self, id: PeerId, now: Now) {
        self.drop_secrets(id, now);
        self.drop_staged(id, now);
        let Some(peer) = self.peers.of(id) else { return };
        let (key, label) = (peer.shared.public_key, peer.label());
        self.outbox.event(Event::Expired { peer: id, key, label });
    }

    /// What was staged for a peer whose time is over.
    pub(super) fn drop_staged(&mut self, id: PeerId, now: Now) {
        let Some(peer) = self.peers.of(id) else { return };
        let dropped = peer.shared.purge_staged() as u64;
        if dropped > 0 {
            self.refuse(Refusal::ToExpiredPeer, self.about(id, now));
            self.forward.refusals.add(Refusal::ToExpiredPeer, dropped - 1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: PeerId = PeerId(1);
    const B: PeerId = PeerId(2);

    fn at(second: u64) -> Duration {
        Duration::from_secs(second)
    }

    fn due(expiries: &mut Expiries, wall: Duration) -> Vec<PeerId> {
        expiries.follow_back(wall);
        std::iter::from_fn(|| expiries.pop_due(wall)).collect()
    }

    #[test]
    fn a_moment_comes_once_and_not_a_nanosecond_early() {
        let mut expiries = Expiries::default();
        expiries.replace(B, None, Some(at(10)));
        expiries.replace(A, None, Some(at(10)));
        assert_eq!(expiries.next(), Some(at(10)));
        assert_eq!(due(&mut expiries, at(10) - Duration::from_nanos(1)), []);
        assert_eq!(due(&mut expiries, at(10)), [A, B]);
        assert_eq!((due(&mut expiries, at(11)), expiries.next()), (vec![], None));
    }

    #[test]
    fn a_clock_that_was_set_back_comes_to_the_moment_again() {
        let mut expiries = Expiries::default();
        expiries.replace(A, None, Some(at(10)));
        expiries.replace(B, None, Some(at(20)));
        assert_eq!(due(&mut expiries, at(30)), [A, B]);
        assert_eq!((due(&mut expiries, at(15)), expiries.next()), (vec![], Some(at(20))));
        assert_eq!(due(&mut expiries, at(20)), [B]);
        assert_eq!((due(&mut expiries, at(0)), expiries.next()), (vec![], Some(at(10))));
    }

    #[test]
    fn a_moment_that_was_taken_back_does_not_come() {
        let mut expiries = Expiries::default();
        expiries.replace(A, None, Some(at(10)));
        expiries.replace(A, Some(at(10)), Some(at(20)));
        assert_eq!((due(&mut expiries, at(15)), expiries.next()), (vec![], Some(at(20))));
        expiries.replace(A, Some(at(20)), None);
        assert_eq!(expiries.next(), None);
    }
}
