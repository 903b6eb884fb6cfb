//! Under load: cookies, and a rate for each source.

use std::net::SocketAddr;

use rand_chacha::ChaCha8Rng;
use rand_core::SeedableRng;
use vpnd::{
    forward::{HANDSHAKE_QUEUE, Refusal, session::REKEY_AFTER_MESSAGES},
    noise::{
        Identity, Tai64n,
        handshake::{Remote, initiate},
        macs::{Cookie, MacKeys},
    },
    tunnel::Event,
    wire::message::{CookieReply, Index, Kind},
};

use crate::world::{NANO, World, before, key, millis, outer, secs};

const BUSY: usize = HANDSHAKE_QUEUE / 8;

/// Sends initiations of node 0's key to node 1 by hand.
struct Caller {
    remote: Remote,
    macs: MacKeys,
    timestamp: Tai64n,
    count: u32,
}

impl Caller {
    fn new(world: &World) -> Self {
        let theirs = world.nodes[1].public_key();
        Self {
            remote: Remote::new(Identity::new(key(0)), theirs),
            macs: MacKeys::new(&theirs),
            timestamp: Tai64n::from_unix(world.now_at(0).wall),
            count: 0,
        }
    }

    fn initiation(&mut self, cookie: Option<&Cookie>) -> (Vec<u8>, [u8; 16]) {
        self.count += 1;
        self.timestamp = self.timestamp.next();
        let mut rng = ChaCha8Rng::seed_from_u64(self.count.into());
        let (_, message) =
            initiate(&self.remote, Index(self.count), self.timestamp, &mut rng).expect("good keys");
        let mut bytes = message.to_bytes();
        let mac1 = self.macs.fill(&mut bytes, cookie);
        (bytes.to_vec(), mac1)
    }

    /// Asks for the cookie of an address.
    fn cookie(&mut self, world: &mut World, from: SocketAddr) -> Cookie {
        let (bytes, mac1) = self.initiation(None);
        world.arrive(from, 1, &bytes);
        let reply = world.sent_by(1).last().expect("a cookie reply").clone();
        assert_eq!(reply.to, from);
        let reply = CookieReply::parse(&reply.bytes).expect("a cookie reply");
        assert_eq!(reply.receiver, Index(self.count));
        self.macs.open_cookie(&reply, &mac1).expect("a cookie for us")
    }
}

fn loaded() -> (World, Caller) {
    let mut world = World::pair();
    world.network.cut = true; // node 0 is played by hand
    world.nodes[1].backlog = BUSY;
    let caller = Caller::new(&world);
    (world, caller)
}

fn responses(world: &World) -> usize {
    world.of_kind(1, Kind::Response).len()
}

#[test]
fn an_initiator_gets_through_a_loaded_responder_with_a_cookie() {
    let mut world = World::pair();
    world.nodes[1].backlog = BUSY;
    world.send(0, 1);
    world.run(secs(1));
    assert_eq!(world.nodes[1].delivered.len(), 0);
    assert_eq!(world.nodes[1].refused(Refusal::CookieWanted), 1);
    assert_eq!(world.of_kind(1, Kind::CookieReply).len(), 1);
    world.run(secs(5));
    assert_eq!(world.nodes[1].delivered.len(), 1, "the retry has mac2");
    assert_eq!(world.initiations(0), 2);
    let counted = world.status(1, 0).tx_bytes;
    assert_eq!(counted, 92, "a cookie reply is no authentic packet");
}

#[test]
fn a_loaded_initiator_asks_the_responder_for_a_cookie() {
    let mut world = World::pair();
    world.nodes[0].backlog = BUSY;
    world.send(0, 1);
    world.run(secs(6));
    assert_eq!(world.of_kind(0, Kind::CookieReply).len(), 1, "its response came without mac2");
    assert_eq!(world.nodes[1].delivered.len(), 1, "the second one had it");
}

#[test]
fn cookies_are_demanded_from_an_eighth_of_the_queue_on_and_for_one_second_after() {
    let (mut world, mut caller) = loaded();
    world.nodes[1].backlog = BUSY - 1;
    world.arrive(outer(0), 1, &caller.initiation(None).0);
    assert_eq!(responses(&world), 1);
    world.run(secs(1));
    world.nodes[1].backlog = BUSY;
    let start = world.now;
    world.arrive(outer(0), 1, &caller.initiation(None).0);
    assert_eq!(responses(&world), 1);
    assert!(world.has_event(1, |event| *event == Event::UnderLoad(true)));
    world.nodes[1].backlog = 0;
    world.run_until(before(start + secs(1), NANO));
    world.arrive(outer(0), 1, &caller.initiation(None).0);
    assert_eq!(responses(&world), 1);
    assert_eq!(world.nodes[1].refused(Refusal::CookieWanted), 2);
    world.run_until(start + secs(1));
    assert!(world.has_event(1, |event| *event == Event::UnderLoad(false)), "by time alone");
    world.arrive(outer(0), 1, &caller.initiation(None).0);
    assert_eq!(responses(&world), 2);
}

#[test]
fn a_cookie_is_good_for_its_address_and_port_alone() {
    let (mut world, mut caller) = loaded();
    let cookie = caller.cookie(&mut world, outer(0));
    let other_port = SocketAddr::new(outer(0).ip(), 1);
    let other_address = ([192, 0, 2, 77], outer(0).port()).into();
    for from in [other_port, other_address] {
        world.arrive(from, 1, &caller.initiation(Some(&cookie)).0);
        assert_eq!(responses(&world), 0);
    }
    world.arrive(outer(0), 1, &caller.initiation(Some(&cookie)).0);
    assert_eq!(responses(&world), 1);
}

#[test]
fn a_responders_secret_is_renewed_after_120_s_and_not_before() {
    let (mut world, mut caller) = loaded();
    let start = world.now;
    let cookie = caller.cookie(&mut world, outer(0));
    world.run_until(before(start + secs(120), NANO));
    world.arrive(outer(0), 1, &caller.initiation(Some(&cookie)).0);
    assert_eq!(responses(&world), 1);
    world.run_until(start + secs(120));
    world.arrive(outer(0), 1, &caller.initiation(Some(&cookie)).0);
    assert_eq!(responses(&world), 1);
    assert_ne!(caller.cookie(&mut world, outer(0)), cookie);
}

#[test]
fn an_initiator_uses_a_cookie_for_120_s_and_not_longer() {
    for (late, has_mac2) in [(NANO, true), (secs(0), false)] {
        let mut world = World::pair();
        world.nodes[1].backlog = BUSY;
        world.send(0, 1);
        world.run(millis(20));
        assert_eq!(world.of_kind(1, Kind::CookieReply).len(), 1);
        let got = world.now;
        world.run_until(before(got + secs(120), late));
        world.current(0, 1).skip_to(REKEY_AFTER_MESSAGES);
        world.send(0, 1);
        let last = world.of_kind(0, Kind::Initiation).pop().expect("a rekey");
        assert_eq!(last.at, world.now);
        assert_eq!(last.bytes[132..] != [0; 16], has_mac2);
    }
}

#[test]
fn a_cookie_reply_is_taken_once() {
    let mut world = World::pair();
    world.nodes[1].backlog = BUSY;
    world.send(0, 1);
    world.run(secs(1));
    let reply = world.of_kind(1, Kind::CookieReply)[0].clone();
    world.arrive(reply.from, 0, &reply.bytes);
    assert_eq!(world.nodes[0].refused(Refusal::NotAsked), 1, "else it would be young for ever");
}

#[test]
fn a_source_with_cookies_has_five_handshakes_at_once_and_then_twenty_a_second() {
    let (mut world, mut caller) = loaded();
    let cookie = caller.cookie(&mut world, outer(0));
    for _ in 0..8 {
        world.arrive(outer(0), 1, &caller.initiation(Some(&cookie)).0);
    }
    // One initiation each 20 ms is another rule; both are counted by what they refuse.
    assert_eq!(responses(&world), 1);
    assert_eq!(world.nodes[1].refused(Refusal::InitiationFlood), 4);
    assert_eq!(world.nodes[1].refused(Refusal::RateLimited), 3);
    world.run(secs(1));
    let before = responses(&world);
    for _ in 0..100 {
        world.arrive(outer(0), 1, &caller.initiation(Some(&cookie)).0);
        world.run(millis(25));
    }
    let read = responses(&world) - before;
    assert!((50..=56).contains(&read), "2.5 s at 20 a second and a burst of 5: {read}");
}

#[test]
fn one_source_does_not_use_up_the_rate_of_the_others() {
    let (mut world, mut caller) = loaded();
    let flood = ([203, 0, 113, 5], 1).into();
    let theirs = caller.cookie(&mut world, flood);
    let ours = caller.cookie(&mut world, outer(0));
    for _ in 0..100 {
        world.arrive(flood, 1, &caller.initiation(Some(&theirs)).0);
    }
    assert!(world.nodes[1].refused(Refusal::RateLimited) >= 90);
    world.run(millis(20));
    let before = responses(&world);
    world.arrive(outer(0), 1, &caller.initiation(Some(&ours)).0);
    assert_eq!(responses(&world), before + 1);
}

#[test]
fn a_flood_of_valid_handshakes_below_the_mark_puts_nobody_in_cookie_mode() {
    let mut world = World::pair();
    let mut caller = Caller::new(&world);
    world.network.cut = true;
    for _ in 0..1000 {
        world.arrive(outer(0), 1, &caller.initiation(None).0);
        world.run(millis(1));
    }
    assert_eq!(world.of_kind(1, Kind::CookieReply).len(), 0);
    assert!(!world.nodes[1].tunnel.status(world.now_at(1)).under_load);
}

#[test]
fn a_forged_cookie_reply_changes_nothing() {
    let mut world = World::pair();
    world.network.cut = true;
    world.send(0, 1);
    let receiver = world.of_kind(0, Kind::Initiation)[0].sender();
    let forged = CookieReply { receiver, nonce: [1; 24], encrypted_cookie: [2; 32] };
    world.arrive(outer(1), 0, &forged.to_bytes());
    assert_eq!(world.nodes[0].refused(Refusal::CookieForged), 1);
    let unasked = CookieReply { receiver: Index(receiver.0 ^ 1), ..forged.clone() };
    world.arrive(outer(1), 0, &unasked.to_bytes());
    assert_eq!(world.nodes[0].refused(Refusal::NotAsked), 1);
    world.run(secs(6));
    world.arrive(outer(1), 0, &forged.to_bytes());
    assert_eq!(world.nodes[0].refused(Refusal::NotAsked), 2, "the index of an initiation that was replaced");
    let retry = world.of_kind(0, Kind::Initiation).pop().expect("a retry");
    assert_eq!(retry.bytes[132..], [0; 16], "no cookie, no mac2");
    world.network.cut = false;
    world.run(secs(6));
    assert_eq!(world.nodes[1].delivered.len(), 1);
}

#[test]
fn what_the_outbox_cannot_hold_is_not_worked_for() {
    let mut world = World::pair();
    let mut caller = Caller::new(&world);
    let from = vpnd::forward::Endpoint { remote: outer(0), local: None };
    for n in 0..=vpnd::tunnel::TRANSMIT_QUEUE {
        world.now = world.now + millis(20);
        let now = world.now_at(1);
        let bytes = caller.initiation(None).0.into();
        let datagram = vpnd::forward::HandshakeDatagram { from, bytes };
        world.nodes[1].tunnel.handle_handshake(datagram, 0, now);
        let refused = world.nodes[1].refused(Refusal::HandshakeQueueFull);
        assert_eq!(refused, u64::from(n == vpnd::tunnel::TRANSMIT_QUEUE));
    }
    let read = world.status(1, 0).rx_bytes;
    assert_eq!(read, 148 * vpnd::tunnel::TRANSMIT_QUEUE as u64, "the last one was not even read");
    let queued = std::iter::from_fn(|| world.nodes[1].tunnel.poll_transmit()).count();
    assert_eq!(queued, vpnd::tunnel::TRANSMIT_QUEUE);
}
