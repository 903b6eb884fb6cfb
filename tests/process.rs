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

/// Of other threads, and of the locks that they hold, the new process would have half.
#[test]
fn a_process_with_several_threads_is_not_split() {
    let (held, hold) = std::sync::mpsc::channel::<()>();
    let other = std::thread::spawn(move || hold.recv());
    let error = vpnd::sys::attendant::split(c"vpnd-test", |_| unreachable!("it must not run")).unwrap_err();
    assert_eq!(error.to_string(), "this process has several threads already");
    drop(held);
    let _ = other.join();
}

#[test]
fn the_process_that_looks_up_names_is_no_command_for_people() {
    use std::os::unix::process::CommandExt;
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_vpnd"));
    let ended = command.arg0("vpnd-names").stdin(std::process::Stdio::null()).output().expect("it starts");
    let said = String::from_utf8_lossy(&ended.stderr);
    assert!(!ended.status.success() && said.contains("only a daemon starts this"), "{ended:?}");
}
