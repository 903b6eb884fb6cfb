//! One direction: its input, which one worker holds at a time, and the order in which batches leave.

use std::{
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use arc_swap::ArcSwap;

use super::{
    UdpSockets,
    order::{Order, Ticket},
    pace::LogGate,
    shared::ROUNDS,
};
use crate::sys::event::EventFd;

/// Shared by the workers of one direction.
pub(super) struct Lane {
    pub(super) workers: usize,
    input: Mutex<Input>,
    order: Order,
    /// Its complaints.
    pub(super) log: LogGate,
    /// Wakes the worker that waits for input: stop, or look again.
    pub(super) wake: EventFd,
}

/// What is known of the input.
#[derive(Debug, Default)]
pub(super) struct Input {
    /// It may hold more: it is read without being waited for. By descriptor, where there are two.
    pub(super) more: [bool; 2],
    /// Batches since all descriptors were looked at.
    pub(super) rounds: usize,
    /// The sockets that are read.
    sockets: Option<Arc<UdpSockets>>,
    /// They were replaced: batches that are still taken from them.
    last_rounds: usize,
}

impl Input {
    /// May any descriptor hold more?
    pub(super) fn any(&self) -> bool {
        self.more.contains(&true)
    }

    /// The sockets to read. When others took their place, what the old ones had received comes first.
    pub(super) fn sockets(&mut self, current: &ArcSwap<UdpSockets>) -> Arc<UdpSockets> {
        let current = current.load();
        let known = self.sockets.get_or_insert_with(|| Arc::clone(&current));
        if Arc::ptr_eq(known, &current) {
            return Arc::clone(known);
        }
        if self.last_rounds == 0 {
            (self.last_rounds, self.more) = (ROUNDS, [true; 2]);
        }
        self.last_rounds -= 1;
        if self.last_rounds == 0 || !self.more.contains(&true) {
            (self.last_rounds, self.more) = (0, [true; 2]);
            *known = Arc::clone(&current);
        }
        Arc::clone(known)
    }
}

impl Lane {
    pub(super) fn new(workers: usize) -> io::Result<Self> {
        Ok(Self {
            workers,
            input: Mutex::default(),
            order: Order::default(),
            log: LogGate::default(),
            wake: EventFd::new()?,
        })
    }

    /// The input, when no other worker holds it.
    pub(super) fn input(&self) -> MutexGuard<'_, Input> {
        // Two hints; a worker that panicked ends the process anyway.
        self.input.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place in the order for what was just read. Where there is more to read and somebody to do it, the input is
    /// given up; else it is kept until this batch has left, so that nobody is woken for nothing.
    pub(super) fn taken<'a>(
        &'a self,
        input: MutexGuard<'a, Input>,
    ) -> (Ticket<'a>, Option<MutexGuard<'a, Input>>) {
        let ticket = self.order.ticket();
        let kept = (self.workers == 1 || !input.any()).then_some(input);
        (ticket, kept)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_old_sockets_had_received_comes_before_the_new_ones_but_not_for_ever() {
        let sockets = || Arc::new(UdpSockets::bind(0, 0).expect("a port"));
        let (old, new, newest) = (sockets(), sockets(), sockets());
        let current = ArcSwap::new(old.clone());
        let mut input = Input::default();
        let reads = |input: &mut Input, which: &Arc<UdpSockets>| Arc::ptr_eq(&input.sockets(&current), which);
        assert!(reads(&mut input, &old) && !input.any(), "nothing is known to wait");
        current.store(new.clone());
        assert!(reads(&mut input, &old) && input.any(), "they may hold something");
        assert!(reads(&mut input, &old), "and do");
        input.more = [false; 2];
        assert!(reads(&mut input, &new) && input.any(), "drained");
        current.store(newest.clone());
        let rounds = (0..).find(|_| reads(&mut input, &newest)).expect("an end");
        assert_eq!(rounds, ROUNDS - 1, "a flood of the old port ends there");
        assert!(reads(&mut input, &newest) && input.any());
    }
}
