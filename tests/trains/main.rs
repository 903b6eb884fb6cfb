//! The same packets as the plain path: random trains of packets, cut and merged by us, and by code that is as simple
//! and as slow as possible.

mod dice;
mod generator;
mod lies;
mod offload;
mod plain;
mod reference;
mod second;
mod tunnel;

use dice::Dice;
use tunnel::Tunnel;

/// Trains in `make test`; `make long` has a million.
const TRAINS: usize = 20_000;
const MANY_TRAINS: usize = 1_000_000;

/// Scenes until there were so many trains; a scene that fails names its seed.
fn scenes(first: u64, trains: usize, mut scene: impl FnMut(&mut Dice<'_>) -> (usize, usize)) -> usize {
    let (mut seed, mut done, mut merged) = (first, 0, 0);
    while done < trains {
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| scene(&mut Dice::Seed(seed))));
        let (count, merges) = outcome.unwrap_or_else(|panic| {
            eprintln!("with seed {seed}");
            std::panic::resume_unwind(panic)
        });
        (seed, done, merged) = (seed + 1, done + count, merged + merges);
    }
    merged
}

fn cut_and_merged(first: u64, trains: usize) {
    let merged = scenes(first, trains, offload::check_scene);
    println!("{trains} trains, {merged} packets merged");
    assert!(merged > trains, "too little was merged to prove anything: {merged}");
}

#[test]
fn trains_are_cut_and_merged_as_on_the_plain_path() {
    cut_and_merged(0, TRAINS);
}

#[test]
#[ignore = "takes minutes: make long"]
fn a_million_trains_are_cut_and_merged_as_on_the_plain_path() {
    cut_and_merged(1 << 32, MANY_TRAINS);
}

fn carried(first: u64, trains: usize) {
    let mut tunnel = Tunnel::new();
    let merged = scenes(first, trains, |dice| tunnel::check_scene(&mut tunnel, dice));
    println!("{trains} trains, {merged} packets merged");
    assert!(merged > trains, "too little was merged to prove anything: {merged}");
}

#[test]
fn trains_come_out_of_the_tunnel_as_they_went_in() {
    carried(0, TRAINS);
}

#[test]
#[ignore = "takes minutes: make long"]
fn a_million_trains_come_out_of_the_tunnel_as_they_went_in() {
    carried(1 << 32, MANY_TRAINS);
}

#[test]
fn tun_rs_cuts_and_merges_alike() {
    let merged = scenes(0, TRAINS / 4, second::check_scene);
    assert!(merged > TRAINS / 4, "too little was merged to prove anything: {merged}");
}

/// Each input that `make fuzz` found worth keeping; whatever it finds to be wrong belongs there, too.
#[test]
fn what_the_fuzzer_found_holds() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/fuzz/corpus/offload");
    let files: Vec<_> = std::fs::read_dir(folder).expect("the corpus").collect();
    assert!(files.len() >= 20, "only {} inputs in {folder}", files.len());
    for file in files {
        let path = file.expect("the corpus is readable").path();
        let bytes = std::fs::read(&path).expect("the corpus is readable");
        println!("{}", path.display());
        offload::check_bytes(&bytes);
    }
}
