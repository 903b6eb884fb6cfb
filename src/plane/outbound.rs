//! The outbound loop: TUN → forward → UDP.

use std::{io, os::fd::AsFd};

use super::{
    Fatal, PlaneSettings, UdpSockets, errors,
    pace::{Bucket, LogGate},
    shared::{BATCH, Outgoing, Shared, is_gone, rest},
    udp::Sent,
};
use crate::{
    forward::{Evidence, Outbound, PacketBuffer, Time},
    sys::poll::{self, Interest},
    wire::icmp::{self, Unreachable},
};

/// Runs until it is stopped, or the device is gone.
pub(super) fn run(shared: &Shared) -> Result<(), Fatal> {
    let mut walk = Walk {
        shared,
        buffer: PacketBuffer::new(),
        errors: Bucket::new(shared.clock.boot()),
        log: LogGate::default(),
    };
    while !shared.stopping() {
        let waited_for =
            [shared.tun.as_fd(), shared.wake_outbound.as_fd()].map(|fd| Some((fd, Interest::Read)));
        let Ok([tun, wake]) = poll::wait(waited_for, None) else {
            rest(&shared.wake_outbound);
            continue;
        };
        if wake.readable {
            shared.wake_outbound.clear();
        }
        // A device that was deleted is POLLERR for ever; one that is down is only silent.
        if tun.failed {
            return Err(shared.tun_gone(&"deleted, or its namespace was (POLLERR)"));
        }
        if tun.readable {
            walk.batch()?;
        }
    }
    Ok(())
}

/// What the loop keeps from packet to packet.
struct Walk<'a> {
    shared: &'a Shared,
    buffer: PacketBuffer,
    errors: Bucket,
    log: LogGate,
}

impl Walk<'_> {
    /// Takes what waits in the device, at most [`BATCH`] packets: one look at the clock, at the sockets and at
    /// the settings for all of them.
    fn batch(&mut self) -> Result<(), Fatal> {
        let now = self.shared.clock.boot();
        let (sockets, settings) = (self.shared.sockets.load(), self.shared.settings.load());
        for _ in 0..BATCH {
            match self.shared.tun.read(self.buffer.space()) {
                Ok(len) => self.packet(len, &sockets, &settings, now)?,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) if is_gone(&error) => return Err(self.shared.tun_gone(&error)),
                Err(error) => {
                    if let Some(held_back) = self.log.pass(now) {
                        tracing::warn!(device = self.shared.tun.name(), %error, held_back, "reading the TUN");
                    }
                    rest(&self.shared.wake_outbound);
                    break;
                }
            }
            // A send may wait for room: a stop need not wait for a whole batch of those.
            if self.shared.stopping() {
                break;
            }
        }
        Ok(())
    }

    /// One packet's walk.
    fn packet(
        &mut self,
        len: usize,
        sockets: &UdpSockets,
        settings: &PlaneSettings,
        now: Time,
    ) -> Result<(), Fatal> {
        match self.shared.forward.outbound(&mut self.buffer, len, settings.padding_bound(len), now) {
            Outbound::Send { peer, to, datagram, outer } => {
                let outgoing = Outgoing { to: &to, outer, datagram };
                match self.shared.send(sockets, &outgoing, || Evidence::about(&peer), now) {
                    Ok(Sent::AsAsked) => {
                        tracing::trace!(peer = %peer.label.load(), to = %to.remote, len = datagram.len(), "sent");
                    }
                    Ok(Sent::LocalGone) => {
                        tracing::debug!(peer = %peer.label.load(), local = ?to.local, "source address gone");
                        peer.forget_local();
                    }
                    Err(error) => {
                        if let Some(held_back) = self.log.pass(now) {
                            tracing::warn!(
                                peer = %peer.label.load(), to = %to.remote, %error, len = datagram.len(),
                                held_back, "a datagram could not be sent"
                            );
                        }
                    }
                }
                Ok(())
            }
            Outbound::Unreachable(why) => self.answer(len, why, now),
            Outbound::Staged | Outbound::Refused => Ok(()),
        }
    }

    /// Tells the sender of the packet in the buffer that it goes nowhere; not more often than the bucket allows.
    fn answer(&mut self, len: usize, why: Unreachable, now: Time) -> Result<(), Fatal> {
        let packet = &self.buffer.space()[..len];
        // Asked second, so that what gets no answer anyway takes no token.
        let Some(error) = icmp::unreachable(packet, why) else { return Ok(()) };
        if !self.errors.take(now) || errors::tell_as_router(packet, why) {
            return Ok(());
        }
        self.shared.deliver(&error, &mut self.log, now)
    }
}
