//! Whatever a client writes to the control socket.
#![no_main]
#![allow(dead_code, reason = "the tests use all of it")]

#[path = "../../tests/fuzzed/conversation.rs"]
mod conversation;
#[path = "../../tests/control/fake.rs"]
mod fake;
#[path = "../../tests/fuzzed/uapi.rs"]
mod uapi;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| uapi::check_bytes(bytes));
