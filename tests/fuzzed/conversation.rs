//! The same over a real control socket: an answer to each request, in order, and the next client is served.

use std::sync::OnceLock;

use tokio::runtime::{Builder, Runtime};

use crate::fake::Fake;

static SERVER: OnceLock<(Runtime, Fake)> = OnceLock::new();

/// `answers`: the ends of the answers to expect; empty where the daemon decides.
pub fn check(text: &[u8], answers: &[String]) {
    let (runtime, fake) = SERVER.get_or_init(|| {
        let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
        let fake = runtime.block_on(Fake::start());
        (runtime, fake)
    });
    let (said, after) = runtime.block_on(async {
        let said = fake.ask("wireguard", text).await;
        (said, fake.ask("wireguard", b"get=1\n\n").await)
    });
    let ends: Vec<&str> = said.lines().filter(|line| line.starts_with("errno=")).collect();
    assert_eq!(ends.len(), answers.len(), "{said}");
    for (end, expected) in ends.iter().zip(answers) {
        assert!(expected.is_empty() || expected.trim_end() == *end, "{end}, and not {expected}");
    }
    assert!(after.ends_with("errno=0\n\n"), "the next one is served: {after}");
}
