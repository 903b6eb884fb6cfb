//! What the daemon asks of the kernel about its own process.

use std::io;

/// No core file, and no reading of our memory by other processes of the same user: keys live in it.
/// `PR_SET_DUMPABLE` also gives our `/proc/self` files to root, so a user-namespace set-up comes before it.
pub fn forbid_core_dumps() -> io::Result<()> {
    let none = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `none` is a valid rlimit, only read.
    super::checked(unsafe { libc::setrlimit(libc::RLIMIT_CORE, &none) })?;
    let (not_dumpable, unused): (libc::c_ulong, libc::c_ulong) = (0, 0);
    // SAFETY: PR_SET_DUMPABLE takes one integer and no pointers; the unused arguments are there for the variadic call.
    super::checked(unsafe { libc::prctl(libc::PR_SET_DUMPABLE, not_dumpable, unused, unused, unused) })?;
    Ok(())
}

/// Raises the number of files this process may open to `wanted`, or as far as it may go; returns what it is
/// then. Never lowers it.
pub fn raise_open_files(wanted: u64) -> io::Result<u64> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is a valid rlimit for the kernel to fill.
    super::checked(unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) })?;
    if limit.rlim_cur >= wanted {
        return Ok(limit.rlim_cur);
    }
    let beyond = libc::rlimit { rlim_cur: wanted, rlim_max: limit.rlim_max.max(wanted) };
    // SAFETY: `beyond` is a valid rlimit, only read.
    if unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &beyond) } == 0 {
        return Ok(wanted);
    }
    // Raising the hard limit takes CAP_SYS_RESOURCE: without it, up to the hard limit.
    limit.rlim_cur = limit.rlim_max.min(wanted);
    // SAFETY: `limit` is a valid rlimit, only read.
    super::checked(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &limit) })?;
    Ok(limit.rlim_cur)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_open_file_limit_is_raised_and_never_lowered() {
        let now = raise_open_files(0).unwrap();
        assert!(now > 0);
        let raised = raise_open_files(now).unwrap();
        assert_eq!(raised, now);
        assert_eq!(raise_open_files(1).unwrap(), now, "a smaller wish changes nothing");
    }
}
