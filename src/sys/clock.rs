//! CLOCK_BOOTTIME: monotonic, and it goes on while the machine sleeps (clock_gettime(2)).

/// Nanoseconds since boot.
pub fn boottime() -> u64 {
    let mut at = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `at` is a valid timespec for the kernel to fill.
    let returned = unsafe { libc::clock_gettime(libc::CLOCK_BOOTTIME, &mut at) };
    assert_eq!(returned, 0, "CLOCK_BOOTTIME exists since Linux 2.6.39");
    // Both fields are never negative for this clock; 2^64 ns are 584 years.
    (at.tv_sec as u64).saturating_mul(1_000_000_000).saturating_add(at.tv_nsec as u64)
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
