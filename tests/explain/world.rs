//! One host in a network namespace of its own: three wires and a tunnel device, all of them TUNs whose other ends the
//! test holds, so that every packet that leaves is seen at once; and a tunnel without its daemon.

use std::{
    io::{self, Write as _},
    net::{IpAddr, SocketAddr, UdpSocket},
    process::{Command, Stdio},
    sync::Arc,
    time::Duration,
};

use rand_chacha::ChaCha8Rng;
use rand_core::{Rng, SeedableRng};
use vpnd::{
    control::{InterfaceStatus, Operation, schema::StatusReport},
    explain::Tunnel as Running,
    forward::{Forward, Intake, Outbound, Refusal, Time},
    noise::PrivateKey,
    plane::{Offload, TunDevice, UdpSockets, udp::Payload},
    tunnel::{Change, Now, PeerChange, Timing, Tunnel},
    wire::{checksum::Sum, ip, vnet::VNET_HEADER_LEN},
};

pub const WIRES: [&str; 3] = ["e0", "e1", "e2"];
pub const TUNNEL: &str = "vpn0";
pub const NOW: Now = Now { boot: Time(1_000_000_000_000), wall: Duration::from_secs(1_800_000_000) };
pub const MTU: u16 = 1420;

pub struct World {
    /// The three wires, and the tunnel's device.
    pub devices: Vec<TunDevice>,
    pub sockets: UdpSockets,
    /// Gets what is for this host itself.
    receivers: Vec<UdpSocket>,
    pub port: u16,
    next: u64,
}

/// A packet that left by a device.
#[derive(Clone, Debug)]
pub struct Seen {
    pub device: String,
    pub source: IpAddr,
    /// From the vnet header on.
    pub frame: Vec<u8>,
}

/// What became of a packet that was sent.
#[derive(Debug)]
pub struct Fate {
    pub sent: io::Result<()>,
    pub left: Vec<Seen>,
    pub arrived: bool,
}

/// Runs `ip`, which must succeed.
pub fn ip(arguments: &str) {
    let output = Command::new("ip").args(arguments.split_whitespace()).output().expect("`ip` is installed");
    assert!(output.status.success(), "ip {arguments}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Runs many `ip` commands of one family; some may fail.
pub fn batch(v6: bool, commands: &[String]) {
    let family = if v6 { "-6" } else { "-4" };
    let mut child = Command::new("ip")
        .args([family, "-force", "-batch", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("`ip` is installed");
    let mut input = child.stdin.take().expect("it is piped");
    input.write_all((commands.join("\n") + "\n").as_bytes()).expect("`ip` reads");
    drop(input);
    child.wait().expect("`ip` ends");
}

pub fn sysctl(key: &str, value: &str) {
    let path = format!("/proc/sys/net/{key}");
    std::fs::write(&path, value).unwrap_or_else(|error| panic!("{path}: {error}"));
}

/// The host's address on device `n`; the tunnel's is number 9.
pub fn own(v6: bool, n: usize) -> IpAddr {
    let n = if n == WIRES.len() { 9 } else { n as u8 };
    match v6 {
        false => [10, n, 0, 1].into(),
        true => format!("fd00:{n}::1").parse().expect("an address"),
    }
}

impl World {
    /// In the network namespace of this thread, which is empty.
    pub fn new() -> Self {
        ip("link set lo up");
        let mut devices = Vec::new();
        for (n, name) in WIRES.into_iter().chain([TUNNEL]).enumerate() {
            devices.push(TunDevice::create(name, MTU, Offload::Off).expect("root may make a TUN"));
            ip(&format!("link set {name} addrgenmode none multicast off"));
            ip(&format!("address add {}/24 dev {name}", own(false, n)));
            ip(&format!("-6 address add {}/64 dev {name} nodad", own(true, n)));
            ip(&format!("link set {name} mtu 1500 up"));
        }
        let sockets = UdpSockets::bind(0, 0).expect("a port is free");
        let any: [SocketAddr; 2] = [([0; 4], 0).into(), ([0u16; 8], 0).into()];
        let receiver = |address: SocketAddr, port: u16| {
            let socket =
                socket2::Socket::new(socket2::Domain::for_address(address), socket2::Type::DGRAM, None)
                    .expect("a socket");
            if address.is_ipv6() {
                socket.set_only_v6(true).expect("an option");
            }
            socket.set_nonblocking(true).expect("an option");
            socket.bind(&SocketAddr::new(address.ip(), port).into()).expect("a free port");
            UdpSocket::from(socket)
        };
        let first = receiver(any[0], 0);
        let port = first.local_addr().expect("it is bound").port();
        let receivers = vec![first, receiver(any[1], port)];
        let world = Self { devices, sockets, receivers, port, next: 0 };
        world.settle();
        world
    }

    /// The kernel makes IPv6 addresses local in its own time.
    fn settle(&self) {
        for _ in 0..500 {
            let bound = (0..4).all(|n| UdpSocket::bind((own(true, n), 0)).is_ok());
            if bound {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("the IPv6 addresses do not become local");
    }

    /// A number that no packet had before.
    fn number(&mut self) -> [u8; 8] {
        self.next += 1;
        (0x5eed_0000_0000_0000 | self.next).to_be_bytes()
    }

    /// A program of this host sends a datagram; `from`: it is bound to this address, which the kernel else chooses.
    pub fn send(&mut self, to: SocketAddr, from: Option<IpAddr>, mark: u32, port: u16) -> Fate {
        let number = self.number();
        let any: IpAddr = if to.is_ipv6() { [0; 16].into() } else { [0; 4].into() };
        let socket = UdpSocket::bind((from.unwrap_or(any), port)).expect("an address of this host");
        socket.set_broadcast(true).expect("an option");
        socket2::SockRef::from(&socket).set_mark(mark).expect("root may mark");
        let sent = socket.send_to(&number, to).map(drop);
        self.fate(sent, &number)
    }

    /// Another host's packet comes by a wire.
    pub fn bring(&mut self, wire: usize, from: SocketAddr, to: SocketAddr) -> Fate {
        let number = self.number();
        let frame = datagram(from, to, &number);
        self.devices[wire].write(&frame).expect("the device is up");
        self.fate(Ok(()), &number)
    }

    fn fate(&mut self, sent: io::Result<()>, number: &[u8; 8]) -> Fate {
        let mut left = self.leaving();
        // Not what an ICMP error quotes, and nothing of somebody else.
        left.retain(|seen| seen.frame.ends_with(number) && !is_icmp(&seen.frame));
        let mut buffer = [0; 2048];
        let mut arrived = false;
        for receiver in &self.receivers {
            while let Ok(length) = receiver.recv(&mut buffer) {
                arrived |= buffer[..length] == number[..];
            }
        }
        Fate { sent, left, arrived }
    }

    /// What has left by each device since this was called last.
    pub fn leaving(&self) -> Vec<Seen> {
        let mut buffer = vec![0; 70_000];
        let mut seen = Vec::new();
        for device in &self.devices {
            while let Ok(length) = device.read(&mut buffer) {
                let frame = buffer[..length].to_vec();
                if let Ok(header) = ip::parse(&frame[VNET_HEADER_LEN..]) {
                    seen.push(Seen { device: device.name().to_owned(), source: header.source, frame });
                }
            }
        }
        seen
    }
}

fn is_icmp(frame: &[u8]) -> bool {
    matches!(ip::upper_layer(&frame[VNET_HEADER_LEN..]), Some((ip::ICMP | ip::ICMPV6, _)))
}

/// Behind an empty vnet header.
fn datagram(from: SocketAddr, to: SocketAddr, payload: &[u8]) -> Vec<u8> {
    let length = 8 + payload.len();
    let mut udp = Vec::new();
    for half in [from.port(), to.port(), length as u16, 0] {
        udp.extend(half.to_be_bytes());
    }
    udp.extend(payload);
    let sum = Sum::pseudo_header(from.ip(), to.ip(), ip::UDP) + Sum::word(length as u16) + Sum::of(&udp);
    udp[6..8].copy_from_slice(&sum.finish());
    let mut frame = vec![0; VNET_HEADER_LEN];
    match (from.ip(), to.ip()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            let mut header = vec![0x45, 0, 0, (20 + length) as u8, 0, 0, 0, 0, 64, ip::UDP, 0, 0];
            header.extend(from.octets());
            header.extend(to.octets());
            let sum = Sum::of(&header).finish();
            header[10..12].copy_from_slice(&sum);
            frame.extend(header);
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            frame.extend([0x60, 0, 0, 0, 0, length as u8, ip::UDP, 64]);
            frame.extend(from.octets());
            frame.extend(to.octets());
        }
        _ => panic!("one family"),
    }
    frame.extend(udp);
    frame
}

/// A tunnel whose owner is the test.
pub struct Bare {
    pub tunnel: Tunnel,
    pub forward: Arc<Forward>,
    intake: Intake,
}

impl Bare {
    pub fn new(seed: u64, peers: &[PeerChange]) -> Self {
        let forward = Forward::new(Box::new(|| {}));
        let rng = Box::new(ChaCha8Rng::seed_from_u64(seed));
        let mut tunnel = Tunnel::new(forward.clone(), Timing::default(), rng);
        let key = Change::PrivateKey(Some(PrivateKey::new([7; 32])));
        tunnel.apply(key, NOW).expect("a key");
        for peer in peers {
            tunnel.apply(Change::Peer(peer.clone()), NOW).expect("a peer");
        }
        tunnel.publish();
        Self { tunnel, forward, intake: Intake::new() }
    }

    /// As the daemon would say it, through its own JSON.
    pub fn running(&self, world: &World, fwmark: u32) -> Running {
        let status = InterfaceStatus {
            sandbox: Default::default(),
            name: TUNNEL.to_owned(),
            listen_port: world.sockets.port(),
            fwmark,
            mtu: MTU,
            tunnel: self.tunnel.status(NOW),
            now: NOW.wall,
            operation: Operation::default(),
            boot: NOW.boot,
        };
        let json = serde_json::to_vec(&StatusReport::from(&status)).expect("JSON");
        Running { status: serde_json::from_slice(&json).expect("a report"), user: 0 }
    }

    /// A packet that came to the tunnel's device; the peer that it was staged for, or why not.
    pub fn take(&mut self, frame: &[u8]) -> Result<String, &'static str> {
        let before = Refusal::ALL.map(|what| self.forward.refusals.read(what).0);
        let space = self.intake.space().expect("it is empty");
        space[..frame.len()].copy_from_slice(frame);
        let outcome = self.forward.outbound(&mut self.intake, frame.len(), |len| len, NOW.boot);
        self.intake.clear();
        if let Outbound::Staged = outcome {
            let (peer, raised) = self.forward.pop_raised().expect("a session is wished for");
            self.tunnel.handle_raised(&peer, raised, NOW);
            return Ok(peer.public_key.to_string());
        }
        let counted = Refusal::ALL.into_iter().zip(before);
        let grown = counted.map(|(what, before)| (what, self.forward.refusals.read(what).0 - before));
        let reason = grown.into_iter().find(|(_, more)| *more > 0).map(|(what, _)| what.name());
        Err(reason.unwrap_or("nothing was counted"))
    }

    /// The initiation that follows leaves by the real sockets.
    pub fn call(&mut self, world: &World) -> (io::Result<()>, Vec<Seen>) {
        let transmit = self.tunnel.poll_transmit().expect("an initiation");
        let _ = world.leaving();
        let sent = world.sockets.send(&transmit.to, transmit.outer, Payload::one(&transmit.datagram));
        let mut left = world.leaving();
        left.retain(|seen| seen.frame.ends_with(&transmit.datagram));
        (sent.map(drop), left)
    }
}

/// A number below `bound`.
pub fn below(rng: &mut ChaCha8Rng, bound: usize) -> usize {
    (rng.next_u64() % bound as u64) as usize
}

pub fn one_of<T: Copy>(rng: &mut ChaCha8Rng, of: &[T]) -> T {
    of[below(rng, of.len())]
}

impl Bare {
    /// Its peers are where those of `other` are, and are talked to from the same addresses.
    pub fn with_endpoints_of(self, other: &Self) -> Self {
        for status in other.tunnel.status(NOW).peers {
            for prefix in &status.allowed_ips {
                let find = |forward: &Forward| {
                    forward.routes.load().find(prefix.addr()).map(|(peer, _)| peer.clone())
                };
                let both = find(&self.forward).zip(find(&other.forward));
                if let Some((new, old)) = both.filter(|(_, old)| old.public_key == status.public_key) {
                    new.set_endpoint(old.endpoint());
                }
            }
        }
        self
    }
}
