//! A flag that wakes a thread out of poll(2), or a task: eventfd(2).

use std::{
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::{
    io::{Interest, unix::AsyncFd},
    time::sleep,
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

    /// Makes it readable: is it now? The one error of eventfd(2) is EAGAIN at 2^64 − 2 signals, when it is readable
    /// anyway.
    pub fn signal(&self) -> bool {
        let one = 1u64.to_ne_bytes();
        // SAFETY: `one` is readable for its 8 bytes.
        let written = unsafe { libc::write(self.0.as_raw_fd(), one.as_ptr().cast(), one.len()) };
        written == one.len() as isize || io::Error::last_os_error().kind() == io::ErrorKind::WouldBlock
    }

    /// Makes it unreadable: was it readable, and is it no longer?
    pub fn clear(&self) -> bool {
        let mut count = [0u8; 8];
        // SAFETY: `count` is writable for its 8 bytes.
        let read = unsafe { libc::read(self.0.as_raw_fd(), count.as_mut_ptr().cast(), count.len()) };
        read == count.len() as isize
    }
}

impl AsRawFd for EventFd {
    fn as_raw_fd(&self) -> std::os::fd::RawFd {
        self.0.as_raw_fd()
    }
}

/// How soon is looked again where the kernel would not watch the descriptor.
const UNWATCHED: Duration = Duration::from_millis(50);

/// Wakes a task, from any thread. The runtime's own way to do so ends the thread that does it if its write fails; this one
/// says so.
#[derive(Debug)]
pub struct Bell {
    ringer: Ringer,
    /// In the runtime of whoever listened first.
    heard: OnceLock<AsyncFd<Arc<EventFd>>>,
}

/// Rings a [`Bell`]. A data thread has this alone: whoever drops a bell last takes it out of the runtime (epoll_ctl), which
/// such a thread may not.
#[derive(Clone, Debug)]
pub struct Ringer {
    event: Arc<EventFd>,
    /// And not heard yet: further rings are one with it.
    rung: Arc<AtomicBool>,
}

impl Ringer {
    /// Wakes who listens, or will listen; false: it could not be rung, and whoever has something to say rings again.
    pub fn ring(&self) -> bool {
        if self.rung.swap(true, Ordering::AcqRel) || self.event.signal() {
            return true;
        }
        self.rung.store(false, Ordering::Release);
        false
    }
}

impl Bell {
    /// Not rung.
    pub fn new() -> io::Result<Self> {
        let ringer = Ringer { event: Arc::new(EventFd::new()?), rung: Arc::default() };
        Ok(Self { ringer, heard: OnceLock::new() })
    }

    /// For those who ring it, in whatever thread.
    pub fn ringer(&self) -> Ringer {
        self.ringer.clone()
    }

    /// Rings it.
    pub fn ring(&self) -> bool {
        self.ringer.ring()
    }

    /// Resolves when it was rung, sometimes also when it was not. May be dropped and called again. To be called within a
    /// runtime, which is always the same one.
    pub async fn rung(&self) {
        let heard = match self.heard.get() {
            Some(heard) => Ok(heard),
            None => self.listen().map(|heard| self.heard.get_or_init(|| heard)),
        };
        // What was written is not read: each ring is an event of its own (EPOLLET), as the runtime's own are.
        match heard {
            Ok(heard) => match heard.readable().await {
                Ok(mut ready) => ready.clear_ready(),
                Err(_the_runtime_ends) => std::future::pending().await,
            },
            Err(_) => sleep(UNWATCHED).await,
        }
        // Before the listener looks for what it was rung for: what comes later rings again.
        self.ringer.rung.swap(false, Ordering::AcqRel);
    }

    fn listen(&self) -> io::Result<AsyncFd<Arc<EventFd>>> {
        // SAFETY: an EventFd owns one open descriptor, the same one until the last Arc, of which the AsyncFd has one, goes.
        Ok(unsafe { AsyncFd::register_with_interest(self.ringer.event.clone(), Interest::READABLE) }?)
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
        assert!(event.signal() && event.signal());
        assert!(readable());
        assert!(event.clear());
        assert!(!readable() && !event.clear());
    }

    #[tokio::test]
    async fn a_bell_that_rang_is_heard_once_whoever_rang_it_and_when() {
        let bell = Arc::new(Bell::new().unwrap());
        let silent = async || tokio::time::timeout(Duration::from_millis(20), bell.rung()).await.is_err();
        assert!(bell.ring());
        bell.rung().await;
        assert!(silent().await);
        for _ in 0..3 {
            let other = bell.ringer();
            let thread = std::thread::spawn(move || other.ring() && other.ring());
            bell.rung().await;
            assert!(thread.join().unwrap());
            // The second ring may come after the first was heard.
            let _ = silent().await;
            assert!(silent().await);
        }
    }
}
