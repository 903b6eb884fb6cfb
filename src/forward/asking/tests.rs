//! Who is asked for a cookie, who is heard, and who is woken for it.

use std::sync::{Arc, atomic::AtomicUsize};

use rand_chacha::ChaCha8Rng;
use rand_core::SeedableRng;

use super::*;
use crate::{
    noise::{
        PrivateKey,
        macs::{CookieSecret, MacKeys},
    },
    wire::message::{CookieReply, INITIATION_LEN},
};

struct World {
    forward: Arc<Forward>,
    macs: MacKeys,
    secret: Arc<CookieSecret>,
    rng: ChaCha8Rng,
    /// How often the upper half was woken, and who asks.
    woken: [Arc<AtomicUsize>; 2],
}

impl World {
    fn new() -> Self {
        let woken = [(); 2].map(|()| Arc::new(AtomicUsize::new(0)));
        let waker = |at: usize| {
            let count = woken[at].clone();
            Box::new(move || {
                count.fetch_add(1, Ordering::Relaxed);
                true
            })
        };
        let forward = Forward::woken_by(waker(0));
        forward.handshakes.asking.serve(waker(1));
        let macs = MacKeys::new(&PrivateKey::new([3; 32]).public_key());
        forward.handshakes.set_macs(Some(macs.clone()));
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let secret = Arc::new(CookieSecret::generate(&mut rng));
        Self { forward, macs, secret, rng, woken }
    }

    fn under_load(&self, under: bool) {
        self.forward.handshakes.set_cookies(under.then(|| self.secret.clone()));
    }

    fn initiation(&self, index: u32) -> [u8; INITIATION_LEN] {
        let mut message = [7; INITIATION_LEN];
        message[..4].copy_from_slice(&[1, 0, 0, 0]);
        message[4..8].copy_from_slice(&index.to_le_bytes());
        self.macs.fill(&mut message, None);
        message
    }

    fn push(&self, from: Endpoint, message: &[u8]) -> Result<(), Refusal> {
        self.forward.push_handshake(&from, Kind::Initiation, message)
    }

    fn asked(&mut self) -> Option<Asked> {
        self.forward.ask_for_cookie(Time(9), &mut self.rng)
    }

    fn woken(&self) -> [usize; 2] {
        [0, 1].map(|at| self.woken[at].load(Ordering::Relaxed))
    }
}

fn from(n: u32) -> Endpoint {
    Endpoint { remote: (std::net::Ipv4Addr::from_bits(0xc612_0000 + n), 7).into(), local: None }
}

#[test]
fn without_load_everybody_is_heard_by_the_upper_half() {
    let mut world = World::new();
    world.push(from(1), &world.initiation(5)).unwrap();
    assert!(world.asked().is_none());
    assert_eq!(world.woken(), [1, 0]);
    assert!(world.forward.pop_handshake().is_some());
}

#[test]
fn under_load_a_stranger_is_asked_and_the_upper_half_not_woken_for_him() {
    let mut world = World::new();
    world.under_load(true);
    let message = world.initiation(5);
    for n in 0..3 {
        world.push(from(n), &message).unwrap();
    }
    assert_eq!(world.woken(), [0, 1], "once for all three");
    assert!(world.forward.pop_handshake().is_none());
    let asked = world.asked().expect("the first");
    assert_eq!(asked.to, from(0));
    let reply = CookieReply::parse(&asked.reply).expect("a cookie reply");
    assert_eq!(reply.receiver, Index(5));
    let mac1 = message[116..132].try_into().expect("16 bytes");
    assert_eq!(world.macs.open_cookie(&reply, &mac1), Some(world.secret.cookie(&from(0).remote)));
    assert_eq!(std::iter::from_fn(|| world.asked()).count(), 2);
    assert_eq!(world.forward.refusals.read(Refusal::CookieWanted).0, 3);
    world.push(from(4), &message).unwrap();
    assert_eq!(world.woken(), [0, 2], "again, as it was empty");
}

#[test]
fn who_shows_his_cookie_is_heard_by_the_upper_half() {
    let mut world = World::new();
    world.under_load(true);
    let mut message = world.initiation(5);
    world.macs.fill(&mut message, Some(&world.secret.cookie(&from(1).remote)));
    world.push(from(1), &message).unwrap();
    assert!(world.asked().is_none());
    assert!(world.forward.pop_handshake().is_some());
    world.push(from(2), &message).unwrap();
    assert!(world.asked().is_some(), "it is somebody else's");
}

#[test]
fn when_load_is_over_those_who_wait_are_heard() {
    let mut world = World::new();
    world.under_load(true);
    world.push(from(1), &world.initiation(5)).unwrap();
    world.under_load(false);
    assert!(world.asked().is_none());
    assert_eq!(world.woken(), [1, 1]);
    assert!(world.forward.pop_handshake().is_some_and(|(one, _)| one.from == from(1)));
}

#[test]
fn nobody_is_asked_in_the_name_of_another_key() {
    let mut world = World::new();
    world.under_load(true);
    let message = world.initiation(5);
    for (macs, why) in [
        (Some(MacKeys::new(&PrivateKey::new([4; 32]).public_key())), Refusal::Mac1),
        (None, Refusal::NoPrivateKey),
    ] {
        world.push(from(1), &message).unwrap();
        world.forward.handshakes.set_macs(macs);
        assert!(world.asked().is_none());
        assert_eq!(world.forward.refusals.counted(why), 1);
    }
}

#[test]
fn one_source_has_its_part_of_this_queue_too_and_is_counted_once() {
    let mut world = World::new();
    world.under_load(true);
    let message = world.initiation(5);
    let taken = (0..1000).filter(|_| world.push(from(1), &message).is_ok()).count();
    assert_eq!(taken, usize::from(super::super::handshakes::SHARE));
    assert_eq!(world.forward.handshakes.asking.count(), 1);
    assert_eq!(std::iter::from_fn(|| world.asked()).count(), taken);
    assert_eq!(world.push(from(1), &message), Ok(()), "there is room again");
}

#[test]
fn a_full_queue_refuses_the_newest_and_counts_it() {
    let mut world = World::new();
    world.under_load(true);
    let message = world.initiation(5);
    for n in 0..ASKED_QUEUE as u32 {
        world.push(from(n), &message).unwrap();
    }
    assert_eq!(world.push(from(1 << 16), &message), Err(Refusal::HandshakeQueueFull));
    assert_eq!(world.forward.handshakes.asking.count(), ASKED_QUEUE as u64 + 1);
    assert_eq!(std::iter::from_fn(|| world.asked()).count(), ASKED_QUEUE);
}
