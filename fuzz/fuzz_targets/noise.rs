//! Handshakes that were bent: none of them authenticates.
#![no_main]
#![allow(dead_code, reason = "the tests use all of it")]

#[path = "../../tests/trains/dice.rs"]
mod dice;
#[path = "../../tests/fuzzed/noise.rs"]
mod noise;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| noise::check_bytes(bytes));
