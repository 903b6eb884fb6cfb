//! Which system calls there are (seccomp(2)): three lists, each a part of the one before. Whoever makes another call is
//! killed, with the whole process; the kernel's audit log has the call's number (type=1326, SECCOMP).
//!
//! The filters are compiled by `seccompiler`. A call that is allowed whatever its arguments costs no more than a look
//! into a bitmap (Linux 5.11), so the calls of a packet's walk have no conditions.

use seccompiler::{BackendError, BpfProgram, apply_filter, apply_filter_all_threads};

#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
use super::rules;

/// How far the process has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Devices, sockets and memory are made.
    SetUp,
    /// All is made, and changed by reloads alone.
    Running {
        /// Sockets may be given to other users.
        chown: bool,
    },
    /// Of a thread that carries data: no file, no connection. Opening a file fails (EACCES) and kills nobody: what
    /// prints a panic tries it.
    Data,
}

/// Whom a list binds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Threads {
    /// The calling one, and those that it starts.
    This,
    /// All of the process (SECCOMP_FILTER_FLAG_TSYNC).
    All,
}

/// Why no call is kept from us.
#[derive(Debug, thiserror::Error)]
pub enum Absent {
    /// There are lists for x86_64 and aarch64.
    #[error("there is no list of system calls for this architecture ({})", std::env::consts::ARCH)]
    Architecture,
    /// It could not be compiled.
    #[error("the list of system calls: {0}")]
    List(#[from] BackendError),
    /// The kernel would not have it.
    #[error("seccomp: {0}")]
    Refused(#[from] seccompiler::Error),
}

/// Nothing but what stands on the list from now on.
pub fn apply(stage: Stage, threads: Threads) -> Result<(), Absent> {
    rules::of(stage)?.iter().try_for_each(|program| install(program, threads))
}

/// For programs whose calls are not ours to list: those that lead out of a process fail (EPERM), all others pass.
pub(super) fn forbid_ways_out() -> Result<(), Absent> {
    install(&rules::without_ways_out()?, Threads::This)
}

fn install(program: &BpfProgram, threads: Threads) -> Result<(), Absent> {
    match threads {
        Threads::This => apply_filter(program)?,
        Threads::All => apply_filter_all_threads(program)?,
    }
    Ok(())
}

/// Where there are no lists.
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
mod rules {
    use super::{Absent, BpfProgram, Stage};

    pub(super) fn of(_: Stage) -> Result<Vec<BpfProgram>, Absent> {
        Err(Absent::Architecture)
    }
    pub(super) fn without_ways_out() -> Result<BpfProgram, Absent> {
        Err(Absent::Architecture)
    }
}
