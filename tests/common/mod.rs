//! What the tests on real namespaces share.

use std::{future::Future, os::unix::fs::MetadataExt};

/// Is this root? If not, the test that asks is skipped, loudly; with CI=true it fails instead.
pub fn need_root() -> bool {
    let is_root = std::fs::metadata("/proc/self").is_ok_and(|me| me.uid() == 0);
    if !is_root {
        let test = std::thread::current().name().unwrap_or("a test").to_owned();
        assert_ne!(
            std::env::var("CI").as_deref(),
            Ok("true"),
            "{test} needs root, and CI must run every test"
        );
        eprintln!("\n*** SKIPPED: {test} needs root (run the tests with sudo) ***\n");
    }
    is_root
}

/// Runs a test on a thread of its own in a new, empty network namespace; it vanishes with the thread.
pub fn in_own_network<F: Future<Output = ()>>(test: impl FnOnce() -> F + Send + 'static) {
    if !need_root() {
        return;
    }
    let thread = std::thread::spawn(move || {
        vpnd::sys::namespace::unshare_network().expect("root may make a network namespace");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.expect("a runtime").block_on(test());
    });
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}
