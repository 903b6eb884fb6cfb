//! How long packets are that a filter means: the kernel's tracepoints show lengths, and can leave out all others.

use std::ops::RangeInclusive;

use super::{
    Filter,
    filter::{Node, Term},
};

/// Headers of the link, with a VLAN's tag.
const LINK: u32 = 14 + 4;
/// Headers of the carrier: IPv6 at most, UDP, the transport message; and its tag.
const CARRIER: u32 = 40 + 8 + 16 + 16;

impl Filter {
    /// No packet that it means is shorter, or longer: from the IP header on.
    pub fn lengths(&self) -> RangeInclusive<u32> {
        lengths(self.root())
    }
}

/// Of packets as long as these, and of what carries them, at the devices by which they leave.
pub fn at_devices(lengths: &RangeInclusive<u32>) -> RangeInclusive<u32> {
    let padded = lengths.end().checked_next_multiple_of(16).unwrap_or(u32::MAX);
    *lengths.start()..=padded.saturating_add(CARRIER + LINK)
}

fn lengths(node: &Node) -> RangeInclusive<u32> {
    let any = 0..=u32::MAX;
    match node {
        Node::All(nodes) => nodes
            .iter()
            .map(lengths)
            .fold(any, |one, other| *one.start().max(other.start())..=*one.end().min(other.end())),
        Node::Any(nodes) => {
            let ranges = nodes.iter().map(lengths);
            let both =
                ranges.reduce(|one, other| *one.start().min(other.start())..=*one.end().max(other.end()));
            both.unwrap_or(any)
        }
        Node::Term(Term::Less(bytes)) => 0..=*bytes,
        Node::Term(Term::Greater(bytes)) => *bytes..=u32::MAX,
        Node::Not(_) | Node::Term(_) => any,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_that_names_lengths_means_no_others() {
        for (text, least, most) in [
            ("", 0, u32::MAX),
            ("icmp and less 100", 0, 100),
            ("greater 599 and less 599 and host 10.77.0.2", 599, 599),
            ("less 60 or (greater 100 and less 200)", 0, 200),
            ("less 60 or tcp", 0, u32::MAX),
            ("not less 60", 0, u32::MAX),
        ] {
            assert_eq!(text.parse::<Filter>().unwrap().lengths(), least..=most, "{text}");
        }
    }

    #[test]
    fn what_carries_a_packet_is_longer_and_no_number_runs_over() {
        // 599 → 608, 40 + 8 + 32 around it, 14 + 4 of the link.
        assert_eq!(at_devices(&(599..=599)), 599..=608 + 80 + 18);
        assert_eq!(at_devices(&(0..=u32::MAX)), 0..=u32::MAX);
    }
}
