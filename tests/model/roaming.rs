//! The endpoint follows authentic packets, and nothing else.

use std::net::SocketAddr;

use vpnd::{forward::Refusal, tunnel::Event};

use crate::world::{World, millis, outer, secs};

fn elsewhere() -> SocketAddr {
    ([198, 51, 100, 7], 4242).into()
}
fn elsewhere_v6() -> SocketAddr {
    "[2001:db8::7]:4242".parse().expect("an address")
}

fn roams(world: &World, n: usize) -> Vec<(Option<SocketAddr>, SocketAddr)> {
    let roamed = |event: &Event| match event {
        Event::Roamed { from, to, .. } => Some((*from, *to)),
        _ => None,
    };
    world.nodes[n].events.iter().filter_map(roamed).collect()
}

#[test]
fn the_endpoint_follows_data_over_ports_addresses_and_families() {
    let mut world = World::connected();
    let mut last = outer(0);
    for address in [SocketAddr::from(([192, 0, 2, 1], 999)), elsewhere(), elsewhere_v6(), outer(0)] {
        world.forget_log();
        world.nodes[0].address = address;
        world.send(0, 1);
        world.run(millis(50));
        assert_eq!(world.status(1, 0).endpoint, Some(address));
        assert_eq!(roams(&world, 1), [(Some(last), address)]);
        let number = world.send(1, 0);
        world.run(millis(50));
        assert_eq!(world.nodes[0].delivered.last(), Some(&number), "answers go there");
        last = address;
    }
}

#[test]
fn the_endpoint_follows_a_keepalive() {
    let mut world = World::connected();
    world.nodes[0].address = elsewhere();
    world.change(0, 1, |change| change.persistent_keepalive = Some(1000));
    world.run(millis(50));
    assert_eq!(world.status(1, 0).endpoint, Some(elsewhere()));
}

#[test]
fn the_endpoint_follows_an_initiation() {
    let mut world = World::connected();
    world.run(secs(200));
    world.nodes[0].address = elsewhere();
    world.network.mute = Some(outer(1));
    world.send(0, 1);
    world.run(millis(50));
    assert_eq!(world.status(1, 0).endpoint, Some(elsewhere()));
    assert_eq!(roams(&world, 1), [(Some(outer(0)), elsewhere())]);
}

#[test]
fn the_endpoint_follows_a_response() {
    let mut world = World::pair();
    world.send(0, 1);
    world.run(millis(15)); // the response is on its way
    let response = world.log.last().expect("a response").clone();
    assert_eq!(response.bytes.len(), 92);
    world.arrive(elsewhere(), 0, &response.bytes);
    assert_eq!(world.status(0, 1).endpoint, Some(elsewhere()));
    assert_eq!(roams(&world, 0), [(Some(outer(1)), elsewhere())]);
}

#[test]
fn a_replayed_or_forged_packet_moves_nothing() {
    let mut world = World::connected();
    world.send(0, 1);
    world.run(millis(50));
    let datagrams: Vec<_> = world.sent_by(0).cloned().collect();
    let count = |world: &World| {
        let reasons =
            [Refusal::Replayed, Refusal::TimestampNotNewer, Refusal::Forged, Refusal::NoSuchSession];
        reasons.map(|reason| world.nodes[1].refused(reason)).iter().sum::<u64>()
    };
    for datagram in &datagrams {
        world.arrive(elsewhere(), 1, &datagram.bytes);
        if datagram.is_data() {
            let mut forged = datagram.bytes.clone();
            forged[8] ^= 0x40; // another counter
            world.arrive(elsewhere(), 1, &forged);
        }
    }
    assert_eq!(count(&world), 5, "an initiation, twice two of data");
    assert_eq!(world.status(1, 0).endpoint, Some(outer(0)));
    assert_eq!(roams(&world, 1), []);
}

#[test]
fn a_cookie_reply_moves_nothing() {
    let mut world = World::pair();
    world.nodes[1].backlog = 4096;
    world.network.mute = Some(outer(1));
    world.send(0, 1);
    world.run(millis(15));
    let reply = world.sent_by(1).last().expect("a cookie reply").clone();
    assert_eq!(reply.bytes.len(), 64);
    world.arrive(elsewhere(), 0, &reply.bytes);
    assert_eq!(world.nodes[0].refused(Refusal::CookieForged), 0, "it was taken");
    assert_eq!(world.status(0, 1).endpoint, Some(outer(1)));
}

#[test]
fn a_configured_endpoint_replaces_the_learnt_one() {
    let mut world = World::connected();
    world.change(0, 1, |change| change.endpoint = Some(elsewhere()));
    assert_eq!(world.status(0, 1).endpoint, Some(elsewhere()));
    assert_eq!(world.status(0, 1).local, None);
    world
        .change(0, 1, |change| change.endpoint = Some("[::ffff:198.51.100.7]:4242".parse().expect("mapped")));
    assert_eq!(world.status(0, 1).endpoint, Some(elsewhere()), "IPv4 is IPv4");
    world.change(0, 1, |change| change.endpoint = Some(outer(1)));
    let number = world.send(0, 1);
    world.run(millis(50));
    assert_eq!(world.nodes[1].delivered.last(), Some(&number));
}

#[test]
fn both_ends_may_roam_in_turn_while_they_talk() {
    let mut world = World::connected();
    for n in 0..50u16 {
        let mover = usize::from(n % 2);
        world.nodes[mover].address = ([198, 51, 100, mover as u8 + 1], 1000 + n).into();
        world.send(mover, 1 - mover);
        world.run(millis(50));
        world.send(1 - mover, mover);
        world.run(millis(50));
    }
    assert_eq!((world.nodes[0].delivered.len(), world.nodes[1].delivered.len()), (50, 51));
}

#[test]
fn a_source_is_forgotten_where_the_way_to_its_peer_changed_and_nowhere_else() {
    let mut world = World::connected();
    let local = Some(outer(1).ip());
    assert_eq!(world.status(1, 0).local, local);
    let tunnel = |world: &mut World, destinations: &str| {
        let destinations = destinations.parse().expect("a prefix");
        world.nodes[1].tunnel.forget_locals_towards(destinations);
        world.status(1, 0).local
    };
    assert_eq!(tunnel(&mut world, "172.17.0.0/16"), local, "a container's");
    assert_eq!(tunnel(&mut world, "::/0"), local, "the other family's");
    world.nodes[1].tunnel.forget_locals(Some(elsewhere().ip()));
    assert_eq!(world.status(1, 0).local, local, "another address went");
    assert_eq!(tunnel(&mut world, &format!("{}/24", outer(0).ip())), None);
    world.send(0, 1);
    world.run(millis(50));
    assert_eq!(world.status(1, 0).local, local, "until the peer is heard from again");
}
