//! TUN and TAP: a device whose cable is a file, and a program at the other end of it.

use ::tun::{Configuration, Device, Layer};

use super::{
    Chapter, Stage, frames,
    rules::{Rules, at_hooks, five_hooks},
    sheet::{Part, about, hex},
    stage::{heard, ip, mac, send, udp, until, yes},
};
use crate::{
    lab::{
        error::{Attempted, LabError},
        host::Host,
        link,
    },
    sys,
};

const PICTURE: &str = "left\n\
     10.1.0.1 tun0 ────── a file, and a program that reads and writes it\n\
     10.2.0.1 tap0 ────── the same with Ethernet frames";

pub(super) const CHAPTER: Chapter = Chapter { name: "tun", title: "TUN and TAP", picture: PICTURE, lab };

fn lab(stage: &mut Stage) -> Result<Vec<Part>, LabError> {
    let left = stage.host("left")?;
    let tun = File::open(&left, "tun0", Layer::L3)?;
    left.add_address("tun0", "10.1.0.1/24")?;
    let (first, packet) = reading(&left, &tun)?;
    Ok(vec![first, writing(&left, &tun, packet)?, tap(&left)?, unread(&left, &tun)?, closing(&left, tun)?])
}

/// An open device: what a program like vpnd holds.
struct File(Device);

impl File {
    fn open(host: &Host, name: &str, layer: Layer) -> Result<Self, LabError> {
        let open = || {
            let mut wanted = Configuration::default();
            wanted.tun_name(name).mtu(1500).layer(layer);
            let device = ::tun::create(&wanted).map_err(std::io::Error::other)?;
            sys::tun::set_nonblocking(sys::tun::descriptor_of(&device))?;
            Ok::<_, std::io::Error>(Self(device))
        };
        let file = host.run(open).attempted(|| format!("open {name} on {}", host.name()))?;
        link::up(host, name)?;
        Ok(file)
    }

    /// One packet, if there is one.
    fn try_read(&self) -> Option<Vec<u8>> {
        let mut buffer = vec![0; 65_536];
        let length = sys::tun::read(sys::tun::descriptor_of(&self.0), &mut buffer).ok()?;
        buffer.truncate(length);
        Some(buffer)
    }

    /// One packet, waited for.
    fn read(&self) -> Result<Vec<u8>, LabError> {
        let packet = until(|| Ok(self.try_read()), Option::is_some)?;
        packet.ok_or_else(|| LabError::Unexpected("nothing was read from the device".to_owned()))
    }

    fn write(&self, packet: &[u8]) -> Result<usize, LabError> {
        sys::tun::write(sys::tun::descriptor_of(&self.0), packet)
            .attempted(|| "write to the device".to_owned())
    }
}

fn reading(left: &Host, tun: &File) -> Result<(Part, Vec<u8>), LabError> {
    let mut part = Part::new("What the kernel sends by the device, a program reads from the file");
    let rules = Rules::place(left, &five_hooks("ip daddr 10.1.0.2"))?;
    let socket = udp(left, "10.1.0.1:40000")?;
    send(&socket, 18, "10.1.0.2:5000")?;
    let packet = tun.read()?;
    let output = rules.read()?.get("output").copied().unwrap_or_default();
    let row = |at: &str, packets: u64, bytes: u64| [at.to_owned(), packets.to_string(), bytes.to_string()];
    part.table(
        ["18 bytes to 10.1.0.2", "packets", "bytes"],
        &[
            row("OUTPUT counted", output.packets, output.bytes),
            row("one read(2) returned", 1, packet.len() as u64),
        ],
    );
    part.blank();
    part.line(frames::packet(&packet));
    // The identification, and with it the header's checksum.
    part.text(&hex(&packet, &[4..6, 10..12]));
    Ok((part, packet))
}

fn writing(left: &Host, tun: &File, mut packet: Vec<u8>) -> Result<Part, LabError> {
    let mut part = Part::new("What a program writes into the file, the kernel receives");
    let rules = Rules::place(left, &five_hooks("ip saddr 10.1.0.2"))?;
    let socket = udp(left, "10.1.0.1:40000")?;
    // Source and destination change places, in both headers; both checksums are sums, and stay right.
    for (a, b, length) in [(12, 16, 4), (20, 22, 2)] {
        for at in 0..length {
            packet.swap(a + at, b + at);
        }
    }
    part.line(format!("written: {}, {} bytes", frames::packet(&packet), tun.write(&packet)?));
    let got = heard(&socket)?;
    let counted = at_hooks(&rules)?;
    let told =
        got.map_or_else(|| "nothing".to_owned(), |(length, from)| format!("{length} bytes from {from}"));
    part.line(format!("received by the socket on port 40000: {told}"));
    part.blank();
    let hooks = super::rules::HOOKS.map(str::to_uppercase);
    let rows: Vec<_> = hooks.into_iter().zip(counted).map(|(hook, n)| [hook, n.to_string()]).collect();
    part.table(["hook", "packets"], &rows);
    Ok(part)
}

fn tap(left: &Host) -> Result<Part, LabError> {
    let mut part = Part::new("A TAP carries Ethernet: somebody has to answer ARP");
    let tap = File::open(left, "tap0", Layer::L2)?;
    link::hardware_address(left, "tap0", mac(0x0a))?;
    left.add_address("tap0", "10.2.0.1/24")?;
    let socket = udp(left, "10.2.0.1:40000")?;
    send(&socket, 18, "10.2.0.2:5000")?;
    let mut rows = Vec::new();
    let mut row = |what: &str, frame: &[u8]| {
        rows.push([what.to_owned(), frame.len().to_string(), frames::hardware(frame), frames::frame(frame)]);
    };
    let question = tap.read()?;
    row("read", &question);
    let answer = arp_answer(&question, mac(0x0b));
    tap.write(&answer)?;
    row("written", &answer);
    row("read", &tap.read()?);
    part.table(["", "bytes", "from → to (hardware)", "what it is"], &rows);
    Ok(part)
}

/// "It is at `own`": the answer to an ARP question (RFC 826), with its sender as the target.
fn arp_answer(question: &[u8], own: [u8; 6]) -> Vec<u8> {
    let mut answer = question.to_vec();
    if answer.len() < 42 {
        return answer;
    }
    answer.copy_within(6..12, 0);
    answer[6..12].copy_from_slice(&own);
    answer[21] = 2;
    let (asker, asked) = (question[22..32].to_vec(), question[38..42].to_vec());
    answer[22..28].copy_from_slice(&own);
    answer[28..32].copy_from_slice(&asked);
    answer[32..42].copy_from_slice(&asker);
    answer
}

fn unread(left: &Host, tun: &File) -> Result<Part, LabError> {
    let mut part =
        Part::new("When nobody reads, the device keeps as many as its queue is long, and drops the rest");
    let socket = udp(left, "10.1.0.1:40000")?;
    const SENT: usize = 600;
    for _ in 0..SENT {
        send(&socket, 18, "10.1.0.2:5000")?;
    }
    let read = std::iter::from_fn(|| tun.try_read()).count();
    part.table(
        ["", "packets"],
        &[
            ["sent, while nobody read".to_owned(), SENT.to_string()],
            ["read afterwards (the queue is 500 long)".to_owned(), about(read)],
            ["gone, and the sender was told nothing".to_owned(), about(SENT - read)],
        ],
    );
    Ok(part)
}

fn closing(left: &Host, tun: File) -> Result<Part, LabError> {
    let mut part = Part::new("Close the file, and the device is gone");
    let state = || {
        let exists = left.run(|| sys::tun::device_exists("tun0"));
        let way = link::decide(left, ip("10.1.0.2"), 0).is_ok();
        [yes(exists), yes(way)]
    };
    let [exists, way] = state();
    let mut rows = vec![["before".to_owned(), exists, way]];
    drop(tun);
    let [exists, way] = until(|| Ok(state()), |[exists, _]| exists == "no")?;
    rows.push(["after".to_owned(), exists, way]);
    part.table(["", "tun0 exists", "a route to 10.1.0.2 exists"], &rows);
    Ok(part)
}
