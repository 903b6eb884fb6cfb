//! What WireGuard does: the handshake and its sizes, what a wiretapper sees, keys as routes, silence, roaming.

use super::{
    Chapter, Stage, frames,
    sheet::Part,
    stage::{End, Ends, PATIENCE, SILENCE, TUNNEL, heard_within, ip, ping, udp, until, yes},
};
use crate::lab::{
    capture::Capture,
    error::{Attempted, LabError},
    link,
    ping::{MARK, Ping},
};

pub(super) const CHAPTER: Chapter =
    Chapter { name: "wireguard", title: "What WireGuard does", picture: TUNNEL, lab };

fn lab(stage: &mut Stage) -> Result<Vec<Part>, LabError> {
    let ends = stage.tunnel(&Ends::default())?;
    let (handshake, data) = handshake(&ends)?;
    Ok(vec![
        handshake,
        message(&data)?,
        padding(&ends)?,
        keys_are_routes(&ends)?,
        silence(&ends)?,
        roaming(&ends)?,
    ])
}

/// The UDP payload of a captured frame: behind Ethernet, IPv4 and UDP.
fn payload(frame: &[u8]) -> &[u8] {
    frame.get(42..).unwrap_or_default()
}

/// Collects frames until there are so many.
fn collect(capture: &Capture, frames: usize) -> Result<Vec<Vec<u8>>, LabError> {
    let mut seen = Vec::new();
    let more = || {
        seen.extend(capture.frames()?);
        Ok(seen.clone())
    };
    until(more, |seen| seen.len() >= frames)
}

fn handshake(ends: &[End; 2]) -> Result<(Part, Vec<u8>), LabError> {
    let mut part = Part::new("The very first ping, as a wiretapper on the cable sees it");
    let wire = Capture::start(&ends[0].host, "eth0")?;
    let answered = ping(&ends[0].host, "10.77.0.2")?;
    let seen = collect(&wire, 4)?;
    let row = |frame: &Vec<u8>| {
        let way = if frame.get(11) == Some(&1) { "left → right" } else { "left ← right" };
        let payload = payload(frame);
        [way.to_owned(), payload.len().to_string(), frames::wireguard(payload).to_owned()]
    };
    part.table(["", "bytes of UDP payload", "WireGuard message"], &seen.iter().map(row).collect::<Vec<_>>());
    part.blank();
    part.line(format!("the ping was answered: {}", yes(answered)));
    let data = seen.iter().map(|frame| payload(frame)).find(|payload| payload.first() == Some(&4));
    let data = data.ok_or_else(|| LabError::Unexpected("no data message was captured".to_owned()))?;
    Ok((part, data.to_vec()))
}

fn message(data: &[u8]) -> Result<Part, LabError> {
    let mut part = Part::new("What the first data message says to everybody");
    let field = |range: std::ops::Range<usize>| data.get(range).unwrap_or_default();
    let counter = u64::from_le_bytes(field(8..16).try_into().unwrap_or_default());
    let readable = data.windows(MARK.len()).any(|part| part == MARK);
    let row = |bytes: &str, what: &str, value: String| [bytes.to_owned(), what.to_owned(), value];
    part.table(
        ["bytes", "field", "value"],
        &[
            row("0 to 3", "type", format!("{} (data), and three zeros", field(0..4).first().unwrap_or(&0))),
            row("4 to 7", "receiver: an index that right chose", "another one each time".to_owned()),
            row("8 to 15", "counter", counter.to_string()),
            row("16 to 111", "the ping and its padding, encrypted", format!("{} bytes", data.len() - 32)),
            row("112 to 127", "authentication tag", "16 bytes".to_owned()),
        ],
    );
    part.blank();
    part.line(format!(
        "the words \"{}\" stand in the ping; can they be found in the message? {}",
        String::from_utf8_lossy(MARK),
        yes(readable)
    ));
    Ok(part)
}

fn padding(ends: &[End; 2]) -> Result<Part, LabError> {
    let mut part = Part::new("What it adds: 60 bytes, and up to 15 to hide the length");
    let mut rows = Vec::new();
    for data in [0_usize, 1, 4, 56, 1000, 1388, 1392] {
        let wire = Capture::start(&ends[0].host, "eth0")?;
        let sized = Ping { payload: data, patience: PATIENCE, ..Ping::to(ip("10.77.0.2")) };
        let answered = ends[0].host.ping_with(&sized)?.received == 1;
        let sent = |frame: &&Vec<u8>| frame.get(11) == Some(&1) && payload(frame).first() == Some(&4);
        let frame = collect(&wire, 2)?.iter().find(sent).map_or(0, Vec::len);
        // Ethernet is not counted on either side.
        rows.push([
            (data + 28).to_string(),
            (frame - 14).to_string(),
            (frame - 14 - data - 28).to_string(),
            yes(answered),
        ]);
    }
    part.table(["inner packet", "outer packet", "added", "answered"], &rows);
    Ok(part)
}

/// What a vpnd refused for one reason so far.
fn refused(end: &End, reason: &str) -> Result<u64, LabError> {
    let status = end.daemon.status("vpn0")?;
    let refusals = status["refusals"].as_array().cloned().unwrap_or_default();
    let ours = refusals.iter().find(|refusal| refusal["reason"] == reason);
    Ok(ours.and_then(|refusal| refusal["count"].as_u64()).unwrap_or(0))
}

fn keys_are_routes(ends: &[End; 2]) -> Result<Part, LabError> {
    let mut part = Part::new("Allowed IPs: a key for every address, and an address for every key");
    let [left, right] = ends;
    left.host.add_address("vpn0", "10.77.0.50/32")?;
    let mut rows = Vec::new();
    for (from, to) in [("10.77.0.1", "10.77.0.2"), ("10.77.0.1", "10.77.0.9"), ("10.77.0.50", "10.77.0.2")] {
        let before = [left.peer("tx_packets")?, right.peer("rx_packets")?];
        let patience = if (from, to) == ("10.77.0.1", "10.77.0.2") { PATIENCE } else { SILENCE };
        let ping = Ping { source: Some(ip(from)), patience, ..Ping::to(ip(to)) };
        let answered = left.host.ping_with(&ping)?.received == 1;
        let why = || Ok((refused(left, "no_peer")?, refused(right, "source_not_allowed")?));
        let why = until(why, |(no_peer, not_allowed)| answered || no_peer + not_allowed > 0)?;
        let words = match (answered, why) {
            (true, _) => "",
            (_, (_, 1..)) => "right: the source is not allowed",
            (_, (1.., _)) => "left: no peer has the destination",
            _ => "nobody says",
        };
        let settled = || Ok([left.peer("tx_packets")?, right.peer("rx_packets")?]);
        let now = until(settled, |now| !answered || now.iter().zip(&before).all(|(now, then)| now > then))?;
        rows.push([
            from.to_owned(),
            to.to_owned(),
            (now[0] - before[0]).to_string(),
            (now[1] - before[1]).to_string(),
            yes(answered),
            words.to_owned(),
        ]);
    }
    part.table(["from", "to", "left sealed", "right delivered", "answered", "who refused it"], &rows);
    Ok(part)
}

fn silence(ends: &[End; 2]) -> Result<Part, LabError> {
    let mut part = Part::new("To strangers it does not exist");
    let left = &ends[0].host;
    let mut rows = Vec::new();
    let mut garbled = vec![0; 148];
    garbled[0] = 1; // an initiation, and nothing in it is right
    for (what, datagram, port) in [
        ("8 bytes to vpnd", &[7; 8][..], 51820),
        ("a false initiation to vpnd", &garbled[..], 51820),
        ("8 bytes to a port without a program", &[7; 8][..], 51999),
    ] {
        let socket = udp(left, "192.0.2.1:0")?;
        socket.connect(("192.0.2.2", port)).attempted(|| "connect".to_owned())?;
        socket.send(datagram).attempted(|| what.to_owned())?;
        let limit = if port == 51820 { SILENCE } else { PATIENCE };
        let told = match heard_within(&socket, limit) {
            Ok(None) => "nothing",
            Ok(Some(_)) => "an answer",
            Err(_) => "port unreachable",
        };
        rows.push([what.to_owned(), told.to_owned()]);
    }
    part.table(["sent", "what comes back"], &rows);
    Ok(part)
}

fn roaming(ends: &[End; 2]) -> Result<Part, LabError> {
    let mut part = Part::new("left moves to another address, and keeps its session");
    let [left, right] = ends;
    let endpoint = || {
        let status = right.daemon.status("vpn0")?;
        Ok::<_, LabError>(status["peers"][0]["endpoint"].as_str().unwrap_or("nowhere").to_owned())
    };
    let mut rows = vec![["before".to_owned(), endpoint()?, String::new(), String::new()]];
    left.host.add_address("eth0", "192.0.2.77/24")?;
    link::remove_address(&left.host, "eth0", "192.0.2.1/24".parse().expect("a prefix"))?;
    left.host.add_address("eth0", "192.0.2.77/24").or_else(|error| match error.raw_os_error() {
        Some(17) => Ok(()), // it is there still
        _ => Err(error),
    })?;
    let wire = Capture::start(&right.host, "eth0")?;
    let answered = ping(&left.host, "10.77.0.2")?;
    let handshakes = wire.frames()?.iter().filter(|frame| payload(frame).first() == Some(&1)).count();
    rows.push([
        "after one ping from 192.0.2.77".to_owned(),
        endpoint()?,
        yes(answered),
        handshakes.to_string(),
    ]);
    part.table(["", "right sends to", "answered", "new handshakes"], &rows);
    Ok(part)
}
