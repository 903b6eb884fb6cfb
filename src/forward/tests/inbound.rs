//! From the wire on.

use std::{sync::Barrier, thread};

use super::*;
use crate::forward::session::{REJECT_AFTER_MESSAGES, REKEY_AFTER_TIME};
use crate::wire::message::{COOKIE_REPLY_LEN, INITIATION_LEN, RESPONSE_LEN, TransportHeader};

/// What the left peer seals, whatever it is.
fn forged_inside(two: &Two, inner: &[u8]) -> Vec<u8> {
    two.left_session.seal(inner, 0, START).expect("a live session")
}

#[test]
fn an_authentic_packet_is_delivered_without_its_padding() {
    let mut two = Two::new();
    let sent = packet("10.0.0.1", "10.0.0.2", 57);
    let mut datagram = two.left.sealed(&sent, START);
    assert_eq!(two.right.inbound(LEFT, &mut datagram, Time(START.0 + 5)), Inbound::Deliver(&sent));
    let activity = &two.to_left.activity;
    assert_eq!((load(&activity.rx_packets), load(&activity.rx_bytes)), (1, 112));
    assert_eq!((load(&activity.received), load(&activity.owed_since)), (START.0 + 5, START.0 + 5));
    assert_eq!(two.right.refusals(), []);
}

#[test]
fn the_first_authentic_packet_confirms_the_responders_session_and_no_later_one_does() {
    let mut two = Two::new();
    two.to_left.activity.armed.store(3, Ordering::Relaxed);
    assert!(!two.right_session.confirmed());
    let mut forged = two.sealed_by_left();
    forged[40] ^= 1;
    assert_eq!(two.right.inbound(LEFT, &mut forged, START), Inbound::Refused);
    assert!(!two.right_session.confirmed());
    assert_eq!(two.right.raised(), []);
    for raised in [vec![(PeerId(1), Raised::CONFIRMED)], vec![]] {
        let mut datagram = two.sealed_by_left();
        assert!(matches!(two.right.inbound(LEFT, &mut datagram, START), Inbound::Deliver(_)));
        assert_eq!(two.right.raised(), raised);
        assert!(two.right_session.confirmed());
    }
}

/// A peer that restarted has lost the old session: an answer that is sealed with it is lost.
#[test]
fn the_answer_to_the_first_packet_of_a_new_session_is_sealed_with_it() {
    let mut two = Two::new();
    let [_, before] = sessions(0x0300_0003, 0x0400_0004, Time(1));
    two.to_left.set_current(Some(before.clone()), Time(1));
    let mut forged = two.sealed_by_left();
    forged[40] ^= 1;
    two.right.inbound(LEFT, &mut forged, START);
    assert!(two.to_left.seals_with(&before));
    let mut datagram = two.sealed_by_left();
    assert!(matches!(two.right.inbound(LEFT, &mut datagram, START), Inbound::Deliver(_)));
    assert!(two.to_left.seals_with(&two.right_session));
}

#[test]
fn a_keepalive_is_received_but_owes_nothing() {
    let two = Two::new();
    two.to_left.activity.unanswered_since.store(9, Ordering::Relaxed);
    let mut keepalive = two.left_session.seal(&[], MTU, START).expect("a live session");
    assert_eq!(keepalive.len(), 32);
    assert_eq!(two.right.inbound(LEFT, &mut keepalive, START), Inbound::Keepalive);
    let activity = &two.to_left.activity;
    assert_eq!((load(&activity.received), load(&activity.rx_bytes)), (START.0, 32));
    assert_eq!((load(&activity.unanswered_since), load(&activity.owed_since)), (0, 0));
    assert_eq!(load(&activity.rx_packets), 0);
}

#[test]
fn data_owes_a_keepalive_and_asks_for_a_timer_once() {
    let mut two = Two::new();
    let mut raised = Vec::new();
    for _ in 0..3 {
        let mut datagram = two.sealed_by_left();
        two.right.inbound(LEFT, &mut datagram, START);
        raised.extend(two.right.raised());
    }
    let first = Raised(Raised::CONFIRMED.0 | Raised::TIMER.0);
    assert_eq!(raised, [(PeerId(1), first)]);
}

#[test]
fn a_packet_is_accepted_once() {
    let mut two = Two::new();
    let datagram = two.sealed_by_left();
    assert!(matches!(two.right.inbound(LEFT, &mut datagram.clone(), START), Inbound::Deliver(_)));
    for _ in 0..3 {
        assert_eq!(two.right.inbound(LEFT, &mut datagram.clone(), START), Inbound::Refused);
    }
    assert_eq!(two.right.refusals(), [("replayed", 3)]);
    let evidence = two.right.evidence(Refusal::Replayed);
    assert_eq!((evidence.peer, evidence.key), (Some(PeerId(1)), Some(key(1))));
    assert_eq!((evidence.from, evidence.at), (Some(endpoint(LEFT).remote), START));
    assert_eq!(load(&two.to_left.activity.rx_bytes), datagram.len() as u64, "a replay counts as nothing");
}

#[test]
fn seven_thousand_late_is_delivered_and_nine_thousand_late_is_not() {
    let mut two = Two::new();
    let mut oldest = two.sealed_by_left();
    two.left_session.skip_to(2_000);
    let mut old = two.sealed_by_left();
    two.left_session.skip_to(9_000);
    let mut newest = two.sealed_by_left();
    assert!(matches!(two.right.inbound(LEFT, &mut newest, START), Inbound::Deliver(_)));
    assert!(matches!(two.right.inbound(LEFT, &mut old, START), Inbound::Deliver(_)));
    assert_eq!(two.right.inbound(LEFT, &mut oldest, START), Inbound::Refused);
    assert_eq!(two.right.refusals(), [("replayed", 1)]);
}

#[test]
fn a_forged_packet_does_not_move_the_window() {
    let mut two = Two::new();
    let mut honest = two.sealed_by_left();
    let mut forged = two.sealed_by_left();
    forged[8..16].copy_from_slice(&1_000_000_u64.to_le_bytes());
    assert_eq!(two.right.inbound(LEFT, &mut forged, START), Inbound::Refused);
    let mut copy = honest.clone();
    *copy.last_mut().expect("not empty") ^= 1;
    assert_eq!(two.right.inbound(LEFT, &mut copy, START), Inbound::Refused);
    assert!(matches!(two.right.inbound(LEFT, &mut honest, START), Inbound::Deliver(_)));
    assert_eq!(two.right.refusals(), [("forged", 2)]);
}

#[test]
fn copies_on_eight_threads_are_delivered_once() {
    const PACKETS: usize = 2_000;
    let mut two = Two::new();
    let datagrams: Vec<_> = (0..PACKETS).map(|_| two.sealed_by_left()).collect();
    let start = Barrier::new(8);
    let delivered: usize = thread::scope(|scope| {
        let threads: Vec<_> = (0..8)
            .map(|_| {
                scope.spawn(|| {
                    start.wait();
                    let deliver = |datagram: &&Vec<u8>| {
                        matches!(two.right.inbound(LEFT, &mut datagram.to_vec(), START), Inbound::Deliver(_))
                    };
                    datagrams.iter().filter(deliver).count()
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().expect("no panic")).sum()
    });
    assert_eq!(delivered, PACKETS);
    assert_eq!(two.right.refusals(), [("replayed", 7 * PACKETS as u64)]);
    assert_eq!(load(&two.to_left.activity.rx_packets), PACKETS as u64);
}

#[test]
fn a_session_opens_until_a_nanosecond_before_180_seconds() {
    let mut two = Two::new();
    let [mut in_time, mut late] = [two.sealed_by_left(), two.sealed_by_left()];
    assert!(matches!(two.right.inbound(LEFT, &mut in_time, Time(seconds(180).0 - 1)), Inbound::Deliver(_)));
    assert_eq!(two.right.inbound(LEFT, &mut late, seconds(180)), Inbound::Refused);
    assert_eq!(two.right.refusals(), [("session_expired", 1)]);
}

#[test]
fn the_last_counter_is_opened_and_those_behind_it_are_not() {
    let mut two = Two::new();
    two.left_session.skip_to(REJECT_AFTER_MESSAGES - 1);
    let mut last = two.sealed_by_left();
    assert!(matches!(two.right.inbound(LEFT, &mut last, START), Inbound::Deliver(_)));
    for counter in [REJECT_AFTER_MESSAGES, u64::MAX] {
        // Sealed by a peer that does not keep to the limit.
        let mut datagram = vec![0; 32 + 48];
        datagram[16..64].copy_from_slice(&packet("10.0.0.1", "10.0.0.2", 28));
        two.left_session.seal_in_place(counter, &mut datagram);
        assert_eq!(two.right.inbound(LEFT, &mut datagram, START), Inbound::Refused);
    }
    assert_eq!(two.right.refusals(), [("session_expired", 2)]);
}

#[test]
fn an_unknown_index_is_refused_without_a_word_about_any_peer() {
    let mut two = Two::new();
    let mut datagram = two.sealed_by_left();
    two.right.forward.sessions.remove(Index(0x0200_0002));
    assert_eq!(two.right.inbound(LEFT, &mut datagram, START), Inbound::Refused);
    assert_eq!(two.right.refusals(), [("no_such_session", 1)]);
    let evidence = two.right.evidence(Refusal::NoSuchSession);
    assert_eq!((evidence.from, evidence.peer), (Some(endpoint(LEFT).remote), None));
}

#[test]
fn a_source_is_checked_against_the_whole_table() {
    let two = Two::new();
    let (owner, covering) = (peer(3), &two.to_left);
    // The peer that covers the net writes from an address inside, which another peer owns.
    two.right.routes(&[
        ("10.0.0.0/24", covering),
        ("10.0.0.9/32", &owner),
        ("fd00::/64", covering),
        ("fd00::9/128", &owner),
    ]);
    for (source, destination, delivered) in [
        ("10.0.0.8", "10.0.0.2", true),
        ("10.0.0.9", "10.0.0.2", false),
        ("fd00::8", "fd00::2", true),
        ("fd00::9", "fd00::2", false),
    ] {
        let mut datagram = forged_inside(&two, &packet(source, destination, 20));
        let outcome = two.right.inbound(LEFT, &mut datagram, START);
        assert_eq!(matches!(outcome, Inbound::Deliver(_)), delivered, "{source}");
        if !delivered {
            let evidence = two.right.evidence(Refusal::SourceNotAllowed);
            assert_eq!((evidence.inner, evidence.owner), (Some(address(source)), Some(key(3))));
            assert_eq!((evidence.peer, evidence.key), (Some(PeerId(1)), Some(key(1))));
        }
    }
    assert_eq!(two.right.refusals(), [("source_not_allowed", 2)]);
}

#[test]
fn a_source_that_nobody_owns_is_refused() {
    let two = Two::new();
    for (source, destination) in
        [("10.0.0.3", "10.0.0.2"), ("fd00::3", "fd00::2"), ("::ffff:10.0.0.1", "fd00::2")]
    {
        let mut datagram = forged_inside(&two, &packet(source, destination, 20));
        assert_eq!(two.right.inbound(LEFT, &mut datagram, START), Inbound::Refused, "{source}");
        let evidence = two.right.evidence(Refusal::SourceNotAllowed);
        assert_eq!((evidence.inner, evidence.owner), (Some(address(source)), None));
    }
    assert_eq!(load(&two.to_left.activity.rx_packets), 0);
}

/// What one receive call brings is of one session, and not of one source.
#[test]
fn each_source_of_datagrams_that_came_together_is_looked_at() {
    let two = Two::new();
    let sources = ["10.0.0.1", "10.0.0.3", "10.0.0.1", "10.0.0.4"];
    let inside = sources.map(|source| forged_inside(&two, &packet(source, "10.0.0.2", 28)));
    let mut buffer = inside.concat();
    let stride = inside[0].len();
    let arrival = Arrival { from: endpoint(LEFT), ecn: Ecn::NotEct, place: 0..buffer.len(), stride };
    let mut deliveries = Deliveries::new();
    two.right.forward.inbound(&arrival, &mut buffer, &mut deliveries, START);
    deliveries.finish(&mut buffer);
    assert_eq!(load(&two.to_left.activity.rx_packets), 2);
    assert_eq!(two.right.refusals(), [("source_not_allowed", 2)]);
    assert_eq!(two.right.evidence(Refusal::SourceNotAllowed).inner, Some(address("10.0.0.4")));
}

/// netns.sh, scenario 10: it is authentic, so the endpoint follows all the same.
#[test]
fn a_packet_from_a_wrong_source_still_roams_and_counts_as_received() {
    let two = Two::new();
    let mut datagram = forged_inside(&two, &packet("10.0.0.3", "10.0.0.2", 20));
    assert_eq!(two.right.inbound("198.51.100.7:7", &mut datagram, START), Inbound::Refused);
    assert_eq!(two.to_left.endpoint(), Some(endpoint("198.51.100.7:7")));
    let activity = &two.to_left.activity;
    assert_eq!((load(&activity.received), load(&activity.owed_since)), (START.0, START.0));
    assert_eq!(load(&activity.rx_packets), 0);
}

#[test]
fn an_inner_packet_that_is_not_ip_is_refused() {
    let two = Two::new();
    let mut cut = packet("10.0.0.1", "10.0.0.2", 200);
    cut.truncate(100);
    for inner in [&[0; 16][..], &[0x45; 20], &[0xff; 64], &cut, b"x"] {
        let mut datagram = forged_inside(&two, inner);
        assert_eq!(two.right.inbound(LEFT, &mut datagram, START), Inbound::Refused);
    }
    assert_eq!(two.right.refusals(), [("inner_malformed", 5)]);
}

#[test]
fn the_endpoint_follows_an_authentic_packet_to_another_address_family() {
    let mut two = Two::new();
    two.to_left.activity.armed.store(3, Ordering::Relaxed);
    two.right_session.confirm();
    for (from, raised) in [
        (LEFT, vec![]),
        ("192.0.2.1:9999", vec![(PeerId(1), Raised::ROAMED)]),
        ("192.0.2.1:9999", vec![]),
        ("[2001:db8::1]:1001", vec![(PeerId(1), Raised::ROAMED)]),
    ] {
        let mut datagram = two.sealed_by_left();
        assert!(matches!(two.right.inbound(from, &mut datagram, START), Inbound::Deliver(_)));
        assert_eq!(two.to_left.endpoint(), Some(endpoint(from)));
        assert_eq!(two.right.raised(), raised, "{from}");
    }
    let mut keepalive = two.left_session.seal(&[], MTU, START).expect("a live session");
    two.right.inbound(LEFT, &mut keepalive, START);
    assert_eq!(two.to_left.endpoint(), Some(endpoint(LEFT)), "a keepalive is enough");
}

#[test]
fn the_endpoint_follows_nothing_that_is_forged_replayed_expired_or_a_handshake() {
    let mut two = Two::new();
    let attacker = "203.0.113.66:666";
    let (datagram, replayed) = (two.sealed_by_left(), two.sealed_by_left());
    two.right.inbound(LEFT, &mut replayed.clone(), START);
    let mut forged = datagram.clone();
    forged[20] ^= 1;
    let mut expired = datagram.clone();
    let cookie_reply = [&[3, 0, 0, 0][..], &[0; COOKIE_REPLY_LEN - 4]].concat();
    for mut bytes in [forged, replayed, cookie_reply] {
        assert!(!matches!(two.right.inbound(attacker, &mut bytes, START), Inbound::Deliver(_)));
        assert_eq!(two.to_left.endpoint(), Some(endpoint(LEFT)));
    }
    assert_eq!(two.right.inbound(attacker, &mut expired, seconds(180)), Inbound::Refused);
    assert_eq!(two.to_left.endpoint(), Some(endpoint(LEFT)));
    assert_eq!(two.right.refusals(), [("session_expired", 1), ("forged", 1), ("replayed", 1)]);
}

#[test]
fn an_initiator_that_only_receives_wishes_for_a_session_once_at_165_seconds() {
    let two = Two::new();
    two.to_right.activity.armed.store(3, Ordering::Relaxed);
    let receive = |now| {
        let mut datagram =
            two.right_session.seal(&packet("10.0.0.2", "10.0.0.1", 9), 0, START).expect("a live session");
        assert!(matches!(two.left.inbound(RIGHT, &mut datagram, now), Inbound::Deliver(_)));
        two.left.raised()
    };
    assert_eq!(receive(Time(seconds(165).0 - 1)), []);
    assert_eq!(receive(seconds(165)), [(PeerId(2), Raised::WANTS_SESSION)]);
    assert_eq!(receive(seconds(166)), []);
}

#[test]
fn an_old_session_with_a_newer_one_beside_it_wishes_for_nothing() {
    let two = Two::new();
    two.to_right.activity.armed.store(3, Ordering::Relaxed);
    let [newer, _] = sessions(5, 6, seconds(150));
    two.to_right.set_current(Some(newer), seconds(150));
    let mut datagram = two.right_session.seal(&[], 0, START).expect("a live session");
    assert_eq!(two.left.inbound(RIGHT, &mut datagram, seconds(170)), Inbound::Keepalive);
    assert_eq!(two.left.raised(), []);
}

#[test]
fn handshakes_go_to_the_upper_half_whole() {
    let node = Node::new();
    for (kind, length) in [(1, INITIATION_LEN), (2, RESPONSE_LEN), (3, COOKIE_REPLY_LEN)] {
        let mut datagram: Vec<u8> = (0..length).map(|n| n as u8).collect();
        datagram[..4].copy_from_slice(&[kind, 0, 0, 0]);
        let sent = datagram.clone();
        assert_eq!(node.inbound(LEFT, &mut datagram, START), Inbound::Handshake);
        assert_eq!(node.forward.handshakes.len(), usize::from(kind != 3), "a cookie reply is no load");
        let (popped, waiting) = node.forward.pop_handshake().expect("it was queued");
        assert_eq!((&popped.bytes[..], popped.from, waiting), (&sent[..], endpoint(LEFT), 0));
    }
    assert_eq!(node.refusals(), []);
}

#[test]
fn a_flood_of_handshakes_is_refused_when_the_queue_is_full() {
    let node = Node::new();
    for n in 0..HANDSHAKE_QUEUE + 10 {
        let mut datagram = [0; INITIATION_LEN];
        datagram[0] = 1;
        let from = format!("198.18.{}.{}:7", n >> 8, n & 255);
        let outcome = node.inbound(&from, &mut datagram, START);
        assert_eq!(outcome == Inbound::Handshake, n < HANDSHAKE_QUEUE);
    }
    assert_eq!(node.refusals(), [("handshake_queue_full", 10)]);
    assert_eq!(node.evidence(Refusal::HandshakeQueueFull).at, START);
}

#[test]
fn one_source_fills_its_part_of_the_queue_and_the_rest_is_refused_with_its_address() {
    let node = Node::new();
    let share = usize::from(handshakes::SHARE);
    for n in 0..share + 10 {
        let mut datagram = [0; INITIATION_LEN];
        datagram[0] = 1;
        assert_eq!(node.inbound(LEFT, &mut datagram, START) == Inbound::Handshake, n < share);
    }
    assert_eq!(node.refusals(), [("rate_limited", 10)]);
    assert_eq!(node.evidence(Refusal::RateLimited).from, Some(endpoint(LEFT).remote));
}

#[test]
fn what_is_meant_for_another_key_takes_no_place_in_the_queue() {
    let node = Node::new();
    let key = crate::noise::PrivateKey::new([9; 32]).public_key();
    let macs = crate::noise::macs::MacKeys::new(&key);
    node.forward.handshakes.set_macs(Some(macs.clone()));
    for (kind, length) in [(1, INITIATION_LEN), (2, RESPONSE_LEN)] {
        let mut datagram = vec![7; length];
        datagram[..4].copy_from_slice(&[kind, 0, 0, 0]);
        assert_eq!(node.inbound(LEFT, &mut datagram.clone(), START), Inbound::Refused);
        macs.fill(&mut datagram, None);
        assert_eq!(node.inbound(LEFT, &mut datagram, START), Inbound::Handshake);
    }
    assert_eq!(node.refusals(), [("mac1", 2)]);
    assert_eq!(node.evidence(Refusal::Mac1).from, Some(endpoint(LEFT).remote));
}

#[test]
fn what_is_no_message_is_refused() {
    let node = Node::new();
    let mut kinds: Vec<Vec<u8>> =
        vec![vec![], vec![4], vec![4, 0, 0, 0], vec![0; 148], vec![5; 92], vec![1, 0, 0, 1]];
    kinds.push([&[4, 0, 0, 0][..], &[0; 27]].concat());
    kinds.push([&[1, 0, 0, 0][..], &[0; INITIATION_LEN - 3]].concat());
    kinds.push([&[4, 0, 1, 0][..], &[0; 60]].concat());
    let count = kinds.len() as u64;
    for mut datagram in kinds {
        assert_eq!(node.inbound(LEFT, &mut datagram, START), Inbound::Refused);
    }
    assert_eq!(node.refusals(), [("malformed", count)]);
}

#[test]
fn the_sessions_facts_are_those_that_were_given() {
    let [session, _] = sessions(1, 2, START);
    let start = session.start();
    assert_eq!((start.local, start.remote, start.initiator), (Index(1), Index(2), true));
    assert_eq!((start.birth, start.rekey_after), (START, REKEY_AFTER_TIME));
    let datagram = session.seal(&[], 0, START).expect("a live session");
    assert_eq!(TransportHeader::parse(&datagram).map(|header| header.receiver), Ok(Index(2)));
}
