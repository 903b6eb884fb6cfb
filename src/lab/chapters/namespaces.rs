//! Network namespaces, and the cable between them: what a namespace has of its own, and that a veth is two devices.

use std::{
    io,
    net::{TcpListener, TcpStream},
};

use super::{
    Chapter, Stage,
    sheet::Part,
    stage::{PATIENCE, at, cable, heard, ip, mac, send, udp, until, yes},
};
use crate::lab::{
    error::{Attempted, LabError},
    host::Host,
    link, neighbours,
};

const PICTURE: &str = "left                      right\n10.0.0.1 veth0 ────────── veth0 10.0.0.2";

pub(super) const CHAPTER: Chapter =
    Chapter { name: "namespaces", title: "Namespaces, and the veth between them", picture: PICTURE, lab };

fn lab(stage: &mut Stage) -> Result<Vec<Part>, LabError> {
    let (left, right) = (stage.host("left")?, stage.host("right")?);
    Ok(vec![
        empty(&left)?,
        two_ends(&left, &right)?,
        worlds(&left, &right)?,
        carrier(&left, &right)?,
        both_go(&left, &right)?,
    ])
}

/// The devices of a host, in one line.
fn devices(host: &Host) -> Result<String, LabError> {
    // /sys shows the namespace in which it was mounted; /proc/net that of the thread.
    let text = host.run(|| std::fs::read_to_string("/proc/thread-self/net/dev"));
    let text = text.attempted(|| format!("list the devices of {}", host.name()))?;
    let mut names: Vec<&str> = text
        .lines()
        .filter_map(|line| Some(line.split_once(':')?.0.trim()))
        .filter(|name| made(name))
        .collect();
    names.sort_unstable();
    Ok(names.join(", "))
}

/// Some kernels put devices of their own into each namespace (sit0, tunl0, …), for tunnels that nobody set up.
fn made(name: &str) -> bool {
    name == "lo" || name.starts_with("veth")
}

fn empty(left: &Host) -> Result<Part, LabError> {
    let mut part = Part::new("What a new namespace has");
    part.table(
        ["left", ""],
        &[
            ["devices".to_owned(), devices(left)?],
            ["a way to 10.0.0.2".to_owned(), way(left, "10.0.0.2")],
            ["a way to itself, 127.0.0.1".to_owned(), way(left, "127.0.0.1")],
        ],
    );
    Ok(part)
}

fn way(host: &Host, to: &str) -> String {
    match link::decide(host, ip(to), 0) {
        Ok(answer) => format!("by {}", answer.device),
        Err(LabError::System { source, .. }) if source.raw_os_error() == Some(101) => {
            "network is unreachable".to_owned()
        }
        Err(error) => error.to_string(),
    }
}

fn two_ends(left: &Host, right: &Host) -> Result<Part, LabError> {
    let mut part = Part::new("What one end sends, the other end receives");
    cable((left, "veth0", 0x01), (right, "veth0", 0x02))?;
    left.add_address("veth0", "10.0.0.1/24")?;
    right.add_address("veth0", "10.0.0.2/24")?;
    neighbours::add(left, "veth0", ip("10.0.0.2"), mac(0x02))?;
    neighbours::add(right, "veth0", ip("10.0.0.1"), mac(0x01))?;
    let (from, to) = (udp(left, "10.0.0.1:5000")?, udp(right, "10.0.0.2:5000")?);
    let before = [link::passed(left, "veth0")?, link::passed(right, "veth0")?];
    for _ in 0..3 {
        send(&from, 100, "10.0.0.2:5000")?;
        heard(&to)?;
    }
    let row = |name: &str, moved: link::Passed| {
        let [a, b, c, d] = [moved.tx_packets, moved.tx_bytes, moved.rx_packets, moved.rx_bytes];
        [name.to_owned(), a.to_string(), b.to_string(), c.to_string(), d.to_string()]
    };
    let rows = [
        row("left", link::passed(left, "veth0")? - before[0]),
        row("right", link::passed(right, "veth0")? - before[1]),
    ];
    part.line("Three datagrams of 100 bytes from left to right:");
    part.blank();
    part.table(["veth0 of", "tx packets", "tx bytes", "rx packets", "rx bytes"], &rows);
    Ok(part)
}

fn worlds(left: &Host, right: &Host) -> Result<Part, LabError> {
    let mut part = Part::new("127.0.0.1 is another machine in each namespace");
    let what = || "listen on right".to_owned();
    let loopback = right.run(|| TcpListener::bind("127.0.0.1:5001")).attempted(what)?;
    let outside = right.run(|| TcpListener::bind("10.0.0.2:5001")).attempted(what)?;
    let again = left.run(|| TcpListener::bind("127.0.0.1:5001")).is_ok();
    part.line(format!(
        "a program on right listens on port 5001 of 127.0.0.1; can one on left, too? {}",
        yes(again)
    ));
    part.blank();
    let connect = |host: &Host, address: &str| {
        let result = host.run(|| TcpStream::connect_timeout(&at(address), PATIENCE)).map(drop);
        match result {
            Ok(()) => "connected".to_owned(),
            Err(e) if e.kind() == io::ErrorKind::ConnectionRefused => "connection refused".to_owned(),
            Err(e) => e.to_string(),
        }
    };
    let rows = [
        (right, "right", "127.0.0.1:5001"),
        (left, "left", "127.0.0.1:5001"),
        (left, "left", "10.0.0.2:5001"),
    ]
    .map(|(host, name, address)| [name.to_owned(), address.to_owned(), connect(host, address)]);
    part.table(["on", "connects to", "and is"], &rows);
    drop((loopback, outside));
    Ok(part)
}

fn carrier(left: &Host, right: &Host) -> Result<Part, LabError> {
    let mut part = Part::new("A cable with one end unplugged");
    let seen = |host: &Host| {
        link::carrier(host, "veth0").map(|up| if up { "carrier" } else { "no carrier" }.to_owned())
    };
    let mut rows = vec![["both up".to_owned(), seen(left)?, seen(right)?]];
    link::down(right, "veth0")?;
    until(|| link::carrier(left, "veth0"), |up| !up)?;
    rows.push(["right's end set down".to_owned(), seen(left)?, seen(right)?]);
    link::up(right, "veth0")?;
    until(|| link::carrier(left, "veth0"), |up| *up)?;
    rows.push(["and up again".to_owned(), seen(left)?, seen(right)?]);
    part.table(["", "left sees", "right sees"], &rows);
    Ok(part)
}

fn both_go(left: &Host, right: &Host) -> Result<Part, LabError> {
    let mut part = Part::new("Delete one end, and both are gone");
    let mut rows = vec![["before".to_owned(), devices(left)?, devices(right)?]];
    link::delete(left, "veth0")?;
    until(|| devices(right), |devices| !devices.contains("veth0"))?;
    rows.push(["after left deleted veth0".to_owned(), devices(left)?, devices(right)?]);
    part.table(["", "left has", "right has"], &rows);
    Ok(part)
}
