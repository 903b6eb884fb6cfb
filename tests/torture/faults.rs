//! System calls that fail by strace's hand, while the sandbox is closed.

use std::{
    fs,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use vpnd::sys::tun::device_exists;

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
    "recvmsg",
    "read",
    "write",
    "writev",
    if cfg!(target_arch = "x86_64") { "poll" } else { "ppoll" },
    if cfg!(target_arch = "x86_64") { "epoll_wait" } else { "epoll_pwait" },
    "epoll_ctl",
    "timerfd_settime",
    "accept4",
    "sendto",
    "recvfrom",
];

/// What a loop that does not spin may do while each of its calls fails: of a core, and of such calls in a second.
const CALM: (f64, f64) = (0.5, 1000.0);
/// The same while one call in a hundred fails, and the others carry all that goes.
const BUSY: f64 = 0.9;

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
            for (often, when) in [(RARELY, "100+100"), (ALWAYS, "1+")] {
                let fault = Fault { call, error, often, when, time };
                let figure = if fault.ends_it() { fault.end_of(&pair) } else { fault.on(&pair) };
                println!("{}", crate::line(&figure));
                figures.push(figure);
                // The next fault is not to be blamed for this one.
                if cpu_seconds(pair.left.pid()).is_none() || !pair.left.reaches(pair.right.inner4) {
                    drop(pair);
                    pair = start();
                }
            }
        }
    }
    figures
}

const RARELY: &str = "1 %";
const ALWAYS: &str = "100 %";

fn moves_bytes(call: &str) -> bool {
    ["sendmsg", "recvmsg", "read", "write", "writev", "sendto", "recvfrom"].contains(&call)
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
    /// What the runtime itself waits by has no error but EINTR that a kernel gives to a process whose memory and
    /// descriptors are whole (epoll_wait(2)), and the runtime ends at any other one (tokio, `Driver::turn`).
    fn ends_it(&self) -> bool {
        self.call.starts_with("epoll_") && self.call.ends_with("wait") && self.error != "EINTR"
    }

    fn name(&self) -> String {
        format!("{} gives {}, {} for {:.1} s", self.call, self.error, self.often, self.time.as_secs_f64())
    }

    fn on(&self, pair: &Pair) -> Figure {
        let Self { often, time, .. } = self;
        let pid = pair.left.pid();
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
        let (core, rate) = (used / lasted.max(1.0), failed as f64 / lasted.max(1.0));
        let spins = if *often == ALWAYS { core >= CALM.0 || rate > CALM.1 } else { core >= BUSY };
        let calm = !spins && told as f64 <= 10.0 * lasted.max(1.0);
        let holds = attached && back && calm && (failed > 0 || *often == RARELY);
        Figure {
            // How soon is the machine's affair, too.
            speed: holds,
            ..Figure::hard(
                self.name(),
                "lives, no spin, back ≤ 1 s, ≤ 10 lines/s",
                format!(
                    "{}, {failed} failed, {:.0} % of a core, back in {:.1} s, {told} lines",
                    if alive() { "lives" } else { "ended" },
                    core * 100.0,
                    took.as_secs_f64()
                ),
                holds && took <= Duration::from_secs(1),
            )
            .note(if alive() { String::new() } else { last_line(&pair.left.log()) })
        }
    }

    /// Where it must end: it says so, and leaves nothing behind.
    fn end_of(&self, pair: &Pair) -> Figure {
        let pid = pair.left.pid();
        let made = pair.left.host.folder().join("strace.out");
        let mut process = pair.left.host.spawn("strace", self.strace(pid, &made)).expect("strace starts");
        let ended = || cpu_seconds(pid).is_none();
        let begin = Instant::now();
        while begin.elapsed() < self.time && !ended() {
            let _what_wakes_it = pair.left.daemon().status(DEVICE);
            thread::sleep(Duration::from_millis(20));
        }
        process.terminate(Duration::from_secs(5));
        let failed = fs::read_to_string(&made).unwrap_or_default().matches("(INJECTED)").count();
        let swept =
            ended() && wait_until(Duration::from_secs(5), || !pair.left.host.run(|| device_exists(DEVICE)));
        let reached = match (failed, ended()) {
            (0, _) => "none failed".to_owned(),
            (_, true) => format!("ended: {}", last_line(&pair.left.log())),
            (_, false) => format!("lives, {failed} failed"),
        };
        let met = if failed == 0 { self.often == RARELY } else { swept };
        Figure::hard(self.name(), "it must end (epoll_wait(2)): says so, leaves nothing", reached, met)
    }

    /// It writes a line for each call.
    fn strace(&self, pid: u32, to: &std::path::Path) -> Command {
        let Self { call, error, when, .. } = self;
        let said = if *error == SHORT { "retval=1".to_owned() } else { format!("error={error}") };
        let mut strace = Command::new("strace");
        strace.args(["-f", "-q", "-s", "0", "-e", &format!("trace={call}")]).arg("-o").arg(to);
        strace.args(["-e", &format!("inject={call}:{said}:when={when}")]);
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
