//! Packets that somebody looks at: each is told once, with what became of it, and goes its way as if nobody looked.

use super::*;
use crate::trace::{Feed, Opened, Record, Refused, Sealed, Seen, Vpnd, Wanted};

fn watch(node: &Node, filter: &str, snap: usize) -> Arc<Feed> {
    let filter = filter.parse().expect("a filter");
    let (each, handshakes, secrets) = (false, false, false);
    let wanted = Wanted { filter, packets: 100, seconds: 1, snap, each, handshakes, secrets };
    let feed = Arc::new(Feed::new(wanted, 7, Box::new(|| ())));
    assert!(node.forward.tap.attach(feed.clone()));
    feed
}

fn told(feed: &Feed) -> Vec<Seen> {
    let packet = |record| match record {
        Record::Packet(seen) => *seen,
        other => panic!("{other:?}"),
    };
    std::iter::from_fn(|| feed.pop()).map(packet).collect()
}

/// As a data thread does it: one packet into the intake, sealed, and shipped.
fn sent(node: &mut Node, packets: &[Vec<u8>], error: Option<&str>) -> Vec<Vec<u8>> {
    let Node { forward, intake, carriers, .. } = node;
    intake.clear();
    carriers.clear();
    let mut departures = Vec::new();
    for packet in packets {
        let frame = [&VnetHeader::default().to_bytes(), &packet[..]].concat();
        intake.space().expect("room")[..frame.len()].copy_from_slice(&frame);
        match forward.outbound(intake, frame.len(), |_| MTU, START) {
            super::super::Outbound::Depart(departure) => departures.push(departure),
            other => panic!("{other:?}"),
        }
    }
    let mut watched = forward.tap.look().map(|look| look.departing(forward, &departures, intake));
    for departure in &mut departures {
        assert!(forward.seal(departure, intake, carriers));
    }
    for cargo in carriers.cargo() {
        if let Some(watched) = &mut watched {
            watched.shipped(&cargo, error.map(str::to_owned), Time(START.0 + 9));
        }
    }
    carriers.cargo().flat_map(|cargo| cargo.datagrams().map(<[u8]>::to_vec).collect::<Vec<_>>()).collect()
}

/// As a data thread does it: datagrams of one length in one receive, and what they become is written.
fn received(node: &Node, datagrams: &[Vec<u8>], taken: bool) {
    let mut buffer = vec![0; VNET_HEADER_LEN];
    let start = buffer.len();
    buffer.extend(datagrams.concat());
    let place = start..buffer.len();
    let stride = datagrams[0].len();
    let arrival = Arrival { from: endpoint(LEFT), ecn: Ecn::NotEct, place, stride };
    let look = node.forward.tap.look().expect("somebody looks");
    let mut watched = look.arriving(&node.forward);
    let mut deliveries = Deliveries::new();
    node.forward.inbound_observed(&arrival, &mut buffer, &mut deliveries, &mut watched, START);
    let deliveries = deliveries.finish(&mut buffer);
    watched.delivered(deliveries, &vec![taken; deliveries.len()], Time(START.0 + 9));
}

#[test]
fn nobody_looks_until_a_reader_comes_and_after_the_last_has_gone() {
    let two = Two::new();
    assert!(two.left.forward.tap.look().is_none());
    let feeds: Vec<_> = (0..4).map(|_| watch(&two.left, "", 0)).collect();
    let wanted = feeds[0].wanted().clone();
    let fifth = Arc::new(Feed::new(wanted, 0, Box::new(|| ())));
    assert!(!two.left.forward.tap.attach(fifth), "four are enough");
    for feed in &feeds {
        assert!(two.left.forward.tap.look().is_some());
        two.left.forward.tap.detach(feed);
    }
    assert!(two.left.forward.tap.look().is_none());
}

#[test]
fn a_sealed_packet_is_told_with_peer_prefix_session_counter_and_its_send() {
    let mut two = Two::new();
    let feed = watch(&two.left, "dst host 10.0.0.2 and less 100", 32);
    let small = packet("10.0.0.1", "10.0.0.2", 57);
    let other = packet("10.0.0.1", "10.0.0.2", 90);
    let datagrams = sent(&mut two.left, &[other.clone(), small.clone(), small.clone()], None);
    let told = told(&feed);
    assert_eq!(told.len(), 2, "the filter leaves one out");
    let sealed: Vec<&Sealed> = told
        .iter()
        .map(|seen| match &seen.vpnd {
            Vpnd::Sealed(sealed) => sealed,
            other => panic!("{other:?}"),
        })
        .collect();
    let Sealed { peer, prefix, session, mark, .. } = sealed[0];
    assert_eq!((peer.as_str(), prefix.as_str()), ("peer 2", "10.0.0.2/32"));
    assert_eq!((*session, *mark), (0x0200_0002, 7));
    // A shorter datagram is the last of its send.
    let sends = sealed.iter().map(|sealed| (sealed.counter, sealed.batch.expect("it left")));
    let sends: Vec<_> =
        sends.map(|(counter, batch)| (counter, batch.datagrams, batch.place, batch.first)).collect();
    assert_eq!(sends, [(1, 2, 1, 0), (2, 1, 0, 2)]);
    assert_eq!((told[1].at_ns, told[1].done_ns), (START.0, Some(START.0 + 9)));
    assert_eq!((&told[1].inner[..], &told[1].outer[..]), (&small[..32], &datagrams[2][..32]));
}

#[test]
fn a_send_that_fails_is_told_with_the_kernels_word() {
    let mut two = Two::new();
    let feed = watch(&two.left, "", 0);
    sent(&mut two.left, &[packet("10.0.0.1", "10.0.0.2", 57)], Some("not permitted"));
    let [seen] = &told(&feed)[..] else { panic!("one packet") };
    let Vpnd::Sealed(sealed) = &seen.vpnd else { panic!("{seen:?}") };
    assert_eq!((sealed.error.as_deref(), seen.done_ns), (Some("not permitted"), None));
}

#[test]
fn an_opened_packet_is_told_with_its_receive_and_what_was_sealed_is_what_was_opened() {
    let mut two = Two::new();
    let (left, right) = (watch(&two.left, "", 0), watch(&two.right, "src host 10.0.0.1", 64));
    let packets: Vec<_> = (0..3).map(|_| packet("10.0.0.1", "10.0.0.2", 57)).collect();
    let datagrams = sent(&mut two.left, &packets, None);
    received(&two.right, &datagrams, true);
    let told_right = told(&right);
    for (n, (seal, open)) in told(&left).iter().zip(&told_right).enumerate() {
        let (Vpnd::Sealed(sealed), Vpnd::Opened(Opened { session, counter, batch, prefix, .. })) =
            (&seal.vpnd, &open.vpnd)
        else {
            panic!("{seal:?} {open:?}")
        };
        assert_eq!((sealed.session, sealed.counter), (*session, *counter));
        assert_eq!((batch.datagrams, batch.place, batch.first), (3, n as u64, 0));
        assert_eq!((prefix.as_str(), open.done_ns), ("10.0.0.1/32", Some(START.0 + 9)));
        assert_eq!((&open.inner[..], &open.outer[..]), (&packets[n][..64], &datagrams[n][..64]));
    }
    assert_eq!(told_right.len(), 3);
}

#[test]
fn what_the_device_would_not_take_is_told_as_refused() {
    let mut two = Two::new();
    let feed = watch(&two.right, "", 0);
    let datagrams = sent(&mut two.left, &[packet("10.0.0.1", "10.0.0.2", 57)], None);
    received(&two.right, &datagrams, false);
    let [seen] = &told(&feed)[..] else { panic!("one packet") };
    assert!(matches!(&seen.vpnd, Vpnd::Refused(Refused { reason, .. }) if reason == "tun_write_failed"));
}

#[test]
fn a_refusal_is_told_with_evidence_as_far_as_the_packet_can_be_read() {
    let mut two = Two::new();
    let feed = watch(&two.right, "", 0);
    // Another's source.
    let datagram = two.left_session.seal(&packet("10.0.0.9", "10.0.0.2", 57), MTU, START).expect("a session");
    received(&two.right, &[datagram], true);
    // The same message twice; one that was altered; one of no session.
    let good = sent(&mut two.left, &[packet("10.0.0.1", "10.0.0.2", 57)], None);
    received(&two.right, &good, true);
    received(&two.right, &good, true);
    let mut altered = good[0].clone();
    altered[50] ^= 1;
    received(&two.right, &[altered], true);
    let mut stray = good[0].clone();
    stray[4] ^= 1;
    received(&two.right, &[stray], true);
    let told = told(&feed);
    let reasons: Vec<_> = told
        .iter()
        .map(|seen| match &seen.vpnd {
            Vpnd::Refused(refused) => {
                (refused.reason.as_str(), refused.peer.as_deref(), seen.packet.is_some())
            }
            _ => ("opened", None, true),
        })
        .collect();
    let peer = Some("peer 1");
    assert_eq!(
        reasons,
        [
            ("source_not_allowed", peer, true),
            ("opened", None, true),
            ("replayed", peer, true),
            ("forged", peer, false),
            ("no_such_session", None, false),
        ]
    );
    let Vpnd::Refused(refused) = &told[0].vpnd else { panic!() };
    assert_eq!((refused.inner, refused.counter), (Some(address("10.0.0.9")), Some(0)));
}

#[test]
fn a_packet_that_turns_back_is_told_with_why_and_one_that_waits_with_for_whom() {
    let two = Two::new();
    let feed = watch(&two.left, "", 0);
    let look = || two.left.forward.tap.look().expect("somebody looks");
    look().turned_back(&two.left.forward, &packet("10.0.0.1", "10.9.9.9", 8), Some(Refusal::NoPeer), START);
    look().turned_back(&two.left.forward, &packet("10.0.0.1", "10.0.0.2", 8), None, START);
    let told = told(&feed);
    assert!(
        matches!(&told[0].vpnd, Vpnd::Refused(Refused { reason, owner: None, .. }) if reason == "no_peer")
    );
    assert!(matches!(&told[1].vpnd, Vpnd::Staged { prefix, .. } if prefix == "10.0.0.2/32"));
}

#[test]
fn a_packet_that_waited_is_told_again_when_it_is_sealed() {
    let two = Two::new();
    two.to_right.set_current(None, START);
    let waiting = packet("10.0.0.1", "10.0.0.2", 57);
    two.to_right.stage(&waiting);
    let feed = watch(&two.left, "", 0);
    let staged = two.to_right.hand_over(&two.left_session, START);
    let look = two.left.forward.tap.look().expect("somebody looks");
    look.handed_over(&two.left.forward, &two.to_right, &staged, START);
    let [seen] = &told(&feed)[..] else { panic!("one packet") };
    let Vpnd::Sealed(sealed) = &seen.vpnd else { panic!("{seen:?}") };
    assert!(sealed.staged && sealed.counter == 0 && sealed.inner_bytes == waiting.len() as u64);
}

#[test]
fn a_handshake_message_that_a_data_thread_refuses_is_told_to_who_wants_handshakes_up_to_a_number() {
    let two = Two::new();
    two.left.forward.handshakes.set_macs(Some(crate::noise::macs::MacKeys::new(&key(1))));
    let plain = watch(&two.left, "", 0);
    let wanted = Wanted { handshakes: true, ..plain.wanted().clone() };
    let feed = Arc::new(Feed::new(wanted, 0, Box::new(|| ())));
    assert!(two.left.forward.tap.attach(feed.clone()));
    // An initiation whose macs are zero, and something that is none.
    let mut initiation = vec![7; 148];
    initiation[..4].copy_from_slice(&[1, 0, 0, 0]);
    for _ in 0..100 {
        received(&two.left, std::slice::from_ref(&initiation), true);
        received(&two.left, &[vec![9; 40]], true);
    }
    assert_eq!(plain.pop(), None, "a trace of packets has no use for it");
    let told: Vec<_> = std::iter::from_fn(|| feed.pop()).collect();
    assert_eq!(told.len(), 64);
    let Record::Handshake(first) = &told[0] else { panic!("{told:?}") };
    assert_eq!((first.refused.as_deref(), &first.bytes), (Some("mac1"), &initiation));
    assert_eq!((first.peer.as_ref(), first.remote.to_string().as_str()), (None, LEFT));
}
