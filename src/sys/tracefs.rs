//! The kernel's tracing file system (tracefs), attached nowhere: only who holds the descriptor sees it.

use std::{
    io,
    os::fd::{FromRawFd, OwnedFd},
    ptr,
};

/// FSOPEN_CLOEXEC and FSMOUNT_CLOEXEC (linux/mount.h).
const CLOEXEC: libc::c_uint = 1;
/// FSCONFIG_CMD_CREATE.
const CREATE: libc::c_uint = 6;

/// Its root, as a mount of its own (fsopen(2), fsmount(2); Linux 5.2). Needs CAP_SYS_ADMIN.
pub fn open() -> io::Result<OwnedFd> {
    // SAFETY: the name ends with a zero, and lives for ever; the flag is a plain integer.
    let context = owned(unsafe { libc::syscall(libc::SYS_fsopen, c"tracefs".as_ptr(), CLOEXEC) })?;
    let number = std::os::fd::AsRawFd::as_raw_fd(&context);
    let none = ptr::null::<libc::c_char>();
    // SAFETY: this command takes no key and no value: both are null, as it demands.
    let created = unsafe { libc::syscall(libc::SYS_fsconfig, number, CREATE, none, none, 0) };
    if created < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: plain integers go in.
    owned(unsafe { libc::syscall(libc::SYS_fsmount, number, CLOEXEC, 0) })
}

fn owned(returned: libc::c_long) -> io::Result<OwnedFd> {
    let number = libc::c_int::try_from(returned).ok().filter(|number| *number >= 0);
    let number = number.ok_or_else(io::Error::last_os_error)?;
    // SAFETY: the kernel made this descriptor just now and nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}
