//! A bridge: it learns who is where, floods what it does not know, and works below IP.

use super::{
    Chapter, Stage, frames,
    rules::{Rules, five_hooks},
    sheet::Part,
    stage::{cable, heard, ip, mac, send, udp, until},
};
use crate::lab::{capture::Capture, error::LabError, host::Host, link, neighbours};

const PICTURE: &str = "one 10.0.0.1 ────── port1 ┐\n\
     two 10.0.0.2 ────── port2 ┼ br0 (10.0.0.254), on the host hub\n\
     three 10.0.0.3 ──── port3 ┘";

pub(super) const CHAPTER: Chapter = Chapter { name: "bridge", title: "The bridge", picture: PICTURE, lab };

const PORTS: [&str; 3] = ["port1", "port2", "port3"];

fn lab(stage: &mut Stage) -> Result<Vec<Part>, LabError> {
    let hub = stage.host("hub")?;
    link::bridge(&hub, "br0")?;
    link::hardware_address(&hub, "br0", mac(0xfe))?;
    let mut hosts = Vec::new();
    for (name, number) in [("one", 1_u8), ("two", 2), ("three", 3)] {
        let host = stage.host(name)?;
        let port = PORTS[usize::from(number) - 1];
        cable((&host, "eth0", number), (&hub, port, 0x10 + number))?;
        link::attach(&hub, port, "br0")?;
        host.add_address("eth0", &format!("10.0.0.{number}/24"))?;
        hosts.push(host);
    }
    // Written down, so that the first frame is the datagram and not the question for its address.
    for (host, own) in hosts.iter().zip(1_u8..) {
        for other in (1..=3).filter(|other| *other != own) {
            neighbours::add(host, "eth0", ip(&format!("10.0.0.{other}")), mac(other))?;
        }
    }
    for port in PORTS {
        until(|| link::carrier(&hub, port), |up| *up)?;
    }
    let hosts: [Host; 3] = hosts.try_into().unwrap_or_else(|_| unreachable!("three were made"));
    Ok(vec![learning(&hub, &hosts)?, below_ip(&hub, &hosts)?, own_address(&hub, &hosts)?])
}

fn learning(hub: &Host, hosts: &[Host; 3]) -> Result<Part, LabError> {
    let mut part = Part::new("It learns from the senders, and floods what it does not know");
    let [one, two, three] = hosts;
    let mut rows = Vec::new();
    let known = || {
        let learned = neighbours::learned(hub, &PORTS)?;
        let words = |(hardware, port): &(Vec<u8>, String)| format!("{} {port}", frames::mac(&hardware[5..]));
        let list: Vec<String> = learned.iter().map(words).collect();
        Ok::<_, LabError>(if list.is_empty() { "nobody".to_owned() } else { list.join(", ") })
    };
    rows.push(["before".to_owned(), "–".to_owned(), "–".to_owned(), known()?]);
    let sockets = [udp(one, "10.0.0.1:5000")?, udp(two, "10.0.0.2:5000")?];
    for (what, from, to) in [("one → two", 0, 1), ("two → one", 1, 0), ("one → two", 0, 1)] {
        let ears = [Capture::start(&hosts[to], "eth0")?, Capture::start(three, "eth0")?];
        send(&sockets[from], 100, &format!("10.0.0.{}:5000", to + 1))?;
        heard(&sockets[to])?;
        let [there, beside] = [ears[0].frames()?.len(), ears[1].frames()?.len()];
        rows.push([what.to_owned(), there.to_string(), beside.to_string(), known()?]);
    }
    part.table(
        ["frame", "arrived there", "arrived at three", "the bridge knows (end of the address, port)"],
        &rows,
    );
    Ok(part)
}

/// A table in the bridge's own family.
const BRIDGED: &str = "\
table bridge vpnd_lab {
    chain prerouting  { type filter hook prerouting priority 0; ip daddr 10.0.0.2 counter; }
    chain forward     { type filter hook forward priority 0; ip daddr 10.0.0.2 counter; }
    chain input       { type filter hook input priority 0; ip daddr 10.0.0.2 counter; }
    chain postrouting { type filter hook postrouting priority 0; ip daddr 10.0.0.2 counter; }
}
";

fn below_ip(hub: &Host, [one, two, _]: &[Host; 3]) -> Result<Part, LabError> {
    let mut part = Part::new("A bridged frame is not routed: which hooks it meets on the hub");
    let bridged = Rules::place(hub, BRIDGED)?;
    let routed = Rules::place(hub, &five_hooks("ip daddr 10.0.0.2"))?;
    let (from, to) = (udp(one, "10.0.0.1:5000")?, udp(two, "10.0.0.2:5000")?);
    let mut columns = Vec::new();
    for call in ["0", "1"] {
        if !bridge_netfilter(hub, call)? {
            break;
        }
        let before = [bridged.read()?, routed.read()?];
        send(&from, 100, "10.0.0.2:5000")?;
        heard(&to)?;
        let now = [bridged.read()?, routed.read()?];
        columns.push(std::array::from_fn::<_, 2, _>(|family| {
            ["prerouting", "input", "forward", "postrouting"].map(|hook| {
                let packets = |at: &super::rules::Counts| at.get(hook).map_or(0, |count| count.packets);
                packets(&now[family]) - packets(&before[family])
            })
        }));
    }
    bridge_netfilter(hub, "0")?;
    let [off, on] = columns[..] else {
        part.line("This kernel has no br_netfilter: a bridge and the IP hooks know nothing of each other.");
        return Ok(part);
    };
    let mut rows = Vec::new();
    for (family, name) in ["bridge", "ip"].into_iter().enumerate() {
        for (at, hook) in ["PREROUTING", "INPUT", "FORWARD", "POSTROUTING"].into_iter().enumerate() {
            rows.push([
                name.to_owned(),
                hook.to_owned(),
                off[family][at].to_string(),
                on[family][at].to_string(),
            ]);
        }
    }
    part.table(["family", "hook", "bridge-nf-call-iptables = 0", "= 1"], &rows);
    Ok(part)
}

/// Shall bridged packets be shown to the IP hooks? `false`: the kernel cannot.
fn bridge_netfilter(hub: &Host, call: &str) -> Result<bool, LabError> {
    match hub.sysctl("bridge.bridge-nf-call-iptables", call) {
        Ok(()) => Ok(true),
        Err(LabError::System { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

fn own_address(hub: &Host, [one, _, _]: &[Host; 3]) -> Result<Part, LabError> {
    let mut part = Part::new("A bridge with an address is a device of its host");
    hub.add_address("br0", "10.0.0.254/24")?;
    neighbours::add(one, "eth0", ip("10.0.0.254"), mac(0xfe))?;
    let bridged = Rules::place(hub, &BRIDGED.replace("10.0.0.2", "10.0.0.254"))?;
    let routed = Rules::place(hub, &five_hooks("ip daddr 10.0.0.254"))?;
    let (from, to) = (udp(one, "10.0.0.1:5000")?, udp(hub, "10.0.0.254:5000")?);
    send(&from, 100, "10.0.0.254:5000")?;
    heard(&to)?;
    let (bridged, routed) = (bridged.read()?, routed.read()?);
    let packets = |at: &super::rules::Counts, hook: &str| at.get(hook).map_or(0, |c| c.packets).to_string();
    let row = |hook: &str| [hook.to_uppercase(), packets(&bridged, hook), packets(&routed, hook)];
    part.table(["one → hub", "bridge", "ip"], &["prerouting", "input", "forward"].map(row));
    Ok(part)
}
