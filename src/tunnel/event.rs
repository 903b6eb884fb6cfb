//! What happened, for logs, hooks and the resolver. Bounded: the oldest is dropped if nobody polls.

use std::net::SocketAddr;

use crate::forward::PeerId;
use crate::noise::PublicKey;

/// Something an operator cares about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A new session; `first`: the peer had none that lived.
    Connected {
        /// Whose.
        peer: PeerId,
        /// Its key.
        key: PublicKey,
        /// Its name.
        label: String,
        /// Where it is.
        from: SocketAddr,
        /// Did we initiate?
        initiator: bool,
        /// No session before it was alive.
        first: bool,
    },
    /// The endpoint followed an authentic packet.
    Roamed {
        /// Who.
        peer: PeerId,
        /// Its key.
        key: PublicKey,
        /// Its name.
        label: String,
        /// Where it was.
        from: Option<SocketAddr>,
        /// Where it is.
        to: SocketAddr,
    },
    /// An initiation went unanswered for REKEY_TIMEOUT; the resolver looks the endpoint's name up again.
    Unanswered {
        /// Who.
        peer: PeerId,
        /// Its key.
        key: PublicKey,
        /// Its name.
        label: String,
        /// How many in a row, from 1.
        attempts: u32,
    },
    /// 90 s of initiations without an answer: given up until there is something to send.
    GivenUp {
        /// Who.
        peer: PeerId,
        /// Its key.
        key: PublicKey,
        /// Its name.
        label: String,
    },
    /// The session died and no new one came.
    Silent {
        /// Who.
        peer: PeerId,
        /// Its key.
        key: PublicKey,
        /// Its name.
        label: String,
    },
    /// The time up to which the peer is let in is over.
    Expired {
        /// Who.
        peer: PeerId,
        /// Its key.
        key: PublicKey,
        /// Its name.
        label: String,
    },
    /// A prefix moved from one peer to another by a change.
    PrefixMoved {
        /// Which.
        prefix: ipnet::IpNet,
        /// Its owner before.
        from: PublicKey,
        /// Its owner now.
        to: PublicKey,
    },
    /// Cookies are demanded, or no longer.
    UnderLoad(bool),
}
