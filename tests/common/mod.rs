//! What the tests on real namespaces share.
#![allow(dead_code, unreachable_pub)] // each test binary takes its part

use std::io::Write;

pub mod flow;
pub mod network;
pub mod program;

/// Is this root? Without it the test says loudly that it was not run; where CI=true it fails.
pub fn need_root() -> bool {
    let (user, _) = vpnd::sys::namespace::effective_ids();
    if user == 0 {
        return true;
    }
    assert!(std::env::var_os("CI").is_none_or(|ci| ci != "true"), "this test needs root, and CI must run it");
    let thread = std::thread::current();
    let test = thread.name().unwrap_or("a test");
    // Not eprintln!, which the test harness swallows when the test passes.
    writeln!(std::io::stderr(), "\n*** NOT TESTED: {test} needs root ***\n").expect("standard error is open");
    false
}
