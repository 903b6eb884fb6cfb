//! What the tunnel needs of an IP header.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::{Malformed, checksum::Sum, ecn::Ecn};

/// Bytes of an IPv4 header without options.
pub const V4_HEADER_LEN: usize = 20;
/// Bytes of an IPv6 header without extensions.
pub const V6_HEADER_LEN: usize = 40;
/// Protocol number of ICMP.
pub const ICMP: u8 = 1;
/// Protocol number of ICMPv6.
pub const ICMPV6: u8 = 58;
/// Protocol number of TCP.
pub const TCP: u8 = 6;
/// Protocol number of UDP.
pub const UDP: u8 = 17;
/// Bytes of a TCP header without options.
pub const TCP_HEADER_LEN: usize = 20;
/// Bytes of a UDP header.
pub const UDP_HEADER_LEN: usize = 8;
/// Extension headers that are followed before a packet counts as unreadable (RFC 8200, section 4.1 has
/// seven places for one).
const MAX_EXTENSIONS: usize = 8;

/// The facts of one IPv4 or IPv6 packet's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Source address.
    pub source: IpAddr,
    /// Destination address.
    pub destination: IpAddr,
    /// Length that the header claims for the whole packet: at most the bytes that are there.
    pub total_len: usize,
    /// Congestion field.
    pub ecn: Ecn,
}

/// Reads version, lengths and addresses; refuses a packet shorter than its header says.
pub fn parse(packet: &[u8]) -> Result<Header, Malformed> {
    match packet.first().ok_or(Malformed::Length)? >> 4 {
        4 => parse_v4(packet),
        6 => parse_v6(packet),
        _ => Err(Malformed::IpHeader),
    }
}

/// RFC 791, section 3.1.
fn parse_v4(packet: &[u8]) -> Result<Header, Malformed> {
    let fixed: &[u8; V4_HEADER_LEN] = packet.first_chunk().ok_or(Malformed::Length)?;
    let header_len = v4_header_len(fixed);
    let total_len = usize::from(u16::from_be_bytes([fixed[2], fixed[3]]));
    if header_len < V4_HEADER_LEN || total_len < header_len {
        return Err(Malformed::IpHeader);
    }
    if packet.len() < total_len {
        return Err(Malformed::Length);
    }
    Ok(Header {
        source: Ipv4Addr::from(field::<4>(fixed, 12)).into(),
        destination: Ipv4Addr::from(field::<4>(fixed, 16)).into(),
        total_len,
        ecn: Ecn::from_tos(fixed[1]),
    })
}

/// RFC 8200, section 3. A jumbogram (RFC 2675) claims no payload and is read so: no TUN carries one.
fn parse_v6(packet: &[u8]) -> Result<Header, Malformed> {
    let fixed: &[u8; V6_HEADER_LEN] = packet.first_chunk().ok_or(Malformed::Length)?;
    let total_len = V6_HEADER_LEN + usize::from(u16::from_be_bytes([fixed[4], fixed[5]]));
    if packet.len() < total_len {
        return Err(Malformed::Length);
    }
    Ok(Header {
        source: Ipv6Addr::from(field::<16>(fixed, 8)).into(),
        destination: Ipv6Addr::from(field::<16>(fixed, 24)).into(),
        total_len,
        ecn: Ecn::from_tos(fixed[1] >> 4),
    })
}

/// What follows the IP headers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UpperLayer {
    /// Its protocol number.
    pub protocol: u8,
    /// Where it begins in the packet.
    pub at: usize,
    /// It is all there and may be taken apart: the packet is no fragment, and nothing signs it (RFC 4302).
    pub whole: bool,
}

/// Protocol number and bytes of the layer above IP, behind options and extension headers. `None`: a later
/// fragment (that layer's header stands in the first), or headers that lead out of the packet.
pub fn upper_layer(packet: &[u8]) -> Option<(u8, &[u8])> {
    let header = parse(packet).ok()?;
    let packet = &packet[..header.total_len];
    find_upper_layer(packet).map(|upper| (upper.protocol, &packet[upper.at..]))
}

/// The same for a packet that [`parse`] has read, and that ends where it says.
pub fn find_upper_layer(packet: &[u8]) -> Option<UpperLayer> {
    if packet[0] >> 4 == 6 {
        return skip_extensions(packet[6], packet);
    }
    const MORE_FRAGMENTS: u16 = 0x2000;
    const OFFSET: u16 = 0x1fff;
    let fragment = u16::from_be_bytes([packet[6], packet[7]]);
    let whole = fragment & MORE_FRAGMENTS == 0;
    let upper = UpperLayer { protocol: packet[9], at: v4_header_len(packet), whole };
    (fragment & OFFSET == 0).then_some(upper)
}

/// Walks IPv6 extension headers (RFC 8200, section 4): `next` names what follows the fixed header.
fn skip_extensions(mut next: u8, packet: &[u8]) -> Option<UpperLayer> {
    const HOP_BY_HOP: u8 = 0;
    const ROUTING: u8 = 43;
    const FRAGMENT: u8 = 44;
    const AUTHENTICATION: u8 = 51;
    const DESTINATION_OPTIONS: u8 = 60;
    const MOBILITY: u8 = 135;

    let (mut at, mut whole) = (V6_HEADER_LEN, true);
    for _ in 0..=MAX_EXTENSIONS {
        let rest = packet.get(at..)?;
        let len = match next {
            HOP_BY_HOP | ROUTING | DESTINATION_OPTIONS | MOBILITY => 8 + 8 * usize::from(*rest.get(1)?),
            // RFC 4302, section 2.2: this one alone counts in words of four.
            AUTHENTICATION => {
                whole = false;
                8 + 4 * usize::from(*rest.get(1)?)
            }
            FRAGMENT => {
                let offset = u16::from_be_bytes([*rest.get(2)?, *rest.get(3)?]) >> 3;
                if offset != 0 {
                    return None;
                }
                whole = false;
                8
            }
            protocol => return Some(UpperLayer { protocol, at, whole }),
        };
        next = *rest.first()?;
        at += len;
    }
    None
}

/// Writes the checksum of an IPv4 header (RFC 791, section 3.1) with its options; the caller knows that it is whole.
pub fn write_v4_checksum(packet: &mut [u8]) {
    packet[10..12].fill(0);
    let checksum = Sum::of(&packet[..v4_header_len(packet)]).finish();
    packet[10..12].copy_from_slice(&checksum);
}

/// Bytes of an IPv4 header with its options; the caller knows that there is a first byte.
fn v4_header_len(packet: &[u8]) -> usize {
    usize::from(packet[0] & 0x0f) * 4
}

/// `N` bytes at a place that the caller knows to be inside.
fn field<const N: usize>(header: &[u8], at: usize) -> [u8; N] {
    *header[at..].first_chunk().expect("the fixed part of the header is there")
}

#[cfg(test)]
mod tests {
    use hex_literal::hex;
    use proptest::prelude::*;

    use super::*;

    /// An IPv4 packet: header length in words, claimed total length, bytes that are there.
    fn v4(words: u8, total_len: u16, there: usize) -> Vec<u8> {
        let mut packet = vec![0; there];
        packet[0] = 0x40 | words;
        packet[2..4].copy_from_slice(&total_len.to_be_bytes());
        packet
    }

    /// An IPv6 packet whose first next-header is `next`, and whose payload is `payload`.
    fn v6(next: u8, payload: &[u8]) -> Vec<u8> {
        let mut packet = vec![0; V6_HEADER_LEN];
        packet[0] = 0x60;
        packet[4..6].copy_from_slice(&(payload.len() as u16).to_be_bytes());
        packet[6] = next;
        packet.extend_from_slice(payload);
        packet
    }

    #[test]
    fn a_v4_header_is_read() {
        let mut packet = hex!("4502 0017 0000 4000 4011 0000 c0a8 0001 c0a8 00c7 010203").to_vec();
        let expected = Header {
            source: "192.168.0.1".parse().unwrap(),
            destination: "192.168.0.199".parse().unwrap(),
            total_len: 23,
            ecn: Ecn::Ect0,
        };
        assert_eq!(parse(&packet), Ok(expected));
        packet.extend([0; 9]);
        assert_eq!(parse(&packet), Ok(expected), "padding behind the packet does not count");
        assert_eq!(upper_layer(&packet), Some((17, &[1, 2, 3][..])));
    }

    #[test]
    fn a_v6_header_is_read() {
        let mut packet = v6(17, &[1, 2, 3]);
        packet[1] = 0x10;
        packet[8..24].copy_from_slice(&hex!("fd77 0000 0000 0000 0000 0000 0000 0001"));
        packet[24..40].copy_from_slice(&hex!("2001 0db8 0000 0000 0000 0000 0000 00ff"));
        let expected = Header {
            source: "fd77::1".parse().unwrap(),
            destination: "2001:db8::ff".parse().unwrap(),
            total_len: 43,
            ecn: Ecn::Ect1,
        };
        assert_eq!(parse(&packet), Ok(expected));
        packet.extend([0; 13]);
        assert_eq!(parse(&packet), Ok(expected), "padding behind the packet does not count");
        assert_eq!(upper_layer(&packet), Some((17, &[1, 2, 3][..])));
    }

    #[test]
    fn a_v4_packet_shorter_than_it_says_is_refused() {
        assert!(parse(&v4(5, 28, 28)).is_ok());
        assert_eq!(parse(&v4(5, 29, 28)), Err(Malformed::Length));
        assert_eq!(parse(&v4(5, 20, 20)[..19]), Err(Malformed::Length));
        assert_eq!(parse(&[]), Err(Malformed::Length));
    }

    #[test]
    fn a_v4_header_that_contradicts_itself_is_refused() {
        assert_eq!(parse(&v4(4, 28, 28)), Err(Malformed::IpHeader), "less than the fixed part");
        assert_eq!(parse(&v4(5, 19, 28)), Err(Malformed::IpHeader), "total length inside the header");
        assert_eq!(parse(&v4(15, 59, 60)), Err(Malformed::IpHeader), "options beyond the packet");
        assert!(parse(&v4(15, 60, 60)).is_ok());
    }

    #[test]
    fn a_v6_packet_shorter_than_it_says_is_refused() {
        let packet = v6(17, &[0; 8]);
        assert!(parse(&packet).is_ok());
        assert_eq!(parse(&packet[..47]), Err(Malformed::Length));
        assert_eq!(parse(&packet[..39]), Err(Malformed::Length));
        assert_eq!(parse(&v6(59, &[])).map(|header| header.total_len), Ok(40));
    }

    #[test]
    fn other_versions_are_refused() {
        for version in (0..16).filter(|version| ![4, 6].contains(version)) {
            assert_eq!(parse(&[version << 4; 64]), Err(Malformed::IpHeader), "version {version}");
        }
    }

    #[test]
    fn options_and_extension_headers_are_skipped() {
        let mut packet = v4(7, 30, 30);
        packet[9] = 1;
        packet[28] = 8;
        assert_eq!(upper_layer(&packet), Some((1, &[8, 0][..])));

        let mut payload = vec![60, 1]; // hop-by-hop, 16 bytes; then destination options
        payload.resize(16, 0);
        payload.extend([51, 0, 0, 0, 0, 0, 0, 0]); // destination options, 8 bytes; then AH
        payload.extend([44, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]); // AH, 12 bytes; then fragment
        payload.extend([58, 0, 0, 1, 0, 0, 0, 7]); // the first fragment of more; then ICMPv6
        payload.extend([1, 4]);
        assert_eq!(upper_layer(&v6(0, &payload)), Some((58, &[1, 4][..])));
    }

    #[test]
    fn a_later_fragment_has_no_upper_layer() {
        let mut packet = v4(5, 28, 28);
        packet[6] = 0x20; // more fragments, offset 0
        assert!(upper_layer(&packet).is_some());
        for offset in (0..13).map(|bit| 1u16 << bit) {
            packet[6..8].copy_from_slice(&(0x2000 | offset).to_be_bytes());
            assert_eq!(upper_layer(&packet), None, "offset {offset}");
        }

        assert!(upper_layer(&v6(44, &[17, 0, 0, 7, 0, 0, 0, 7])).is_some());
        for offset in (3..16).map(|bit| 1u16 << bit) {
            let [high, low] = offset.to_be_bytes();
            assert_eq!(upper_layer(&v6(44, &[17, 0, high, low, 0, 0, 0, 7])), None, "offset {offset}");
        }
    }

    #[test]
    fn an_extension_header_that_leaves_the_packet_ends_the_walk() {
        for payload in [&[][..], &[58], &[58, 255], &[58, 1, 0, 0, 0, 0, 0, 0], &[58, 0, 0, 0, 0, 0, 0]] {
            assert_eq!(upper_layer(&v6(0, payload)), None);
        }
        for payload in [&[][..], &[58, 0], &[58, 0, 0], &[58, 0, 0, 0]] {
            assert_eq!(upper_layer(&v6(44, payload)), None);
        }
        let mut packet = v6(0, &[58, 0, 0, 0, 0, 0, 0, 0, 128]);
        assert!(upper_layer(&packet).is_some());
        packet[4..6].copy_from_slice(&7u16.to_be_bytes());
        assert_eq!(upper_layer(&packet), None, "the bytes behind the packet are not its own");
    }

    #[test]
    fn the_walk_over_extension_headers_is_bounded() {
        let chain = |headers: usize| {
            let mut payload = [60, 0, 0, 0, 0, 0, 0, 0].repeat(headers);
            payload[8 * (headers - 1)] = 17;
            v6(60, &payload)
        };
        assert!(upper_layer(&chain(MAX_EXTENSIONS)).is_some());
        assert_eq!(upper_layer(&chain(MAX_EXTENSIONS + 1)), None);
    }

    proptest! {
        #[test]
        fn no_bytes_panic_and_no_length_leaves_them(
            mut bytes in proptest::collection::vec(any::<u8>(), 0..120),
            version in proptest::sample::select(vec![0x45u8, 0x46, 0x4f, 0x60, 0x00]),
            small in any::<bool>(),
        ) {
            if let Some(first) = bytes.first_mut() {
                *first = version;
            }
            if small {
                // Lengths that often fit, so that the walk behind them is reached.
                for at in [2, 4] {
                    if let Some(high) = bytes.get_mut(at) {
                        *high = 0;
                    }
                }
            }
            if let Ok(header) = parse(&bytes) {
                prop_assert!(header.total_len <= bytes.len());
                prop_assert_eq!(header.source.is_ipv4(), header.destination.is_ipv4());
                let least = if header.source.is_ipv4() { V4_HEADER_LEN } else { V6_HEADER_LEN };
                prop_assert!(header.total_len >= least);
            }
            if let Some((_, rest)) = upper_layer(&bytes) {
                prop_assert!(rest.len() < bytes.len());
            }
        }
    }
}
