//! Ten thousand peers that come back at the same moment, a million endpoint changes, a million sources: the peers are
//! played by hand, each with an address of its own.

use std::{
    collections::HashMap,
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket},
    os::fd::AsFd,
    sync::Arc,
    time::{Duration, Instant},
};

use vpnd::{
    forward::{
        Session,
        session::{REKEY_AFTER_TIME, SessionStart},
    },
    lab::{Host, link},
    noise::{
        Identity, PresharedKey, PrivateKey, PublicKey, Tai64n,
        handshake::{Initiating, Remote, initiate},
        macs::{Cookie, MacKeys},
    },
    plane::Clock,
    sys::{
        random::os_rng,
        socket::{self, Beside, Own, enable_pktinfo_v4, force_receive_buffer},
    },
    wire::message::{CookieReply, Index, Response},
};

use crate::{
    Torment,
    dice::Dice,
    field::memory_kb,
    flood::{Aim, Rein, Sources, flood},
    payload::Strangers,
    report::Figure,
    world::{Node, PORT, carries, sh, wait_until},
};

/// A peer played by hand.
struct Caller {
    address: Ipv4Addr,
    remote: Remote,
    pending: Option<Initiating>,
    mac1: [u8; 16],
    cookie: Option<Cookie>,
    initiations: u32,
    /// When it tries again.
    due: Duration,
    session: Option<Arc<Session>>,
}

/// Where caller `n` is.
fn address(n: usize) -> Ipv4Addr {
    Ipv4Addr::from_bits(0xc612_0000 + 256 + n as u32)
}

/// All of them on one host, with one socket.
struct Crowd {
    callers: Vec<Caller>,
    numbers: HashMap<IpAddr, usize>,
    socket: UdpSocket,
    to: SocketAddr,
    macs: MacKeys,
}

impl Crowd {
    fn new(host: &Host, keys: Vec<PrivateKey>, victim: PublicKey, to: SocketAddr) -> Self {
        sh(host, "ip route add local 198.18.0.0/15 dev lo");
        let socket = host.run(|| UdpSocket::bind(("0.0.0.0", PORT))).expect("a port");
        enable_pktinfo_v4(socket.as_fd()).expect("an option");
        force_receive_buffer(socket.as_fd(), 32 << 20).expect("root may have a large buffer");
        let caller = |(n, key): (usize, PrivateKey)| Caller {
            address: address(n),
            remote: Remote::new(Identity::new(key), victim),
            pending: None,
            mac1: [0; 16],
            cookie: None,
            initiations: 0,
            due: Duration::ZERO,
            session: None,
        };
        let callers: Vec<_> = keys.into_iter().enumerate().map(caller).collect();
        let numbers = (0..callers.len()).map(|n| (IpAddr::V4(address(n)), n)).collect();
        Self { callers, numbers, socket, to, macs: MacKeys::new(&victim) }
    }

    /// An initiation of each that is due; made before it is sent, so that all leave in one burst.
    fn call(&mut self, now: Duration) {
        let mut burst = Vec::new();
        for (n, caller) in self.callers.iter_mut().enumerate() {
            if caller.session.is_some() || caller.due > now {
                continue;
            }
            let wall = Tai64n::from_unix(Clock.now().wall);
            let (pending, message) =
                initiate(&caller.remote, Index(n as u32), wall, &mut os_rng()).expect("honest keys");
            let mut bytes = message.to_bytes();
            caller.mac1 = self.macs.fill(&mut bytes, caller.cookie.as_ref());
            (caller.pending, caller.initiations) = (Some(pending), caller.initiations + 1);
            // REKEY_TIMEOUT and its jitter.
            caller.due = now + Duration::from_millis(5000 + (n as u64 * 7919) % 333);
            burst.push((caller.address, bytes));
        }
        for (from, bytes) in burst {
            self.send(from, &bytes);
        }
    }

    fn send(&self, from: Ipv4Addr, bytes: &[u8]) {
        let own = Own { address: from.into(), interface: 0 };
        let beside = Beside { own: Some(own), ..Beside::default() };
        let _a_full_buffer_is_loss = socket::send(self.socket.as_fd(), &self.to, beside, bytes);
    }

    /// Takes what came; true if there was something.
    fn listen(&mut self) -> bool {
        let mut buffer = [0; 256];
        let received = match socket::receive(self.socket.as_fd(), &mut buffer) {
            Ok(received) => received,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return false,
            Err(_) => return true,
        };
        let Some(&n) = received.own.and_then(|own| self.numbers.get(&own.address)) else { return true };
        let bytes = &buffer[..received.len];
        if let Ok(response) = Response::parse(bytes) {
            self.answered(n, &response);
        } else if let Ok(reply) = CookieReply::parse(bytes) {
            let caller = &mut self.callers[n];
            caller.cookie = self.macs.open_cookie(&reply, &caller.mac1).or(caller.cookie);
        }
        true
    }

    /// It is up, and says so by a keepalive.
    fn answered(&mut self, n: usize, response: &Response) {
        let caller = &mut self.callers[n];
        let keys = caller.pending.as_ref().and_then(|pending| {
            pending.read_response(&caller.remote, &PresharedKey::default(), response).ok()
        });
        let Some(keys) = keys else { return };
        let start = SessionStart {
            local: response.receiver,
            remote: response.sender,
            initiator: true,
            birth: Clock.boot(),
            rekey_after: REKEY_AFTER_TIME,
        };
        let session = Session::new(start, &keys);
        let keepalive = session.seal(&[], 0, Clock.boot()).expect("a new session");
        (caller.pending, caller.session) = (None, Some(session));
        self.send(self.callers[n].address, &keepalive);
    }

    fn up(&self) -> usize {
        self.callers.iter().filter(|caller| caller.session.is_some()).count()
    }

    /// Until all are up, or this long.
    fn connect(&mut self, limit: Duration) -> Duration {
        let begin = Instant::now();
        while self.up() < self.callers.len() && begin.elapsed() < limit {
            self.call(begin.elapsed());
            let heard = Instant::now();
            while heard.elapsed() < Duration::from_millis(50) {
                if !self.listen() {
                    std::thread::sleep(Duration::from_millis(1));
                }
            }
        }
        begin.elapsed()
    }
}

/// Peers in a file: the number tells the address.
fn peer(n: usize, key: &PublicKey) -> String {
    let [low, middle] = [n & 255, n >> 8];
    format!("[[peer]]\npublic_key = \"{key}\"\nallowed_ips = [\"10.99.{middle}.{low}/32\"]\n")
}

pub fn crowd(torment: &Torment) -> Vec<Figure> {
    let count = torment.count(10_000, 200) as usize;
    let victim = Host::create("vpnd-crowd-v").expect("a namespace");
    let host = Host::create("vpnd-crowd-a").expect("a namespace");
    link::veth(&victim, "eth0", &host, "eth0").expect("a cable");
    victim.add_address("eth0", "203.0.113.1/30").expect("an address");
    host.add_address("eth0", "203.0.113.2/30").expect("an address");
    carries(&host, &victim, ["203.0.113.1"]);
    let gateway = "203.0.113.2".parse().expect("an address");
    victim.add_route("198.18.0.0/15", Some(gateway), "eth0").expect("a route");
    for device in ["all", "eth0"] {
        victim.sysctl(&format!("ipv4.conf.{device}.rp_filter"), "0").expect("a setting");
        host.sysctl(&format!("ipv4.conf.{device}.rp_filter"), "0").expect("a setting");
    }
    let keys: Vec<_> = (0..count).map(|_| PrivateKey::generate(&mut os_rng())).collect();
    let peers: String = keys.iter().enumerate().map(|(n, key)| peer(n, &key.public_key())).collect();
    let node = Node::on(victim, "", &peers);
    let to = SocketAddr::new("203.0.113.1".parse().expect("an address"), PORT);
    let mut crowd = Crowd::new(&host, keys, node.key(), to);
    let took = crowd.connect(Duration::from_secs(60));
    let (up, most) = (crowd.up(), crowd.callers.iter().map(|caller| caller.initiations).max().unwrap_or(0));
    let refused =
        ["cookie_wanted", "handshake_queue_full", "rate_limited"].map(|reason| node.refused(reason));
    let [asked, full, limited] = refused;
    let mut figures = vec![
        Figure::hard(
            format!("{count} peers that call at the same moment, all up"),
            "≤ 30 s",
            format!("{up} after {:.1} s", took.as_secs_f64()),
            up == count && took <= Duration::from_secs(30),
        ),
        Figure::hard(
            "initiations of a peer",
            "≤ 2",
            format!("{most} at most; {asked} cookies, {full} found the queue full, {limited} rate-limited"),
            most <= 2,
        ),
    ];
    figures.extend(memory(torment, &node, &host, &crowd));
    figures
}

/// What a million of something cost in memory.
fn memory(torment: &Torment, node: &Node, host: &Host, crowd: &Crowd) -> Vec<Figure> {
    let session = crowd.callers[0].session.clone().expect("it is up");
    let strangers = Strangers::calling(&node.key(), 1024);
    let most = torment.count(1_000_000, 20_000);
    let aim = Aim {
        to: crowd.to,
        sources: Sources::Any,
        rate: 50_000.0,
        most,
        limit: Duration::from_secs(120),
        seed: torment.seed,
    };
    let key = crowd.callers[0].remote.local().public_key();
    let roam = |_: &mut Dice<'_>, bytes: &mut Vec<u8>| {
        bytes.extend(session.seal(&[], 0, Clock.boot()).unwrap_or_default());
    };
    let call = |dice: &mut Dice<'_>, bytes: &mut Vec<u8>| strangers.write(dice, bytes);
    let run = |content: &(dyn Fn(&mut Dice<'_>, &mut Vec<u8>) + Sync), most: u64| {
        flood(host, &Aim { most, ..aim }, content, &Rein::default()).expect("it can be sent").count
    };
    let calm = || {
        wait_until(Duration::from_secs(10), || node.status()["under_load"] == false);
        memory_kb(node.pid())
    };
    let mut figures = Vec::new();
    let names: [(&str, &(dyn Fn(&mut Dice<'_>, &mut Vec<u8>) + Sync)); 2] =
        [("endpoint changes of a peer", &roam), ("sources that call", &call)];
    for (name, content) in names {
        run(content, most / 10); // what it allocates once
        let before = calm();
        let sent = run(content, most);
        let after = calm();
        let change = (after as f64 / before as f64 - 1.0) * 100.0;
        let what = format!("RSS over {sent} {name}");
        let reached = format!("{change:+.1} % of {before} kB");
        let figure = Figure::hard(what, "± 2 %", reached, change.abs() <= 2.0);
        // Of a few thousand, what is allocated once is more than a fiftieth part.
        figures.push(Figure { speed: !torment.is_full(), ..figure });
    }
    let moved = node.shown("endpoints", key);
    figures.push(Figure::hard("the endpoint followed", "198.18…", &moved, moved.starts_with("198.1")));
    figures
}
