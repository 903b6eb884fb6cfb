//! What the TUN hands out becomes the packets that go over the wire: a super-packet is cut into segments, an
//! unfinished checksum is finished. Each packet is built straight in its final place; payloads are copied and
//! summed in one pass.
//!
//! The same packets as the kernel would have made (`tcp_gso_segment`, `__udp_gso_segment`, `inet_gso_segment`): the
//! sequence number goes on, FIN and PSH stand on the last segment alone, CWR on the first alone, the IPv4
//! identification counts up.

use crate::wire::{
    checksum::Sum,
    ip::{self, TCP, TCP_HEADER_LEN, UDP, UDP_HEADER_LEN, UpperLayer},
    vnet::{ChecksumPlace, Gso, VnetHeader},
};

const FIN: u8 = 0x01;
const PSH: u8 = 0x08;
const CWR: u8 = 0x80;

/// Where a TCP header has its checksum.
pub(super) const TCP_CHECKSUM: usize = 16;
/// Where a UDP header has its checksum.
pub(super) const UDP_CHECKSUM: usize = 6;

/// The vnet header contradicts its packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Lie {
    /// The checksum's place lies outside of the packet.
    #[error("the checksum lies outside of the packet")]
    ChecksumOutside,
    /// The place is not where the transport header has its checksum.
    #[error("the checksum is not where its protocol has it")]
    ChecksumElsewhere,
    /// A super-packet whose IP header claims another length.
    #[error("the IP header claims another length")]
    Length,
    /// Segments of no bytes.
    #[error("segments of no bytes")]
    NoSize,
    /// Another protocol or IP version than the kind of segmentation is for, a fragment, or headers that do not fit.
    #[error("the headers are not those of its kind of segmentation")]
    Headers,
}

/// How one packet from the TUN becomes packets for the wire.
#[derive(Clone, Copy, Debug)]
pub struct Segmentation {
    /// Bytes of the packet.
    len: usize,
    work: Work,
}

#[derive(Clone, Copy, Debug)]
enum Work {
    /// It is what goes over the wire.
    Whole,
    /// But for its checksum.
    Checksum { start: usize, field: usize },
    /// It is cut.
    Cut(Cut),
}

#[derive(Clone, Copy, Debug)]
struct Cut {
    tcp: bool,
    /// Where the transport header begins, and where the payload does.
    transport: usize,
    headers: usize,
    /// Bytes of payload in each segment but the last.
    size: usize,
    /// The pseudo-header's without its length.
    pseudo_header: Sum,
}

impl Segmentation {
    /// `packet` is what stands behind the vnet header, and `header` what [`ip::parse`] read in it.
    pub fn new(vnet: &VnetHeader, packet: &[u8], header: &ip::Header) -> Result<Self, Lie> {
        if vnet.gso != Gso::None {
            return Ok(Self { len: packet.len(), work: Work::Cut(Cut::new(vnet, packet, header)?) });
        }
        // What stands behind the length that the header claims is no part of the packet.
        let len = header.total_len;
        let Some(place) = vnet.checksum else { return Ok(Self { len, work: Work::Whole }) };
        let start = usize::from(place.start);
        let field = start + usize::from(place.offset);
        if field + 2 > len {
            return Err(Lie::ChecksumOutside);
        }
        Ok(Self { len, work: Work::Checksum { start, field } })
    }

    /// How many packets it becomes; at least one.
    pub fn count(&self) -> usize {
        match &self.work {
            Work::Cut(cut) => (self.len - cut.headers).div_ceil(cut.size).max(1),
            Work::Whole | Work::Checksum { .. } => 1,
        }
    }

    /// Bytes of the packet number `at`; all but the last are equally long.
    pub fn segment_len(&self, at: usize) -> usize {
        match &self.work {
            Work::Cut(cut) => self.len.min(cut.headers + (at + 1) * cut.size) - at * cut.size,
            Work::Whole | Work::Checksum { .. } => self.len,
        }
    }

    /// Builds packet number `at` of `packet`, from which this was made, in `to`, which has
    /// [`Self::segment_len`] bytes.
    pub fn write(&self, packet: &[u8], at: usize, to: &mut [u8]) {
        let packet = &packet[..self.len];
        match &self.work {
            Work::Whole => to.copy_from_slice(packet),
            Work::Checksum { start, field } => finish_checksum(packet, *start, *field, to),
            Work::Cut(cut) => cut.write(packet, at, at + 1 == self.count(), to),
        }
    }
}

/// As the kernel's `skb_checksum_help`: what the field held is the sum of the pseudo-header.
fn finish_checksum(packet: &[u8], start: usize, field: usize, to: &mut [u8]) {
    let (before, summed) = to.split_at_mut(start);
    before.copy_from_slice(&packet[..start]);
    let checksum = Sum::of_copied(&packet[start..], summed).finish();
    // In UDP, zero means that there is none; of the two zeros that a sum has, the other one is written.
    let checksum = if checksum == [0; 2] { [0xff; 2] } else { checksum };
    to[field..field + 2].copy_from_slice(&checksum);
}

impl Cut {
    fn new(vnet: &VnetHeader, packet: &[u8], header: &ip::Header) -> Result<Self, Lie> {
        if header.total_len != packet.len() {
            return Err(Lie::Length);
        }
        if vnet.gso_size == 0 {
            return Err(Lie::NoSize);
        }
        let upper = ip::find_upper_layer(packet).filter(|upper| upper.whole).ok_or(Lie::Headers)?;
        let headers = upper.at + transport_len(vnet.gso, packet, upper).ok_or(Lie::Headers)?;
        let tcp = upper.protocol == TCP;
        let right = ChecksumPlace {
            start: upper.at as u16,
            offset: if tcp { TCP_CHECKSUM } else { UDP_CHECKSUM } as u16,
        };
        let pseudo_header = match vnet.checksum {
            None => Sum::pseudo_header(header.source, header.destination, upper.protocol),
            Some(place) if place != right => return Err(Lie::ChecksumElsewhere),
            Some(_) => partial_sum(&packet[upper.at..], right.offset.into()),
        };
        let size = vnet.gso_size.into();
        Ok(Self { tcp, transport: upper.at, headers, size, pseudo_header })
    }

    fn write(&self, packet: &[u8], at: usize, last: bool, to: &mut [u8]) {
        let payload = self.headers + at * self.size;
        let (headers, place) = to.split_at_mut(self.headers);
        headers.copy_from_slice(&packet[..self.headers]);
        let end = payload + place.len();
        let payload_sum = Sum::of_copied(&packet[payload..end], place);
        let (internet, transport) = headers.split_at_mut(self.transport);
        let transport_len = transport.len() + place.len();
        write_internet(internet, transport_len, at as u16);
        let field = if self.tcp {
            write_tcp(transport, at, self.size, last);
            TCP_CHECKSUM
        } else {
            transport[4..6].copy_from_slice(&(transport_len as u16).to_be_bytes());
            UDP_CHECKSUM
        };
        transport[field..field + 2].fill(0);
        let sum = self.pseudo_header + Sum::word(transport_len as u16) + Sum::of(transport) + payload_sum;
        let checksum = match sum.finish() {
            [0, 0] if !self.tcp => [0xff; 2],
            checksum => checksum,
        };
        transport[field..field + 2].copy_from_slice(&checksum);
    }
}

/// What the field holds of the pseudo-header, less the length of the whole. With a routing header these are not the
/// addresses of the IP header (RFC 8200, section 8.1), and only who sent it knows them.
fn partial_sum(transport: &[u8], field: usize) -> Sum {
    Sum::of(&transport[field..field + 2]) + Sum::word(!(transport.len() as u16))
}

/// Bytes of the transport header, if it is of the kind that is to be cut, and all there.
fn transport_len(gso: Gso, packet: &[u8], upper: UpperLayer) -> Option<usize> {
    let transport = packet.get(upper.at..)?;
    let v6 = packet[0] >> 4 == 6;
    match (gso, upper.protocol) {
        (Gso::TcpV4, TCP) if !v6 => tcp_header_len(transport),
        (Gso::TcpV6, TCP) if v6 => tcp_header_len(transport),
        (Gso::Udp, UDP) => (transport.len() >= UDP_HEADER_LEN).then_some(UDP_HEADER_LEN),
        _ => None,
    }
}

/// Bytes of a TCP header with its options, if they are all there.
pub(super) fn tcp_header_len(transport: &[u8]) -> Option<usize> {
    let len = usize::from(transport.get(12)? >> 4) * 4;
    (TCP_HEADER_LEN..=transport.len()).contains(&len).then_some(len)
}

/// Lengths, identification and checksum of an IP header with its options or extensions, before `len` bytes.
/// `count` is added to the IPv4 identification.
pub(super) fn write_internet(internet: &mut [u8], len: usize, count: u16) {
    let total = internet.len() + len;
    if internet[0] >> 4 == 6 {
        internet[4..6].copy_from_slice(&((total - ip::V6_HEADER_LEN) as u16).to_be_bytes());
        return;
    }
    let identification = u16::from_be_bytes([internet[4], internet[5]]).wrapping_add(count);
    internet[2..4].copy_from_slice(&(total as u16).to_be_bytes());
    internet[4..6].copy_from_slice(&identification.to_be_bytes());
    ip::write_v4_checksum(internet);
}

fn write_tcp(header: &mut [u8], at: usize, size: usize, last: bool) {
    let sequence = u32::from_be_bytes([header[4], header[5], header[6], header[7]]);
    let sequence = sequence.wrapping_add((at * size) as u32);
    header[4..8].copy_from_slice(&sequence.to_be_bytes());
    if at > 0 {
        header[13] &= !CWR;
    }
    if !last {
        header[13] &= !(FIN | PSH);
    }
}

#[cfg(test)]
mod tests;
