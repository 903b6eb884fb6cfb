//! poll(2) over a handful of descriptors.

use std::{
    io,
    os::fd::{AsRawFd, BorrowedFd},
    time::Duration,
};

/// What a descriptor is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interest {
    /// POLLIN.
    Read,
    /// POLLOUT.
    Write,
}

/// What poll said about one descriptor.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ready {
    /// POLLIN.
    pub readable: bool,
    /// POLLOUT.
    pub writable: bool,
    /// POLLERR, POLLHUP or POLLNVAL: asked for or not, poll reports them, and returns at once each time.
    pub failed: bool,
}

/// Waits until one of `fds` is ready, or `timeout` (rounded up to a millisecond) is over; `None` waits for ever.
/// A `None` among the descriptors is never ready. A signal ends the wait with nothing ready.
pub fn wait<const N: usize>(
    fds: [Option<(BorrowedFd<'_>, Interest)>; N],
    timeout: Option<Duration>,
) -> io::Result<[Ready; N]> {
    let mut polled = fds.map(|wanted| match wanted {
        Some((fd, Interest::Read)) => libc::pollfd { fd: fd.as_raw_fd(), events: libc::POLLIN, revents: 0 },
        Some((fd, Interest::Write)) => libc::pollfd { fd: fd.as_raw_fd(), events: libc::POLLOUT, revents: 0 },
        None => libc::pollfd { fd: -1, events: 0, revents: 0 },
    });
    let milliseconds = timeout.map_or(-1, |timeout| {
        libc::c_int::try_from(timeout.as_nanos().div_ceil(1_000_000)).unwrap_or(libc::c_int::MAX)
    });
    // SAFETY: `polled` is an array of N pollfds, writable, and the descriptors are borrowed past this call.
    let returned = unsafe { libc::poll(polled.as_mut_ptr(), N as libc::nfds_t, milliseconds) };
    match super::checked(returned) {
        Ok(_) => Ok(polled.map(|fd| Ready {
            readable: fd.revents & libc::POLLIN != 0,
            writable: fd.revents & libc::POLLOUT != 0,
            failed: fd.revents & (libc::POLLERR | libc::POLLHUP | libc::POLLNVAL) != 0,
        })),
        Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok([Ready::default(); N]),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{io::Write, os::fd::AsFd};

    #[test]
    fn only_the_descriptor_with_data_is_readable() {
        let (silent, _keep) = io::pipe().unwrap();
        let (loud, mut writer) = io::pipe().unwrap();
        writer.write_all(b"x").unwrap();
        let ready =
            wait([Some((silent.as_fd(), Interest::Read)), None, Some((loud.as_fd(), Interest::Read))], None)
                .unwrap();
        assert_eq!(ready.map(|r| r.readable), [false, false, true]);
    }

    #[test]
    fn a_fraction_of_a_millisecond_is_waited_for_and_not_spun_away() {
        let (silent, _keep) = io::pipe().unwrap();
        let before = crate::sys::clock::boottime();
        wait([Some((silent.as_fd(), Interest::Read))], Some(Duration::from_micros(300))).unwrap();
        assert!(crate::sys::clock::boottime() - before >= 300_000);
    }

    #[test]
    fn a_closed_other_end_is_a_failure() {
        let (reader, writer) = io::pipe().unwrap();
        drop(writer);
        let [ready] = wait([Some((reader.as_fd(), Interest::Read))], None).unwrap();
        assert!(ready.failed && !ready.readable);
    }
}
