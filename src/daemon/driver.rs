//! The one owner that drives the upper half: mutate, drain, mutate. Everything that it waits for stands in
//! one `select!`; everything it does is bounded, so that a flood of one kind never starves another.

mod news; // what happens to the daemon as a whole
mod pace; // how soon the queues are looked at again
mod reload; // the file read again, and the difference applied

use std::{io, net::SocketAddr, os::fd::AsFd, path::PathBuf, sync::Arc, time::Duration};

use tokio::{
    sync::mpsc,
    time::{Instant, sleep_until},
};
use tracing::{debug, info, warn};

use super::{
    Around, DaemonClock, DaemonError, Ended, Options, ReadConfig,
    drift::Drift,
    events::Events,
    failed,
    resolver::Resolver,
    say_ready,
    signals::{Asked, End, Signals},
    start::Started,
    store::Store,
    timestamps::Timestamps,
    watchdog::Watchdog,
    whereabouts::Whereabouts,
};
use crate::{
    config::{Baseline, Config, Hook},
    control::{
        Access, AskedTrace, ControlServer, InterfaceSample, InterfaceStatus, NewsOfTrace, NoTrace, Operation,
        Request, SetError, Tracing,
        events::{About, What},
    },
    host::{Host, Mtus, NetworkChange, Plan},
    plane::{Plane, PlaneSettings, udp::Sent},
    sys::{
        event::Bell,
        process,
        timer::{BootTimer, WallTimer},
    },
    trace::{Feed, Record},
    tunnel::{Change, ChangeError, Event, Transmit, Tunnel},
};
use news::News;
use pace::Pace;
use reload::{Reading, Trial, has_read};

/// Handshake datagrams and raised peers that one turn takes before it looks at signals and requests again.
const PER_TURN: usize = 64;
/// How soon the tunnel is looked at where no timer can be set.
const UNARMED: Duration = Duration::from_millis(100);

pub(super) struct Driver<'a> {
    name: String,
    fwmark: u32,
    settings: PlaneSettings,
    /// What the host was made to look like.
    plan: Plan,
    /// The table that is ours, 0: none.
    own_table: u32,
    /// Did the kernel choose the port?
    port_chosen: bool,
    /// Of the control sockets.
    access: Access,
    /// The file as it was read last.
    baseline: Baseline,
    /// Was the tunnel changed over the control socket since then?
    by_hand: bool,
    read_config: ReadConfig,
    reading: Option<Reading>,
    trial: Option<Trial>,
    drift: Drift,
    /// What stands in the place of ours, as it was told last.
    displaced: Option<String>,
    operation: Operation,
    /// Whether keys are given to a capture, as it was told last.
    secrets_given: bool,
    tunnel: Tunnel,
    plane: Plane,
    host: &'a Host,
    control: ControlServer,
    requests: mpsc::Receiver<Request>,
    resolver: Resolver,
    signals: Signals,
    /// Rung by the data threads.
    bell: Arc<Bell>,
    pace: Pace,
    timer: BootTimer,
    wall_timer: WallTimer,
    /// A timer could not be armed: when it is tried again.
    unarmed: Option<Instant>,
    events: Events,
    /// The hooks that run on events, and where metrics are served.
    watched: (Vec<Hook>, Option<SocketAddr>),
    clock: DaemonClock,
    watchdog: Watchdog,
    /// For the next process.
    store: &'a mut Store,
    whereabouts: Whereabouts,
    timestamps: Timestamps,
    state_dir: PathBuf,
    around: Around,
}

/// What ended one wait.
enum Woken {
    End(End),
    Watchdog,
    Queue,
    Timer,
    Request(Request),
    Resolved,
    Network(NetworkChange),
    Reload,
    Read(Box<Result<Config, String>>),
    TrialOver,
    Drift,
    Failed(DaemonError),
}

impl<'a> Driver<'a> {
    pub(super) fn new(
        name: String,
        options: &Options,
        host: &'a Host,
        store: &'a mut Store,
        started: Started,
        signals: Signals,
    ) -> Result<Self, DaemonError> {
        let timer = BootTimer::new().map_err(failed("make a timer on CLOCK_BOOTTIME"))?;
        let wall_timer = WallTimer::new().map_err(failed("make a timer on CLOCK_REALTIME"))?;
        let Started {
            plan,
            own_table,
            access,
            baseline,
            tunnel,
            plane,
            control,
            requests,
            resolver,
            bell,
            events,
            timestamps,
            whereabouts,
            around,
        } = started;
        let watched = (baseline.hooks.clone(), baseline.interface.metrics_listen);
        Ok(Self {
            name,
            fwmark: plan.fwmark.unwrap_or(0),
            settings: PlaneSettings {
                clamp_mss: baseline.interface.clamp_mss,
                ..PlaneSettings::new(plan.mtu)
            },
            plan,
            own_table,
            port_chosen: baseline.interface.listen_port.is_none(),
            access,
            baseline,
            by_hand: false,
            read_config: options.read_config.clone(),
            reading: None,
            trial: None,
            drift: Drift::default(),
            displaced: None,
            operation: Operation::default(),
            secrets_given: false,
            tunnel,
            plane,
            host,
            control,
            requests,
            resolver,
            signals,
            bell,
            pace: Pace::new(),
            timer,
            wall_timer,
            unarmed: None,
            events,
            watched,
            clock: options.clock(),
            watchdog: Watchdog::new(),
            store,
            whereabouts,
            timestamps,
            state_dir: options.state_dir.clone(),
            around,
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
        process::let_code_go();
        if self.signals.kept() {
            self.begin_reload(None, None);
        }
        loop {
            self.arm_timer();
            let woken = tokio::select! {
                asked = self.signals.next() => match asked {
                    Asked::End(end) => Woken::End(end),
                    Asked::Reload => Woken::Reload,
                },
                fatal = self.plane.failed() => Woken::Failed(fatal.into()),
                () = self.around.names.ended() => Woken::Failed(DaemonError::TaskEnded("name service")),
                () = &mut lost_device => Woken::Failed(DaemonError::DeviceLost(name.clone())),
                error = self.control.failed() => Woken::Failed(error.into()),
                Some(request) = self.requests.recv() => Woken::Request(request),
                () = self.resolver.resolved() => Woken::Resolved,
                change = self.host.network_changed() => Woken::Network(change),
                read = has_read(&mut self.reading) => Woken::Read(Box::new(read)),
                () = at(self.trial.as_ref().map(Trial::ends)) => Woken::TrialOver,
                () = at(self.drift.due()) => Woken::Drift,
                _ = self.timer.fired() => Woken::Timer,
                due = self.events.due() => due.map_or_else(Woken::Failed, |()| Woken::Timer),
                () = self.watchdog.due() => Woken::Watchdog,
                _ = self.wall_timer.fired() => Woken::Timer,
                () = at(self.unarmed) => Woken::Timer,
                () = self.pace.after_rest(self.bell.rung()) => Woken::Queue,
            };
            match woken {
                Woken::End(end) => {
                    self.events.record(None, What::Stopping { why: end.name().to_owned() });
                    self.events.farewell().await;
                    let kept = end == End::HandOver && self.store.holds_the_device();
                    return Ok(if kept { Ended::HandedOver } else { Ended::Stopped });
                }
                Woken::Failed(error) => {
                    self.events.record(None, What::Stopping { why: error.to_string() });
                    self.events.farewell().await;
                    return Err(error);
                }
                Woken::Request(request) => self.answer(request),
                Woken::Resolved => self.apply_resolved(),
                Woken::Network(change) => self.network_changed(change).await,
                Woken::Reload => {
                    info!(signal = "SIGHUP", "reading the file again");
                    self.begin_reload(None, None);
                }
                Woken::Read(read) => self.finish_reload(*read).await,
                Woken::TrialOver => self.take_back().await,
                Woken::Drift => self.mend().await,
                Woken::Watchdog => self.watchdog.look(self.plane.beats()),
                Woken::Timer | Woken::Queue => {}
            }
            if self.turn() {
                // A flood is not to keep those waiting who ask for the status: they run when this does not.
                tokio::task::yield_now().await;
            }
            // The port may be another one now.
            self.store.keep(&self.plane, self.whereabouts.as_fd());
        }
    }

    /// Stops the data threads; the device vanishes with them, unless it is kept.
    pub(super) async fn stop(self, ended: &Result<Ended, DaemonError>) {
        self.plane.stop();
        self.events.end().await;
        // The next process does not wait for a disk.
        if !matches!(ended, Ok(Ended::HandedOver)) {
            self.timestamps.close(self.tunnel.newest_timestamp()).await;
        }
    }

    /// A timer that cannot be armed is no reason to end: the tunnel is looked at soon, and it is tried again.
    fn arm_timer(&mut self) {
        let deadline = self.tunnel.deadline().map(|time| time.0);
        let armed = self.timer.arm(deadline);
        match armed.and_then(|()| self.wall_timer.arm(self.tunnel.wall_deadline())) {
            Ok(()) if self.unarmed.take().is_some() => info!("the timers can be set again"),
            Ok(()) => {}
            Err(error) => {
                if self.unarmed.replace(Instant::now() + UNARMED).is_none() {
                    warn!(%error, "a timer cannot be set: the tunnel is looked at every {} ms", UNARMED.as_millis());
                }
            }
        }
    }

    /// What waits in the queues, and what is due; true if there may be more in the queues.
    fn turn(&mut self) -> bool {
        self.follow_key();
        self.tell_secrets_given();
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
        self.pace.took(handshakes, handshakes == PER_TURN, Instant::now());
        let more = raised_peers == PER_TURN || handshakes == PER_TURN;
        if more {
            // Nobody else would ring for it again; where that fails, whatever comes next finds it.
            let _ = self.bell.ring();
        }
        self.tunnel.expire(self.clock.now());
        self.drain();
        self.events.look_at_refusals(&self.tunnel);
        more
    }

    fn drain(&mut self) {
        self.follow_key();
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
        self.events.tunnel(&event);
        match event {
            Event::Connected { key, from, .. } => self.resolver.answered_from(&key, from),
            Event::Roamed { key, to, .. } => self.resolver.answered_from(&key, to),
            Event::Unanswered { key, .. } => {
                self.resolver.unanswered(&key);
                self.apply_resolved();
            }
            Event::GivenUp { .. }
            | Event::Silent { .. }
            | Event::Expired { .. }
            | Event::PrefixMoved { .. }
            | Event::UnderLoad(_) => {}
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
    async fn network_changed(&mut self, change: NetworkChange) {
        debug!(?change, "the host's network changed");
        match change {
            NetworkChange::AddressRemoved(address) => self.tunnel.forget_locals(Some(address)),
            NetworkChange::RouteChanged(towards) => self.tunnel.forget_locals_towards(towards),
            NetworkChange::LinkChanged => self.tunnel.forget_locals(None),
            NetworkChange::Mtus(mtus) => return self.follow_mtus(&mtus),
            NetworkChange::OwnLink(up) => return self.link_changed(up).await,
            NetworkChange::OwnLost => return self.drift.lost(Instant::now()),
        }
        self.resolver.network_changed();
    }

    /// Down, a device has no routes, and no IPv6 addresses: when it is up again they are there again, whoever set it.
    async fn link_changed(&mut self, up: bool) {
        if up == self.operation.link_down {
            self.tell(News::Link { up });
        }
        if up {
            if let Err(error) = self.host.mend().await {
                warn!(%error, "the device is up again, but not what belongs to it");
                self.drift.failed(Instant::now());
            }
            self.tunnel.link_up(self.clock.now());
        }
    }

    /// Puts back what another program removed.
    async fn mend(&mut self) {
        let mended = match self.host.mend().await {
            Ok(mended) => mended,
            Err(error) => {
                debug!(%error, "what is there of ours could not be looked at");
                return self.drift.failed(Instant::now());
            }
        };
        match mended.count {
            0 => self.drift.all_there(),
            _ => {
                self.drift.put_back(Instant::now());
                self.tell(News::PutBack { mended: &mended });
            }
        }
        let displaced = mended.refused.map(|error| error.to_string());
        if let Some(why) = displaced.as_ref().filter(|why| self.displaced.as_ref() != Some(*why)) {
            self.tell(News::Displaced { why });
        }
        self.displaced = displaced;
    }

    /// Padding must not make a packet larger than what the device, or the route it came by, lets through.
    fn follow_mtus(&mut self, mtus: &Mtus) {
        let bytes = |mtu: u32| u16::try_from(mtu).unwrap_or(u16::MAX);
        let mtu = bytes(mtus.device);
        let route_mtus =
            mtus.routes.iter().copied().map(bytes).filter(|one| (1..mtu).contains(one)).collect();
        let settings = PlaneSettings { mtu, route_mtus, clamp_mss: self.settings.clamp_mss };
        if settings == self.settings {
            return;
        }
        info!(mtu, routes = ?settings.route_mtus, "the MTU of the device, or of a route to it, was changed");
        self.plane.set(settings.clone());
        self.settings = settings;
    }

    fn clamp_mss(&mut self, clamp: bool) {
        if self.settings.clamp_mss != clamp {
            self.settings.clamp_mss = clamp;
            self.plane.set(self.settings.clone());
        }
    }

    fn answer(&mut self, request: Request) {
        // A requester that no longer waits is no fault of ours.
        match request {
            Request::Get(reply) => {
                let _ = reply.send(self.status());
            }
            Request::Peer(about, reply) => {
                let key = match about {
                    About::Key(key) => Some(key),
                    About::Name(name) => self.tunnel.key_of(&name),
                };
                let now = self.clock.now();
                let _ = reply.send(key.and_then(|key| self.tunnel.peer_status(&key, now)));
            }
            Request::Sample(known, reply) => {
                let now = self.clock.now();
                self.plane.count_drops();
                let _ = reply.send(InterfaceSample {
                    name: self.name.clone(),
                    listen_port: self.plane.port(),
                    tunnel: self.tunnel.sample(known, now),
                    now: now.wall,
                    boot: now.boot,
                });
            }
            Request::Set(changes, reply) => {
                let _ = reply.send(self.set(changes));
            }
            Request::Trace(asked, reply) => {
                let _ = reply.send(self.trace(asked));
            }
            Request::Reload(confirm, reply) => self.begin_reload(confirm, Some(reply)),
            Request::Confirm(reply) => {
                let _ = reply.send(self.confirm());
            }
        }
    }

    /// Data threads tell what they see of these packets, until the reader lets go.
    fn trace(&mut self, asked: AskedTrace) -> Result<Tracing, NoTrace> {
        let AskedTrace { wanted, renew, by_root } = asked;
        if wanted.secrets && !self.baseline.interface.capture_secrets {
            return Err(NoTrace::NotPermitted);
        }
        if wanted.secrets && !by_root {
            return Err(NoTrace::NotRoot);
        }
        let news = Arc::new(Bell::new().map_err(|error| NoTrace::NoDescriptor(error.kind()))?);
        let now = self.clock.now();
        let ringer = news.ringer();
        // A ring that fails is followed by that of the next packet.
        let feed = Arc::new(Feed::new(wanted, self.fwmark, Box::new(move || _ = ringer.ring())));
        let forward = self.tunnel.forward().clone();
        if !forward.tap.attach(feed.clone()) {
            return Err(NoTrace::TooMany);
        }
        if renew {
            self.tunnel.renew_sessions(now);
        }
        let began = Record::Began {
            interface: self.name.clone(),
            listen_port: self.plane.port(),
            fwmark: self.fwmark,
            boot_ns: now.boot.0,
            wall_ns: u64::try_from(now.wall.as_nanos()).unwrap_or(u64::MAX),
        };
        let (attached, bell) = (feed.clone(), self.bell.clone());
        let news: NewsOfTrace = Box::new(move || {
            let news = news.clone();
            Box::pin(async move { news.rung().await })
        });
        Ok(Tracing::new(began, feed, news, move || {
            forward.tap.detach(&attached);
            let _ = bell.ring(); // it may have had keys
        }))
    }

    /// Keys go to nobody unsaid.
    fn tell_secrets_given(&mut self) {
        let on = self.tunnel.forward().tap.gives_secrets();
        if on != self.secrets_given {
            self.secrets_given = on;
            self.events.record(None, What::SecretsGiven { on });
        }
    }

    /// What the host may refuse comes first, so that a port that is taken changes nothing.
    fn set(&mut self, changes: Vec<Change>) -> Result<(), SetError> {
        self.by_hand = true;
        self.set_carrier(&changes)?;
        let done = changes.into_iter().try_for_each(|change| self.change(change));
        self.tunnel.publish();
        Ok(done?)
    }

    fn change(&mut self, change: Change) -> Result<(), ChangeError> {
        self.resolver.changed_by_hand(&change);
        match self.tunnel.apply(change, self.clock.now()) {
            // As the kernel: one configuration serves all ends, and each leaves itself out.
            Err(ChangeError::OwnKey(key)) => {
                info!(key = key.short(), "a peer with our own public key is left out");
                Ok(())
            }
            done => done,
        }
    }

    /// Each key has timestamps of its own, whoever changed it.
    fn follow_key(&mut self) {
        let Some(key) = self.tunnel.public_key() else { return };
        if *self.timestamps.key() != key {
            self.timestamps = Timestamps::open(&self.state_dir, key);
            self.tunnel.never_before(self.timestamps.kept());
        }
    }

    /// Port and mark, both or neither. Of several in one request the last one counts.
    fn set_carrier(&mut self, changes: &[Change]) -> Result<(), SetError> {
        let (mut port, mut mark) = (self.plane.port(), self.fwmark);
        for change in changes {
            match *change {
                Change::ListenPort(wanted) => port = wanted,
                Change::Fwmark(wanted) => mark = self.mark_for(wanted)?,
                _ => {}
            }
        }
        let moves = port != self.plane.port();
        if !moves && mark == self.fwmark {
            return Ok(());
        }
        self.plane.rebind(port, mark)?;
        if moves {
            self.port_chosen = port == 0;
            info!(port = self.plane.port(), "listening on another UDP port");
        }
        self.resolver.set_mark(mark);
        self.fwmark = mark;
        self.tunnel.forget_locals(None); // the mark may lead another way, with another source
        Ok(())
    }

    /// With a default route the rules let one mark alone pass by the tunnel; with another one the tunnel's own
    /// packets would enter it. `wg syncconf` sends 0 where its file names none: that is no wish for another.
    fn mark_for(&self, mark: u32) -> Result<u32, SetError> {
        let own = self.plan.fwmark.unwrap_or(0);
        if self.plan.rules.is_empty() || mark == own {
            return Ok(mark);
        }
        if mark == 0 {
            return Ok(own);
        }
        let (own, mark) = (format!("{own:#x}"), format!("{mark:#x}"));
        warn!(own, mark, "the mark cannot change while a default route leads into the tunnel");
        Err(io::Error::from_raw_os_error(libc::EBUSY).into())
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
            operation: Operation {
                differs: self.differs(),
                confirm_within_s: self.confirm_within(),
                contested: self.drift.is_contested() || self.displaced.is_some(),
                secrets_given: self.tunnel.forward().tap.gives_secrets(),
                ..self.operation.clone()
            },
            sandbox: self.around.sandbox.report().clone(),
            now: now.wall,
            boot: now.boot,
        }
    }
}

/// Resolves then; never, if there is no such time.
async fn at(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time).await,
        None => std::future::pending().await,
    }
}
