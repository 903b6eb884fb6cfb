//! How Linux moves a packet: what each layer adds, who asks for hardware addresses, what comes back when nobody listens.

use std::{
    io::{self, ErrorKind, Read, Write},
    net::{TcpListener, TcpStream},
};

use socket2::{Domain, Socket, Type};

use super::{
    Chapter, Stage, frames,
    rules::Rules,
    sheet::{Part, about},
    stage::{PAIR, PATIENCE, at, heard, send, udp, until},
};
use crate::lab::{
    capture::Capture,
    error::{Attempted, LabError},
    host::Host,
    link, neighbours,
};

pub(super) const CHAPTER: Chapter =
    Chapter { name: "stack", title: "How Linux moves a packet", picture: PAIR, lab };

fn lab(stage: &mut Stage) -> Result<Vec<Part>, LabError> {
    let (left, right) = stage.pair()?;
    Ok(vec![
        first_contact(&left, &right)?,
        layers(&left, &right)?,
        bytes(&left, &right)?,
        connection(&left, &right)?,
        nobody(&left)?,
    ])
}

/// The frames that a capture saw, one line each.
pub(super) fn listing(part: &mut Part, seen: &[Vec<u8>]) {
    let row = |(number, frame): (usize, &Vec<u8>)| {
        [(number + 1).to_string(), frame.len().to_string(), frames::frame(frame)]
    };
    let rows: Vec<_> = seen.iter().enumerate().map(row).collect();
    part.table(["frame", "bytes", "what it is"], &rows);
}

fn first_contact(left: &Host, right: &Host) -> Result<Part, LabError> {
    let mut part = Part::new("The first datagram to a neighbour");
    let told = |part: &mut Part, when: &str| {
        let known = neighbours::known(left, "eth0")?;
        let words = |n: &neighbours::Neighbour| {
            let hardware = n.hardware.as_deref().map_or_else(|| "not found".to_owned(), frames::mac);
            format!("{} is at {hardware}", n.address)
        };
        let list: Vec<String> = known.iter().map(words).collect();
        let list = if list.is_empty() { "nobody".to_owned() } else { list.join(", ") };
        part.line(format!("left knows {when}: {list}"));
        Ok::<_, LabError>(())
    };
    told(&mut part, "before")?;
    let (from, to) = (udp(left, "192.0.2.1:40000")?, udp(right, "192.0.2.2:5000")?);
    let capture = Capture::start(left, "eth0")?;
    send(&from, 100, "192.0.2.2:5000")?;
    heard(&to)?;
    told(&mut part, "after")?;
    part.blank();
    let seen = capture.frames()?;
    let row = |frame: &Vec<u8>| [frame.len().to_string(), frames::hardware(frame), frames::frame(frame)];
    part.table(["bytes", "from → to (hardware)", "what it is"], &seen.iter().map(row).collect::<Vec<_>>());
    Ok(part)
}

fn layers(left: &Host, right: &Host) -> Result<Part, LabError> {
    let mut part = Part::new("What each layer adds to 100 bytes");
    let rules = Rules::place(
        left,
        "table ip vpnd_lab {\n chain output { type filter hook output priority 0; udp dport 5000 counter; }\n}",
    )?;
    let (from, to) = (udp(left, "192.0.2.1:40000")?, udp(right, "192.0.2.2:5000")?);
    let before = link::passed(left, "eth0")?;
    send(&from, 100, "192.0.2.2:5000")?;
    let got = heard(&to)?.map_or(0, |(length, _)| length);
    let ip_bytes = rules.read()?.get("output").map_or(0, |count| count.bytes);
    let device = (link::passed(left, "eth0")? - before).tx_bytes;
    let row = |layer: &str, adds: u64, sum: u64, counted: String| {
        [layer.to_owned(), adds.to_string(), sum.to_string(), counted]
    };
    part.table(
        ["layer", "adds", "sum", "counted"],
        &[
            row("the program's data", 100, 100, String::new()),
            row("UDP: ports, length, checksum", 8, 108, String::new()),
            row(
                "IPv4: addresses, length, TTL, protocol",
                20,
                128,
                format!("{ip_bytes} by netfilter, at OUTPUT"),
            ),
            row("Ethernet: hardware addresses, type", 14, 142, format!("{device} by the device eth0")),
        ],
    );
    part.blank();
    part.line(format!("right's program received {got} bytes: every header was taken off again"));
    Ok(part)
}

fn bytes(left: &Host, right: &Host) -> Result<Part, LabError> {
    let mut part = Part::new("A frame, byte for byte");
    let (from, to) = (udp(left, "192.0.2.1:40000")?, udp(right, "192.0.2.2:5000")?);
    let capture = Capture::start(right, "eth0")?;
    send(&from, 9, "192.0.2.2:5000")?;
    heard(&to)?;
    let seen = capture.frames()?;
    let frame = seen.first().ok_or_else(|| LabError::Unexpected("no frame was captured".to_owned()))?;
    const FIELDS: [(usize, &str); 17] = [
        (6, "Ethernet: to"),
        (6, "          from"),
        (2, "          type 0x0800: IPv4"),
        (1, "IPv4:     version 4, header of 5 × 4 bytes"),
        (1, "          type of service, congestion bits"),
        (2, "          length: 37"),
        (2, "          identification"),
        (2, "          flags and offset: do not fragment"),
        (1, "          time to live: 64 hops"),
        (1, "          protocol 17: UDP"),
        (2, "          checksum of this header"),
        (4, "          source: 192.0.2.1"),
        (4, "          destination: 192.0.2.2"),
        (2, "UDP:      source port 40000"),
        (2, "          destination port 5000"),
        (2, "          length: 17"),
        (2, "          checksum, not finished"),
    ];
    let mut at = 0;
    let mut rows = Vec::new();
    for (length, what) in FIELDS.into_iter().chain([(9, "data:     \"vpnd-lab \"")]) {
        let digits: Vec<String> =
            frame.iter().skip(at).take(length).map(|byte| format!("{byte:02x}")).collect();
        // The identification is another one each time, and stands in the checksum.
        let shown = if [18, 24].contains(&at) { about(digits.concat()) } else { digits.join(" ") };
        rows.push([at.to_string(), shown, what.to_owned()]);
        at += length;
    }
    part.table(["at", "bytes", "meaning"], &rows);
    Ok(part)
}

fn connection(left: &Host, right: &Host) -> Result<Part, LabError> {
    let mut part = Part::new("TCP: five bytes need five frames");
    let capture = Capture::start(left, "eth0")?;
    let seen = exchange(left, right, &capture).attempted(|| "send five bytes by TCP".to_owned())?;
    listing(&mut part, &seen?);
    Ok(part)
}

/// Connects, writes five bytes, and reads them; the connection is not closed before all has been captured.
fn exchange(left: &Host, right: &Host, capture: &Capture) -> io::Result<Result<Vec<Vec<u8>>, LabError>> {
    let listener = right.run(|| TcpListener::bind("192.0.2.2:5000"))?;
    let mut client: TcpStream = left.run(|| {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
        socket.bind(&at("192.0.2.1:40001").into())?;
        socket.connect_timeout(&at("192.0.2.2:5000").into(), PATIENCE)?;
        Ok::<_, io::Error>(socket.into())
    })?;
    let (mut server, _) = listener.accept()?;
    server.set_read_timeout(Some(PATIENCE))?;
    client.write_all(b"hello")?;
    server.read_exact(&mut [0; 5])?;
    let mut seen = Vec::new();
    let collect = || {
        seen.extend(capture.frames()?);
        Ok(seen.clone())
    };
    Ok(until(collect, |seen| seen.len() >= 5))
}

fn nobody(left: &Host) -> Result<Part, LabError> {
    let mut part = Part::new("Where nobody listens, and where nobody is");
    // Three questions, a tenth of a second apart rather than a second.
    left.sysctl("ipv4.neigh.eth0.retrans_time_ms", "100")?;
    let mut rows = Vec::new();
    for (what, address) in [
        ("UDP to a port without a program", "192.0.2.2:5009"),
        ("TCP to a port without a program", "192.0.2.2:5009"),
        ("TCP to an address without a host", "192.0.2.9:5000"),
    ] {
        let capture = Capture::start(left, "eth0")?;
        let told = if what.starts_with("UDP") { ask_udp(left, address) } else { ask_tcp(left, address) };
        let answers = until(|| Ok(capture.frames()?), |seen| !seen.is_empty())?;
        let from_right = |frame: &&Vec<u8>| frame.get(6..12) == Some(&super::stage::mac(0x02)[..]);
        let answer = answers.iter().filter(from_right).map(|frame| frames::frame(frame)).next_back();
        let answer =
            answer.map_or_else(|| "nothing".to_owned(), |a| a.split("  ").last().unwrap_or("").to_owned());
        rows.push([what.to_owned(), answer, told]);
    }
    part.table(["sent", "what came back", "what the program is told"], &rows);
    Ok(part)
}

fn ask_udp(left: &Host, address: &str) -> String {
    let ask = || {
        let socket = std::net::UdpSocket::bind("192.0.2.1:0")?;
        socket.connect(address)?;
        socket.set_read_timeout(Some(PATIENCE))?;
        socket.send(b"anybody?")?;
        socket.recv(&mut [0; 16])
    };
    in_words(left.run(ask).map(drop))
}

fn ask_tcp(left: &Host, address: &str) -> String {
    in_words(left.run(|| TcpStream::connect_timeout(&at(address), PATIENCE)).map(drop))
}

fn in_words(result: io::Result<()>) -> String {
    match result {
        Ok(()) => "that all is well".to_owned(),
        Err(e) if e.kind() == ErrorKind::ConnectionRefused => "connection refused".to_owned(),
        Err(e) if e.kind() == ErrorKind::HostUnreachable => "no route to host".to_owned(),
        Err(e) => e.to_string(),
    }
}
