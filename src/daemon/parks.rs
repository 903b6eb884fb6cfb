//! The runtime's waits: one that ends at once, again and again, is slowed down. The runtime takes a wait that a signal ended
//! (EINTR) for one that found something, and waits again without end.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    thread,
    time::Duration,
};

use crate::plane::Clock;

/// Waits that follow each other faster than this have hardly anything between them.
const SOON: Duration = Duration::from_millis(1);
/// So many of them in a row are too many: a flood of handshakes makes them, too, and takes no harm from being handled some at
/// a time.
const MANY: u64 = 64;
/// What is put between them then.
const PAUSE: Duration = Duration::from_millis(2);

/// Of the one thread that waits.
#[derive(Debug, Default)]
pub(super) struct Parks {
    /// When it last began to wait.
    last: AtomicU64,
    in_a_row: AtomicU64,
}

impl Parks {
    /// The thread is about to wait.
    pub(super) fn another(&self) {
        let now = Clock.boot().0;
        let between = Duration::from_nanos(now.saturating_sub(self.last.load(Ordering::Relaxed)));
        let in_a_row = if between < SOON { self.in_a_row.load(Ordering::Relaxed) + 1 } else { 0 };
        self.in_a_row.store(in_a_row, Ordering::Relaxed);
        if in_a_row > MANY {
            thread::sleep(PAUSE);
        }
        self.last.store(Clock.boot().0, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_that_end_at_once_are_slowed_down_after_a_while_and_others_never() {
        let parks = Parks::default();
        let took = |number: u64, apart: Duration| {
            let begin = Clock.boot();
            (0..number).for_each(|_| {
                thread::sleep(apart);
                parks.another();
            });
            Clock.boot().since(begin)
        };
        // Other threads may come between some of them.
        assert!(took(10 * MANY, Duration::ZERO) >= 2 * MANY as u32 * PAUSE);
        took(3, 2 * SOON);
        assert_eq!(parks.in_a_row.load(Ordering::Relaxed), 0);
    }
}
