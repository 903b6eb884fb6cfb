//! CLOCK_BOOTTIME: monotonic, and it goes on while the machine sleeps; CLOCK_REALTIME: what people call the time, and
//! may set (clock_gettime(2)).

use std::time::Duration;

/// Nanoseconds since boot.
pub fn boottime() -> u64 {
    let at = read(libc::CLOCK_BOOTTIME);
    // Both fields are never negative for this clock; 2^64 ns are 584 years.
    (at.tv_sec as u64).saturating_mul(1_000_000_000).saturating_add(at.tv_nsec as u64)
}

/// Since the Unix epoch. A clock that stands before 1970 reads as 1970.
pub fn wall() -> Duration {
    let at = read(libc::CLOCK_REALTIME);
    // The kernel keeps the nanoseconds below a second.
    u64::try_from(at.tv_sec).map_or(Duration::ZERO, |seconds| Duration::new(seconds, at.tv_nsec as u32))
}

fn read(clock: libc::clockid_t) -> libc::timespec {
    let mut at = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `at` is a valid timespec for the kernel to fill.
    let returned = unsafe { libc::clock_gettime(clock, &mut at) };
    assert_eq!(returned, 0, "both clocks exist since Linux 2.6.39");
    at
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn boot_time_goes_forward_as_fast_as_a_sleep() {
        let before = boottime();
        std::thread::sleep(std::time::Duration::from_millis(20));
        let passed = boottime() - before;
        assert!((20_000_000..5_000_000_000).contains(&passed), "{passed} ns");
    }
}
