//! MTU: what a router says of a packet that is too large, what happens when nobody may hear it, and the cures.

use std::{
    io::{self, Read, Write},
    net::{TcpListener, TcpStream},
    time::Duration,
};

use super::{
    Chapter, Stage, frames,
    rules::Rules,
    sheet::Part,
    stack::listing,
    stage::{PATIENCE, at, cable, heard, ip, send, udp, until, yes},
};
use crate::lab::{
    capture::Capture,
    error::{Attempted, LabError},
    host::Host,
    link,
};

const PICTURE: &str = "left              router                far               right\n\
     10.0.1.2 ────── 10.0.1.1│10.0.3.1 ────── 10.0.3.2│10.0.2.1 ────── 10.0.2.2\n\
     \x20       MTU 1500            MTU 1280            MTU 1500";

pub(super) const CHAPTER: Chapter =
    Chapter { name: "mtu", title: "MTU, and the black hole", picture: PICTURE, lab };

fn lab(stage: &mut Stage) -> Result<Vec<Part>, LabError> {
    let hosts = narrow(stage)?;
    Ok(vec![too_large(&hosts)?, segments(&hosts)?, black_hole(&hosts)?])
}

/// Two routers between left and right, and between them a link that takes less.
fn narrow(stage: &mut Stage) -> Result<[Host; 3], LabError> {
    let [left, router, far, right] =
        [stage.host("left")?, stage.host("router")?, stage.host("far")?, stage.host("right")?];
    cable((&left, "eth0", 0x01), (&router, "eth0", 0x10))?;
    cable((&router, "eth1", 0x20), (&far, "eth0", 0x30))?;
    cable((&far, "eth1", 0x40), (&right, "eth0", 0x02))?;
    for (host, device, address) in [
        (&left, "eth0", "10.0.1.2/24"),
        (&router, "eth0", "10.0.1.1/24"),
        (&router, "eth1", "10.0.3.1/24"),
        (&far, "eth0", "10.0.3.2/24"),
        (&far, "eth1", "10.0.2.1/24"),
    ] {
        host.add_address(device, address)?;
    }
    // Each experiment has a destination of its own: the sender remembers what it learned of a path.
    for last in 2..=6 {
        right.add_address("eth0", &format!("10.0.2.{last}/24"))?;
    }
    left.add_route("0.0.0.0/0", Some(ip("10.0.1.1")), "eth0")?;
    router.add_route("10.0.2.0/24", Some(ip("10.0.3.2")), "eth1")?;
    far.add_route("0.0.0.0/0", Some(ip("10.0.3.1")), "eth0")?;
    right.add_route("0.0.0.0/0", Some(ip("10.0.2.1")), "eth0")?;
    link::mtu(&router, "eth1", 1280)?;
    link::mtu(&far, "eth0", 1280)?;
    for host in [&router, &far] {
        host.sysctl("ipv4.ip_forward", "1")?;
    }
    Ok([left, router, right])
}

/// What was captured, without ARP, which asks and repeats when it likes.
fn captured(capture: &Capture) -> Result<Vec<Vec<u8>>, LabError> {
    let mut frames = capture.frames()?;
    frames.retain(|frame| frame.get(12..14) == Some(&[0x08, 0x00]));
    Ok(frames)
}

fn too_large([left, _, right]: &[Host; 3]) -> Result<Part, LabError> {
    let mut part = Part::new("A datagram that does not fit, twice");
    let (from, to) = (udp(left, "10.0.1.2:40000")?, udp(right, "10.0.2.2:5000")?);
    let capture = Capture::start(left, "eth0")?;
    send(&from, 1400, "10.0.2.2:5000")?;
    let mut seen = Vec::new();
    let more = || {
        seen.extend(captured(&capture)?);
        Ok(seen.len())
    };
    until(more, |&frames| frames >= 2)?;
    part.line("1400 bytes from left to right, as eth0 of left sees it:");
    part.blank();
    listing(&mut part, &seen);
    part.blank();
    send(&from, 1400, "10.0.2.2:5000")?;
    let got = heard(&to)?.map_or(0, |(length, _)| length);
    part.line("and once more:");
    part.blank();
    listing(&mut part, &captured(&capture)?);
    part.blank();
    part.line(format!("right's program received {got} bytes, once"));
    Ok(part)
}

fn segments([left, _, right]: &[Host; 3]) -> Result<Part, LabError> {
    let mut part = Part::new("TCP learns, too, and cuts smaller");
    let wire = Capture::start(right, "eth0")?;
    let whole = transfer(left, right, "10.0.2.3:5000", PATIENCE).attempted(|| "send by TCP".to_owned())?;
    let seen = wire.frames()?;
    part.table(
        ["left → right", ""],
        &[
            ["left's offer, in its SYN".to_owned(), offer(&seen)],
            ["100,000 bytes arrived".to_owned(), yes(whole)],
        ],
    );
    Ok(part)
}

/// The MSS in the first SYN that was captured.
fn offer(seen: &[Vec<u8>]) -> String {
    let syn = seen.iter().map(|frame| frames::frame(frame)).find(|told| told.contains("SYN"));
    syn.as_deref().and_then(|syn| syn.rsplit_once(", ")).map_or("–", |(_, size)| size).to_owned()
}

const DEAF: &str = "\
table ip vpnd_deaf {
    chain output { type filter hook output priority 0; icmp type destination-unreachable drop; }
}
";

const CLAMP: &str = "\
table ip vpnd_clamp {
    chain forward { type filter hook forward priority mangle; tcp flags syn tcp option maxseg size set rt mtu; }
}
";

fn black_hole([left, router, right]: &[Host; 3]) -> Result<Part, LabError> {
    let mut part = Part::new("A black hole, and two cures");
    part.line("On router, which shall not send ICMP errors any more:");
    part.text(DEAF);
    part.blank();
    Rules::place(router, DEAF)?;
    let mut rows = Vec::new();
    let mut attempt = |what: &str, address: &str, works: bool| {
        let wire = Capture::start(right, "eth0")?;
        let limit = if works { PATIENCE } else { Duration::from_secs(2) };
        let whole = transfer(left, right, address, limit).attempted(|| format!("send to {address}"))?;
        rows.push([what.to_owned(), offer(&wire.frames()?), "yes".to_owned(), yes(whole)]);
        Ok::<_, LabError>(())
    };
    attempt("nothing is done", "10.0.2.4:5000", false)?;
    Rules::place(router, CLAMP)?;
    attempt("router lowers the MSS", "10.0.2.5:5000", true)?;
    Rules::place(router, "table ip vpnd_clamp {\n}\n")?;
    link::mtu(left, "eth0", 1280)?;
    attempt("left's own MTU is 1280", "10.0.2.6:5000", true)?;
    part.table(["", "right hears", "500 bytes arrive", "100,000 bytes arrive"], &rows);
    part.blank();
    part.line("The rule that lowers it:");
    part.text(CLAMP);
    Ok(part)
}

/// Sends 500 bytes and, when they have arrived, 100,000 more. Did those arrive within `limit`? An error: not even the
/// first ones did.
fn transfer(left: &Host, right: &Host, address: &str, limit: Duration) -> io::Result<bool> {
    let listener = right.run(|| TcpListener::bind(address))?;
    let mut client = left.run(|| TcpStream::connect_timeout(&at(address), PATIENCE))?;
    let (mut server, _) = listener.accept()?;
    server.set_read_timeout(Some(PATIENCE))?;
    client.write_all(&[0; 500])?;
    server.read_exact(&mut [0; 500])?;
    // The socket's buffer takes it whole: nobody waits here for the other side.
    client.set_nonblocking(true)?;
    let mut left_to_send: &[u8] = &[0; 100_000];
    server.set_read_timeout(Some(limit))?;
    let mut received = 0;
    let mut buffer = [0; 65_536];
    while received < 100_000 {
        match client.write(left_to_send) {
            Ok(written) => left_to_send = &left_to_send[written..],
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
            Err(e) => return Err(e),
        }
        match server.read(&mut buffer) {
            Ok(0) => return Ok(false),
            Ok(length) => received += length,
            Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                return Ok(false);
            }
            Err(e) => return Err(e),
        }
    }
    Ok(true)
}
