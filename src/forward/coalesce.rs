//! Packets of one flow that came behind each other become one super-packet for the TUN, in the buffer where they
//! were opened: headers of the first, then payload behind payload. The reverse of [`super::segment`]: cutting the
//! super-packet gives the same packets again, byte for byte.
//!
//! The rule for the IPv4 identification: it counts up from packet to packet, or DF is set and it stays the same. The
//! second kind is cut again with identifications that count up; with DF set they mean nothing (RFC 6864, section 4.1).

use std::ops::Range;

use super::segment::{TCP_CHECKSUM, UDP_CHECKSUM, tcp_header_len, write_internet};
use crate::wire::{
    checksum::Sum,
    ip::{self, TCP, UDP, UDP_HEADER_LEN},
    vnet::{ChecksumPlace, Gso, VNET_HEADER_LEN, VnetHeader},
};

/// Most bytes of an IP packet.
const MAX_PACKET: usize = 65_535;
/// Most UDP datagrams in one (the kernel's UDP_MAX_SEGMENTS before Linux 6.9).
const MAX_DATAGRAMS: u32 = 64;

/// Flags that may stand on a segment that is merged: ECE, PSH, ACK; the first and the last are compared.
const MERGEABLE: u8 = 0x40 | PSH | ACK;
const PSH: u8 = 0x08;
const ACK: u8 = 0x10;

/// What the device takes in one write.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Merge {
    /// TCP super-packets.
    pub tcp: bool,
    /// UDP super-packets (from Linux 6.2 on).
    pub udp: bool,
}

/// One packet to write to the TUN, where it stands in the buffer. Its vnet header stands before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Delivery {
    /// Where the vnet header begins.
    pub start: usize,
    /// Where the packet ends.
    pub end: usize,
    /// How many packets it is made of.
    pub packets: u32,
}

/// Merges packets that are pushed in the order in which they came.
#[derive(Debug, Default)]
pub struct Coalescer {
    merge: Merge,
    run: Option<Run>,
}

/// The packets that were merged last.
#[derive(Debug)]
struct Run {
    /// Where the first packet begins, and the last payload ends.
    start: usize,
    end: usize,
    packets: u32,
    /// What the next one must fit to. `None`: nothing may follow.
    tail: Option<Tail>,
}

/// The end of a run to which more may be added.
#[derive(Clone, Copy, Debug)]
struct Tail {
    layout: Layout,
    /// Bytes of payload in each packet.
    size: usize,
    next_sequence: u32,
    /// What the last packet's identification was, and by how much it grows; not yet known after one packet.
    identification: u16,
    step: Option<u16>,
    /// Has the first packet been found to have the right checksums?
    checked: bool,
}

/// Where in a packet the layers begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Layout {
    tcp: bool,
    transport: usize,
    headers: usize,
}

impl Coalescer {
    /// What may be merged from now on; asked between batches.
    pub fn allow(&mut self, merge: Merge) {
        self.merge = merge;
    }

    /// The next packet stands at `place`, as long as its IP header claims, and has room for a vnet header before it. What
    /// comes out is the one before it, if the two are not one.
    pub fn push(&mut self, buffer: &mut [u8], place: Range<usize>) -> Option<Delivery> {
        let layout = self.layout(&buffer[place.clone()]);
        if let (Some(run), Some(layout)) = (&mut self.run, layout)
            && run.append(buffer, &place, layout)
        {
            return None;
        }
        let tail = layout.and_then(|layout| Tail::after_first(&buffer[place.clone()], layout));
        let next = Run { start: place.start, end: place.end, packets: 1, tail };
        self.run.replace(next).map(|run| run.finish(buffer))
    }

    /// The last one.
    pub fn finish(&mut self, buffer: &mut [u8]) -> Option<Delivery> {
        self.run.take().map(|run| run.finish(buffer))
    }

    /// Is the packet of a kind that is merged?
    fn layout(&self, packet: &[u8]) -> Option<Layout> {
        if self.merge == Merge::default() {
            return None;
        }
        let upper = ip::find_upper_layer(packet).filter(|upper| upper.whole)?;
        let transport = &packet[upper.at..];
        match upper.protocol {
            TCP if self.merge.tcp => {
                let headers = upper.at + tcp_header_len(transport)?;
                Some(Layout { tcp: true, transport: upper.at, headers })
            }
            UDP if self.merge.udp => {
                let claimed = u16::from_be_bytes([*transport.get(4)?, *transport.get(5)?]);
                let headers = upper.at + UDP_HEADER_LEN;
                (usize::from(claimed) == transport.len() && packet.len() >= headers).then_some(Layout {
                    tcp: false,
                    transport: upper.at,
                    headers,
                })
            }
            _ => None,
        }
    }
}

impl Tail {
    /// May others follow this packet?
    fn after_first(packet: &[u8], layout: Layout) -> Option<Self> {
        let size = packet.len() - layout.headers;
        if size == 0 || !layout.is_mergeable(packet) || layout.is_pushed(packet) {
            return None;
        }
        Some(Self {
            layout,
            size,
            next_sequence: layout.sequence(packet).wrapping_add(size as u32),
            identification: identification(packet),
            step: None,
            checked: false,
        })
    }
}

impl Run {
    /// Adds the packet if it fits.
    fn append(&mut self, buffer: &mut [u8], place: &Range<usize>, layout: Layout) -> bool {
        let Some(tail) = &mut self.tail else { return false };
        let (first, packet) = (&buffer[self.start..], &buffer[place.clone()]);
        let payload = packet.len() - layout.headers;
        let fits = layout == tail.layout
            && (1..=tail.size).contains(&payload)
            && self.end - self.start + payload <= MAX_PACKET
            && (layout.tcp || self.packets < MAX_DATAGRAMS)
            && layout.is_mergeable(packet)
            && layout.same_flow(first, packet)
            && (!layout.tcp || layout.sequence(packet) == tail.next_sequence);
        let Some(step) = step(tail, packet).filter(|_| fits) else { return false };
        // The kernel will calculate the checksum of the whole anew: what is wrong must not become right.
        if !tail.checked && !layout.checksums_are_right(&buffer[self.start..][..layout.headers + tail.size])
            || !layout.checksums_are_right(packet)
        {
            return false;
        }
        tail.checked = true;
        tail.next_sequence = tail.next_sequence.wrapping_add(payload as u32);
        (tail.identification, tail.step) = (identification(packet), Some(step));
        let pushed = layout.is_pushed(packet);
        let ends = pushed || payload < tail.size;
        buffer.copy_within(place.start + layout.headers..place.end, self.end);
        self.end += payload;
        self.packets += 1;
        if pushed {
            buffer[self.start + layout.transport + 13] |= PSH;
        }
        if ends {
            self.finish_headers(buffer);
            self.tail = None;
        }
        true
    }

    fn finish(mut self, buffer: &mut [u8]) -> Delivery {
        self.finish_headers(buffer);
        let Self { start, end, packets, tail: _ } = self;
        if packets == 1 {
            buffer[start - VNET_HEADER_LEN..start].copy_from_slice(&VnetHeader::default().to_bytes());
        }
        Delivery { start: start - VNET_HEADER_LEN, end, packets }
    }

    /// The headers of one packet become those of the super-packet.
    fn finish_headers(&mut self, buffer: &mut [u8]) {
        let (Some(Tail { layout, size, .. }), 2..) = (self.tail, self.packets) else { return };
        let len = self.end - self.start - layout.transport;
        let vnet = layout.vnet_header(buffer[self.start] >> 4 == 6, size);
        let (front, packet) = buffer.split_at_mut(self.start);
        front[self.start - VNET_HEADER_LEN..].copy_from_slice(&vnet.to_bytes());
        let header = ip::parse(&packet[..layout.headers + size]).expect("its first packet was read before");
        let protocol = if layout.tcp { TCP } else { UDP };
        let sum = Sum::pseudo_header(header.source, header.destination, protocol) + Sum::word(len as u16);
        let (internet, transport) = packet.split_at_mut(layout.transport);
        write_internet(internet, len, 0);
        if !layout.tcp {
            transport[4..6].copy_from_slice(&(len as u16).to_be_bytes());
        }
        let field = layout.checksum();
        transport[field..field + 2].copy_from_slice(&sum.partial());
    }
}

impl Layout {
    fn checksum(self) -> usize {
        if self.tcp { TCP_CHECKSUM } else { UDP_CHECKSUM }
    }

    fn vnet_header(self, v6: bool, size: usize) -> VnetHeader {
        let gso = match (self.tcp, v6) {
            (true, false) => Gso::TcpV4,
            (true, true) => Gso::TcpV6,
            (false, _) => Gso::Udp,
        };
        let place = ChecksumPlace { start: self.transport as u16, offset: self.checksum() as u16 };
        let (headers_len, gso_size) = (self.headers as u16, size as u16);
        VnetHeader { checksum: Some(place), gso, ecn: false, headers_len, gso_size }
    }

    fn sequence(self, packet: &[u8]) -> u32 {
        let at = self.transport + 4;
        u32::from_be_bytes([packet[at], packet[at + 1], packet[at + 2], packet[at + 3]])
    }

    fn is_pushed(self, packet: &[u8]) -> bool {
        self.tcp && packet[self.transport + 13] & PSH != 0
    }

    /// TCP: data with nothing but ACK, and PSH or ECE. UDP: with a checksum, since all get one that are cut again.
    fn is_mergeable(self, packet: &[u8]) -> bool {
        if !self.tcp {
            let field = self.transport + UDP_CHECKSUM;
            return packet[field..field + 2] != [0; 2];
        }
        // Of the two zeros that a sum has, this one is right, too, and would come back as the other.
        if packet[self.transport + TCP_CHECKSUM..][..2] == [0xff; 2] {
            return false;
        }
        let flags = packet[self.transport + 13];
        flags & ACK != 0 && flags & !MERGEABLE == 0
    }

    /// Are the headers equal but for what differs from packet to packet? Both are laid out alike.
    fn same_flow(self, a: &[u8], b: &[u8]) -> bool {
        let alike = |range: Range<usize>| a[range.clone()] == b[range];
        // Length; in IPv4 identification and checksum, too.
        let internet = if a[0] >> 4 == 6 {
            alike(0..4) && alike(6..self.transport)
        } else {
            alike(0..2) && alike(6..10) && alike(12..self.transport)
        };
        let transport = self.transport;
        if !self.tcp {
            return internet && alike(transport..transport + 4);
        }
        // Ports; acknowledgement, length; window; urgent pointer, options.
        internet
            && alike(transport..transport + 4)
            && alike(transport + 8..transport + 13)
            && a[transport + 13] & !PSH == b[transport + 13] & !PSH
            && alike(transport + 14..transport + 16)
            && alike(transport + 18..self.headers)
    }

    fn checksums_are_right(self, packet: &[u8]) -> bool {
        let Ok(header) = ip::parse(packet) else { return false };
        let internet = &packet[..self.transport];
        // The other zero, as above.
        if header.source.is_ipv4() && (!Sum::of(internet).is_right() || internet[10..12] == [0xff; 2]) {
            return false;
        }
        let protocol = if self.tcp { TCP } else { UDP };
        let upper = &packet[self.transport..];
        let pseudo_header = Sum::pseudo_header(header.source, header.destination, protocol);
        (pseudo_header + Sum::word(upper.len() as u16) + Sum::of(upper)).is_right()
    }
}

/// Of IPv4; of IPv6 always zero.
fn identification(packet: &[u8]) -> u16 {
    if packet[0] >> 4 == 6 { 0 } else { u16::from_be_bytes([packet[4], packet[5]]) }
}

/// By how much the identification has grown, if that is as it should be.
fn step(tail: &Tail, packet: &[u8]) -> Option<u16> {
    const DONT_FRAGMENT: u8 = 0x40;
    let grown = identification(packet).wrapping_sub(tail.identification);
    if packet[0] >> 4 == 6 {
        return Some(grown);
    }
    let possible = grown == 1 || grown == 0 && packet[6] & DONT_FRAGMENT != 0;
    (possible && tail.step.is_none_or(|step| step == grown)).then_some(grown)
}

#[cfg(test)]
mod tests;
