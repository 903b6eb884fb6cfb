//! What `wg` asks and is told: prefixes in any number, keys, incremental changes, errors.

use std::{
    collections::BTreeSet,
    io::{Read, Write},
    net::{IpAddr, UdpSocket},
    os::unix::net::UnixStream,
    time::Duration,
};

use vpnd::{
    noise::{PresharedKey, PrivateKey, PublicKey},
    sys::random::os_rng,
};

use crate::{
    common::{need_root, program},
    world::{DEVICE, Node, Pair, Spec, sh, wait_until},
};

fn key() -> PublicKey {
    PrivateKey::generate(&mut os_rng()).public_key()
}

fn hex(bytes: &[u8; 32]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A request as `wg` would write it, with the blank line that ends it; the answer without.
fn ask(node: &Node, request: &str) -> String {
    let socket = node.sockets().join(format!("{DEVICE}.sock"));
    let mut stream = UnixStream::connect(socket).expect("the daemon listens");
    stream.set_read_timeout(Some(Duration::from_secs(10))).expect("a time-out can be set");
    stream.write_all(format!("{request}\n").as_bytes()).expect("it reads");
    stream.shutdown(std::net::Shutdown::Write).expect("it can be shut");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("it answers");
    answer.trim_end().to_owned()
}

/// `[Peer]` for `wg setconf`, a thousand prefixes a line.
fn peer_conf(key: &PublicKey, prefixes: &[String]) -> String {
    let mut text = format!("[Peer]\nPublicKey = {key}\n");
    for some in prefixes.chunks(1000) {
        text += &format!("AllowedIPs = {}\n", some.join(", "));
    }
    text
}

/// `wg setconf` with these peers and the node's own key.
fn setconf(node: &Node, peers: &str) {
    let conf = format!("[Interface]\nPrivateKey = {}\n{peers}", *node.private.to_base64());
    let file = node.write("wg.conf", &conf);
    node.wg(&["setconf", DEVICE, &file]);
}

/// `wg show vpn0 allowed-ips`: each peer with its prefixes.
fn allowed(node: &Node) -> Vec<(String, BTreeSet<String>)> {
    let text = node.wg(&["show", DEVICE, "allowed-ips"]);
    let line = |line: &str| {
        let (key, prefixes) = line.split_once('\t').expect("a key and its prefixes");
        let prefixes = prefixes.split_whitespace().filter(|prefix| *prefix != "(none)");
        (key.to_owned(), prefixes.map(str::to_owned).collect())
    };
    let mut all: Vec<_> = text.lines().map(line).collect();
    all.sort();
    all
}

fn owned(peers: &[(PublicKey, Vec<String>)]) -> Vec<(String, BTreeSet<String>)> {
    let mut all: Vec<_> =
        peers.iter().map(|(key, prefixes)| (key.to_string(), prefixes.iter().cloned().collect())).collect();
    all.sort();
    all
}

/// Sets them by `wg setconf` and reads them back by `wg show`.
fn set_and_read(node: &Node, peers: &[(PublicKey, Vec<String>)]) {
    let conf: String = peers.iter().map(|(key, prefixes)| peer_conf(key, prefixes)).collect();
    setconf(node, &conf);
    // Not assert_eq!, which would print all of them.
    assert!(allowed(node) == owned(peers), "what was read back is not what was set");
}

/// Scenario 29.
#[test]
fn every_one_of_130560_allowed_ips_of_one_peer_is_read_back() {
    if !need_root() {
        return;
    }
    let node = Node::alone("ips", "", "");
    let v4 = (0..65_280).map(|n| format!("10.{}.{}.{}/32", n >> 16, n >> 8 & 255, n & 255));
    let v6 = (0..65_280).map(|n| format!("fd00::{:x}:{:x}/128", 1 + (n >> 12), 1 + (n & 4095)));
    let prefixes: Vec<_> = v4.chain(v6).collect();
    assert_eq!(prefixes.iter().collect::<BTreeSet<_>>().len(), 130_560);
    set_and_read(&node, &[(key(), prefixes)]);
    set_and_read(&node, &[]);
}

/// Scenarios 30, 31 and 32.
#[test]
fn peers_with_many_few_and_no_prefixes_are_read_back_whole() {
    if !need_root() {
        return;
    }
    let node = Node::alone("prefixes", "", "");
    let some = |peer: usize, count: usize| -> Vec<String> {
        (0..count).map(|n| format!("10.{peer}.{n}.0/24")).collect()
    };
    let forty: Vec<_> = (0..40).map(|peer| (key(), some(peer, 52))).collect();
    set_and_read(&node, &forty);
    let mut thirty: Vec<_> = (0..29).map(|_| (key(), Vec::new())).collect();
    thirty.push((key(), some(0, 250)));
    set_and_read(&node, &thirty);
    let v6 = (1..=197).map(|n| format!("abcd:{n:x}:1234::/48")).collect();
    set_and_read(&node, &[(key(), vec![]), (key(), v6)]);
}

/// Scenario 33.
#[test]
fn incremental_changes_of_prefixes_are_exact() {
    if !need_root() {
        return;
    }
    let node = Node::alone("steps", "", "");
    let [one, other] = [key(), key()];
    let peer = |key: &PublicKey, lines: &[&str]| {
        let lines: String = lines.iter().map(|line| format!("allowed_ip={line}\n")).collect();
        let request = format!("set=1\npublic_key={}\n{lines}", hex(&key.0));
        assert_eq!(ask(&node, &request), "errno=0", "{request}");
    };
    let shows = |expected: &[(PublicKey, &[&str])]| {
        let expected: Vec<_> = expected
            .iter()
            .map(|(key, prefixes)| (*key, prefixes.iter().map(|prefix| (*prefix).to_owned()).collect()))
            .collect();
        assert_eq!(allowed(&node), owned(&expected));
    };
    peer(&one, &["10.0.0.0/8", "10.1.0.0/16", "10.1.2.0/24", "fd00::/8", "fd00::/64"]);
    peer(&other, &["192.168.0.0/16"]);
    // Neither the longer nor the shorter prefix goes with it; host bits do not matter.
    peer(&one, &["-10.1.77.7/16", "-fd00::/64"]);
    shows(&[(one, &["10.0.0.0/8", "10.1.2.0/24", "fd00::/8"]), (other, &["192.168.0.0/16"])]);
    // What another peer has, and what nobody has, stays as it is.
    peer(&other, &["-10.0.0.0/8", "-172.16.0.0/12"]);
    shows(&[(one, &["10.0.0.0/8", "10.1.2.0/24", "fd00::/8"]), (other, &["192.168.0.0/16"])]);
    // In order within one request, and a prefix moves to who asks for it last.
    peer(&one, &["-10.0.0.0/8", "10.0.0.0/8", "-10.1.2.0/24", "192.168.0.0/16"]);
    shows(&[(one, &["10.0.0.0/8", "192.168.0.0/16", "fd00::/8"]), (other, &[])]);
    // `wg set` replaces them all.
    node.set(&format!("peer {one} allowed-ips 10.9.0.0/16"));
    shows(&[(one, &["10.9.0.0/16"]), (other, &[])]);
    node.set(&format!("peer {one} remove"));
    shows(&[(other, &[])]);
}

/// Scenario 34.
#[test]
fn an_interface_that_nobody_has_is_an_error() {
    if !need_root() {
        return;
    }
    let node = Node::alone("unknown", "", "");
    for arguments in [&["show", "vpn9"][..], &["set", "vpn9", "listen-port", "1"], &["showconf", "vpn9"]] {
        let error = node.try_wg(arguments).expect_err("there is no vpn9");
        assert!(error.contains("Unable to"), "{error}");
    }
    assert_eq!(node.wg(&["show", "interfaces"]).split_whitespace().collect::<Vec<_>>(), [DEVICE]);
}

/// Scenarios 35 and 37.
#[test]
fn keys_are_set_cleared_and_read_back_exactly_and_a_private_key_is_clamped() {
    if !need_root() {
        return;
    }
    let node = Node::alone("keys", "", "");
    let shown = |what: &str| node.wg(&["show", DEVICE, what]).trim().to_owned();
    let set_private = |text: &str| node.set(&format!("private-key {}", node.write("private", text)));
    assert_eq!(shown("private-key"), *node.private.to_base64());

    let new = PrivateKey::generate(&mut os_rng());
    set_private(&new.to_base64());
    assert_eq!(shown("private-key"), *new.to_base64());
    assert_eq!(shown("public-key"), new.public_key().to_string());
    set_private("");
    assert_eq!((shown("private-key"), shown("public-key")), ("(none)".to_owned(), "(none)".to_owned()));

    // All ones: bits 0, 1, 2 and 255 are to go, bit 254 is to stay.
    set_private(&format!("{}8=", "/".repeat(42)));
    assert_eq!(shown("private-key"), format!("+P{}38=", "/".repeat(39)));

    let (peer, preshared) = (key(), PresharedKey::generate(&mut os_rng()));
    let file = node.write("preshared", &preshared.to_base64());
    node.set(&format!("peer {peer} preshared-key {file}"));
    assert_eq!(node.shown("preshared-keys", &peer), *preshared.to_base64());
    node.set(&format!("peer {peer} preshared-key {}", node.write("preshared", "")));
    assert_eq!(node.shown("preshared-keys", &peer), "(none)");
}

/// Scenario 36.
#[test]
fn our_own_key_is_no_peer_in_the_file_and_is_passed_over_on_the_socket() {
    if !need_root() {
        return;
    }
    let node = Node::alone("own", "", "");
    let (own, other) = (node.key(), key());
    node.set(&format!("peer {own} allowed-ips 10.0.0.1/32 peer {other} allowed-ips 10.0.0.2/32"));
    assert_eq!(allowed(&node), owned(&[(other, vec!["10.0.0.2/32".to_owned()])]));
    // And a peer whose key becomes ours is a peer no longer.
    let new = PrivateKey::generate(&mut os_rng());
    node.set(&format!("peer {}", new.public_key()));
    assert_eq!(allowed(&node).len(), 2);
    node.set(&format!("private-key {}", node.write("private", &new.to_base64())));
    assert_eq!(allowed(&node), owned(&[(other, vec!["10.0.0.2/32".to_owned()])]));

    let toml = format!(
        "[interface]\nname = \"vpn1\"\nprivate_key = \"{}\"\n[[peer]]\npublic_key = \"{}\"\n",
        *new.to_base64(),
        new.public_key()
    );
    let setup =
        vpnd::lab::Setup { label: "own".to_owned(), ..vpnd::lab::Setup::new(program::daemon(), toml) };
    let error =
        vpnd::lab::Daemon::start(&node.host, &setup).expect_err("it must refuse this file").to_string();
    assert!(
        error.contains("own.toml:5") && error.contains("the public key of this interface itself"),
        "{error}"
    );
}

/// Whose is a packet to this address? Told by the evidence of its refusal: no peer here has an endpoint.
fn owner(node: &Node, address: &str) -> Option<String> {
    let address: IpAddr = address.parse().expect("an address");
    let reasons = ["no_endpoint", "no_peer"];
    let before = reasons.map(|reason| node.refused(reason));
    node.host.run(|| {
        let any = if address.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
        let socket = UdpSocket::bind(any).expect("a port is free");
        socket.send_to(b"whose?", (address, 9)).expect("it is routed to the device");
    });
    let mut found = None;
    let told = wait_until(Duration::from_secs(5), || {
        found = reasons.iter().zip(before).find_map(|(reason, before)| {
            let refusal = node.refusal(reason)?;
            let new = refusal["count"].as_u64()? > before && refusal["last"]["inner"] == address.to_string();
            new.then(|| refusal["last"]["key"].as_str().map(str::to_owned))
        });
        found.is_some()
    });
    assert!(told, "a packet to {address} left no trace: {}", node.status());
    found.flatten()
}

/// Scenario 38.
#[test]
fn the_longest_prefix_wins_among_overlapping_ones_and_their_removal_uncovers_the_next() {
    if !need_root() {
        return;
    }
    let node = Node::alone("overlap", "", "");
    sh(&node.host, "ip route add default dev vpn0; ip -6 route add default dev vpn0");
    let keys: Vec<_> = (0..4).map(|_| key()).collect();
    let all = ["10.1.2.3", "10.1.2.4", "10.1.9.9", "10.9.9.9", "11.0.0.1", "fd00::1:1", "fd00::2", "fe00::1"];
    let expect = |owners: [Option<usize>; 8]| {
        for (address, expected) in all.iter().zip(owners) {
            assert_eq!(owner(&node, address), expected.map(|n| keys[n].to_string()), "{address}");
        }
    };
    node.set(&format!("peer {} allowed-ips 10.0.0.0/8,fd00::/16", keys[0]));
    node.set(&format!("peer {} allowed-ips 10.1.0.0/16,fd00::1:0/112", keys[1]));
    node.set(&format!("peer {} allowed-ips 10.1.2.3/32", keys[2]));
    expect([Some(2), Some(1), Some(1), Some(0), None, Some(1), Some(0), None]);
    node.set(&format!("peer {} allowed-ips 0.0.0.0/0,::/0", keys[3]));
    expect([Some(2), Some(1), Some(1), Some(0), Some(3), Some(1), Some(0), Some(3)]);
    node.set(&format!("peer {} remove", keys[1]));
    expect([Some(2), Some(0), Some(0), Some(0), Some(3), Some(0), Some(0), Some(3)]);
    node.set(&format!("peer {} allowed-ips fd00::/16", keys[0]));
    expect([Some(2), Some(3), Some(3), Some(3), Some(3), Some(0), Some(0), Some(3)]);
    node.set(&format!("peer {} remove peer {} remove", keys[2], keys[3]));
    expect([None, None, None, None, None, Some(0), Some(0), None]);
}

/// What is asked, whole: each operation of the protocol's page, and each kind of refusal.
#[test]
fn each_operation_of_the_protocol_does_what_its_page_says_and_a_refused_one_nothing() {
    if !need_root() {
        return;
    }
    let node = Node::alone("protocol", "", "");
    let [one, two] = [key(), key()];
    let (first, second) = (format!("public_key={}\n", hex(&one.0)), format!("public_key={}\n", hex(&two.0)));
    let set = |lines: &str| ask(&node, &format!("set=1\n{lines}"));
    let peers = |expected: &[&PublicKey]| {
        let shown: BTreeSet<_> = node.wg(&["show", DEVICE, "peers"]).lines().map(str::to_owned).collect();
        assert_eq!(shown, expected.iter().map(|key| key.to_string()).collect());
    };
    // Only what is there is updated, and what is not there can be removed.
    for lines in
        ["update_only=true\nallowed_ip=10.0.0.1/32\n", "remove=true\n", "update_only=true\nremove=true\n"]
    {
        assert_eq!(set(&format!("{first}{lines}")), "errno=0");
        peers(&[]);
    }
    assert_eq!(set(&format!("{first}allowed_ip=10.0.0.1/32\nallowed_ip=10.0.0.2/32\n{second}")), "errno=0");
    peers(&[&one, &two]);
    let lines = "update_only=true\nreplace_allowed_ips=true\nallowed_ip=10.0.0.3/32\npersistent_keepalive_interval=5\n";
    assert_eq!(set(&format!("{first}{lines}")), "errno=0");
    assert_eq!(
        (node.shown("allowed-ips", &one), node.shown("persistent-keepalive", &one)),
        ("10.0.0.3/32".into(), "5".into())
    );
    assert_eq!(set(&format!("{first}replace_allowed_ips=true\n{second}remove=true\n")), "errno=0");
    assert_eq!(node.shown("allowed-ips", &one), "(none)");
    peers(&[&one]);
    assert_eq!(set(&format!("replace_peers=true\n{second}endpoint=[2001:db8::9]:9\n")), "errno=0");
    peers(&[&two]);
    assert_eq!(node.shown("endpoints", &two), "[2001:db8::9]:9");

    // EINVAL, EPROTO, EADDRINUSE; nothing of the request is done, wherever its mistake stands.
    let taken = node.host.run(|| UdpSocket::bind("0.0.0.0:0")).expect("a port is free");
    let port = taken.local_addr().expect("bound").port();
    let conf = node.wg(&["showconf", DEVICE]);
    let refused = [
        (format!("{first}allowed_ip=10.0.0.1/33\n"), "errno=-22"),
        (format!("{first}allowed_ip=10.0.0.1\n"), "errno=-22"),
        (format!("{first}endpoint=192.0.2.1\n"), "errno=-22"),
        (format!("{first}persistent_keepalive_interval=65536\n"), "errno=-22"),
        (format!("{first}remove=false\n"), "errno=-22"),
        (format!("{first}listen_port=5\n"), "errno=-22"),
        ("public_key=ab\n".to_owned(), "errno=-22"),
        ("private_key=xyz\n".to_owned(), "errno=-22"),
        ("fwmark=-1\n".to_owned(), "errno=-22"),
        ("colour=blue\n".to_owned(), "errno=-22"),
        ("no pair\n".to_owned(), "errno=-71"),
        (format!("{first}protocol_version=2\n"), "errno=-71"),
        (format!("listen_port={port}\nreplace_peers=true\n{first}"), "errno=-98"),
    ];
    for (lines, errno) in refused {
        assert_eq!(set(&format!("fwmark=7\n{lines}")), errno, "{lines}");
        assert_eq!(node.wg(&["showconf", DEVICE]), conf, "{lines}");
    }
    assert_eq!(ask(&node, "set=2\n"), "errno=-71");
    assert_eq!(ask(&node, "get=1\nfwmark=1\n"), "errno=-22");
    assert!(ask(&node, "get=1\n").ends_with("errno=0"));
}

/// As scripts and panels do it: `wg-quick strip | wg syncconf`, `addconf`, `setconf`, `showconf`; a peer that stays the
/// same keeps its session.
#[test]
fn wg_sets_syncs_and_adds_configurations_on_a_living_tunnel() {
    if !need_root() {
        return;
    }
    let pair = Pair::start("syncconf", &Spec::default());
    let (left, right) = (&pair.left, &pair.right);
    left.ping(right.inner4, 1);
    let handshake = left.last_handshake(&right.key());
    let other = key();
    let quick = |peers: &str| {
        let text = format!(
            "[Interface]\nAddress = 10.77.0.1/24\nMTU = 1420\nDNS = 192.0.2.53\nPostUp = true\nListenPort = 51820\n\
             PrivateKey = {}\n\n[Peer]\nPublicKey = {}\nEndpoint = 192.0.2.2:51820\nAllowedIPs = {}, {}\n{peers}",
            *left.private.to_base64(),
            right.key(),
            right.inner4,
            right.inner6,
        );
        let path = left.write("wgq0.conf", &text);
        sh(&left.host, &format!("chmod 600 {path}; wg-quick strip {path}"))
    };
    let stripped = |peers: &str| left.write("stripped.conf", &quick(peers));
    left.wg(&[
        "syncconf",
        DEVICE,
        &stripped(&format!("[Peer]\nPublicKey = {other}\nAllowedIPs = 10.6.0.0/16\n")),
    ]);
    assert_eq!(left.shown("allowed-ips", &other), "10.6.0.0/16");
    left.wg(&["syncconf", DEVICE, &stripped("")]);
    assert!(!left.wg(&["show", DEVICE, "peers"]).contains(&other.to_string()));
    assert_eq!(left.last_handshake(&right.key()), handshake, "syncconf leaves who stays alone");
    left.wg(&["addconf", DEVICE, &left.write("more.conf", &format!("[Peer]\nPublicKey = {other}\n"))]);
    let conf = left.wg(&["showconf", DEVICE]);
    assert!(conf.contains(&other.to_string()) && conf.contains(&right.key().to_string()), "{conf}");
    left.ping(right.inner4, 1);
    assert_eq!(left.last_handshake(&right.key()), handshake);

    left.wg(&["setconf", DEVICE, &left.write("shown.conf", &conf)]);
    let sorted = |conf: &str| {
        let mut blocks: Vec<_> = conf.split("\n\n").map(|block| block.trim().to_owned()).collect();
        blocks.sort();
        blocks
    };
    assert_eq!(sorted(&left.wg(&["showconf", DEVICE])), sorted(&conf));
    assert!(wait_until(Duration::from_secs(5), || left.reaches(right.inner4)), "{}", left.log());
    assert!(
        left.status()["operation"]["differs"].as_array().is_some_and(|lines| lines.len() == 1),
        "the other peer"
    );
}
