//! A process dies and the next one takes over: sessions come back within a round trip, and no clock locks anybody out.

use vpnd::{
    forward::{Endpoint, Refusal},
    noise::Tai64n,
    tunnel::Remembered,
    wire::message::Kind,
};

use crate::world::{DELAY, World, inner, millis, outer, secs};

const YEAR: i64 = 365 * 86_400;

/// What was the newest timestamp that `n` ever sent.
fn newest(world: &World, n: usize) -> Tai64n {
    world.nodes[n].tunnel.newest_timestamp()
}

#[test]
fn sessions_are_back_after_one_round_trip_whoever_began_the_old_ones() {
    for restarted in [0, 1] {
        let mut world = World::connected();
        world.forget_log();
        let floor = newest(&world, restarted);
        world.restart(restarted, floor);
        world.run(4 * DELAY);
        assert_eq!(world.initiations(restarted), 1, "it calls");
        assert_eq!(world.initiations(1 - restarted), 0, "and nobody else has to");
        for (from, to) in [(0, 1), (1, 0)] {
            let number = world.send(from, to);
            world.run(2 * DELAY);
            assert_eq!(world.nodes[to].delivered.last(), Some(&number), "{restarted} was restarted");
        }
    }
}

#[test]
fn a_peer_that_only_its_old_process_knew_by_its_packets_is_found_again() {
    let mut world = World::empty(3);
    world.add_node();
    world.add_node();
    world.introduce(0, 1);
    // 1 is a gateway: the file says nothing of where 0 is.
    world.change(1, 0, |change| {
        change.allowed_ips = vec![vpnd::tunnel::AllowedIpOp::Add(std::net::IpAddr::V4(inner(0)).into())];
    });
    world.send(0, 1);
    world.run(secs(1));
    let known = world.nodes[1].tunnel.remembered(&world.nodes[0].public_key()).expect("it was heard from");
    assert_eq!(known.endpoint.remote, outer(0));
    world.restart(1, newest(&world, 1));
    world.run(4 * DELAY);
    let number = world.send(1, 0);
    world.run(2 * DELAY);
    assert_eq!(world.nodes[0].delivered, [number]);
}

#[test]
fn both_ends_may_be_restarted_at_once() {
    let mut world = World::connected();
    for n in [0, 1] {
        world.restart(n, newest(&world, n));
    }
    world.run(millis(200));
    for (from, to) in [(0, 1), (1, 0)] {
        let number = world.send(from, to);
        world.run(2 * DELAY);
        assert_eq!(world.nodes[to].delivered.last(), Some(&number));
    }
}

#[test]
fn data_does_not_wait_for_the_turn_of_its_peer_to_be_called() {
    let mut world = World::connected();
    let key = world.nodes[1].public_key();
    let known = world.nodes[0].tunnel.remembered(&key).expect("connected");
    world.replace(0);
    world.introduce(0, 1);
    let turn = world.now + secs(10);
    assert!(world.nodes[0].tunnel.resume(&key, known, Some(turn)));
    world.forget_log();
    let number = world.send(0, 1);
    world.run(4 * DELAY);
    assert_eq!(world.nodes[1].delivered.last(), Some(&number));
    world.run(secs(20));
    assert_eq!(world.initiations(0), 1, "and its turn brings no second one");
}

#[test]
fn a_peer_without_a_session_is_not_called_but_found_where_it_was() {
    let mut world = World::connected();
    world.run(secs(200));
    world.forget_log();
    world.restart(0, newest(&world, 0));
    world.run(secs(30));
    assert_eq!(world.sent_by(0).count(), 0);
    assert_eq!(world.status(0, 1).endpoint, Some(outer(1)));
}

#[test]
fn a_resumed_peer_that_nobody_has_is_refused() {
    let mut world = World::pair();
    let known = Remembered {
        endpoint: Endpoint { remote: outer(7), local: None },
        newest_timestamp: Tai64n::default(),
    };
    let stranger = crate::world::key(7).public_key();
    assert!(!world.nodes[0].tunnel.resume(&stranger, known, None));
}

#[test]
fn an_initiation_of_before_is_a_replay_to_the_next_process_too() {
    let mut world = World::connected();
    let initiation = world.of_kind(0, Kind::Initiation)[0].bytes.clone();
    world.restart(1, newest(&world, 1));
    world.run(secs(1));
    let elsewhere = outer(9);
    world.arrive(elsewhere, 1, &initiation);
    assert_eq!(world.nodes[1].refused(Refusal::TimestampNotNewer), 1);
    assert_eq!(world.status(1, 0).endpoint, Some(outer(0)), "it is not led astray");
}

#[test]
fn a_clock_that_went_back_over_a_restart_locks_nobody_out_where_the_newest_timestamp_was_kept() {
    // A day, and back to 1970-something: a board without a battery.
    for error in [-86_400, -23 * YEAR] {
        let mut world = World::connected();
        let floor = newest(&world, 0);
        world.nodes[0].clock_error = error;
        world.restart(0, floor);
        world.run(4 * DELAY);
        let number = world.send(0, 1);
        world.run(2 * DELAY);
        assert_eq!(world.nodes[1].delivered.last(), Some(&number));
        assert_eq!(world.nodes[1].refused(Refusal::TimestampNotNewer), 0);
        assert!(newest(&world, 0) > floor);
    }
}

#[test]
fn the_same_without_it_is_refused_until_the_clock_is_right_again() {
    let mut world = World::connected();
    world.nodes[0].clock_error = -3600;
    world.restart(0, Tai64n::default());
    world.run(secs(12));
    assert!(world.nodes[1].refused(Refusal::TimestampNotNewer) > 0, "so the test above shows something");
}

#[test]
fn a_newest_timestamp_that_is_told_after_the_peers_holds_for_them_too() {
    let mut world = World::pair();
    let floor = Tai64n::from_unix(world.now_at(0).wall + secs(3600));
    world.nodes[0].tunnel.never_before(floor);
    let number = world.send(0, 1);
    world.run(4 * DELAY);
    assert_eq!(world.nodes[1].delivered, [number]);
    assert!(newest(&world, 0) > floor);
}

#[test]
fn a_clock_that_was_years_ahead_and_came_back_does_not_lock_out_for_years() {
    let mut world = World::pair();
    world.nodes[0].clock_error = 10 * YEAR;
    world.send(0, 1);
    world.run(secs(1));
    let ahead = newest(&world, 0);
    world.nodes[0].clock_error = 0;
    // Over and over: each label is the smallest one after the last, so that there is room for all of them.
    for _ in 0..50 {
        world.restart(0, newest(&world, 0).max(ahead));
        world.run(secs(6));
        let number = world.send(0, 1);
        world.run(secs(1));
        assert_eq!(world.nodes[1].delivered.last(), Some(&number));
    }
    let now = world.now_at(0).wall;
    let years_ahead = Tai64n::from_unix(now + secs((10 * YEAR) as u64));
    assert!(newest(&world, 0) < years_ahead, "and they hardly move");
    // A peer that it never met is sent such labels, too: that one has no other measure, and takes any.
    assert!(newest(&world, 0) > ahead);
}

#[test]
fn a_session_that_lives_asks_for_no_call() {
    let mut world = World::connected();
    let key = world.nodes[1].public_key();
    let known = world.nodes[0].tunnel.remembered(&key).expect("connected");
    world.forget_log();
    let now = world.now;
    assert!(world.nodes[0].tunnel.resume(&key, known, Some(now)));
    world.run(secs(2));
    assert_eq!(world.initiations(0), 0);
}
