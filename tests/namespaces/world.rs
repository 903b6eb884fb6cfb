//! Two hosts on a cable, and an implementation of WireGuard on each: vpnd or another one.
//!
//! `wg` knows one folder for control sockets. Each node has its own, which is mounted there for `wg` and for
//! the other implementations alone, so that tests do not meet.

#![allow(dead_code, reason = "a world has more tools than its first test needs")]

use std::{
    fs::File,
    net::IpAddr,
    path::{Path, PathBuf},
    process::{Command, Output},
    time::{Duration, Instant},
};

use vpnd::{
    lab::{Daemon, Host, Process, Setup, is_listening, link, with_control_sockets},
    noise::{PresharedKey, PrivateKey, PublicKey},
    sys::random::os_rng,
};

use crate::common::program;

/// Every tunnel device in these tests.
pub const DEVICE: &str = "vpn0";
/// The UDP port of every node.
pub const PORT: u16 = 51820;

/// An implementation of WireGuard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Vpnd,
    WireguardGo,
    Boringtun,
    Gotatun,
}

impl Kind {
    fn program(self) -> PathBuf {
        let crates = || {
            let folder = std::env::var_os("VPND_PEERS").map(PathBuf::from).unwrap_or_else(|| {
                Path::new(&std::env::var_os("HOME").expect("HOME is set")).join(".cache/vpnd/peers")
            });
            folder.join("bin")
        };
        match self {
            Kind::Vpnd => program::daemon().into(),
            Kind::WireguardGo => "wireguard-go".into(),
            Kind::Boringtun => crates().join("boringtun-cli"),
            Kind::Gotatun => crates().join("gotatun"),
        }
    }
}

/// Which family carries the tunnel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outer {
    V4,
    V6,
}

/// What to build; the default is vpnd to vpnd over IPv4 at 1420.
#[derive(Clone, Debug)]
pub struct Spec {
    pub left: Kind,
    pub right: Kind,
    pub outer: Outer,
    pub mtu: u16,
    /// Shortens vpnd's REKEY_AFTER_TIME, in seconds.
    pub rekey_after: Option<u64>,
    pub preshared: bool,
    pub keepalive: u16,
    /// Does the right end know where the left one is?
    pub right_knows_left: bool,
    /// More lines for vpnd's `[interface]`.
    pub interface: String,
    /// Words before vpnd's command line, such as `taskset -c 0`; `{folder}` is the host's own.
    pub before: String,
}

impl Default for Spec {
    fn default() -> Self {
        Self {
            left: Kind::Vpnd,
            right: Kind::Vpnd,
            outer: Outer::V4,
            mtu: 1420,
            rekey_after: None,
            preshared: false,
            keepalive: 0,
            right_knows_left: true,
            interface: String::new(),
            before: String::new(),
        }
    }
}

/// One end: a host with a tunnel.
pub struct Node {
    pub host: Host,
    pub kind: Kind,
    pub private: PrivateKey,
    pub inner4: IpAddr,
    pub inner6: IpAddr,
    pub outer: IpAddr,
    pub running: Running,
}

/// What carries the tunnel.
pub enum Running {
    Vpnd(Daemon),
    Other(Process, PathBuf),
}

/// One end's file, before it is started.
pub struct NodeFile<'a> {
    pub private: &'a PrivateKey,
    pub address: &'a [String],
    pub mtu: u16,
    /// More lines for `[interface]`.
    pub interface: &'a str,
    /// The text of the `[[peer]]` tables.
    pub peers: &'a str,
}

impl NodeFile<'_> {
    /// As a `peer.toml`.
    pub fn toml(&self) -> String {
        format!(
            "[interface]\nname = \"{DEVICE}\"\nprivate_key = \"{}\"\nlisten_port = {PORT}\naddress = {:?}\nmtu = {}\n{}\n{}",
            *self.private.to_base64(),
            self.address,
            self.mtu,
            self.interface,
            self.peers
        )
    }
}

/// Two hosts whose `eth0` are joined: 192.0.2.1 and .2, 2001:db8::1 and ::2.
pub fn cable(name: &str, mtu: u32) -> (Host, Host) {
    let left = Host::create(&format!("vpnd-{name}-l")).expect("a namespace");
    let right = Host::create(&format!("vpnd-{name}-r")).expect("a namespace");
    link::veth(&left, "eth0", &right, "eth0").expect("a cable");
    for (host, number) in [(&left, 1), (&right, 2)] {
        host.add_address("eth0", &format!("192.0.2.{number}/24")).expect("an address");
        host.add_address("eth0", &format!("2001:db8::{number}/64")).expect("an address");
        link::mtu(host, "eth0", mtu).expect("an MTU");
        link::up(host, "eth0").expect("the cable comes up");
    }
    carries(&left, &right, ["192.0.2.2", "2001:db8::2"]);
    (left, right)
}

/// Waits until the cable between two hosts carries packets: what is sent while it comes up may be lost, and a
/// test would take that for the tunnel's fault.
#[track_caller]
pub fn carries<const N: usize>(from: &Host, to: &Host, addresses: [&str; N]) {
    for address in addresses {
        let address = address.parse().expect("an address");
        let answered = || from.reaches(address).is_ok_and(|answered| answered);
        assert!(
            wait_until(Duration::from_secs(10), answered),
            "no way from {} to {}",
            from.name(),
            to.name()
        );
    }
}

/// Two ends that know each other.
pub struct Pair {
    pub left: Node,
    pub right: Node,
}

impl Pair {
    /// Builds and starts both; the devices are up, no handshake has been made (but by a keepalive).
    pub fn start(name: &str, spec: &Spec) -> Self {
        let (left, right) = cable(name, u32::from(spec.mtu).max(1420) + 80);
        let keys = [PrivateKey::generate(&mut os_rng()), PrivateKey::generate(&mut os_rng())];
        let preshared = spec.preshared.then(|| PresharedKey::generate(&mut os_rng()));
        let end = |number: usize, host: Host, kind| {
            let other = 3 - number;
            let outer = |n: usize| match spec.outer {
                Outer::V4 => format!("192.0.2.{n}"),
                Outer::V6 => format!("2001:db8::{n}"),
            };
            let knows = number == 1 || spec.right_knows_left;
            let peer = PeerText {
                key: keys[other - 1].public_key(),
                preshared: preshared.as_ref(),
                endpoint: knows.then(|| (outer(other).parse().expect("an address"), PORT)),
                allowed_ips: vec![format!("10.77.0.{other}/32"), format!("fd77::{other}/128")],
                keepalive: spec.keepalive,
            };
            let address = [format!("10.77.0.{number}/24"), format!("fd77::{number}/64")];
            let arguments = match spec.rekey_after {
                Some(seconds) => vec!["--rekey-after".to_owned(), seconds.to_string()],
                None => vec![],
            };
            let private = keys[number - 1].clone();
            let running = match kind {
                Kind::Vpnd => {
                    let file = NodeFile {
                        private: &private,
                        address: &address,
                        mtu: spec.mtu,
                        interface: &spec.interface,
                        peers: &peer.toml(),
                    };
                    start_vpnd_by(&host, &spec.before, &file.toml(), &arguments)
                }
                other => start_other(&host, other, &other_conf(&private, &[peer]), &address, spec.mtu),
            };
            Node {
                kind,
                private,
                inner4: format!("10.77.0.{number}").parse().expect("an address"),
                inner6: format!("fd77::{number}").parse().expect("an address"),
                outer: outer(number).parse().expect("an address"),
                running,
                host,
            }
        };
        let right = end(2, right, spec.right);
        let left = end(1, left, spec.left);
        Self { left, right }
    }
}

/// A peer, for vpnd's file or for `wg setconf`.
pub struct PeerText<'a> {
    pub key: PublicKey,
    pub preshared: Option<&'a PresharedKey>,
    pub endpoint: Option<(IpAddr, u16)>,
    pub allowed_ips: Vec<String>,
    pub keepalive: u16,
}

impl PeerText<'_> {
    /// As a `[[peer]]` table.
    pub fn toml(&self) -> String {
        let mut text =
            format!("[[peer]]\npublic_key = \"{}\"\nallowed_ips = {:?}\n", self.key, self.allowed_ips);
        if let Some(key) = self.preshared {
            text += &format!("preshared_key = \"{}\"\n", *key.to_base64());
        }
        if let Some((address, port)) = self.endpoint {
            text += &format!("endpoint = \"{}\"\n", std::net::SocketAddr::new(address, port));
        }
        if self.keepalive > 0 {
            text += &format!("persistent_keepalive = {}\n", self.keepalive);
        }
        text
    }

    fn wg(&self) -> String {
        let mut text =
            format!("[Peer]\nPublicKey = {}\nAllowedIPs = {}\n", self.key, self.allowed_ips.join(", "));
        if let Some(key) = self.preshared {
            text += &format!("PresharedKey = {}\n", *key.to_base64());
        }
        if let Some((address, port)) = self.endpoint {
            text += &format!("Endpoint = {}\n", std::net::SocketAddr::new(address, port));
        }
        if self.keepalive > 0 {
            text += &format!("PersistentKeepalive = {}\n", self.keepalive);
        }
        text
    }
}

/// A vpnd from this file; `vpnd --config`.
pub fn start_vpnd(host: &Host, toml: &str, arguments: &[String]) -> Running {
    start_vpnd_by(host, "", toml, arguments)
}

/// Lines that each vpnd of these tests has in its `[interface]`, unless its own file has that key: `make matrix` runs
/// all of them with other offloads and workers.
const EVERYWHERE: &str = "VPND_TEST_INTERFACE";

/// The file with those lines.
pub fn as_in_matrix(toml: &str) -> String {
    let lines = std::env::var(EVERYWHERE).unwrap_or_default();
    let key = |line: &str| line.split('=').next().unwrap_or_default().trim().to_owned();
    let lacks = |line: &&str| !toml.lines().any(|own| key(own) == key(line));
    let added: String = lines.lines().filter(lacks).map(|line| format!("\n{line}")).collect();
    toml.replacen("[interface]", &format!("[interface]{added}"), 1)
}

/// The same with words before its command line.
fn start_vpnd_by(host: &Host, before: &str, toml: &str, arguments: &[String]) -> Running {
    let program = if before.is_empty() { Kind::Vpnd.program() } else { launcher(host, before) };
    let mut setup = Setup::new(program, as_in_matrix(toml));
    setup.arguments = arguments.to_vec();
    setup.log = "debug".to_owned();
    Running::Vpnd(Daemon::start(host, &setup).unwrap_or_else(|error| panic!("vpnd does not start: {error}")))
}

/// A program that becomes vpnd.
fn launcher(host: &Host, before: &str) -> PathBuf {
    let before = before.replace("{folder}", host.folder().to_str().expect("a path in text"));
    let path = host.folder().join("launch");
    let text = format!("#!/bin/sh\nexec {before} {} \"$@\"\n", Kind::Vpnd.program().display());
    program::script(&path, &text, 0o700);
    path
}

/// For `wg setconf`.
fn other_conf(private: &PrivateKey, peers: &[PeerText<'_>]) -> String {
    let mut conf = format!("[Interface]\nPrivateKey = {}\nListenPort = {PORT}\n", *private.to_base64());
    peers.iter().for_each(|peer| conf += &peer.wg());
    conf
}

/// Another implementation, set up by `wg` and `ip` as its users do.
pub fn start_other(host: &Host, kind: Kind, conf: &str, address: &[String], mtu: u16) -> Running {
    let program = kind.program();
    let found = program.components().count() == 1 || program.exists();
    assert!(found, "{} is missing: `make peers` builds it", program.display());
    let sockets = host.folder().join("sockets");
    std::fs::create_dir_all(&sockets).expect("a folder for sockets");
    let socket = sockets.join(format!("{DEVICE}.sock"));
    let _ = std::fs::remove_file(&socket); // of the one before, that was killed
    let mut command = with_control_sockets(&sockets, &program);
    command.args(["--foreground", DEVICE]).env("WG_PROCESS_FOREGROUND", "1");
    if kind != Kind::WireguardGo {
        command.args(["--disable-drop-privileges", "--verbosity", "error"]);
        command.arg("--log").arg(host.folder().join("other.out"));
    }
    // In the foreground boringtun and gotatun log to the standard output.
    command.stdout(File::create(host.folder().join("other.stdout")).expect("a file for its output"));
    let process = host.spawn("other", command).expect("it starts");
    let up = wait_until(Duration::from_secs(20), || is_listening(&socket));
    assert!(up, "{kind:?} makes no socket: {}", process.log());

    let file = host.folder().join("other.conf");
    std::fs::write(&file, conf).expect("a file for wg");
    wg_in(host, &sockets, &["setconf", DEVICE, file.to_str().expect("a path in text")]);
    link::mtu(host, DEVICE, mtu.into()).expect("an MTU");
    link::up(host, DEVICE).expect("the device comes up");
    for one in address {
        host.add_address(DEVICE, one).expect("an address"); // last: it is local when this returns
    }
    Running::Other(process, sockets)
}

/// `wg ARGUMENTS` with this folder of control sockets.
pub fn wg_in(host: &Host, sockets: &Path, arguments: &[&str]) -> String {
    let mut command = with_control_sockets(sockets, Path::new("wg"));
    command.args(arguments);
    run(host, command)
}

/// `wg` with the sockets in this folder, where it may fail: its standard error then.
pub fn try_wg(host: &Host, sockets: &Path, arguments: &[&str]) -> Result<String, String> {
    let mut command = with_control_sockets(sockets, Path::new("wg"));
    command.args(arguments);
    let output = attempt(host, &command);
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
}

/// Runs a command on a host, whatever becomes of it.
#[track_caller]
pub fn attempt(host: &Host, command: &Command) -> Output {
    // The namespace is entered by `ip netns`, so that the command stays as it was built.
    let mut inside = Command::new("ip");
    inside.args(["netns", "exec", host.name()]).arg(command.get_program()).args(command.get_args());
    for (name, value) in command.get_envs() {
        inside.env(name, value.unwrap_or_default());
    }
    inside.output().expect("the command can be started")
}

/// Runs a command on a host; its standard output. Panics with all that it said when it fails.
#[track_caller]
pub fn run(host: &Host, command: Command) -> String {
    let output = attempt(host, &command);
    let said = || {
        format!(
            "{command:?}: {}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        )
    };
    assert!(output.status.success(), "{}", said());
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Runs a line such as `ip addr flush dev eth0` on a host.
#[track_caller]
pub fn sh(host: &Host, line: &str) -> String {
    let mut command = Command::new("sh");
    command.args(["-ec", line]);
    run(host, command)
}

/// Packets that a counter of nftables has seen; `inet` table `vpnd_test`.
#[track_caller]
pub fn counter(host: &Host, name: &str) -> u64 {
    let page = sh(host, &format!("nft --json list counter inet vpnd_test {name}"));
    let page: serde_json::Value = serde_json::from_str(&page).expect("nft speaks JSON");
    let listed = page["nftables"].as_array().expect("a list");
    let packets = listed.iter().find_map(|object| object["counter"]["packets"].as_u64());
    packets.unwrap_or_else(|| panic!("no counter {name}: {page}"))
}

/// Asks every 20 ms; false after `limit`.
pub fn wait_until(limit: Duration, mut true_now: impl FnMut() -> bool) -> bool {
    let end = Instant::now() + limit;
    loop {
        if true_now() {
            return true;
        }
        if Instant::now() > end {
            return false;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

impl Node {
    /// A vpnd without a cable, 10.77.0.1 and fd77::1. More lines for `[interface]`, and `[[peer]]` tables.
    pub fn alone(name: &str, interface: &str, peers: &str) -> Self {
        Self::on(Host::create(&format!("vpnd-{name}")).expect("a namespace"), interface, peers)
    }

    /// The same on a host that is there.
    pub fn on(host: Host, interface: &str, peers: &str) -> Self {
        let private = PrivateKey::generate(&mut os_rng());
        let address = ["10.77.0.1/24".to_owned(), "fd77::1/64".to_owned()];
        let file = NodeFile { private: &private, address: &address, mtu: 1420, interface, peers };
        let running = start_vpnd(&host, &file.toml(), &[]);
        let [inner4, inner6, outer] =
            ["10.77.0.1", "fd77::1", "127.0.0.1"].map(|text| text.parse().expect("an address"));
        Self { host, kind: Kind::Vpnd, private, inner4, inner6, outer, running }
    }

    /// Where its control socket for `wg` is.
    pub fn sockets(&self) -> PathBuf {
        match &self.running {
            Running::Vpnd(daemon) => daemon.run_dir().join("wireguard"),
            Running::Other(_, sockets) => sockets.clone(),
        }
    }

    /// `wg ARGUMENTS` on this node.
    #[track_caller]
    pub fn wg(&self, arguments: &[&str]) -> String {
        wg_in(&self.host, &self.sockets(), arguments)
    }

    /// The same, when it may fail: its standard error then.
    pub fn try_wg(&self, arguments: &[&str]) -> Result<String, String> {
        try_wg(&self.host, &self.sockets(), arguments)
    }

    /// Writes a file that a command of this node can read.
    pub fn write(&self, name: &str, text: &str) -> String {
        let path = self.host.folder().join(name);
        std::fs::write(&path, text).expect("a file in the host's own folder");
        path.to_str().expect("a path in text").to_owned()
    }

    /// `wg set vpn0 …` in one line.
    #[track_caller]
    pub fn set(&self, line: &str) -> String {
        let arguments: Vec<_> = ["set", DEVICE].into_iter().chain(line.split_whitespace()).collect();
        self.wg(&arguments)
    }

    /// A column of `wg show vpn0 WHAT`, for the peer of this key.
    #[track_caller]
    pub fn shown(&self, what: &str, key: &PublicKey) -> String {
        let text = self.wg(&["show", DEVICE, what]);
        let line = text.lines().find_map(|line| line.strip_prefix(&format!("{key}\t")));
        line.unwrap_or_else(|| panic!("wg shows no {what} of {key}: {text}")).to_owned()
    }

    /// Bytes received from and sent to this peer.
    pub fn transfer(&self, key: &PublicKey) -> (u64, u64) {
        let text = self.shown("transfer", key);
        let numbers: Vec<u64> = text.split_whitespace().map(|n| n.parse().expect("a number")).collect();
        (numbers[0], numbers[1])
    }

    /// Unix seconds of the last handshake, 0: none.
    pub fn last_handshake(&self, key: &PublicKey) -> u64 {
        self.shown("latest-handshakes", key).parse().expect("a number")
    }

    /// Its public key.
    pub fn key(&self) -> PublicKey {
        self.private.public_key()
    }

    /// The process that carries its tunnel.
    pub fn pid(&self) -> u32 {
        match &self.running {
            Running::Vpnd(daemon) => daemon.pid(),
            Running::Other(process, _) => process.pid(),
        }
    }

    /// The daemon, where it is vpnd.
    pub fn vpnd(&mut self) -> &mut Daemon {
        match &mut self.running {
            Running::Vpnd(daemon) => daemon,
            Running::Other(..) => panic!("{:?} is not vpnd", self.kind),
        }
    }

    /// The same, to look at.
    pub fn daemon(&self) -> &Daemon {
        match &self.running {
            Running::Vpnd(daemon) => daemon,
            Running::Other(..) => panic!("{:?} is not vpnd", self.kind),
        }
    }

    /// Status of a vpnd as JSON.
    pub fn status(&self) -> serde_json::Value {
        self.daemon().status(DEVICE).expect("a status")
    }

    /// How often vpnd refused something for this reason.
    pub fn refused(&self, reason: &str) -> u64 {
        self.refusal(reason).map_or(0, |refusal| refusal["count"].as_u64().expect("a count"))
    }

    /// What vpnd says of what it refused for this reason: `count`, `text`, and in `last` the evidence.
    pub fn refusal(&self, reason: &str) -> Option<serde_json::Value> {
        let status = self.status();
        let refusals = status["refusals"].as_array().expect("refusals are a list");
        refusals.iter().find(|refusal| refusal["reason"] == reason).cloned()
    }

    /// What the daemon logged.
    pub fn log(&self) -> String {
        match &self.running {
            Running::Vpnd(daemon) => daemon.log(),
            Running::Other(process, _) => process.log(),
        }
    }

    /// Pings; all must be answered.
    #[track_caller]
    pub fn ping(&self, destination: IpAddr, count: u16) {
        let pings = self.host.ping(destination, count).expect("ping runs");
        assert_eq!(
            (pings.received, pings.sent),
            (u32::from(count), u32::from(count)),
            "answered pings from {} to {destination}, the first that was lost: {:?}; log:\n{}",
            self.host.name(),
            pings.first_lost,
            self.log()
        );
    }

    /// Is one ping out of one answered?
    pub fn reaches(&self, destination: IpAddr) -> bool {
        self.host.reaches(destination).is_ok_and(|answered| answered)
    }
}
