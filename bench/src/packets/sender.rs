//! Sends numbered datagrams in small batches, spaced by the clock.

use std::{
    io::{self, IoSlice},
    net::UdpSocket,
    os::fd::AsRawFd,
    sync::OnceLock,
    thread,
    time::{Duration, Instant},
};

use nix::{
    errno::Errno,
    sys::{
        prctl,
        socket::{ControlMessage, MsgFlags, MultiHeaders, sendmmsg, sendmsg},
    },
};

use super::Load;

/// Datagrams between two sleeps.
const BATCH: u64 = 16;
/// Datagrams in one call when the sender woke up late.
const AT_ONCE: u64 = 64;
/// A sender that is later than this was not given the core: the time is let go, not caught up with in a flood.
const LATE: Duration = Duration::from_millis(2);
/// Over the asked length, then it ends with what it has sent.
const OVERTIME: u32 = 3;

/// How a batch goes into the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sending {
    /// Each datagram walks the stack for itself (sendmmsg).
    OneByOne,
    /// All walk it together, and are cut as late as can be (UDP_SEGMENT).
    Segmented,
}

/// When the last one was sent; told to the receiver.
pub type Done = OnceLock<Instant>;

/// What was sent.
pub struct Sent {
    pub count: u64,
    pub rate: f64,
}

/// Number and run stand in front.
pub const NUMBERED: usize = 16;

/// Until all are sent.
pub fn send(socket: &UdpSocket, load: &Load, done: &Done) -> io::Result<Sent> {
    let sent = paced(socket, load);
    let _ = done.set(Instant::now());
    sent
}

fn paced(socket: &UdpSocket, load: &Load) -> io::Result<Sent> {
    prctl::set_timerslack(1)?; // of this thread: sleeps end when they should
    let mut batch = Batch::new(load);
    let count = load.count();
    let begin = Instant::now();
    let mut pace = Pace { origin: begin, rate: load.rate };
    let mut sent = 0;
    while sent < count && begin.elapsed() < OVERTIME * load.length {
        let wanted = BATCH.min(count - sent);
        match pace.due(sent, Instant::now()) {
            due if due < wanted => thread::sleep(pace.until(sent + wanted, Instant::now())),
            due => sent += batch.send(socket, sent, due.min(AT_ONCE).min(count - sent))?,
        }
    }
    let rate = sent as f64 / begin.elapsed().as_secs_f64().max(f64::EPSILON);
    Ok(Sent { count: sent, rate })
}

/// Which datagram is due when.
struct Pace {
    origin: Instant,
    rate: f64,
}

impl Pace {
    /// Datagrams that should have been sent by now, beyond `sent`.
    fn due(&mut self, sent: u64, now: Instant) -> u64 {
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
    sending: Sending,
    /// Datagrams behind each other, as UDP_SEGMENT wants them.
    bytes: Vec<u8>,
    payload: usize,
    headers: MultiHeaders<()>,
}

impl Batch {
    fn new(load: &Load) -> Self {
        let payload = load.payload.max(NUMBERED);
        let mut one = vec![0x5a; payload];
        one[8..NUMBERED].copy_from_slice(&load.run.to_le_bytes());
        let headers = MultiHeaders::preallocate(AT_ONCE as usize, None);
        Self { sending: load.sending, bytes: one.repeat(AT_ONCE as usize), payload, headers }
    }

    /// Sends `count` datagrams numbered from `first`; so many went out.
    fn send(&mut self, socket: &UdpSocket, first: u64, count: u64) -> io::Result<u64> {
        for (datagram, number) in self.bytes.chunks_mut(self.payload).zip(first..first + count) {
            datagram[..8].copy_from_slice(&number.to_le_bytes());
        }
        let sent = match self.sending {
            Sending::OneByOne => self.one_by_one(socket, count as usize),
            Sending::Segmented => self.segmented(socket, count as usize),
        };
        match sent {
            Ok(sent) => Ok(sent as u64),
            Err(Errno::EINTR | Errno::ENOBUFS | Errno::EAGAIN) => Ok(0),
            Err(errno) => Err(errno.into()),
        }
    }

    fn one_by_one(&mut self, socket: &UdpSocket, count: usize) -> nix::Result<usize> {
        let slices: Vec<_> =
            self.bytes.chunks(self.payload).take(count).map(|one| [IoSlice::new(one)]).collect();
        let connected = [None; AT_ONCE as usize];
        let flags = MsgFlags::empty();
        let results =
            sendmmsg(socket.as_raw_fd(), &mut self.headers, &slices, &connected[..count], [], flags)?;
        Ok(results.count())
    }

    fn segmented(&self, socket: &UdpSocket, count: usize) -> nix::Result<usize> {
        let stride = u16::try_from(self.payload).map_err(|_| Errno::EMSGSIZE)?;
        let slices = [IoSlice::new(&self.bytes[..count * self.payload])];
        let cut = [ControlMessage::UdpGsoSegments(&stride)];
        sendmsg::<()>(socket.as_raw_fd(), &slices, &cut, MsgFlags::empty(), None)?;
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn datagrams_fall_due_by_the_clock() {
        let origin = Instant::now();
        let mut pace = Pace { origin, rate: 100_000.0 };
        assert_eq!(pace.due(0, origin + Duration::from_micros(165)), 16);
        assert_eq!(pace.due(16, origin + Duration::from_micros(165)), 0);
        assert_eq!(pace.until(32, origin + Duration::from_micros(160)), Duration::from_micros(160));
    }

    #[test]
    fn a_sender_that_was_not_given_the_core_does_not_flood_afterwards() {
        let origin = Instant::now();
        let mut pace = Pace { origin, rate: 100_000.0 };
        let due = pace.due(0, origin + Duration::from_millis(50));
        assert!((263..=265).contains(&due), "{due} after 50 ms");
    }

    #[test]
    fn a_paced_sender_keeps_its_rate() {
        let receiving = UdpSocket::bind("127.0.0.1:0").unwrap();
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.connect(receiving.local_addr().unwrap()).unwrap();
        for sending in [Sending::OneByOne, Sending::Segmented] {
            let length = Duration::from_millis(30);
            let load = Load { run: 1, rate: 5_000.0, payload: 36, length, sending };
            let sent = send(&socket, &load, &Done::default()).unwrap();
            assert_eq!(sent.count, 150);
            assert!(sent.rate < 5_500.0, "{}", sent.rate);
            for number in 0..150_u64 {
                let mut buffer = [0; 64];
                assert_eq!(receiving.recv(&mut buffer).unwrap(), 36);
                assert_eq!(buffer[..8], number.to_le_bytes());
                assert_eq!(buffer[8..16], [1, 0, 0, 0, 0, 0, 0, 0]);
            }
        }
    }
}
