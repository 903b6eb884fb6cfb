//! Which packets are meant: a small expression in the words of pcap-filter(7), such as
//! `host 10.77.0.2 and (icmp or tcp port 443)`.

use std::{fmt, net::IpAddr, str::FromStr};

use ipnet::IpNet;

use super::facts::Facts;
use crate::wire::ip::{ICMP, ICMPV6, TCP, UDP};

/// No expression is longer, and none has more terms: it is looked at for each packet.
const MAX_TEXT: usize = 1024;
const MAX_TERMS: usize = 64;
/// Parentheses and `not` in each other.
const MAX_DEPTH: usize = 16;

/// A filter that was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Filter {
    text: String,
    root: Node,
}

/// A term, or terms together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Node {
    /// All of them; none: every packet.
    All(Vec<Node>),
    /// One of them.
    Any(Vec<Node>),
    /// The other packets.
    Not(Box<Node>),
    /// One question.
    Term(Term),
}

/// Source, destination, or either.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// `src`.
    Source,
    /// `dst`.
    Destination,
    /// Neither word.
    Either,
}

/// One question to a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Term {
    /// `host ADDRESS`, `net PREFIX`.
    Net(Side, IpNet),
    /// `port N`: TCP or UDP.
    Port(Side, u16),
    /// `tcp`, `udp`, `icmp` (either family's), `proto N`.
    Protocol(u8),
    /// `icmp`: ICMP or ICMPv6.
    AnyIcmp,
    /// `ip`.
    V4,
    /// `ip6`.
    V6,
    /// `less N`: at most so many bytes, from the IP header on.
    Less(u32),
    /// `greater N`: at least so many.
    Greater(u32),
}

/// What is wrong with an expression, and where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("filter, at character {at}: {what}")]
pub struct FilterError {
    /// From 1 on.
    pub at: usize,
    /// A sentence: what was found, what would do.
    pub what: String,
}

impl Filter {
    /// Every packet.
    pub fn all() -> Self {
        Self { text: String::new(), root: Node::All(Vec::new()) }
    }

    /// Does it mean this packet?
    pub fn matches(&self, facts: &Facts) -> bool {
        self.root.matches(facts)
    }

    /// Its terms.
    pub fn root(&self) -> &Node {
        &self.root
    }
}

impl fmt::Display for Filter {
    /// As it was written.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl FromStr for Filter {
    type Err = FilterError;

    fn from_str(text: &str) -> Result<Self, FilterError> {
        if text.len() > MAX_TEXT {
            let what = format!("it has {} characters, and {MAX_TEXT} are enough", text.len());
            return Err(FilterError { at: MAX_TEXT, what });
        }
        let mut reader = Reader { words: words(text), next: 0, end: text.chars().count() + 1, terms: 0 };
        if reader.words.is_empty() {
            return Ok(Self::all());
        }
        let root = reader.any(0)?;
        match reader.peek() {
            None => Ok(Self { text: text.trim().to_owned(), root }),
            Some(")") => Err(reader.wrong("this ) closes nothing")),
            Some(word) => {
                let what = format!("found {word:?} behind a whole term; join terms with and, or");
                Err(reader.wrong(what))
            }
        }
    }
}

impl Node {
    fn matches(&self, facts: &Facts) -> bool {
        match self {
            Self::All(nodes) => nodes.iter().all(|node| node.matches(facts)),
            Self::Any(nodes) => nodes.iter().any(|node| node.matches(facts)),
            Self::Not(node) => !node.matches(facts),
            Self::Term(term) => term.matches(facts),
        }
    }
}

impl Term {
    fn matches(self, facts: &Facts) -> bool {
        match self {
            Self::Net(side, net) => side.is_one([facts.source, facts.destination], |a| net.contains(a)),
            Self::Port(side, port) => facts.ports.is_some_and(|ports| side.is_one(ports, |p| *p == port)),
            Self::Protocol(protocol) => facts.protocol == protocol,
            Self::AnyIcmp => matches!(facts.protocol, ICMP | ICMPV6),
            Self::V4 => facts.source.is_ipv4(),
            Self::V6 => facts.source.is_ipv6(),
            Self::Less(bytes) => facts.bytes <= bytes,
            Self::Greater(bytes) => facts.bytes >= bytes,
        }
    }
}

impl Side {
    fn is_one<T>(self, [source, destination]: [T; 2], is: impl Fn(&T) -> bool) -> bool {
        match self {
            Self::Source => is(&source),
            Self::Destination => is(&destination),
            Self::Either => is(&source) || is(&destination),
        }
    }
}

/// Words with the character at which each begins; parentheses and `!` are words.
fn words(text: &str) -> Vec<(usize, String)> {
    let (mut words, mut word) = (Vec::new(), None::<(usize, String)>);
    for (at, c) in (1..).zip(text.chars()) {
        if c.is_whitespace() || "()!".contains(c) {
            words.extend(word.take());
            if !c.is_whitespace() {
                words.push((at, c.to_string()));
            }
        } else {
            word.get_or_insert((at, String::new())).1.push(c);
        }
    }
    words.extend(word);
    words
}

struct Reader {
    words: Vec<(usize, String)>,
    next: usize,
    end: usize,
    terms: usize,
}

/// Words that begin a term.
const TERMS: [&str; 16] = [
    "host", "net", "port", "src", "dst", "tcp", "udp", "icmp", "icmp6", "proto", "ip", "ip6", "less",
    "greater", "not", "and",
];

impl Reader {
    fn peek(&self) -> Option<&str> {
        self.words.get(self.next).map(|(_, word)| word.as_str())
    }

    fn take(&mut self, wanted: &[&str]) -> bool {
        let found = self.peek().is_some_and(|word| wanted.contains(&word));
        self.next += usize::from(found);
        found
    }

    /// About the next word.
    fn wrong(&self, what: impl Into<String>) -> FilterError {
        let at = self.words.get(self.next).map_or(self.end, |(at, _)| *at);
        FilterError { at, what: what.into() }
    }

    fn any(&mut self, depth: usize) -> Result<Node, FilterError> {
        let mut nodes = vec![self.all(depth)?];
        while self.take(&["or", "||"]) {
            nodes.push(self.all(depth)?);
        }
        Ok(alone(nodes, Node::Any))
    }

    fn all(&mut self, depth: usize) -> Result<Node, FilterError> {
        let mut nodes = vec![self.one(depth)?];
        while self.take(&["and", "&&"]) {
            nodes.push(self.one(depth)?);
        }
        Ok(alone(nodes, Node::All))
    }

    fn one(&mut self, depth: usize) -> Result<Node, FilterError> {
        if depth > MAX_DEPTH {
            return Err(self.wrong(format!("more than {MAX_DEPTH} parentheses in each other")));
        }
        if self.take(&["not", "!"]) {
            return Ok(Node::Not(Box::new(self.one(depth + 1)?)));
        }
        if self.take(&["("]) {
            let inside = self.any(depth + 1)?;
            return if self.take(&[")"]) { Ok(inside) } else { Err(self.wrong("a ) is missing here")) };
        }
        self.term()
    }

    /// `[tcp|udp] [src|dst] (host|net|port) VALUE`, or a word that says all.
    fn term(&mut self) -> Result<Node, FilterError> {
        self.terms += 1;
        if self.terms > MAX_TERMS {
            return Err(self.wrong(format!("more than {MAX_TERMS} terms")));
        }
        let Some(word) = self.peek().map(str::to_owned) else {
            return Err(self.wrong("a term is missing here, such as host 10.77.0.2, tcp or port 443"));
        };
        let whole = match word.as_str() {
            "tcp" | "udp" => return self.transport(if word == "tcp" { TCP } else { UDP }),
            "icmp" => Term::AnyIcmp,
            "icmp6" | "icmpv6" => Term::Protocol(ICMPV6),
            "ip" => Term::V4,
            "ip6" => Term::V6,
            "proto" | "less" | "greater" => {
                self.next += 1;
                return Ok(Node::Term(match word.as_str() {
                    "proto" => Term::Protocol(self.number("proto", "a protocol number (0 to 255)")?),
                    "less" => Term::Less(self.number("less", "a number of bytes")?),
                    _ => Term::Greater(self.number("greater", "a number of bytes")?),
                }));
            }
            _ => return self.sided(),
        };
        self.next += 1;
        Ok(Node::Term(whole))
    }

    /// `tcp`, and `tcp port 443` for `tcp and port 443`.
    fn transport(&mut self, protocol: u8) -> Result<Node, FilterError> {
        self.next += 1;
        let protocol = Node::Term(Term::Protocol(protocol));
        if !self.peek().is_some_and(|word| matches!(word, "port" | "src" | "dst")) {
            return Ok(protocol);
        }
        Ok(Node::All(vec![protocol, self.sided()?]))
    }

    fn sided(&mut self) -> Result<Node, FilterError> {
        let side = match self.peek() {
            Some("src") => Side::Source,
            Some("dst") => Side::Destination,
            _ => Side::Either,
        };
        self.next += usize::from(side != Side::Either);
        let Some(word) = self.peek().map(str::to_owned) else {
            return Err(self.wrong("host, net or port is missing here"));
        };
        let term = match word.as_str() {
            "port" => {
                self.next += 1;
                Term::Port(side, self.number("port", "a port (0 to 65535)")?)
            }
            "host" | "net" => {
                self.next += 1;
                self.net(side, word == "host")?
            }
            // `src 10.77.0.2`, and an address alone.
            _ if word.parse::<IpAddr>().is_ok() || word.parse::<IpNet>().is_ok() => self.net(side, false)?,
            _ => return Err(self.unknown(&word)),
        };
        Ok(Node::Term(term))
    }

    fn net(&mut self, side: Side, host: bool) -> Result<Term, FilterError> {
        let wanted = if host { "an IP address" } else { "a prefix such as 10.77.0.0/24" };
        let Some(word) = self.peek() else { return Err(self.wrong(format!("{wanted} is missing here"))) };
        let net = word.parse::<IpAddr>().map(IpNet::from).ok();
        let net = net.or_else(|| word.parse::<IpNet>().ok().filter(|_| !host));
        let net = net.ok_or_else(|| self.wrong(format!("found {word:?} where {wanted} belongs")))?;
        self.next += 1;
        Ok(Term::Net(side, net.trunc()))
    }

    fn number<T: FromStr>(&mut self, behind: &str, wanted: &str) -> Result<T, FilterError> {
        let found = self.peek().and_then(|word| word.parse().ok());
        let missing = || match self.peek() {
            Some(word) => self.wrong(format!("found {word:?} behind {behind}, where {wanted} belongs")),
            None => self.wrong(format!("{wanted} is missing behind {behind}")),
        };
        let number = found.ok_or_else(missing)?;
        self.next += 1;
        Ok(number)
    }

    fn unknown(&self, word: &str) -> FilterError {
        let near = TERMS
            .into_iter()
            .max_by(|a, b| strsim::jaro_winkler(word, a).total_cmp(&strsim::jaro_winkler(word, b)));
        let near = near.filter(|near| strsim::jaro_winkler(word, near) > 0.8);
        let hint = near.map(|near| format!("; is {near} meant?")).unwrap_or_else(|| ".".to_owned());
        self.wrong(format!(
            "{word:?} is not known here{hint} A filter is made of host, net, port, src, dst, tcp, udp, icmp, icmp6, \
             proto, ip, ip6, less and greater, joined with and, or, not and parentheses"
        ))
    }
}

fn alone(mut nodes: Vec<Node>, together: fn(Vec<Node>) -> Node) -> Node {
    if nodes.len() == 1 { nodes.remove(0) } else { together(nodes) }
}

#[cfg(test)]
mod tests {
    use super::{
        super::facts::tests::{echo, tcp_v6},
        *,
    };

    fn matching(text: &str) -> [bool; 2] {
        let filter: Filter = text.parse().unwrap_or_else(|error| panic!("{text}: {error}"));
        [echo(), tcp_v6()].map(|packet| filter.matches(&Facts::of(&packet).unwrap()))
    }

    #[test]
    fn each_term_finds_the_packets_that_it_means() {
        let (ping, tcp) = ([true, false], [false, true]);
        for text in
            ["icmp", "ip", "host 10.77.0.2", "src 10.77.0.1", "net 10.77.0.0/24", "greater 61", "proto 1"]
        {
            assert_eq!(matching(text), ping, "{text}");
            assert_eq!(matching(&format!("not {text}")), tcp, "not {text}");
        }
        for text in ["tcp", "ip6", "port 443", "tcp dst port 443", "src port 40000", "fd77::/16", "less 60"] {
            assert_eq!(matching(text), tcp, "{text}");
        }
        assert_eq!(matching(""), [true; 2]);
        assert_eq!(matching("dst host 10.77.0.1"), [false; 2]);
    }

    #[test]
    fn and_binds_tighter_than_or_and_parentheses_tightest() {
        assert_eq!(matching("icmp or tcp and port 80"), [true, false]);
        assert_eq!(matching("(icmp or tcp) and port 443"), [false, true]);
        assert_eq!(matching("!(icmp)"), [false, true]);
        assert_eq!(matching("not not icmp"), [true, false]);
    }

    #[test]
    fn what_is_wrong_is_named_with_its_place() {
        let wrong = |text: &str| text.parse::<Filter>().expect_err(text).to_string();
        for (text, at, said) in [
            ("hots 10.77.0.2", 1, "is host meant?"),
            ("host 10.77.0", 6, "\"10.77.0\" where an IP address belongs"),
            ("host 10.0.0.0/8", 6, "an IP address"),
            ("icmp and", 9, "a term is missing"),
            ("(icmp or tcp", 13, "a ) is missing"),
            ("icmp) or tcp", 5, "closes nothing"),
            ("icmp tcp", 6, "join terms"),
            ("port 65536", 6, "a port"),
            ("tcp port", 9, "missing behind port"),
            ("net 10.0.0.0/40", 5, "a prefix"),
            ("proto", 6, "a protocol number"),
        ] {
            let error = wrong(text);
            assert!(error.contains(&format!("character {at}:")) && error.contains(said), "{text}: {error}");
        }
        assert!(wrong(&"(".repeat(40)).contains("parentheses"));
        assert!(wrong(&vec!["tcp"; 65].join(" or ")).contains("64 terms"));
        assert!(wrong(&"x".repeat(2000)).contains("1024"));
    }
}
