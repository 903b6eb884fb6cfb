//! The order in which batches leave (`src/plane/order.rs`), in every interleaving that its threads can have: loom
//! runs each. The file is included here with loom's primitives in place of the standard library's.

// One file, two homes: what a model does not call is used in the other.
#[allow(dead_code)]
#[path = "../src/plane/order.rs"]
mod order;

/// What `order` waits with here.
mod sync {
    pub use loom::sync::{Condvar, Mutex, MutexGuard};
}

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use loom::{
    cell::UnsafeCell,
    model::Builder,
    sync::{Arc, Mutex},
    thread,
};
use order::Order;

/// Switches between threads that no thread asked for, in one run of the larger models. All bugs that are known to
/// literature show with two.
const SWITCHES: usize = 2;

/// The input and the output of one direction, and the order between them.
struct Model {
    order: Order,
    /// The batches that nobody has taken yet.
    input: Mutex<std::ops::Range<usize>>,
    output: Mutex<Vec<usize>>,
    /// Accessed while a batch leaves: loom sees two at a time.
    device: UnsafeCell<()>,
}

/// What a worker does with a batch.
#[derive(Clone, Copy)]
enum Conduct {
    /// Waits for its turn, and sends.
    Proper,
    /// Panics with this batch, before its turn.
    PanicsAt(usize),
    /// Asks for its turn twice, as a worker whose batch fills its carriers does.
    LeavesInParts,
    /// Sends before its turn.
    Hurries,
}

impl Model {
    fn new(batches: usize) -> Self {
        Self {
            order: Order::default(),
            input: Mutex::new(0..batches),
            output: Mutex::default(),
            device: UnsafeCell::new(()),
        }
    }

    /// As the loops do it: the ticket is taken while the input is held, the work is done while it is not.
    fn work(&self, conduct: Conduct) {
        loop {
            let mut input = self.input.lock().unwrap();
            let Some(batch) = input.next() else { return };
            let mut ticket = self.order.ticket();
            drop(input);
            match conduct {
                Conduct::PanicsAt(at) if at == batch => resume_unwind(Box::new("without a message")),
                Conduct::Hurries => self.send(batch),
                Conduct::Proper | Conduct::PanicsAt(_) => {
                    ticket.wait();
                    self.send(batch);
                }
                Conduct::LeavesInParts => {
                    for _part in 0..2 {
                        ticket.wait();
                        self.send(batch);
                    }
                }
            }
        }
    }

    fn send(&self, batch: usize) {
        self.device.with_mut(|_| self.output.lock().unwrap().push(batch));
    }
}

/// Runs `workers` over so many batches; what left, in order.
fn run(workers: usize, batches: usize, conduct: Conduct) -> Vec<usize> {
    let model = Arc::new(Model::new(batches));
    // The model's first thread is a worker, too.
    let others: Vec<_> = (1..workers)
        .map(|_| {
            let model = Arc::clone(&model);
            thread::spawn(move || guarded(&model, conduct))
        })
        .collect();
    guarded(&model, conduct);
    others.into_iter().for_each(|worker| worker.join().unwrap());
    let output = model.output.lock().unwrap();
    output.clone()
}

/// A data thread catches its panics, too.
fn guarded(model: &Model, conduct: Conduct) {
    let _ended = catch_unwind(AssertUnwindSafe(|| model.work(conduct)));
}

/// Every interleaving; `switches` bounds the unforced switches between threads in each.
fn every_interleaving(switches: Option<usize>, run: impl Fn() + Sync + Send + 'static) {
    let mut builder = Builder::new();
    builder.preemption_bound = switches;
    builder.check(run);
}

#[test]
fn two_workers_send_their_batches_in_the_order_in_which_they_took_them() {
    every_interleaving(None, || assert_eq!(run(2, 3, Conduct::Proper), [0, 1, 2]));
}

#[test]
fn three_workers_do_so_too() {
    every_interleaving(Some(SWITCHES), || assert_eq!(run(3, 6, Conduct::Proper), [0, 1, 2, 3, 4, 5]));
}

#[test]
fn what_leaves_in_parts_is_not_mixed_with_another_batch() {
    let parts = [0, 0, 1, 1, 2, 2];
    every_interleaving(Some(SWITCHES), move || assert_eq!(run(2, 3, Conduct::LeavesInParts), parts));
}

#[test]
fn a_worker_that_panics_before_its_turn_holds_up_nobody() {
    for at in 0..3 {
        let others: Vec<_> = (0..3).filter(|&batch| batch != at).collect();
        every_interleaving(None, move || {
            assert_eq!(run(2, 3, Conduct::PanicsAt(at)), others);
        });
    }
}

#[test]
fn one_of_three_workers_that_panics_holds_up_nobody() {
    every_interleaving(Some(SWITCHES), || assert_eq!(run(3, 4, Conduct::PanicsAt(1)), [0, 2, 3]));
}

/// That the model can tell.
#[test]
#[should_panic]
fn a_worker_that_does_not_wait_for_its_turn_is_seen() {
    every_interleaving(None, || assert_eq!(run(2, 2, Conduct::Hurries), [0, 1]));
}
