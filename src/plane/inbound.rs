//! The inbound loop: UDP → forward → TUN.

use std::{io, os::fd::AsFd, sync::MutexGuard, time::Duration};

use super::{
    Fatal, UdpSockets,
    lane::Input,
    pulse::Pulse,
    rest::{Vain, insist, rest},
    shared::{BATCH, BATCH_BYTES, ROUNDS, Shared},
    udp::{Family, Received},
};
use crate::{
    forward::{Aligned, Arrival, Deliveries, Merge, Time, tap::Arriving},
    sys::{
        poll::{self, Interest, Ready},
        socket::{AT_ONCE, Several},
    },
};

/// Holds the largest UDP datagram there is (65,507 bytes over IPv4, 65,527 over IPv6), or the largest batch of them
/// that the kernel puts together.
const DATAGRAM: usize = 1 << 16;
/// Small ones before it.
const SINGLY: usize = BATCH_BYTES + 2 * DATAGRAM;
/// Datagrams begin at multiples of this.
const LINE: usize = 64;
/// What is no larger is moved to the others before it, when several came by one call: each of them had a room for the
/// largest.
const SMALL: usize = 2048;
/// Such a room; the lines that it has more keep the rooms apart in a processor's cache.
const ROOM: usize = DATAGRAM + 23 * LINE;
/// Where these rooms begin: behind what one more call makes of a batch that is nearly large enough.
const ROOMS_BEGIN: usize = BATCH_BYTES + AT_ONCE * SMALL;
const CAPACITY: usize = ROOMS_BEGIN + AT_ONCE * ROOM;

/// Runs until it is stopped, or the device is gone. Several may run, each in its own thread.
pub(super) fn run(shared: &Shared, pulse: &Pulse) -> Result<(), Fatal> {
    let mut walk = Walk::new(shared);
    while !shared.stopping() {
        walk.turn(None, pulse)?;
    }
    // The next one that waits for input is to see it, too.
    insist(&shared.inbound.wake);
    Ok(())
}

/// Both sockets, to wait for.
pub(super) fn waited_for(sockets: &UdpSockets) -> [Option<(std::os::fd::BorrowedFd<'_>, Interest)>; 2] {
    [Family::V4, Family::V6].map(|family| sockets.descriptor(family).map(|fd| (fd, Interest::Read)))
}

/// What may be read now. A socket error is fetched, and so cleared, by a receive like any datagram.
pub(super) fn is_ready(input: &mut Input, sockets: [Ready; 2]) {
    input.more = sockets.map(|socket| socket.readable || socket.failed);
    input.rounds = 0;
}

/// What a worker keeps from batch to batch.
pub(super) struct Walk<'a> {
    shared: &'a Shared,
    buffer: Aligned,
    arrivals: Vec<Arrival>,
    deliveries: Deliveries,
    several: Several,
    /// What came last was small, by family: the next are received by one call.
    together: [bool; 2],
    /// Receives.
    vain: Vain,
    /// Waits.
    waits: Vain,
}

impl<'a> Walk<'a> {
    pub(super) fn new(shared: &'a Shared) -> Self {
        Self {
            shared,
            buffer: Aligned::new(CAPACITY),
            arrivals: Vec::with_capacity(BATCH),
            deliveries: Deliveries::new(),
            several: Several::new(),
            together: [false; 2],
            vain: Vain::default(),
            waits: Vain::default(),
        }
    }

    /// Takes one batch, for which it waits as long as `patience`, with the input held; false when there was none in
    /// this time.
    pub(super) fn turn(&mut self, patience: Option<Duration>, pulse: &Pulse) -> Result<bool, Fatal> {
        let (shared, mut limit) = (self.shared, BATCH);
        let mut input = pulse.rests(|| shared.inbound.input());
        let sockets = input.sockets(&shared.sockets);
        if !input.any() || input.rounds >= ROUNDS {
            let patience = if input.any() { Some(Duration::ZERO) } else { patience };
            limit = if input.any() { BATCH } else { 1 };
            let [v4, v6] = waited_for(&sockets);
            let wake = Some((shared.inbound.wake.as_fd(), Interest::Read));
            let Ok([v4, v6, wake]) = pulse.rests(|| poll::wait([v4, v6, wake], patience)) else {
                rest(&shared.inbound.wake);
                return Ok(true);
            };
            let found = patience.is_some() && !wake.readable || [v4, v6] != [Ready::default(); 2];
            self.waits.waited(found, [(wake, &shared.inbound.wake)]);
            is_ready(&mut input, [v4, v6]);
            if !input.any() {
                return Ok(wake.readable);
            }
        }
        self.round(input, &sockets, limit)?;
        Ok(true)
    }

    /// Up to so many batches, until the sockets are drained: for a thread that has other things to do, too. False when
    /// there may be more.
    pub(super) fn rounds(&mut self, rounds: usize) -> Result<bool, Fatal> {
        for n in 0..rounds {
            let mut input = self.shared.inbound.input();
            let sockets = input.sockets(&self.shared.sockets);
            if !input.any() {
                return Ok(true);
            }
            self.round(input, &sockets, if n == 0 { 1 } else { BATCH })?;
        }
        Ok(!self.shared.inbound.input().any())
    }

    /// Takes one batch of at most `limit` receives, and delivers what is in it: one look at the clock for all. The
    /// first after a silence goes alone and at once; what has piled up meanwhile, together.
    fn round(
        &mut self,
        mut input: MutexGuard<'_, Input>,
        sockets: &UdpSockets,
        limit: usize,
    ) -> Result<(), Fatal> {
        let now = self.shared.clock.boot();
        input.rounds += 1;
        self.fill(&mut input, sockets, limit, now);
        if self.arrivals.is_empty() {
            // It was said to be ready, and is not.
            if limit == 1 && self.vain.one_more() {
                rest(&self.shared.inbound.wake);
            }
            return Ok(());
        }
        let (mut ticket, _input) = self.shared.inbound.taken(input);
        self.deliveries.begin(self.merge(now));
        let forward = &self.shared.forward;
        let mut watched = forward.tap.look().map(|look| look.arriving(forward));
        for arrival in &self.arrivals {
            match &mut watched {
                None => forward.inbound(arrival, &mut self.buffer, &mut self.deliveries, now),
                Some(watched) => {
                    forward.inbound_observed(arrival, &mut self.buffer, &mut self.deliveries, watched, now);
                }
            }
        }
        self.arrivals.clear();
        ticket.wait();
        self.deliver(watched, now)
    }

    /// What the device takes now.
    fn merge(&self, now: Time) -> Merge {
        if self.shared.merging.is_over(now) { self.shared.tun.merge() } else { Merge::default() }
    }

    fn deliver(&mut self, watched: Option<Arriving<'_>>, now: Time) -> Result<(), Fatal> {
        let deliveries = self.deliveries.finish(&mut self.buffer);
        let mut taken = Vec::new();
        for delivery in deliveries {
            let frame = &self.buffer[delivery.start..delivery.end];
            let is_taken = if delivery.packets > 1 {
                self.shared.deliver_merged(frame, &self.shared.inbound.log, now)?
            } else {
                self.shared.deliver(frame, &self.shared.inbound.log, now)?
            };
            if watched.is_some() {
                taken.push(is_taken);
            }
        }
        if let Some(mut watched) = watched {
            watched.delivered(deliveries, &taken, self.shared.clock.boot());
        }
        Ok(())
    }

    /// Receives what waits in both sockets, in turns so that neither starves, until they are drained or the batch is
    /// large enough.
    fn fill(&mut self, input: &mut Input, sockets: &UdpSockets, limit: usize, now: Time) {
        let mut used = 0;
        while used < BATCH_BYTES && self.arrivals.len() < limit && input.any() {
            for (at, family) in [Family::V4, Family::V6].into_iter().enumerate() {
                let room = (limit - self.arrivals.len()).min(AT_ONCE);
                // The one before may have taken the last place.
                if input.more[at] && room > 0 && used < SINGLY - DATAGRAM {
                    input.more[at] = if self.together[at] && room > 1 && used < BATCH_BYTES {
                        self.several(sockets, family, room, &mut used, now)
                    } else {
                        self.next(sockets, family, &mut used, now)
                    };
                }
            }
        }
    }

    /// One receive; false when there is nothing more.
    fn next(&mut self, sockets: &UdpSockets, family: Family, used: &mut usize, now: Time) -> bool {
        let received = sockets.receive(family, &mut self.buffer[*used..*used + DATAGRAM]);
        let received = received.map(|received| {
            self.together[family as usize] = received.len <= SMALL;
            self.arrived(received, *used, used, now);
        });
        self.go_on(received.map(|()| true), family, now)
    }

    /// The same by one call for as many: small ones, most likely, but each may be of any size. What is small is moved to
    /// where a single one would have been received; from the first large one on all stay where they are, so that whatever
    /// came later lies behind it, as merging asks for.
    fn several(
        &mut self,
        sockets: &UdpSockets,
        family: Family,
        room: usize,
        used: &mut usize,
        now: Time,
    ) -> bool {
        let rooms = self.buffer[ROOMS_BEGIN..].chunks_exact_mut(ROOM).take(room);
        let rooms = rooms.map(|room| &mut room[..DATAGRAM]);
        let mut came = [None; AT_ONCE];
        let count = sockets.receive_several(family, rooms, &mut self.several, |at, received| {
            came[at] = Some(received);
        });
        let (mut small, mut large) = (0, 0);
        for (at, received) in came.into_iter().enumerate() {
            let Some(received) = received else { continue };
            let mut start = ROOMS_BEGIN + at * ROOM;
            if received.len > SMALL {
                large += 1;
            } else {
                small += 1;
            }
            if large == 0 {
                self.buffer.copy_within(start..start + received.len, *used);
                start = *used;
            }
            self.arrived(received, start, used, now);
        }
        self.together[family as usize] = small >= large;
        self.go_on(count.map(|count| count == room), family, now)
    }

    /// One that was received to where `start` is.
    fn arrived(&mut self, received: Received, start: usize, used: &mut usize, now: Time) {
        let Received { len, truncated, from, ecn, stride } = received;
        tracing::trace!(from = %from.remote, len, stride, "received");
        if truncated {
            self.shared.forward.oversized(from.remote, now);
            return;
        }
        let place = start..start + len;
        *used = place.end.next_multiple_of(LINE);
        self.arrivals.push(Arrival { from, ecn, place, stride });
    }

    /// Is there more, after a receive that said so, or failed?
    fn go_on(&mut self, received: io::Result<bool>, family: Family, now: Time) -> bool {
        match received {
            Ok(more) => {
                self.vain.none();
                more
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => false,
            Err(error) => {
                // The echo of something that was sent earlier.
                let is_echo = matches!(error.raw_os_error(), Some(libc::EINTR | libc::ECONNREFUSED));
                if !is_echo && let Some(held_back) = self.shared.inbound.log.pass(now) {
                    tracing::warn!(%family, %error, held_back, "receiving failed");
                }
                if self.vain.one_more() {
                    rest(&self.shared.inbound.wake);
                    return false;
                }
                true
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_came_before_there_is_room_for_the_largest_datagram() {
        // The last receive before the batch is large enough may itself be the largest.
        let most = (BATCH_BYTES - 1 + DATAGRAM).next_multiple_of(LINE);
        assert!(most.min(SINGLY - DATAGRAM) + DATAGRAM <= CAPACITY && DATAGRAM > 65_527);
        // And several small ones, before the rooms that they were received in.
        assert!(BATCH_BYTES - 1 + AT_ONCE * SMALL < ROOMS_BEGIN && SMALL.is_multiple_of(LINE));
    }
}
