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
mod parks; // waits that end at once
mod refused; // counts of refusals become events
mod resolver; // endpoint names, beside the loop
mod sandbox; // what this process may do
mod signals;
mod start; // step by step
mod store; // descriptors that the service manager keeps
mod takeover; // start with those
mod timestamps; // the newest that was sent, on disk
mod vault; // the private key's page
mod watchdog; // signs of life
mod whereabouts; // where peers are, for the next process

use std::{
    io,
    panic::{AssertUnwindSafe, UnwindSafe, catch_unwind, resume_unwind},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use tokio::runtime::LocalOptions;
use tracing::{debug, info, warn};

use crate::{
    config::Config,
    control::ControlError,
    forward::aead,
    host::{Host, HostError},
    plane::{Clock, Fatal},
    sys,
    tunnel::{ChangeError, Now, Timing},
};

use attendants::{Outside, names::Names};
use driver::Driver;
use parks::Parks;
use sandbox::Sandbox;
use signals::{End, Signals};
use start::start;
use store::{Inherited, Store};

/// Reads the file again: the configuration, or all that is wrong with it as `vpnd check` says it.
pub type ReadConfig = Arc<dyn Fn() -> Result<Config, String> + Send + Sync>;

pub use attendants::{Attendants, ReadHooks, resume_name_service};

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
    let parks = Parks::default();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .on_thread_park(move || parks.another())
        .build_local(LocalOptions::default())
        .map_err(failed("start the runtime"))?;
    // As a task: what wakes one of those from within is a place in a queue, and no system call, as it is for what the
    // runtime is blocked on.
    let run = || {
        let task = runtime.spawn_local(run_until_stopped(config, options, sandbox, attendants));
        runtime.block_on(task).unwrap_or_else(|panicked| resume_unwind(panicked.into_panic()))
    };
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
