//! Vnet headers, cutting and merging against the reference, with whatever the fuzzer finds.
#![no_main]
#![allow(dead_code, reason = "the tests use all of it")]

#[path = "../../tests/trains/dice.rs"]
mod dice;
#[path = "../../tests/trains/generator.rs"]
mod generator;
#[path = "../../tests/trains/offload.rs"]
mod offload;
#[path = "../../tests/trains/plain.rs"]
mod plain;
#[path = "../../tests/trains/reference.rs"]
mod reference;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| offload::check_bytes(bytes));
