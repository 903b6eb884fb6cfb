//! What each step of a packet's walk costs: `make bench-micro`. A step that is added to the walk gets its line here.

mod steps {
    pub mod checksum;
    pub mod cpu_time; // what is measured
    pub mod crypto; // seal and open
    pub mod handshake; // initiation and response
    pub mod lookup; // allowed IPs, sessions: the curves
    pub mod walk; // segment, coalesce, and the whole of a room
}

use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};
use steps::{checksum, cpu_time::CpuTime, crypto, handshake, lookup, walk};

fn quick() -> Criterion<CpuTime> {
    Criterion::default()
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2))
        .sample_size(50)
        .without_plots()
        .with_measurement(CpuTime)
}

criterion_group! {
    name = all;
    config = quick();
    targets = crypto::seal, crypto::open, checksum::sums, walk::segment, walk::coalesce, walk::outbound,
        walk::inbound, walk::watched, lookup::allowed_ips, lookup::prefixes, lookup::sessions, handshake::messages
}
criterion_main!(all);
