//! A disk that is full, or read-only, or whose writer dies in the middle.

use std::{
    fs,
    process::{Command, Stdio},
    thread,
    time::Duration,
};

use vpnd::{lab::Host, noise::PrivateKey, sys::random::os_rng};

use crate::{
    Torment,
    dice::Dice,
    outages::{VPND, signal},
    report::Figure,
    world::{DEVICE, PORT, attempt, sh, wait_until},
};

const LONG: Duration = Duration::from_secs(10);

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
        let mut writing = add(&format!("peer{n}"));
        writing.stdout(Stdio::null());
        let mut writer = host.spawn("add", writing).expect("it starts");
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
