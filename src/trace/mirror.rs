//! What may answer the packets of a filter: the same with both sides exchanged, and ICMP's complaints about them.

use std::fmt;

use super::{
    Filter,
    filter::{FilterError, Node, Side, Term},
};
use crate::wire::ip::{TCP, UDP};

impl Filter {
    /// Which packets may be answers to those that are meant.
    pub fn answers(&self) -> Result<Self, FilterError> {
        Written(&mirrored(self.root())).to_string().parse()
    }

    /// What is meant by this one, or by the other one.
    pub fn or(&self, other: &Self) -> Result<Self, FilterError> {
        match [self, other].iter().any(|filter| matches!(filter.root(), Node::All(nodes) if nodes.is_empty()))
        {
            true => Ok(Self::all()),
            false => format!("({self}) or ({other})").parse(),
        }
    }
}

/// A complaint may come from any router on the way, and says nothing of ports before its own payload.
fn mirrored(node: &Node) -> Node {
    let or_icmp = |term| Node::Any(vec![Node::Term(term), Node::Term(Term::AnyIcmp)]);
    match node {
        Node::All(nodes) => Node::All(nodes.iter().map(mirrored).collect()),
        Node::Any(nodes) => Node::Any(nodes.iter().map(mirrored).collect()),
        Node::Not(node) => Node::Not(Box::new(exchanged(node))),
        Node::Term(Term::Protocol(protocol @ (TCP | UDP))) => or_icmp(Term::Protocol(*protocol)),
        Node::Term(Term::Port(side, port)) => or_icmp(Term::Port(side.other(), *port)),
        // How long an answer is nobody knows.
        Node::Term(Term::Less(_) | Term::Greater(_)) => Node::All(Vec::new()),
        Node::Term(term) => Node::Term(term.exchanged()),
    }
}

fn exchanged(node: &Node) -> Node {
    match node {
        Node::All(nodes) => Node::All(nodes.iter().map(exchanged).collect()),
        Node::Any(nodes) => Node::Any(nodes.iter().map(exchanged).collect()),
        Node::Not(node) => Node::Not(Box::new(exchanged(node))),
        Node::Term(term) => Node::Term(term.exchanged()),
    }
}

impl Term {
    fn exchanged(self) -> Self {
        match self {
            Self::Net(side, net) => Self::Net(side.other(), net),
            Self::Port(side, port) => Self::Port(side.other(), port),
            other => other,
        }
    }
}

impl Side {
    fn other(self) -> Self {
        match self {
            Self::Source => Self::Destination,
            Self::Destination => Self::Source,
            Self::Either => Self::Either,
        }
    }

    fn word(self) -> &'static str {
        match self {
            Self::Source => "src ",
            Self::Destination => "dst ",
            Self::Either => "",
        }
    }
}

/// A node in the words of a filter.
struct Written<'a>(&'a Node);

impl fmt::Display for Written<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let joined = |f: &mut fmt::Formatter<'_>, nodes: &[Node], word: &str| {
            for (at, node) in nodes.iter().enumerate() {
                let before = if at == 0 { "(" } else { word };
                write!(f, "{before}{}", Written(node))?;
            }
            f.write_str(")")
        };
        match self.0 {
            // All packets are of one family or the other.
            Node::All(nodes) if nodes.is_empty() => f.write_str("(ip or ip6)"),
            Node::All(nodes) => joined(f, nodes, " and "),
            Node::Any(nodes) => joined(f, nodes, " or "),
            Node::Not(node) => write!(f, "not {}", Written(node)),
            Node::Term(term) => match *term {
                Term::Net(side, net) => write!(f, "{}net {net}", side.word()),
                Term::Port(side, port) => write!(f, "{}port {port}", side.word()),
                Term::Protocol(number) => write!(f, "proto {number}"),
                Term::AnyIcmp => f.write_str("icmp"),
                Term::V4 => f.write_str("ip"),
                Term::V6 => f.write_str("ip6"),
                Term::Less(bytes) => write!(f, "less {bytes}"),
                Term::Greater(bytes) => write!(f, "greater {bytes}"),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{
        Facts,
        facts::tests::{echo, tcp_v6},
    };
    use super::*;

    /// Does a packet answer what the filter means? Written: the packet's own source and destination.
    fn answers(filter: &str, packet: &[u8]) -> bool {
        let filter: Filter = filter.parse().unwrap();
        filter.answers().unwrap().matches(&Facts::of(packet).unwrap())
    }

    #[test]
    fn both_sides_are_exchanged() {
        // The packet is from 10.77.0.1 to 10.77.0.2.
        assert!(answers("icmp and dst host 10.77.0.1", &echo()));
        assert!(!answers("icmp and dst host 10.77.0.2", &echo()));
        assert!(answers("src net 10.77.0.2/31 and dst 10.77.0.0/31", &echo()));
        assert!(answers("icmp and host 10.77.0.2", &echo()));
        // From fd77::1 port 40000 to fd77::2 port 443.
        assert!(answers("tcp dst port 40000", &tcp_v6()));
        assert!(!answers("tcp dst port 443", &tcp_v6()));
        assert!(answers("tcp port 443 and not src port 40000", &tcp_v6()));
    }

    #[test]
    fn complaints_about_them_are_answers_and_lengths_do_not_count() {
        assert!(answers("udp and dst port 7 and dst host 10.77.0.1", &echo()));
        assert!(answers("greater 1000", &echo()));
        assert!(answers("", &echo()));
    }

    #[test]
    fn what_is_joined_means_both_and_can_be_read_again() {
        let one: Filter = "icmp and dst host 10.77.0.2".parse().unwrap();
        let both = one.or(&one.answers().unwrap()).unwrap();
        assert_eq!(both.to_string(), "(icmp and dst host 10.77.0.2) or ((icmp and src net 10.77.0.2/32))");
        assert_eq!(both.to_string().parse::<Filter>().unwrap(), both);
        assert_eq!(one.or(&Filter::all()).unwrap(), Filter::all());
    }
}
