//! The four calculations of a handshake; their X25519 operations are nearly all of it.

use std::hint::black_box;

use criterion::Criterion;
use vpnd::{
    noise::{
        Identity, PresharedKey, PrivateKey, Tai64n,
        handshake::{Remote, initiate, open_initiation},
    },
    sys::random::os_rng,
    wire::message::Index,
};

use super::cpu_time::CpuTime;

/// What each end does with a message.
pub fn messages(c: &mut Criterion<CpuTime>) {
    let mut rng = os_rng();
    let ours = Identity::new(PrivateKey::generate(&mut rng));
    let theirs = Identity::new(PrivateKey::generate(&mut rng));
    let to_them = Remote::new(ours.clone(), *theirs.public_key());
    let to_us = Remote::new(theirs.clone(), *ours.public_key());
    let (psk, time) = (PresharedKey::new([3; 32]), Tai64n([0; 12]));
    let valid = "both ends follow the protocol";

    let mut group = c.benchmark_group("handshake");
    group.bench_function("make an initiation", |b| {
        b.iter(|| initiate(&to_them, Index(1), time, &mut rng).expect(valid));
    });
    let (initiating, initiation) = initiate(&to_them, Index(1), time, &mut rng).expect(valid);
    group.bench_function("name the sender of an initiation", |b| {
        b.iter(|| open_initiation(&theirs, black_box(&initiation)).expect(valid));
    });
    let mut answer = || {
        let authentic =
            open_initiation(&theirs, &initiation).expect(valid).authenticate(&to_us).expect(valid);
        authentic.respond(&to_us, &psk, Index(2), &mut rng).expect(valid)
    };
    group.bench_function("take an initiation and answer it", |b| b.iter(&mut answer));
    let (response, _) = answer();
    group.bench_function("take a response", |b| {
        b.iter(|| initiating.read_response(&to_them, &psk, black_box(&response)).expect(valid));
    });
    group.finish();
}
