//! What connection tracking tells flows apart by: addresses, protocol, and ports or the identifier of an echo.

use std::net::IpAddr;

use super::ip::{self, ICMP, ICMPV6};

/// One direction of a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flow {
    /// Source address.
    pub source: IpAddr,
    /// Destination address.
    pub destination: IpAddr,
    /// Ports or identifier.
    pub ends: Ends,
}

/// What tells flows between the same addresses apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ends {
    /// TCP or UDP, by its protocol number.
    Ports {
        /// Protocol number.
        protocol: u8,
        /// Source port.
        source: u16,
        /// Destination port.
        destination: u16,
    },
    /// ICMP or ICMPv6, by the family of the addresses.
    Echo {
        /// Identifier, the same in both directions.
        id: u16,
        /// Or the reply to one.
        request: bool,
    },
}

impl Flow {
    /// Of a packet; `None` for other protocols, for later fragments, and where headers are cut.
    pub fn of(packet: &[u8]) -> Option<Self> {
        let header = ip::parse(packet).ok()?;
        let (protocol, upper) = ip::upper_layer(packet)?;
        let half = |at: usize| Some(u16::from_be_bytes([*upper.get(at)?, *upper.get(at + 1)?]));
        let ends = match protocol {
            ip::TCP | ip::UDP => Ends::Ports { protocol, source: half(0)?, destination: half(2)? },
            ICMP | ICMPV6 => {
                let request = request(protocol, *upper.first()?)?;
                Ends::Echo { id: half(4)?, request }
            }
            _ => return None,
        };
        Some(Self { source: header.source, destination: header.destination, ends })
    }

    /// The other direction.
    pub fn reversed(self) -> Self {
        let ends = match self.ends {
            Ends::Ports { protocol, source, destination } => {
                Ends::Ports { protocol, source: destination, destination: source }
            }
            Ends::Echo { id, request } => Ends::Echo { id, request: !request },
        };
        Self { source: self.destination, destination: self.source, ends }
    }

    /// Writes this source, with its port or identifier, into a packet of such a flow. The header's checksum is mended,
    /// that of the layer above is not: this is for a packet that is quoted in an error.
    pub fn write_source(&self, packet: &mut [u8]) {
        let Some(upper) = ip::upper_layer(packet).map(|(_, upper)| upper.len()) else { return };
        let Ok(header) = ip::parse(packet) else { return };
        let (at, end) = match self.ends {
            Ends::Ports { source, .. } => (0, source),
            Ends::Echo { id, .. } => (4, id),
        };
        if let Some(place) = packet[header.total_len - upper..].get_mut(at..at + 2) {
            place.copy_from_slice(&end.to_be_bytes());
        }
        match (header.source, self.source) {
            (IpAddr::V4(_), IpAddr::V4(source)) => {
                packet[12..16].copy_from_slice(&source.octets());
                ip::write_v4_checksum(packet);
            }
            (IpAddr::V6(_), IpAddr::V6(source)) => packet[8..24].copy_from_slice(&source.octets()),
            _ => {}
        }
    }
}

/// Is this an echo request (true) or its reply (false)?
fn request(protocol: u8, kind: u8) -> Option<bool> {
    match (protocol, kind) {
        (ICMP, 8) | (ICMPV6, 128) => Some(true),
        (ICMP, 0) | (ICMPV6, 129) => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use hex_literal::hex;

    use super::*;
    use crate::wire::{
        checksum::Sum,
        samples::{v4, v6},
    };

    #[test]
    fn ports_and_echoes_are_read_and_turned_round() {
        let ports = hex!("0007 0009 0000 0000");
        for protocol in [ip::TCP, ip::UDP] {
            let flow = Flow::of(&v4(protocol, &ports)).expect("a flow");
            assert_eq!(flow.ends, Ends::Ports { protocol, source: 7, destination: 9 });
            assert_eq!(flow.source.to_string(), "10.77.0.1");
            let back = flow.reversed();
            assert_eq!(back.ends, Ends::Ports { protocol, source: 9, destination: 7 });
            assert_eq!((back.source, back.destination), (flow.destination, flow.source));
        }
        for (packet, request) in [
            (v4(ICMP, &hex!("0800 0000 1234 0001")), true),
            (v4(ICMP, &hex!("0000 0000 1234 0001")), false),
            (v6(ICMPV6, &hex!("8000 0000 1234 0001")), true),
            (v6(ICMPV6, &hex!("8100 0000 1234 0001")), false),
        ] {
            let flow = Flow::of(&packet).expect("a flow");
            assert_eq!(flow.ends, Ends::Echo { id: 0x1234, request });
            assert_eq!(flow.reversed().ends, Ends::Echo { id: 0x1234, request: !request });
            assert_eq!(flow.reversed().reversed(), flow);
        }
    }

    #[test]
    fn what_has_no_ends_that_are_known_is_no_flow() {
        let mut fragment = v4(ip::UDP, &[0; 8]);
        fragment[7] = 1;
        for packet in [
            fragment,
            v4(47, &[0; 8]),
            v4(ip::UDP, &[0; 3]),
            v4(ICMP, &hex!("0301 0000 0000 0000")),
            v4(ICMP, &hex!("0800 0000 12")),
            v6(ICMPV6, &hex!("8700 0000 0000 0000")),
            vec![],
        ] {
            assert_eq!(Flow::of(&packet), None, "{packet:02x?}");
        }
    }

    #[test]
    fn another_source_is_written_into_the_packet_and_its_header_stays_right() {
        for packet in [
            v4(ip::UDP, &hex!("0007 0009 000c 0000 61626364")),
            v4(ICMP, &hex!("0800 0000 1234 0001")),
            v6(ip::TCP, &[3; 20]),
            v6(ICMPV6, &hex!("8000 0000 1234 0001")),
        ] {
            let mut flow = Flow::of(&packet).expect("a flow");
            flow.source = match flow.source {
                IpAddr::V4(_) => "192.0.2.7".parse().unwrap(),
                IpAddr::V6(_) => "2001:db8::7".parse().unwrap(),
            };
            flow.ends = match flow.ends {
                Ends::Ports { protocol, destination, .. } => {
                    Ends::Ports { protocol, source: 4242, destination }
                }
                Ends::Echo { request, .. } => Ends::Echo { id: 4242, request },
            };
            let mut changed = packet.clone();
            flow.write_source(&mut changed);
            assert_eq!(Flow::of(&changed), Some(flow));
            assert_eq!(changed.len(), packet.len());
            if flow.source.is_ipv4() {
                assert!(Sum::of(&changed[..20]).is_right());
            }
        }
    }

    #[test]
    fn no_source_is_written_into_bytes_that_are_no_such_packet() {
        let flow = Flow::of(&v4(ip::UDP, &[0; 8])).expect("a flow");
        for bytes in [vec![], vec![0x45; 19], v4(ip::UDP, &[]), v6(ip::UDP, &[0; 1])] {
            let mut changed = bytes.clone();
            flow.write_source(&mut changed);
            assert_eq!(changed.len(), bytes.len());
        }
    }
}
