//! Each rule by which packets become one, and what comes out of those that do not.

use super::{Coalescer, Delivery, Merge};
use crate::{
    forward::{
        segment::Segmentation,
        tests::plain::{self, *},
    },
    wire::{
        ip,
        vnet::{ChecksumPlace, Gso, VNET_HEADER_LEN, VnetHeader},
    },
};

const BOTH: Merge = Merge { tcp: true, udp: true };
const KINDS: [(bool, u8); 4] = [(false, TCP), (true, TCP), (false, UDP), (true, UDP)];
/// Bytes between two packets of a batch: a tag and a header.
const BETWEEN: usize = 32;

/// What comes out, vnet headers first, and of how many each is made.
fn merged_by(merge: Merge, packets: &[Vec<u8>]) -> Vec<(Vec<u8>, u32)> {
    let mut buffer = Vec::new();
    let places: Vec<_> = packets
        .iter()
        .map(|packet| {
            buffer.resize(buffer.len() + BETWEEN, 0xaa);
            let start = buffer.len();
            buffer.extend(packet);
            start..buffer.len()
        })
        .collect();
    let mut coalescer = Coalescer::default();
    coalescer.allow(merge);
    let mut deliveries: Vec<Delivery> =
        places.into_iter().filter_map(|place| coalescer.push(&mut buffer, place)).collect();
    deliveries.extend(coalescer.finish(&mut buffer));
    assert_eq!(coalescer.finish(&mut buffer), None, "all came out");
    deliveries.iter().map(|it| (buffer[it.start..it.end].to_vec(), it.packets)).collect()
}

/// Cuts it again.
fn cut(frame: &[u8]) -> Vec<Vec<u8>> {
    let (vnet, packet) = frame.split_first_chunk::<VNET_HEADER_LEN>().unwrap();
    let (vnet, header) = (VnetHeader::parse(vnet).unwrap(), ip::parse(packet).unwrap());
    let segmentation = Segmentation::new(&vnet, packet, &header).unwrap();
    let segment = |at| {
        let mut segment = vec![0; segmentation.segment_len(at)];
        segmentation.write(packet, at, &mut segment);
        segment
    };
    (0..segmentation.count()).map(segment).collect()
}

/// How many packets each delivery is made of. What comes out is what went in.
fn groups_of(packets: &[Vec<u8>]) -> Vec<u32> {
    let merged = merged_by(BOTH, packets);
    let again: Vec<_> = merged.iter().flat_map(|(frame, _)| cut(frame)).collect();
    assert_eq!(again, packets);
    for (frame, _) in merged.iter().filter(|(_, count)| *count == 1) {
        assert_eq!(frame[..VNET_HEADER_LEN], [0; VNET_HEADER_LEN], "nothing is to be done with one alone");
    }
    merged.into_iter().map(|(_, count)| count).collect()
}

fn groups(packets: &[Plain]) -> Vec<u32> {
    groups_of(&packets.iter().map(Plain::bytes).collect::<Vec<_>>())
}

/// Packets of one flow behind each other, as a sender cuts them.
fn train(v6: bool, protocol: u8, count: usize, size: usize) -> Vec<Plain> {
    plain::packet(v6, protocol, count * size).cut(size)
}

/// Where the second of three differs by this, nothing merges with it.
fn is_apart(v6: bool, protocol: u8, change: impl Fn(&mut Plain)) {
    let mut packets = train(v6, protocol, 3, 100);
    change(&mut packets[1]);
    assert_ne!(packets, train(v6, protocol, 3, 100), "it changes something");
    assert_eq!(groups(&packets), [1, 1, 1], "{v6} {protocol} {:?}", packets[1]);
}

/// Where all differ so, they do not merge.
fn never_merges(v6: bool, protocol: u8, change: impl Fn(&mut Plain)) {
    let mut packets = train(v6, protocol, 3, 100);
    packets.iter_mut().for_each(change);
    assert_eq!(groups(&packets), [1, 1, 1], "{v6} {protocol} {:?}", packets[0]);
}

/// Where all differ so, they merge as ever.
fn merges(v6: bool, protocol: u8, change: impl Fn(&mut Plain)) {
    let mut packets = train(v6, protocol, 3, 100);
    packets.iter_mut().for_each(change);
    assert_eq!(groups(&packets), [3], "{v6} {protocol} {:?}", packets[0]);
}

#[test]
fn what_is_cut_from_one_packet_becomes_that_packet_again() {
    for (v6, protocol) in KINDS {
        for (payload, size) in [(3000, 1000), (2999, 1000), (3001, 1000), (2, 1), (40, 1)] {
            let whole = plain::packet(v6, protocol, payload);
            let packets: Vec<_> = whole.cut(size).iter().map(Plain::bytes).collect();
            let count = packets.len() as u32;
            let expected = [&whole.vnet(size)[..], &whole.unfinished()].concat();
            assert_eq!(merged_by(BOTH, &packets), [(expected, count)], "{v6} {protocol} {payload} by {size}");
            assert_eq!(groups_of(&packets), [count]);
        }
    }
}

#[test]
fn the_vnet_header_says_how_to_cut() {
    for (v6, protocol) in KINDS {
        let packets = train(v6, protocol, 3, 100);
        let (transport, headers) = (packets[0].transport() as u16, packets[0].headers() as u16);
        let bytes: Vec<_> = packets.iter().map(Plain::bytes).collect();
        let [(frame, 3)] = &merged_by(BOTH, &bytes)[..] else { panic!("not one") };
        let (gso, offset) = match (protocol, v6) {
            (TCP, false) => (Gso::TcpV4, 16),
            (TCP, true) => (Gso::TcpV6, 16),
            _ => (Gso::Udp, 6),
        };
        let checksum = Some(ChecksumPlace { start: transport, offset });
        let expected = VnetHeader { checksum, gso, ecn: false, headers_len: headers, gso_size: 100 };
        assert_eq!(VnetHeader::parse(frame.first_chunk().unwrap()), Ok(expected));
    }
}

#[test]
fn only_what_the_device_takes_is_merged() {
    for (v6, protocol) in KINDS {
        let packets: Vec<_> = train(v6, protocol, 3, 100).iter().map(Plain::bytes).collect();
        for (tcp, udp) in [(false, false), (false, true), (true, false), (true, true)] {
            let expected = if protocol == TCP && tcp || protocol == UDP && udp { 1 } else { 3 };
            assert_eq!(merged_by(Merge { tcp, udp }, &packets).len(), expected);
        }
    }
}

#[test]
fn one_alone_stays_as_it_is() {
    for (v6, protocol) in KINDS {
        for payload in [0, 1, 100] {
            let packet = plain::packet(v6, protocol, payload).bytes();
            let frame = [&[0; VNET_HEADER_LEN][..], &packet].concat();
            assert_eq!(merged_by(BOTH, &[packet]), [(frame, 1)]);
        }
    }
    assert_eq!(merged_by(BOTH, &[]), []);
}

#[test]
fn a_shorter_one_is_the_last() {
    for (v6, protocol) in KINDS {
        let sizes = |sizes: &[usize]| {
            let whole = plain::packet(v6, protocol, sizes.iter().sum());
            let mut at = 0;
            let piece = |(n, &size): (usize, &usize)| {
                at += size;
                Plain {
                    payload: whole.payload[at - size..at].to_vec(),
                    sequence: whole.sequence + (at - size) as u32,
                    identification: whole.identification + n as u16,
                    ..whole.clone()
                }
            };
            groups(&sizes.iter().enumerate().map(piece).collect::<Vec<_>>())
        };
        assert_eq!(sizes(&[100, 100, 99]), [3]);
        assert_eq!(sizes(&[100, 1, 100, 100]), [2, 2]);
        assert_eq!(sizes(&[100, 99, 99, 99]), [2, 2]);
        assert_eq!(sizes(&[100, 101, 101, 102]), [1, 2, 1], "a longer one begins anew");
        assert_eq!(sizes(&[100, 100, 101]), [2, 1]);
        assert_eq!(sizes(&[1, 1, 1]), [3]);
        assert_eq!(sizes(&[100, 0, 100]), [1, 1, 1], "nothing is not shorter");
        assert_eq!(sizes(&[0, 0, 0]), [1, 1, 1]);
    }
}

#[test]
fn push_ends_a_run_and_stays_on_the_last() {
    for v6 in [false, true] {
        for (pushed, expected) in [
            (&[2][..], &[3, 3][..]),
            (&[5], &[6]),
            (&[0], &[1, 5]),
            (&[0, 1, 2], &[1, 1, 1, 3]),
            (&[1, 3], &[2, 2, 2]),
            (&[], &[6]),
        ] {
            let mut packets = train(v6, TCP, 6, 100);
            pushed.iter().for_each(|&at| packets[at].flags |= PSH);
            assert_eq!(groups(&packets), expected, "pushed: {pushed:?}");
        }
    }
}

#[test]
fn segments_with_other_flags_than_ack_and_push_and_ece_stay_alone() {
    for v6 in [false, true] {
        for flag in [FIN, SYN, RST, URG, CWR] {
            is_apart(v6, TCP, |packet| packet.flags |= flag);
            never_merges(v6, TCP, |packet| packet.flags |= flag);
        }
        never_merges(v6, TCP, |packet| packet.flags = 0);
        is_apart(v6, TCP, |packet| packet.flags = 0);
        merges(v6, TCP, |packet| packet.flags |= ECE);
    }
}

#[test]
fn ece_is_on_all_or_the_run_ends() {
    for (marked, expected) in [(2..4, vec![2, 2]), (0..2, vec![2, 2]), (1..2, vec![1, 1, 2])] {
        let mut packets = train(false, TCP, 4, 100);
        packets[marked].iter_mut().for_each(|packet| packet.flags |= ECE);
        assert_eq!(groups(&packets), expected);
    }
}

#[test]
fn a_fin_at_the_end_stays_alone_behind_the_rest() {
    let mut packets = train(true, TCP, 4, 100);
    packets[3].flags |= FIN | PSH;
    assert_eq!(groups(&packets), [3, 1]);
}

#[test]
fn cwr_on_the_first_stays_alone_before_the_rest() {
    let mut packets = train(true, TCP, 4, 100);
    packets[0].flags |= CWR;
    assert_eq!(groups(&packets), [1, 3]);
}

#[test]
fn what_differs_in_a_header_of_tcp_keeps_segments_apart() {
    for v6 in [false, true] {
        is_apart(v6, TCP, |packet| packet.acknowledgement += 1);
        is_apart(v6, TCP, |packet| packet.window += 1);
        is_apart(v6, TCP, |packet| packet.urgent = 1);
        is_apart(v6, TCP, |packet| packet.reserved = 1);
        is_apart(v6, TCP, |packet| packet.tcp_options = vec![1; 4]);
        is_apart(v6, TCP, |packet| packet.ports[0] += 1);
        is_apart(v6, TCP, |packet| packet.ports[1] += 1);
        is_apart(v6, TCP, |packet| packet.sequence += 1);
        is_apart(v6, TCP, |packet| packet.sequence -= 1);
    }
}

#[test]
fn timestamps_are_equal_or_keep_segments_apart() {
    let with_timestamp = |packets: &mut [Plain], times: [u8; 3]| {
        for (packet, time) in packets.iter_mut().zip(times) {
            packet.tcp_options = vec![1, 1, 8, 10, 0, 0, 0, time, 0, 0, 0, 9];
        }
    };
    let mut packets = train(false, TCP, 3, 100);
    with_timestamp(&mut packets, [1, 1, 1]);
    assert_eq!(groups(&packets), [3]);
    with_timestamp(&mut packets, [1, 1, 2]);
    assert_eq!(groups(&packets), [2, 1]);
}

#[test]
fn a_gap_or_a_repetition_ends_a_run() {
    for v6 in [false, true] {
        let packets = train(v6, TCP, 5, 100);
        let take = |order: &[usize]| groups(&order.iter().map(|&at| packets[at].clone()).collect::<Vec<_>>());
        assert_eq!(take(&[0, 1, 3, 4]), [2, 2]);
        assert_eq!(take(&[0, 1, 1, 2]), [2, 2]);
        assert_eq!(take(&[2, 1, 0]), [1, 1, 1], "order is never mended");
        assert_eq!(take(&[1, 0, 1, 2]), [1, 3]);
    }
}

#[test]
fn sequence_and_identification_count_on_beyond_their_end() {
    let whole = Plain { sequence: u32::MAX - 150, identification: 0xfffe, ..plain::packet(false, TCP, 400) };
    assert_eq!(groups(&whole.cut(100)), [4]);
}

#[test]
fn what_differs_in_an_ip_header_keeps_packets_apart() {
    for (v6, protocol) in KINDS {
        is_apart(v6, protocol, |packet| packet.hops -= 1);
        is_apart(v6, protocol, |packet| packet.tos = 0x20);
        is_apart(v6, protocol, |packet| packet.tos = 1);
        is_apart(v6, protocol, |packet| packet.source[3] ^= 3);
        is_apart(v6, protocol, |packet| packet.destination[3] ^= 3);
        is_apart(v6, protocol, |packet| packet.ports[1] += 1);
        is_apart(v6, protocol, |packet| packet.ports.swap(0, 1));
    }
    for protocol in [TCP, UDP] {
        is_apart(true, protocol, |packet| packet.label ^= 1);
        is_apart(false, protocol, |packet| packet.fragment = 0);
        is_apart(false, protocol, |packet| packet.fragment |= 0x8000);
        is_apart(false, protocol, |packet| packet.options = vec![1; 4]);
        is_apart(true, protocol, |packet| packet.extensions = vec![(DESTINATION_OPTIONS, vec![0; 8])]);
    }
}

#[test]
fn both_protocols_side_by_side_do_not_mix() {
    let (tcp, udp) = (train(false, TCP, 2, 100), train(false, UDP, 2, 100));
    assert_eq!(groups(&[&tcp[..], &udp].concat()), [2, 2]);
    let (v4, v6) = (train(false, UDP, 2, 100), train(true, UDP, 2, 100));
    assert_eq!(groups(&[&v4[..], &v6].concat()), [2, 2]);
}

#[test]
fn equal_options_and_extension_headers_do_not_hinder() {
    for protocol in [TCP, UDP] {
        merges(false, protocol, |packet| packet.options = vec![1; 40]);
        merges(true, protocol, |packet| {
            let body = vec![0, 0, 1, 4, 0, 0, 0, 0];
            packet.extensions = vec![(HOP_BY_HOP, body.clone()), (DESTINATION_OPTIONS, body)];
        });
    }
    for v6 in [false, true] {
        merges(v6, TCP, |packet| packet.tcp_options = vec![1; 40]);
    }
    for protocol in [TCP, UDP] {
        let mut packets = train(false, protocol, 3, 100);
        packets.iter_mut().zip([7, 7, 8]).for_each(|(packet, option)| packet.options = vec![1, 1, 1, option]);
        assert_eq!(groups(&packets), [2, 1]);
    }
}

#[test]
fn fragments_and_signed_packets_stay_alone() {
    for protocol in [TCP, UDP] {
        for fragment in [MORE_FRAGMENTS, MORE_FRAGMENTS | 5, 5] {
            is_apart(false, protocol, |packet| packet.fragment = fragment);
            never_merges(false, protocol, |packet| packet.fragment = fragment);
        }
        let kinds = [
            (FRAGMENT, vec![0, 0, 0, 1, 0, 0, 0, 7]),
            (FRAGMENT, vec![0, 0, 0, 0, 0, 0, 0, 7]),
            (FRAGMENT, vec![0, 0, 0x10, 0, 0, 0, 0, 7]),
            (AUTHENTICATION, vec![0, 1, 0, 0, 0, 0, 0, 7, 0, 0, 0, 1]),
        ];
        for kind in kinds {
            never_merges(true, protocol, |packet| packet.extensions = vec![kind.clone()]);
        }
    }
}

#[test]
fn a_packet_on_its_way_to_another_stop_stays_alone() {
    // Its checksum is that of addresses which only its routing header knows.
    let last = [0xfd, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9];
    let routing = |left: u8| (ROUTING, [&[0, 2, 4, left, 0, 0, 0, 0][..], &last].concat());
    for protocol in [TCP, UDP] {
        never_merges(true, protocol, |packet| {
            packet.extensions = vec![routing(1)];
            packet.final_destination = Some(last);
        });
        merges(true, protocol, |packet| packet.extensions = vec![routing(0)]);
    }
}

#[test]
fn identifications_count_up_one_by_one() {
    for protocol in [TCP, UDP] {
        for fragment in [0, DONT_FRAGMENT] {
            let with = |numbers: [u16; 4]| {
                let mut packets = train(false, protocol, 4, 100);
                for (packet, number) in packets.iter_mut().zip(numbers) {
                    (packet.identification, packet.fragment) = (number, fragment);
                }
                groups(&packets)
            };
            assert_eq!(with([7, 8, 9, 10]), [4]);
            assert_eq!(with([7, 9, 10, 11]), [1, 3]);
            assert_eq!(with([7, 6, 5, 4]), [1, 1, 1, 1]);
            assert_eq!(with([7, 8, 10, 11]), [2, 2]);
            assert_eq!(with([0xffff, 0, 1, 2]), [4]);
        }
    }
}

#[test]
fn equal_identifications_merge_where_they_mean_nothing_and_are_counted_up_when_cut() {
    for protocol in [TCP, UDP] {
        let equal = |fragment| -> Vec<Vec<u8>> {
            let packets = train(false, protocol, 4, 100).into_iter();
            packets.map(|packet| Plain { identification: 7, fragment, ..packet }.bytes()).collect()
        };
        assert_eq!(groups_of(&equal(0)), [1, 1, 1, 1], "without DF they mean something");

        let [(frame, 4)] = &merged_by(BOTH, &equal(DONT_FRAGMENT))[..] else { panic!("not one") };
        let counted = train(false, protocol, 4, 100).into_iter().zip(7..);
        let counted = counted.map(|(packet, identification)| Plain { identification, ..packet }.bytes());
        assert_eq!(cut(frame), counted.collect::<Vec<_>>(), "nothing else differs");
    }
}

#[test]
fn equal_identifications_and_such_that_count_do_not_mix() {
    let counts = |numbers: [u16; 4]| -> Vec<u32> {
        let packets = train(false, TCP, 4, 100).into_iter().zip(numbers);
        let packets: Vec<_> =
            packets.map(|(packet, identification)| Plain { identification, ..packet }.bytes()).collect();
        merged_by(BOTH, &packets).into_iter().map(|(_, count)| count).collect()
    };
    assert_eq!(counts([7, 8, 8, 8]), [2, 2]);
    assert_eq!(counts([7, 7, 8, 9]), [2, 2]);
    assert_eq!(counts([7, 7, 7, 8]), [3, 1]);
    assert_eq!(counts([0, 0, 0, 0]), [4]);
}

/// Flips a bit of the field at this place.
fn spoil(packet: &mut [u8], at: usize) {
    packet[at] ^= 0x10;
}

#[test]
fn a_wrong_checksum_is_never_made_right() {
    for (v6, protocol) in KINDS {
        let packets = train(v6, protocol, 4, 100);
        let mut places = vec![packets[0].checksum_at(), packets[0].headers() + 50];
        if !v6 {
            places.push(10);
        }
        for at in places {
            for (wrong, expected) in
                [(0, vec![1, 3]), (1, vec![1, 1, 2]), (2, vec![2, 1, 1]), (3, vec![3, 1])]
            {
                let mut bytes: Vec<_> = packets.iter().map(Plain::bytes).collect();
                spoil(&mut bytes[wrong], at);
                assert_eq!(groups_of(&bytes), expected, "{v6} {protocol}: byte {at} of {wrong}");
            }
            let mut bytes: Vec<_> = packets.iter().map(Plain::bytes).collect();
            bytes.iter_mut().for_each(|packet| spoil(packet, at));
            assert_eq!(groups_of(&bytes), [1, 1, 1, 1], "all wrong alike");
        }
    }
}

#[test]
fn udp_without_a_checksum_stays_without() {
    for v6 in [false, true] {
        let mut packets: Vec<_> = train(v6, UDP, 3, 100).iter().map(Plain::bytes).collect();
        let field = plain::packet(v6, UDP, 0).checksum_at();
        packets.iter_mut().for_each(|packet| packet[field..field + 2].fill(0));
        assert_eq!(groups_of(&packets), [1, 1, 1]);
    }
}

/// The same packet with a first word of payload by which its checksum comes out as zero.
fn with_zero_checksum(plain: &Plain) -> Plain {
    let mut plain = plain.clone();
    plain.payload[..2].fill(0);
    let field = plain.checksum_at();
    let checksum = plain.bytes()[field..field + 2].to_vec();
    plain.payload[..2].copy_from_slice(&checksum);
    plain
}

#[test]
fn a_checksum_that_comes_out_as_zero_comes_back_as_it_was() {
    for (v6, protocol) in KINDS {
        let packets: Vec<_> = train(v6, protocol, 3, 100).iter().map(with_zero_checksum).collect();
        let field = packets[0].checksum_at();
        let zero = if protocol == TCP { [0; 2] } else { [0xff; 2] };
        assert!(packets.iter().all(|packet| packet.bytes()[field..field + 2] == zero));
        assert_eq!(groups(&packets), [3]);
        // The other zero is as right in TCP (the kernel's skb_checksum_help writes it), but would not come back.
        if protocol == TCP {
            for other in 0..3 {
                let mut bytes: Vec<_> = packets.iter().map(Plain::bytes).collect();
                bytes[other][field..field + 2].fill(0xff);
                assert!(!groups_of(&bytes).contains(&3));
            }
        }
    }
}

#[test]
fn the_other_zero_in_an_ip_header_stays_as_it_is() {
    for protocol in [TCP, UDP] {
        let mut packets = train(false, protocol, 2, 100);
        for packet in &mut packets {
            packet.identification = 0;
            let checksum = packet.bytes()[10..12].try_into().unwrap();
            packet.identification = u16::from_be_bytes(checksum);
        }
        let mut bytes: Vec<_> = packets.iter().map(Plain::bytes).collect();
        assert!(bytes.iter().all(|packet| packet[10..12] == [0; 2]));
        assert_eq!(merged_by(BOTH, &bytes).len(), 1);
        bytes.iter_mut().for_each(|packet| packet[10..12].fill(0xff));
        assert_eq!(groups_of(&bytes), [1, 1]);
    }
}

#[test]
fn udp_that_claims_another_length_than_it_has_stays_alone() {
    for v6 in [false, true] {
        for claimed in [0, 7, 8, 107, 109, u16::MAX] {
            let plain = plain::packet(v6, UDP, 100);
            let mut packet = plain.bytes();
            packet[plain.transport() + 4..plain.transport() + 6].copy_from_slice(&claimed.to_be_bytes());
            assert_eq!(groups_of(&vec![packet; 3]), [1, 1, 1]);
        }
    }
}

#[test]
fn sixty_four_datagrams_are_the_most_and_segments_have_no_such_bound() {
    for v6 in [false, true] {
        assert_eq!(groups(&train(v6, UDP, 64, 10)), [64]);
        assert_eq!(groups(&train(v6, UDP, 130, 10)), [64, 64, 2]);
        assert_eq!(groups(&train(v6, TCP, 130, 10)), [130]);
    }
}

#[test]
fn no_packet_grows_beyond_the_largest_there_is() {
    for (v6, protocol) in KINDS {
        let headers = plain::packet(v6, protocol, 0).headers();
        let room = 65_535 - headers;
        let exact = plain::packet(v6, protocol, room).cut(13_200);
        assert_eq!(groups(&exact), [5]);
        let one_more = plain::packet(v6, protocol, room + 1).cut(13_200);
        assert_eq!(groups(&one_more), [4, 1], "{v6} {protocol}");
        let largest = [plain::packet(v6, protocol, room), plain::packet(v6, protocol, 1)];
        assert_eq!(groups(&largest), [1, 1]);
        assert_eq!(groups(&train(v6, protocol, 3, 40_000)), [1, 1, 1]);
    }
}

#[test]
fn what_is_of_no_mergeable_kind_comes_between_and_keeps_its_place() {
    for (v6, protocol) in KINDS {
        let packets: Vec<_> = train(v6, protocol, 4, 100).iter().map(Plain::bytes).collect();
        let (first, last) = packets.split_at(2);
        let icmp = Plain { protocol: if v6 { 58 } else { 1 }, ..plain::packet(v6, UDP, 100) }.bytes();
        let mut short = plain::packet(v6, protocol, 0).bytes();
        short.truncate(plain::packet(v6, protocol, 0).transport());
        let (field, claimed) = if v6 { (4, 0) } else { (2, 20) };
        short[field..field + 2].copy_from_slice(&(claimed as u16).to_be_bytes());
        for between in [icmp, short, plain::packet(v6, protocol, 0).bytes()] {
            assert_eq!(groups_of(&[first, &[between], last].concat()), [2, 1, 2]);
        }
    }
}

#[test]
fn flows_in_turn_keep_their_turns() {
    let one = train(false, TCP, 4, 100);
    let other: Vec<_> = one.iter().map(|packet| Plain { ports: [1, 2], ..packet.clone() }).collect();
    let turns: Vec<_> = one.iter().zip(&other).flat_map(|(a, b)| [a.clone(), b.clone()]).collect();
    assert_eq!(groups(&turns), [1; 8]);
}

#[test]
fn a_header_of_tcp_that_leads_out_of_the_packet_is_none() {
    for v6 in [false, true] {
        for words in [0, 4, 15] {
            let plain = plain::packet(v6, TCP, 30);
            let mut packet = plain.bytes();
            packet[plain.transport() + 12] = words << 4;
            assert_eq!(groups_of(&vec![packet; 2]), [1, 1]);
        }
    }
}
