//! What of root's power is left (capabilities(7)). Each thread has its own sets, and hands them on to those that it
//! starts: so they are given up before there are others.

use caps::{CapSet, Capability, CapsHashSet};

/// One of them, by the names that are used here.
pub use caps::Capability as One;

/// A set could not be changed: in the words of the crate, which keeps the errno.
pub type Refused = caps::errors::CapsError;

/// A user and group that own nothing, as on each Linux.
const NOBODY: u32 = 65534;

/// Of `wanted` those that this thread may have, in effect; all others are gone, from the bounding, ambient and
/// inheritable sets, too. Says whether the bounding set is empty: it takes CAP_SETPCAP to empty it.
///
/// Who has nothing to give up does not ask for it: a service manager that grants what is wanted may forbid the call
/// (capset(2)). What is then inheritable stays so, and is worth nothing without the ambient set, but to a program whose file
/// has it, too.
pub fn keep(wanted: &[Capability]) -> Result<bool, Refused> {
    let had = caps::read(None, CapSet::Permitted)?;
    let is_empty = empty_bounding_set(&had);
    let _ = caps::clear(None, CapSet::Ambient); // absent before Linux 4.3
    let kept: CapsHashSet = wanted.iter().copied().filter(|one| had.contains(one)).collect();
    if had == kept && caps::read(None, CapSet::Effective)? == kept {
        return Ok(is_empty);
    }
    caps::set(None, CapSet::Effective, &kept)?;
    caps::set(None, CapSet::Permitted, &kept)?;
    caps::clear(None, CapSet::Inheritable)?;
    Ok(is_empty)
}

/// Those in effect for this thread, by the kernel's names, sorted.
pub fn in_effect() -> Vec<String> {
    let all = caps::read(None, CapSet::Effective).unwrap_or_default();
    let mut names: Vec<String> = all.into_iter().map(|one| one.to_string()).collect();
    names.sort_unstable();
    names
}

/// None of them goes to the next program that this thread starts in its own place (execve(2)), if it is not root's and the
/// program's file has none. Says whether there is one to lose by that.
pub(in crate::sys) fn end_with_this_program() -> bool {
    // SAFETY: the call takes no argument and cannot fail.
    let is_root = unsafe { libc::geteuid() } == 0;
    let has_some = caps::read(None, CapSet::Permitted).is_ok_and(|had| !had.is_empty());
    !is_root && has_some && caps::clear(None, CapSet::Ambient).is_ok()
}

/// Has this thread got it, to use?
pub fn has(one: Capability) -> bool {
    caps::has_cap(None, CapSet::Effective, one).unwrap_or(false)
}

fn empty_bounding_set(had: &CapsHashSet) -> bool {
    let supported = || caps::runtime::thread_all_supported();
    if had.contains(&Capability::CAP_SETPCAP) {
        for one in supported() {
            let _ = caps::drop(None, CapSet::Bounding, one);
        }
    }
    supported().into_iter().all(|one| !caps::has_cap(None, CapSet::Bounding, one).unwrap_or(true))
}

/// Root becomes a user who owns nothing, with no capability left; who is not root stays who he is.
pub(super) fn become_nobody() -> std::io::Result<()> {
    if let Ok(had) = caps::read(None, CapSet::Permitted) {
        empty_bounding_set(&had); // while there is the right to
    }
    // SAFETY: neither call takes an argument or can fail.
    if unsafe { libc::geteuid() } != 0 {
        return Ok(());
    }
    // SAFETY: an empty list has no members to read.
    crate::sys::checked(unsafe { libc::setgroups(0, std::ptr::null()) })?;
    // SAFETY: plain integers go in.
    crate::sys::checked(unsafe { libc::setresgid(NOBODY, NOBODY, NOBODY) })?;
    // SAFETY: as above.
    crate::sys::checked(unsafe { libc::setresuid(NOBODY, NOBODY, NOBODY) })?;
    Ok(())
}
