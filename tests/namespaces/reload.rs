//! Change while running: the file read again, the difference applied, all or nothing; and taken back when nobody
//! confirms it.

use std::{
    fs,
    io::{Read, Write},
    os::unix::{
        fs::PermissionsExt,
        net::{UnixDatagram, UnixStream},
    },
    process::Command,
    time::Duration,
};

use vpnd::{
    lab::{Daemon, Host, Setup},
    noise::{PresharedKey, PrivateKey, PublicKey},
    sys::random::os_rng,
};

use crate::{
    common::{flow::Flow, need_root, program},
    world::{DEVICE, Node, NodeFile, PORT, Pair, PeerText, Spec, as_in_matrix, attempt, sh, wait_until},
};

const VPND: &str = env!("CARGO_BIN_EXE_vpnd");
/// A second, and what a busy machine adds.
const SOON: Duration = Duration::from_secs(5);

/// Writes another file for a daemon, as an editor does.
fn write_file(daemon: &Daemon, toml: &str) {
    let beside = daemon.config().with_extension("new");
    fs::write(&beside, as_in_matrix(toml)).expect("a file");
    fs::set_permissions(&beside, fs::Permissions::from_mode(0o600)).expect("a mode");
    program::give(&beside);
    fs::rename(&beside, daemon.config()).expect("in its place");
}

/// `vpnd COMMAND …` for this daemon: its output, or its standard error.
fn vpnd(daemon: &Daemon, host: &Host, arguments: &[&str]) -> Result<String, String> {
    let mut command = Command::new(VPND);
    command.args(arguments).arg("--run-dir").arg(daemon.run_dir());
    let output = attempt(host, &command);
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
}

#[track_caller]
fn reload(node: &Node) -> String {
    vpnd(node.daemon(), &node.host, &["reload"]).unwrap_or_else(|why| panic!("{why}\n{}", node.log()))
}

#[track_caller]
fn refused(node: &Node, arguments: &[&str]) -> String {
    vpnd(node.daemon(), &node.host, arguments).expect_err("it is refused")
}

/// The left end's file of a [`Pair`], with what a test alters.
fn file(pair: &Pair, address: &[&str], interface: &str, allowed_ips: &[&str], more: &str) -> String {
    let peer = PeerText {
        key: pair.right.key(),
        preshared: None,
        endpoint: Some((pair.right.outer, PORT)),
        allowed_ips: allowed_ips.iter().map(|prefix| (*prefix).to_owned()).collect(),
        keepalive: 0,
    };
    let address: Vec<_> = address.iter().map(|one| (*one).to_owned()).collect();
    let file = NodeFile {
        private: &pair.left.private,
        address: &address,
        mtu: 1420,
        interface,
        peers: &format!("{}{more}", peer.toml()),
    };
    file.toml()
}

const ADDRESS: [&str; 2] = ["10.77.0.1/24", "fd77::1/64"];
const ALLOWED: [&str; 2] = ["10.77.0.2/32", "fd77::2/128"];

fn stranger(name: &str, allowed_ips: &[&str]) -> (PublicKey, String) {
    let key = PrivateKey::generate(&mut os_rng()).public_key();
    (key, format!("[[peer]]\nname = \"{name}\"\npublic_key = \"{key}\"\nallowed_ips = {allowed_ips:?}\n"))
}

/// Addresses, routes and rules of the device; the priorities of rules are the daemon's choice.
fn host_state(host: &Host) -> String {
    sh(
        host,
        "ip -o addr show dev vpn0 | sed 's/^[0-9]*: *//; s/valid_lft.*//' | sort; ip -o link show vpn0 | grep -o 'mtu [0-9]*'; \
         (ip route show table all; ip -6 route show table all) | grep vpn0 | sort; \
         (ip rule; ip -6 rule) | sed 's/^[0-9]*://'",
    )
}

#[test]
fn all_that_a_file_can_change_is_changed_while_a_flow_of_an_unchanged_peer_loses_nothing() {
    if !need_root() {
        return;
    }
    let pair = Pair::start("reload", &Spec::default());
    let left = &pair.left;
    left.ping(pair.right.inner4, 1);
    let before = left.last_handshake(&pair.right.key());
    assert_eq!(reload(left), "nothing changed\n");

    let flows =
        [(&left.host, &pair.right.host, pair.right.inner4), (&pair.right.host, &left.host, left.inner6)]
            .map(|(from, to, address)| Flow::start(from, to, address, Duration::from_millis(1), 300));
    let address = ["10.77.0.1/24", "10.78.0.1/24", "fd77::1/64"];
    let allowed = ["10.77.0.2/32", "fd77::2/128", "10.1.0.0/16"];
    let (laptop, more) = stranger("laptop", &["10.2.0.0/16", "fd02::/16"]);
    let interface = "fwmark = 0x77\ntable = 77\nsocket_mode = \"0660\"";
    write_file(
        left.daemon(),
        &file(&pair, &address, interface, &allowed, &more).replace("mtu = 1420", "mtu = 1400"),
    );
    let said = reload(left);
    let expected = format!(
        "address +10.78.0.1/24\nmtu 1420 → 1400\ntable auto → 77\nsockets -:- 0600 → -:- 0660\nfwmark off → 0x77\n\
         peer laptop: added\npeer {}: allowed_ips +10.1.0.0/16\n",
        pair.right.key().short()
    );
    assert_eq!(said, expected);
    let status = left.status();
    assert_eq!((&status["mtu"], &status["fwmark"]), (&1400.into(), &0x77.into()));
    assert_eq!(status["operation"]["reloads"], 2);
    assert_eq!(status["operation"]["differs"], serde_json::json!([]));
    let routes = sh(&left.host, "ip route show table 77; ip -6 route show table 77");
    assert!(routes.contains("10.2.0.0/16 dev vpn0") && routes.contains("fd02::/16 dev vpn0"), "{routes}");
    let mode = |kind: &str| {
        let socket = left.daemon().run_dir().join(kind).join(format!("{DEVICE}.sock"));
        fs::metadata(socket).expect("a socket").permissions().mode() & 0o777
    };
    assert_eq!((mode("wireguard"), mode("vpnd")), (0o660, 0o660));

    // And to the file of the beginning, while a prefix goes from one peer to the other.
    let (_, more) = stranger("phone", &["10.1.0.0/16"]);
    write_file(left.daemon(), &file(&pair, &ADDRESS, "", &ALLOWED, &more));
    let said = reload(left);
    assert!(said.contains("peer laptop: removed\npeer phone: added\n"), "{said}");
    assert!(said.contains("allowed_ips -10.1.0.0/16") && said.contains("fwmark 0x77 → off"), "{said}");
    assert!(!left.wg(&["show", DEVICE, "peers"]).contains(&laptop.to_string()));
    assert!(!left.log().contains("moved to another peer"), "it was free in between");

    // The routes were in another table: what was sent meanwhile had the kernel's own route to the subnet.
    for flow in flows {
        let arrived = flow.finish();
        assert!(arrived.whole(), "{arrived}\n{}", left.log());
    }
    assert_eq!(left.last_handshake(&pair.right.key()), before, "the session is the same");
}

#[test]
fn a_listen_port_and_keys_change_and_the_tunnel_is_up_again_at_once() {
    if !need_root() {
        return;
    }
    let mut pair = Pair::start("reloadkeys", &Spec::default());
    pair.left.ping(pair.right.inner4, 1);
    let shared = PresharedKey::generate(&mut os_rng());
    let line = format!("preshared_key = \"{}\"\n", *shared.to_base64());
    let new = PrivateKey::generate(&mut os_rng());
    let old = pair.left.private.clone();

    pair.left.private = new.clone();
    let left_file = file(&pair, &ADDRESS, "", &ALLOWED, &line).replace("= 51820\n", "= 51821\n");
    write_file(pair.left.daemon(), &left_file);
    let said = reload(&pair.left);
    let (own, peer) = (new.public_key(), pair.right.key().short());
    let expected = format!(
        "listen_port 51820 → 51821\nprivate_key: another one; the public key is {own}\npeer {peer}: preshared_key set\n"
    );
    assert_eq!(said, expected);
    let file = pair.right.write("shared.key", &shared.to_base64());
    pair.right.set(&format!("peer {} remove", old.public_key()));
    pair.right.set(&format!("peer {own} allowed-ips 10.77.0.1/32,fd77::1/128 preshared-key {file}"));
    let there = wait_until(SOON, || pair.left.reaches(pair.right.inner4));
    assert!(there, "{}", pair.left.log());
    pair.left.ping(pair.right.inner6, 1);
    assert_eq!(pair.right.shown("endpoints", &own), "192.0.2.1:51821");
    assert_eq!(pair.left.status()["operation"]["differs"], serde_json::json!([]));
    assert!(!pair.right.status()["operation"]["differs"].as_array().expect("a list").is_empty());
}

#[test]
fn a_bad_file_or_one_that_asks_for_what_cannot_change_changes_nothing_and_says_why() {
    if !need_root() {
        return;
    }
    let pair = Pair::start("reloadbad", &Spec::default());
    let left = &pair.left;
    left.ping(pair.right.inner4, 1);
    let seen = || (host_state(&left.host), left.wg(&["showconf", DEVICE]));
    let before = seen();
    let good = file(&pair, &ADDRESS, "", &ALLOWED, "");

    let bad = good.replace("mtu = 1420", "mtu = 70\naddres = []").replace("10.77.0.2/32", "10.77.0.2/24");
    write_file(left.daemon(), &bad);
    let said = refused(left, &["reload"]);
    let path = left.daemon().config().to_str().expect("a path in text").to_owned();
    let checked = attempt(&left.host, Command::new(VPND).args(["check", &path]));
    let checked = String::from_utf8_lossy(&checked.stderr).into_owned();
    assert_eq!(said, format!("{checked}vpnd reload: nothing was changed\n"));
    assert!(checked.lines().count() >= 3, "{checked}");
    for line in checked.lines() {
        assert!(left.log().contains(line), "the log lacks {line}");
    }

    write_file(
        left.daemon(),
        &good.replace("\"vpn0\"", "\"vpn1\"").replace("mtu", "workers = 3\noffload = \"off\"\nmtu"),
    );
    let said = refused(left, &["reload"]);
    assert!(
        said.contains("interface.name: found vpn1, and vpn0 runs, which cannot change; restart vpnd"),
        "{said}"
    );
    assert!(said.contains("interface.workers: found 3"), "{said}");

    // What the host refuses is found out only on the way.
    let taken = left.host.run(|| std::net::UdpSocket::bind("0.0.0.0:51999")).expect("the port is free");
    let other = good.replace("listen_port = 51820", "listen_port = 51999").replace("1420", "1400");
    write_file(left.daemon(), &other);
    let said = refused(left, &["reload"]);
    assert!(said.contains("UDP port 51999") && said.contains("is held by"), "{said}");
    drop(taken);

    sh(&left.host, "ip route add 10.3.0.0/16 dev eth0");
    let allowed = ["10.77.0.2/32", "fd77::2/128", "10.1.0.0/16", "10.3.0.0/16", "fd03::/16", "0.0.0.0/0"];
    let interface = "socket_mode = \"0660\"";
    let much = file(&pair, &["10.78.0.1/24"], interface, &allowed, "")
        .replace("= 51820", "= 51821")
        .replace("1420", "1400");
    write_file(left.daemon(), &much);
    let said = refused(left, &["reload"]);
    assert!(said.contains("this host routes 10.3.0.0/16 to device eth0 already"), "{said}");
    sh(&left.host, "ip route delete 10.3.0.0/16 dev eth0");

    write_file(left.daemon(), &good.replace("mtu", "socket_group = \"vpnd-nobody-has-it\"\nmtu"));
    let said = refused(left, &["reload"]);
    assert!(
        said.contains("interface.socket_group: found \"vpnd-nobody-has-it\", whom this host does not know"),
        "{said}"
    );

    fs::remove_file(left.daemon().config()).expect("it is there");
    let said = refused(left, &["reload"]);
    assert!(said.contains("cannot read") && said.contains("No such file"), "{said}");

    assert_eq!(seen(), before, "{}", left.log());
    let status = left.status();
    assert_eq!((&status["operation"]["reloads_refused"], &status["mtu"]), (&6.into(), &1420.into()));
    let why = status["operation"]["not_in_force"].as_str().expect("a reason");
    assert!(why.starts_with("cannot read"), "{why}");
    left.ping(pair.right.inner4, 1);
    left.ping(pair.right.inner6, 1);
    write_file(left.daemon(), &good);
    assert_eq!(reload(left), "nothing changed\n");
}

#[test]
fn a_default_route_comes_and_goes_with_its_rules_and_mark() {
    if !need_root() {
        return;
    }
    let pair = Pair::start("reloadall", &Spec::default());
    let left = &pair.left;
    left.ping(pair.right.inner4, 1);
    let before = host_state(&left.host);
    let all = ["10.77.0.2/32", "fd77::2/128", "0.0.0.0/0", "::/0"];
    for _ in 0..2 {
        write_file(left.daemon(), &file(&pair, &ADDRESS, "", &all, ""));
        assert!(reload(left).contains("fwmark off → 0xca6c"));
        assert_eq!(sh(&left.host, "(ip rule; ip -6 rule) | grep -c 'proto 118'").trim(), "4");
        assert_eq!(left.status()["fwmark"], 51820);
        left.ping(pair.right.inner4, 1);

        write_file(left.daemon(), &file(&pair, &ADDRESS, "fwmark = 7", &all, ""));
        assert_eq!(reload(left), "fwmark 0xca6c → 0x7\n");
        left.ping(pair.right.inner6, 1);
        assert_eq!(sh(&left.host, "(ip rule; ip -6 rule) | grep -c 'fwmark 0x7 .*proto 118'").trim(), "2");

        write_file(left.daemon(), &file(&pair, &ADDRESS, "", &ALLOWED, ""));
        assert!(reload(left).contains("fwmark 0x7 → off"));
        assert_eq!(host_state(&left.host), before);
        left.ping(pair.right.inner4, 1);
    }
}

#[test]
fn what_is_not_confirmed_is_taken_back_and_what_is_confirmed_stays() {
    if !need_root() {
        return;
    }
    let pair = Pair::start("trial", &Spec::default());
    let left = &pair.left;
    left.ping(pair.right.inner4, 1);
    // By hand, which the way back must find again.
    let by_hand = PrivateKey::generate(&mut os_rng()).public_key();
    let shared = left.write("shared.key", &PresharedKey::generate(&mut os_rng()).to_base64());
    left.set(&format!(
        "peer {by_hand} allowed-ips 10.9.0.0/16 persistent-keepalive 7 preshared-key {shared}"
    ));
    // Peers in whichever order.
    let sorted = |text: String| {
        let mut blocks: Vec<_> = text.split("\n\n").map(|block| block.trim().to_owned()).collect();
        blocks.sort();
        blocks
    };
    let seen = || {
        (
            host_state(&left.host),
            sorted(left.wg(&["showconf", DEVICE])),
            left.status()["operation"]["differs"].clone(),
        )
    };
    let before = seen();
    assert_eq!(left.status()["operation"]["not_in_force"], serde_json::Value::Null);
    assert_eq!(before.2, serde_json::json!([format!("peer {}: added", by_hand.short())]));

    // The operator is cut off: the only way is gone, with address, peer and port.
    let cut = file(&pair, &["10.78.0.1/24"], "fwmark = 9", &["10.99.0.0/16"], "");
    let cut = cut
        .replace(&pair.right.key().to_string(), &stranger("x", &[]).0.to_string())
        .replace("= 51820\n", "= 51821\n");
    write_file(left.daemon(), &cut);
    let said = vpnd(left.daemon(), &left.host, &["reload", DEVICE, "--confirm", "2s"]).expect("reloaded");
    assert!(said.ends_with("`vpnd confirm` within 2 s, or it is taken back\n"), "{said}");
    assert!(!left.reaches(pair.right.inner4));
    let left_s = left.status()["operation"]["confirm_within_s"].as_u64().expect("seconds");
    assert!(left_s <= 2, "{left_s}");
    let said = refused(left, &["reload"]);
    assert!(said.contains("waits for `vpnd confirm`"), "{said}");
    let back = wait_until(SOON, || left.status()["operation"]["reloads_taken_back"] == 1);
    assert!(back, "{}", left.log());
    assert_eq!(seen(), before);
    // The other end may answer once with the session that it had before.
    assert!(wait_until(SOON, || left.reaches(pair.right.inner4)), "{}", left.log());
    assert_eq!(left.status()["operation"]["not_in_force"], "nobody confirmed it");
    assert!(refused(left, &["confirm"]).contains("nothing waits for a confirmation"));

    // A second trial goes on from the first, and what is confirmed stays.
    for mtu in ["1300", "1400"] {
        write_file(left.daemon(), &file(&pair, &ADDRESS, "", &ALLOWED, "").replace("1420", mtu));
        vpnd(left.daemon(), &left.host, &["reload", "--confirm", "60"]).expect("reloaded");
    }
    assert_eq!(vpnd(left.daemon(), &left.host, &["confirm", DEVICE]).expect("confirmed"), "confirmed\n");
    let status = left.status();
    assert_eq!(
        (&status["mtu"], &status["operation"]["confirm_within_s"]),
        (&1400.into(), &serde_json::Value::Null)
    );
    assert_eq!(status["operation"]["differs"], serde_json::json!([]), "a reload goes back to the file");
    assert_eq!(reload(left), "nothing changed\n");
}

#[test]
fn a_service_manager_is_told_of_a_reload_by_sighup_and_of_its_end_whatever_became_of_it() {
    if !need_root() {
        return;
    }
    let host = Host::create("vpnd-hangup").expect("a namespace");
    let notify = host.folder().join("manager");
    let manager = UnixDatagram::bind(&notify).expect("a socket");
    manager.set_read_timeout(Some(Duration::from_millis(100))).expect("a time-out");
    let node = Node::on(host, "", "");
    // The lab's own socket has been closed by now: the daemon finds ours at its path.
    let lab = node.host.folder().join("vpnd.notify");
    fs::remove_file(&lab).expect("the lab made it");
    fs::hard_link(&notify, &lab).expect("ours in its place");
    let told = |wanted: &str| {
        let mut all = String::new();
        let came = wait_until(SOON, || {
            let mut buffer = [0; 4096];
            if let Ok(length) = manager.recv(&mut buffer) {
                all += &String::from_utf8_lossy(&buffer[..length]);
                all += "\n";
            }
            all.contains(wanted)
        });
        assert!(came, "{wanted}: {all}\n{}", node.log());
        all
    };
    let hang_up = || sh(&node.host, &format!("kill -HUP {}", node.pid()));
    let good = fs::read_to_string(node.daemon().config()).expect("its file");
    write_file(node.daemon(), &good.replace("1420", "1300"));
    hang_up();
    let all = told("READY=1");
    let (reloading, clock) = (all.find("RELOADING=1"), all.find("MONOTONIC_USEC="));
    assert!(reloading < all.find("READY=1") && reloading.is_some() && clock.is_some(), "{all}");
    assert_eq!(node.status()["mtu"], 1300);
    write_file(node.daemon(), "[interface]\n");
    hang_up();
    let all = told("READY=1");
    assert!(all.contains("RELOADING=1") && all.contains("STATUS=not reloaded, nothing changed: "), "{all}");
    assert_eq!(node.status()["mtu"], 1300);
    assert_eq!(node.status()["operation"]["reloads_refused"], 1);
}

/// The operator's two mistakes: `vpnd reload` where nothing runs, and where several run.
#[test]
fn the_interface_must_be_named_where_several_run() {
    if !need_root() {
        return;
    }
    let node = Node::alone("several", "", "");
    assert!(refused(&node, &["reload", "vpn9"]).contains("no vpnd runs interface vpn9"));
    let run_dir = node.daemon().run_dir().to_str().expect("a path").to_owned();
    let toml = format!(
        "[interface]\nname = \"vpn1\"\nprivate_key = \"{}\"\n",
        *PrivateKey::generate(&mut os_rng()).to_base64()
    );
    let setup = Setup { label: "other".to_owned(), arguments: vec![], ..Setup::new(program::daemon(), toml) };
    let other = Daemon::start(&node.host, &setup).expect("it starts");
    let [from, to] = [other.run_dir().join("vpnd/vpn1.sock"), node.daemon().run_dir().join("vpnd/vpn1.sock")];
    std::os::unix::fs::symlink(from, to).expect("a link");
    assert!(
        refused(&node, &["reload"]).contains("several vpnd run: say which interface: vpn0, vpn1"),
        "{run_dir}"
    );
    assert_eq!(vpnd(node.daemon(), &node.host, &["reload", "vpn1"]).expect("named"), "nothing changed\n");
}

/// Clients of a reload that go away, or send a body nobody asked for.
#[test]
fn a_client_that_does_not_wait_for_its_answer_hurts_nobody() {
    if !need_root() {
        return;
    }
    let node = Node::alone("impatient", "", "");
    let socket = node.daemon().run_dir().join("vpnd").join(format!("{DEVICE}.sock"));
    for request in [
        "POST /v1/reload HTTP/1.1\r\nHost: vpnd\r\n\r\n",
        "POST /v1/reload HTTP/1.1\r\nHost: vpnd\r\nContent-Length: 100000\r\n\r\nhalf",
        "POST /v1/reload?confirm=0 HTTP/1.1\r\nHost: vpnd\r\n\r\n",
        "POST /v1/reload?confirm=1&x HTTP/1.1\r\nHost: vpnd\r\n\r\n",
        "GET /v1/reload HTTP/1.1\r\nHost: vpnd\r\n\r\n",
    ]
    .iter()
    .cycle()
    .take(50)
    {
        let mut stream = UnixStream::connect(&socket).expect("it listens");
        stream.write_all(request.as_bytes()).expect("it reads");
    }
    let done = wait_until(SOON, || {
        vpnd(node.daemon(), &node.host, &["reload"]).is_ok_and(|said| said == "nothing changed\n")
    });
    assert!(done, "{}", node.log());
    let mut stream = UnixStream::connect(&socket).expect("it listens");
    stream.write_all(b"POST /v1/confirm HTTP/1.0\r\n\r\n").expect("it reads");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    assert!(answer.starts_with("HTTP/1.0 409"), "{answer}");
}

/// A file by chance: interface, and up to four peers that share out some prefixes.
fn random_file(own: &PrivateKey, keys: &[PublicKey], dice: &mut impl FnMut(usize) -> usize) -> String {
    let addresses = ["10.77.0.1/24", "10.78.0.1/24", "10.79.0.1/32", "fd77::1/64", "fd78::1/64"];
    let prefixes = [
        "10.77.0.2/32",
        "10.78.0.0/24",
        "10.1.0.0/16",
        "10.1.2.0/24",
        "10.2.0.0/16",
        "0.0.0.0/0",
        "::/0",
        "fd77::2/128",
        "fd78::/64",
        "fd01::/16",
    ];
    let address: Vec<_> = addresses.iter().filter(|_| dice(2) == 0).collect();
    let mut text = format!(
        "[interface]\nname = \"{DEVICE}\"\nprivate_key = \"{}\"\naddress = {address:?}\nmtu = {}\nlisten_port = {}\n",
        *own.to_base64(),
        1280 + dice(3) * 70,
        PORT + dice(3) as u16,
    );
    text += ["", "", "table = \"off\"\n", "table = 77\n"][dice(4)];
    text += ["", "", "fwmark = 7\n"][dice(3)];
    let owners: Vec<_> = prefixes.iter().map(|_| dice(6)).collect();
    for (number, key) in keys.iter().enumerate() {
        if dice(4) == 0 {
            continue;
        }
        let own: Vec<_> =
            prefixes.iter().zip(&owners).filter(|(_, owner)| **owner == number).map(|(p, _)| p).collect();
        text += &format!("[[peer]]\npublic_key = \"{key}\"\nallowed_ips = {own:?}\n");
        text += ["", &format!("name = \"peer{number}\"\n")][dice(2)];
        text += ["", "endpoint = \"192.0.2.7:4711\"\n", "endpoint = \"203.0.113.9:1\"\n"][dice(3)];
        text += &[
            "".to_owned(),
            format!("preshared_key = \"{}\"\n", *PresharedKey::new([number as u8 + 1; 32]).to_base64()),
        ][dice(2)];
        text += ["", "persistent_keepalive = 25\n"][dice(2)];
        text += ["", "expires = 2199-01-01\n", "expires = 2020-01-01\n"][dice(3)];
    }
    text
}

/// What can be seen of an interface, by `ip`, `wg` and `vpnd status`, in an order of its own.
fn all_seen(host: &Host, daemon: &Daemon) -> String {
    let sorted = |what: &str| {
        let sockets = daemon.run_dir().join("wireguard");
        let text = crate::world::try_wg(host, &sockets, &["show", DEVICE, what]).expect("wg shows it");
        let mut lines: Vec<_> = text.lines().map(str::to_owned).collect();
        lines.sort();
        lines.join("\n")
    };
    let shown = [
        "listen-port",
        "fwmark",
        "private-key",
        "allowed-ips",
        "endpoints",
        "persistent-keepalive",
        "preshared-keys",
    ];
    let status = daemon.status(DEVICE).expect("a status");
    let told = |fields: &[&str], of: &serde_json::Value| {
        fields.iter().map(|field| format!("{field}={} ", of[field])).collect::<String>()
    };
    let mut peers: Vec<_> = status["peers"].as_array().expect("a list").iter().collect();
    peers.sort_by_key(|peer| peer["public_key"].to_string());
    let peers = peers.into_iter().map(|peer| {
        told(&["name", "public_key", "preshared", "endpoint", "allowed_ips", "expires", "expired"], peer)
    });
    format!(
        "{}\n{}\n{}\n{}",
        host_state(host),
        shown.map(sorted).join("\n"),
        told(&["public_key", "listen_port", "fwmark", "mtu"], &status),
        peers.collect::<Vec<_>>().join("\n")
    )
}

/// Whatever file follows on whatever other one: the host and `wg` show the same as if vpnd had started with it.
#[test]
fn a_file_reloaded_shows_the_same_as_started_fresh_and_back_again() {
    if !need_root() {
        return;
    }
    let [reloaded, fresh] =
        ["reloaded", "fresh"].map(|name| Host::create(&format!("vpnd-{name}")).expect("a host"));
    let own = PrivateKey::generate(&mut os_rng());
    let keys: Vec<_> = (0..4).map(|_| PrivateKey::generate(&mut os_rng()).public_key()).collect();
    let mut seed = [0; 8];
    rand_chacha::rand_core::Rng::fill_bytes(&mut os_rng(), &mut seed);
    let mut state = u64::from_le_bytes(seed);
    let mut dice = |sides: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % sides
    };
    let start = |host: &Host, toml: &str| {
        let setup = Setup::new(program::daemon(), as_in_matrix(toml));
        Daemon::start(host, &setup).unwrap_or_else(|error| panic!("{toml}\n{error}"))
    };
    // Three reloads for each file.
    let count = std::env::var("VPND_RELOAD_FILES").map_or(8, |text| text.parse().expect("a number of files"));
    let files: Vec<_> = (0..count).map(|_| random_file(&own, &keys, &mut dice)).collect();
    let expected = files.iter().map(|toml| {
        let mut daemon = start(&fresh, toml);
        let seen = all_seen(&fresh, &daemon);
        daemon.stop().expect("it ends");
        seen
    });
    let expected: Vec<_> = expected.collect();
    let daemon = start(&reloaded, &files[0]);
    // There, back again, and to and fro.
    let leaps: Vec<_> = (0..count).map(|_| dice(count)).collect();
    for file in (0..count).chain((0..count - 1).rev()).chain(leaps) {
        write_file(&daemon, &files[file]);
        if let Err(why) = vpnd(&daemon, &reloaded, &["reload"]) {
            panic!("seed {seed:?}, file {file}: {why}\n{}", files[file]);
        }
        let same = wait_until(SOON, || all_seen(&reloaded, &daemon) == expected[file]);
        let shown = all_seen(&reloaded, &daemon);
        assert!(
            same,
            "seed {seed:?}, file {file}\n{}\nshows\n{shown}\nfresh\n{}\n{}",
            files[file],
            expected[file],
            daemon.log()
        );
        let differs = daemon.status(DEVICE).expect("a status")["operation"]["differs"].clone();
        assert_eq!(differs, serde_json::json!([]), "seed {seed:?}, file {file}");
    }
    assert!(!daemon.log().contains("ERROR"), "{}", daemon.log());
}
