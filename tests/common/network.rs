//! A network namespace for one test: it ends with the thread that the test runs in.

use std::{
    net::{IpAddr, UdpSocket},
    panic,
    process::Command,
    thread,
    time::Duration,
};

/// Runs `test` in a thread with a network namespace of its own, `lo` up; skips it, loudly, without root.
pub fn in_own_network(test: impl FnOnce() + Send) {
    if !super::need_root() {
        return;
    }
    let run = || {
        vpnd::sys::namespace::unshare_network().expect("root may make a network namespace");
        ip("link set lo up");
        test();
    };
    let name = thread::current().name().unwrap_or("test").to_owned();
    let outcome = thread::scope(|scope| {
        thread::Builder::new().name(name).spawn_scoped(scope, run).expect("a thread").join()
    });
    outcome.unwrap_or_else(|panicked| panic::resume_unwind(panicked));
}

/// Runs `ip` in the namespace of this thread.
#[track_caller]
pub fn ip(arguments: &str) -> String {
    let output = Command::new("ip").args(arguments.split_whitespace()).output().expect("iproute2 is there");
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "ip {arguments}: {error}");
    String::from_utf8(output.stdout).expect("ip prints text")
}

/// Gives a device an address (without its prefix length) and waits until it is local. The kernel makes an IPv6
/// address local in its own time, after it has said yes.
#[track_caller]
pub fn add_address(address: &str, device: &str) {
    let address: IpAddr = address.parse().expect("an IP address");
    let (prefix, nodad) = if address.is_ipv6() { (128, "nodad") } else { (32, "") };
    ip(&format!("address add {address}/{prefix} dev {device} {nodad}"));
    let reaches_itself = || {
        let socket = UdpSocket::bind((address, 0))?;
        socket.set_read_timeout(Some(Duration::from_millis(20)))?;
        socket.send_to(b"x", socket.local_addr()?)?;
        socket.recv(&mut [0; 1])
    };
    let local = (0..100).any(|_| reaches_itself().is_ok() || wait());
    assert!(local, "{address} never became local");
}

/// A moment; false, so that it can stand behind an `or`.
fn wait() -> bool {
    thread::sleep(Duration::from_millis(20));
    false
}
