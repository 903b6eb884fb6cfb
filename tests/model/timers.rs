//! Every expiry at its edge.

use std::time::Duration;

use vpnd::{
    forward::{Refusal, Time, session::REJECT_AFTER_TIME},
    tunnel::{ERASE_AFTER_TIME, Event, KEEPALIVE_TIMEOUT, MAX_ATTEMPTS, REKEY_JITTER, REKEY_TIMEOUT},
    wire::message::Kind,
};

use crate::world::{DELAY, MTU, NANO, World, before, millis, outer, secs};

/// When node `a`'s session with `b` was born.
fn birth(world: &World, a: usize, b: usize) -> Time {
    world.current(a, b).start().birth
}

#[test]
fn the_constants_are_the_protocols() {
    assert_eq!(REJECT_AFTER_TIME, secs(180));
    assert_eq!(vpnd::forward::session::REKEY_AFTER_TIME, secs(120));
    assert_eq!(vpnd::forward::session::REKEY_AFTER_MESSAGES, 1 << 60);
    assert_eq!(REKEY_TIMEOUT, secs(5));
    assert_eq!(REKEY_JITTER, millis(333));
    assert_eq!(REKEY_TIMEOUT * MAX_ATTEMPTS, secs(90));
    assert_eq!(KEEPALIVE_TIMEOUT, secs(10));
    assert_eq!(ERASE_AFTER_TIME, secs(540));
    assert_eq!(vpnd::tunnel::INITIATION_INTERVAL, millis(20));
    assert_eq!(vpnd::tunnel::COOKIE_LIFETIME, secs(120));
    assert_eq!(vpnd::forward::HANDSHAKE_QUEUE, 4096);
    assert_eq!(MTU, 1420);
}

#[test]
fn the_initiator_renews_a_session_of_120_s_when_it_sends_and_not_a_nanosecond_before() {
    let mut world = World::connected();
    let birth = birth(&world, 0, 1);
    world.run_until(before(birth + secs(120), NANO));
    world.send(0, 1);
    assert_eq!(world.initiations(0), 1);
    world.run_until(birth + secs(120));
    assert_eq!(world.initiations(0), 1, "age alone asks for nothing");
    world.send(0, 1);
    assert_eq!(world.initiations(0), 2);
    world.run(secs(1));
    assert_eq!(world.nodes[1].delivered.len(), 3);
    assert!(birth < world.current(0, 1).start().birth);
}

#[test]
fn the_responder_never_renews_by_time() {
    let mut world = World::connected();
    let birth = birth(&world, 1, 0);
    for second in [120, 121, 125, 129] {
        world.run_until(birth + secs(second));
        world.send(1, 0);
    }
    assert_eq!(world.initiations(1), 0);
    world.run(secs(2));
    assert_eq!(world.nodes[0].delivered.len(), 4);
    assert_eq!(world.initiations(0), 2, "the initiator did, with its keepalive");
}

#[test]
fn a_session_of_180_s_seals_nothing_more() {
    let mut world = World::connected();
    let birth = birth(&world, 1, 0);
    world.run_until(before(birth + REJECT_AFTER_TIME, NANO));
    world.network.cut = true;
    world.forget_log();
    world.send(1, 0);
    assert_eq!(world.log.iter().map(|sent| sent.kind()).collect::<Vec<_>>(), [Kind::Transport]);
    world.run_until(birth + REJECT_AFTER_TIME);
    world.send(1, 0);
    let kinds: Vec<_> = world.log.iter().map(|sent| sent.kind()).collect();
    assert_eq!(kinds, [Kind::Transport, Kind::Initiation]);
    assert_eq!(world.status(1, 0).staged, 1);
}

#[test]
fn a_session_of_180_s_opens_nothing_more() {
    let mut world = World::connected();
    let opens_until = birth(&world, 1, 0) + REJECT_AFTER_TIME;
    world.run_until(before(opens_until, DELAY + NANO));
    world.send(0, 1);
    world.run(NANO);
    world.send(0, 1);
    world.network.cut = true; // no rekey
    world.run(DELAY);
    assert_eq!(world.now, opens_until);
    assert_eq!(world.nodes[1].delivered.len(), 2);
    assert_eq!(world.nodes[1].refused(Refusal::SessionExpired), 1);
}

#[test]
fn an_initiation_is_repeated_after_5_s_and_up_to_a_third_more_each_time_fresh() {
    let mut world = World::pair();
    world.network.cut = true;
    world.send(0, 1);
    world.run(secs(80));
    let sent = world.of_kind(0, Kind::Initiation);
    assert!(sent.len() >= 15, "{}", sent.len());
    let gaps: Vec<Duration> = sent.windows(2).map(|pair| pair[1].at.since(pair[0].at)).collect();
    for gap in &gaps {
        assert!((REKEY_TIMEOUT..=REKEY_TIMEOUT + REKEY_JITTER).contains(gap), "{gap:?}");
    }
    assert!(gaps.windows(2).any(|pair| pair[0] != pair[1]), "there is jitter");
    for pair in sent.windows(2) {
        assert_ne!(pair[0].bytes[4..8], pair[1].bytes[4..8], "index");
        assert_ne!(pair[0].bytes[8..40], pair[1].bytes[8..40], "ephemeral key");
    }
}

#[test]
fn what_wants_a_session_does_not_hurry_the_next_initiation() {
    let mut world = World::pair();
    world.network.cut = true;
    for _ in 0..49 {
        world.send(0, 1);
        world.run(millis(100));
    }
    assert_eq!(world.initiations(0), 1);
}

#[test]
fn a_handshake_is_given_up_after_90_s_and_begun_again_by_the_next_packet() {
    let mut world = World::pair();
    world.network.cut = true;
    let start = world.now;
    world.send(0, 1);
    world.run_until(before(start + secs(90), NANO));
    assert!(!world.has_event(0, |event| matches!(event, Event::GivenUp { .. })));
    assert_eq!(world.status(0, 1).staged, 1);
    world.run_until(start + secs(90) + REKEY_JITTER * MAX_ATTEMPTS);
    assert!(world.has_event(0, |event| matches!(event, Event::GivenUp { .. })));
    assert_eq!(world.initiations(0), MAX_ATTEMPTS as usize);
    assert_eq!(world.status(0, 1).staged, 0);
    assert_eq!(world.nodes[0].refused(Refusal::HandshakeGivenUp), 1);
    let attempts: Vec<u32> = world.nodes[0]
        .events
        .iter()
        .filter_map(|event| match event {
            Event::Unanswered { attempts, .. } => Some(*attempts),
            _ => None,
        })
        .collect();
    assert_eq!(attempts, (1..=MAX_ATTEMPTS).collect::<Vec<_>>());

    world.run(secs(3600));
    assert_eq!(world.initiations(0), MAX_ATTEMPTS as usize, "silence");
    assert_eq!(world.next(), None);

    world.network.cut = false;
    world.send(0, 1);
    world.run(secs(1));
    assert_eq!(world.nodes[1].delivered.len(), 1);
    assert_eq!(world.status(0, 1).attempts, 0);
}

#[test]
fn traffic_keeps_a_handshake_from_being_given_up() {
    let mut world = World::pair();
    world.network.cut = true;
    for _ in 0..200 {
        world.send(0, 1);
        world.run(secs(1));
    }
    assert!(!world.has_event(0, |event| matches!(event, Event::GivenUp { .. })));
    assert!(world.status(0, 1).attempts > MAX_ATTEMPTS);
    world.network.cut = false;
    world.run(secs(6));
    assert_eq!(world.nodes[1].delivered.len(), vpnd::forward::peer::STAGED_PACKETS, "the newest");
}

#[test]
fn each_retry_forgets_from_which_of_our_addresses_we_talk() {
    for (idle, patience) in [(secs(200), secs(5)), (secs(60), secs(15))] {
        let mut world = World::connected();
        world.run(idle); // the session is dead, or it lives and its data goes unanswered
        world.network.cut = true;
        world.send(0, 1);
        world.run_until(before(world.now + patience, NANO));
        assert!(world.status(0, 1).local.is_some());
        world.run(REKEY_JITTER + NANO);
        assert_eq!(world.status(0, 1).local, None);
        assert!(world.status(0, 1).endpoint.is_some());
    }
}

#[test]
fn data_that_came_is_answered_by_a_keepalive_after_10_s_and_not_before() {
    let mut world = World::connected();
    world.run(secs(60));
    world.forget_log();
    world.send(0, 1);
    let came = world.now + DELAY;
    world.run_until(before(came + secs(10), NANO));
    assert_eq!(world.sent_by(1).count(), 0);
    world.run_until(came + secs(10));
    assert_eq!(world.sent_by(1).filter(|sent| sent.is_keepalive()).count(), 1);
    world.run(secs(60));
    assert_eq!(world.sent_by(1).count(), 1, "once");
    assert_eq!(world.sent_by(0).count(), 1, "and it is not answered");
}

#[test]
fn a_keepalive_is_timed_from_the_first_data_not_from_the_last() {
    let mut world = World::connected();
    world.run(secs(60));
    world.forget_log();
    let first = world.now + DELAY;
    for _ in 0..12 {
        world.send(0, 1);
        world.run(secs(1));
    }
    let keepalives: Vec<_> = world.sent_by(1).map(|sent| sent.at).collect();
    assert_eq!(keepalives, [first + secs(10)]);
}

#[test]
fn an_answer_makes_the_keepalive_needless() {
    let mut world = World::connected();
    world.run(secs(60));
    world.forget_log();
    world.send(0, 1);
    world.run(secs(9));
    world.send(1, 0);
    world.run(secs(5));
    assert_eq!(world.sent_by(1).filter(|sent| sent.is_keepalive()).count(), 0);
    world.run(secs(60));
    assert_eq!(world.sent_by(0).filter(|sent| sent.is_keepalive()).count(), 1, "the answer is data too");
}

#[test]
fn data_without_answer_for_15_s_begins_a_new_handshake() {
    let mut world = World::connected();
    world.run(secs(60));
    world.network.cut = true;
    world.forget_log();
    let sent = world.now;
    world.send(0, 1);
    world.run(secs(7));
    world.send(0, 1); // does not put it off
    world.run_until(before(sent + secs(15), NANO));
    assert_eq!(world.initiations(0), 0);
    world.run_until(sent + secs(15) + REKEY_JITTER);
    assert_eq!(world.initiations(0), 1);
}

#[test]
fn data_that_was_answered_by_a_keepalive_begins_no_handshake() {
    let mut world = World::connected();
    world.run(secs(60));
    world.forget_log();
    for _ in 0..5 {
        world.send(0, 1);
        world.run(secs(12));
    }
    assert_eq!(world.initiations(0) + world.initiations(1), 0);
}

#[test]
fn a_dead_peer_is_left_alone_once_the_handshake_was_given_up() {
    let mut world = World::connected();
    world.network.cut = true;
    world.send(0, 1);
    world.run(secs(200));
    world.forget_log();
    world.run(secs(7200));
    assert_eq!(world.sent_by(0).count(), 0);
}

#[test]
fn session_keys_are_erased_540_s_after_the_last_handshake() {
    let mut world = World::connected();
    let ours = world.of_kind(0, Kind::Initiation)[0].sender();
    let theirs = world.of_kind(1, Kind::Response)[0].sender();
    let births = [birth(&world, 0, 1), birth(&world, 1, 0)];
    for (n, index) in [(1, theirs), (0, ours)] {
        world.run_until(before(births[n] + ERASE_AFTER_TIME, NANO));
        assert!(world.session(n, index).is_some());
        world.run_until(births[n] + ERASE_AFTER_TIME);
        assert!(world.session(n, index).is_none());
    }
    assert_eq!(world.next(), None, "and then nothing is left to do");
}

#[test]
fn a_session_that_dies_of_age_is_told_of_once() {
    let mut world = World::connected();
    let birth = birth(&world, 0, 1);
    let silent = |event: &Event| matches!(event, Event::Silent { .. });
    world.run_until(before(birth + REJECT_AFTER_TIME, NANO));
    assert!(!world.has_event(0, silent));
    assert!(world.status(0, 1).session_age.is_some());
    world.run_until(birth + REJECT_AFTER_TIME);
    assert!(world.has_event(0, silent));
    assert_eq!(world.status(0, 1).session_age, None);
    world.run(secs(3600));
    assert_eq!(world.nodes[0].events.iter().filter(|event| silent(event)).count(), 1);
}

#[test]
fn two_idle_peers_fall_silent() {
    let mut world = World::connected();
    world.send(1, 0);
    world.run(secs(30));
    world.forget_log();
    world.run(secs(7200));
    assert_eq!(world.log.len(), 0);
    assert_eq!(world.next(), None, "no deadline either");
}

#[test]
fn steady_traffic_has_one_handshake_each_120_s_and_only_the_initiator_renews() {
    let mut world = World::connected();
    for _ in 0..2000 {
        world.send(0, 1);
        world.send(1, 0);
        world.run(millis(500));
    }
    assert_eq!(world.initiations(0), 9, "1000 s: the first and eight more");
    assert_eq!(world.initiations(1), 0);
    assert_eq!(world.of_kind(1, Kind::Response).len(), 9);
    assert_eq!((world.nodes[0].delivered.len(), world.nodes[1].delivered.len()), (2000, 2001));
}

#[test]
fn an_initiator_that_only_receives_renews_too() {
    let mut world = World::connected();
    for _ in 0..600 {
        world.send(1, 0);
        world.run(secs(1));
    }
    assert!((5..=6).contains(&world.initiations(0)), "{}", world.initiations(0));
    assert_eq!(world.initiations(1), 0);
    assert_eq!(world.nodes[0].delivered.len(), 600);
}

#[test]
fn a_persistent_keepalive_leaves_at_once_and_then_an_interval_after_anything_else() {
    let mut world = World::connected();
    world.run(secs(60));
    world.forget_log();
    let start = world.now;
    world.change(0, 1, |change| change.persistent_keepalive = Some(20));
    assert_eq!(world.sent_by(0).filter(|sent| sent.is_keepalive()).count(), 1, "at once");
    world.run(secs(15));
    world.send(0, 1); // puts the next one off
    world.run_until(start + secs(20));
    world.send(1, 0);
    world.run(DELAY);
    let traversed = world.now;
    world.run_until(before(traversed + secs(20), NANO));
    // The data that came was answered by a keepalive after 10 s: that counts as well.
    let times: Vec<_> = world.sent_by(0).filter(|sent| sent.is_keepalive()).map(|sent| sent.at).collect();
    assert_eq!(times, [start, traversed + secs(10)]);
    world.forget_log();
    world.run_until(before(traversed + secs(30), NANO));
    assert_eq!(world.sent_by(0).count(), 0);
    world.run_until(traversed + secs(30));
    assert_eq!(world.sent_by(0).filter(|sent| sent.is_keepalive()).count(), 1);
    world.change(0, 1, |change| change.persistent_keepalive = Some(0));
    world.forget_log();
    world.run(secs(600));
    assert_eq!(world.sent_by(0).count(), 0, "switched off");
}

#[test]
fn a_persistent_keepalive_is_put_off_by_what_was_received_too() {
    let mut world = World::connected();
    world.run(secs(60));
    let start = world.now;
    world.change(0, 1, |change| change.persistent_keepalive = Some(20));
    world.run(secs(15));
    world.forget_log();
    let theirs = world.current(1, 0).seal(&[], 0, world.now).expect("a session that lives");
    world.arrive(outer(1), 0, &theirs);
    world.run_until(before(start + secs(35), NANO));
    assert_eq!(world.sent_by(0).count(), 0);
    world.run_until(start + secs(35));
    assert_eq!(world.sent_by(0).filter(|sent| sent.is_keepalive()).count(), 1);
}

#[test]
fn persistent_keepalives_keep_the_session_fresh() {
    let mut world = World::pair();
    world.change(0, 1, |change| change.persistent_keepalive = Some(25));
    world.run(secs(1000));
    assert!((7..=9).contains(&world.initiations(0)), "{}", world.initiations(0));
    assert!(!world.has_event(0, |event| matches!(event, Event::Silent { .. })));
    assert_eq!(world.sent_by(1).filter(|sent| sent.kind() != Kind::Response).count(), 0);
}

#[test]
fn persistent_keepalives_never_give_a_peer_up() {
    let mut world = World::pair();
    world.network.cut = true;
    world.change(0, 1, |change| change.persistent_keepalive = Some(25));
    world.run(secs(3600));
    world.forget_log();
    world.network.cut = false;
    world.run(secs(26));
    assert!(world.status(0, 1).session_age.is_some());
}

#[test]
fn a_device_that_comes_up_sends_its_persistent_keepalives() {
    let mut world = World::connected();
    world.change(0, 1, |change| change.persistent_keepalive = Some(1000));
    world.run(secs(5));
    world.forget_log();
    let now = world.now_at(0);
    world.nodes[0].tunnel.link_up(now);
    world.run(NANO);
    assert_eq!(world.sent_by(0).filter(|sent| sent.is_keepalive()).count(), 1);
}
