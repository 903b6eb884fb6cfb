//! Somebody listens on the wire: WireGuard, and not one clear byte.

use std::{
    io::{Read, Write},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    process::Command,
    thread,
    time::Duration,
};

use vpnd::lab::{Host, Process, link};

use crate::{
    common::need_root,
    world::{DEVICE, Outer, PORT, Pair, Spec, sh, wait_until},
};

/// What both ends say to each other, over and over.
const SECRET: &[u8] = b"the-eagle-lands-at-noon/";
const BULK: usize = 400_000;

/// tcpdump on a device, into a file.
struct Tap<'a> {
    host: &'a Host,
    device: &'a str,
    process: Process,
    file: std::path::PathBuf,
    /// What had passed the device before.
    before: link::Passed,
}

impl<'a> Tap<'a> {
    fn start(host: &'a Host, device: &'a str) -> Self {
        let file = host.folder().join(format!("{device}.pcap"));
        let mut command = Command::new("tcpdump");
        command.args([
            "-i",
            device,
            "-s",
            "2048",
            "-B",
            "16384",
            "--immediate-mode",
            "-U",
            "-Z",
            "root",
            "-w",
        ]);
        let process = host
            .spawn(&format!("tap-{device}"), {
                command.arg(&file);
                command
            })
            .expect("tcpdump is there");
        let listens = wait_until(Duration::from_secs(10), || process.log().contains("listening on"));
        assert!(listens, "{}", process.log());
        let before = link::passed(host, device).expect("counters");
        Self { host, device, process, file, before }
    }

    /// Every frame that passed since the start: tcpdump may be behind, and what it has not read when it is ended
    /// is lost.
    fn finish(mut self) -> Vec<Vec<u8>> {
        let mut seen = Vec::new();
        let all = wait_until(Duration::from_secs(20), || {
            let passed = link::passed(self.host, self.device).expect("counters") - self.before;
            seen = frames(&std::fs::read(&self.file).unwrap_or_default());
            seen.len() as u64 >= passed.rx_packets + passed.tx_packets
        });
        assert!(all, "tcpdump saw {} frames and no more: {}", seen.len(), self.process.log());
        self.process.terminate(Duration::from_secs(10)).expect("tcpdump ends");
        seen
    }
}

/// The records of a pcap file in this machine's byte order: a header of 24 bytes; each record has 16, of which the
/// third word is its length.
fn frames(file: &[u8]) -> Vec<Vec<u8>> {
    let mut rest = file.get(24..).unwrap_or_default();
    let mut frames = Vec::new();
    while let Some(length) = rest.get(8..12) {
        let length = u32::from_ne_bytes(length.try_into().expect("four bytes")) as usize;
        let Some(frame) = rest.get(16..16 + length) else { break }; // still being written
        frames.push(frame.to_vec());
        rest = &rest[16 + length..];
    }
    frames
}

fn contains(frame: &[u8], needle: &[u8]) -> bool {
    frame.windows(needle.len()).any(|part| part == needle)
}

/// What may be seen on the wire.
#[derive(Debug, PartialEq, Eq)]
enum Seen {
    /// One of the four messages, by its type.
    WireGuard(u8),
    /// ARP, neighbour discovery, router solicitation, MLD: the cable's own.
    Housekeeping,
    Other,
}

fn look(frame: &[u8]) -> Seen {
    let Some((header, packet)) = frame.split_at_checked(14) else { return Seen::Other };
    let (protocol, behind) = match (u16::from_be_bytes([header[12], header[13]]), packet) {
        (0x0806, _) => return Seen::Housekeeping,
        (0x0800, [0x45, _, ..]) => (packet.get(9).copied(), packet.get(20..)),
        (0x86dd, [first, ..]) if first >> 4 == 6 => match packet.get(6) {
            Some(0) => (packet.get(40).copied(), packet.get(48..)), // hop-by-hop, of MLD
            next => (next.copied(), packet.get(40..)),
        },
        _ => return Seen::Other,
    };
    match (protocol, behind) {
        (Some(58), Some([133..=136 | 143, ..])) => Seen::Housekeeping,
        (Some(17), Some(udp)) => wireguard(udp).map_or(Seen::Other, Seen::WireGuard),
        _ => Seen::Other,
    }
}

/// A UDP segment from port to port of the tunnel, in the exact shape of a message.
fn wireguard(udp: &[u8]) -> Option<u8> {
    let (ports, message) = (udp.get(..4)?, udp.get(8..)?);
    let expected = [PORT.to_be_bytes(), PORT.to_be_bytes()].concat();
    let [kind, 0, 0, 0, ..] = *message else { return None };
    let length_fits = match kind {
        1 => message.len() == 148,
        2 => message.len() == 92,
        3 => message.len() == 64,
        // Padded to 16, but never beyond the MTU.
        4 => message.len() >= 32 && (message.len() % 16 == 0 || message.len() == 1420 + 32),
        _ => false,
    };
    (ports == expected && length_fits).then_some(kind)
}

/// TCP that says the secret, from one host to the other.
fn tell(from: &Host, to: &Host, address: IpAddr) {
    let listener = to.run(|| TcpListener::bind((address, 0))).expect("a port");
    let target = listener.local_addr().expect("it is bound");
    let words = SECRET.repeat(BULK / SECRET.len());
    thread::scope(|scope| {
        scope.spawn(|| {
            let limit = Duration::from_secs(10);
            let mut stream = from.run(|| TcpStream::connect_timeout(&target, limit)).expect("it connects");
            stream.write_all(&words).expect("it takes it all");
        });
        let (mut stream, _) = listener.accept().expect("a connection");
        stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a time-out can be set");
        let mut heard = Vec::new();
        stream.read_to_end(&mut heard).expect("it arrives");
        assert!(heard == words, "what arrived is not what was said");
    });
}

/// One datagram that says the secret.
fn whisper(from: &Host, to: &Host, address: IpAddr) {
    let ear = to.run(|| UdpSocket::bind((address, 0))).expect("a port");
    ear.set_read_timeout(Some(Duration::from_secs(5))).expect("a time-out can be set");
    let any: SocketAddr = if address.is_ipv4() { ([0; 4], 0).into() } else { ([0; 16], 0).into() };
    let mouth = from.run(|| UdpSocket::bind(any)).expect("a port");
    mouth.send_to(SECRET, ear.local_addr().expect("it is bound")).expect("it is sent");
    let mut heard = [0; 64];
    let length = ear.recv(&mut heard).expect("it arrives");
    assert_eq!(&heard[..length], SECRET);
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    }
}

#[test]
fn on_the_wire_is_wireguard_and_not_one_clear_byte() {
    if !need_root() {
        return;
    }
    for outer in [Outer::V4, Outer::V6] {
        let pair = Pair::start("wiretap", &Spec { outer, ..Spec::default() });
        let [left, right] = [&pair.left, &pair.right];
        // The kernel cuts what leaves together before it is on the wire, as it does for a card that cannot.
        for node in [left, right] {
            sh(&node.host, "ip link set eth0 gso_max_segs 1");
        }
        let (wire, inside) = (Tap::start(&left.host, "eth0"), Tap::start(&left.host, DEVICE));
        for address in [right.inner4, right.inner6] {
            left.ping(address, 2);
            whisper(&left.host, &right.host, address);
            tell(&left.host, &right.host, address);
        }
        tell(&right.host, &left.host, left.inner4);
        let (wire, inside) = (wire.finish(), inside.finish());

        // The same search finds the words where they are clear.
        let said = inside.iter().filter(|packet| contains(packet, SECRET)).count();
        // Inside they may be super-packets.
        assert!(said > 3 * BULK / 65_536, "{said} packets in the tunnel say it");
        for frame in &wire {
            let seen = look(frame);
            let start = &frame[..frame.len().min(100)];
            assert_ne!(seen, Seen::Other, "{start:02x?}");
            assert!(!contains(frame, SECRET), "{seen:?} says it: {start:02x?}");
            // Neither pings, nor who talks to whom.
            for (from, to) in [(left, right), (right, left)] {
                for (from, to) in [(from.inner4, to.inner4), (from.inner6, to.inner6)] {
                    let names = contains(frame, &[octets(from), octets(to)].concat());
                    assert!(!names, "{seen:?} names {from} and {to}: {start:02x?}");
                }
            }
            assert!(!contains(frame, vpnd::lab::MARK), "{start:02x?}");
        }
        let count = |kind| wire.iter().filter(|frame| look(frame) == Seen::WireGuard(kind)).count();
        assert_eq!((count(1), count(2)), (1, 1));
        assert!(count(4) >= said, "{} data messages for {said} packets", count(4));
    }
}
