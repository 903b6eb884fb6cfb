//! One peer as the data threads see it: identity, endpoint, current session, staged packets, activity.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
    time::Duration,
};

use arc_swap::{ArcSwap, ArcSwapOption, Guard};

use super::{
    Pause, Session, Time,
    staged::{Budget, StagedQueue},
};
pub use super::{
    activity::Activity,
    staged::{STAGED_PACKETS, StagedDatagram},
};
use crate::noise::PublicKey;

#[cfg(test)]
mod tests;

/// Names a peer for the life of the process; never used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerId(pub u64);

/// Which of our addresses a peer talks to: answers leave from it (IP_PKTINFO, IPV6_PKTINFO).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Local {
    /// Our address.
    pub address: IpAddr,
    /// Interface index where it matters (IPv6 link-local), else 0.
    pub interface: u32,
}

/// Where a peer is, and from where we talk to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Endpoint {
    /// The peer's UDP address. IPv4-mapped IPv6 never stands here.
    pub remote: SocketAddr,
    /// Unknown until the peer has talked to us, or after that address vanished.
    pub local: Option<Local>,
}

/// What a data thread tells the upper half about a peer: a set of bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Raised(pub u32);

impl Raised {
    /// A packet was staged, or the session is old enough: a handshake is wanted.
    pub const WANTS_SESSION: Raised = Raised(1);
    /// The next session (we answered) received its first authentic packet: it becomes the current one.
    pub const CONFIRMED: Raised = Raised(2);
    /// [`Activity::unanswered_since`] or [`Activity::owed_since`] went from never to a time while no timer
    /// was armed for it.
    pub const TIMER: Raised = Raised(4);
    /// The endpoint followed an authentic packet.
    pub const ROAMED: Raised = Raised(8);
    /// Is each bit of `other` set?
    pub fn has(self, other: Raised) -> bool {
        self.0 & other.0 == other.0
    }
}

/// A session that waits for its handshake is asked for at most this often by later packets: a flood to a dead
/// peer does not wake the upper half for each of its packets.
const WISH_INTERVAL: Duration = Duration::from_millis(100);

/// A peer, shared by both halves.
pub struct Peer {
    /// Never used again.
    pub id: PeerId,
    /// Its static key.
    pub public_key: PublicKey,
    /// For people: the name in the file, else the start of the key.
    pub label: ArcSwap<String>,
    /// Times and counters.
    pub activity: Activity,
    /// Whether several datagrams to it may leave in one send (UDP_SEGMENT).
    pub segmentation: Pause,
    endpoint: ArcSwapOption<Endpoint>,
    current: ArcSwapOption<Session>,
    /// Its lock orders staging against a change of `current`: while it is held, no session becomes current.
    staged: Mutex<StagedQueue>,
    raised: AtomicU32,
    /// When a data thread last asked for a session.
    wished: AtomicU64,
}

impl fmt::Debug for Peer {
    /// Who it is.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Peer").field(&self.id.0).field(&self.label.load()).finish()
    }
}

/// Counters of a peer's current session, taken and not yet used.
pub(super) struct Reserved {
    pub(super) session: Arc<Session>,
    /// The first of those that were asked for.
    pub(super) counter: u64,
}

/// A packet waits.
pub(super) struct Staging {
    /// It is the only one: nobody has asked for a session since the queue was empty.
    pub(super) alone: bool,
    /// Packets that had to go, possibly itself.
    pub(super) lost: u64,
}

impl Peer {
    /// A peer without endpoint or session.
    pub fn new(id: PeerId, public_key: PublicKey, label: String) -> Arc<Self> {
        Arc::new(Self {
            id,
            public_key,
            label: ArcSwap::from_pointee(label),
            activity: Activity::default(),
            segmentation: Pause::default(),
            endpoint: ArcSwapOption::empty(),
            current: ArcSwapOption::empty(),
            staged: Mutex::default(),
            raised: AtomicU32::new(0),
            wished: AtomicU64::new(0),
        })
    }

    /// Where it is.
    pub fn endpoint(&self) -> Option<Endpoint> {
        self.endpoint.load().as_deref().copied()
    }
    /// Configured, or learnt by the upper half from a handshake. Data threads use it too, after `open`.
    pub fn set_endpoint(&self, endpoint: Option<Endpoint>) {
        self.endpoint.store(endpoint.map(Arc::new));
    }
    /// Our address that it talked to is gone: forget it, keep the remote.
    pub fn forget_local(&self) {
        self.endpoint.rcu(|endpoint| {
            endpoint.as_deref().map(|endpoint| Arc::new(Endpoint { local: None, ..*endpoint }))
        });
    }
    /// The endpoint follows an authentic packet (paper, section 2.1); true if the remote has moved.
    pub(super) fn follow(&self, from: &Endpoint) -> bool {
        let known = self.endpoint();
        let moved = known.is_none_or(|known| known.remote != from.remote);
        let local_moved = from.local.is_some() && known.is_some_and(|known| known.local != from.local);
        if moved || local_moved {
            self.set_endpoint(Some(*from));
        }
        moved
    }

    /// The session to seal with.
    pub fn current(&self) -> Option<Arc<Session>> {
        self.current.load_full()
    }
    /// Is this the session to seal with?
    pub(super) fn seals_with(&self, session: &Arc<Session>) -> bool {
        self.current.load().as_ref().is_some_and(|current| Arc::ptr_eq(current, session))
    }
    /// Upper half: from now on seal with this one (or with none). Seals what was staged with it, in order and
    /// before any later packet, and returns those datagrams for the caller to send. They are counted as data
    /// sent; the caller arms its timer for [`Activity::unanswered_since`] itself, as nothing is raised.
    pub fn set_current(&self, session: Option<Arc<Session>>, now: Time) -> Vec<StagedDatagram> {
        let mut staged = self.lock_staged();
        let datagrams = session.as_ref().map_or_else(Vec::new, |session| staged.seal_all(session, now));
        self.current.store(session);
        drop(staged);
        self.staged_sent(&datagrams, now);
        datagrams
    }
    /// The same in steps, so that what was staged also *leaves* before any later packet: where something was
    /// staged, the session is not the current one yet; the caller sends these datagrams and comes again. Packets
    /// that come meanwhile are staged. Nothing returned: it is the current one.
    pub fn hand_over(&self, session: &Arc<Session>, now: Time) -> Vec<StagedDatagram> {
        let mut staged = self.lock_staged();
        let datagrams = staged.seal_all(session, now);
        if datagrams.is_empty() {
            self.current.store(Some(session.clone()));
        }
        drop(staged);
        self.staged_sent(&datagrams, now);
        datagrams
    }
    /// The last step, where packets came faster than they could be sent: it is the current one, and those that were
    /// staged since are lost, as later ones would overtake them. Says how many.
    pub fn hand_over_at_last(&self, session: &Arc<Session>) -> usize {
        let mut staged = self.lock_staged();
        let lost = std::mem::take(&mut *staged).len();
        self.current.store(Some(session.clone()));
        lost
    }
    /// The peer has proven itself with a session that we answered: the answer to what it sent is sealed with that one
    /// already (the kernel's `wg_noise_received_with_keypair`), since a peer that restarted has no other. The upper half
    /// follows. Not where there was no session, or packets wait: then it hands over in order.
    pub(super) fn renew(&self, session: &Arc<Session>) {
        let staged = self.lock_staged();
        let older = |current: &Session| current.start().birth < session.start().birth;
        if staged.len() == 0 && self.current.load().as_deref().is_some_and(older) {
            self.current.store(Some(session.clone()));
        }
    }
    fn staged_sent(&self, datagrams: &[StagedDatagram], now: Time) {
        if datagrams.is_empty() {
            return;
        }
        let bytes = datagrams.iter().map(|datagram| datagram.bytes.len() as u64).sum();
        let _timer_is_the_callers = self.activity.data_sent(datagrams.len() as u64, bytes, now);
    }

    /// Takes the next `n` counters of the current session, if there is one that may still seal.
    pub(super) fn reserve(&self, n: u64, now: Time) -> Option<Reserved> {
        let session = self.current.load();
        let counter = session.as_ref()?.reserve(n, now)?;
        // Where the pointer was only borrowed, it is counted now.
        Guard::into_inner(session).map(|session| Reserved { session, counter })
    }
    /// For `n` packets that found no session: a last look under the lock, then they are staged, each with what
    /// bounds its padding. So they are either sealed by the next [`Self::set_current`], or after the packets that
    /// the last one sealed.
    pub(super) fn reserve_or_stage(
        &self,
        n: u64,
        packets: impl Iterator<Item = (Vec<u8>, usize)>,
        budget: &Arc<Budget>,
        now: Time,
    ) -> Result<Reserved, Staging> {
        let mut staged = self.lock_staged();
        if let Some(reserved) = self.reserve(n, now) {
            return Ok(reserved);
        }
        let alone = staged.len() == 0;
        let lost = packets.map(|(packet, mtu)| staged.push(packet, mtu, Some(budget))).sum();
        Err(Staging { alone, lost })
    }

    /// Keeps a packet until there is a session; true if the oldest had to go for it.
    pub fn stage(&self, packet: &[u8]) -> bool {
        self.lock_staged().push(packet.to_vec(), 0, None) > 0
    }
    /// How many packets wait.
    pub fn staged(&self) -> usize {
        self.lock_staged().len()
    }
    /// Throws the waiting packets away (handshake given up, peer removed); returns how many.
    pub fn purge_staged(&self) -> usize {
        std::mem::take(&mut *self.lock_staged()).len()
    }
    fn lock_staged(&self) -> MutexGuard<'_, StagedQueue> {
        // A queue of whole packets stays one, wherever a panic struck.
        self.staged.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// May a data thread ask for a session now? At most once in [`WISH_INTERVAL`].
    pub(super) fn may_wish(&self, now: Time) -> bool {
        let last = Time(self.wished.load(Ordering::Relaxed));
        last == Time(0) || now.since(last) >= WISH_INTERVAL
    }
    /// A data thread asks for a session.
    pub(super) fn wish(&self, now: Time) {
        self.wished.store(now.0, Ordering::Relaxed);
    }
    /// Adds bits; true if there were none, so that the peer has to be queued.
    pub(super) fn add_raised(&self, what: Raised) -> bool {
        self.raised.fetch_or(what.0, Ordering::AcqRel) == 0
    }
    /// Takes all bits.
    pub(super) fn take_raised(&self) -> Raised {
        Raised(self.raised.swap(0, Ordering::AcqRel))
    }
}
