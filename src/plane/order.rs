//! Batches are taken in turn, worked on side by side, and leave in the order in which they were taken.

use super::sync::{Condvar, Mutex, MutexGuard};

/// Hands out tickets and knows whose turn it is.
#[derive(Default)]
pub struct Order {
    state: Mutex<State>,
    passed: Condvar,
}

#[derive(Default)]
struct State {
    /// The next ticket's number.
    next: u64,
    /// Whose turn it is.
    turn: u64,
    /// Workers that wait for theirs.
    waiting: usize,
}

/// A place in the order. Dropping it gives the turn to the next one, after all before it had theirs: a worker
/// that panics holds up nobody.
pub struct Ticket<'a> {
    order: &'a Order,
    number: u64,
    /// Its turn has come.
    has_turn: bool,
}

impl Order {
    /// A place behind all that were given out before. To be called while the input is held, so that places are given
    /// out in the order of the input.
    pub fn ticket(&self) -> Ticket<'_> {
        let mut state = self.lock();
        let number = state.next;
        state.next += 1;
        Ticket { order: self, number, has_turn: false }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Three numbers, whole between any two statements.
        self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

impl Ticket<'_> {
    /// Returns when it is this one's turn.
    pub fn wait(&mut self) {
        if self.has_turn {
            return;
        }
        let mut state = self.order.lock();
        state.waiting += 1;
        while state.turn != self.number {
            state = self.order.passed.wait(state).unwrap_or_else(|poisoned| poisoned.into_inner());
        }
        state.waiting -= 1;
        self.has_turn = true;
    }
}

impl Drop for Ticket<'_> {
    fn drop(&mut self) {
        self.wait();
        let mut state = self.order.lock();
        state.turn += 1;
        // Waking nobody still costs a system call.
        if state.waiting > 0 {
            self.order.passed.notify_all();
        }
    }
}
