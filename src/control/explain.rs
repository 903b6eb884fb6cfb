//! What was refused, as a sentence that tells a person what happened and what usually helps.

use super::schema::EvidenceReport;
use crate::forward::Refusal;

/// What came, how often, from where; and what that means.
pub(super) fn sentence(what: Refusal, count: u64, last: Option<&EvidenceReport>) -> String {
    let times = if count == 1 { "once".to_owned() } else { format!("{count} times") };
    let from = last.and_then(|last| last.from).map_or(String::new(), |from| format!(", last from {from}"));
    format!("{} {times}{from}: {}.", happened(what, last), meaning(what))
}

/// The first half, up to how often it happened.
fn happened(what: Refusal, last: Option<&EvidenceReport>) -> String {
    let peer = last.and_then(|last| last.peer.as_ref());
    let peer = peer.map_or("a peer".to_owned(), |name| format!("peer {name}"));
    let inner = last.and_then(|last| last.inner);
    let inner = inner.map_or("an address".to_owned(), |inner| inner.to_string());
    let key = last.and_then(|last| last.key.as_ref());
    let key = key.map_or("an unknown key".to_owned(), |key| format!("the unknown key {key}"));
    match what {
        Refusal::Malformed => "a datagram that is not WireGuard came".to_owned(),
        Refusal::Mac1 => "a handshake message that was not meant for our public key came".to_owned(),
        Refusal::CookieWanted => "under load, a handshake message was answered with a cookie".to_owned(),
        Refusal::RateLimited => "under load, a handshake message of a busy source was dropped".to_owned(),
        Refusal::HandshakeQueueFull => "a handshake message was dropped, as too many waited,".to_owned(),
        Refusal::NoPrivateKey => "a handshake message came while we had no private key,".to_owned(),
        Refusal::HandshakeForged => "a handshake message that does not decrypt came".to_owned(),
        Refusal::UnknownKey => format!("an initiation from {key} came"),
        Refusal::PeerExpired => format!("an initiation of {peer}, whose time is over, came"),
        Refusal::TimestampNotNewer => {
            format!("an initiation of {peer} that was not newer than its last came")
        }
        Refusal::InitiationFlood => format!("{peer} sent initiations less than 20 ms apart"),
        Refusal::NotAsked => "a response or cookie reply to nothing that we had sent came".to_owned(),
        Refusal::ResponseForged => format!("a response of {peer} that does not open came"),
        Refusal::CookieForged => "a cookie reply that does not open came".to_owned(),
        Refusal::LowOrderKey => "a public key of low order, which nobody can own, came".to_owned(),
        Refusal::NoSuchSession => "data for a session that we do not have came".to_owned(),
        Refusal::SessionExpired => format!("data of {peer} for a session that is too old came"),
        Refusal::Forged => format!("data of {peer} that does not open came"),
        Refusal::Replayed => format!("data of {peer} that was seen before, or is far too late, came"),
        Refusal::InnerMalformed => format!("{peer} sent something that is not IP"),
        Refusal::SourceNotAllowed => match last.and_then(|last| last.owner.as_ref()) {
            Some(owner) => format!("{peer} sent a packet from {inner}, which belongs to {owner},"),
            None => format!("{peer} sent a packet from {inner}, which is not among its allowed IPs,"),
        },
        Refusal::EcnDropped => format!("a packet of {peer} met congestion and was dropped"),
        Refusal::NoPeer => format!("a packet to {inner}, which no peer has, went into the tunnel"),
        Refusal::LinkScope => format!("a packet to all on the link ({inner}) went into the tunnel"),
        Refusal::NoEndpoint => {
            format!("a packet for {peer} had nowhere to go, as its endpoint is not known,")
        }
        Refusal::ToExpiredPeer => format!("a packet for {peer}, whose time is over, was dropped"),
        Refusal::RoutingLoop => format!("what was sealed for {peer} came back into the tunnel"),
        Refusal::NestedTooDeep => format!("data sealed four times over went into the tunnel to {peer}"),
        Refusal::OutboundMalformed => "something that is not IP went into the tunnel".to_owned(),
        Refusal::VnetHeader => {
            "the kernel handed over a packet whose offload header contradicts it".to_owned()
        }
        Refusal::StagedOverflow => format!("a packet that waited for {peer} gave way to a newer one"),
        Refusal::HandshakeGivenUp => format!("a packet that waited for {peer} was thrown away"),
        Refusal::SendFailed => format!("the kernel would not send a datagram to {peer}"),
        Refusal::TunWriteFailed => "the kernel would not take a packet from the tunnel".to_owned(),
        Refusal::Oversized => "a datagram larger than any that a peer sends came".to_owned(),
        Refusal::ReceiveBufferFull => {
            "the kernel dropped a datagram as our receive buffer was full".to_owned()
        }
    }
}

/// The second half: the usual cause, or what helps.
fn meaning(what: Refusal) -> &'static str {
    match what {
        Refusal::Malformed | Refusal::Oversized => "a scan, or another protocol on this port",
        Refusal::Mac1 => "its sender has a wrong public key for us",
        Refusal::CookieWanted => "an honest sender comes again with the cookie",
        Refusal::RateLimited => "it asks for more than 20 handshakes a second",
        Refusal::HandshakeQueueFull => "more handshakes arrive than this machine can answer",
        Refusal::NoPrivateKey => "set one",
        Refusal::HandshakeForged | Refusal::CookieForged | Refusal::LowOrderKey => {
            "it is forged, or the other side is broken"
        }
        Refusal::UnknownKey => "add it as a peer, or correct the key on one of the two sides",
        Refusal::PeerExpired | Refusal::ToExpiredPeer => {
            "`expires` in its [[peer]] has passed; set a later one, or remove the peer"
        }
        Refusal::TimestampNotNewer => "a replay, or the peer's clock went back and must be set",
        Refusal::InitiationFlood => "two machines use the same key, or somebody replays its messages",
        Refusal::NotAsked => "it came too late, or is forged",
        Refusal::ResponseForged => "the preshared keys of the two sides differ, or it is forged",
        Refusal::NoSuchSession => "a peer still uses one from before our restart, and makes a new one soon",
        Refusal::SessionExpired => "handshakes between the two sides fail",
        Refusal::Forged => "it is forged, or was damaged on its way",
        Refusal::Replayed => "the network doubles or delays packets, or somebody replays them",
        Refusal::InnerMalformed => "the other side is broken",
        Refusal::SourceNotAllowed => {
            "add the address to the allowed IPs of the peer that uses it, or masquerade on its side"
        }
        Refusal::EcnDropped => "that is how its sender learns to slow down (RFC 6040)",
        Refusal::NoPeer => "add the address to a peer's allowed IPs, or remove the route",
        Refusal::LinkScope => {
            "nothing is wrong: hosts say so much on every device, and a tunnel does not carry it"
        }
        Refusal::NoEndpoint => "set an endpoint, or let the peer begin",
        Refusal::RoutingLoop => {
            "its endpoint is routed into its own tunnel; take the endpoint out of its allowed IPs, or set a fwmark \
             and route by it"
        }
        Refusal::NestedTooDeep => {
            "endpoints are routed into each other's tunnels; take them out of the allowed IPs, or set a fwmark and \
             route by it"
        }
        Refusal::OutboundMalformed => "a program on this host writes to the device",
        Refusal::VnetHeader => {
            "a fault of this kernel's segmentation offload; set `offload = \"off\"` if it goes on"
        }
        Refusal::StagedOverflow => "the peer does not answer handshakes",
        Refusal::HandshakeGivenUp => {
            "90 seconds of handshakes went unanswered; check its endpoint, that it runs and knows our key, \
             and that firewalls let UDP through"
        }
        Refusal::SendFailed => "there is no route to its endpoint, or a firewall on this host forbids it",
        Refusal::ReceiveBufferFull => {
            "more arrives than this machine opens; see whether net.core.rmem_max bounds the buffer"
        }
        Refusal::TunWriteFailed => "the device is down, or out of memory",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reason_has_a_sentence_of_its_own_with_and_without_evidence() {
        let evidence = EvidenceReport {
            ago_s: 1.0,
            from: Some("192.0.2.7:51820".parse().expect("an address")),
            peer: Some("laptop".to_owned()),
            key: Some("KEY".to_owned()),
            inner: Some("10.0.0.9".parse().expect("an address")),
            owner: Some("phone".to_owned()),
        };
        let mut seen = std::collections::BTreeSet::new();
        for what in Refusal::ALL {
            let bare = sentence(what, 1, None);
            assert!(bare.contains(" once: ") && bare.ends_with('.') && !bare.ends_with(".."), "{bare}");
            let full = sentence(what, 3, Some(&evidence));
            assert!(full.contains(" 3 times, last from 192.0.2.7:51820: "), "{full}");
            assert!(seen.insert(bare), "{what:?} says what another one says");
        }
    }
}
