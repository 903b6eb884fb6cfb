//! Offloads: super-packets that are cut late or never, and checksums that nobody finished.

use std::time::Duration;

use super::{
    Chapter, Stage, frames,
    rules::Rules,
    sheet::Part,
    stage::{Ends, PAIR, heard, ip, send, udp},
};
use crate::lab::{capture::Capture, error::LabError, host::Host, traffic::tcp_transfer};

pub(super) const CHAPTER: Chapter =
    Chapter { name: "offloads", title: "Offloads: cut late, sum late", picture: PAIR, lab };

const BYTES: u64 = 4 << 20;
const LIMIT: Duration = Duration::from_secs(60);

fn lab(stage: &mut Stage) -> Result<Vec<Part>, LabError> {
    let (left, right) = stage.pair()?;
    let cable = cable(&left, &right)?;
    let sums = checksums(&left, &right)?;
    let with = tunnel(stage, "auto")?;
    let without = tunnel(stage, "off")?;
    let mut part =
        Part::new("The same transfer through two tunnels: with offloads, and with offload = \"off\"");
    let row = |((name, size), (with, without)): ((&str, &str), (bool, bool))| {
        [name.to_owned(), size.to_owned(), some(with), some(without)]
    };
    let names = [
        ("left, OUTPUT, inner", "1420"),
        ("left, POSTROUTING, inner", "1420"),
        ("left, read from vpn0", "1420"),
        ("left, OUTPUT, outer", "1500"),
        ("right, PREROUTING, outer", "1500"),
        ("right, PREROUTING, inner", "1420"),
    ];
    let rows: Vec<_> = names.into_iter().zip(with.into_iter().zip(without)).map(row).collect();
    part.table(["place", "more than", "offloads", "none"], &rows);
    Ok(vec![cable, part, sums])
}

fn some(any: bool) -> String {
    if any { "some" } else { "none" }.to_owned()
}

/// A counter for packets that are larger than any cable would take.
fn large(chain: &str, hook: &str, condition: &str, size: u32) -> String {
    format!(
        "    chain {chain} {{ type filter hook {hook} priority 150; {condition} meta length > {size} counter; }}\n"
    )
}

fn any(rules: &Rules, chain: &str) -> Result<bool, LabError> {
    Ok(rules.packets(chain)? > 0)
}

/// Is one of the frames longer than this, without its Ethernet header?
fn longest(capture: &Capture) -> Result<usize, LabError> {
    Ok(capture.frames()?.iter().map(Vec::len).max().unwrap_or(0))
}

fn cable(left: &Host, right: &Host) -> Result<Part, LabError> {
    let mut part =
        Part::new("4 MB by TCP over a cable with an MTU of 1500: are there packets of more than 1500 bytes?");
    let tcp = "meta l4proto tcp";
    let text = [large("out", "output", tcp, 1500), large("post", "postrouting", tcp, 1500)].concat();
    let at_left = Rules::place(left, &format!("table ip vpnd_lab {{\n{text}}}\n"))?;
    let text = [large("pre", "prerouting", tcp, 1500), large("in", "input", tcp, 1500)].concat();
    let at_right = Rules::place(right, &format!("table ip vpnd_lab {{\n{text}}}\n"))?;
    let wire = Capture::start(left, "eth0")?;
    let transfer = tcp_transfer(left, right, ip("192.0.2.2"), BYTES, LIMIT)?;
    let row = |place: &str, is: bool| [place.to_owned(), some(is)];
    part.table(
        ["place", "larger than 1500"],
        &[
            row("left, OUTPUT", any(&at_left, "out")?),
            row("left, POSTROUTING", any(&at_left, "post")?),
            row("the cable, as left's eth0 sees it", longest(&wire)? > 1514),
            row("right, PREROUTING", any(&at_right, "pre")?),
            row("right, INPUT", any(&at_right, "in")?),
        ],
    );
    part.blank();
    part.line(format!("every byte arrived as it was sent: {}", super::stage::yes(transfer.intact)));
    Ok(part)
}

/// Where packets were larger than the device takes, for one kind of tunnel.
fn tunnel(stage: &mut Stage, offload: &'static str) -> Result<[bool; 6], LabError> {
    let ends = Ends { offload, suffix: if offload == "off" { "-off" } else { "-auto" }, ..Ends::default() };
    let [left, right] = stage.tunnel(&ends)?;
    let text = [
        large("out", "output", "oifname vpn0 meta l4proto tcp", 1420),
        large("post", "postrouting", "oifname vpn0 meta l4proto tcp", 1420),
        large("outer", "output", "udp dport 51820", 1500),
    ];
    let at_left = Rules::place(&left.host, &format!("table ip vpnd_lab {{\n{}}}\n", text.concat()))?;
    let text = [
        large("pre", "prerouting", "iifname vpn0 meta l4proto tcp", 1420),
        large("outer", "prerouting", "udp dport 51820", 1500),
    ];
    let at_right = Rules::place(&right.host, &format!("table ip vpnd_lab {{\n{}}}\n", text.concat()))?;
    let tun = Capture::start(&left.host, "vpn0")?;
    let transfer = tcp_transfer(&left.host, &right.host, ip("10.77.0.2"), BYTES, LIMIT)?;
    if !transfer.intact {
        return Err(LabError::Unexpected("the transfer was altered on the way".to_owned()));
    }
    Ok([
        any(&at_left, "out")?,
        any(&at_left, "post")?,
        longest(&tun)? > 1420,
        any(&at_left, "outer")?,
        any(&at_right, "outer")?,
        any(&at_right, "pre")?,
    ])
}

fn checksums(left: &Host, right: &Host) -> Result<Part, LabError> {
    let mut part = Part::new("A checksum that is not finished");
    let (from, to) = (udp(left, "192.0.2.1:40000")?, udp(right, "192.0.2.2:5000")?);
    let wire = Capture::start(right, "eth0")?;
    send(&from, 100, "192.0.2.2:5000")?;
    let got = heard(&to)?.map_or(0, |(length, _)| length);
    let seen = wire.frames()?;
    let frame = seen
        .iter()
        .find(|frame| frames::frame(frame).contains("UDP, 100 bytes"))
        .ok_or_else(|| LabError::Unexpected("the datagram was not captured".to_owned()))?;
    let packet = &frame[14..];
    let field = u16::from_be_bytes([packet[26], packet[27]]);
    let mut whole = packet.to_vec();
    whole[26..28].fill(0);
    let addresses = sum(&pseudo(&whole));
    let finished = !fold(sum(&pseudo(&whole)) + sum(&whole[20..]));
    part.table(
        ["the checksum of one UDP packet on the cable", ""],
        &[
            ["in its header".to_owned(), format!("{field:#06x}")],
            [
                "sum of the addresses, protocol and length alone".to_owned(),
                format!("{:#06x}", fold(addresses)),
            ],
            ["what it should be".to_owned(), format!("{finished:#06x}")],
        ],
    );
    part.blank();
    part.line(format!("right's program received {got} bytes all the same"));
    Ok(part)
}

/// The pseudo header of UDP over IPv4 (RFC 768).
fn pseudo(packet: &[u8]) -> Vec<u8> {
    let length = (packet.len() - 20) as u16; // an Ethernet frame is shorter than 64 KB
    [&packet[12..20], &[0, 17], &length.to_be_bytes()].concat()
}

fn sum(bytes: &[u8]) -> u64 {
    bytes.chunks(2).map(|pair| u64::from(pair[0]) << 8 | pair.get(1).map_or(0, |&b| b.into())).sum()
}

/// The ones' complement sum in 16 bits (RFC 1071).
fn fold(mut sum: u64) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}
