//! What this process may do, made less: capabilities are given up, files are named (Landlock), system calls are listed
//! (seccomp). Each says what became of it; a kernel that lacks one has the others.

pub mod capabilities; // what of root's power is left
pub mod files; // which files there are
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
mod list; // system calls by name
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
mod rules; // and as filters
pub mod seccomp; // which system calls there are

use std::io;

pub use files::Folders;

/// Privileges that a program may gain by exec (setuid, file capabilities): none from now on, for this thread and those
/// that it starts (PR_SET_NO_NEW_PRIVS).
pub fn no_new_privileges() -> io::Result<()> {
    let (yes, unused): (libc::c_ulong, libc::c_ulong) = (1, 0);
    // SAFETY: PR_SET_NO_NEW_PRIVS takes one integer and no pointers; the others must be zero.
    super::checked(unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, yes, unused, unused, unused) })?;
    Ok(())
}

/// A process that looks up names and nothing else: nobody's user where it was root's, no capability, no file to write,
/// none of the calls that lead out. What cannot be had is left: the rest stands.
///
/// The C library loads modules for its name services (nsswitch.conf(5)), which do as they please: so this is a list of
/// what is forbidden, with an error (EPERM), and not of what is allowed.
pub fn confine_name_service() {
    let _ = no_new_privileges();
    let _ = capabilities::become_nobody();
    let _ = capabilities::keep(&[]);
    let _ = files::read_only();
    // Where they could not be given up, what they are good for is forbidden.
    let _ = seccomp::forbid_ways_out(!capabilities::in_effect().is_empty());
}

/// The calling thread carries data, and does nothing else from now on: it opens no file, and asks nobody to.
pub fn confine_data_thread() -> Result<(), seccomp::Absent> {
    seccomp::apply(seccomp::Stage::Data, seccomp::Threads::This)
}
