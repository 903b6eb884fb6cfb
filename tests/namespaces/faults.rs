//! What the kernel refuses while a tunnel runs: sends that are to be cut, receives, reads and writes of the TUN. Each
//! refusal is made by `faults.c`, which stands between vpnd and the C library.

use std::{
    fs::File,
    net::IpAddr,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    process::Command,
    sync::{
        OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use vpnd::{lab::tcp_transfer, plane::Clock};

use crate::{
    common::{
        flow::{Arrived, Flow},
        need_root,
    },
    mixture::losses,
    world::{Node, Outer, Pair, Spec, sh, wait_until},
};

/// Which calls of a vpnd; the order is that of `faults.c`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Call {
    /// A datagram by itself.
    SendOne,
    /// Several, which the kernel is to cut.
    SendTogether,
    Receive,
    Read,
    WriteOne,
    WriteMerged,
}

const CALLS: u64 = 6;
/// Four numbers: the error, each how many-th call gets it, calls so far, calls that got it.
const RULE: u64 = 32;

/// The rules of one vpnd.
struct Faults {
    file: File,
}

impl Faults {
    /// Of the left end of a pair that was started with [`injected`].
    fn of(node: &Node) -> Self {
        let path = node.host.folder().join("faults");
        let file = File::options().read(true).write(true).create(true).truncate(false).open(path);
        Self { file: file.expect("a file of rules") }
    }

    fn number(&self, call: Call, at: u64) -> u64 {
        let mut bytes = [0; 8];
        self.file.read_exact_at(&mut bytes, call as u64 * RULE + at * 8).expect("it has room for each call");
        u64::from_le_bytes(bytes)
    }

    fn set(&self, call: Call, at: u64, number: u64) {
        self.file
            .write_all_at(&number.to_le_bytes(), call as u64 * RULE + at * 8)
            .expect("it can be written");
    }

    /// From now on each `every`-th of these calls fails.
    fn fail(&self, call: Call, error: Errno, every: u64) {
        self.set(call, 1, every);
        self.set(call, 0, error.1 as u64);
    }

    /// These calls fail for a while, in which something that repeats without end would show; how many did. The last of
    /// them works again first.
    fn fail_for_a_while(&self, calls: &[Call], error: Errno) -> u64 {
        let failed = || calls.iter().map(|&call| self.failed(call)).sum::<u64>();
        let before = failed();
        calls.iter().for_each(|&call| self.fail(call, error, 1));
        thread::sleep(A_WHILE);
        for &call in calls.iter().rev() {
            self.mend(call);
            // What was refused just before is tried again by the other call, which must not have been mended by then:
            // else it is rightly taken for a refusal of this one alone.
            let made = self.made(call);
            let again = || call == calls[0] || self.made(call) > made + 1;
            assert!(wait_until(PATIENCE, again), "{call:?} was not made again");
        }
        failed() - before
    }

    /// From now on none.
    fn mend(&self, call: Call) {
        self.set(call, 0, 0);
    }

    fn made(&self, call: Call) -> u64 {
        self.number(call, 2)
    }

    fn failed(&self, call: Call) -> u64 {
        self.number(call, 3)
    }
}

/// Its name and its number, on the machines that these tests run on.
type Errno = (&'static str, i32);

const EPERM: Errno = ("EPERM", 1);
const EIO: Errno = ("EIO", 5);
const EAGAIN: Errno = ("EAGAIN", 11);
const ENOMEM: Errno = ("ENOMEM", 12);
const EFAULT: Errno = ("EFAULT", 14);
const EINVAL: Errno = ("EINVAL", 22);
const EMSGSIZE: Errno = ("EMSGSIZE", 90);
const EOPNOTSUPP: Errno = ("EOPNOTSUPP", 95);
const ENOBUFS: Errno = ("ENOBUFS", 105);

/// Compiles `faults.c`, once.
fn library() -> &'static Path {
    static LIBRARY: OnceLock<PathBuf> = OnceLock::new();
    LIBRARY.get_or_init(|| {
        let library =
            Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("faults-{}.so", std::process::id()));
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/namespaces/faults.c");
        let mut compiler = Command::new("cc");
        compiler.args(["-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", "-O1", "-o"]);
        let made = compiler.arg(&library).arg(source).status().expect("there is a C compiler");
        assert!(made.success(), "{source} does not compile");
        library
    })
}

/// Both ends with a library before the C library; without rules it only counts.
fn pair(name: &str, outer: Outer, workers: &str, before: &str) -> Pair {
    let library = library().display();
    let make = "sh -ec 'truncate -s 192 {folder}/faults; exec \"$@\"' -";
    let before = format!("{before} env VPND_FAULTS={{folder}}/faults LD_PRELOAD={library}");
    assert_eq!(CALLS * RULE, 192);
    let interface = format!("offload = \"auto\"\n{workers}");
    let spec = Spec { outer, before: format!("{make} {before}"), interface, ..Spec::default() };
    let pair = Pair::start(name, &spec);
    pair.left.ping(pair.right.inner4, 1);
    pair
}

/// Datagrams of a train, and how often one leaves: a moderate load, that no queue on the way overflows.
const TRAIN: u64 = 16;
const SIZE: usize = 1000;
const PACE: Duration = Duration::from_millis(20);
/// Seconds that each third call may fail, in the worst case.
const EACH_THIRD: usize = 3;
/// A queue in which all that comes meanwhile waits loses nothing.
const A_WHILE: Duration = Duration::from_millis(2200);
/// How long what must happen may take here.
const PATIENCE: Duration = Duration::from_secs(30);
/// TCP with wide windows fills each queue until something is dropped.
const WINDOW: u32 = 65_536;

/// Runs `faults` while numbered datagrams (IPv4) and TCP transfers (IPv6) go from left to right. What became of the
/// datagrams; TCP must come through whole.
#[track_caller]
fn under_load(pair: &Pair, faults: impl FnOnce()) -> Arrived {
    for node in [&pair.left, &pair.right] {
        for key in ["ipv4.tcp_rmem", "ipv4.tcp_wmem"] {
            node.host.sysctl(key, &format!("4096 {WINDOW} {WINDOW}")).expect("a window can be set");
        }
    }
    let over = AtomicBool::new(false);
    let arrived = thread::scope(|scope| {
        let transfers = scope.spawn(|| {
            let mut transfers = 0;
            while !over.load(Ordering::Acquire) {
                let address: IpAddr = pair.right.inner6;
                let transfer = tcp_transfer(
                    &pair.left.host,
                    &pair.right.host,
                    address,
                    300_000,
                    Duration::from_secs(60),
                );
                assert!(transfer.unwrap_or_else(|error| panic!("{error}\n{}", losses(pair))).intact);
                transfers += 1;
                thread::sleep(Duration::from_millis(50));
            }
            transfers
        });
        let flow = Flow::trains(&pair.left.host, &pair.right.host, pair.right.inner4, PACE, SIZE, TRAIN);
        // Also where the test fails: else the transfers would never end.
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(faults));
        over.store(true, Ordering::Release);
        let arrived = flow.finish();
        let transfers = transfers.join();
        outcome.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        assert!(transfers.unwrap_or_else(|panic| std::panic::resume_unwind(panic)) > 0);
        arrived
    });
    println!("{}: {arrived}", pair.left.host.name());
    arrived
}

#[track_caller]
fn until(what: &str, pair: &Pair, true_now: impl FnMut() -> bool) {
    assert!(wait_until(PATIENCE, true_now), "{what}: never\n{}", pair.left.log());
}

/// How many lines of the log have this in them.
fn lines(node: &Node, text: &str) -> usize {
    node.log().lines().filter(|line| line.contains(text)).count()
}

/// The lines in which it warns.
fn complaints(node: &Node) -> Vec<String> {
    let loud = |line: &&str| line.contains(" WARN ") || line.contains(" ERROR ");
    node.log().lines().filter(loud).map(str::to_owned).collect()
}

const NOT_CUT: &str = "the kernel would not cut datagrams for this peer";
const CUT_AGAIN: &str = "the kernel cuts datagrams for this peer again";
const NOT_SENT: &str = "datagrams could not be sent";
const NOT_MERGED: &str = "the TUN took no super-packet";
const MERGED_AGAIN: &str = "the TUN takes super-packets again";
const NOT_WRITTEN: &str = "the TUN took no packet";
const NOT_READ: &str = "reading the TUN";
const NOT_RECEIVED: &str = "receiving failed";

/// Runs the test of each errno at the same time: they wait more than they work.
fn each<const N: usize>(errors: [Errno; N], test: impl Fn(Errno) + Sync) {
    let test = &test;
    thread::scope(|scope| {
        let tests = errors.map(|error| (error.0, scope.spawn(move || test(error))));
        let failed = tests.map(|(name, test)| test.join().is_err().then_some(name));
        assert_eq!(failed, [None; N], "what went wrong stands above");
    });
}

/// For the test of one error. The first has four workers, which are to be no louder than one; the second one thread
/// for all, the third IPv6 outside.
fn pair_for(what: &str, error: Errno) -> Pair {
    let name = format!("{what}-{}", error.0.to_lowercase());
    match error {
        EIO => pair(&name, Outer::V4, "workers = 4", ""),
        EINVAL => pair(&name, Outer::V4, "", "taskset -c 0"),
        EMSGSIZE => pair(&name, Outer::V6, "", ""),
        _ => pair(&name, Outer::V4, "", ""),
    }
}

#[test]
fn what_the_kernel_will_not_cut_is_sent_one_by_one_and_after_a_while_together_again() {
    if !need_root() {
        return;
    }
    each([EIO, EINVAL, EMSGSIZE, ENOBUFS, EOPNOTSUPP, ENOMEM, EPERM], |error| {
        let pair = pair_for("cut", error);
        let faults = Faults::of(&pair.left);
        let arrived = under_load(&pair, || {
            until("a send together", &pair, || faults.made(Call::SendTogether) > 10);
            faults.fail(Call::SendTogether, error, 1);
            until("the line", &pair, || lines(&pair.left, NOT_CUT) > 0);
            let (tried, alone) = (faults.made(Call::SendTogether), faults.made(Call::SendOne));
            let since = Clock.boot();
            until("500 sends one by one", &pair, || faults.made(Call::SendOne) > alone + 500);
            // A pause is 10 s; a busy machine may have taken as long for the above.
            if Clock.boot().since(since) < Duration::from_secs(8) {
                assert_eq!(faults.made(Call::SendTogether), tried, "it is left alone for a while");
            }
            until("the next try", &pair, || faults.made(Call::SendTogether) > tried);
            faults.mend(Call::SendTogether);
            until("the end of it", &pair, || lines(&pair.left, CUT_AGAIN) > 0);
            let again = faults.made(Call::SendTogether);
            until("sends together again", &pair, || faults.made(Call::SendTogether) > again + 10);
        });
        assert!(arrived.whole(), "{arrived}\n{}", losses(&pair));
        assert_eq!((lines(&pair.left, NOT_CUT), lines(&pair.left, CUT_AGAIN)), (1, 1), "{}", pair.left.log());
        assert_eq!((complaints(&pair.left).len(), pair.left.refused("send_failed")), (1, 0));
    });
}

#[test]
fn what_cannot_be_sent_at_all_is_counted_and_told_of_now_and_then() {
    if !need_root() {
        return;
    }
    each([EIO, EINVAL, EMSGSIZE, ENOBUFS, EAGAIN], |error| {
        let pair = pair_for("send", error);
        let faults = Faults::of(&pair.left);
        let arrived = under_load(&pair, || {
            until("a send together", &pair, || faults.made(Call::SendTogether) > 10);
            assert!(faults.fail_for_a_while(&[Call::SendOne, Call::SendTogether], error) > 0);
            let alone = faults.made(Call::SendTogether);
            until("sends go on", &pair, || faults.made(Call::SendTogether) > alone + 20);
        });
        assert!(arrived.in_order() && !arrived.lost.is_empty(), "{arrived}\n{}", losses(&pair));
        assert!(pair.left.refused("send_failed") >= arrived.lost.len() as u64, "{arrived}");
        assert!(arrived.lost.last().is_some_and(|&last| last < arrived.sent - TRAIN), "{arrived}");
        told_of_now_and_then(&pair.left, NOT_SENT);
        assert_eq!(lines(&pair.left, NOT_CUT), 0, "cutting is not what was wrong: {}", pair.left.log());
    });
}

#[test]
fn what_cannot_be_received_waits_in_the_socket_and_is_asked_for_without_haste() {
    if !need_root() {
        return;
    }
    each([EIO, EINVAL, ENOBUFS, ENOMEM, EFAULT], |error| {
        let pair = pair_for("recv", error);
        let arrived = input_fails(&pair, &pair.right, Call::Receive, error);
        assert!(arrived.whole(), "{arrived}\n{}", losses(&pair));
        told_of_now_and_then(&pair.right, NOT_RECEIVED);
    });
}

#[test]
fn what_cannot_be_read_waits_in_the_tun_and_is_asked_for_without_haste() {
    if !need_root() {
        return;
    }
    each([EIO, EINVAL, ENOBUFS, ENOMEM, EFAULT], |error| {
        let pair = pair_for("read", error);
        let arrived = input_fails(&pair, &pair.left, Call::Read, error);
        assert!(arrived.whole(), "{arrived}\n{}", losses(&pair));
        told_of_now_and_then(&pair.left, NOT_READ);
    });
}

/// All input of one end fails for a while, and then each third call.
fn input_fails(pair: &Pair, node: &Node, call: Call, error: Errno) -> Arrived {
    let faults = Faults::of(node);
    under_load(pair, || {
        until("some input", pair, || faults.made(call) > 50);
        let failed = faults.fail_for_a_while(&[call], error);
        // Eight at once, and then one each 50 ms.
        assert!((1..200).contains(&failed), "{failed} calls in {A_WHILE:?}");
        let before = faults.failed(call);
        faults.fail(call, error, 3);
        until("each third fails", pair, || faults.failed(call) > before + 20);
        faults.mend(call);
        let made = faults.made(call);
        until("it goes on", pair, || faults.made(call) > made + 50);
    })
}

#[test]
fn what_the_tun_will_not_take_merged_is_written_one_by_one_and_after_a_while_merged_again() {
    if !need_root() {
        return;
    }
    each([EIO, EINVAL, ENOBUFS, ENOMEM, EFAULT], |error| {
        let pair = pair_for("merge", error);
        let faults = Faults::of(&pair.right);
        let arrived = under_load(&pair, || {
            until("a merged write", &pair, || faults.made(Call::WriteMerged) > 10);
            faults.fail(Call::WriteMerged, error, 1);
            until("the line", &pair, || lines(&pair.right, NOT_MERGED) > 0);
            let (tried, alone) = (faults.made(Call::WriteMerged), faults.made(Call::WriteOne));
            let since = Clock.boot();
            until("500 writes one by one", &pair, || faults.made(Call::WriteOne) > alone + 500);
            if Clock.boot().since(since) < Duration::from_secs(8) {
                // What had been merged when the first was refused.
                assert!(faults.made(Call::WriteMerged) < tried + 20, "it is left alone for a while");
            }
            let tried = faults.made(Call::WriteMerged);
            until("the next try", &pair, || faults.made(Call::WriteMerged) > tried);
            faults.mend(Call::WriteMerged);
            until("the end of it", &pair, || lines(&pair.right, MERGED_AGAIN) > 0);
            let again = faults.made(Call::WriteMerged);
            until("merged writes again", &pair, || faults.made(Call::WriteMerged) > again + 10);
        });
        assert!(arrived.whole(), "{arrived}\n{}", losses(&pair));
        let log = pair.right.log();
        assert_eq!((lines(&pair.right, NOT_MERGED), lines(&pair.right, MERGED_AGAIN)), (1, 1), "{log}");
        assert_eq!((complaints(&pair.right).len(), pair.right.refused("tun_write_failed")), (1, 0), "{log}");
    });
}

#[test]
fn what_the_tun_does_not_take_at_all_is_counted_and_told_of_now_and_then() {
    if !need_root() {
        return;
    }
    each([EIO, EINVAL, ENOBUFS, ENOMEM, EFAULT], |error| {
        let pair = pair_for("write", error);
        let faults = Faults::of(&pair.right);
        let arrived = under_load(&pair, || {
            until("a merged write", &pair, || faults.made(Call::WriteMerged) > 10);
            assert!(faults.fail_for_a_while(&[Call::WriteOne, Call::WriteMerged], error) > 0);
            let merged = faults.made(Call::WriteMerged);
            until("writes go on", &pair, || faults.made(Call::WriteMerged) > merged + 20);
        });
        assert!(arrived.in_order() && !arrived.lost.is_empty(), "{arrived}\n{}", losses(&pair));
        assert!(pair.right.refused("tun_write_failed") >= arrived.lost.len() as u64, "{arrived}");
        told_of_now_and_then(&pair.right, NOT_WRITTEN);
        assert_eq!(lines(&pair.right, NOT_MERGED), 0, "merging is not what was wrong: {}", pair.right.log());
    });
}

/// It is told, by not more than a line a second, and nothing else is.
#[track_caller]
fn told_of_now_and_then(node: &Node, text: &str) {
    let most = A_WHILE.as_secs() as usize + 2 + EACH_THIRD;
    let told = lines(node, text);
    assert!((1..=most).contains(&told), "{told} lines: {}", node.log());
    assert_eq!(complaints(node).len(), told, "{}", node.log());
}

/// Not a fault that was made, but one of a real path: it became narrower than the datagrams.
/// A full disk has no room for a log; the line is lost, and nothing else.
#[test]
fn a_log_that_cannot_be_written_ends_nothing() {
    if !need_root() {
        return;
    }
    let before = r#"sh -c 'exec "$0" "$@" 2>/dev/full'"#.to_owned();
    let pair = Pair::start("full", &Spec { before, ..Spec::default() });
    pair.left.ping(pair.right.inner4, 3);
    assert_eq!(pair.left.log(), "", "there was no room");
}

#[test]
fn datagrams_that_a_narrow_path_does_not_take_together_arrive_in_fragments() {
    if !need_root() {
        return;
    }
    // IPv6 has no narrower paths than of 1280 bytes (RFC 8200, section 5).
    for (name, outer, narrow) in [("narrow4", Outer::V4, 1000), ("narrow6", Outer::V6, 1280)] {
        let pair = pair(name, outer, "", "");
        let faults = Faults::of(&pair.left);
        let arrived = under_load(&pair, || {
            until("a send together", &pair, || faults.made(Call::SendTogether) > 10);
            vpnd::lab::link::mtu(&pair.left.host, "eth0", narrow).expect("an MTU");
            until("the line", &pair, || lines(&pair.left, NOT_CUT) > 0);
            vpnd::lab::link::mtu(&pair.left.host, "eth0", 1500).expect("an MTU");
            until("the end of it", &pair, || lines(&pair.left, CUT_AGAIN) > 0);
        });
        assert!(arrived.whole(), "{arrived}\n{}", losses(&pair));
        let told = (lines(&pair.left, NOT_CUT), lines(&pair.left, CUT_AGAIN));
        assert_eq!(told, (1, 1), "{}", pair.left.log());
    }
}

/// Nor this one.
#[test]
fn datagrams_that_a_firewall_takes_for_one_that_is_too_long_are_sent_one_by_one() {
    if !need_root() {
        return;
    }
    let pair = pair("firewall", Outer::V4, "", "");
    let faults = Faults::of(&pair.left);
    let arrived = under_load(&pair, || {
        until("a send together", &pair, || faults.made(Call::SendTogether) > 10);
        sh(
            &pair.left.host,
            "nft 'table inet vpnd_test { chain out { type filter hook output priority 0; udp dport 51820 udp length > 1500 drop; }; }'",
        );
        until("the line", &pair, || lines(&pair.left, NOT_CUT) > 0);
        let alone = faults.made(Call::SendOne);
        until("500 sends one by one", &pair, || faults.made(Call::SendOne) > alone + 500);
    });
    assert!(arrived.whole(), "{arrived}\n{}", losses(&pair));
    assert_eq!(complaints(&pair.left).len(), 1, "{}", pair.left.log());
}
