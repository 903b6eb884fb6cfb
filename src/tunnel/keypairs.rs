//! A peer's sessions and how they follow one another, as the kernel's `add_new_keypair` and
//! `received_with_keypair` do it: previous, current, next.

use std::sync::Arc;

use crate::{
    forward::{Session, Time, session::REJECT_AFTER_TIME},
    wire::message::Index,
};

/// At most three sessions. We seal with `current`; all three open.
#[derive(Default)]
pub(super) struct Keypairs {
    previous: Option<Arc<Session>>,
    current: Option<Arc<Session>>,
    /// We answered, and wait for the first packet that proves that the peer has the keys.
    next: Option<Arc<Session>>,
    /// `previous` was `next` when a session that we initiated overtook it: both ends initiated at once.
    overtaken: bool,
}

/// Sessions that have lost their place: no packet of theirs is accepted any more.
pub(super) type Dropped = Vec<Index>;

/// What a confirmation changed.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Confirmed {
    /// The next session is the current one now: a handshake that we answered is complete.
    Promoted,
    /// Of two sessions that were made at once the peer's is the current one now.
    Yielded,
}

impl Keypairs {
    /// We initiated and the peer answered: seal with it at once. An unconfirmed next session becomes the
    /// previous one, since the peer may be sealing with it already.
    pub(super) fn initiated(&mut self, session: Arc<Session>) -> Dropped {
        let current = self.current.replace(session);
        let next = self.next.take();
        self.overtaken = next.is_some();
        let (kept, gone) = if next.is_some() { (next, current) } else { (current, None) };
        let oldest = std::mem::replace(&mut self.previous, kept);
        dropped([oldest, gone])
    }

    /// The peer initiated and we answered: keep sealing with the current one until the peer confirms.
    pub(super) fn answered(&mut self, session: Arc<Session>) -> Dropped {
        self.overtaken = false;
        dropped([self.next.replace(session), self.previous.take()])
    }

    /// Did we answer, and has the peer not proven yet that it has the keys?
    pub(super) fn awaits_proof(&self) -> bool {
        self.next.is_some()
    }

    /// A session that we answered got its first authentic packet. Only the next one moves up, so a late packet
    /// of an older session switches nothing back. When both ends initiated at once, each has two young
    /// sessions; the end that `yields` goes over to the other's, so that one of them alone rekeys later.
    pub(super) fn confirmed(&mut self, yields: bool) -> Option<(Confirmed, Dropped)> {
        if self.next.as_ref().is_some_and(|next| next.confirmed()) {
            let next = self.next.take();
            let current = std::mem::replace(&mut self.current, next);
            let oldest = std::mem::replace(&mut self.previous, current);
            self.overtaken = false;
            return Some((Confirmed::Promoted, dropped([oldest, None])));
        }
        if self.overtaken && self.previous.as_ref().is_some_and(|previous| previous.confirmed()) {
            self.overtaken = false;
            if yields {
                std::mem::swap(&mut self.previous, &mut self.current);
                return Some((Confirmed::Yielded, Vec::new()));
            }
        }
        None
    }

    /// Is there a session that a newer one took the place of?
    pub(super) fn has_previous(&self) -> bool {
        self.previous.is_some()
    }

    /// Forgets the previous one, if the peer seals with the current one: what it sent before that has arrived by now.
    /// Else says until when the previous one may still be needed; none: there is none.
    pub(super) fn retire(&mut self) -> Result<Dropped, Option<Time>> {
        let settled = !self.overtaken && self.current.as_ref().is_some_and(|current| current.is_heard());
        if settled {
            return Ok(dropped([self.previous.take()]));
        }
        Err(self.previous.as_ref().map(|previous| previous.start().birth + REJECT_AFTER_TIME))
    }

    /// The previous one is too old to be used.
    pub(super) fn drop_previous(&mut self) -> Dropped {
        dropped([self.previous.take()])
    }

    /// Forgets them all.
    pub(super) fn clear(&mut self) -> Dropped {
        self.overtaken = false;
        dropped([self.previous.take(), self.current.take(), self.next.take()])
    }

    /// The one that we seal with.
    pub(super) fn current(&self) -> Option<&Arc<Session>> {
        self.current.as_ref()
    }

    /// Until when the youngest that has proven itself lives.
    pub(super) fn lives_until(&self) -> Option<Time> {
        let proven = [&self.previous, &self.current].into_iter().flatten();
        proven.map(|session| session.start().birth + REJECT_AFTER_TIME).max()
    }
}

fn dropped<const N: usize>(sessions: [Option<Arc<Session>>; N]) -> Dropped {
    sessions.into_iter().flatten().map(|session| session.start().local).collect()
}
