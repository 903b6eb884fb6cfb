//! Explicit congestion notification through a tunnel (RFC 6040, normal mode).

/// The two ECN bits of an IP header (RFC 3168, section 5).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
#[repr(u8)]
pub enum Ecn {
    /// Not ECN-capable.
    #[default]
    NotEct = 0,
    /// ECT(1).
    Ect1 = 1,
    /// ECT(0).
    Ect0 = 2,
    /// Congestion experienced.
    Ce = 3,
}

impl Ecn {
    /// From the two low bits of a TOS or traffic-class byte; the DSCP above them is ignored.
    pub fn from_tos(tos: u8) -> Self {
        match tos & 3 {
            0 => Self::NotEct,
            1 => Self::Ect1,
            2 => Self::Ect0,
            _ => Self::Ce,
        }
    }
}

/// The outer field of a packet with this inner one (RFC 6040, section 4.1: copied).
pub fn encapsulate(inner: Ecn) -> Ecn {
    inner
}

/// The inner field to deliver (RFC 6040, figure 4); `None`: the packet must be dropped.
pub fn decapsulate(inner: Ecn, outer: Ecn) -> Option<Ecn> {
    match (inner, outer) {
        // The sender would not understand the mark, so loss has to say it (section 4.2).
        (Ecn::NotEct, Ecn::Ce) => None,
        (Ecn::NotEct, _) => Some(Ecn::NotEct),
        (_, Ecn::Ce) | (Ecn::Ce, _) => Some(Ecn::Ce),
        // ECT(1) may say something that ECT(0) does not (a weaker mark): it is kept from either header.
        (Ecn::Ect0, Ecn::Ect1) => Some(Ecn::Ect1),
        (inner, _) => Some(inner),
    }
}

/// Writes the ECN bits of an IPv4 or IPv6 packet, and mends the IPv4 header checksum (RFC 1624).
/// Bytes that are too short for such a header, or of another version, stay as they are.
pub fn mark(packet: &mut [u8], ecn: Ecn) {
    match packet.first().map(|byte| byte >> 4) {
        Some(4) if packet.len() >= 20 => mark_v4(packet, ecn),
        // The traffic class straddles the first two bytes: its two low bits are bits 5 and 4 of the second.
        Some(6) if packet.len() >= 40 => packet[1] = packet[1] & !0x30 | (ecn as u8) << 4,
        _ => {}
    }
}

/// RFC 1624, equation 3: HC' = ~(~HC + ~m + m'). A wrong checksum stays exactly as wrong as it was.
fn mark_v4(packet: &mut [u8], ecn: Ecn) {
    let word = |bytes: &[u8], at| u16::from_be_bytes([bytes[at], bytes[at + 1]]);
    let (before, checksum) = (word(packet, 0), word(packet, 10));
    packet[1] = packet[1] & !3 | ecn as u8;
    let sum = u32::from(!checksum) + u32::from(!before) + u32::from(word(packet, 0));
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = (sum & 0xffff) + (sum >> 16);
    packet[10..12].copy_from_slice(&(!(sum as u16)).to_be_bytes());
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::wire::checksum::Sum;

    const ALL: [Ecn; 4] = [Ecn::NotEct, Ecn::Ect1, Ecn::Ect0, Ecn::Ce];

    #[test]
    fn the_bits_are_those_of_rfc_3168() {
        for (bits, ecn) in [(0b00, Ecn::NotEct), (0b01, Ecn::Ect1), (0b10, Ecn::Ect0), (0b11, Ecn::Ce)] {
            assert_eq!(Ecn::from_tos(bits), ecn);
            assert_eq!(Ecn::from_tos(0b1011_1000 | bits), ecn, "a DSCP does not matter");
            assert_eq!(ecn as u8, bits);
        }
    }

    #[test]
    fn the_outer_field_is_a_copy() {
        for ecn in ALL {
            assert_eq!(encapsulate(ecn), ecn);
        }
    }

    #[test]
    fn decapsulation_is_figure_4_of_rfc_6040() {
        use Ecn::*;
        let outer = [NotEct, Ect0, Ect1, Ce];
        let figure = [
            (NotEct, [Some(NotEct), Some(NotEct), Some(NotEct), None]),
            (Ect0, [Some(Ect0), Some(Ect0), Some(Ect1), Some(Ce)]),
            (Ect1, [Some(Ect1), Some(Ect1), Some(Ect1), Some(Ce)]),
            (Ce, [Some(Ce), Some(Ce), Some(Ce), Some(Ce)]),
        ];
        for (inner, row) in figure {
            for (outer, delivered) in outer.into_iter().zip(row) {
                assert_eq!(decapsulate(inner, outer), delivered, "inner {inner:?}, outer {outer:?}");
            }
        }
    }

    #[test]
    fn marking_v6_touches_the_two_bits_alone() {
        for ecn in ALL {
            let mut packet = [0xffu8; 48];
            packet[0] = 0x6f;
            let mut expected = packet;
            expected[1] = 0xcf | (ecn as u8) << 4;
            mark(&mut packet, ecn);
            assert_eq!(packet, expected);
            assert_eq!(Ecn::from_tos(packet[1] >> 4), ecn);
        }
    }

    #[test]
    fn what_is_no_ip_header_stays_as_it_is() {
        for original in [&[][..], &[0x45; 19], &[0x60; 39], &[0x50; 60], &[0x00; 60]] {
            let mut bytes = original.to_vec();
            mark(&mut bytes, Ecn::Ce);
            assert_eq!(bytes, original);
        }
    }

    #[test]
    fn the_mended_v4_checksum_is_the_calculated_one() {
        fn with_checksum(mut header: [u8; 20]) -> [u8; 20] {
            header[10..12].fill(0);
            let checksum = Sum::of(&header).finish();
            header[10..12].copy_from_slice(&checksum);
            header
        }
        // Each identification, so that each checksum comes up and each carry with it.
        for identification in 0..=u16::MAX {
            let [high, low] = identification.to_be_bytes();
            for (before, after) in ALL.into_iter().flat_map(|before| ALL.map(|after| (before, after))) {
                let mut header =
                    [0x45, 0xb8, 0, 20, high, low, 0, 0, 64, 17, 0, 0, 10, 77, 0, 1, 10, 77, 0, 2];
                header[1] |= before as u8;
                let mut marked = with_checksum(header);
                mark(&mut marked, after);
                header[1] = 0xb8 | after as u8;
                assert_eq!(marked, with_checksum(header), "{before:?} to {after:?}, {identification}");
            }
        }
    }

    proptest! {
        #[test]
        fn a_wrong_v4_checksum_is_not_made_right(
            mut packet in proptest::collection::vec(any::<u8>(), 20),
            ecn in proptest::sample::select(&ALL[..]),
        ) {
            packet[0] = 0x45;
            let right = Sum::of(&packet).is_right();
            mark(&mut packet, ecn);
            prop_assert_eq!(Sum::of(&packet).is_right(), right);
        }
    }
}
