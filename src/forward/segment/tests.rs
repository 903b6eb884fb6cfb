//! Each rule by which a packet is cut, and each lie that is refused.

use proptest::prelude::*;

use super::{Lie, Segmentation};
use crate::{
    forward::tests::plain::{self, *},
    wire::{
        ip,
        vnet::{VNET_HEADER_LEN, VnetHeader},
    },
};

/// The packets that this one becomes.
fn cut(vnet: &[u8; VNET_HEADER_LEN], packet: &[u8]) -> Result<Vec<Vec<u8>>, Lie> {
    let vnet = VnetHeader::parse(vnet).expect("a known kind");
    let segmentation = Segmentation::new(&vnet, packet, &ip::parse(packet).expect("an IP packet"))?;
    let segment = |at| {
        let mut segment = vec![0xaa; segmentation.segment_len(at)];
        segmentation.write(packet, at, &mut segment);
        segment
    };
    Ok((0..segmentation.count()).map(segment).collect())
}

/// What the kernel would hand out of this, and what it becomes.
fn cut_by(size: usize, whole: &Plain) -> Vec<Vec<u8>> {
    cut(&whole.vnet(size), &whole.unfinished()).expect("a true header")
}

fn wire(packets: &[Plain]) -> Vec<Vec<u8>> {
    packets.iter().map(Plain::bytes).collect()
}

fn lie(vnet: &[u8; VNET_HEADER_LEN], packet: &[u8]) -> Option<Lie> {
    cut(vnet, packet).err()
}

/// Number of a field of the vnet header, changed.
fn with(vnet: [u8; VNET_HEADER_LEN], at: usize, number: u16) -> [u8; VNET_HEADER_LEN] {
    let mut vnet = vnet;
    vnet[at..at + 2].copy_from_slice(&number.to_ne_bytes());
    vnet
}
const GSO_SIZE: usize = 4;
const START: usize = 6;
const OFFSET: usize = 8;

const KINDS: [(bool, u8); 4] = [(false, TCP), (true, TCP), (false, UDP), (true, UDP)];

/// A hop-by-hop header of padding.
fn hop_by_hop() -> (u8, Vec<u8>) {
    (HOP_BY_HOP, vec![0, 0, 1, 4, 0, 0, 0, 0])
}

#[test]
fn a_super_packet_becomes_the_packets_that_the_plain_path_sends() {
    for (v6, protocol) in KINDS {
        for (payload, size) in
            [(1, 1), (7, 1), (3000, 1000), (3001, 1000), (2999, 1000), (1000, 1000), (5, 1368)]
        {
            let whole = plain::packet(v6, protocol, payload);
            let count = payload.div_ceil(size);
            assert_eq!(whole.cut(size).len(), count);
            assert_eq!(cut_by(size, &whole), wire(&whole.cut(size)), "{v6} {protocol} {payload} by {size}");
        }
    }
}

#[test]
fn all_but_the_last_are_equally_long() {
    let whole = plain::packet(false, TCP, 2500);
    let packet = whole.unfinished();
    let vnet = VnetHeader::parse(&whole.vnet(1000)).unwrap();
    let segmentation = Segmentation::new(&vnet, &packet, &ip::parse(&packet).unwrap()).unwrap();
    assert_eq!(segmentation.count(), 3);
    assert_eq!([0, 1, 2].map(|at| segmentation.segment_len(at)), [1040, 1040, 540]);
}

#[test]
fn headers_without_payload_are_one_packet() {
    for (v6, protocol) in KINDS {
        let whole = Plain { flags: FIN | PSH | ACK, ..plain::packet(v6, protocol, 0) };
        assert_eq!(cut_by(1000, &whole), [whole.bytes()]);
    }
}

#[test]
fn the_largest_packet_is_cut() {
    for (v6, protocol) in KINDS {
        let headers = plain::packet(v6, protocol, 0).headers();
        let whole = plain::packet(v6, protocol, 65_535 - headers);
        assert_eq!(whole.unfinished().len(), 65_535);
        for size in [1400, 40_000, 65_535] {
            assert_eq!(cut_by(size, &whole), wire(&whole.cut(size)), "{v6} {protocol} by {size}");
        }
    }
}

#[test]
fn segments_of_one_byte_are_as_many_as_bytes() {
    let whole = plain::packet(false, TCP, 3000);
    let segments = cut_by(1, &whole);
    assert_eq!(segments.len(), 3000);
    assert_eq!(segments, wire(&whole.cut(1)));
}

#[test]
fn sequence_and_identification_count_on_beyond_their_end() {
    let whole =
        Plain { sequence: u32::MAX - 1500, identification: 0xfffe, ..plain::packet(false, TCP, 4000) };
    let segments = cut_by(1000, &whole);
    let identifications: Vec<_> = segments.iter().map(|segment| [segment[4], segment[5]]).collect();
    assert_eq!(identifications, [[0xff, 0xfe], [0xff, 0xff], [0, 0], [0, 1]]);
    let sequence = |segment: &Vec<u8>| u32::from_be_bytes(segment[24..28].try_into().unwrap());
    let sequences: Vec<_> = segments.iter().map(sequence).collect();
    assert_eq!(sequences, [u32::MAX - 1500, u32::MAX - 500, 499, 1499]);
    assert_eq!(segments, wire(&whole.cut(1000)));
}

#[test]
fn fin_and_push_stand_on_the_last_and_cwr_on_the_first() {
    for v6 in [false, true] {
        let whole = Plain { flags: 0xff, ..plain::packet(v6, TCP, 2500) };
        let segments = cut_by(1000, &whole);
        let flags: Vec<_> = segments.iter().map(|segment| segment[whole.transport() + 13]).collect();
        let everywhere = !(CWR | FIN | PSH);
        assert_eq!(flags, [everywhere | CWR, everywhere, everywhere | FIN | PSH]);
        assert_eq!(segments, wire(&whole.cut(1000)));
        let alone = cut_by(2500, &whole);
        assert_eq!(alone, [whole.bytes()], "the only one is the first and the last");
    }
}

#[test]
fn all_other_fields_of_tcp_are_on_each() {
    for flag in [SYN, RST, URG, ECE] {
        let tcp_options = [&[1, 1, 8, 10][..], &[9; 8]].concat();
        let whole = Plain {
            flags: ACK | flag,
            urgent: 700,
            reserved: 0b0101,
            window: 7,
            tcp_options,
            ..plain::packet(true, TCP, 2500)
        };
        assert_eq!(cut_by(1000, &whole), wire(&whole.cut(1000)));
    }
}

#[test]
fn a_header_of_tcp_may_have_all_its_forty_bytes_of_options() {
    let whole = Plain { tcp_options: vec![1; 40], ..plain::packet(false, TCP, 2500) };
    assert_eq!(whole.headers(), 80);
    assert_eq!(cut_by(1000, &whole), wire(&whole.cut(1000)));
}

#[test]
fn options_and_extension_headers_are_on_each() {
    for protocol in [TCP, UDP] {
        let v4 =
            Plain { options: vec![1; 40], tos: 0xb9, fragment: 0, ..plain::packet(false, protocol, 2500) };
        let extensions = vec![hop_by_hop(), (DESTINATION_OPTIONS, [&[0, 1, 1, 12][..], &[0; 12]].concat())];
        let v6 = Plain { extensions, tos: 0xb9, ..plain::packet(true, protocol, 2500) };
        for whole in [v4, v6] {
            assert_eq!(cut_by(999, &whole), wire(&whole.cut(999)));
        }
    }
}

#[test]
fn a_routing_headers_last_stop_stays_in_the_checksum() {
    let last = [0xfd, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9];
    let body = [&[0, 2, 4, 1, 0, 0, 0, 0][..], &last].concat();
    for protocol in [TCP, UDP] {
        let whole = Plain {
            extensions: vec![(ROUTING, body.clone())],
            final_destination: Some(last),
            ..plain::packet(true, protocol, 2500)
        };
        assert_eq!(cut_by(1000, &whole), wire(&whole.cut(1000)));
    }
}

#[test]
fn without_a_partial_checksum_it_is_made_of_the_addresses() {
    for (v6, protocol) in KINDS {
        let whole = plain::packet(v6, protocol, 2500);
        let mut vnet = whole.vnet(1000);
        vnet[0] = 0;
        // Start and offset mean nothing then.
        vnet[6..].fill(0xee);
        let mut packet = whole.unfinished();
        let field = whole.checksum_at();
        packet[field..field + 2].copy_from_slice(&[0x12, 0x34]);
        assert_eq!(cut(&vnet, &packet).unwrap(), wire(&whole.cut(1000)));
    }
}

#[test]
fn a_partial_checksum_that_is_wrong_becomes_no_right_one() {
    let whole = plain::packet(false, UDP, 2500);
    let mut packet = whole.unfinished();
    packet[whole.checksum_at()] ^= 0x40;
    for (segment, right) in cut(&whole.vnet(1000), &packet).unwrap().iter().zip(wire(&whole.cut(1000))) {
        assert_ne!(*segment, right);
    }
}

/// A payload of two bytes with which the checksum of the packet comes out as zero.
fn with_zero_checksum(plain: Plain) -> Plain {
    let plain = Plain { payload: vec![0; 2], ..plain };
    let field = plain.checksum_at();
    Plain { payload: plain.bytes()[field..field + 2].to_vec(), ..plain }
}

#[test]
fn a_checksum_of_zero_is_written_as_ones_in_udp_and_as_zero_in_tcp() {
    for (v6, protocol) in KINDS {
        let plain = with_zero_checksum(plain::packet(v6, protocol, 0));
        let field = plain.checksum_at();
        let bytes = plain.bytes();
        let expected = if protocol == UDP { [0xff; 2] } else { [0; 2] };
        assert_eq!(bytes[field..field + 2], expected);
        assert_eq!(cut_by(1000, &plain), [bytes], "of one segment");
        // The first of two.
        let whole = Plain { payload: [&plain.payload[..], &[1, 2]].concat(), ..plain };
        let segments = cut_by(2, &whole);
        assert_eq!(segments, wire(&whole.cut(2)));
        assert_eq!(segments[0][field..field + 2], expected);
    }
}

#[test]
fn a_whole_packet_is_copied_up_to_where_its_header_ends_it() {
    for (v6, protocol) in KINDS {
        let packet = plain::packet(v6, protocol, 100).bytes();
        assert_eq!(cut(&[0; 10], &packet).unwrap(), std::slice::from_ref(&packet));
        let padded = [&packet[..], &[7; 5]].concat();
        assert_eq!(cut(&[0; 10], &padded).unwrap(), [packet]);
    }
}

#[test]
fn a_missing_checksum_is_finished() {
    for (v6, protocol) in KINDS {
        for payload in [0, 1, 2, 99, 1400] {
            let plain = plain::packet(v6, protocol, payload);
            assert_eq!(cut_by(0, &plain), [plain.bytes()]);
            let padded = [&plain.unfinished()[..], &[7; 5]].concat();
            assert_eq!(
                cut(&plain.vnet(0), &padded).unwrap(),
                [plain.bytes()],
                "what stands behind is not summed"
            );
        }
    }
}

#[test]
fn a_finished_checksum_of_zero_is_written_as_ones() {
    for (v6, protocol) in KINDS {
        // As the kernel's skb_checksum_help does it, whatever the protocol.
        let plain = with_zero_checksum(plain::packet(v6, protocol, 0));
        let field = plain.checksum_at();
        let mut expected = plain.bytes();
        expected[field..field + 2].fill(0xff);
        assert_eq!(cut_by(0, &plain), [expected]);
    }
}

#[test]
fn fragments_and_signed_packets_pass_whole_and_are_never_cut() {
    let fragment = |fragment| Plain { fragment, ..plain::packet(false, UDP, 2500) };
    let v6 = |kind, body: &[u8]| Plain {
        extensions: vec![hop_by_hop(), (kind, body.to_vec())],
        ..plain::packet(true, UDP, 2500)
    };
    let uncut = [
        fragment(MORE_FRAGMENTS),
        fragment(MORE_FRAGMENTS | 100),
        fragment(100),
        v6(FRAGMENT, &[0, 0, 0, 1, 0, 0, 0, 7]),
        v6(FRAGMENT, &[0, 0, 0, 0, 0, 0, 0, 7]),
        v6(FRAGMENT, &[0, 0, 0x10, 0, 0, 0, 0, 7]),
        v6(AUTHENTICATION, &[0, 1, 0, 0, 0, 0, 0, 7, 0, 0, 0, 1]),
    ];
    for plain in uncut {
        assert_eq!(lie(&plain.vnet(1000), &plain.unfinished()), Some(Lie::Headers));
        let packet = plain.bytes();
        assert_eq!(cut(&[0; 10], &packet).unwrap(), [packet]);
    }
}

#[test]
fn a_checksum_outside_of_the_packet_is_a_lie() {
    let plain = plain::packet(false, UDP, 10);
    let (vnet, packet) = (plain.vnet(0), plain.unfinished());
    let len = packet.len() as u16;
    for (start, offset) in [(len, 0), (len - 1, 0), (0, len - 1), (u16::MAX, u16::MAX), (20, len - 21)] {
        let vnet = with(with(vnet, START, start), OFFSET, offset);
        assert_eq!(lie(&vnet, &packet), Some(Lie::ChecksumOutside), "{start} + {offset}");
        let padded = [&packet[..], &[0; 40]].concat();
        assert!(cut(&vnet, &padded).is_err(), "nor is padding inside");
    }
    assert!(cut(&with(with(vnet, START, len - 2), OFFSET, 0), &packet).is_ok());
    assert!(cut(&with(with(vnet, START, 0), OFFSET, len - 2), &packet).is_ok());
}

#[test]
fn a_checksum_that_is_not_where_its_protocol_has_it_is_a_lie() {
    for (v6, protocol) in KINDS {
        let plain = plain::packet(v6, protocol, 100);
        let (vnet, packet) = (plain.vnet(50), plain.unfinished());
        let (start, offset) = (plain.transport() as u16, (plain.checksum_at() - plain.transport()) as u16);
        for (at, number) in [
            (START, start - 1),
            (START, start + 1),
            (OFFSET, offset + 1),
            (OFFSET, 22 - offset),
            (OFFSET, u16::MAX),
        ] {
            assert_eq!(lie(&with(vnet, at, number), &packet), Some(Lie::ChecksumElsewhere), "{at}: {number}");
        }
    }
}

#[test]
fn a_super_packet_of_another_length_than_it_claims_is_a_lie() {
    for (v6, protocol) in KINDS {
        let plain = plain::packet(v6, protocol, 100);
        let longer = [&plain.unfinished()[..], &[0]].concat();
        assert_eq!(lie(&plain.vnet(50), &longer), Some(Lie::Length));
    }
}

#[test]
fn segments_of_no_bytes_are_a_lie() {
    for (v6, protocol) in KINDS {
        let plain = plain::packet(v6, protocol, 100);
        assert_eq!(lie(&with(plain.vnet(50), GSO_SIZE, 0), &plain.unfinished()), Some(Lie::NoSize));
    }
}

#[test]
fn each_kind_is_for_its_own_protocol_and_version() {
    for (v6, protocol) in KINDS {
        let plain = plain::packet(v6, protocol, 100);
        for (kind, right) in [(1, (false, TCP)), (4, (true, TCP)), (5, (v6, UDP))] {
            let mut vnet = plain.vnet(50);
            vnet[1] = kind;
            let expected = (right != (v6, protocol)).then_some(Lie::Headers);
            assert_eq!(lie(&vnet, &plain.unfinished()), expected, "{kind} for {protocol}, {v6}");
        }
        let other = Plain { protocol: 132, ..plain };
        for kind in [1, 4, 5] {
            let mut vnet = other.vnet(50);
            vnet[1] = kind;
            assert_eq!(lie(&vnet, &other.unfinished()), Some(Lie::Headers));
        }
    }
}

#[test]
fn headers_that_do_not_fit_are_a_lie() {
    for v6 in [false, true] {
        let plain = plain::packet(v6, TCP, 10);
        for words in [0, 4, 8, 15] {
            let mut packet = plain.unfinished();
            packet[plain.transport() + 12] = words << 4;
            assert_eq!(lie(&plain.vnet(5), &packet), Some(Lie::Headers), "{words} words of 7 that there are");
        }
        // Shorter than any transport header.
        for protocol in [TCP, UDP] {
            let plain = plain::packet(v6, protocol, 0);
            let mut packet = plain.unfinished();
            packet.truncate(plain.headers() - 1);
            let claimed = packet.len() - if v6 { 40 } else { 0 };
            let field = if v6 { 4 } else { 2 };
            packet[field..field + 2].copy_from_slice(&(claimed as u16).to_be_bytes());
            assert_eq!(lie(&plain.vnet(5), &packet), Some(Lie::Headers));
        }
    }
}

#[test]
fn the_length_of_the_headers_is_measured_and_not_believed() {
    let whole = plain::packet(false, TCP, 2500);
    for headers in [0, 39, 41, u16::MAX] {
        let vnet = with(whole.vnet(1000), 2, headers);
        assert_eq!(cut(&vnet, &whole.unfinished()).unwrap(), wire(&whole.cut(1000)));
    }
}

proptest! {
    #[test]
    fn trains_of_any_size_are_cut_as_the_plain_path_sends_them(
        v6: bool, tcp: bool, payload in 0..5000_usize, size in 1..2000_usize, flags: u8, words in 0..=10_usize,
        sequence: u32, identification: u16, tos: u8,
    ) {
        let protocol = if tcp { TCP } else { UDP };
        let options = vec![1; 4 * words];
        let whole = Plain {
            flags, sequence, identification, tos, tcp_options: options.clone(), options,
            ..plain::packet(v6, protocol, payload)
        };
        prop_assert_eq!(cut_by(size, &whole), wire(&whole.cut(size)));
    }
}
