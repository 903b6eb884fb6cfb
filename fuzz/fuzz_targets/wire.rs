//! Whatever datagram or packet: what `wire` reads in it.
#![no_main]

#[path = "../../tests/fuzzed/wire.rs"]
mod wire;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| wire::check_bytes(bytes));
