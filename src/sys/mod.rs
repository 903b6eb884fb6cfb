//! Every unsafe line of the tree, each with its reason. Knows nothing of the rooms.
#![allow(unsafe_code)]

pub mod attendant; // a process beside this one
pub mod clock; // CLOCK_BOOTTIME
pub mod event; // eventfd: waking a data thread
pub mod inherit; // descriptors that outlive a process
pub mod namespace; // namespaces and mounts, for the lab
pub mod packet; // AF_PACKET: what really passes a device
pub mod page; // memory for one secret
pub mod poll; // waiting for a handful of descriptors
pub mod process; // of our own: core dumps, limits
pub mod random; // the one door to the kernel's randomness
pub mod sandbox; // what this process may do
pub mod schedule; // the data threads' place among other threads
pub mod signal; // to our own children
pub mod socket; // one UDP datagram, and what rides beside it
pub mod timer; // a timer that counts sleep
pub mod tracefs; // the kernel's tracing, as files
pub mod tun; // a TUN descriptor beyond opening it
pub mod users; // users and groups by name

use std::io;

/// What a system call returned, or the `errno` that it left.
fn checked(returned: libc::c_int) -> io::Result<libc::c_int> {
    if returned < 0 { Err(io::Error::last_os_error()) } else { Ok(returned) }
}

/// The same for calls that return a length.
fn length(returned: libc::ssize_t) -> io::Result<usize> {
    usize::try_from(returned).map_err(|_| io::Error::last_os_error())
}
