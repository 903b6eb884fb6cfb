//! Cryptokey routing, keys swapped while running, and keepalives that wait for a link or a key.

use std::{
    net::{IpAddr, UdpSocket},
    time::Duration,
};

use vpnd::{
    lab::{Host, Ping},
    noise::{PrivateKey, PublicKey},
    sys::random::os_rng,
};

use crate::{
    common::need_root,
    world::{DEVICE, Node, NodeFile, PORT, Pair, PeerText, Spec, cable, sh, start_vpnd},
};

fn new_key() -> PrivateKey {
    PrivateKey::generate(&mut os_rng())
}

/// Sends one datagram through the tunnel; does it arrive?
fn delivers(from: &Node, source: IpAddr, to: &Node, limit: Duration) -> bool {
    let receiver = to.host.run(|| UdpSocket::bind((to.inner4, 0))).expect("a socket");
    receiver.set_read_timeout(Some(limit)).expect("a timeout");
    let sender = from.host.run(|| UdpSocket::bind((source, 0))).expect("a socket");
    sender.send_to(b"X", receiver.local_addr().expect("it is bound")).expect("it is sent");
    receiver.recv(&mut [0; 8]).is_ok()
}

const LONG: Duration = Duration::from_secs(5);
const SHORT: Duration = Duration::from_millis(500);

/// Scenario 10.
#[test]
fn a_packet_from_a_prefix_is_delivered_until_another_peer_owns_its_source() {
    if !need_root() {
        return;
    }
    let pair = Pair::start("cryptokey", &Spec::default());
    let (left, right) = (&pair.left, &pair.right);
    left.set(&format!("peer {} allowed-ips 10.77.0.0/24", right.key()));
    assert!(delivers(right, right.inner4, left, LONG), "{}", left.log());

    let owner = new_key().public_key();
    left.set(&format!("peer {owner} allowed-ips {}/32", right.inner4));
    right.set("listen-port 9997");
    assert!(!delivers(right, right.inner4, left, SHORT), "another peer owns the source");
    assert!(left.shown("endpoints", &right.key()).ends_with(":9997"), "the endpoint follows all the same");
    assert_eq!(left.refused("source_not_allowed"), 1);

    left.set(&format!("peer {owner} remove"));
    assert!(left.shown("endpoints", &right.key()).ends_with(":9997"));
    assert!(delivers(right, right.inner4, left, LONG), "nobody else owns it any more");
}

#[test]
fn the_covering_peer_cannot_speak_for_one_inside_its_prefix_and_is_named_when_it_tries() {
    if !need_root() {
        return;
    }
    let pair = Pair::start("covering", &Spec::default());
    let (left, right) = (&pair.left, &pair.right);
    let victim = new_key().public_key();
    left.set(&format!("peer {} allowed-ips 10.77.0.0/24", right.key()));
    left.set(&format!("peer {victim} allowed-ips 10.77.0.66/32"));
    right.host.add_address(DEVICE, "10.77.0.66/32").expect("an address");
    right.host.add_address(DEVICE, "10.77.0.67/32").expect("an address");
    let address = |text: &str| text.parse::<IpAddr>().expect("an address");
    assert!(delivers(right, address("10.77.0.67"), left, LONG), "within its prefix: {}", left.log());
    assert!(!delivers(right, address("10.77.0.66"), left, SHORT), "the victim's address");

    let status = left.status();
    let refusals = status["refusals"].as_array().expect("a list");
    let refusal = refusals.iter().find(|refusal| refusal["reason"] == "source_not_allowed");
    let refusal = refusal.unwrap_or_else(|| panic!("not counted: {status:#}"));
    assert_eq!(refusal["count"], 1);
    let last = &refusal["last"];
    assert_eq!(last["inner"], "10.77.0.66");
    assert_eq!(last["owner"], victim.short());
    assert_eq!(last["peer"], right.key().short());
    assert_eq!(last["from"], format!("{}:{PORT}", right.outer));
}

/// Scenario 11.
#[test]
fn after_both_ends_swapped_a_key_the_first_ping_is_answered_within_a_second() {
    if !need_root() {
        return;
    }
    let mut pair = Pair::start("swap", &Spec::default());
    pair.left.ping(pair.right.inner4, 1);
    let (old, new) = (pair.left.key(), new_key());
    let file = pair.left.host.folder().join("new.key");
    std::fs::write(&file, new.to_base64().as_bytes()).expect("a key file");
    pair.left.set(&format!("private-key {}", file.display()));
    pair.right.set(&format!(
        "peer {old} remove peer {} allowed-ips {}/32 endpoint {}:{PORT}",
        new.public_key(),
        pair.left.inner4,
        pair.left.outer
    ));
    pair.left.private = new;
    pair.left.ping(pair.right.inner4, 1); // waits for a second
    pair.right.ping(pair.left.inner4, 1);
    assert_ne!(pair.right.last_handshake(&pair.left.key()), 0);
}

/// Listens where the peer would be; what comes there is told by its length.
struct Listener(UdpSocket);

impl Listener {
    fn new(host: &Host) -> Self {
        Self(host.run(|| UdpSocket::bind(("192.0.2.2", PORT))).expect("a socket"))
    }

    /// The next datagram's length, if one comes in time.
    fn next(&self, limit: Duration) -> Option<usize> {
        self.0.set_read_timeout(Some(limit)).expect("a timeout");
        self.0.recv(&mut [0; 2048]).ok()
    }
}

fn keepalive_file(private: &PrivateKey, peer: PublicKey) -> String {
    let peer = PeerText {
        key: peer,
        preshared: None,
        endpoint: Some(("192.0.2.2".parse().expect("an address"), PORT)),
        allowed_ips: vec!["10.77.0.2/32".to_owned()],
        keepalive: 1,
    };
    let address = ["10.77.0.1/24".to_owned()];
    NodeFile { private, address: &address, mtu: 1420, interface: "", peers: &peer.toml() }.toml()
}

/// Scenario 27.
#[test]
fn a_persistent_keepalive_asks_for_a_session_as_soon_as_the_link_is_up() {
    if !need_root() {
        return;
    }
    let (left, right) = cable("linkup", 1500);
    let listener = Listener::new(&right);
    let daemon = start_vpnd(&left, &keepalive_file(&new_key(), new_key().public_key()), &[]);
    assert_eq!(listener.next(Duration::from_secs(1)), Some(148), "an initiation, at once");
    drop(daemon);
}

/// Scenario 28.
#[test]
fn a_persistent_keepalive_asks_for_a_session_as_soon_as_there_is_a_key() {
    if !need_root() {
        return;
    }
    let (left, right) = cable("keyset", 1500);
    let listener = Listener::new(&right);
    let private = new_key();
    let running = start_vpnd(&left, &keepalive_file(&private, new_key().public_key()), &[]);
    let file = left.folder().join("vpn0.key");
    std::fs::write(&file, private.to_base64().as_bytes()).expect("a key file");
    let address = |text: &str| text.parse().expect("an address");
    let node = Node {
        host: left,
        kind: crate::world::Kind::Vpnd,
        private,
        inner4: address("10.77.0.1"),
        inner6: address("fd77::1"),
        outer: address("192.0.2.1"),
        running,
    };
    node.set("private-key /dev/null");
    while listener.next(Duration::from_millis(1)).is_some() {}
    assert_eq!(listener.next(Duration::from_millis(2500)), None, "without a key nothing can be said");
    node.set(&format!("private-key {}", file.display()));
    assert_eq!(listener.next(Duration::from_secs(1)), Some(148), "an initiation, at once");
}

#[test]
fn a_source_that_no_peer_owns_is_refused_without_an_owner() {
    if !need_root() {
        return;
    }
    let pair = Pair::start("nobody", &Spec::default());
    pair.left.ping(pair.right.inner4, 1);
    sh(&pair.right.host, &format!("ip addr add 172.16.0.9/32 dev {DEVICE}"));
    let ping = Ping {
        source: Some("172.16.0.9".parse().expect("an address")),
        patience: SHORT,
        ..Ping::to(pair.left.inner4)
    };
    assert_eq!(pair.right.host.ping_with(&ping).expect("ping runs").received, 0);
    let status = pair.left.status();
    let refusals = status["refusals"].as_array().expect("a list");
    let refusal = refusals.iter().find(|refusal| refusal["reason"] == "source_not_allowed").expect("counted");
    assert_eq!(refusal["last"]["inner"], "172.16.0.9");
    assert!(refusal["last"]["owner"].is_null());
}
