//! What a watchdog sees of a data thread: a number that moves whenever the thread goes to sleep knowingly and whenever
//! it comes back to work. It costs a store before and after a wait, none for a packet.

use std::sync::atomic::{AtomicU64, Ordering};

/// A data thread's: written by it alone, read by anybody.
#[derive(Debug, Default)]
pub(super) struct Pulse(AtomicU64);

/// One look at it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Beat(u64);

impl Beat {
    /// One for tests of those who look: even numbers are at work.
    #[cfg(test)]
    pub(crate) const fn sample(number: u64) -> Self {
        Self(number)
    }

    /// Did the thread work when this was seen? Else it waited for something to do, as long as that takes.
    pub fn is_at_work(self) -> bool {
        self.0.is_multiple_of(2)
    }
}

impl Pulse {
    /// Waits for something to do, knowingly.
    pub(super) fn rests<T>(&self, wait: impl FnOnce() -> T) -> T {
        self.moves();
        let waited = wait();
        self.moves();
        waited
    }

    fn moves(&self) {
        // No other thread writes, and none reads anything else by it.
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
    }

    pub(super) fn look(&self) -> Beat {
        Beat(self.0.load(Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_that_waits_is_not_at_work_and_each_wait_moves_it() {
        let pulse = Pulse::default();
        let before = pulse.look();
        assert!(before.is_at_work());
        assert!(!pulse.rests(|| pulse.look()).is_at_work());
        assert!(pulse.look().is_at_work() && pulse.look() != before);
    }
}
