//! Timers that count sleep: on CLOCK_BOOTTIME one fires right after a suspend in which its time passed; tokio's, on
//! CLOCK_MONOTONIC, would fire as much later as the machine slept. On CLOCK_REALTIME one follows a clock that is set.

use std::{
    io,
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
    time::Duration,
};

use tokio::io::{Interest, unix::AsyncFd};

/// A timer on CLOCK_BOOTTIME, in the tokio runtime of its maker.
#[derive(Debug)]
pub struct BootTimer(Timer);

impl BootTimer {
    /// Not armed.
    pub fn new() -> io::Result<Self> {
        Timer::new(libc::CLOCK_BOOTTIME).map(Self)
    }

    /// Fires at this many nanoseconds after boot (at once if that has passed); `None` disarms.
    pub fn arm(&self, at: Option<u64>) -> io::Result<()> {
        self.0.arm(at.map(Duration::from_nanos), libc::TFD_TIMER_ABSTIME)
    }

    /// Resolves when the time has come. May be dropped and called again.
    pub async fn fired(&self) -> io::Result<()> {
        self.0.fired().await
    }
}

/// A timer on CLOCK_REALTIME, in the tokio runtime of its maker. It fires also when somebody sets the clock.
#[derive(Debug)]
pub struct WallTimer {
    timer: Timer,
    /// What it was armed for, if it has not fired since.
    armed: Option<Duration>,
}

impl WallTimer {
    /// Not armed.
    pub fn new() -> io::Result<Self> {
        Ok(Self { timer: Timer::new(libc::CLOCK_REALTIME)?, armed: None })
    }

    /// Fires at this time since the Unix epoch (at once if that has passed), or when the clock is set; `None` disarms.
    pub fn arm(&mut self, at: Option<Duration>) -> io::Result<()> {
        if at == self.armed {
            return Ok(()); // most often: nothing has changed
        }
        self.timer.arm(at, libc::TFD_TIMER_ABSTIME | libc::TFD_TIMER_CANCEL_ON_SET)?;
        self.armed = at;
        Ok(())
    }

    /// Resolves when the time has come, or the clock was set. May be dropped and called again.
    pub async fn fired(&mut self) -> io::Result<()> {
        let fired = self.timer.fired().await;
        self.armed = None;
        match fired {
            Err(error) if error.raw_os_error() == Some(libc::ECANCELED) => Ok(()),
            fired => fired,
        }
    }
}

/// A timerfd.
#[derive(Debug)]
struct Timer(AsyncFd<OwnedFd>);

impl Timer {
    fn new(clock: libc::clockid_t) -> io::Result<Self> {
        // SAFETY: timerfd_create takes no pointers; the result is checked.
        let fd = unsafe { libc::timerfd_create(clock, libc::TFD_NONBLOCK | libc::TFD_CLOEXEC) };
        super::checked(fd)?;
        // SAFETY: the kernel just gave us this descriptor; nobody else owns it.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        // SAFETY: an OwnedFd is one open descriptor, the same one until it is dropped with the AsyncFd.
        let timer = unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE) };
        Ok(Self(timer?))
    }

    fn arm(&self, at: Option<Duration>, flags: libc::c_int) -> io::Result<()> {
        // A value of zero would disarm: the earliest time is a nanosecond.
        let at = at.map_or(Duration::ZERO, |at| at.max(Duration::from_nanos(1)));
        let value = libc::timespec {
            tv_sec: libc::time_t::try_from(at.as_secs()).unwrap_or(libc::time_t::MAX),
            tv_nsec: at.subsec_nanos() as libc::c_long,
        };
        let once = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        let setting = libc::itimerspec { it_interval: once, it_value: value };
        // SAFETY: `setting` lives through the call; the old setting is not asked for.
        super::checked(unsafe {
            libc::timerfd_settime(self.0.as_raw_fd(), flags, &setting, std::ptr::null_mut())
        })?;
        Ok(())
    }

    async fn fired(&self) -> io::Result<()> {
        loop {
            let mut ready = self.0.readable().await?;
            let taken = ready.try_io(|fd| {
                let mut count = [0u8; 8];
                // SAFETY: a timerfd writes eight bytes, and `count` has them.
                super::length(unsafe { libc::read(fd.as_raw_fd(), count.as_mut_ptr().cast(), count.len()) })
            });
            // A timer that was armed anew since has nothing to read yet.
            if let Ok(result) = taken {
                // It was read, or cannot be: either way there is nothing to see until the next time that it fires.
                ready.clear_ready();
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
    async fn a_moment_of_the_wall_clock_fires_once_and_may_be_armed_again() {
        let mut timer = WallTimer::new().unwrap();
        let moment = Some(Duration::from_secs(1));
        for _ in 0..2 {
            timer.arm(moment).unwrap();
            tokio::time::timeout(Duration::from_secs(5), timer.fired()).await.unwrap().unwrap();
            assert!(tokio::time::timeout(Duration::from_millis(20), timer.fired()).await.is_err());
        }
        timer.arm(Some(Duration::MAX)).unwrap();
        timer.arm(None).unwrap();
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
