//! Handshakes while somebody looks: each message is told once, before what follows from it, and with keys only to who may
//! have them.

use std::sync::Arc;

use vpnd::{
    forward::Refusal,
    noise::PrivateKey,
    trace::{Direction, Feed, Handshake, Message, Record, Wanted},
    wire::{ecn::Ecn, message::Initiation},
};

use crate::world::{World, millis, outer, secs};

fn look_at(world: &World, n: usize, secrets: bool) -> Arc<Feed> {
    let filter = "".parse().expect("a filter");
    let (packets, seconds, snap, each) = (1000, 1, 0, false);
    let wanted = Wanted { filter, packets, seconds, snap, each, handshakes: true, secrets };
    let feed = Arc::new(Feed::new(wanted, 0, Box::new(|| ())));
    assert!(world.nodes[n].forward.tap.attach(feed.clone()));
    feed
}

fn told(feed: &Feed) -> Vec<Handshake> {
    let handshake = |record| match record {
        Record::Handshake(handshake) => Some(*handshake),
        _ => None,
    };
    std::iter::from_fn(|| feed.pop()).filter_map(handshake).collect()
}

fn kinds(told: &[Handshake]) -> Vec<(Direction, Message)> {
    told.iter().map(|handshake| (handshake.way, handshake.message)).collect()
}

/// The value of a line of the key log.
fn line(handshake: &Handshake, name: &str) -> Option<String> {
    let lines = handshake.secrets.as_ref()?.expose();
    let value = lines.lines().find_map(|line| line.strip_prefix(&format!("{name}=")))?;
    Some(value.to_owned())
}

#[test]
fn both_ends_tell_both_messages_in_order_and_each_end_its_own_keys() {
    let mut world = World::pair();
    let feeds = [look_at(&world, 0, true), look_at(&world, 1, true)];
    world.send(0, 1);
    world.run(millis(100));
    let [ours, theirs] = [&feeds[0], &feeds[1]].map(|feed| told(feed));
    assert_eq!(kinds(&ours), [(Direction::Out, Message::Initiation), (Direction::In, Message::Response)]);
    assert_eq!(kinds(&theirs), [(Direction::In, Message::Initiation), (Direction::Out, Message::Response)]);
    for (n, told) in [&ours, &theirs].into_iter().enumerate() {
        let [first, second] = &told[..] else { panic!("two messages") };
        assert_eq!(first.remote, outer(1 - n));
        assert!(first.peer.is_some() && first.refused.is_none() && second.refused.is_none());
        assert_eq!(
            line(first, "LOCAL_STATIC_PRIVATE_KEY"),
            Some(world.nodes[n].private_key.to_base64().to_string())
        );
        assert_eq!(
            line(first, "REMOTE_STATIC_PUBLIC_KEY"),
            Some(world.nodes[1 - n].public_key().to_string())
        );
        assert_eq!(line(first, "PRESHARED_KEY"), None);
        assert!(second.secrets.is_none(), "once is enough");
        // Its ephemeral key is that of the message which this end sent.
        let sent = if n == 0 { first } else { second };
        let ephemeral: PrivateKey =
            line(first, "LOCAL_EPHEMERAL_PRIVATE_KEY").expect("a line").parse().expect("a key");
        let at = if n == 0 { 8 } else { 12 };
        assert_eq!(ephemeral.public_key().0, sent.bytes[at..at + 32]);
    }
}

#[test]
fn who_did_not_ask_for_keys_or_has_them_withheld_gets_none() {
    let mut world = World::pair();
    let without = look_at(&world, 0, false);
    let withheld = look_at(&world, 0, true);
    assert!(world.nodes[0].forward.tap.gives_secrets());
    world.nodes[0].forward.tap.withhold_secrets();
    assert!(!world.nodes[0].forward.tap.gives_secrets());
    let with = look_at(&world, 0, true);
    world.send(0, 1);
    world.run(millis(100));
    for (feed, given) in [(without, false), (withheld, false), (with, true)] {
        let told = told(&feed);
        assert_eq!(told.len(), 2);
        assert_eq!(told[0].secrets.is_some(), given);
    }
}

#[test]
fn a_message_that_is_refused_is_told_with_the_reason_and_without_keys() {
    let mut world = World::pair();
    world.send(0, 1);
    world.run(millis(100));
    let replayed = world.sent_by(0).next().expect("an initiation").clone();
    let feed = look_at(&world, 1, true);
    world.run(secs(1));
    world.inject(world.now, outer(0), outer(1), Ecn::NotEct, replayed.bytes.clone());
    let mut forged = replayed.bytes.clone();
    forged[60] ^= 1;
    world.inject(world.now, outer(0), outer(1), Ecn::NotEct, forged);
    world.run(millis(100));
    let told = told(&feed);
    let reasons: Vec<_> = told.iter().map(|handshake| handshake.refused.as_deref()).collect();
    // The second one has a mac1 that does not hold: a data thread sees that, and tells it where it watches itself.
    assert_eq!(reasons, [Some(Refusal::TimestampNotNewer.name())]);
    assert_eq!(told[0].bytes, replayed.bytes);
    assert!(Initiation::parse(&told[0].bytes).is_ok() && told[0].secrets.is_none());
}

#[test]
fn sessions_are_renewed_when_a_capture_wants_to_see_how_they_come_to_be() {
    let mut world = World::connected();
    world.run(secs(6));
    let before = world.initiations(0);
    let now = world.now_at(0);
    assert_eq!(world.nodes[0].tunnel.renew_sessions(now), 1);
    world.run(millis(500));
    assert_eq!(world.initiations(0), before + 1);
    // Who has no session is not called.
    let mut alone = World::pair();
    let now = alone.now_at(0);
    assert_eq!(alone.nodes[0].tunnel.renew_sessions(now), 0);
    alone.run(secs(10));
    assert_eq!(alone.initiations(0), 0);
}
