//! One peer floods the others' gateway with authentic data, as fast as its own end can seal: the others are still
//! served, and a new one still comes in. All ends have the same means: where a flood comes three times as fast as the
//! gateway can receive, the kernel's queue, which is one for all peers, loses two of three datagrams of everybody.

use std::{
    net::{IpAddr, UdpSocket},
    os::fd::AsFd,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use vpnd::{
    lab::{Daemon, Host, Ping, Setup, link, tcp_transfer},
    noise::PrivateKey,
    sys::{
        poll::{self, Interest},
        random::os_rng,
        socket::{self, Beside},
    },
};

use crate::{
    common::{need_root, program},
    world::{DEVICE, NodeFile, PORT, PeerText, as_in_matrix, carries, sh, wait_until},
};

/// The gateway's peers.
const FLOODS: usize = 1;
const TALKS: usize = 2;
const COMES: usize = 3;

/// A flood ends by itself, should the test hang.
const LIMIT: Duration = Duration::from_secs(400);

/// A host with its vpnd, when that runs.
struct End {
    host: Host,
    daemon: Option<Daemon>,
}

/// A gateway (10.77.0.100) and three peers (10.77.0.1 to .3), each on a cable of its own.
struct Star {
    ends: Vec<End>,
    /// Lines for the file of each.
    interface: String,
    keys: Vec<PrivateKey>,
    name: String,
}

impl Star {
    fn new(name: &str, interface: &str) -> Self {
        let host = |n: usize| Host::create(&format!("vpnd-{name}-{n}")).expect("a namespace");
        let ends: Vec<_> = (0..4).map(|n| End { host: host(n), daemon: None }).collect();
        for (n, end) in ends.iter().enumerate().skip(1) {
            let cable = format!("eth{n}");
            link::veth(&ends[0].host, &cable, &end.host, "eth0").expect("a cable");
            for (host, device, number) in [(&ends[0].host, cable.as_str(), 100), (&end.host, "eth0", n)] {
                host.add_address(device, &format!("192.0.{n}.{number}/24")).expect("an address");
                link::up(host, device).expect("the cable comes up");
            }
            carries(&end.host, &ends[0].host, [format!("192.0.{n}.100").as_str()]);
        }
        let keys = (0..4).map(|_| PrivateKey::generate(&mut os_rng())).collect();
        let mut star = Self { ends, interface: interface.to_owned(), keys, name: name.to_owned() };
        let peers: String = (1..4).map(|n| star.peer(n, None, n).toml()).collect();
        star.start(0, 100, &peers);
        for n in [FLOODS, TALKS] {
            star.join(n);
            assert!(star.reaches_gateway(n), "{}", star.said());
        }
        star
    }

    fn peer(&self, whose: usize, endpoint: Option<(IpAddr, u16)>, address: usize) -> PeerText<'static> {
        PeerText {
            key: self.keys[whose].public_key(),
            preshared: None,
            endpoint,
            allowed_ips: vec![format!("10.77.0.{address}/32")],
            keepalive: 0,
        }
    }

    fn start(&mut self, n: usize, address: usize, peers: &str) {
        let address = [format!("10.77.0.{address}/24")];
        let file = NodeFile {
            private: &self.keys[n],
            address: &address,
            mtu: 1420,
            interface: &self.interface,
            peers,
        };
        let setup = Setup::new(program::daemon(), as_in_matrix(&file.toml()));
        let daemon = Daemon::start(&self.ends[n].host, &setup);
        self.ends[n].daemon = Some(daemon.unwrap_or_else(|error| panic!("vpnd does not start: {error}")));
    }

    /// A peer's daemon starts.
    fn join(&mut self, n: usize) {
        let endpoint = format!("192.0.{n}.100").parse().expect("an address");
        let gateway = self.peer(0, Some((endpoint, PORT)), 100).toml();
        self.start(n, n, &gateway);
    }

    /// Within ten seconds.
    fn reaches_gateway(&self, n: usize) -> bool {
        let answered = || self.ends[n].host.reaches(gateway()).is_ok_and(|answered| answered);
        wait_until(Duration::from_secs(10), answered)
    }

    /// Bytes that the gateway has received from a peer.
    fn received_from(&self, n: usize) -> u64 {
        let status = self.ends[0].daemon.as_ref().expect("it runs").status(DEVICE).expect("a status");
        let key = self.keys[n].public_key().to_string();
        let peers = status["peers"].as_array().expect("a list");
        let peer = peers.iter().find(|peer| peer["public_key"] == key.as_str()).expect("it is configured");
        peer["rx_bytes"].as_u64().expect("a count")
    }

    /// Where what was lost may have been lost.
    fn said(&self) -> String {
        let look = "ip -s link show; nstat -asz | grep -i udp; cat /proc/net/udp";
        let ends = self.ends.iter().map(|end| {
            let log = end.daemon.as_ref().map(|daemon| daemon.log()).unwrap_or_default();
            format!("{}:\n{}\n{log}", end.host.name(), sh(&end.host, look))
        });
        ends.collect()
    }

    /// Runs `work` while the first peer floods, with what it is given to do that to the star.
    fn flooded<T>(&mut self, work: impl FnOnce(&mut Self) -> T) -> T {
        let target = self.ends[0].host.run(|| UdpSocket::bind((gateway(), 0))).expect("a port");
        let to = target.local_addr().expect("it is bound");
        let from = self.ends[FLOODS].host.run(|| UdpSocket::bind("0.0.0.0:0")).expect("a socket");
        let over = AtomicBool::new(false);
        thread::scope(|scope| {
            let flood = scope.spawn(|| {
                let train = vec![7; 40 * 1200];
                let mut trains = 0_u64;
                let begin = Instant::now();
                while !over.load(Ordering::Acquire) && begin.elapsed() < LIMIT {
                    let beside = Beside { segment: Some(1200), ..Beside::default() };
                    match socket::send(from.as_fd(), &to, beside, &train) {
                        Ok(()) => trains += 1,
                        Err(_) => {
                            let room = [Some((from.as_fd(), Interest::Write))];
                            poll::wait(room, Some(Duration::from_millis(10))).expect("poll works");
                        }
                    }
                }
                (trains * 40 * 1200, begin.elapsed())
            });
            let before = self.received_from(FLOODS);
            let flows =
                wait_until(Duration::from_secs(20), || self.received_from(FLOODS) > before + 10_000_000);
            let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                assert!(flows, "there is no flood: {}", self.said());
                let (before, begin) = (self.received_from(FLOODS), Instant::now());
                let done = work(self);
                // However short that was, there was a flood before, and there is one behind it.
                let goes_on = || self.received_from(FLOODS) > before + 1_000_000;
                assert!(wait_until(Duration::from_secs(20), goes_on), "the flood ended: {}", self.said());
                let received = self.received_from(FLOODS) - before;
                let seconds = begin.elapsed().as_secs_f64();
                println!("{}: {:.0} Mbit/s of it arrived", self.name, received as f64 * 8e-6 / seconds);
                done
            }));
            over.store(true, Ordering::Release);
            let (sent, time) = flood.join().expect("it only sends");
            println!("{}: {:.0} Mbit/s were sent", self.name, sent as f64 * 8e-6 / time.as_secs_f64());
            done.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }
}

fn gateway() -> IpAddr {
    [10, 77, 0, 100].into()
}

/// As it comes, one worker, four, and one packet a system call.
const KINDS: [(&str, &str); 4] = [
    ("fair", "workers = \"auto\""),
    ("fair1", "workers = 1"),
    ("fair4", "workers = 4"),
    ("fairoff", "workers = 1\noffload = \"off\""),
];

#[test]
fn a_flood_from_one_peer_starves_neither_the_pings_nor_the_tcp_of_another() {
    if !need_root() {
        return;
    }
    for (name, interface) in KINDS {
        let mut star = Star::new(name, interface);
        star.flooded(|star| {
            let (hub, talker) = (&star.ends[0].host, &star.ends[TALKS].host);
            let (patience, interval) = (Duration::from_secs(5), Duration::from_millis(20));
            let ping = Ping { count: 15, patience, interval, ..Ping::to(gateway()) };
            let pings = talker.ping_with(&ping).expect("ping runs");
            println!("{name}: {pings:?}");
            assert!(pings.received >= 10, "{pings:?}\n{}", star.said());
            let limit = Duration::from_secs(100);
            for (from, to, address) in [(talker, hub, gateway()), (hub, talker, [10, 77, 0, 2].into())] {
                let transfer = tcp_transfer(from, to, address, 300_000, limit);
                let transfer = transfer.unwrap_or_else(|error| panic!("{error}\n{}", star.said()));
                println!("{name}: {:.1} Mbit/s of TCP", transfer.megabits_per_second());
                assert!(transfer.intact);
            }
        });
    }
}

#[test]
fn a_new_peer_is_connected_within_ten_seconds_while_another_floods() {
    if !need_root() {
        return;
    }
    for (name, interface) in KINDS {
        let mut star = Star::new(&format!("new-{name}"), interface);
        star.flooded(|star| {
            let begin = Instant::now();
            star.join(COMES);
            assert!(star.reaches_gateway(COMES), "{}", star.said());
            println!("{name}: connected after {:?}", begin.elapsed());
            let refusals = star.ends[0].daemon.as_ref().expect("it runs").status(DEVICE).expect("a status");
            let full = refusals["refusals"].as_array().expect("a list").iter();
            assert_eq!(full.filter(|one| one["reason"] == "handshake_queue_full").count(), 0);
        });
    }
}
