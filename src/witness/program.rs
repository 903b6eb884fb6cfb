//! Which packets a packet socket is to see, as a program for the kernel (classic BPF, Documentation/networking/filter.rst):
//! carriers, and what a filter means. It lets through no less than is meant; what is more is sorted out by who reads.

use ipnet::IpNet;

use super::Carried;
use crate::{
    sys::packet::Instruction,
    trace::{
        Filter,
        filter::{Node, Side, Term},
    },
    wire::ip::{ICMP, ICMPV6, TCP, UDP},
};

/// Bytes of each packet that are kept: its headers, and those of what it carries.
pub(super) const KEPT: u32 = 192;
/// IPv6 headers behind which the upper layer's stands: what has them is let through.
const EXTENSIONS: [u32; 4] = [0, 43, 44, 60];

// What the instructions do (linux/bpf_common.h): load a word, a half, a byte; the same behind X; X = length of an IPv4
// header; A and …; jump where A is …, where it has one of these bits, always; end.
const LOAD_WORD: u16 = 0x20;
const LOAD_HALF: u16 = 0x28;
const LOAD_BYTE: u16 = 0x30;
const LOAD_WORD_BEHIND: u16 = 0x40;
const LOAD_HALF_BEHIND: u16 = 0x48;
const HEADER_LENGTH: u16 = 0xb1;
const AND: u16 = 0x54;
const EQUAL: u16 = 0x15;
const BITS: u16 = 0x45;
const ALWAYS: u16 = 0x05;
const RETURN: u16 = 0x06;

/// The program.
pub(super) fn program(inner: Option<&Filter>, carried: &Carried) -> Vec<Instruction> {
    let mut writer = Writer::default();
    let (v6, accept, reject) = (writer.label(), writer.label(), writer.label());
    let not_v4 = writer.label();
    writer.load(LOAD_BYTE, 0);
    writer.push(AND, 0xf0);
    writer.unless(EQUAL, 0x40, not_v4);
    writer.family(&V4, inner, carried, [accept, reject]);
    writer.place(not_v4);
    writer.branch(EQUAL, 0x60, [v6, reject]);
    writer.place(v6);
    writer.family(&V6, inner, carried, [accept, reject]);
    writer.place(accept);
    writer.push(RETURN, KEPT);
    writer.place(reject);
    writer.push(RETURN, 0);
    writer.done()
}

/// Where what stands in a header.
struct Family {
    v6: bool,
    protocol: u32,
    /// Source and destination.
    addresses: [u32; 2],
}

const V4: Family = Family { v6: false, protocol: 9, addresses: [12, 16] };
const V6: Family = Family { v6: true, protocol: 6, addresses: [8, 24] };

/// A place that is not known yet; jumps lead forward alone.
#[derive(Clone, Copy)]
struct Label(usize);

#[derive(Default)]
struct Writer {
    program: Vec<Instruction>,
    /// Jumps (ALWAYS) whose label is not placed yet.
    jumps: Vec<(usize, Label)>,
    labels: Vec<Option<usize>>,
}

impl Writer {
    fn label(&mut self) -> Label {
        self.labels.push(None);
        Label(self.labels.len() - 1)
    }

    fn place(&mut self, label: Label) {
        self.labels[label.0] = Some(self.program.len());
    }

    fn push(&mut self, code: u16, value: u32) {
        self.program.push(Instruction { code, yes: 0, no: 0, value });
    }

    fn load(&mut self, code: u16, at: u32) {
        self.push(code, at);
    }

    fn jump(&mut self, to: Label) {
        self.jumps.push((self.program.len(), to));
        self.push(ALWAYS, 0);
    }

    /// Conditional jumps reach 255 instructions, the other kind everywhere.
    fn branch(&mut self, test: u16, value: u32, [yes, no]: [Label; 2]) {
        self.program.push(Instruction { code: test, yes: 0, no: 1, value });
        self.jump(yes);
        self.jump(no);
    }

    /// Goes on behind it if that holds.
    fn unless(&mut self, test: u16, value: u32, no: Label) {
        self.program.push(Instruction { code: test, yes: 1, no: 0, value });
        self.jump(no);
    }

    /// Goes on behind it if that does not hold.
    fn when(&mut self, test: u16, value: u32, yes: Label) {
        self.program.push(Instruction { code: test, yes: 0, no: 1, value });
        self.jump(yes);
    }

    fn done(mut self) -> Vec<Instruction> {
        for (at, label) in self.jumps {
            let to = self.labels[label.0].expect("each label is placed");
            self.program[at].value = (to - at - 1) as u32; // forward: all are placed behind
        }
        self.program
    }

    fn family(&mut self, family: &Family, inner: Option<&Filter>, carried: &Carried, ends: [Label; 2]) {
        let [accept, reject] = ends;
        if family.v6 {
            self.load(LOAD_BYTE, family.protocol);
            EXTENSIONS.into_iter().for_each(|header| self.when(EQUAL, header, accept));
        }
        let next = self.label();
        self.carrier(family, carried, [accept, next]);
        self.place(next);
        match inner {
            Some(filter) => self.node(family, filter.root(), ends),
            None => self.jump(reject),
        }
    }

    /// UDP, to or from that port, as long as is known, and the first four bytes are those of a transport message.
    fn carrier(&mut self, family: &Family, carried: &Carried, [yes, no]: [Label; 2]) {
        self.load(LOAD_BYTE, family.protocol);
        self.unless(EQUAL, UDP.into(), no);
        self.upper(family, no);
        if let Some(port) = carried.port {
            let matches = self.label();
            self.behind(family, LOAD_HALF_BEHIND, 0);
            self.when(EQUAL, port.into(), matches);
            self.behind(family, LOAD_HALF_BEHIND, 2);
            self.unless(EQUAL, port.into(), no);
            self.place(matches);
        }
        if let [Some(leaves), Some(comes)] = carried.udp_length {
            let matches = self.label();
            self.behind(family, LOAD_HALF_BEHIND, 4);
            self.when(EQUAL, leaves.into(), matches);
            self.unless(EQUAL, comes.into(), no);
            self.place(matches);
        }
        self.behind(family, LOAD_WORD_BEHIND, 8);
        self.branch(EQUAL, 0x0400_0000, [yes, no]);
    }

    /// From now on the upper layer can be read; a later fragment has none.
    fn upper(&mut self, family: &Family, none: Label) {
        if !family.v6 {
            self.load(LOAD_HALF, 6);
            self.when(BITS, 0x1fff, none);
            self.load(HEADER_LENGTH, 0);
        }
    }

    fn behind(&mut self, family: &Family, code: u16, at: u32) {
        match (family.v6, code) {
            (true, LOAD_HALF_BEHIND) => self.load(LOAD_HALF, 40 + at),
            (true, _) => self.load(LOAD_WORD, 40 + at),
            (false, code) => self.load(code, at),
        }
    }

    fn node(&mut self, family: &Family, node: &Node, [yes, no]: [Label; 2]) {
        match node {
            Node::All(nodes) => {
                for node in nodes {
                    let next = self.label();
                    self.node(family, node, [next, no]);
                    self.place(next);
                }
                self.jump(yes);
            }
            Node::Any(nodes) => {
                for node in nodes {
                    let next = self.label();
                    self.node(family, node, [yes, next]);
                    self.place(next);
                }
                self.jump(no);
            }
            // The inside may let through too much: then its opposite would be too little.
            Node::Not(_) => self.jump(yes),
            Node::Term(term) => self.term(family, *term, [yes, no]),
        }
    }

    fn term(&mut self, family: &Family, term: Term, [yes, no]: [Label; 2]) {
        match term {
            Term::V4 | Term::V6 => self.jump(if family.v6 == (term == Term::V6) { yes } else { no }),
            Term::Protocol(number) => {
                self.load(LOAD_BYTE, family.protocol);
                self.branch(EQUAL, number.into(), [yes, no]);
            }
            Term::AnyIcmp => {
                self.load(LOAD_BYTE, family.protocol);
                self.when(EQUAL, ICMP.into(), yes);
                self.branch(EQUAL, ICMPV6.into(), [yes, no]);
            }
            Term::Net(_, net) if matches!(net, IpNet::V6(_)) != family.v6 => self.jump(no),
            Term::Net(side, net) => {
                for at in side.of(family.addresses) {
                    let next = self.label();
                    self.address(at, &net, [yes, next]);
                    self.place(next);
                }
                self.jump(no);
            }
            Term::Port(side, port) => {
                let has_ports = self.label();
                self.load(LOAD_BYTE, family.protocol);
                self.when(EQUAL, TCP.into(), has_ports);
                self.unless(EQUAL, UDP.into(), no);
                self.place(has_ports);
                self.upper(family, no);
                for at in side.of([0, 2]) {
                    self.behind(family, LOAD_HALF_BEHIND, at);
                    self.when(EQUAL, port.into(), yes);
                }
                self.jump(no);
            }
            // A super-packet is longer than what it is made of.
            Term::Less(_) | Term::Greater(_) => self.jump(yes),
        }
    }

    /// Word by word, as much of each as the prefix has.
    fn address(&mut self, at: u32, net: &IpNet, [yes, no]: [Label; 2]) {
        let (bytes, mask) = match net {
            IpNet::V4(net) => (net.network().octets().to_vec(), net.netmask().octets().to_vec()),
            IpNet::V6(net) => (net.network().octets().to_vec(), net.netmask().octets().to_vec()),
        };
        let words = |bytes: &[u8]| -> Vec<u32> {
            bytes
                .chunks_exact(4)
                .map(|word| u32::from_be_bytes([word[0], word[1], word[2], word[3]]))
                .collect()
        };
        let pairs = words(&bytes).into_iter().zip(words(&mask));
        for (number, (word, mask)) in (0..).zip(pairs).filter(|(_, (_, mask))| *mask != 0) {
            self.load(LOAD_WORD, at + 4 * number);
            if mask != u32::MAX {
                self.push(AND, mask);
            }
            self.unless(EQUAL, word, no);
        }
        self.jump(yes);
    }
}

impl Side {
    fn of(self, [source, destination]: [u32; 2]) -> Vec<u32> {
        match self {
            Self::Source => vec![source],
            Self::Destination => vec![destination],
            Self::Either => vec![source, destination],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trace::Facts;

    /// As the kernel does it; what lies behind the packet's end ends it, with nothing let through.
    fn run(program: &[Instruction], packet: &[u8]) -> u32 {
        let (mut a, mut x, mut at) = (0, 0, 0);
        loop {
            let Instruction { code, yes, no, value } = program[at];
            at += 1;
            let bytes = |from: u32, count: usize| {
                let from = from as usize;
                let bytes = packet.get(from..from + count)?;
                Some(bytes.iter().fold(0_u32, |sum, byte| sum << 8 | u32::from(*byte)))
            };
            let loaded = match code {
                LOAD_WORD => bytes(value, 4),
                LOAD_HALF => bytes(value, 2),
                LOAD_BYTE => bytes(value, 1),
                LOAD_WORD_BEHIND => bytes(value + x, 4),
                LOAD_HALF_BEHIND => bytes(value + x, 2),
                AND => Some(a & value),
                HEADER_LENGTH => {
                    x = 4 * (u32::from(packet[value as usize]) & 0xf);
                    Some(a)
                }
                EQUAL | BITS => {
                    let holds = if code == EQUAL { a == value } else { a & value != 0 };
                    at += usize::from(if holds { yes } else { no });
                    Some(a)
                }
                ALWAYS => {
                    at += value as usize;
                    Some(a)
                }
                RETURN => return value,
                other => panic!("{other:#x}"),
            };
            let Some(loaded) = loaded else { return 0 };
            a = loaded;
        }
    }

    /// Of any length.
    fn by(port: Option<u16>) -> Carried {
        Carried { port, endpoint: None, udp_length: [None, None] }
    }

    fn packets() -> Vec<Vec<u8>> {
        let mut packets = Vec::new();
        for protocol in [ICMP, TCP, UDP, ICMPV6] {
            for last in [1, 2] {
                for port in [7_u8, 8] {
                    let upper = [0, port, 0, 9, 0, 0, 0, 0, 4, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8];
                    let mut v4 =
                        vec![0x45, 0, 0, 40, 0, 0, 0, 0, 64, protocol, 0, 0, 10, 77, 0, last, 10, 77, 0, 9];
                    v4.extend(upper);
                    let mut v6 = vec![0x60, 0, 0, 0, 0, 20, protocol, 64];
                    v6.extend([0xfd, 0x77, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, last]);
                    v6.extend([0xfd, 0x77, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9]);
                    v6.extend(upper);
                    packets.extend([v4, v6]);
                }
            }
        }
        packets
    }

    #[test]
    fn it_lets_through_what_the_filter_means_and_nothing_else() {
        // A port of carriers that none of the packets has.
        for text in [
            "icmp",
            "udp",
            "tcp dst port 9",
            "src port 7",
            "port 8",
            "host 10.77.0.1",
            "src net fd77::/120",
            "dst host fd77::9 and udp",
            "host 10.77.0.2 or (tcp and src host fd77::1)",
            "ip",
            "ip6 and icmp6",
            "",
            "(src host 10.77.0.1 and tcp port 7) or (dst host 10.77.0.1 and (tcp or icmp))",
            "proto 58 or proto 1",
        ] {
            let filter: Filter = text.parse().unwrap();
            let program = program(Some(&filter), &by(Some(51820)));
            for packet in packets() {
                let facts = Facts::of(&packet).unwrap();
                let let_through = run(&program, &packet) != 0;
                assert_eq!(let_through, filter.matches(&facts), "{text:?} {facts:?}");
            }
        }
    }

    #[test]
    fn what_it_cannot_decide_it_lets_through() {
        for text in ["not icmp", "less 10", "not (host 10.77.0.1 and less 10)"] {
            let filter: Filter = text.parse().unwrap();
            assert!(
                packets().iter().all(|packet| run(&program(Some(&filter), &by(None)), packet) != 0),
                "{text}"
            );
        }
    }

    #[test]
    fn carriers_are_known_by_their_port_and_their_first_bytes() {
        let carriers = |port| {
            let program = program(None, &by(port));
            packets().iter().filter(|packet| run(&program, packet) != 0).count()
        };
        assert_eq!(carriers(None), 8, "all that is UDP");
        assert_eq!(carriers(Some(7)), 4);
        assert_eq!(carriers(Some(9)), 8, "either side");
        assert_eq!(carriers(Some(51820)), 0);
        let of_length = |leaves, comes| {
            let program = program(None, &Carried { udp_length: [leaves, comes], ..by(None) });
            packets().iter().filter(|packet| run(&program, packet) != 0).count()
        };
        // Their UDP header says 0.
        assert_eq!(
            (of_length(Some(0), Some(9)), of_length(Some(9), Some(0)), of_length(Some(8), Some(9))),
            (8, 8, 0)
        );
        assert_eq!(of_length(Some(8), None), 8, "what comes may be of any length");
        let mut handshake = packets()[16].clone();
        assert_eq!((handshake[9], run(&program(None, &by(None)), &handshake)), (UDP, KEPT));
        handshake[28] = 1;
        assert_eq!(run(&program(None, &by(None)), &handshake), 0);
        let mut fragment = packets()[16].clone();
        fragment[7] = 5;
        assert_eq!(run(&program(None, &by(None)), &fragment), 0, "what stands there is no header");
    }

    #[test]
    fn whatever_comes_it_ends_and_no_program_is_too_long_for_the_kernel() {
        let long = vec!["(host fd77::1 or tcp port 9)"; 30].join(" and ");
        let program = program(Some(&long.parse().unwrap()), &by(Some(51820)));
        assert!(program.len() <= 4096, "{}", program.len());
        for length in 0..80 {
            for first in [0x45, 0x60, 0x4f, 0x00] {
                let _ = run(&program, &vec![first; length]);
            }
        }
    }
}
