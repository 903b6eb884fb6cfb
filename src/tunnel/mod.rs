//! The upper half: a state machine without I/O, the one owner of the truth. One owner drives it: mutate,
//! drain, mutate. Every method is a getter, a `handle_*`, a command (`apply`, `expire`) or a `poll_*`.
//!
//! ```text
//! handle_handshake / handle_raised / apply / expire
//!         └── then, until each is None: poll_transmit, poll_event; then sleep until deadline()
//! ```

pub mod change;
pub mod event;
pub mod status;
// private, by the walk: peer (one peer's truth), handshake (receive and send), timers (a table by peer and kind),
// load (under load or not, the rate limiter), indices (random receiver indices)

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use rand_core::CryptoRng;

pub use change::{AllowedIpOp, Change, ChangeError, PeerChange};
pub use event::Event;
pub use status::{PeerStatus, Status};

use crate::forward::{Endpoint, Forward, HandshakeDatagram, Peer, PeerId, Raised, Time};
use crate::wire::ecn::Ecn;

/// The two clocks at one moment: boot time for everything, wall time for TAI64N and for people.
#[derive(Clone, Copy, Debug)]
pub struct Now {
    /// CLOCK_BOOTTIME.
    pub boot: Time,
    /// Since the Unix epoch.
    pub wall: Duration,
}

/// What can be tuned; the default is the protocol's.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    /// REKEY_AFTER_TIME; a test may shorten it, nothing may lengthen it.
    pub rekey_after: Duration,
}

/// A datagram to send.
#[derive(Clone, Debug)]
pub struct Transmit {
    /// Whose it is, if it is a peer's (for `forget_local` when the send fails).
    pub peer: Option<PeerId>,
    /// Where to, and from which of our addresses.
    pub to: Endpoint,
    /// Outer ECN (not-ECT but for staged data).
    pub ecn: Ecn,
    /// The datagram.
    pub datagram: Bytes,
}

/// The upper half of one tunnel.
pub struct Tunnel {/* private; holds Arc<Forward>, Box<dyn CryptoRng + Send>, peers, timers, load, queues */}

impl Tunnel {
    /// A tunnel without key and peers, that publishes into `forward`. `mtu` bounds the padding of staged packets.
    pub fn new(forward: Arc<Forward>, timing: Timing, rng: Box<dyn CryptoRng + Send>) -> Self {
        todo!()
    }
    /// The half that the data threads have.
    pub fn forward(&self) -> &Arc<Forward> {
        todo!()
    }
    /// Alters the tunnel: all of the change, or none of it and why.
    pub fn apply(&mut self, change: Change, now: Now) -> Result<(), ChangeError> {
        todo!()
    }
    /// After a batch of [`Self::apply`]: publishes allowed IPs once. (Also done by any `handle_*` and `expire`.)
    pub fn publish(&mut self) {
        todo!()
    }
    /// An initiation, response or cookie reply. `waiting`: how many handshake datagrams wait behind it (under
    /// load from an eighth of [`crate::forward::HANDSHAKE_QUEUE`] on, and for one second after).
    pub fn handle_handshake(&mut self, datagram: HandshakeDatagram, waiting: usize, now: Now) {
        todo!()
    }
    /// What a data thread raised at a peer.
    pub fn handle_raised(&mut self, peer: &Arc<Peer>, raised: Raised, now: Now) {
        todo!()
    }
    /// Does all that is due.
    pub fn expire(&mut self, now: Now) {
        todo!()
    }
    /// When `expire` is wanted next.
    pub fn deadline(&self) -> Option<Time> {
        todo!()
    }
    /// The next datagram to send.
    pub fn poll_transmit(&mut self) -> Option<Transmit> {
        todo!()
    }
    /// The next thing that happened.
    pub fn poll_event(&mut self) -> Option<Event> {
        todo!()
    }
    /// The device came up: peers with a persistent keepalive send one now (netns.sh, "keepalive on link up").
    pub fn link_up(&mut self, now: Now) {
        todo!()
    }
    /// Everything that can be seen.
    pub fn status(&self, now: Now) -> Status {
        todo!()
    }
    /// One peer by key, without building the whole status.
    pub fn peer_id(&self, key: &crate::noise::PublicKey) -> Option<PeerId> {
        todo!()
    }
}
