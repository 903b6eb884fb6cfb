//! Ctrl-C and SIGTERM as a value: a lab that is told to end must first remove what it made.

use std::{
    io,
    sync::mpsc::{Receiver, Sender, channel},
    thread,
};

use tokio::signal::unix::{SignalKind, signal};

/// Told when the process is asked to end (SIGINT, SIGTERM, SIGHUP).
pub struct Interrupt(Receiver<()>);

impl Interrupt {
    /// From now on these signals no longer end the process.
    pub fn listen() -> io::Result<Self> {
        let (tell, told) = channel();
        let (ready, is_ready) = channel();
        thread::spawn(move || attend(&ready, &tell));
        is_ready.recv().map_err(io::Error::other)??;
        Ok(Self(told))
    }

    /// Was it asked to end?
    pub fn came(&self) -> bool {
        self.0.try_recv().is_ok()
    }

    /// Waits until it is asked to end.
    pub fn wait(&self) {
        // An error would mean that the thread has ended: then nobody would ever tell.
        let _ = self.0.recv();
    }
}

fn attend(ready: &Sender<io::Result<()>>, tell: &Sender<()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build();
    let signals = runtime.and_then(|runtime| {
        let _inside = runtime.enter();
        let kinds = [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()];
        let [a, b, c] = kinds.map(signal);
        Ok((runtime, [a?, b?, c?]))
    });
    let (runtime, [mut interrupt, mut terminate, mut hangup]) = match signals {
        Ok(all) => all,
        Err(error) => return drop(ready.send(Err(error))),
    };
    let _ = ready.send(Ok(()));
    runtime.block_on(async {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
        }
    });
    let _ = tell.send(());
}
