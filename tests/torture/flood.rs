//! A sender of floods: datagrams with made-up sources, many by one call (sendmmsg), bounded in count and in time.

use std::{
    io::{self, IoSlice},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    os::fd::AsRawFd,
    process::Command,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
    time::{Duration, Instant},
};

use nix::{
    errno::Errno,
    sys::{
        prctl,
        socket::{MsgFlags, MultiHeaders, sendmmsg},
    },
    unistd::gettid,
};
use socket2::{Domain, Protocol, Socket, Type};
use vpnd::{
    lab::Namespace,
    wire::{checksum::Sum, ip},
};

use crate::dice::Dice;

/// Datagrams of one call.
const AT_ONCE: usize = 64;
/// A sender that is later than this was not given the core: the time is let go, not caught up with in a burst.
const LATE: Duration = Duration::from_millis(2);
/// IPPROTO_RAW: the IP header is ours (raw(7)).
const WITH_HEADER: i32 = 255;
const V4: usize = 20;
const V6: usize = 40;
const UDP: usize = 8;

/// Whose name a datagram is sent in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sources {
    /// The sender's own address, by an ordinary socket: datagrams of any size.
    Own,
    /// One that is somebody else's.
    One(SocketAddr),
    /// Any address of 198.18.0.0/15, or of 2001:db8:bad::/48, and any port.
    Any,
    /// Any address of one /64, and any port.
    Subnet64,
}

/// Where to, how fast, and for how long at most.
#[derive(Clone, Copy, Debug)]
pub struct Aim {
    pub to: SocketAddr,
    pub sources: Sources,
    /// A second; infinite: as fast as it goes.
    pub rate: f64,
    /// No more than so many.
    pub most: u64,
    /// No longer than this.
    pub limit: Duration,
    pub seed: u64,
}

/// What was sent.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sent {
    pub count: u64,
    /// Those that the kernel would not send.
    pub refused: u64,
    pub seconds: f64,
}

impl Sent {
    pub fn rate(&self) -> f64 {
        self.count as f64 / self.seconds.max(f64::EPSILON)
    }
}

/// Told to end, and asked how far it is.
#[derive(Default)]
pub struct Rein {
    over: AtomicBool,
    sent: AtomicU64,
}

impl Rein {
    pub fn stop(&self) {
        self.over.store(true, Ordering::Release);
    }

    pub fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }
}

/// Sends from `host` until it is told to stop, or has sent enough, or its time is over. `content` writes the payload of
/// each datagram.
pub fn flood(
    host: &Namespace,
    aim: &Aim,
    mut content: impl FnMut(&mut Dice<'_>, &mut Vec<u8>),
    rein: &Rein,
) -> io::Result<Sent> {
    let socket = host.run(|| open(aim))?;
    let _ = prctl::set_timerslack(1); // of this thread: sleeps end when they should
    before_others();
    let mut dice = Dice::Seed(aim.seed);
    let mut batch = Batch::new();
    let begin = Instant::now();
    let mut pace = Pace { origin: begin, rate: aim.rate };
    let mut sent = Sent::default();
    while !rein.over.load(Ordering::Acquire) && sent.count < aim.most && begin.elapsed() < aim.limit {
        let due = pace.due(sent.count, Instant::now()).min(aim.most - sent.count);
        if due == 0 {
            thread::sleep(pace.until(sent.count + 16, Instant::now()));
            continue;
        }
        for datagram in &mut batch.datagrams[..due.min(AT_ONCE as u64) as usize] {
            write(aim, &mut dice, &mut content, datagram);
        }
        let (gone, refused) = batch.send(&socket, due.min(AT_ONCE as u64) as usize)?;
        sent.count += gone;
        sent.refused += refused;
        rein.sent.store(sent.count, Ordering::Relaxed);
    }
    sent.seconds = begin.elapsed().as_secs_f64();
    Ok(sent)
}

/// An attacker has a machine of his own, where nobody takes the core from him: this thread, which has to share, comes
/// before those of the victim. Else a victim that is busy would slow the flood down that it is judged by.
fn before_others() {
    let own = gettid().to_string();
    let renice = Command::new("renice").args(["-n", "-15", "-p", &own]).output();
    assert!(renice.is_ok_and(|done| done.status.success()), "root may set the nice value of a thread");
}

fn open(aim: &Aim) -> io::Result<Socket> {
    let domain = Domain::for_address(aim.to);
    let (socket, to) = match aim.sources {
        Sources::Own => (Socket::new(domain, Type::DGRAM, Some(Protocol::UDP))?, aim.to),
        _ => {
            let raw = Socket::new(domain, Type::RAW, Some(Protocol::from(WITH_HEADER)))?;
            (raw, SocketAddr::new(aim.to.ip(), 0))
        }
    };
    socket.connect(&to.into())?;
    // What cannot be queued is not sent: the sender is not to sleep in the kernel, nor to fill its own memory.
    socket.set_send_buffer_size(4 << 20)?;
    Ok(socket)
}

/// One datagram, with headers where they are ours.
fn write(
    aim: &Aim,
    dice: &mut Dice<'_>,
    content: &mut impl FnMut(&mut Dice<'_>, &mut Vec<u8>),
    datagram: &mut Vec<u8>,
) {
    datagram.clear();
    let source = match aim.sources {
        Sources::Own => return content(dice, datagram),
        Sources::One(source) => source,
        Sources::Any => any(dice, aim.to.is_ipv4()),
        Sources::Subnet64 => SocketAddr::new(in_subnet(dice).into(), port(dice)),
    };
    let header = if aim.to.is_ipv4() { V4 } else { V6 };
    datagram.resize(header + UDP, 0);
    content(dice, datagram);
    let length = (datagram.len() - header) as u16;
    datagram[header..header + 2].copy_from_slice(&source.port().to_be_bytes());
    datagram[header + 2..header + 4].copy_from_slice(&aim.to.port().to_be_bytes());
    datagram[header + 4..header + 6].copy_from_slice(&length.to_be_bytes());
    match (source.ip(), aim.to.ip()) {
        // The kernel writes length and checksum of the header; a UDP checksum of zero says that there is none.
        (IpAddr::V4(source), IpAddr::V4(to)) => {
            datagram[..12].copy_from_slice(&[0x45, 0, 0, 0, 0, 0, 0, 0, 64, ip::UDP, 0, 0]);
            datagram[12..16].copy_from_slice(&source.octets());
            datagram[16..20].copy_from_slice(&to.octets());
        }
        (IpAddr::V6(source), IpAddr::V6(to)) => {
            datagram[0] = 0x60;
            datagram[4..6].copy_from_slice(&length.to_be_bytes());
            datagram[6..8].copy_from_slice(&[ip::UDP, 64]);
            datagram[8..24].copy_from_slice(&source.octets());
            datagram[24..40].copy_from_slice(&to.octets());
            let pseudo = Sum::pseudo_header(source.into(), to.into(), ip::UDP) + Sum::word(length);
            let sum = (pseudo + Sum::of(&datagram[V6..])).finish();
            datagram[V6 + 6..V6 + 8].copy_from_slice(&sum);
        }
        _ => unreachable!("source and destination are of one family"),
    }
}

fn port(dice: &mut Dice<'_>) -> u16 {
    dice.within(1024..=65_535) as u16
}

fn any(dice: &mut Dice<'_>, v4: bool) -> SocketAddr {
    let bits = dice.below(usize::MAX) as u64;
    let port = 1024 + (bits >> 40) as u16 % 64_000;
    if v4 {
        return (Ipv4Addr::from_bits(0xc612_0000 | bits as u32 & 0x1_ffff), port).into();
    }
    let network = 0x2001_0db8_0bad_0000_u64 | bits & 0xffff;
    (Ipv6Addr::from_bits(u128::from(network) << 64 | u128::from(bits | 1)), port).into()
}

fn in_subnet(dice: &mut Dice<'_>) -> Ipv6Addr {
    let network = 0x2001_0db8_0bad_0064_u64;
    Ipv6Addr::from_bits(u128::from(network) << 64 | dice.below(usize::MAX) as u128 | 1)
}

/// Which datagram is due when.
struct Pace {
    origin: Instant,
    rate: f64,
}

impl Pace {
    /// Datagrams that should have been sent by now, beyond `sent`.
    fn due(&mut self, sent: u64, now: Instant) -> u64 {
        if self.rate.is_infinite() {
            return AT_ONCE as u64;
        }
        let behind = (now - self.origin).as_secs_f64() - sent as f64 / self.rate;
        let too_far = behind - LATE.as_secs_f64() - AT_ONCE as f64 / self.rate;
        if too_far > 0.0 {
            self.origin += Duration::from_secs_f64(too_far);
        }
        let elapsed = (now - self.origin).as_secs_f64();
        ((elapsed * self.rate) as u64).saturating_sub(sent)
    }

    /// Time until so many are due.
    fn until(&self, number: u64, now: Instant) -> Duration {
        let at = self.origin + Duration::from_secs_f64(number as f64 / self.rate);
        at.saturating_duration_since(now)
    }
}

struct Batch {
    datagrams: Vec<Vec<u8>>,
    headers: MultiHeaders<()>,
}

impl Batch {
    fn new() -> Self {
        Self { datagrams: vec![Vec::new(); AT_ONCE], headers: MultiHeaders::preallocate(AT_ONCE, None) }
    }

    /// How many of the first `count` went out, and how many the kernel refused.
    fn send(&mut self, socket: &Socket, count: usize) -> io::Result<(u64, u64)> {
        let slices: Vec<_> = self.datagrams[..count].iter().map(|one| [IoSlice::new(one)]).collect();
        let connected = [None; AT_ONCE];
        let flags = MsgFlags::empty();
        match sendmmsg(socket.as_raw_fd(), &mut self.headers, &slices, &connected[..count], [], flags) {
            Ok(results) => Ok((results.count() as u64, 0)),
            Err(Errno::EINTR | Errno::EAGAIN) => Ok((0, 0)),
            // The echo of an ICMP error, or of a full queue: the first one of the batch was not sent.
            Err(
                Errno::ENOBUFS | Errno::ECONNREFUSED | Errno::EPERM | Errno::EHOSTUNREACH | Errno::EMSGSIZE,
            ) => {
                self.datagrams[..count].rotate_left(1);
                Ok((0, 1))
            }
            Err(errno) => Err(errno.into()),
        }
    }
}
