//! Routing: the longest prefix, the table of the host's own addresses, rules before tables, and what a router refuses.

use std::net::UdpSocket;

use socket2::SockRef;

use super::{
    Chapter, Stage,
    rules::{HOOKS, Rules, at_hooks, five_hooks},
    sheet::Part,
    stage::{PATIENCE, SILENCE, cable, heard, heard_within, ip, mac, send, udp, until, yes},
};
use crate::lab::{
    error::{Attempted, LabError},
    host::Host,
    link, neighbours, policy,
};

const PICTURE: &str = "one                       host                          two\n\
     192.0.2.1 ────────── eth0 192.0.2.10\n\
     \x20                    eth1 198.51.100.10 ────────── 198.51.100.1";

pub(super) const CHAPTER: Chapter =
    Chapter { name: "routing", title: "Routing tables and rules", picture: PICTURE, lab };

fn lab(stage: &mut Stage) -> Result<Vec<Part>, LabError> {
    let (one, host, two) = (stage.host("one")?, stage.host("host")?, stage.host("two")?);
    cable((&host, "eth0", 0x10), (&one, "eth0", 0x01))?;
    cable((&host, "eth1", 0x20), (&two, "eth0", 0x02))?;
    host.add_address("eth0", "192.0.2.10/24")?;
    host.add_address("eth1", "198.51.100.10/24")?;
    one.add_address("eth0", "192.0.2.1/24")?;
    two.add_address("eth0", "198.51.100.1/24")?;
    neighbours::add(&host, "eth0", ip("192.0.2.1"), mac(0x01))?;
    neighbours::add(&host, "eth1", ip("198.51.100.1"), mac(0x02))?;
    neighbours::add(&one, "eth0", ip("192.0.2.10"), mac(0x10))?;
    neighbours::add(&two, "eth0", ip("198.51.100.10"), mac(0x20))?;
    Ok(vec![
        longest_prefix(&host)?,
        rules_first([&one, &host, &two])?,
        own_addresses(&host)?,
        forwarding([&one, &host, &two])?,
        reverse_path([&one, &host])?,
    ])
}

fn longest_prefix(host: &Host) -> Result<Part, LabError> {
    let mut part = Part::new("The longest prefix decides, wherever it stands in the table");
    let routes = [
        ("0.0.0.0/0", "192.0.2.1", "eth0"),
        ("203.0.113.0/24", "198.51.100.1", "eth1"),
        ("203.0.113.128/25", "192.0.2.1", "eth0"),
    ];
    for (destination, via, device) in routes {
        host.add_route(destination, Some(ip(via)), device)?;
        part.line(format!("route on host: {destination} via {via} dev {device}"));
    }
    part.blank();
    let decide = |to: &str| {
        let answer = link::decide(host, ip(to), 0)?;
        let via = answer.via.map_or_else(|| "nobody: it is on that link".to_owned(), |via| via.to_string());
        let source = answer.source.map(|source| source.to_string()).unwrap_or_default();
        Ok::<_, LabError>([to.to_owned(), answer.device, via, source])
    };
    let to = ["8.8.8.8", "203.0.113.5", "203.0.113.200", "198.51.100.77"];
    part.table(
        ["to", "device", "next hop", "source address"],
        &to.map(decide).into_iter().collect::<Result<Vec<_>, _>>()?,
    );
    Ok(part)
}

fn own_addresses(host: &Host) -> Result<Part, LabError> {
    let mut part = Part::new("What is the host's own never leaves it");
    let answer = link::decide(host, ip("198.51.100.10"), 0)?;
    part.line(format!(
        "host asks for 198.51.100.10, its own: table {}, device {}",
        policy::table_name(answer.table),
        answer.device
    ));
    let rules = Rules::place(host, &five_hooks("udp dport 5000"))?;
    let (from, to) = (udp(host, "192.0.2.10:5000")?, udp(host, "198.51.100.10:5000")?);
    let before = link::passed(host, "eth1")?;
    send(&from, 100, "198.51.100.10:5000")?;
    heard(&to)?;
    let counted = at_hooks(&rules)?;
    let moved = link::passed(host, "eth1")? - before;
    let row = |(hook, count): (&str, u64)| [hook.to_uppercase(), count.to_string()];
    let mut rows: Vec<_> = HOOKS.into_iter().zip(counted).map(row).collect();
    rows.push(["device eth1, sent".to_owned(), moved.tx_packets.to_string()]);
    part.blank();
    part.table(["passed by one datagram to it", "packets"], &rows);
    Ok(part)
}

fn rules_first([one, host, two]: [&Host; 3]) -> Result<Part, LabError> {
    let mut part = Part::new("Rules choose the table, and can ask for more than the destination");
    policy::add_route(host, 100, "0.0.0.0/0".parse().expect("a prefix"), [198, 51, 100, 1].into(), "eth1")?;
    policy::add_rule(host, 100, 1, 100)?;
    part.line("route on host: 0.0.0.0/0 via 198.51.100.1 dev eth1 table 100");
    part.line("the rules, in their order:");
    for rule in policy::rules(host)? {
        part.line(format!("    {rule}"));
    }
    part.blank();
    let mut rows = Vec::new();
    for mark in [0, 1] {
        let answer = link::decide(host, ip("8.8.8.8"), mark)?;
        let before = [link::passed(one, "eth0")?, link::passed(two, "eth0")?];
        let socket = udp(host, "0.0.0.0:0")?;
        SockRef::from(&socket).set_mark(mark).attempted(|| format!("set the mark {mark}"))?;
        send(&socket, 100, "8.8.8.8:5000")?;
        let arrived = || Ok([link::passed(one, "eth0")? - before[0], link::passed(two, "eth0")? - before[1]]);
        let arrived = until(arrived, |moved| moved.iter().any(|moved| moved.rx_packets > 0))?;
        let [at_one, at_two] = arrived.map(|moved| moved.rx_packets.to_string());
        let mark = if mark == 0 { "none".to_owned() } else { format!("{mark:#x}") };
        rows.push([mark, policy::table_name(answer.table), answer.device, at_one, at_two]);
    }
    part.table(["mark", "table", "device", "arrived at one", "at two"], &rows);
    Ok(part)
}

fn forwarding([one, host, two]: [&Host; 3]) -> Result<Part, LabError> {
    let mut part = Part::new("A host forwards only if it is told to");
    one.add_route("198.51.100.0/24", Some(ip("192.0.2.10")), "eth0")?;
    let rules = Rules::place(host, &five_hooks("udp dport 5000"))?;
    let (from, to) = (udp(one, "192.0.2.1:5000")?, udp(two, "198.51.100.1:5000")?);
    let mut columns = Vec::new();
    for forward in [false, true] {
        host.sysctl("ipv4.ip_forward", if forward { "1" } else { "0" })?;
        columns.push(walked(&rules, &from, "198.51.100.1:5000", &to, forward)?);
    }
    table(&mut part, ["ip_forward = 0", "ip_forward = 1"], &columns);
    Ok(part)
}

fn reverse_path([one, host]: [&Host; 2]) -> Result<Part, LabError> {
    let mut part = Part::new("Strict reverse path: a source must be where the answer would go");
    // Of the network behind eth1, and yet it comes by eth0.
    one.add_address("lo", "198.51.100.77/32")?;
    let rules = Rules::place(host, &five_hooks("udp dport 5000"))?;
    let (from, to) = (udp(one, "198.51.100.77:5000")?, udp(host, "192.0.2.10:5000")?);
    let mut columns = Vec::new();
    for strict in [true, false] {
        for device in ["all", "eth0"] {
            host.sysctl(&format!("ipv4.conf.{device}.rp_filter"), if strict { "1" } else { "0" })?;
        }
        columns.push(walked(&rules, &from, "192.0.2.10:5000", &to, !strict)?);
    }
    table(&mut part, ["rp_filter = 1", "rp_filter = 0"], &columns);
    Ok(part)
}

/// What one datagram was counted as, and whether it arrived, which takes longer to know if it shall not.
fn walked(
    rules: &Rules,
    from: &UdpSocket,
    target: &str,
    to: &UdpSocket,
    shall_arrive: bool,
) -> Result<([u64; 5], bool), LabError> {
    let before = at_hooks(rules)?;
    send(from, 100, target)?;
    until(|| at_hooks(rules), |now| now[0] > before[0])?;
    let arrived = heard_within(to, if shall_arrive { PATIENCE } else { SILENCE })?.is_some();
    let now = at_hooks(rules)?;
    Ok(([0, 1, 2, 3, 4].map(|hook| now[hook] - before[hook]), arrived))
}

fn table(part: &mut Part, heads: [&str; 2], columns: &[([u64; 5], bool)]) {
    let [first, second] = [&columns[0], &columns[1]];
    let mut rows = Vec::new();
    for (at, hook) in HOOKS.into_iter().enumerate() {
        rows.push([hook.to_uppercase(), first.0[at].to_string(), second.0[at].to_string()]);
    }
    rows.push(["arrived".to_owned(), yes(first.1), yes(second.1)]);
    part.table(["", heads[0], heads[1]], &rows);
}
