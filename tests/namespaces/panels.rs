//! Programs of others, from registries and as they are, that read `wg show dump` or speak the UAPI themselves: exporters,
//! a panel, a `wg` in Python. `make panels` installs them and runs these.

use std::{
    fs,
    io::{Read, Write},
    net::TcpStream,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use vpnd::lab::{Host, with_control_sockets};

use crate::{
    common::need_root,
    world::{DEVICE, Kind, Node, Pair, Spec, cable, run, sh, start_other, wait_until},
};

const PATIENCE: Duration = Duration::from_secs(30);

/// Where `make panels` puts what others wrote.
fn installed(program: &str) -> PathBuf {
    let peers = std::env::var_os("VPND_PEERS").map(PathBuf::from).unwrap_or_else(|| {
        Path::new(&std::env::var_os("HOME").expect("HOME is set")).join(".cache/vpnd/peers")
    });
    let places = ["bin", "python/bin"].map(|place| peers.join("panels").join(place).join(program));
    places
        .into_iter()
        .find(|path| path.exists())
        .unwrap_or_else(|| panic!("no {program}: `make panels` installs it"))
}

/// An /etc, a /var/log and a /var/cache of a host's own, for programs that know no other places.
struct Places(PathBuf);

impl Places {
    fn new(node: &Node) -> Self {
        let places = Self(node.host.folder().join("places"));
        for folder in ["etc/wireguard", "etc/wgpeer", "var/log", "var/cache"] {
            fs::create_dir_all(places.0.join(folder)).expect("the host's own folder");
        }
        // What those programs call the interface's file: made by us from ours.
        let mut command = Command::new(env!("CARGO_BIN_EXE_vpnd"));
        command.arg("export").arg(node.daemon().config());
        command.arg("--output").arg(places.0.join(format!("etc/wireguard/{DEVICE}.conf")));
        run(&node.host, command);
        places
    }

    fn write(&self, path: &str, text: &str) {
        fs::write(self.0.join(path), text).expect("the host's own folder");
    }

    fn read(&self, path: &str) -> Option<String> {
        fs::read_to_string(self.0.join(path)).ok()
    }

    /// A program of others that sees these, and the control socket where it looks for it.
    fn command(&self, node: &Node, program: &str, arguments: &[&str]) -> Command {
        // Not all of /var: /var/run is where `wg` looks.
        let line = "for p in etc var/log var/cache; do mount --bind \"$0/$p\" /$p; done; exec \"$@\"";
        let mut command = with_control_sockets(&node.sockets(), Path::new("sh"));
        command.args(["-ec", line]).arg(&self.0).arg(installed(program)).args(arguments);
        command.env("COLUMNS", "150").env("PYTHONUTF8", "1");
        command
    }
}

/// What a page says that is served on the host itself.
fn page(host: &Host, port: u16, path: &str) -> Option<String> {
    host.run(|| {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
        stream.set_read_timeout(Some(PATIENCE)).ok()?;
        stream.write_all(format!("GET {path} HTTP/1.0\r\nHost: x\r\n\r\n").as_bytes()).ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        Some(answer)
    })
}

/// A figure of the left end's one peer, as vpnd's status says it.
fn figure(pair: &Pair, field: &str) -> u64 {
    let status = pair.left.status();
    status["peers"][0][field].as_f64().unwrap_or_else(|| panic!("no {field}: {status}")) as u64
}

#[test]
#[ignore = "needs programs from registries: `make panels`"]
fn an_exporter_for_prometheus_says_what_vpnd_says() {
    if !need_root() {
        return;
    }
    let pair = Pair::start("exporter", &Spec { preshared: true, ..Spec::default() });
    pair.left.ping(pair.right.inner4, 3);
    let places = Places::new(&pair.left);
    let conf = format!("/etc/wireguard/{DEVICE}.conf");
    let arguments = ["-l", "127.0.0.1", "-r", "true", "-n", &conf];
    let command = places.command(&pair.left, "prometheus_wireguard_exporter", &arguments);
    let exporter = pair.left.host.spawn("exporter", command).expect("it starts");
    let labels = format!(
        "{{interface=\"{DEVICE}\",public_key=\"{}\",allowed_ips=\"10.77.0.2/32,fd77::2/128\",\
         remote_ip=\"192.0.2.2\",remote_port=\"51820\"}}",
        pair.right.key()
    );
    let mut seen = None;
    let told = wait_until(PATIENCE, || {
        seen = page(&pair.left.host, 9586, "/metrics");
        let fields = [
            ("wireguard_sent_bytes_total", "tx_bytes"),
            ("wireguard_received_bytes_total", "rx_bytes"),
            ("wireguard_latest_handshake_seconds", "last_handshake"),
        ];
        fields.iter().all(|(metric, field)| {
            let line = format!("\n{metric}{labels} {}\n", figure(&pair, field));
            seen.as_ref().is_some_and(|page| page.contains(&line))
        })
    });
    assert!(told, "{labels}; {}\n{seen:?}\n{}", pair.left.status(), exporter.log());
    println!("{}", seen.unwrap_or_default());
}

/// Prometheus takes all that we serve: its linter says nothing, and what it stores is what we have.
#[test]
#[ignore = "needs programs from registries: `make panels`"]
fn prometheus_finds_no_fault_with_our_own_metrics_and_collects_them() {
    if !need_root() {
        return;
    }
    let interface = "metrics_listen = \"127.0.0.1:9586\"".to_owned();
    let pair = Pair::start("prometheus", &Spec { interface, ..Spec::default() });
    let host = &pair.left.host;
    pair.left.ping(pair.right.inner4, 3);
    let served = page(host, 9586, "/metrics").expect("it is served");
    let (_, metrics) = served.split_once("\r\n\r\n").expect("a head and a body");
    let file = pair.left.write("metrics", metrics);
    assert_eq!(sh(host, &format!("promtool check metrics <{file} 2>&1")), "", "of {metrics}");

    let config = "scrape_configs: [{job_name: vpnd, scrape_interval: 1s, static_configs: [{targets: ['127.0.0.1:9586']}]}]";
    let config = pair.left.write("prometheus.yml", config);
    let mut command = Command::new("prometheus");
    command.arg(format!("--config.file={config}")).arg("--web.listen-address=127.0.0.1:9090");
    command.arg("--storage.tsdb.path").arg(host.folder().join("prometheus"));
    let prometheus = host.spawn("prometheus", command).expect("it starts");
    let stored = |query: &str| {
        let answer = page(host, 9090, &format!("/api/v1/query?query={query}"))?;
        let (_, json) = answer.split_once("\r\n\r\n")?;
        let json: serde_json::Value = serde_json::from_str(json).ok()?;
        json["data"]["result"][0]["value"][1].as_str()?.parse::<u64>().ok()
    };
    let collected = wait_until(PATIENCE, || {
        stored("up") == Some(1)
            && stored("vpnd_peer_connected") == Some(1)
            && stored("vpnd_peer_sent_bytes_total") == Some(figure(&pair, "tx_bytes"))
            && stored("vpnd_peer_received_bytes_total") == Some(figure(&pair, "rx_bytes"))
    });
    assert!(collected, "{:?}\n{metrics}\n{}", stored("up"), prometheus.log());
}

#[test]
#[ignore = "needs programs from registries: `make panels`"]
fn a_tracker_for_telegraf_says_what_vpnd_says_and_that_the_peer_is_up() {
    if !need_root() {
        return;
    }
    let pair = Pair::start("tracker", &Spec::default());
    pair.left.ping(pair.right.inner4, 3);
    let places = Places::new(&pair.left);
    places.write("etc/wgtrack.conf", "[general]\ncycle_time = 1\nping_interval = 0\n[output:influx]\n");
    let command = places.command(&pair.left, "wgtrack", &[]);
    let tracker = pair.left.host.spawn("tracker", command).expect("it starts");
    let mut seen = None;
    let told = wait_until(PATIENCE, || {
        seen = places.read("var/cache/wg-track_influx.out");
        let readings = format!(",transfer_tx={},status=\"up:ok\",is_up=1i ", figure(&pair, "tx_bytes"));
        let readings = format!("transfer_rx={}{readings}", figure(&pair, "rx_bytes"));
        let peer =
            format!("wgtrack,interface={DEVICE},peer={}", pair.right.key().to_string().replace('=', "\\="));
        let is_it = |line: &str| line.starts_with(&peer) && line.contains(&readings);
        seen.as_ref().is_some_and(|text| text.lines().any(is_it))
    });
    assert!(told, "{}\n{seen:?}\n{}", pair.left.status(), tracker.log());
    println!("{}", seen.unwrap_or_default());
}

/// The UAPI as a Python program speaks it, with no `wg` between.
#[test]
#[ignore = "needs programs from registries: `make panels`"]
fn a_wg_in_python_shows_copies_and_sets_a_living_tunnel() {
    if !need_root() {
        return;
    }
    let pair = Pair::start("python", &Spec::default());
    let (left, right) = (&pair.left, &pair.right);
    left.ping(right.inner4, 1);
    let python = |arguments: &[&str]| {
        let mut command = with_control_sockets(&left.sockets(), &installed("wg-py"));
        command.args(arguments);
        run(&left.host, command)
    };
    let shown = python(&["show"]);
    for part in [DEVICE, &right.key().to_string(), "192.0.2.2:51820", "10.77.0.2/32"] {
        assert!(shown.contains(part), "{part}: {shown}");
    }
    println!("{shown}");
    // What it reads makes the same interface again, and the tunnel lives on.
    let before = left.wg(&["showconf", DEVICE]);
    let conf = python(&["showconf", DEVICE]);
    python(&["syncconf", DEVICE, &left.write("python.conf", &conf)]);
    assert_eq!(left.wg(&["showconf", DEVICE]), before);
    assert!(wait_until(PATIENCE, || left.reaches(right.inner4)), "{}", left.log());
    // What it alters is altered, and is not in the file.
    let other = conf.replace("fd77::2/128", "10.9.0.0/16");
    assert_ne!(other, conf);
    python(&["setconf", DEVICE, &left.write("python.conf", &other)]);
    assert_eq!(left.shown("allowed-ips", &right.key()), "10.9.0.0/16 10.77.0.2/32");
    let differs = left.status()["operation"]["differs"].to_string();
    assert!(differs.contains("+10.9.0.0/16 -fd77::2/128"), "{differs}");
}

/// As its users have it: peers come and go by `wg set` and `wg-quick save`.
#[test]
#[ignore = "needs programs from registries: `make panels`"]
fn a_panel_lets_a_client_in_shows_it_online_and_lets_it_out() {
    if !need_root() {
        return;
    }
    let (left, right) = cable("panel", 1500);
    let node = Node::on(left, "", "");
    let places = Places::new(&node);
    places.write(
        "etc/wgpeer/config.toml",
        &format!("server_ip = \"192.0.2.1\"\nwg_interface = \"{DEVICE}\"\nsubnet = \"10.77.0.0/24\"\n"),
    );
    let panel = |words: &[&str]| run(&node.host, places.command(&node, "wgpeer", words));

    let said = panel(&["add", "phone"]);
    assert!(said.contains("Peer 'phone' added with IP 10.77.0.2"), "{said}");
    let saved = places.read(&format!("etc/wireguard/{DEVICE}.conf")).expect("its wg-quick file");
    assert!(saved.contains("AllowedIPs = 10.77.0.2/32"), "{saved}");
    // Its client, brought up by another implementation without wg-quick, which alone knows some of the keys.
    let conf = places.read("etc/wireguard/phone.conf").expect("the client's file");
    let is_for_wg = |line: &&str| !["Address", "DNS"].iter().any(|key| line.starts_with(key));
    let conf: Vec<_> = conf.lines().filter(is_for_wg).collect();
    let conf = conf.join("\n").replace("0.0.0.0/0, ::/0", "10.77.0.0/24");
    let _client = start_other(&right, Kind::WireguardGo, &conf, &["10.77.0.2/24".to_owned()], 1420);
    let reaches = || right.ping(node.inner4, 1).is_ok_and(|pings| pings.received == 1);
    assert!(wait_until(PATIENCE, reaches), "{}", node.log());

    let shown = panel(&["status"]);
    println!("{said}\n{shown}");
    let line = shown.lines().find(|line| line.contains("phone")).unwrap_or_else(|| panic!("{shown}"));
    assert!(line.contains("10.77.0.2") && line.contains("online"), "{shown}");
    let differs = node.status()["operation"]["differs"].to_string();
    assert!(differs.contains("added"), "what a panel does is not in the file: {differs}");

    assert!(panel(&["remove", "phone"]).contains("removed"));
    assert!(!reaches());
    assert!(!panel(&["list"]).contains("10.77.0.2"));
    assert_eq!(node.status()["operation"]["differs"], serde_json::json!([]));
}
