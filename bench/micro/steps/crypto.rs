//! Sealing and opening in place, by size.

use std::hint::black_box;

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput};
use vpnd::forward::aead::Key;

use super::cpu_time::CpuTime;

const SIZES: [usize; 4] = [64, 256, 512, 1420];

/// One packet.
pub fn seal(c: &mut Criterion<CpuTime>) {
    let mut group = c.benchmark_group("seal");
    let key = Key::new(&[7; 32]);
    for size in SIZES {
        let (mut text, mut counter) = (vec![0; size], 0);
        group.throughput(Throughput::Bytes(size as u64));
        group.bench_function(BenchmarkId::from_parameter(size), |b| {
            b.iter(|| {
                counter += 1;
                key.seal(counter, black_box(&mut text))
            });
        });
    }
    group.finish();
}

/// One packet, with its tag.
pub fn open(c: &mut Criterion<CpuTime>) {
    let mut group = c.benchmark_group("open");
    let key = Key::new(&[7; 32]);
    for size in SIZES {
        let mut sealed = vec![0; size];
        let tag = key.seal(1, &mut sealed);
        sealed.extend(tag);
        group.throughput(Throughput::Bytes(size as u64));
        group.bench_function(BenchmarkId::from_parameter(size), |b| {
            b.iter_batched_ref(
                || sealed.clone(),
                |sealed| key.open(1, black_box(sealed)).expect("it is authentic").len(),
                BatchSize::SmallInput,
            );
        });
    }
    group.finish();
}
