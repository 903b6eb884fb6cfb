//! The signals that an operator or a service manager sends. Caught before anything is made, so that none of them
//! ends the process half-way.

use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing::info;

use super::{DaemonError, failed};

pub(super) struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hand_over: Signal,
    hangup: Signal,
}

/// How the daemon is asked to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asked {
    /// For good, by this signal.
    Stop(&'static str),
    /// Another process takes its place at once: SIGUSR2 (RestartKillSignal= of the unit).
    HandOver,
}

impl Asked {
    /// The signal.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Stop(name) => name,
            Self::HandOver => "SIGUSR2",
        }
    }
}

impl Signals {
    pub(super) fn new() -> Result<Self, DaemonError> {
        let catch = |kind, name| signal(kind).map_err(failed(format!("catch {name}")));
        Ok(Self {
            terminate: catch(SignalKind::terminate(), "SIGTERM")?,
            interrupt: catch(SignalKind::interrupt(), "SIGINT")?,
            hand_over: catch(SignalKind::user_defined2(), "SIGUSR2")?,
            hangup: catch(SignalKind::hangup(), "SIGHUP")?,
        })
    }

    /// Resolves when the daemon is asked to end.
    pub(super) async fn asked(&mut self) -> Asked {
        loop {
            tokio::select! {
                _ = self.terminate.recv() => return Asked::Stop("SIGTERM"),
                _ = self.interrupt.recv() => return Asked::Stop("SIGINT"),
                _ = self.hand_over.recv() => return Asked::HandOver,
                _ = self.hangup.recv() => {
                    info!(signal = "SIGHUP", "ignored: reloading is not part of this version");
                }
            }
        }
    }
}
