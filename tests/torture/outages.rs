//! Rows in which something is taken away: the process, its time, its device, its system calls, its disk.

use std::{
    fs,
    path::PathBuf,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use vpnd::{
    lab::{Daemon, Host, Process, Setup},
    noise::PrivateKey,
    sys::random::os_rng,
};

use crate::{
    Torment,
    common::flow::Flow,
    dice::Dice,
    payload::Recorder,
    report::Figure,
    world::{DEVICE, Node, PORT, Pair, PeerText, Running, Spec, attempt, cable, sh, wait_until},
};

const VPND: &str = env!("CARGO_BIN_EXE_vpnd");
const LONG: Duration = Duration::from_secs(10);

fn signal(host: &Host, name: &str, pid: u32) {
    // It may just have ended.
    sh(host, &format!("kill -{name} {pid} 2>/dev/null || true"));
}

/// A daemon that uses all there is, with a peer that answers, so that it rekeys.
struct Bench {
    host: Host,
    toml: String,
    /// The host before, and with the daemon.
    before: String,
    clean: String,
    _far: Running,
    _far_host: Host,
}

impl Bench {
    fn new(name: &str) -> Self {
        let (host, far_host) = cable(name, 1500);
        let keys = [(); 2].map(|()| PrivateKey::generate(&mut os_rng()));
        let file = |own: usize, more: &str, allowed_ips: &[&str]| {
            let peer = PeerText {
                key: keys[1 - own].public_key(),
                preshared: None,
                endpoint: Some((format!("192.0.2.{}", 2 - own).parse().expect("an address"), PORT)),
                allowed_ips: allowed_ips.iter().map(|prefix| (*prefix).to_owned()).collect(),
                keepalive: 1,
            };
            format!(
                "[interface]\nname = \"{DEVICE}\"\nprivate_key = \"{}\"\nlisten_port = {PORT}\n\
                 address = [\"10.77.0.{n}/24\", \"fd77::{n}/64\"]\n{more}\n{}",
                *keys[own].to_base64(),
                peer.toml(),
                n = own + 1
            )
        };
        let far = crate::world::start_vpnd(&far_host, &file(1, "", &["10.77.0.1/32", "fd77::1/128"]), &[]);
        let toml = file(0, "", &["0.0.0.0/0", "::/0", "10.99.0.0/16"]);
        let mut bench =
            Self { host, toml, before: String::new(), clean: String::new(), _far: far, _far_host: far_host };
        bench.before = bench.everything();
        let mut daemon = bench.start();
        bench.clean = bench.everything();
        daemon.stop().expect("it ends");
        bench
    }

    fn setup(&self) -> Setup {
        Setup {
            arguments: vec!["--rekey-after".to_owned(), "1".to_owned()],
            patience: Duration::from_secs(30),
            ..Setup::new(VPND, self.toml.clone())
        }
    }

    fn start(&self) -> Daemon {
        Daemon::start(&self.host, &self.setup())
            .unwrap_or_else(|error| panic!("vpnd does not start: {error}"))
    }

    /// The same file again, and not waited for.
    fn begin(&self) -> Process {
        let folder = self.host.folder();
        let mut command = Command::new(VPND);
        command.arg("--config").arg(folder.join("vpnd.toml")).arg("--run-dir").arg(folder.join("vpnd.run"));
        command.arg("--state-dir").arg(folder.join("vpnd.state"));
        self.host.spawn("vpnd", command).expect("it can be started")
    }

    /// All that a daemon could leave, without what changes from start to start: numbers of devices, and their counters.
    fn everything(&self) -> String {
        let run = self.host.folder().join("vpnd.run");
        sh(
            &self.host,
            &format!(
                "ip -o link | sed 's/^[0-9]*: //; s/@if[0-9]*//'; ip -o addr | sed 's/^[0-9]*: //'; \
                 ip route show table all | sort; ip -6 route show table all | grep -v fe80 | sort; ip rule; ip -6 rule; \
                 nft list ruleset; find {} -mindepth 2 2>/dev/null | sort || true",
                run.display()
            ),
        )
        .lines()
        .filter(|line| !line.contains("fe80::"))
        .collect::<Vec<_>>()
        .join("\n")
    }
}

/// `kill -9` at any moment of its life, and a start after it.
pub fn kills(torment: &Torment) -> Vec<Figure> {
    let bench = Bench::new("kills");
    let mut dice = Dice::Seed(torment.seed);
    let total = torment.count(500, 8);
    let (mut wrong, mut late, mut first) = (0, 0, String::new());
    for n in 0..total {
        let moment = Duration::from_micros(dice.below(60_000) as u64);
        match n % 4 {
            // While it starts.
            0 => {
                let mut process = bench.begin();
                thread::sleep(moment);
                process.kill9();
            }
            phase => {
                let mut daemon = bench.start();
                match phase {
                    // While it reads its file again.
                    1 => {
                        let more = "[[peer]]\npublic_key = \"AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=\"\n\
                                    allowed_ips = [\"10.98.0.0/16\"]\n";
                        fs::write(daemon.config(), format!("{}{more}", bench.toml)).expect("its file");
                        signal(&bench.host, "HUP", daemon.pid());
                        thread::sleep(moment);
                    }
                    // While it stops.
                    2 => {
                        signal(&bench.host, "TERM", daemon.pid());
                        thread::sleep(moment / 4);
                    }
                    // While it rekeys: each second.
                    _ => thread::sleep(Duration::from_millis(900) + 4 * moment),
                }
                daemon.kill9();
            }
        }
        let begin = Instant::now();
        let mut daemon = bench.start();
        late += u64::from(begin.elapsed() > Duration::from_secs(5));
        let settled = wait_until(Duration::from_secs(2), || bench.everything() == bench.clean);
        if !settled {
            wrong += 1;
            if first.is_empty() {
                first = difference(&bench.clean, &bench.everything());
            }
        }
        daemon.stop().expect("it ends");
    }
    let settled = wait_until(Duration::from_secs(3), || bench.everything() == bench.before);
    vec![
        Figure::hard(
            format!("{total} kills: the host as after a clean start, nothing doubled"),
            format!("{total}"),
            total - wrong,
            wrong == 0,
        )
        .note(first),
        Figure::speed("starts after a kill that took more than 5 s", "0", late, late == 0),
        Figure::hard("and after the last stop as before the first start", "yes", settled, settled),
    ]
}

/// The first line that one has and the other has not.
fn difference(one: &str, other: &str) -> String {
    let lacks = |a: &str, b: &str| a.lines().find(|line| !b.contains(line)).map(str::to_owned);
    format!("gone: {:?}, new: {:?}", lacks(one, other), lacks(other, one))
}

/// Stopped for a while, as a laptop that sleeps: traffic again soon, and nothing under an old key.
pub fn stops(torment: &Torment) -> Vec<Figure> {
    let seconds: &[u64] = if torment.is_full() { &[30, 130, 200] } else { &[3] };
    seconds
        .iter()
        .flat_map(|&seconds| {
            let pair = Pair::start(&format!("stop{seconds}"), &Spec::default());
            pair.left.ping(pair.right.inner4, 1);
            let old = {
                let recorder = Recorder::start(&pair.left.host, "eth0");
                pair.left.ping(pair.right.inner4, 1);
                crate::payload::live_index(&recorder.finish(), pair.right.outer)
            };
            signal(&pair.left.host, "STOP", pair.left.pid());
            thread::sleep(Duration::from_secs(seconds));
            let recorder = Recorder::start(&pair.left.host, "eth0");
            signal(&pair.left.host, "CONT", pair.left.pid());
            let begin = Instant::now();
            let again = wait_until(Duration::from_secs(20), || pair.left.reaches(pair.right.inner4));
            let took = begin.elapsed();
            let under_old = recorder.finish().iter().any(|one| {
                one.to.ip() == pair.right.outer
                    && one.bytes.first() == Some(&4)
                    && one.bytes[4..8] == old.to_le_bytes()
            });
            let expired = seconds >= 180;
            [
                Figure::hard(
                    format!("traffic after SIGSTOP for {seconds} s"),
                    "≤ 6 s",
                    format!("{:.1} s", took.as_secs_f64()),
                    again && took <= Duration::from_secs(6),
                ),
                Figure::hard(
                    format!("sent under the key of before, after {seconds} s"),
                    if expired { "nothing" } else { "while it is younger than 180 s" },
                    if under_old { "yes" } else { "nothing" },
                    !expired || !under_old,
                ),
            ]
        })
        .collect()
}

/// Other clocks at the next start: boot time by a time namespace, wall time by injection.
pub fn clocks(torment: &Torment) -> Vec<Figure> {
    let mut figures = Vec::new();
    let offsets: &[i64] = if torment.is_full() { &[10_000_000, -1, -600] } else { &[10_000_000] };
    for &boot in offsets {
        // The namespace is for children; whoever ends the parent ends them.
        let before = format!("unshare --time --boottime {boot} --fork --kill-child");
        let pair = Pair::start("clock", &Spec { before, ..Spec::default() });
        let begin = Instant::now();
        let up = wait_until(Duration::from_secs(20), || pair.left.reaches(pair.right.inner4));
        figures.push(Figure::hard(
            format!("boot time {boot:+} s: traffic"),
            "≤ 6 s",
            format!("{:.1} s", begin.elapsed().as_secs_f64()),
            up && begin.elapsed() <= Duration::from_secs(6),
        ));
    }
    // One far end, which remembers, and a near one that starts with other wall clocks.
    let bench = Bench::new("wall");
    let mut newest = [0; 8];
    let mut lower = 0;
    for ahead in [0_i64, 86_400, 0, -86_400, 3600, -1] {
        let mut setup = bench.setup();
        setup.arguments.extend(["--wall-clock-ahead".to_owned(), ahead.to_string()]);
        let begin = Instant::now();
        let mut daemon = Daemon::start(&bench.host, &setup).unwrap_or_else(|error| panic!("{error}"));
        let address = "10.77.0.2".parse().expect("an address");
        let up = wait_until(Duration::from_secs(20), || {
            bench.host.ping(address, 1).is_ok_and(|pings| pings.received == 1)
        });
        figures.push(Figure::hard(
            format!("started with a wall clock {ahead:+} s: traffic"),
            "≤ 6 s",
            format!("{:.1} s", begin.elapsed().as_secs_f64()),
            up && begin.elapsed() <= Duration::from_secs(6),
        ));
        daemon.stop().expect("it ends");
        let record = timestamp(&bench);
        lower += u64::from(record < newest);
        newest = newest.max(record);
    }
    figures.push(Figure::hard("timestamps lower than one before", "0", lower, lower == 0));
    figures
}

/// The newest timestamp that is kept, as it is compared: its first eight bytes.
fn timestamp(bench: &Bench) -> [u8; 8] {
    let folder = fs::read_dir(bench.host.folder().join("vpnd.state")).expect("the state directory");
    let names = |path: &PathBuf| path.to_string_lossy().contains("timestamp-");
    let path = folder.flatten().map(|entry| entry.path()).find(names).expect("a record");
    let text = fs::read_to_string(path).expect("it can be read");
    let hex = text.lines().find_map(|line| line.strip_prefix("newest = ")).expect("TAI64N in hex");
    std::array::from_fn(|n| u8::from_str_radix(&hex[2 * n..2 * n + 2], 16).expect("hex"))
}

/// What others do to its device while it carries a load.
pub fn flaps(torment: &Torment) -> Vec<Figure> {
    let times = torment.count(50, 2);
    let pair = Pair::start("flaps", &Spec::default());
    pair.left.ping(pair.right.inner4, 1);
    let load =
        Flow::trains(&pair.left.host, &pair.right.host, pair.right.inner6, Duration::from_millis(2), 1000, 8);
    let flapped = |name: &str, times: u64, act: &str| {
        let (mut slowest, mut back) = (Duration::ZERO, 0);
        for _ in 0..times {
            sh(&pair.left.host, act);
            let begin = Instant::now();
            let up = wait_until(Duration::from_secs(10), || {
                pair.left.reaches(pair.right.inner4) && pair.left.reaches(pair.right.inner6)
            });
            back += u64::from(up);
            slowest = slowest.max(begin.elapsed());
        }
        [
            Figure::hard(
                format!("{name}, {times} × under load: traffic in both families again"),
                times,
                back,
                back == times,
            ),
            Figure::speed(
                format!("{name}: the slowest"),
                "≤ 1 s",
                format!("{} ms", slowest.as_millis()),
                slowest <= Duration::from_secs(1),
            ),
        ]
    };
    let mut figures = Vec::new();
    figures.extend(flapped("the tunnel down and up", times, "ip link set vpn0 down; ip link set vpn0 up"));
    let outer =
        "ip link set eth0 down; ip link set eth0 up; ip -6 addr add 2001:db8::1/64 dev eth0 nodad || true";
    figures.extend(flapped("the cable down and up", times, outer));
    // More than five in a row are a fight between two programs, in which vpnd slows down on purpose.
    figures.extend(flapped("addresses flushed", times.min(4), "ip addr flush dev vpn0"));
    drop(load.finish());
    figures.push(taken_away(torment.count(25, 1), "ip link delete vpn0", "device deleted"));
    let theft = "ip netns add vpnd-thief; ip link set vpn0 netns vpnd-thief; ip netns del vpnd-thief";
    figures.push(taken_away(torment.count(25, 1), theft, "device in a namespace that is deleted"));
    figures
}

fn taken_away(times: u64, theft: &str, name: &str) -> Figure {
    let (mut ended, mut slowest) = (0, Duration::ZERO);
    for _ in 0..times {
        let mut node = Node::alone("robbed", "", "");
        sh(&node.host, theft);
        let begin = Instant::now();
        let status = node.vpnd().wait(LONG);
        slowest = slowest.max(begin.elapsed());
        ended +=
            u64::from(status.is_some_and(|status| status.code() == Some(1)) && node.log().contains(DEVICE));
    }
    Figure::hard(
        format!("{name}, {times} ×: it ends, and says which"),
        format!("{times}, ≤ 1 s"),
        format!("{ended}, {} ms the slowest", slowest.as_millis()),
        ended == times && slowest <= Duration::from_secs(3),
    )
}

/// A system call, the errors that it may give, and whether the data path cannot be without it.
const CALLS: &[(&str, &[&str])] = &[
    ("sendmsg", &["EIO", "EINVAL", "EMSGSIZE", "ENOBUFS", "EPERM", "ENETUNREACH", "EINTR", "EAGAIN"]),
    ("recvmsg", &["EIO", "EINVAL", "ENOBUFS", "EINTR", "EAGAIN"]),
    ("read", &["EIO", "EINVAL", "ENOBUFS", "EINTR", "EAGAIN"]),
    ("write", &["EIO", "EINVAL", "ENOBUFS", "EINTR", "EAGAIN"]),
    ("writev", &["EIO", "EINTR", "EAGAIN"]),
    ("poll", &["EINTR", "EINVAL"]),
    ("ppoll", &["EINTR", "EINVAL"]),
    ("epoll_wait", &["EINTR"]),
    ("timerfd_settime", &["EINVAL"]),
    ("accept4", &["EINTR", "EMFILE", "ENOBUFS"]),
];

/// System calls that fail by strace's hand: one in a hundred, and all of them, for some seconds.
pub fn faults(torment: &Torment) -> Vec<Figure> {
    let time = if torment.is_full() { Duration::from_secs(5) } else { Duration::from_millis(700) };
    let mut figures = Vec::new();
    for (number, &(call, errors)) in CALLS.iter().enumerate() {
        let errors = if torment.is_full() { errors } else { &errors[..1] };
        if !torment.is_full() && number > 1 {
            continue;
        }
        let pair = Pair::start(&format!("fault{number}"), &Spec::default());
        pair.left.ping(pair.right.inner4, 1);
        for &error in errors {
            for (often, when) in [("1 %", "100+100"), ("100 %", "1+")] {
                figures.push(injected(&pair, call, error, often, when, time));
            }
        }
    }
    figures
}

fn injected(pair: &Pair, call: &str, error: &str, often: &str, when: &str, time: Duration) -> Figure {
    let what = format!("{call} gives {error}, {often} for {:.1} s", time.as_secs_f64());
    let mut strace = Command::new("strace");
    strace.args(["-f", "-q", "-o", "/dev/null", "-e", &format!("trace={call}")]);
    strace.args(["-e", &format!("inject={call}:error={error}:when={when}")]);
    strace.args(["-p", &pair.left.pid().to_string()]).stdout(Stdio::null());
    let flow =
        Flow::trains(&pair.left.host, &pair.right.host, pair.right.inner4, Duration::from_millis(5), 600, 4);
    let pid = pair.left.pid();
    let lines = || pair.left.log().lines().filter(|line| !line.contains(" DEBUG ")).count();
    let mut process = pair.left.host.spawn("strace", strace).expect("strace starts");
    let attached = wait_until(Duration::from_secs(5), || traced(pid));
    let (before, used) = (lines(), cpu_seconds(pid));
    thread::sleep(time);
    let (told, used) =
        (lines() - before, cpu_seconds(pid).zip(used).map_or(0.0, |(after, before)| after - before));
    process.terminate(Duration::from_secs(5));
    let begin = Instant::now();
    let alive = cpu_seconds(pid).is_some();
    let back = alive && wait_until(Duration::from_secs(8), || pair.left.reaches(pair.right.inner4));
    let took = begin.elapsed();
    drop(flow.finish());
    let most = 10.0 * time.as_secs_f64().max(1.0);
    Figure::hard(
        what,
        "lives, no spin, back ≤ 1 s, ≤ 10 lines/s",
        format!(
            "{}, {:.0} % of a core, back in {:.1} s, {told} lines",
            if alive { "lives" } else { "ended" },
            used / time.as_secs_f64() * 100.0,
            took.as_secs_f64()
        ),
        // strace itself makes each call some fifty times as slow: a loop that spins is at 100 % then.
        attached
            && back
            && used < 0.9 * time.as_secs_f64().max(1.0)
            && took <= Duration::from_secs(3)
            && told as f64 <= most,
    )
}

fn traced(pid: u32) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    status.lines().any(|line| line.strip_prefix("TracerPid:").is_some_and(|pid| pid.trim() != "0"))
}

/// User and system time; none: it has ended.
fn cpu_seconds(pid: u32) -> Option<f64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let fields: Vec<&str> = stat.rsplit(')').next()?.split_whitespace().collect();
    let ticks = |n: usize| fields.get(n)?.parse::<f64>().ok();
    (fields.first() != Some(&"Z")).then_some((ticks(11)? + ticks(12)?) / 100.0)
}

/// A disk that is full, or read-only, or whose writer dies in the middle.
pub fn disk(torment: &Torment) -> Vec<Figure> {
    let host = Host::create("vpnd-disk").expect("a namespace");
    let disk = host.folder().join("disk");
    fs::create_dir_all(&disk).expect("a folder");
    let mut mount = Command::new("mount");
    mount.args(["-t", "tmpfs", "-o", "size=96k", "none"]).arg(&disk);
    assert!(mount.status().expect("mount is there").success(), "a small disk");
    let figures = std::panic::catch_unwind(|| on_disk(torment, &host, &disk));
    let _ = Command::new("umount").arg(&disk).status();
    figures.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

fn on_disk(torment: &Torment, host: &Host, disk: &std::path::Path) -> Vec<Figure> {
    let key = PrivateKey::generate(&mut os_rng());
    let file = disk.join("peer.toml");
    let toml = format!(
        "[interface]\nname = \"{DEVICE}\"\nprivate_key = \"{}\"\nlisten_port = {PORT}\naddress = [\"10.77.0.1/24\"]\n\
         public_endpoint = \"192.0.2.1:{PORT}\"\nclient_allowed_ips = [\"10.77.0.0/24\"]\n",
        *key.to_base64()
    );
    fs::write(&file, &toml).expect("room for it");
    sh(host, &format!("chmod 600 {}", file.display()));
    let run = host.folder().join("run");
    let mut command = Command::new(VPND);
    command.arg("--config").arg(&file).arg("--run-dir").arg(&run).arg("--state-dir").arg(disk.join("state"));
    let mut daemon = host.spawn("vpnd", command).expect("it starts");
    let socket = run.join("vpnd").join(format!("{DEVICE}.sock"));
    assert!(wait_until(LONG, || vpnd::lab::is_listening(&socket)), "{}", daemon.log());
    let add = |name: &str| {
        let mut command = Command::new(VPND);
        command.args(["add-peer", name, "--config"]).arg(&file);
        command
    };
    let whole = || {
        let mut check = Command::new(VPND);
        check.arg("check").arg(&file);
        attempt(host, &check).status.success()
    };
    let mut figures = Vec::new();
    let fine = attempt(host, &add("before"));
    figures.push(
        Figure::hard(
            "a peer is added while there is room",
            "yes",
            fine.status.success(),
            fine.status.success(),
        )
        .note(String::from_utf8_lossy(&fine.stderr).lines().next().unwrap_or_default().to_owned()),
    );
    let before = fs::read(&file).expect("it is there");
    let _as_much_as_fits = Command::new("dd")
        .args(["if=/dev/zero", "bs=1k", "count=200"])
        .arg(format!("of={}", disk.join("filler").display()))
        .stderr(Stdio::null())
        .status();
    let full = attempt(host, &add("full"));
    let same = fs::read(&file).is_ok_and(|now| now == before);
    figures.push(Figure::hard(
        "disk full: the change is refused, the old file is there",
        "yes, yes",
        format!("{}, {}", !full.status.success(), same),
        !full.status.success() && same && whole(),
    ));
    signal(host, "HUP", daemon.pid());
    thread::sleep(Duration::from_millis(300));
    figures.push(Figure::hard(
        "disk full: the tunnel runs on",
        "yes",
        daemon.ended().is_none(),
        daemon.ended().is_none(),
    ));
    fs::remove_file(disk.join("filler")).expect("there is one");
    let remount = |how: &str| {
        let status = Command::new("mount").args(["-o", &format!("remount,{how}")]).arg(disk).status();
        assert!(status.expect("mount is there").success(), "remount {how}");
    };
    remount("ro");
    let refused = attempt(host, &add("readonly"));
    let same = fs::read(&file).is_ok_and(|now| now == before);
    figures.push(Figure::hard(
        "read-only: the change is refused, the old file is there, the tunnel runs on",
        "yes, yes, yes",
        format!("{}, {same}, {}", !refused.status.success(), daemon.ended().is_none()),
        !refused.status.success() && same && daemon.ended().is_none(),
    ));
    remount("rw");
    let mut dice = Dice::Seed(torment.seed);
    let (times, mut torn) = (torment.count(200, 5), 0);
    for n in 0..times {
        let mut writer = host.spawn("add", add(&format!("peer{n}"))).expect("it starts");
        thread::sleep(Duration::from_micros(dice.below(30_000) as u64));
        writer.kill9();
        torn += u64::from(!whole());
        fs::write(&file, &before).expect("room for it"); // so that the disk does not fill
        for entry in fs::read_dir(disk).expect("a folder").flatten() {
            if entry.path() != file && entry.path().is_file() {
                fs::remove_file(entry.path()).expect("a left-over");
            }
        }
    }
    figures.push(Figure::hard(
        format!("{times} writers killed in the middle: old file or new file, never none"),
        "0 torn",
        format!("{torn} torn"),
        torn == 0,
    ));
    let ended = daemon.terminate(LONG).is_some_and(|status| status.success());
    figures.push(Figure::hard("and the daemon ends as it should", "yes", ended, ended));
    figures
}
