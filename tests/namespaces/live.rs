//! Changes by `wg` of a tunnel that carries traffic: port, mark, whole configurations, preshared keys.

use std::{
    net::{IpAddr, UdpSocket},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use vpnd::{
    lab::Capture,
    noise::{PresharedKey, PrivateKey, PublicKey},
    sys::random::os_rng,
};

use crate::{
    common::need_root,
    world::{DEVICE, Node, Outer, PORT, Pair, Spec, cable, sh, wait_until},
};

const PATIENCE: Duration = Duration::from_secs(10);

/// What the status says of the only peer.
fn peer(node: &Node) -> serde_json::Value {
    node.status()["peers"][0].clone()
}

#[test]
fn a_peer_follows_when_the_port_changes_under_traffic() {
    if !need_root() {
        return;
    }
    let pair = Pair::start("port", &Spec::default());
    pair.left.ping(pair.right.inner4, 1);
    let (done, answered) = (AtomicBool::new(false), AtomicBool::new(false));
    thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                answered.fetch_or(pair.left.reaches(pair.right.inner4), Ordering::Relaxed);
            }
        });
        pair.left.set("listen-port 40404");
        let followed =
            wait_until(PATIENCE, || pair.right.shown("endpoints", &pair.left.key()) == "192.0.2.1:40404");
        answered.store(false, Ordering::Relaxed);
        let goes_on = wait_until(PATIENCE, || answered.load(Ordering::Relaxed));
        done.store(true, Ordering::Relaxed);
        assert!(followed, "right still talks to the old port; {}", pair.right.log());
        assert!(goes_on, "traffic ended with the old port; {}", pair.left.log());
    });
    assert_eq!(pair.left.wg(&["show", DEVICE, "listen-port"]).trim(), "40404");
    assert_eq!(pair.left.status()["listen_port"], 40404);
    // The session went on, and the old port is free.
    assert_eq!(peer(&pair.right)["attempts"], 0);
    pair.left.host.run(|| UdpSocket::bind(("0.0.0.0", PORT)).expect("the old port is free"));
    // The other end can still begin.
    pair.right.ping(pair.left.inner6, 1);
}

#[test]
fn a_port_that_is_taken_is_an_error_and_changes_nothing() {
    if !need_root() {
        return;
    }
    let pair = Pair::start("taken", &Spec::default());
    pair.left.ping(pair.right.inner4, 1);
    for taken in ["0.0.0.0:40404", "[::]:40405"] {
        let holder = pair.left.host.run(|| UdpSocket::bind(taken).expect("it is free until now"));
        let port = holder.local_addr().expect("it is bound").port().to_string();
        let new = PrivateKey::generate(&mut os_rng());
        let file = pair.left.write("private", &new.to_base64());
        let arguments = ["set", DEVICE, "private-key", &file, "listen-port", &port, "fwmark", "7"];
        let error = pair.left.try_wg(&arguments).expect_err("the port is taken");
        assert!(error.contains("Address already in use"), "{error}");
        let status = pair.left.status();
        assert_eq!(status["listen_port"], PORT);
        assert_eq!(status["fwmark"], 0);
        assert_eq!(status["public_key"], pair.left.key().to_string());
        assert_eq!(peer(&pair.left)["connected"], true);
        pair.left.ping(pair.right.inner4, 1);
    }
}

#[test]
fn a_mark_is_set_shown_and_carried_by_the_tunnels_packets() {
    if !need_root() {
        return;
    }
    let pair = Pair::start("mark", &Spec::default());
    pair.left.ping(pair.right.inner4, 1);
    let shown = || pair.left.wg(&["show", DEVICE, "fwmark"]).trim().to_owned();
    assert_eq!(shown(), "off");
    sh(&pair.left.host, "ip rule add fwmark 0x51 prohibit");
    pair.left.set("fwmark 0x51");
    assert_eq!(shown(), "0x51");
    assert_eq!(pair.left.status()["fwmark"], 0x51);
    assert!(!pair.left.reaches(pair.right.inner4), "marked packets are forbidden here");
    let refusal = pair.left.refusal("send_failed").expect("it says so");
    assert_eq!(refusal["last"]["from"], "192.0.2.2:51820");
    // A new port keeps the mark.
    pair.left.set("listen-port 40404");
    assert!(!pair.left.reaches(pair.right.inner4));
    pair.left.set("fwmark 0");
    assert_eq!(shown(), "off");
    pair.left.ping(pair.right.inner4, 1);
}

#[test]
fn a_configuration_that_was_shown_can_be_set_again() {
    if !need_root() {
        return;
    }
    for outer in [Outer::V4, Outer::V6] {
        let spec = Spec { outer, preshared: true, keepalive: 25, ..Spec::default() };
        let pair = Pair::start("again", &spec);
        pair.left.ping(pair.right.inner4, 1);
        let conf = pair.left.wg(&["showconf", DEVICE]);
        for line in ["ListenPort = 51820", "PresharedKey = ", "PersistentKeepalive = 25", "Endpoint = "] {
            assert!(conf.contains(line), "{line}: {conf}");
        }
        pair.left.wg(&["setconf", DEVICE, &pair.left.write("again.conf", &conf)]);
        assert_eq!(pair.left.wg(&["showconf", DEVICE]), conf);
        // The peers are new ones: a new handshake brings them together.
        let together = wait_until(PATIENCE, || pair.left.reaches(pair.right.inner4));
        assert!(together, "{}", pair.left.log());
    }
}

#[test]
fn syncconf_keeps_the_session_of_a_peer_that_it_does_not_change() {
    if !need_root() {
        return;
    }
    let pair = Pair::start("sync", &Spec { preshared: true, ..Spec::default() });
    pair.left.ping(pair.right.inner4, 1);
    let (before, there) = (peer(&pair.left), peer(&pair.right));
    assert_eq!(before["connected"], true);
    let same = |before: &serde_json::Value, node: &Node| {
        let now = peer(node);
        let what = ["connected", "last_handshake", "public_key", "endpoint"];
        what.map(|name| before[name].clone()) == what.map(|name| now[name].clone())
    };
    let conf = pair.left.wg(&["showconf", DEVICE]);
    let another = PrivateKey::generate(&mut os_rng()).public_key();
    let more = format!("{conf}\n[Peer]\nPublicKey = {another}\nAllowedIPs = 10.99.0.0/16\n");
    for text in [&conf, &more, &conf] {
        pair.left.wg(&["syncconf", DEVICE, &pair.left.write("sync.conf", text)]);
        let peers = pair.left.status()["peers"].as_array().map_or(0, Vec::len);
        assert_eq!(peers, text.matches("[Peer]").count());
        pair.left.ping(pair.right.inner4, 1);
        pair.right.ping(pair.left.inner6, 1);
        assert!(same(&before, &pair.left) && same(&there, &pair.right), "there was a new handshake");
    }
}

#[test]
fn a_changed_preshared_key_takes_effect_at_once_and_a_difference_is_told() {
    if !need_root() {
        return;
    }
    let pair = Pair::start("psk", &Spec::default());
    pair.left.ping(pair.right.inner4, 1);
    let set = |node: &Node, other: &Node, key: &PresharedKey| {
        let file = node.write("psk", &key.to_base64());
        node.set(&format!("peer {} preshared-key {file}", other.key()));
    };
    let (new, wrong) = (PresharedKey::generate(&mut os_rng()), PresharedKey::generate(&mut os_rng()));
    set(&pair.right, &pair.left, &new);
    set(&pair.left, &pair.right, &wrong);
    assert_eq!(peer(&pair.left)["connected"], false, "the session of the old key is gone");
    assert!(!pair.left.reaches(pair.right.inner4));
    let told = wait_until(PATIENCE, || pair.left.refused("response_forged") > 0);
    assert!(told, "{}", pair.left.status());
    let refusal = pair.left.refusal("response_forged").expect("it was counted");
    assert_eq!(refusal["last"]["key"], pair.right.key().to_string());
    assert_eq!(refusal["last"]["from"], "192.0.2.2:51820");
    let text = refusal["text"].as_str().expect("a sentence");
    assert!(text.contains("preshared keys of the two sides differ"), "{text}");
    assert_eq!(peer(&pair.left)["connected"], false);

    set(&pair.left, &pair.right, &new);
    let together = wait_until(PATIENCE, || pair.left.reaches(pair.right.inner4));
    assert!(together, "{}", pair.left.log());
}

#[test]
fn an_endpoint_on_the_link_is_told_with_its_device_and_can_be_set_again() {
    if !need_root() {
        return;
    }
    let pair = Pair::start("zone", &Spec { right_knows_left: false, ..Spec::default() });
    for (number, node) in [(1, &pair.left), (2, &pair.right)] {
        node.host.add_address("eth0", &format!("fe80::{number}/64")).expect("an address");
    }
    pair.left.set(&format!("peer {} endpoint [fe80::2%eth0]:{PORT}", pair.right.key()));
    pair.left.ping(pair.right.inner4, 1);
    pair.right.ping(pair.left.inner6, 1);
    assert_eq!(pair.left.shown("endpoints", &pair.right.key()), "[fe80::2%eth0]:51820");
    assert_eq!(pair.right.shown("endpoints", &pair.left.key()), "[fe80::1%eth0]:51820");
    let conf = pair.right.wg(&["showconf", DEVICE]);
    pair.right.wg(&["setconf", DEVICE, &pair.right.write("zone.conf", &conf)]);
    assert_eq!(pair.right.wg(&["showconf", DEVICE]), conf);
    let together = wait_until(PATIENCE, || pair.right.reaches(pair.left.inner4));
    assert!(together, "{}", pair.right.log());
}

/// The points of small order (RFC 7748, section 6.1): zero, one, two of order eight, p-1, p, p+1.
fn low_order_points() -> [PublicKey; 7] {
    let low = |first: u8| {
        let mut bytes = [0; 32];
        bytes[0] = first;
        PublicKey(bytes)
    };
    let high = |first: u8| {
        let mut bytes = [0xff; 32];
        (bytes[0], bytes[31]) = (first, 0x7f);
        PublicKey(bytes)
    };
    let eight = |hex| PublicKey::from_hex(hex).expect("64 digits");
    [
        low(0),
        low(1),
        eight("e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800"),
        eight("5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157"),
        high(0xec),
        high(0xed),
        high(0xee),
    ]
}

/// Scenario 39.
#[test]
fn peers_with_keys_of_low_order_are_sent_nothing() {
    if !need_root() {
        return;
    }
    let (left, right) = cable("loworder", 1500);
    let node = Node { outer: IpAddr::from([192, 0, 2, 1]), ..Node::on(left, "", "") };
    // From our port to the same port: no other frame has these bytes.
    let ports = [PORT.to_be_bytes(), PORT.to_be_bytes()].concat();
    let capture = || Capture::start(&right, "eth0").expect("a capture");
    let seen = capture();
    for key in low_order_points() {
        node.set(&format!("peer {key} persistent-keepalive 1 endpoint 192.0.2.2:{PORT}"));
    }
    assert_eq!(node.status()["peers"].as_array().map(Vec::len), Some(7));
    thread::sleep(Duration::from_secs(2)); // nothing can be waited for: nothing is to happen
    assert_eq!(seen.finish(&ports).expect("frames").matching, 0);
    let refusal = node.refusal("low_order_key").expect("it says why");
    assert!((7..100).contains(&refusal["count"].as_u64().expect("a count")), "{refusal}");
    // An honest key is called at once by the same words.
    let seen = capture();
    let honest = PrivateKey::generate(&mut os_rng()).public_key();
    node.set(&format!("peer {honest} persistent-keepalive 1 endpoint 192.0.2.2:{PORT}"));
    let called = wait_until(PATIENCE, || {
        node.status()["peers"]
            .as_array()
            .is_some_and(|peers| peers.iter().any(|peer| peer["tx_bytes"] == 148))
    });
    assert!(called, "{}", node.status());
    // The right host's own answer that nobody listens there quotes it.
    assert!((1..=2).contains(&seen.finish(&ports).expect("frames").matching));
}
