//! Two hosts on a cable with a vpnd on each, and a trace that watches both ends.

#![allow(dead_code, reason = "a world has more tools than its first test needs")]

use std::{
    fs::File,
    net::IpAddr,
    path::PathBuf,
    process::{Command, Output},
    time::{Duration, Instant},
};

use vpnd::{
    lab::{Daemon, Host, Process, Setup, link},
    noise::PrivateKey,
    sys::random::os_rng,
    trace::{Outcome, Page, Place, Station, Verdict, Walk},
};

use super::common::need_root;

pub const VPND: &str = env!("CARGO_BIN_EXE_vpnd");
pub const TUN: &str = "vpn0";
/// A test waits so long for what must come.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// The field order is the order in which they end.
pub struct World {
    pub daemons: Vec<Daemon>,
    pub left: Host,
    pub right: Host,
}

/// What differs from two plain ends.
#[derive(Clone, Default)]
pub struct Spec {
    /// More lines for the left end's `[interface]`.
    pub left_interface: String,
    /// More prefixes that the left end gives the right one, such as `, "10.9.0.0/24"`.
    pub left_allows: String,
    /// Prefixes that the right end gives the left one, instead of its addresses.
    pub right_allows: Option<String>,
    /// The carriers go by IPv6.
    pub v6_endpoints: bool,
}

impl World {
    pub fn new(name: &str) -> Self {
        Self::with(name, &Spec::default())
    }

    /// With a session already, so that the next packet does not wait; `None`: nobody may make one here, and that was said.
    #[track_caller]
    pub fn ready(name: &str, spec: &Spec) -> Option<Self> {
        need_root().then(|| {
            let world = Self::with(name, spec);
            world.shake_hands();
            world
        })
    }

    pub fn with(name: &str, spec: &Spec) -> Self {
        let host = |end: &str| Host::create(&format!("vpnd-trace-{name}-{end}")).expect("a namespace");
        let (left, right) = (host("l"), host("r"));
        link::veth(&left, "eth0", &right, "eth0").expect("a cable");
        let keys = [PrivateKey::generate(&mut os_rng()), PrivateKey::generate(&mut os_rng())];
        let mut daemons = Vec::new();
        for (at, host) in [&left, &right].into_iter().enumerate() {
            let (own, other) = (at + 1, 2 - at);
            host.add_address("eth0", &format!("192.0.2.{own}/24")).expect("an address");
            on(host, &format!("ip addr add 2001:db8::{own}/64 dev eth0 nodad"));
            let endpoint =
                if spec.v6_endpoints { format!("[2001:db8::{other}]") } else { format!("192.0.2.{other}") };
            let more = if at == 0 { spec.left_interface.as_str() } else { "" };
            let plain = format!("\"10.77.0.{other}/32\", \"fd77::{other}/128\"");
            let allowed = match (at, &spec.right_allows) {
                (0, _) => format!("{plain}{}", spec.left_allows),
                (_, Some(allowed)) => allowed.clone(),
                _ => plain,
            };
            let config = format!(
                "[interface]\nname = \"{TUN}\"\nprivate_key = \"{}\"\nlisten_port = 51820\n\
                 address = [\"10.77.0.{own}/24\", \"fd77::{own}/64\"]\n{more}\n\
                 [[peer]]\nname = \"{}\"\npublic_key = \"{}\"\nendpoint = \"{endpoint}:51820\"\n\
                 allowed_ips = [{allowed}]\n",
                *keys[at].to_base64(),
                if at == 0 { "right" } else { "left" },
                keys[1 - at].public_key(),
            );
            daemons.push(Daemon::start(host, &Setup::new(VPND, config)).expect("vpnd starts"));
        }
        Self { daemons, left, right }
    }

    /// The right end loses its sessions, and its keys stay.
    #[track_caller]
    pub fn restart_right(&mut self) {
        let config = std::fs::read_to_string(self.daemons[1].config()).expect("its file");
        self.daemons[1].kill9();
        self.daemons.pop();
        self.daemons.push(Daemon::start(&self.right, &Setup::new(VPND, config)).expect("vpnd starts"));
    }

    /// A session, so that the next packet does not wait.
    #[track_caller]
    pub fn shake_hands(&self) {
        let ping = vpnd::lab::Ping { patience: PATIENCE, ..vpnd::lab::Ping::to(ip("10.77.0.2")) };
        assert_eq!(self.left.ping_with(&ping).expect("a ping").received, 1, "the tunnel works");
    }

    /// The cable is drawn anew through a host that forwards, by its devices `left` and `right`.
    #[track_caller]
    pub fn pull_through(&self, middle: &Host) {
        for (host, own, other) in [(&self.left, 1, "left"), (&self.right, 2, "right")] {
            link::veth(host, "eth1", middle, other).expect("a cable");
            host.add_address("eth1", &format!("203.0.113.{own}/32")).expect("an address");
            middle.add_address(other, &format!("198.51.100.{own}/32")).expect("an address");
        }
        middle.sysctl("ipv4.ip_forward", "1").expect("a sysctl");
        for (host, own, other) in [(&self.left, 1, 2), (&self.right, 2, 1)] {
            // From the address that the other end has a way to: the kernel would take that of the new cable.
            let way = format!("via 198.51.100.{own} dev eth1 onlink src 192.0.2.{own}");
            on(host, &format!("ip route add 192.0.2.{other}/32 {way}"));
        }
        middle.add_route("192.0.2.1/32", None, "left").expect("a route");
        middle.add_route("192.0.2.2/32", None, "right").expect("a route");
    }

    /// `vpnd trace` on the left end, with these arguments, and nobody on the other.
    pub fn trace(&self, arguments: &str) -> Traced {
        self.trace_with(arguments, &[])
    }

    /// The same while the right end watches for what `follow` means: both ends on one page.
    #[track_caller]
    pub fn trace_both(&self, arguments: &str, follow: &str) -> Traced {
        let watcher = Watcher::start(&self.right, &self.daemons[1], follow, "watch");
        self.trace_with(arguments, std::slice::from_ref(&watcher.file))
    }

    #[track_caller]
    pub fn trace_with(&self, arguments: &str, halves: &[PathBuf]) -> Traced {
        let mut command = self.left.command(VPND).expect("a command");
        command.arg("trace").args(arguments.split_whitespace()).arg("--json");
        command.arg("--run-dir").arg(self.daemons[0].run_dir());
        for half in halves {
            command.arg("--join").arg(half);
        }
        Traced::of(&command.output().expect("vpnd trace runs"))
    }
}

/// A `vpnd trace --follow` in the background; ended when dropped.
pub struct Watcher {
    process: Process,
    /// What it prints.
    pub file: PathBuf,
}

impl Watcher {
    /// Returns when it watches.
    #[track_caller]
    pub fn start(host: &Host, daemon: &Daemon, follow: &str, label: &str) -> Self {
        Self::with(host, daemon, follow, label, &[])
    }

    /// The same with more arguments.
    #[track_caller]
    pub fn with(host: &Host, daemon: &Daemon, follow: &str, label: &str, more: &[&str]) -> Self {
        let run_dir = daemon.run_dir().to_owned();
        Self::run(host, label, move |command| {
            command.args(["--follow", follow]).args(more).arg("--run-dir").arg(run_dir);
        })
    }

    /// On a host without a tunnel, for the carriers that it forwards.
    #[track_caller]
    pub fn between(host: &Host, label: &str, more: &[&str]) -> Self {
        Self::between_for(host, "udp port 51820", label, more)
    }

    /// The same for carriers that `follow` means.
    #[track_caller]
    pub fn between_for(host: &Host, follow: &str, label: &str, more: &[&str]) -> Self {
        Self::run(host, label, |command| {
            command.args(["--forwards", "--follow", follow]).args(more);
        })
    }

    #[track_caller]
    fn run(host: &Host, label: &str, arguments: impl FnOnce(&mut Command)) -> Self {
        let file = host.folder().join(format!("{label}.json"));
        let mut command = Command::new(VPND);
        command.args(["trace", "--json", "--seconds", "60"]);
        arguments(&mut command);
        command.stdout(File::create(&file).expect("a file"));
        let mut process = host.spawn(label, command).expect("vpnd trace starts");
        until("the other end watches", || {
            assert!(process.ended().is_none(), "it ended: {}", process.log());
            process.log().contains("watching")
        });
        Self { process, file }
    }

    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    pub fn kill9(&mut self) {
        self.process.kill9();
    }

    /// Asks it to end, and to print what it has.
    #[track_caller]
    pub fn stop(&mut self) {
        assert!(self.process.terminate(PATIENCE).is_some(), "it ends: {}", self.process.log());
    }

    /// Waits until it has ended of itself.
    #[track_caller]
    pub fn ended(&mut self) {
        assert!(self.process.wait(PATIENCE).is_some(), "it has seen enough: {}", self.process.log());
    }

    /// It ends by itself where it saw what it was to see; where the packet died early it is asked to.
    #[track_caller]
    pub fn ended_or_stopped(&mut self) {
        if self.process.wait(Duration::from_secs(2)).is_none() {
            self.stop();
        }
    }

    /// What it printed.
    #[track_caller]
    pub fn pages(&self) -> Vec<Page> {
        let text = std::fs::read_to_string(&self.file).expect("its file");
        let page = |line: &str| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        text.lines().map(page).collect()
    }

    pub fn said(&self) -> String {
        self.process.log()
    }
}

/// What a trace printed.
pub struct Traced {
    pub pages: Vec<Page>,
    pub said: String,
    pub code: Option<i32>,
}

impl Traced {
    pub fn read(pages: Vec<Page>, said: String) -> Self {
        Self { pages, said, code: None }
    }

    #[track_caller]
    fn of(output: &Output) -> Self {
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        let text = String::from_utf8_lossy(&output.stdout);
        let page = |line: &str| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        Self { pages: text.lines().map(page).collect(), said, code: output.status.code() }
    }

    /// The one page.
    #[track_caller]
    pub fn page(&self) -> &Page {
        assert_eq!(self.pages.len(), 1, "one packet: {}\n{}", self.said, self.as_text());
        &self.pages[0]
    }

    pub fn as_text(&self) -> String {
        self.pages.iter().map(|page| vpnd::trace::text::page(page, false)).collect()
    }

    /// The stations in order: `host walk place verdict`.
    pub fn way(&self) -> Vec<String> {
        self.page().stations.iter().map(|station| self.words(station)).collect()
    }

    /// The same of its answer.
    #[track_caller]
    pub fn way_back(&self) -> Vec<String> {
        let answer = self.page().answer.as_ref();
        let answer = answer.unwrap_or_else(|| panic!("no answer: {}\n{}", self.said, self.as_text()));
        answer.stations.iter().map(|station| self.words(station)).collect()
    }

    fn words(&self, station: &Station) -> String {
        let host = self.page().hosts[station.host].name.rsplit('-').next().unwrap_or_default();
        let walk = match station.walk {
            Walk::Inner => "inner",
            Walk::Program => "program",
            Walk::Outer => "outer",
        };
        let verdict = match station.verdict {
            Verdict::Passed => String::new(),
            other => format!(" {other:?}").to_lowercase(),
        };
        format!("{host} {walk} {}{verdict}", station.name())
    }

    #[track_caller]
    pub fn assert_way(&self, expected: &[&str]) {
        assert_eq!(self.way(), expected, "{}\n{}", self.as_text(), self.said);
    }

    /// The station with this name on that host, of that walk.
    #[track_caller]
    pub fn at(&self, host: &str, walk: Walk, place: Place) -> &Station {
        let page = self.page();
        let is_it = |station: &&Station| {
            page.hosts[station.host].name.ends_with(&format!("-{host}"))
                && (station.walk, station.place) == (walk, place)
        };
        page.stations.iter().find(is_it).unwrap_or_else(|| panic!("no {place:?}: {}", self.as_text()))
    }

    /// Where it died, and the sentence.
    #[track_caller]
    pub fn death(&self) -> (String, vpnd::trace::Killer, String) {
        match &self.page().outcome {
            Outcome::Died(death) => {
                (self.words(&self.page().stations[death.station]), death.by, death.why.clone())
            }
            other => panic!("it did not die: {other:?}\n{}\n{}", self.as_text(), self.said),
        }
    }
}

pub fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

/// Runs a program on a host; what it printed.
#[track_caller]
pub fn on(host: &Host, line: &str) -> String {
    let mut words = line.split_whitespace();
    let mut command = host.command(words.next().expect("a program")).expect("a command");
    let output = command.args(words).output().unwrap_or_else(|error| panic!("{line}: {error}"));
    assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Gives nft this text.
#[track_caller]
pub fn nft(host: &Host, text: &str) {
    let file = host.folder().join("rules.nft");
    std::fs::write(&file, text).expect("a file");
    on(host, &format!("nft -f {}", file.display()));
}

/// Waits for a condition.
#[track_caller]
pub fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < PATIENCE, "not within {PATIENCE:?}: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}
