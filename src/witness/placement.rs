//! The table that makes netfilter tell: first in each hook it turns the trace on for the packets that are meant, and last
//! in each hook it sees who came through. The table has an owner (NFT_TABLE_F_OWNER): a child process, `nft -i`, that
//! lives as long as we hold its standard input, so the kernel removes it whatever becomes of us.

use std::{
    io::{self, BufRead, BufReader, Read, Write},
    net::SocketAddr,
    os::unix::process::CommandExt,
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
};

use crate::trace::{
    Filter, Place,
    filter::{Node, Side, Term},
};

/// netfilter's hooks by nft's names.
pub(super) const HOOKS: [(&str, Place); 5] = [
    ("prerouting", Place::Prerouting),
    ("input", Place::Input),
    ("forward", Place::Forward),
    ("output", Place::Output),
    ("postrouting", Place::Postrouting),
];

/// The trace costs a message for each chain: packets that match are traced up to this rate.
const LIMIT: &str = "limit rate 1000/second burst 200 packets";
/// Rules that a filter may become; a larger one matches all, and is applied to what is told.
const MOST_RULES: usize = 16;
/// Where the program is often found, although a user's path lacks the folder.
const PROGRAMS: [&str; 3] = ["nft", "/usr/sbin/nft", "/sbin/nft"];

/// Which carriers are meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Carried {
    /// UDP port of this host's vpnd; `None`: this host only forwards, and any is meant.
    pub port: Option<u16>,
    /// The peer's endpoint, where one packet to one peer is meant.
    pub endpoint: Option<SocketAddr>,
    /// Length of the UDP datagram with its header, where that is known: of one that leaves, and of one that comes.
    pub udp_length: [Option<u16>; 2],
}

/// Why netfilter will tell nothing: a sentence.
#[derive(Debug, thiserror::Error)]
pub enum Unplaced {
    /// There is no nft.
    #[error("the program nft was not found (package nftables)")]
    NoProgram,
    /// It would not.
    #[error("nft: {0}")]
    Refused(String),
    /// It could not be run.
    #[error("running nft: {0}")]
    Io(#[from] io::Error),
}

/// The table while it stands.
pub struct Placement {
    child: Child,
    input: Option<ChildStdin>,
    /// It writes there when it asks for the next command, and dies where nobody would read it.
    _output: BufReader<ChildStdout>,
    table: String,
}

impl Placement {
    /// A name that no other has.
    pub fn table_name() -> String {
        format!("vpnd_trace_{}", std::process::id())
    }

    /// Places the table in this network namespace, and waits until it stands.
    pub fn place(table: &str, inner: &Filter, carried: Option<&Carried>) -> Result<Self, Unplaced> {
        let program = program().ok_or(Unplaced::NoProgram)?;
        let mut child = Command::new(program)
            .arg("-i")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            // Ctrl-C at a terminal is for us: the table stands until we have read what it tells.
            .process_group(0)
            .spawn()?;
        let mut input = child.stdin.take().expect("it was asked to be a pipe");
        let mut output = BufReader::new(child.stdout.take().expect("it was asked to be a pipe"));
        input.write_all(commands(table, inner, carried).as_bytes())?;
        let stands = stands(&mut output);
        let placement = Self { child, input: Some(input), _output: output, table: table.to_owned() };
        match stands {
            true => Ok(placement),
            false => Err(Unplaced::Refused(placement.complaint())),
        }
    }

    /// Its name.
    pub fn table(&self) -> &str {
        &self.table
    }

    /// Ends the child: what it said.
    fn complaint(mut self) -> String {
        drop(self.input.take());
        let mut said = String::new();
        if let Some(mut error) = self.child.stderr.take() {
            let _ = error.read_to_string(&mut said); // what was read is told
        }
        let first = said.lines().find(|line| !line.trim().is_empty());
        first.unwrap_or("it ended without a word").trim().to_owned()
    }
}

impl Drop for Placement {
    fn drop(&mut self) {
        drop(self.input.take());
        // It ends with its input, and the table with it.
        let _ = self.child.wait();
    }
}

pub(super) fn program() -> Option<&'static str> {
    let runs = |program: &&str| {
        let mut command = Command::new(program);
        command
            .arg("--version")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .status()
            .is_ok_and(|s| s.success())
    };
    PROGRAMS.into_iter().find(runs)
}

/// The last command lists a chain: when its rule is shown, all before it was done. A failure is an empty answer.
fn stands(output: impl BufRead) -> bool {
    let mut lines = output.lines().map_while(Result::ok);
    let shown = lines.by_ref().any(|line| line.trim().starts_with("chain ready {"));
    shown && lines.any(|line| line.contains("accept"))
}

fn commands(table: &str, inner: &Filter, carried: Option<&Carried>) -> String {
    let mut text = format!("add table inet {table} {{ flags owner; }}\n");
    for (hook, _) in HOOKS {
        for (edge, priority) in [("first", i32::MIN), ("last", i32::MAX)] {
            text += &format!(
                "add chain inet {table} {edge}_{hook} {{ type filter hook {hook} priority {priority}; }}\n"
            );
        }
    }
    for (hook, sends) in [("output", true), ("prerouting", false)] {
        let rules = carried.map(|carried| carrier(carried, sends)).into_iter().flatten();
        let rules = rules.chain(if carried.is_none_or(|carried| carried.port.is_some()) {
            matches(inner)
        } else {
            vec![]
        });
        for rule in rules {
            text += &format!("add rule inet {table} first_{hook} {rule} {LIMIT} meta nftrace set 1\n");
        }
    }
    text += &format!("add chain inet {table} ready\nadd rule inet {table} ready accept\n");
    text + &format!("list chain inet {table} ready\n")
}

/// UDP, and the first four bytes are those of a transport message.
fn carrier(carried: &Carried, sends: bool) -> Vec<String> {
    let mut rule = String::new();
    if let Some(endpoint) = carried.endpoint {
        let family = if endpoint.is_ipv4() { "ip" } else { "ip6" };
        match sends {
            true => rule += &format!("{family} daddr {} udp dport {} ", endpoint.ip(), endpoint.port()),
            // Where its answers come from NAT decides.
            false => return Vec::new(),
        }
    }
    if let Some(port) = carried.port {
        rule += &format!("udp {} {port} ", if sends { "sport" } else { "dport" });
    }
    if let Some(length) = carried.udp_length[usize::from(!sends)] {
        rule += &format!("udp length {length} ");
    }
    if rule.is_empty() {
        rule += "meta l4proto udp ";
    }
    vec![rule + "@th,64,32 0x04000000"]
}

/// Rules that match all packets that the filter means, and perhaps others: negations, and what would become too many
/// rules, are left to the filter itself.
fn matches(filter: &Filter) -> Vec<String> {
    let rules = any_of(filter.root());
    match rules.len() {
        1..=MOST_RULES => rules.into_iter().map(|terms| terms.join(" ")).collect(),
        _ => vec![String::new()],
    }
}

/// One of these lists of terms must match, each whole.
fn any_of(node: &Node) -> Vec<Vec<String>> {
    match node {
        Node::Any(nodes) => nodes.iter().flat_map(any_of).collect(),
        Node::All(nodes) => nodes.iter().map(any_of).fold(vec![Vec::new()], |before, more| {
            let product = before.iter().flat_map(|one| {
                more.iter().map(move |other| one.iter().chain(other).cloned().collect::<Vec<_>>())
            });
            product.take(MOST_RULES + 1).collect()
        }),
        Node::Not(_) => vec![Vec::new()],
        Node::Term(term) => term_rules(*term).into_iter().map(|rule| vec![rule]).collect(),
    }
}

fn term_rules(term: Term) -> Vec<String> {
    let sided = |side: Side, names: [&str; 2], value: String| -> Vec<String> {
        let rule = |name: &str| format!("{name} {value}");
        match side {
            Side::Source => vec![rule(names[0])],
            Side::Destination => vec![rule(names[1])],
            Side::Either => names.map(rule).into(),
        }
    };
    match term {
        Term::Net(side, net) if net.addr().is_ipv4() => {
            sided(side, ["ip saddr", "ip daddr"], net.to_string())
        }
        Term::Net(side, net) => sided(side, ["ip6 saddr", "ip6 daddr"], net.to_string()),
        Term::Port(side, port) => {
            let rules = sided(side, ["th sport", "th dport"], port.to_string());
            rules.into_iter().map(|rule| format!("meta l4proto {{ tcp, udp }} {rule}")).collect()
        }
        Term::Protocol(number) => vec![format!("meta l4proto {number}")],
        Term::AnyIcmp => vec!["meta l4proto { icmp, icmpv6 }".to_owned()],
        Term::V4 => vec!["meta nfproto ipv4".to_owned()],
        Term::V6 => vec!["meta nfproto ipv6".to_owned()],
        // A super-packet is longer than what it is made of.
        Term::Less(_) | Term::Greater(_) => vec![String::new()],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(text: &str) -> Vec<String> {
        matches(&text.parse().unwrap())
    }

    #[test]
    fn a_filter_becomes_rules_that_match_no_less() {
        assert_eq!(
            rules("dst host 10.77.0.2 and icmp"),
            ["ip daddr 10.77.0.2/32 meta l4proto { icmp, icmpv6 }"]
        );
        assert_eq!(rules("host fd77::2"), ["ip6 saddr fd77::2/128", "ip6 daddr fd77::2/128"]);
        assert_eq!(
            rules("tcp dst port 443 or udp"),
            ["meta l4proto 6 meta l4proto { tcp, udp } th dport 443", "meta l4proto 17"]
        );
        assert_eq!(rules("not icmp"), [""], "left to the filter itself");
        assert_eq!(rules(""), [""]);
        assert_eq!(rules(&["host 10.0.0.1"; 9].join(" or ")), [""], "too many");
    }

    #[test]
    fn a_carrier_is_a_transport_message_of_ours() {
        let carried = Carried {
            port: Some(51820),
            endpoint: Some("192.0.2.2:51821".parse().unwrap()),
            udp_length: [Some(136), None],
        };
        assert_eq!(
            carrier(&carried, true),
            ["ip daddr 192.0.2.2 udp dport 51821 udp sport 51820 udp length 136 @th,64,32 0x04000000"]
        );
        let any = Carried { port: None, endpoint: None, udp_length: [None, Some(90)] };
        assert_eq!(carrier(&any, true), ["meta l4proto udp @th,64,32 0x04000000"]);
        assert_eq!(carrier(&any, false), ["udp length 90 @th,64,32 0x04000000"]);
    }

    #[test]
    fn it_stands_when_the_last_chain_is_shown() {
        let shown = "nft> table inet t {\n\tchain ready {\n\t\taccept\n\t}\n}\n";
        assert!(stands(shown.as_bytes()));
        assert!(!stands(&b"nft> \n"[..]));
    }
}
