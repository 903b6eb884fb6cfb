//! A name asked of the host's name servers in datagrams that carry the tunnel's mark, so that they go past a
//! default route into the tunnel (RFC 1035). Only addresses are asked for; what is truncated has to do.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use rand_core::Rng;
use tokio::time::timeout;

use super::attendants::names::Names;
use crate::{plane::udp, sys::random::os_rng};

/// How long each server may take.
const PATIENCE: Duration = Duration::from_secs(3);
/// As many servers as the C library asks (resolv.conf(5)).
const SERVERS: usize = 3;
const HEADER: usize = 12;
/// Without EDNS a server sends no more than 512 bytes.
const ANSWER: usize = 512;

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    A = 1,
    Aaaa = 28,
}

/// Asks the servers in turn until one knows an address. Those that can be reached from here come first.
pub(super) async fn look_up(host: &str, mark: u32, names: &Names) -> io::Result<Vec<IpAddr>> {
    let text = names.servers().await?;
    let mut outcome = Err(io::Error::new(io::ErrorKind::NotFound, "no name server in /etc/resolv.conf"));
    for server in servers(&text).into_iter().take(SERVERS) {
        match timeout(PATIENCE, ask(server, host, mark)).await {
            Ok(Ok(mut found)) if !found.is_empty() => {
                found.sort_by_key(|address| !is_reachable(*address, mark));
                return Ok(found);
            }
            Ok(answer) => outcome = answer,
            Err(_) => outcome = Err(io::ErrorKind::TimedOut.into()),
        }
    }
    outcome
}

/// Both questions to one server; IPv6 addresses come before IPv4 ones.
async fn ask(server: SocketAddr, host: &str, mark: u32) -> io::Result<Vec<IpAddr>> {
    let socket = udp::connected(server, mark)?;
    let mut found = [const { Vec::new() }; 2];
    let first = os_rng().next_u32();
    let questions = [(Kind::Aaaa, first as u16), (Kind::A, (first >> 16) as u16)].map(|(kind, id)| {
        question(id, host, kind).ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "no domain name"))
    });
    let [v6, v4] = questions;
    let questions = [v6?, v4?];
    for question in &questions {
        socket.send(question).await?;
    }
    let mut open = [true; 2];
    let mut datagram = [0; ANSWER];
    while open.contains(&true) {
        let length = socket.recv(&mut datagram).await?;
        for (number, question) in questions.iter().enumerate() {
            if open[number]
                && let Some(addresses) = answer(&datagram[..length], question)
            {
                (found[number], open[number]) = (addresses, false);
            }
        }
    }
    Ok(found.concat())
}

/// Is there a route? Nothing is sent.
fn is_reachable(address: IpAddr, mark: u32) -> bool {
    udp::connected(SocketAddr::new(address, 9), mark).is_ok()
}

/// The name servers of a resolv.conf(5).
fn servers(text: &str) -> Vec<SocketAddr> {
    let named = text.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        (words.next()? == "nameserver").then(|| words.next())?
    });
    named.filter_map(|text| text.parse::<IpAddr>().ok()).map(|address| SocketAddr::new(address, 53)).collect()
}

/// One question, recursion desired. `None`: this is no domain name.
fn question(id: u16, host: &str, kind: Kind) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(HEADER + host.len() + 6);
    bytes.extend(id.to_be_bytes());
    bytes.extend([1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    for label in host.strip_suffix('.').unwrap_or(host).split('.') {
        let length = u8::try_from(label.len()).ok().filter(|length| (1..=63).contains(length))?;
        bytes.push(length);
        bytes.extend(label.as_bytes());
    }
    bytes.push(0);
    if bytes.len() > HEADER + 255 {
        return None;
    }
    bytes.extend([0, kind as u8, 0, 1]);
    Some(bytes)
}

/// The addresses in an answer to this question; none if it says that there are none. `None`: it is not the answer.
fn answer(datagram: &[u8], question: &[u8]) -> Option<Vec<IpAddr>> {
    let asked = question.get(HEADER..)?;
    let is_answer = datagram.get(..2)? == &question[..2]
        && datagram.get(2)? & 0x80 != 0
        && datagram.get(4..6)? == [0, 1]
        && datagram.get(HEADER..question.len())?.eq_ignore_ascii_case(asked);
    if !is_answer {
        return None;
    }
    let kind = asked.get(asked.len().checked_sub(3)?)?;
    let count = u16::from_be_bytes([datagram[6], datagram[7]]);
    let mut rest = &datagram[question.len()..];
    let mut found = Vec::new();
    // Whatever the chain of names before them, the last records are the addresses. What is cut off is left out.
    for _ in 0..count {
        let Some((record, behind)) = record(rest) else { break };
        rest = behind;
        if record.kind == [0, *kind] {
            found.extend(record.address());
        }
    }
    Some(found)
}

struct Record<'a> {
    kind: [u8; 2],
    data: &'a [u8],
}

impl Record<'_> {
    fn address(&self) -> Option<IpAddr> {
        match self.data.len() {
            4 => <[u8; 4]>::try_from(self.data).ok().map(|octets| Ipv4Addr::from(octets).into()),
            16 => <[u8; 16]>::try_from(self.data).ok().map(|octets| Ipv6Addr::from(octets).into()),
            _ => None,
        }
    }
}

/// The first record: name, type, class, time to live, length, data.
fn record(bytes: &[u8]) -> Option<(Record<'_>, &[u8])> {
    let rest = behind_name(bytes)?;
    let kind = [*rest.first()?, *rest.get(1)?];
    let length = usize::from(u16::from_be_bytes([*rest.get(8)?, *rest.get(9)?]));
    let data = rest.get(10..10 + length)?;
    Some((Record { kind, data }, &rest[10 + length..]))
}

/// A name is labels and an end, or labels and a pointer (section 4.1.4), which is the end here.
fn behind_name(mut bytes: &[u8]) -> Option<&[u8]> {
    loop {
        match *bytes.first()? {
            0 => return bytes.get(1..),
            length @ 1..=63 => bytes = bytes.get(1 + usize::from(length)..)?,
            192.. => return bytes.get(2..),
            _ => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use hex_literal::hex;
    use tokio::net::UdpSocket;

    use super::*;

    const QUESTION: [u8; 33] =
        hex!("1234 0100 0001 0000 0000 0000 03 76706e 07 6578616d706c65 03 6f7267 00 0001 0001");

    /// An alias first, then two addresses, and one of another kind.
    fn reply() -> Vec<u8> {
        let mut reply = QUESTION.to_vec();
        reply[2..8].copy_from_slice(&hex!("8180 0001 0004"));
        reply.extend(hex!("c00c 0005 0001 0000003c 0004 01 61 c010"));
        reply.extend(hex!("01 61 c010 0001 0001 0000003c 0004 c0000201"));
        reply.extend(hex!("01 61 c010 0001 0001 0000003c 0004 c0000202"));
        reply.extend(hex!("c00c 001c 0001 0000003c 0010 20010db8000000000000000000000001"));
        reply
    }

    #[test]
    fn a_question_has_the_form_of_rfc_1035() {
        assert_eq!(question(0x1234, "vpn.example.org", Kind::A).as_deref(), Some(&QUESTION[..]));
        assert_eq!(question(0x1234, "vpn.example.org.", Kind::A).as_deref(), Some(&QUESTION[..]));
        let v6 = question(0x1234, "vpn.example.org", Kind::Aaaa).expect("a name");
        assert_eq!(v6[v6.len() - 4..], hex!("001c 0001"));
    }

    #[test]
    fn what_is_no_domain_name_is_not_asked() {
        let long = ["a"; 128].join(".");
        for host in ["", "a..b", &"a".repeat(64), &long] {
            assert_eq!(question(1, host, Kind::A), None, "{host}");
        }
    }

    #[test]
    fn addresses_are_found_behind_an_alias() {
        let found = answer(&reply(), &QUESTION).expect("it is the answer");
        assert_eq!(found, ["192.0.2.1", "192.0.2.2"].map(|a| a.parse::<IpAddr>().expect("an address")));
        let mut none = reply();
        none[3] = 0x83; // no such name
        none.truncate(QUESTION.len());
        assert_eq!(answer(&none, &QUESTION), Some(Vec::new()));
    }

    #[test]
    fn an_answer_to_another_question_is_none() {
        for (place, what) in
            [(0, "id"), (2, "a question, not an answer"), (5, "count"), (14, "name"), (30, "kind")]
        {
            let mut reply = reply();
            reply[place] ^= 0x81;
            assert_eq!(answer(&reply, &QUESTION), None, "{what}");
        }
        let mut reply = reply();
        reply[13..16].make_ascii_uppercase();
        assert!(answer(&reply, &QUESTION).is_some(), "names are the same in capitals");
    }

    #[test]
    fn an_answer_cut_anywhere_or_altered_anywhere_is_read_as_far_as_it_goes() {
        let reply = reply();
        for end in 0..reply.len() {
            let found = answer(&reply[..end], &QUESTION);
            assert!(found.is_none_or(|found| found.len() <= 2));
        }
        for place in 0..reply.len() {
            for byte in 0..=255 {
                let mut reply = reply.clone();
                reply[place] = byte;
                let _ = answer(&reply, &QUESTION);
            }
        }
    }

    #[test]
    fn servers_are_the_lines_that_name_one() {
        let text = "# nameserver 192.0.2.9\nsearch example.org\nnameserver 192.0.2.1\n nameserver  2001:db8::1 # x\n\
                    nameserver\nnameserver nonsense\nnameservers 192.0.2.8\n";
        let wanted =
            ["192.0.2.1:53", "[2001:db8::1]:53"].map(|a| a.parse::<SocketAddr>().expect("an address"));
        assert_eq!(servers(text), wanted);
    }

    #[tokio::test]
    async fn a_server_is_asked_for_both_families_and_a_strangers_answer_passes_by() {
        let server = UdpSocket::bind("127.0.0.1:0").await.expect("a socket");
        let address = server.local_addr().expect("it is bound");
        let serving = async {
            let mut datagram = [0; 512];
            for _ in 0..2 {
                let (length, from) = server.recv_from(&mut datagram).await.expect("a question");
                let mut reply = datagram[..length].to_vec();
                reply[2..8].copy_from_slice(&hex!("8180 0001 0001"));
                let mut wrong = reply.clone();
                wrong[0] ^= 1;
                server.send_to(&wrong, from).await.expect("it is sent");
                reply.extend(match reply[length - 3] {
                    1 => hex!("c00c 0001 0001 00000000 0004 c0000201").to_vec(),
                    _ => hex!("c00c 001c 0001 00000000 0010 20010db8000000000000000000000001").to_vec(),
                });
                server.send_to(&reply, from).await.expect("it is sent");
            }
        };
        let (found, ()) = tokio::join!(ask(address, "vpn.example.org", 0), serving);
        let wanted = ["2001:db8::1", "192.0.2.1"].map(|a| a.parse::<IpAddr>().expect("an address"));
        assert_eq!(found.expect("an answer"), wanted);
    }
}
