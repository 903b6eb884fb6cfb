//! The lower half: what a data thread needs to move a batch. It reads immutable snapshots behind atomic
//! pointers and never waits for the upper half; it tells it by atomics on the peer and by two bounded queues.
//!
//! Outbound: [`Forward::outbound`]: IP header → allowed IPs → peer → session → seal.
//! Inbound:  [`Forward::inbound`]: type → session by index → open → replay → source check → deliver.

pub mod aead;
pub mod allowed_ips;
pub mod inbound;
pub mod outbound;
pub mod peer;
pub mod refusal;
pub mod replay;
pub mod session;
pub mod time;

use std::sync::Arc;

use arc_swap::ArcSwap;

pub use allowed_ips::AllowedIps;
pub use inbound::Inbound;
pub use outbound::{Outbound, PacketBuffer};
pub use peer::{Endpoint, Local, Peer, PeerId, Raised};
pub use refusal::{Evidence, Refusal, Refusals};
pub use session::{Session, Sessions};
pub use time::Time;

/// A handshake datagram (or cookie reply) on its way to the upper half.
#[derive(Debug)]
pub struct HandshakeDatagram {
    /// Where it came from, and which of our addresses it came to.
    pub from: Endpoint,
    /// The whole datagram, at most 148 bytes.
    pub bytes: bytes::Bytes,
}

/// Datagrams that may wait for the upper half (the kernel's MAX_QUEUED_INCOMING_HANDSHAKES).
pub const HANDSHAKE_QUEUE: usize = 4096;

/// Everything data threads share with the upper half.
pub struct Forward {
    /// Longest prefix → peer; replaced whole.
    pub routes: ArcSwap<AllowedIps<Arc<Peer>>>,
    /// Receiver index → session.
    pub sessions: Sessions,
    /// What was refused, by reason, with the last evidence.
    pub refusals: Refusals,
    // private: handshakes: ArrayQueue<HandshakeDatagram>, raised: SegQueue<Arc<Peer>> (each peer stands in it
    // at most once), wake: Box<dyn Fn() + Send + Sync>
}

impl Forward {
    /// `wake` is called, from a data thread, when a queue stops being empty; it must not block.
    pub fn new(wake: Box<dyn Fn() + Send + Sync>) -> Arc<Self> {
        todo!()
    }
    /// A handshake datagram for the upper half; a full queue refuses the newest ([`Refusal::HandshakeQueueFull`]).
    pub fn push_handshake(&self, datagram: HandshakeDatagram) {
        todo!()
    }
    /// Upper half: the next handshake datagram, and how many wait behind it.
    pub fn pop_handshake(&self) -> Option<(HandshakeDatagram, usize)> {
        todo!()
    }
    /// Data thread: this happened at this peer; queues the peer once, wakes the upper half.
    pub fn raise(&self, peer: &Arc<Peer>, what: Raised) {
        todo!()
    }
    /// Upper half: the next peer at which something happened, and what (its bits are cleared).
    pub fn pop_raised(&self) -> Option<(Arc<Peer>, Raised)> {
        todo!()
    }
}
