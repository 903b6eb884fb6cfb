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
    pulse::Pulse,
    rest::{Vain, insist, rest},
    shared::Shared,
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
        if !self.wake.signal() {
            // It heard nothing of it: they stay with the first.
            self.give_back();
        }
    }

    /// They are the first thread's again, which is then to be woken.
    fn give_back(&self) {
        self.active.store(false, Ordering::Release);
    }
}

/// The second thread: runs until it is stopped, or the device is gone. While it has the sockets, nobody else waits for
/// them or is woken for them.
pub(super) fn run(shared: &Shared, pulse: &Pulse) -> Result<(), Fatal> {
    let (mut walk, mut waits) = (inbound::Walk::new(shared), Vain::default());
    while !shared.stopping() {
        let called = [Some((shared.relief.wake.as_fd(), Interest::Read))];
        let Ok([wake]) = pulse.rests(|| poll::wait(called, None)) else {
            rest(&shared.relief.wake);
            continue;
        };
        waits.waited(false, [(wake, &shared.relief.wake)]);
        while shared.relief.is_active() && !shared.stopping() {
            if !walk.turn(Some(IDLE), pulse)? {
                shared.relief.give_back();
                insist(&shared.outbound.wake);
            }
        }
    }
    Ok(())
}
