//! From the wire to the TUN: type → session → open → replay → source check against the whole table.

use std::{
    net::{IpAddr, SocketAddr},
    ops::Range,
    sync::Arc,
};

use super::{
    Endpoint, Evidence, Forward, Peer, Raised, Refusal, Session, Time,
    coalesce::{Coalescer, Delivery, Merge},
    session::REJECT_AFTER_MESSAGES,
    tap::{Nobody, Observer},
};
use crate::wire::{
    ecn::{self, Ecn},
    ip,
    message::{self, Index, Kind, TRANSPORT_HEADER_LEN, TransportHeader},
    mss::Checksum,
};

/// What one receive call left in a buffer: one datagram, or several that the kernel put together (UDP_GRO).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Arrival {
    /// From where, and to which of our addresses.
    pub from: Endpoint,
    /// Outer ECN.
    pub ecn: Ecn,
    /// Where in the buffer.
    pub place: Range<usize>,
    /// Bytes of each datagram but the last, which may be shorter.
    pub stride: usize,
}

impl Arrival {
    /// The place of each datagram. An empty datagram is one, too.
    fn datagrams(&self) -> impl Iterator<Item = Range<usize>> + use<> {
        let Range { start, end } = self.place;
        let stride = self.stride.max(1);
        let count = (end - start).div_ceil(stride).max(1);
        (0..count).map(move |n| start + n * stride..end.min(start + (n + 1) * stride))
    }
}

/// What a batch gives to write to the TUN, in order: packets of one flow that followed each other are one.
#[derive(Default)]
pub struct Deliveries {
    coalescer: Coalescer,
    ready: Vec<Delivery>,
    /// Whose datagram the last one was: the next, which may be from elsewhere, is most likely of the same session.
    last: Option<(Arc<Session>, Arc<Peer>)>,
}

impl Deliveries {
    /// Room for what one batch commonly gives.
    pub fn new() -> Self {
        Self { coalescer: Coalescer::default(), ready: Vec::with_capacity(256), last: None }
    }
    /// Begins a batch, in which so much may be merged.
    pub fn begin(&mut self, merge: Merge) {
        self.coalescer.allow(merge);
        self.ready.clear();
    }
    /// Ends it: what there is to write.
    pub fn finish(&mut self, buffer: &mut [u8]) -> &[Delivery] {
        // A thread that waits keeps no session alive.
        self.last = None;
        self.ready.extend(self.coalescer.finish(buffer));
        &self.ready
    }
    fn push(&mut self, buffer: &mut [u8], place: Range<usize>) {
        self.ready.extend(self.coalescer.push(buffer, place));
    }
}

/// What is known of a datagram beside its bytes.
#[derive(Clone, Copy)]
struct Origin<'e> {
    from: &'e Endpoint,
    ecn: Ecn,
    now: Time,
}

/// Datagrams of one session that follow each other: what is done once for all of them.
struct Run {
    session: Arc<Session>,
    peer: Arc<Peer>,
    /// Some of them were authentic, and these are their bytes.
    authentic: bool,
    bytes: u64,
    /// Some of them were more than a keepalive.
    data: bool,
    delivered: u64,
    /// The last source address that was found to be the peer's.
    source: Option<IpAddr>,
}

/// It was refused for this, and that was counted.
struct Counted(Refusal);

impl Forward {
    /// Takes what arrived; it is decrypted in place, and what is fit for the TUN goes into `deliveries`. Handshakes
    /// go to the upper half.
    pub fn inbound(&self, arrival: &Arrival, buffer: &mut [u8], deliveries: &mut Deliveries, now: Time) {
        self.inbound_observed(arrival, buffer, deliveries, &mut Nobody, now);
    }

    /// The same, while somebody looks.
    pub fn inbound_observed(
        &self,
        arrival: &Arrival,
        buffer: &mut [u8],
        deliveries: &mut Deliveries,
        observer: &mut impl Observer,
        now: Time,
    ) {
        let origin = Origin { from: &arrival.from, ecn: arrival.ecn, now };
        let mut run: Option<Run> = None;
        for (number, place) in arrival.datagrams().enumerate() {
            let datagram = &mut buffer[place.clone()];
            observer.arrives(number, datagram);
            let fit = match message::classify(datagram) {
                Ok(Kind::Transport) => self.transport(origin, &mut run, &mut deliveries.last, datagram),
                Ok(kind) => self.handshake(origin, kind, datagram).map(|()| None),
                Err(_) => Err(self.refuse(origin, Refusal::Malformed, Evidence::default())),
            };
            let peer = run.as_ref().map(|run| &*run.peer);
            match fit {
                Ok(Some(len)) => {
                    let start = place.start + TRANSPORT_HEADER_LEN;
                    let peer = peer.expect("what was opened belongs to a run");
                    observer.opened(arrival, number, peer, &buffer[start..start + len], now);
                    deliveries.push(buffer, start..start + len);
                }
                Ok(None) => {}
                Err(Counted(why)) => {
                    let peer = peer.filter(|_| why != Refusal::NoSuchSession);
                    observer.refused(arrival, why, peer, &buffer[place], now);
                }
            }
        }
        if let Some(run) = run {
            deliveries.last = Some(self.run_ends(run, now));
        }
    }

    /// A datagram that did not fit the receive buffer.
    pub fn oversized(&self, from: SocketAddr, now: Time) {
        let evidence = Evidence { at: now, from: Some(from), ..Evidence::default() };
        self.refusals.count(Refusal::Oversized, evidence);
    }

    /// For the upper half, if it is meant for our key.
    fn handshake(&self, origin: Origin<'_>, kind: Kind, datagram: &[u8]) -> Result<(), Counted> {
        let refuse = |why| self.refuse(origin, why, Evidence::default());
        if kind != Kind::CookieReply && !self.handshakes.is_for_us(datagram) {
            return Err(refuse(Refusal::Mac1));
        }
        self.push_handshake(origin.from, kind, datagram).map_err(refuse)
    }

    /// Length of the inner packet, which then stands behind the transport header; `None` of a keepalive.
    fn transport(
        &self,
        origin: Origin<'_>,
        current: &mut Option<Run>,
        last: &mut Option<(Arc<Session>, Arc<Peer>)>,
        datagram: &mut [u8],
    ) -> Result<Option<usize>, Counted> {
        let bytes = datagram.len() as u64;
        let header = TransportHeader::parse(datagram)
            .map_err(|_| self.refuse(origin, Refusal::Malformed, Evidence::default()))?;
        let run = self.run_of(header.receiver, current, last, origin)?;
        let sealed = &mut datagram[TRANSPORT_HEADER_LEN..];
        let plaintext = open(&run.session, header.counter, sealed, origin.now)
            .map_err(|why| self.refuse(origin, why, Evidence::about(&run.peer)))?;
        if !std::mem::replace(&mut run.authentic, true) {
            self.run_is_authentic(run, origin);
        }
        run.bytes += bytes;
        if plaintext.is_empty() {
            return Ok(None);
        }
        run.data = true;
        let len = self.check(run, plaintext, origin)?;
        run.delivered += 1;
        Ok(Some(len))
    }

    /// The run that this index goes on with, or the first datagram of another.
    fn run_of<'r>(
        &self,
        index: Index,
        current: &'r mut Option<Run>,
        last: &mut Option<(Arc<Session>, Arc<Peer>)>,
        origin: Origin<'_>,
    ) -> Result<&'r mut Run, Counted> {
        if current.as_ref().is_none_or(|run| run.session.start().local != index) {
            if let Some(before) = current.take() {
                *last = Some(self.run_ends(before, origin.now));
            }
            let (session, peer) = last
                .take_if(|(session, _)| session.start().local == index)
                .or_else(|| self.sessions.find(index))
                .ok_or_else(|| self.refuse(origin, Refusal::NoSuchSession, Evidence::default()))?;
            *current = Some(Run {
                session,
                peer,
                bytes: 0,
                authentic: false,
                data: false,
                delivered: 0,
                source: None,
            });
        }
        Ok(current.as_mut().expect("it was there, or was made just now"))
    }

    /// What every authentic message does, whatever is in it (the kernel's `wg_packet_consume_data_done`).
    fn run_is_authentic(&self, run: &Run, origin: Origin<'_>) {
        let Run { session, peer, .. } = run;
        if peer.follow(origin.from) {
            self.raise(peer, Raised::ROAMED);
        }
        if session.confirm() {
            peer.renew(session);
            self.raise(peer, Raised::CONFIRMED);
        }
        // Only for the session that we seal with: behind an older one there is a newer already.
        if session.at_last_minute(origin.now) && peer.seals_with(session) && session.take_last_minute() {
            self.raise(peer, Raised::WANTS_SESSION);
        }
    }

    /// What is counted once for all of them; whose they were.
    fn run_ends(&self, run: Run, now: Time) -> (Arc<Session>, Arc<Peer>) {
        let Run { session, peer, bytes, authentic, data, delivered, .. } = run;
        if authentic {
            peer.activity.authentic_received(bytes, now);
            if data && peer.activity.data_received(now) {
                self.raise(&peer, Raised::TIMER);
            }
            peer.activity.packets_delivered(delivered);
        }
        (session, peer)
    }

    /// An authentic plaintext becomes an inner packet of that length, if its source is the peer's own.
    fn check(&self, run: &mut Run, plaintext: &mut [u8], origin: Origin<'_>) -> Result<usize, Counted> {
        let refuse = |why| self.refuse(origin, why, Evidence::about(&run.peer));
        let header = ip::parse(plaintext).map_err(|_| refuse(Refusal::InnerMalformed))?;
        let packet = &mut plaintext[..header.total_len]; // the rest is padding
        if run.source != Some(header.source) {
            self.check_source(&run.peer, &header, origin)?;
            run.source = Some(header.source);
        }
        let marked = ecn::decapsulate(header.ecn, origin.ecn).ok_or_else(|| refuse(Refusal::EcnDropped))?;
        if marked != header.ecn {
            ecn::mark(packet, marked);
        }
        self.mss.apply(packet, Checksum::Whole);
        Ok(packet.len())
    }

    /// Cryptokey routing (paper, section 2): the longest prefix of the *whole* table that holds the source must
    /// be this peer's. That it has some shorter one is not enough.
    fn check_source(&self, peer: &Arc<Peer>, header: &ip::Header, origin: Origin<'_>) -> Result<(), Counted> {
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
        Err(self.refuse(origin, Refusal::SourceNotAllowed, evidence))
    }

    fn refuse(&self, origin: Origin<'_>, why: Refusal, evidence: Evidence) -> Counted {
        let from = Some(origin.from.remote);
        self.refusals.count(why, Evidence { at: origin.now, from, ..evidence });
        Counted(why)
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
