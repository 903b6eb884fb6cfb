//! The signals that an operator or a service manager sends. Caught before anything is made, so that none of them
//! ends the process half-way.

use tokio::signal::unix::{Signal, SignalKind, signal};

use super::{DaemonError, failed};

pub(super) struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hand_over: Signal,
    hangup: Signal,
    /// SIGHUP came before anybody could follow it.
    reload: bool,
}

/// What a signal asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asked {
    /// The end.
    End(End),
    /// To read the file again.
    Reload,
}

/// How the daemon is asked to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// For good, by this signal.
    Stop(&'static str),
    /// Another process takes its place at once: SIGUSR2 (RestartKillSignal= of the unit).
    HandOver,
}

impl End {
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
            reload: false,
        })
    }

    /// Resolves when the daemon is asked to end. A reload is kept for later.
    pub(super) async fn end(&mut self) -> End {
        loop {
            match self.next().await {
                Asked::End(end) => return end,
                Asked::Reload => self.reload = true,
            }
        }
    }

    /// The next thing that is asked for. A reload that was kept is [`Self::kept`].
    pub(super) async fn next(&mut self) -> Asked {
        tokio::select! {
            _ = self.terminate.recv() => Asked::End(End::Stop("SIGTERM")),
            _ = self.interrupt.recv() => Asked::End(End::Stop("SIGINT")),
            _ = self.hand_over.recv() => Asked::End(End::HandOver),
            _ = self.hangup.recv() => Asked::Reload,
        }
    }

    /// Was a reload asked for before anybody could follow it?
    pub(super) fn kept(&mut self) -> bool {
        std::mem::take(&mut self.reload)
    }
}
