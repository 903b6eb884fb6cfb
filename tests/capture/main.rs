//! `vpnd capture` on real tunnels, read back by tshark.
#![allow(clippy::disallowed_methods, reason = "tests measure how long things take")]

#[path = "../common/mod.rs"]
mod common;
mod flood;
mod secrets;
#[path = "../namespaces/world.rs"]
mod world;

use std::{
    fs,
    net::UdpSocket,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use common::need_root;
use world::{Node, Pair, Spec, attempt, wait_until};

const PATIENCE: Duration = Duration::from_secs(30);

/// Is there what reads the files? Without it the test says loudly that it was not run; where CI=true it fails.
fn need_tshark() -> bool {
    if Command::new("tshark").arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok() {
        return true;
    }
    let ci = std::env::var_os("CI").is_some_and(|ci| ci == "true");
    assert!(!ci, "this test needs tshark, and CI must run it");
    eprintln!("\n*** NOT TESTED: tshark is not installed ***\n");
    false
}

struct Capture {
    child: Child,
    folder: tempfile::TempDir,
}

impl Capture {
    fn command(node: &Node, arguments: &[&str], file: &Path) -> Command {
        let mut command = node.host.command(env!("CARGO_BIN_EXE_vpnd")).expect("a command");
        command.arg("capture").args(arguments).arg("--run-dir").arg(node.host.folder().join("vpnd.run"));
        command.arg("-w").arg(file).stderr(Stdio::piped());
        command
    }

    /// Runs when this returns: the daemon has a reader.
    fn start(node: &Node, arguments: &[&str]) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let mut command = Self::command(node, arguments, &folder.path().join("a.pcapng"));
        let child = command.spawn().expect("vpnd runs");
        let capture = Self { child, folder };
        assert!(wait_until(PATIENCE, || !capture.files().is_empty()), "it begins no file");
        capture
    }

    /// In order.
    fn files(&self) -> Vec<PathBuf> {
        let mut files: Vec<_> =
            fs::read_dir(self.folder.path()).expect("a folder").flatten().map(|e| e.path()).collect();
        files.retain(|file| fs::metadata(file).is_ok_and(|meta| meta.len() > 0));
        files.sort();
        files
    }

    /// Ends it as Ctrl-C does; what it says last.
    fn interrupt(self) -> (Vec<PathBuf>, String, tempfile::TempDir) {
        let pid = self.child.id().to_string();
        let status = Command::new("kill").args(["-INT", &pid]).status().expect("kill runs");
        assert!(status.success(), "it has ended already");
        self.finish()
    }

    /// It ends by itself.
    fn finish(mut self) -> (Vec<PathBuf>, String, tempfile::TempDir) {
        let ended = wait_until(PATIENCE, || self.child.try_wait().expect("a child of ours").is_some());
        assert!(ended, "it does not end");
        let files = self.files();
        let output = self.child.wait_with_output().expect("it has ended");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{said}");
        (files, said, self.folder)
    }
}

/// Fields of each frame, as tshark reads them.
fn fields(file: &Path, fields: &[&str]) -> Vec<Vec<String>> {
    let mut command = Command::new("tshark");
    command.args(["-n", "-r"]).arg(file).args(["-T", "fields", "-E", "separator=|"]);
    for field in fields {
        command.args(["-e", field]);
    }
    let output = command.output().expect("tshark runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.lines().map(|line| line.split('|').map(str::to_owned).collect()).collect()
}

const COMMENTED: [&str; 6] = [
    "frame.interface_name",
    "frame.number",
    "frame.comment",
    "frame.len",
    "frame.cap_len",
    "_ws.col.Protocol",
];

#[test]
fn wireshark_reads_both_interfaces_and_the_comments_join_them() {
    if !need_root() || !need_tshark() {
        return;
    }
    let pair = Pair::start("capture", &Spec::default());
    pair.left.ping(pair.right.inner4, 1);
    let capture = Capture::start(&pair.left, &["--packets", "6", "icmp"]);
    pair.left.ping(pair.right.inner4, 3);
    let (files, said, _folder) = capture.finish();
    assert!(said.contains("6 packets and 6 carriers"), "{said}");
    let frames = fields(&files[0], &COMMENTED);
    assert_eq!(frames.len(), 12, "{frames:?}");
    let inner: Vec<_> = frames.iter().filter(|frame| !frame[0].ends_with("-carrier")).collect();
    let carriers: Vec<_> = frames.iter().filter(|frame| frame[0].ends_with("-carrier")).collect();
    assert_eq!((inner.len(), carriers.len()), (6, 6));
    assert!(inner.iter().all(|frame| frame[5] == "ICMP"), "{frames:?}");
    assert!(carriers.iter().all(|frame| frame[5] == "WireGuard" && frame[3] == "156"), "{frames:?}");
    for carrier in carriers {
        let number = carrier[2].split("carries frame ").nth(1).expect("it says which");
        let packet = inner.iter().find(|frame| frame[1] == number).expect("it is there");
        assert!(packet[2].ends_with(&format!("frame {}", carrier[1])), "{carrier:?} {packet:?}");
        let session =
            |comment: &str| comment.split("receiver index ").nth(1).map(|rest| rest[..10].to_owned());
        assert_eq!(session(&carrier[2]), session(&packet[2]));
    }
    // What tshark reads in the carrier is what its comment says.
    for frame in
        fields(&files[0], &["frame.comment", "wg.receiver", "wg.counter", "ip.src", "udp.checksum.status"])
    {
        if let [comment, receiver, counter, source, _] = &frame[..]
            && !counter.is_empty()
        {
            assert!(comment.contains(&format!("receiver index {receiver}, counter {counter};")), "{frame:?}");
            assert_ne!(source, "0.0.0.0", "the kernel knows the source");
        }
    }
}

#[test]
fn packets_are_cut_and_filtered_and_a_pipe_is_fed() {
    if !need_root() || !need_tshark() {
        return;
    }
    let pair = Pair::start("captsnap", &Spec::default());
    pair.left.ping(pair.right.inner4, 1);
    let capture = Capture::start(&pair.left, &["--snap", "64", "icmp and not port 9"]);
    pair.left.ping(pair.right.inner4, 1);
    assert!(wait_until(PATIENCE, || fields(&capture.files()[0], &["frame.number"]).len() >= 4));
    let (files, _, _folder) = capture.interrupt();
    for frame in fields(&files[0], &COMMENTED) {
        let (whole, kept) = if frame[0].ends_with("-carrier") { ("156", "92") } else { ("84", "64") };
        assert_eq!((frame[3].as_str(), frame[4].as_str()), (whole, kept), "{frame:?}");
    }
    let vpnd = env!("CARGO_BIN_EXE_vpnd");
    let run_dir = pair.left.host.folder().join("vpnd.run");
    let line = format!(
        "ping -c 500 -i 0.1 {} >/dev/null & {vpnd} capture --run-dir {} --packets 2 -w - icmp | tshark -n -r - -T fields -e frame.number; kill $!",
        pair.right.inner4,
        run_dir.display()
    );
    let mut command = Command::new("sh");
    command.args(["-c", &line]);
    let output = attempt(&pair.left.host, &command);
    let said = String::from_utf8_lossy(&output.stdout).lines().count();
    assert_eq!(said, 4, "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn a_flood_is_bounded_and_counted_and_a_ring_turns() {
    if !need_root() || !need_tshark() {
        return;
    }
    let pair = Pair::start("captring", &Spec::default());
    pair.left.ping(pair.right.inner4, 1);
    let arguments = ["--rate", "200", "--files", "3", "--size", "40K", "udp port 9"];
    let capture = Capture::start(&pair.left, &arguments);
    let socket = pair.left.host.run(|| UdpSocket::bind("0.0.0.0:0")).expect("a socket");
    let until = |capture: &Capture| {
        capture.files().last().is_some_and(|file| file.to_string_lossy().ends_with("00012"))
    };
    let mut sent = 0;
    let turned = wait_until(PATIENCE, || {
        for _ in 0..2000 {
            let _ = socket.send_to(&[7; 200], (pair.right.inner4, 9));
            sent += 1;
        }
        until(&capture)
    });
    assert!(turned, "{:?}", capture.files());
    let (files, said, _folder) = capture.interrupt();
    assert!((1..=3).contains(&files.len()), "{files:?}");
    for file in &files {
        assert!(fs::metadata(file).expect("a file").len() < 44 << 10);
        assert!(!fields(file, &["frame.number"]).is_empty(), "{file:?} is whole");
    }
    assert!(said.contains("came too fast"), "{sent} sent: {said}");
    let last = fs::read(&files[files.len() - 1]).expect("a file");
    let dropped: Vec<_> = statistics(&last).into_iter().map(|(_, dropped)| dropped).collect();
    assert!(dropped.len() == 2 && dropped.iter().all(|dropped| *dropped > 0), "{dropped:?}");
}

/// The block of a packet.
const PACKET: u32 = 6;

fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

/// The whole blocks of this kind. What is being written may end in the middle of one.
fn blocks(mut file: &[u8], kind: u32) -> Vec<&[u8]> {
    let mut found = Vec::new();
    while file.len() >= 12 && file.len() >= word(file, 4) as usize {
        let (block, rest) = file.split_at(word(file, 4) as usize);
        found.extend((word(block, 0) == kind).then_some(block));
        file = rest;
    }
    found
}

/// What the interface statistics blocks say: interface, and packets dropped (isb_ifdrop).
fn statistics(file: &[u8]) -> Vec<(u32, u64)> {
    let of = |block: &[u8]| {
        let (mut at, mut dropped) = (20, 0);
        while word(block, at) & 0xffff != 0 {
            if word(block, at) & 0xffff == 5 {
                dropped = u64::from(word(block, at + 8)) << 32 | u64::from(word(block, at + 4));
            }
            at += 4 + (word(block, at) >> 16).next_multiple_of(4) as usize;
        }
        (word(block, 8), dropped)
    };
    blocks(file, 5).into_iter().map(of).collect()
}
