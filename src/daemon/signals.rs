//! The signals that an operator or a service manager sends. Caught before anything is made, so that none of them
//! ends the process half-way.

use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing::info;

use super::{DaemonError, failed};

pub(super) struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    pub(super) fn new() -> Result<Self, DaemonError> {
        let catch = |kind, name| signal(kind).map_err(failed(format!("catch {name}")));
        Ok(Self {
            terminate: catch(SignalKind::terminate(), "SIGTERM")?,
            interrupt: catch(SignalKind::interrupt(), "SIGINT")?,
            hangup: catch(SignalKind::hangup(), "SIGHUP")?,
        })
    }

    /// Resolves when the daemon is asked to end; says by what.
    pub(super) async fn stop(&mut self) -> &'static str {
        loop {
            tokio::select! {
                _ = self.terminate.recv() => return "SIGTERM",
                _ = self.interrupt.recv() => return "SIGINT",
                _ = self.hangup.recv() => {
                    info!(signal = "SIGHUP", "ignored: reloading is not part of this version");
                }
            }
        }
    }
}
