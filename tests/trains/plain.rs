//! One packet, field by field, and the bytes that it has by the RFCs: as simple and as slow as possible. It shares
//! no line with what it is there to judge.

/// Protocol number of TCP.
pub const TCP: u8 = 6;
/// Protocol number of UDP.
pub const UDP: u8 = 17;

pub const FIN: u8 = 0x01;
pub const SYN: u8 = 0x02;
pub const RST: u8 = 0x04;
pub const PSH: u8 = 0x08;
pub const ACK: u8 = 0x10;
pub const URG: u8 = 0x20;
pub const ECE: u8 = 0x40;
pub const CWR: u8 = 0x80;

/// In the third word of an IPv4 header.
pub const DONT_FRAGMENT: u16 = 0x4000;
pub const MORE_FRAGMENTS: u16 = 0x2000;

/// Next headers of IPv6.
pub const HOP_BY_HOP: u8 = 0;
pub const ROUTING: u8 = 43;
pub const FRAGMENT: u8 = 44;
pub const AUTHENTICATION: u8 = 51;
pub const DESTINATION_OPTIONS: u8 = 60;

/// A TCP or UDP packet. What the other protocol or version has is ignored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plain {
    pub v6: bool,
    /// Of an IPv4 address the first four.
    pub source: [u8; 16],
    pub destination: [u8; 16],
    /// Where a routing header leads in the end: the pseudo-header has this (RFC 8200, section 8.1).
    pub final_destination: Option<[u8; 16]>,
    pub tos: u8,
    pub hops: u8,
    pub label: u32,
    pub identification: u16,
    /// Flags and offset of IPv4.
    pub fragment: u16,
    /// Of IPv4, in words of four.
    pub options: Vec<u8>,
    /// Of IPv6: kinds, and what stands behind the next header; whole, as it stands in the packet.
    pub extensions: Vec<(u8, Vec<u8>)>,
    pub protocol: u8,
    pub ports: [u16; 2],
    pub sequence: u32,
    pub acknowledgement: u32,
    /// The four bits beside the length of the header.
    pub reserved: u8,
    pub flags: u8,
    pub window: u16,
    pub urgent: u16,
    pub tcp_options: Vec<u8>,
    pub payload: Vec<u8>,
}

/// From 10.0.1.1 or fd00:1::1 to 10.0.2.1 or fd00:2::1, with a payload of this length.
pub fn packet(v6: bool, protocol: u8, payload: usize) -> Plain {
    let address = |network: u8| match v6 {
        true => [0xfd, 0, 0, network, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1],
        false => [10, 0, network, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
    };
    Plain {
        v6,
        source: address(1),
        destination: address(2),
        final_destination: None,
        tos: 0,
        hops: 64,
        label: 0x1_2345,
        identification: 0x0abc,
        fragment: DONT_FRAGMENT,
        options: Vec::new(),
        extensions: Vec::new(),
        protocol,
        ports: [40_000, 443],
        sequence: 1_000_000,
        acknowledgement: 2_000_000,
        reserved: 0,
        flags: ACK,
        window: 502,
        urgent: 0,
        tcp_options: Vec::new(),
        payload: (0..payload).map(|n| (n * 7 + n / 251) as u8).collect(),
    }
}

impl Plain {
    /// As it goes over the wire.
    pub fn bytes(&self) -> Vec<u8> {
        let mut packet = self.unfinished();
        let field = self.checksum_at();
        packet[field..field + 2].fill(0);
        let mut summed = self.pseudo_header(packet.len() - self.transport());
        summed.extend(&packet[self.transport()..]);
        let mut checksum = !sum(&summed);
        if checksum == 0 && self.protocol == UDP {
            checksum = 0xffff;
        }
        packet[field..field + 2].copy_from_slice(&checksum.to_be_bytes());
        packet
    }

    /// As the kernel hands it to a device that finishes checksums: the field holds the sum of the pseudo-header.
    pub fn unfinished(&self) -> Vec<u8> {
        let mut transport = self.transport_header();
        transport.extend(&self.payload);
        let len = transport.len();
        let mut packet = self.internet_header(len);
        packet.extend(transport);
        let field = self.checksum_at();
        let partial = sum(&self.pseudo_header(len));
        packet[field..field + 2].copy_from_slice(&partial.to_be_bytes());
        packet
    }

    /// The vnet header that says how to cut it; `size` 0: not at all, only the checksum is missing.
    pub fn vnet(&self, size: usize) -> [u8; 10] {
        let kind = match (size, self.protocol, self.v6) {
            (0, ..) => 0,
            (_, TCP, false) => 1,
            (_, TCP, true) => 4,
            _ => 5,
        };
        let mut vnet = [0; 10];
        vnet[..2].copy_from_slice(&[1, kind]);
        let offset = self.checksum_at() - self.transport();
        for (at, number) in [(2, self.headers()), (4, size), (6, self.transport()), (8, offset)] {
            vnet[at..at + 2].copy_from_slice(&(number as u16).to_ne_bytes());
        }
        vnet
    }

    /// The packets that become of it where each but the last has `size` bytes of payload. (RFC 3168, section 6.1.2:
    /// CWR on the first; RFC 9293: FIN and PSH with the last byte.)
    pub fn cut(&self, size: usize) -> Vec<Plain> {
        let payloads: Vec<&[u8]> = match self.payload.is_empty() {
            true => vec![&[]],
            false => self.payload.chunks(size).collect(),
        };
        let last = payloads.len() - 1;
        let piece = |(at, payload): (usize, &&[u8])| Plain {
            identification: self.identification.wrapping_add(at as u16),
            sequence: self.sequence.wrapping_add((at * size) as u32),
            flags: self.flags
                & if at == 0 { 0xff } else { !CWR }
                & if at == last { 0xff } else { !(FIN | PSH) },
            payload: payload.to_vec(),
            ..self.clone()
        };
        payloads.iter().enumerate().map(piece).collect()
    }

    /// Where the transport header begins.
    pub fn transport(&self) -> usize {
        match self.v6 {
            true => 40 + self.extensions.iter().map(|(_, body)| body.len()).sum::<usize>(),
            false => 20 + self.options.len(),
        }
    }

    /// Bytes before the payload.
    pub fn headers(&self) -> usize {
        self.transport() + if self.protocol == TCP { 20 + self.tcp_options.len() } else { 8 }
    }

    /// Where its checksum stands.
    pub fn checksum_at(&self) -> usize {
        self.transport() + if self.protocol == TCP { 16 } else { 6 }
    }

    fn transport_header(&self) -> Vec<u8> {
        let mut header: Vec<u8> = self.ports.iter().flat_map(|port| port.to_be_bytes()).collect();
        if self.protocol != TCP {
            header.extend(((8 + self.payload.len()) as u16).to_be_bytes());
            header.extend([0, 0]);
            return header;
        }
        header.extend(self.sequence.to_be_bytes());
        header.extend(self.acknowledgement.to_be_bytes());
        let words = (20 + self.tcp_options.len()) / 4;
        header.extend([(words as u8) << 4 | self.reserved, self.flags]);
        header.extend(self.window.to_be_bytes());
        header.extend([0, 0]);
        header.extend(self.urgent.to_be_bytes());
        header.extend(&self.tcp_options);
        header
    }

    fn internet_header(&self, len: usize) -> Vec<u8> {
        if self.v6 {
            return self.v6_header(len);
        }
        let words = 5 + self.options.len() / 4;
        let mut header = vec![0x40 | words as u8, self.tos];
        header.extend(((4 * words + len) as u16).to_be_bytes());
        header.extend(self.identification.to_be_bytes());
        header.extend(self.fragment.to_be_bytes());
        header.extend([self.hops, self.protocol, 0, 0]);
        header.extend(&self.source[..4]);
        header.extend(&self.destination[..4]);
        header.extend(&self.options);
        let checksum = !sum(&header);
        header[10..12].copy_from_slice(&checksum.to_be_bytes());
        header
    }

    fn v6_header(&self, len: usize) -> Vec<u8> {
        let first = 6 << 28 | u32::from(self.tos) << 20 | self.label;
        let mut header = first.to_be_bytes().to_vec();
        header.extend(((self.transport() - 40 + len) as u16).to_be_bytes());
        let kinds = self.extensions.iter().map(|(kind, _)| *kind).chain([self.protocol]);
        let mut kinds = kinds.collect::<Vec<u8>>().into_iter();
        header.extend(kinds.next());
        header.push(self.hops);
        header.extend(self.source);
        header.extend(self.destination);
        for ((_, body), next) in self.extensions.iter().zip(kinds) {
            header.push(next);
            header.extend(&body[1..]);
        }
        header
    }

    fn pseudo_header(&self, len: usize) -> Vec<u8> {
        let bytes = if self.v6 { 16 } else { 4 };
        let destination = self.final_destination.unwrap_or(self.destination);
        let addresses = [&self.source[..bytes], &destination[..bytes]].concat();
        [&addresses[..], &[0, self.protocol], &(len as u16).to_be_bytes()].concat()
    }
}

/// RFC 1071: word after word, with the carry brought around.
pub fn sum(bytes: &[u8]) -> u16 {
    let mut sum = 0;
    let mut at = 0;
    while at < bytes.len() {
        let low = if at + 1 < bytes.len() { bytes[at + 1] } else { 0 };
        sum += u32::from(bytes[at]) << 8 | u32::from(low);
        sum = (sum & 0xffff) + (sum >> 16);
        at += 2;
    }
    sum as u16
}
