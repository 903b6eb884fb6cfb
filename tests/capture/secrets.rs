//! Keys in a capture: given only to root, only where the file permits it, never unsaid; and then Wireshark opens the carriers.

use std::{
    fs,
    os::unix::{fs::PermissionsExt, process::CommandExt},
    path::Path,
    process::{Command, Output},
};

use super::{
    Capture, PATIENCE, blocks, fields, need_tshark,
    world::{Node, Pair, Spec, wait_until},
};
use crate::common::need_root;

const PERMITTED: &str = "capture_secrets = true";
const SECRETS: u32 = 10;

/// The lines of all its blocks of secrets.
fn keys(file: &Path) -> Vec<String> {
    let bytes = fs::read(file).expect("a file");
    let lines = |block: &[u8]| {
        let length = super::word(block, 12) as usize;
        String::from_utf8_lossy(&block[16..16 + length]).lines().map(str::to_owned).collect::<Vec<_>>()
    };
    blocks(&bytes, SECRETS).into_iter().flat_map(lines).collect()
}

/// Messages of this type among its carriers (over IPv4).
fn messages(file: &Path, kind: u8) -> usize {
    let bytes = fs::read(file).expect("a file");
    let is_one = |block: &[u8]| super::word(block, 8) == 1 && block[28 + 20 + 8] == kind;
    blocks(&bytes, super::PACKET).into_iter().filter(|block| is_one(block)).count()
}

fn reload(node: &Node, from: &str, to: &str) {
    let path = node.daemon().config();
    let text = fs::read_to_string(path).expect("its file");
    fs::write(path, text.replace(from, to)).expect("a file");
    let mut command = Command::new(env!("CARGO_BIN_EXE_vpnd"));
    command.arg("reload").arg("--run-dir").arg(node.host.folder().join("vpnd.run"));
    let output = super::attempt(&node.host, &command);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// A capture that cannot begin, and what it says.
fn refused(mut command: Command) -> String {
    let Output { status, stderr, .. } = command.output().expect("vpnd runs");
    assert_eq!(status.code(), Some(1));
    String::from_utf8_lossy(&stderr).into_owned()
}

#[test]
fn with_secrets_wireshark_opens_the_carriers_of_both_ends_and_finds_the_packets_in_them() {
    if !need_root() || !need_tshark() {
        return;
    }
    let spec = Spec { preshared: true, interface: PERMITTED.to_owned(), ..Spec::default() };
    let pair = Pair::start("capkeys", &spec);
    pair.left.ping(pair.right.inner4, 1);
    // The right one answers the handshake that the left one begins.
    let theirs = Capture::start(&pair.right, &["--with-secrets", "icmp"]);
    let ours = Capture::start(&pair.left, &["--with-secrets", "--renew", "icmp"]);
    let renewed = |capture: &Capture| keys(&capture.files()[0]).len() == 4;
    assert!(wait_until(PATIENCE, || renewed(&ours) && renewed(&theirs)), "no new handshake is seen");
    pair.left.ping(pair.right.inner4, 3);
    let complete = |capture: &Capture| {
        blocks(&fs::read(&capture.files()[0]).expect("a file"), super::PACKET).len() >= 14
    };
    assert!(wait_until(PATIENCE, || complete(&ours) && complete(&theirs)), "not all came");
    let given = || pair.left.status()["operation"]["secrets_given"].as_bool().expect("a truth");
    assert!(given());
    let [(ours, said, _a), (theirs, _, _b)] = [ours, theirs].map(Capture::interrupt);
    for file in [&ours[0], &theirs[0]] {
        let wanted = ["frame.interface_name", "frame.number", "frame.comment", "icmp.seq", "icmp.checksum"];
        let frames = fields(file, &[&wanted[..], &["ip.dst", "wg.handshake_ok", "wg.type"]].concat());
        let carriers: Vec<_> = frames.iter().filter(|frame| frame[2].contains("carries frame ")).collect();
        assert!(carriers.len() >= 6, "{frames:#?}");
        for carrier in carriers {
            let number = carrier[2].split("carries frame ").nth(1).expect("it says which");
            let packet = frames.iter().find(|frame| frame[1] == number).expect("it is there");
            assert!(!carrier[3].is_empty(), "it is not opened: {frames:#?}");
            assert_eq!(carrier[3..5], packet[3..5], "{carrier:?} {packet:?}");
            assert!(
                carrier[5].ends_with(&format!(",{}", packet[5])),
                "an address in an address: {carrier:?}"
            );
        }
        let of_type = |kind| frames.iter().filter(move |frame| frame[7] == kind);
        assert!(of_type("1").count() >= 1 && of_type("2").count() >= 1, "{frames:#?}");
        assert!(of_type("2").all(|frame| frame[6] == "1" || frame[6] == "True"), "{frames:#?}");
    }
    // It is said, before and while: by the command, the log, the events and the status.
    assert!(said.contains("WITH SECRETS") && said.contains("messages of handshakes"), "{said}");
    let log = || pair.left.daemon().log();
    assert!(log().contains("a capture is given the private key"), "{}", log());
    assert!(wait_until(PATIENCE, || log().contains("keys are given to no capture any more")), "{}", log());
    assert!(wait_until(PATIENCE, || !given()), "{}", log());
}

#[test]
fn without_being_told_a_capture_has_the_handshakes_and_no_key() {
    if !need_root() || !need_tshark() {
        return;
    }
    let spec = Spec { preshared: true, interface: PERMITTED.to_owned(), ..Spec::default() };
    let pair = Pair::start("capnokey", &spec);
    pair.left.ping(pair.right.inner4, 1);
    let capture = Capture::start(&pair.left, &["--renew", "icmp"]);
    let seen = || [1, 2].map(|kind| messages(&capture.files()[0], kind));
    assert!(wait_until(PATIENCE, || seen() == [1, 1]), "{:?}", seen());
    let (files, said, _folder) = capture.interrupt();
    let frames = fields(&files[0], &["wg.type", "frame.comment"]);
    let says = |kind, said| frames.iter().any(|frame| frame[0] == kind && frame[1].contains(said));
    assert!(says("1", "handshake initiation, sender index 0x"), "{frames:?}");
    assert!(says("2", "handshake response, sender index 0x"), "{frames:?}");
    assert_eq!(keys(&files[0]), [""; 0]);
    assert!(!said.contains("SECRETS"), "{said}");
    let file = fs::read(&files[0]).expect("a file");
    let key = pair.left.private.to_base64();
    assert!(!file.windows(key.len()).any(|bytes| bytes == key.as_bytes()));
    assert!(!pair.left.daemon().log().contains("is given the private key"));
}

#[test]
fn keys_are_refused_where_the_file_does_not_permit_it_and_to_who_is_not_root() {
    if !need_root() {
        return;
    }
    let interface = "socket_owner = \"65534\"".to_owned();
    let pair = Pair::start("capdeny", &Spec { interface, ..Spec::default() });
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("a.pcapng");
    let capture = || Capture::command(&pair.left, &["--with-secrets"], &file);
    let said = refused(capture());
    assert!(said.contains("write capture_secrets = true under [interface]"), "{said}");
    assert!(!file.exists(), "nothing is begun");

    reload(&pair.left, "socket_owner", "capture_secrets = true\nsocket_owner");
    // The owner of the sockets may do all with the tunnel, but this. (The test's folder is closed to him.)
    for path in [pair.left.host.folder().to_owned(), pair.left.host.folder().join("vpnd.run")] {
        fs::set_permissions(path, fs::Permissions::from_mode(0o711)).expect("it is ours");
    }
    let mut stream = asked_by_somebody(&pair.left, "/v1/trace?secrets=1");
    assert!(stream.contains("403") && stream.contains("told to root alone"), "{stream}");
    stream = asked_by_somebody(&pair.left, "/v1/status");
    assert!(stream.contains("200 OK"), "{stream}");
}

/// What the daemon answers to user 65534.
fn asked_by_somebody(node: &Node, path: &str) -> String {
    let socket = node.host.folder().join("vpnd.run/vpnd/vpn0.sock");
    // Of perl-base, which each Debian has: this program may lie where that user cannot read.
    let script = "use IO::Socket::UNIX; my $s = IO::Socket::UNIX->new(Peer => $ARGV[0]) or die $!; \
        print $s qq(GET $ARGV[1] HTTP/1.0\\r\\n\\r\\n); $s->flush; $s->sysread(my $said, 4096); print $said";
    let mut command = Command::new("perl");
    command.args(["-e", script]).arg(socket).arg(path).uid(65534).gid(65534);
    let output = command.output().expect("perl runs");
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

#[test]
fn a_reload_that_takes_the_permission_back_ends_it_for_a_capture_that_runs() {
    if !need_root() || !need_tshark() {
        return;
    }
    let pair = Pair::start("capback", &Spec { interface: PERMITTED.to_owned(), ..Spec::default() });
    pair.left.ping(pair.right.inner4, 1);
    let capture = Capture::start(&pair.left, &["--with-secrets", "--renew", "icmp"]);
    assert!(wait_until(PATIENCE, || keys(&capture.files()[0]).len() == 3));
    reload(&pair.left, PERMITTED, "");
    let log = || pair.left.daemon().log();
    assert!(wait_until(PATIENCE, || log().contains("keys are given to no capture any more")), "{}", log());
    let another = Capture::start(&pair.left, &["--renew", "icmp"]);
    let initiations = || messages(&capture.files()[0], 1);
    assert!(wait_until(PATIENCE, || initiations() == 2), "{} initiations", initiations());
    another.interrupt();
    let (files, _, _folder) = capture.interrupt();
    assert_eq!(keys(&files[0]).len(), 3, "no key came after that");
}
