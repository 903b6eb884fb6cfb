//! Netfilter's five hooks: which packets meet which, in which order, and what a verdict ends.

use std::{io::ErrorKind, net::UdpSocket};

use super::{
    Chapter, Stage,
    rules::{HOOKS, Rules, at_hooks, five_hooks},
    sheet::Part,
    stage::{PATIENCE, ROW, SILENCE, heard, heard_within, send, udp, yes},
};
use crate::lab::{
    error::{Attempted, LabError},
    host::Host,
};

pub(super) const CHAPTER: Chapter =
    Chapter { name: "hooks", title: "Netfilter's five hooks", picture: ROW, lab };

fn lab(stage: &mut Stage) -> Result<Vec<Part>, LabError> {
    let hosts = stage.row()?;
    Ok(vec![three_ways(&hosts)?, order(&hosts)?, drop_or_reject(&hosts)?, states(&hosts)?])
}

fn three_ways([left, router, right]: &[Host; 3]) -> Result<Part, LabError> {
    let mut part = Part::new("Three ways through one host");
    let text = five_hooks("udp dport 5000");
    let rules = Rules::place(router, &text)?;
    let (a, b) = (udp(left, "10.0.1.2:5000")?, udp(right, "10.0.2.2:5000")?);
    let r = udp(router, "0.0.0.0:5000")?;
    let mut ways = Vec::new();
    for (from, target, to) in
        [(&a, "10.0.2.2:5000", &b), (&a, "10.0.1.1:5000", &r), (&r, "10.0.2.2:5000", &b)]
    {
        let before = at_hooks(&rules)?;
        send(from, 100, target)?;
        heard(to)?;
        let now = at_hooks(&rules)?;
        ways.push([0, 1, 2, 3, 4].map(|hook| now[hook] - before[hook]));
    }
    part.line("On router:");
    part.text(&text);
    part.blank();
    part.line("One datagram each way, and what router counted:");
    part.blank();
    let row = |hook: usize| {
        let [through, to, from] = [0, 1, 2].map(|way: usize| ways[way][hook].to_string());
        [HOOKS[hook].to_uppercase(), through, to, from]
    };
    part.table(["hook", "left → right", "left → router", "router → right"], &[0, 1, 2, 3, 4].map(row));
    Ok(part)
}

/// Two chains at one hook; what the first one says.
const ORDER: &str = "\
table ip vpnd_order {
    chain late {
        type filter hook forward priority 10;
        udp dport 5001 counter drop comment \"late, 5001\"
        udp dport 5002 counter accept comment \"late, 5002\"
    }
    chain early {
        type filter hook forward priority -10;
        udp dport 5001 counter accept comment \"early, 5001\"
        udp dport 5002 counter drop comment \"early, 5002\"
    }
}
";

fn order([left, router, right]: &[Host; 3]) -> Result<Part, LabError> {
    let mut part = Part::new("Two chains at one hook: accept is not the last word, drop is");
    let rules = Rules::place(router, ORDER)?;
    part.line("On router:");
    part.text(ORDER);
    part.blank();
    let from = udp(left, "10.0.1.2:5000")?;
    let mut rows = Vec::new();
    for (port, deadly) in [(5001, "late, 5001"), (5002, "early, 5002")] {
        let to = udp(right, &format!("10.0.2.2:{port}"))?;
        send(&from, 100, &format!("10.0.2.2:{port}"))?;
        rules.await_packets(deadly, 1)?;
        let arrived = heard_within(&to, SILENCE)?.is_some();
        let packets = |chain: &str| rules.packets(&format!("{chain}, {port}")).map(|n| n.to_string());
        rows.push([port.to_string(), packets("early")?, packets("late")?, yes(arrived)]);
    }
    part.table(["port", "early (-10) saw", "late (10) saw", "arrived"], &rows);
    Ok(part)
}

const REFUSE: &str = "\
table ip vpnd_refuse {
    chain input {
        type filter hook input priority 0;
        udp dport 5003 counter drop comment \"drop\"
        udp dport 5004 counter reject comment \"reject\"
    }
}
";

fn drop_or_reject([left, router, _]: &[Host; 3]) -> Result<Part, LabError> {
    let mut part = Part::new("drop is silent, reject answers");
    let rules = Rules::place(router, REFUSE)?;
    part.line("On router:");
    part.text(REFUSE);
    part.blank();
    let mut rows = Vec::new();
    for (verdict, port) in [("drop", 5003), ("reject", 5004)] {
        let socket = udp(left, "10.0.1.2:0")?;
        socket.connect(("10.0.1.1", port)).attempted(|| format!("connect to port {port}"))?;
        socket.send(b"may I?").attempted(|| format!("send to port {port}"))?;
        let counted = rules.await_packets(verdict, 1)?;
        rows.push([verdict.to_owned(), counted.to_string(), answer(&socket, verdict)]);
    }
    part.table(["verdict", "packets", "what the sender is told"], &rows);
    Ok(part)
}

fn answer(socket: &UdpSocket, verdict: &str) -> String {
    // Nothing can come after a drop; after a reject something must.
    let limit = if verdict == "drop" { SILENCE } else { PATIENCE };
    let told = socket.set_read_timeout(Some(limit)).and_then(|()| socket.recv(&mut [0; 16]));
    match told {
        Err(e) if e.kind() == ErrorKind::ConnectionRefused => "connection refused".to_owned(),
        Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => "nothing".to_owned(),
        Err(e) => e.to_string(),
        Ok(_) => "an answer".to_owned(),
    }
}

const STATES: &str = "\
table ip vpnd_states {
    chain forward {
        type filter hook forward priority 20;
        udp dport != 6000-6001 return
        ct state established counter accept comment \"established\"
        iifname eth0 ct state new counter accept comment \"new, from left\"
        counter drop comment \"the rest\"
    }
}
";

fn states([left, router, right]: &[Host; 3]) -> Result<Part, LabError> {
    let mut part = Part::new("A firewall with a memory: answers may pass, questions from outside may not");
    let rules = Rules::place(router, STATES)?;
    part.line("On router:");
    part.text(STATES);
    part.blank();
    let (client, server) = (udp(left, "10.0.1.2:6000")?, udp(right, "10.0.2.2:6001")?);
    let (other, stranger) = (udp(left, "10.0.1.2:6001")?, udp(right, "10.0.2.2:6000")?);
    let mut rows = Vec::new();
    let mut step = |what: &str, from: &UdpSocket, target: &str, to: &UdpSocket, passes: bool| {
        let before = rules.read()?;
        send(from, 100, target)?;
        if !passes {
            rules.await_packets("the rest", 1)?;
        }
        let arrived = heard_within(to, if passes { PATIENCE } else { SILENCE })?.is_some();
        let moved: Vec<String> = rules
            .read()?
            .into_iter()
            .filter(|(name, count)| before.get(name) != Some(count))
            .map(|(name, _)| name)
            .collect();
        rows.push([what.to_owned(), moved.join(" and "), yes(arrived)]);
        Ok::<_, LabError>(())
    };
    step("left asks right", &client, "10.0.2.2:6001", &server, true)?;
    step("right answers", &server, "10.0.1.2:6000", &client, true)?;
    step("left asks again", &client, "10.0.2.2:6001", &server, true)?;
    step("right asks, from another port", &stranger, "10.0.1.2:6001", &other, false)?;
    part.table(["datagram", "the rule that took it", "arrived"], &rows);
    Ok(part)
}
