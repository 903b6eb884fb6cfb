//! The signals that an operator or a service manager sends. Caught before anything is made, so that none of them
//! ends the process half-way.

use tokio::signal::unix::{Signal, SignalKind, signal};

use super::{DaemonError, failed};

pub(super) struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
    /// SIGHUP came before anybody could follow it.
    reload: bool,
}

/// What a signal asks for.
pub(super) enum Asked {
    /// The end; by this signal.
    Stop(&'static str),
    /// To read the file again.
    Reload,
}

impl Signals {
    pub(super) fn new() -> Result<Self, DaemonError> {
        let catch = |kind, name| signal(kind).map_err(failed(format!("catch {name}")));
        Ok(Self {
            terminate: catch(SignalKind::terminate(), "SIGTERM")?,
            interrupt: catch(SignalKind::interrupt(), "SIGINT")?,
            hangup: catch(SignalKind::hangup(), "SIGHUP")?,
            reload: false,
        })
    }

    /// Resolves when the daemon is asked to end; says by what. A reload is kept for later.
    pub(super) async fn stop(&mut self) -> &'static str {
        loop {
            match self.next().await {
                Asked::Stop(signal) => return signal,
                Asked::Reload => self.reload = true,
            }
        }
    }

    /// The next thing that is asked for. A reload that was kept is [`Self::kept`].
    pub(super) async fn next(&mut self) -> Asked {
        tokio::select! {
            _ = self.terminate.recv() => Asked::Stop("SIGTERM"),
            _ = self.interrupt.recv() => Asked::Stop("SIGINT"),
            _ = self.hangup.recv() => Asked::Reload,
        }
    }

    /// Was a reload asked for before anybody could follow it?
    pub(super) fn kept(&mut self) -> bool {
        std::mem::take(&mut self.reload)
    }
}
