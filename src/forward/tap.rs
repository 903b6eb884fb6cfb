//! Who looks at packets under way: nobody, most of the time. A data thread asks once a batch, by one relaxed load; what
//! is watched is then told in [records](Seen), and the packets go their way as before.

mod handshakes;

use std::{
    net::{IpAddr, SocketAddr},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use arc_swap::ArcSwap;
use ipnet::IpNet;

use super::{
    Cargo, Delivery, Departure, Forward, Intake, Peer, Refusal, Session, Time, inbound::Arrival,
    peer::StagedDatagram,
};
use crate::{
    trace::{Batch, Facts, Feed, Opened, Packet, Refused, Sealed, Seen, Vpnd},
    wire::message::{INITIATION_LEN, TransportHeader},
};

pub use handshakes::HandshakeSeen;

/// Readers at the same time.
const FEEDS: usize = 4;

/// Where readers are attached.
#[derive(Default)]
pub struct Tap {
    on: AtomicBool,
    feeds: ArcSwap<Vec<Arc<Feed>>>,
    /// Readers come and go one at a time.
    turn: Mutex<()>,
}

impl Tap {
    /// Once a batch: does anybody look?
    pub fn look(&self) -> Option<Look> {
        // Whoever attaches does not count on the batch that is under way.
        self.on.load(Ordering::Relaxed).then(|| Look { feeds: self.feeds.load_full() })
    }

    /// One more reader; false: there are as many as may be.
    pub fn attach(&self, feed: Arc<Feed>) -> bool {
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let mut feeds = Vec::clone(&self.feeds.load());
        if feeds.len() == FEEDS {
            return false;
        }
        feeds.push(feed);
        self.feeds.store(Arc::new(feeds));
        self.on.store(true, Ordering::Relaxed);
        true
    }

    /// This reader is gone.
    pub fn detach(&self, feed: &Arc<Feed>) {
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let mut feeds = Vec::clone(&self.feeds.load());
        feeds.retain(|one| !Arc::ptr_eq(one, feed));
        self.on.store(!feeds.is_empty(), Ordering::Relaxed);
        self.feeds.store(Arc::new(feeds));
    }
}

/// The readers of one batch.
pub struct Look {
    feeds: Arc<Vec<Arc<Feed>>>,
}

/// A record that waits for what is still to be known.
struct Pending {
    feed: Arc<Feed>,
    seen: Seen,
}

impl Look {
    fn who_wants(&self, facts: &Facts) -> impl Iterator<Item = &Arc<Feed>> {
        self.feeds.iter().filter(|feed| feed.wants(facts))
    }

    /// Outbound: those of a batch that are going to be sealed.
    pub fn departing(&self, forward: &Forward, departures: &[Departure], intake: &Intake) -> Departing {
        let mut pending = Vec::new();
        for departure in departures {
            let packet = intake.packet(departure.place());
            let Some(facts) = Facts::of(packet) else { continue };
            for feed in self.who_wants(&facts) {
                let sealed = departure.sealed_as(prefix(forward, facts.destination), feed.mark());
                let seen = Seen {
                    at_ns: departure.at().0,
                    done_ns: None,
                    packet: Some(facts.into()),
                    vpnd: Vpnd::Sealed(sealed),
                    inner: feed.cut(packet),
                    outer: Vec::new(),
                };
                pending.push(Pending { feed: feed.clone(), seen });
            }
        }
        Departing { pending }
    }

    /// Outbound: it goes no further. `None`: it waits for a session.
    pub fn turned_back(&self, forward: &Forward, packet: &[u8], why: Option<Refusal>, now: Time) {
        let Some(facts) = Facts::of(packet) else { return };
        for feed in self.who_wants(&facts) {
            let owner = owner(forward, facts.destination);
            let vpnd = match (why, owner) {
                (None, Some((peer, prefix))) => Vpnd::Staged {
                    peer: name(&peer),
                    public_key: peer.public_key.to_string(),
                    prefix: prefix.to_string(),
                },
                (why, owner) => Vpnd::Refused(Refused {
                    inner: Some(facts.destination),
                    owner: owner.as_ref().map(|(peer, _)| name(peer)),
                    owner_prefix: owner.as_ref().map(|(_, prefix)| prefix.to_string()),
                    ..refused(why.unwrap_or(Refusal::NoPeer), owner.as_ref().map(|(peer, _)| &**peer))
                }),
            };
            feed.push(Seen {
                at_ns: now.0,
                done_ns: None,
                packet: Some(facts.into()),
                vpnd,
                inner: feed.cut(packet),
                outer: Vec::new(),
            });
        }
    }

    /// Outbound: the upper half sealed what had waited, and is about to send it.
    pub fn handed_over(&self, forward: &Forward, peer: &Peer, staged: &[StagedDatagram], now: Time) {
        for StagedDatagram { packet, bytes, .. } in staged {
            let (Some(facts), Ok(header)) = (Facts::of(packet), TransportHeader::parse(bytes)) else {
                continue;
            };
            let Some(endpoint) = peer.endpoint() else { continue };
            for feed in self.who_wants(&facts) {
                let sealed = Sealed {
                    peer: name(peer),
                    public_key: peer.public_key.to_string(),
                    prefix: prefix(forward, facts.destination),
                    session: header.receiver.0,
                    counter: header.counter,
                    segments: 1,
                    inner_bytes: packet.len() as u64,
                    datagram_bytes: bytes.len() as u64,
                    staged: true,
                    local: endpoint.local.map(|local| local.address),
                    endpoint: endpoint.remote,
                    mark: feed.mark(),
                    batch: Some(Batch {
                        datagrams: 1,
                        place: 0,
                        bytes: bytes.len() as u64,
                        first: header.counter,
                    }),
                    error: None,
                };
                feed.push(Seen {
                    at_ns: now.0,
                    done_ns: None,
                    packet: Some(facts.into()),
                    vpnd: Vpnd::Sealed(sealed),
                    inner: feed.cut(packet),
                    outer: feed.cut(bytes),
                });
            }
        }
    }

    /// Inbound: a batch begins.
    pub fn arriving<'a>(self, forward: &'a Forward) -> Arriving<'a> {
        Arriving {
            look: self,
            forward,
            datagram: Vec::new(),
            datagram_bytes: 0,
            first: 0,
            delivered: 0,
            pending: Vec::new(),
        }
    }
}

/// Packets that are being sealed, and watched.
pub struct Departing {
    pending: Vec<Pending>,
}

impl Departing {
    /// A send was made, and this came of it: those that were in it are told.
    pub fn shipped(&mut self, cargo: &Cargo<'_>, error: Option<String>, at: Time) {
        if self.pending.is_empty() {
            return;
        }
        let Ok(first) = TransportHeader::parse(cargo.bytes) else { return };
        let datagrams = cargo.datagrams().count() as u64;
        for (place, datagram) in cargo.datagrams().enumerate() {
            let Ok(header) = TransportHeader::parse(datagram) else { continue };
            let batch = Batch {
                datagrams,
                place: place as u64,
                bytes: cargo.bytes.len() as u64,
                first: first.counter,
            };
            self.pending.retain_mut(|pending| !pending.shipped(datagram, header, batch, error.as_ref(), at));
        }
    }
}

impl Pending {
    /// Tells that this datagram left, if it is one of the packet's; true: nothing more is to be told of the packet.
    fn shipped(
        &mut self,
        datagram: &[u8],
        header: TransportHeader,
        batch: Batch,
        error: Option<&String>,
        at: Time,
    ) -> bool {
        let Vpnd::Sealed(sealed) = &self.seen.vpnd else { return false };
        let last = sealed.counter + sealed.segments - 1;
        if sealed.session != header.receiver.0 || !(sealed.counter..=last).contains(&header.counter) {
            return false;
        }
        let (is_first, each) = (header.counter == sealed.counter, self.feed.wanted().each);
        if is_first || each {
            let sealed = Sealed {
                counter: header.counter,
                datagram_bytes: datagram.len() as u64,
                batch: Some(batch),
                error: error.cloned(),
                ..sealed.clone()
            };
            self.feed.push(Seen {
                at_ns: self.seen.at_ns,
                done_ns: error.is_none().then_some(at.0),
                // Of those that follow the packet itself is told no more.
                packet: self.seen.packet.take(),
                vpnd: Vpnd::Sealed(sealed),
                inner: std::mem::take(&mut self.seen.inner),
                outer: self.feed.cut(datagram),
            });
        }
        header.counter == last || !each
    }
}

/// What [`Forward::inbound`] tells of each datagram while it takes it.
pub trait Observer {
    /// It is looked at next, as it arrived; its place in the receive.
    fn arrives(&mut self, place: usize, datagram: &[u8]);
    /// This packet was in it, and is fit for the TUN.
    fn opened(&mut self, arrival: &Arrival, place: usize, peer: &Peer, packet: &[u8], now: Time);
    /// It was refused; what stands in it now may be readable.
    fn refused(&mut self, arrival: &Arrival, why: Refusal, peer: Option<&Peer>, datagram: &[u8], now: Time);
}

/// Nobody looks: nothing of this is left in the compiled loop.
pub struct Nobody;

impl Observer for Nobody {
    #[inline(always)]
    fn arrives(&mut self, _: usize, _: &[u8]) {}
    #[inline(always)]
    fn opened(&mut self, _: &Arrival, _: usize, _: &Peer, _: &[u8], _: Time) {}
    #[inline(always)]
    fn refused(&mut self, _: &Arrival, _: Refusal, _: Option<&Peer>, _: &[u8], _: Time) {}
}

/// A batch that arrives, and is watched.
pub struct Arriving<'a> {
    look: Look,
    forward: &'a Forward,
    /// The beginning of the datagram before it was opened.
    datagram: Vec<u8>,
    datagram_bytes: usize,
    /// Counter of the first datagram of this receive.
    first: u64,
    /// Packets that were fit for the TUN so far.
    delivered: usize,
    /// With their number among those.
    pending: Vec<(usize, Pending)>,
}

impl Arriving<'_> {
    /// The batch's packets were written: so they were merged, and taken or not.
    pub fn delivered(&mut self, deliveries: &[Delivery], taken: &[bool], at: Time) {
        let mut next = 0;
        let mut pending = std::mem::take(&mut self.pending).into_iter().peekable();
        for (delivery, taken) in deliveries.iter().zip(taken) {
            next += delivery.packets as usize;
            while let Some((_, Pending { feed, mut seen })) = pending.next_if(|(number, _)| *number < next) {
                if let Vpnd::Opened(opened) = &mut seen.vpnd {
                    opened.merged = delivery.packets.into();
                    if !taken {
                        seen.vpnd = Vpnd::Refused(Refused {
                            reason: Refusal::TunWriteFailed.name().to_owned(),
                            peer: Some(std::mem::take(&mut opened.peer)),
                            public_key: Some(std::mem::take(&mut opened.public_key)),
                            from: Some(opened.from),
                            session: Some(opened.session),
                            counter: Some(opened.counter),
                            ..Refused::default()
                        });
                    }
                }
                seen.done_ns = taken.then_some(at.0);
                feed.push(seen);
            }
        }
    }

    fn batch(&self, arrival: &Arrival, place: usize) -> Batch {
        let bytes = arrival.place.len();
        let datagrams = bytes.div_ceil(arrival.stride.max(1)).max(1);
        Batch { datagrams: datagrams as u64, place: place as u64, bytes: bytes as u64, first: self.first }
    }

    fn seen(&self, feed: &Feed, packet: Option<(Packet, &[u8])>, vpnd: Vpnd, now: Time) -> Seen {
        let inner = packet.as_ref().map_or_else(Vec::new, |(_, bytes)| feed.cut(bytes));
        Seen {
            at_ns: now.0,
            done_ns: None,
            packet: packet.map(|(packet, _)| packet),
            vpnd,
            inner,
            outer: feed.cut(&self.datagram),
        }
    }
}

impl Observer for Arriving<'_> {
    fn arrives(&mut self, place: usize, datagram: &[u8]) {
        let snap =
            self.look.feeds.iter().map(|feed| feed.wanted().snap).max().unwrap_or(0).max(INITIATION_LEN);
        self.datagram.clear();
        self.datagram.extend_from_slice(&datagram[..datagram.len().min(snap)]);
        self.datagram_bytes = datagram.len();
        if place == 0 {
            self.first = TransportHeader::parse(&self.datagram).map_or(0, |header| header.counter);
        }
    }

    fn opened(&mut self, arrival: &Arrival, place: usize, peer: &Peer, packet: &[u8], now: Time) {
        let number = self.delivered;
        self.delivered += 1;
        let (Some(facts), Ok(header)) = (Facts::of(packet), TransportHeader::parse(&self.datagram)) else {
            return;
        };
        for feed in self.look.who_wants(&facts) {
            let opened = Opened {
                peer: name(peer),
                public_key: peer.public_key.to_string(),
                prefix: prefix(self.forward, facts.source),
                session: header.receiver.0,
                counter: header.counter,
                from: arrival.from.remote,
                datagram_bytes: self.datagram_bytes as u64,
                inner_bytes: packet.len() as u64,
                batch: self.batch(arrival, place),
                merged: 1,
            };
            let seen = self.seen(feed, Some((facts.into(), packet)), Vpnd::Opened(opened), now);
            self.pending.push((number, Pending { feed: feed.clone(), seen }));
        }
    }

    fn refused(&mut self, arrival: &Arrival, why: Refusal, peer: Option<&Peer>, datagram: &[u8], now: Time) {
        let header = TransportHeader::parse(&self.datagram).ok();
        if self.datagram.len() == self.datagram_bytes && self.datagram_bytes <= INITIATION_LEN {
            self.look.handshake(&HandshakeSeen {
                now,
                sent: false,
                peer: None,
                endpoint: arrival.from,
                refused: Some(why),
                bytes: &self.datagram,
                keys: None,
            });
        }
        let facts = is_opened(why).then(|| datagram.get(HEADER..).and_then(Facts::of)).flatten();
        for feed in self.look.feeds.iter() {
            let wanted = match &facts {
                Some(facts) => feed.wants(facts),
                // Of noise nobody asked for the way of.
                None => header.is_some() && feed.wants_unreadable(),
            };
            if !wanted {
                continue;
            }
            let owner = facts.and_then(|facts| owner(self.forward, facts.source));
            let vpnd = Vpnd::Refused(Refused {
                from: Some(arrival.from.remote),
                session: header.map(|header| header.receiver.0),
                counter: header.map(|header| header.counter),
                inner: facts.map(|facts| facts.source),
                owner: owner.as_ref().map(|(peer, _)| name(peer)),
                owner_prefix: owner.as_ref().map(|(_, prefix)| prefix.to_string()),
                ..refused(why, peer)
            });
            let packet = facts
                .zip(datagram.get(HEADER..))
                .map(|(facts, bytes)| (facts.into(), &bytes[..bytes.len().min(facts.bytes as usize)]));
            feed.push(self.seen(feed, packet, vpnd, now));
        }
    }
}

/// Bytes of a transport header, which stands before the sealed packet.
const HEADER: usize = crate::wire::message::TRANSPORT_HEADER_LEN;

/// Was the packet open when it was refused for this?
fn is_opened(why: Refusal) -> bool {
    matches!(
        why,
        Refusal::Replayed | Refusal::InnerMalformed | Refusal::SourceNotAllowed | Refusal::EcnDropped
    )
}

fn refused(why: Refusal, peer: Option<&Peer>) -> Refused {
    Refused {
        reason: why.name().to_owned(),
        peer: peer.map(name),
        public_key: peer.map(|peer| peer.public_key.to_string()),
        ..Refused::default()
    }
}

fn name(peer: &Peer) -> String {
    peer.label.load().to_string()
}

/// Whose an address is, and by which prefix.
fn owner(forward: &Forward, address: IpAddr) -> Option<(Arc<Peer>, IpNet)> {
    let routes = forward.routes.load();
    let (peer, length) = routes.find(address)?;
    Some((peer.clone(), IpNet::new(address, length).ok()?.trunc()))
}

/// By which prefix; empty where the table has just changed.
fn prefix(forward: &Forward, address: IpAddr) -> String {
    owner(forward, address).map_or_else(String::new, |(_, prefix)| prefix.to_string())
}

/// What a departure that is watched says of itself.
pub(super) fn sealed(
    peer: &Peer,
    session: &Session,
    (endpoint, local): (SocketAddr, Option<IpAddr>),
    prefix: String,
    mark: u32,
) -> Sealed {
    Sealed {
        peer: name(peer),
        public_key: peer.public_key.to_string(),
        prefix,
        session: session.start().remote.0,
        counter: 0,
        segments: 1,
        inner_bytes: 0,
        datagram_bytes: 0,
        staged: false,
        local,
        endpoint,
        mark,
        batch: None,
        error: None,
    }
}
