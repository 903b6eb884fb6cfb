//! Network namespaces, for the tests of the host room and for the lab.

use std::{
    io,
    os::fd::{AsRawFd, BorrowedFd},
};

/// Moves the calling thread into a new network namespace; the other threads stay (unshare(2)).
pub fn unshare_network() -> io::Result<()> {
    // SAFETY: plain integers go in; only the calling thread's network namespace changes.
    check(unsafe { libc::unshare(libc::CLONE_NEWNET) })
}

/// Moves the calling thread into the network namespace that `namespace` refers to (setns(2)).
pub fn enter_network(namespace: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: the descriptor is open for the length of the borrow; only the calling thread moves.
    check(unsafe { libc::setns(namespace.as_raw_fd(), libc::CLONE_NEWNET) })
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
