//! One direction: its input, which one worker holds at a time, and the order in which batches leave.

use std::{
    io,
    sync::{Mutex, MutexGuard, PoisonError},
};

use super::{
    order::{Order, Ticket},
    pace::LogGate,
};
use crate::sys::event::EventFd;

/// Shared by the workers of one direction.
pub(super) struct Lane {
    workers: usize,
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
}

impl Input {
    /// May any descriptor hold more?
    pub(super) fn any(&self) -> bool {
        self.more.contains(&true)
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
