//! Namespaces and mounts: the system calls that the lab builds its hosts with.

use std::{
    ffi::CString,
    io,
    os::{
        fd::{AsRawFd, BorrowedFd, OwnedFd},
        unix::{ffi::OsStrExt, process::CommandExt},
    },
    path::Path,
    process::Command,
};

/// Moves the calling thread into a new network namespace; the other threads stay (unshare(2)).
pub fn unshare_network() -> io::Result<()> {
    // SAFETY: plain integers go in; only the calling thread's network namespace changes.
    check(unsafe { libc::unshare(libc::CLONE_NEWNET) })
}

/// Moves the process into a new user, mount and network namespace. It must be single-threaded (EINVAL).
pub fn unshare_user() -> io::Result<()> {
    let flags = libc::CLONE_NEWUSER | libc::CLONE_NEWNS | libc::CLONE_NEWNET;
    // SAFETY: plain integers go in; the kernel itself refuses it to a process with several threads.
    check(unsafe { libc::unshare(flags) })
}

/// Moves the calling thread into the network namespace that `namespace` refers to (setns(2)).
pub fn enter_network(namespace: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: the descriptor is open for the length of the borrow; only the calling thread moves.
    check(unsafe { libc::setns(namespace.as_raw_fd(), libc::CLONE_NEWNET) })
}

/// Makes `command` enter the network namespace between fork and exec.
pub fn enter_network_on_exec(command: &mut Command, namespace: OwnedFd) {
    use std::os::fd::AsFd;
    // SAFETY: between fork and exec only async-signal-safe calls are made: setns, and reading errno. The
    // closure owns the descriptor, so that it is open then; `io::Error::last_os_error` does not allocate.
    unsafe { command.pre_exec(move || enter_network(namespace.as_fd())) };
}

/// Mounts `source` (a file or a folder) on `target`.
pub fn bind_mount(source: &Path, target: &Path) -> io::Result<()> {
    mount(Some(source), target, None, libc::MS_BIND)
}

/// Mounts a folder and all below it on `target`.
pub fn bind_mount_recursive(source: &Path, target: &Path) -> io::Result<()> {
    mount(Some(source), target, None, libc::MS_BIND | libc::MS_REC)
}

/// Lets mounts below `target` show in other mount namespaces. `target` must be a mount point (EINVAL).
pub fn share_mounts(target: &Path) -> io::Result<()> {
    mount(None, target, None, libc::MS_SHARED | libc::MS_REC)
}

/// Keeps mounts below `target` in this mount namespace.
pub fn hide_mounts(target: &Path) -> io::Result<()> {
    mount(None, target, None, libc::MS_PRIVATE | libc::MS_REC)
}

/// Mounts an empty file system in memory on `target`.
pub fn mount_tmpfs(target: &Path) -> io::Result<()> {
    mount(None, target, Some(c"tmpfs"), libc::MS_NOSUID | libc::MS_NODEV)
}

/// Unmounts `target`; what still uses it keeps it until it lets go (MNT_DETACH).
pub fn unmount(target: &Path) -> io::Result<()> {
    let target = c_path(target)?;
    // SAFETY: the string is alive during the call.
    check(unsafe { libc::umount2(target.as_ptr(), libc::MNT_DETACH) })
}

/// The effective user and group of this process.
pub fn effective_ids() -> (u32, u32) {
    // SAFETY: neither call takes an argument or can fail.
    unsafe { (libc::geteuid(), libc::getegid()) }
}

fn mount(
    source: Option<&Path>,
    target: &Path,
    kind: Option<&std::ffi::CStr>,
    flags: libc::c_ulong,
) -> io::Result<()> {
    let source = c_path(source.unwrap_or(Path::new("none")))?;
    let target = c_path(target)?;
    let kind = kind.map_or(std::ptr::null(), std::ffi::CStr::as_ptr);
    // SAFETY: the strings are alive during the call; a null file system type and null data are allowed for
    // bind mounts and changes of propagation, and null data for tmpfs.
    check(unsafe { libc::mount(source.as_ptr(), target.as_ptr(), kind, flags, std::ptr::null()) })
}

fn c_path(path: &Path) -> io::Result<CString> {
    CString::new(path.as_os_str().as_bytes()).map_err(|e| io::Error::new(io::ErrorKind::InvalidInput, e))
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
