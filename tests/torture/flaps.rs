//! Links, addresses and devices that others take away while they carry a load.

use std::{
    net::IpAddr,
    time::{Duration, Instant},
};

use vpnd::lab::Ping;

use crate::{
    Torment,
    goodput::Stream,
    report::Figure,
    world::{DEVICE, Node, Pair, Spec, sh, wait_until},
};

const LONG: Duration = Duration::from_secs(10);
/// A ping that a full queue drops is asked again after this: what is looked for is whether traffic is back, and a second of
/// patience would be the whole limit.
const PATIENCE: Duration = Duration::from_millis(100);

/// What others do to its device while it carries a load.
pub fn flaps(torment: &Torment) -> Vec<Figure> {
    let times = torment.count(200, 2);
    let outer =
        "ip link set eth0 down; ip link set eth0 up; ip -6 addr add 2001:db8::1/64 dev eth0 nodad || true";
    let tunnel = "ip link set vpn0 down; ip link set vpn0 up";
    let mut figures = Vec::new();
    figures.extend(Flapped::of(tunnel, times, times).figures("the tunnel down and up"));
    figures.extend(Flapped::of(outer, times, times).figures("the cable down and up"));
    // More than five in a row are a fight between two programs, in which vpnd slows down on purpose.
    figures.extend(Flapped::of("ip addr flush dev vpn0", times, 4).figures("addresses flushed"));
    figures.extend(taken_away(times, "ip link delete vpn0", "device deleted"));
    let theft = "ip netns add vpnd-thief; ip link set vpn0 netns vpnd-thief; ip netns del vpnd-thief";
    figures.extend(taken_away(times, theft, "device in a namespace that is deleted"));
    figures
}

/// Something was done again and again, and traffic came back.
#[derive(Default)]
struct Flapped {
    times: u64,
    back: u64,
    slowest: Duration,
}

impl Flapped {
    /// `in_a_row`: with as many on one tunnel.
    fn of(act: &str, times: u64, in_a_row: u64) -> Self {
        let mut flapped = Self { times, ..Self::default() };
        let mut left = times;
        while left > 0 {
            let now = left.min(in_a_row);
            flapped.on_one_tunnel(act, now);
            left -= now;
        }
        flapped
    }

    fn on_one_tunnel(&mut self, act: &str, times: u64) {
        let pair = Pair::start("flaps", &Spec::default());
        pair.left.ping(pair.right.inner4, 1);
        // TCP outlives what happens to the device; a datagram could not even be sent.
        let load = Stream::start(&pair.left.host, &pair.right.host, pair.right.inner4);
        for _ in 0..times {
            sh(&pair.left.host, act);
            let begin = Instant::now();
            let up = wait_until(Duration::from_secs(10), || {
                answers(&pair.left, pair.right.inner4) && answers(&pair.left, pair.right.inner6)
            });
            self.back += u64::from(up);
            self.slowest = self.slowest.max(begin.elapsed());
        }
        drop(load);
    }

    fn figures(&self, name: &str) -> [Figure; 2] {
        let Self { times, back, slowest } = self;
        [
            Figure::hard(
                format!("{name}, {times} × under load: traffic in both families again"),
                times,
                back,
                back == times,
            ),
            Figure::speed(
                format!("{name}: the slowest"),
                "≤ 1 s",
                format!("{} ms", slowest.as_millis()),
                *slowest <= Duration::from_secs(1),
            ),
        ]
    }
}

fn answers(from: &Node, to: IpAddr) -> bool {
    from.host.ping_with(&Ping { patience: PATIENCE, ..Ping::to(to) }).is_ok_and(|pings| pings.received == 1)
}

fn taken_away(times: u64, theft: &str, name: &str) -> [Figure; 2] {
    let (mut ended, mut slowest) = (0, Duration::ZERO);
    for _ in 0..times {
        let mut pair = Pair::start("robbed", &Spec::default());
        pair.left.ping(pair.right.inner4, 1);
        let load = Stream::start(&pair.left.host, &pair.right.host, pair.right.inner4);
        sh(&pair.left.host, theft);
        let begin = Instant::now();
        let status = pair.left.vpnd().wait(LONG);
        slowest = slowest.max(begin.elapsed());
        ended += u64::from(
            status.is_some_and(|status| status.code() == Some(1)) && pair.left.log().contains(DEVICE),
        );
        drop(load);
    }
    [
        Figure::hard(
            format!("{name}, {times} × under load: it ends, and says which"),
            times,
            ended,
            ended == times,
        ),
        Figure::speed(
            format!("{name}: the slowest"),
            "≤ 1 s",
            format!("{} ms", slowest.as_millis()),
            slowest <= Duration::from_secs(1),
        ),
    ]
}
