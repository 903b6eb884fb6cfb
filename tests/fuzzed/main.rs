//! What `make fuzz` looks for, with what it found so far, and with chance: each file here has the body of one target in
//! `fuzz/`. (The target `offload` is replayed by the trains, whose it is.)
#![allow(dead_code, unreachable_pub)] // the world and the dice have more than is used here

mod config;
#[cfg(feature = "daemon")]
mod conversation;
mod noise;
mod reference;
mod tunnels;
#[cfg(feature = "daemon")]
mod uapi;
mod wire;

#[path = "../trains/dice.rs"]
mod dice;
#[cfg(feature = "daemon")]
#[path = "../control/fake.rs"]
mod fake;
#[path = "../model/world.rs"]
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use dice::Dice;

/// Runs each input of a corpus; the one that fails is named.
fn replay(target: &str, check: impl Fn(&[u8])) {
    let folder = format!("{}/fuzz/corpus/{target}", env!("CARGO_MANIFEST_DIR"));
    let files: Vec<_> = std::fs::read_dir(&folder).expect("the corpus").collect();
    assert!(files.len() >= 10, "only {} inputs in {folder}", files.len());
    for file in files {
        let path = file.expect("the corpus is readable").path();
        let bytes = std::fs::read(&path).expect("the corpus is readable");
        catch_unwind(AssertUnwindSafe(|| check(&bytes))).unwrap_or_else(|panic| {
            eprintln!("with {}", path.display());
            resume_unwind(panic)
        });
    }
}

#[test]
fn every_datagram_and_packet_of_the_corpus_is_read_as_it_should_be() {
    replay("wire", wire::check_bytes);
}

#[test]
fn every_bent_handshake_of_the_corpus_fails_and_every_straight_one_does_not() {
    replay("noise", noise::check_bytes);
}

#[test]
fn every_file_of_the_corpus_is_read_or_refused_by_line_and_edited_with_care() {
    replay("config", config::check_bytes);
}

#[cfg(feature = "daemon")]
#[test]
fn every_request_of_the_corpus_is_answered_whole() {
    replay("uapi", uapi::check_bytes);
}

#[test]
fn every_scene_of_the_corpus_ends_well() {
    replay("tunnels", tunnels::check_bytes);
}

#[test]
fn scenes_of_chance_end_well() {
    for seed in 0..150 {
        let scene = || tunnels::check_scene(&mut Dice::Seed(seed));
        catch_unwind(AssertUnwindSafe(scene)).unwrap_or_else(|panic| {
            eprintln!("with seed {seed}");
            resume_unwind(panic)
        });
    }
}
