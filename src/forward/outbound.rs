//! From the TUN to the wire: destination → peer → session → seal, in place.

use std::{fmt, net::IpAddr, ops::Range, sync::Arc};

use super::{
    Carriers, Endpoint, Evidence, Forward, Intake, Peer, Raised, Refusal, Session, Time, carrier::Way,
    padding::padded_len, peer::Reserved, segment::Segmentation, tap,
};
use crate::{
    trace::Sealed,
    wire::{
        icmp, ip,
        message::{TAG_LEN, TRANSPORT_HEADER_LEN, TransportHeader},
        mss::Checksum,
        outer::Outer,
        vnet::{VNET_HEADER_LEN, VnetHeader},
    },
};

/// What became of a packet from the TUN.
#[derive(Debug)]
pub enum Outbound {
    /// It has counters of its peer's session: seal it, in its turn.
    Depart(Departure),
    /// It waits for a session; the upper half was asked for one.
    Staged,
    /// It was refused (counted), and the sender should hear why by ICMP.
    Unreachable(icmp::Unreachable),
    /// It was refused (counted), silently.
    Refused(Refusal),
}

/// A packet, or a super-packet, that is ready to be sealed. The counters are taken, so it must be.
pub struct Departure {
    way: Way,
    session: Arc<Session>,
    /// Of the first segment.
    counter: u64,
    /// Where it stands in the intake.
    place: Range<usize>,
    segmentation: Segmentation,
    /// How many segments have been sealed, and how many there are.
    sealed: usize,
    segments: usize,
    /// Padded lengths of all segments but the last, and of the last.
    padded: [usize; 2],
    at: Time,
}

impl fmt::Debug for Departure {
    /// Whose it is, and how much.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Departure").field("way", &self.way).field("segments", &self.segments).finish()
    }
}

impl Departure {
    /// Where it stands in the intake.
    pub(super) fn place(&self) -> &Range<usize> {
        &self.place
    }

    /// When its batch began.
    pub(super) fn at(&self) -> Time {
        self.at
    }

    /// What is known of it before it leaves.
    pub(super) fn sealed_as(&self, prefix: String, mark: u32) -> Sealed {
        let Way { peer, to, .. } = &self.way;
        let way = (to.remote, to.local.map(|local| local.address));
        Sealed {
            counter: self.counter,
            segments: self.segments as u64,
            inner_bytes: self.place.len() as u64,
            ..tap::sealed(peer, &self.session, way, prefix, mark)
        }
    }
}

/// Whose a packet is.
struct Routed {
    way: Way,
    segmentation: Segmentation,
}

/// It was refused (counted).
enum NoWay {
    Refused(Refusal),
    Unreachable(icmp::Unreachable),
}

impl From<NoWay> for Outbound {
    fn from(no_way: NoWay) -> Self {
        match no_way {
            NoWay::Refused(why) => Self::Refused(why),
            NoWay::Unreachable(why) => Self::Unreachable(why),
        }
    }
}

impl Forward {
    /// Takes the `len` bytes that the TUN read left in the intake: vnet header and packet. A packet of `len` bytes is
    /// padded to no more than `bound(len)`.
    pub fn outbound(
        &self,
        intake: &mut Intake,
        len: usize,
        bound: impl Fn(usize) -> usize,
        now: Time,
    ) -> Outbound {
        let Some((vnet, packet)) = intake.frame(len).split_first_chunk::<VNET_HEADER_LEN>() else {
            return self.malformed(now).into();
        };
        let Routed { way, segmentation } = match self.route(vnet, packet, now) {
            Ok(routed) => routed,
            Err(no_way) => return no_way.into(),
        };
        let segments = segmentation.count();
        // A SYN is never one of several.
        if segments == 1 {
            let unfinished = VnetHeader::parse(vnet).is_ok_and(|vnet| vnet.checksum.is_some());
            let checksum = if unfinished { Checksum::Unfinished } else { Checksum::Whole };
            self.mss.apply(intake.packet_of_frame(len), checksum);
        }
        let packet = intake.packet_of_frame(len);
        let Some(Reserved { session, counter }) = self.reserve(&way.peer, &segmentation, packet, &bound, now)
        else {
            return Outbound::Staged;
        };
        let padded = [0, segments - 1].map(|at| {
            let len = segmentation.segment_len(at);
            padded_len(len, bound(len))
        });
        let place = intake.keep(len);
        Outbound::Depart(Departure {
            way,
            session,
            counter,
            place,
            segmentation,
            sealed: 0,
            segments,
            padded,
            at: now,
        })
    }

    /// Seals what fits; true when all of it is sealed, false when the carriers must leave first.
    pub fn seal(&self, departure: &mut Departure, intake: &Intake, carriers: &mut Carriers) -> bool {
        let packet = intake.packet(&departure.place);
        let (before, mut bytes) = (departure.sealed, 0);
        while departure.sealed < departure.segments {
            let at = departure.sealed;
            let padded = departure.padded[usize::from(at + 1 == departure.segments)];
            let datagram_len = TRANSPORT_HEADER_LEN + padded + TAG_LEN;
            let Some(datagram) = carriers.next(&departure.way, datagram_len) else { break };
            let (plain, padding) = datagram[TRANSPORT_HEADER_LEN..TRANSPORT_HEADER_LEN + padded]
                .split_at_mut(departure.segmentation.segment_len(at));
            departure.segmentation.write(packet, at, plain);
            // Whatever an earlier packet left there.
            padding.fill(0);
            departure.session.seal_in_place(departure.counter + at as u64, datagram);
            departure.sealed += 1;
            bytes += datagram_len as u64;
        }
        let packets = (departure.sealed - before) as u64;
        if packets > 0 {
            self.data_sent(&departure.way.peer, &departure.session, packets, bytes, departure.at);
        }
        departure.sealed == departure.segments
    }

    fn malformed(&self, now: Time) -> NoWay {
        self.refusals.count(Refusal::OutboundMalformed, Evidence { at: now, ..Evidence::default() });
        NoWay::Refused(Refusal::OutboundMalformed)
    }

    /// Whose is it, and where is that peer?
    fn route(&self, vnet: &[u8; VNET_HEADER_LEN], packet: &[u8], now: Time) -> Result<Routed, NoWay> {
        let Ok(header) = ip::parse(packet) else { return Err(self.malformed(now)) };
        let vnet = VnetHeader::parse(vnet).ok();
        let Some(segmentation) = vnet.and_then(|vnet| Segmentation::new(&vnet, packet, &header).ok()) else {
            let evidence = Evidence { at: now, inner: Some(header.destination), ..Evidence::default() };
            self.refusals.count(Refusal::VnetHeader, evidence);
            return Err(NoWay::Refused(Refusal::VnetHeader));
        };
        let inner = Some(header.destination);
        // Each packet of a super-packet is one, and all but one have no more to tell.
        let refuse = |why, evidence| {
            self.refusals.add(why, segmentation.count() as u64 - 1);
            self.refusals.count(why, evidence);
        };
        let routes = self.routes.load();
        let Some((peer, _)) = routes.find(header.destination) else {
            let evidence = Evidence { at: now, inner, ..Evidence::default() };
            if is_link_scope(header.destination) {
                refuse(Refusal::LinkScope, evidence);
                return Err(NoWay::Refused(Refusal::LinkScope));
            }
            refuse(Refusal::NoPeer, evidence);
            return Err(NoWay::Unreachable(icmp::Unreachable::NoPeer));
        };
        let Some(to) = peer.endpoint() else {
            refuse(Refusal::NoEndpoint, Evidence { at: now, inner, ..Evidence::about(peer) });
            return Err(NoWay::Unreachable(icmp::Unreachable::NoEndpoint));
        };
        if is_own_datagram(packet, &header, peer, &to) {
            refuse(Refusal::RoutingLoop, Evidence { at: now, inner, ..Evidence::about(peer) });
            return Err(NoWay::Refused(Refusal::RoutingLoop));
        }
        let Ok(outer) = Outer::of(packet, &header) else {
            refuse(Refusal::NestedTooDeep, Evidence { at: now, inner, ..Evidence::about(peer) });
            return Err(NoWay::Refused(Refusal::NestedTooDeep));
        };
        Ok(Routed { way: Way { peer: peer.clone(), to, outer }, segmentation })
    }

    /// Counters of the peer's session, or the packet is staged in its segments and a session wished for.
    fn reserve(
        &self,
        peer: &Arc<Peer>,
        segmentation: &Segmentation,
        packet: &[u8],
        bound: impl Fn(usize) -> usize,
        now: Time,
    ) -> Option<Reserved> {
        let segments = segmentation.count();
        let found = peer.reserve(segments as u64, now);
        if found.is_some() {
            return found;
        }
        let waiting = (0..segments).map(|at| {
            let mut segment = vec![0; segmentation.segment_len(at)];
            segmentation.write(packet, at, &mut segment);
            let bound = bound(segment.len());
            (segment, bound)
        });
        match peer.reserve_or_stage(segments as u64, waiting, &self.staging, now) {
            Ok(reserved) => Some(reserved),
            Err(staging) => {
                if staging.lost > 0 {
                    // All but one without evidence: there is nothing more to tell of them.
                    self.refusals.add(Refusal::StagedOverflow, staging.lost - 1);
                    self.refusals
                        .count(Refusal::StagedOverflow, Evidence { at: now, ..Evidence::about(peer) });
                }
                self.wish_session(peer, staging.alone, now);
                None
            }
        }
    }

    /// `packets` were sealed into `bytes` of UDP payload: tells the timers, and asks for a new session in time.
    fn data_sent(&self, peer: &Arc<Peer>, session: &Session, packets: u64, bytes: u64, now: Time) {
        if peer.activity.data_sent(packets, bytes, now) {
            self.raise(peer, Raised::TIMER);
        }
        if session.wants_rekey(now) {
            self.wish_session(peer, false, now);
        }
    }

    /// Asks the upper half for a session: at once for the first packet that needs it, else now and then.
    fn wish_session(&self, peer: &Arc<Peer>, first: bool, now: Time) {
        if first || peer.may_wish(now) {
            peer.wish(now);
            self.raise(peer, Raised::WANTS_SESSION);
        }
    }
}

/// Is it a datagram that we sealed for this very peer? Then the way to its endpoint leads into its own tunnel,
/// and would wrap it again each time it comes round. Another's tunnel to the same endpoint has another index.
fn is_own_datagram(packet: &[u8], header: &ip::Header, peer: &Peer, to: &Endpoint) -> bool {
    if header.destination != to.remote.ip() {
        return false;
    }
    let Some((ip::UDP, udp)) = ip::upper_layer(packet) else { return false };
    let Some((ports, sealed)) = udp.split_first_chunk::<{ ip::UDP_HEADER_LEN }>() else { return false };
    let index = TransportHeader::parse(sealed).map(|header| header.receiver);
    let port = u16::from_be_bytes([ports[2], ports[3]]);
    port == to.remote.port() && peer.current().is_some_and(|session| Ok(session.start().remote) == index)
}

/// Is it for all, or for a group, on the link itself? Router solicitations, MLD, IGMP and mDNS go into every
/// device; a tunnel has no link that would carry them.
fn is_link_scope(destination: IpAddr) -> bool {
    match destination {
        IpAddr::V4(v4) => v4.is_broadcast() || matches!(v4.octets(), [224, 0, 0, _]),
        // The scope is the low half of the second byte (RFC 4291, section 2.7): interface or link.
        IpAddr::V6(v6) => {
            matches!(v6.octets(), [0xff, flags_and_scope, ..] if matches!(flags_and_scope & 0xf, 1 | 2))
        }
    }
}
