//! The data loops between real namespaces, with sessions made by hand: what passes, what is answered, what
//! ends them, and that nothing makes them spin.
#![cfg(feature = "daemon")]

mod common;

use std::{
    fs,
    net::{IpAddr, SocketAddr, UdpSocket},
    sync::Arc,
    thread,
    time::Duration,
};

use common::need_root;
use vpnd::{
    forward::{
        AllowedIps, Endpoint, Evidence, Forward, Local, Peer, PeerId, Refusal, Session,
        session::{REKEY_AFTER_TIME, SessionStart},
    },
    lab::{Host, link, tcp_transfer, udp_echo},
    noise::{PublicKey, SessionKeys},
    plane::{Clock, Fatal, Offload, Plane, PlaneSettings, Threads, TunDevice, UdpSockets, udp::Sent},
    tunnel::Transmit,
    wire::{message::Index, outer::Outer},
};

const MTU: u16 = 1420;
const TUN: &str = "vpn0";

/// One end: a host, its loops, and the one peer they know.
struct End {
    plane: Plane,
    forward: Arc<Forward>,
    peer: Arc<Peer>,
    host: Host,
}

/// What distinguishes the two ends.
struct Role {
    letter: char,
    index: u32,
    inner: [&'static str; 2],
    keys: SessionKeys,
}

/// A hand-made session with a peer that owns everything under the tunnel's two prefixes.
fn end(host: Host, role: Role, other: u32) -> End {
    let forward = Forward::new(Box::new(|| {}));
    let peer = Peer::new(PeerId(1), PublicKey([other as u8; 32]), format!("peer of {}", role.letter));
    let start = SessionStart {
        local: Index(role.index),
        remote: Index(other),
        initiator: role.letter == 'a',
        birth: Clock.boot(),
        rekey_after: REKEY_AFTER_TIME,
    };
    let session = Session::new(start, &role.keys);
    forward.sessions.insert(Arc::clone(&session), Arc::clone(&peer));
    assert!(peer.set_current(Some(session), Clock.boot()).is_empty(), "nothing was staged");
    let prefixes = ["10.77.0.0/24", "fd77::/64"].map(|prefix| (prefix.parse().unwrap(), Arc::clone(&peer)));
    forward.routes.store(Arc::new(AllowedIps::build(prefixes)));
    let plane = host.run(|| {
        let (tun, sockets) =
            (TunDevice::create(TUN, MTU, Offload::Auto).unwrap(), UdpSockets::bind(0, 0).unwrap());
        Plane::start(Arc::clone(&forward), tun, sockets, PlaneSettings::new(MTU), Threads::default()).unwrap()
    });
    link::up(&host, TUN).unwrap();
    host.add_address(TUN, &format!("{}/24", role.inner[0])).unwrap();
    host.add_address(TUN, &format!("{}/64", role.inner[1])).unwrap();
    usable(&host, role.inner[1]);
    End { plane, forward, peer, host }
}

/// Two ends on one cable (192.0.2.1 and 2001:db8::1, and .2), inner 10.77.0.1 and fd77::1, and .2. They know
/// nothing of each other's endpoint yet.
fn pair(name: &str) -> (End, End) {
    let [a, b] = ["a", "b"].map(|end| Host::create(&format!("vpnd-plane-{name}-{end}")).unwrap());
    link::veth(&a, "eth0", &b, "eth0").unwrap();
    for (host, v4, v6) in [(&a, "192.0.2.1/24", "2001:db8::1/64"), (&b, "192.0.2.2/24", "2001:db8::2/64")] {
        host.add_address("eth0", v4).unwrap();
        host.add_address("eth0", v6).unwrap();
    }
    usable(&a, "192.0.2.2");
    usable(&a, "2001:db8::2");
    let (ours, theirs) = ([7; 32], [8; 32]);
    let a = end(
        a,
        Role {
            letter: 'a',
            index: 0xa,
            inner: ["10.77.0.1", "fd77::1"],
            keys: SessionKeys { send: ours, receive: theirs },
        },
        0xb,
    );
    let b = end(
        b,
        Role {
            letter: 'b',
            index: 0xb,
            inner: ["10.77.0.2", "fd77::2"],
            keys: SessionKeys { send: theirs, receive: ours },
        },
        0xa,
    );
    (a, b)
}

/// Waits until `host` reaches `address`. The kernel brings up cables and makes an IPv6 address local in its own
/// time, after it has said yes; until then packets to it are lost.
#[track_caller]
fn usable(host: &Host, address: &str) {
    until(address, || host.reaches(ip(address)).is_ok_and(|answered| answered));
}

/// One end alone, for what needs no answer.
fn alone(name: &str) -> End {
    let host = Host::create(&format!("vpnd-plane-{name}")).unwrap();
    let keys = SessionKeys { send: [7; 32], receive: [8; 32] };
    end(host, Role { letter: 'a', index: 0xa, inner: ["10.77.0.1", "fd77::1"], keys }, 0xb)
}

impl End {
    fn call(&self, outer: &str, port: u16) {
        self.peer.set_endpoint(Some(Endpoint { remote: SocketAddr::new(ip(outer), port), local: None }));
    }

    fn refused(&self, what: Refusal) -> (u64, Option<Evidence>) {
        self.forward.refusals.read(what)
    }

    /// Waits for the loops to fail; `None` after a second.
    fn failed(&self) -> Option<Fatal> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime
            .block_on(async { tokio::time::timeout(Duration::from_secs(1), self.plane.failed()).await.ok() })
    }

    /// Processor time of the data threads in this host, in clock ticks (10 ms).
    fn ticks(&self) -> u64 {
        let here = self.host.run(|| fs::read_link("/proc/thread-self/ns/net").unwrap());
        let tasks = fs::read_dir("/proc/self/task").unwrap().map(|task| task.unwrap().path());
        let ours = tasks.filter(|task| {
            fs::read_link(task.join("ns/net")).is_ok_and(|there| there == here)
                && fs::read_to_string(task.join("comm")).is_ok_and(|name| name.starts_with("vpnd-"))
        });
        ours.map(|task| {
            let stat = fs::read_to_string(task.join("stat")).unwrap_or_default();
            let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
            fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
        })
        .sum()
    }

    /// Watches half a second: a thread that spins uses 50 ticks of it, less than 10 is allowed.
    #[track_caller]
    fn does_not_spin(&self) {
        let before = self.ticks();
        thread::sleep(Duration::from_millis(500));
        let used = self.ticks() - before;
        assert!(used < 10, "{used} ticks of 10 ms in half a second");
    }
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// Asks again and again, for two seconds if the question itself takes no time.
#[track_caller]
fn until(what: &str, mut holds: impl FnMut() -> bool) {
    for _ in 0..200 {
        if holds() {
            return;
        }
        thread::sleep(Duration::from_millis(10));
    }
    panic!("never: {what}");
}

#[test]
fn ping_udp_and_tcp_pass_in_each_combination_of_families() {
    if !need_root() {
        return;
    }
    for outer in ["192.0.2.2", "2001:db8::2"] {
        // b learns where a is from a's first packet.
        let (a, b) = pair("pass");
        a.call(outer, b.plane.port());
        for inner in ["10.77.0.2", "fd77::2"] {
            let pings = a.host.ping(ip(inner), 3).unwrap();
            assert_eq!((pings.sent, pings.received), (3, 3), "{inner} in {outer}");
            // 9,000 bytes: more than the MTU, so that the inner packets are fragments.
            for size in [1, 1392, 9000] {
                let echo = udp_echo(&a.host, &b.host, ip(inner), 20, size).unwrap();
                assert_eq!(echo.echoed, echo.sent, "{size} bytes, {inner} in {outer}");
            }
            tcp_transfer(&a.host, &b.host, ip(inner), 5_000_000, Duration::from_secs(20)).unwrap();
            tcp_transfer(&b.host, &a.host, ip(&inner.replace('2', "1")), 1_000_000, Duration::from_secs(20))
                .unwrap();
        }
        assert_eq!(b.peer.endpoint().unwrap().local.map(|local| local.address), Some(ip(outer)));
    }
}

#[test]
fn a_packet_that_no_peer_owns_is_answered_by_icmp() {
    if !need_root() {
        return;
    }
    let a = alone("icmp");
    for (prefix, destination) in [("10.78.0.0/16", "10.78.0.1"), ("fd78::/64", "fd78::1")] {
        a.host.add_route(prefix, None, TUN).unwrap();
        let pings = a.host.ping(ip(destination), 1).unwrap();
        assert_eq!((pings.received, pings.refused), (0, 1), "{destination}");
    }
    // At least: the kernel's own multicast over IPv6 is nobody's, either.
    assert!(a.refused(Refusal::NoPeer).0 >= 2);
    // A peer without an endpoint is another reason, and also heard.
    assert_eq!(a.host.ping(ip("10.77.0.9"), 1).unwrap().refused, 1);
    assert_eq!(a.refused(Refusal::NoEndpoint).1.unwrap().inner, Some(ip("10.77.0.9")));
}

#[test]
fn a_flood_of_packets_that_no_peer_owns_is_not_answered_each() {
    if !need_root() {
        return;
    }
    let a = alone("flood");
    a.host.add_route("10.78.0.0/16", None, TUN).unwrap();
    let socket = a.host.run(|| UdpSocket::bind("10.77.0.1:0").unwrap());
    let before = link::passed(&a.host, TUN).unwrap().rx_packets;
    for n in 0..2000 {
        // An ICMP error that came back may be reported by the next send, which then sends nothing.
        let _ = socket.send_to(b"x", "10.78.0.1:9").or_else(|_| socket.send_to(b"x", "10.78.0.1:9"));
        if n % 100 == 0 {
            thread::sleep(Duration::from_millis(5));
        }
    }
    until("all were read", || a.refused(Refusal::NoPeer).0 >= 1500);
    let answers = link::passed(&a.host, TUN).unwrap().rx_packets - before;
    assert!((1..=300).contains(&answers), "{answers} answers");
}

#[test]
fn a_source_address_that_is_gone_is_forgotten_and_the_packet_still_leaves() {
    if !need_root() {
        return;
    }
    let (a, b) = pair("source");
    for (outer, extra) in [("192.0.2.2", "192.0.2.9/24"), ("2001:db8::2", "2001:db8::9/64")] {
        a.host.add_address("eth0", extra).unwrap();
        let extra_address = extra.split('/').next().unwrap();
        usable(&a.host, extra_address);
        let address = ip(extra_address);
        let remote = SocketAddr::new(ip(outer), b.plane.port());
        let with_extra = Endpoint { remote, local: Some(Local { address, interface: 0 }) };
        a.peer.set_endpoint(Some(with_extra));
        assert_eq!(a.host.ping(ip("10.77.0.2"), 1).unwrap().received, 1);
        assert_eq!(b.peer.endpoint().unwrap().remote.ip(), address);
        link::remove_address(&a.host, "eth0", extra.parse().unwrap()).unwrap();
        // b still answers to the address that is gone, until a speaks from another.
        assert_eq!(a.host.ping(ip("10.77.0.2"), 1).unwrap().received, 1);
        let local = a.peer.endpoint().unwrap().local.map(|local| local.address);
        assert_ne!(local, Some(address));
        assert_ne!(b.peer.endpoint().unwrap().remote.ip(), address);
    }
}

#[test]
fn a_datagram_that_the_kernel_will_not_send_is_counted_with_its_evidence() {
    if !need_root() {
        return;
    }
    let a = alone("unsent");
    a.call("203.0.113.1", 9);
    let pings = a.host.ping(ip("10.77.0.2"), 3).unwrap();
    assert_eq!(pings.received, 0);
    let (count, evidence) = a.refused(Refusal::SendFailed);
    let evidence = evidence.unwrap();
    assert!(count >= 3);
    assert_eq!(evidence.from, Some("203.0.113.1:9".parse().unwrap()));
    assert_eq!((evidence.peer, evidence.key), (Some(a.peer.id), Some(a.peer.public_key)));
    let transmit = Transmit {
        peer: Some(a.peer.id),
        to: a.peer.endpoint().unwrap(),
        outer: Outer::default(),
        datagram: bytes::Bytes::from_static(b"x"),
    };
    let count = a.refused(Refusal::SendFailed).0;
    assert_eq!(a.plane.send(&transmit).unwrap_err().raw_os_error(), Some(libc::ENETUNREACH));
    assert_eq!(a.refused(Refusal::SendFailed).0, count + 1);
}

#[test]
fn the_upper_halfs_datagrams_leave_from_the_port_in_use() {
    if !need_root() {
        return;
    }
    let a = alone("upper");
    let listener = a.host.run(|| UdpSocket::bind("127.0.0.1:0").unwrap());
    listener.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
    let to = Endpoint { remote: listener.local_addr().unwrap(), local: None };
    let transmit =
        Transmit { peer: None, to, outer: Outer::default(), datagram: bytes::Bytes::from_static(b"hello") };
    assert_eq!(a.plane.send(&transmit).unwrap(), Sent::AsAsked);
    let mut buffer = [0; 64];
    let (len, from) = listener.recv_from(&mut buffer).unwrap();
    assert_eq!((&buffer[..len], from.port()), (&b"hello"[..], a.plane.port()));
}

#[test]
fn another_port_is_taken_under_the_running_loops() {
    if !need_root() {
        return;
    }
    let (a, b) = pair("rebind");
    a.call("192.0.2.2", b.plane.port());
    assert_eq!(a.host.ping(ip("10.77.0.2"), 1).unwrap().received, 1);
    let old = a.plane.port();
    for port in [0, 40_001, 40_002] {
        a.host.run(|| a.plane.rebind(port, 0).unwrap());
        assert!(port == 0 || a.plane.port() == port);
        let pings = a.host.ping(ip("10.77.0.2"), 2).unwrap();
        assert_eq!(pings.received, 2, "after the change to {port}");
        assert_eq!(b.peer.endpoint().unwrap().remote.port(), a.plane.port());
    }
    until("the old ports are free again", || {
        a.host.run(|| [old, 40_001].iter().all(|port| UdpSockets::bind(*port, 0).is_ok()))
    });
}

#[test]
fn a_taken_port_leaves_the_old_sockets_in_place() {
    if !need_root() {
        return;
    }
    let (a, b) = pair("keep");
    a.call("192.0.2.2", b.plane.port());
    let taken = a.host.run(|| UdpSocket::bind("0.0.0.0:0").unwrap());
    let old = a.plane.port();
    let error = a.host.run(|| a.plane.rebind(taken.local_addr().unwrap().port(), 0).unwrap_err());
    assert!(error.to_string().contains("is held by process"), "{error}");
    assert_eq!(a.plane.port(), old);
    assert_eq!(a.host.ping(ip("10.77.0.2"), 1).unwrap().received, 1);
    // The port in use is no taken port: only the mark changes.
    a.host.run(|| a.plane.rebind(old, 0x77).unwrap());
    assert_eq!(a.host.ping(ip("10.77.0.2"), 1).unwrap().received, 1);
}

#[test]
fn a_device_deleted_from_outside_ends_both_loops_within_a_second() {
    if !need_root() {
        return;
    }
    let a = alone("deleted");
    link::delete(&a.host, TUN).unwrap();
    let fatal = a.failed().expect("within a second");
    assert!(matches!(&fatal, Fatal::TunGone(what) if what.contains(TUN)), "{fatal}");
    a.does_not_spin();
    until("both threads ended", || a.ticks() == 0);
}

#[test]
fn a_device_whose_namespace_is_deleted_ends_both_loops_within_a_second() {
    if !need_root() {
        return;
    }
    let a = alone("nsgone");
    let elsewhere = Host::create("vpnd-plane-nsgone-b").unwrap();
    let moved = a.host.command("ip").unwrap().args(["link", "set", TUN, "netns", elsewhere.name()]).status();
    assert!(moved.unwrap().success());
    assert!(a.failed().is_none(), "a device in another namespace still is one");
    drop(elsewhere);
    assert!(matches!(a.failed(), Some(Fatal::TunGone(_))));
}

#[test]
fn a_device_set_down_makes_nothing_spin_and_works_again_when_up() {
    if !need_root() {
        return;
    }
    let (a, b) = pair("down");
    a.call("192.0.2.2", b.plane.port());
    assert_eq!(a.host.ping(ip("10.77.0.2"), 1).unwrap().received, 1);
    link::down(&b.host, TUN).unwrap();
    assert_eq!(a.host.ping(ip("10.77.0.2"), 1).unwrap().received, 0);
    assert!(b.refused(Refusal::TunWriteFailed).0 >= 1);
    b.does_not_spin();
    assert!(b.failed().is_none(), "whether that ends the daemon is not the loops' to say");
    link::up(&b.host, TUN).unwrap();
    assert_eq!(a.host.ping(ip("10.77.0.2"), 1).unwrap().received, 1);
}

#[test]
fn idle_loops_use_no_processor_time() {
    if !need_root() {
        return;
    }
    let a = alone("idle");
    let before = a.ticks();
    thread::sleep(Duration::from_millis(500));
    assert!(a.ticks() - before <= 1);
}

#[test]
fn a_stop_ends_the_threads_and_takes_the_device_and_the_port_along() {
    if !need_root() {
        return;
    }
    let End { plane, host, .. } = alone("stop");
    let port = plane.port();
    plane.stop();
    // Not at once: a child that another test starts at this moment holds copies until it has executed.
    until("the device is gone", || link::index(&host, TUN).is_err());
    until("the port is free", || host.run(|| UdpSockets::bind(port, 0).is_ok()));
}
