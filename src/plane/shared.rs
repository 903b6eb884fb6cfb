//! What both loops and the daemon's handle share, and what both loops do alike.

use std::{
    io,
    os::fd::AsFd,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use tokio::sync::watch;

use super::{Clock, Fatal, PlaneSettings, TunDevice, UdpSockets, pace::LogGate, udp::Sent};
use crate::{
    forward::{Endpoint, Evidence, Forward, Refusal, Time},
    sys::{
        event::EventFd,
        poll::{self, Interest},
    },
    wire::outer::Outer,
};

/// Packets that a loop takes from one descriptor before it looks at the others and at the clock again.
pub(super) const BATCH: usize = 64;
/// How long a send waits for room in the socket's buffer before the packet is dropped.
const PATIENCE: Duration = Duration::from_millis(10);
/// How long a loop rests when its input fails without saying that it is gone: a fault must not spin.
const PAUSE: Duration = Duration::from_millis(50);

/// Shared by the loops and the handle.
pub(super) struct Shared {
    pub(super) forward: Arc<Forward>,
    pub(super) tun: TunDevice,
    pub(super) sockets: ArcSwap<UdpSockets>,
    pub(super) settings: ArcSwap<PlaneSettings>,
    pub(super) clock: Clock,
    /// Wakes the outbound loop: stop.
    pub(super) wake_outbound: EventFd,
    /// Wakes the inbound loop: stop, or other sockets.
    pub(super) wake_inbound: EventFd,
    stopping: AtomicBool,
    failed: watch::Sender<Option<Fatal>>,
}

/// One datagram, and where to.
pub(super) struct Outgoing<'a> {
    pub(super) to: &'a Endpoint,
    pub(super) outer: Outer,
    pub(super) datagram: &'a [u8],
}

impl Shared {
    pub(super) fn new(
        forward: Arc<Forward>,
        tun: TunDevice,
        sockets: UdpSockets,
        settings: PlaneSettings,
    ) -> io::Result<Self> {
        Ok(Self {
            forward,
            tun,
            sockets: ArcSwap::from_pointee(sockets),
            settings: ArcSwap::from_pointee(settings),
            clock: Clock,
            wake_outbound: EventFd::new()?,
            wake_inbound: EventFd::new()?,
            stopping: AtomicBool::new(false),
            failed: watch::Sender::new(None),
        })
    }

    /// Ends both loops.
    pub(super) fn stop(&self) {
        self.stopping.store(true, Ordering::Release);
        self.wake_outbound.signal();
        self.wake_inbound.signal();
    }

    /// Are the loops to end?
    pub(super) fn stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }

    /// A loop cannot go on: says why (the first reason stands), and ends the other, too: half a tunnel is none.
    pub(super) fn fail(&self, why: Fatal) {
        self.failed.send_if_modified(|failed| {
            let first = failed.is_none();
            failed.get_or_insert(why);
            first
        });
        self.stop();
    }

    /// Resolves when [`Self::fail`] was called.
    pub(super) async fn failed(&self) -> Fatal {
        let mut failed = self.failed.subscribe();
        let why = failed.wait_for(Option::is_some).await.expect("the sender lives in self");
        why.clone().expect("that is what was waited for")
    }

    /// Sends; counts a failure, with what is known of the peer.
    pub(super) fn send(
        &self,
        sockets: &UdpSockets,
        outgoing: &Outgoing<'_>,
        about: impl FnOnce() -> Evidence,
        now: Time,
    ) -> io::Result<Sent> {
        let Outgoing { to, outer, datagram } = *outgoing;
        let sent = sockets.send_patiently(to, outer, datagram, PATIENCE);
        if sent.is_err() {
            let evidence = Evidence { at: now, from: Some(to.remote), ..about() };
            self.forward.refusals.count(Refusal::SendFailed, evidence);
        }
        sent
    }

    /// Writes one packet to the TUN. A refused one is counted; an error means that the device is gone.
    pub(super) fn deliver(&self, packet: &[u8], log: &mut LogGate, now: Time) -> Result<(), Fatal> {
        let Err(error) = self.tun.write(packet) else { return Ok(()) };
        if is_gone(&error) {
            return Err(self.tun_gone(&error));
        }
        self.forward.refusals.count(Refusal::TunWriteFailed, Evidence { at: now, ..Evidence::default() });
        if let Some(held_back) = log.pass(now) {
            tracing::warn!(device = self.tun.name(), %error, len = packet.len(), held_back, "the TUN took no packet");
        }
        Ok(())
    }

    /// The end of the device, with what the kernel said.
    pub(super) fn tun_gone(&self, found: &dyn std::fmt::Display) -> Fatal {
        Fatal::TunGone(format!("{}: {found}", self.tun.name()))
    }
}

/// EBADFD: the device was deleted, or its namespace was; the descriptor has nothing behind it any more.
pub(super) fn is_gone(error: &io::Error) -> bool {
    error.raw_os_error() == Some(libc::EBADFD)
}

/// Rests a moment, unless there is something else to do.
pub(super) fn rest(wake: &EventFd) {
    if poll::wait([Some((wake.as_fd(), Interest::Read))], Some(PAUSE)).is_err() {
        // Poll itself is what fails (ENOMEM): there is still the plain way to sleep.
        std::thread::sleep(PAUSE);
    }
}
