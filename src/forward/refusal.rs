//! Everything that the tunnel refuses, each with a reason of its own: counted, the last evidence kept.

use std::{
    array,
    net::{IpAddr, SocketAddr},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use super::{Peer, PeerId, Time};
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
    /// This source has used up its rate, under load, or its part of the queue.
    RateLimited,
    /// More handshake datagrams than the queue holds.
    HandshakeQueueFull,
    /// We have no private key.
    NoPrivateKey,
    /// A handshake message with a valid mac1 that does not decrypt.
    HandshakeForged,
    /// A valid initiation from a key that is not in our file.
    UnknownKey,
    /// A valid initiation of a peer whose time (`expires`) is over.
    PeerExpired,
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
    /// Outbound: multicast of the link (224.0.0.0/24, ff01::/16, ff02::/16) or 255.255.255.255, which the kernel
    /// and many programs send into every device, and which no peer asked for. Nothing is wrong.
    LinkScope,
    /// Outbound: the peer has no endpoint yet.
    NoEndpoint,
    /// Outbound: the time (`expires`) of the peer is over.
    ToExpiredPeer,
    /// Outbound: what we sealed for a peer came back, as its endpoint is routed into its own tunnel.
    RoutingLoop,
    /// Outbound: a datagram of tunnels in tunnels, wrapped so often that it must be in a loop between them.
    NestedTooDeep,
    /// Outbound: what came from the TUN is not IP.
    OutboundMalformed,
    /// Outbound: the kernel's word on how to cut or finish a packet contradicts the packet.
    VnetHeader,
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
    /// Inbound: the kernel dropped what arrived while the socket's buffer was full.
    ReceiveBufferFull,
}

impl Refusal {
    /// All of them, in order.
    pub const ALL: [Refusal; 36] = [
        Refusal::Malformed,
        Refusal::Mac1,
        Refusal::CookieWanted,
        Refusal::RateLimited,
        Refusal::HandshakeQueueFull,
        Refusal::NoPrivateKey,
        Refusal::HandshakeForged,
        Refusal::UnknownKey,
        Refusal::PeerExpired,
        Refusal::TimestampNotNewer,
        Refusal::InitiationFlood,
        Refusal::NotAsked,
        Refusal::ResponseForged,
        Refusal::CookieForged,
        Refusal::LowOrderKey,
        Refusal::NoSuchSession,
        Refusal::SessionExpired,
        Refusal::Forged,
        Refusal::Replayed,
        Refusal::InnerMalformed,
        Refusal::SourceNotAllowed,
        Refusal::EcnDropped,
        Refusal::NoPeer,
        Refusal::LinkScope,
        Refusal::NoEndpoint,
        Refusal::ToExpiredPeer,
        Refusal::RoutingLoop,
        Refusal::NestedTooDeep,
        Refusal::OutboundMalformed,
        Refusal::VnetHeader,
        Refusal::StagedOverflow,
        Refusal::HandshakeGivenUp,
        Refusal::SendFailed,
        Refusal::TunWriteFailed,
        Refusal::Oversized,
        Refusal::ReceiveBufferFull,
    ];
    /// Its stable name in snake_case.
    pub fn name(self) -> &'static str {
        match self {
            Refusal::Malformed => "malformed",
            Refusal::Mac1 => "mac1",
            Refusal::CookieWanted => "cookie_wanted",
            Refusal::RateLimited => "rate_limited",
            Refusal::HandshakeQueueFull => "handshake_queue_full",
            Refusal::NoPrivateKey => "no_private_key",
            Refusal::HandshakeForged => "handshake_forged",
            Refusal::UnknownKey => "unknown_key",
            Refusal::PeerExpired => "peer_expired",
            Refusal::TimestampNotNewer => "timestamp_not_newer",
            Refusal::InitiationFlood => "initiation_flood",
            Refusal::NotAsked => "not_asked",
            Refusal::ResponseForged => "response_forged",
            Refusal::CookieForged => "cookie_forged",
            Refusal::LowOrderKey => "low_order_key",
            Refusal::NoSuchSession => "no_such_session",
            Refusal::SessionExpired => "session_expired",
            Refusal::Forged => "forged",
            Refusal::Replayed => "replayed",
            Refusal::InnerMalformed => "inner_malformed",
            Refusal::SourceNotAllowed => "source_not_allowed",
            Refusal::EcnDropped => "ecn_dropped",
            Refusal::NoPeer => "no_peer",
            Refusal::LinkScope => "link_scope",
            Refusal::NoEndpoint => "no_endpoint",
            Refusal::ToExpiredPeer => "to_expired_peer",
            Refusal::RoutingLoop => "routing_loop",
            Refusal::NestedTooDeep => "nested_too_deep",
            Refusal::OutboundMalformed => "outbound_malformed",
            Refusal::VnetHeader => "vnet_header",
            Refusal::StagedOverflow => "staged_overflow",
            Refusal::HandshakeGivenUp => "handshake_given_up",
            Refusal::SendFailed => "send_failed",
            Refusal::TunWriteFailed => "tun_write_failed",
            Refusal::Oversized => "oversized",
            Refusal::ReceiveBufferFull => "receive_buffer_full",
        }
    }
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
    /// The inner source ([`Refusal::SourceNotAllowed`]) or destination ([`Refusal::NoPeer`], [`Refusal::LinkScope`]).
    pub inner: Option<IpAddr>,
    /// Who owns `inner`, if any peer does.
    pub owner: Option<PublicKey>,
}

impl Evidence {
    /// What is known of something that is about this peer.
    pub fn about(peer: &Peer) -> Self {
        Self { peer: Some(peer.id), key: Some(peer.public_key), ..Self::default() }
    }
}

/// A count and the last evidence for each reason. Counting is one atomic addition; evidence is kept at most
/// once a batch (`try_lock`: a data thread never waits for a reader).
pub struct Refusals {
    reasons: [Reason; Refusal::ALL.len()],
}

#[derive(Default)]
struct Reason {
    count: AtomicU64,
    evidence: Mutex<Option<Evidence>>,
}

impl Refusals {
    /// Nothing refused yet.
    pub fn new() -> Self {
        Self { reasons: array::from_fn(|_| Reason::default()) }
    }
    /// Counts one, and keeps its evidence.
    pub fn count(&self, what: Refusal, evidence: Evidence) {
        self.add(what, 1);
        // While someone else writes or reads, this one goes without: the count is what must be right.
        if let Ok(mut last) = self.reasons[what as usize].evidence.try_lock() {
            *last = Some(evidence);
        }
    }
    /// Counts `n`, without evidence.
    pub fn add(&self, what: Refusal, n: u64) {
        self.reasons[what as usize].count.fetch_add(n, Ordering::Relaxed);
    }
    /// How many.
    pub fn counted(&self, what: Refusal) -> u64 {
        self.reasons[what as usize].count.load(Ordering::Relaxed)
    }
    /// How many, and the last evidence.
    pub fn read(&self, what: Refusal) -> (u64, Option<Evidence>) {
        let reason = &self.reasons[what as usize];
        let evidence = reason.evidence.lock().unwrap_or_else(PoisonError::into_inner).clone();
        (self.counted(what), evidence)
    }
}

impl Default for Refusals {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::HashSet, fmt, thread};

    use serde::Serialize;

    use super::*;

    #[test]
    fn all_names_every_reason_in_order_and_misses_none() {
        for (place, refusal) in Refusal::ALL.into_iter().enumerate() {
            assert_eq!(refusal as usize, place);
        }
        // The last variant is the last of ALL: a new one behind it breaks this test.
        assert_eq!(Refusal::ReceiveBufferFull as usize + 1, Refusal::ALL.len());
    }

    #[test]
    fn names_are_unique_and_are_what_serde_writes() {
        let names: HashSet<_> = Refusal::ALL.map(Refusal::name).into();
        assert_eq!(names.len(), Refusal::ALL.len());
        for refusal in Refusal::ALL {
            assert_eq!(Named(refusal).to_string(), refusal.name());
        }
    }

    #[test]
    fn counts_add_up_and_the_last_evidence_stays() {
        let refusals = Refusals::new();
        assert_eq!(refusals.read(Refusal::Mac1), (0, None));
        for n in 1..=3 {
            refusals.count(Refusal::Mac1, Evidence { at: Time(n), ..Evidence::default() });
        }
        refusals.add(Refusal::Mac1, 4);
        let (count, evidence) = refusals.read(Refusal::Mac1);
        assert_eq!((count, evidence.map(|evidence| evidence.at)), (7, Some(Time(3))));
        assert_eq!(refusals.read(Refusal::Malformed), (0, None));
    }

    #[test]
    fn a_count_is_never_lost_while_others_write_and_read() {
        let refusals = Refusals::new();
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for n in 0..10_000 {
                        refusals.count(Refusal::Forged, Evidence { at: Time(n), ..Evidence::default() });
                        if n % 16 == 0 {
                            refusals.read(Refusal::Forged);
                        }
                    }
                });
            }
        });
        assert_eq!(refusals.read(Refusal::Forged).0, 40_000);
    }

    #[test]
    fn a_writer_does_not_wait_for_a_reader() {
        let refusals = Refusals::new();
        let reading = refusals.reasons[Refusal::Forged as usize].evidence.lock().expect("not poisoned");
        refusals.count(Refusal::Forged, Evidence::default());
        drop(reading);
        assert_eq!(refusals.read(Refusal::Forged), (1, None));
    }

    /// What serde writes: a `Formatter` is a serializer that writes a variant's name.
    struct Named(Refusal);

    impl fmt::Display for Named {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            self.0.serialize(f)
        }
    }
}
