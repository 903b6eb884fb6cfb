//! Composition: start order, stop order, and what ends a daemon.
//!
//! Start: signals caught → what the process before us left → sweep what a killed daemon left → control sockets (they
//! also lock the name) → UDP → TUN → tunnel → data threads → endpoint names, where a default route follows → addresses,
//! routes, rules → ready. Stop is the same backwards; each step's undo is armed before the next step begins. At a
//! restart nothing is undone: the service manager keeps the descriptors (`store`) until the next process has them.

mod attendants; // processes beside this one
mod dns; // a name asked past the tunnel
mod drift; // when to put back what others removed
mod driver; // the loop, once all stands, and what changes while it runs
mod events; // what happened: log, ring, hooks
mod hooks; // commands on events
mod names; // what is known of an endpoint's name
mod refused; // counts of refusals become events
mod resolver; // endpoint names, beside the loop
mod sandbox; // what this process may do
mod signals;
mod store; // descriptors that the service manager keeps
mod takeover; // start with those
mod timestamps; // the newest that was sent, on disk
mod vault; // the private key's page
mod watchdog; // signs of life
mod whereabouts; // where peers are, for the next process

use std::{
    io,
    net::SocketAddr,
    panic::{AssertUnwindSafe, UnwindSafe, catch_unwind},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use tokio::sync::{Notify, mpsc};
use tracing::{debug, info, warn};

use crate::{
    config::{Baseline, Config, SocketAccess, followed},
    control::{self, Access, ControlError, ControlServer, Request, events::What},
    forward::{Forward, aead, carrier::packets_of_a_send},
    host::{Host, HostError, Plan},
    noise::Tai64n,
    plane::{Clock, Errors, Fatal, Offload, Plane, PlaneSettings, Threads, TunDevice, Workers},
    sys,
    tunnel::{ChangeError, Now, Timing, Tunnel},
};

use attendants::{Outside, names::Names};
use driver::Driver;
use events::Events;
use hooks::Hooks;
use resolver::Resolver;
use sandbox::Sandbox;
use signals::{End, Signals};
use store::{Inherited, Store};
use takeover::Kept;
use timestamps::Timestamps;
use whereabouts::Whereabouts;

/// How long a default route waits for endpoint names: behind it, only servers on the link and those that are asked
/// past the tunnel can answer.
const NAMES_FIRST: Duration = Duration::from_secs(5);
/// The same without one: who starts after us sends at once, and a name that is known nearby is told by then.
const NAMES_SOON: Duration = Duration::from_secs(1);

/// Reads the file again: the configuration, or all that is wrong with it as `vpnd check` says it.
pub type ReadConfig = Arc<dyn Fn() -> Result<Config, String> + Send + Sync>;

pub use attendants::{Attendants, ReadHooks};

/// What the command line says beside the file.
#[derive(Clone)]
pub struct Options {
    /// For a reload.
    pub read_config: ReadConfig,
    /// What was read: the file, and the key files that it names. A reload finds others in the same folders alone.
    pub files: Vec<PathBuf>,
    /// Where `wireguard/` and `vpnd/` with the control sockets are; `/run`.
    pub run_dir: PathBuf,
    /// Where the newest timestamp is kept; `/var/lib/vpnd`.
    pub state_dir: PathBuf,
    /// Seconds that the wall clock is to be ahead; for tests.
    pub wall_ahead: i64,
    /// The protocol's, but for tests.
    pub timing: Timing,
    /// The log goes to the journal: with all fields of each event.
    pub journal: bool,
}

/// Why the daemon did not start, or ended.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    /// The host refused.
    #[error(transparent)]
    Host(#[from] HostError),
    /// The control sockets cannot be had: most often a second daemon of the same name.
    #[error(transparent)]
    Control(#[from] ControlError),
    /// The file asks for what a tunnel cannot be.
    #[error(transparent)]
    Change(#[from] ChangeError),
    /// A system call that failed.
    #[error("{attempted}: {source}")]
    Io {
        /// What was attempted.
        attempted: String,
        /// What came back.
        source: io::Error,
    },
    /// The interface's name is taken.
    #[error("cannot make interface {name}: {holder}; choose another `name`, or stop who holds it")]
    NameTaken {
        /// Of the interface.
        name: String,
        /// What it is, and whose.
        holder: String,
    },
    /// The device was deleted by somebody else, or moved to another namespace.
    #[error("interface {0} was deleted from outside: the tunnel ends")]
    DeviceLost(String),
    /// A user or group that this host does not have.
    #[error(
        "interface.{key}: found {name:?}, whom this host does not know; write the name or number of another, or make it"
    )]
    Nobody {
        /// In the file.
        key: &'static str,
        /// Who.
        name: String,
    },
    /// The data threads cannot go on.
    #[error(transparent)]
    Fatal(#[from] Fatal),
    /// A task ended that never should.
    #[error("the {0} task ended unexpectedly")]
    TaskEnded(&'static str),
}

fn failed(attempted: impl Into<String>) -> impl FnOnce(io::Error) -> DaemonError {
    let attempted = attempted.into();
    move |source| DaemonError::Io { attempted, source }
}

/// The wall clock that events are told by, since the Unix epoch.
pub fn wall_clock() -> Duration {
    Clock.now().wall
}

/// Runs a tunnel in the foreground until SIGTERM, SIGINT, or something that cannot be mended. Leaves nothing
/// behind, whatever ends it: after a panic the rules are swept by a fresh connection.
///
/// To be called while there is one thread: the sandbox binds those that come after it.
pub fn run(config: Config, options: Options, attendants: Attendants) -> Result<(), DaemonError> {
    sys::process::forbid_core_dumps().map_err(failed("switch core dumps off"))?;
    // Before the sandbox closes: a library is opened.
    let sealed_by = aead::implementation();
    debug!(sealed_by, "data packets");
    let sandbox = Sandbox::enter(&config, &options);
    sys::process::let_code_go();
    if !sys::process::keep_out_of_swap().unwrap_or(false) {
        info!("keys may be swapped out: locked memory is limited (LimitMEMLOCK= of a service)");
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(failed("start the runtime"))?;
    let run = || runtime.block_on(run_until_stopped(config, options, sandbox, attendants));
    let ended = unless_it_panics(AssertUnwindSafe(run));
    // A name that is being looked up must not hold the exit back.
    runtime.shutdown_background();
    ended
}

/// A panic in the one task, or in one that it waits for, ends the daemon like any other failure.
fn unless_it_panics(run: impl FnOnce() -> Result<(), DaemonError> + UnwindSafe) -> Result<(), DaemonError> {
    catch_unwind(run).unwrap_or_else(|_| {
        sweep_after_panic();
        Err(DaemonError::TaskEnded("driver"))
    })
}

/// The device went with the unwinding; the rules that pointed to its table did not.
fn sweep_after_panic() {
    let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else { return };
    runtime.block_on(async {
        if let Ok(host) = Host::open().await {
            let _ = host.sweep().await;
        }
    });
}

/// How a daemon ended.
enum Ended {
    /// For good.
    Stopped,
    /// Another process goes on with the device and the sockets.
    HandedOver,
}

/// The file cannot be used: what the process before us left with the service manager for this one goes, with its
/// addresses, routes and rules.
pub fn give_up_inherited() {
    let (mut store, inherited) = Store::open();
    if !store.holds_the_device() {
        return;
    }
    let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else { return };
    if let Err(error) = runtime.block_on(takeover::give_up(&mut store, inherited)) {
        warn!(%error, "what the process before us left could not be removed");
    }
}

async fn run_until_stopped(
    config: Config,
    options: Options,
    sandbox: Sandbox,
    attendants: Attendants,
) -> Result<(), DaemonError> {
    let name = config.interface.name.clone();
    let (names, outside) = attendants.attach().map_err(failed("speak to the processes beside the daemon"))?;
    if sandbox.report().on {
        names.confine().await.map_err(failed("confine the name service"))?;
    }
    let around = Around { names, outside, sandbox };
    let host = Host::open().await?;
    let (mut store, inherited) = Store::open();
    let result = serve(config, &options, &host, &mut store, inherited, around).await;
    if let Ok(Ended::HandedOver) = result {
        info!(
            interface = name,
            "handed over: the service manager keeps the device and the sockets for the next process"
        );
        return Ok(());
    }
    // The device goes with the plane, if nobody else has its descriptor.
    let removed = if store.holds_the_device() { host.remove_own_device().await } else { Ok(()) };
    store.empty();
    // What does not vanish with it goes here.
    let undone = host.undo().await;
    result?;
    removed?;
    undone?;
    info!(interface = name, "stopped, nothing left behind");
    Ok(())
}

/// What is around the tunnel in this process, and beside it.
struct Around {
    names: Names,
    outside: Outside,
    sandbox: Sandbox,
}

async fn serve(
    config: Config,
    options: &Options,
    host: &Host,
    store: &mut Store,
    inherited: Inherited,
    around: Around,
) -> Result<Ended, DaemonError> {
    let mut signals = Signals::new()?;
    let name = config.interface.name.clone();
    let started = tokio::select! {
        started = start(config, options, host, store, inherited, around) => started?,
        // What was made so far goes with the future that made it.
        end = signals.end() => {
            info!(signal = end.name(), "stopping before it was ready");
            // What was left by the process before us is still there for the one after us.
            return Ok(if end == End::HandOver && store.holds_the_device() { Ended::HandedOver } else { Ended::Stopped });
        }
    };
    let mut driver = Driver::new(name, options, host, store, started, signals)?;
    let ended = driver.run().await;
    say_stopping();
    driver.stop(&ended).await;
    ended
}

/// All that the driver drives.
struct Started {
    plan: Plan,
    own_table: u32,
    access: Access,
    /// The file, whose keys are the tunnel's now, and stay nowhere else.
    baseline: Baseline,
    tunnel: Tunnel,
    plane: Plane,
    control: ControlServer,
    requests: mpsc::Receiver<Request>,
    resolver: Resolver,
    wake: Arc<Notify>,
    events: Events,
    timestamps: Timestamps,
    whereabouts: Whereabouts,
    around: Around,
}

async fn start(
    config: Config,
    options: &Options,
    host: &Host,
    store: &mut Store,
    mut inherited: Inherited,
    mut around: Around,
) -> Result<Started, DaemonError> {
    let name = config.interface.name.as_str();
    let offload = if config.interface.offload { Offload::Auto } else { Offload::Off }.tested();
    let kept = takeover::device(&config, offload, host, store, &mut inherited).await?;
    for what in host.sweep().await? {
        warn!(what, "removed what a killed daemon left behind");
    }
    let (request_sender, requests) = mpsc::channel(16);
    let told = control::events::Events::new(name);
    let access = access(&config.interface.sockets, &around.names).await?;
    let mut control =
        ControlServer::serve(name, &options.run_dir, access, request_sender, told.clone()).await?;
    serve_metrics(&mut control, config.interface.metrics_listen)?;
    let (plan, own_table) = make_plan(&config, host, kept.as_ref(), &around.outside).await?;
    let mark = plan.fwmark.unwrap_or(0);
    let sockets = takeover::sockets(&config, mark, store, &mut inherited, &around.outside).await?;
    let port = sockets.port();
    let is_kept = kept.is_some();
    let tun = match kept {
        Some(kept) => kept.tun,
        None => TunDevice::create(name, config.interface.mtu, offload)
            .map_err(failed(format!("make the TUN device {name}")))?,
    };

    let mut whereabouts = open_whereabouts(&config, store, &mut inherited)?;
    let errors = Some(Errors::open());
    // All is made that takes more than what a running tunnel needs.
    around.sandbox.narrow();
    let wake = Arc::new(Notify::new());
    let mut timestamps = Timestamps::open(&options.state_dir, config.interface.private_key.public_key());
    // The process before us knew to the step what the disk knows in advance.
    let floor = whereabouts.sent_with(timestamps.key()).unwrap_or(timestamps.kept());
    if is_kept {
        timestamps.expect(Tai64n::from_unix(options.clock().now().wall).max(floor.next()));
    }
    let mut tunnel = build_tunnel(&config, options, floor, &wake)?;
    let mut resolver = Resolver::new(followed(&config.peers), mark, around.names.clone());
    resume(&mut whereabouts, &mut tunnel, &mut resolver);
    let clamp_mss = config.interface.clamp_mss;
    let settings = PlaneSettings { clamp_mss, ..PlaneSettings::new(config.interface.mtu) };
    let workers = config.interface.workers.map_or(Workers::Auto, Workers::EachWay);
    let confined = around.sandbox.confines();
    let threads = Threads { workers, nice: config.interface.nice, errors, confined };
    let plane = Plane::start(tunnel.forward().clone(), tun, sockets, settings, threads)
        .map_err(failed("start the data threads"))?;
    // Where the routes are there already, waiting would win nothing.
    if !is_kept {
        resolver.first_round(if plan.rules.is_empty() { NAMES_SOON } else { NAMES_FIRST }).await;
    }
    host.apply(&plan).await?;
    info!(
        interface = name,
        port,
        peers = config.peers.len(),
        mtu = config.interface.mtu,
        sealed_by = aead::implementation(),
        public_key = %config.interface.private_key.public_key(),
        event = options.journal.then_some("started"),
        "up"
    );
    let mut hooks = Hooks::new(around.outside.clone(), &told);
    if let Err(why) = hooks.set(&config.hooks).await {
        warn!(why, "hooks are not run: the process that runs them cannot read the file");
    }
    let mut events = Events::new(told, hooks, options.journal);
    events.record(None, What::Started { port, peers: config.peers.len() });
    let baseline = Baseline::from(config);
    Ok(Started {
        plan,
        own_table,
        access,
        baseline,
        tunnel,
        plane,
        control,
        requests,
        resolver,
        wake,
        events,
        timestamps,
        whereabouts,
        around,
    })
}

fn serve_metrics(control: &mut ControlServer, at: Option<SocketAddr>) -> Result<(), ControlError> {
    if let Some(address) = control.serve_metrics(at)? {
        info!(%address, "metrics are served");
        if !address.ip().is_loopback() {
            warn!(%address, "whoever reaches this address can read the metrics: peer names, and when they are there");
        }
    }
    Ok(())
}

/// Names of users and groups → their numbers.
async fn access(sockets: &SocketAccess, names: &Names) -> Result<Access, DaemonError> {
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
    wake: &Arc<Notify>,
) -> Result<Tunnel, DaemonError> {
    let waker = wake.clone();
    let forward = Forward::new(Box::new(move || waker.notify_one()));
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

/// The clock, with what a test adds to the time of day.
#[derive(Clone, Copy, Debug)]
struct DaemonClock {
    wall_ahead: i64,
}

impl DaemonClock {
    fn now(self) -> Now {
        let now = Clock.now();
        let seconds = now.wall.as_secs().saturating_add_signed(self.wall_ahead);
        Now { wall: Duration::new(seconds, now.wall.subsec_nanos()), ..now }
    }
}

impl Options {
    fn clock(&self) -> DaemonClock {
        DaemonClock { wall_ahead: self.wall_ahead }
    }
}

/// A number that tells damaged bytes from whole ones: FNV-1a. Of chance it knows much, of malice nothing.
fn checksum(bytes: &[u8]) -> u64 {
    let step = |sum: u64, byte: &u8| (sum ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, step)
}

/// `READY=1` to the service manager, if there is one.
fn say_ready(status: &str) {
    let states = [sd_notify::NotifyState::Ready, sd_notify::NotifyState::Status(status)];
    if let Err(error) = sd_notify::notify(&states) {
        warn!(%error, "the service manager could not be told that we are ready");
    }
}

/// `RELOADING=1`; to be followed by `READY=1`, whatever becomes of it.
fn say_reloading() {
    let mut states = vec![sd_notify::NotifyState::Reloading];
    states.extend(sd_notify::NotifyState::monotonic_usec_now());
    // A manager that cannot be told waits for nothing.
    let _ = sd_notify::notify(&states);
}

fn say_stopping() {
    // A manager that cannot be told sees us exit.
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Stopping]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_in_a_task_that_is_waited_for_ends_the_daemon_with_an_error() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        let ended =
            unless_it_panics(AssertUnwindSafe(|| runtime.block_on(async { panic!("driven too far") })));
        assert_eq!(ended.expect_err("it panicked").to_string(), "the driver task ended unexpectedly");
    }
}
