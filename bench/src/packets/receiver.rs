//! Counts numbered datagrams: how many came in time, twice, or out of order.

use std::{
    io::{self, IoSliceMut},
    net::UdpSocket,
    os::fd::AsRawFd,
    thread,
    time::{Duration, Instant},
};

use nix::{
    errno::Errno,
    sys::socket::{MsgFlags, MultiHeaders, recvmmsg},
};

use super::{
    GRACE, Load,
    sender::{Done, NUMBERED},
};

/// The receiver looks so often: a wake-up for each datagram would cost the tunnel its core.
const LOOK: Duration = Duration::from_millis(1);
/// After the last one was sent, stragglers are drained so long, that the next run does not meet them.
const DRAIN: Duration = Duration::from_millis(100);
/// Messages in one call.
const AT_ONCE: usize = 16;
/// One message: all datagrams that the kernel received together (UDP_GRO).
const TOGETHER: usize = 65_536;

/// What arrived.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Different datagrams until [`GRACE`] after the last one was sent.
    pub on_time: u64,
    /// Arrived after one that was sent later.
    pub reordered: u64,
    /// Arrived again.
    pub duplicated: u64,
}

/// Until the sender is done and what it sent has had its time.
pub fn count(socket: &UdpSocket, load: &Load, done: &Done) -> io::Result<Tally> {
    let mut seen = Seen::new(load.count());
    let mut buffers = vec![vec![0; TOGETHER]; AT_ONCE];
    let mut headers = MultiHeaders::preallocate(AT_ONCE, None);
    let mut in_time = None;
    loop {
        let over = done.get().map(Instant::elapsed);
        while receive(socket, &mut headers, &mut buffers, load.payload.max(NUMBERED), |number, run| {
            if run == load.run {
                seen.note(number);
            }
        })? == AT_ONCE
        {}
        match over {
            Some(over) if over > DRAIN => break,
            Some(over) if over > GRACE && in_time.is_none() => in_time = Some(seen.tally.on_time),
            _ => {}
        }
        thread::sleep(LOOK);
    }
    Ok(Tally { on_time: in_time.unwrap_or(seen.tally.on_time), ..seen.tally })
}

/// What is there now, at most [`AT_ONCE`] messages; of each datagram only the front is read. All datagrams have the
/// same `payload`, so that the kernel need not tell where it has put them together.
fn receive(
    socket: &UdpSocket,
    headers: &mut MultiHeaders<()>,
    buffers: &mut [Vec<u8>],
    payload: usize,
    mut note: impl FnMut(u64, u64),
) -> io::Result<usize> {
    let lengths: Vec<_> = {
        let mut slices: Vec<_> = buffers.iter_mut().map(|buffer| [IoSliceMut::new(buffer)]).collect();
        match recvmmsg(socket.as_raw_fd(), headers, &mut slices, MsgFlags::MSG_DONTWAIT, None) {
            Ok(results) => results.map(|one| one.bytes).collect(),
            Err(Errno::EAGAIN | Errno::EINTR) => Vec::new(),
            Err(errno) => return Err(errno.into()),
        }
    };
    for (buffer, &length) in buffers.iter().zip(&lengths) {
        for datagram in buffer[..length].chunks(payload).filter(|one| one.len() >= NUMBERED) {
            let word = |bytes: &[u8]| bytes.try_into().map_or(u64::MAX, u64::from_le_bytes);
            note(word(&datagram[..8]), word(&datagram[8..NUMBERED]));
        }
    }
    Ok(lengths.len())
}

/// Which numbers have arrived.
struct Seen {
    bits: Vec<u64>,
    next: u64,
    tally: Tally,
}

impl Seen {
    fn new(count: u64) -> Self {
        Self { bits: vec![0; count as usize / 64 + 1], next: 0, tally: Tally::default() }
    }

    fn note(&mut self, number: u64) {
        let Some(word) = self.bits.get_mut((number / 64) as usize) else { return };
        let bit = 1 << (number % 64);
        if *word & bit != 0 {
            self.tally.duplicated += 1;
            return;
        }
        *word |= bit;
        self.tally.on_time += 1;
        if number < self.next {
            self.tally.reordered += 1;
        } else {
            self.next = number + 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{super::Sending, *};

    #[test]
    fn order_and_repetition_are_told_apart() {
        let mut seen = Seen::new(100);
        [0, 1, 3, 2, 2, 4, 99, 50, 1_000_000].into_iter().for_each(|number| seen.note(number));
        assert_eq!(seen.tally, Tally { on_time: 7, reordered: 2, duplicated: 1 });
    }

    #[test]
    fn what_is_sent_is_counted_and_another_run_is_not() {
        let receiving = UdpSocket::bind("127.0.0.1:0").unwrap();
        receiving.set_nonblocking(true).unwrap();
        let sending = UdpSocket::bind("127.0.0.1:0").unwrap();
        sending.connect(receiving.local_addr().unwrap()).unwrap();
        let load = Load {
            run: 7,
            rate: 1e4,
            payload: 100,
            length: Duration::from_millis(10),
            sending: Sending::OneByOne,
        };
        let stale = [[9_u8; 8], 6_u64.to_le_bytes()].concat();
        sending.send(&stale).unwrap();
        let done = Done::default();
        super::super::sender::send(&sending, &load, &done).unwrap();
        let tally = count(&receiving, &load, &done).unwrap();
        assert_eq!(tally, Tally { on_time: 100, ..Tally::default() });
    }
}
