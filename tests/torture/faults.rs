//! System calls that fail by strace's hand, while the sandbox is closed.

use std::{
    fs,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use crate::{
    Torment,
    goodput::Stream,
    report::Figure,
    world::{DEVICE, Pair, Spec, wait_until},
};

/// What each call is made to say. `SHORT`: it has done one byte of it.
const ERRORS: &[&str] =
    &["EIO", "EINVAL", "EMSGSIZE", "ENOBUFS", "EPERM", "ENETUNREACH", "EINTR", "EAGAIN", SHORT];
const SHORT: &str = "short";

/// System calls that a tunnel under load makes again and again: the data path's, then the control path's.
const CALLS: &[&str] = &[
    "sendmsg",
    "recvmsg,recvmmsg",
    "read",
    "write",
    "ppoll",
    "epoll_wait",
    "epoll_ctl",
    "timerfd_settime",
    "accept4",
    "sendto",
    "recvfrom",
];

/// System calls that fail by strace's hand: one in a hundred, and all of them, for some seconds. The sandbox is closed.
pub fn faults(torment: &Torment) -> Vec<Figure> {
    let time = if torment.is_full() { Duration::from_secs(5) } else { Duration::from_millis(700) };
    let calls = if torment.is_full() { CALLS } else { &CALLS[..2] };
    let errors = if torment.is_full() { ERRORS } else { &ERRORS[..1] };
    let mut figures = Vec::new();
    for (number, call) in calls.iter().enumerate() {
        let start = || {
            let pair = Pair::start(&format!("fault{number}"), &Spec::default());
            pair.left.ping(pair.right.inner4, 1);
            pair
        };
        let mut pair = start();
        for error in errors.iter().filter(|&&error| error != SHORT || moves_bytes(call)) {
            for (often, when) in [("1 %", "100+100"), ("100 %", "1+")] {
                figures.push(Fault { call, error, often, when, time }.on(&pair));
                // The next fault is not to be blamed for this one.
                if !pair.left.reaches(pair.right.inner4) {
                    drop(pair);
                    pair = start();
                }
            }
        }
    }
    figures
}

fn moves_bytes(call: &str) -> bool {
    ["sendmsg", "recvmsg,recvmmsg", "read", "write", "sendto", "recvfrom"].contains(&call)
}

struct Fault<'a> {
    call: &'a str,
    error: &'a str,
    often: &'a str,
    /// The same as strace says it.
    when: &'a str,
    time: Duration,
}

impl Fault<'_> {
    fn on(&self, pair: &Pair) -> Figure {
        let Self { call, error, often, time, .. } = self;
        let (pid, seconds) = (pair.left.pid(), time.as_secs_f64());
        // The data path has work, and so has the control path.
        let load = Stream::start(&pair.left.host, &pair.right.host, pair.right.inner4);
        let lines = || pair.left.log().lines().filter(|line| !line.contains(" DEBUG ")).count();
        let made = pair.left.host.folder().join("strace.out");
        let mut process = pair.left.host.spawn("strace", self.strace(pid, &made)).expect("strace starts");
        let attached = wait_until(Duration::from_secs(5), || traced(pid));
        let (before, used, begin) = (lines(), cpu_seconds(pid), Instant::now());
        while begin.elapsed() < *time {
            let _what_may_fail = pair.left.daemon().status(DEVICE);
            thread::sleep(Duration::from_millis(100));
        }
        let lasted = begin.elapsed().as_secs_f64();
        let (told, used) =
            (lines() - before, cpu_seconds(pid).zip(used).map_or(0.0, |(after, before)| after - before));
        process.terminate(Duration::from_secs(5));
        let begin = Instant::now();
        let alive = || cpu_seconds(pid).is_some();
        let answers = || pair.left.reaches(pair.right.inner4) && pair.left.daemon().status(DEVICE).is_ok();
        let back = alive() && wait_until(Duration::from_secs(8), answers);
        let took = begin.elapsed();
        drop(load);
        let failed = fs::read_to_string(&made).unwrap_or_default().matches("(INJECTED)").count();
        // strace itself makes each call some fifty times as slow: a loop that spins is at 100 % then.
        let calm = used < 0.9 * lasted.max(1.0) && told as f64 <= 10.0 * lasted.max(1.0);
        let holds = attached && back && calm && (failed > 0 || *often != "100 %");
        Figure {
            // How soon is the machine's affair, too.
            speed: holds,
            ..Figure::hard(
                format!("{call} gives {error}, {often} for {seconds:.1} s"),
                "lives, no spin, back ≤ 1 s, ≤ 10 lines/s",
                format!(
                    "{}, {failed} failed, {:.0} % of a core, back in {:.1} s, {told} lines",
                    if alive() { "lives" } else { "ended" },
                    used / lasted * 100.0,
                    took.as_secs_f64()
                ),
                holds && took <= Duration::from_secs(1),
            )
            .note(if alive() { String::new() } else { last_line(&pair.left.log()) })
        }
    }

    /// It writes a line for each call.
    fn strace(&self, pid: u32, to: &std::path::Path) -> Command {
        let Self { call, error, when, .. } = self;
        let said = if *error == SHORT { "retval=1".to_owned() } else { format!("error={error}") };
        let mut strace = Command::new("strace");
        strace.args(["-f", "-q", "-s", "0", "-e", &format!("trace={call}")]).arg("-o").arg(to);
        strace.args(["-e", &format!("inject={call}:{said}:when={when}")]);
        if ["read", "write"].contains(call) {
            // Not the runtime's eventfd, whose calls cannot fail: it ends the process for that.
            strace.args(["-P", "/dev/net/tun"]);
        }
        strace.args(["-p", &pid.to_string()]).stdout(Stdio::null());
        strace
    }
}

/// Of what it said: why it ended.
fn last_line(log: &str) -> String {
    log.lines().last().unwrap_or_default().chars().take(200).collect()
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
