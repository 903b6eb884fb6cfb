//! vpnd and each other implementation: wireguard-go, boringtun, gotatun. Each test stands for a promise that a
//! stranger relies on when one end is ours and the other is not.

use std::{
    net::{IpAddr, UdpSocket},
    thread,
    time::Duration,
};

use vpnd::{
    lab::{Ping, link, tcp_transfer},
    noise::PresharedKey,
    sys::random::os_rng,
};

use crate::{
    common::{flow::Flow, need_root},
    world::{DEVICE, Kind, Node, Outer, Pair, Running, Spec, sh, start_other, start_vpnd, wait_until},
};

/// Handshake messages, and a ping of 56 bytes: 84 bytes padded to 96, behind 16 and before 16.
const INITIATION: u64 = 148;
const RESPONSE: u64 = 92;
const PING: u64 = 128;
const KEEPALIVE: u64 = 32;

/// Which end is vpnd. The left end begins, and knows where the right one is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    Initiator,
    Responder,
}

impl Role {
    fn spec(self, other: Kind) -> Spec {
        let (left, right) = match self {
            Role::Initiator => (Kind::Vpnd, other),
            Role::Responder => (other, Kind::Vpnd),
        };
        Spec { left, right, ..Spec::default() }
    }

    fn ours(self, pair: &Pair) -> &Node {
        match self {
            Role::Initiator => &pair.left,
            Role::Responder => &pair.right,
        }
    }

    fn theirs(self, pair: &Pair) -> &Node {
        match self {
            Role::Initiator => &pair.right,
            Role::Responder => &pair.left,
        }
    }

    /// Bytes that vpnd has sent after so many pings and nothing else.
    fn sent(self, pings: u64) -> u64 {
        PING * pings + if self == Role::Initiator { INITIATION } else { RESPONSE }
    }
}

/// A short name for namespaces.
fn short(kind: Kind) -> &'static str {
    match kind {
        Kind::Vpnd => "vpnd",
        Kind::WireguardGo => "go",
        Kind::Boringtun => "boring",
        Kind::Gotatun => "gota",
    }
}

/// With each of the three, at the same time: what these tests do is mostly waiting.
fn with_each(test: impl Fn(Kind) + Sync) {
    thread::scope(|scope| {
        for other in [Kind::WireguardGo, Kind::Boringtun, Kind::Gotatun] {
            let (test, thread) = (&test, thread::Builder::new().name(format!("{other:?}")));
            thread.spawn_scoped(scope, move || test(other)).expect("a thread");
        }
    });
}

/// The same in both roles.
fn with_each_in_each_role(test: impl Fn(Kind, Role) + Sync) {
    with_each(|other| {
        thread::scope(|scope| {
            for role in [Role::Initiator, Role::Responder] {
                let test = &test;
                let thread = thread::Builder::new().name(format!("{other:?}, vpnd is {role:?}"));
                thread.spawn_scoped(scope, move || test(other, role)).expect("a thread");
            }
        });
    });
}

#[test]
fn wireguard_go_is_spoken_with_in_each_role_and_family() {
    in_each_role_and_family(Kind::WireguardGo);
}

#[test]
fn boringtun_is_spoken_with_in_each_role_and_family() {
    in_each_role_and_family(Kind::Boringtun);
}

#[test]
fn gotatun_is_spoken_with_in_each_role_and_family() {
    in_each_role_and_family(Kind::Gotatun);
}

/// With and without a preshared key, over IPv4 and IPv6, whoever begins; pings and TCP of both families.
fn in_each_role_and_family(other: Kind) {
    if !need_root() {
        return;
    }
    for role in [Role::Initiator, Role::Responder] {
        for outer in [Outer::V4, Outer::V6] {
            for preshared in [false, true] {
                // Without the key, both know each other's address, and who pings first initiates.
                let right_knows_left = !preshared;
                let spec = Spec { outer, preshared, right_knows_left, ..role.spec(other) };
                let pair = Pair::start(&format!("each-{}", short(other)), &spec);
                pair.left.ping(pair.right.inner4, 1);
                let (ours, theirs) = (role.ours(&pair), role.theirs(&pair));
                assert_eq!(ours.transfer(&theirs.key()).1, role.sent(1), "{spec:?}");
                assert_eq!(ours.status()["peers"][0]["preshared"], preshared);
                both_ways(&pair, &spec);
            }
        }
    }
}

fn both_ways(pair: &Pair, spec: &Spec) {
    for (from, to) in [(&pair.left, &pair.right), (&pair.right, &pair.left)] {
        from.ping(to.inner4, 2);
        from.ping(to.inner6, 2);
        for address in [to.inner4, to.inner6] {
            let transfer = tcp_transfer(&from.host, &to.host, address, 500_000, Duration::from_secs(10))
                .unwrap_or_else(|error| panic!("{spec:?}: {error}"));
            assert!(transfer.intact, "{spec:?}: {} to {address}", from.host.name());
        }
    }
}

#[test]
fn a_rekey_by_vpnd_under_traffic_loses_nothing() {
    if !need_root() {
        return;
    }
    with_each(|other| {
        let spec = Spec { rekey_after: Some(5), ..Role::Initiator.spec(other) };
        let pair = Pair::start(&format!("rekey-{}", short(other)), &spec);
        pair.left.ping(pair.right.inner4, 1);
        let first = pair.left.last_handshake(&pair.right.key());
        let (pace, size) = (Duration::from_millis(5), 1000);
        let out = Flow::start(&pair.left.host, &pair.right.host, pair.right.inner4, pace, size);
        let back = Flow::start(&pair.right.host, &pair.left.host, pair.left.inner6, pace, size);
        thread::scope(|scope| {
            scope.spawn(|| gapless(&pair.left, pair.right.inner6));
            scope.spawn(|| gapless(&pair.right, pair.left.inner4));
        });
        let (out, back) = (out.finish(), back.finish());
        assert!(out.whole() && back.whole(), "{other:?}: out {out}; back {back}\n{}", pair.left.log());
        let last = pair.left.last_handshake(&pair.right.key());
        assert!(last >= first + 4, "{other:?}: no rekey was seen\n{}", pair.left.log());
        assert_eq!(pair.left.refused("no_such_session") + pair.left.refused("replayed"), 0, "{other:?}");
    });
}

/// Seven and a half seconds of pings, 20 ms apart: each is answered.
fn gapless(from: &Node, to: IpAddr) {
    let ping = Ping { count: 375, interval: Duration::from_millis(20), ..Ping::patiently(to) };
    let pings = from.host.ping_with(&ping).expect("ping runs");
    assert_eq!(pings.received, 375, "from {} to {to}: {pings:?}\n{}", from.host.name(), from.log());
}

#[test]
fn data_that_goes_unanswered_is_acknowledged_with_a_keepalive_by_either_end() {
    if !need_root() {
        return;
    }
    with_each(|other| {
        let ends = [Role::Initiator, Role::Responder];
        let pairs = ends.map(|role| {
            let pair = Pair::start(&format!("passive-{}-{role:?}", short(other)), &role.spec(other));
            pair.left.ping(pair.right.inner4, 1);
            pair
        });
        let bytes = || [0, 1].map(|i| ends[i].ours(&pairs[i]).transfer(&ends[i].theirs(&pairs[i]).key()));
        // boringtun's clock ticks each 250 ms: it owes nothing for what came in the tick in which it sent.
        thread::sleep(Duration::from_millis(600));
        pairs.iter().for_each(|pair| unanswered(&pair.right, &pair.left));
        let [(_, sent), (received, answered)] = bytes();
        let acknowledged = || bytes()[0].1 == sent + KEEPALIVE && bytes()[1].0 == received + KEEPALIVE;
        let (limit, was) = (Duration::from_secs(14), (sent, received));
        assert!(wait_until(limit, acknowledged), "{other:?}: {was:?}, then {:?}", bytes());
        assert_eq!(bytes()[1].1, answered, "{other:?}: a keepalive is not answered");
    });
}

/// Sends a datagram to somebody who says nothing.
fn unanswered(from: &Node, to: &Node) {
    let silent = to.host.run(|| UdpSocket::bind((to.inner4, 0))).expect("a socket");
    silent.set_read_timeout(Some(Duration::from_secs(5))).expect("a socket can wait");
    let speaking = from.host.run(|| UdpSocket::bind((from.inner4, 0))).expect("a socket");
    speaking.send_to(b"?", silent.local_addr().expect("it is bound")).expect("it can be sent");
    assert_eq!(silent.recv(&mut [0; 2]).expect("it arrives"), 1);
}

#[test]
fn a_persistent_keepalive_opens_the_tunnel_without_traffic_and_holds_it() {
    if !need_root() {
        return;
    }
    with_each_in_each_role(|other, role| {
        // The end that begins is the one that knows where the other is; then both hold the tunnel.
        let spec = Spec { keepalive: 1, right_knows_left: false, ..role.spec(other) };
        let pair = Pair::start(&format!("hold-{}-{role:?}", short(other)), &spec);
        let (ours, theirs) = (role.ours(&pair), role.theirs(&pair));
        let (sent, received) = match role {
            Role::Initiator => (INITIATION, RESPONSE),
            Role::Responder => (RESPONSE, INITIATION),
        };
        let transfer = || ours.transfer(&theirs.key());
        let held = || transfer().0 >= received + 3 * KEEPALIVE && transfer().1 >= sent + 3 * KEEPALIVE;
        assert!(wait_until(Duration::from_secs(15), held), "{:?}\n{}", transfer(), ours.log());
        assert_eq!(
            (transfer().0 - received) % KEEPALIVE,
            0,
            "one handshake, and keepalives: {:?}",
            transfer()
        );
        assert_ne!(theirs.last_handshake(&ours.key()), 0);
    });
}

#[test]
fn an_end_that_moves_is_followed_by_the_other() {
    if !need_root() {
        return;
    }
    with_each(|other| {
        let pair = Pair::start(&format!("roam-{}", short(other)), &Role::Initiator.spec(other));
        pair.left.ping(pair.right.inner4, 1);

        move_to(&pair.left, "192.0.2.11");
        pair.left.ping(pair.right.inner4, 2);
        assert_eq!(pair.right.shown("endpoints", &pair.left.key()), "192.0.2.11:51820", "{other:?}");
        pair.left.set("listen-port 51900");
        pair.left.ping(pair.right.inner4, 2);
        assert_eq!(pair.right.shown("endpoints", &pair.left.key()), "192.0.2.11:51900", "{other:?}");
        pair.right.ping(pair.left.inner6, 2);

        move_to(&pair.right, "192.0.2.12");
        // wireguard-go and boringtun hold on to an address that has gone, until their sockets are opened again;
        // gotatun does not, and ends when its sockets are to be opened again.
        let port = if other == Kind::Gotatun { 51820 } else { 51901 };
        if port != 51820 {
            pair.right.set(&format!("listen-port {port}"));
        }
        pair.right.ping(pair.left.inner4, 2);
        assert_eq!(
            pair.left.shown("endpoints", &pair.right.key()),
            format!("192.0.2.12:{port}"),
            "{other:?}"
        );
        pair.left.ping(pair.right.inner6, 2);
        let sessions = pair.left.log().matches("session renewed").count();
        assert_eq!(sessions, 0, "{other:?}: moving takes no handshake\n{}", pair.left.log());
    });
}

/// The host gets another address on the cable, and loses the one that it had.
fn move_to(node: &Node, address: &str) {
    let old = node.outer;
    sh(&node.host, &format!("ip address del {old}/24 dev eth0; ip address add {address}/24 dev eth0"));
}

#[test]
fn an_end_that_was_killed_and_started_again_has_a_new_session_within_seconds() {
    if !need_root() {
        return;
    }
    with_each(|other| {
        let mut pair = Pair::start(&format!("again-{}", short(other)), &Role::Initiator.spec(other));
        pair.left.ping(pair.right.inner4, 1);
        restart(&mut pair.right);
        assert!(reaches_soon(&pair.right, pair.left.inner4), "{other:?} again: {}", pair.left.log());
        pair.left.ping(pair.right.inner6, 2);
        restart(&mut pair.left);
        assert!(reaches_soon(&pair.left, pair.right.inner4), "vpnd again: {}", pair.left.log());
        pair.right.ping(pair.left.inner6, 2);
    });
}

fn reaches_soon(from: &Node, to: IpAddr) -> bool {
    wait_until(Duration::from_secs(8), || from.reaches(to))
}

/// Kills it without a warning, and starts it with the same keys.
fn restart(node: &mut Node) {
    node.running = match &mut node.running {
        Running::Vpnd(daemon) => {
            daemon.kill9();
            let file = std::fs::read_to_string(daemon.config()).expect("its file is there");
            start_vpnd(&node.host, &file, &[])
        }
        Running::Other(process, _) => {
            process.kill9();
            let gone = || link::index(&node.host, DEVICE).is_err();
            assert!(wait_until(Duration::from_secs(5), gone), "the device goes with its process");
            let conf =
                std::fs::read_to_string(node.host.folder().join("other.conf")).expect("its file is there");
            let address = [format!("{}/24", node.inner4), format!("{}/64", node.inner6)];
            start_other(&node.host, node.kind, &conf, &address, 1420)
        }
    };
}

#[test]
fn a_wrong_preshared_key_carries_nothing_and_is_told() {
    if !need_root() {
        return;
    }
    with_each_in_each_role(|other, role| {
        let pair = Pair::start(&format!("psk-{}-{role:?}", short(other)), &role.spec(other));
        let (ours, theirs) = (role.ours(&pair), role.theirs(&pair));
        let file = ours.host.folder().join("wrong.psk");
        let wrong = PresharedKey::generate(&mut os_rng());
        std::fs::write(&file, wrong.to_base64().as_bytes()).expect("a file for the key");
        ours.set(&format!("peer {} preshared-key {}", theirs.key(), file.display()));

        assert!(!pair.left.reaches(pair.right.inner4));
        let status = ours.status();
        let peer = &status["peers"][0];
        assert_eq!((&peer["connected"], &peer["rx_packets"]), (&false.into(), &0.into()), "{peer}");
        assert!(peer["last_handshake"].is_null(), "{peer}");
        // Whether an answer of ours could be read, only the one who began can tell.
        let told = status["refusals"].to_string().contains("the preshared keys of the two sides differ");
        assert_eq!(told, role == Role::Initiator, "{status}");

        ours.set(&format!("peer {} preshared-key /dev/null", theirs.key()));
        assert!(reaches_soon(&pair.left, pair.right.inner4), "{}", ours.log());
    });
}
