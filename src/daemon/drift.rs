//! When to put back what somebody else removed: at once; but where another program removes it again and again, less
//! and less often, so that two programs that fight do not wear the host out. Pure, `now` is handed in.

use std::time::Duration;

use tokio::time::Instant;

/// A flush is many removals: they are mended together.
const SETTLE: Duration = Duration::from_millis(50);
/// So often in a row it is put back at once.
const OFTEN: u32 = 5;
/// Then first and longest pause.
const PAUSE: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(320));
/// After so long without a removal (and twice the pause) all is forgotten.
const CALM: Duration = Duration::from_secs(60);
/// After a failure, before the next attempt.
const AGAIN: Duration = Duration::from_millis(500);

/// What was removed from outside, lately.
#[derive(Debug, Default)]
pub(super) struct Drift {
    due: Option<Instant>,
    last: Option<Instant>,
    in_a_row: u32,
}

impl Drift {
    /// Something of ours may be gone.
    pub(super) fn lost(&mut self, now: Instant) {
        if self.last.is_some_and(|last| now.duration_since(last) > CALM + self.pause() * 2) {
            self.in_a_row = 0;
        }
        let due = now + self.pause();
        self.due.get_or_insert(due);
    }

    /// When to look.
    pub(super) fn due(&self) -> Option<Instant> {
        self.due
    }

    /// Something was missing, and is there again.
    pub(super) fn put_back(&mut self, now: Instant) {
        (self.due, self.last) = (None, Some(now));
        self.in_a_row += 1;
    }

    /// Nothing was missing.
    pub(super) fn all_there(&mut self) {
        self.due = None;
    }

    /// It could not be looked at.
    pub(super) fn failed(&mut self, now: Instant) {
        self.due = Some(now + AGAIN);
    }

    /// Does another program remove it again and again?
    pub(super) fn is_contested(&self) -> bool {
        self.in_a_row >= OFTEN
    }

    /// Has that just been found out?
    pub(super) fn is_newly_contested(&self) -> bool {
        self.in_a_row == OFTEN
    }

    pub(super) fn pause(&self) -> Duration {
        match self.in_a_row.checked_sub(OFTEN) {
            None => SETTLE,
            Some(more) => PAUSE.1.min(PAUSE.0 * 2u32.pow(more.min(8))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_removed_a_few_times_is_put_back_at_once_and_a_fight_slows_down() {
        let mut now = Instant::now();
        let mut drift = Drift::default();
        let mut pauses = Vec::new();
        for _ in 0..12 {
            drift.lost(now);
            drift.lost(now + Duration::from_millis(1)); // a burst is one
            pauses.push(drift.due().expect("it is due").duration_since(now).as_millis());
            now = drift.due().expect("it is due");
            drift.put_back(now);
            assert_eq!(drift.due(), None);
        }
        assert_eq!(pauses, [50, 50, 50, 50, 50, 10_000, 20_000, 40_000, 80_000, 160_000, 320_000, 320_000]);
        assert!(drift.is_contested());
        drift.lost(now + CALM + PAUSE.1 * 2 + Duration::from_millis(1));
        assert!(!drift.is_contested() && drift.pause() == SETTLE, "after a while all is forgotten");
    }

    #[test]
    fn a_look_that_finds_all_there_is_no_round_of_a_fight_and_a_failed_one_is_tried_again() {
        let now = Instant::now();
        let mut drift = Drift::default();
        for _ in 0..100 {
            drift.lost(now);
            drift.all_there();
        }
        assert_eq!((drift.pause(), drift.due()), (SETTLE, None));
        drift.failed(now);
        assert_eq!(drift.due(), Some(now + AGAIN));
    }
}
