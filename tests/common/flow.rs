//! Numbered UDP datagrams at a steady pace, and what became of each.

use std::{
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

use vpnd::{
    lab::Namespace,
    plane::Clock,
    sys::{
        poll::{self, Interest},
        socket::{self, Beside, force_receive_buffer},
    },
};

/// How long the last datagrams may be on their way.
const GRACE: Duration = Duration::from_secs(3);
/// How many will have been sent is not known before the end.
const UNKNOWN: u64 = u64::MAX;
/// No flow sends more.
const MOST: u64 = 1 << 32;
/// A receiver that sleeps for a while on a busy machine loses nothing.
const RECEIVE_BUFFER: u32 = 8 << 20;

/// A running flow.
pub struct Flow {
    over: Arc<AtomicBool>,
    so_far: Arc<AtomicU64>,
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
        self.lost.is_empty() && self.in_order()
    }

    /// What came came once, unaltered, in order; and there was some.
    pub fn in_order(&self) -> bool {
        self.sent > self.lost.len() as u64 && (self.late, self.doubled, self.damaged) == (0, 0, 0)
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
        Self::trains(from, to, address, pace, size, 1)
    }

    /// The same, but so many datagrams each `pace`: by one call, so that they come to the tunnel as one super-packet.
    pub fn trains(
        from: &Namespace,
        to: &Namespace,
        address: IpAddr,
        pace: Duration,
        size: usize,
        datagrams: u64,
    ) -> Self {
        let incoming = to.run(|| UdpSocket::bind((address, 0))).expect("the address can be bound");
        force_receive_buffer(incoming.as_fd(), RECEIVE_BUFFER).expect("root may have a large buffer");
        let target = incoming.local_addr().expect("it is bound");
        let any: IpAddr = if address.is_ipv4() { [0; 4].into() } else { [0; 16].into() };
        let outgoing = from.run(|| UdpSocket::bind((any, 0))).expect("a socket to send from");
        let (over, total) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(UNKNOWN)));
        let so_far = Arc::new(AtomicU64::new(0));
        let (until, counted, progress) = (over.clone(), total.clone(), so_far.clone());
        let sender = thread::spawn(move || {
            let sent = send(&outgoing, target, pace, size, datagrams, &until, &progress);
            counted.store(*sent.as_ref().unwrap_or(&0), Ordering::Release);
            sent
        });
        let receiver = thread::spawn(move || receive(&incoming, size, &total));
        Self { over, so_far, sender, receiver }
    }

    /// How many have been sent so far.
    pub fn sent(&self) -> u64 {
        self.so_far.load(Ordering::Relaxed)
    }

    /// Ends the sending, waits a while for what is still on its way, and says what arrived.
    #[track_caller]
    pub fn finish(self) -> Arrived {
        self.over.store(true, Ordering::Release);
        let sent = self.sender.join().expect("the sender lives").expect("each datagram can be sent");
        let seen = self.receiver.join().expect("the receiver lives").expect("receiving works");
        let lost = (0..sent).filter(|&n| !seen.has(n)).collect();
        let Seen { late, doubled, damaged, .. } = seen;
        Arrived { sent, lost, late, doubled, damaged }
    }
}

/// What the receiver noted.
#[derive(Default)]
struct Seen {
    /// A bit for each number.
    numbers: Vec<u64>,
    /// How many of them are set.
    count: u64,
    /// One more than the highest.
    next: u64,
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
        if number > MOST || datagram != content(number, size) {
            self.damaged += 1;
            return;
        }
        if self.has(number) {
            self.doubled += 1;
            return;
        }
        self.late += u64::from(number < self.next);
        self.next = self.next.max(number + 1);
        let word = (number / 64) as usize;
        self.numbers.resize(self.numbers.len().max(word + 1), 0);
        self.numbers[word] |= 1 << (number % 64);
        self.count += 1;
    }

    fn has(&self, number: u64) -> bool {
        self.numbers.get((number / 64) as usize).is_some_and(|word| word & 1 << (number % 64) != 0)
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
    datagrams: u64,
    over: &AtomicBool,
    so_far: &AtomicU64,
) -> io::Result<u64> {
    let mut number = 0;
    let mut turn = Clock.boot();
    let segment = (datagrams > 1).then_some(size as u16);
    // Blocking, unlike the call that sends a train.
    let writable = || poll::wait([Some((socket.as_fd(), Interest::Write))], None);
    while !over.load(Ordering::Acquire) {
        let train: Vec<u8> = (number..number + datagrams).flat_map(|number| content(number, size)).collect();
        match socket::send(socket.as_fd(), &to, Beside { segment, ..Beside::default() }, &train) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                writable()?;
                continue;
            }
            sent => sent?,
        }
        number += datagrams;
        so_far.store(number, Ordering::Relaxed);
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
            // Interrupted: the machine stood still for a while, and what waits with a limit is not restarted.
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut | io::ErrorKind::Interrupted
                ) =>
            {
                true
            }
            Err(error) => return Err(error),
        };
        let total = total.load(Ordering::Acquire);
        if total == UNKNOWN {
            continue;
        }
        let over = Clock.boot() > *end.get_or_insert_with(|| Clock.boot() + GRACE);
        if over || (quiet && seen.count == total) {
            return Ok(seen);
        }
    }
}
