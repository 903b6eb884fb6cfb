//! Many peers in one file, many live peers at one gateway, several tunnels on one host.
#![allow(clippy::disallowed_methods, reason = "tests measure how long things take")]

use std::{
    collections::HashSet,
    io::Write,
    path::PathBuf,
    process::{Child, Command, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

use rand_core::Rng;
use vpnd::{
    lab::{Daemon, Host, Ping, Setup, tcp_transfer},
    noise::{PrivateKey, PublicKey},
    sys::random::os_rng,
};

use crate::{
    common::{need_root, program},
    world::{DEVICE, Node, PORT, PeerText, as_in_matrix, cable, run, sh, start_vpnd, wait_until},
};

const MANY: usize = 10_000;

/// What the optimised build is measured by, and what a slow one on a busy machine must keep.
const LIMITS: Limits = if cfg!(debug_assertions) {
    Limits { load: Duration::from_secs(20), memory_kb: 60 * 1024, busy: 0.25 }
} else {
    Limits { load: Duration::from_secs(1), memory_kb: 40 * 1024, busy: 0.01 }
};

struct Limits {
    load: Duration,
    memory_kb: u64,
    /// Of one core.
    busy: f64,
}

/// A line of `/proc/PID/status`, in KB.
fn memory_kb(daemon: &Daemon, what: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", daemon.pid())).expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix(what)?.strip_prefix(':'));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok()).expect("a number of kB")
}

/// What all its threads have used of the processor so far.
fn processor_time(daemon: &Daemon) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", daemon.pid())).expect("it runs");
    let (_, fields) = stat.rsplit_once(')').expect("the name stands in brackets");
    let ticks = fields.split_whitespace().skip(11).take(2).map(|n| n.parse::<u64>().expect("ticks"));
    Duration::from_millis(ticks.sum::<u64>() * 10) // USER_HZ is 100 on every machine that Linux shows it on
}

/// A peer of the file: its number tells its addresses.
fn numbered(n: usize) -> String {
    let mut key = [0; 32];
    os_rng().fill_bytes(&mut key);
    let [low, middle, high] = [n & 255, n >> 8 & 255, n >> 16];
    format!(
        "[[peer]]\nname = \"peer {n}\"\npublic_key = \"{}\"\nallowed_ips = [\"10.{high}.{middle}.{low}/32\", \
         \"fd00::{n:x}/128\"]\n",
        PublicKey(key)
    )
}

#[test]
fn ten_thousand_peers_load_quickly_in_little_memory_and_cost_nothing_while_idle() {
    if !need_root() {
        return;
    }
    let peers: String = (0..MANY).map(numbered).collect();
    let start = Instant::now();
    let node = Node::alone("many", "", &peers);
    let load = start.elapsed(); // with the namespace's making
    let daemon = node.daemon();
    let (peak, resident) = (memory_kb(daemon, "VmHWM"), memory_kb(daemon, "VmRSS"));
    println!("{MANY} peers: ready after {load:?}, peak {peak} kB, resident {resident} kB");
    assert!(load < LIMITS.load, "ready after {load:?}");
    assert!(peak < LIMITS.memory_kb, "peak {peak} kB, resident {resident} kB");

    // The kernel tells it of its own twenty thousand routes first.
    let at_rest = wait_until(Duration::from_secs(20), || {
        let before = processor_time(daemon);
        thread::sleep(Duration::from_millis(500));
        processor_time(daemon) == before
    });
    assert!(at_rest, "it never came to rest");
    let window = Duration::from_secs(2);
    let before = processor_time(daemon);
    thread::sleep(window); // this is what is measured
    let used = processor_time(daemon) - before;
    println!("idle: {used:?} of {window:?}");
    assert!(used.as_secs_f64() <= LIMITS.busy * window.as_secs_f64(), "{used:?} of {window:?}");

    let status = node.status();
    let peers = status["peers"].as_array().expect("a list");
    let names: HashSet<_> = peers.iter().filter_map(|peer| peer["name"].as_str()).collect();
    assert_eq!((peers.len(), names.len()), (MANY, MANY));
    let shown = node.wg(&["show", DEVICE, "allowed-ips"]);
    assert_eq!(shown.lines().filter(|line| line.contains("/32") && line.contains("/128")).count(), MANY);
    for family in ["-4", "-6"] {
        let routes = sh(&node.host, &format!("ip {family} route show dev vpn0 scope all"));
        let to_hosts = |line: &&str| line.starts_with("10.0.") || line.starts_with("fd00::");
        assert_eq!(routes.lines().filter(to_hosts).count(), MANY, "{family}");
    }
    let report = status_command(&node, &[]);
    assert!(report.starts_with("interface vpn0: 0 of 10000 peers connected\n"));
    let resident = memory_kb(daemon, "VmRSS");
    println!("after three status reports: resident {resident} kB");
    assert!(resident < LIMITS.memory_kb, "{resident} kB");
    watched(&node);
}

/// The live view on a terminal, by its keys: all is there to be seen, and the terminal is as it was afterwards.
fn watched(node: &Node) {
    let mut terminal = Terminal::run(node, &["--watch"]);
    terminal.shows("of 10000 connected");
    terminal.press("G");
    terminal.shows("peer 9999 ");
    terminal.press("/peer 7777\r");
    terminal.shows("filter: peer 7777");
    terminal.shows("1 shown");
    terminal.press("\r");
    terminal.shows("allowed IPs  10.0.30.97/32");
    terminal.press("q");
    let (status, screen) = terminal.end();
    assert!(status.success(), "{}", screen.contents());
    assert!(!screen.alternate_screen() && !screen.hide_cursor(), "the terminal is as it was");
}

#[test]
fn a_status_has_colours_on_a_terminal_unless_they_are_forbidden() {
    if !need_root() {
        return;
    }
    let node = Node::alone("colours", "", "");
    let is_bold = |forbidden: &str| {
        let terminal = Terminal::with(&node, &[], &format!("NO_COLOR={forbidden}"));
        terminal.shows("interface vpn0: 0 of 0 peers connected");
        let (status, screen) = terminal.end();
        assert!(status.success());
        screen.cell(0, 0).expect("it has one").bold()
    };
    assert!(is_bold("") && !is_bold("1"));
}

/// `vpnd status` on a terminal of 40 lines and 140 columns, at which a test types and looks.
struct Terminal {
    process: Child,
    written: PathBuf,
}

impl Terminal {
    fn run(node: &Node, arguments: &[&str]) -> Self {
        Self::with(node, arguments, "TERM=xterm-256color")
    }

    fn with(node: &Node, arguments: &[&str], variable: &str) -> Self {
        let written = node.host.folder().join("terminal");
        let line = format!(
            "stty rows 40 cols 140; {variable} exec {} status --run-dir {} {}",
            env!("CARGO_BIN_EXE_vpnd"),
            node.daemon().run_dir().display(),
            arguments.join(" ")
        );
        let mut command = Command::new("script");
        command.args(["--quiet", "--flush", "--return", "--command", &line]).arg(&written);
        command.stdin(Stdio::piped()).stdout(Stdio::null());
        Self { process: command.spawn().expect("script runs"), written }
    }

    fn screen(&self) -> vt100::Screen {
        let written = std::fs::read(&self.written).unwrap_or_default();
        // Between two lines of script's own.
        let end = |byte: &u8| *byte == b'\n';
        let begin = written.iter().position(end).map_or(0, |at| at + 1);
        let mut terminal = vt100::Parser::new(40, 140, 0);
        terminal.process(&written[begin..]);
        terminal.screen().clone()
    }

    #[track_caller]
    fn shows(&self, what: &str) {
        let seen = wait_until(Duration::from_secs(30), || self.screen().contents().contains(what));
        assert!(seen, "{what}: {}", self.screen().contents());
    }

    fn press(&mut self, keys: &str) {
        let keyboard = self.process.stdin.as_mut().expect("it is a pipe");
        keyboard.write_all(keys.as_bytes()).expect("somebody reads");
    }

    fn end(mut self) -> (ExitStatus, vt100::Screen) {
        let mut status = None;
        let ended = wait_until(Duration::from_secs(30), || {
            status = self.process.try_wait().expect("it is a child");
            status.is_some()
        });
        assert!(ended, "{}", self.screen().contents());
        (status.expect("it has ended"), self.screen())
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.process.kill(); // at worst it has ended
    }
}

/// `vpnd status` as a person calls it.
fn status_command(node: &Node, arguments: &[&str]) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_vpnd"));
    command.args(["status", "--run-dir"]).arg(node.daemon().run_dir()).args(arguments);
    run(&node.host, command)
}

/// A tunnel of its own name on a host: its key, its file's text and its daemon.
struct Tunnel<'a> {
    device: &'a str,
    port: u16,
    private: PrivateKey,
    address: String,
}

impl Tunnel<'_> {
    fn new(device: &str, port: u16, address: String) -> Tunnel<'_> {
        Tunnel { device, port, private: PrivateKey::generate(&mut os_rng()), address }
    }

    fn start(&self, host: &Host, more: &str, peers: &[PeerText<'_>]) -> Daemon {
        let peers: String = peers.iter().map(PeerText::toml).collect();
        let config = format!(
            "[interface]\nname = \"{}\"\nprivate_key = \"{}\"\nlisten_port = {}\naddress = [\"{}\"]\n{more}\n{peers}",
            self.device,
            *self.private.to_base64(),
            self.port,
            self.address
        );
        let setup = Setup {
            label: self.device.to_owned(),
            log: "debug".to_owned(),
            ..Setup::new(program::daemon(), as_in_matrix(&config))
        };
        Daemon::start(host, &setup).unwrap_or_else(|error| panic!("{}: {error}", self.device))
    }
}

fn peer(key: PublicKey, endpoint: Option<(&str, u16)>, allowed_ip: String) -> PeerText<'static> {
    PeerText {
        key,
        preshared: None,
        endpoint: endpoint.map(|(address, port)| (address.parse().expect("an address"), port)),
        allowed_ips: vec![allowed_ip],
        keepalive: 0,
    }
}

#[test]
fn two_tunnels_stand_on_one_host_side_by_side() {
    if !need_root() {
        return;
    }
    let (left, right) = cable("side", 1500);
    let mut daemons = Vec::new();
    for (n, device) in ["vpn0", "vpn1"].into_iter().enumerate() {
        let port = PORT + n as u16;
        let here = Tunnel::new(device, port, format!("10.8{n}.0.1/24"));
        let there = Tunnel::new(device, port, format!("10.8{n}.0.2/24"));
        let to_there = peer(there.private.public_key(), Some(("192.0.2.2", port)), format!("10.8{n}.0.2/32"));
        let to_here = peer(here.private.public_key(), Some(("192.0.2.1", port)), format!("10.8{n}.0.1/32"));
        daemons.push([here.start(&left, "", &[to_there]), there.start(&right, "", &[to_here])]);
    }
    let address = |n: usize| format!("10.8{n}.0.2").parse().expect("an address");
    let limit = Duration::from_secs(30);
    for n in [0, 1] {
        let pings = left.ping(address(n), 2).expect("ping runs");
        assert_eq!(pings.received, 2, "through vpn{n}: {}", daemons[n][0].log());
    }
    thread::scope(|scope| {
        for n in [0, 1] {
            let (left, right) = (&left, &right);
            scope.spawn(move || {
                let transfer = tcp_transfer(left, right, address(n), 300_000, limit);
                assert!(transfer.expect("it comes through").intact);
            });
        }
    });
    // Each carried its own, and the end of one is none of the other's business.
    for [daemon, _] in &daemons {
        let device = daemon.config().file_stem().and_then(|stem| stem.to_str()).expect("the label");
        let sent = daemon.status(device).expect("a status")["peers"][0]["tx_bytes"].as_u64();
        assert!((300_000..500_000).contains(&sent.expect("a number")), "{device}: {sent:?}");
    }
    for mut daemon in daemons.remove(0) {
        assert!(daemon.stop().expect("it ends").success());
    }
    assert_eq!(left.ping(address(1), 2).expect("ping runs").received, 2);
    assert_eq!(left.ping(address(0), 1).expect("ping runs").received, 0);
}

#[test]
fn forty_live_peers_talk_to_one_gateway() {
    if !need_root() {
        return;
    }
    const LIVE: usize = 40;
    let (left, right) = cable("forty", 1500);
    let names: Vec<_> = (0..LIVE).map(|n| format!("p{n}")).collect();
    let gateway = Tunnel::new(DEVICE, PORT, "10.88.1.1/16".to_owned());
    let address = |n: usize| format!("10.88.0.{}", n + 1);
    let clients: Vec<_> = names
        .iter()
        .enumerate()
        .map(|(n, name)| Tunnel::new(name, 40_000 + n as u16, format!("{}/32", address(n))))
        .collect();
    let known: Vec<_> = clients
        .iter()
        .enumerate()
        .map(|(n, client)| peer(client.private.public_key(), None, format!("{}/32", address(n))))
        .collect();
    let daemon = gateway.start(&right, "", &known);
    // All on one host: each has a table of its own, for what comes from its address.
    let start = |(n, client): (usize, &Tunnel<'_>)| {
        let (key, table) = (gateway.private.public_key(), 100 + n);
        sh(&left, &format!("ip rule add from {} lookup {table}", address(n)));
        let gateway = peer(key, Some(("192.0.2.2", PORT)), "10.88.0.0/16".to_owned());
        client.start(&left, &format!("table = {table}"), &[gateway])
    };
    let running: Vec<_> = clients.iter().enumerate().map(start).collect();
    thread::scope(|scope| {
        for n in 0..LIVE {
            let (left, daemon) = (&left, &daemon);
            let ping = Ping {
                source: Some(address(n).parse().expect("an address")),
                count: 5,
                interval: Duration::from_millis(200),
                ..Ping::patiently("10.88.1.1".parse().expect("an address"))
            };
            scope.spawn(move || {
                let pings = left.ping_with(&ping).expect("ping runs");
                assert_eq!(pings.received, 5, "{n}: {pings:?}\n{}", daemon.log());
            });
        }
    });
    let status = daemon.status(DEVICE).expect("a status");
    let peers = status["peers"].as_array().expect("a list");
    for (n, peer) in peers.iter().enumerate() {
        assert_eq!(peer["connected"], true, "{peer}");
        assert_eq!(peer["endpoint"], format!("192.0.2.1:{}", 40_000 + n));
        assert_eq!(peer["rx_packets"], 5, "{peer}");
    }
    assert_eq!(peers.len(), LIVE);
    // And from the gateway to each of them.
    let back: Vec<_> = (0..LIVE).map(address).collect();
    let said = sh(&right, &format!("for a in {}; do ping -q -c 1 -W 5 $a & done; wait", back.join(" ")));
    assert_eq!(said.matches(" 1 received").count(), LIVE, "{said}");
    drop(running);
}

/// What a stranger reads at each stage of a peer's life.
#[test]
fn the_status_says_in_words_how_each_peer_stands() {
    if !need_root() {
        return;
    }
    let (left, right) = cable("words", 1500);
    let keys = [(); 3].map(|()| PrivateKey::generate(&mut os_rng()));
    let named = |name: &str, peer: PeerText<'_>| {
        peer.toml().replacen("[[peer]]", &format!("[[peer]]\nname = \"{name}\""), 1)
    };
    let office =
        named("office", peer(keys[0].public_key(), Some(("192.0.2.2", PORT)), "10.77.0.2/32".to_owned()));
    let absent =
        named("absent", peer(keys[1].public_key(), Some(("192.0.2.9", PORT)), "10.77.0.3/32".to_owned()));
    let laptop = named("laptop", peer(keys[2].public_key(), None, "10.77.0.4/32".to_owned()));
    let node = Node::on(left, "", &[office, absent, laptop].concat());
    let of = |name: &str| {
        let text = status_command(&node, &[DEVICE]);
        let peer = text.split("\n\n").find(|part| part.starts_with(&format!("peer {name} ")));
        peer.unwrap_or_else(|| panic!("no {name}: {text}")).to_owned()
    };
    assert!(status_command(&node, &[]).starts_with("interface vpn0: 0 of 3 peers connected\n"));
    assert!(of("office").contains("state         idle, no handshake yet; the first packet makes one\n"));
    assert!(of("laptop").contains("state         waiting for it to begin, no handshake yet\n"));
    assert!(of("laptop").contains("endpoint      not known: "));

    let back = PeerText { ..peer(node.key(), None, "10.77.0.1/32".to_owned()) }.toml();
    let toml = format!(
        "[interface]\nname = \"{DEVICE}\"\nprivate_key = \"{}\"\nlisten_port = {PORT}\naddress = [\"10.77.0.2/24\"]\n{back}",
        *keys[0].to_base64()
    );
    let other = start_vpnd(&right, &toml, &[]);
    assert!(!node.reaches("10.77.0.3".parse().expect("an address")));
    node.ping("10.77.0.2".parse().expect("an address"), 1);
    let text = of("office");
    assert!(text.contains("state         connected, last handshake "), "{text}");
    assert!(text.contains(", last heard ") && text.contains("reached from 192.0.2.1"), "{text}");
    let told =
        "state         not connected: 1 handshake initiation unanswered, no handshake yet, 1 packet waiting";
    let limit = Duration::from_secs(15);
    assert!(wait_until(limit, || of("absent").contains(told)), "{}", of("absent"));
    assert!(of("absent").contains("does it run at this endpoint"));

    // The office is switched off; what is sent there goes unanswered. (15 s of silence and 5 s for the
    // initiation are the protocol's: a rekey by `wg` is quicker.)
    drop(other);
    let preshared = node.write("psk", "AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=");
    node.set(&format!("peer {} preshared-key {preshared}", keys[0].public_key()));
    assert!(!node.reaches("10.77.0.2".parse().expect("an address")));
    let told = "state         not connected: 1 handshake initiation unanswered, last handshake ";
    assert!(wait_until(limit, || of("office").contains(told)), "{}", of("office"));
    let text = status_command(&node, &[DEVICE]);
    assert!(!text.contains("\x1b"), "no colours where nobody sees them");
}
