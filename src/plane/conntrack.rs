//! What a packet's source was before the host translated it (NAT): connection tracking knows, and is asked over
//! netlink (nfnetlink_conntrack.h).

use std::{
    io::{self, Read},
    net::IpAddr,
    path::Path,
};

use socket2::{Domain, Protocol, Socket, Type};

use crate::wire::{
    flow::{Ends, Flow},
    ip,
};

/// There while connection tracking is loaded; asking without it would load it.
const LOADED: &str = "/proc/sys/net/netfilter/nf_conntrack_count";
/// Subsystem NFNL_SUBSYS_CTNETLINK, message IPCTNL_MSG_CT_GET; the answer is IPCTNL_MSG_CT_NEW.
const GET: u16 = 1 << 8 | 1;
const NEW: u16 = 1 << 8;
const NLM_F_REQUEST: u16 = 1;
const NLA_F_NESTED: u16 = 0x8000;
/// `struct nlmsghdr` and `struct nfgenmsg`.
const HEADERS: usize = 16 + 4;
/// More than one entry ever takes.
const ANSWER: usize = 8192;

// CTA_*
const TUPLE_ORIG: u16 = 1;
const TUPLE_REPLY: u16 = 2;
const TUPLE_IP: u16 = 1;
const TUPLE_PROTO: u16 = 2;
const IP_V4: [u16; 2] = [1, 2];
const IP_V6: [u16; 2] = [3, 4];
const PROTO_NUM: u16 = 1;
const PROTO_PORTS: [u16; 2] = [2, 3];
/// Identifier, type, code.
const PROTO_ICMP: [u16; 3] = [4, 5, 6];
const PROTO_ICMPV6: [u16; 3] = [7, 8, 9];

/// The flow of a packet that leaves the host, with the source that it had before; `None`: connection tracking is not
/// in use, or knows no such flow.
pub(super) fn before_translation(leaving: Flow) -> Option<Flow> {
    if !Path::new(LOADED).exists() {
        return None;
    }
    // Each direction is known as it arrives: the answer to this packet would be just its reverse.
    let arriving = leaving.reversed();
    let [original, reply] = ask(&arriving).ok()??;
    if reply == arriving {
        Some(Flow { destination: leaving.destination, ..original })
    } else if original == arriving {
        Some(Flow { destination: leaving.destination, ..reply })
    } else {
        None
    }
}

/// Both directions of the entry that has this one. The kernel answers before the request returns.
fn ask(flow: &Flow) -> io::Result<Option<[Flow; 2]>> {
    let protocol = Protocol::from(libc::NETLINK_NETFILTER);
    let mut socket = Socket::new(Domain::from(libc::AF_NETLINK), Type::RAW, Some(protocol))?;
    socket.set_nonblocking(true)?;
    socket.send(&request(flow))?;
    let mut answer = vec![0; ANSWER];
    let len = socket.read(&mut answer)?;
    Ok(read_answer(&answer[..len]))
}

fn request(flow: &Flow) -> Vec<u8> {
    let family = if flow.source.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 } as u8;
    let tuple = attribute(TUPLE_REPLY | NLA_F_NESTED, &tuple(flow));
    let mut message = Vec::with_capacity(HEADERS + tuple.len());
    message.extend(((HEADERS + tuple.len()) as u32).to_ne_bytes());
    message.extend(GET.to_ne_bytes());
    message.extend(NLM_F_REQUEST.to_ne_bytes());
    message.extend([0; 8]); // sequence and port: there is one question a socket
    message.extend([family, 0, 0, 0]);
    message.extend(tuple);
    message
}

fn tuple(flow: &Flow) -> Vec<u8> {
    let kinds = if flow.source.is_ipv4() { IP_V4 } else { IP_V6 };
    let addresses = [(kinds[0], flow.source), (kinds[1], flow.destination)];
    let addresses = addresses.map(|(kind, address)| match address {
        IpAddr::V4(v4) => attribute(kind, &v4.octets()),
        IpAddr::V6(v6) => attribute(kind, &v6.octets()),
    });
    let ends = match (flow.ends, flow.source.is_ipv4()) {
        (Ends::Ports { protocol, source, destination }, _) => [
            attribute(PROTO_NUM, &[protocol]),
            attribute(PROTO_PORTS[0], &source.to_be_bytes()),
            attribute(PROTO_PORTS[1], &destination.to_be_bytes()),
        ]
        .concat(),
        (Ends::Echo { id, request }, true) => echo(ip::ICMP, PROTO_ICMP, id, if request { 8 } else { 0 }),
        (Ends::Echo { id, request }, false) => {
            echo(ip::ICMPV6, PROTO_ICMPV6, id, if request { 128 } else { 129 })
        }
    };
    let addresses = attribute(TUPLE_IP | NLA_F_NESTED, &addresses.concat());
    [addresses, attribute(TUPLE_PROTO | NLA_F_NESTED, &ends)].concat()
}

fn echo(protocol: u8, [id_kind, type_kind, code_kind]: [u16; 3], id: u16, kind: u8) -> Vec<u8> {
    [
        attribute(PROTO_NUM, &[protocol]),
        attribute(id_kind, &id.to_be_bytes()),
        attribute(type_kind, &[kind]),
        attribute(code_kind, &[0]),
    ]
    .concat()
}

/// Length, kind, value, and zeros up to a multiple of four.
fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let len = 4 + value.len();
    let mut bytes = Vec::with_capacity(len.next_multiple_of(4));
    bytes.extend((len as u16).to_ne_bytes());
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(value);
    bytes.resize(len.next_multiple_of(4), 0);
    bytes
}

/// Both directions, or `None`: an error (there is no such entry), or a protocol that we do not ask for.
fn read_answer(answer: &[u8]) -> Option<[Flow; 2]> {
    let len = u32::from_ne_bytes(*answer.first_chunk()?) as usize;
    let kind = u16::from_ne_bytes([*answer.get(4)?, *answer.get(5)?]);
    let attributes = answer.get(HEADERS..len)?;
    if kind != NEW {
        return None;
    }
    Some([read_tuple(find(attributes, TUPLE_ORIG)?)?, read_tuple(find(attributes, TUPLE_REPLY)?)?])
}

fn read_tuple(tuple: &[u8]) -> Option<Flow> {
    let (addresses, ends) = (find(tuple, TUPLE_IP)?, find(tuple, TUPLE_PROTO)?);
    let v4 = |kind| find(addresses, kind)?.try_into().ok().map(|octets: [u8; 4]| IpAddr::from(octets));
    let v6 = |kind| find(addresses, kind)?.try_into().ok().map(|octets: [u8; 16]| IpAddr::from(octets));
    let [source, destination] = [0, 1].map(|end| v4(IP_V4[end]).or_else(|| v6(IP_V6[end])));
    let half = |kind| find(ends, kind)?.try_into().ok().map(u16::from_be_bytes);
    let byte = |kind| find(ends, kind)?.first().copied();
    let ends = match byte(PROTO_NUM)? {
        ip::ICMP => Ends::Echo { id: half(PROTO_ICMP[0])?, request: byte(PROTO_ICMP[1])? == 8 },
        ip::ICMPV6 => Ends::Echo { id: half(PROTO_ICMPV6[0])?, request: byte(PROTO_ICMPV6[1])? == 128 },
        protocol => {
            Ends::Ports { protocol, source: half(PROTO_PORTS[0])?, destination: half(PROTO_PORTS[1])? }
        }
    };
    Some(Flow { source: source?, destination: destination?, ends })
}

/// The value of the first attribute of this kind.
fn find(mut attributes: &[u8], wanted: u16) -> Option<&[u8]> {
    loop {
        let len = usize::from(u16::from_ne_bytes(*attributes.first_chunk()?));
        let kind = u16::from_ne_bytes([*attributes.get(2)?, *attributes.get(3)?]);
        let value = attributes.get(4..len)?;
        // The two high bits say how the value is written.
        if kind & 0x3fff == wanted {
            return Some(value);
        }
        attributes = attributes.get(len.next_multiple_of(4)..)?;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn flow(source: &str, destination: &str, ends: Ends) -> Flow {
        Flow { source: source.parse().unwrap(), destination: destination.parse().unwrap(), ends }
    }

    fn answer(kind: u16, tuples: &[(u16, Flow)]) -> Vec<u8> {
        let tuples: Vec<u8> =
            tuples.iter().flat_map(|(kind, flow)| attribute(kind | NLA_F_NESTED, &tuple(flow))).collect();
        let mut message = ((HEADERS + tuples.len()) as u32).to_ne_bytes().to_vec();
        message.extend(kind.to_ne_bytes());
        message.resize(HEADERS, 0);
        message.extend(tuples);
        message
    }

    #[test]
    fn both_directions_are_read_as_they_are_written() {
        let ports = Ends::Ports { protocol: 17, source: 7, destination: 9 };
        for original in [
            flow("10.0.0.1", "192.168.241.1", ports),
            flow("fd00::1", "fd00::2", ports),
            flow("10.0.0.1", "192.168.241.1", Ends::Echo { id: 7, request: true }),
            flow("fd00::1", "fd00::2", Ends::Echo { id: 7, request: false }),
        ] {
            let reply = original.reversed();
            let both = answer(NEW, &[(9, original), (TUPLE_ORIG, original), (TUPLE_REPLY, reply)]);
            assert_eq!(read_answer(&both), Some([original, reply]));
            assert_eq!(read_answer(&answer(NEW, &[(TUPLE_ORIG, original)])), None, "one is missing");
            assert_eq!(
                read_answer(&answer(2, &[(TUPLE_ORIG, original), (TUPLE_REPLY, reply)])),
                None,
                "an error"
            );
        }
    }

    #[test]
    fn a_flow_that_nobody_tracks_was_not_translated() {
        let stray = flow("203.0.113.1", "203.0.113.2", Ends::Echo { id: 7, request: true });
        assert_eq!(before_translation(stray), None);
    }

    proptest! {
        #[test]
        fn no_answer_panics(mut bytes in proptest::collection::vec(any::<u8>(), 0..200), whole in any::<bool>()) {
            if whole && bytes.len() >= HEADERS {
                let len = bytes.len() as u32;
                bytes[..4].copy_from_slice(&len.to_ne_bytes());
                bytes[4..6].copy_from_slice(&NEW.to_ne_bytes());
            }
            let _ = read_answer(&bytes);
        }
    }
}
