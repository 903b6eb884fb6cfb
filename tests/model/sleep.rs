//! Time that jumps (a machine slept, a virtual one was paused), and work that was done late.

use vpnd::{
    forward::Refusal,
    wire::message::{Kind, RESPONSE_LEN},
};

use crate::world::{World, millis, outer, secs};

/// Nobody does anything for so long, and then everything that fell due meanwhile at once.
fn sleep(world: &mut World, seconds: u64) {
    world.now = world.now + secs(seconds);
    world.run(millis(0));
}

#[test]
fn after_a_sleep_the_next_packet_goes_through_within_a_second_and_nothing_bursts() {
    for seconds in [1, 119, 121, 179, 181, 200, 541, 86_400, 400 * 86_400] {
        let mut world = World::connected();
        world.change(0, 1, |change| change.persistent_keepalive = Some(25));
        world.run(secs(30));
        world.send(0, 1); // an answer is awaited, and a keepalive owed
        world.run(millis(100));
        world.forget_log();
        sleep(&mut world, seconds);
        assert!(world.log.len() <= 3, "after {seconds} s: {:?}", world.log);
        let number = world.send(1, 0);
        world.run(secs(1));
        assert!(world.nodes[0].delivered.contains(&number), "after {seconds} s");
        assert!(world.log.len() <= 10, "after {seconds} s: {} datagrams", world.log.len());
    }
}

#[test]
fn a_handshake_that_was_slept_over_begins_anew() {
    for seconds in [4, 6, 91, 200, 86_400] {
        let mut world = World::pair();
        world.network.cut = true;
        let number = world.send(0, 1);
        sleep(&mut world, seconds);
        assert!(world.initiations(0) <= 2, "what was missed is not made up for");
        world.network.cut = false;
        world.run(secs(6));
        assert_eq!(world.nodes[1].delivered, [number], "after {seconds} s");
    }
}

/// The responder had no processor for 20 s: each of the initiator's attempts waits in its socket.
#[test]
fn initiations_that_are_read_late_and_all_at_once_do_not_hold_the_next_one_up() {
    let mut world = World::pair();
    world.network.cut = true;
    let number = world.send(0, 1);
    world.run(secs(20));
    let waiting = world.of_kind(0, Kind::Initiation);
    assert!(waiting.len() >= 4);
    world.network.cut = false;
    world.forget_log();
    for initiation in &waiting {
        world.arrive(initiation.from, 1, &initiation.bytes);
    }
    assert_eq!(world.of_kind(1, Kind::Response).len(), 1, "one is answered");
    assert_eq!(world.nodes[1].refused(Refusal::InitiationFlood), waiting.len() as u64 - 1);
    world.run(secs(6));
    assert_eq!(world.nodes[1].delivered, [number]);
}

/// The answer to an attempt that is no longer awaited changes nothing, however late it is.
#[test]
fn a_response_that_is_read_after_the_next_attempt_is_refused_and_the_attempt_goes_on() {
    let mut world = World::pair();
    world.network.delay = secs(7); // there; and another 7 s back: always an attempt too late
    world.send(0, 1);
    world.run(secs(16));
    assert!(world.nodes[0].refused(Refusal::NotAsked) > 0);
    world.network.delay = millis(10);
    world.run(secs(14));
    assert_eq!(world.nodes[1].delivered.len(), 1);
    assert!(world.status(0, 1).rx_bytes >= RESPONSE_LEN as u64);
}

/// A data thread reads the clock once a batch: the upper half may be a little ahead of it.
#[test]
fn a_data_thread_with_an_older_look_at_the_clock_uses_a_session_born_after_it() {
    let mut world = World::pair();
    let before = world.now;
    world.send(0, 1);
    world.run(millis(30));
    world.now = before;
    let number = world.send(0, 1);
    world.now = before + millis(30);
    world.run(millis(30));
    assert!(world.nodes[1].delivered.contains(&number));
    assert_eq!(world.status(0, 1).endpoint, Some(outer(1)));
}
