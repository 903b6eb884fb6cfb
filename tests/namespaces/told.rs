//! What happens is told: to `vpnd events`, to hooks, to Prometheus, to the journal.

use std::{
    io::{Read, Write},
    net::{TcpStream, UdpSocket},
    os::unix::net::UnixDatagram,
    process::Command,
    sync::mpsc,
    thread,
    time::Duration,
};

use serde_json::Value;

use crate::{
    common::{need_root, program},
    world::{Node, Pair, Spec, run, wait_until},
};

const PATIENCE: Duration = Duration::from_secs(20);

/// What one of the commands says that ask a daemon.
fn vpnd(node: &Node, arguments: &[&str]) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_vpnd"));
    command.args(arguments).arg("--run-dir").arg(node.host.folder().join("vpnd.run"));
    run(&node.host, command)
}

fn events(node: &Node, arguments: &[&str]) -> Vec<Value> {
    let text = vpnd(node, &[&["events", "--no-follow"], arguments].concat());
    text.lines().map(|line| serde_json::from_str(line).expect("a line of JSON")).collect()
}

fn has(events: &[Value], name: &str) -> bool {
    events.iter().any(|event| event["event"] == name)
}

#[test]
fn a_peer_that_connects_is_told_to_events_hooks_metrics_and_people() {
    if !need_root() {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    program::give(folder.path());
    let heard = folder.path().join("heard");
    let interface = format!(
        "metrics_listen = \"127.0.0.1:9586\"\n[[hook]]\nrun = [\"/bin/sh\", \"-c\", \"cat >> {}\"]\nevents = [\"connected\"]\n",
        heard.display()
    );
    let pair = Pair::start("told", &Spec { interface, ..Spec::default() });
    pair.left.ping(pair.right.inner4, 1);

    let told = wait_until(PATIENCE, || has(&events(&pair.left, &[]), "connected"));
    assert!(told, "{:?}; {}", events(&pair.left, &[]), pair.left.log());
    let all = events(&pair.left, &["--since", "all"]);
    assert!(has(&all, "started"), "{all:?}");
    let connected = all.iter().find(|event| event["event"] == "connected").expect("just seen");
    assert_eq!(connected["public_key"], pair.right.key().to_string());
    let name = connected["peer"].as_str().expect("a name");
    assert!(events(&pair.left, &["--peer", name]).iter().all(|event| event["peer"] == name));
    assert!(events(&pair.left, &["--peer", "nobody"]).is_empty());

    // Both ends have the hook, and write to one file.
    let has_heard = || {
        let text = std::fs::read_to_string(&heard).unwrap_or_default();
        text.lines().any(|line| serde_json::from_str(line).is_ok_and(|event: Value| event == *connected))
    };
    assert!(wait_until(PATIENCE, has_heard), "a hook hears what events tell; {}", pair.left.log());

    let metrics = pair.left.host.run(|| {
        let mut stream = TcpStream::connect("127.0.0.1:9586").expect("it listens");
        stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n").expect("it is read");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer, and the end");
        answer
    });
    let connected = metrics.lines().find(|line| line.starts_with("vpnd_peer_connected{"));
    assert!(connected.is_some_and(|line| line.ends_with(" 1")), "{metrics}");
    assert!(
        metrics.contains("vpnd_hook_runs_total{interface=\"vpn0\",result=\"succeeded\"} 1\n"),
        "{metrics}"
    );

    let page = vpnd(&pair.left, &["status"]);
    assert!(page.contains("1 of 1 peer connected"), "{page}");
    assert!(page.contains("  state         connected"), "{page}");

    // A reload moves the metrics and gives the hook another event: its own.
    let file = pair.left.host.folder().join("vpnd.toml");
    let text = std::fs::read_to_string(&file).expect("the daemon's file");
    let text = text.replace("127.0.0.1:9586", "127.0.0.1:9587").replace("[\"connected\"]", "[\"reloaded\"]");
    std::fs::write(&file, text).expect("it can be written");
    let said = vpnd(&pair.left, &["reload"]);
    assert!(said.contains("metrics_listen 127.0.0.1:9586 → 127.0.0.1:9587"), "{said}");
    pair.left.host.run(|| {
        TcpStream::connect("127.0.0.1:9587").expect("it listens there");
        assert!(wait_until(PATIENCE, || TcpStream::connect("127.0.0.1:9586").is_err()), "and no longer here");
    });
    let has_heard = || std::fs::read_to_string(&heard).unwrap_or_default().contains("\"event\":\"reloaded\"");
    assert!(wait_until(PATIENCE, has_heard), "{}", pair.left.log());
    assert!(has(&events(&pair.left, &[]), "reloaded"));
}

#[test]
fn what_is_refused_is_told_once_and_not_a_thousand_times() {
    if !need_root() {
        return;
    }
    let pair = Pair::start("told2", &Spec::default());
    let to = std::net::SocketAddr::new(pair.left.outer, 51820);
    pair.right.host.run(|| {
        let socket = UdpSocket::bind("0.0.0.0:0").expect("a port");
        for _ in 0..1000 {
            socket.send_to(b"is anybody there?", to).expect("it is sent");
        }
    });
    let refused = || -> Vec<Value> {
        let all = events(&pair.left, &[]);
        all.into_iter().filter(|event| event["event"] == "refused").collect()
    };
    let counted = || refused().iter().filter_map(|event| event["count"].as_u64()).sum::<u64>();
    assert!(wait_until(PATIENCE, || counted() > 900), "{:?}; {}", refused(), pair.left.log());
    let told = refused();
    assert!(told.len() <= 3 && told[0]["reason"] == "malformed", "{told:?}");
    assert!(told[0]["text"].as_str().is_some_and(|text| text.contains("not WireGuard")), "{told:?}");
}

#[test]
fn the_journal_gets_each_event_with_its_fields() {
    if !need_root() {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let journal = UnixDatagram::bind(folder.path().join("socket")).expect("a free path");
    [folder.path(), &folder.path().join("socket")].into_iter().for_each(program::give);
    journal.set_read_timeout(Some(PATIENCE)).expect("a time");
    let before = format!(
        "unshare --mount sh -c 'mkdir -p /run/systemd/journal; mount --bind {} /run/systemd/journal; \
         export JOURNAL_STREAM=$(stat -Lc %d:%i /proc/self/fd/2); exec \"$0\" \"$@\"'",
        folder.path().display()
    );
    // Read from the start: a socket of this kind has room for eleven entries (net.unix.max_dgram_qlen), and a journal that
    // takes none is taken for none.
    let (heard, entries) = mpsc::channel();
    let reader = thread::spawn(move || {
        let mut piece = vec![0; 65536];
        while let Ok(length) = journal.recv(&mut piece) {
            let entry = String::from_utf8_lossy(&piece[..length]).into_owned();
            if heard.send(entry).is_err() {
                return;
            }
        }
    });
    let pair = Pair::start("told3", &Spec { before, ..Spec::default() });
    pair.left.ping(pair.right.inner4, 1);
    let key = pair.right.key().to_string();
    let is_it = |entry: &String| {
        let lines: Vec<_> = entry.lines().collect();
        lines.contains(&"VPND_EVENT=connected")
            && lines.contains(&format!("VPND_PUBLIC_KEY={key}").as_str())
            && lines.contains(&"PRIORITY=6")
            && lines.contains(&"SYSLOG_IDENTIFIER=vpnd")
            && lines.iter().any(|line| line.starts_with("VPND_ENDPOINT=192.0.2.2:"))
            && lines.iter().any(|line| line.starts_with("MESSAGE=connected peer="))
    };
    let mut seen = Vec::new();
    while let Ok(entry) = entries.recv_timeout(PATIENCE) {
        if is_it(&entry) {
            drop(entries);
            drop(pair); // what it says at its end, or the time-out, ends the reader
            reader.join().expect("it only reads");
            return;
        }
        seen.push(entry);
    }
    panic!("no such entry: {seen:#?}");
}
