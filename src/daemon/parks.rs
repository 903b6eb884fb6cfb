//! The runtime's waits: one that ends at once, again and again, is slowed down. The runtime takes a wait that a signal ended
//! (EINTR) for one that found something, and waits again without end.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    thread,
    time::Duration,
};

use crate::{forward::Time, plane::Clock};

/// Waits are counted for so long.
const SPAN: Duration = Duration::from_millis(100);
/// More of them in it are too many. A flood of handshakes makes them, too, and takes no harm from being handled some at a
/// time.
const MANY: u64 = 48;
/// What is put between them then.
const PAUSE: Duration = Duration::from_millis(2);

/// Of the one thread that waits.
#[derive(Debug, Default)]
pub(super) struct Parks {
    /// When the count began.
    begin: AtomicU64,
    count: AtomicU64,
}

impl Parks {
    /// The thread is about to wait.
    pub(super) fn another(&self) {
        let now = Clock.boot();
        if now.since(Time(self.begin.load(Ordering::Relaxed))) > SPAN {
            self.begin.store(now.0, Ordering::Relaxed);
            self.count.store(0, Ordering::Relaxed);
        }
        if self.count.fetch_add(1, Ordering::Relaxed) >= MANY {
            thread::sleep(PAUSE);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn took(parks: &Parks, number: u64) -> Duration {
        let begin = Clock.boot();
        (0..number).for_each(|_| parks.another());
        Clock.boot().since(begin)
    }

    #[test]
    fn waits_that_end_at_once_are_slowed_down_and_never_are_those_that_are_few() {
        let parks = Parks::default();
        // So many, and then one in two milliseconds; in five spans at the very most.
        assert!(took(&parks, 6 * MANY) >= MANY as u32 * PAUSE);
        // This machine may do something else in the meantime, but not each time.
        assert!((0..50).any(|_| took(&Parks::default(), MANY) < MANY as u32 * PAUSE));
    }
}
