//! The one clock: CLOCK_BOOTTIME, so that sleep counts; and the wall clock beside it. The only door to both.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::{forward::Time, sys, tunnel::Now};

/// The newest time that anyone was given. CLOCK_BOOTTIME does not go back by itself, but under some hypervisors
/// two cores have disagreed: no thread may see a time before one that another thread has already acted on.
static NEWEST: AtomicU64 = AtomicU64::new(0);

/// Reads the clocks.
#[derive(Clone, Copy, Debug, Default)]
pub struct Clock;

impl Clock {
    /// Since boot. Never goes back, never zero (which means "never").
    pub fn boot(&self) -> Time {
        never_back(&NEWEST, sys::clock::boottime())
    }

    /// Both.
    pub fn now(&self) -> Now {
        Now { boot: self.boot(), wall: sys::clock::wall() }
    }
}

/// The later of what the clock says and what was said before.
fn never_back(newest: &AtomicU64, read: u64) -> Time {
    let read = read.max(1);
    // One number is all that is shared: no other memory is ordered by it.
    Time(newest.fetch_max(read, Ordering::Relaxed).max(read))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_clock_that_goes_back_stands_still() {
        let newest = AtomicU64::new(0);
        let seen: Vec<u64> = [5, 9, 3, 8, 10].map(|read| never_back(&newest, read).0).to_vec();
        assert_eq!(seen, [5, 9, 9, 9, 10]);
    }

    #[test]
    fn the_first_moment_is_not_never() {
        assert_eq!(never_back(&AtomicU64::new(0), 0), Time(1));
    }

    #[test]
    fn both_clocks_read_something_plausible() {
        let now = Clock.now();
        assert!(now.boot <= Clock.boot());
        assert!(now.wall > Duration::from_secs(1_600_000_000), "the year is after 2020");
    }
}
