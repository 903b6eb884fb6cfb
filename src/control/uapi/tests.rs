use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use ipnet::IpNet;
use proptest::prelude::*;

use super::*;
use crate::control::InterfaceStatus;
use crate::forward::{PeerId, Time};
use crate::noise::{PresharedKey, PrivateKey, PublicKey};
use crate::tunnel::{AllowedIpOp, Change, PeerChange, PeerStatus, Status};

const KEY: &str = "a0b1c2d3e4f50617283940a1b2c3d4e5f60718293a4b5c6d7e8f90a1b2c3d4e5";

fn scope(name: &str) -> Option<u32> {
    (name == "eth0").then_some(7)
}

/// What each finished request in `text` became.
fn parse(text: &[u8]) -> Vec<Result<Command, Refused>> {
    let mut parser = Parser::new(scope);
    let mut lines: Vec<_> = text.split(|byte| *byte == b'\n').collect();
    lines.pop(); // what stands behind the last line feed is no line
    lines.into_iter().filter_map(|line| parser.line(line)).collect()
}

fn one(text: &str) -> Result<Command, Refused> {
    let mut all = parse(text.as_bytes());
    assert_eq!(all.len(), 1, "{text}");
    all.remove(0)
}

fn set(body: &str) -> Vec<Change> {
    match one(&format!("set=1\n{body}\n")) {
        Ok(Command::Set(changes)) => changes,
        other => panic!("{body} became {other:?}"),
    }
}

fn refused(body: &str) -> Refused {
    match one(&format!("set=1\n{body}\n")) {
        Err(refused) => refused,
        other => panic!("{body} became {other:?}"),
    }
}

fn only_peer(body: &str) -> PeerChange {
    match set(&format!("public_key={KEY}\n{body}")).pop() {
        Some(Change::Peer(change)) => change,
        other => panic!("{body} became {other:?}"),
    }
}

/// The request that asks for `changes`.
fn request(changes: &[Change]) -> String {
    let mut text = "set=1\n".to_owned();
    for change in changes {
        text += &match change {
            Change::PrivateKey(None) => format!("private_key={NO_KEY}\n"),
            Change::PrivateKey(Some(key)) => format!("private_key={}\n", key.to_hex().as_str()),
            Change::ListenPort(port) => format!("listen_port={port}\n"),
            Change::Fwmark(mark) => format!("fwmark={mark}\n"),
            Change::ReplacePeers => "replace_peers=true\n".to_owned(),
            Change::Peer(change) => peer_request(change),
        };
    }
    text + "\n"
}

fn peer_request(change: &PeerChange) -> String {
    let mut text = format!("public_key={}\n", change.public_key.to_hex());
    text += if change.remove { "remove=true\n" } else { "" };
    text += if change.update_only { "update_only=true\n" } else { "" };
    if let Some(key) = &change.preshared_key {
        text += &format!("preshared_key={}\n", key.to_hex().as_str());
    }
    if let Some(endpoint) = change.endpoint {
        text += &format!("endpoint={endpoint}\n");
    }
    if let Some(seconds) = change.persistent_keepalive {
        text += &format!("persistent_keepalive_interval={seconds}\n");
    }
    text += if change.replace_allowed_ips { "replace_allowed_ips=true\n" } else { "" };
    for prefix in &change.allowed_ips {
        text += &match prefix {
            AllowedIpOp::Add(prefix) => format!("allowed_ip={prefix}\n"),
            AllowedIpOp::Remove(prefix) => format!("allowed_ip=-{prefix}\n"),
        };
    }
    text
}

#[test]
fn get_stands_alone() {
    assert!(matches!(one("get=1\n\n"), Ok(Command::Get)));
    assert_eq!(one("get=1\nlisten_port=1\n\n").unwrap_err().errno, Errno::INVALID);
    assert_eq!(one("get=2\n\n").unwrap_err().errno, Errno::PROTOCOL);
}

#[test]
fn several_requests_follow_each_other() {
    let all = parse(b"get=1\n\nset=1\nlisten_port=x\n\nset=1\nlisten_port=7\n\nset=1\n");
    assert!(matches!(all[0], Ok(Command::Get)));
    assert_eq!(all[1].as_ref().unwrap_err().line, 2);
    assert!(
        matches!(all[2].as_ref(), Ok(Command::Set(changes)) if matches!(changes[..], [Change::ListenPort(7)]))
    );
    assert_eq!(all.len(), 3, "an unfinished request is nothing");
}

#[test]
fn a_request_without_an_operation_is_refused() {
    for text in ["\n", "listen_port=1\n\n", "public_key=1\n\n", "hello\n\n", "=\n\n"] {
        assert!(one(text).is_err(), "{text:?}");
    }
}

#[test]
fn every_key_of_an_interface_becomes_its_change_in_order() {
    let changes = set("private_key=0000000000000000000000000000000000000000000000000000000000000000\n\
         listen_port=51820\nfwmark=4294967295\nreplace_peers=true\n");
    assert!(matches!(
        changes[..],
        [Change::PrivateKey(None), Change::ListenPort(51820), Change::Fwmark(u32::MAX), Change::ReplacePeers]
    ));
    let changes = set(&format!("private_key={KEY}\n"));
    let [Change::PrivateKey(Some(key))] = &changes[..] else { panic!("{changes:?}") };
    assert_eq!(key.to_hex()[2..62], KEY[2..62], "but for the clamping");
}

#[test]
fn every_key_of_a_peer_becomes_its_field() {
    let change = only_peer(&format!(
        "protocol_version=1\nupdate_only=true\npreshared_key={KEY}\nendpoint=192.0.2.1:51820\n\
         persistent_keepalive_interval=65535\nreplace_allowed_ips=true\nallowed_ip=10.0.0.7/8\n\
         allowed_ip=-2001:db8::/32\nallowed_ip=0.0.0.0/0\n"
    ));
    assert_eq!(change.public_key.0[..3], [0xa0, 0xb1, 0xc2]);
    assert!(change.update_only && change.replace_allowed_ips && !change.remove);
    assert_eq!(change.preshared_key.expect("given").expose()[31], 0xe5);
    assert_eq!(change.endpoint, Some("192.0.2.1:51820".parse().expect("an address")));
    assert_eq!(change.persistent_keepalive, Some(65535));
    let net = |text: &str| text.parse::<IpNet>().expect("a prefix");
    let expected = [
        AllowedIpOp::Add(net("10.0.0.0/8")),
        AllowedIpOp::Remove(net("2001:db8::/32")),
        AllowedIpOp::Add(net("0.0.0.0/0")),
    ];
    assert_eq!(change.allowed_ips, expected);
    assert!(only_peer("remove=true\n").remove);
}

#[test]
fn prefixes_before_replace_allowed_ips_are_replaced_too() {
    let change = only_peer("allowed_ip=10.0.0.0/8\nreplace_allowed_ips=true\nallowed_ip=10.1.0.0/16\n");
    assert_eq!(change.allowed_ips, [AllowedIpOp::Add("10.1.0.0/16".parse().expect("a prefix"))]);
}

#[test]
fn endpoints_of_all_shapes_are_read() {
    let endpoint =
        |text: &str| only_peer(&format!("endpoint={text}\n")).endpoint.map(|found| found.to_string());
    assert_eq!(endpoint("[2001:db8::1]:1").as_deref(), Some("[2001:db8::1]:1"));
    assert_eq!(endpoint("[fe80::1%3]:51820").as_deref(), Some("[fe80::1%3]:51820"));
    assert_eq!(endpoint("[fe80::1%eth0]:51820").as_deref(), Some("[fe80::1%7]:51820"));
    assert_eq!(
        endpoint("[::ffff:192.0.2.1]:9").as_deref(),
        Some("192.0.2.1:9"),
        "a mapped address is unmapped"
    );
}

#[test]
fn what_has_no_meaning_is_refused_with_its_line_and_key() {
    let wrong = [
        ("private_key=00", "private_key"),
        ("listen_port=65536", "listen_port"),
        ("listen_port=-1", "listen_port"),
        ("listen_port=+1", "listen_port"),
        ("listen_port=", "listen_port"),
        ("fwmark=4294967296", "fwmark"),
        ("fwmark=0x10", "fwmark"),
        ("replace_peers=false", "replace_peers"),
        ("endpoint=192.0.2.1:1", "endpoint"),
    ];
    for (line, key) in wrong {
        let refused = refused(&format!("listen_port=1\n{line}\n"));
        assert_eq!((refused.errno, refused.line, refused.key), (Errno::INVALID, 3, key), "{line}");
    }
    let wrong = [
        "remove=1",
        "update_only=yes",
        "preshared_key=g",
        "endpoint=192.0.2.1",
        "endpoint=192.0.2.1:0",
        "endpoint=example.org:1",
        "endpoint=[fe80::1%eth1]:1",
        "endpoint=[fe80::1%eth0]:+1",
        "persistent_keepalive_interval=65536",
        "persistent_keepalive_interval=off",
        "replace_allowed_ips=",
        "allowed_ip=10.0.0.0",
        "allowed_ip=10.0.0.0/33",
        "allowed_ip=::/129",
        "allowed_ip=--10.0.0.0/8",
        "allowed_ip=",
        "listen_port=1",
        "private_key=00",
    ];
    for line in wrong {
        let refused = refused(&format!("public_key={KEY}\n{line}\n"));
        assert_eq!((refused.errno, refused.line), (Errno::INVALID, 3), "{line}");
        assert!(line.starts_with(refused.key), "{line}");
    }
    assert_eq!(refused(&format!("public_key={KEY}\nprotocol_version=2\n")).errno, Errno::PROTOCOL);
    assert_eq!(refused("jc=4\n").errno, Errno::INVALID);
    assert_eq!(refused("no pair\n").errno, Errno::PROTOCOL);
}

#[test]
fn a_refusal_never_repeats_a_value() {
    let refused = refused(&format!("private_key={KEY}0\n"));
    assert!(!format!("{refused} {refused:?}").contains(&KEY[..8]));
}

#[test]
fn the_first_mistake_is_the_one_that_is_told_and_the_rest_is_read_over() {
    let refused = refused("listen_port=1\nlisten_port=x\nfwmark=y\n");
    assert_eq!((refused.line, refused.key), (3, "listen_port"));
}

#[test]
fn a_line_of_the_greatest_length_is_read_and_a_longer_one_is_refused() {
    let line = |length| format!("fwmark={:0>1$}\n", 5, length - "fwmark=".len());
    assert!(matches!(set(&line(MAX_LINE))[..], [Change::Fwmark(5)]));
    assert_eq!(refused(&line(MAX_LINE + 1)).errno, Errno::TOO_LARGE);
}

#[test]
fn more_changes_than_fit_at_first_keep_their_order_and_their_prefixes() {
    let body: String =
        (0..100u32).map(|n| format!("public_key={n:0>64x}\nallowed_ip=10.0.{n}.0/24\n")).collect();
    let changes = set(&format!("private_key={KEY}\n{body}"));
    assert_eq!(changes.len(), 101);
    assert_eq!(request(&changes[1..]), format!("set=1\n{body}\n"));
}

#[test]
fn an_answer_ends_with_the_sign_that_wg_expects() {
    assert_eq!(EndOfGet(Errno::IO).to_string(), "errno=5\n\n");
    assert_eq!(EndOfSet(Errno::INVALID).to_string(), "errno=-22\n\n");
    assert_eq!(EndOfSet(Errno(0)).to_string(), "errno=0\n\n");
}

#[test]
fn an_interface_without_anything_is_rendered_as_success_alone() {
    let mut text = String::new();
    render(&status(None, 0, 0, Vec::new()), &mut text).expect("a string takes every text");
    assert_eq!(text, "errno=0\n\n");
}

#[test]
fn a_peer_is_rendered_with_everything_that_wg_shows() {
    let mut shown = peer_status(PublicKey([0xab; 32]));
    shown.endpoint = Some("[2001:db8::1]:51820".parse().expect("an address"));
    shown.last_handshake = Some(Duration::new(1_700_000_000, 5));
    (shown.rx_bytes, shown.tx_bytes, shown.persistent_keepalive) = (u64::MAX, 1, 25);
    shown.allowed_ips = vec!["10.0.0.0/8".parse().expect("a prefix"), "::/0".parse().expect("a prefix")];
    let mut text = String::new();
    render(&status(None, 51820, 51, vec![shown]), &mut text).expect("a string takes every text");
    let expected = format!(
        "listen_port=51820\nfwmark=51\npublic_key={}\npreshared_key={NO_KEY}\nprotocol_version=1\n\
         endpoint=[2001:db8::1]:51820\nlast_handshake_time_sec=1700000000\nlast_handshake_time_nsec=5\n\
         tx_bytes=1\nrx_bytes=18446744073709551615\npersistent_keepalive_interval=25\n\
         allowed_ip=10.0.0.0/8\nallowed_ip=::/0\nerrno=0\n\n",
        "ab".repeat(32)
    );
    assert_eq!(text, expected);
}

fn status(private_key: Option<PrivateKey>, port: u16, mark: u32, peers: Vec<PeerStatus>) -> InterfaceStatus {
    InterfaceStatus {
        name: "vpn0".to_owned(),
        listen_port: port,
        fwmark: mark,
        mtu: 1420,
        tunnel: Status {
            private_key,
            public_key: None,
            peers,
            refusals: Vec::new(),
            under_load: false,
            mss_clamped: 0,
        },
        now: Duration::ZERO,
        operation: crate::control::Operation::default(),
        sandbox: crate::control::Sandbox::default(),
        boot: Time(0),
    }
}

fn peer_status(public_key: PublicKey) -> PeerStatus {
    PeerStatus {
        id: PeerId(1),
        public_key,
        label: String::new(),
        preshared_key: None,
        endpoint: None,
        set_endpoint: None,
        local: None,
        last_handshake: None,
        connected_since: None,
        session_age: None,
        last_received: None,
        rx_bytes: 0,
        tx_bytes: 0,
        rx_packets: 0,
        tx_packets: 0,
        persistent_keepalive: 0,
        allowed_ips: Vec::new(),
        expires: None,
        expired: false,
        staged: 0,
        attempts: 0,
        untaken: 0,
    }
}

fn prefix() -> impl Strategy<Value = IpNet> {
    (any::<IpAddr>(), 0..=128u8).prop_map(|(address, length)| {
        let longest = if address.is_ipv4() { 32 } else { 128 };
        IpNet::new(address, length.min(longest)).expect("the length is in range").trunc()
    })
}

/// As endpoints are kept: never mapped, never port 0.
fn address() -> impl Strategy<Value = SocketAddr> {
    (any::<IpAddr>(), 1..=u16::MAX).prop_map(|(ip, port)| SocketAddr::new(ip.to_canonical(), port))
}

fn peer_change() -> impl Strategy<Value = Change> {
    let op = (any::<bool>(), prefix())
        .prop_map(|(add, prefix)| if add { AllowedIpOp::Add(prefix) } else { AllowedIpOp::Remove(prefix) });
    let flags = any::<(bool, bool, bool)>();
    let rest = (any::<Option<[u8; 32]>>(), proptest::option::of(address()), any::<Option<u16>>());
    (any::<[u8; 32]>(), flags, rest, proptest::collection::vec(op, 0..20)).prop_map(
        |(key, flags, rest, ops)| {
            let mut change = PeerChange::new(PublicKey(key));
            (change.remove, change.update_only, change.replace_allowed_ips) = flags;
            change.preshared_key = rest.0.map(PresharedKey::new);
            (change.endpoint, change.persistent_keepalive) = (rest.1, rest.2);
            change.allowed_ips = ops;
            Change::Peer(change)
        },
    )
}

fn interface_change() -> impl Strategy<Value = Change> {
    prop_oneof![
        Just(Change::PrivateKey(None)),
        any::<[u8; 32]>().prop_map(|key| Change::PrivateKey(Some(PrivateKey::new(key)))),
        any::<u16>().prop_map(Change::ListenPort),
        any::<u32>().prop_map(Change::Fwmark),
        Just(Change::ReplacePeers),
    ]
}

fn changes() -> impl Strategy<Value = Vec<Change>> {
    let interface = proptest::collection::vec(interface_change(), 0..12);
    let peers = proptest::collection::vec(peer_change(), 0..12);
    (interface, peers).prop_map(|(interface, peers)| [interface, peers].concat())
}

fn any_peer_status() -> impl Strategy<Value = PeerStatus> {
    let numbers = any::<(u64, u64, u16, Option<Duration>)>();
    let keys = any::<([u8; 32], Option<[u8; 32]>)>();
    (keys, proptest::option::of(address()), numbers, proptest::collection::vec(prefix(), 0..20)).prop_map(
        |((key, preshared), endpoint, numbers, allowed_ips)| {
            let mut status = peer_status(PublicKey(key));
            status.preshared_key = preshared.map(PresharedKey::new);
            status.endpoint = endpoint;
            (status.rx_bytes, status.tx_bytes, status.persistent_keepalive, status.last_handshake) = numbers;
            status.allowed_ips = allowed_ips;
            status
        },
    )
}

/// Text that looks like the protocol, and is wrong somewhere.
fn almost() -> impl Strategy<Value = Vec<u8>> {
    let keys = "(get|set|private_key|listen_port|fwmark|replace_peers|public_key|remove|update_only|preshared_key\
                |endpoint|persistent_keepalive_interval|replace_allowed_ips|allowed_ip|protocol_version|errno)";
    let values =
        prop_oneof!["[0-9a-f]{64}", "true|1|-1", "[0-9]{1,12}", "-?[0-9.:%\\[\\]/a-f]{1,40}", "\\PC{0,300}"];
    let line = prop_oneof![
        8 => (keys, values).prop_map(|(key, value)| format!("{key}={value}\n").into_bytes()),
        1 => Just(b"\n".to_vec()),
        1 => Just(b"set=1\n".to_vec()),
        1 => proptest::collection::vec(any::<u8>(), 0..300),
    ];
    proptest::collection::vec(line, 0..40).prop_map(|lines| lines.concat())
}

proptest! {
    #[test]
    fn what_is_asked_is_what_is_understood(changes in changes()) {
        let text = request(&changes);
        let Ok(Command::Set(understood)) = one(&text) else { panic!("{text}") };
        prop_assert_eq!(request(&understood), text);
    }

    /// What `get` shows, said as a `set`, makes the same configuration: `wg showconf` and back.
    #[test]
    fn what_is_shown_can_be_said(
        key in any::<Option<[u8; 32]>>(),
        port: u16,
        mark: u32,
        peers in proptest::collection::vec(any_peer_status(), 0..8),
    ) {
        let status = status(key.map(PrivateKey::new), port, mark, peers);
        let mut text = String::new();
        render(&status, &mut text).expect("a string takes every text");
        prop_assert!(text.ends_with("errno=0\n\n"));
        let shown_only = ["last_handshake", "rx_bytes", "tx_bytes", "errno"];
        let kept: String = text.split_inclusive('\n').filter(|line| !shown_only.iter().any(|key| line.starts_with(key))).collect();
        let understood = set(&kept[..kept.len() - 1]);

        let mut expected = Vec::new();
        expected.extend(status.tunnel.private_key.clone().map(|key| Change::PrivateKey(Some(key))));
        expected.extend((port != 0).then_some(Change::ListenPort(port)));
        expected.extend((mark != 0).then_some(Change::Fwmark(mark)));
        expected.extend(status.tunnel.peers.iter().map(|peer| {
            let mut change = PeerChange::new(peer.public_key);
            change.preshared_key = Some(peer.preshared_key.clone().unwrap_or_default());
            change.endpoint = peer.endpoint;
            change.persistent_keepalive = Some(peer.persistent_keepalive);
            change.allowed_ips = peer.allowed_ips.iter().copied().map(AllowedIpOp::Add).collect();
            Change::Peer(change)
        }));
        prop_assert_eq!(request(&understood), request(&expected));
    }

    #[test]
    fn each_part_of_an_answer_is_smaller_than_a_kibibyte(peer in any_peer_status()) {
        let status = status(Some(PrivateKey::new([255; 32])), u16::MAX, u32::MAX, vec![peer]);
        prop_assert!(lines(&status).all(|part| part.to_string().len() < 1024));
    }

    #[test]
    fn nothing_that_comes_panics(text in almost()) {
        let empty = text.split(|byte| *byte == b'\n').filter(|line| line.is_empty()).count();
        prop_assert!(parse(&text).len() <= empty, "only an empty line ends a request");
    }
}
