//! How the commands that run on events ended, counted for metrics.

use std::sync::atomic::{AtomicU64, Ordering};

/// Counts by how a run ended.
#[derive(Default)]
pub struct HookCounts([AtomicU64; 4]);

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HookEnd {
    /// With exit code 0.
    Succeeded,
    /// With another code, by a signal, or it could not be started.
    Failed,
    /// It was killed at its time limit.
    TimedOut,
    /// It was not run: too many waited.
    Dropped,
}

impl HookCounts {
    /// One more.
    pub fn count(&self, end: HookEnd) {
        self.0[end as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// Each end's name, and how many there were.
    pub fn read(&self) -> [(&'static str, u64); 4] {
        let names = ["succeeded", "failed", "timed_out", "dropped"];
        std::array::from_fn(|at| (names[at], self.0[at].load(Ordering::Relaxed)))
    }
}
