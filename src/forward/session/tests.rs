use std::{collections::HashSet, thread};

use super::*;

const BIRTH: Time = Time(1_000_000_000);
const NANOSECOND: Duration = Duration::from_nanos(1);

/// Both ends of one handshake: the initiator's session and the responder's.
fn pair() -> [Arc<Session>; 2] {
    let (ours, theirs) = ([1; 32], [2; 32]);
    let side = |local, remote, initiator, send, receive| {
        let (local, remote) = (Index(local), Index(remote));
        let start = SessionStart { local, remote, initiator, birth: BIRTH, rekey_after: REKEY_AFTER_TIME };
        Session::new(start, &SessionKeys { send, receive })
    };
    [side(10, 20, true, ours, theirs), side(20, 10, false, theirs, ours)]
}

#[test]
fn the_limits_are_the_protocols() {
    assert_eq!(REKEY_AFTER_MESSAGES, 1_152_921_504_606_846_976);
    assert_eq!(REJECT_AFTER_MESSAGES, u64::MAX - 8128 - 1);
    assert_eq!(REKEY_ON_RECEIVE_AFTER, Duration::from_secs(165));
}

#[test]
fn a_sealed_packet_is_a_transport_message_that_the_other_end_opens() {
    let [initiator, responder] = pair();
    for (counter, packet) in [&b"first"[..], b"", &[7; 1420]].into_iter().enumerate() {
        let mut datagram = initiator.seal(packet, 1420, BIRTH).expect("a fresh session");
        assert_eq!(datagram.len(), 32 + padded_len(packet.len(), 1420));
        let header = TransportHeader::parse(&datagram).expect("a transport message");
        assert_eq!(header, TransportHeader { receiver: Index(20), counter: counter as u64 });
        let plaintext = responder.open(header.counter, &mut datagram[16..]).expect("the same keys");
        assert!(plaintext.starts_with(packet));
        assert!(plaintext[packet.len()..].iter().all(|byte| *byte == 0), "padding is zero");
    }
    assert_eq!(initiator.sent(), 3);
    assert_eq!(responder.sent(), 0);
}

#[test]
fn a_session_seals_until_a_nanosecond_before_180_seconds() {
    let [session, _] = pair();
    let dead = BIRTH + REJECT_AFTER_TIME;
    let last = Time(dead.0 - 1);
    assert!(session.can_send(last) && !session.expired(last));
    assert!(session.seal(b"", 0, last).is_some());
    for now in [dead, dead + NANOSECOND] {
        assert!(!session.can_send(now) && session.expired(now));
        assert!(session.seal(b"", 0, now).is_none());
    }
    assert_eq!(session.sent(), 1, "what is not sealed uses up no counter");
}

#[test]
fn the_last_counter_is_used_once_and_none_behind_it() {
    let [session, _] = pair();
    session.skip_to(REJECT_AFTER_MESSAGES - 1);
    assert!(session.can_send(BIRTH));
    assert_eq!(session.reserve(2, BIRTH), None, "two are not left");
    assert_eq!(session.reserve(1, BIRTH), Some(REJECT_AFTER_MESSAGES - 1));
    for _ in 0..20_000 {
        assert_eq!(session.reserve(1, BIRTH), None);
    }
    assert!(!session.can_send(BIRTH));
    assert!(session.seal(b"", 0, BIRTH).is_none());
    assert_eq!(session.reserve(u64::MAX, BIRTH), None);
    session.skip_to(0);
    assert_eq!(session.sent(), REJECT_AFTER_MESSAGES, "a counter never goes back");
}

#[test]
fn threads_that_race_for_the_last_counters_share_them_out() {
    let [session, _] = pair();
    let first = REJECT_AFTER_MESSAGES - 1000;
    session.skip_to(first);
    let taken: Vec<u64> = thread::scope(|scope| {
        let threads: Vec<_> = (0..8)
            .map(|n| {
                let session = &session;
                scope.spawn(move || {
                    let size = 1 + n % 2;
                    let starts = std::iter::from_fn(|| session.reserve(size, BIRTH));
                    starts.flat_map(|start| start..start + size).collect::<Vec<_>>()
                })
            })
            .collect();
        threads.into_iter().flat_map(|thread| thread.join().expect("no panic")).collect()
    });
    assert_eq!(taken.len(), 1000);
    let distinct: HashSet<u64> = taken.into_iter().collect();
    assert_eq!(distinct, (first..REJECT_AFTER_MESSAGES).collect());
}

#[test]
fn only_the_initiator_asks_for_a_new_session_by_age() {
    let [initiator, responder] = pair();
    let due = BIRTH + REKEY_AFTER_TIME;
    assert!(!initiator.wants_rekey(Time(due.0 - 1)));
    assert!(initiator.wants_rekey(due));
    assert!(!responder.wants_rekey(due));
    assert!(!responder.wants_rekey(BIRTH + REJECT_AFTER_TIME));
}

#[test]
fn both_sides_ask_for_a_new_session_after_2_to_the_60_messages() {
    for session in pair() {
        session.skip_to(REKEY_AFTER_MESSAGES - 1);
        assert!(!session.wants_rekey(BIRTH));
        assert!(session.reserve(1, BIRTH).is_some());
        assert!(session.wants_rekey(BIRTH));
        assert!(session.can_send(BIRTH), "it goes on meanwhile");
    }
}

#[test]
fn the_last_minute_begins_at_165_seconds_for_the_initiator_and_is_said_once() {
    let [initiator, responder] = pair();
    let due = BIRTH + Duration::from_secs(165);
    assert!(!initiator.at_last_minute(Time(due.0 - 1)));
    assert!(initiator.at_last_minute(due));
    assert!(!responder.at_last_minute(due));
    assert_eq!([initiator.take_last_minute(), initiator.take_last_minute()], [true, false]);
}

#[test]
fn a_responders_session_is_confirmed_by_the_first_authentic_message() {
    let [initiator, responder] = pair();
    assert!(initiator.confirmed() && !initiator.confirm());
    assert!(!responder.confirmed());
    assert_eq!([responder.confirm(), responder.confirm()], [true, false]);
    assert!(responder.confirmed());
}

#[test]
fn a_clock_that_goes_back_makes_no_session_old() {
    let [session, _] = pair();
    assert!(session.can_send(Time(0)) && !session.wants_rekey(Time(0)));
}
