//! How soon the queues are looked at again. To be woken for each of many messages costs more than what most of them ask
//! for: where they come without end, the driver lets a few come, and takes them together.

use std::{future::Future, time::Duration};

use tokio::time::{Instant, sleep_until};

/// Messages within `SPAN` that are many: two hundred peers that come back at once are not yet.
const MANY: usize = 32;
const SPAN: Duration = Duration::from_millis(16);
/// For how long others are waited for then.
const REST: Duration = Duration::from_millis(1);

/// What was taken lately.
pub(super) struct Pace {
    begin: Instant,
    taken: usize,
    rests_until: Option<Instant>,
}

impl Pace {
    pub(super) fn new() -> Self {
        Self { begin: Instant::now(), taken: 0, rests_until: None }
    }

    /// So many handshake messages were taken in this turn; `more` wait already.
    pub(super) fn took(&mut self, messages: usize, more: bool, now: Instant) {
        if more {
            self.rests_until = None;
        }
        if messages == 0 || more {
            return;
        }
        if now - self.begin > SPAN {
            (self.begin, self.taken) = (now, 0);
        }
        self.taken += messages;
        self.rests_until = (self.taken >= MANY).then(|| now + REST);
    }

    /// Resolves with `woken`, and not before the rest is over.
    pub(super) async fn after_rest(&self, woken: impl Future<Output = ()>) {
        woken.await;
        if let Some(until) = self.rests_until {
            sleep_until(until).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// From the moment at hand until when the next is not looked at.
    fn rest(pace: &Pace, now: Instant) -> Duration {
        pace.rests_until.map_or(Duration::ZERO, |until| until.saturating_duration_since(now))
    }

    #[test]
    fn a_few_messages_are_taken_at_once_and_many_together() {
        let mut pace = Pace::new();
        let now = pace.begin;
        for _ in 1..MANY {
            pace.took(1, false, now);
            assert_eq!(rest(&pace, now), Duration::ZERO);
        }
        pace.took(1, false, now);
        assert_eq!(rest(&pace, now), REST);
        pace.took(MANY, true, now);
        assert_eq!(rest(&pace, now), Duration::ZERO, "nobody rests while there is work");
    }

    #[test]
    fn what_comes_now_and_then_never_waits() {
        let mut pace = Pace::new();
        let start = pace.begin;
        for n in 1..10 * MANY as u32 {
            let now = start + SPAN / 8 * n;
            pace.took(1, false, now);
            assert_eq!(rest(&pace, now), Duration::ZERO);
        }
    }
}
