//! `sys::process` alters the whole process, so it has a test binary of its own.
#![cfg(feature = "daemon")]

use std::fs;

#[test]
fn a_process_that_forbids_core_dumps_leaves_none_and_cannot_be_read_by_others() {
    vpnd::sys::process::forbid_core_dumps().unwrap();
    let limits = fs::read_to_string("/proc/self/limits").unwrap();
    let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
    assert_eq!(core.split_whitespace().skip(4).take(2).collect::<Vec<_>>(), ["0", "0"]);
    // SAFETY: PR_GET_DUMPABLE takes nothing.
    assert_eq!(unsafe { libc::prctl(libc::PR_GET_DUMPABLE) }, 0);
}
