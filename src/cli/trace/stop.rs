//! Ctrl-C and SIGTERM while a trace runs: it ends early, and tells what it has.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

use super::TraceError;

/// The two signals, which no longer end the process from now on.
pub(super) struct Stop {
    interrupted: Signal,
    terminated: Signal,
}

impl Stop {
    /// To be called before anything is placed: what comes later is kept until somebody asks.
    pub(super) fn listen() -> Result<Self, TraceError> {
        let listen = |kind| signal(kind).map_err(failed);
        Ok(Self {
            interrupted: listen(SignalKind::interrupt())?,
            terminated: listen(SignalKind::terminate())?,
        })
    }

    /// Waits until one comes, or has come. It is safe to drop and call again.
    pub(super) async fn came(&mut self) {
        tokio::select! {
            _ = self.interrupted.recv() => {}
            _ = self.terminated.recv() => {}
        }
    }
}

fn failed(source: io::Error) -> TraceError {
    TraceError::Io { attempted: "listen for signals", source }
}
