//! Whose is this address, which session is this index: over the size of the table.

use std::{
    hint::black_box,
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
};

use criterion::{BenchmarkId, Criterion};
use vpnd::{
    forward::{AllowedIps, Sessions},
    wire::message::Index,
};
use vpnd_micro::{numbers, peer, sessions as pair};

use super::cpu_time::CpuTime;

/// What is asked in turn: no look-up is the one before.
const QUESTIONS: usize = 1024;

/// One address for each peer.
pub fn allowed_ips(c: &mut Criterion<CpuTime>) {
    let mut group = c.benchmark_group("allowed IPs, peers");
    for peers in [1, 10, 100, 1_000, 10_000] {
        let prefixes: Vec<_> = (0..peers).map(|n| (0x0a00_0000 + n, 32)).collect();
        group.bench_function(BenchmarkId::from_parameter(peers), |b| find(b, &prefixes));
    }
    group.finish();
}

/// Prefixes of all lengths from 12 to 32, as many networks have them.
pub fn prefixes(c: &mut Criterion<CpuTime>) {
    let mut group = c.benchmark_group("allowed IPs, prefixes");
    for count in [1, 100, 10_000, 130_000] {
        let prefixes = numbers().map(|number| (number as u32, 12 + (number >> 32) as u8 % 21)).take(count);
        let prefixes: Vec<_> = prefixes.collect();
        group.bench_function(BenchmarkId::from_parameter(count), |b| find(b, &prefixes));
    }
    group.finish();
}

fn find(b: &mut criterion::Bencher<'_, CpuTime>, prefixes: &[(u32, u8)]) {
    let owners = [peer(1), peer(2)];
    let network = |&(bits, length): &(u32, u8)| {
        let address = IpAddr::V4(Ipv4Addr::from_bits(bits));
        ipnet::IpNet::new(address, length).expect("at most 32").trunc()
    };
    let table: AllowedIps<_> = AllowedIps::build(
        prefixes.iter().enumerate().map(|(at, prefix)| (network(prefix), owners[at % 2].clone())),
    );
    let ask =
        numbers().map(|number| Ipv4Addr::from_bits(prefixes[number as usize % prefixes.len()].0).into());
    let questions: Vec<IpAddr> = ask.take(QUESTIONS).collect();
    let mut turn = questions.iter().cycle();
    b.iter(|| {
        let (owner, _) = table.find(black_box(*turn.next().expect("it has no end"))).expect("somebody's");
        Arc::as_ptr(owner)
    });
}

/// By the index that we chose.
pub fn sessions(c: &mut Criterion<CpuTime>) {
    let mut group = c.benchmark_group("session by index");
    for count in [1, 10, 100, 1_000, 10_000] {
        let table = Sessions::new();
        let owner = peer(1);
        let indices: Vec<u32> = numbers().map(|number| number as u32).take(count).collect();
        for &index in &indices {
            let [session, _] = pair(index, 0);
            table.insert(session, owner.clone());
        }
        let ask = numbers().map(|number| Index(indices[number as usize % indices.len()]));
        let questions: Vec<Index> = ask.take(QUESTIONS).collect();
        let mut turn = questions.iter().cycle();
        group.bench_function(BenchmarkId::from_parameter(count), |b| {
            b.iter(|| table.find(black_box(*turn.next().expect("it has no end"))).expect("it is there"));
        });
    }
    group.finish();
}
