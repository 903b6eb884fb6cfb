//! Signals to our own children: std can only kill.

use std::io;

/// Asks the process to end (SIGTERM). `pid` must be a child not yet waited for, or its number may be another's.
pub fn terminate(pid: u32) -> io::Result<()> {
    signal(pid, libc::SIGTERM)
}

/// Ends the process (SIGKILL). `pid` as in [`terminate`].
pub fn kill(pid: u32) -> io::Result<()> {
    signal(pid, libc::SIGKILL)
}

/// Ends the process and all in its group, which it must lead (SIGKILL). `pid` as in [`terminate`].
pub fn kill_group(pid: u32) -> io::Result<()> {
    let group = pid_of(pid)?;
    // SAFETY: plain integers go in.
    if unsafe { libc::kill(-group, libc::SIGKILL) } == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn signal(pid: u32, signal: libc::c_int) -> io::Result<()> {
    let pid = pid_of(pid)?;
    // SAFETY: plain integers go in.
    if unsafe { libc::kill(pid, signal) } == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Zero and negative numbers mean whole process groups, or everybody: never what a caller means.
fn pid_of(pid: u32) -> io::Result<libc::pid_t> {
    let pid = libc::pid_t::try_from(pid).ok().filter(|&pid| pid > 1);
    pid.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "not a process id"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signal_never_goes_to_a_group() {
        assert_eq!(terminate(0).unwrap_err().kind(), io::ErrorKind::InvalidInput);
        assert_eq!(kill(u32::MAX).unwrap_err().kind(), io::ErrorKind::InvalidInput);
    }
}
