//! Peers that are let in until a moment of the wall clock.

use std::time::Duration;

use vpnd::{
    forward::Refusal,
    tunnel::{Change, EXPIRE_BATCH, Event, Expires, PeerChange},
    wire::message::Kind,
};

use crate::world::{NANO, World, key, millis, secs};

/// A connected pair; at the first, the second's time is over in so many seconds. The moment, by its wall clock.
fn expiring_in(world: &mut World, seconds: u64) -> Duration {
    let moment = world.now_at(0).wall + secs(seconds);
    world.change(0, 1, |change| change.expires = Some(Expires::At(moment)));
    moment
}

fn expired(world: &World) -> bool {
    world.has_event(0, |event| matches!(event, Event::Expired { .. }))
}

#[test]
fn a_session_ends_at_the_moment_and_not_a_nanosecond_before() {
    let mut world = World::connected();
    expiring_in(&mut world, 60);
    world.run(secs(60) - NANO);
    let number = world.send(0, 1);
    assert!(!expired(&world) && world.status(0, 1).session_age.is_some());
    world.run(NANO);
    assert!(expired(&world) && world.status(0, 1).expired);
    assert_eq!(world.status(0, 1).session_age, None);
    world.run(secs(1));
    assert!(world.nodes[1].delivered.contains(&number), "what was sent before it arrives");
}

#[test]
fn after_it_neither_end_gets_anything_through() {
    let mut world = World::connected();
    expiring_in(&mut world, 60);
    world.run(secs(61));
    world.forget_log();
    let before = world.nodes[0].delivered.len();
    world.send(1, 0); // by the session that the other end still has
    world.run(secs(30)); // and by the handshakes that it then tries
    assert_eq!(world.nodes[0].delivered.len(), before);
    assert!(world.nodes[0].refused(Refusal::PeerExpired) > 0, "its handshakes are refused, and why");
    assert_eq!(world.nodes[0].evidence(Refusal::PeerExpired).key, Some(world.nodes[1].public_key()));
    assert_eq!(world.sent_by(0).count(), 0, "an expired peer is not answered");

    world.change(0, 1, |change| change.persistent_keepalive = Some(5));
    for _ in 0..10 {
        world.send(0, 1);
    }
    world.run(secs(100));
    assert_eq!(world.sent_by(0).count(), 0, "nor spoken to");
    assert_eq!(world.nodes[0].refused(Refusal::ToExpiredPeer), 10);
    assert_eq!(world.status(0, 1).staged, 0, "nothing is kept for it");
}

#[test]
fn a_machine_that_slept_past_it_lets_nobody_in_when_it_wakes() {
    let mut world = World::connected();
    expiring_in(&mut world, 60);
    world.now = world.now + secs(100);
    world.send(1, 0);
    world.run(secs(10));
    assert!(expired(&world));
    assert_eq!((world.nodes[0].delivered.len(), world.status(0, 1).session_age), (0, None));
}

#[test]
fn a_clock_that_is_set_is_followed_both_ways() {
    let mut world = World::connected();
    let moment = expiring_in(&mut world, 3600);
    world.set_clock(0, 3600);
    assert!(expired(&world), "set forward to the moment");
    assert_eq!(world.nodes[0].tunnel.wall_deadline(), None);

    world.forget_log();
    world.set_clock(0, -60);
    assert_eq!(world.nodes[0].tunnel.wall_deadline(), Some(moment), "set back a minute before it");
    let number = world.send(0, 1);
    world.run(secs(6));
    assert!(world.nodes[1].delivered.contains(&number) && !world.status(0, 1).expired);
    world.run(secs(60));
    assert!(expired(&world), "and the moment comes again");
}

#[test]
fn a_later_moment_lets_the_peer_in_again_and_so_does_none() {
    for later in [Expires::Never, Expires::At(Duration::from_secs(4_000_000_000))] {
        let mut world = World::connected();
        expiring_in(&mut world, 0);
        assert!(expired(&world), "a moment that has passed ends it at once");
        world.forget_log();
        world.change(0, 1, |change| change.expires = Some(later));
        world.send(1, 0); // lost: the other end has to find out first
        world.run(secs(30));
        let number = world.send(1, 0);
        world.run(secs(1));
        assert!(world.nodes[0].delivered.contains(&number));
        assert!(!expired(&world));
    }
}

#[test]
fn a_handshake_that_was_on_its_way_is_not_completed() {
    let mut world = World::pair();
    expiring_in(&mut world, 1);
    world.network.delay = millis(600);
    world.send(0, 1);
    world.run(secs(5));
    assert_eq!(world.of_kind(1, Kind::Response).len(), 1, "it was answered");
    assert_eq!((world.status(0, 1).session_age, world.nodes[0].refused(Refusal::NotAsked)), (None, 1));
}

#[test]
fn a_peer_that_was_removed_has_no_moment_and_others_keep_theirs() {
    let mut world = World::of(3, 7);
    let moment = expiring_in(&mut world, 10);
    world.change(0, 2, |change| change.expires = Some(Expires::At(moment + secs(10))));
    world.change(0, 1, |change| change.remove = true);
    assert_eq!(world.nodes[0].tunnel.wall_deadline(), Some(moment + secs(10)));
    world.run(secs(20));
    assert!(world.status(0, 2).expired);
}

#[test]
fn thousands_that_expire_at_once_are_ended_in_turns() {
    let mut world = World::empty(3);
    world.add_node();
    let moment = world.now_at(0).wall + secs(5);
    let count = 10 * EXPIRE_BATCH + 1;
    for n in 0..count {
        let mut change = PeerChange::new(key(n + 1).public_key());
        change.expires = Some(Expires::At(moment));
        world.apply(0, Change::Peer(change));
    }
    world.now = world.now + secs(5);
    let now = world.now_at(0);
    let tunnel = &mut world.nodes[0].tunnel;
    let mut turns = 0;
    while tunnel.wall_deadline().is_some_and(|at| at <= now.wall) {
        tunnel.expire(now);
        let ended = std::iter::from_fn(|| tunnel.poll_event()).count();
        assert!(ended <= EXPIRE_BATCH);
        turns += 1;
    }
    assert_eq!(turns, 11);
}
