//! A network namespace for one test: it ends with the thread that the test runs in.

use std::{panic, process::Command, thread};

/// Runs `test` in a thread with a network namespace of its own, `lo` up; skips it, loudly, without root.
pub fn in_own_network(test: impl FnOnce() + Send) {
    if !super::need_root() {
        return;
    }
    let run = || {
        vpnd::sys::namespace::unshare_network().expect("root may make a network namespace");
        ip("link set lo up");
        test();
    };
    let name = thread::current().name().unwrap_or("test").to_owned();
    let outcome = thread::scope(|scope| {
        thread::Builder::new().name(name).spawn_scoped(scope, run).expect("a thread").join()
    });
    outcome.unwrap_or_else(|panicked| panic::resume_unwind(panicked));
}

/// Runs `ip` in the namespace of this thread.
#[track_caller]
pub fn ip(arguments: &str) -> String {
    let output = Command::new("ip").args(arguments.split_whitespace()).output().expect("iproute2 is there");
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "ip {arguments}: {error}");
    String::from_utf8(output.stdout).expect("ip prints text")
}
