//! What the tests on real namespaces share.
#![allow(dead_code)] // each test binary takes its part

pub mod network;

/// Is this root? Without it the test says loudly that it was not run; where CI=true it fails.
pub fn need_root() -> bool {
    let (user, _) = vpnd::sys::namespace::effective_ids();
    if user == 0 {
        return true;
    }
    assert!(std::env::var_os("CI").is_none_or(|ci| ci != "true"), "this test needs root, and CI must run it");
    eprintln!("\n*** NOT TESTED: {:?} needs root ***\n", std::thread::current().name().unwrap_or("a test"));
    false
}
