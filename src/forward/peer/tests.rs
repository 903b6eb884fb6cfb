use std::{
    sync::atomic::{AtomicBool, AtomicUsize},
    thread,
};

use super::*;
use crate::{
    forward::session::{REJECT_AFTER_TIME, REKEY_AFTER_TIME, SessionStart},
    noise::SessionKeys,
    wire::message::{Index, TransportHeader},
};

const NOW: Time = Time(5_000_000_000);

fn peer() -> Arc<Peer> {
    Peer::new(PeerId(1), PublicKey([1; 32]), "laptop".to_owned())
}

fn session(index: u32) -> Arc<Session> {
    let (local, remote) = (Index(index), Index(index));
    let start = SessionStart { local, remote, initiator: true, birth: NOW, rekey_after: REKEY_AFTER_TIME };
    Session::new(start, &SessionKeys { send: [3; 32], receive: [3; 32] })
}

fn endpoint(remote: &str, local: Option<&str>) -> Endpoint {
    let local = local.map(|text| Local { address: text.parse().expect("an address"), interface: 0 });
    Endpoint { remote: remote.parse().expect("a socket address"), local }
}

/// Counter and plaintext of a datagram that `session` sealed.
fn opened(session: &Session, datagram: &[u8]) -> (u64, Vec<u8>) {
    let header = TransportHeader::parse(datagram).expect("a transport message");
    let mut sealed = datagram[16..].to_vec();
    (header.counter, session.open(header.counter, &mut sealed).expect("sealed by it").to_vec())
}

/// A packet to stage, with what bounds its padding.
fn one(packet: &[u8], mtu: usize) -> impl Iterator<Item = (Vec<u8>, usize)> + use<> {
    std::iter::once((packet.to_vec(), mtu))
}

#[test]
fn a_new_peer_has_nothing() {
    let peer = peer();
    assert!(peer.endpoint().is_none() && peer.current().is_none());
    assert_eq!(peer.staged(), 0);
    assert!(peer.reserve(1, NOW).is_none());
    assert_eq!(peer.label.load().as_str(), "laptop");
}

#[test]
fn staged_packets_are_sealed_in_order_by_the_session_that_comes() {
    let (peer, session) = (peer(), session(1));
    for n in 1..=5 {
        assert!(!peer.stage(&[n; 20]));
    }
    assert!(peer.set_current(None, NOW).is_empty());
    assert_eq!(peer.staged(), 5, "no session takes nothing away");
    let datagrams = peer.set_current(Some(session.clone()), NOW);
    for (n, datagram) in datagrams.iter().enumerate() {
        let (counter, plaintext) = opened(&session, &datagram.bytes);
        assert_eq!(counter, n as u64);
        assert_eq!(plaintext[..20], [n as u8 + 1; 20]);
        assert_eq!(plaintext.len(), 32);
    }
    assert_eq!((datagrams.len(), peer.staged()), (5, 0));
    assert_eq!(peer.reserve(1, NOW).expect("a session").counter, 5, "later packets come behind");
}

#[test]
fn a_session_is_handed_over_when_all_that_was_staged_has_left() {
    let (peer, session, budget) = (peer(), session(1), Budget::new(1 << 20));
    peer.stage(&[1; 20]);
    assert_eq!(peer.hand_over(&session, NOW).len(), 1);
    assert!(
        peer.reserve_or_stage(1, one(&[2; 20], 0), &budget, NOW).is_err(),
        "the first is still on its way out"
    );
    let datagrams = peer.hand_over(&session, NOW);
    assert_eq!(opened(&session, &datagrams[0].bytes).1[0], 2);
    assert!(peer.current().is_none());
    assert!(peer.hand_over(&session, NOW).is_empty());
    assert!(peer.seals_with(&session));
    assert_eq!(peer.activity.tx_packets.load(Ordering::Relaxed), 2);
}

#[test]
fn what_came_faster_than_it_could_be_sent_is_lost_and_not_overtaken() {
    let (peer, session, budget) = (peer(), session(1), Budget::new(1 << 20));
    peer.stage(&[1; 20]);
    assert_eq!(peer.hand_over(&session, NOW).len(), 1);
    for _ in 0..3 {
        assert!(peer.reserve_or_stage(1, one(&[2; 20], 0), &budget, NOW).is_err());
    }
    assert_eq!(peer.hand_over_at_last(&session), 3);
    assert!(peer.seals_with(&session) && peer.staged() == 0);
    assert_eq!(peer.reserve(1, NOW).expect("a session").counter, 1, "none of the three took a counter");
}

#[test]
fn a_session_with_which_the_peer_proved_itself_takes_the_place_of_an_older_one_alone() {
    let young = |index, birth| {
        let (local, remote) = (Index(index), Index(index));
        let start = SessionStart { local, remote, initiator: false, birth, rekey_after: REKEY_AFTER_TIME };
        Session::new(start, &SessionKeys { send: [3; 32], receive: [3; 32] })
    };
    let (peer, old) = (peer(), session(1));
    let [same, new] = [NOW, NOW + Duration::from_secs(1)].map(|birth| young(2, birth));
    peer.renew(&new);
    assert!(peer.current().is_none(), "the first one is handed over");
    peer.set_current(Some(old.clone()), NOW);
    peer.renew(&same);
    assert!(peer.seals_with(&old), "of two that were made at once the upper half chooses");
    peer.stage(&[1; 20]);
    peer.renew(&new);
    assert!(peer.seals_with(&old), "nothing overtakes what waits");
    peer.purge_staged();
    peer.renew(&new);
    assert!(peer.seals_with(&new));
    peer.renew(&old);
    assert!(peer.seals_with(&new), "a late packet of the old one switches nothing back");
}

#[test]
fn what_was_staged_counts_as_data_sent() {
    let peer = peer();
    peer.stage(&[1; 20]);
    peer.stage(&[2; 20]);
    let sent = || peer.activity.sent.load(Ordering::Relaxed);
    assert_eq!(sent(), 0, "staging is not sending");
    peer.set_current(Some(session(1)), NOW);
    assert_eq!((sent(), peer.activity.unanswered_since.load(Ordering::Relaxed)), (NOW.0, NOW.0));
    assert_eq!(peer.activity.tx_packets.load(Ordering::Relaxed), 2);
    assert_eq!(peer.activity.tx_bytes.load(Ordering::Relaxed), 2 * (16 + 32 + 16));
}

#[test]
fn a_session_without_staged_packets_counts_as_nothing_sent() {
    let peer = peer();
    assert!(peer.set_current(Some(session(1)), NOW).is_empty());
    assert_eq!(peer.activity.sent.load(Ordering::Relaxed), 0);
    assert_eq!(peer.activity.unanswered_since.load(Ordering::Relaxed), 0);
}

#[test]
fn a_dead_session_leaves_staged_packets_waiting() {
    let peer = peer();
    peer.stage(&[1; 20]);
    let late = NOW + REJECT_AFTER_TIME;
    assert!(peer.set_current(Some(session(1)), late).is_empty());
    assert_eq!(peer.staged(), 1);
    assert!(peer.reserve(1, late).is_none());
}

#[test]
fn the_129th_staged_packet_drops_the_oldest() {
    let (peer, session) = (peer(), session(1));
    for n in 0..STAGED_PACKETS as u8 {
        assert!(!peer.stage(&[n]));
    }
    assert!(peer.stage(&[255]));
    let datagrams = peer.set_current(Some(session.clone()), NOW);
    assert_eq!(datagrams.len(), STAGED_PACKETS);
    assert_eq!(opened(&session, &datagrams[0].bytes).1[0], 1);
    assert_eq!(opened(&session, &datagrams[127].bytes).1[0], 255);
}

#[test]
fn purging_says_how_many_packets_it_threw_away() {
    let peer = peer();
    peer.stage(&[1]);
    peer.stage(&[2]);
    assert_eq!((peer.purge_staged(), peer.staged(), peer.purge_staged()), (2, 0, 0));
}

#[test]
fn the_padding_of_a_staged_packet_keeps_to_the_mtu_it_came_with() {
    let (peer, session, budget) = (peer(), session(1), Budget::new(1 << 20));
    assert!(peer.reserve_or_stage(1, one(&[1; 1419], 1420), &budget, NOW).is_err());
    let datagrams = peer.set_current(Some(session), NOW);
    assert_eq!(datagrams[0].bytes.len(), 1420 + 32);
}

#[test]
fn forgetting_the_local_address_keeps_the_remote() {
    let peer = peer();
    peer.forget_local();
    assert!(peer.endpoint().is_none());
    peer.set_endpoint(Some(endpoint("192.0.2.1:1", Some("192.0.2.9"))));
    peer.forget_local();
    assert_eq!(peer.endpoint(), Some(endpoint("192.0.2.1:1", None)));
}

#[test]
fn only_a_new_remote_address_or_port_is_a_move() {
    let peer = peer();
    let at = |remote, local, moved, known: (&str, Option<&str>)| {
        assert_eq!(peer.follow(&endpoint(remote, local)), moved, "{remote} {local:?}");
        assert_eq!(peer.endpoint(), Some(endpoint(known.0, known.1)), "{remote} {local:?}");
    };
    at("192.0.2.1:1", Some("192.0.2.9"), true, ("192.0.2.1:1", Some("192.0.2.9")));
    at("192.0.2.1:1", Some("192.0.2.9"), false, ("192.0.2.1:1", Some("192.0.2.9")));
    at("192.0.2.1:1", Some("192.0.2.8"), false, ("192.0.2.1:1", Some("192.0.2.8")));
    at("192.0.2.1:1", None, false, ("192.0.2.1:1", Some("192.0.2.8")));
    at("192.0.2.1:2", Some("192.0.2.8"), true, ("192.0.2.1:2", Some("192.0.2.8")));
    at("[2001:db8::1]:2", None, true, ("[2001:db8::1]:2", None));
}

#[test]
fn a_wish_for_a_session_is_repeated_after_a_tenth_of_a_second() {
    let peer = peer();
    assert!(peer.may_wish(NOW));
    peer.wish(NOW);
    assert!(!peer.may_wish(Time(NOW.0 + 99_999_999)));
    assert!(peer.may_wish(NOW + WISH_INTERVAL));
}

#[test]
fn a_session_that_came_while_a_packet_looked_for_one_takes_it() {
    let (peer, budget) = (peer(), Budget::new(1 << 20));
    assert!(peer.reserve(1, NOW).is_none());
    peer.set_current(Some(session(1)), NOW);
    let reserved = peer.reserve_or_stage(1, one(&[1; 20], 0), &budget, NOW);
    assert!(reserved.is_ok_and(|reserved| reserved.counter == 0));
    assert_eq!(peer.staged(), 0);
}

#[test]
fn no_session_becomes_current_while_a_packet_is_being_staged() {
    let peer = peer();
    thread::scope(|scope| {
        let staging = peer.lock_staged();
        let change = scope.spawn(|| peer.set_current(Some(session(1)), NOW));
        thread::sleep(Duration::from_millis(30));
        assert!(peer.current().is_none() && !change.is_finished());
        drop(staging);
    });
    assert!(peer.current().is_some());
}

/// A data thread sends numbered packets while sessions come and go: each packet is sealed exactly once, and in
/// each session in the order in which the thread sent them; staged ones go before later ones.
#[test]
fn sessions_that_change_under_a_sender_lose_and_reorder_nothing() {
    const PACKETS: u32 = 40_000;
    let (peer, budget) = (peer(), Budget::new(32 << 20));
    let (sent, flushes, done) = (Mutex::new(Vec::new()), AtomicUsize::new(0), AtomicBool::new(false));
    let sessions: Vec<_> = thread::scope(|scope| {
        scope.spawn(|| {
            let (mut waiting, mut seen) = (0, 0);
            for n in 0..PACKETS {
                // So few that none is dropped, told without the lock: asking for it here would hold the sender
                // back at the very moment that matters.
                while waiting == STAGED_PACKETS / 2 && flushes.load(Ordering::Acquire) == seen {
                    thread::yield_now();
                }
                if flushes.load(Ordering::Acquire) != seen {
                    (waiting, seen) = (0, flushes.load(Ordering::Acquire));
                }
                // Slow enough to be still sending while a flush goes on.
                (0..200).for_each(|_| std::hint::spin_loop());
                let packet = n.to_be_bytes();
                let found = peer
                    .reserve(1, NOW)
                    .map_or_else(|| peer.reserve_or_stage(1, one(&packet, 0), &budget, NOW), Ok);
                let Ok(reserved) = found else {
                    waiting += 1;
                    continue;
                };
                let mut datagram = vec![0; 48];
                datagram[16..20].copy_from_slice(&packet);
                reserved.session.seal_in_place(reserved.counter, &mut datagram);
                sent.lock().expect("not poisoned").push(datagram);
            }
            done.store(true, Ordering::Release);
        });
        let mut sessions = Vec::new();
        while !done.load(Ordering::Acquire) || peer.staged() > 0 {
            // Some packets wait, so that sealing them takes a while, during which the sender goes on.
            peer.set_current(None, NOW);
            while peer.staged() < STAGED_PACKETS / 4 && !done.load(Ordering::Acquire) {
                std::hint::spin_loop();
            }
            for _ in 0..2 {
                let session = session(sessions.len() as u32);
                sessions.push(session.clone());
                let flushed = peer.set_current(Some(session), NOW);
                flushes.fetch_add(1, Ordering::Release);
                sent.lock().expect("not poisoned").extend(flushed.into_iter().map(|datagram| datagram.bytes));
                thread::yield_now();
            }
        }
        sessions
    });

    let mut numbers = Vec::new();
    for datagram in sent.into_inner().expect("not poisoned") {
        let receiver = TransportHeader::parse(&datagram).expect("a transport message").receiver;
        let (counter, plaintext) = opened(&sessions[receiver.0 as usize], &datagram);
        let number = u32::from_be_bytes(*plaintext.first_chunk().expect("padded to 16"));
        numbers.push((receiver, counter, number));
    }
    numbers.sort_unstable();
    let numbers: Vec<u32> = numbers.into_iter().map(|(_, _, number)| number).collect();
    assert_eq!(numbers, (0..PACKETS).collect::<Vec<_>>());
}
