//! The lower half: what a data thread needs to move a batch. It reads immutable snapshots behind atomic
//! pointers and never waits for the upper half; it tells it by atomics on the peer and by two bounded queues.
//!
//! Outbound: [`Forward::outbound`]: IP header → allowed IPs → peer → session and counters; then [`Forward::seal`]:
//! segment → seal → a carrier. Inbound: [`Forward::inbound`]: type → session by index → open → replay → source check →
//! coalesce → deliver.

pub mod activity;
pub mod aead;
mod aligned;
pub mod allowed_ips;
pub mod asking;
pub mod carrier;
pub mod coalesce;
pub mod handshakes;
pub mod inbound;
pub mod intake;
pub mod mss;
pub mod outbound;
mod padding;
pub mod pause;
pub mod peer;
pub mod refusal;
pub mod replay;
pub mod segment;
pub mod session;
mod sessions;
mod staged;
pub mod tap;
pub mod time;

#[cfg(test)]
mod tests;

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use arc_swap::ArcSwap;
use crossbeam_queue::SegQueue;

pub use activity::Activity;
pub use aligned::Aligned;
pub use allowed_ips::AllowedIps;
pub use carrier::{Cargo, Carriers};
pub use coalesce::{Delivery, Merge};
pub use handshakes::{HANDSHAKE_QUEUE, HandshakeDatagram, Handshakes};
pub use inbound::{Arrival, Deliveries};
pub use intake::Intake;
pub use mss::MssClamp;
pub use outbound::{Departure, Outbound};
pub use pause::Pause;
pub use peer::{Endpoint, Local, Peer, PeerId, Raised};
pub use refusal::{Evidence, Refusal, Refusals};
pub use session::{Session, Sessions};
pub use tap::Tap;
pub use time::Time;

use staged::{Budget, STAGED_BYTES};

use crate::wire::message::Kind;

/// Everything data threads share with the upper half.
pub struct Forward {
    /// Longest prefix → peer; replaced whole.
    pub routes: ArcSwap<AllowedIps<Arc<Peer>>>,
    /// Receiver index → session.
    pub sessions: Sessions,
    /// What was refused, by reason, with the last evidence.
    pub refusals: Refusals,
    /// TCP's segments are made to fit.
    pub mss: MssClamp,
    /// Who looks at packets under way.
    pub tap: Tap,
    /// On their way to the upper half.
    pub handshakes: Handshakes,
    /// Each peer stands in it at most once: while its bits are not zero.
    raised: SegQueue<Arc<Peer>>,
    handshakes_bell: Bell,
    raised_bell: Bell,
    wake: Box<dyn Fn() -> bool + Send + Sync>,
    staging: Arc<Budget>,
}

impl Forward {
    /// `wake` is called, from a data thread, when a queue stops being empty; it must not block. The upper half
    /// then pops until `None`: only an empty queue rings again.
    pub fn new(wake: Box<dyn Fn() + Send + Sync>) -> Arc<Self> {
        Self::woken_by(Box::new(move || {
            wake();
            true
        }))
    }

    /// The same with a `wake` that may fail (false): then it is called again by what comes next.
    pub fn woken_by(wake: Box<dyn Fn() -> bool + Send + Sync>) -> Arc<Self> {
        Arc::new(Self {
            routes: ArcSwap::default(),
            sessions: Sessions::new(),
            refusals: Refusals::new(),
            mss: MssClamp::default(),
            tap: Tap::default(),
            handshakes: Handshakes::new(),
            raised: SegQueue::new(),
            handshakes_bell: Bell::default(),
            raised_bell: Bell::default(),
            wake,
            staging: Budget::new(STAGED_BYTES),
        })
    }
    /// A handshake datagram for the upper half, if there is room for it, and for its source.
    pub fn push_handshake(&self, from: &Endpoint, kind: Kind, datagram: &[u8]) -> Result<(), Refusal> {
        if self.handshakes.push(from, kind, datagram)? {
            self.handshakes_bell.ring(&self.wake);
        } else {
            self.handshakes.asking.ring();
        }
        Ok(())
    }
    /// Upper half: the next handshake datagram, and how many wait behind it.
    pub fn pop_handshake(&self) -> Option<(HandshakeDatagram, usize)> {
        let datagram = self.handshakes_bell.pop(|| self.handshakes.pop())?;
        Some((datagram, self.handshakes.len()))
    }
    /// Data thread: this happened at this peer; queues the peer once, wakes the upper half.
    pub fn raise(&self, peer: &Arc<Peer>, what: Raised) {
        if peer.add_raised(what) {
            self.raised.push(peer.clone());
        }
        // For those, too, that stand in the queue already: it may not have been heard.
        self.raised_bell.ring(&self.wake);
    }
    /// Upper half: the next peer at which something happened, and what (its bits are cleared).
    pub fn pop_raised(&self) -> Option<(Arc<Peer>, Raised)> {
        let peer = self.raised_bell.pop(|| self.raised.pop())?;
        let what = peer.take_raised();
        Some((peer, what))
    }
}

/// Rings once from the first push into an empty queue until the pop that finds it empty again: under a flood
/// the upper half is woken once, not for each datagram.
#[derive(Default)]
struct Bell {
    rung: AtomicBool,
}

impl Bell {
    /// After a push.
    fn ring(&self, wake: &(impl Fn() -> bool + ?Sized)) {
        if !self.rung.swap(true, Ordering::AcqRel) && !wake() {
            self.rung.store(false, Ordering::Release);
        }
    }
    /// A pop. When the queue seems empty the bell is made ready and the queue looked at again: a push in
    /// between either is seen here (its swap came before ours) or rings.
    fn pop<T>(&self, pop: impl Fn() -> Option<T>) -> Option<T> {
        pop().or_else(|| {
            self.rung.swap(false, Ordering::AcqRel);
            pop()
        })
    }
}
