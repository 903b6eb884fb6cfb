//! Offloads: many packets by one system call. Whether they may be used is tested at the start; what the kernel
//! refuses later is done packet by packet, and tried again after a while ([`crate::forward::Pause`]).

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    os::fd::AsFd,
    time::Duration,
};

use socket2::{Domain, Protocol, Socket, Type};

use crate::sys::{
    poll::{self, Interest},
    socket::{self, Beside},
};

/// `offload` in the file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Offload {
    /// Whatever this kernel is good for.
    #[default]
    Auto,
    /// One packet a system call.
    Off,
}

impl Offload {
    /// `Off` where the self-test says that this kernel's offloads are not sound, with a line in the log.
    pub fn tested(self) -> Self {
        if self == Self::Off {
            tracing::info!("offloads are off: one packet a system call");
            return self;
        }
        match self_test() {
            Ok(()) => Self::Auto,
            Err(Unsound::Different) => {
                tracing::warn!(
                    "self-test: datagrams that this kernel cuts do not arrive as they were sent; offloads stay off"
                );
                Self::Off
            }
            // Where loopback is down nothing can be tested; a fault would still be seen while running.
            Err(Unsound::Untested(error)) => {
                tracing::info!(%error, "self-test of the offloads: not possible here; they are used as they come");
                Self::Auto
            }
        }
    }
}

/// What a self-test found.
#[derive(Debug)]
enum Unsound {
    /// What arrived was not what was sent.
    Different,
    /// It could not be done.
    Untested(io::Error),
}

impl From<io::Error> for Unsound {
    fn from(error: io::Error) -> Self {
        Self::Untested(error)
    }
}

/// Bytes of each datagram of the self-test but the last.
const SEGMENT: usize = 1000;
/// How long a datagram takes over loopback at most.
const PATIENCE: Duration = Duration::from_millis(500);

/// Sends three datagrams in one call over loopback, and looks at what arrives: received one by one, and together.
fn self_test() -> Result<(), Unsound> {
    let pattern: Vec<u8> = (0..2 * SEGMENT + 333).map(|n| (n % 251) as u8).collect();
    for together in [false, true] {
        let [sender, receiver] = [loopback()?, loopback()?];
        if !socket::can_segment(sender.as_fd()) || together && socket::enable_gro(receiver.as_fd()).is_err() {
            // Said where the sockets are opened.
            return Ok(());
        }
        let to = receiver
            .local_addr()?
            .as_socket()
            .ok_or_else(|| io::Error::from(io::ErrorKind::AddrNotAvailable))?;
        let beside = Beside { segment: Some(SEGMENT as u16), ..Beside::default() };
        socket::send(sender.as_fd(), &to, beside, &pattern)?;
        if !arrives(&receiver, &pattern)? {
            return Err(Unsound::Different);
        }
    }
    Ok(())
}

fn loopback() -> io::Result<Socket> {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP))?;
    socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into())?;
    Ok(socket)
}

/// Does exactly this arrive, cut where it should be?
fn arrives(receiver: &Socket, expected: &[u8]) -> io::Result<bool> {
    let mut buffer = vec![0; 1 << 16];
    let mut rest = expected;
    while !rest.is_empty() {
        if !poll::wait([Some((receiver.as_fd(), Interest::Read))], Some(PATIENCE))?[0].readable {
            return Ok(false);
        }
        let got = socket::receive(receiver.as_fd(), &mut buffer)?;
        let wanted = if got.segment.is_some() { rest.len() } else { rest.len().min(SEGMENT) };
        let cut_right = got.segment.is_none_or(|segment| segment == SEGMENT);
        if !cut_right || got.len != wanted || buffer[..got.len] != rest[..wanted] {
            return Ok(false);
        }
        rest = &rest[wanted..];
    }
    Ok(true)
}

/// Does this kernel spoil a send whose datagrams are all equally long? Linux 7.0 to 7.1.4 do on some network cards
/// (commit b10b446, mended by 78effd8 and 5f17ae0): there the last datagram leaves by a call of its own.
pub(super) fn spoils_equal_tails() -> bool {
    std::fs::read_to_string("/proc/sys/kernel/osrelease")
        .is_ok_and(|release| release_spoils_equal_tails(release.trim()))
}

fn release_spoils_equal_tails(release: &str) -> bool {
    let mut numbers =
        release.split(|c: char| !c.is_ascii_digit()).map_while(|number| number.parse::<u32>().ok());
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    ((7, 0, 0)..=(7, 1, 4)).contains(&version)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_kernel_passes_or_says_why_it_cannot_be_tested() {
        match self_test() {
            Ok(()) => {}
            Err(Unsound::Untested(error)) => println!("not tested here: {error}"),
            Err(Unsound::Different) => panic!("this kernel spoils datagrams"),
        }
    }

    #[test]
    fn datagrams_that_differ_in_bytes_or_cut_are_seen() {
        let sent: Vec<u8> = (0..SEGMENT + 10).map(|n| n as u8).collect();
        let arrives_as = |datagrams: &[&[u8]], together: bool| {
            let [sender, receiver] = [loopback().unwrap(), loopback().unwrap()];
            let to = receiver.local_addr().unwrap();
            if together {
                socket::enable_gro(receiver.as_fd()).unwrap();
            }
            for datagram in datagrams {
                sender.send_to(datagram, &to).unwrap();
            }
            arrives(&receiver, &sent).unwrap()
        };
        assert!(arrives_as(&[&sent[..SEGMENT], &sent[SEGMENT..]], true));
        assert!(!arrives_as(&[&sent[..SEGMENT - 1], &sent[SEGMENT - 1..]], false), "cut elsewhere");
        assert!(!arrives_as(&[&sent[..SEGMENT]], false), "the end is missing");
        let mut other = sent.clone();
        other[SEGMENT + 5] ^= 1;
        assert!(!arrives_as(&[&other[..SEGMENT], &other[SEGMENT..]], false), "a bit has changed");
    }

    #[test]
    fn the_kernels_with_the_fault_are_known_by_their_release() {
        for release in ["7.0.0-rc1", "7.0.2-6-pve", "7.1.4", "7.1", "7.0"] {
            assert!(release_spoils_equal_tails(release), "{release}");
        }
        for release in ["6.18.5", "7.1.5", "7.2.0-rc1", "6.17.0-41-generic", "8.0", "", "strange"] {
            assert!(!release_spoils_equal_tails(release), "{release}");
        }
    }
}
