//! The inbound loop: UDP → forward → TUN.

use std::{io, os::fd::AsFd, sync::Arc};

use super::{
    Fatal, UdpSockets,
    pace::LogGate,
    shared::{BATCH, Shared, rest},
    udp::{Family, Received},
};
use crate::{
    forward::{Evidence, Inbound, Refusal, Time},
    sys::poll::{self, Interest},
};

/// Holds the largest UDP datagram there is (65,507 bytes over IPv4, 65,527 over IPv6).
const DATAGRAM: usize = 1 << 16;
const PAGE: usize = 4096;

/// Runs until it is stopped, or the device is gone.
pub(super) fn run(shared: &Shared) -> Result<(), Fatal> {
    let mut walk = Walk { shared, buffer: vec![0; DATAGRAM + PAGE], log: LogGate::default() };
    let mut sockets = shared.sockets.load_full();
    while !shared.stopping() {
        let waited_for = [
            sockets.descriptor(Family::V4),
            sockets.descriptor(Family::V6),
            Some(shared.wake_inbound.as_fd()),
        ]
        .map(|fd| fd.map(|fd| (fd, Interest::Read)));
        let Ok([v4, v6, wake]) = poll::wait(waited_for, None) else {
            rest(&shared.wake_inbound);
            continue;
        };
        // A socket error is fetched, and so cleared, by a receive like any datagram.
        walk.batch(&sockets, v4.readable || v4.failed, v6.readable || v6.failed)?;
        if wake.readable {
            shared.wake_inbound.clear();
            // What the old sockets had received was drained just now; this was their last holder here.
            sockets = other_sockets(shared, sockets);
        }
    }
    Ok(())
}

/// The sockets that are in use now.
fn other_sockets(shared: &Shared, old: Arc<UdpSockets>) -> Arc<UdpSockets> {
    drop(old);
    shared.sockets.load_full()
}

/// What the loop keeps from datagram to datagram.
struct Walk<'a> {
    shared: &'a Shared,
    buffer: Vec<u8>,
    log: LogGate,
}

impl Walk<'_> {
    /// Takes what waits in both sockets, in turns so that neither starves, at most [`BATCH`] from each: one look
    /// at the clock for all.
    fn batch(&mut self, sockets: &UdpSockets, v4: bool, v6: bool) -> Result<(), Fatal> {
        if !v4 && !v6 {
            return Ok(());
        }
        let now = self.shared.clock.boot();
        let mut open = [(Family::V4, v4), (Family::V6, v6)];
        for _ in 0..BATCH {
            for (family, more) in &mut open {
                if *more {
                    *more = self.next(sockets, *family, now)?;
                }
            }
            if !open[0].1 && !open[1].1 {
                break;
            }
        }
        Ok(())
    }

    /// One datagram's walk; false when there was none.
    fn next(&mut self, sockets: &UdpSockets, family: Family, now: Time) -> Result<bool, Fatal> {
        let space = aligned(&mut self.buffer);
        match sockets.receive(family, space) {
            Ok(received) => {
                self.datagram(received, now)?;
                Ok(true)
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
            // The echo of something that was sent earlier.
            Err(error) if matches!(error.raw_os_error(), Some(libc::EINTR | libc::ECONNREFUSED)) => Ok(true),
            Err(error) => {
                if let Some(held_back) = self.log.pass(now) {
                    tracing::warn!(%family, %error, held_back, "receiving failed");
                }
                rest(&self.shared.wake_inbound);
                Ok(false)
            }
        }
    }

    fn datagram(&mut self, received: Received, now: Time) -> Result<(), Fatal> {
        let Received { len, truncated, from, ecn } = received;
        let forward = &self.shared.forward;
        tracing::trace!(from = %from.remote, len, "received");
        if truncated {
            let evidence = Evidence { at: now, from: Some(from.remote), ..Evidence::default() };
            forward.refusals.count(Refusal::Oversized, evidence);
            return Ok(());
        }
        match forward.inbound(&from, ecn, &mut aligned(&mut self.buffer)[..len], now) {
            Inbound::Deliver(packet) => self.shared.deliver(packet, &mut self.log, now),
            Inbound::Keepalive | Inbound::Handshake | Inbound::Refused => Ok(()),
        }
    }
}

/// The part of the buffer that begins with a page: kernel copies to and from badly placed memory are many times
/// slower on some processors.
fn aligned(buffer: &mut [u8]) -> &mut [u8] {
    // A Vec of this size moves only when it grows, so that each call finds the same place.
    let start = buffer.as_ptr().align_offset(PAGE).min(PAGE);
    &mut buffer[start..start + DATAGRAM]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_receive_buffer_begins_with_a_page_and_holds_the_largest_datagram() {
        let mut buffer = vec![0; DATAGRAM + PAGE];
        let part = aligned(&mut buffer);
        assert_eq!(part.as_ptr() as usize % PAGE, 0);
        assert!(part.len() > 65_527);
    }
}
