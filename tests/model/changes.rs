//! Changes of a tunnel that runs.

use std::net::IpAddr;

use ipnet::IpNet;
use vpnd::{
    forward::Refusal,
    tunnel::{AllowedIpOp, Change, ChangeError, Event, PeerChange},
};

use crate::world::{World, inner, key, millis, outer, secs};

fn net(text: &str) -> IpNet {
    text.parse().expect("a prefix")
}

#[test]
fn a_private_key_swapped_while_running_works_within_a_second() {
    let mut world = World::connected();
    let new = key(100);
    world.nodes[0].private_key = new.clone();
    world.apply(0, Change::PrivateKey(Some(new.clone())));
    assert_eq!(world.status(0, 1).session_age, None);
    let mut change = PeerChange::new(new.public_key());
    change.allowed_ips = vec![AllowedIpOp::Add(IpAddr::V4(inner(0)).into())];
    world.apply(1, Change::Peer(change));
    let number = world.send(0, 1);
    world.run(secs(1));
    assert_eq!(world.nodes[1].delivered.last(), Some(&number));
    assert_eq!(world.nodes[0].tunnel.status(world.now_at(0)).public_key, Some(new.public_key()));
}

#[test]
fn the_same_private_key_again_disturbs_no_session() {
    let mut world = World::connected();
    let age = world.status(0, 1).session_age;
    assert!(age.is_some());
    world.apply(0, Change::PrivateKey(Some(world.nodes[0].private_key.clone())));
    assert_eq!(world.status(0, 1).session_age, age);
}

#[test]
fn the_responders_key_swapped_is_seen_by_an_initiator_that_knows_the_new_one() {
    let mut world = World::connected();
    let new = key(101);
    world.nodes[1].private_key = new.clone();
    world.apply(1, Change::PrivateKey(Some(new)));
    world.introduce(0, 1);
    let number = world.send(0, 1);
    world.run(secs(1));
    assert_eq!(world.nodes[1].delivered.last(), Some(&number));
}

#[test]
fn our_own_key_is_no_peer() {
    let mut world = World::pair();
    let own = world.nodes[0].public_key();
    let now = world.now_at(0);
    let change = Change::Peer(PeerChange::new(own));
    assert_eq!(world.nodes[0].tunnel.apply(change, now), Err(ChangeError::OwnKey(own)));
    assert_eq!(world.nodes[0].tunnel.peer_id(&own), None);
    // And a peer whose key becomes ours is taken away.
    let theirs = world.nodes[1].public_key();
    assert!(world.nodes[0].tunnel.peer_id(&theirs).is_some());
    world.apply(0, Change::PrivateKey(Some(key(1))));
    assert_eq!(world.nodes[0].tunnel.peer_id(&theirs), None);
}

#[test]
fn a_peer_removed_while_it_talks_is_a_stranger_at_once() {
    let mut world = World::connected();
    world.send(0, 1);
    world.send(1, 0);
    let index = world.current(1, 0).start().local;
    let held = world.peer(1, 0);
    world.change(1, 0, |change| change.remove = true);
    assert!(world.session(1, index).is_none());
    assert_eq!(held.endpoint(), None, "a data thread that still holds it sends it nothing");
    world.send(1, 0);
    assert_eq!(world.nodes[1].refused(Refusal::NoPeer), 1);
    world.run(millis(50));
    assert_eq!(world.nodes[1].delivered.len(), 1, "what was on its way is refused");
    assert_eq!(world.nodes[1].refused(Refusal::NoSuchSession), 1);
    world.forget_log();
    world.send(0, 1);
    world.run(secs(30));
    assert_eq!(world.sent_by(1).count(), 0);
    assert_eq!(world.nodes[1].evidence(Refusal::UnknownKey).key, Some(key(0).public_key()));

    world.introduce(1, 0);
    let number = world.send(1, 0);
    world.run(secs(6));
    assert_eq!(world.nodes[0].delivered.last(), Some(&number), "and welcome when it is made again");
}

#[test]
fn a_new_endpoint_is_asked_at_once_while_the_old_one_does_not_answer() {
    let mut world = World::pair();
    let (right, dead) = (outer(1), outer(99));
    world.change(0, 1, |change| change.endpoint = Some(dead));
    let number = world.send(0, 1);
    world.run(secs(1));
    assert_eq!(world.initiations(0), 1);
    world.change(0, 1, |change| change.endpoint = Some(right));
    world.run(millis(200));
    assert_eq!(world.initiations(0), 2);
    assert_eq!(world.nodes[1].delivered.last(), Some(&number));

    world.forget_log();
    world.change(0, 1, |change| change.endpoint = Some(dead));
    world.change(0, 1, |change| change.endpoint = Some(right));
    world.run(secs(1));
    assert_eq!(world.initiations(0), 0, "where none is waited for, none is sent");
}

#[test]
fn a_removed_peers_staged_packets_are_gone() {
    let mut world = World::pair();
    world.network.cut = true;
    world.send(0, 1);
    let peer = world.peer(0, 1);
    assert_eq!(peer.staged(), 1);
    world.change(0, 1, |change| change.remove = true);
    assert_eq!(peer.staged(), 0);
    assert_eq!(world.next(), None, "and so are its deadlines");
}

#[test]
fn replacing_all_peers_leaves_none() {
    let mut world = World::of(4, 1);
    world.apply(0, Change::ReplacePeers);
    assert_eq!(world.nodes[0].tunnel.status(world.now_at(0)).peers.len(), 0);
    world.send(0, 1);
    assert_eq!(world.nodes[0].refused(Refusal::NoPeer), 1);
}

#[test]
fn a_prefix_given_to_another_peer_moves_there_and_back() {
    let mut world = World::of(3, 1);
    for n in [1, 2] {
        world.send(0, n);
        world.run(millis(100));
    }
    let shared: std::net::Ipv4Addr = [10, 9, 9, 9].into();
    let prefix: IpNet = net("10.9.9.9/32");
    world.change(0, 1, |change| change.allowed_ips = vec![AllowedIpOp::Add(net("10.9.9.0/24"))]);
    world.send_as(1, shared, 0);
    world.run(millis(50));
    assert_eq!(world.nodes[0].delivered.len(), 1, "under the /24");

    world.change(0, 2, |change| change.allowed_ips = vec![AllowedIpOp::Add(prefix)]);
    world.send_as(1, shared, 0);
    world.run(millis(50));
    assert_eq!(world.nodes[0].delivered.len(), 1, "another peer owns the /32");
    world.send_as(2, shared, 0);
    world.run(millis(50));
    assert_eq!(world.nodes[0].delivered.len(), 2);
    assert!(!world.has_event(0, |event| matches!(event, Event::PrefixMoved { .. })), "none moved yet");

    world.change(0, 1, |change| change.allowed_ips = vec![AllowedIpOp::Add(prefix)]);
    let (from, to) = (key(2).public_key(), key(1).public_key());
    assert!(world.has_event(0, |event| *event == Event::PrefixMoved { prefix, from, to }));
    assert_eq!(world.status(0, 2).allowed_ips, [net("10.0.0.2/32")]);
    assert_eq!(world.status(0, 1).allowed_ips, [net("10.0.0.1/32"), net("10.9.9.0/24"), prefix]);

    world.change(0, 2, |change| change.allowed_ips = vec![AllowedIpOp::Remove(prefix)]);
    assert_eq!(world.status(0, 1).allowed_ips.len(), 3, "it was not its own to give away");
    world.change(0, 1, |change| change.allowed_ips = vec![AllowedIpOp::Remove(prefix)]);
    assert_eq!(world.status(0, 1).allowed_ips, [net("10.0.0.1/32"), net("10.9.9.0/24")]);
    world.change(0, 1, |change| change.replace_allowed_ips = true);
    assert_eq!(world.status(0, 1).allowed_ips, []);
    world.send(0, 1);
    assert_eq!(world.nodes[0].refused(Refusal::NoPeer), 1);
}

#[test]
fn host_bits_of_a_prefix_are_ignored() {
    let mut world = World::pair();
    world.change(0, 1, |change| {
        change.replace_allowed_ips = true;
        change.allowed_ips = vec![AllowedIpOp::Add(net("10.1.2.3/8")), AllowedIpOp::Add(net("fd00::1/64"))];
    });
    assert_eq!(world.status(0, 1).allowed_ips, [net("10.0.0.0/8"), net("fd00::/64")]);
}

#[test]
fn routes_are_published_once_per_batch_and_by_whatever_comes_next() {
    let mut world = World::pair();
    let now = world.now_at(0);
    let table = std::sync::Arc::as_ptr(&world.nodes[0].forward.routes.load_full());
    let tunnel = &mut world.nodes[0].tunnel;
    for n in 0..10u8 {
        let mut change = PeerChange::new(key(1).public_key());
        change.allowed_ips = vec![AllowedIpOp::Add(net(&format!("10.5.{n}.0/24")))];
        tunnel.apply(Change::Peer(change), now).expect("a good change");
    }
    let unchanged = std::sync::Arc::as_ptr(&tunnel.forward().routes.load_full());
    assert_eq!(table, unchanged);
    tunnel.expire(now);
    let address = IpAddr::from([10, 5, 9, 1]);
    assert!(tunnel.forward().routes.load().find(address).is_some());
    let published = std::sync::Arc::as_ptr(&tunnel.forward().routes.load_full());
    tunnel.publish();
    tunnel.expire(now);
    assert_eq!(published, std::sync::Arc::as_ptr(&tunnel.forward().routes.load_full()));
}

#[test]
fn update_only_and_remove_make_no_peer() {
    let mut world = World::empty(1);
    world.add_node();
    let stranger = key(50).public_key();
    for remove in [true, false] {
        let mut change = PeerChange::new(stranger);
        (change.remove, change.update_only) = (remove, !remove);
        world.apply(0, Change::Peer(change));
        assert_eq!(world.nodes[0].tunnel.peer_id(&stranger), None);
    }
}

#[test]
fn a_peer_has_the_name_it_was_given_or_the_start_of_its_key() {
    let mut world = World::pair();
    assert_eq!(world.status(0, 1).label, key(1).public_key().short());
    world.change(0, 1, |change| change.name = Some("laptop".into()));
    assert_eq!(world.status(0, 1).label, "laptop");
    assert_eq!(world.peer(0, 1).label.load().as_str(), "laptop");
}

#[test]
fn an_endpoint_that_was_all_that_was_missing_sends_what_waits() {
    let mut world = World::connected();
    world.run(secs(200));
    world.network.cut = true;
    world.change(0, 1, |change| change.endpoint = Some(([203, 0, 113, 1], 1).into()));
    world.send(0, 1);
    world.run(secs(7));
    world.network.cut = false;
    world.change(0, 1, |change| change.endpoint = Some(outer(1)));
    world.run(secs(6));
    assert_eq!(world.nodes[1].delivered.len(), 2);
}

#[test]
fn peers_are_listed_in_the_order_in_which_they_were_made() {
    let world = World::of(5, 1);
    let status = world.nodes[2].tunnel.status(world.now_at(2));
    let keys: Vec<_> = status.peers.iter().map(|peer| peer.public_key).collect();
    assert_eq!(keys, [0, 1, 3, 4].map(|n| key(n).public_key()));
}
