//! Random sequences against the invariants. The world itself checks that no nonce is used twice and that an
//! inner packet is delivered at most once, unchanged, to whom it was sent.

use proptest::prelude::*;
use vpnd::{
    noise::PresharedKey,
    tunnel::{Change, Event},
};

use crate::world::{World, key, millis, secs};

/// Something that happens in the world. Node 0 and node 1 are a pair.
#[derive(Clone, Debug)]
enum Happening {
    Send { from: usize, packets: usize },
    Pass { time: u64 },
    Weather { loss: u32, duplication: u32, corruption: u32, delay: u64, reordering: u64 },
    Cut(bool),
    Roam { who: usize, port: u16 },
    Replay { pick: usize, at: usize, elsewhere: bool },
    Forge { pick: usize, at: usize, byte: usize, bit: u8 },
    Keepalive { who: usize, seconds: u16 },
    Preshared(u8),
    Restart(usize),
    Clock { who: usize, seconds: i64 },
    Load { who: usize, backlog: usize },
}

/// Which of the two may get lost. When one has moved and the other has lost its sessions, neither can call the
/// other until the mover has missed an answer for 15 s: that is how the protocol is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Setting {
    /// Node 0 moves, and may lose its sessions.
    Mobile,
    /// Nobody moves; both may lose their sessions.
    Fixed,
}

fn happening() -> impl Strategy<Value = Happening> {
    use Happening::*;
    let who = 0..2usize;
    prop_oneof![
        8 => (who.clone(), 1..20usize).prop_map(|(from, packets)| Send { from, packets }),
        4 => (0..30_000u64).prop_map(|time| Pass { time }),
        2 => (0..700_000u64).prop_map(|time| Pass { time }),
        3 => (0..400u32, 0..300u32, 0..200u32, 0..400u64, 0..400u64).prop_map(
            |(loss, duplication, corruption, delay, reordering)| {
                Weather { loss, duplication, corruption, delay, reordering }
            }
        ),
        1 => any::<bool>().prop_map(Cut),
        2 => (who.clone(), 1..5000u16).prop_map(|(who, port)| Roam { who, port }),
        3 => (any::<usize>(), who.clone(), any::<bool>())
            .prop_map(|(pick, at, elsewhere)| Replay { pick, at, elsewhere }),
        3 => (any::<usize>(), who.clone(), any::<usize>(), 0..8u8)
            .prop_map(|(pick, at, byte, bit)| Forge { pick, at, byte, bit }),
        1 => (who.clone(), 0..60u16).prop_map(|(who, seconds)| Keepalive { who, seconds }),
        1 => (0..3u8).prop_map(Preshared),
        1 => who.clone().prop_map(Restart),
        1 => (who.clone(), 0..100_000i64).prop_map(|(who, seconds)| Clock { who, seconds }),
        1 => (who, prop_oneof![Just(0usize), Just(600usize)]).prop_map(|(who, backlog)| Load { who, backlog }),
    ]
}

fn happen(world: &mut World, setting: Setting, what: Happening) {
    match what {
        Happening::Send { from, packets } => {
            for _ in 0..packets {
                world.send(from, 1 - from);
            }
        }
        Happening::Pass { time } => world.run(millis(time)),
        Happening::Weather { loss, duplication, corruption, delay, reordering } => {
            world.network.loss = loss;
            world.network.duplication = duplication;
            world.network.corruption = corruption;
            world.network.delay = millis(delay);
            world.network.reordering = millis(reordering);
        }
        Happening::Cut(cut) => world.network.cut = cut,
        Happening::Roam { who, port } => {
            // Node 1 stays: when both ends lose sight of each other, no VPN finds them again.
            if who == 0 && setting == Setting::Mobile {
                world.nodes[0].address = ([198, 51, 100, 7], port).into();
            }
        }
        Happening::Replay { pick, at, elsewhere } => {
            if !world.log.is_empty() {
                let old = world.log[pick % world.log.len()].clone();
                // A packet that was lost is authentic, wherever it is sent from: again, node 0 is not misled.
                let misled = at == 1 && setting == Setting::Mobile;
                let elsewhere = elsewhere && (misled || old.by == at);
                let from = if elsewhere { ([203, 0, 113, 66], 6666).into() } else { old.from };
                let known = world.status(at, 1 - at);
                world.arrive(from, at, &old.bytes);
                if elsewhere && old.by == at {
                    let now = world.status(at, 1 - at);
                    assert_eq!(now.endpoint, known.endpoint, "our own packet moves nothing");
                }
            }
        }
        Happening::Forge { pick, at, byte, bit } => forge(world, pick, at, byte, bit),
        Happening::Keepalive { who, seconds } => {
            world.change(who, 1 - who, |change| change.persistent_keepalive = Some(seconds));
        }
        Happening::Preshared(byte) => {
            for n in 0..2 {
                let key = PresharedKey::new([byte; 32]);
                world.change(n, 1 - n, |change| change.preshared_key = Some(key));
            }
        }
        Happening::Restart(1) if setting == Setting::Mobile => {}
        Happening::Restart(who) => world.apply(who, Change::PrivateKey(Some(key(who)))),
        Happening::Clock { who, seconds } => world.nodes[who].clock_error = seconds,
        Happening::Load { who, backlog } => world.nodes[who].backlog = backlog,
    }
}

/// A datagram with one bit turned arrives from somewhere: nothing that can be seen of the peer changes.
fn forge(world: &mut World, pick: usize, at: usize, byte: usize, bit: u8) {
    if world.log.is_empty() {
        return;
    }
    let mut bytes = world.log[pick % world.log.len()].bytes.clone();
    let len = bytes.len();
    // mac2 is not looked at unless there is load: a message with another mac2 is as authentic as before.
    let authenticated = if matches!(len, 148 | 92) { len - 16 } else { len };
    bytes[byte % authenticated] ^= 1 << bit;
    let see = |world: &World| {
        let status = world.status(at, 1 - at);
        let facts = (status.endpoint, status.rx_bytes, status.rx_packets, status.last_handshake);
        (facts, status.attempts, status.staged, status.session_age, world.nodes[at].delivered.len())
    };
    let known = see(world);
    world.arrive(([203, 0, 113, 66], 6666).into(), at, &bytes);
    assert_eq!(see(world), known, "nothing unauthentic changes a peer");
}

/// The network is good again: both ends talk within 10 s, and then fall silent.
fn recovers(world: &mut World) {
    world.network.cut = false;
    world.nodes.iter_mut().for_each(|node| node.backlog = 0);
    world.network.loss = 0;
    world.network.duplication = 0;
    world.network.corruption = 0;
    world.network.delay = millis(10);
    world.network.reordering = millis(0);
    let before = [world.nodes[0].delivered.len(), world.nodes[1].delivered.len()];
    let back = world.now;
    while (0..2).any(|n| world.nodes[n].delivered.len() == before[n]) || world.now < back + secs(1) {
        assert!(world.now < back + secs(10), "both talk again within 10 s");
        world.send(0, 1);
        world.send(1, 0);
        world.run(millis(100));
    }
}

fn fall_silent(world: &mut World) {
    for n in 0..2 {
        world.change(n, 1 - n, |change| change.persistent_keepalive = Some(0));
    }
    world.run(secs(60));
    world.forget_log();
    world.run(secs(3600));
    assert_eq!(world.log.len(), 0, "two idle peers fall silent");
    assert_eq!(world.next(), None, "and have nothing to do");
    let given_up = |event: &Event| matches!(event, Event::GivenUp { .. });
    assert!(!world.has_event(0, given_up) && !world.has_event(1, given_up));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn after_any_mess_both_ends_talk_again_within_10_s_and_then_fall_silent(
        seed in any::<u64>(),
        setting in prop_oneof![Just(Setting::Mobile), Just(Setting::Fixed)],
        happenings in prop::collection::vec(happening(), 1..60),
    ) {
        let mut world = World::of(2, seed);
        for what in happenings {
            happen(&mut world, setting, what);
        }
        recovers(&mut world);
        fall_silent(&mut world);
    }
}
