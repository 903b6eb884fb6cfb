//! What tests know of the keys of a running daemon: its memory, as root reads it, and the other end of a tunnel, which
//! has the same session keys.

#![allow(dead_code, reason = "each test binary takes its part")]

use std::{
    fs::{self, File},
    net::UdpSocket,
    os::unix::fs::FileExt,
    sync::Arc,
    time::Duration,
};

use vpnd::{
    forward::{Session, Time, session::SessionStart},
    lab::Host,
    noise::{
        Identity, PresharedKey, PrivateKey, PublicKey, SessionKeys, Tai64n,
        handshake::{Remote, initiate, open_initiation},
        macs::MacKeys,
    },
    sys::random::os_rng,
    wire::message::{Index, Initiation, Response},
};

pub const PAGE: usize = 4096;

/// What of a process's memory it has ever written: heap, stacks, data. Zero pages are left out.
pub fn memory(pid: u32) -> Vec<Vec<u8>> {
    let maps = fs::read_to_string(format!("/proc/{pid}/maps")).expect("the process runs");
    let memory = File::open(format!("/proc/{pid}/mem")).expect("root may read it");
    let writable =
        maps.lines().filter(|line| line.split(' ').nth(1).is_some_and(|may| may.starts_with("rw")));
    let parts = writable.filter_map(|line| {
        let (from, to) = line.split(' ').next()?.split_once('-')?;
        let [from, to] = [from, to].map(|hex| u64::from_str_radix(hex, 16).expect("hex digits"));
        let mut part = vec![0; usize::try_from(to - from).expect("it fits")];
        memory.read_exact_at(&mut part, from).ok()?;
        let written: Vec<_> = part.chunks(PAGE).filter(|page| **page != [0; PAGE]).collect();
        Some(written.concat())
    });
    parts.collect()
}

/// How often `wanted` stands there.
pub fn count(memory: &[Vec<u8>], wanted: &[u8]) -> usize {
    let start = &wanted[..8];
    let places = |part: &[u8]| {
        let mut found = 0;
        let mut rest = part;
        while let Some(at) = rest.iter().position(|byte| *byte == start[0]) {
            rest = &rest[at..];
            found += usize::from(rest.starts_with(wanted));
            rest = &rest[1..];
        }
        found
    };
    memory.iter().map(|part| places(part)).sum()
}

/// Where the daemon is.
const DAEMON: &str = "192.0.2.1:51820";

/// The end of a tunnel in this test: it knows the keys that the daemon has.
pub struct Other {
    socket: UdpSocket,
    remote: Remote,
    preshared: PresharedKey,
    stamp: u64,
}

/// A session of both, and its keys.
pub struct Known {
    pub keys: [[u8; 32]; 2],
    /// The ephemeral public key of the daemon.
    pub ephemeral: [u8; 32],
    session: Arc<Session>,
}

impl Other {
    const NOTHING: usize = 9000;

    pub fn new(host: &Host, own: PrivateKey, daemon: PublicKey, preshared: PresharedKey) -> Self {
        let socket = host.run(|| UdpSocket::bind(("0.0.0.0", 51820))).expect("the port is free");
        socket.set_read_timeout(Some(Duration::from_millis(500))).expect("a time-out");
        let remote = Remote::new(Identity::new(own), daemon);
        Self { socket, remote, preshared, stamp: 1_900_000_000 }
    }

    fn send(&self, datagram: &[u8]) {
        self.socket.send_to(datagram, DAEMON).expect("it can be sent");
    }

    /// The next message of this length.
    #[track_caller]
    fn next(&self, length: usize) -> Vec<u8> {
        let mut buffer = vec![0; 2048];
        for _ in 0..60 {
            match self.socket.recv(&mut buffer) {
                Ok(found) if found == length => return buffer[..length].to_vec(),
                _ => {}
            }
        }
        panic!("no message of {length} bytes came");
    }

    fn known(&self, keys: &SessionKeys, ephemeral: [u8; 32], remote: Index, initiator: bool) -> Known {
        let start = SessionStart {
            local: Index(7),
            remote,
            initiator,
            birth: Time(1),
            rekey_after: Duration::from_secs(120),
        };
        Known { keys: [keys.send, keys.receive], ephemeral, session: Session::new(start, keys) }
    }

    /// A handshake that we begin, and the packet that proves us.
    pub fn call(&mut self) -> Known {
        self.stamp += 1;
        let stamp = Tai64n::from_unix(Duration::from_secs(self.stamp));
        let (pending, initiation) =
            initiate(&self.remote, Index(7), stamp, &mut os_rng()).expect("honest keys");
        let mut bytes = initiation.to_bytes();
        MacKeys::new(self.remote.public_key()).fill(&mut bytes, None);
        self.send(&bytes);
        let response = Response::parse(&self.next(92)).expect("a response");
        let keys = pending.read_response(&self.remote, &self.preshared, &response).expect("ours");
        let known = self.known(&keys, response.ephemeral, response.sender, true);
        self.say_something(&known);
        known
    }

    /// A handshake that the daemon begins.
    pub fn answer(&mut self) -> Known {
        let initiation = Initiation::parse(&self.next(148)).expect("an initiation");
        let opened = open_initiation(self.remote.local(), &initiation).expect("to us");
        let authentic = opened.authenticate(&self.remote).expect("from the daemon");
        let (response, keys) =
            authentic.respond(&self.remote, &self.preshared, Index(7), &mut os_rng()).expect("honest keys");
        let mut bytes = response.to_bytes();
        MacKeys::new(self.remote.public_key()).fill(&mut bytes, None);
        self.send(&bytes);
        let known = self.known(&keys, initiation.ephemeral, initiation.sender, false);
        self.say_something(&known);
        known
    }

    /// An authentic packet of this session.
    fn say_something(&self, known: &Known) {
        self.send(&known.session.seal(&[], Self::NOTHING, Time(1)).expect("the session is young"));
    }
}
