//! What was refused, as a sentence that tells a person what happened and what usually helps.

use super::schema::EvidenceReport;
use crate::forward::Refusal;

/// One or two sentences: what came, how often, from where; what it means.
pub(super) fn sentence(what: Refusal, count: u64, last: Option<&EvidenceReport>) -> String {
    let known = |text: Option<String>, unknown: &str| text.unwrap_or_else(|| unknown.to_owned());
    let key = known(last.and_then(|last| last.key.clone()), "(not kept)");
    let peer = known(last.and_then(|last| last.peer.as_ref()).map(|name| format!("peer {name}")), "a peer");
    let inner = known(last.and_then(|last| last.inner).map(|inner| inner.to_string()), "an address");
    let owner = last.and_then(|last| last.owner.as_ref());
    let (subject, meaning) = match what {
        Refusal::Malformed => {
            ("a datagram that is not WireGuard came".to_owned(), "a scan, or another protocol on this port")
        }
        Refusal::Mac1 => (
            "a handshake message that was not meant for our public key came".to_owned(),
            "the other side has a wrong public key for us",
        ),
        Refusal::CookieWanted => (
            "a handshake message was answered with a cookie under load".to_owned(),
            "an honest sender comes again with the cookie",
        ),
        Refusal::RateLimited => (
            "a handshake message was dropped under load, as its source sends too many".to_owned(),
            "one source asks for more than 20 handshakes a second",
        ),
        Refusal::HandshakeQueueFull => (
            "a handshake message was dropped, as too many wait".to_owned(),
            "more handshakes arrive than this machine can answer",
        ),
        Refusal::NoPrivateKey => {
            ("a handshake message came while we have no private key".to_owned(), "set one")
        }
        Refusal::HandshakeForged => (
            "a handshake message that does not decrypt came".to_owned(),
            "it is forged, or the other side is broken",
        ),
        Refusal::UnknownKey => (
            format!("an initiation from the unknown key {key} came"),
            "add it as a peer, or correct the key on one of the two sides",
        ),
        Refusal::TimestampNotNewer => (
            format!("an initiation of {peer} that is not newer than its last one came"),
            "a replay, or the peer's clock went back: set its clock",
        ),
        Refusal::InitiationFlood => (
            format!("{peer} sent initiations less than 20 ms apart"),
            "two machines use the same key, or it is under attack",
        ),
        Refusal::NotAsked => (
            "a response or cookie reply to nothing that we sent came".to_owned(),
            "it came too late, or is forged",
        ),
        Refusal::ResponseForged => (
            format!("a response of {peer} that does not open came"),
            "the preshared keys of the two sides differ, or it is forged",
        ),
        Refusal::CookieForged => ("a cookie reply that does not open came".to_owned(), "it is forged"),
        Refusal::LowOrderKey => {
            ("a key that cannot be a key (of low order) was met".to_owned(), "it is forged, or mistyped")
        }
        Refusal::NoSuchSession => (
            "data for a session that we do not have came".to_owned(),
            "the peer still uses one from before our restart; it makes a new one within seconds",
        ),
        Refusal::SessionExpired => (
            format!("data of {peer} for a session that is too old came"),
            "handshakes between the two sides fail",
        ),
        Refusal::Forged => {
            (format!("data of {peer} that does not open came"), "it is forged, or damaged on its way")
        }
        Refusal::Replayed => (
            format!("data of {peer} that was seen before, or is far too late, came"),
            "the network doubles packets, or somebody replays them",
        ),
        Refusal::InnerMalformed => {
            (format!("{peer} sent a packet inside that is not IP"), "the other side is broken")
        }
        Refusal::SourceNotAllowed => match owner {
            Some(owner) => (
                format!("{peer} sent a packet from {inner}, which belongs to {owner}"),
                "the allowed IPs of the two differ from what the sides use",
            ),
            None => (
                format!("{peer} sent a packet from {inner}, which is not among its allowed IPs"),
                "add the address to its allowed IPs, or masquerade on the other side",
            ),
        },
        Refusal::EcnDropped => (
            format!("a packet of {peer} was marked as congested that may not be"),
            "the network on the way is congested; dropping tells the sender so",
        ),
        Refusal::NoPeer => (
            format!("a packet to {inner} went into the tunnel, but no peer has that address"),
            "add it to a peer's allowed IPs, or remove the route",
        ),
        Refusal::NoEndpoint => (
            format!("a packet for {peer} could not be sent, as its endpoint is not known"),
            "set an endpoint, or let the peer begin",
        ),
        Refusal::OutboundMalformed => {
            ("what came from the device was not IP".to_owned(), "a program on this host is broken")
        }
        Refusal::StagedOverflow => (
            format!("a packet that waited for a session with {peer} gave way to a newer one"),
            "the peer does not answer handshakes",
        ),
        Refusal::HandshakeGivenUp => (
            format!("a packet that waited for a session with {peer} was thrown away"),
            "90 seconds of handshakes went unanswered: is the endpoint right, is UDP let through, does it know our key?",
        ),
        Refusal::SendFailed => (
            format!("the kernel would not send a datagram to {peer}"),
            "no route to its endpoint, or a firewall on this host",
        ),
        Refusal::TunWriteFailed => {
            ("the kernel would not take a packet from the tunnel".to_owned(), "is the device up?")
        }
        Refusal::Oversized => (
            "a datagram larger than any that a peer sends came".to_owned(),
            "a scan, or another protocol on this port",
        ),
    };
    format!("{subject} {}{}: {meaning}.", times(count), origin(last))
}

fn times(count: u64) -> String {
    if count == 1 { "once".to_owned() } else { format!("{count} times") }
}

fn origin(last: Option<&EvidenceReport>) -> String {
    last.and_then(|last| last.from).map_or_else(String::new, |from| format!(", last from {from}"))
}
