//! How sessions follow one another, and their limits.

use vpnd::{
    forward::{
        Raised, Refusal,
        session::{REJECT_AFTER_MESSAGES, REKEY_AFTER_MESSAGES},
    },
    tunnel::RETIRE_AFTER_TIME,
    wire::message::Kind,
};

use crate::world::{DELAY, Sent, World, millis, outer, secs};

/// The datagram that `from` would send to `to` now, kept back by the network.
fn held_back(world: &mut World, from: usize, to: usize) -> (u64, Sent) {
    world.network.cut = true;
    let number = world.send(from, to);
    world.network.cut = false;
    let data = world.log.iter().rev().find(|sent| sent.by == from && sent.is_data());
    (number, data.cloned().expect("data was sent"))
}

/// Renews the session from `from`'s end.
fn renew(world: &mut World, from: usize, to: usize) {
    let born = world.current(from, to).start().birth;
    world.run_until(born + secs(121));
    world.send(from, to);
    world.run(millis(200));
    assert!(world.current(from, to).start().birth > born + secs(120), "renewed");
}

#[test]
fn packets_on_their_way_during_a_rekey_arrive() {
    let mut world = World::connected();
    let born = world.current(0, 1).start().birth;
    world.run_until(born + secs(119));
    let mut sent = (0, 0);
    for _ in 0..1000 {
        world.send(0, 1);
        world.send(1, 0);
        sent = (sent.0 + 1, sent.1 + 1);
        world.run(millis(3));
    }
    world.run(DELAY);
    assert_eq!(world.initiations(0), 2);
    assert_eq!((world.nodes[1].delivered.len(), world.nodes[0].delivered.len()), (sent.0 + 1, sent.1));
}

#[test]
fn a_late_packet_of_the_old_session_is_delivered_and_switches_nothing_back() {
    for (from, to) in [(0, 1), (1, 0)] {
        let mut world = World::connected();
        world.run(secs(118));
        let (number, late) = held_back(&mut world, from, to);
        renew(&mut world, 0, 1);
        let sealing = world.current(to, from).start().local;
        world.arrive(late.from, to, &late.bytes);
        assert_eq!(world.nodes[to].delivered.last(), Some(&number));
        assert_eq!(world.current(to, from).start().local, sealing);
        world.arrive(late.from, to, &late.bytes);
        assert_eq!(world.nodes[to].refused(Refusal::Replayed), 1);
    }
}

#[test]
fn of_three_sessions_the_first_is_forgotten() {
    let mut world = World::connected();
    world.run(millis(500));
    let (_, late) = held_back(&mut world, 0, 1);
    renew(&mut world, 0, 1);
    renew(&mut world, 0, 1);
    world.arrive(late.from, 1, &late.bytes);
    assert_eq!(world.nodes[1].refused(Refusal::NoSuchSession), 1);
}

/// The paper lets the session before stay until the next handshake; its keys are of no more use once the peer seals with
/// the new one, and what it sent before has arrived.
#[test]
fn five_seconds_after_a_rekey_the_session_before_is_forgotten_and_not_a_moment_sooner() {
    for (from, to) in [(0, 1), (1, 0)] {
        for late_enough in [false, true] {
            let mut world = World::connected();
            world.run(secs(118));
            let (number, late) = held_back(&mut world, from, to);
            renew(&mut world, 0, 1);
            // Both have sealed with the new one.
            world.send(0, 1);
            world.send(1, 0);
            world.run(DELAY);
            let born = world.current(to, from).start().birth;
            let moment = if late_enough { millis(5250) } else { RETIRE_AFTER_TIME - millis(1) };
            world.run_until(born + moment);
            world.arrive(late.from, to, &late.bytes);
            assert_eq!(world.nodes[to].delivered.last() == Some(&number), !late_enough, "{to} hears {from}");
            assert_eq!(world.nodes[to].refused(Refusal::NoSuchSession), u64::from(late_enough));
        }
    }
}

/// Whoever initiated knows by what comes that the peer has the new keys: until then it may still seal with the old ones.
#[test]
fn a_session_that_the_peer_may_still_seal_with_is_kept_until_it_is_too_old() {
    let mut world = World::connected();
    let old = world.current(0, 1).start().birth;
    world.run(secs(118));
    let (number, late) = held_back(&mut world, 1, 0);
    world.network.mute = Some(outer(1)); // from now on the peer is only heard by its response
    world.run_until(old + secs(121));
    world.network.mute = None;
    world.send(0, 1);
    world.run(millis(150));
    world.network.mute = Some(outer(1));
    world.run(secs(20));
    assert_ne!(world.current(0, 1).start().birth, old, "renewed");
    world.arrive(late.from, 0, &late.bytes);
    assert_eq!(world.nodes[0].delivered.last(), Some(&number), "the peer may seal with it");
    world.run_until(old + secs(181));
    assert_eq!(world.nodes[0].refused(Refusal::NoSuchSession), 0);
    world.arrive(late.from, 0, &late.bytes);
    assert_eq!(world.nodes[0].refused(Refusal::NoSuchSession), 1, "and no more at its end");
}

#[test]
fn a_next_session_takes_the_place_of_the_previous_one() {
    let mut world = World::connected();
    world.run(millis(500));
    let (_, late) = held_back(&mut world, 0, 1);
    renew(&mut world, 0, 1);
    let born = world.current(0, 1).start().birth;
    world.run_until(born + secs(121));
    world.network.mute = Some(outer(1)); // the response is lost: nothing is confirmed
    world.send(0, 1);
    world.run(millis(100));
    world.arrive(late.from, 1, &late.bytes);
    assert_eq!(world.nodes[1].refused(Refusal::NoSuchSession), 1);
}

#[test]
fn the_responder_seals_with_the_new_session_only_when_it_was_confirmed() {
    let mut world = World::connected();
    let born = world.current(0, 1).start().birth;
    world.run_until(born + secs(121));
    let old = world.current(1, 0).start().local;
    world.network.mute = Some(outer(1)); // the response is lost
    world.send(0, 1);
    world.run(millis(100));
    assert_eq!(world.of_kind(1, Kind::Response).len(), 2);
    assert_eq!(world.current(1, 0).start().local, old);
    let (peer, now) = (world.peer(1, 0), world.now_at(1));
    world.nodes[1].tunnel.handle_raised(&peer, Raised::CONFIRMED, now);
    assert_eq!(world.current(1, 0).start().local, old, "a notice about another session");
    world.network.mute = None;
    let number = world.send(1, 0);
    world.run(millis(100));
    assert_eq!(world.nodes[0].delivered, [number]);
    world.run(secs(6));
    assert_ne!(world.current(1, 0).start().local, old, "the retry did it");
}

#[test]
fn a_session_is_renewed_after_2_to_the_60_messages_by_either_end() {
    for (from, to) in [(0, 1), (1, 0)] {
        let mut world = World::connected();
        world.run(secs(20));
        world.forget_log();
        world.current(from, to).skip_to(REKEY_AFTER_MESSAGES - 1);
        world.send(from, to);
        world.run(secs(1));
        assert_eq!(world.initiations(from), 1);
        assert!(world.current(from, to).sent() < 10);
    }
}

#[test]
fn the_last_counter_is_never_used_and_what_follows_waits_for_the_next_session() {
    let mut world = World::connected();
    world.run(secs(20));
    world.forget_log();
    let session = world.current(1, 0);
    session.skip_to(REJECT_AFTER_MESSAGES - 1);
    world.network.cut = true;
    world.send(1, 0);
    world.send(1, 0);
    let data: Vec<u64> = world
        .of_kind(1, Kind::Transport)
        .iter()
        .map(|sent| u64::from_le_bytes(sent.bytes[8..16].try_into().expect("eight bytes")))
        .collect();
    assert_eq!(data, [REJECT_AFTER_MESSAGES - 1]);
    assert_eq!(world.status(1, 0).staged, 1);
    world.network.cut = false;
    world.run(secs(6));
    assert_eq!(world.nodes[0].delivered.len(), 1);
}

#[test]
fn an_unanswered_rekey_does_not_end_the_session_that_lives() {
    let mut world = World::connected();
    let born = world.current(0, 1).start().birth;
    world.run_until(born + secs(121));
    // Handshakes are lost, data is not.
    let held: Vec<Sent> = {
        world.network.cut = true;
        world.send(0, 1);
        world.network.cut = false;
        world.log.iter().filter(|sent| sent.is_data()).cloned().collect()
    };
    let last = held.last().expect("data left under the old session");
    world.arrive(last.from, 1, &last.bytes);
    assert_eq!(world.nodes[1].delivered.len(), 2);
}

#[test]
fn what_was_staged_leaves_before_what_is_sent_once_there_is_a_session() {
    let mut world = World::pair();
    let mut numbers = vec![world.send(0, 1), world.send(0, 1)];
    world.busy = Some((0, 1));
    world.run(millis(100));
    numbers.push(world.meanwhile.expect("data left"));
    numbers.push(world.send(0, 1));
    world.run(millis(100));
    assert_eq!(world.nodes[1].delivered, numbers);
    assert_eq!(world.initiations(0), 1);
}
