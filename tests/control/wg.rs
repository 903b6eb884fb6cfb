//! `wg`, as it is installed.

use std::fmt::Write;
use std::time::Duration;

use vpnd::noise::PublicKey;

use super::fake::{self, Fake, Model, NAME, TAKEN_PORT, wg_is_missing};

const ALICE: &str = "YWFhYWFhYWFhYWFhYWFhYWFhYWFhYWFhYWFhYWFhYWE=";
const BOB: &str = "YmJiYmJiYmJiYmJiYmJiYmJiYmJiYmJiYmJiYmJiYmI=";
const PRIVATE: &str = "cHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHA="; // clamped already
const PUBLIC: &str = "pJ60kr88Oe4SPDqnx6jaP9Uaya0FimmiXuD3LqHv0XY=";
const PSK: &str = "c3Nzc3Nzc3Nzc3Nzc3Nzc3Nzc3Nzc3Nzc3Nzc3Nzc3M=";

/// Runs `wg show NAME dump`: lines of columns.
async fn dump(fake: &Fake) -> Vec<Vec<String>> {
    let text = fake.wg(&["show", NAME, "dump"]).await;
    text.lines().map(|line| line.split('\t').map(str::to_owned).collect()).collect()
}

#[tokio::test]
async fn show_shows_what_the_daemon_says() {
    if wg_is_missing() {
        return;
    }
    let mut model = Model { port: 51820, mark: 0x1234, ..Model::default() };
    let mut peer = fake::peer(7, PublicKey([b'a'; 32]));
    peer.endpoint = Some("[2001:db8::7]:7777".parse().expect("an address"));
    peer.last_handshake = Some(Duration::new(1_600_000_000, 7));
    (peer.rx_bytes, peer.tx_bytes) = (5_000_000_000, u64::MAX);
    model.peers.push(peer);
    let fake = Fake::start_with(model).await;
    assert_eq!(fake.wg(&["show", "interfaces"]).await.trim(), NAME);
    let shown = dump(&fake).await;
    assert_eq!(shown[0], ["(none)", "(none)", "51820", "0x1234"]);
    let peer = [ALICE, "(none)", "[2001:db8::7]:7777", "(none)", "1600000000", "5000000000"];
    assert_eq!(shown[1][..6], peer);
    assert_eq!(shown[1][6..], ["18446744073709551615", "off"]);
    let people = fake.wg(&["show"]).await;
    assert!(people.contains("peer: ") && people.contains("listening port: 51820"), "{people}");
}

#[tokio::test]
async fn set_makes_changes_and_removes_a_peer() {
    if wg_is_missing() {
        return;
    }
    let fake = Fake::start().await;
    let endpoint = "192.0.2.7:51820";
    fake.wg(&[
        "set",
        NAME,
        "listen-port",
        "4321",
        "fwmark",
        "0x51",
        "peer",
        ALICE,
        "endpoint",
        endpoint,
        "persistent-keepalive",
        "25",
        "allowed-ips",
        "10.0.0.5/8,fd00::/64",
    ])
    .await;
    fake.wg(&["set", NAME, "peer", BOB, "allowed-ips", "0.0.0.0/0"]).await;
    let shown = dump(&fake).await;
    assert_eq!(shown[0][2..], ["4321", "0x51"]);
    assert_eq!(shown[1][..4], [ALICE, "(none)", endpoint, "10.0.0.0/8,fd00::/64"]);
    assert_eq!(shown[1][7], "25");
    assert_eq!(shown[2][3], "0.0.0.0/0");

    fake.wg(&[
        "set",
        NAME,
        "fwmark",
        "off",
        "peer",
        ALICE,
        "persistent-keepalive",
        "off",
        "peer",
        BOB,
        "remove",
    ])
    .await;
    let shown = dump(&fake).await;
    assert_eq!(shown.len(), 2, "Bob is gone");
    assert_eq!(shown[0][3], "off");
    assert_eq!((shown[1][3].as_str(), shown[1][7].as_str()), ("10.0.0.0/8,fd00::/64", "off"));
    fake.wg(&["set", NAME, "peer", ALICE, "allowed-ips", ""]).await;
    assert_eq!(dump(&fake).await[1][3], "(none)");
}

#[tokio::test]
async fn an_ipv6_endpoint_with_a_scope_goes_in_and_comes_out() {
    if wg_is_missing() {
        return;
    }
    let fake = Fake::start().await;
    fake.wg(&["set", NAME, "peer", ALICE, "endpoint", "[fe80::1%lo]:51820"]).await;
    assert_eq!(dump(&fake).await[1][2], "[fe80::1%lo]:51820");
}

#[tokio::test]
async fn private_and_preshared_keys_are_set_and_cleared_exactly() {
    if wg_is_missing() {
        return;
    }
    let fake = Fake::start().await;
    let (private, psk) = (fake.file("private", PRIVATE), fake.file("psk", PSK));
    fake.wg(&["set", NAME, "private-key", &private, "peer", ALICE, "preshared-key", &psk]).await;
    let shown = dump(&fake).await;
    assert_eq!(shown[0][..2], [PRIVATE, PUBLIC]);
    assert_eq!(shown[1][1], PSK);
    fake.wg(&["set", NAME, "private-key", "/dev/null", "peer", ALICE, "preshared-key", "/dev/null"]).await;
    let shown = dump(&fake).await;
    assert_eq!(shown[0][..2], ["(none)", "(none)"]);
    assert_eq!(shown[1][..2], [ALICE, "(none)"]);
}

#[tokio::test]
async fn setconf_replaces_addconf_adds_syncconf_keeps_and_showconf_gives_it_back() {
    if wg_is_missing() {
        return;
    }
    let fake = Fake::start().await;
    let alice = format!(
        "[Interface]\nListenPort = 51820\nFwMark = 0x7\nPrivateKey = {PRIVATE}\n\n[Peer]\nPublicKey = {ALICE}\n\
         PresharedKey = {PSK}\nAllowedIPs = 10.1.0.0/16, fd01::/16\nEndpoint = 192.0.2.1:1000\nPersistentKeepalive = 5\n"
    );
    let bob = format!("[Peer]\nPublicKey = {BOB}\nAllowedIPs = 10.2.0.0/16\n");
    let (alice, bob) = (fake.file("alice.conf", &alice), fake.file("bob.conf", &bob));

    fake.wg(&["set", NAME, "peer", PUBLIC]).await;
    fake.wg(&["setconf", NAME, &alice]).await;
    let shown = dump(&fake).await;
    assert_eq!(shown[0], [PRIVATE, PUBLIC, "51820", "0x7"]);
    assert_eq!(shown[1], [ALICE, PSK, "192.0.2.1:1000", "10.1.0.0/16,fd01::/16", "0", "0", "0", "5"]);
    assert_eq!(shown.len(), 2, "setconf replaces all peers");

    fake.wg(&["addconf", NAME, &bob]).await;
    assert_eq!(dump(&fake).await.len(), 3, "addconf adds");

    let conf = fake.wg(&["showconf", NAME]).await;
    let other = Fake::start().await;
    let file = other.file("shown.conf", &conf);
    other.wg(&["setconf", NAME, &file]).await;
    assert_eq!(dump(&other).await, dump(&fake).await, "showconf and setconf copy an interface");

    fake.wg(&["syncconf", NAME, &alice]).await;
    assert_eq!(dump(&fake).await, shown, "syncconf takes away what is not in the file, and nothing else");
}

#[tokio::test]
async fn what_the_daemon_refuses_is_told_to_wg_with_its_reason() {
    if wg_is_missing() {
        return;
    }
    let fake = Fake::start().await;
    let output = fake.try_wg(&["set", NAME, "listen-port", &TAKEN_PORT.to_string()]).await;
    assert!(!output.status.success());
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(error.contains("Address already in use"), "{error}");
}

#[tokio::test]
async fn wg_is_told_of_an_input_output_error_when_the_daemon_has_gone() {
    if wg_is_missing() {
        return;
    }
    let run = Fake::start().await;
    // A second interface's worth of sockets, whose daemon never listens.
    let (requests, gone) = tokio::sync::mpsc::channel(1);
    drop(gone);
    let path = run.socket("wireguard");
    let folder = path.parent().and_then(|wireguard| wireguard.parent()).expect("the run directory");
    let _server =
        vpnd::control::ControlServer::serve("vpndctl1", folder, vpnd::control::Access::default(), requests)
            .await
            .expect("a free name");
    for arguments in [&["show", "vpndctl1"][..], &["set", "vpndctl1", "listen-port", "1"]] {
        let output = run.try_wg(arguments).await;
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(error.contains("Input/output error"), "{arguments:?}: {error}");
    }
}

/// Scenario 29 of netns.sh.
#[tokio::test]
async fn a_hundred_and_thirty_thousand_allowed_ips_go_in_and_come_out() {
    if wg_is_missing() {
        return;
    }
    let fake = Fake::start().await;
    let mut expected = Vec::with_capacity(130_560);
    let mut conf = format!("[Peer]\nPublicKey = {ALICE}\n");
    for a in 0..=254 {
        for b in 0..=255 {
            for prefix in [format!("{a}.{b}.0.0/24"), format!("{a:x}:{b:x}::/64")] {
                writeln!(conf, "AllowedIPs = {prefix}").expect("a string takes every text");
                expected.push(prefix.parse::<ipnet::IpNet>().expect("a prefix"));
            }
        }
    }
    assert_eq!(expected.len(), 130_560);
    let file = fake.file("many.conf", &conf);
    fake.wg(&["addconf", NAME, &file]).await;
    let shown = fake.wg(&["show", NAME, "allowed-ips"]).await;
    let (key, shown) = shown.trim_end().split_once('\t').expect("a key and its prefixes");
    assert_eq!(key, ALICE);
    let mut found: Vec<ipnet::IpNet> =
        shown.split(' ').map(|prefix| prefix.parse().expect("a prefix")).collect();
    found.sort();
    expected.sort();
    assert!(found == expected, "{} came back", found.len());
}
