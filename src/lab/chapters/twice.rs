//! Why a VPN walks the stack twice: one packet at fourteen places, and what a rule at each of them stops.

use std::time::Duration;

use super::{
    Chapter, Stage,
    rules::Rules,
    sheet::Part,
    stage::{End, Ends, PATIENCE, SILENCE, TUNNEL, ip, ping, until, yes},
};
use crate::lab::{error::LabError, host::Host, link, netfilter::Count, ping::Ping, policy};

pub(super) const CHAPTER: Chapter =
    Chapter { name: "twice", title: "Why a VPN walks the stack twice", picture: TUNNEL, lab };

fn lab(stage: &mut Stage) -> Result<Vec<Part>, LabError> {
    let ends = stage.tunnel(&Ends::default())?;
    let rules = [Rules::place(&ends[0].host, &walk())?, Rules::place(&ends[1].host, &walk())?];
    if !ping(&ends[0].host, "10.77.0.2")? {
        return Err(LabError::Unexpected("the tunnel does not carry".to_owned()));
    }
    let (walk, matrix) = (whole_way(&ends, &rules)?, stopped(&ends, &rules)?);
    Ok(vec![walk, matrix, default_route(stage)?])
}

/// Counts requests and what carries them: a data message with a ping in it has 136 bytes of UDP.
fn walk() -> String {
    let chain = |(hook, device): (&str, &str)| {
        format!(
            "    chain {hook} {{\n        type filter hook {hook} priority 0;\n        \
             {device} vpn0 icmp type echo-request counter comment \"inner {hook}\"\n        \
             udp dport 51820 udp length 136 {device} eth0 counter comment \"outer {hook}\"\n    }}\n"
        )
    };
    let hooks =
        [("output", "oifname"), ("postrouting", "oifname"), ("prerouting", "iifname"), ("input", "iifname")];
    format!("table ip vpnd_lab {{\n{}}}\n", hooks.map(chain).concat())
}

/// Everything that was counted on one host.
#[derive(Clone, Default)]
struct Reading {
    hooks: super::rules::Counts,
    tun: link::Passed,
    wire: link::Passed,
    sealed: u64,
    opened: u64,
}

fn read(end: &End, rules: &Rules) -> Result<Reading, LabError> {
    Ok(Reading {
        hooks: rules.read()?,
        tun: link::passed(&end.host, "vpn0")?,
        wire: link::passed(&end.host, "eth0")?,
        sealed: end.peer("tx_packets")?,
        opened: end.peer("rx_packets")?,
    })
}

impl Reading {
    fn hook(&self, earlier: &Self, name: &str) -> Count {
        let at = |reading: &Self| reading.hooks.get(name).copied().unwrap_or_default();
        at(self) - at(earlier)
    }
}

fn whole_way(ends: &[End; 2], rules: &[Rules; 2]) -> Result<Part, LabError> {
    let mut part = Part::new("One ping from left to right, at every place that counts");
    let read = || Ok([read(&ends[0], &rules[0])?, read(&ends[1], &rules[1])?]);
    let before = read()?;
    ping(&ends[0].host, "10.77.0.2")?;
    // vpnd counts a packet just after it has handed it on.
    let enough = |now: &[Reading; 2]| now[0].sealed > before[0].sealed && now[1].opened > before[1].opened;
    let now = until(read, enough)?;
    let hook = |side: usize, packet: &str, hook: &str| {
        let count = now[side].hook(&before[side], &format!("{packet} {hook}"));
        [hook.to_uppercase(), packet.to_owned(), count.packets.to_string(), count.bytes.to_string()]
    };
    let device = |name: &str, packet: &str, packets: u64, bytes: u64| {
        [name.to_owned(), packet.to_owned(), packets.to_string(), bytes.to_string()]
    };
    let moved = |side: usize| (now[side].tun - before[side].tun, now[side].wire - before[side].wire);
    let vpnd =
        |what: &str, packets: u64| [what.to_owned(), String::new(), packets.to_string(), String::new()];
    let (tun, wire) = moved(0);
    part.line("left, on the way down:");
    part.blank();
    part.table(
        ["place", "packet", "packets", "bytes"],
        &[
            hook(0, "inner", "output"),
            hook(0, "inner", "postrouting"),
            device("vpn0", "inner", tun.tx_packets, tun.tx_bytes),
            vpnd("vpnd: sealed", now[0].sealed - before[0].sealed),
            hook(0, "outer", "output"),
            hook(0, "outer", "postrouting"),
            device("eth0", "outer", wire.tx_packets, wire.tx_bytes),
        ],
    );
    let (tun, wire) = moved(1);
    part.blank();
    part.line("right, on the way up:");
    part.blank();
    part.table(
        ["place", "packet", "packets", "bytes"],
        &[
            device("eth0", "outer", wire.rx_packets, wire.rx_bytes),
            hook(1, "outer", "prerouting"),
            hook(1, "outer", "input"),
            vpnd("vpnd: opened", now[1].opened - before[1].opened),
            device("vpn0", "inner", tun.rx_packets, tun.rx_bytes),
            hook(1, "inner", "prerouting"),
            hook(1, "inner", "input"),
        ],
    );
    Ok(part)
}

/// Where a rule drops: host, hook, what it looks for.
const DROPS: [(usize, &str, &str, &str); 5] = [
    (0, "–", "", "nowhere"),
    (0, "output", "oifname vpn0 icmp type echo-request", "left OUTPUT, inner"),
    (0, "output", "udp dport 51820 udp length 136", "left OUTPUT, outer"),
    (1, "input", "udp dport 51820 udp length 136", "right INPUT, outer"),
    (1, "input", "iifname vpn0 icmp type echo-request", "right INPUT, inner"),
];

fn stopped(ends: &[End; 2], rules: &[Rules; 2]) -> Result<Part, LabError> {
    let mut part = Part::new("The same ping, dropped at one place after the other");
    let mut rows = Vec::new();
    for (side, hook, condition, name) in DROPS {
        let drop = (!condition.is_empty()).then(|| {
            format!(
                "table ip vpnd_drop {{\n chain stop {{\n  type filter hook {hook} priority 10;\n  \
                 {condition} counter drop\n }}\n}}\n"
            )
        });
        let placed = drop.map(|text| Rules::place(&ends[side].host, &text)).transpose()?;
        let before = [rules[0].read()?, rules[1].read()?];
        let answered = request(&ends[0].host, if placed.is_some() { SILENCE } else { PATIENCE })?;
        if let Some(placed) = &placed {
            placed.await_packets("stop", 1)?;
        }
        let now = [rules[0].read()?, rules[1].read()?];
        let counted = |side: usize, name: &str| {
            let at = |counts: &super::rules::Counts| counts.get(name).map_or(0, |count| count.packets);
            (at(&now[side]) - at(&before[side])).to_string()
        };
        rows.push([
            name.to_owned(),
            counted(0, "inner output"),
            counted(0, "outer output"),
            counted(0, "outer postrouting"),
            counted(1, "outer input"),
            counted(1, "inner input"),
            yes(answered),
        ]);
        Rules::place(&ends[side].host, "table ip vpnd_drop {\n}\n")?;
    }
    part.line("① is the inner packet, ② the one that carries it; counted before the rule that drops:");
    part.blank();
    part.table(
        ["dropped at", "① OUTPUT", "② OUTPUT", "② POSTROUTING", "② INPUT", "① INPUT", "answered"],
        &rows,
    );
    Ok(part)
}

fn request(from: &Host, patience: Duration) -> Result<bool, LabError> {
    Ok(from.ping_with(&Ping { patience, ..Ping::to(ip("10.77.0.2")) })?.received == 1)
}

fn default_route(stage: &mut Stage) -> Result<Part, LabError> {
    let mut part =
        Part::new("A default route into the tunnel, and how the tunnel's own packets stay outside");
    let [left, _] = stage.tunnel(&Ends { suffix: "-all", left_allows: "0.0.0.0/0", ..Ends::default() })?;
    part.line("left's rules, with allowed_ips = [\"0.0.0.0/0\"]:");
    for rule in policy::rules(&left.host)? {
        part.line(format!("    {rule}"));
    }
    part.blank();
    let mark = left.daemon.status("vpn0")?["fwmark"].as_u64().unwrap_or(0) as u32;
    let mut rows = Vec::new();
    for (who, to, mark) in [
        ("a program", "8.8.8.8", 0),
        ("a program", "192.0.2.2", 0),
        ("vpnd", "192.0.2.2", mark),
        ("vpnd, were it there", "8.8.8.8", mark),
    ] {
        let answer = link::decide(&left.host, ip(to), mark)?;
        let mark = if mark == 0 { "none".to_owned() } else { format!("{mark:#x}") };
        rows.push([who.to_owned(), to.to_owned(), mark, policy::table_name(answer.table), answer.device]);
    }
    part.table(["who sends", "to", "mark", "table", "device"], &rows);
    Ok(part)
}
