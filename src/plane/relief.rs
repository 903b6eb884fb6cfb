//! A second thread that takes the inbound direction over while there is much to do, and gives it back when there is
//! not. Where little happens one thread does all: each packet that meets a sleeping thread costs a wake-up, and the
//! thread that sent the question is still warm when the answer comes.

use std::{
    io,
    os::fd::AsFd,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use super::{
    Fatal, inbound,
    shared::{BATCH, ROUNDS, Shared, rest},
};
use crate::sys::{
    event::EventFd,
    poll::{self, Interest},
};

/// How long nothing arrives before the direction is given back.
const IDLE: Duration = Duration::from_millis(5);

/// Who reads the sockets: the first thread, or the second.
pub(super) struct Relief {
    /// There is a second thread.
    present: bool,
    /// It has the sockets.
    active: AtomicBool,
    /// Wakes it: to take over, or to stop.
    pub(super) wake: EventFd,
}

impl Relief {
    pub(super) fn new(present: bool) -> io::Result<Self> {
        Ok(Self { present, active: AtomicBool::new(false), wake: EventFd::new()? })
    }

    /// Has the second thread the sockets?
    pub(super) fn is_active(&self) -> bool {
        self.active.load(Ordering::Acquire)
    }

    /// Could it be called?
    pub(super) fn is_ready(&self) -> bool {
        self.present && !self.is_active()
    }

    /// The first thread hands the sockets over.
    pub(super) fn call(&self) {
        self.active.store(true, Ordering::Release);
        self.wake.signal();
    }

    /// The second thread gives them back; then it wakes the first.
    fn give_back(&self) {
        self.active.store(false, Ordering::Release);
    }
}

/// The second thread: runs until it is stopped, or the device is gone.
pub(super) fn run(shared: &Shared) -> Result<(), Fatal> {
    let mut walk = inbound::Walk::new(shared);
    while !shared.stopping() {
        if poll::wait([Some((shared.relief.wake.as_fd(), Interest::Read))], None).is_err() {
            rest(&shared.relief.wake);
            continue;
        }
        shared.relief.wake.clear();
        while shared.relief.is_active() && !shared.stopping() {
            if !turn(shared, &mut walk)? {
                shared.relief.give_back();
                shared.outbound.wake.signal();
            }
        }
    }
    Ok(())
}

/// Waits for datagrams and takes them; false when none came.
fn turn(shared: &Shared, walk: &mut inbound::Walk<'_>) -> Result<bool, Fatal> {
    let (sockets, at_once) = {
        let mut input = shared.inbound.input();
        (input.sockets(&shared.sockets), input.any())
    };
    let [v4, v6] = inbound::waited_for(&sockets);
    let [wake, called] =
        [&shared.inbound.wake, &shared.relief.wake].map(|wake| Some((wake.as_fd(), Interest::Read)));
    let patience = if at_once { Duration::ZERO } else { IDLE };
    let Ok([v4, v6, wake, called]) = poll::wait([v4, v6, wake, called], Some(patience)) else {
        rest(&shared.relief.wake);
        return Ok(true);
    };
    for (woken, event) in [(wake, &shared.inbound.wake), (called, &shared.relief.wake)] {
        if woken.readable {
            event.clear();
        }
    }
    inbound::is_ready(&mut shared.inbound.input(), [v4, v6]);
    walk.rounds(BATCH, ROUNDS)?;
    Ok(at_once || v4.readable || v6.readable || wake.readable || called.readable)
}
