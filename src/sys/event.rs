//! A flag that wakes a thread out of poll(2): eventfd(2).

use std::{
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
};

/// Readable from [`Self::signal`] until [`Self::clear`].
#[derive(Debug)]
pub struct EventFd(OwnedFd);

impl EventFd {
    /// Not signalled, non-blocking, closed on exec.
    pub fn new() -> io::Result<Self> {
        // SAFETY: takes no pointers; the result is checked before it is used.
        let fd = super::checked(unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) })?;
        // SAFETY: the descriptor was made just now and has no other owner.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// Makes it readable. Cannot fail: the one error is EAGAIN at 2^64 − 2 signals, when it is readable anyway.
    pub fn signal(&self) {
        let one = 1u64.to_ne_bytes();
        // SAFETY: `one` is readable for its 8 bytes.
        unsafe { libc::write(self.0.as_raw_fd(), one.as_ptr().cast(), one.len()) };
    }

    /// Makes it unreadable; EAGAIN means that it was.
    pub fn clear(&self) {
        let mut count = [0u8; 8];
        // SAFETY: `count` is writable for its 8 bytes.
        unsafe { libc::read(self.0.as_raw_fd(), count.as_mut_ptr().cast(), count.len()) };
    }
}

impl AsFd for EventFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::poll::{Interest, wait};
    use std::time::Duration;

    #[test]
    fn a_signal_is_readable_until_it_is_cleared() {
        let event = EventFd::new().unwrap();
        let readable = || {
            let [ready] = wait([Some((event.as_fd(), Interest::Read))], Some(Duration::ZERO)).unwrap();
            ready.readable
        };
        assert!(!readable());
        event.signal();
        event.signal();
        assert!(readable());
        event.clear();
        assert!(!readable());
    }
}
