//! Rows in which a process is taken away, or its time.

use std::{
    fs,
    path::PathBuf,
    process::Command,
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
    dice::Dice,
    payload::Recorder,
    report::Figure,
    world::{DEVICE, PORT, Pair, PeerText, Running, Spec, cable, sh, wait_until},
};

pub const VPND: &str = env!("CARGO_BIN_EXE_vpnd");

pub fn signal(host: &Host, name: &str, pid: u32) {
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
            bench.host.reaches(address).is_ok_and(|answered| answered)
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
