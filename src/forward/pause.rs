//! Something that the kernel refused is left alone for a while, and then tried again.

use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

use super::Time;

/// How long it is left alone.
pub const PAUSE: Duration = Duration::from_secs(10);

/// Whether a thing that once failed may be tried. Shared by threads; each of them may find it over at once.
#[derive(Debug, Default)]
pub struct Pause {
    /// 0: it works.
    until: AtomicU64,
}

impl Pause {
    /// May it be tried now?
    pub fn is_over(&self, now: Time) -> bool {
        self.until.load(Relaxed) <= now.0
    }
    /// It was refused: begins a pause. True if it had worked before: worth a line in the log.
    pub fn begin(&self, now: Time) -> bool {
        self.until.swap((now + PAUSE).0, Relaxed) == 0
    }
    /// It worked. True if it had been refused before: worth a line in the log.
    pub fn end(&self) -> bool {
        // A read first: in the common case nothing is written.
        self.until.load(Relaxed) != 0 && self.until.swap(0, Relaxed) != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_refused_is_tried_again_after_a_while_and_told_of_once() {
        let (pause, at) = (Pause::default(), |s| Time(0) + Duration::from_secs(s));
        assert!(pause.is_over(at(1)) && !pause.end());
        assert!(pause.begin(at(1)), "the first refusal is told");
        assert!(!pause.is_over(at(10)) && pause.is_over(at(11)));
        assert!(!pause.begin(at(11)), "that it still fails is known");
        assert!(!pause.is_over(at(20)) && pause.is_over(at(21)));
        assert!(pause.end() && !pause.end(), "that it works again is told once");
        assert!(pause.begin(at(22)));
    }
}
