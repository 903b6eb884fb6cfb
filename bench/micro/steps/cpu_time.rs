//! Time that the core spent on us: what else a busy machine does stays out of the figures.

use std::time::Duration;

use criterion::measurement::{Measurement, ValueFormatter, WallTime};
use nix::{sys::time::TimeValLike, time::ClockId};

/// CLOCK_THREAD_CPUTIME_ID.
pub struct CpuTime;

impl Measurement for CpuTime {
    type Intermediate = Duration;
    type Value = Duration;

    fn start(&self) -> Duration {
        now()
    }
    fn end(&self, start: Duration) -> Duration {
        now().saturating_sub(start)
    }
    fn add(&self, one: &Duration, other: &Duration) -> Duration {
        *one + *other
    }
    fn zero(&self) -> Duration {
        Duration::ZERO
    }
    fn to_f64(&self, value: &Duration) -> f64 {
        value.as_nanos() as f64
    }
    fn formatter(&self) -> &dyn ValueFormatter {
        WallTime.formatter()
    }
}

fn now() -> Duration {
    let time = ClockId::CLOCK_THREAD_CPUTIME_ID.now().expect("every thread has its clock");
    Duration::from_nanos(time.num_nanoseconds() as u64)
}
