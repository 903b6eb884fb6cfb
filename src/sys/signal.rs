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

fn signal(pid: u32, signal: libc::c_int) -> io::Result<()> {
    // Zero and negative numbers mean whole process groups, or everybody: never what a caller means.
    let pid = libc::pid_t::try_from(pid)
        .ok()
        .filter(|&pid| pid > 0)
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "not a process id"))?;
    // SAFETY: plain integers go in.
    if unsafe { libc::kill(pid, signal) } == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
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
