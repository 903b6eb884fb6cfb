//! Mixed traffic through a tunnel, in amounts that no queue on the way overflows: what is lost was lost by one
//! of the two ends.

use std::{
    fmt,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use vpnd::{
    lab::{Ping, tcp_transfer},
    plane::Clock,
};

use crate::{
    common::flow::{Arrived, Flow},
    world::{Node, Pair, sh},
};

/// How much of what, in each direction.
#[derive(Clone, Copy, Debug)]
pub struct Recipe {
    /// How long.
    pub duration: Duration,
    /// From one numbered datagram to the next.
    pub pace: Duration,
    /// From one ping to the next.
    pub interval: Duration,
    /// From one TCP transfer of [`TRANSFER`] bytes to the next.
    pub pause: Duration,
}

/// Bytes of one TCP transfer.
pub const TRANSFER: u64 = 1_000_000;
/// Of a numbered datagram.
const SIZE: usize = 1000;
/// A transfer on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);
/// TCP has at most about half of this on its way: with its windows wide open it fills every queue until
/// something is dropped, since that is how it finds out how fast it may be.
const WINDOW: u32 = 65_536;

/// What became of one direction.
#[derive(Clone, Debug)]
pub struct Way {
    /// Numbered datagrams.
    pub flow: Arrived,
    /// Pings sent.
    pub pings: u32,
    /// Pings answered.
    pub answered: u32,
    /// TCP transfers, each of which came through whole.
    pub transfers: u32,
}

impl Way {
    /// Nothing was lost, doubled, altered or overtaken.
    pub fn whole(&self) -> bool {
        self.flow.whole() && self.pings > 0 && self.pings == self.answered && self.transfers > 0
    }
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { flow, pings, answered, transfers } = self;
        write!(f, "UDP: {flow}; pings: {answered} of {pings}; TCP: {transfers} transfers")
    }
}

/// Runs it; what became of the way from left to right, and of the way back. IPv4 goes there, IPv6 back.
pub fn run(pair: &Pair, recipe: &Recipe) -> [Way; 2] {
    for node in [&pair.left, &pair.right] {
        for key in ["ipv4.tcp_rmem", "ipv4.tcp_wmem"] {
            node.host.sysctl(key, &format!("4096 {WINDOW} {WINDOW}")).expect("a window can be set");
        }
    }
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let there = scope.spawn(|| way(&pair.left, &pair.right, pair.right.inner4, recipe, &over));
        let back = scope.spawn(|| way(&pair.right, &pair.left, pair.left.inner6, recipe, &over));
        let end = Clock.boot() + recipe.duration;
        while Clock.boot() < end && !there.is_finished() && !back.is_finished() {
            thread::sleep(Duration::from_millis(50));
        }
        over.store(true, Ordering::Release);
        [there, back].map(|way| way.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    })
}

fn way(from: &Node, to: &Node, address: std::net::IpAddr, recipe: &Recipe, over: &AtomicBool) -> Way {
    let going_on = || !over.load(Ordering::Acquire);
    let flow = Flow::start(&from.host, &to.host, address, recipe.pace, SIZE);
    let (pings, answered, transfers) = thread::scope(|scope| {
        let pinging = scope.spawn(|| {
            let (mut sent, mut received) = (0, 0);
            while going_on() {
                // A few at a time, so that the end is not waited for.
                let ping = Ping { count: 10, interval: recipe.interval, ..Ping::patiently(address) };
                let pings = from.host.ping_with(&ping).expect("ping runs");
                sent += pings.sent;
                received += pings.received;
                thread::sleep(recipe.interval);
            }
            (sent, received)
        });
        let mut transfers = 0;
        while going_on() {
            let transfer = tcp_transfer(&from.host, &to.host, address, TRANSFER, PATIENCE);
            let transfer = transfer.unwrap_or_else(|error| panic!("{error}\n{}", from.log()));
            assert!(transfer.intact, "from {} to {address}", from.host.name());
            transfers += 1;
            let next = Clock.boot() + recipe.pause;
            while going_on() && Clock.boot() < next {
                thread::sleep(Duration::from_millis(50));
            }
        }
        let (sent, received) = pinging.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        (sent, received, transfers)
    });
    Way { flow: flow.finish(), pings, answered, transfers }
}

/// Where packets can have been lost, for the message of a test that failed.
pub fn losses(pair: &Pair) -> String {
    let look = "ip -s link show; nstat -as; cat /proc/net/udp /proc/net/udp6";
    let of = |node: &Node| format!("{}:\n{}\n{}", node.host.name(), sh(&node.host, look), node.log());
    [&pair.left, &pair.right].map(of).concat()
}
