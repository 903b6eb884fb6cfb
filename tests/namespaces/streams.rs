//! TCP and numbered datagrams in both directions at the same time, as fast as the machine can: what is looked at is
//! their order.

use std::{net::IpAddr, thread, time::Duration};

use vpnd::{
    lab::{Transfer, tcp_transfer},
    plane::Clock,
};

use crate::{
    common::flow::{Arrived, Flow},
    world::{Node, Pair},
};

/// How much goes at the same time, in each direction.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    /// Bytes of TCP, every one of which is checked.
    pub tcp: u64,
    /// Bytes of numbered datagrams in trains; at least.
    pub udp: u64,
    /// From one train to the next.
    pub pace: Duration,
    /// From one small datagram to the next.
    pub small: Duration,
    /// How long each of them may take.
    pub limit: Duration,
}

/// Of the datagrams of a train.
const SIZE: usize = 1200;
const TRAIN: u64 = 32;
/// Small ones go beside them, each by itself, so that many batches are on their way.
const SMALL: usize = 64;

/// What became of one direction.
#[derive(Debug)]
pub struct Way {
    pub tcp: Transfer,
    pub trains: Arrived,
    pub small: Arrived,
}

/// Runs it; from left to right over IPv4, and back over IPv6. From the first packet on, so that the handshake lies in
/// it.
pub fn both_ways(pair: &Pair, load: Load) -> [Way; 2] {
    thread::scope(|scope| {
        let there = scope.spawn(|| way(&pair.left, &pair.right, pair.right.inner4, load));
        let back = scope.spawn(|| way(&pair.right, &pair.left, pair.left.inner6, load));
        [there, back].map(|way| way.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    })
}

fn way(from: &Node, to: &Node, address: IpAddr, load: Load) -> Way {
    let trains = Flow::trains(&from.host, &to.host, address, load.pace, SIZE, TRAIN);
    let small = Flow::start(&from.host, &to.host, address, load.small, SMALL);
    let end = Clock.boot() + load.limit;
    let tcp = tcp_transfer(&from.host, &to.host, address, load.tcp, load.limit);
    while trains.sent() * (SIZE as u64) < load.udp && Clock.boot() < end {
        thread::sleep(Duration::from_millis(20));
    }
    let (trains, small) = (trains.finish(), small.finish());
    Way { tcp: tcp.unwrap_or_else(|error| panic!("{error}: {}", from.log())), trains, small }
}

/// Nothing was reordered, doubled or damaged. What TCP crowds out of a queue is lost, but not much.
#[track_caller]
pub fn in_order(pair: &Pair, ways: &[Way; 2]) {
    for (way, name) in ways.iter().zip(["there", "back"]) {
        println!(
            "{name}: TCP {:.0} Mbit/s; trains: {}; small: {}",
            way.tcp.megabits_per_second(),
            way.trains,
            way.small
        );
    }
    for way in ways {
        let logs = || format!("{}\n{}", pair.left.log(), pair.right.log());
        assert!(way.tcp.intact, "{}", logs());
        for flow in [&way.trains, &way.small] {
            assert!(flow.in_order(), "{flow}\n{}", logs());
            assert!((flow.lost.len() as u64) < flow.sent / 2, "{flow}\n{}", logs());
        }
    }
    for node in [&pair.left, &pair.right] {
        assert_eq!((node.refused("replayed"), node.refused("forged")), (0, 0), "{}", node.log());
    }
}
