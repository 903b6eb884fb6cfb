//! One packet of our own: an echo request, or the first packet of a TCP connection or a UDP flow; and its answer.

use std::{
    io::{self, ErrorKind, Read},
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use super::decision::errno_name;
use crate::{
    sys,
    trace::{Packet, Probe},
    wire::{checksum::Sum, ip},
};

/// What is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// An echo request with so many bytes behind its header.
    Echo(u16),
    /// A connection to this port.
    Tcp(u16),
    /// A datagram with so many bytes to this port.
    Udp(u16, u16),
}

/// What is to be sent, ready to go: everything that a filter has to know stands.
pub struct Prober {
    socket: Socket,
    to: SocketAddr,
    shape: Shape,
    packet: Packet,
    mark: u32,
    payload: Vec<u8>,
}

/// Identifier and sequence number tell our echo from those of others.
const SEQUENCE: u16 = 1;

impl Prober {
    /// From that address, or what the kernel chooses; with that mark, or none.
    pub fn new(to: IpAddr, from: Option<IpAddr>, shape: Shape, mark: u32) -> io::Result<Self> {
        let domain = if to.is_ipv4() { Domain::IPV4 } else { Domain::IPV6 };
        let (kind, protocol, name) = match shape {
            Shape::Echo(_) if to.is_ipv4() => (Type::RAW, Protocol::ICMPV4, "icmp"),
            Shape::Echo(_) => (Type::RAW, Protocol::ICMPV6, "icmpv6"),
            Shape::Tcp(_) => (Type::STREAM, Protocol::TCP, "tcp"),
            Shape::Udp(..) => (Type::DGRAM, Protocol::UDP, "udp"),
        };
        let socket = Socket::new(domain, kind, Some(protocol))?;
        if mark != 0 {
            socket.set_mark(mark)?;
        }
        let any: IpAddr = if to.is_ipv4() { [0; 4].into() } else { [0; 16].into() };
        socket.bind(&SocketAddr::new(from.unwrap_or(any), 0).into())?;
        let id = std::process::id() as u16;
        let echo = matches!(shape, Shape::Echo(_)).then_some([id, SEQUENCE]);
        let port = match shape {
            Shape::Echo(_) => None,
            Shape::Tcp(port) | Shape::Udp(port, _) => Some(port),
        };
        let own = socket.local_addr()?.as_socket().map(|own| own.port());
        let packet = Packet {
            source: from.unwrap_or(any),
            destination: to,
            protocol: name.to_owned(),
            source_port: port.and(own),
            destination_port: port,
            echo,
            bytes: bytes(to, shape),
        };
        let payload = payload(to, shape, id);
        Ok(Self { socket, to: SocketAddr::new(to, port.unwrap_or(0)), shape, packet, mark, payload })
    }

    /// What a filter has to know.
    pub fn packet(&self) -> &Packet {
        &self.packet
    }

    /// Sends it, and waits for its answer, at most so long. Blocks.
    pub fn send(mut self, patience: Duration) -> Probe {
        let sent_ns = sys::clock::boottime();
        let sent = match self.shape {
            Shape::Tcp(_) => self.socket.connect_timeout(&self.to.into(), patience),
            _ => self.hand_over(),
        };
        let mut probe = Probe {
            packet: self.packet.clone(),
            mark: self.mark,
            sent_ns,
            error: None,
            answered_ns: None,
            refused: None,
        };
        match (sent, self.shape) {
            (Ok(()), Shape::Tcp(_)) => probe.answered_ns = Some(sys::clock::boottime()),
            (Err(error), Shape::Tcp(_)) if error.kind() == ErrorKind::ConnectionRefused => {
                // The answer is that nobody listens there: it came there.
                probe.answered_ns = Some(sys::clock::boottime());
            }
            (Err(error), Shape::Tcp(_)) if error.kind() == ErrorKind::TimedOut => {}
            (Err(error), _) => probe.error = Some(errno_name(&error)),
            (Ok(()), _) => self.await_answer(&mut probe, patience),
        }
        probe
    }

    /// The kernel's choice of a source is made now.
    fn hand_over(&mut self) -> io::Result<()> {
        self.socket.connect(&SockAddr::from(self.to))?;
        self.socket.send(&self.payload).map(drop)
    }

    fn await_answer(&mut self, probe: &mut Probe, patience: Duration) {
        let until = probe.sent_ns + patience.as_nanos() as u64;
        let mut buffer = [0; 2048];
        loop {
            let left = until.saturating_sub(sys::clock::boottime());
            // Zero would be for ever.
            if left == 0 || self.socket.set_read_timeout(Some(Duration::from_nanos(left.max(1000)))).is_err()
            {
                return;
            }
            match self.socket.read(&mut buffer) {
                Ok(length) if self.is_answer(&buffer[..length]) => {
                    probe.answered_ns = Some(sys::clock::boottime());
                    return;
                }
                Err(error) if error.kind() == ErrorKind::ConnectionRefused => {
                    // As with TCP: it came there, and nobody listens.
                    probe.answered_ns = Some(sys::clock::boottime());
                    return;
                }
                Err(error) if !is_silence(&error) => {
                    probe.refused = Some(errno_name(&error));
                    return;
                }
                _ => {}
            }
        }
    }

    fn is_answer(&self, received: &[u8]) -> bool {
        let Shape::Echo(_) = self.shape else { return true };
        let (icmp, kind) = match self.to.is_ipv4() {
            true => (received.get(usize::from(received.first().unwrap_or(&0) & 15) * 4..), 0),
            false => (Some(received), 129),
        };
        icmp.is_some_and(|icmp| icmp.first() == Some(&kind) && icmp.get(4..8) == self.payload.get(4..8))
    }
}

fn is_silence(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted)
}

/// Of the whole packet; what TCP's options are is the kernel's affair.
fn bytes(to: IpAddr, shape: Shape) -> Option<u64> {
    let header = if to.is_ipv4() { ip::V4_HEADER_LEN } else { ip::V6_HEADER_LEN };
    let upper = match shape {
        Shape::Echo(payload) | Shape::Udp(_, payload) => 8 + usize::from(payload),
        Shape::Tcp(_) => return None,
    };
    Some((header + upper) as u64)
}

fn payload(to: IpAddr, shape: Shape, id: u16) -> Vec<u8> {
    let text = |bytes: u16| b"vpnd-trace ".iter().copied().cycle().take(bytes.into());
    match shape {
        Shape::Tcp(_) => Vec::new(),
        Shape::Udp(_, bytes) => text(bytes).collect(),
        Shape::Echo(bytes) => {
            let mut packet = vec![if to.is_ipv4() { 8 } else { 128 }, 0, 0, 0];
            packet.extend(id.to_be_bytes());
            packet.extend(SEQUENCE.to_be_bytes());
            packet.extend(text(bytes));
            if to.is_ipv4() {
                // For IPv6 the kernel fills it in: it covers addresses that only the kernel knows.
                let sum = Sum::of(&packet).finish();
                packet[2..4].copy_from_slice(&sum);
            }
            packet
        }
    }
}
