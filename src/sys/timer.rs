//! A timer on CLOCK_BOOTTIME: it fires right after a suspend in which its time passed; tokio's timers, on
//! CLOCK_MONOTONIC, would fire as much later as the machine slept.

use std::{
    io,
    os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd},
};

/// A timerfd, readable once its time has come.
#[derive(Debug)]
pub struct BootTimer(OwnedFd);

impl BootTimer {
    /// Not armed, non-blocking.
    pub fn new() -> io::Result<Self> {
        // SAFETY: timerfd_create takes no pointers; the result is checked.
        let fd =
            unsafe { libc::timerfd_create(libc::CLOCK_BOOTTIME, libc::TFD_NONBLOCK | libc::TFD_CLOEXEC) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the kernel just gave us this descriptor; nobody else owns it.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// Fires at this many nanoseconds after boot (at once if that has passed); `None` disarms.
    pub fn arm(&self, at: Option<u64>) -> io::Result<()> {
        // A value of zero would disarm: the earliest time is one nanosecond after boot.
        let nanos = at.map_or(0, |at| at.max(1));
        let value = libc::timespec {
            tv_sec: (nanos / 1_000_000_000) as libc::time_t,
            tv_nsec: (nanos % 1_000_000_000) as libc::c_long,
        };
        let setting = libc::itimerspec {
            it_interval: libc::timespec { tv_sec: 0, tv_nsec: 0 },
            it_value: value,
        };
        // SAFETY: `setting` lives through the call; the old setting is not asked for.
        let result = unsafe {
            libc::timerfd_settime(self.0.as_raw_fd(), libc::TFD_TIMER_ABSTIME, &setting, std::ptr::null_mut())
        };
        if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    /// Takes the expiry, so that the descriptor is no longer readable.
    pub fn clear(&self) {
        let mut count = [0u8; 8];
        // SAFETY: eight bytes are what a timerfd writes, and `count` has them. An error (nothing to read) is
        // as good as an expiry taken.
        unsafe { libc::read(self.0.as_raw_fd(), count.as_mut_ptr().cast(), count.len()) };
    }
}

impl AsRawFd for BootTimer {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}
