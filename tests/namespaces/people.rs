//! Peers that come and go by the operator's commands, and those whose time is over.

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use vpnd::{
    config::date,
    lab::{Host, with_control_sockets},
    noise::PrivateKey,
    sys::random::os_rng,
};

use crate::{
    common::need_root,
    world::{NodeFile, PORT, Running, attempt, cable, start_vpnd, wait_until},
};

const PATIENCE: Duration = Duration::from_secs(20);

/// The wall clock, as the daemon sees it.
fn wall() -> Duration {
    vpnd::sys::clock::wall()
}

#[test]
fn a_peer_whose_time_is_over_is_cut_off_while_it_talks_without_a_reload() {
    if !need_root() {
        return;
    }
    let (left, right) = cable("expires", 1500);
    let keys = [PrivateKey::generate(&mut os_rng()), PrivateKey::generate(&mut os_rng())];
    // To the second, as the file says it; far enough to be connected before.
    let moment = Duration::from_secs(wall().as_secs() + 8);
    let start = |host, own: usize, more: &str| {
        let other = 1 - own;
        let peers = format!(
            "[[peer]]\nname = \"guest\"\npublic_key = \"{}\"\nallowed_ips = [\"10.77.0.{}/32\"]\nendpoint = \"192.0.2.{}:{PORT}\"\n{more}",
            keys[other].public_key(),
            other + 1,
            other + 1
        );
        let address = [format!("10.77.0.{}/24", own + 1)];
        let file =
            NodeFile { private: &keys[own], address: &address, mtu: 1420, interface: "", peers: &peers };
        match start_vpnd(host, &file.toml(), &[]) {
            Running::Vpnd(daemon) => daemon,
            Running::Other(..) => unreachable!("vpnd was asked for"),
        }
    };
    let gateway = start(&left, 0, &format!("expires = {}\n", date::written(moment)));
    let guest = start(&right, 1, "");
    let to_gateway = "10.77.0.1".parse().expect("an address");
    let reaches = || right.ping(to_gateway, 1).is_ok_and(|pings| pings.received == 1);
    assert!(wait_until(Duration::from_secs(6), reaches), "not connected: {}", gateway.log());
    let status = || gateway.status("vpn0").expect("a status");
    assert_eq!(
        (status()["peers"][0]["expired"].as_bool(), status()["peers"][0]["connected"].as_bool()),
        (Some(false), Some(true))
    );

    assert!(wait_until(PATIENCE, || wall() >= moment), "time goes on");
    assert!(wait_until(PATIENCE, || status()["peers"][0]["connected"] == false), "{}", status());
    assert!(!reaches(), "an expired peer was answered");
    assert_eq!(status()["peers"][0]["expired"], true);
    assert_eq!(status()["peers"][0]["expires"].as_f64(), Some(moment.as_secs_f64()));
    assert!(gateway.log().contains("expired: its time"), "{}", gateway.log());
    // Its own end notices after 15 s; a handshake of another host with this key shows the reason sooner.
    drop(guest);
    let _guest = start(&right, 1, "persistent_keepalive = 1\n");
    let refused = || {
        let status = status();
        let refusals = status["refusals"].as_array().expect("a list").clone();
        refusals.into_iter().find(|refusal| refusal["reason"] == "peer_expired")
    };
    assert!(wait_until(PATIENCE, || refused().is_some()), "{}", status());
    assert_eq!(refused().expect("it was refused")["last"]["peer"], "guest");
    assert!(!reaches());
}

/// `vpnd WORDS` on a host: whether it succeeded, what it printed, what it said beside.
fn vpnd(host: &Host, words: &[&str]) -> (bool, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_vpnd"));
    command.args(words);
    let output = attempt(host, &command);
    let text = |bytes| String::from_utf8(bytes).expect("text");
    (output.status.success(), text(output.stdout), text(output.stderr))
}

/// What another program reads of the QR code that stands in a text.
fn scanned(shown: &str) -> String {
    const SCALE: usize = 4;
    let is_drawn = |line: &&str| !line.is_empty() && line.chars().all(|c| " █▀▄".contains(c));
    let lines: Vec<Vec<char>> = shown.lines().filter(is_drawn).map(|line| line.chars().collect()).collect();
    assert!(!lines.is_empty(), "no code in {shown}");
    let light = |x: usize, y: usize| match lines[y / 2][x] {
        '█' => true,
        '▀' => y.is_multiple_of(2),
        '▄' => !y.is_multiple_of(2),
        _ => false,
    };
    let (width, height) = (lines[0].len() * SCALE, lines.len() * 2 * SCALE);
    let pixel = |x, y| if light(x / SCALE, y / SCALE) { 255 } else { 0 };
    let mut image = rqrr::PreparedImage::prepare_from_greyscale(width, height, pixel);
    let (_, text) = image.detect_grids().first().expect("a code is seen").decode().expect("it is read");
    text
}

/// A client as phones and laptops are: wg-quick with its file, and wireguard-go below it. Down when dropped.
struct WgQuick<'h> {
    host: &'h Host,
    file: PathBuf,
}

impl<'h> WgQuick<'h> {
    fn up(host: &'h Host, text: &str) -> Self {
        let file = host.folder().join("wgq0.conf");
        std::fs::write(&file, text).expect("a file");
        let client = Self { host, file };
        client.run("up");
        client
    }

    fn run(&self, direction: &str) -> std::process::Output {
        let sockets = self.host.folder().join("sockets");
        std::fs::create_dir_all(&sockets).expect("a folder");
        let mut command = with_control_sockets(&sockets, Path::new("wg-quick"));
        command.arg(direction).arg(&self.file).env("WG_QUICK_USERSPACE_IMPLEMENTATION", "wireguard-go");
        let output = attempt(self.host, &command);
        assert!(output.status.success(), "wg-quick {direction}: {}", String::from_utf8_lossy(&output.stderr));
        output
    }
}

impl Drop for WgQuick<'_> {
    fn drop(&mut self) {
        let down = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| self.run("down")));
        assert!(down.is_ok() || std::thread::panicking(), "the client stays behind");
    }
}

#[test]
fn somebody_is_let_in_by_one_command_and_a_scan_and_let_out_by_another() {
    if !need_root() {
        return;
    }
    let (left, right) = cable("people", 1500);
    let own = PrivateKey::generate(&mut os_rng());
    let address = ["10.77.0.1/24".to_owned(), "fd77::1/64".to_owned()];
    let clients =
        "public_endpoint = \"192.0.2.1:51820\"\nclient_allowed_ips = [\"10.77.0.0/24\", \"fd77::/64\"]\n";
    let file = NodeFile { private: &own, address: &address, mtu: 1420, interface: clients, peers: "" };
    let Running::Vpnd(gateway) = start_vpnd(&left, &file.toml(), &[]) else {
        unreachable!("vpnd was asked for")
    };
    let (config, run_dir) =
        (gateway.config().to_str().expect("text"), gateway.run_dir().to_str().expect("text"));
    let at_the_gateway = |words: &[&str]| {
        let (done, shown, said) = vpnd(&left, &[words, &["--config", config, "--run-dir", run_dir]].concat());
        assert!(done, "{words:?}: {said}");
        assert!(said.contains("the running vpn0 follows it"), "{said}");
        shown
    };

    let shown = at_the_gateway(&["add-peer", "phone", "--qr", "always"]);
    let scan = scanned(&shown);
    assert!(shown.starts_with(&scan), "the code says what the text says:\n{shown}");
    let phone = WgQuick::up(&right, &scan);
    let gateway_at = |address: &str| {
        let address = address.parse().expect("an address");
        right.ping(address, 1).is_ok_and(|pings| pings.received == 1)
    };
    assert!(wait_until(PATIENCE, || gateway_at("10.77.0.1") && gateway_at("fd77::1")), "{}", gateway.log());
    let peer = |field: &str| gateway.status("vpn0").expect("a status")["peers"][0][field].clone();
    assert_eq!(
        (peer("name"), peer("connected"), peer("preshared")),
        ("phone".into(), true.into(), true.into())
    );

    at_the_gateway(&["rename-peer", "phone", "Anna's phone"]);
    assert_eq!(
        (peer("name"), peer("connected")),
        ("Anna's phone".into(), true.into()),
        "its session goes on"
    );
    assert!(gateway_at("10.77.0.1"));

    let renewed = scanned(&at_the_gateway(&["qr", "Anna's phone", "--rekey"]));
    assert!(!gateway_at("10.77.0.1"), "the old keys work no longer");
    drop(phone);
    let phone = WgQuick::up(&right, &renewed);
    assert!(wait_until(PATIENCE, || gateway_at("10.77.0.1")), "{}", gateway.log());

    at_the_gateway(&["remove-peer", "Anna's phone"]);
    assert_eq!(peer("name"), serde_json::Value::Null);
    assert!(!gateway_at("10.77.0.1"));
    drop(phone);
}

#[test]
fn many_who_come_at_once_get_an_address_each_and_none_is_lost() {
    const MANY: usize = 12;
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("vpn0.toml");
    let own = PrivateKey::generate(&mut os_rng());
    let address = ["10.77.0.1/24".to_owned(), "fd77::1/64".to_owned()];
    let clients = "public_endpoint = \"192.0.2.1:51820\"\nclient_allowed_ips = [\"10.77.0.0/24\"]\n";
    let file = NodeFile {
        private: &own,
        address: &address,
        mtu: 1420,
        interface: clients,
        peers: "# the last line\n",
    };
    std::fs::write(&path, file.toml()).expect("a file");
    std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).expect("a mode");
    let start = |n: usize| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_vpnd"));
        command
            .args(["add-peer", &format!("peer {n}"), "--run-dir"])
            .arg(folder.path())
            .arg("--config")
            .arg(&path);
        command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("it starts")
    };
    for child in (0..MANY).map(start).collect::<Vec<_>>() {
        let output = child.wait_with_output().expect("it ends");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    let config = vpnd::cli::disk::read_config(&path).unwrap_or_else(|error| panic!("{error}"));
    let mut addresses: Vec<String> =
        config.peers.iter().map(|peer| peer.allowed_ips[0].addr().to_string()).collect();
    addresses.sort_by_key(|address| address.parse::<std::net::Ipv4Addr>().expect("an address"));
    assert_eq!(addresses, (2..2 + MANY).map(|n| format!("10.77.0.{n}")).collect::<Vec<_>>());
    assert!(std::fs::read_to_string(&path).expect("text").starts_with(&file.toml()), "what was there stays");
    assert_eq!(std::fs::read_dir(folder.path()).expect("a folder").count(), 1);
}
