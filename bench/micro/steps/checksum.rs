//! The Internet checksum of a payload, alone and while it is copied.

use std::hint::black_box;

use criterion::{Criterion, Throughput};
use vpnd::wire::checksum::Sum;

use super::cpu_time::CpuTime;

/// Of 1388 bytes.
pub fn sums(c: &mut Criterion<CpuTime>) {
    const PAYLOAD: usize = 1388;
    let mut group = c.benchmark_group("checksum");
    let (from, mut to) = (vec![0x5a; PAYLOAD], vec![0; PAYLOAD]);
    group.throughput(Throughput::Bytes(PAYLOAD as u64));
    group.bench_function("sum", |b| b.iter(|| Sum::of(black_box(&from)).finish()));
    group.bench_function("copy and sum", |b| b.iter(|| Sum::of_copied(black_box(&from), &mut to).finish()));
    group.bench_function("copy alone", |b| b.iter(|| black_box(&mut to).copy_from_slice(black_box(&from))));
    group.finish();
}
