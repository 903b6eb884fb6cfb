//! Tunnels under virtual time, with a network and an operator of the fuzzer's choice, against a reference.
#![no_main]
#![allow(dead_code, reason = "the tests use all of it")]

#[path = "../../tests/trains/dice.rs"]
mod dice;
#[path = "../../tests/fuzzed/reference.rs"]
mod reference;
#[path = "../../tests/fuzzed/tunnels.rs"]
mod tunnels;
#[path = "../../tests/model/world.rs"]
mod world;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| tunnels::check_bytes(bytes));
