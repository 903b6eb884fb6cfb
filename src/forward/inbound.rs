//! From the wire to the TUN: type → session → open → replay → source check against the whole table.

use std::sync::Arc;

use bytes::Bytes;

use super::{
    Endpoint, Evidence, Forward, HandshakeDatagram, Peer, Raised, Refusal, Session, Time,
    session::REJECT_AFTER_MESSAGES,
};
use crate::wire::{
    ecn::{self, Ecn},
    ip,
    message::{self, Kind, TRANSPORT_HEADER_LEN, TransportHeader},
};

/// What became of a datagram.
#[derive(Debug, PartialEq, Eq)]
pub enum Inbound<'a> {
    /// Write this packet to the TUN.
    Deliver(&'a [u8]),
    /// An authentic empty packet.
    Keepalive,
    /// Passed to the upper half.
    Handshake,
    /// Refused and counted.
    Refused,
}

/// What is known of a datagram beside its bytes.
#[derive(Clone, Copy)]
struct Arrival<'e> {
    from: &'e Endpoint,
    ecn: Ecn,
    now: Time,
}

/// It was refused, and that was counted.
struct Counted;

impl Forward {
    /// Takes one datagram, which is decrypted in place; `from.local` is the address it came to, `ecn` the
    /// outer congestion field.
    pub fn inbound<'a>(&self, from: &Endpoint, ecn: Ecn, datagram: &'a mut [u8], now: Time) -> Inbound<'a> {
        let arrival = Arrival { from, ecn, now };
        let taken = match message::classify(datagram) {
            Ok(Kind::Transport) => self.transport(arrival, datagram),
            Ok(Kind::Initiation | Kind::Response | Kind::CookieReply) => self.handshake(arrival, datagram),
            Err(_) => Err(self.refuse(arrival, Refusal::Malformed, Evidence::default())),
        };
        taken.unwrap_or(Inbound::Refused)
    }

    /// For the upper half. A full queue is seen before the copy is made: a flood costs no memory.
    fn handshake<'a>(&self, arrival: Arrival<'_>, datagram: &[u8]) -> Result<Inbound<'a>, Counted> {
        if self.handshakes.is_full() {
            return Err(self.refuse(arrival, Refusal::HandshakeQueueFull, Evidence::default()));
        }
        let bytes = Bytes::copy_from_slice(datagram);
        self.push_handshake(HandshakeDatagram { from: *arrival.from, bytes });
        Ok(Inbound::Handshake)
    }

    fn transport<'a>(&self, arrival: Arrival<'_>, datagram: &'a mut [u8]) -> Result<Inbound<'a>, Counted> {
        let bytes = datagram.len() as u64;
        let header = TransportHeader::parse(datagram)
            .map_err(|_| self.refuse(arrival, Refusal::Malformed, Evidence::default()))?;
        let (session, peer) = self
            .sessions
            .find(header.receiver)
            .ok_or_else(|| self.refuse(arrival, Refusal::NoSuchSession, Evidence::default()))?;
        let sealed = &mut datagram[TRANSPORT_HEADER_LEN..];
        let plaintext = open(&session, header.counter, sealed, arrival.now)
            .map_err(|why| self.refuse(arrival, why, Evidence::about(&peer)))?;
        self.authentic_received(&peer, &session, arrival, bytes);
        if plaintext.is_empty() {
            return Ok(Inbound::Keepalive);
        }
        if peer.activity.data_received(arrival.now) {
            self.raise(&peer, Raised::TIMER);
        }
        self.deliver(&peer, plaintext, arrival).map(Inbound::Deliver)
    }

    /// What every authentic message does, whatever is in it (the kernel's `wg_packet_consume_data_done`).
    fn authentic_received(&self, peer: &Arc<Peer>, session: &Arc<Session>, arrival: Arrival<'_>, bytes: u64) {
        peer.activity.authentic_received(bytes, arrival.now);
        if peer.follow(arrival.from) {
            self.raise(peer, Raised::ROAMED);
        }
        if session.confirm() {
            self.raise(peer, Raised::CONFIRMED);
        }
        // Only for the session that we seal with: behind an older one there is a newer already.
        if session.at_last_minute(arrival.now) && peer.seals_with(session) && session.take_last_minute() {
            self.raise(peer, Raised::WANTS_SESSION);
        }
    }

    /// An authentic plaintext becomes an inner packet, if its source is the peer's own.
    fn deliver<'a>(
        &self,
        peer: &Arc<Peer>,
        plaintext: &'a mut [u8],
        arrival: Arrival<'_>,
    ) -> Result<&'a [u8], Counted> {
        let refuse = |why| self.refuse(arrival, why, Evidence::about(peer));
        let header = ip::parse(plaintext).map_err(|_| refuse(Refusal::InnerMalformed))?;
        let packet = &mut plaintext[..header.total_len]; // the rest is padding
        self.check_source(peer, &header, arrival)?;
        let marked = ecn::decapsulate(header.ecn, arrival.ecn).ok_or_else(|| refuse(Refusal::EcnDropped))?;
        if marked != header.ecn {
            ecn::mark(packet, marked);
        }
        peer.activity.packet_delivered();
        Ok(packet)
    }

    /// Cryptokey routing (paper, section 2): the longest prefix of the *whole* table that holds the source must
    /// be this peer's. That it has some shorter one is not enough.
    fn check_source(
        &self,
        peer: &Arc<Peer>,
        header: &ip::Header,
        arrival: Arrival<'_>,
    ) -> Result<(), Counted> {
        let routes = self.routes.load();
        let owner = routes.find(header.source).map(|(owner, _)| owner);
        if owner.is_some_and(|owner| Arc::ptr_eq(owner, peer)) {
            return Ok(());
        }
        let evidence = Evidence {
            inner: Some(header.source),
            owner: owner.map(|owner| owner.public_key),
            ..Evidence::about(peer)
        };
        Err(self.refuse(arrival, Refusal::SourceNotAllowed, evidence))
    }

    fn refuse(&self, arrival: Arrival<'_>, why: Refusal, evidence: Evidence) -> Counted {
        let from = Some(arrival.from.remote);
        self.refusals.count(why, Evidence { at: arrival.now, from, ..evidence });
        Counted
    }
}

/// Age, tag, replay window: in this order, so that nothing unauthentic moves the window.
fn open<'a>(
    session: &Session,
    counter: u64,
    sealed: &'a mut [u8],
    now: Time,
) -> Result<&'a mut [u8], Refusal> {
    if session.expired(now) || counter >= REJECT_AFTER_MESSAGES {
        return Err(Refusal::SessionExpired);
    }
    let plaintext = session.open(counter, sealed).map_err(|_| Refusal::Forged)?;
    if !session.accept(counter) {
        return Err(Refusal::Replayed);
    }
    Ok(plaintext)
}
