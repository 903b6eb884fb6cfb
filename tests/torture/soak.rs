//! An hour of all of it: mixed traffic over a lossy path, rekeys, roaming, reloads.

use std::{
    fs,
    net::SocketAddr,
    thread,
    time::{Duration, Instant},
};

use vpnd::lab::tcp_transfer;

use crate::{
    Torment,
    common::flow::Flow,
    field::memory_kb,
    relay::{Mess, Relay},
    report::Figure,
    world::{PORT, Pair, Spec, sh},
};

/// RSS may differ by so many kB between the two halves, and its straight line rise by half of that in the whole time.
const FLAT: u64 = 2048;

/// A reload that is looked at in the middle has its file open.
const MOMENTARY: usize = 2;

/// For one transfer: in an hour a machine may be stopped for a while, and TCP outlives that.
const PATIENCE: Duration = Duration::from_secs(600);

/// What was seen of the two processes at one moment.
struct Look {
    /// Seconds since the beginning.
    at: f64,
    memory: u64,
    files: usize,
}

fn look(pid: u32, at: f64) -> Look {
    let files = fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, Iterator::count);
    Look { at, memory: memory_kb(pid), files }
}

/// Of the two in the middle the upper; 0 of none.
fn median(mut numbers: Vec<usize>) -> usize {
    numbers.sort_unstable();
    numbers.get(numbers.len() / 2).copied().unwrap_or(0)
}

/// kB a second, by least squares.
fn slope(looks: &[[Look; 2]], end: usize) -> f64 {
    let count = looks.len().max(1) as f64;
    let mean = |of: fn(&Look) -> f64| looks.iter().map(|look| of(&look[end])).sum::<f64>() / count;
    let (middle, usual) = (mean(|look| look.at), mean(|look| look.memory as f64));
    let (mut together, mut spread) = (0.0, 0.0);
    for look in looks.iter().map(|look| &look[end]) {
        together += (look.at - middle) * (look.memory as f64 - usual);
        spread += (look.at - middle).powi(2);
    }
    if spread > 0.0 { together / spread } else { 0.0 }
}

pub fn soak(torment: &Torment) -> Vec<Figure> {
    let duration = torment.time(Duration::from_secs(3600)).max(Duration::from_secs(10));
    let pair = Pair::start("torture-soak", &Spec { right_knows_left: false, ..Spec::default() });
    let front = SocketAddr::new(pair.right.outer, 4000);
    let relay = Relay::start(&pair.right.host, front, SocketAddr::new(pair.right.outer, PORT), torment.seed);
    // A reload goes back to what the file says, so that is where the relay stands.
    let config = pair.left.daemon().config().to_owned();
    let text = fs::read_to_string(&config).expect("its file");
    fs::write(&config, text.replace(&format!("{}:{PORT}", pair.right.outer), &front.to_string()))
        .expect("its file");
    let reload = || sh(&pair.left.host, &format!("kill -HUP {}", pair.left.pid()));
    reload();
    thread::sleep(Duration::from_millis(500));
    pair.left.ping(pair.right.inner4, 1);
    relay.make(Mess { loss: 1, reordering: 2, delay: Duration::from_millis(5), ..Mess::default() });
    let pids = [pair.left.pid(), pair.right.pid()];
    let pace = Duration::from_millis(2);
    let flows = [
        Flow::start(&pair.left.host, &pair.right.host, pair.right.inner4, pace, 900),
        Flow::start(&pair.right.host, &pair.left.host, pair.left.inner6, pace, 900),
    ];
    let (begin, mut looks) = (Instant::now(), Vec::new());
    let (mut transfers, mut broken, mut reloads, mut moves) = (0, 0, 0, 0);
    let mut slowest = Duration::ZERO;
    while begin.elapsed() < duration {
        let started = Instant::now();
        let whole = tcp_transfer(&pair.left.host, &pair.right.host, pair.right.inner6, 2_000_000, PATIENCE)
            .is_ok_and(|transfer| transfer.intact);
        slowest = slowest.max(started.elapsed());
        transfers += 1;
        broken += u64::from(!whole);
        let elapsed = begin.elapsed().as_secs();
        if elapsed / 60 > reloads {
            reload();
            reloads = elapsed / 60;
        }
        if elapsed / 20 > moves {
            relay.rebind(&pair.right.host);
            moves = elapsed / 20;
        }
        let at = begin.elapsed().as_secs_f64();
        looks.push(pids.map(|pid| look(pid, at)));
        thread::sleep(Duration::from_millis(500));
    }
    let arrived = flows.map(Flow::finish);
    let lived = [pair.left.pid(), pair.right.pid()] == pids && pair.left.reaches(pair.right.inner4);
    let rekeys = pair.left.log().matches("session renewed").count();
    let halves = looks.split_at(looks.len() / 2);
    let most = |looks: &[[Look; 2]]| -> [u64; 2] {
        [0, 1].map(|end| looks.iter().map(|look| look[end].memory).max().unwrap_or(0))
    };
    let (first, last) = (most(halves.0), most(halves.1));
    let files = [0, 1].map(|end| looks.iter().map(|look| look[end].files).collect::<Vec<_>>());
    let usual = files.each_ref().map(|files| {
        files
            .chunks(files.len().div_ceil(4).max(1))
            .map(|quarter| median(quarter.to_vec()))
            .collect::<Vec<_>>()
    });
    let most_files = files.each_ref().map(|files| files.iter().max().copied().unwrap_or(0));
    let constant = [0, 1].into_iter().all(|end| {
        let first = usual[end].first().copied().unwrap_or(0);
        usual[end].iter().all(|usual| *usual == first) && most_files[end] <= first + MOMENTARY
    });
    // The first quarter is for all that is made once.
    let rise = [0, 1].map(|end| slope(&looks[looks.len() / 4..], end) * duration.as_secs_f64());
    vec![
        Figure::hard("restarts", "0", if lived { "0" } else { "some" }, lived),
        Figure::hard(
            format!("{:.0} s: TCP transfers of 2 MB, each byte checked", begin.elapsed().as_secs_f64()),
            "all whole",
            format!("{} of {transfers}, {:.0} s the slowest", transfers - broken, slowest.as_secs_f64()),
            broken == 0,
        ),
        Figure::hard(
            "numbered datagrams doubled or damaged",
            "0",
            arrived.iter().map(|way| way.doubled + way.damaged).sum::<u64>(),
            arrived.iter().all(|way| (way.doubled, way.damaged) == (0, 0)),
        ),
        Figure::hard(
            "numbered datagrams lost (1 % by the relay, and what TCP crowds out)",
            "≤ 3 %",
            arrived
                .iter()
                .map(|way| format!("{:.2} %", way.lost.len() as f64 / way.sent as f64 * 100.0))
                .collect::<Vec<_>>()
                .join(", "),
            arrived.iter().all(|way| way.lost.len() as f64 <= way.sent as f64 * 0.03),
        ),
        Figure::hard(
            "rekeys, reloads, moves",
            "as the time asks",
            format!("{rekeys}, {reloads}, {moves}"),
            rekeys as u64 >= duration.as_secs() / 130,
        ),
        Figure::hard(
            "RSS at most, in each half",
            format!("the second ≤ the first + {FLAT} kB"),
            format!("{first:?} kB, {last:?} kB"),
            [0, 1].into_iter().all(|end| last[end] <= first[end] + FLAT),
        ),
        Figure::hard(
            "slope of RSS after the first quarter",
            format!("flat: ≤ {} kB in the whole time", FLAT / 2),
            format!("{:+.0} and {:+.0} kB in the whole time", rise[0], rise[1]),
            rise.iter().all(|rise| *rise <= FLAT as f64 / 2.0),
        ),
        Figure::hard(
            "open files of each end: the usual number in the quarters, and the most",
            format!("constant, ≤ {MOMENTARY} more for a moment"),
            format!("{usual:?}, {most_files:?}"),
            constant,
        ),
    ]
}
