//! TCP and UDP between two hosts of the lab, every byte checked.

use std::{
    io::{self, Read, Write},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    panic::resume_unwind,
    sync::{
        LazyLock,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use super::{
    error::{Attempted, LabError},
    namespace::Namespace,
    stopwatch::Stopwatch,
};

/// A TCP transfer that came through whole.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Transfer {
    /// Bytes that arrived.
    pub bytes: u64,
    /// From the first byte sent to the last byte received.
    pub seconds: f64,
    /// Each byte was the one that was sent at this place.
    pub intact: bool,
}

impl Transfer {
    /// Payload, in 10^6 bits a second.
    pub fn megabits_per_second(&self) -> f64 {
        self.bytes as f64 * 8.0 / 1e6 / self.seconds.max(f64::EPSILON)
    }
}

/// Sends `bytes` over TCP from `from` to `address` on `to`. Fails when not all of them arrive within `limit`.
pub fn tcp_transfer(
    from: &Namespace,
    to: &Namespace,
    address: IpAddr,
    bytes: u64,
    limit: Duration,
) -> Result<Transfer, LabError> {
    let what = || format!("send {bytes} bytes by TCP from {} to {} ({address})", from.name(), to.name());
    let pattern = PATTERN.as_slice();
    let transfer = || {
        let watch = Stopwatch::start();
        let listener = to.run(|| TcpListener::bind((address, 0)))?;
        let port = listener.local_addr()?.port();
        let sender = from.run(|| TcpStream::connect_timeout(&SocketAddr::new(address, port), limit))?;
        let start = Stopwatch::start();
        let intact = thread::scope(|scope| {
            let sending = scope.spawn(|| send(sender, pattern, bytes, watch, limit));
            let receiver = accept(&listener, watch, limit);
            let intact = receiver.and_then(|receiver| receive(receiver, pattern, bytes, watch, limit));
            sending.join().unwrap_or_else(|panic| resume_unwind(panic)).and(intact)
        })?;
        Ok::<_, io::Error>(Transfer { bytes, seconds: start.elapsed().as_secs_f64(), intact })
    };
    transfer().attempted(what)
}

/// UDP datagrams sent, and those that came back the same.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Echo {
    /// Datagrams.
    pub sent: u32,
    /// Unaltered answers.
    pub echoed: u32,
}

/// Sends `count` datagrams of `size` bytes from `from` to `address` on `to`, where each is sent back; a second
/// of patience for each.
pub fn udp_echo(
    from: &Namespace,
    to: &Namespace,
    address: IpAddr,
    count: u32,
    size: usize,
) -> Result<Echo, LabError> {
    let what = || format!("echo UDP from {} on {} ({address})", from.name(), to.name());
    let echo = || {
        let server = to.run(|| UdpSocket::bind((address, 0)))?;
        let server_address = server.local_addr()?;
        let wildcard: IpAddr =
            if address.is_ipv4() { [0; 4].into() } else { std::net::Ipv6Addr::UNSPECIFIED.into() };
        let client = from.run(|| UdpSocket::bind((wildcard, 0)))?;
        let over = AtomicBool::new(false);
        thread::scope(|scope| {
            let serving = scope.spawn(|| serve_echo(&server, &over));
            let echo = ask_echo(&client, server_address, count, size);
            over.store(true, Ordering::Relaxed);
            serving.join().unwrap_or_else(|panic| resume_unwind(panic)).and(echo)
        })
    };
    echo().attempted(what)
}

/// A prime, so that no packet size divides it and a displaced packet is always seen.
const PERIOD: usize = 1_048_573;

/// Made once: many transfers may run at the same time.
static PATTERN: LazyLock<Vec<u8>> = LazyLock::new(pattern);

/// Two periods of pseudo-random bytes (splitmix64): any period-long slice from any offset lies in it.
fn pattern() -> Vec<u8> {
    let mut state = 0_u64;
    let words = std::iter::repeat_with(|| {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    });
    let period: Vec<u8> = words.flat_map(u64::to_le_bytes).take(PERIOD).collect();
    [&period[..], &period[..]].concat()
}

/// What stands at `position` of the stream, `length` bytes at most.
fn slice(pattern: &[u8], position: u64, length: u64) -> &[u8] {
    let start = (position % PERIOD as u64) as usize;
    &pattern[start..start + length.min(PERIOD as u64) as usize]
}

/// The connection stands for the sender; here it does when its last acknowledgement has come, or the first data.
fn accept(listener: &TcpListener, watch: Stopwatch, limit: Duration) -> io::Result<TcpStream> {
    listener.set_nonblocking(true)?;
    loop {
        match listener.accept() {
            Ok((stream, _)) => return stream.set_nonblocking(false).map(|()| stream),
            Err(error) if is_nothing_yet(&error) => _ = time_left(watch, limit)?,
            Err(error) => return Err(error),
        }
        thread::sleep(Duration::from_millis(1));
    }
}

/// A machine that was stopped and goes on ends calls that wait with a time-out (EINTR, signal(7)).
fn is_nothing_yet(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}

fn send(
    mut stream: TcpStream,
    pattern: &[u8],
    bytes: u64,
    watch: Stopwatch,
    limit: Duration,
) -> io::Result<()> {
    let mut position = 0;
    while position < bytes {
        stream.set_write_timeout(Some(time_left(watch, limit)?))?;
        let chunk = slice(pattern, position, (bytes - position).min(256 * 1024));
        match stream.write(chunk) {
            Ok(length) => position += length as u64,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(at(position, error)),
        }
    }
    stream.shutdown(std::net::Shutdown::Write)
}

fn receive(
    mut stream: TcpStream,
    pattern: &[u8],
    bytes: u64,
    watch: Stopwatch,
    limit: Duration,
) -> io::Result<bool> {
    let mut buffer = vec![0; 256 * 1024];
    let (mut position, mut intact) = (0, true);
    loop {
        stream.set_read_timeout(Some(time_left(watch, limit)?))?;
        let length = match stream.read(&mut buffer) {
            Ok(length) => length,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(at(position, error)),
        };
        if length == 0 {
            return if position == bytes {
                Ok(intact)
            } else {
                Err(at(position, io::ErrorKind::UnexpectedEof.into()))
            };
        }
        intact &= buffer[..length] == *slice(pattern, position, length as u64);
        position += length as u64;
    }
}

fn time_left(watch: Stopwatch, limit: Duration) -> io::Result<Duration> {
    let left = watch.left_of(limit);
    if left.is_zero() { Err(io::ErrorKind::TimedOut.into()) } else { Ok(left) }
}

fn at(position: u64, error: io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("after {position} bytes: {error}"))
}

fn serve_echo(server: &UdpSocket, over: &AtomicBool) -> io::Result<()> {
    server.set_read_timeout(Some(Duration::from_millis(20)))?;
    let mut buffer = vec![0; 65_535];
    while !over.load(Ordering::Relaxed) {
        // A timeout only means: look whether it is over.
        let Ok((length, from)) = server.recv_from(&mut buffer) else { continue };
        let _ = server.send_to(&buffer[..length], from); // one that cannot be sent is one that does not come back
    }
    Ok(())
}

fn ask_echo(client: &UdpSocket, server: SocketAddr, count: u32, size: usize) -> io::Result<Echo> {
    let patience = Duration::from_secs(1);
    let mut echo = Echo::default();
    let mut buffer = vec![0; 65_535];
    for number in 0..count {
        let datagram: Vec<u8> =
            (0..size).map(|i| (i as u32).wrapping_mul(31).wrapping_add(number) as u8).collect();
        echo.sent += 1;
        if client.send_to(&datagram, server).is_err() {
            continue;
        }
        let watch = Stopwatch::start();
        while !watch.left_of(patience).is_zero() {
            client.set_read_timeout(Some(watch.left_of(patience).max(Duration::from_millis(1))))?;
            // A late answer to an earlier datagram passes by.
            if client.recv(&mut buffer).is_ok_and(|length| buffer[..length] == datagram) {
                echo.echoed += 1;
                break;
            }
        }
    }
    Ok(echo)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pattern_continues_over_the_end_of_a_period() {
        let pattern = pattern();
        let around = slice(&pattern, PERIOD as u64 - 3, 6);
        assert_eq!(around[..3], pattern[PERIOD - 3..PERIOD]);
        assert_eq!(around[3..], pattern[..3]);
    }

    #[test]
    fn a_displaced_packet_is_seen() {
        let pattern = pattern();
        assert_ne!(slice(&pattern, 1420, 1420), slice(&pattern, 2840, 1420));
    }
}
