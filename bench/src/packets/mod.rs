//! UDP packet rate: the highest at which less than one datagram in a thousand is lost, found by bisection with loss
//! verification (ETSI GS NFV-TST 009, 12.3.3).
//!
//! `iperf3 -u -b 0` is no metric on a small machine: the sender starves the tunnel. Here the sender sleeps between
//! batches, by the clock, and the receiver looks once a millisecond.

mod receiver;
mod sender;

use std::{net::UdpSocket, thread, time::Duration};

use nix::sys::socket::{setsockopt, sockopt};

use crate::{
    failure::{Attempted, Result},
    pair::Pair,
    stop,
};
use receiver::Tally;
pub use sender::Sending;

/// How long one rate is offered.
const STEP: Duration = Duration::from_millis(700);
/// What still arrives so long after the last one was sent was queued by a tunnel that cannot keep up: late is lost.
const GRACE: Duration = Duration::from_millis(20);
/// Loss that is still called none.
const LOSS: f64 = 0.001;
/// Packets a second between which is searched, and halvings of the way between, on a logarithmic scale: 2.5 %.
const BETWEEN: (f64, f64) = (2_000.0, 1_500_000.0);
const HALVINGS: u32 = 8;
/// How often a rate is offered until it counts as lost: another program of the machine may have had the core.
const TRIES: u32 = 3;
/// Steps of 12 % beyond what was found, as long as they pass.
const BEYOND: u32 = 6;
/// IPv4 and UDP headers.
const HEADERS: usize = 28;
/// Of the receiving socket: that datagrams are lost in it would be our fault.
const RECEIVE_BUFFER: usize = 64 << 20;

/// What was found.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Rate {
    /// Packets a second, the highest that came through.
    pub packets_per_second: f64,
    /// Of that run.
    pub loss: f64,
    /// In all runs that came through: datagrams that arrived after one that was sent later.
    pub reordered: u64,
    /// In all runs that came through.
    pub duplicated: u64,
    /// In that run the sender could not send as fast as it was asked to.
    pub sender_limited: bool,
}

/// Searches for packets of `size` bytes, IP header included, from left to right.
pub fn search(pair: &Pair, size: usize, sending: Sending) -> Result<Rate> {
    let what = || format!("send datagrams to {}", pair.right.inner);
    let receiving = pair.right.host.run(|| UdpSocket::bind((pair.right.inner, 0))).attempted(what)?;
    setsockopt(&receiving, sockopt::RcvBufForce, &RECEIVE_BUFFER).attempted(what)?;
    // As whoever expects many small datagrams does: what the kernel has put together is not cut for us.
    setsockopt(&receiving, sockopt::UdpGroSegment, &true).attempted(what)?;
    receiving.set_nonblocking(true).attempted(what)?;
    let sender = pair.left.host.run(|| UdpSocket::bind((pair.left.inner, 0))).attempted(what)?;
    sender.connect(receiving.local_addr().attempted(what)?).attempted(what)?;

    let mut run = 0;
    bisect(|rate| {
        run += 1;
        offer(&sender, &receiving, &Load { run, rate, payload: size - HEADERS, length: STEP, sending })
    })
}

/// One rate for a while.
struct Load {
    /// Told in each datagram: those of an earlier run are not counted.
    run: u64,
    rate: f64,
    payload: usize,
    length: Duration,
    sending: Sending,
}

impl Load {
    fn count(&self) -> u64 {
        (self.rate * self.length.as_secs_f64()) as u64
    }
}

/// What came of it.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Offered {
    sent: u64,
    /// By the clock: less than was asked for, where the sender could not.
    rate: f64,
    tally: Tally,
}

impl Offered {
    fn loss(&self) -> f64 {
        self.sent.saturating_sub(self.tally.on_time) as f64 / self.sent.max(1) as f64
    }

    fn came_through(&self) -> bool {
        self.sent > 0 && self.loss() < LOSS
    }
}

fn offer(sender: &UdpSocket, receiving: &UdpSocket, load: &Load) -> Result<Offered> {
    stop::check()?;
    let done = sender::Done::default();
    thread::scope(|scope| {
        let counting = scope.spawn(|| receiver::count(receiving, load, &done));
        let sent = sender::send(sender, load, &done);
        let tally = counting.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        let sent = sent.attempted(|| format!("send {} packets a second", load.rate))?;
        Ok(Offered { sent: sent.count, rate: sent.rate, tally: tally.attempted(|| "receive".to_owned())? })
    })
}

/// Halves the way between two rates. A bad moment of the machine near the beginning would cap what follows, so the
/// end is looked beyond.
fn bisect(offer: impl FnMut(f64) -> Result<Offered>) -> Result<Rate> {
    let mut search = Search { offer, best: Rate::default() };
    let (mut low, mut high) = BETWEEN;
    for _ in 0..HALVINGS {
        let middle = (low * high).sqrt();
        if search.passes(middle)? { low = middle } else { high = middle }
    }
    for _ in 0..BEYOND {
        let beyond = search.best.packets_per_second * 1.12;
        if beyond == 0.0 || beyond > BETWEEN.1 || !search.passes(beyond)? {
            break;
        }
    }
    Ok(search.best)
}

struct Search<O> {
    offer: O,
    best: Rate,
}

impl<O: FnMut(f64) -> Result<Offered>> Search<O> {
    /// A sender that is at its end has not offered what was asked: that is not passed, but counts for what it was.
    fn passes(&mut self, rate: f64) -> Result<bool> {
        let Some(offered) = self.came_through(rate)? else { return Ok(false) };
        let sender_limited = offered.rate < 0.95 * rate;
        let best = &mut self.best;
        best.reordered += offered.tally.reordered;
        best.duplicated += offered.tally.duplicated;
        if offered.rate > best.packets_per_second {
            let (packets_per_second, loss) = (offered.rate, offered.loss());
            *best = Rate { packets_per_second, loss, sender_limited, ..*best };
        }
        Ok(!sender_limited)
    }

    /// The first of some tries that did.
    fn came_through(&mut self, rate: f64) -> Result<Option<Offered>> {
        for _ in 0..TRIES {
            let offered = (self.offer)(rate)?;
            if offered.came_through() {
                return Ok(Some(offered));
            }
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn passing(rate: f64, limit: f64) -> Offered {
        let on_time = if rate <= limit { 1000 } else { 900 };
        Offered { sent: 1000, rate, tally: Tally { on_time, ..Tally::default() } }
    }

    #[test]
    fn the_limit_is_found_within_three_percent() {
        for limit in [3_000.0, 41_000.0, 290_000.0, 1_400_000.0] {
            let found = bisect(|rate| Ok(passing(rate, limit))).unwrap().packets_per_second;
            assert!(found <= limit && found > 0.97 * limit, "{found} for {limit}");
        }
    }

    #[test]
    fn one_bad_moment_does_not_mislead_the_search() {
        let mut asked = 0;
        let found = bisect(|rate| {
            asked += 1;
            Ok(passing(rate, if asked == 1 { 0.0 } else { 290_000.0 }))
        });
        assert!(found.unwrap().packets_per_second > 0.97 * 290_000.0);
        assert!(asked <= TRIES * (HALVINGS + 1));
    }

    #[test]
    fn a_bad_moment_that_lasts_is_made_up_for() {
        let mut asked = 0;
        let found = bisect(|rate| {
            asked += 1;
            Ok(passing(rate, if asked <= TRIES { 0.0 } else { 90_000.0 }))
        });
        let found = found.unwrap().packets_per_second;
        assert!(
            (80_000.0..=90_000.0).contains(&found),
            "{found} after a first rate of 55,000 that failed each time"
        );
    }

    #[test]
    fn a_sender_at_its_end_is_not_asked_for_more() {
        let able = 100_000.0;
        let found = bisect(|rate: f64| Ok(passing(rate.min(able), able))).unwrap();
        assert_eq!((found.packets_per_second, found.sender_limited), (able, true));
    }

    #[test]
    fn nothing_sent_is_nothing_reached() {
        assert_eq!(bisect(|_| Ok(Offered::default())).unwrap(), Rate::default());
    }
}
