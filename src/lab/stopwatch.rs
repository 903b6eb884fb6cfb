//! Waiting with a bound, and measuring: the lab stands outside the daemon, so it reads its own clock here.

use std::time::{Duration, Instant};

/// Runs from the moment it was made.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stopwatch(Instant);

impl Stopwatch {
    #[allow(clippy::disallowed_methods)] // the daemon's clock is handed around inside the daemon; this is a bench
    pub(super) fn start() -> Self {
        Self(Instant::now())
    }
    pub(super) fn elapsed(&self) -> Duration {
        self.0.elapsed()
    }
    /// What is left of `limit`; zero when it is over.
    pub(super) fn left_of(&self, limit: Duration) -> Duration {
        limit.saturating_sub(self.elapsed())
    }
}

/// Asks again and again until there is an answer or the time is over.
pub(super) fn poll_until<T>(limit: Duration, mut ask: impl FnMut() -> Option<T>) -> Option<T> {
    let watch = Stopwatch::start();
    loop {
        if let Some(answer) = ask() {
            return Some(answer);
        }
        if watch.left_of(limit).is_zero() {
            return None;
        }
        std::thread::sleep(Duration::from_millis(5).min(watch.left_of(limit)));
    }
}
