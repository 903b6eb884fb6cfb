//! One peer as the data threads see it: identity, endpoint, current session, staged packets, activity.

use std::{
    net::{IpAddr, SocketAddr},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, AtomicU64},
    },
};

use arc_swap::{ArcSwap, ArcSwapOption};

use super::{Session, Time};
use crate::noise::PublicKey;

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

/// When what last happened (nanoseconds of [`Time`], 0 = never) and how much: written by data threads once a
/// batch, read by the upper half's timers and by status.
#[derive(Default, Debug)]
pub struct Activity {
    /// Last authentic packet of any kind sent (data, keepalive; the upper half adds handshakes).
    pub sent: AtomicU64,
    /// Last authentic packet of any kind received.
    pub received: AtomicU64,
    /// First data (not keepalive) sent since the last authentic packet was received.
    pub unanswered_since: AtomicU64,
    /// First data received since we last sent anything authentic: we owe a keepalive.
    pub owed_since: AtomicU64,
    /// Bit 0: the upper half has a timer armed for `unanswered_since`; bit 1: for `owed_since`. A data thread
    /// raises [`Raised::TIMER`] only when the bit is not set, so a busy peer costs one notice per timeout.
    pub armed: AtomicU32,
    /// UDP payload bytes of authentic messages received, handshakes included.
    pub rx_bytes: AtomicU64,
    /// UDP payload bytes sent, handshakes included.
    pub tx_bytes: AtomicU64,
    /// Data packets delivered to the TUN.
    pub rx_packets: AtomicU64,
    /// Data packets sealed.
    pub tx_packets: AtomicU64,
}

/// Packets that wait for a session (the kernel's MAX_STAGED_PACKETS); the oldest is dropped first.
pub const STAGED_PACKETS: usize = 128;

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
    endpoint: ArcSwapOption<Endpoint>,
    current: ArcSwapOption<Session>,
    staged: Mutex<std::collections::VecDeque<Vec<u8>>>,
    raised: AtomicU32,
}

impl Peer {
    /// A peer without endpoint or session.
    pub fn new(id: PeerId, public_key: PublicKey, label: String) -> Arc<Self> {
        todo!()
    }
    /// Where it is.
    pub fn endpoint(&self) -> Option<Endpoint> {
        todo!()
    }
    /// Configured, or learnt by the upper half from a handshake. Data threads use it too, after `open`.
    pub fn set_endpoint(&self, endpoint: Option<Endpoint>) {
        todo!()
    }
    /// Our address that it talked to is gone: forget it, keep the remote.
    pub fn forget_local(&self) {
        todo!()
    }
    /// The session to seal with.
    pub fn current(&self) -> Option<Arc<Session>> {
        todo!()
    }
    /// Upper half: from now on seal with this one (or with none). Seals what was staged with it, in order and
    /// before any later packet, and returns those datagrams for the caller to send.
    pub fn set_current(&self, session: Option<Arc<Session>>, now: Time) -> Vec<Vec<u8>> {
        todo!()
    }
    /// Keeps a packet until there is a session; true if the oldest had to go for it.
    pub fn stage(&self, packet: &[u8]) -> bool {
        todo!()
    }
    /// How many packets wait.
    pub fn staged(&self) -> usize {
        todo!()
    }
    /// Throws the waiting packets away (handshake given up, peer removed); returns how many.
    pub fn purge_staged(&self) -> usize {
        todo!()
    }
}
