//! The outbound loop: TUN → forward → UDP.

use std::{io, os::fd::AsFd, sync::MutexGuard};

use super::{
    Fatal, PlaneSettings,
    lane::Input,
    pulse::Pulse,
    rest::{Vain, insist, rest},
    shared::{BATCH, BATCH_BYTES, Shared, is_gone},
};
use crate::{
    forward::{Carriers, Departure, Intake, Outbound, Refusal, Time, tap::Departing},
    sys::poll::{self, Interest, Ready},
    wire::{
        icmp::{self, Unreachable},
        vnet::VNET_HEADER_LEN,
    },
};

/// Runs until it is stopped, or the device is gone. Several may run, each in its own thread.
pub(super) fn run(shared: &Shared, pulse: &Pulse) -> Result<(), Fatal> {
    let (mut walk, mut waits) = (Walk::new(shared), Vain::default());
    while !shared.stopping() {
        let mut input = pulse.rests(|| shared.outbound.input());
        if input.any() {
            walk.round(input, BATCH)?;
            continue;
        }
        let waited_for =
            [shared.tun.as_fd(), shared.outbound.wake.as_fd()].map(|fd| Some((fd, Interest::Read)));
        let Ok([tun, wake]) = pulse.rests(|| poll::wait(waited_for, None)) else {
            rest(&shared.outbound.wake);
            continue;
        };
        waits.waited(tun != Ready::default(), [(wake, &shared.outbound.wake)]);
        if is_ready(shared, tun)? {
            input.more[0] = true;
            walk.round(input, 1)?;
        }
    }
    // The next one that waits for input is to see it, too.
    insist(&shared.outbound.wake);
    Ok(())
}

/// Is there something to read? A device that was deleted is POLLERR for ever; one that is down is only silent.
pub(super) fn is_ready(shared: &Shared, tun: Ready) -> Result<bool, Fatal> {
    if tun.failed {
        return Err(shared.tun_gone(&"deleted, or its namespace was (POLLERR)"));
    }
    Ok(tun.readable)
}

/// What a worker keeps from batch to batch.
pub(super) struct Walk<'a> {
    shared: &'a Shared,
    intake: Intake,
    departures: Vec<Departure>,
    carriers: Carriers,
    vain: Vain,
}

impl<'a> Walk<'a> {
    pub(super) fn new(shared: &'a Shared) -> Self {
        Self {
            shared,
            intake: Intake::new(),
            departures: Vec::with_capacity(BATCH),
            carriers: Carriers::new(),
            vain: Vain::default(),
        }
    }

    /// Up to so many batches, until the device is drained: for a thread that has other things to do, too. False when
    /// there may be more.
    pub(super) fn rounds(&mut self, rounds: usize) -> Result<bool, Fatal> {
        for n in 0..rounds {
            self.round(self.shared.outbound.input(), if n == 0 { 1 } else { BATCH })?;
            if !self.shared.outbound.input().any() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Takes one batch of at most `limit` packets, and sends what becomes of it: one look at the clock and at the
    /// settings for all. The first packet after a silence goes alone and at once; what has piled up meanwhile, together.
    fn round(&mut self, mut input: MutexGuard<'_, Input>, limit: usize) -> Result<(), Fatal> {
        let now = self.shared.clock.boot();
        self.fill(&mut input, limit, now)?;
        if self.departures.is_empty() {
            return Ok(());
        }
        let forward = &self.shared.forward;
        let mut watched =
            forward.tap.look().map(|look| look.departing(forward, &self.departures, &self.intake));
        let (mut ticket, _input) = self.shared.outbound.taken(input);
        for at in 0..self.departures.len() {
            while !self.shared.forward.seal(&mut self.departures[at], &self.intake, &mut self.carriers) {
                ticket.wait();
                self.ship(watched.as_mut(), now);
            }
        }
        ticket.wait();
        self.ship(watched.as_mut(), now);
        self.departures.clear();
        Ok(())
    }

    /// Reads what waits in the device, until it is drained or the batch is large enough.
    fn fill(&mut self, input: &mut Input, limit: usize, now: Time) -> Result<(), Fatal> {
        self.intake.clear();
        let settings = self.shared.settings.load();
        let mut bytes = 0;
        while self.departures.len() < limit && bytes < BATCH_BYTES {
            let Some(space) = self.intake.space() else { break };
            match self.shared.tun.read(space) {
                // Nothing that a TUN gives is shorter.
                Ok(len) if len >= VNET_HEADER_LEN => {
                    self.vain.none();
                    bytes += len;
                    self.packet(len, &settings, now)?;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    input.more[0] = false;
                    // It was said to be ready, and is not.
                    if limit == 1 && bytes == 0 && self.vain.one_more() {
                        rest(&self.shared.outbound.wake);
                    }
                    break;
                }
                Err(error) if is_gone(&error) => return Err(self.shared.tun_gone(&error)),
                failed => {
                    let error = failed.err().unwrap_or_else(|| io::ErrorKind::UnexpectedEof.into());
                    if error.kind() != io::ErrorKind::Interrupted
                        && let Some(held_back) = self.shared.outbound.log.pass(now)
                    {
                        tracing::warn!(device = self.shared.tun.name(), %error, held_back, "reading the TUN");
                    }
                    if self.vain.one_more() {
                        input.more[0] = false;
                        rest(&self.shared.outbound.wake);
                        break;
                    }
                }
            }
            if self.shared.stopping() {
                break;
            }
        }
        Ok(())
    }

    /// One packet, or super-packet, finds its peer.
    fn packet(&mut self, len: usize, settings: &PlaneSettings, now: Time) -> Result<(), Fatal> {
        let bound = |len| settings.padding_bound(len);
        match self.shared.forward.outbound(&mut self.intake, len, bound, now) {
            Outbound::Depart(departure) => {
                self.departures.push(departure);
                Ok(())
            }
            Outbound::Unreachable(why) => {
                let refusal = match why {
                    Unreachable::NoPeer => Refusal::NoPeer,
                    Unreachable::NoEndpoint => Refusal::NoEndpoint,
                };
                self.turned_back(len, Some(refusal), now);
                self.answer(len, why, now)
            }
            Outbound::Staged => {
                self.turned_back(len, None, now);
                Ok(())
            }
            Outbound::Refused(why) => {
                self.turned_back(len, Some(why), now);
                Ok(())
            }
        }
    }

    /// The packet that was read last goes no further, or not yet: does anybody look?
    fn turned_back(&self, len: usize, why: Option<Refusal>, now: Time) {
        let forward = &self.shared.forward;
        if let Some(look) = forward.tap.look()
            && let Some(packet) = self.intake.frame(len).get(VNET_HEADER_LEN..)
        {
            look.turned_back(forward, packet, why, now);
        }
    }

    /// Sends what is sealed.
    fn ship(&mut self, mut watched: Option<&mut Departing>, now: Time) {
        if self.carriers.is_empty() {
            return;
        }
        let sockets = self.shared.sockets.load();
        for cargo in self.carriers.cargo() {
            let sent = self.shared.ship(&sockets, &cargo, &self.shared.outbound.log, now);
            if let Some(watched) = &mut watched {
                let error = sent.err().map(|error| error.to_string());
                watched.shipped(&cargo, error, self.shared.clock.boot());
            }
        }
        self.carriers.clear();
    }

    /// Tells the sender of the packet that was read last that it goes nowhere; not more often than the bucket allows.
    fn answer(&mut self, len: usize, why: Unreachable, now: Time) -> Result<(), Fatal> {
        let Some(packet) = self.intake.frame(len).get(VNET_HEADER_LEN..) else { return Ok(()) };
        // Asked second, so that what gets no answer anyway takes no token.
        let Some(error) = icmp::unreachable(packet, why) else { return Ok(()) };
        if !self.shared.may_answer(now) || self.shared.errors.tell_as_router(packet, why) {
            return Ok(());
        }
        let frame = [&[0; VNET_HEADER_LEN], &error[..]].concat();
        self.shared.deliver(&frame, &self.shared.outbound.log, now).map(drop)
    }
}
