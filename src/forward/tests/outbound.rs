//! From the TUN on.

use std::num::NonZeroU8;

use super::*;
use crate::forward::session::{REJECT_AFTER_MESSAGES, REKEY_AFTER_MESSAGES};
use crate::wire::vnet::{ChecksumPlace, Gso};
use crate::wire::{
    ecn::mark,
    icmp,
    message::{Index, TransportHeader},
    outer::Outer,
};

#[test]
fn a_packet_is_sealed_for_the_peer_that_owns_its_destination() {
    let mut two = Two::new();
    let sent = packet("10.0.0.1", "10.0.0.2", 57);
    let Outbound::Send { peer, to, datagram, outer } = two.left.outbound(&sent, START) else {
        panic!("not sent")
    };
    assert_eq!((peer.id, to, outer), (PeerId(2), endpoint(RIGHT), Outer::default()));
    assert_eq!(datagram.len(), 16 + 80 + 16, "77 bytes are padded to 80");
    let header = TransportHeader::parse(&datagram).expect("a transport message");
    assert_eq!(header, TransportHeader { receiver: Index(0x0200_0002), counter: 0 });
    let mut sealed = datagram[16..].to_vec();
    let plaintext = two.right_session.open(0, &mut sealed).expect("the same keys");
    assert_eq!((&plaintext[..77], &plaintext[77..]), (&sent[..], &[0; 3][..]));
    assert_eq!(two.left.refusals(), []);
}

#[test]
fn padding_holds_nothing_of_an_earlier_packet() {
    let mut two = Two::new();
    two.left.carriers.fill(0xff);
    let datagram = two.left.sealed(&packet("10.0.0.1", "10.0.0.2", 1), START);
    let mut sealed = datagram[16..].to_vec();
    let plaintext = two.right_session.open(0, &mut sealed).expect("the same keys");
    assert_eq!(plaintext[21..], [0; 11]);
}

#[test]
fn bytes_behind_the_length_that_the_header_claims_are_not_sent() {
    let mut two = Two::new();
    let mut longer = packet("10.0.0.1", "10.0.0.2", 12);
    longer.extend([0xff; 300]);
    assert_eq!(two.left.sealed(&longer, START).len(), 16 + 32 + 16);
}

#[test]
fn the_largest_packet_fits_its_buffer() {
    let mut two = Two::new();
    assert_eq!(two.left.intake.space().map(|space| space.len()), Some(VNET_HEADER_LEN + 65_535));
    for length in [65_535, 65_534, 65_520] {
        let datagram = two.left.sealed(&packet("10.0.0.1", "10.0.0.2", length - 20), START);
        assert!((length + 32..length + 48).contains(&datagram.len()));
    }
}

#[test]
fn counters_go_up_by_one_and_activity_follows() {
    let mut two = Two::new();
    for counter in 0..5 {
        let header = TransportHeader::parse(&two.sealed_by_left()).expect("a transport message");
        assert_eq!(header.counter, counter);
    }
    let activity = &two.to_right.activity;
    assert_eq!((load(&activity.tx_packets), load(&activity.tx_bytes)), (5, 5 * 160));
    assert_eq!((load(&activity.sent), load(&activity.unanswered_since)), (START.0, START.0));
    assert_eq!(two.left.raised(), [(PeerId(2), Raised::TIMER)], "one notice for five packets");
}

#[test]
fn what_hosts_say_to_the_whole_link_is_neither_answered_nor_taken_for_a_missing_peer() {
    let mut two = Two::new();
    let lost = packet("10.0.0.1", "10.0.0.9", 8);
    assert!(matches!(two.left.outbound(&lost, START), Outbound::Unreachable(_)));
    let to_all =
        ["224.0.0.22", "224.0.0.251", "255.255.255.255", "ff02::2", "ff02::16", "ff12::1", "ff01::1"];
    for group in to_all {
        let source = if group.contains(':') { "fe80::1" } else { "10.0.0.1" };
        let outcome = two.left.outbound(&packet(source, group, 8), START);
        assert!(matches!(outcome, Outbound::Refused), "{group}: {outcome:?}");
        assert_eq!(two.left.evidence(Refusal::LinkScope).inner, Some(address(group)));
    }
    assert_eq!(two.left.refusals(), [("no_peer", 1), ("link_scope", to_all.len() as u64)]);
    assert_eq!(two.left.evidence(Refusal::NoPeer).inner, Some(address("10.0.0.9")));
}

#[test]
fn each_packet_of_a_super_packet_that_is_refused_counts() {
    let mut two = Two::new();
    let mut packet = packet("10.0.0.1", "10.0.0.9", 8 + 250);
    packet[9] = ip::UDP;
    let vnet = VnetHeader { gso: Gso::Udp, gso_size: 100, headers_len: 28, ..VnetHeader::default() };
    let vnet = VnetHeader { checksum: Some(ChecksumPlace { start: 20, offset: 6 }), ..vnet };
    let frame = [&vnet.to_bytes(), &packet[..]].concat();
    two.left.intake.space().expect("an empty intake")[..frame.len()].copy_from_slice(&frame);
    let Node { forward, intake, .. } = &mut two.left;
    let outcome = forward.outbound(intake, frame.len(), |_| MTU, START);
    assert!(matches!(outcome, super::super::Outbound::Unreachable(icmp::Unreachable::NoPeer)), "{outcome:?}");
    assert_eq!(two.left.refusals(), [("no_peer", 3)]);
}

#[test]
fn groups_beyond_the_link_want_a_peer_and_those_of_the_link_reach_a_peer_that_has_them() {
    let mut two = Two::new();
    for group in ["224.0.1.1", "239.255.255.250"] {
        two.left.outbound(&packet("10.0.0.1", group, 8), START);
    }
    for group in ["ff05::2", "ff0e::1", "fe02::1"] {
        two.left.outbound(&packet("fd00::1", group, 8), START);
    }
    assert_eq!(two.left.refusals(), [("no_peer", 5)]);
    two.left.routes(&[("0.0.0.0/0", &two.to_right)]);
    two.left.sealed(&packet("10.0.0.1", "224.0.0.251", 8), START);
}

#[test]
fn sending_pays_the_keepalive_that_is_owed() {
    let mut two = Two::new();
    two.to_right.activity.owed_since.store(7, Ordering::Relaxed);
    two.sealed_by_left();
    assert_eq!(load(&two.to_right.activity.owed_since), 0);
}

#[test]
fn a_destination_without_peer_is_unreachable() {
    let mut two = Two::new();
    for destination in ["10.0.0.3", "255.255.255.254"] {
        let outcome = two.left.outbound(&packet("10.0.0.1", destination, 8), START);
        assert!(matches!(outcome, Outbound::Unreachable(icmp::Unreachable::NoPeer)));
        let evidence = two.left.evidence(Refusal::NoPeer);
        assert_eq!((evidence.at, evidence.inner), (START, Some(address(destination))));
    }
    let mapped = packet("fd00::1", "::ffff:10.0.0.2", 8);
    assert!(matches!(two.left.outbound(&mapped, START), Outbound::Unreachable(icmp::Unreachable::NoPeer)));
    assert_eq!(two.left.refusals(), [("no_peer", 3)]);
}

#[test]
fn a_peer_without_endpoint_is_unreachable() {
    let mut two = Two::new();
    two.to_right.set_endpoint(None);
    let outcome = two.left.outbound(&packet("10.0.0.1", "10.0.0.2", 8), START);
    assert!(matches!(outcome, Outbound::Unreachable(icmp::Unreachable::NoEndpoint)));
    assert_eq!(two.left.refusals(), [("no_endpoint", 1)]);
    let evidence = two.left.evidence(Refusal::NoEndpoint);
    assert_eq!(
        (evidence.peer, evidence.key, evidence.inner),
        (Some(PeerId(2)), Some(key(2)), Some(address("10.0.0.2")))
    );
    assert_eq!(two.to_right.staged(), 0);
}

/// The endpoint is among the peer's own allowed IPs, and nothing leads around the tunnel.
#[test]
fn a_datagram_of_our_own_that_comes_round_is_refused_and_anothers_is_not() {
    let mut two = Two::new();
    two.left.routes(&[("0.0.0.0/0", &two.to_right)]);
    let datagram = two.sealed_by_left();
    let round = udp("192.0.2.1", RIGHT, &datagram);
    assert!(matches!(two.left.outbound(&round, START), Outbound::Refused));
    assert_eq!(two.left.refusals(), [("routing_loop", 1)]);
    let evidence = two.left.evidence(Refusal::RoutingLoop);
    assert_eq!((evidence.peer, evidence.inner), (Some(PeerId(2)), Some(address("192.0.2.2"))));

    let mut of_another_session = datagram.clone();
    of_another_session[4] ^= 1;
    for harmless in [
        udp("192.0.2.1", RIGHT, &of_another_session),
        udp("192.0.2.1", "192.0.2.2:1003", &datagram),
        udp("192.0.2.1", "192.0.2.3:1002", &datagram),
        udp("192.0.2.1", RIGHT, &datagram[..31]),
        udp("192.0.2.1", RIGHT, b""),
    ] {
        two.left.sealed(&harmless, START);
    }
    assert_eq!(two.left.refused(Refusal::RoutingLoop), 1);
}

#[test]
fn the_first_fragment_of_a_datagram_of_our_own_is_refused() {
    let mut two = Two::new();
    two.left.routes(&[("0.0.0.0/0", &two.to_right)]);
    let mut fragment = udp("192.0.2.1", RIGHT, &two.sealed_by_left()[..72]);
    fragment[6] = 0x20; // more follow
    assert!(matches!(two.left.outbound(&fragment, START), Outbound::Refused));
    assert_eq!(two.left.refusals(), [("routing_loop", 1)]);
}

#[test]
fn what_was_sealed_leaves_a_layer_lower_at_once_or_after_it_waited_and_at_the_last_not_at_all() {
    let mut two = Two::new();
    let datagram = two.sealed_by_left();
    let nested = |hop_limit| {
        let mut nested = udp("10.0.0.1", "10.0.0.2:7", &datagram);
        nested[8] = hop_limit;
        nested
    };
    let Outbound::Send { outer, .. } = two.left.outbound(&nested(64), START) else { panic!("not sent") };
    assert_eq!(outer.hop_limit, NonZeroU8::new(48));
    two.to_right.set_current(None, START);
    assert!(matches!(two.left.outbound(&nested(48), START), Outbound::Staged));
    assert!(matches!(two.left.outbound(&nested(16), START), Outbound::Refused));
    let [session, _] = sessions(3, 4, START);
    let datagrams = two.to_right.set_current(Some(session), START);
    let limits: Vec<_> = datagrams.iter().map(|datagram| datagram.outer.hop_limit).collect();
    assert_eq!(limits, [NonZeroU8::new(32)]);
    assert_eq!(two.left.refusals(), [("nested_too_deep", 1)]);
    let evidence = two.left.evidence(Refusal::NestedTooDeep);
    assert_eq!((evidence.peer, evidence.inner), (Some(PeerId(2)), Some(address("10.0.0.2"))));
}

/// A UDP datagram in an IPv4 packet.
fn udp(source: &str, destination: &str, payload: &[u8]) -> Vec<u8> {
    let (address, port) = destination.split_once(':').expect("address:port");
    let port: u16 = port.parse().expect("a port");
    let mut packet = packet(source, address, 8);
    packet[2..4].copy_from_slice(&(28 + payload.len() as u16).to_be_bytes());
    packet[9] = ip::UDP;
    packet[20..28].fill(0);
    packet[22..24].copy_from_slice(&port.to_be_bytes());
    packet.extend(payload);
    packet
}

#[test]
fn what_is_not_ip_is_refused() {
    let mut two = Two::new();
    let mut cut = packet("10.0.0.1", "10.0.0.2", 100);
    cut.pop();
    for garbage in [&[][..], &[0x45], &[0xff; 100], &cut] {
        assert!(matches!(two.left.outbound(garbage, START), Outbound::Refused));
    }
    assert_eq!(two.left.refusals(), [("outbound_malformed", 4)]);
}

#[test]
fn a_packet_without_session_waits_and_wishes_for_one() {
    let mut two = Two::new();
    two.to_right.set_current(None, START);
    let waiting = packet("10.0.0.1", "10.0.0.2", 100);
    assert!(matches!(two.left.outbound(&waiting, START), Outbound::Staged));
    assert_eq!(two.left.raised(), [(PeerId(2), Raised::WANTS_SESSION)]);
    assert_eq!(load(&two.to_right.activity.sent), 0, "staging is not sending");

    let [session, other_end] = sessions(3, 4, START);
    let datagrams = two.to_right.set_current(Some(session), START);
    assert_eq!(datagrams.len(), 1);
    let plaintext = other_end.open(0, &mut datagrams[0].bytes.clone()[16..]).expect("the same keys").to_vec();
    assert_eq!(plaintext[..120], waiting);
}

#[test]
fn the_congestion_field_of_a_packet_that_waited_is_copied_out() {
    let mut two = Two::new();
    two.to_right.set_current(None, START);
    for ecn in [Ecn::Ect0, Ecn::NotEct, Ecn::Ce] {
        let mut waiting = packet("10.0.0.1", "10.0.0.2", 100);
        mark(&mut waiting, ecn);
        assert!(matches!(two.left.outbound(&waiting, START), Outbound::Staged));
    }
    let [session, _] = sessions(3, 4, START);
    let datagrams = two.to_right.set_current(Some(session), START);
    let fields: Vec<_> = datagrams.iter().map(|datagram| datagram.outer.ecn).collect();
    assert_eq!(fields, [Ecn::Ect0, Ecn::NotEct, Ecn::Ce]);
}

#[test]
fn a_flood_to_a_dead_peer_wishes_ten_times_a_second() {
    let mut two = Two::new();
    two.to_right.set_current(None, START);
    let mut wishes = 0;
    for millisecond in 0..1000 {
        let now = Time(START.0 + millisecond * 1_000_000);
        two.left.outbound(&packet("10.0.0.1", "10.0.0.2", 1), now);
        wishes += two.left.raised().len();
    }
    assert_eq!(wishes, 10);
    assert_eq!(two.to_right.staged(), STAGED);
    assert_eq!(two.left.refusals(), [("staged_overflow", 1000 - STAGED as u64)]);
    two.to_right.purge_staged();
    two.left.outbound(&packet("10.0.0.1", "10.0.0.2", 1), Time(START.0 + 1_000_000_000));
    assert_eq!(two.left.raised().len(), 1, "the first that waits asks at once");
}

const STAGED: usize = crate::forward::peer::STAGED_PACKETS;

#[test]
fn staging_is_bounded_over_all_peers() {
    let node = &mut Node::new();
    let peers: Vec<_> = (0..100).map(peer).collect();
    let prefixes: Vec<_> = (0..100).map(|n| format!("10.0.0.{n}/32")).collect();
    let routes: Vec<_> = prefixes.iter().map(String::as_str).zip(&peers).collect();
    node.routes(&routes);
    let mut expected_loss = 0;
    for (n, peer) in peers.iter().enumerate() {
        peer.set_endpoint(Some(endpoint(RIGHT)));
        let large = packet("10.1.0.1", &format!("10.0.0.{n}"), 60_000);
        for _ in 0..10 {
            assert!(matches!(node.outbound(&large, START), Outbound::Staged));
        }
        expected_loss += 10 - peer.staged() as u64;
    }
    let waiting: usize = peers.iter().map(|peer| peer.staged()).sum();
    assert!((500..=559).contains(&waiting), "{waiting} packets of 60 kB in 32 MiB");
    assert_eq!(node.refused(Refusal::StagedOverflow), expected_loss);
    peers[0].purge_staged();
    assert!(matches!(node.outbound(&packet("10.1.0.1", "10.0.0.99", 60_000), START), Outbound::Staged));
    assert_eq!(node.refused(Refusal::StagedOverflow), expected_loss, "there is room again");
}

#[test]
fn a_dead_session_sends_nothing_more() {
    let mut two = Two::new();
    let sent = packet("10.0.0.1", "10.0.0.2", 8);
    let last = Time(seconds(180).0 - 1);
    assert!(matches!(two.left.outbound(&sent, last), Outbound::Send { .. }));
    assert!(matches!(two.left.outbound(&sent, seconds(180)), Outbound::Staged));
    assert_eq!(two.left_session.sent(), 1);
}

#[test]
fn no_packet_is_sealed_behind_the_last_counter() {
    let mut two = Two::new();
    two.left_session.skip_to(REJECT_AFTER_MESSAGES - 1);
    let sent = packet("10.0.0.1", "10.0.0.2", 8);
    let datagram = two.left.sealed(&sent, START);
    let header = TransportHeader::parse(&datagram).expect("a transport message");
    assert_eq!(header.counter, REJECT_AFTER_MESSAGES - 1);
    for _ in 0..3 {
        assert!(matches!(two.left.outbound(&sent, START), Outbound::Staged));
    }
    assert_eq!(two.to_right.staged(), 3);
}

#[test]
fn the_initiator_wishes_for_a_new_session_when_it_sends_at_120_seconds() {
    let mut two = Two::new();
    two.to_right.activity.armed.store(3, Ordering::Relaxed);
    let sent = packet("10.0.0.1", "10.0.0.2", 8);
    two.left.sealed(&sent, Time(seconds(120).0 - 1));
    assert_eq!(two.left.raised(), []);
    two.left.sealed(&sent, seconds(120));
    two.left.sealed(&sent, seconds(120));
    assert_eq!(two.left.raised(), [(PeerId(2), Raised::WANTS_SESSION)]);
}

#[test]
fn the_responder_wishes_for_no_new_session_by_age() {
    let mut two = Two::new();
    two.to_left.activity.armed.store(3, Ordering::Relaxed);
    two.to_left.set_current(Some(two.right_session.clone()), START);
    two.right.sealed(&packet("10.0.0.2", "10.0.0.1", 8), seconds(179));
    assert_eq!(two.right.raised(), []);
    two.right_session.skip_to(REKEY_AFTER_MESSAGES);
    two.right.sealed(&packet("10.0.0.2", "10.0.0.1", 8), seconds(179));
    assert_eq!(two.right.raised(), [(PeerId(1), Raised::WANTS_SESSION)], "by count it does");
}

#[test]
fn the_outer_congestion_field_is_the_inner_one() {
    let mut two = Two::new();
    for field in [Ecn::NotEct, Ecn::Ect0, Ecn::Ect1, Ecn::Ce] {
        for (source, destination) in [("10.0.0.1", "10.0.0.2"), ("fd00::1", "fd00::2")] {
            let sent = marked(source, destination, 30, field);
            let Outbound::Send { outer, .. } = two.left.outbound(&sent, START) else { panic!("not sent") };
            assert_eq!(outer, field.into());
        }
    }
}
