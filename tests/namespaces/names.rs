//! Endpoint names: what the host's files and name servers say, when they say it, and when it changes.

use std::{
    fs,
    net::{IpAddr, UdpSocket},
    path::PathBuf,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use vpnd::{
    lab::{Daemon, Host, Setup},
    noise::PrivateKey,
    sys::random::os_rng,
};

use crate::{
    common::{need_root, program},
    world::{
        DEVICE, Kind, Node, NodeFile, PORT, PeerText, Running, as_in_matrix, cable, sh, start_vpnd,
        wait_until,
    },
};

const NAME: &str = "vpn.test";
const LONG: Duration = Duration::from_secs(40);

/// The left end knows the right one by name alone, and has its own `/etc/hosts` and `/etc/resolv.conf`.
struct World {
    left: Host,
    right: Host,
    keys: [PrivateKey; 2],
}

impl World {
    fn new(name: &str, hosts: &str) -> Self {
        let (left, right) = cable(name, 1500);
        let world = Self { left, right, keys: [(); 2].map(|()| PrivateKey::generate(&mut os_rng())) };
        world.say(hosts);
        fs::write(world.file("resolv.conf"), "").expect("a file");
        world
    }

    fn file(&self, name: &str) -> PathBuf {
        self.left.folder().join(name)
    }

    /// What `/etc/hosts` says from now on. Written in place, since it is mounted.
    fn say(&self, hosts: &str) {
        fs::write(self.file("hosts"), hosts).expect("a file");
    }

    fn start_right(&self) -> Running {
        let peer = PeerText {
            key: self.keys[0].public_key(),
            preshared: None,
            endpoint: None,
            allowed_ips: vec!["10.77.0.1/32".to_owned()],
            keepalive: 0,
        };
        let address = ["10.77.0.2/24".to_owned()];
        let file = NodeFile {
            private: &self.keys[1],
            address: &address,
            mtu: 1420,
            interface: "",
            peers: &peer.toml(),
        };
        start_vpnd(&self.right, &file.toml(), &[])
    }

    fn start_left(&self, allowed_ips: &str) -> Node {
        let peers = format!(
            "[[peer]]\npublic_key = \"{}\"\nendpoint = \"{NAME}:{PORT}\"\nallowed_ips = [\"{allowed_ips}\"]\n",
            self.keys[1].public_key()
        );
        let address = ["10.77.0.1/24".to_owned()];
        let file =
            NodeFile { private: &self.keys[0], address: &address, mtu: 1420, interface: "", peers: &peers };
        let mut setup = Setup::new(self.wrapper(), as_in_matrix(&file.toml()));
        setup.log = "debug".to_owned();
        let daemon = Daemon::start(&self.left, &setup).unwrap_or_else(|error| panic!("it starts: {error}"));
        let ip = |text: &str| text.parse::<IpAddr>().expect("an address");
        Node {
            host: self.left.clone(),
            kind: Kind::Vpnd,
            private: self.keys[0].clone(),
            inner4: ip("10.77.0.1"),
            inner6: ip("fd77::1"),
            outer: ip("192.0.2.1"),
            running: Running::Vpnd(daemon),
        }
    }

    /// A vpnd that sees this world's files in `/etc`.
    fn wrapper(&self) -> PathBuf {
        let path = self.file("vpnd-with-files");
        let text = format!(
            "#!/bin/sh\nexec unshare --mount sh -ec 'mount --bind \"$0\"/hosts /etc/hosts; \
             mount --bind \"$0\"/resolv.conf /etc/resolv.conf; exec \"$@\"' {} {} \"$@\"\n",
            self.left.folder().display(),
            program::daemon().display(),
        );
        program::script(&path, &text, 0o700);
        path
    }

    fn endpoint(&self, left: &Node) -> String {
        left.shown("endpoints", &self.keys[1].public_key())
    }
}

fn right_inner() -> IpAddr {
    [10, 77, 0, 2].into()
}

#[test]
fn a_name_is_tried_over_all_its_addresses() {
    if !need_root() {
        return;
    }
    // The C library sorts by the bits in common with 192.0.2.1: these two have as many.
    let world = World::new("nameall", &format!("192.0.2.3 {NAME}\n192.0.2.2 {NAME}\n"));
    let _right = world.start_right();
    let left = world.start_left("10.77.0.2/32");
    let first = wait_until(Duration::from_secs(5), || world.endpoint(&left) == format!("192.0.2.3:{PORT}"));
    assert!(first, "{}: {}", world.endpoint(&left), left.log());
    let reached = wait_until(LONG, || left.reaches(right_inner()));
    assert!(reached, "{}", left.log());
    assert_eq!(world.endpoint(&left), format!("192.0.2.2:{PORT}"));
}

#[test]
fn who_is_told_that_the_tunnel_is_ready_can_send_to_a_name_that_is_known_nearby() {
    if !need_root() {
        return;
    }
    let world = World::new("nameready", &format!("192.0.2.2 {NAME}\n"));
    let _right = world.start_right();
    let left = world.start_left("10.77.0.2/32");
    let endpoint = world.endpoint(&left);
    let is_slow = left.log().contains("endpoint names take long to resolve");
    assert!(endpoint == format!("192.0.2.2:{PORT}") || is_slow, "{endpoint}: {}", left.log());
}

#[test]
fn a_name_that_resolves_later_is_found_later() {
    if !need_root() {
        return;
    }
    let world = World::new("namelate", "");
    let _right = world.start_right();
    let left = world.start_left("10.77.0.2/32");
    let failed = wait_until(Duration::from_secs(10), || left.log().contains("does not resolve"));
    assert!(failed, "{}", left.log());
    assert_eq!(world.endpoint(&left), "(none)");
    world.say(&format!("2001:db8::2 {NAME}\n"));
    let reached = wait_until(LONG, || left.reaches(right_inner()));
    assert!(reached, "{}", left.log());
    assert_eq!(world.endpoint(&left), format!("[2001:db8::2]:{PORT}"));
}

#[test]
fn a_name_is_resolved_again_when_handshakes_go_unanswered() {
    if !need_root() {
        return;
    }
    let world = World::new("namemove", &format!("192.0.2.2 {NAME}\n"));
    let right = world.start_right();
    let left = world.start_left("10.77.0.2/32");
    let connected = wait_until(LONG, || left.reaches(right_inner()));
    assert!(connected, "{}", left.log());

    // The other end moves, and forgets where we are: nothing but the name says where it is.
    drop(right);
    sh(&world.right, "ip addr del 192.0.2.2/24 dev eth0; ip addr add 192.0.2.20/24 dev eth0");
    world.say(&format!("192.0.2.20 {NAME}\n"));
    let _right = world.start_right();
    // Without this the end of the session would have to be waited for.
    let file = world.file("own.key");
    fs::write(&file, world.keys[0].to_base64().as_bytes()).expect("a key file");
    left.set("private-key /dev/null");
    left.set(&format!("private-key {}", file.display()));
    let reached = wait_until(LONG, || left.reaches(right_inner()));
    assert!(reached, "{}", left.log());
    assert_eq!(world.endpoint(&left), format!("192.0.2.20:{PORT}"));
}

/// Otherwise the question would wait for the tunnel, and the tunnel for the answer.
#[test]
fn a_default_route_into_the_tunnel_does_not_swallow_the_question_for_its_endpoint() {
    if !need_root() {
        return;
    }
    let world = World::new("nameroute", "");
    fs::write(world.file("resolv.conf"), "nameserver 203.0.113.53\noptions timeout:1 attempts:1\n")
        .expect("a file");
    world.right.add_address("lo", "203.0.113.53/32").expect("an address");
    world.left.add_route("0.0.0.0/0", Some([192, 0, 2, 2].into()), "eth0").expect("a route");
    let _right = world.start_right();
    let left = world.start_left("0.0.0.0/0");
    assert_eq!(world.endpoint(&left), "(none)", "no name server answers yet");
    assert!(sh(&world.left, "ip route get 203.0.113.53").contains(&format!("dev {DEVICE}")));

    let server = world.right.run(|| UdpSocket::bind("203.0.113.53:53")).expect("a socket");
    let over = AtomicBool::new(false);
    let reached = thread::scope(|scope| {
        scope.spawn(|| serve(&server, &over));
        let reached = wait_until(LONG, || left.reaches(right_inner()));
        over.store(true, Ordering::Relaxed);
        reached
    });
    assert!(reached, "{}", left.log());
    assert_eq!(world.endpoint(&left), format!("192.0.2.2:{PORT}"));
}

/// A name server that knows one address, 192.0.2.2, for whatever it is asked.
fn serve(server: &UdpSocket, over: &AtomicBool) {
    server.set_read_timeout(Some(Duration::from_millis(50))).expect("a timeout");
    let mut datagram = [0; 512];
    while !over.load(Ordering::Relaxed) {
        let Ok((length, from)) = server.recv_from(&mut datagram) else { continue };
        let end = 12 + NAME.len() + 2 + 4;
        let mut reply = datagram[..length.min(end)].to_vec();
        let wants_v4 = reply.get(end - 3) == Some(&1);
        reply[2..12].copy_from_slice(&[0x81, 0x80, 0, 1, 0, wants_v4.into(), 0, 0, 0, 0]);
        if wants_v4 {
            reply.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 0, 0, 4, 192, 0, 2, 2]);
        }
        let _ = server.send_to(&reply, from); // the asker asks again
    }
}
