//! Rows about a bad network: what a relay between the two ends loses, doubles, damages, delays.

use std::{
    net::SocketAddr,
    sync::atomic::{AtomicU64, Ordering},
    thread,
    time::{Duration, Instant},
};

use vpnd::lab::tcp_transfer;

use crate::{
    Torment,
    common::flow::Flow,
    relay::{Mess, Relay, Way},
    report::Figure,
    world::{PORT, Pair, Spec, wait_until},
};

/// Left talks to right through a relay on right's host.
fn relayed(name: &str, seed: u64) -> (Pair, Relay) {
    let pair = Pair::start(name, &Spec { right_knows_left: false, ..Spec::default() });
    let front = SocketAddr::new(pair.right.outer, 4000);
    let relay = Relay::start(&pair.right.host, front, SocketAddr::new(pair.right.outer, PORT), seed);
    pair.left.set(&format!("peer {} endpoint {front}", pair.right.key()));
    pair.left.ping(pair.right.inner4, 1);
    (pair, relay)
}

/// Loss, doubles, reordering, delay, damage; each by itself.
pub fn loss(torment: &Torment) -> Vec<Figure> {
    let millis = Duration::from_millis;
    let messes = [
        ("loss 1 %", Mess { loss: 1, ..Mess::default() }),
        ("loss 5 %", Mess { loss: 5, ..Mess::default() }),
        ("loss 20 %", Mess { loss: 20, ..Mess::default() }),
        ("duplication 10 %", Mess { duplication: 10, ..Mess::default() }),
        ("reordering 25 %", Mess { reordering: 25, delay: millis(20), ..Mess::default() }),
        ("delay 0 to 200 ms", Mess { jitter: millis(200), ..Mess::default() }),
        ("corruption 1 %", Mess { corruption: 1, ..Mess::default() }),
        ("truncation 1 %", Mess { truncation: 1, ..Mess::default() }),
    ];
    let (pair, relay) = relayed("loss", torment.seed);
    let settings = tuned(&pair);
    let how = format!("{CONNECTIONS} connections; {settings}");
    let mut figures = vec![Figure::hard("how TCP was sent (sysctl net.ipv4)", "–", how, true)];
    for (number, (name, mess)) in messes.into_iter().enumerate() {
        if !torment.is_full() && ![1, 3, 4, 6].contains(&number) {
            continue;
        }
        relay.make(mess);
        figures.extend(datagrams(torment, &pair, &relay, name));
        figures.push(stream(torment, &pair, name));
        relay.make(Mess::default());
        pair.left.ping(pair.right.inner4, 1);
    }
    figures.push(one_way_dead(&pair, &relay));
    figures.push(rebinding(&pair, &relay));
    figures
}

/// Numbered datagrams: what the relay passed on whole came out, once.
fn datagrams(torment: &Torment, pair: &Pair, relay: &Relay, name: &str) -> Vec<Figure> {
    let before = relay.lost(Way::There);
    let pace = Duration::from_micros(500);
    let flow = Flow::start(&pair.left.host, &pair.right.host, pair.right.inner4, pace, 1000);
    thread::sleep(torment.time(Duration::from_secs(20)));
    let arrived = flow.finish();
    // Keepalives and such are among those that it lost: at most, so much was lost by chance.
    let lost = relay.lost(Way::There) - before;
    let delivered = 1.0 - arrived.lost.len() as f64 / arrived.sent as f64;
    let least = 1.0 - lost as f64 / arrived.sent as f64 - 0.001;
    vec![
        Figure::hard(
            format!("datagrams delivered, {name}"),
            format!("≥ {:.2} % (1 − the relay's loss − 0.1)", least * 100.0),
            format!("{:.2} % of {}", delivered * 100.0, arrived.sent),
            delivered >= least,
        ),
        Figure::hard(
            format!("doubles and damaged ones, {name}"),
            "0, 0",
            format!("{}, {}", arrived.doubled, arrived.damaged),
            (arrived.doubled, arrived.damaged) == (0, 0),
        ),
    ]
}

/// Connections at the same time: at such loss and delay none of them goes fast.
const CONNECTIONS: u64 = 64;

/// What an operator may set on two hosts between which the network is this bad. Each can be had by the kernel's own
/// means; where a kernel lacks one, the rest stands.
fn tuned(pair: &Pair) -> String {
    let settings = [
        // Loss is no sign of a full path here.
        ("ipv4.tcp_congestion_control", "bbr"),
        // What was lost twice waits for the time-out, which is 200 ms at least else.
        ("ipv4.tcp_rto_min_us", "5000"),
        ("ipv4.tcp_max_reordering", "10000"),
        ("ipv4.tcp_syn_linear_timeouts", "20"),
    ];
    let had = settings.into_iter().filter(|(key, value)| {
        [&pair.left, &pair.right].into_iter().all(|end| end.host.sysctl(key, value).is_ok())
    });
    let had: Vec<_> = had.map(|(key, value)| format!("{key} = {value}").replace("ipv4.", "")).collect();
    had.join(", ")
}

/// TCP, each byte checked, on many connections; as much as goes in the time that there is.
fn stream(torment: &Torment, pair: &Pair, name: &str) -> Figure {
    let wanted = torment.count(1_000_000_000, 100_000);
    let chunk = (wanted / (8 * CONNECTIONS)).clamp(100_000, 2_000_000);
    let limit = torment.time(Duration::from_secs(600)).max(Duration::from_secs(15));
    let begin = Instant::now();
    let [begun, carried, altered] = [0; 3].map(AtomicU64::new);
    let carry = || {
        while begun.fetch_add(chunk, Ordering::Relaxed) < wanted {
            let patience = limit.saturating_sub(begin.elapsed()).max(Duration::from_secs(1));
            match tcp_transfer(&pair.left.host, &pair.right.host, pair.right.inner4, chunk, patience) {
                Ok(transfer) => {
                    carried.fetch_add(chunk, Ordering::Relaxed);
                    altered.fetch_add(u64::from(!transfer.intact), Ordering::Relaxed);
                }
                Err(_) if begin.elapsed() >= limit => return,
                // A connection that ended in the middle is nothing that a bad network does to TCP in this time.
                Err(error) => panic!("{name}: {error}"),
            }
        }
    };
    thread::scope(|scope| (0..CONNECTIONS.min(wanted / chunk)).for_each(|_| _ = scope.spawn(carry)));
    let [carried, altered] = [carried, altered].map(AtomicU64::into_inner);
    let seconds = begin.elapsed().as_secs_f64();
    let figure = Figure {
        // How much goes is the network's affair; that it is whole is ours.
        speed: altered == 0 && carried > 0,
        ..Figure::hard(
            format!("TCP, every byte compared, {name}"),
            format!("{:.1} MB, all equal", wanted as f64 / 1e6),
            format!(
                "{:.1} MB in {seconds:.0} s, {}",
                carried as f64 / 1e6,
                if altered == 0 { "all equal" } else { "ALTERED" }
            ),
            altered == 0 && carried >= wanted,
        )
    };
    if carried < wanted { figure.note("the time for it was over") } else { figure }
}

/// One direction is dead for a while: the session is found again.
fn one_way_dead(pair: &Pair, relay: &Relay) -> Figure {
    let mut recovered = true;
    let mut slowest = Duration::ZERO;
    for way in [Way::There, Way::Back] {
        relay.make(Mess { dead: Some(way), ..Mess::default() });
        recovered &= !pair.left.reaches(pair.right.inner4);
        relay.make(Mess::default());
        let begin = Instant::now();
        recovered &= wait_until(Duration::from_secs(10), || pair.left.reaches(pair.right.inner4));
        slowest = slowest.max(begin.elapsed());
    }
    Figure::hard(
        "one direction dead for a while, then traffic again",
        "≤ 6 s",
        format!("{:.1} s", slowest.as_secs_f64()),
        recovered && slowest < Duration::from_secs(6),
    )
}

/// A NAT that forgets, ten times, while pings go.
fn rebinding(pair: &Pair, relay: &Relay) -> Figure {
    let mut answered = 0;
    for _ in 0..10 {
        relay.rebind(&pair.right.host);
        answered += u32::from(pair.left.reaches(pair.right.inner4));
    }
    Figure::hard("NAT rebinding: first ping from the new port answered", "10 of 10", answered, answered == 10)
}

/// Half of all datagrams are lost: the handshake completes.
pub fn handshakes(torment: &Torment) -> Vec<Figure> {
    let pairs = torment.count(8, 1);
    let seconds: Vec<f64> = thread::scope(|scope| {
        let each = |n: u64| {
            scope.spawn(move || {
                let (pair, relay) = relayed(&format!("half{n}"), torment.seed + n);
                relay.make(Mess { loss: 50, ..Mess::default() });
                let key = pair.right.key();
                pair.left.set(&format!("peer {key} remove"));
                let begin = Instant::now();
                let endpoint = SocketAddr::new(pair.right.outer, 4000);
                pair.left.set(&format!(
                    "peer {key} endpoint {endpoint} persistent-keepalive 1 allowed-ips 10.77.0.2/32"
                ));
                let done = wait_until(Duration::from_secs(100), || pair.left.last_handshake(&key) != 0);
                if done { begin.elapsed().as_secs_f64() } else { f64::INFINITY }
            })
        };
        let running: Vec<_> = (0..pairs).map(each).collect();
        running.into_iter().map(|pair| pair.join().expect("a pair")).collect()
    });
    let slowest = seconds.iter().copied().fold(0.0, f64::max);
    vec![Figure::hard(
        format!("{pairs} handshakes at 50 % loss"),
        "≤ 90 s",
        format!("{slowest:.1} s the slowest"),
        slowest <= 90.0,
    )]
}
