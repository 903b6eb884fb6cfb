//! ICMP and ICMPv6 errors that the tunnel says (RFC 792, RFC 1812, RFC 4443).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::{
    checksum::Sum,
    ip::{self, V4_HEADER_LEN, V6_HEADER_LEN},
};

/// What could not be done with a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unreachable {
    /// No peer owns the destination: ICMP 3/1 (host), ICMPv6 1/0 (no route).
    NoPeer,
    /// A peer owns it but has no endpoint: ICMP 3/1, ICMPv6 1/3 (address).
    NoEndpoint,
}

/// An ICMPv4 error quotes as much as fits into this datagram (RFC 1812, section 4.3.2.3).
const V4_ERROR_MAX: usize = 576;
/// An ICMPv6 error quotes as much as fits into the smallest MTU (RFC 4443, section 2.4 (c)).
const V6_ERROR_MAX: usize = 1280;
/// Type, code, checksum and 32 unused bits, in both families.
const ICMP_HEADER_LEN: usize = 8;
const HOP_LIMIT: u8 = 64;

/// The error to send back for `packet`. `None` where RFC 1122 3.2.2 and RFC 4443 2.4 forbid an answer (errors,
/// multicast, later fragments, …), and where the packet cannot be read far enough to know that.
///
/// It speaks in the name of the destination. An error that comes out of the TUN from one of the host's own
/// addresses is dropped as a martian (Linux, `__fib_validate_source`), and by IPv6 reverse-path rules too; the
/// destination's own route leads to the TUN, so every check passes.
pub fn unreachable(packet: &[u8], why: Unreachable) -> Option<Vec<u8>> {
    let header = ip::parse(packet).ok()?;
    let packet = &packet[..header.total_len];
    let (protocol, upper) = ip::upper_layer(packet)?;
    match (header.source, header.destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            let silent = !is_one_host_v4(source)
                || destination.is_multicast()
                || destination.is_broadcast()
                || protocol == ip::ICMP && is_error_v4(upper);
            (!silent).then(|| error_v4(packet, destination, source))
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            let silent = !is_one_host_v6(source)
                || destination.is_multicast()
                || protocol == ip::ICMPV6 && is_error_v6(upper);
            (!silent).then(|| error_v6(packet, why, destination, source))
        }
        _ => None,
    }
}

/// RFC 1812, section 4.3.2.7: no zero, loopback, broadcast, multicast or class E source gets an error.
fn is_one_host_v4(source: Ipv4Addr) -> bool {
    let [network, ..] = source.octets();
    network != 0 && !source.is_loopback() && network < 224
}

/// RFC 4443, section 2.4 (e.6), as far as an address tells.
fn is_one_host_v6(source: Ipv6Addr) -> bool {
    !source.is_unspecified() && !source.is_loopback() && !source.is_multicast()
}

/// Whatever is not known to be a query or its answer counts as an error; so does what is cut off.
fn is_error_v4(icmp: &[u8]) -> bool {
    !matches!(icmp.first(), Some(0 | 8 | 9 | 10 | 13..=18))
}

/// RFC 4443, section 2.1: errors have the high bit clear. A redirect (137) is answered no more than an error
/// (section 2.4 (e.2)).
fn is_error_v6(icmp: &[u8]) -> bool {
    icmp.first().is_none_or(|&kind| kind < 128 || kind == 137)
}

/// Destination unreachable, host (RFC 792), about `packet`.
fn error_v4(packet: &[u8], from: Ipv4Addr, to: Ipv4Addr) -> Vec<u8> {
    let quoted = &packet[..packet.len().min(V4_ERROR_MAX - V4_HEADER_LEN - ICMP_HEADER_LEN)];
    let total_len = V4_HEADER_LEN + ICMP_HEADER_LEN + quoted.len();
    let mut error = vec![0; V4_HEADER_LEN];
    error[0] = 0x45;
    // RFC 1812, section 4.3.2.5: errors have the precedence of internetwork control.
    error[1] = 0xc0;
    error[2..4].copy_from_slice(&(total_len as u16).to_be_bytes());
    // Don't fragment: an atomic datagram needs no identification (RFC 6864, section 4.1).
    error[6] = 0x40;
    error[8] = HOP_LIMIT;
    error[9] = ip::ICMP;
    error[12..16].copy_from_slice(&from.octets());
    error[16..20].copy_from_slice(&to.octets());
    ip::write_v4_checksum(&mut error);
    push_message(&mut error, [3, 1], quoted, Sum::default());
    error
}

/// Destination unreachable (RFC 4443, section 3.1), about `packet`.
fn error_v6(packet: &[u8], why: Unreachable, from: Ipv6Addr, to: Ipv6Addr) -> Vec<u8> {
    let quoted = &packet[..packet.len().min(V6_ERROR_MAX - V6_HEADER_LEN - ICMP_HEADER_LEN)];
    let payload_len = ICMP_HEADER_LEN + quoted.len();
    let code = match why {
        Unreachable::NoPeer => 0,
        Unreachable::NoEndpoint => 3,
    };
    let mut error = vec![0; V6_HEADER_LEN];
    error[0] = 0x60;
    error[4..6].copy_from_slice(&(payload_len as u16).to_be_bytes());
    error[6] = ip::ICMPV6;
    error[7] = HOP_LIMIT;
    error[8..24].copy_from_slice(&from.octets());
    error[24..40].copy_from_slice(&to.octets());
    let pseudo_header =
        Sum::pseudo_header(from.into(), to.into(), ip::ICMPV6) + Sum::word(payload_len as u16);
    push_message(&mut error, [1, code], quoted, pseudo_header);
    error
}

/// Type and code, checksum, unused word, quoted packet. `pseudo_header` is summed, too.
fn push_message(error: &mut Vec<u8>, [kind, code]: [u8; 2], quoted: &[u8], pseudo_header: Sum) {
    let start = error.len();
    error.extend([kind, code, 0, 0, 0, 0, 0, 0]);
    error.extend_from_slice(quoted);
    let checksum = (pseudo_header + Sum::of(&error[start..])).finish();
    error[start + 2..start + 4].copy_from_slice(&checksum);
}

#[cfg(test)]
mod tests {
    use hex_literal::hex;
    use proptest::prelude::*;

    use super::*;
    use crate::wire::samples::{v4, v6};

    fn v4_from(source: [u8; 4]) -> Vec<u8> {
        let mut packet = v4(17, &[0; 8]);
        packet[12..16].copy_from_slice(&source);
        packet
    }

    fn v6_from(source: &str) -> Vec<u8> {
        let mut packet = v6(17, &[0; 8]);
        packet[8..24].copy_from_slice(&source.parse::<Ipv6Addr>().unwrap().octets());
        packet
    }

    fn answer(packet: &[u8]) -> Option<Vec<u8>> {
        unreachable(packet, Unreachable::NoPeer)
    }

    /// Checks length, both checksums, and that `error` goes the way of `packet` back; returns type, code and
    /// the quoted part of it.
    fn read(error: &[u8], packet: &[u8]) -> (u8, u8, Vec<u8>) {
        let (header, about) = (ip::parse(error).unwrap(), ip::parse(packet).unwrap());
        assert_eq!(header.total_len, error.len());
        assert_eq!((header.source, header.destination), (about.destination, about.source));
        let (protocol, message) = ip::upper_layer(error).unwrap();
        match (header.source, header.destination) {
            (IpAddr::V4(_), _) => {
                assert_eq!(protocol, ip::ICMP);
                assert!(Sum::of(&error[..20]).is_right() && Sum::of(message).is_right());
            }
            (source, destination) => {
                assert_eq!(protocol, ip::ICMPV6);
                let pseudo = Sum::pseudo_header(source, destination, protocol);
                assert!((pseudo + Sum::word(message.len() as u16) + Sum::of(message)).is_right());
            }
        }
        assert_eq!(message[4..8], [0; 4], "unused");
        (message[0], message[1], message[8..].to_vec())
    }

    #[test]
    fn a_v4_packet_without_a_peer_is_host_unreachable() {
        for why in [Unreachable::NoPeer, Unreachable::NoEndpoint] {
            let packet = v4(17, &[7; 30]);
            let error = unreachable(&packet, why).unwrap();
            assert_eq!(read(&error, &packet), (3, 1, packet));
        }
    }

    #[test]
    fn a_v6_packet_without_a_peer_has_no_route_and_without_an_endpoint_no_address() {
        for (why, code) in [(Unreachable::NoPeer, 0), (Unreachable::NoEndpoint, 3)] {
            let packet = v6(17, &[7; 31]);
            let error = unreachable(&packet, why).unwrap();
            assert_eq!(read(&error, &packet), (1, code, packet));
        }
    }

    #[test]
    fn a_v4_error_has_at_most_576_bytes() {
        for (payload, len) in [(527, 575), (528, 576), (529, 576), (9000, 576)] {
            let packet = v4(17, &vec![7; payload]);
            let error = answer(&packet).unwrap();
            assert_eq!(error.len(), len);
            assert_eq!(read(&error, &packet).2, packet[..len - 28]);
        }
    }

    #[test]
    fn a_v6_error_has_at_most_1280_bytes() {
        for (payload, len) in [(1191, 1279), (1192, 1280), (1193, 1280), (9000, 1280)] {
            let packet = v6(17, &vec![7; payload]);
            let error = answer(&packet).unwrap();
            assert_eq!(error.len(), len);
            assert_eq!(read(&error, &packet).2, packet[..len - 48]);
        }
    }

    #[test]
    fn bytes_behind_the_packet_are_not_quoted() {
        for packet in [v4(17, &[7; 8]), v6(17, &[7; 8])] {
            let mut longer = packet.clone();
            longer.extend([9; 100]);
            assert_eq!(answer(&longer), answer(&packet));
        }
    }

    #[test]
    fn queries_are_answered_and_errors_are_not() {
        for kind in 0..=255 {
            let answered = [0, 8, 9, 10, 13, 14, 15, 16, 17, 18].contains(&kind);
            assert_eq!(answer(&v4(ip::ICMP, &[kind, 0])).is_some(), answered, "ICMP {kind}");
            let answered = kind >= 128 && kind != 137;
            assert_eq!(answer(&v6(ip::ICMPV6, &[kind, 0])).is_some(), answered, "ICMPv6 {kind}");
        }
    }

    #[test]
    fn an_icmp_packet_without_a_type_is_not_answered() {
        assert_eq!(answer(&v4(ip::ICMP, &[])), None);
        assert_eq!(answer(&v6(ip::ICMPV6, &[])), None);
    }

    #[test]
    fn our_own_errors_are_not_answered() {
        for packet in [v4(17, &[0; 8]), v6(17, &[0; 8])] {
            let error = answer(&packet).unwrap();
            assert_eq!(answer(&error), None);
        }
    }

    #[test]
    fn an_error_behind_extension_headers_is_not_answered() {
        let behind = |kind| [vec![60, 0, 0, 0, 0, 0, 0, 0, 58, 0, 0, 0, 0, 0, 0, 0], vec![kind, 0]].concat();
        assert!(answer(&v6(0, &behind(128))).is_some());
        assert_eq!(answer(&v6(0, &behind(1))), None);
        assert_eq!(answer(&v6(0, &behind(1)[..12])), None, "a chain that is cut hides what follows");
    }

    #[test]
    fn later_fragments_are_not_answered() {
        let mut packet = v4(17, &[0; 8]);
        packet[6] = 0x20;
        assert!(answer(&packet).is_some(), "the first fragment");
        packet[7] = 0x10;
        assert_eq!(answer(&packet), None);

        assert!(answer(&v6(44, &[17, 0, 0, 1, 0, 0, 0, 1])).is_some(), "the first fragment");
        assert_eq!(answer(&v6(44, &[17, 0, 0, 9, 0, 0, 0, 1])), None);
    }

    #[test]
    fn multicast_and_broadcast_destinations_are_not_answered() {
        for destination in [[224, 0, 0, 1], [239, 255, 255, 255], [255; 4]] {
            let mut packet = v4(17, &[0; 8]);
            packet[16..20].copy_from_slice(&destination);
            assert_eq!(answer(&packet), None, "{destination:?}");
        }
        let mut packet = v6(17, &[0; 8]);
        packet[24..40].copy_from_slice(&hex!("ff02 0000000000000000000000000001"));
        assert_eq!(answer(&packet), None);
    }

    #[test]
    fn a_source_that_is_not_one_host_gets_no_answer() {
        for source in [[0; 4], [0, 1, 2, 3], [127, 0, 0, 1], [224, 0, 0, 1], [240, 0, 0, 1], [255; 4]] {
            assert_eq!(answer(&v4_from(source)), None, "{source:?}");
        }
        assert!(answer(&v4_from([223, 255, 255, 254])).is_some());
        for source in ["::", "::1", "ff02::1"] {
            assert_eq!(answer(&v6_from(source)), None, "{source}");
        }
        assert!(answer(&v6_from("fe80::1")).is_some());
    }

    proptest! {
        #[test]
        fn no_bytes_panic_and_no_answer_is_answered(
            mut bytes in proptest::collection::vec(any::<u8>(), 0..120),
            version in proptest::sample::select(vec![0x45u8, 0x46, 0x60]),
        ) {
            if let Some(first) = bytes.first_mut() {
                *first = version;
            }
            for at in [2, 4] {
                if let Some(high) = bytes.get_mut(at) {
                    *high = 0;
                }
            }
            if let Some(error) = answer(&bytes) {
                read(&error, &bytes);
                prop_assert_eq!(answer(&error), None);
            }
        }
    }
}
