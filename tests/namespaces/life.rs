//! The life of the daemon: ready, ended, killed, robbed of its device, or refused because another one is there.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::PathBuf,
    process::{Command, ExitStatus},
    time::{Duration, Instant},
};

use vpnd::{
    lab::{Daemon, Host, Process, Setup, link},
    noise::PrivateKey,
    sys::random::os_rng,
};

use crate::{
    common::{need_root, program},
    world::{DEVICE, Pair, Running, Spec, as_in_matrix, sh, wait_until},
};

const VPND: &str = env!("CARGO_BIN_EXE_vpnd");
/// Nothing here takes a tenth of that on an idle machine.
const LONG: Duration = Duration::from_secs(10);
/// A second, and what a busy machine adds.
const SOON: Duration = Duration::from_secs(3);
/// The kernel counts processor time in hundredths of a second.
const TICKS: u64 = 100;

/// A host by itself, and the file of a daemon on it that uses all there is: both families, a default route.
struct Bench {
    host: Host,
    before: String,
}

impl Bench {
    fn new(name: &str) -> Self {
        let host = Host::create(&format!("vpnd-{name}")).expect("a namespace");
        let before = everything(&host);
        Self { host, before }
    }

    fn setup(&self) -> Setup {
        Setup::new(
            program::daemon(),
            as_in_matrix(&file(DEVICE, 51820, &["0.0.0.0/0", "::/0", "10.99.0.0/16"])),
        )
    }

    fn start(&self) -> Daemon {
        Daemon::start(&self.host, &self.setup())
            .unwrap_or_else(|error| panic!("vpnd does not start: {error}"))
    }

    /// The same file again, and not waited for.
    fn begin(&self, label: &str) -> Process {
        let config = self.host.folder().join("vpnd.toml");
        let mut command = Command::new(program::daemon());
        command.arg("--config").arg(config).arg("--run-dir").arg(self.run_dir());
        command.arg("--state-dir").arg(self.host.folder().join("vpnd.state"));
        self.host.spawn(label, command).expect("it can be started")
    }

    fn run_dir(&self) -> PathBuf {
        self.host.folder().join("vpnd.run")
    }

    /// Devices, addresses, routes, rules and socket files are as they were before.
    #[track_caller]
    fn nothing_is_left(&self, log: &str) {
        // The kernel takes a device down in its own time once its process is gone.
        let settled = wait_until(SOON, || everything(&self.host) == self.before);
        assert!(settled, "left behind:\n{}\nbefore:\n{}\nlog:\n{log}", everything(&self.host), self.before);
        assert_eq!(sh(&self.host, &format!("find {} -mindepth 2", self.run_dir().display())), "", "{log}");
    }
}

fn file(name: &str, port: u16, allowed_ips: &[&str]) -> String {
    let [own, other] = [(); 2].map(|()| PrivateKey::generate(&mut os_rng()));
    format!(
        "[interface]\nname = \"{name}\"\nprivate_key = \"{}\"\nlisten_port = {port}\n\
         address = [\"10.77.0.1/24\", \"fd77::1/64\"]\n\
         [[peer]]\npublic_key = \"{}\"\nendpoint = \"192.0.2.2:51820\"\nallowed_ips = {allowed_ips:?}\n",
        *own.to_base64(),
        other.public_key(),
    )
}

/// All that a daemon could leave on a host.
fn everything(host: &Host) -> String {
    sh(
        host,
        "ip -o link; ip -o addr; ip route show table all; ip -6 route show table all; ip rule; ip -6 rule; \
         nft list ruleset",
    )
}

fn rules(host: &Host) -> usize {
    let text = sh(host, "ip -4 rule show; ip -6 rule show");
    text.lines().filter(|line| line.contains("proto 118")).count()
}

fn send_signal(host: &Host, signal: &str, pid: u32) {
    // It may just have ended.
    sh(host, &format!("kill -{signal} {pid} 2>/dev/null || true"));
}

fn code(status: ExitStatus) -> Option<i32> {
    status.code()
}

#[test]
fn ready_is_said_when_the_device_is_up_and_every_route_is_there() {
    if !need_root() {
        return;
    }
    let bench = Bench::new("ready");
    let prefixes: Vec<_> = (0..10_000).map(|i| format!("10.{}.{}.4/30", 100 + i / 256, i % 256)).collect();
    let prefixes: Vec<_> = prefixes.iter().map(String::as_str).chain(["::/0"]).collect();
    let setup = Setup { config: file(DEVICE, 51820, &prefixes), ..bench.setup() };
    let daemon = Daemon::start(&bench.host, &setup).expect("it starts");
    let seen = sh(
        &bench.host,
        "ip -6 rule | grep -c 'proto 118'; ip route | grep -c 'dev vpn0 proto 118'; ip -o link show vpn0",
    );
    let mut seen = seen.lines();
    assert_eq!((seen.next(), seen.next()), (Some("2"), Some("10000")));
    assert!(seen.next().is_some_and(|link| link.contains(",UP")));
    drop(daemon);
}

#[test]
fn a_signal_ends_the_daemon_and_nothing_is_left() {
    if !need_root() {
        return;
    }
    let bench = Bench::new("signal");
    for signal in ["TERM", "INT"] {
        let mut daemon = bench.start();
        assert_eq!(rules(&bench.host), 4);
        send_signal(&bench.host, signal, daemon.pid());
        let status = daemon.wait(LONG).unwrap_or_else(|| panic!("{signal}: still there: {}", daemon.log()));
        assert_eq!(code(status), Some(0), "{signal}: {}", daemon.log());
        bench.nothing_is_left(&daemon.log());
    }
}

/// The moments of a start, `count` of them, the last one when it is ready.
#[expect(clippy::disallowed_methods, reason = "a test stands outside the daemon")]
fn moments(bench: &Bench, count: u32) -> impl Iterator<Item = Duration> {
    let begin = Instant::now();
    let daemon = bench.start();
    let all = begin.elapsed();
    drop(daemon);
    (0..count).map(move |number| all * number / count)
}

#[test]
fn a_signal_at_any_moment_of_the_start_leaves_nothing() {
    if !need_root() {
        return;
    }
    let bench = Bench::new("early");
    for moment in moments(&bench, 16) {
        let mut process = bench.begin("vpnd");
        std::thread::sleep(moment);
        // Not SIGINT: what a shell runs in the background ignores it until our own handler stands.
        send_signal(&bench.host, "TERM", process.pid());
        let ended = process.wait(LONG);
        assert!(ended.is_some(), "{moment:?}: still there: {}", process.log());
        bench.nothing_is_left(&format!("{moment:?}: {}", process.log()));
    }
}

#[test]
fn a_start_after_a_kill_at_any_moment_cleans_up_and_doubles_nothing() {
    if !need_root() {
        return;
    }
    let bench = Bench::new("kill");
    for moment in moments(&bench, 20) {
        let mut process = bench.begin("vpnd");
        std::thread::sleep(moment);
        process.kill9();
    }
    let mut killed = bench.start();
    assert_eq!(rules(&bench.host), 4, "{}", killed.log());
    killed.kill9();
    assert_eq!(
        rules(&bench.host),
        4,
        "rules outlive a daemon that was killed: so there is something to clean"
    );

    let mut daemon = bench.start();
    assert_eq!(rules(&bench.host), 4, "{}", daemon.log());
    let log = daemon.log();
    assert_eq!(log.matches("removed what a killed daemon left behind").count(), 4, "{log}");
    let files = sh(&bench.host, &format!("cd {}; find . -mindepth 2 | sort", bench.run_dir().display()));
    assert_eq!(files, "./vpnd/vpn0.sock\n./wireguard/vpn0.sock\n");
    assert_eq!(daemon.status(DEVICE).expect("it answers")["interface"], DEVICE);
    let status = daemon.stop().expect("it ends");
    assert_eq!(code(status), Some(0), "{}", daemon.log());
    bench.nothing_is_left(&daemon.log());
}

/// Processor time of a process that has not been waited for, in seconds, and whether it has ended.
fn processor(pid: u32) -> (f64, bool) {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).expect("nobody waited for it yet");
    let fields: Vec<_> = text[text.rfind(')').expect("behind the name") + 2..].split(' ').collect();
    let ticks: u64 = fields[11..13].iter().map(|n| n.parse::<u64>().expect("a number")).sum();
    (ticks as f64 / TICKS as f64, fields[0] == "Z")
}

#[test]
fn a_device_that_is_taken_away_ends_the_daemon_within_a_second_and_it_says_which() {
    if !need_root() {
        return;
    }
    let bench = Bench::new("robbed");
    let thieves = [
        ("ip link delete vpn0", "deleted"),
        (
            "ip netns add vpnd-robbed-thief; ip link set vpn0 netns vpnd-robbed-thief; ip netns del vpnd-robbed-thief",
            "deleted",
        ),
    ];
    for (theft, what) in thieves {
        let mut daemon = bench.start();
        let pid = daemon.pid();
        let (before, _) = processor(pid);
        sh(&bench.host, theft);
        let ended = wait_until(SOON, || processor(pid).1);
        assert!(ended, "{theft}: still there: {}", daemon.log());
        let used = processor(pid).0 - before;
        assert!(used < 0.3, "{theft}: {used} s of processor time");
        let status = daemon.wait(LONG).expect("it ended");
        let log = daemon.log();
        let error = log.lines().last().unwrap_or_default();
        assert_eq!(code(status), Some(1), "{theft}: {log}");
        assert!(error.starts_with("vpnd: ") && error.contains(DEVICE), "{theft}: {log}");
        assert!(error.contains(what) || error.contains("is gone"), "{theft}: {log}");
        bench.nothing_is_left(&log);
    }
}

/// Starts what cannot start; what it says.
#[track_caller]
fn refusal(host: &Host, label: &str, config: String) -> String {
    let setup = Setup { label: label.to_owned(), ..Setup::new(program::daemon(), config) };
    refusal_of(host, &setup)
}

#[track_caller]
fn refusal_of(host: &Host, setup: &Setup) -> String {
    let error = Daemon::start(host, setup).expect_err("it is refused").to_string();
    assert!(error.contains("exit status: 1)"), "{error}");
    error
}

#[test]
fn a_second_daemon_is_told_who_has_its_name_or_its_port_and_the_first_goes_on() {
    if !need_root() {
        return;
    }
    let bench = Bench::new("second");
    let first = bench.start();
    let pid = first.pid();

    // Everything the same, but for the place of its log.
    let mut again = bench.begin("again");
    let status = again.wait(LONG).unwrap_or_else(|| panic!("it goes on: {}", again.log()));
    let said = again.log();
    assert_eq!(code(status), Some(1), "{said}");
    assert!(said.contains(&format!("another vpnd (pid {pid}) already runs interface {DEVICE}")), "{said}");

    let said = refusal(&bench.host, "elsewhere", file(DEVICE, 51821, &["10.1.0.0/16"]));
    assert!(said.contains(&format!("cannot make interface {DEVICE}")), "{said}");
    // A user does not see who holds what, not even of his own.
    let seen = |held: &str, unseen: &str| {
        if program::user().is_none() { held.to_owned() } else { unseen.to_owned() }
    };
    let holder = seen(&format!("process {pid}, vpnd"), "no process seen from here holds");
    assert!(said.contains(&holder), "{said}");

    let said = refusal(&bench.host, "port", file("vpn1", 51820, &["10.1.0.0/16"]));
    let holder =
        seen(&format!("process {pid} (vpnd)"), "is in use, but by no process that can be seen from here");
    assert!(said.contains("UDP port 51820") && said.contains(&holder), "{said}");
    assert!(said.contains("listen_port"), "{said}");

    assert_eq!(first.status(DEVICE).expect("it answers")["interface"], DEVICE);
    assert_eq!(rules(&bench.host), 4);
    let devices = sh(&bench.host, "ip -o link");
    assert_eq!(devices.lines().count(), 2, "lo and the first one's: {devices}");
}

#[test]
fn a_foreign_interface_of_that_name_is_left_alone() {
    if !need_root() {
        return;
    }
    let bench = Bench::new("foreign");
    link::bridge(&bench.host, DEVICE).expect("a bridge");
    let said = refusal_of(&bench.host, &bench.setup());
    assert!(said.contains(&format!("interface {DEVICE} exists already (a device of kind bridge)")), "{said}");
    link::delete(&bench.host, DEVICE).expect("it is still there");
    bench.nothing_is_left(&said);
}

/// Scenarios 40, 41 and 42. A device that leaves the daemon's namespace is lost to it, wherever it goes.
#[test]
fn namespaces_go_while_devices_and_sockets_live_in_each_other_and_everything_is_destroyed() {
    if !need_root() {
        return;
    }
    let mut pair = Pair::start("namespaces", &Spec::default());
    for host in [&pair.left.host, &pair.right.host] {
        let output = Command::new("ip").args(["netns", "delete", host.name()]).output().expect("iproute2");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    pair.left.ping(pair.right.inner4, 3); // the processes hold what has lost its name

    let right = pair.right.vpnd().pid().to_string();
    let mut command = pair.left.host.command("ip").expect("the namespace is open");
    command.args(["link", "set", DEVICE, "netns", &right, "name", "guest"]);
    assert!(command.status().expect("iproute2").success());
    let log = pair.left.log();
    let status = pair.left.vpnd().wait(SOON).unwrap_or_else(|| panic!("it goes on: {log}"));
    assert_eq!(code(status), Some(1), "{}", pair.left.log());
    let gone = wait_until(SOON, || link::index(&pair.right.host, "guest").is_err());
    assert!(gone, "a device without its process");

    let status = pair.right.vpnd().stop().expect("it ends");
    assert_eq!(code(status), Some(0), "{}", pair.right.log());
    for node in [&pair.left, &pair.right] {
        let gone = wait_until(SOON, || link::index(&node.host, DEVICE).is_err());
        assert!(gone, "{DEVICE} outlives its process");
        assert!(matches!(node.running, Running::Vpnd(_)));
    }
}

#[test]
fn a_wrong_file_ends_with_78_and_an_unreadable_one_with_1_and_each_is_named() {
    let folder = std::env::temp_dir().join(format!("vpnd-life-{}", std::process::id()));
    fs::create_dir_all(&folder).expect("a folder");
    let run = |config: &str| {
        let output = Command::new(VPND).args(["--config", config]).output().expect("it can be started");
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let path = folder.join("wrong.toml");
    let text = file("vpn0", 1, &["10.0.0.0/8"]).replace("listen_port = 1", "listen_prot = 1\nmtu = 70000");
    fs::write(&path, text).expect("a file");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("a mode");
    let (code, said) = run(path.to_str().expect("text"));
    assert_eq!(code, Some(78), "{said}");
    for found in [
        format!("{}:4: interface.listen_prot", path.display()),
        "listen_port".to_owned(),
        format!("{}:5: interface.mtu: found the number 70000", path.display()),
    ] {
        assert!(said.contains(&found), "{found:?} is not in:\n{said}");
    }
    for unreadable in [folder.join("missing.toml"), folder.clone()] {
        let (code, said) = run(unreadable.to_str().expect("text"));
        assert_eq!(code, Some(1), "{said}");
        assert!(said.contains(&format!("cannot read {}", unreadable.display())), "{said}");
    }
    fs::remove_dir_all(&folder).expect("it is removed");
}
