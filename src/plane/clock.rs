//! The one clock: CLOCK_BOOTTIME, so that sleep counts; and the wall clock beside it. The only door to both.

use crate::{forward::Time, tunnel::Now};

/// Reads the clocks.
#[derive(Clone, Copy, Debug, Default)]
pub struct Clock;

impl Clock {
    /// Since boot. Never goes back.
    pub fn boot(&self) -> Time {
        todo!()
    }
    /// Both.
    pub fn now(&self) -> Now {
        todo!()
    }
}
