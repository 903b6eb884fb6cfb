//! The replay window (RFC 6479): 8192 bits, one word of which is always in transit.

/// Counters behind the newest that are still accepted once: 8192 bits less one word.
pub const WINDOW: u64 = 8192 - 64;

/// Which counters were seen. Check and update are one step, after authentication.
pub struct ReplayWindow {/* private */}

impl ReplayWindow {
    /// Nothing seen.
    pub fn new() -> Self {
        todo!()
    }
    /// Marks `counter` as seen; false if it was seen before, is too old, or is at the limit.
    pub fn accept(&mut self, counter: u64) -> bool {
        todo!()
    }
}
