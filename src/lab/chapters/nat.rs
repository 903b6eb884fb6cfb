//! NAT: where an address changes, what conntrack remembers, which port two clients get, and how a mapping is forgotten.

use std::collections::BTreeMap;

use super::{
    Chapter, Stage, frames,
    rules::Rules,
    sheet::{Part, about},
    stage::{ROW, SILENCE, heard, heard_within, ip, mac, send, udp, until, yes},
};
use crate::lab::{
    capture::Capture,
    error::{Attempted, LabError},
    host::Host,
    link, neighbours,
};

pub(super) const CHAPTER: Chapter =
    Chapter { name: "nat", title: "NAT: addresses that change under way", picture: ROW, lab };

fn lab(stage: &mut Stage) -> Result<Vec<Part>, LabError> {
    let hosts = stage.row()?;
    let [left, _, right] = &hosts;
    // The right one must not need the route: to it, all comes from the router.
    link::delete_route(right, "10.0.1.0/24".parse().expect("a prefix"), Some(ip("10.0.2.1")), "eth0")?;
    left.add_address("eth0", "10.0.1.3/24")?;
    neighbours::add(&hosts[1], "eth0", ip("10.0.1.3"), mac(0x01))?;
    Ok(vec![
        masquerade(&hosts)?,
        memory(&hosts[1])?,
        same_port(&hosts)?,
        destination(&hosts)?,
        forgotten(&hosts)?,
    ])
}

const MASQUERADE: &str = "\
table ip vpnd_nat {
    chain out { type nat hook postrouting priority srcnat; oifname eth1 masquerade; }
}
";

/// Before and behind each place where an address could change: a name, the hook, and what a reader calls it.
const PLACES: [(&str, &str, &str); 5] = [
    ("raw", "prerouting priority -300", "PREROUTING, priority -300"),
    ("pre", "prerouting priority 0", "PREROUTING, priority 0"),
    ("routed", "forward priority 0", "FORWARD"),
    ("early", "postrouting priority 90", "POSTROUTING, priority 90"),
    ("late", "postrouting priority 110", "POSTROUTING, priority 110"),
];

/// A table that counts at each place by what `field` says, for packets with `condition`.
fn watch(condition: &str, field: &str, values: [&str; 2]) -> String {
    let chain = |(name, hook, _): (&str, &str, &str)| {
        let rule = |value: &str| format!("{condition} {field} {value} counter comment \"{name} {value}\"\n");
        format!("chain {name} {{\ntype filter hook {hook}\n{}}}\n", values.map(rule).concat())
    };
    format!("table ip vpnd_lab {{\n{}}}\n", PLACES.map(chain).concat())
}

/// Which value each place saw.
fn seen(rules: &Rules, values: [&str; 2]) -> Result<Vec<[String; 2]>, LabError> {
    let counts = rules.read()?;
    let saw =
        |place: &str, value: &&str| counts.get(&format!("{place} {value}")).is_some_and(|c| c.packets > 0);
    let row = |(place, _, name): (&str, &str, &str)| {
        let found: Vec<&str> = values.into_iter().filter(|value| saw(place, value)).collect();
        [name.to_owned(), if found.is_empty() { "–".to_owned() } else { found.join(" and ") }]
    };
    Ok(PLACES.into_iter().map(row).collect())
}

fn masquerade([left, router, right]: &[Host; 3]) -> Result<Part, LabError> {
    let mut part =
        Part::new("The source changes last on the way out; the answer's destination first on the way in");
    Rules::place(router, MASQUERADE)?;
    part.line("On router:");
    part.text(MASQUERADE);
    part.blank();
    let (client, server) = (udp(left, "10.0.1.2:40000")?, udp(right, "10.0.2.2:5000")?);
    let sources = ["10.0.1.2", "10.0.2.1"];
    let rules = Rules::place(router, &watch("udp dport 5000", "ip saddr", sources))?;
    let wire = Capture::start(router, "eth1")?;
    send(&client, 100, "10.0.2.2:5000")?;
    let from = heard(&server)?.map_or_else(|| "nobody".to_owned(), |(_, from)| from.to_string());
    let mut rows = seen(&rules, sources)?;
    rows.push(["the wire, eth1".to_owned(), first_word(&wire)?]);
    rows.push(["the program on right".to_owned(), from.clone()]);
    part.table(["left → right", "source"], &rows);
    part.blank();
    let rules = Rules::place(router, &watch("udp sport 5000", "ip daddr", sources))?;
    let wire = Capture::start(router, "eth0")?;
    send(&server, 100, &from)?;
    heard(&client)?;
    let mut rows = seen(&rules, sources)?;
    let on_wire = wire.frames()?.first().map(|frame| frames::frame(frame)).unwrap_or_default();
    let to = on_wire.split("→ ").nth(1).and_then(|rest| rest.split(' ').next()).unwrap_or("–").to_owned();
    rows.push(["the wire, eth0".to_owned(), to]);
    part.table(["right → left, the answer", "destination"], &rows);
    Ok(part)
}

/// The source of the first frame that was captured.
fn first_word(capture: &Capture) -> Result<String, LabError> {
    let frames = capture.frames()?;
    let told = frames.first().map(|frame| frames::frame(frame)).unwrap_or_default();
    Ok(told.split(' ').next().unwrap_or("–").to_owned())
}

/// An entry of conntrack: the packet that made it, and the answer that is expected.
struct Tracked {
    original: BTreeMap<String, String>,
    reply: BTreeMap<String, String>,
}

impl Tracked {
    fn words(tuple: &BTreeMap<String, String>) -> String {
        let part = |key: &str| tuple.get(key).map_or("?", String::as_str);
        format!("{}:{} → {}:{}", part("src"), part("sport"), part("dst"), part("dport"))
    }
}

/// The entries for UDP from this port.
fn tracked(router: &Host, source_port: &str) -> Result<Vec<Tracked>, LabError> {
    let read = || std::fs::read_to_string("/proc/thread-self/net/nf_conntrack");
    let text = router.run(read).attempted(|| "read /proc/net/nf_conntrack".to_owned())?;
    let parse = |line: &str| {
        let (mut original, mut reply) = (BTreeMap::new(), BTreeMap::new());
        for (key, value) in line.split_whitespace().filter_map(|word| word.split_once('=')) {
            let tuple = if original.contains_key(key) { &mut reply } else { &mut original };
            tuple.entry(key.to_owned()).or_insert_with(|| value.to_owned());
        }
        Tracked { original, reply }
    };
    let ours = |entry: &Tracked| entry.original.get("sport").is_some_and(|port| port == source_port);
    Ok(text.lines().filter(|line| line.contains(" udp ")).map(parse).filter(ours).collect())
}

fn memory(router: &Host) -> Result<Part, LabError> {
    let mut part = Part::new("What the router remembers");
    for entry in tracked(router, "40000")? {
        part.line(format!("the packet that came first   {}", Tracked::words(&entry.original)));
        part.line(format!("the answer that it expects   {}", Tracked::words(&entry.reply)));
    }
    Ok(part)
}

fn same_port([left, router, right]: &[Host; 3]) -> Result<Part, LabError> {
    let mut part = Part::new("Two clients, one port: the second one gets another");
    let server = udp(right, "10.0.2.2:5001")?;
    let mut rows = Vec::new();
    for client in ["10.0.1.2:41000", "10.0.1.3:41000"] {
        send(&udp(left, client)?, 100, "10.0.2.2:5001")?;
        let seen = heard(&server)?.map(|(_, from)| from);
        let seen = seen.map_or_else(
            || "nothing".to_owned(),
            |from| match from.port() {
                41_000 => from.to_string(),
                other => format!("{}:{}", from.ip(), about(other)),
            },
        );
        rows.push([client.to_owned(), seen]);
    }
    part.table(["client sends from", "right sees"], &rows);
    part.blank();
    part.line(format!("entries that router has for them: {}", tracked(router, "41000")?.len()));
    Ok(part)
}

const FORWARD: &str = "\
table ip vpnd_dnat {
    chain in { type nat hook prerouting priority dstnat; iifname eth1 udp dport 8080 dnat to 10.0.1.2:5002; }
}
";

fn destination([left, router, right]: &[Host; 3]) -> Result<Part, LabError> {
    let mut part = Part::new("The other way: a port of the router that leads inside");
    Rules::place(router, FORWARD)?;
    part.line("On router:");
    part.text(FORWARD);
    part.blank();
    let (server, client) = (udp(left, "10.0.1.2:5002")?, udp(right, "10.0.2.2:40000")?);
    let places = ["10.0.2.1 udp dport 8080", "10.0.1.2 udp dport 5002"];
    let rules = Rules::place(router, &watch("", "ip daddr", places))?;
    send(&client, 100, "10.0.2.1:8080")?;
    let arrived = heard(&server)?;
    let mut rows: Vec<[String; 2]> = seen(&rules, places)?
        .into_iter()
        .map(|[place, to]| [place, to.replace(" udp dport ", ":")])
        .collect();
    let from = arrived.map_or_else(|| "nothing".to_owned(), |(_, from)| format!("from {from}"));
    rows.push(["the program on left hears".to_owned(), from]);
    part.table(["right → router, port 8080", "destination"], &rows);
    Ok(part)
}

fn forgotten([left, router, right]: &[Host; 3]) -> Result<Part, LabError> {
    let mut part = Part::new("A mapping that nobody uses is forgotten");
    const TIMEOUT: &str = "netfilter.nf_conntrack_udp_timeout";
    let usual = router.run(|| std::fs::read_to_string("/proc/sys/net/netfilter/nf_conntrack_udp_timeout"));
    let usual = usual.attempted(|| format!("read net.{TIMEOUT}"))?;
    part.line(format!("net.{TIMEOUT}: {} seconds; here 1", usual.trim()));
    part.blank();
    router.sysctl(TIMEOUT, "1")?;
    let (client, server) = (udp(left, "10.0.1.2:42000")?, udp(right, "10.0.2.2:5003")?);
    let mut rows = Vec::new();
    send(&client, 100, "10.0.2.2:5003")?;
    heard(&server)?;
    until(|| tracked(router, "42000"), Vec::is_empty)?;
    send(&server, 100, "10.0.2.1:42000")?;
    let late = heard_within(&client, SILENCE)?.is_some();
    rows.push(["right sends after the router forgot".to_owned(), yes(late)]);
    router.sysctl(TIMEOUT, "30")?;
    send(&client, 100, "10.0.2.2:5003")?;
    let from = heard(&server)?.map_or_else(|| "10.0.2.1:42000".to_owned(), |(_, from)| from.to_string());
    send(&server, 100, &from)?;
    let fresh = heard(&client)?.is_some();
    rows.push(["right answers what left sent again".to_owned(), yes(fresh)]);
    part.table(["", "arrived at left"], &rows);
    Ok(part)
}
