//! How the scheduler treats the calling thread.

use std::io;

/// SCHED_BATCH (its wake-ups take no core from whoever runs), and this nice value. Lowering it takes CAP_SYS_NICE or
/// an RLIMIT_NICE that allows it: EPERM without, and nothing has changed.
pub fn batch(nice: i8) -> io::Result<()> {
    let wanted = libc::sched_attr {
        size: size_of::<libc::sched_attr>() as u32,
        sched_policy: libc::SCHED_BATCH as u32,
        sched_flags: 0,
        sched_nice: nice.into(),
        sched_priority: 0,
        sched_runtime: 0,
        sched_deadline: 0,
        sched_period: 0,
    };
    let (own_thread, flags): (libc::pid_t, libc::c_uint) = (0, 0);
    // SAFETY: `wanted` is a valid sched_attr that names its own size, only read.
    let returned = unsafe { libc::syscall(libc::SYS_sched_setattr, own_thread, &wanted, flags) };
    if returned < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// The nice value of the calling thread.
pub fn nice() -> i8 {
    // SAFETY: getpriority takes no pointers. Of the calling thread (0) it cannot fail, so that -1 is a nice value.
    let nice = unsafe { libc::getpriority(libc::PRIO_PROCESS, 0) };
    i8::try_from(nice).unwrap_or(0) // -20 to 19
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_changes_its_own_nice_value_alone() {
        let before = nice();
        let changed = std::thread::spawn(move || {
            batch(19).expect("a higher one is allowed to everybody");
            nice()
        });
        assert_eq!((changed.join().unwrap(), nice()), (19, before));
    }
}
