//! Composition: start order, stop order, and what ends a daemon.
//!
//! Start: signals caught → sweep what a killed daemon left → control sockets (they also lock the name) → UDP → TUN →
//! tunnel → data threads → endpoint names, where a default route follows → addresses, routes, rules → ready. Stop
//! is the same backwards; each step's undo is armed before the next step begins.

mod dns; // a name asked past the tunnel
mod drift; // when to put back what others removed
mod driver; // the loop, once all stands, and what changes while it runs
mod events; // what happened: log, ring, hooks
mod hooks; // commands on events
mod names; // what is known of an endpoint's name
mod refused; // counts of refusals become events
mod resolver; // endpoint names, beside the loop
mod signals;

use std::{
    io,
    net::SocketAddr,
    panic::{AssertUnwindSafe, UnwindSafe, catch_unwind},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use tokio::sync::{Notify, mpsc};
use tracing::{info, warn};

use crate::{
    config::{Baseline, Config, SocketAccess, followed},
    control::{self, Access, ControlError, ControlServer, Request, events::What},
    forward::{Forward, carrier::packets_of_a_send},
    host::{Host, HostError, Plan},
    plane::{Clock, Fatal, Offload, Plane, PlaneSettings, Threads, TunDevice, UdpSockets, Workers},
    sys,
    tunnel::{ChangeError, Timing, Tunnel},
};

use driver::Driver;
use events::Events;
use hooks::Hooks;
use resolver::Resolver;
use signals::Signals;

/// How long a default route waits for endpoint names: behind it, only servers on the link and those that are asked
/// past the tunnel can answer.
const NAMES_FIRST: Duration = Duration::from_secs(5);

/// Reads the file again: the configuration, or all that is wrong with it as `vpnd check` says it.
pub type ReadConfig = Arc<dyn Fn() -> Result<Config, String> + Send + Sync>;

/// What the command line says beside the file.
#[derive(Clone)]
pub struct Options {
    /// For a reload.
    pub read_config: ReadConfig,
    /// Where `wireguard/` and `vpnd/` with the control sockets are; `/run`.
    pub run_dir: PathBuf,
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
pub fn run(config: Config, options: Options) -> Result<(), DaemonError> {
    sys::process::forbid_core_dumps().map_err(failed("switch core dumps off"))?;
    if !sys::process::keep_out_of_swap().unwrap_or(false) {
        info!("keys may be swapped out: locked memory is limited (LimitMEMLOCK= of a service)");
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(failed("start the runtime"))?;
    let ended = unless_it_panics(AssertUnwindSafe(|| runtime.block_on(run_until_stopped(config, options))));
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

async fn run_until_stopped(config: Config, options: Options) -> Result<(), DaemonError> {
    let name = config.interface.name.clone();
    let host = Host::open().await?;
    let result = serve(config, &options, &host).await;
    // The device is gone with the plane; what does not vanish with it goes here.
    let undone = host.undo().await;
    result?;
    undone?;
    info!(interface = name, "stopped, nothing left behind");
    Ok(())
}

async fn serve(config: Config, options: &Options, host: &Host) -> Result<(), DaemonError> {
    let mut signals = Signals::new()?;
    let name = config.interface.name.clone();
    let started = tokio::select! {
        started = start(config, options, host) => started?,
        // What was made so far goes with the future that made it.
        signal = signals.stop() => {
            info!(signal, "stopping before it was ready");
            return Ok(());
        }
    };
    let mut driver = Driver::new(name, host, started, signals, options.read_config.clone())?;
    let ended = driver.run().await;
    say_stopping();
    driver.stop();
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
}

async fn start(config: Config, options: &Options, host: &Host) -> Result<Started, DaemonError> {
    let name = config.interface.name.as_str();
    for what in host.sweep().await? {
        warn!(what, "removed what a killed daemon left behind");
    }
    let (request_sender, requests) = mpsc::channel(16);
    let told = control::events::Events::new(name);
    let access = access(&config.interface.sockets)?;
    let mut control =
        ControlServer::serve(name, &options.run_dir, access, request_sender, told.clone()).await?;
    serve_metrics(&mut control, config.interface.metrics_listen)?;
    if let Some(holder) = host.device_exists(name).await? {
        return Err(DaemonError::NameTaken { name: name.into(), holder });
    }
    let own_table = if Plan::wants_own_table(&config) { host.free_table().await? } else { 0 };
    let mut plan = Plan::new(&config, own_table);
    // A super-packet then fits one send.
    plan.gso_max_segs = u32::try_from(packets_of_a_send(plan.mtu)).ok();
    let sockets = open_sockets(&config, plan.fwmark)?;
    let port = sockets.port();
    let offload = if config.interface.offload { Offload::Auto } else { Offload::Off }.tested();
    let tun = TunDevice::create(name, config.interface.mtu, offload)
        .map_err(failed(format!("make the TUN device {name}")))?;

    let wake = Arc::new(Notify::new());
    let tunnel = build_tunnel(&config, options.timing, &wake)?;
    let settings = PlaneSettings::new(config.interface.mtu);
    let workers = config.interface.workers.map_or(Workers::Auto, Workers::EachWay);
    let threads = Threads { workers, nice: config.interface.nice };
    let plane = Plane::start(tunnel.forward().clone(), tun, sockets, settings, threads)
        .map_err(failed("start the data threads"))?;
    let mut resolver = Resolver::new(followed(&config.peers), plan.fwmark.unwrap_or(0));
    if !plan.rules.is_empty() {
        resolver.first_round(NAMES_FIRST).await;
    }
    host.apply(&plan).await?;
    info!(
        interface = name,
        port,
        peers = config.peers.len(),
        mtu = config.interface.mtu,
        public_key = %config.interface.private_key.public_key(),
        event = options.journal.then_some("started"),
        "up"
    );
    let hooks = Hooks::start(&config.hooks, &told).map_err(failed("start the thread of the hooks"))?;
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
fn access(sockets: &SocketAccess) -> Result<Access, DaemonError> {
    let number = |key: &'static str, name: &Option<String>, look_up: fn(&str) -> io::Result<Option<u32>>| {
        let Some(name) = name else { return Ok(None) };
        if let Ok(number) = name.parse() {
            return Ok(Some(number));
        }
        let found = look_up(name).map_err(failed(format!("look up {name:?} (interface.{key})")))?;
        found.map(Some).ok_or_else(|| DaemonError::Nobody { key, name: name.clone() })
    };
    Ok(Access {
        owner: number("socket_owner", &sockets.owner, sys::users::user)?,
        group: number("socket_group", &sockets.group, sys::users::group)?,
        mode: sockets.mode,
    })
}

fn open_sockets(config: &Config, fwmark: Option<u32>) -> Result<UdpSockets, DaemonError> {
    let port = config.interface.listen_port.unwrap_or(0);
    UdpSockets::bind(port, fwmark.unwrap_or(0)).map_err(failed(if port == 0 {
        "open a UDP socket".to_owned()
    } else {
        format!("listen on UDP port {port} (interface.listen_port)")
    }))
}

fn build_tunnel(config: &Config, timing: Timing, wake: &Arc<Notify>) -> Result<Tunnel, DaemonError> {
    let waker = wake.clone();
    let forward = Forward::new(Box::new(move || waker.notify_one()));
    let mut tunnel = Tunnel::new(forward, timing, Box::new(sys::random::os_rng()));
    let now = Clock.now();
    for change in config.changes() {
        tunnel.apply(change, now)?;
    }
    tunnel.publish();
    Ok(tunnel)
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
