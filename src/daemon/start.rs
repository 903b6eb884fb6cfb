//! The start, step by step: each step's undo is armed before the next one begins, and goes with what the step returns.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use tokio::sync::mpsc;
use tracing::{info, warn};

use super::{
    Around, DaemonError, Options,
    attendants::{Outside, names::Names},
    events::Events,
    failed,
    hooks::Hooks,
    resolver::Resolver,
    sandbox::Sandbox,
    store::{self, Inherited, Store},
    takeover::{self, Kept},
    timestamps::Timestamps,
    vault,
    whereabouts::Whereabouts,
};
use crate::{
    config::{Baseline, Config, SocketAccess, followed},
    control::{
        Access, ControlError, ControlServer, Request,
        events::{Events as Listeners, What},
    },
    forward::{Forward, aead, carrier::packets_of_a_send},
    host::{Host, Plan},
    noise::Tai64n,
    plane::{Clock, Errors, Offload, Plane, PlaneSettings, Threads, TunDevice, UdpSockets, Workers},
    sys::{self, event::Bell},
    tunnel::Tunnel,
};

/// How long a default route waits for endpoint names: behind it, only servers on the link and those that are asked
/// past the tunnel can answer.
const NAMES_FIRST: Duration = Duration::from_secs(5);
/// The same without one: who starts after us sends at once, and a name that is known nearby is told by then.
const NAMES_SOON: Duration = Duration::from_secs(1);

/// All that the driver drives.
pub(super) struct Started {
    pub(super) plan: Plan,
    pub(super) own_table: u32,
    pub(super) access: Access,
    /// The file, whose keys are the tunnel's now, and stay nowhere else.
    pub(super) baseline: Baseline,
    pub(super) tunnel: Tunnel,
    pub(super) plane: Plane,
    pub(super) control: ControlServer,
    pub(super) requests: mpsc::Receiver<Request>,
    pub(super) resolver: Resolver,
    /// Rung by the data threads.
    pub(super) bell: Arc<Bell>,
    pub(super) events: Events,
    pub(super) timestamps: Timestamps,
    pub(super) whereabouts: Whereabouts,
    pub(super) around: Around,
}

/// From what the process before us left, or from nothing, to a tunnel that carries.
pub(super) async fn start(
    config: Config,
    options: &Options,
    host: &Host,
    store: &mut Store,
    mut inherited: Inherited,
    mut around: Around,
) -> Result<Started, DaemonError> {
    let offload = if config.interface.offload { Offload::Auto } else { Offload::Off }.tested();
    let kept = takeover::device(&config, offload, host, store, &mut inherited).await?;
    let is_kept = kept.is_some();
    for what in host.sweep().await? {
        warn!(what, "removed what a killed daemon left behind");
    }
    let listeners = Listeners::new(&config.interface.name);
    let access = access(&config.interface.sockets, &around.names).await?;
    let (control, requests) = serve_control(&config, options, access, listeners.clone()).await?;
    let (plan, own_table) = make_plan(&config, host, kept.as_ref(), &around.outside).await?;
    let mark = plan.fwmark.unwrap_or(0);
    let sockets = takeover::sockets(&config, mark, store, &mut inherited, &around.outside).await?;
    let port = sockets.port();
    let tun = device(kept, &config, offload)?;
    let mut whereabouts = open_whereabouts(&config, store, &mut inherited)?;
    let errors = Errors::open();
    // All is made that takes more than what a running tunnel needs.
    around.sandbox.narrow();

    let bell = Arc::new(Bell::new().map_err(failed("make an eventfd"))?);
    let (timestamps, newest) = open_timestamps(&config, options, &whereabouts, is_kept);
    let mut tunnel = build_tunnel(&config, options, newest, &bell)?;
    let mut resolver = Resolver::new(followed(&config.peers), mark, around.names.clone());
    resume(&mut whereabouts, &mut tunnel, &mut resolver);
    let plane = start_plane(&config, &tunnel, tun, sockets, errors, &around.sandbox)?;
    // Where the routes are there already, waiting would win nothing.
    if !is_kept {
        resolver.first_round(if plan.rules.is_empty() { NAMES_SOON } else { NAMES_FIRST }).await;
    }
    host.apply(&plan).await?;
    let events = tell(&config, options, port, &around.outside, listeners).await;
    Ok(Started {
        plan,
        own_table,
        access,
        baseline: Baseline::from(config),
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
    })
}

/// The control sockets; they also lock the name.
async fn serve_control(
    config: &Config,
    options: &Options,
    access: Access,
    listeners: Listeners,
) -> Result<(ControlServer, mpsc::Receiver<Request>), ControlError> {
    let (sender, requests) = mpsc::channel(16);
    let name = &config.interface.name;
    let mut control = ControlServer::serve(name, &options.run_dir, access, sender, listeners).await?;
    serve_metrics(&mut control, config.interface.metrics_listen)?;
    Ok((control, requests))
}

fn device(kept: Option<Kept>, config: &Config, offload: Offload) -> Result<TunDevice, DaemonError> {
    if let Some(kept) = kept {
        return Ok(kept.tun);
    }
    let name = &config.interface.name;
    TunDevice::create(name, config.interface.mtu, offload)
        .map_err(failed(format!("make the TUN device {name}")))
}

/// Timestamps on disk, and the newest that was sent: the process before us knew to the step what the disk knows in advance.
fn open_timestamps(
    config: &Config,
    options: &Options,
    whereabouts: &Whereabouts,
    is_kept: bool,
) -> (Timestamps, Tai64n) {
    let mut timestamps = Timestamps::open(&options.state_dir, config.interface.private_key.public_key());
    let newest = whereabouts.sent_with(timestamps.key()).unwrap_or(timestamps.kept());
    if is_kept {
        timestamps.expect(Tai64n::from_unix(options.clock().now().wall).max(newest.next()));
    }
    (timestamps, newest)
}

fn start_plane(
    config: &Config,
    tunnel: &Tunnel,
    tun: TunDevice,
    sockets: UdpSockets,
    errors: Errors,
    sandbox: &Sandbox,
) -> Result<Plane, DaemonError> {
    let interface = &config.interface;
    let settings = PlaneSettings { clamp_mss: interface.clamp_mss, ..PlaneSettings::new(interface.mtu) };
    let workers = interface.workers.map_or(Workers::Auto, Workers::EachWay);
    let (nice, errors, confined) = (interface.nice, Some(errors), sandbox.confines());
    let threads = Threads { workers, nice, errors, confined };
    Plane::start(tunnel.forward().clone(), tun, sockets, settings, threads)
        .map_err(failed("start the data threads"))
}

/// That it is up: to the log, to those who listen, and to hooks.
async fn tell(
    config: &Config,
    options: &Options,
    port: u16,
    outside: &Outside,
    listeners: Listeners,
) -> Events {
    let (interface, peers) = (&config.interface, config.peers.len());
    info!(
        interface = interface.name,
        port,
        peers,
        mtu = interface.mtu,
        sealed_by = aead::implementation(),
        public_key = %interface.private_key.public_key(),
        event = options.journal.then_some("started"),
        "up"
    );
    let mut hooks = Hooks::new(outside.clone(), &listeners);
    if let Err(why) = hooks.set(&config.hooks).await {
        warn!(why, "hooks are not run: the process that runs them cannot read the file");
    }
    let mut events = Events::new(listeners, hooks, options.journal);
    events.record(None, What::Started { port, peers });
    events
}

pub(super) fn serve_metrics(control: &mut ControlServer, at: Option<SocketAddr>) -> Result<(), ControlError> {
    if let Some(address) = control.serve_metrics(at)? {
        info!(%address, "metrics are served");
        if !address.ip().is_loopback() {
            warn!(%address, "whoever reaches this address can read the metrics: peer names, and when they are there");
        }
    }
    Ok(())
}

/// Names of users and groups → their numbers.
pub(super) async fn access(sockets: &SocketAccess, names: &Names) -> Result<Access, DaemonError> {
    Ok(Access {
        owner: number("socket_owner", &sockets.owner, async |name| names.user(name).await).await?,
        group: number("socket_group", &sockets.group, async |name| names.group(name).await).await?,
        mode: sockets.mode,
    })
}

async fn number(
    key: &'static str,
    name: &Option<String>,
    look_up: impl AsyncFn(&str) -> io::Result<Option<u32>>,
) -> Result<Option<u32>, DaemonError> {
    let Some(name) = name else { return Ok(None) };
    if let Ok(number) = name.parse() {
        return Ok(Some(number));
    }
    let found = look_up(name).await.map_err(failed(format!("look up {name:?} (interface.{key})")))?;
    found.map(Some).ok_or_else(|| DaemonError::Nobody { key, name: name.clone() })
}

/// What the host is to look like, and the table that is ours, if it takes one; with a device that was kept, as like it
/// did as the file allows.
async fn make_plan(
    config: &Config,
    host: &Host,
    kept: Option<&Kept>,
    outside: &Outside,
) -> Result<(Plan, u32), DaemonError> {
    let name = config.interface.name.as_str();
    if kept.is_none()
        && let Some(holder) = host.device_exists(name).await?
    {
        // Who has it shows only to those who may look.
        let holder = outside.holder_of_device(name).await.unwrap_or(holder);
        return Err(DaemonError::NameTaken { name: name.into(), holder });
    }
    let own_table = match kept.and_then(|kept| kept.own_table) {
        _ if !Plan::wants_own_table(config) => 0,
        Some(table) => table,
        None => host.free_table().await?,
    };
    let mut plan = Plan::new(config, own_table);
    // A super-packet then fits one send.
    plan.gso_max_segs = u32::try_from(packets_of_a_send(plan.mtu)).ok();
    Ok((plan, own_table))
}

/// The memory of where peers are: what was left, or none yet.
fn open_whereabouts(
    config: &Config,
    store: &mut Store,
    inherited: &mut Inherited,
) -> Result<Whereabouts, DaemonError> {
    let (whereabouts, refused) = Whereabouts::open(inherited.peers.take(), config)
        .map_err(failed("make memory for where peers are"))?;
    if let Some(why) = refused {
        store.refused(store::Name::Peers, why);
    }
    Ok(whereabouts)
}

/// What the process before us knew of its peers is the tunnel's, and the resolver's.
fn resume(whereabouts: &mut Whereabouts, tunnel: &mut Tunnel, resolver: &mut Resolver) {
    let resumed = whereabouts.resume(tunnel, Clock.boot());
    if !resumed.is_empty() {
        info!(peers = resumed.len(), "known from the process before us");
    }
    for (key, place) in resumed {
        resolver.answered_from(&key, place);
    }
}

fn build_tunnel(
    config: &Config,
    options: &Options,
    floor: Tai64n,
    bell: &Arc<Bell>,
) -> Result<Tunnel, DaemonError> {
    let ringer = bell.ringer();
    let forward = Forward::woken_by(Box::new(move || ringer.ring()));
    let mut tunnel = Tunnel::new(forward, options.timing, Box::new(sys::random::os_rng()));
    tunnel.keep_key_in(Box::new(vault::page));
    tunnel.never_before(floor);
    let now = options.clock().now();
    for change in config.changes() {
        tunnel.apply(change, now)?;
    }
    tunnel.publish();
    Ok(tunnel)
}
