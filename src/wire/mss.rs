//! The maximum segment size that a TCP SYN names (RFC 9293, section 3.7.1), lowered to what a tunnel carries.

use super::ip::{self, TCP, TCP_HEADER_LEN, UpperLayer, V4_HEADER_LEN, V6_HEADER_LEN};

/// Where its flags and its checksum are.
const FLAGS: usize = 13;
const CHECKSUM: usize = 16;
const SYN: u8 = 0x02;
const RST: u8 = 0x04;
/// Options: kind, and for all but the first two a length.
const END: u8 = 0;
const NOTHING: u8 = 1;
const MSS: u8 = 2;

/// Whether the checksum stands in the packet, or the kernel left it to whoever sends it (CHECKSUM_PARTIAL).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Checksum {
    /// It is there, and changes with what it covers.
    Whole,
    /// It is yet to be made.
    Unfinished,
}

/// Lowers the MSS of a SYN so that the segments that answer it, headers included, are packets of `mtu` bytes at most;
/// true if it was larger. As the kernel's TCPMSS target, it raises nothing and adds no option: without one a segment has
/// 536 bytes (1220 over IPv6), which each MTU that may be set carries, or nearly.
pub fn clamp(packet: &mut [u8], mtu: u16, checksum: Checksum) -> bool {
    let Some((at, option)) = find(packet) else { return false };
    let headers = if packet[0] >> 4 == 4 { V4_HEADER_LEN } else { V6_HEADER_LEN } + TCP_HEADER_LEN;
    let most = usize::from(mtu).saturating_sub(headers) as u16; // no more than mtu
    let named = u16::from_be_bytes([packet[option], packet[option + 1]]);
    if named <= most {
        return false;
    }
    let words = even(at, option);
    let before = sum(&packet[words.clone()]);
    packet[option..option + 2].copy_from_slice(&most.to_be_bytes());
    let after = sum(&packet[words]);
    if checksum == Checksum::Whole {
        adjust(packet, at + CHECKSUM, before, after);
    }
    true
}

/// A look at two or three bytes, which tells all but SYNs apart, and costs a packet next to nothing. (Behind IPv6
/// extension headers nobody sends one.)
#[inline]
pub fn may_be_syn(packet: &[u8]) -> bool {
    let tcp = match packet.first() {
        Some(first @ 0x45..=0x4f) if packet.get(9) == Some(&TCP) => usize::from(first & 0x0f) * 4,
        Some(0x60..=0x6f) if packet.get(6) == Some(&TCP) => V6_HEADER_LEN,
        _ => return false,
    };
    packet.get(tcp + FLAGS).is_some_and(|flags| flags & SYN != 0)
}

/// Where the TCP header of a SYN begins, and where the value of its MSS option stands.
fn find(packet: &[u8]) -> Option<(usize, usize)> {
    let header = ip::parse(packet).ok()?;
    let UpperLayer { protocol: TCP, at, whole: true } = ip::find_upper_layer(&packet[..header.total_len])?
    else {
        return None;
    };
    let tcp = &packet[at..header.total_len];
    let (offset, flags) = (tcp.get(12)?, tcp.get(FLAGS)?);
    if flags & (SYN | RST) != SYN {
        return None;
    }
    let end = usize::from(offset >> 4) * 4;
    let mut option = TCP_HEADER_LEN;
    while option < end {
        match *tcp.get(option)? {
            END => return None,
            NOTHING => option += 1,
            kind => {
                let len = usize::from(*tcp.get(option + 1)?);
                if len < 2 || option + len > end.min(tcp.len()) {
                    return None;
                }
                if kind == MSS && len == 4 {
                    return Some((at, at + option + 2));
                }
                option += len;
            }
        }
    }
    None
}

/// The 16-bit words of the TCP header at `at` that hold the two bytes at `option`, which may lie across two.
fn even(at: usize, option: usize) -> std::ops::Range<usize> {
    let start = option - (option - at) % 2;
    start..start + if start == option { 2 } else { 4 }
}

fn sum(words: &[u8]) -> u32 {
    words.chunks_exact(2).map(|word| u32::from(u16::from_be_bytes([word[0], word[1]]))).sum()
}

/// RFC 1624: the checksum follows what it covers, and stays wrong if it was wrong.
fn adjust(packet: &mut [u8], at: usize, before: u32, after: u32) {
    let complement = |sum: u32| 2 * 0xffff - sum; // of two words at most
    let old = u16::from_be_bytes([packet[at], packet[at + 1]]);
    let mut folded = u32::from(!old) + complement(before) + after;
    while folded > 0xffff {
        folded = (folded & 0xffff) + (folded >> 16);
    }
    packet[at..at + 2].copy_from_slice(&(!(folded as u16)).to_be_bytes());
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::wire::{
        checksum::Sum,
        samples::{v4, v6},
    };

    /// A TCP header with these flags and options, and so much behind it; its checksum is right.
    fn segment(family: u8, flags: u8, options: &[u8], payload: usize) -> Vec<u8> {
        let mut tcp = vec![0x11; TCP_HEADER_LEN];
        tcp[12] = (((TCP_HEADER_LEN + options.len()) / 4) << 4) as u8;
        tcp[FLAGS] = flags;
        tcp[CHECKSUM..CHECKSUM + 2].fill(0);
        tcp.extend_from_slice(options);
        tcp.resize(tcp.len() + payload, 0x77);
        let mut packet = if family == 4 { v4(TCP, &tcp) } else { v6(TCP, &tcp) };
        let at = packet.len() - tcp.len();
        let sum = checksum(&packet, at).finish();
        packet[at + CHECKSUM..at + CHECKSUM + 2].copy_from_slice(&sum);
        packet
    }

    fn checksum(packet: &[u8], at: usize) -> Sum {
        let header = ip::parse(packet).unwrap();
        let len = (packet.len() - at) as u16;
        Sum::pseudo_header(header.source, header.destination, TCP) + Sum::word(len) + Sum::of(&packet[at..])
    }

    fn named(packet: &[u8]) -> u16 {
        let (_, option) = find(packet).expect("an MSS");
        u16::from_be_bytes([packet[option], packet[option + 1]])
    }

    const LARGE: [u8; 4] = [MSS, 4, 0x05, 0xb4]; // 1460

    #[test]
    fn the_mss_of_a_syn_is_lowered_to_what_fits_and_its_checksum_stays_right() {
        for (family, most) in [(4, 1380), (6, 1360)] {
            for flags in [SYN, SYN | 0x10] {
                let mut packet = segment(family, flags, &LARGE, 0);
                assert!(may_be_syn(&packet) && !may_be_syn(&segment(family, 0x10, &LARGE, 0)));
                assert!(clamp(&mut packet, 1420, Checksum::Whole));
                assert_eq!(named(&packet), most);
                let at = packet.len() - TCP_HEADER_LEN - 4;
                assert!(checksum(&packet, at).is_right());
                assert!(!clamp(&mut packet, 1420, Checksum::Whole), "once is enough");
            }
        }
    }

    #[test]
    fn a_checksum_that_is_not_made_yet_is_left_alone() {
        let mut packet = segment(4, SYN, &LARGE, 0);
        let before = packet.clone();
        assert!(clamp(&mut packet, 1420, Checksum::Unfinished));
        let changed: Vec<usize> = (0..packet.len()).filter(|&n| packet[n] != before[n]).collect();
        assert_eq!(changed, [43], "1460 and 1380 differ in one byte");
    }

    #[test]
    fn what_is_no_syn_or_small_enough_or_names_none_stays_as_it_is() {
        let small = [MSS, 4, 0x02, 0x18]; // 536
        let cases = [
            segment(4, 0x10, &LARGE, 9),
            segment(4, SYN | RST, &LARGE, 0),
            segment(4, SYN, &small, 0),
            segment(4, SYN, &[], 0),
            segment(4, SYN, &[NOTHING, NOTHING, END, 0, MSS, 4, 5, 180], 0), // behind the end
            segment(4, SYN, &[3, 1, MSS, 4, 5, 180, 0, 0], 0),               // an option of no length
            segment(4, SYN, &[3, 0, 0, 0], 0),
            segment(4, SYN, &[NOTHING, NOTHING, MSS, 4], 0), // cut off by the end of the header
            v4(ip::UDP, &[SYN; 40]),
            v6(ip::UDP, &[SYN; 40]),
            vec![],
            vec![0x45],
        ];
        for packet in cases {
            let mut same = packet.clone();
            assert!(!clamp(&mut same, 1420, Checksum::Whole), "{packet:?}");
            assert_eq!(same, packet);
            let _looked_at = may_be_syn(&packet);
        }
    }

    #[test]
    fn a_fragment_is_left_alone() {
        let mut packet = segment(4, SYN, &LARGE, 0);
        packet[6] = 0x20; // more fragments
        assert!(!clamp(&mut packet, 1420, Checksum::Whole));
    }

    #[test]
    fn an_option_at_an_odd_place_is_found_and_its_checksum_right() {
        for family in [4, 6] {
            let mut packet = segment(family, SYN, &[NOTHING, MSS, 4, 0x05, 0xb4, NOTHING, NOTHING, END], 7);
            let at = packet.len() - TCP_HEADER_LEN - 8 - 7;
            assert!(clamp(&mut packet, 1280, Checksum::Whole));
            assert_eq!(named(&packet), if family == 4 { 1240 } else { 1220 });
            assert!(checksum(&packet, at).is_right());
        }
    }

    #[test]
    fn a_wrong_checksum_stays_wrong() {
        let mut packet = segment(4, SYN, &LARGE, 0);
        let at = packet.len() - TCP_HEADER_LEN - 4;
        packet[at + CHECKSUM] ^= 1;
        assert!(clamp(&mut packet, 1420, Checksum::Whole));
        assert!(!checksum(&packet, at).is_right());
    }

    proptest! {
        #[test]
        fn whatever_comes_nothing_panics_and_nothing_grows(mut packet: Vec<u8>, mtu: u16, first in 0..4_u8) {
            // Most random bytes are no IP at all.
            if let [version, .., ] = &mut packet[..] {
                *version = [0x45, 0x60, 0x4f, *version][usize::from(first)];
            }
            let before = packet.clone();
            let changed = clamp(&mut packet, mtu, Checksum::Whole);
            prop_assert_eq!(packet.len(), before.len());
            prop_assert_eq!(changed, packet != before);
        }

        #[test]
        fn a_checksum_that_was_right_is_right(mtu in 576..9000_u16, mss: u16, odd: bool, payload in 0..50_usize) {
            let [high, low] = mss.to_be_bytes();
            let options = if odd { [NOTHING, MSS, 4, high, low, 0, 0, 0] } else { [MSS, 4, high, low, 1, 1, 1, 0] };
            let mut packet = segment(4, SYN, &options, payload);
            let at = packet.len() - TCP_HEADER_LEN - 8 - payload;
            let lowered = clamp(&mut packet, mtu, Checksum::Whole);
            prop_assert_eq!(lowered, mss > mtu - 40);
            prop_assert_eq!(named(&packet), mss.min(mtu - 40));
            prop_assert!(checksum(&packet, at).is_right());
        }
    }
}
