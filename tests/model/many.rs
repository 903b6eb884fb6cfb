//! Ten thousand peers.

use std::net::IpAddr;

use vpnd::{
    noise::PublicKey,
    tunnel::{AllowedIpOp, Change, EXPIRE_BATCH, Event, PeerChange},
};

use crate::world::{World, inner, millis, outer, secs};

const MANY: usize = 10_000;

/// Node 0 with ten thousand peers that never answer; peer `n` has the inner address `n`.
fn crowded(keepalive: Option<u16>) -> World {
    let mut world = World::empty(1);
    world.add_node();
    let now = world.now_at(0);
    for n in 1..=MANY {
        let mut bytes = [9; 32];
        bytes[..8].copy_from_slice(&(n as u64).to_le_bytes());
        let mut change = PeerChange::new(PublicKey(bytes));
        change.endpoint = Some(outer(1));
        change.persistent_keepalive = keepalive;
        change.allowed_ips = vec![AllowedIpOp::Add(IpAddr::V4(inner(n)).into())];
        world.nodes[0].tunnel.apply(Change::Peer(change), now).expect("a good change");
    }
    world.nodes[0].tunnel.publish();
    world
}

#[test]
fn ten_thousand_idle_peers_have_no_deadline() {
    let mut world = crowded(None);
    assert_eq!(world.next(), None);
    assert_eq!(world.nodes[0].tunnel.status(world.now_at(0)).peers.len(), MANY);
    world.send(0, 7777);
    world.run(secs(600));
    assert_eq!(world.log.len(), 18, "one peer's handshakes, nobody else's");
    assert_eq!(world.next(), None);
    world.apply(0, Change::ReplacePeers);
    assert_eq!(world.nodes[0].tunnel.status(world.now_at(0)).peers.len(), 0);
}

#[test]
fn ten_thousand_keepalives_at_once_are_sent_in_batches_and_none_is_lost() {
    let mut world = crowded(Some(3000));
    let now = world.now_at(0);
    let mut sent = 0;
    for _ in 0..MANY.div_ceil(EXPIRE_BATCH) {
        world.nodes[0].tunnel.expire(now);
        let batch = std::iter::from_fn(|| world.nodes[0].tunnel.poll_transmit()).count();
        assert!(batch <= EXPIRE_BATCH);
        sent += batch;
    }
    assert_eq!(sent, MANY);
    assert!(world.nodes[0].tunnel.deadline().is_some_and(|at| at >= now.boot + secs(5)));
}

#[test]
fn a_hub_talks_to_all_of_its_peers() {
    let mut world = World::empty(5);
    for _ in 0..40 {
        world.add_node();
    }
    for n in 1..40 {
        world.introduce(0, n);
        world.introduce(n, 0);
    }
    for n in 1..40 {
        world.send(n, 0);
        world.send(0, n);
    }
    world.run(millis(500));
    assert_eq!(world.nodes[0].delivered.len(), 39);
    assert!((1..40).all(|n| world.nodes[n].delivered.len() == 1));
    let connected = |event: &&Event| matches!(event, Event::Connected { first: true, .. });
    assert!(world.nodes[0].events.iter().filter(connected).count() >= 39);
}
