//! The time of day goes back between two starts: whoever was sent later timestamps before takes no older ones.

use std::{fs, net::IpAddr, path::PathBuf, time::Duration};

use vpnd::{lab::Host, noise::PrivateKey, sys::random::os_rng};

use crate::{
    common::need_root,
    world::{DEVICE, Node, PORT, Running, cable, start_vpnd, wait_until},
};

/// Nothing here takes a tenth of that on an idle machine.
const LONG: Duration = Duration::from_secs(20);
const YEAR: i64 = 365 * 86_400;
const FAR: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 77, 0, 2));

/// A far end that lives on, and one that begins each session and is started again and again.
struct Ends {
    far: Node,
    host: Host,
    toml: String,
}

impl Ends {
    fn new(name: &str) -> Self {
        let (host, far) = cable(name, 1500);
        let [private, far_key] = [(); 2].map(|()| PrivateKey::generate(&mut os_rng()));
        let file = |own: &PrivateKey, n: u8, other: &PrivateKey, endpoint: &str| {
            format!(
                "[interface]\nname = \"{DEVICE}\"\nprivate_key = \"{}\"\nlisten_port = {PORT}\naddress = [\"10.77.0.{n}/24\"]\n\
                 [[peer]]\npublic_key = \"{}\"\nallowed_ips = [\"10.77.0.{}/32\"]\n{endpoint}",
                *own.to_base64(),
                other.public_key(),
                3 - n,
            )
        };
        let running = start_vpnd(&far, &file(&far_key, 2, &private, ""), &[]);
        let toml = file(&private, 1, &far_key, &format!("endpoint = \"192.0.2.2:{PORT}\"\n"));
        let [inner4, inner6, outer] =
            ["10.77.0.2", "fd77::2", "192.0.2.2"].map(|text| text.parse().expect("an address"));
        let far = Node {
            host: far,
            kind: crate::world::Kind::Vpnd,
            private: far_key,
            inner4,
            inner6,
            outer,
            running,
        };
        Self { far, host, toml }
    }

    /// Starts with a clock that is so many seconds ahead, asks the far end, and stops; was there an answer, and what
    /// was logged?
    #[track_caller]
    fn asks(&self, ahead: i64, patience: Duration, end: fn(&mut vpnd::lab::Daemon)) -> (bool, String) {
        let arguments = ["--wall-clock-ahead".to_owned(), ahead.to_string()];
        let Running::Vpnd(mut daemon) = start_vpnd(&self.host, &self.toml, &arguments) else {
            unreachable!("it is vpnd")
        };
        let answered = wait_until(patience, || self.host.reaches(FAR).is_ok_and(|answered| answered));
        end(&mut daemon);
        (answered, daemon.log())
    }

    /// The record of its timestamps.
    fn record(&self) -> PathBuf {
        let folder = fs::read_dir(self.host.folder().join("vpnd.state")).expect("the state directory");
        folder.flatten().map(|entry| entry.path()).find(|path| path.extension().is_none()).expect("a record")
    }
}

fn stops(daemon: &mut vpnd::lab::Daemon) {
    // It waits for the disk, which others may keep busy.
    let status = daemon.stop().ok().or_else(|| daemon.wait(LONG));
    assert!(status.is_some_and(|status| status.success()), "{}", daemon.log());
}

fn is_killed(daemon: &mut vpnd::lab::Daemon) {
    daemon.kill9();
}

#[test]
fn a_clock_that_was_years_ahead_and_is_right_again_locks_nobody_out_unless_the_record_is_lost() {
    if !need_root() {
        return;
    }
    let ends = Ends::new("clock");
    // Ten years ahead, and killed: not even then is anything forgotten.
    let (answered, log) = ends.asks(10 * YEAR, LONG, is_killed);
    assert!(answered, "{log}");
    for ahead in [0, 5 * YEAR, -30 * YEAR] {
        let (answered, log) = ends.asks(ahead, LONG, stops);
        assert!(answered, "{ahead} s: {log}");
        assert!(!log.contains("WARN"), "{log}");
    }
    assert_eq!(ends.far.refused("timestamp_not_newer"), 0);

    // What a record is good for is seen where there is none: a damaged one is as good as none, and says so.
    let (path, text) = (ends.record(), fs::read_to_string(ends.record()).expect("text"));
    fs::write(&path, text.replace("newest = 4", "newest = 5")).expect("it can be written");
    let short = Duration::from_millis(1500);
    let (answered, log) = ends.asks(0, short, stops);
    assert!(!answered && log.contains("WARN the timestamps of earlier runs cannot be read"), "{log}");
    assert!(log.contains("it is damaged") && log.contains("peers take no handshake of ours"), "{log}");
    assert!(ends.far.refused("timestamp_not_newer") > 0);

    // A lost one, beside others.
    fs::remove_file(&path).expect("it is there");
    fs::write(path.with_file_name("timestamp-of-another-key"), "x").expect("it can be written");
    let (answered, log) = ends.asks(0, short, stops);
    assert!(!answered && log.contains("WARN no timestamps of earlier runs are kept for this key"), "{log}");

    // Put back from a backup it opens the way again.
    fs::write(&path, &text).expect("it can be written");
    let (answered, log) = ends.asks(0, LONG, stops);
    assert!(answered, "{log}");
}

#[test]
fn a_state_directory_that_cannot_be_written_is_a_warning_and_no_more() {
    if !need_root() {
        return;
    }
    let ends = Ends::new("state");
    fs::write(ends.host.folder().join("vpnd.state"), "in the way").expect("the host's own folder");
    let (answered, log) = ends.asks(0, LONG, stops);
    assert!(answered, "{log}");
    let warning =
        log.lines().find(|line| line.contains("the newest timestamp cannot be kept")).expect("a warning");
    assert!(
        warning.contains(" WARN ") && warning.contains("--state-dir") && warning.contains("vpnd.state"),
        "{warning}"
    );
}
