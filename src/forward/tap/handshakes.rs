//! Messages of handshakes, for the readers that asked for them: a capture shows how a session came to be.

use super::{Look, Tap, name};
use crate::{
    forward::{Endpoint, Peer, Refusal, Time},
    noise::KeyLog,
    trace::{Direction, Handshake, Message, Secrets},
    wire::message::{self, Kind},
};

/// One message, as it came or is about to be sent.
pub struct HandshakeSeen<'a> {
    /// When.
    pub now: Time,
    /// From this host; else it came to it.
    pub sent: bool,
    /// Of whom, where that is known.
    pub peer: Option<&'a Peer>,
    /// Where the other end is, and which of our addresses it talks to.
    pub endpoint: Endpoint,
    /// It was refused for this.
    pub refused: Option<Refusal>,
    /// The whole message.
    pub bytes: &'a [u8],
    /// The keys that open it: for who [may have them](Look::gives_secrets).
    pub keys: Option<&'a KeyLog>,
}

impl Tap {
    /// Are keys of handshakes told to somebody?
    pub fn gives_secrets(&self) -> bool {
        self.look().is_some_and(|look| look.gives_secrets())
    }

    /// From now on nobody is told a key, whoever asked for them.
    pub fn withhold_secrets(&self) {
        for feed in self.feeds.load().iter() {
            feed.withhold_secrets();
        }
    }
}

impl Look {
    /// Does anybody look at handshakes?
    pub fn wants_handshakes(&self) -> bool {
        self.feeds.iter().any(|feed| feed.wants_handshakes())
    }

    /// Is anybody told keys?
    pub fn gives_secrets(&self) -> bool {
        self.feeds.iter().any(|feed| feed.gives_secrets())
    }

    /// Tells a message to all who asked for them. Those that anybody can make come (refused ones, and cookies for those
    /// under load) are told up to a number, so that a flood of them takes no place of others.
    pub fn handshake(&self, seen: &HandshakeSeen<'_>) {
        let is_of_peer = seen.peer.is_some() && seen.refused.is_none();
        for feed in self.feeds.iter().filter(|feed| feed.wants_handshakes()) {
            let keys = seen.keys.filter(|_| feed.gives_secrets());
            if let Some(handshake) = told(seen, keys).filter(|_| is_of_peer || feed.wants_unreadable()) {
                feed.push_handshake(handshake);
            }
        }
    }
}

/// `None`: it is no message of a handshake.
fn told(seen: &HandshakeSeen<'_>, keys: Option<&KeyLog>) -> Option<Handshake> {
    let message = match message::classify(seen.bytes).ok()? {
        Kind::Initiation => Message::Initiation,
        Kind::Response => Message::Response,
        Kind::CookieReply => Message::CookieReply,
        Kind::Transport => return None,
    };
    Some(Handshake {
        at_ns: seen.now.0,
        way: if seen.sent { Direction::Out } else { Direction::In },
        message,
        peer: seen.peer.map(name),
        remote: seen.endpoint.remote,
        local: seen.endpoint.local.map(|local| local.address),
        refused: seen.refused.map(|why| why.name().to_owned()),
        bytes: seen.bytes.to_vec(),
        secrets: keys.map(|keys| Secrets::new(keys.expose().clone())),
    })
}
