//! The replay window (RFC 6479): 8192 bits, one word of which is always in transit.

use super::session::REJECT_AFTER_MESSAGES;

/// Counters behind the newest that are still accepted once: 8192 bits less one word.
pub const WINDOW: u64 = BITS - WORD;

const BITS: u64 = 8192;
const WORD: u64 = u64::BITS as u64;
const WORDS: usize = (BITS / WORD) as usize;

/// Which counters were seen. Check and update are one step, after authentication.
pub struct ReplayWindow {
    /// One more than the newest counter seen; 0: nothing seen.
    next: u64,
    /// A ring: bit `counter % BITS` says whether `counter` was seen. The words between the oldest acceptable
    /// counter and the newest are true; entering a new word clears it, so that no bit needs shifting.
    seen: [u64; WORDS],
}

impl ReplayWindow {
    /// Nothing seen.
    pub fn new() -> Self {
        Self { next: 0, seen: [0; WORDS] }
    }

    /// Was anything seen?
    pub fn is_touched(&self) -> bool {
        self.next != 0
    }

    /// Marks `counter` as seen; false if it was seen before, is too old, or is at the limit.
    pub fn accept(&mut self, counter: u64) -> bool {
        if counter >= REJECT_AFTER_MESSAGES || counter + WINDOW + 1 < self.next {
            return false;
        }
        if counter >= self.next {
            self.advance(counter);
        }
        let word = &mut self.seen[word_of(counter)];
        let bit = 1 << (counter % WORD);
        let new = *word & bit == 0;
        *word |= bit;
        new
    }

    /// Makes `counter` the newest: clears the words that come into the window.
    fn advance(&mut self, counter: u64) {
        // Before the first packet the window stands at 0 and its first word is clear.
        let newest = self.next.saturating_sub(1);
        let entered = (counter / WORD - newest / WORD).min(WORDS as u64);
        for step in 1..=entered {
            self.seen[word_of(newest + step * WORD)] = 0;
        }
        self.next = counter + 1;
    }
}

impl Default for ReplayWindow {
    fn default() -> Self {
        Self::new()
    }
}

fn word_of(counter: u64) -> usize {
    (counter / WORD) as usize % WORDS
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use std::collections::HashSet;

    use super::*;

    fn window_at(newest: u64) -> ReplayWindow {
        let mut window = ReplayWindow::new();
        assert!(window.accept(newest));
        window
    }

    #[test]
    fn each_counter_is_accepted_once() {
        let mut window = ReplayWindow::new();
        for counter in 0..20_000 {
            assert!(window.accept(counter));
            assert!(!window.accept(counter));
        }
    }

    #[test]
    fn the_window_is_8128_counters_wide() {
        assert_eq!(WINDOW, 8128);
    }

    #[test]
    fn seven_thousand_late_is_accepted_and_nine_thousand_late_is_not() {
        for newest in [9_000, 9_001, 1 << 20, (1 << 32) + 17, REJECT_AFTER_MESSAGES - 1] {
            let mut window = window_at(newest);
            assert!(window.accept(newest - 7_000));
            assert!(!window.accept(newest - 7_000));
            assert!(!window.accept(newest - 9_000));
        }
    }

    #[test]
    fn exactly_the_window_late_is_accepted_and_one_more_is_not() {
        // Every position of the newest counter within its word.
        for newest in 100_000..100_000 + 2 * WORD {
            let mut window = window_at(newest);
            assert!(!window.accept(newest - WINDOW - 1));
            assert!(window.accept(newest - WINDOW));
            assert!(!window.accept(newest - WINDOW));
            assert!(window.accept(newest - WINDOW + 1));
        }
    }

    #[test]
    fn a_jump_over_the_whole_window_forgets_no_counter_that_is_within_it() {
        let mut window = ReplayWindow::new();
        for counter in 0..BITS {
            assert!(window.accept(counter));
        }
        assert!(window.accept(10 * BITS));
        for late in 1..=WINDOW {
            assert!(window.accept(10 * BITS - late), "{late} late");
        }
        assert!(!window.accept(10 * BITS - WINDOW - 1));
    }

    #[test]
    fn the_last_counter_is_one_below_the_limit() {
        let mut window = ReplayWindow::new();
        for refused in [REJECT_AFTER_MESSAGES, REJECT_AFTER_MESSAGES + 1, u64::MAX] {
            assert!(!window.accept(refused));
        }
        assert!(window.accept(0), "a refused counter moves nothing");
        assert!(window.accept(REJECT_AFTER_MESSAGES - 1));
        assert!(!window.accept(REJECT_AFTER_MESSAGES - 1));
        assert!(window.accept(REJECT_AFTER_MESSAGES - 2));
    }

    proptest! {
        /// The model: a set of all that was seen, and the newest of it.
        #[test]
        fn it_agrees_with_a_set_of_all_counters(
            start in prop_oneof![Just(0), any::<u32>().prop_map(u64::from), Just(REJECT_AFTER_MESSAGES - 40_000)],
            steps in prop::collection::vec((0..3_u8, 0..9_000_u64), 1..600),
        ) {
            let mut window = ReplayWindow::new();
            let (mut seen, mut newest) = (HashSet::new(), None);
            let mut at = start;
            for (kind, distance) in steps {
                at = match kind {
                    0 => at.saturating_add(distance % 70),
                    1 => at.saturating_sub(distance),
                    _ => at.saturating_add(distance),
                };
                let in_reach = newest.is_none_or(|newest: u64| at >= newest.saturating_sub(WINDOW));
                let expected = at < REJECT_AFTER_MESSAGES && in_reach && !seen.contains(&at);
                prop_assert_eq!(window.accept(at), expected, "counter {}", at);
                if expected {
                    seen.insert(at);
                    newest = newest.max(Some(at));
                }
            }
        }
    }
}
