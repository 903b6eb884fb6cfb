//! What [`super::order`] waits with: the standard library's; the model checker (`tests/order.rs`) has its own.

pub use std::sync::{Condvar, Mutex, MutexGuard};
