//! What the outer IP header says because of the packet inside: the congestion mark, and how deep tunnels nest.
//!
//! A tunnel may run inside a tunnel. When the way to an endpoint leads, over whatever other tunnels, into the tunnel
//! that it belongs to, each lap wraps a datagram once more, and nothing that is sealed tells how often. The hop limit
//! of the outer header is all that the next tunnel on the way can read, so depth is told by it: a datagram of
//! WireGuard that is wrapped again hands its hop limit on, a layer lower.

use std::num::NonZeroU8;

use super::{
    ecn::{self, Ecn},
    ip,
    message::{Kind, classify},
};

/// Hops that a tunnel costs what runs inside it. A datagram starts with 64 (RFC 1700, and every kernel), so there are
/// at most four tunnels in each other; the second leaves with 48, more than the longest ways of the Internet take.
const LAYER: u8 = 16;
/// More than this is not handed on, whoever sealed the datagram first.
const HIGHEST: u8 = 64;

/// What an outer header says beside addresses; the DSCP is always 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Outer {
    /// Congestion field (RFC 6040, section 4.1: that of the packet inside).
    pub ecn: Ecn,
    /// Hop limit, or TTL; `None`: the host's own.
    pub hop_limit: Option<NonZeroU8>,
}

/// So many tunnels are in each other that it must be a loop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooDeep;

impl Outer {
    /// For a whole IP packet of which `header` was read.
    pub fn of(packet: &[u8], header: &ip::Header) -> Result<Self, TooDeep> {
        let hop_limit = match is_sealed(packet, header) {
            true => Some(layer_below(hop_limit(packet)).ok_or(TooDeep)?),
            false => None,
        };
        Ok(Self { ecn: ecn::encapsulate(header.ecn), hop_limit })
    }
}

impl From<Ecn> for Outer {
    /// With the host's own hop limit.
    fn from(ecn: Ecn) -> Self {
        Self { ecn, hop_limit: None }
    }
}

/// The next multiple of a layer below: single hops between two tunnels are not what is counted, and yet each wrap
/// takes one at least, so that no loop lasts.
fn layer_below(hop_limit: u8) -> Option<NonZeroU8> {
    NonZeroU8::new(hop_limit.min(HIGHEST).saturating_sub(1) / LAYER * LAYER)
}

/// Is it sealed data of a WireGuard already, anybody's? Looks no further than one byte into what is not UDP.
///
/// A later fragment does not show, and starts anew. That is bounded, too: its four laps add some 300 bytes, so what is
/// cut off it again is smaller than the MTU by far, and is not cut a third time.
fn is_sealed(packet: &[u8], header: &ip::Header) -> bool {
    if header.source.is_ipv4() && packet[9] != ip::UDP {
        return false;
    }
    // TCP and ICMPv6 have no extension headers in front of them that would hide UDP.
    if header.source.is_ipv6() && matches!(packet[6], ip::TCP | ip::ICMPV6) {
        return false;
    }
    let Some((ip::UDP, udp)) = ip::upper_layer(packet) else { return false };
    let datagram = udp.get(ip::UDP_HEADER_LEN..).unwrap_or_default();
    classify(datagram) == Ok(Kind::Transport)
}

/// TTL or hop limit of a packet whose header is whole.
fn hop_limit(packet: &[u8]) -> u8 {
    if packet[0] >> 4 == 4 { packet[8] } else { packet[7] }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Sealed data as it looks from outside.
    const SEALED: [u8; 32] = {
        let mut bytes = [7; 32];
        [bytes[0], bytes[1], bytes[2], bytes[3]] = [4, 0, 0, 0];
        bytes
    };

    fn v4(protocol: u8, hop_limit: u8, payload: &[u8]) -> Vec<u8> {
        let total = (20 + payload.len() as u16).to_be_bytes();
        let mut packet = vec![0x45, 2, total[0], total[1], 0, 0, 0, 0, hop_limit, protocol, 0, 0];
        packet.extend([10, 0, 0, 1, 10, 0, 0, 2]);
        packet.extend(payload);
        packet
    }

    fn v6(next: u8, hop_limit: u8, payload: &[u8]) -> Vec<u8> {
        let len = (payload.len() as u16).to_be_bytes();
        let mut packet = vec![0x60, 0x20, 0, 0, len[0], len[1], next, hop_limit];
        packet.extend([0xfd; 32]);
        packet.extend(payload);
        packet
    }

    fn udp(payload: &[u8]) -> Vec<u8> {
        [&[0; 8], payload].concat()
    }

    fn outer(packet: &[u8]) -> Result<Option<u8>, TooDeep> {
        let header = ip::parse(packet).expect("a packet");
        let outer = Outer::of(packet, &header)?;
        assert_eq!(outer.ecn, Ecn::Ect0);
        Ok(outer.hop_limit.map(NonZeroU8::get))
    }

    #[test]
    fn sealed_data_of_anybody_leaves_a_layer_lower_and_nothing_else_does() {
        assert_eq!(outer(&v4(17, 64, &udp(&SEALED))), Ok(Some(48)));
        assert_eq!(outer(&v6(17, 64, &udp(&SEALED))), Ok(Some(48)));
        let mut initiation = [0; 148];
        initiation[0] = 1;
        for plain in [&SEALED[..31], &[4, 0, 0, 1], b"", &[5; 32], &initiation] {
            assert_eq!(outer(&v4(17, 1, &udp(plain))), Ok(None), "{plain:?}");
            assert_eq!(outer(&v6(17, 1, &udp(plain))), Ok(None), "{plain:?}");
        }
        for protocol in [1, 6, 47, 58] {
            assert_eq!(outer(&v4(protocol, 1, &udp(&SEALED))), Ok(None), "{protocol}");
            assert_eq!(outer(&v6(protocol, 1, &udp(&SEALED))), Ok(None), "{protocol}");
        }
        assert_eq!(outer(&v4(17, 1, &[0; 7])), Ok(None), "no UDP header");
    }

    #[test]
    fn four_tunnels_fit_into_each_other_and_a_fifth_does_not() {
        for make in [v4, v6] {
            let depth = |mut hop_limit| {
                let mut tunnels = 1;
                while let Ok(lower) = outer(&make(17, hop_limit, &udp(&SEALED))) {
                    hop_limit = lower.expect("it is sealed");
                    tunnels += 1;
                }
                tunnels
            };
            assert_eq!([255, 128, 64, 63, 49].map(depth), [4; 5]);
            assert_eq!([48, 33, 32, 17, 16, 1, 0].map(depth), [3, 3, 2, 2, 1, 1, 1]);
        }
    }

    #[test]
    fn what_was_sealed_shows_in_the_first_fragment_and_behind_extension_headers() {
        let mut fragment = v4(17, 64, &udp(&[&SEALED[..], &[9; 100]].concat()));
        fragment[6] = 0x20;
        assert_eq!(outer(&fragment), Ok(Some(48)));
        fragment[7] = 0x20;
        assert_eq!(outer(&fragment), Ok(None), "a later one");

        let behind = [&[17, 0, 0, 1, 0, 0, 0, 1][..], &udp(&SEALED)].concat();
        assert_eq!(outer(&v6(44, 64, &behind)), Ok(Some(48)));
        assert_eq!(outer(&v6(60, 64, &behind)), Ok(Some(48)));
    }

    proptest! {
        #[test]
        fn each_wrap_takes_a_hop_at_least_and_no_bytes_panic(
            sealed in any::<bool>(),
            six in any::<bool>(),
            hop_limit in any::<u8>(),
            next in any::<u8>(),
            mut payload in proptest::collection::vec(any::<u8>(), 0..100),
        ) {
            if sealed {
                payload = udp(&[&SEALED[..], &payload].concat());
            }
            let next = if sealed { 17 } else { next };
            let packet = if six { v6(next, hop_limit, &payload) } else { v4(next, hop_limit, &payload) };
            let before = outer(&packet);
            if sealed {
                prop_assert!(before.is_err() || before.unwrap().unwrap() < hop_limit);
            }
        }
    }
}
