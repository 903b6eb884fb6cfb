//! Everything that the tunnel refuses, each with a reason of its own: counted, the last evidence kept.

use std::net::{IpAddr, SocketAddr};

use super::{PeerId, Time};
use crate::noise::PublicKey;

/// Why a packet or message was refused. The names are stable: status and metrics show them in snake_case.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize)]
#[serde(rename_all = "snake_case")]
#[repr(usize)]
pub enum Refusal {
    /// A datagram that is none of the four messages, or has a wrong length.
    Malformed,
    /// mac1 is wrong: it was not meant for our public key.
    Mac1,
    /// Under load: no valid mac2, so a cookie reply was sent.
    CookieWanted,
    /// Under load: this source has used up its rate.
    RateLimited,
    /// More handshake datagrams than the queue holds.
    HandshakeQueueFull,
    /// We have no private key.
    NoPrivateKey,
    /// A handshake message with a valid mac1 that does not decrypt.
    HandshakeForged,
    /// A valid initiation from a key that is not in our file.
    UnknownKey,
    /// An initiation whose timestamp is not newer than the last one: a replay, or the peer's clock went back.
    TimestampNotNewer,
    /// A second initiation of one peer within 20 ms.
    InitiationFlood,
    /// A response or cookie reply to nothing that we sent.
    NotAsked,
    /// A response that does not open: the preshared key differs, or it is forged.
    ResponseForged,
    /// A cookie reply that does not open.
    CookieForged,
    /// A public key of low order.
    LowOrderKey,
    /// A transport message for an index we do not know (the peer has a session that we lost).
    NoSuchSession,
    /// A transport message of a session older than 180 s, or past its last counter.
    SessionExpired,
    /// A transport message whose tag is wrong.
    Forged,
    /// A transport message that was seen before, or is older than the window.
    Replayed,
    /// An inner packet that is not IP, or contradicts itself.
    InnerMalformed,
    /// An inner source address that is not this peer's: the evidence names the address and its owner.
    SourceNotAllowed,
    /// Inner packet not ECN-capable, outer marked with congestion (RFC 6040, section 4.2).
    EcnDropped,
    /// Outbound: no peer owns the destination.
    NoPeer,
    /// Outbound: the peer has no endpoint yet.
    NoEndpoint,
    /// Outbound: what came from the TUN is not IP.
    OutboundMalformed,
    /// Outbound: the oldest staged packet was dropped for a newer one.
    StagedOverflow,
    /// Outbound: staged packets were thrown away as the handshake was given up.
    HandshakeGivenUp,
    /// Outbound: the kernel would not send the datagram.
    SendFailed,
    /// Inbound: the kernel would not take the packet at the TUN.
    TunWriteFailed,
    /// Inbound: a datagram larger than the receive buffer.
    Oversized,
}

impl Refusal {
    /// All of them, in order.
    pub const ALL: [Refusal; 29] = todo_all();
    /// Its stable name in snake_case.
    pub fn name(self) -> &'static str {
        todo!()
    }
}

const fn todo_all() -> [Refusal; 29] {
    [Refusal::Malformed; 29]
}

/// What was seen when something was refused for the last time; only what is known is filled in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Evidence {
    /// When.
    pub at: Time,
    /// The UDP address it came from.
    pub from: Option<SocketAddr>,
    /// The peer it is about.
    pub peer: Option<PeerId>,
    /// The static key it was about ([`Refusal::UnknownKey`], and the peer's where one is known).
    pub key: Option<PublicKey>,
    /// The inner source ([`Refusal::SourceNotAllowed`]) or destination ([`Refusal::NoPeer`]).
    pub inner: Option<IpAddr>,
    /// Who owns `inner`, if any peer does.
    pub owner: Option<PublicKey>,
}

/// A count and the last evidence for each reason. Counting is one atomic addition; evidence is kept at most
/// once a batch (`try_lock`: a data thread never waits for a reader).
pub struct Refusals {/* private */}

impl Refusals {
    /// Counts one, and keeps its evidence.
    pub fn count(&self, what: Refusal, evidence: Evidence) {
        todo!()
    }
    /// Counts `n`, without evidence.
    pub fn add(&self, what: Refusal, n: u64) {
        todo!()
    }
    /// How many, and the last evidence.
    pub fn read(&self, what: Refusal) -> (u64, Option<Evidence>) {
        todo!()
    }
}
