//! Two lower halves, each other's only peer.

use proptest::prelude::*;

use super::*;
use crate::wire::ecn;

const FIELDS: [Ecn; 4] = [Ecn::NotEct, Ecn::Ect0, Ecn::Ect1, Ecn::Ce];

#[test]
fn both_families_travel_inside_both_families() {
    for (left, right) in [(LEFT, RIGHT), ("[2001:db8::1]:1001", "[2001:db8::2]:1002")] {
        let mut two = Two::new();
        two.to_right.set_endpoint(Some(endpoint(right)));
        for (source, destination) in [("10.0.0.1", "10.0.0.2"), ("fd00::1", "fd00::2")] {
            let there = packet(source, destination, 200);
            let Outbound::Send { to, datagram, .. } = two.left.outbound(&there, START) else {
                panic!("not sent")
            };
            assert_eq!(to, endpoint(right));
            let mut datagram = datagram.to_vec();
            assert_eq!(two.right.inbound(left, &mut datagram, START), Inbound::Deliver(&there));

            // Confirmed: now the responder may seal.
            two.to_left.set_current(Some(two.right_session.clone()), START);
            let back = packet(destination, source, 300);
            let Outbound::Send { to, datagram, .. } = two.right.outbound(&back, START) else {
                panic!("not sent")
            };
            assert_eq!(to, endpoint(left), "the answer goes where the question came from");
            let mut datagram = datagram.to_vec();
            assert_eq!(two.left.inbound(right, &mut datagram, START), Inbound::Deliver(&back));
        }
        assert_eq!((two.left.refusals(), two.right.refusals()), (vec![], vec![]));
    }
}

/// RFC 6040, figure 4, through the whole tunnel.
#[test]
fn congestion_on_the_outer_path_reaches_the_inner_packet_or_drops_it() {
    let mut two = Two::new();
    let mut dropped = 0;
    for (source, destination) in [("10.0.0.1", "10.0.0.2"), ("fd00::1", "fd00::2")] {
        for inner in FIELDS {
            for outer in FIELDS {
                let sent = marked(source, destination, 64, inner);
                let mut datagram = two.left.sealed(&sent, START);
                let outcome = two.right.inbound_marked(LEFT, outer, &mut datagram, START);
                match ecn::decapsulate(inner, outer) {
                    Some(field) => {
                        assert_eq!(outcome, Inbound::Deliver(&marked(source, destination, 64, field)))
                    }
                    None => {
                        assert_eq!(outcome, Inbound::Refused);
                        dropped += 1;
                    }
                }
            }
        }
    }
    assert_eq!(dropped, 2, "not-ECT inside, congestion experienced outside");
    assert_eq!(two.right.refusals(), [("ecn_dropped", 2)]);
}

/// netns.sh, scenario 1: ten pings of 84 bytes are 1280 bytes of UDP payload each way.
#[test]
fn ten_pings_count_the_bytes_that_the_kernel_counts() {
    let mut two = Two::new();
    for _ in 0..10 {
        let mut datagram = two.left.sealed(&packet("10.0.0.1", "10.0.0.2", 64), START);
        two.right.inbound(LEFT, &mut datagram, START);
    }
    assert_eq!(load(&two.to_right.activity.tx_bytes), 1280);
    assert_eq!(load(&two.to_left.activity.rx_bytes), 1280);
    assert_eq!(load(&two.to_left.activity.rx_packets), 10);
}

#[test]
fn whatever_has_the_size_of_a_cookie_reply_is_for_the_upper_half_to_judge() {
    let two = Two::new();
    let mut datagram = vec![0; 64];
    datagram[0] = 3;
    assert_eq!(two.right.inbound("203.0.113.66:666", &mut datagram, START), Inbound::Handshake);
    datagram.push(0);
    assert_eq!(two.right.inbound("203.0.113.66:666", &mut datagram, START), Inbound::Refused);
}

proptest! {
    #[test]
    fn garbage_from_the_wire_never_panics_and_never_passes(
        kind in 0..6_u8, index in prop_oneof![Just(0x0200_0002_u32), any::<u32>()], rest in prop::collection::vec(any::<u8>(), 0..300),
    ) {
        let two = Two::new();
        let mut datagram = vec![kind, 0, 0, 0];
        datagram.extend(index.to_le_bytes());
        datagram.extend(rest);
        let before = two.to_left.endpoint();
        let outcome = two.right.inbound("203.0.113.66:666", &mut datagram, START);
        prop_assert!(matches!(outcome, Inbound::Refused | Inbound::Handshake));
        prop_assert_eq!(two.to_left.endpoint(), before);
        prop_assert_eq!(load(&two.to_left.activity.received), 0);
    }

    #[test]
    fn an_authentic_peer_that_seals_garbage_gets_only_its_own_sources_through(inner in prop::collection::vec(any::<u8>(), 0..100)) {
        let two = Two::new();
        let mut datagram = two.left_session.seal(&inner, 0, START).expect("a live session");
        if let Inbound::Deliver(delivered) = two.right.inbound(LEFT, &mut datagram, START) {
            let source = ip::parse(delivered).expect("checked").source;
            prop_assert!(source == address("10.0.0.1") || source == address("fd00::1"));
        }
    }

    #[test]
    fn garbage_from_the_tun_never_panics(
        first in prop_oneof![Just(0x45_u8), Just(0x60), any::<u8>()], rest in prop::collection::vec(any::<u8>(), 0..100),
    ) {
        let mut two = Two::new();
        let garbage = [&[first][..], &rest].concat();
        prop_assert!(!matches!(two.left.outbound(&garbage, START), Outbound::Staged));
    }

    #[test]
    fn what_goes_in_comes_out(payload in 0..3000_usize, v6: bool, mtu in 1280..3000_usize) {
        let mut two = Two::new();
        let (source, destination) = if v6 { ("fd00::1", "fd00::2") } else { ("10.0.0.1", "10.0.0.2") };
        let sent = packet(source, destination, payload);
        let mut datagram = match two.left.outbound_within(mtu, &sent, START) {
            Outbound::Send { datagram, .. } => datagram,
            other => panic!("not sent: {other:?}"),
        };
        prop_assert!(sent.len() > mtu || datagram.len() <= mtu + 32);
        prop_assert_eq!(two.right.inbound(LEFT, &mut datagram, START), Inbound::Deliver(&sent));
    }
}
