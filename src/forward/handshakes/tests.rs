//! Who may enter the queues, and who comes out first.

use rand_chacha::ChaCha8Rng;
use rand_core::SeedableRng;

use super::*;
use crate::{
    noise::PrivateKey,
    wire::message::{COOKIE_REPLY_LEN, INITIATION_LEN},
};

fn from(address: &str) -> Endpoint {
    Endpoint { remote: address.parse().unwrap(), local: None }
}

fn numbered(n: u32) -> Endpoint {
    Endpoint { remote: (std::net::Ipv4Addr::from_bits(0xc612_0000 + n), 7).into(), local: None }
}

fn initiation(queues: &Handshakes, from: &Endpoint) -> Result<(), Refusal> {
    queues.push(from, Kind::Initiation, &[1; INITIATION_LEN]).map(|_| ())
}

fn popped(queues: &Handshakes) -> usize {
    std::iter::from_fn(|| queues.pop()).count()
}

#[test]
fn one_source_has_its_part_of_the_queue_and_not_more() {
    for (source, neighbour, other) in [
        ("192.0.2.1:1", "192.0.2.1:9", "192.0.2.2:1"),
        ("[2001:db8::1]:1", "[2001:db8::2]:1", "[2001:db8:0:1::1]:1"),
    ] {
        let queues = Handshakes::new();
        let taken = (0..1000).filter(|_| initiation(&queues, &from(source)).is_ok()).count();
        assert_eq!(taken, usize::from(SHARE));
        assert_eq!(initiation(&queues, &from(neighbour)), Err(Refusal::RateLimited));
        assert_eq!(initiation(&queues, &from(other)), Ok(()));
        assert!(queues.pop().is_some());
        assert_eq!(initiation(&queues, &from(neighbour)), Ok(()), "there is room again");
        assert_eq!(popped(&queues), usize::from(SHARE) + 1);
    }
}

#[test]
fn a_source_alone_does_not_make_load() {
    assert!(usize::from(SHARE) < HANDSHAKE_QUEUE / 8);
}

#[test]
fn many_sources_fill_the_queue_and_leave_no_counter_behind() {
    let queues = Handshakes::new();
    queues.scatter([3, 5]);
    let taken =
        (0..HANDSHAKE_QUEUE as u32 + 9).filter(|n| initiation(&queues, &numbered(*n)).is_ok()).count();
    assert_eq!((taken, queues.len()), (HANDSHAKE_QUEUE, HANDSHAKE_QUEUE));
    assert_eq!(initiation(&queues, &numbered(1 << 16)), Err(Refusal::HandshakeQueueFull));
    assert_eq!(popped(&queues), HANDSHAKE_QUEUE);
    assert!(queues.shares.counters.iter().all(|counter| counter.load(Ordering::Relaxed) == 0));
}

#[test]
fn a_mac1_for_another_key_is_not_for_us() {
    let [ours, theirs] = [3, 4].map(|n| MacKeys::new(&PrivateKey::new([n; 32]).public_key()));
    let queues = Handshakes::new();
    let mut message = [1; INITIATION_LEN];
    theirs.fill(&mut message, None);
    assert!(queues.is_for_us(&message), "without a key it is not known what is ours");
    queues.set_macs(Some(ours.clone()));
    assert!(!queues.is_for_us(&message));
    ours.fill(&mut message, None);
    assert!(queues.is_for_us(&message));
    queues.set_macs(Some(theirs));
    assert!(!queues.is_for_us(&message), "the key was changed");
}

#[test]
fn under_load_who_shows_a_cookie_comes_before_those_who_do_not() {
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    let secret = Arc::new(CookieSecret::generate(&mut rng));
    let keys = MacKeys::new(&PrivateKey::new([3; 32]).public_key());
    let queues = Handshakes::new();
    let source = from("192.0.2.1:1");
    let mut shown = [1; INITIATION_LEN];
    keys.fill(&mut shown, Some(&secret.cookie(&source.remote)));
    // A full queue of others is no hindrance.
    (0..HANDSHAKE_QUEUE as u32).for_each(|n| initiation(&queues, &numbered(n)).unwrap());
    let shows =
        |queues: &Handshakes, from: &Endpoint| queues.push(from, Kind::Initiation, &shown).map(|_| ());
    assert_eq!(shows(&queues, &source), Err(Refusal::HandshakeQueueFull), "nobody was asked for one yet");
    queues.set_cookies(Some(secret));
    assert_eq!(shows(&queues, &source), Ok(()));
    // Those who come without one now have a queue of their own.
    let more = HANDSHAKE_QUEUE as u32..(HANDSHAKE_QUEUE + ASKED_QUEUE) as u32;
    more.for_each(|n| initiation(&queues, &numbered(n)).unwrap());
    assert_eq!(shows(&queues, &from("192.0.2.1:2")), Err(Refusal::HandshakeQueueFull), "not its cookie");
    let place = std::iter::from_fn(|| queues.pop()).position(|one| one.from == source).unwrap();
    assert!(place < 4, "after {place} others");
    popped(&queues);
    queues.set_cookies(None);
    (0..16).for_each(|n| initiation(&queues, &numbered(n)).unwrap());
    assert_eq!(shows(&queues, &source), Ok(()));
    assert_eq!(std::iter::from_fn(|| queues.pop()).position(|one| one.from == source), Some(16), "in turn");
}

#[test]
fn a_flood_of_cookie_replies_is_no_load_and_takes_nobodys_place() {
    let queues = Handshakes::new();
    let taken =
        (0..5000).filter(|n| queues.push(&numbered(*n), Kind::CookieReply, &[3; COOKIE_REPLY_LEN]).is_ok());
    assert_eq!(taken.count(), REPLY_QUEUE);
    assert_eq!(queues.len(), 0);
    initiation(&queues, &from("192.0.2.1:1")).unwrap();
    let kinds: Vec<u8> = std::iter::from_fn(|| queues.pop()).take(4).map(|one| one.bytes[0]).collect();
    assert_eq!(kinds.iter().filter(|kind| **kind == 1).count(), 1);
}

#[test]
fn a_flood_of_messages_leaves_replies_and_cookies_their_turn() {
    let queues = Handshakes::new();
    (0..100).for_each(|n| initiation(&queues, &numbered(n)).unwrap());
    queues.push(&numbered(1), Kind::CookieReply, &[3; COOKIE_REPLY_LEN]).unwrap();
    let place = std::iter::from_fn(|| queues.pop()).position(|one| one.bytes[0] == 3).unwrap();
    assert!(place < 4, "after {place} others");
}
