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

/// Keeps what this process writes into memory out of swap (mlockall(2), pages as they are touched); false where a
/// limit on locked memory binds it: under one a later allocation would fail, and that is worse.
pub fn keep_out_of_swap() -> io::Result<bool> {
    if !may_lock_anything()? {
        return Ok(false);
    }
    // SAFETY: mlockall takes flags and no pointers.
    super::checked(unsafe { libc::mlockall(libc::MCL_CURRENT | libc::MCL_FUTURE | libc::MCL_ONFAULT) })?;
    // Code has no secrets, and never goes to swap: it may leave memory.
    each_part_of_code(|start, length| {
        // SAFETY: a mapping of ours; munlock changes none of its bytes. Where it fails, the code stays.
        unsafe { libc::munlock(start, length) };
    });
    Ok(true)
}

/// Lets the code and the constants that are in memory go: most of it served the start alone, and what is needed again comes
/// back from its file by itself, a page at a time.
pub fn let_code_go() {
    each_part_of_code(|start, length| {
        // SAFETY: a private mapping of a file that was never written: the same bytes come back. Where it fails, they stay.
        unsafe { libc::madvise(start, length, libc::MADV_DONTNEED) };
    });
}

/// What of this program and its libraries is mapped and cannot be written.
fn each_part_of_code(mut look: impl FnMut(*mut libc::c_void, usize)) {
    extern "C" fn object(
        info: *mut libc::dl_phdr_info,
        _size: libc::size_t,
        look: *mut libc::c_void,
    ) -> libc::c_int {
        // SAFETY: `look` is what was handed to dl_iterate_phdr below, and nobody else uses it meanwhile.
        let look = unsafe { &mut *look.cast::<&mut dyn FnMut(*mut libc::c_void, usize)>() };
        // SAFETY: dl_iterate_phdr hands over a valid description for the time of this call.
        let info = unsafe { &*info };
        if info.dlpi_phdr.is_null() {
            return 0;
        }
        // SAFETY: the loader describes that many parts there.
        let parts = unsafe { std::slice::from_raw_parts(info.dlpi_phdr, info.dlpi_phnum.into()) };
        for part in parts {
            let is_code = part.p_type == libc::PT_LOAD && part.p_flags & libc::PF_W == 0;
            let Some((start, length)) =
                is_code.then(|| whole_pages((info.dlpi_addr + part.p_vaddr) as usize, part.p_memsz as usize))
            else {
                continue;
            };
            look(std::ptr::with_exposed_provenance_mut(start), length);
        }
        0
    }
    let mut look: &mut dyn FnMut(*mut libc::c_void, usize) = &mut look;
    // SAFETY: `object` keeps none of what it is handed.
    unsafe { libc::dl_iterate_phdr(Some(object), std::ptr::from_mut(&mut look).cast()) };
}

/// The pages that hold these bytes, as the loader maps them.
fn whole_pages(start: usize, length: usize) -> (usize, usize) {
    const PAGE: usize = 4096;
    let first = start / PAGE * PAGE;
    (first, (start + length).next_multiple_of(PAGE) - first)
}

/// No limit on locked memory, or CAP_IPC_LOCK in the first user namespace. The latter shows in no file: more than
/// the limit is locked for a trial, of which nothing is ever touched.
fn may_lock_anything() -> io::Result<bool> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is a valid rlimit for the kernel to fill.
    super::checked(unsafe { libc::getrlimit(libc::RLIMIT_MEMLOCK, &mut limit) })?;
    if limit.rlim_cur == libc::RLIM_INFINITY {
        return Ok(true);
    }
    const PAGE: usize = 4096;
    let Some(length) = usize::try_from(limit.rlim_cur).ok().and_then(|limit| limit.checked_add(16 * PAGE))
    else {
        return Ok(false);
    };
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
    // SAFETY: a new mapping at an address that the kernel chooses; nothing else can know it.
    let trial = unsafe { libc::mmap(std::ptr::null_mut(), length, libc::PROT_NONE, flags, -1, 0) };
    if trial == libc::MAP_FAILED {
        return Ok(false);
    }
    // SAFETY: `trial` is our mapping of `length` bytes.
    let locked = unsafe { libc::mlock2(trial, length, libc::MLOCK_ONFAULT) } == 0;
    // SAFETY: as above; nobody uses it any more.
    super::checked(unsafe { libc::munmap(trial, length) })?;
    Ok(locked)
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

/// Raises the nice value's limit (RLIMIT_NICE) so that threads may take `nice` without CAP_SYS_NICE. It takes
/// CAP_SYS_RESOURCE, if the limit is lower.
pub fn allow_nice(nice: i8) -> io::Result<()> {
    let wanted = (20 - i64::from(nice)).max(0) as libc::rlim_t;
    raise(libc::RLIMIT_NICE, wanted)
}

/// No limit on locked memory any more. It takes CAP_SYS_RESOURCE, if there is one.
pub fn allow_locking() -> io::Result<()> {
    raise(libc::RLIMIT_MEMLOCK, libc::RLIM_INFINITY)
}

#[cfg(target_env = "gnu")]
type Resource = libc::__rlimit_resource_t;
#[cfg(not(target_env = "gnu"))]
type Resource = libc::c_int;

/// Never lowers it.
fn raise(resource: Resource, wanted: libc::rlim_t) -> io::Result<()> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is a valid rlimit for the kernel to fill.
    super::checked(unsafe { libc::getrlimit(resource, &mut limit) })?;
    if limit.rlim_cur >= wanted {
        return Ok(());
    }
    let limit = libc::rlimit { rlim_cur: wanted, rlim_max: limit.rlim_max.max(wanted) };
    // SAFETY: `limit` is a valid rlimit, only read.
    super::checked(unsafe { libc::setrlimit(resource, &limit) })?;
    Ok(())
}

/// How many threads this process has; 1 where no /proc tells.
pub fn threads() -> usize {
    std::fs::read_dir("/proc/self/task").map_or(1, Iterator::count)
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
