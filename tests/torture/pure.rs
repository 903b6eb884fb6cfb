//! Rows that need no network: late packets, counters at their end, copies of a packet on many threads.

use std::sync::{
    Barrier,
    atomic::{AtomicU8, Ordering},
};

use vpnd::{
    forward::{Arrival, Deliveries, Endpoint, Merge, session::REJECT_AFTER_MESSAGES},
    wire::{
        ecn::Ecn,
        message::{Kind, TransportHeader},
        vnet::VNET_HEADER_LEN,
    },
};

use crate::{
    Torment,
    model::{World, inner, millis, outer, ping, secs},
    report::Figure,
};

/// A packet that so many others overtake: was it delivered?
fn overtaken_by(others: u64) -> bool {
    let mut world = World::connected();
    world.network.delay = secs(30);
    let first = world.send(0, 1);
    world.network.delay = millis(10);
    for _ in 0..others {
        world.send(0, 1);
    }
    world.run(secs(31));
    world.nodes[1].delivered.contains(&first)
}

/// 7,000 packets late, and 9,000.
pub fn late(_: &Torment) -> Vec<Figure> {
    [(7000, true), (9000, false)]
        .into_iter()
        .map(|(others, asked)| {
            let words = |delivered| if delivered { "delivered" } else { "refused" };
            let delivered = overtaken_by(others);
            Figure::hard(
                format!("a packet that {others} overtook"),
                words(asked),
                words(delivered),
                delivered == asked,
            )
        })
        .collect()
}

/// The last legal counter, and eight copies of each packet on eight threads.
pub fn counters(torment: &Torment) -> Vec<Figure> {
    let mut world = World::connected();
    world.forget_log();
    world.current(0, 1).skip_to(REJECT_AFTER_MESSAGES - 1);
    let sent: Vec<u64> = (0..5).map(|_| world.send(0, 1)).collect();
    world.run(secs(20));
    let counters: Vec<u64> = world
        .of_kind(0, Kind::Transport)
        .iter()
        .map(|sent| TransportHeader::parse(&sent.bytes).expect("our own").counter)
        .collect();
    let last = counters.iter().filter(|&&counter| counter == REJECT_AFTER_MESSAGES - 1).count();
    let beyond = counters.iter().filter(|&&counter| counter >= REJECT_AFTER_MESSAGES).count();
    let delivered = sent.iter().filter(|number| world.nodes[1].delivered.contains(number)).count();
    let mut figures = vec![
        Figure::hard("the last legal counter", "used once", format!("{last} ×"), last == 1),
        Figure::hard("counters beyond it", "0", beyond, beyond == 0),
        Figure::hard("what is sent then, in a new session", "5 delivered", delivered, delivered == 5),
    ];
    figures.push(copies(torment.count(10_000_000, 20_000)));
    figures
}

const WORKERS: usize = 8;
/// Packets that all workers have before the next ones come: far less than the window.
const AT_ONCE: usize = 512;

/// Each packet comes to eight threads at the same time, and is delivered by one of them.
fn copies(total: u64) -> Figure {
    let world = World::connected();
    let (session, forward) = (world.current(0, 1), world.nodes[1].forward.clone());
    let now = world.now;
    let packets: Vec<AtomicU8> = (0..total).map(|_| AtomicU8::new(0)).collect();
    let (start, end) = (Barrier::new(WORKERS + 1), Barrier::new(WORKERS + 1));
    let chunk = std::sync::RwLock::new((Vec::<u8>::new(), 0_usize));
    let chunks = total.div_ceil(AT_ONCE as u64);
    std::thread::scope(|scope| {
        for _ in 0..WORKERS {
            scope.spawn(|| {
                let (mut buffer, mut deliveries) = (Vec::new(), Deliveries::new());
                let from = Endpoint { remote: outer(0), local: None };
                for _ in 0..chunks {
                    start.wait();
                    let stride = {
                        let chunk = chunk.read().expect("nobody panicked");
                        buffer.clone_from(&chunk.0);
                        chunk.1
                    };
                    let arrival = Arrival { from, ecn: Ecn::NotEct, place: 0..buffer.len(), stride };
                    deliveries.begin(Merge::default());
                    forward.inbound(&arrival, &mut buffer, &mut deliveries, now);
                    for delivery in deliveries.finish(&mut buffer) {
                        let number = &buffer[delivery.start + VNET_HEADER_LEN + 20..][..8];
                        let number = u64::from_be_bytes(number.try_into().expect("eight bytes"));
                        packets[number as usize].fetch_add(1, Ordering::Relaxed);
                    }
                    end.wait();
                }
            });
        }
        for first in (0..total).step_by(AT_ONCE) {
            let mut bytes = Vec::with_capacity(AT_ONCE * 128);
            let mut stride = 0;
            for number in first..total.min(first + AT_ONCE as u64) {
                let sealed = session.seal(&ping(inner(0), inner(1), number), 0, now).expect("a live session");
                stride = sealed.len();
                bytes.extend(sealed);
            }
            *chunk.write().expect("nobody panicked") = (bytes, stride);
            start.wait();
            end.wait();
        }
    });
    let once = packets.iter().filter(|packet| packet.load(Ordering::Relaxed) == 1).count() as u64;
    Figure::hard(
        format!("{total} packets, a copy of each on {WORKERS} threads"),
        "each delivered once",
        format!("{once} once, {} otherwise", total - once),
        once == total,
    )
}
