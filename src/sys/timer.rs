//! A timer on CLOCK_BOOTTIME: it fires right after a suspend in which its time passed; tokio's timers, on
//! CLOCK_MONOTONIC, would fire as much later as the machine slept.

use std::{
    io,
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
};

use tokio::io::{Interest, unix::AsyncFd};

/// A timerfd in the tokio runtime of its maker.
#[derive(Debug)]
pub struct BootTimer(AsyncFd<OwnedFd>);

impl BootTimer {
    /// Not armed.
    pub fn new() -> io::Result<Self> {
        // SAFETY: timerfd_create takes no pointers; the result is checked.
        let fd =
            unsafe { libc::timerfd_create(libc::CLOCK_BOOTTIME, libc::TFD_NONBLOCK | libc::TFD_CLOEXEC) };
        super::checked(fd)?;
        // SAFETY: the kernel just gave us this descriptor; nobody else owns it.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        // SAFETY: an OwnedFd is one open descriptor, the same one until it is dropped with the AsyncFd.
        let timer = unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE) };
        Ok(Self(timer?))
    }

    /// Fires at this many nanoseconds after boot (at once if that has passed); `None` disarms.
    pub fn arm(&self, at: Option<u64>) -> io::Result<()> {
        // A value of zero would disarm: the earliest time is one nanosecond after boot.
        let nanos = at.map_or(0, |at| at.max(1));
        let value = libc::timespec {
            tv_sec: (nanos / 1_000_000_000) as libc::time_t,
            tv_nsec: (nanos % 1_000_000_000) as libc::c_long,
        };
        let once = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        let setting = libc::itimerspec { it_interval: once, it_value: value };
        // SAFETY: `setting` lives through the call; the old setting is not asked for.
        super::checked(unsafe {
            libc::timerfd_settime(self.0.as_raw_fd(), libc::TFD_TIMER_ABSTIME, &setting, std::ptr::null_mut())
        })?;
        Ok(())
    }

    /// Resolves when the time has come. May be dropped and called again.
    pub async fn fired(&self) -> io::Result<()> {
        loop {
            let mut ready = self.0.readable().await?;
            let taken = ready.try_io(|fd| {
                let mut count = [0u8; 8];
                // SAFETY: a timerfd writes eight bytes, and `count` has them.
                super::length(unsafe { libc::read(fd.as_raw_fd(), count.as_mut_ptr().cast(), count.len()) })
            });
            // A timer that was armed anew since has nothing to read yet.
            if let Ok(result) = taken {
                return result.map(|_| ());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn a_time_that_has_passed_fires_at_once_and_once() {
        let timer = BootTimer::new().unwrap();
        timer.arm(Some(0)).unwrap();
        tokio::time::timeout(Duration::from_secs(5), timer.fired()).await.unwrap().unwrap();
        assert!(tokio::time::timeout(Duration::from_millis(20), timer.fired()).await.is_err());
    }

    #[tokio::test]
    async fn a_disarmed_timer_stays_silent() {
        let timer = BootTimer::new().unwrap();
        timer.arm(Some(1)).unwrap();
        timer.arm(None).unwrap();
        assert!(tokio::time::timeout(Duration::from_millis(20), timer.fired()).await.is_err());
    }
}
