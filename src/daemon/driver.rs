//! The one owner that drives the upper half: mutate, drain, mutate. Everything that it waits for stands in
//! one `select!`; everything it does is bounded, so that a flood of one kind never starves another.

use std::{io, os::fd::AsFd, path::PathBuf, sync::Arc};

use tokio::sync::{Notify, mpsc};
use tracing::{debug, info, warn};

use super::{
    DaemonClock, DaemonError, Ended, Options, Started, failed, lost,
    resolver::Resolver,
    say_ready,
    signals::{Asked, Signals},
    store::Store,
    timestamps::Timestamps,
    watchdog::Watchdog,
    whereabouts::Whereabouts,
};
use crate::{
    config::Config,
    control::{ControlServer, InterfaceStatus, Request, SetError},
    host::{Host, Mtus, NetworkChange},
    plane::{Plane, PlaneSettings, udp::Sent},
    sys::timer::BootTimer,
    tunnel::{Change, ChangeError, Event, Transmit, Tunnel},
};

/// Handshake datagrams and raised peers that one turn takes before it looks at signals and requests again.
const PER_TURN: usize = 64;

pub(super) struct Driver<'a> {
    name: String,
    fwmark: u32,
    settings: PlaneSettings,
    /// With a default route: the mark of packets that do not enter the tunnel.
    rules_let_pass: Option<u32>,
    tunnel: Tunnel,
    plane: Plane,
    host: &'a Host,
    control: ControlServer,
    requests: mpsc::Receiver<Request>,
    resolver: Resolver,
    signals: Signals,
    wake: Arc<Notify>,
    timer: BootTimer,
    clock: DaemonClock,
    watchdog: Watchdog,
    /// For the next process.
    store: &'a mut Store,
    whereabouts: Whereabouts,
    timestamps: Timestamps,
    state_dir: PathBuf,
}

/// What ended one wait.
enum Woken {
    Signal(Asked),
    Watchdog,
    Queue,
    Timer,
    Request(Request),
    Resolved,
    Network(NetworkChange),
    Failed(DaemonError),
}

impl<'a> Driver<'a> {
    pub(super) fn new(
        config: &Config,
        options: &Options,
        host: &'a Host,
        store: &'a mut Store,
        started: Started,
        signals: Signals,
    ) -> Result<Self, DaemonError> {
        let timer = BootTimer::new().map_err(failed("make a timer on CLOCK_BOOTTIME"))?;
        let Started { plan, tunnel, plane, control, requests, resolver, wake, timestamps, whereabouts } =
            started;
        let fwmark = plan.fwmark.unwrap_or(0);
        Ok(Self {
            name: config.interface.name.clone(),
            fwmark,
            settings: PlaneSettings::new(plan.mtu),
            rules_let_pass: (!plan.rules.is_empty()).then_some(fwmark),
            tunnel,
            plane,
            host,
            control,
            requests,
            resolver,
            signals,
            wake,
            timer,
            clock: options.clock(),
            watchdog: Watchdog::new(),
            store,
            whereabouts,
            timestamps,
            state_dir: options.state_dir.clone(),
        })
    }

    /// Until a signal (`Ok`) or something that cannot be mended.
    pub(super) async fn run(&mut self) -> Result<Ended, DaemonError> {
        let name = self.name.clone();
        let mut lost_device = std::pin::pin!(self.host.device_lost(&name));
        self.apply_resolved();
        self.tunnel.link_up(self.clock.now());
        self.drain();
        self.store.keep(&self.plane, self.whereabouts.as_fd());
        say_ready(&format!("UDP port {}", self.plane.port()));
        loop {
            self.arm_timer()?;
            let woken = tokio::select! {
                asked = self.signals.asked() => Woken::Signal(asked),
                fatal = self.plane.failed() => Woken::Failed(fatal.into()),
                what = &mut lost_device => Woken::Failed(lost(&name, what)),
                error = self.control.failed() => Woken::Failed(error.into()),
                Some(request) = self.requests.recv() => Woken::Request(request),
                () = self.resolver.resolved() => Woken::Resolved,
                change = self.host.network_changed() => Woken::Network(change),
                _ = self.timer.fired() => Woken::Timer,
                () = self.watchdog.due() => Woken::Watchdog,
                () = self.wake.notified() => Woken::Queue,
            };
            match woken {
                Woken::Signal(asked) => {
                    info!(signal = asked.name(), "stopping");
                    let kept = asked == Asked::HandOver && self.store.holds_the_device();
                    return Ok(if kept { Ended::HandedOver } else { Ended::Stopped });
                }
                Woken::Failed(error) => return Err(error),
                Woken::Request(request) => self.answer(request),
                Woken::Resolved => self.apply_resolved(),
                Woken::Network(change) => self.network_changed(change),
                Woken::Watchdog => self.watchdog.look(self.plane.beats()),
                Woken::Timer | Woken::Queue => {}
            }
            self.turn();
            // The port may be another one now.
            self.store.keep(&self.plane, self.whereabouts.as_fd());
        }
    }

    /// Stops the data threads; the device vanishes with them, unless it is kept.
    pub(super) async fn stop(self, ended: &Result<Ended, DaemonError>) {
        self.plane.stop();
        // The next process does not wait for a disk.
        if !matches!(ended, Ok(Ended::HandedOver)) {
            self.timestamps.close(self.tunnel.newest_timestamp()).await;
        }
    }

    fn arm_timer(&mut self) -> Result<(), DaemonError> {
        let deadline = self.tunnel.deadline().map(|time| time.0);
        self.timer.arm(deadline).map_err(failed("arm the timer"))
    }

    /// What waits in the queues, and what is due.
    fn turn(&mut self) {
        let forward = self.tunnel.forward().clone();
        let (mut raised_peers, mut handshakes) = (0, 0);
        while raised_peers < PER_TURN
            && let Some((peer, raised)) = forward.pop_raised()
        {
            self.tunnel.handle_raised(&peer, raised, self.clock.now());
            self.drain();
            raised_peers += 1;
        }
        while handshakes < PER_TURN
            && let Some((datagram, waiting)) = forward.pop_handshake()
        {
            self.tunnel.handle_handshake(datagram, waiting, self.clock.now());
            self.drain();
            handshakes += 1;
        }
        if raised_peers == PER_TURN || handshakes == PER_TURN {
            // More may wait, and nobody would wake us for it again.
            self.wake.notify_one();
        }
        self.tunnel.expire(self.clock.now());
        self.drain();
    }

    fn drain(&mut self) {
        // Before it is sent.
        let newest = self.tunnel.newest_timestamp();
        self.timestamps.cover(newest, self.clock.now().boot);
        self.whereabouts.sent(*self.timestamps.key(), newest);
        while let Some(transmit) = self.tunnel.poll_transmit() {
            self.send(&transmit);
        }
        while let Some(event) = self.tunnel.poll_event() {
            self.happened(event);
        }
    }

    fn send(&mut self, transmit: &Transmit) {
        match self.plane.send(transmit) {
            Ok(Sent::AsAsked) => {}
            Ok(Sent::LocalGone) => {
                if let Some(peer) = transmit.peer {
                    self.tunnel.forget_local(peer);
                }
            }
            // The plane has counted it.
            Err(error) => debug!(to = %transmit.to.remote, %error, "could not send"),
        }
    }

    fn happened(&mut self, event: Event) {
        self.whereabouts.happened(&event, &self.tunnel, self.clock.now().boot);
        match event {
            Event::Connected { key, label, from, initiator, first, .. } => {
                if first {
                    info!(peer = label, endpoint = %from, "connected");
                } else {
                    debug!(peer = label, endpoint = %from, initiator, "session renewed");
                }
                self.resolver.answered_from(&key, from);
            }
            Event::Roamed { key, label, from, to, .. } => {
                self.resolver.answered_from(&key, to);
                match from {
                    Some(from) => info!(peer = label, %from, %to, "roamed"),
                    None => debug!(peer = label, endpoint = %to, "heard from for the first time"),
                }
            }
            Event::Unanswered { key, label, attempts, .. } => {
                debug!(peer = label, attempts, "an initiation went unanswered");
                if attempts == 3 {
                    warn!(
                        peer = label,
                        "handshakes go unanswered: nobody listens at the endpoint, a firewall drops UDP, or the keys do not match"
                    );
                }
                self.resolver.unanswered(&key);
                self.apply_resolved();
            }
            Event::GivenUp { label, .. } => {
                warn!(peer = label, "handshake given up after 90 s without an answer")
            }
            Event::Silent { label, .. } => info!(peer = label, "silent: its last session has expired"),
            Event::PrefixMoved { prefix, from, to } => {
                warn!(%prefix, from = from.short(), to = to.short(), "allowed IP moved to another peer");
            }
            Event::UnderLoad(true) => warn!("under load: handshakes must show a cookie"),
            Event::UnderLoad(false) => info!("no longer under load"),
        }
    }

    fn apply_resolved(&mut self) {
        while let Some(change) = self.resolver.poll_change() {
            if let Err(error) = self.tunnel.apply(Change::Peer(change), self.clock.now()) {
                warn!(%error, "a resolved endpoint was refused");
            }
        }
    }

    /// A source address that disappeared, or a route that changed, must not hold a peer's answers.
    fn network_changed(&mut self, change: NetworkChange) {
        debug!(?change, "the host's network changed");
        match change {
            NetworkChange::AddressRemoved(address) => self.tunnel.forget_locals(Some(address)),
            NetworkChange::RouteChanged(towards) => self.tunnel.forget_locals_towards(towards),
            NetworkChange::LinkChanged => self.tunnel.forget_locals(None),
            NetworkChange::Mtus(mtus) => return self.follow_mtus(&mtus),
        }
        self.resolver.network_changed();
    }

    /// Padding must not make a packet larger than what the device, or the route it came by, lets through.
    fn follow_mtus(&mut self, mtus: &Mtus) {
        let bytes = |mtu: u32| u16::try_from(mtu).unwrap_or(u16::MAX);
        let mtu = bytes(mtus.device);
        let route_mtus =
            mtus.routes.iter().copied().map(bytes).filter(|one| (1..mtu).contains(one)).collect();
        let settings = PlaneSettings { mtu, route_mtus };
        if settings == self.settings {
            return;
        }
        info!(mtu, routes = ?settings.route_mtus, "the MTU of the device, or of a route to it, was changed");
        self.plane.set(settings.clone());
        self.settings = settings;
    }

    fn answer(&mut self, request: Request) {
        // A requester that no longer waits is no fault of ours.
        match request {
            Request::Get(reply) => {
                let _ = reply.send(self.status());
            }
            Request::Set(changes, reply) => {
                let _ = reply.send(self.set(changes));
            }
        }
    }

    /// What the host may refuse comes first, so that a port that is taken changes nothing.
    fn set(&mut self, changes: Vec<Change>) -> Result<(), SetError> {
        for change in &changes {
            match *change {
                Change::ListenPort(port) if port == self.plane.port() => {}
                Change::ListenPort(port) => {
                    self.plane.rebind(port, self.fwmark)?;
                    self.tunnel.forget_locals(None);
                    info!(port = self.plane.port(), "listening on another UDP port");
                }
                Change::Fwmark(mark) => self.set_mark(mark)?,
                _ => {}
            }
        }
        let done = changes.into_iter().try_for_each(|change| self.change(change));
        self.tunnel.publish();
        Ok(done?)
    }

    fn change(&mut self, change: Change) -> Result<(), ChangeError> {
        self.resolver.changed_by_hand(&change);
        self.follow_key(&change);
        match self.tunnel.apply(change, self.clock.now()) {
            // As the kernel: one configuration serves all ends, and each leaves itself out.
            Err(ChangeError::OwnKey(key)) => {
                info!(key = key.short(), "a peer with our own public key is left out");
                Ok(())
            }
            done => done,
        }
    }

    /// Each key has timestamps of its own.
    fn follow_key(&mut self, change: &Change) {
        let Change::PrivateKey(Some(key)) = change else { return };
        let key = key.public_key();
        if *self.timestamps.key() != key {
            self.timestamps = Timestamps::open(&self.state_dir, key);
            self.tunnel.never_before(self.timestamps.kept());
        }
    }

    /// With a default route the rules let one mark alone pass by the tunnel; with another one the tunnel's own
    /// packets would enter it. `wg syncconf` sends 0 where its file names none: that is no wish for another.
    fn set_mark(&mut self, mark: u32) -> Result<(), SetError> {
        match self.rules_let_pass {
            Some(own) if mark == 0 || mark == own => return Ok(()),
            Some(own) => {
                let (own, mark) = (format!("{own:#x}"), format!("{mark:#x}"));
                warn!(own, mark, "the mark cannot change while a default route leads into the tunnel");
                return Err(io::Error::from_raw_os_error(libc::EBUSY).into());
            }
            None => {}
        }
        self.plane.set_mark(mark)?;
        self.resolver.set_mark(mark);
        self.fwmark = mark;
        self.tunnel.forget_locals(None); // the mark may lead another way, with another source
        Ok(())
    }

    fn status(&self) -> InterfaceStatus {
        let now = self.clock.now();
        self.plane.count_drops();
        InterfaceStatus {
            name: self.name.clone(),
            listen_port: self.plane.port(),
            fwmark: self.fwmark,
            mtu: self.settings.mtu,
            tunnel: self.tunnel.status(now),
            now: now.wall,
            boot: now.boot,
        }
    }
}
