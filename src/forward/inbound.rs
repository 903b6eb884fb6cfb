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

/// Why a datagram goes no further, and what is known of it.
type Stop = (Refusal, Evidence);

impl Forward {
    /// Takes one datagram, which is decrypted in place; `from.local` is the address it came to, `ecn` the
    /// outer congestion field.
    pub fn inbound<'a>(&self, from: &Endpoint, ecn: Ecn, datagram: &'a mut [u8], now: Time) -> Inbound<'a> {
        let taken = match message::classify(datagram) {
            Ok(Kind::Transport) => self.transport(from, ecn, datagram, now),
            Ok(Kind::Initiation | Kind::Response | Kind::CookieReply) => self.handshake(from, datagram),
            Err(_) => Err((Refusal::Malformed, Evidence::default())),
        };
        taken.unwrap_or_else(|(why, evidence)| {
            let from = Some(from.remote);
            self.refusals.count(why, Evidence { at: now, from, ..evidence });
            Inbound::Refused
        })
    }

    /// For the upper half. A full queue is seen before the copy is made: a flood costs no memory.
    fn handshake<'a>(&self, from: &Endpoint, datagram: &[u8]) -> Result<Inbound<'a>, Stop> {
        if self.handshakes.is_full() {
            return Err((Refusal::HandshakeQueueFull, Evidence::default()));
        }
        self.push_handshake(HandshakeDatagram { from: *from, bytes: Bytes::copy_from_slice(datagram) });
        Ok(Inbound::Handshake)
    }

    fn transport<'a>(
        &self,
        from: &Endpoint,
        ecn: Ecn,
        datagram: &'a mut [u8],
        now: Time,
    ) -> Result<Inbound<'a>, Stop> {
        let bytes = datagram.len() as u64;
        let header =
            TransportHeader::parse(datagram).map_err(|_| (Refusal::Malformed, Evidence::default()))?;
        let (session, peer) =
            self.sessions.find(header.receiver).ok_or((Refusal::NoSuchSession, Evidence::default()))?;
        let about = |why| (why, Evidence::about(&peer, now));
        let sealed = &mut datagram[TRANSPORT_HEADER_LEN..];
        let plaintext = open(&session, header.counter, sealed, now).map_err(about)?;
        self.authentic_received(&peer, &session, from, bytes, now);
        if plaintext.is_empty() {
            return Ok(Inbound::Keepalive);
        }
        if peer.activity.data_received(now) {
            self.raise(&peer, Raised::TIMER);
        }
        self.deliver(&peer, plaintext, ecn, now).map(Inbound::Deliver)
    }

    /// What every authentic message does, whatever is in it (the kernel's `wg_packet_consume_data_done`).
    fn authentic_received(
        &self,
        peer: &Arc<Peer>,
        session: &Arc<Session>,
        from: &Endpoint,
        bytes: u64,
        now: Time,
    ) {
        peer.activity.authentic_received(bytes, now);
        if peer.follow(from) {
            self.raise(peer, Raised::ROAMED);
        }
        if session.confirm() {
            self.raise(peer, Raised::CONFIRMED);
        }
        // Only for the session that we seal with: behind an older one there is a newer already.
        if session.at_last_minute(now) && peer.seals_with(session) && session.take_last_minute() {
            self.raise(peer, Raised::WANTS_SESSION);
        }
    }

    /// An authentic plaintext becomes an inner packet, if its source is the peer's own.
    fn deliver<'a>(
        &self,
        peer: &Arc<Peer>,
        plaintext: &'a mut [u8],
        outer: Ecn,
        now: Time,
    ) -> Result<&'a [u8], Stop> {
        let about = |why| (why, Evidence::about(peer, now));
        let header = ip::parse(plaintext).map_err(|_| about(Refusal::InnerMalformed))?;
        let packet = &mut plaintext[..header.total_len]; // the rest is padding
        self.check_source(peer, &header, now)?;
        let marked = ecn::decapsulate(header.ecn, outer).ok_or_else(|| about(Refusal::EcnDropped))?;
        if marked != header.ecn {
            ecn::mark(packet, marked);
        }
        peer.activity.packet_delivered();
        Ok(packet)
    }

    /// Cryptokey routing (paper, section 2): the longest prefix of the *whole* table that holds the source must
    /// be this peer's. That it has some shorter one is not enough.
    fn check_source(&self, peer: &Arc<Peer>, header: &ip::Header, now: Time) -> Result<(), Stop> {
        let routes = self.routes.load();
        let owner = routes.find(header.source).map(|(owner, _)| owner);
        if owner.is_some_and(|owner| Arc::ptr_eq(owner, peer)) {
            return Ok(());
        }
        let evidence = Evidence {
            inner: Some(header.source),
            owner: owner.map(|owner| owner.public_key),
            ..Evidence::about(peer, now)
        };
        Err((Refusal::SourceNotAllowed, evidence))
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
