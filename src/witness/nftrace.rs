//! nftables' trace (`meta nftrace set 1`), as the kernel multicasts it: one message for each rule that matched and for
//! each policy (linux/netfilter/nf_tables.h, NFT_MSG_TRACE).

use std::io;

use rtnetlink::sys::{AsyncSocket, AsyncSocketExt, TokioSocket, protocols::NETLINK_NETFILTER};

use super::netlink::{attributes, number, number64, text};
use crate::{
    sys,
    trace::{Carrier, Edge, Event, Facts, Place, Rule, passage},
};

/// NFNLGRP_NFTRACE.
const GROUP: u32 = 9;
/// NFNL_SUBSYS_NFTABLES and NFT_MSG_TRACE.
const TRACE_MESSAGE: u16 = 10 << 8 | 17;
/// Room for what comes while somebody else has the core; the kernel clamps it to net.core.rmem_max and doubles it.
const BUFFER: libc::c_int = 8 << 20;
/// Messages come one by one, each with 100 bytes of the packet.
const RECEIVE_BYTES: usize = 8192;

/// The messages of this network namespace, as they come.
pub struct NfTrace {
    socket: TokioSocket,
    received: Vec<u8>,
    table: String,
}

/// What one look at the socket gave.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Messages {
    /// In order.
    pub events: Vec<Event>,
    /// The kernel had more than the socket could hold.
    pub lost: bool,
}

impl NfTrace {
    /// Listens from now on; `table` is ours, whose chains are edges of hooks. Needs CAP_NET_ADMIN.
    pub fn open(table: &str) -> io::Result<Self> {
        let mut socket = TokioSocket::new(NETLINK_NETFILTER)?;
        socket.socket_mut().bind_auto()?;
        socket.socket_mut().set_rx_buf_sz(BUFFER)?;
        socket.socket_mut().add_membership(GROUP)?;
        Ok(Self { socket, received: Vec::with_capacity(RECEIVE_BYTES), table: table.to_owned() })
    }

    /// Waits for the next messages. It is safe to drop and call again.
    pub async fn next(&mut self) -> io::Result<Messages> {
        self.received.clear();
        self.received.reserve(RECEIVE_BYTES);
        match self.socket.recv_from(&mut self.received).await {
            Ok(from) if from.port_number() != 0 => Ok(Messages::default()),
            Ok(_) => {
                let at_ns = sys::clock::boottime();
                let read = |message| read(message, &self.table, at_ns);
                Ok(Messages { events: messages(&self.received).filter_map(read).collect(), lost: false })
            }
            Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => {
                Ok(Messages { events: Vec::new(), lost: true })
            }
            Err(error) => Err(error),
        }
    }
}

/// Those of a datagram: what follows the netlink header.
fn messages(mut rest: &[u8]) -> impl Iterator<Item = &[u8]> {
    const HEADER: usize = 16;
    std::iter::from_fn(move || {
        loop {
            let header = rest.first_chunk::<HEADER>()?;
            let length = u32::from_ne_bytes([header[0], header[1], header[2], header[3]]) as usize;
            let kind = u16::from_ne_bytes([header[4], header[5]]);
            let message = rest.get(HEADER..length)?;
            rest = rest.get(length.next_multiple_of(4)..).unwrap_or(&[]);
            if kind == TRACE_MESSAGE {
                return Some(message);
            }
        }
    })
}

/// One message behind its netlink header.
fn read(message: &[u8], table: &str, at_ns: u64) -> Option<Event> {
    let (header, rest) = message.split_first_chunk::<4>()?;
    let mut rule = Rule {
        family: family(header[0]).to_owned(),
        table: String::new(),
        chain: String::new(),
        step: passage::step(1)?,
        handle: None,
        text: None,
        verdict: "continue".to_owned(),
    };
    let (mut id, mut mark, mut step) = (0, 0, 0);
    let (mut iif, mut oif) = (None, None);
    let (mut internet, mut transport): (&[u8], &[u8]) = (&[], &[]);
    for (kind, value) in attributes(rest) {
        match kind {
            1 => rule.table = text(value),
            2 => rule.chain = text(value),
            3 => rule.handle = Some(number64(value)),
            4 => step = number(value),
            5 => rule.verdict = verdict(value),
            6 => id = number(value),
            8 => internet = value,
            9 => transport = value,
            10 => iif = Some(number(value)),
            12 => oif = Some(number(value)),
            14 => mark = number(value),
            16 => rule.verdict = code(number(value) as i32).to_owned(),
            _ => {}
        }
    }
    rule.step = passage::step(step)?;
    let facts = Facts::of_headers(internet, transport);
    let own = (rule.table == table).then(|| edge(&rule.chain)).flatten();
    Some(Event {
        id,
        rule,
        own,
        facts,
        carrier: facts.and_then(|facts| Carrier::of(&facts, transport)),
        iif,
        oif,
        mark,
        at_ns,
    })
}

/// Of our chains, which are called `first_output` and so on.
fn edge(chain: &str) -> Option<(Place, Edge)> {
    let (edge, hook) = chain.split_once('_')?;
    let edge = match edge {
        "first" => Edge::First,
        "last" => Edge::Last,
        _ => return None,
    };
    super::placement::HOOKS.into_iter().find(|(name, _)| *name == hook).map(|(_, place)| (place, edge))
}

fn verdict(value: &[u8]) -> String {
    let (mut word, mut chain) = ("unknown", None);
    for (kind, value) in attributes(value) {
        match kind {
            1 => word = code(number(value) as i32),
            2 => chain = Some(text(value)),
            _ => {}
        }
    }
    chain.map_or_else(|| word.to_owned(), |chain| format!("{word} {chain}"))
}

/// linux/netfilter.h and nf_tables.h; a queue has its number in the upper half.
fn code(code: i32) -> &'static str {
    match code {
        0 => "drop",
        1 => "accept",
        2 => "stolen",
        -1 => "continue",
        -2 => "break",
        -3 => "jump",
        -4 => "goto",
        -5 => "return",
        code if code > 0 && code & 0xff == 3 => "queue",
        _ => "unknown",
    }
}

/// NFPROTO_*.
fn family(number: u8) -> &'static str {
    match number {
        1 => "inet",
        2 => "ip",
        3 => "arp",
        5 => "netdev",
        7 => "bridge",
        10 => "ip6",
        _ => "unknown",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trace::Step;

    fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
        let mut bytes = (4 + value.len() as u16).to_ne_bytes().to_vec();
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(value);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    fn message(attributes: &[Vec<u8>]) -> Vec<u8> {
        [&[2, 0, 0, 0][..], &attributes.concat()].concat()
    }

    #[test]
    fn a_rule_with_its_verdict_is_read_and_a_policy_too() {
        let drop = attribute(5, &attribute(1, &0u32.to_be_bytes()));
        let text = [attribute(1, b"filter\0"), attribute(2, b"OUTPUT\0"), attribute(3, &7u64.to_be_bytes())];
        let kind = |step: u32| attribute(4, &step.to_be_bytes());
        let event =
            read(&message(&[text.concat(), kind(3), drop, attribute(6, &9u32.to_be_bytes())]), "t", 5);
        let event = event.expect("a message");
        assert_eq!((event.id, event.rule.handle, event.rule.step), (9, Some(7), Step::Rule));
        assert_eq!((event.rule.family.as_str(), event.rule.verdict.as_str()), ("ip", "drop"));
        let policy = read(&message(&[text.concat(), kind(1), attribute(16, &1u32.to_be_bytes())]), "t", 5);
        let rule = policy.expect("a message").rule;
        assert_eq!((rule.step, rule.verdict.as_str()), (Step::Policy, "accept"));
        let jump = [attribute(1, &(-3i32).to_be_bytes()), attribute(2, b"mine\0")].concat();
        assert_eq!(verdict(&jump), "jump mine");
    }

    #[test]
    fn our_own_chains_are_edges_of_hooks() {
        assert_eq!(edge("first_output"), Some((Place::Output, Edge::First)));
        assert_eq!(edge("last_prerouting"), Some((Place::Prerouting, Edge::Last)));
        assert_eq!(edge("middle_output"), None);
        assert_eq!(edge("first_ingress"), None);
    }

    #[test]
    fn whatever_the_bytes_say_nothing_panics() {
        for length in 0..200_usize {
            let bytes: Vec<u8> = (0..length).map(|n| (n * 37 % 251) as u8).collect();
            let _ = (read(&bytes, "t", 0), messages(&bytes).count());
        }
    }
}
