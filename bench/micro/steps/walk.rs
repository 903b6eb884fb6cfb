//! The rooms that move a batch: what one super-packet costs in them, and what one packet alone does.

use std::sync::Arc;

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput};
use vpnd::{
    forward::{
        Arrival, Carriers, Deliveries, Forward, Intake, Merge, Outbound, coalesce::Coalescer,
        segment::Segmentation,
    },
    trace::{Feed, Wanted},
    wire::{
        ecn::Ecn,
        ip,
        message::TRANSPORT_HEADER_LEN,
        vnet::{VNET_HEADER_LEN, VnetHeader},
    },
};
use vpnd_micro::{End, MTU, NOW, SEGMENTS, endpoint, small_packet, super_packet, two};

use super::cpu_time::CpuTime;

/// What the benchmarks carry: its name, how many packets it stands for, and what the TUN gives.
fn loads() -> [(&'static str, usize, Vec<u8>); 4] {
    [
        ("one of 64", 1, small_packet(64)),
        ("one of 1420", 1, super_packet(1)),
        ("4 of 1420", 4, super_packet(4)),
        ("44 of 1420", SEGMENTS, super_packet(SEGMENTS)),
    ]
}

/// So many inputs are made before they are used up: enough that reading the clock costs little, and no more than the
/// caches hold.
fn batch(packets: usize) -> BatchSize {
    BatchSize::NumIterations((352 / packets as u64).min(128))
}

const MERGE: Merge = Merge { tcp: true, udp: true };

/// A super-packet is cut into the places of its segments.
pub fn segment(c: &mut Criterion<CpuTime>) {
    let mut group = c.benchmark_group("segment");
    for (name, packets, frame) in loads() {
        let (vnet, packet) = frame.split_first_chunk::<VNET_HEADER_LEN>().expect("a frame has a header");
        let vnet = VnetHeader::parse(vnet).expect("a kind that there is");
        let mut places = vec![vec![0; MTU]; packets];
        group.throughput(Throughput::Elements(packets as u64));
        group.bench_function(BenchmarkId::from_parameter(name), |b| {
            b.iter(|| {
                let header = ip::parse(packet).expect("an IP packet");
                let segmentation = Segmentation::new(&vnet, packet, &header).expect("an honest header");
                for (at, place) in places.iter_mut().enumerate() {
                    segmentation.write(packet, at, &mut place[..segmentation.segment_len(at)]);
                }
            });
        });
    }
    group.finish();
}

/// Packets that were opened become a super-packet.
pub fn coalesce(c: &mut Criterion<CpuTime>) {
    let mut group = c.benchmark_group("coalesce");
    for (name, packets, frame) in loads() {
        let [left, right] = two();
        let mut buffer = sealed(&left, &frame);
        let stride = buffer.len() / packets;
        let places: Vec<_> = buffer
            .chunks_mut(stride)
            .zip(0..)
            .map(|(datagram, at)| open(&right, datagram, at, stride))
            .collect();
        let mut coalescer = Coalescer::default();
        coalescer.allow(MERGE);
        group.throughput(Throughput::Elements(packets as u64));
        group.bench_function(BenchmarkId::from_parameter(name), |b| {
            b.iter_batched_ref(
                || buffer.clone(),
                |buffer| {
                    places.iter().for_each(|place| assert_eq!(coalescer.push(buffer, place.clone()), None));
                    coalescer.finish(buffer).expect("one that is whole")
                },
                batch(packets),
            );
        });
    }
    group.finish();
}

fn open(end: &End, datagram: &mut [u8], at: u64, stride: usize) -> std::ops::Range<usize> {
    let inner = end.session.open(at, &mut datagram[TRANSPORT_HEADER_LEN..]).expect("it is authentic");
    let len = ip::parse(inner).expect("an IP packet").total_len;
    let start = at as usize * stride + TRANSPORT_HEADER_LEN;
    start..start + len
}

/// From what the TUN gave to what the socket is given: look-up, segment, seal.
pub fn outbound(c: &mut Criterion<CpuTime>) {
    let mut group = c.benchmark_group("outbound");
    let [left, _] = two();
    for (name, packets, frame) in loads() {
        let (mut intake, mut carriers) = (Intake::new(), Carriers::new());
        intake.space().expect("an empty intake")[..frame.len()].copy_from_slice(&frame);
        group.throughput(Throughput::Elements(packets as u64));
        group.bench_function(BenchmarkId::from_parameter(name), |b| {
            b.iter(|| depart(&left.forward, &mut intake, frame.len(), &mut carriers));
        });
    }
    group.finish();
}

/// What was read before stays where it is: reading again costs nothing.
fn depart(forward: &Forward, intake: &mut Intake, len: usize, carriers: &mut Carriers) {
    intake.clear();
    carriers.clear();
    let Outbound::Depart(mut departure) = forward.outbound(intake, len, |_| MTU, NOW) else {
        panic!("there is a session");
    };
    assert!(forward.seal(&mut departure, intake, carriers), "all of it fits one send");
}

/// The datagrams that it becomes, behind each other.
fn sealed(left: &End, frame: &[u8]) -> Vec<u8> {
    let (mut intake, mut carriers) = (Intake::new(), Carriers::new());
    intake.space().expect("an empty intake")[..frame.len()].copy_from_slice(frame);
    depart(&left.forward, &mut intake, frame.len(), &mut carriers);
    let mut cargo = carriers.cargo();
    cargo.next().expect("one send").bytes.to_vec()
}

/// From what the socket gave to what the TUN is given: open, replay window, source check, coalesce.
pub fn inbound(c: &mut Criterion<CpuTime>) {
    let mut group = c.benchmark_group("inbound");
    for (name, packets, frame) in loads() {
        let [left, right] = two();
        let mut deliveries = Deliveries::new();
        group.throughput(Throughput::Elements(packets as u64));
        group.bench_function(BenchmarkId::from_parameter(name), |b| {
            b.iter_batched_ref(
                || sealed(&left, &frame),
                |buffer| {
                    let (place, stride) = (0..buffer.len(), buffer.len() / packets);
                    let arrival = Arrival { from: endpoint(), ecn: Ecn::NotEct, place, stride };
                    deliveries.begin(MERGE);
                    right.forward.inbound(&arrival, buffer, &mut deliveries, NOW);
                    assert_eq!(deliveries.finish(buffer).len(), 1, "one write");
                },
                batch(packets),
            );
        });
    }
    group.finish();
}

/// Who looks in the benchmarks of [`watched`].
const LOOKS: [(&str, Option<&str>); 4] =
    [("no question", None), ("nobody", None), ("another flow", Some("udp port 9")), ("this flow", Some(""))];

/// That somebody may look at packets: a batch of one packet and of 44, where that is not asked (as before there was a
/// tap), where nobody does, and where somebody does.
pub fn watched(c: &mut Criterion<CpuTime>) {
    let mut group = c.benchmark_group("watched");
    for (name, packets, frame) in [loads()[0].clone(), loads()[3].clone()] {
        group.throughput(Throughput::Elements(packets as u64));
        for (who, filter) in LOOKS {
            let [left, right] = two();
            let feeds = [&left, &right].map(|end| filter.map(|filter| look_at(end, filter)));
            let asks = who != "no question";
            let (mut intake, mut carriers) = (Intake::new(), Carriers::new());
            intake.space().expect("an empty intake")[..frame.len()].copy_from_slice(&frame);
            group.bench_function(BenchmarkId::new(format!("outbound, {who}"), name), |b| {
                b.iter(|| {
                    depart_watched(&left.forward, &mut intake, frame.len(), &mut carriers, asks);
                    read(&feeds[0]);
                });
            });
            let mut deliveries = Deliveries::new();
            group.bench_function(BenchmarkId::new(format!("inbound, {who}"), name), |b| {
                b.iter_batched_ref(
                    || sealed(&left, &frame),
                    |buffer| {
                        let (place, stride) = (0..buffer.len(), buffer.len() / packets);
                        let arrival = Arrival { from: endpoint(), ecn: Ecn::NotEct, place, stride };
                        arrive_watched(&right.forward, &arrival, buffer, &mut deliveries, asks);
                        read(&feeds[1]);
                    },
                    batch(packets),
                );
            });
        }
    }
    group.finish();
}

fn look_at(end: &End, filter: &str) -> Arc<Feed> {
    let wanted = Wanted {
        filter: filter.parse().expect("a filter"),
        packets: u64::MAX,
        seconds: 1,
        snap: 64,
        each: false,
        handshakes: false,
        secrets: false,
    };
    let feed = Arc::new(Feed::new(wanted, 0, Box::new(|| ())));
    assert!(end.forward.tap.attach(feed.clone()), "there is a place");
    feed
}

/// The reader's part, so that the ring has room.
fn read(feed: &Option<Arc<Feed>>) {
    while feed.as_ref().is_some_and(|feed| feed.pop().is_some()) {}
}

/// As a data thread does it.
fn depart_watched(forward: &Forward, intake: &mut Intake, len: usize, carriers: &mut Carriers, asks: bool) {
    intake.clear();
    carriers.clear();
    let Outbound::Depart(mut departure) = forward.outbound(intake, len, |_| MTU, NOW) else {
        panic!("there is a session");
    };
    let look = asks.then(|| forward.tap.look()).flatten();
    let mut watched = look.map(|look| look.departing(forward, std::slice::from_ref(&departure), intake));
    assert!(forward.seal(&mut departure, intake, carriers), "all of it fits one send");
    if let Some(watched) = &mut watched {
        carriers.cargo().for_each(|cargo| watched.shipped(&cargo, None, NOW));
    }
}

fn arrive_watched(
    forward: &Forward,
    arrival: &Arrival,
    buffer: &mut [u8],
    deliveries: &mut Deliveries,
    asks: bool,
) {
    deliveries.begin(MERGE);
    let look = asks.then(|| forward.tap.look()).flatten();
    let mut watched = look.map(|look| look.arriving(forward));
    match &mut watched {
        None => forward.inbound(arrival, buffer, deliveries, NOW),
        Some(watched) => forward.inbound_observed(arrival, buffer, deliveries, watched, NOW),
    }
    let ready = deliveries.finish(buffer);
    assert_eq!(ready.len(), 1, "one write");
    if let Some(watched) = &mut watched {
        watched.delivered(ready, &[true], NOW);
    }
}
