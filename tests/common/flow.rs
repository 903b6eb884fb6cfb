//! Numbered UDP datagrams at a steady pace, and what became of each.

use std::{
    collections::BTreeSet,
    fmt, io,
    net::{IpAddr, SocketAddr, UdpSocket},
    os::fd::AsFd,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use vpnd::{lab::Namespace, plane::Clock, sys::socket::force_receive_buffer};

/// How long the last datagrams may be on their way.
const GRACE: Duration = Duration::from_secs(3);
/// How many will have been sent is not known before the end.
const UNKNOWN: u64 = u64::MAX;
/// A receiver that sleeps for a while on a busy machine loses nothing.
const RECEIVE_BUFFER: u32 = 8 << 20;

/// A running flow.
pub struct Flow {
    over: Arc<AtomicBool>,
    sender: JoinHandle<io::Result<u64>>,
    receiver: JoinHandle<io::Result<Seen>>,
}

/// What became of a flow's datagrams.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Arrived {
    /// Sent.
    pub sent: u64,
    /// The numbers of those that never came.
    pub lost: Vec<u64>,
    /// Came after one with a higher number.
    pub late: u64,
    /// Came again.
    pub doubled: u64,
    /// Had another content than was sent under this number.
    pub damaged: u64,
}

impl Arrived {
    /// Each came once, unaltered, in order; and there were some.
    pub fn whole(&self) -> bool {
        self.sent > 0 && self.lost.is_empty() && (self.late, self.doubled, self.damaged) == (0, 0, 0)
    }
}

impl fmt::Display for Arrived {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { sent, lost, late, doubled, damaged } = self;
        write!(f, "{sent} sent, {} lost, {late} late, {doubled} doubled, {damaged} damaged", lost.len())?;
        match (lost.first(), lost.last()) {
            (Some(first), Some(last)) => write!(f, "; lost between number {first} and {last}"),
            _ => Ok(()),
        }
    }
}

impl Flow {
    /// Sends datagrams of `size` bytes from `from` to `address` on `to`, one each `pace`, until
    /// [`Flow::finish`]. A sender that was held up does not hurry afterwards.
    pub fn start(from: &Namespace, to: &Namespace, address: IpAddr, pace: Duration, size: usize) -> Self {
        let incoming = to.run(|| UdpSocket::bind((address, 0))).expect("the address can be bound");
        force_receive_buffer(incoming.as_fd(), RECEIVE_BUFFER).expect("root may have a large buffer");
        let target = incoming.local_addr().expect("it is bound");
        let any: IpAddr = if address.is_ipv4() { [0; 4].into() } else { [0; 16].into() };
        let outgoing = from.run(|| UdpSocket::bind((any, 0))).expect("a socket to send from");
        let (over, total) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(UNKNOWN)));
        let (until, counted) = (over.clone(), total.clone());
        let sender = thread::spawn(move || {
            let sent = send(&outgoing, target, pace, size, &until);
            counted.store(*sent.as_ref().unwrap_or(&0), Ordering::Release);
            sent
        });
        let receiver = thread::spawn(move || receive(&incoming, size, &total));
        Self { over, sender, receiver }
    }

    /// Ends the sending, waits a while for what is still on its way, and says what arrived.
    #[track_caller]
    pub fn finish(self) -> Arrived {
        self.over.store(true, Ordering::Release);
        let sent = self.sender.join().expect("the sender lives").expect("each datagram can be sent");
        let seen = self.receiver.join().expect("the receiver lives").expect("receiving works");
        let Seen { numbers, late, doubled, damaged } = seen;
        Arrived { sent, lost: (0..sent).filter(|n| !numbers.contains(n)).collect(), late, doubled, damaged }
    }
}

/// What the receiver noted.
#[derive(Default)]
struct Seen {
    numbers: BTreeSet<u64>,
    late: u64,
    doubled: u64,
    damaged: u64,
}

impl Seen {
    fn note(&mut self, datagram: &[u8], size: usize) {
        let Some(number) = datagram.first_chunk().map(|bytes| u64::from_le_bytes(*bytes)) else {
            self.damaged += 1;
            return;
        };
        if datagram != content(number, size) {
            self.damaged += 1;
            return;
        }
        self.late += u64::from(self.numbers.last().is_some_and(|&last| number < last));
        self.doubled += u64::from(!self.numbers.insert(number));
    }
}

/// The number, then bytes that follow from it.
fn content(number: u64, size: usize) -> Vec<u8> {
    let tail = (0..size.saturating_sub(8) as u64).map(|i| number.wrapping_mul(31).wrapping_add(i * 7) as u8);
    number.to_le_bytes().into_iter().chain(tail).collect()
}

/// Returns how many.
fn send(
    socket: &UdpSocket,
    to: SocketAddr,
    pace: Duration,
    size: usize,
    over: &AtomicBool,
) -> io::Result<u64> {
    let mut number = 0;
    let mut turn = Clock.boot();
    while !over.load(Ordering::Acquire) {
        socket.send_to(&content(number, size), to)?;
        number += 1;
        turn = (turn + pace).max(Clock.boot());
        thread::sleep(turn.since(Clock.boot()));
    }
    Ok(number)
}

/// Until all have come, or none comes any more.
fn receive(socket: &UdpSocket, size: usize, total: &AtomicU64) -> io::Result<Seen> {
    socket.set_read_timeout(Some(Duration::from_millis(100)))?;
    let mut seen = Seen::default();
    let mut buffer = [0; 2048];
    let mut end = None;
    loop {
        let quiet = match socket.recv(&mut buffer) {
            Ok(length) => {
                seen.note(&buffer[..length], size);
                false
            }
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => true,
            Err(error) => return Err(error),
        };
        let total = total.load(Ordering::Acquire);
        if total == UNKNOWN {
            continue;
        }
        let over = Clock.boot() > *end.get_or_insert_with(|| Clock.boot() + GRACE);
        if over || (quiet && seen.numbers.len() as u64 == total) {
            return Ok(seen);
        }
    }
}
