//! Tells the service manager that we live (`WATCHDOG=1`, sd_notify(3)): the driver, since it is the one who does so, and
//! each data thread, which must have moved, or wait for something to do.

use std::time::Duration;

use tokio::time::{Interval, MissedTickBehavior, interval};
use tracing::{error, info, warn};

use crate::plane::Beat;

/// Pings in the time after which the service manager gives us up.
const PINGS: u32 = 4;
/// Looks in a row at which a thread has not moved, until it counts as stalled: half of that time.
const STALLED: u32 = 2;

/// Absent where no service manager watches.
pub(super) struct Watchdog {
    turn: Option<Interval>,
    vigil: Vigil,
    /// What was said last.
    silent: bool,
}

impl Watchdog {
    /// As the service manager wants it (WATCHDOG_USEC). To be called within a runtime.
    pub(super) fn new() -> Self {
        let wanted = sd_notify::watchdog_enabled().filter(|limit| !limit.is_zero());
        let turn = wanted.map(|limit| {
            let mut turn = interval((limit / PINGS).max(Duration::from_millis(1)));
            // After a stall of our own, looks must lie apart as ever.
            turn.set_missed_tick_behavior(MissedTickBehavior::Delay);
            turn
        });
        Self { turn, vigil: Vigil::default(), silent: false }
    }

    /// Resolves when it is time for [`Self::look`]; never, where nobody watches.
    pub(super) async fn due(&mut self) {
        match &mut self.turn {
            Some(turn) => drop(turn.tick().await),
            None => std::future::pending().await,
        }
    }

    /// Looks at the data threads, and tells the service manager if all is well.
    pub(super) fn look<'a>(&mut self, beats: impl Iterator<Item = (&'a str, Beat)>) {
        match self.vigil.look(beats) {
            Some(thread) if !self.silent => {
                error!(
                    thread,
                    "a data thread is stuck: the service manager's watchdog gets no more signs of life"
                );
            }
            None if self.silent => info!("all data threads move again"),
            _ => {}
        }
        self.silent = self.vigil.is_stalled();
        if self.silent {
            return;
        }
        if let Err(error) = sd_notify::notify(&[sd_notify::NotifyState::Watchdog]) {
            warn!(%error, "the service manager's watchdog could not be told that we live");
        }
    }
}

/// What was seen of each thread, in their order.
#[derive(Default)]
struct Vigil {
    /// Its last beat, and at how many looks in a row since it was the same, at work.
    seen: Vec<(Beat, u32)>,
}

impl Vigil {
    /// Looks once more; names a thread that is stalled.
    fn look<'a>(&mut self, beats: impl Iterator<Item = (&'a str, Beat)>) -> Option<&'a str> {
        let mut stalled = None;
        for (at, (name, beat)) in beats.enumerate() {
            if self.seen.len() == at {
                self.seen.push((beat, 0));
                continue;
            }
            let (last, same) = &mut self.seen[at];
            *same = if *last == beat && beat.is_at_work() { *same + 1 } else { 0 };
            *last = beat;
            if *same >= STALLED {
                stalled.get_or_insert(name);
            }
        }
        stalled
    }

    fn is_stalled(&self) -> bool {
        self.seen.iter().any(|(_, same)| *same >= STALLED)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Beats of two threads, by whether they are at work and how often they moved.
    fn looks(looks: &[[Beat; 2]]) -> Vec<Option<&'static str>> {
        let mut vigil = Vigil::default();
        looks.iter().map(|beats| vigil.look(["out", "in"].into_iter().zip(*beats))).collect()
    }

    const fn works(n: u64) -> Beat {
        Beat::sample(2 * n)
    }
    const fn waits(n: u64) -> Beat {
        Beat::sample(2 * n + 1)
    }

    #[test]
    fn a_thread_that_waits_may_do_so_for_ever() {
        assert_eq!(looks(&[[waits(0), waits(3)]; 100]), [None; 100]);
    }

    #[test]
    fn a_thread_that_always_works_and_moves_is_well() {
        let busy: Vec<_> = (0..100).map(|n| [works(n), waits(0)]).collect();
        assert_eq!(looks(&busy), [None; 100]);
    }

    #[test]
    fn a_thread_at_the_same_work_for_two_more_looks_is_named_and_is_well_when_it_moves() {
        let stuck = [waits(0), works(5)];
        let seen = looks(&[[waits(0), waits(4)], stuck, stuck, stuck, stuck, [waits(0), works(6)]]);
        assert_eq!(seen, [None, None, None, Some("in"), Some("in"), None]);
    }

    #[test]
    fn one_that_is_found_at_work_between_waits_is_well() {
        let seen =
            looks(&[[works(1), waits(0)], [waits(1), waits(0)], [works(2), waits(0)], [works(2), waits(0)]]);
        assert_eq!(seen, [None; 4]);
    }
}
