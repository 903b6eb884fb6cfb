//! From the TUN to the wire: destination → peer → session → seal, in place.

use std::{net::IpAddr, sync::Arc};

use super::{
    Endpoint, Evidence, Forward, Peer, Raised, Refusal, Session, Time, padding::padded_len, peer::Reserved,
};
use crate::wire::{
    icmp, ip,
    message::{TAG_LEN, TRANSPORT_HEADER_LEN, TransportHeader},
    outer::Outer,
};

/// Largest packet that a TUN hands out.
const MAX_PACKET: usize = 65_535;
/// Padding adds less than this.
const MAX_PADDING: usize = 16;
/// Where a page begins: copies to and from the kernel are fast there.
const PAGE: usize = 4096;

/// A buffer with room before and behind the packet, so that it is sealed where the TUN read put it.
pub struct PacketBuffer {
    bytes: Box<[u8]>,
    /// Where the transport header stands: at the start of a page. The packet follows it.
    start: usize,
}

impl PacketBuffer {
    /// For packets of up to 65,535 bytes.
    pub fn new() -> Self {
        let room = TRANSPORT_HEADER_LEN + MAX_PACKET + MAX_PADDING + TAG_LEN;
        let bytes = vec![0; PAGE + room].into_boxed_slice();
        // Where an offset cannot be told, any other is as right, only slower.
        let start = bytes.as_ptr().align_offset(PAGE).min(PAGE);
        Self { bytes, start }
    }
    /// Where the TUN read writes a packet.
    pub fn space(&mut self) -> &mut [u8] {
        &mut self.bytes[self.start + TRANSPORT_HEADER_LEN..][..MAX_PACKET]
    }
    /// The `len` bytes that were read.
    fn packet(&self, len: usize) -> &[u8] {
        &self.bytes[self.start + TRANSPORT_HEADER_LEN..][..len.min(MAX_PACKET)]
    }
    /// Header, packet of `len` bytes padded to `padded`, tag. The padding is zero, whatever an earlier packet
    /// left there.
    fn datagram(&mut self, len: usize, padded: usize) -> &mut [u8] {
        let datagram = &mut self.bytes[self.start..][..TRANSPORT_HEADER_LEN + padded + TAG_LEN];
        datagram[TRANSPORT_HEADER_LEN + len..TRANSPORT_HEADER_LEN + padded].fill(0);
        datagram
    }
}

impl Default for PacketBuffer {
    fn default() -> Self {
        Self::new()
    }
}

/// What became of a packet from the TUN.
#[derive(Debug)]
pub enum Outbound<'a> {
    /// Send this datagram there, with such an outer header.
    Send {
        /// For `forget_local` and counting.
        peer: Arc<Peer>,
        /// Where to.
        to: Endpoint,
        /// The transport message.
        datagram: &'a [u8],
        /// What the packet inside wants of its header.
        outer: Outer,
    },
    /// It waits for a session; the upper half was asked for one.
    Staged,
    /// It was refused (counted), and the sender should hear why by ICMP.
    Unreachable(icmp::Unreachable),
    /// It was refused (counted), silently.
    Refused,
}

/// Whose a packet is.
struct Routed {
    peer: Arc<Peer>,
    to: Endpoint,
    outer: Outer,
    /// The length that its header claims.
    len: usize,
}

impl Forward {
    /// Takes the `len` bytes that the TUN read left in `buffer`. `mtu` bounds the padding.
    pub fn outbound<'a>(
        &self,
        buffer: &'a mut PacketBuffer,
        len: usize,
        mtu: usize,
        now: Time,
    ) -> Outbound<'a> {
        let Routed { peer, to, outer, len } = match self.route(buffer.packet(len), now) {
            Ok(routed) => routed,
            Err(refused) => return refused,
        };
        let Some(reserved) = self.reserve(&peer, buffer.packet(len), mtu, now) else {
            return Outbound::Staged;
        };
        let datagram = buffer.datagram(len, padded_len(len, mtu));
        reserved.session().seal_in_place(reserved.counter, datagram);
        self.data_sent(&peer, reserved.session(), 1, datagram.len() as u64, now);
        Outbound::Send { peer, to, datagram, outer }
    }

    /// Whose is it, and where is that peer?
    fn route(&self, packet: &[u8], now: Time) -> Result<Routed, Outbound<'static>> {
        let Ok(header) = ip::parse(packet) else {
            self.refusals.count(Refusal::OutboundMalformed, Evidence { at: now, ..Evidence::default() });
            return Err(Outbound::Refused);
        };
        let inner = Some(header.destination);
        let routes = self.routes.load();
        let Some((peer, _)) = routes.find(header.destination) else {
            let evidence = Evidence { at: now, inner, ..Evidence::default() };
            if is_link_scope(header.destination) {
                self.refusals.count(Refusal::LinkScope, evidence);
                return Err(Outbound::Refused);
            }
            self.refusals.count(Refusal::NoPeer, evidence);
            return Err(Outbound::Unreachable(icmp::Unreachable::NoPeer));
        };
        let Some(to) = peer.endpoint() else {
            self.refusals.count(Refusal::NoEndpoint, Evidence { at: now, inner, ..Evidence::about(peer) });
            return Err(Outbound::Unreachable(icmp::Unreachable::NoEndpoint));
        };
        if is_own_datagram(packet, &header, peer, &to) {
            self.refusals.count(Refusal::RoutingLoop, Evidence { at: now, inner, ..Evidence::about(peer) });
            return Err(Outbound::Refused);
        }
        let Ok(outer) = Outer::of(packet, &header) else {
            self.refusals.count(Refusal::NestedTooDeep, Evidence { at: now, inner, ..Evidence::about(peer) });
            return Err(Outbound::Refused);
        };
        Ok(Routed { peer: peer.clone(), to, outer, len: header.total_len })
    }

    /// A counter of the peer's session, or the packet is staged and a session wished for.
    fn reserve(&self, peer: &Arc<Peer>, packet: &[u8], mtu: usize, now: Time) -> Option<Reserved> {
        let found = peer.reserve(1, now);
        if found.is_some() {
            return found;
        }
        match peer.reserve_or_stage(packet, mtu, &self.staging, now) {
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
