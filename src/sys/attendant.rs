//! A process of our own beside this one, split off while there are no threads, no keys and no sandbox yet (fork(2)).

use std::{
    ffi::CStr,
    io,
    os::{
        fd::{AsFd, AsRawFd, OwnedFd, RawFd},
        unix::{net::UnixStream, process::CommandExt},
    },
    panic::{AssertUnwindSafe, catch_unwind},
    process::Command,
};

/// Runs `work` in a new process called `name` (15 bytes at most), with one end of a connection, until it returns; the
/// other end is ours. Beside that end it has standard input, output and error, and no other descriptor of ours.
///
/// To be called while this process has one thread: of the others, and of the locks that they hold, the new one would
/// have half. An error says so.
pub fn split(name: &CStr, work: impl FnOnce(UnixStream)) -> io::Result<UnixStream> {
    if super::process::threads() > 1 {
        return Err(io::Error::other("this process has several threads already"));
    }
    let (ours, theirs) = UnixStream::pair()?;
    // SAFETY: there is one thread, so that nothing is held half-way in the new process; what it does there ends in
    // `_exit`, and it never comes back into its caller.
    if super::checked(unsafe { libc::fork() })? != 0 {
        return Ok(ours);
    }
    keep_only(theirs.as_raw_fd());
    present_as(name);
    let ended = catch_unwind(AssertUnwindSafe(|| work(theirs)));
    // SAFETY: takes one integer. What stands on the copied stack above us belongs to the other process.
    unsafe { libc::_exit(i32::from(ended.is_err())) }
}

/// Without capabilities: where they would else be kept, this process runs our program from its beginning, under the name
/// `program` and with the connection as its standard input ([`resumed`]), since whoever is not root loses them by that.
/// (Giving them up takes a call that a service manager may forbid, capset(2).) Comes back where that is not needed, or not
/// possible.
pub fn without_capabilities(stream: &UnixStream, program: &str) {
    if !super::sandbox::capabilities::end_with_this_program() {
        return;
    }
    if let Ok(stream) = stream.try_clone() {
        let _why_not = Command::new("/proc/self/exe").arg0(program).stdin(OwnedFd::from(stream)).exec();
    }
}

/// The connection of a process that [`without_capabilities`] has started; `None`: this is none that is called `program`.
pub fn resumed(name: &CStr, program: &str) -> Option<io::Result<UnixStream>> {
    (std::env::args_os().next()? == program).then(|| {
        present_as(name);
        let stream = UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
        stream.peer_addr()?; // it is one
        Ok(stream)
    })
}

/// It has nothing to hide, but its memory may be a copy of the daemon's; neither may be read by other processes of the user.
fn present_as(name: &CStr) {
    let _ = super::process::forbid_core_dumps();
    // SAFETY: PR_SET_NAME reads a string that ends with a zero.
    unsafe { libc::prctl(libc::PR_SET_NAME, name.as_ptr(), 0, 0, 0) };
}

/// Closes all descriptors but the first three and this one.
fn keep_only(kept: RawFd) {
    const FIRST: libc::c_uint = 3;
    let kept = kept as libc::c_uint; // never negative: it is open
    let close = |from: libc::c_uint, to: libc::c_uint| {
        if from <= to {
            // SAFETY: plain integers go in. Who else in this process thinks that he has one of these descriptors never
            // runs again.
            unsafe { libc::syscall(libc::SYS_close_range, from, to, 0) };
        }
    };
    close(FIRST, kept.saturating_sub(1));
    close(kept.saturating_add(1), libc::c_uint::MAX);
    // Linux before 5.9 has no such call.
    let open = std::fs::read_dir("/proc/self/fd").into_iter().flatten().flatten();
    let open: Vec<RawFd> = open.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
    for descriptor in open.into_iter().filter(|fd| *fd >= FIRST as RawFd && *fd != kept as RawFd) {
        // SAFETY: as above; one that is closed already is no harm.
        unsafe { libc::close(descriptor) };
    }
}
