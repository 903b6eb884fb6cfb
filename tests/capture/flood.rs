//! Packets as fast as they go while a capture and a trace look: those that are not looked at lose nothing, and of those that
//! are each is in the file or told to be missing. Correctness alone; `--ignored --nocapture` says how fast it went.

use std::{
    fs,
    net::UdpSocket,
    process::{Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use super::{
    Capture, PACKET, PATIENCE, blocks, word,
    world::{Node, Pair, Spec, attempt, wait_until},
};
use crate::common::need_root;

/// Under way at the same time: fewer than any queue holds, so that whatever is lost was lost by vpnd.
const WINDOW: u64 = 128;
/// The flood's, and the one that is traced beside it.
const FLOOD: u16 = 4242;
const TRACED: u16 = 4343;
/// Bytes of a packet of the flood, and of the one that says that it is over.
const PAYLOAD: usize = 100;
const LAST: usize = 333;

/// On the right host: sends back what comes, and counts what was sent there on either flow.
struct Echo {
    stop: Arc<AtomicBool>,
    threads: Vec<std::thread::JoinHandle<u64>>,
}

impl Echo {
    fn start(pair: &Pair) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let echo = |port| {
            let socket =
                pair.right.host.run(|| UdpSocket::bind((pair.right.inner4, port))).expect("a socket");
            socket.set_read_timeout(Some(Duration::from_millis(100))).expect("a time-out");
            let stop = stop.clone();
            std::thread::spawn(move || {
                let (mut buffer, mut count) = ([0; 2048], 0);
                while !stop.load(Ordering::Relaxed) {
                    if let Ok((length, from)) = socket.recv_from(&mut buffer) {
                        let _ = socket.send_to(&buffer[..length], from);
                        count += 1;
                    }
                }
                count
            })
        };
        Self { threads: vec![echo(FLOOD), echo(TRACED)], stop }
    }

    fn end(self) -> Vec<u64> {
        self.stop.store(true, Ordering::Relaxed);
        self.threads.into_iter().map(|thread| thread.join().expect("it counts")).collect()
    }
}

fn socket(node: &Node, pair: &Pair, port: u16) -> UdpSocket {
    let socket = node.host.run(|| UdpSocket::bind((node.inner4, 0))).expect("a socket");
    socket.connect((pair.right.inner4, port)).expect("an address");
    socket.set_read_timeout(Some(Duration::from_secs(10))).expect("a time-out");
    socket
}

/// So many packets there and back, [`WINDOW`] of them under way; panics if one is lost. Every thousandth there is one of
/// the other flow beside them.
fn flood(pair: &Pair, packets: u64) -> (u64, Duration) {
    let (many, few) = (socket(&pair.left, pair, FLOOD), socket(&pair.left, pair, TRACED));
    let (began, mut back, mut traced) = (Instant::now(), 0, 0);
    let mut buffer = [0; 2048];
    for sent in 0..packets + WINDOW {
        if sent < packets {
            many.send(&[7; PAYLOAD]).expect("it is sent");
        }
        if sent >= WINDOW {
            many.recv(&mut buffer)
                .unwrap_or_else(|error| panic!("of {packets} one is lost after {back}: {error}"));
            back += 1;
        }
        if sent % 1000 == 0 {
            few.send(&[8; PAYLOAD]).expect("it is sent");
            few.recv(&mut buffer).expect("none of the traced flow is lost, either");
            traced += 1;
        }
    }
    assert_eq!(back, packets);
    (traced, began.elapsed())
}

/// Packets that say that all before them has been read: two, so that what was told behind the first was read, too.
fn finish(pair: &Pair, capture: &Capture) -> u64 {
    let marker = socket(&pair.left, pair, FLOOD);
    let mut sent = 0;
    let seen = |capture: &Capture| {
        let file = fs::read(&capture.files()[0]).expect("a file");
        let of_inner = |block: &&[u8]| word(block, 8) == 0 && word(block, 24) as usize == LAST + 28;
        blocks(&file, PACKET).iter().filter(|block| of_inner(block)).count()
    };
    for pause in 0..2 {
        let before = seen(capture);
        let came = wait_until(PATIENCE, || {
            marker.send(&[9; LAST]).expect("it is sent");
            marker.recv(&mut [0; 2048]).expect("it comes back");
            sent += 1;
            seen(capture) > before
        });
        assert!(came, "the capture stands still (pause {pause})");
    }
    sent
}

fn kilobytes(node: &Node, what: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", node.daemon().pid())).expect("it runs");
    let line = status.lines().find(|line| line.starts_with(what)).expect("a line");
    line.split_whitespace().nth(1).and_then(|number| number.parse().ok()).expect("a number")
}

/// The numbers of "N packets and M carriers; L came too fast".
fn counts(said: &str) -> (u64, u64) {
    let number = |words: &str| words.split_whitespace().next_back().and_then(|word| word.parse::<u64>().ok());
    let said = said.lines().find(|line| line.contains(" carriers")).unwrap_or_else(|| panic!("{said}"));
    let packets = said.split(" packets").next().and_then(number).expect("how many packets");
    let lost =
        said.split(" came too fast").next().filter(|_| said.contains("came too fast")).and_then(number);
    (packets, lost.unwrap_or(0))
}

fn nothing_is_lost_unsaid(name: &str, packets: u64) {
    let pair = Pair::start(name, &Spec::default());
    pair.left.ping(pair.right.inner4, 1);
    let echo = Echo::start(&pair);
    let (unwatched_traced, unwatched) = flood(&pair, packets);
    let before = kilobytes(&pair.left, "VmRSS");

    let capture = Capture::start(&pair.left, &["--snap", "64", &format!("udp port {FLOOD}")]);
    let folder = tempfile::tempdir().expect("a folder");
    let mut trace = pair.left.host.command(env!("CARGO_BIN_EXE_vpnd")).expect("a command");
    let run_dir = pair.left.host.folder().join("vpnd.run");
    let follow = format!("udp and port {TRACED}");
    trace.args(["trace", "--json", "--follow", &follow, "--packets", "100"]).arg("--run-dir").arg(&run_dir);
    trace.stdout(fs::File::create(folder.path().join("pages")).expect("a file")).stderr(Stdio::piped());
    let mut trace = trace.spawn().expect("vpnd runs");
    let tables = || {
        let mut nft = Command::new("nft");
        let output = attempt(&pair.left.host, nft.args(["list", "tables"]));
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    assert!(wait_until(PATIENCE, || tables().contains("vpnd")), "the trace places its table: {}", tables());

    let (traced, watched) = flood(&pair, packets);
    let markers = finish(&pair, &capture);
    let peak = kilobytes(&pair.left, "VmHWM");
    let (_, said, _folder) = capture.interrupt();
    let _ = Command::new("kill").args(["-INT", &trace.id().to_string()]).status();
    assert!(wait_until(PATIENCE, || trace.try_wait().expect("a child of ours").is_some()), "it does not end");
    let pages = fs::read_to_string(folder.path().join("pages")).expect("a file");
    assert!(pages.lines().count() > 0, "the trace has seen nothing of the flow beside the flood");
    assert_eq!(tables().matches("vpnd").count(), 0, "something is left of the trace");

    let came = echo.end();
    assert_eq!(came, [2 * packets + markers, unwatched_traced + traced]);
    // Each, there and back, is in the file or was told to be missing.
    let (written, lost) = counts(&said);
    assert_eq!(written + lost, 2 * (packets + markers), "{said}");
    assert!(peak < before + (64 << 10), "the daemon took {before} kB before, {peak} kB at most");
    let rate = |time: Duration| (2 * packets) as f64 / time.as_secs_f64();
    println!(
        "{packets} packets each way: {:.0}/s unwatched, {:.0}/s watched; {written} written, {lost} told to be missing; \
         {} pages; daemon {before} kB before, {peak} kB at most",
        rate(unwatched),
        rate(watched),
        pages.lines().count()
    );
}

#[test]
fn while_packets_are_looked_at_none_is_lost_and_each_is_in_the_file_or_told_to_be_missing() {
    if need_root() {
        nothing_is_lost_unsaid("capflood", 50_000);
    }
}

#[test]
#[ignore = "for figures, with --release and --nocapture"]
fn the_same_with_two_million_packets() {
    if need_root() {
        nothing_is_lost_unsaid("capfloods", 1_000_000);
    }
}
