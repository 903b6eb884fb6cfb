//! Our own ping (RFC 792, RFC 4443): no program of the host is needed, and every byte of it is known.

use std::{
    io::{self, Read},
    net::{IpAddr, SocketAddr},
    os::fd::AsRawFd,
    time::Duration,
};

use socket2::{Domain, Protocol, Socket, Type};

use super::stopwatch::Stopwatch;

/// What every payload repeats, so that a capture can tell whether it can be read.
pub const MARK: &[u8] = b"vpnd-lab";

/// Echo requests to send.
#[derive(Clone, Debug)]
pub struct Ping {
    /// Where to.
    pub destination: IpAddr,
    /// How many.
    pub count: u16,
    /// Bytes behind the ICMP header; 56 as everybody's ping.
    pub payload: usize,
    /// How long an answer is waited for.
    pub patience: Duration,
    /// From one request to the next, at least; each waits for the answer to the one before all the same.
    pub interval: Duration,
    /// The address to send from; `None`: the kernel chooses.
    pub source: Option<IpAddr>,
}

impl Ping {
    /// One request with the usual 56 bytes and a second of patience.
    pub fn to(destination: IpAddr) -> Self {
        let (patience, interval) = (Duration::from_secs(1), Duration::ZERO);
        Self { destination, count: 1, payload: 56, patience, interval, source: None }
    }

    /// The same with ten seconds of patience: what then is missing was lost, and not late on a busy machine.
    pub fn patiently(destination: IpAddr) -> Self {
        Self { patience: Duration::from_secs(10), ..Self::to(destination) }
    }
}

/// What came of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pings {
    /// Requests.
    pub sent: u32,
    /// Answers with the same payload.
    pub received: u32,
    /// Requests that the kernel would not send, or that a router answered with an ICMP error.
    pub refused: u32,
    /// The first request that nothing came back for in time, from 1.
    pub first_lost: Option<u16>,
    /// The median time from request to answer.
    pub rtt: Option<Duration>,
}

impl Ping {
    /// Sends and waits, in the network namespace of the calling thread.
    pub(super) fn run(&self) -> io::Result<Pings> {
        let socket = self.open()?;
        // Raw sockets see the answers to everybody: two that are open at once differ in their descriptor.
        let id = (std::process::id() as u16).wrapping_add(socket.as_raw_fd() as u16);
        let mut pings = Pings::default();
        let mut times = Vec::new();
        let mut turn = Stopwatch::start();
        for sequence in 1..=self.count {
            if sequence > 1 {
                std::thread::sleep(turn.left_of(self.interval));
                turn = Stopwatch::start();
            }
            let request = self.request(id, sequence);
            pings.sent += 1;
            if socket.send_to(&request, &SocketAddr::new(self.destination, 0).into()).is_err() {
                pings.refused += 1;
                continue;
            }
            match self.answer(&socket, &request)? {
                Some(Answer::Echo(time)) => {
                    pings.received += 1;
                    times.push(time);
                }
                Some(Answer::Refused) => pings.refused += 1,
                None => pings.first_lost = pings.first_lost.or(Some(sequence)),
            }
        }
        times.sort_unstable();
        pings.rtt = times.get(times.len() / 2).copied();
        Ok(pings)
    }

    fn open(&self) -> io::Result<Socket> {
        let (domain, protocol) = match self.destination {
            IpAddr::V4(_) => (Domain::IPV4, Protocol::ICMPV4),
            IpAddr::V6(_) => (Domain::IPV6, Protocol::ICMPV6),
        };
        let socket = Socket::new(domain, Type::RAW, Some(protocol))?;
        if let Some(source) = self.source {
            socket.bind(&SocketAddr::new(source, 0).into())?;
        }
        Ok(socket)
    }

    fn request(&self, id: u16, sequence: u16) -> Vec<u8> {
        let kind = if self.destination.is_ipv4() { ECHO_V4 } else { ECHO_V6 };
        let mut packet = vec![kind, 0, 0, 0];
        packet.extend(id.to_be_bytes());
        packet.extend(sequence.to_be_bytes());
        packet.extend(MARK.iter().chain(b" ").cycle().take(self.payload));
        if self.destination.is_ipv4() {
            let sum = checksum(&packet);
            packet[2..4].copy_from_slice(&sum.to_be_bytes());
        } // for IPv6 the kernel fills it in: it covers addresses that only the kernel knows
        packet
    }

    /// Waits for what belongs to `request`; other ICMP passes by.
    fn answer(&self, mut socket: &Socket, request: &[u8]) -> io::Result<Option<Answer>> {
        let watch = Stopwatch::start();
        let mut buffer = vec![0; 65_535];
        loop {
            let left = watch.left_of(self.patience);
            if left.is_zero() {
                return Ok(None);
            }
            socket.set_read_timeout(Some(left))?;
            let length = match socket.read(&mut buffer) {
                Ok(length) => length,
                Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => continue,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(e) => return Err(e),
            };
            match classify(&buffer[..length], self.destination.is_ipv4(), request) {
                Some(Classified::Echo) => return Ok(Some(Answer::Echo(watch.elapsed()))),
                Some(Classified::Refused) => return Ok(Some(Answer::Refused)),
                None => {}
            }
        }
    }
}

const ECHO_V4: u8 = 8;
const ECHO_V6: u8 = 128;

enum Answer {
    Echo(Duration),
    Refused,
}

#[derive(Debug, PartialEq, Eq)]
enum Classified {
    Echo,
    Refused,
}

/// What a received packet means for our request, if anything.
fn classify(received: &[u8], v4: bool, request: &[u8]) -> Option<Classified> {
    let icmp = if v4 { behind_v4(received)? } else { received };
    // Unreachable, time exceeded, parameter problem. A redirect is advice: its packet was passed on.
    let (reply, errors) = if v4 { (0, &[3, 11, 12][..]) } else { (129, &[1, 2, 3, 4][..]) };
    let kind = *icmp.first()?;
    if kind == reply && icmp.get(4..)? == &request[4..] {
        return Some(Classified::Echo);
    }
    if errors.contains(&kind) {
        // The packet that caused it follows its 8 bytes; type, id and sequence tell that it was ours.
        let cause = icmp.get(8..)?;
        let cause = if v4 { behind_v4(cause)? } else { cause.get(40..)? };
        let ours = cause.first()? == &request[0] && cause.get(4..8)? == &request[4..8];
        return ours.then_some(Classified::Refused);
    }
    None
}

fn behind_v4(packet: &[u8]) -> Option<&[u8]> {
    packet.get(usize::from(packet.first()? & 15) * 4..)
}

/// The internet checksum (RFC 1071).
fn checksum(bytes: &[u8]) -> u16 {
    let sum: u64 =
        bytes.chunks(2).map(|pair| u64::from(pair[0]) << 8 | pair.get(1).map_or(0, |&b| b.into())).sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    !(((folded & 0xffff) + (folded >> 16)) as u16)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(destination: &str) -> Vec<u8> {
        Ping::to(destination.parse().unwrap()).request(0x1234, 7)
    }

    #[test]
    fn a_request_carries_a_right_checksum_and_the_mark() {
        let request = request("192.0.2.1");
        assert_eq!(request.len(), 64);
        assert_eq!(checksum(&request), 0, "a packet that includes its checksum sums to zero");
        assert!(request.windows(MARK.len()).any(|part| part == MARK));
    }

    #[test]
    fn an_answer_with_another_payload_is_not_ours() {
        let request = request("2001:db8::1");
        let mut answer = request.clone();
        answer[0] = 129;
        assert_eq!(classify(&answer, false, &request), Some(Classified::Echo));
        answer[20] ^= 1;
        assert_eq!(classify(&answer, false, &request), None);
    }

    #[test]
    fn an_error_about_our_request_refuses_it_and_about_another_does_not() {
        let request = request("192.0.2.1");
        let header = [0x45; 20];
        let packet = [&header[..], &[3, 1, 0, 0, 0, 0, 0, 0], &header, &request[..8]].concat();
        assert_eq!(classify(&packet, true, &request), Some(Classified::Refused));
        let mut another = packet.clone();
        *another.last_mut().unwrap() ^= 1;
        assert_eq!(classify(&another, true, &request), None);
        let mut redirect = packet;
        redirect[20] = 5;
        assert_eq!(classify(&redirect, true, &request), None, "the router passed our request on");
    }

    #[test]
    fn a_cut_packet_is_not_an_answer() {
        let request = request("192.0.2.1");
        for length in 0..28 {
            assert_eq!(classify(&vec![0x4f; length], true, &request), None);
        }
    }
}
