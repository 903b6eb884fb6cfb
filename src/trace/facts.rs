//! What of a packet a filter asks for, and a page shows: read from a whole packet or from its first bytes.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::Packet;
use crate::wire::ip::{self, ICMP, ICMPV6, TCP, UDP};

/// The facts of one packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Facts {
    /// Source address.
    pub source: IpAddr,
    /// Destination address.
    pub destination: IpAddr,
    /// Protocol number of the layer above IP.
    pub protocol: u8,
    /// Source and destination port: TCP, UDP.
    pub ports: Option<[u16; 2]>,
    /// Identifier and sequence number: an echo request or reply.
    pub echo: Option<[u16; 2]>,
    /// Type of an ICMP message.
    pub icmp_type: Option<u8>,
    /// TCP: the sequence number.
    pub sequence: Option<u32>,
    /// IPv4: the identification.
    pub identification: u16,
    /// Length that the IP header claims.
    pub bytes: u32,
}

impl Facts {
    /// Of a packet from the IP header on; what is cut off behind it does no harm. `None`: not IP.
    pub fn of(packet: &[u8]) -> Option<Self> {
        let facts = Self::of_header(packet)?;
        let upper = match ip::parse(packet) {
            Ok(header) => ip::find_upper_layer(&packet[..header.total_len])
                .map(|upper| (upper.protocol, &packet[upper.at..header.total_len])),
            // Cut: where the layer above begins is known without extension headers alone.
            Err(_) => packet.get(header_len(packet)..).map(|upper| (facts.protocol, upper)),
        };
        Some(match upper {
            Some((protocol, upper)) => Self { protocol, ..facts }.with_upper(upper),
            None => facts,
        })
    }

    /// Is it the same packet, whatever length it was read with?
    pub fn is_same_packet(&self, other: &Self) -> bool {
        Self { bytes: 0, ..*self } == Self { bytes: 0, ..*other }
    }

    /// Is it of the same flow, in the same direction?
    pub fn is_same_flow(&self, other: &Self) -> bool {
        let flow = |facts: &Self| Self { bytes: 0, sequence: None, identification: 0, ..*facts };
        flow(self) == flow(other)
    }

    /// Does it answer that packet?
    pub fn answers(&self, asked: &Self) -> bool {
        let is_reply = match asked.echo {
            Some(_) => self.echo == asked.echo && asked.is_echo_request() && self.is_echo_reply(),
            None => self.ports == asked.ports.map(|[source, destination]| [destination, source]),
        };
        let ends = (self.source, self.destination, self.protocol);
        ends == (asked.destination, asked.source, asked.protocol) && is_reply
    }

    /// The packet that an ICMP error complains about (RFC 792, RFC 4443), from the error's IP header on.
    pub fn quoted(packet: &[u8]) -> Option<Self> {
        const HEADER: usize = 8;
        let facts = Self::of(packet)?;
        let complains = match facts.protocol {
            ICMP => matches!(facts.icmp_type?, 3 | 4 | 5 | 11 | 12),
            ICMPV6 => matches!(facts.icmp_type?, 1..=4),
            _ => false,
        };
        let quoted = packet.get(header_len(packet) + HEADER..).filter(|_| complains)?;
        Self::of(quoted)
    }

    /// Is it a request of ping, of either family?
    pub fn is_echo_request(&self) -> bool {
        matches!((self.protocol, self.icmp_type), (ICMP, Some(8)) | (ICMPV6, Some(128)))
    }

    /// Is it the answer to one?
    pub fn is_echo_reply(&self) -> bool {
        matches!((self.protocol, self.icmp_type), (ICMP, Some(0)) | (ICMPV6, Some(129)))
    }

    /// Of the two headers, where they were handed over apart.
    pub fn of_headers(internet: &[u8], transport: &[u8]) -> Option<Self> {
        Self::of_header(internet).map(|facts| facts.with_upper(transport))
    }

    fn of_header(packet: &[u8]) -> Option<Self> {
        let half = |at: usize| Some(u32::from(u16::from_be_bytes([*packet.get(at)?, *packet.get(at + 1)?])));
        let (source, destination, protocol, bytes, id): (IpAddr, IpAddr, _, _, _) = match packet.first()? >> 4
        {
            4 => {
                let address = |at| Some(Ipv4Addr::from(*packet.get(at..)?.first_chunk::<4>()?));
                (address(12)?.into(), address(16)?.into(), *packet.get(9)?, half(2)?, half(4)?)
            }
            6 => {
                let address = |at| Some(Ipv6Addr::from(*packet.get(at..)?.first_chunk::<16>()?));
                (address(8)?.into(), address(24)?.into(), *packet.get(6)?, half(4)? + 40, 0)
            }
            _ => return None,
        };
        Some(Self {
            source,
            destination,
            protocol,
            ports: None,
            echo: None,
            icmp_type: None,
            sequence: None,
            identification: id as u16,
            bytes,
        })
    }

    fn with_upper(self, upper: &[u8]) -> Self {
        let half = |at: usize| Some(u16::from_be_bytes([*upper.get(at)?, *upper.get(at + 1)?]));
        let pair = |at: usize| Some([half(at)?, half(at + 2)?]);
        match self.protocol {
            TCP => {
                let sequence = pair(4).map(|[high, low]| u32::from(high) << 16 | u32::from(low));
                Self { ports: pair(0), sequence, ..self }
            }
            UDP => Self { ports: pair(0), ..self },
            ICMP | ICMPV6 => {
                let icmp_type = upper.first().copied();
                let echo = match (self.protocol, icmp_type) {
                    (ICMP, Some(0 | 8)) | (ICMPV6, Some(128 | 129)) => pair(4),
                    _ => None,
                };
                Self { echo, icmp_type, ..self }
            }
            _ => self,
        }
    }
}

fn header_len(packet: &[u8]) -> usize {
    match packet.first() {
        Some(first) if first >> 4 == 4 => usize::from(first & 0xf) * 4,
        _ => ip::V6_HEADER_LEN,
    }
}

/// The name of a protocol, or its number.
pub fn protocol_name(protocol: u8) -> String {
    match protocol {
        TCP => "tcp".to_owned(),
        UDP => "udp".to_owned(),
        ICMP => "icmp".to_owned(),
        ICMPV6 => "icmpv6".to_owned(),
        number => number.to_string(),
    }
}

impl From<Facts> for Packet {
    fn from(facts: Facts) -> Self {
        Self {
            source: facts.source,
            destination: facts.destination,
            protocol: protocol_name(facts.protocol),
            source_port: facts.ports.map(|[source, _]| source),
            destination_port: facts.ports.map(|[_, destination]| destination),
            echo: facts.echo,
            bytes: Some(facts.bytes.into()),
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// An echo request of 84 bytes from 10.77.0.1 to 10.77.0.2.
    pub(in crate::trace) fn echo() -> Vec<u8> {
        let mut packet = vec![0; 84];
        packet[..4].copy_from_slice(&[0x45, 0, 0, 84]);
        packet[8..10].copy_from_slice(&[64, ICMP]);
        packet[12..20].copy_from_slice(&[10, 77, 0, 1, 10, 77, 0, 2]);
        packet[20..28].copy_from_slice(&[8, 0, 0, 0, 0x12, 0x34, 0, 7]);
        packet
    }

    /// A TCP packet over IPv6 from fd77::1 port 40000 to fd77::2 port 443.
    pub(in crate::trace) fn tcp_v6() -> Vec<u8> {
        let mut packet = vec![0; 60];
        packet[..8].copy_from_slice(&[0x60, 0, 0, 0, 0, 20, TCP, 64]);
        packet[8..24].copy_from_slice(&"fd77::1".parse::<Ipv6Addr>().unwrap().octets());
        packet[24..40].copy_from_slice(&"fd77::2".parse::<Ipv6Addr>().unwrap().octets());
        packet[40..44].copy_from_slice(&[0x9c, 0x40, 0x01, 0xbb]);
        packet
    }

    #[test]
    fn a_packet_is_read_whole_cut_or_in_two_headers_alike() {
        let echo = echo();
        let facts = Facts::of(&echo).unwrap();
        assert_eq!((facts.protocol, facts.echo, facts.bytes), (ICMP, Some([0x1234, 7]), 84));
        assert_eq!(Facts::of(&echo[..28]), Some(facts));
        assert_eq!(Facts::of_headers(&echo[..20], &echo[20..40]), Some(facts));
        let tcp = tcp_v6();
        let facts = Facts::of(&tcp).unwrap();
        assert_eq!((facts.ports, facts.bytes), (Some([40_000, 443]), 60));
        assert_eq!(Facts::of_headers(&tcp[..40], &tcp[40..]), Some(facts));
    }

    #[test]
    fn what_is_too_short_for_its_header_is_no_packet() {
        for len in [0, 1, 19] {
            assert_eq!(Facts::of(&echo()[..len]), None);
        }
        assert_eq!(Facts::of(&tcp_v6()[..39]), None);
        assert_eq!(Facts::of(&[0x10; 60]), None);
        assert_eq!(Facts::of(&echo()[..20]).unwrap().echo, None);
    }
}
