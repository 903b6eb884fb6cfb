//! System calls that fail by strace's hand, while the sandbox is closed.

use std::{
    fs,
    path::PathBuf,
    process::{Command, Stdio},
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use vpnd::{lab::Process, sys::tun::device_exists};

use crate::{
    Torment,
    goodput::Stream,
    report::Figure,
    world::{DEVICE, Node, Pair, Spec, sh, wait_until},
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
    "writev",
    if cfg!(target_arch = "x86_64") { "poll" } else { "ppoll" },
    if cfg!(target_arch = "x86_64") { "epoll_wait" } else { "epoll_pwait" },
    "epoll_ctl",
    "timerfd_settime",
    "accept4",
    "sendto",
    "recvfrom",
];

/// Calls whose faults are tried at the same time.
const AT_ONCE: usize = 4;

/// What a loop that does not spin may do while each of its calls fails: of a core, and of such calls in a second.
const CALM: (f64, f64) = (0.5, 1000.0);
/// The same while one call in a hundred fails, and the others carry all that goes.
const BUSY: f64 = 0.9;

/// System calls that fail by strace's hand: one in a hundred, and all of them, for some seconds. The sandbox is closed.
pub fn faults(torment: &Torment) -> Vec<Figure> {
    let time = if torment.is_full() { Duration::from_secs(5) } else { Duration::from_millis(700) };
    let calls = if torment.is_full() { CALLS } else { &CALLS[..2] };
    let errors = if torment.is_full() { ERRORS } else { &ERRORS[..1] };
    let (next, all) = (AtomicUsize::new(0), Mutex::new(vec![Vec::new(); calls.len()]));
    let work = || {
        while let Some((number, call)) = take(calls, &next) {
            let figures = of_call(call, &format!("fault{number}"), errors, time);
            all.lock().expect("nobody panicked")[number] = figures;
        }
    };
    thread::scope(|scope| (0..AT_ONCE).for_each(|_| _ = scope.spawn(work)));
    all.into_inner().expect("nobody panicked").concat()
}

fn take<'a>(calls: &[&'a str], next: &AtomicUsize) -> Option<(usize, &'a str)> {
    let number = next.fetch_add(1, Ordering::Relaxed);
    calls.get(number).map(|call| (number, *call))
}

/// A call fails in each way; the tunnel is its own.
fn of_call(call: &str, name: &str, errors: &[&str], time: Duration) -> Vec<Figure> {
    let start = || {
        let pair = Pair::start(name, &Spec::default());
        pair.left.ping(pair.right.inner4, 1);
        pair
    };
    let (mut pair, mut figures) = (start(), Vec::new());
    for error in errors.iter().filter(|&&error| error != SHORT || moves_bytes(call)) {
        for (often, when) in [(RARELY, "100+100"), (ALWAYS, "1+")] {
            let fault = Fault { call, error, often, when, time };
            let mut figure = fault.figure(&pair);
            for _ in 0..3 {
                if !fault.was_cut_off(&pair) {
                    break;
                }
                drop(pair);
                pair = start();
                figure = fault.figure(&pair);
            }
            figures.push(figure);
            // The next fault is not to be blamed for this one.
            let is_well = cpu_seconds(pair.left.pid()).is_some() && pair.left.reaches(pair.right.inner4);
            // And what others remove again and again is put back less and less often.
            if !is_well || fault.is_of_netlink() {
                drop(pair);
                pair = start();
            }
        }
    }
    figures
}

const RARELY: &str = "1 %";
const ALWAYS: &str = "100 %";

fn moves_bytes(call: &str) -> bool {
    ["sendmsg", "recvmsg,recvmmsg", "read", "write", "writev", "sendto", "recvfrom"].contains(&call)
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

    /// Nothing that repeats itself makes these calls: the host's state is asked for, and changed, by them.
    fn is_of_netlink(&self) -> bool {
        ["sendto", "recvfrom"].contains(&self.call)
    }

    fn figure(&self, pair: &Pair) -> Figure {
        if self.ends_it() { self.end_of(pair) } else { self.on(pair) }
    }

    /// strace lets go of a call that it has taken away, and before it says what came of it: then it is ENOSYS, which was
    /// not asked for. Where the runtime waits that is an end (see above).
    fn was_cut_off(&self, pair: &Pair) -> bool {
        !self.ends_it() && pair.left.log().contains("Function not implemented")
    }

    fn name(&self) -> String {
        format!("{} gives {}, {} for {:.1} s", self.call, self.error, self.often, self.time.as_secs_f64())
    }

    fn on(&self, pair: &Pair) -> Figure {
        let Self { call, error, often, time, .. } = self;
        let pid = pair.left.pid();
        // The data path has work, and so has the control path.
        let load = Stream::start(&pair.left.host, &pair.right.host, pair.right.inner4);
        let lines = || pair.left.log().lines().filter(|line| !line.contains(" DEBUG ")).count();
        let (processes, attached) = self.begin(&pair.left);
        if self.is_of_netlink() {
            // Something to put back: it asks the kernel, and tells it.
            sh(&pair.left.host, "ip addr flush dev vpn0");
        }
        let (before, used, begin) = (lines(), cpu_seconds(pid), Instant::now());
        while begin.elapsed() < *time {
            let _what_may_fail = pair.left.daemon().status(DEVICE);
            thread::sleep(Duration::from_millis(100));
        }
        let lasted = begin.elapsed().as_secs_f64();
        let (told, used) =
            (lines() - before, cpu_seconds(pid).zip(used).map_or(0.0, |(after, before)| after - before));
        let failed = self.end(&pair.left, processes);
        let begin = Instant::now();
        let alive = || cpu_seconds(pid).is_some();
        let answers = || pair.left.reaches(pair.right.inner4) && pair.left.daemon().status(DEVICE).is_ok();
        let back = alive() && wait_until(Duration::from_secs(8), answers);
        let took = begin.elapsed();
        drop(load);
        let (core, rate) = (used / lasted.max(1.0), failed as f64 / lasted.max(1.0));
        // One byte of a stream is progress: as many are called for as were asked for.
        let goes_on = *error == SHORT && ["writev", "sendto", "recvfrom"].contains(call);
        let spins = match *often == ALWAYS {
            true => core >= CALM.0 || rate > CALM.1 && !goes_on,
            false => core >= BUSY,
        };
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
            .note(match (alive(), back) {
                (false, _) => last_line(&pair.left.log()),
                // Readable, and then EAGAIN, is what no kernel says; the runtime waits for the next edge.
                (true, false) if *call == "recvfrom" => {
                    "the kernel told of the flush once, and was not heard".to_owned()
                }
                (true, _) => String::new(),
            })
        }
    }

    /// Where it must end: it says so, and leaves nothing behind.
    fn end_of(&self, pair: &Pair) -> Figure {
        let pid = pair.left.pid();
        let (processes, _) = self.begin(&pair.left);
        let ended = || cpu_seconds(pid).is_none();
        let begin = Instant::now();
        while begin.elapsed() < self.time && !ended() {
            let _what_wakes_it = pair.left.daemon().status(DEVICE);
            thread::sleep(Duration::from_millis(20));
        }
        let failed = self.end(&pair.left, processes);
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

    /// One process, or several for different threads. They write a line for each call.
    fn straces(&self, pid: u32) -> Vec<Command> {
        let all = Traced { threads: vec![pid], each_thread: true, paths: Vec::new() };
        let traced = if self.call == "write" { but_for_the_runtimes_waker(pid) } else { vec![all] };
        traced.into_iter().map(|traced| self.strace(traced)).collect()
    }

    fn strace(&self, traced: Traced) -> Command {
        let Self { call, error, when, .. } = self;
        let said = if *error == SHORT { "retval=1".to_owned() } else { format!("error={error}") };
        let mut strace = Command::new("strace");
        strace.args(["-q", "-s", "0", "-e", &format!("trace={call}")]);
        strace.args(["-e", &format!("inject={call}:{said}:when={when}")]);
        if traced.each_thread {
            strace.arg("-f");
        }
        for path in traced.paths {
            strace.arg("-P").arg(path);
        }
        for thread in traced.threads {
            strace.args(["-p", &thread.to_string()]);
        }
        strace.stdout(Stdio::null());
        strace
    }

    /// Lets it begin; true when it has.
    fn begin(&self, node: &Node) -> (Vec<Process>, bool) {
        let pid = node.pid();
        let start = |(number, mut strace): (usize, Command)| {
            strace.arg("-o").arg(told(node, number));
            node.host.spawn("strace", strace).expect("strace starts")
        };
        let processes = self.straces(pid).into_iter().enumerate().map(start).collect();
        (processes, wait_until(Duration::from_secs(5), || traced(pid)))
    }

    /// Lets it end; how many calls failed.
    fn end(&self, node: &Node, processes: Vec<Process>) -> usize {
        let failed = |(number, mut process): (usize, Process)| {
            process.terminate(Duration::from_secs(5));
            fs::read_to_string(told(node, number)).unwrap_or_default().matches("(INJECTED)").count()
        };
        processes.into_iter().enumerate().map(failed).sum()
    }
}

/// Where a strace writes to.
fn told(node: &Node, number: usize) -> PathBuf {
    node.host.folder().join(format!("strace.{number}"))
}

/// What one strace looks at.
struct Traced {
    threads: Vec<u32>,
    /// And all others of the process.
    each_thread: bool,
    /// These descriptors alone; none: all.
    paths: Vec<PathBuf>,
}

/// Tokio ends a task, or the thread, whose write to its own eventfd fails (`failed to wake I/O driver`, in
/// runtime/io/driver.rs), and it writes whenever a timer is set that comes before all others, in the main thread. So all
/// descriptors of the threads that carry data, among them the eventfds by which they wake each other and the main thread;
/// and of the main thread all but the eventfds.
fn but_for_the_runtimes_waker(pid: u32) -> Vec<Traced> {
    let entries = |what: &str| fs::read_dir(format!("/proc/{pid}/{what}")).expect("it runs").flatten();
    let tasks = entries("task").filter(|task| {
        fs::read_to_string(task.path().join("comm")).is_ok_and(|name| {
            ["vpnd-data", "vpnd-relief", "vpnd-out", "vpnd-in"].iter().any(|kind| name.starts_with(kind))
        })
    });
    let threads = tasks.filter_map(|task| task.file_name().to_str()?.parse().ok()).collect();
    let paths = entries("fd").filter_map(|fd| fs::read_link(fd.path()).ok());
    let mut paths: Vec<_> = paths.filter(|path| path.as_os_str() != "anon_inode:[eventfd]").collect();
    paths.sort();
    paths.dedup();
    vec![
        Traced { threads, each_thread: false, paths: Vec::new() },
        Traced { threads: vec![pid], each_thread: false, paths },
    ]
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
