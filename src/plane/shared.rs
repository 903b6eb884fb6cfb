//! What both loops and the daemon's handle share, and what both loops do alike.

use std::{
    io,
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwap;

use super::{
    Clock, Fatal, PlaneSettings, TunDevice, UdpSockets,
    errors::Errors,
    lane::Lane,
    offload,
    pace::{Bucket, LogGate},
    relief::Relief,
    rest::{insist, persevere},
    udp::{Payload, Sent},
};
use crate::{
    forward::{Cargo, Endpoint, Evidence, Forward, Pause, Refusal, Time, segment::Segmentation},
    sys::event::{Bell, EventFd},
    wire::{
        ip,
        outer::Outer,
        vnet::{VNET_HEADER_LEN, VnetHeader},
    },
};

/// Packets that are taken together at most: one look at the clock for all of them.
pub(super) const BATCH: usize = 64;
/// Bytes after which a batch is not made larger: what then comes is better handed over soon.
pub(super) const BATCH_BYTES: usize = 1 << 15;
/// Batches that a loop takes before it looks at all its descriptors again.
pub(super) const ROUNDS: usize = 64;
/// How long a send waits for room in the socket's buffer before the packet is dropped.
const PATIENCE: Duration = Duration::from_millis(10);

/// Shared by the loops and the handle.
pub(super) struct Shared {
    pub(super) forward: Arc<Forward>,
    pub(super) tun: TunDevice,
    pub(super) sockets: ArcSwap<UdpSockets>,
    pub(super) settings: ArcSwap<PlaneSettings>,
    pub(super) clock: Clock,
    /// From the TUN to UDP.
    pub(super) outbound: Lane,
    /// From UDP to the TUN.
    pub(super) inbound: Lane,
    /// Who reads the sockets where one thread does both directions.
    pub(super) relief: Relief,
    /// Wakes who asks for cookies: somebody waits for one, or it is over.
    pub(super) asking: Arc<EventFd>,
    /// Whether super-packets may be written to the TUN.
    pub(super) merging: Pause,
    spoils_equal_tails: bool,
    /// What ICMP errors leave by.
    pub(super) errors: Errors,
    /// How many may be sent.
    errors_left: Mutex<Bucket>,
    stopping: AtomicBool,
    failed: OnceLock<Fatal>,
    /// Rings when that was said.
    fallen: Bell,
}

impl Shared {
    pub(super) fn new(
        forward: Arc<Forward>,
        tun: TunDevice,
        sockets: UdpSockets,
        settings: PlaneSettings,
        errors: Errors,
        threads: usize,
    ) -> io::Result<Self> {
        // One alone serves both directions.
        let workers = threads.div_ceil(2);
        Ok(Self {
            forward,
            tun,
            sockets: ArcSwap::from_pointee(sockets),
            settings: ArcSwap::from_pointee(settings),
            clock: Clock,
            outbound: Lane::new(workers)?,
            inbound: Lane::new(workers)?,
            relief: Relief::new(threads > 1)?,
            asking: Arc::new(EventFd::new()?),
            merging: Pause::default(),
            spoils_equal_tails: offload::spoils_equal_tails(),
            errors,
            errors_left: Mutex::new(Bucket::new(Clock.boot())),
            stopping: AtomicBool::new(false),
            failed: OnceLock::new(),
            fallen: Bell::new()?,
        })
    }

    /// Threads that carry data in each direction.
    pub(super) fn workers(&self) -> usize {
        self.outbound.workers
    }

    /// May a sender be told by ICMP that its packet goes nowhere?
    pub(super) fn may_answer(&self, now: Time) -> bool {
        // Two numbers, whole between any two statements.
        self.errors_left.lock().unwrap_or_else(PoisonError::into_inner).take(now)
    }

    /// Ends both loops.
    pub(super) fn stop(&self) {
        self.stopping.store(true, Ordering::Release);
        [&self.outbound.wake, &self.inbound.wake, &self.relief.wake, &self.asking]
            .into_iter()
            .for_each(insist);
    }

    /// Are the loops to end?
    pub(super) fn stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }

    /// A loop cannot go on: says why (the first reason stands), and ends the other, too: half a tunnel is none.
    pub(super) fn fail(&self, why: Fatal) {
        self.failed.get_or_init(|| why);
        self.stop();
        // Nobody rings after us.
        persevere(|| self.fallen.ring());
    }

    /// Resolves when [`Self::fail`] was called.
    pub(super) async fn failed(&self) -> Fatal {
        loop {
            if let Some(why) = self.failed.get() {
                return why.clone();
            }
            self.fallen.rung().await;
        }
    }

    /// Sends one datagram of the upper half; counts a failure, with what is known of the peer.
    pub(super) fn send(
        &self,
        to: &Endpoint,
        outer: Outer,
        datagram: &[u8],
        about: impl FnOnce() -> Evidence,
        now: Time,
    ) -> io::Result<Sent> {
        let sent = self.sockets.load().send_patiently(to, outer, Payload::one(datagram), PATIENCE);
        if sent.is_err() {
            let evidence = Evidence { at: now, from: Some(to.remote), ..about() };
            self.forward.refusals.count(Refusal::SendFailed, evidence);
        }
        sent
    }

    /// Sends all datagrams of a cargo, by one call where that works. What fails is counted; the last failure comes back.
    pub(super) fn ship(
        &self,
        sockets: &UdpSockets,
        cargo: &Cargo<'_>,
        log: &LogGate,
        now: Time,
    ) -> io::Result<()> {
        let together = sockets.segments() && cargo.peer.segmentation.is_over(now);
        let refused = match together.then(|| self.ship_together(sockets, cargo, log, now)) {
            Some(Ok(sent)) => return sent,
            Some(Err(error)) => Some(error),
            None => None,
        };
        let (mut sent, mut last) = (0, Ok(()));
        for datagram in cargo.datagrams() {
            match self.ship_one(sockets, cargo, Payload::one(datagram), log, now) {
                Ok(_) => sent += 1,
                Err(error) => last = Err(error),
            }
        }
        // Where nothing at all gets through, cutting is not what is wrong.
        if let Some(error) = refused.filter(|_| sent > 0)
            && cargo.peer.segmentation.begin(now)
        {
            tracing::warn!(
                peer = %cargo.peer.label.load(), to = %cargo.to.remote, %error,
                "the kernel would not cut datagrams for this peer (UDP_SEGMENT): they are sent one by one, and it is \
                 asked again every 10 s"
            );
        }
        last
    }

    /// What was sent, or not, and is counted; or an error that may be one of segmentation, and with which nothing was.
    fn ship_together(
        &self,
        sockets: &UdpSockets,
        cargo: &Cargo<'_>,
        log: &LogGate,
        now: Time,
    ) -> io::Result<io::Result<()>> {
        let Cargo { bytes, stride, .. } = *cargo;
        if bytes.len() <= stride {
            return Ok(self.ship_one(sockets, cargo, Payload::one(bytes), log, now).map(drop));
        }
        // See `offload::spoils_equal_tails`.
        let equal = bytes.len().is_multiple_of(stride);
        let apart = if self.spoils_equal_tails && equal { stride } else { 0 };
        let (bytes, tail) = bytes.split_at(bytes.len() - apart);
        let sent = sockets.send_patiently(cargo.to, cargo.outer, Payload { bytes, stride }, PATIENCE);
        if sent.as_ref().is_err_and(may_be_segmentation) {
            return sent.map(|_| Ok(()));
        }
        if sent.is_ok() && cargo.peer.segmentation.end() {
            tracing::info!(peer = %cargo.peer.label.load(), "the kernel cuts datagrams for this peer again");
        }
        self.shipped(cargo, Payload { bytes, stride }, &sent, log, now);
        let mut outcome = sent.map(drop);
        if !tail.is_empty() {
            let tail = self.ship_one(sockets, cargo, Payload::one(tail), log, now);
            outcome = outcome.and(tail.map(drop));
        }
        Ok(outcome)
    }

    fn ship_one(
        &self,
        sockets: &UdpSockets,
        cargo: &Cargo<'_>,
        payload: Payload<'_>,
        log: &LogGate,
        now: Time,
    ) -> io::Result<Sent> {
        let sent = sockets.send_patiently(cargo.to, cargo.outer, payload, PATIENCE);
        self.shipped(cargo, payload, &sent, log, now);
        sent
    }

    /// What follows from how it went.
    fn shipped(
        &self,
        cargo: &Cargo<'_>,
        payload: Payload<'_>,
        sent: &io::Result<Sent>,
        log: &LogGate,
        now: Time,
    ) {
        let Cargo { peer, to, .. } = cargo;
        let (bytes, datagrams) = (payload.bytes.len(), payload.bytes.len().div_ceil(payload.stride));
        match sent {
            Ok(Sent::AsAsked) => {
                tracing::trace!(peer = %peer.label.load(), to = %to.remote, bytes, datagrams, "sent");
            }
            Ok(Sent::LocalGone) => {
                tracing::debug!(peer = %peer.label.load(), local = ?to.local, "source address gone");
                peer.forget_local();
            }
            Err(error) => {
                let evidence = Evidence { at: now, from: Some(to.remote), ..Evidence::about(peer) };
                self.forward.refusals.count(Refusal::SendFailed, evidence);
                self.forward.refusals.add(Refusal::SendFailed, datagrams as u64 - 1);
                if let Some(held_back) = log.pass(now) {
                    tracing::warn!(
                        peer = %peer.label.load(), to = %to.remote, %error, bytes, datagrams, held_back,
                        "datagrams could not be sent"
                    );
                }
            }
        }
    }

    /// Writes one packet, behind its vnet header, to the TUN: was it taken? A refused one is counted; an error means that
    /// the device is gone.
    pub(super) fn deliver(&self, frame: &[u8], log: &LogGate, now: Time) -> Result<bool, Fatal> {
        let Err(error) = self.tun.write(frame) else { return Ok(true) };
        self.not_delivered(frame, &error, log, now).map(|()| false)
    }

    /// The device would not take it.
    fn not_delivered(&self, frame: &[u8], error: &io::Error, log: &LogGate, now: Time) -> Result<(), Fatal> {
        if is_gone(error) {
            return Err(self.tun_gone(error));
        }
        self.forward.refusals.count(Refusal::TunWriteFailed, Evidence { at: now, ..Evidence::default() });
        if let Some(held_back) = log.pass(now) {
            tracing::warn!(device = self.tun.name(), %error, len = frame.len(), held_back, "the TUN took no packet");
        }
        Ok(())
    }

    /// Writes a super-packet to the TUN. One that is refused is written packet by packet, and no more are made for
    /// a while.
    pub(super) fn deliver_merged(&self, frame: &[u8], log: &LogGate, now: Time) -> Result<bool, Fatal> {
        let Err(error) = self.tun.write(frame) else {
            if self.merging.end() {
                tracing::info!(device = self.tun.name(), "the TUN takes super-packets again");
            }
            return Ok(true);
        };
        let Some(packets) = (!is_gone(&error)).then(|| cut(frame)).flatten() else {
            return self.not_delivered(frame, &error, log, now).map(|()| false);
        };
        let mut taken = 0;
        for packet in packets {
            match self.tun.write(&packet) {
                Ok(()) => taken += 1,
                Err(error) => self.not_delivered(&packet, &error, log, now)?,
            }
        }
        // Where it takes nothing at all, merging is not what is wrong.
        if taken > 0 && self.merging.begin(now) {
            tracing::warn!(
                device = self.tun.name(), %error,
                "the TUN took no super-packet: packets are written one by one, and it is asked again every 10 s"
            );
        }
        Ok(taken > 0)
    }

    /// The end of the device, with what the kernel said.
    pub(super) fn tun_gone(&self, found: &dyn std::fmt::Display) -> Fatal {
        Fatal::TunGone(format!("{}: {found}", self.tun.name()))
    }
}

/// Errors of a send that was to be cut, which a plain one may not have: those of udp(7), what drivers add, no memory
/// for so large a packet, and a firewall that looks at its length.
fn may_be_segmentation(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(
            libc::EIO
                | libc::EINVAL
                | libc::EMSGSIZE
                | libc::ENOBUFS
                | libc::EOPNOTSUPP
                | libc::ENOMEM
                | libc::EPERM
        )
    )
}

/// The packets that a super-packet was made of, each behind a vnet header of its own.
fn cut(frame: &[u8]) -> Option<impl Iterator<Item = Vec<u8>>> {
    let (vnet, packet) = frame.split_first_chunk::<VNET_HEADER_LEN>()?;
    let vnet = VnetHeader::parse(vnet).ok()?;
    let segmentation = Segmentation::new(&vnet, packet, &ip::parse(packet).ok()?).ok()?;
    Some((0..segmentation.count()).map(move |at| {
        let mut frame = vec![0; VNET_HEADER_LEN + segmentation.segment_len(at)];
        segmentation.write(packet, at, &mut frame[VNET_HEADER_LEN..]);
        frame
    }))
}

/// EBADFD: the device was deleted, or its namespace was; the descriptor has nothing behind it any more.
pub(super) fn is_gone(error: &io::Error) -> bool {
    error.raw_os_error() == Some(libc::EBADFD)
}
