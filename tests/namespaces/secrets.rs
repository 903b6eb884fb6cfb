//! What a running daemon keeps in its memory, and what it says.

use std::{fs, io::Write, os::unix::net::UnixStream, time::Duration};

use vpnd::{
    lab::{Daemon, Setup},
    noise::{PresharedKey, PrivateKey},
    sys::random::os_rng,
};

use crate::{
    common::{need_root, program},
    keys::{Known, Other, PAGE, count, memory},
    world::{Node, NodeFile, Pair, PeerText, Spec, as_in_matrix, cable, wait_until},
};

/// Waits until so many copies are left of the raw key, of its base64 and of its hex digits. (The daemon may still
/// be busy with the answer that `wg` has read already.)
#[track_caller]
fn await_copies(node: &mut Node, (raw, base64, hex): (&[u8; 32], &str, &str), expected: [usize; 3]) {
    let pid = node.vpnd().pid();
    let mut found = [0; 3];
    wait_until(Duration::from_secs(3), || {
        let memory = memory(pid);
        let size: usize = memory.iter().map(Vec::len).sum();
        assert!(size > 100 * PAGE, "only {size} bytes of memory were read");
        found = [raw.as_slice(), base64.as_bytes(), hex.as_bytes()].map(|wanted| count(&memory, wanted));
        found == expected
    });
    assert_eq!(found, expected);
}

#[track_caller]
fn await_private(node: &mut Node, key: &PrivateKey, expected: [usize; 3]) {
    await_copies(node, (key.expose(), &key.to_base64(), &key.to_hex()), expected);
}

/// The file with the key in it was read, `wg` and the status were shown, packets passed: one copy is left, and
/// none when the key was replaced.
#[test]
fn one_copy_of_the_private_key_is_in_memory_and_none_once_it_was_replaced() {
    if !need_root() {
        return;
    }
    let mut pair = Pair::start("secret", &Spec { preshared: true, ..Spec::default() });
    pair.left.ping(pair.right.inner4, 2);
    let first = pair.left.private.clone();
    assert!(pair.left.wg(&["showconf", "vpn0"]).contains(first.to_base64().as_str()), "wg is shown the key");
    pair.left.status();
    await_private(&mut pair.left, &first, [1, 0, 0]);

    let second = PrivateKey::generate(&mut os_rng());
    let file = pair.left.host.folder().join("second.key");
    fs::write(&file, second.to_base64().as_bytes()).expect("a file");
    pair.left.set(&format!("private-key {}", file.display()));
    await_private(&mut pair.left, &first, [0; 3]);
    await_private(&mut pair.left, &second, [1, 0, 0]);
}

/// Keys of a session that was renewed are of no more use to the daemon, and to nobody else either.
#[test]
fn ten_seconds_after_a_rekey_no_key_of_the_session_before_is_in_memory() {
    if !need_root() {
        return;
    }
    let (left, right) = cable("rekeyed", 1500);
    let mut rng = os_rng();
    let [own, theirs] = [PrivateKey::generate(&mut rng), PrivateKey::generate(&mut rng)];
    let peer = PeerText {
        key: theirs.public_key(),
        preshared: None,
        endpoint: Some(("192.0.2.2".parse().expect("an address"), 51820)),
        allowed_ips: vec!["10.77.0.2/32".to_owned()],
        keepalive: 1,
    };
    let address = ["10.77.0.1/24".to_owned()];
    let file = NodeFile { private: &own, address: &address, mtu: 1420, interface: "", peers: &peer.toml() };
    let mut other = Other::new(&right, theirs, own.public_key(), PresharedKey::default());
    let daemon = Daemon::start(&left, &Setup::new(program::daemon(), as_in_matrix(&file.toml())));
    let daemon = daemon.expect("it starts");
    let here = |known: &Known| {
        let memory = memory(daemon.pid());
        known.keys.map(|key| count(&memory, &key))
    };
    let gone = |known: &Known, why: &str| {
        let mut found = [0; 2];
        let gone = wait_until(Duration::from_secs(10), || {
            found = here(known);
            found == [0; 2]
        });
        assert!(gone, "{why}: {found:?} copies of the old keys are left\n{}", daemon.log());
    };

    // Those in use are found, so that those that are not found are not there.
    let in_use = |known: &Known| {
        let mut found = [0; 2];
        let all = wait_until(Duration::from_secs(10), || {
            found = here(known);
            found.iter().all(|copies| *copies > 0)
        });
        assert!(all, "keys in use: {found:?} copies\n{}", daemon.log());
    };

    let first = other.answer(); // its keepalive wanted it
    in_use(&first);
    let second = other.call();
    in_use(&second);
    gone(&first, "we called");
    let third = other.call();
    in_use(&third);
    gone(&second, "we called again");
    assert_eq!(here(&third), [1, 1], "of keys in use there is one copy");
    assert_eq!(count(&memory(daemon.pid()), own.expose()), 1, "and of the private key there is one");
}

/// The processes beside the daemon were split off before there was a key.
#[test]
fn no_process_beside_the_daemon_has_a_key() {
    if !need_root() {
        return;
    }
    let hook = "[[hook]]\nrun = [\"/bin/true\"]\n"; // so that one of them reads the file
    let node = Node::alone("keyless", "", hook);
    let children = fs::read_to_string(format!("/proc/{0}/task/{0}/children", node.pid())).expect("it runs");
    let children: Vec<u32> = children.split_whitespace().map(|pid| pid.parse().expect("a number")).collect();
    assert_eq!(children.len(), 2);
    for child in children {
        let memory = memory(child);
        let (base64, hex) = (node.private.to_base64(), node.private.to_hex());
        for wanted in [&node.private.expose()[..], base64.as_bytes(), hex.as_bytes()] {
            assert_eq!(
                count(&memory, wanted),
                0,
                "{}",
                fs::read_to_string(format!("/proc/{child}/comm")).unwrap()
            );
        }
    }
}

/// A trial holds what it may have to go back to, and nothing is left of it when it is over.
#[test]
fn a_reload_leaves_one_copy_of_the_new_keys_and_none_of_the_old_ones() {
    if !need_root() {
        return;
    }
    let mut pair = Pair::start("secretload", &Spec { preshared: true, ..Spec::default() });
    pair.left.ping(pair.right.inner4, 2);
    let old = pair.left.private.clone();
    let new = PrivateKey::generate(&mut os_rng());
    let shared = PresharedKey::generate(&mut os_rng());
    let path = pair.left.daemon().config().to_owned();
    let text = fs::read_to_string(&path).expect("its file");
    let line = text.lines().find(|line| line.starts_with("preshared_key")).expect("it has one");
    let text = text.replace(&*old.to_base64(), &new.to_base64());
    fs::write(&path, text.replace(line, &format!("preshared_key = \"{}\"", *shared.to_base64())))
        .expect("a file");
    let ask = |node: &Node, path: &str| {
        let socket = node.daemon().run_dir().join("vpnd/vpn0.sock");
        let mut stream = UnixStream::connect(socket).expect("it listens");
        stream.write_all(format!("POST {path} HTTP/1.0\r\n\r\n").as_bytes()).expect("it reads");
        let mut answer = String::new();
        std::io::Read::read_to_string(&mut stream, &mut answer).expect("it answers");
        assert!(answer.starts_with("HTTP/1.0 200"), "{answer}");
    };
    ask(&pair.left, "/v1/reload?confirm=60");
    await_private(&mut pair.left, &old, [1, 0, 0]);
    ask(&pair.left, "/v1/confirm");
    await_private(&mut pair.left, &old, [0; 3]);
    await_private(&mut pair.left, &new, [1, 0, 0]);
    let (base64, hex) = (shared.to_base64(), shared.to_hex());
    await_copies(&mut pair.left, (shared.expose(), &base64, &hex), [1, 0, 0]);
}

#[test]
fn a_preshared_key_leaves_memory_with_its_peer() {
    if !need_root() {
        return;
    }
    let mut pair = Pair::start("psk", &Spec::default());
    let (peer, key) = (pair.right.key(), PresharedKey::generate(&mut os_rng()));
    let (base64, hex) = (key.to_base64(), key.to_hex());
    let file = pair.left.host.folder().join("shared.key");
    fs::write(&file, base64.as_bytes()).expect("a file");
    pair.left.set(&format!("peer {peer} preshared-key {}", file.display()));
    pair.left.wg(&["showconf", "vpn0"]);
    await_copies(&mut pair.left, (key.expose(), &base64, &hex), [1, 0, 0]);
    pair.left.set(&format!("peer {peer} remove"));
    await_copies(&mut pair.left, (key.expose(), &base64, &hex), [0; 3]);
}

#[test]
fn a_daemon_is_not_swapped_out() {
    if !need_root() {
        return;
    }
    let mut pair = Pair::start("locked", &Spec::default());
    let pid = pair.left.vpnd().pid();
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let locked =
        status.lines().find_map(|line| line.strip_prefix("VmLck:")).expect("a line of locked memory");
    assert_ne!(locked.trim(), "0 kB");
}

#[test]
fn no_key_is_logged_at_any_level() {
    if !need_root() {
        return;
    }
    let (left, _right) = cable("quiet", 1500);
    let mut rng = os_rng();
    let [own, theirs] = [PrivateKey::generate(&mut rng), PrivateKey::generate(&mut rng)];
    let shared = PresharedKey::generate(&mut rng);
    let peer = PeerText {
        key: theirs.public_key(),
        preshared: Some(&shared),
        endpoint: Some(("192.0.2.2".parse().expect("an address"), 51820)),
        allowed_ips: vec!["10.77.0.2/32".to_owned()],
        keepalive: 1,
    };
    let address = ["10.77.0.1/24".to_owned()];
    let file = NodeFile { private: &own, address: &address, mtu: 1420, interface: "", peers: &peer.toml() };
    let mut setup = Setup::new(program::daemon(), as_in_matrix(&file.toml()));
    setup.log = "trace".to_owned();
    let daemon = Daemon::start(&left, &setup).expect("it starts");
    let hex = [own.to_hex(), shared.to_hex()];
    let set = format!(
        "set=1\nprivate_key={}\npublic_key={}\npreshared_key={}\nendpoint=nonsense\n\n",
        *hex[0],
        theirs.public_key().to_hex(),
        *hex[1]
    );
    let mut socket = UnixStream::connect(daemon.run_dir().join("wireguard/vpn0.sock")).expect("its socket");
    socket.write_all(set.as_bytes()).expect("a request");
    socket.write_all(b"get=1\n\n").expect("another");
    assert!(
        wait_until(Duration::from_secs(5), || daemon.log().contains("control request refused")),
        "{}",
        daemon.log()
    );
    let log = daemon.log();
    assert!(log.contains("TRACE") || log.contains("DEBUG"), "nothing is logged: {log}");
    for secret in [own.to_base64(), shared.to_base64()].iter().chain(&hex) {
        assert!(!log.contains(&secret[4..20]), "{log}");
    }
}

/// What a capture was given is in the file, and nowhere in the daemon once the handshake is over.
#[test]
fn keys_that_a_capture_was_given_leave_memory_with_their_handshake() {
    if !need_root() {
        return;
    }
    let mut pair =
        Pair::start("secretcap", &Spec { interface: "capture_secrets = true".to_owned(), ..Spec::default() });
    pair.left.ping(pair.right.inner4, 1);
    let file = pair.left.host.folder().join("a.pcapng");
    let mut command = pair.left.host.command(env!("CARGO_BIN_EXE_vpnd")).expect("a command");
    command.args(["capture", "--with-secrets", "--renew", "-w"]).arg(&file);
    let run_dir = pair.left.daemon().run_dir().to_owned();
    let mut capture = command.arg("--run-dir").arg(run_dir).spawn().expect("vpnd runs");
    let ephemeral = |text: &str| {
        let line = text.split("LOCAL_EPHEMERAL_PRIVATE_KEY=").nth(1)?;
        line.get(..44)?.parse::<PrivateKey>().ok()
    };
    let mut given = None;
    let came = wait_until(Duration::from_secs(20), || {
        let text = String::from_utf8_lossy(&fs::read(&file).unwrap_or_default()).into_owned();
        given = ephemeral(&text);
        given.is_some() && text.contains("handshake response")
    });
    assert!(came, "no handshake is in the file");
    pair.left.ping(pair.right.inner4, 1);
    // Also while the capture still runs.
    await_private(&mut pair.left, &given.expect("there is one"), [0; 3]);
    let own = pair.left.private.clone();
    await_private(&mut pair.left, &own, [1, 0, 0]);
    capture.kill().and_then(|()| capture.wait()).expect("it ran");
}
