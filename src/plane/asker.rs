//! Asks for cookies: a thread of its own, which comes after those that carry data and those that use what they carry. A
//! flood of strangers takes what these leave.

use std::{os::fd::AsFd, thread, time::Duration};

use rand_core::CryptoRng;

use super::{
    rest::{Vain, rest},
    shared::Shared,
};
use crate::{
    forward::Evidence,
    sys::{
        poll::{self, Interest},
        random::os_rng,
    },
    wire::outer::Outer,
};

/// Its place among the other threads, as nice(1) counts.
pub(super) const NICE: i8 = 10;
/// So many answers it gives before it lets others go first, who wait for its core: they do not take it (SCHED_BATCH).
const TURN: usize = 4;
/// How long it lets more come before it looks again: to be woken for each of a flood would cost more than the answer.
const REST: Duration = Duration::from_millis(1);

/// Runs until it is stopped.
pub(super) fn run(shared: &Shared) {
    let (mut rng, mut waits) = (os_rng(), Vain::default());
    while !shared.stopping() {
        let called = [Some((shared.asking.as_fd(), Interest::Read))];
        let Ok([called]) = poll::wait(called, None) else {
            rest(&shared.asking);
            continue;
        };
        waits.waited(false, [(called, &shared.asking)]);
        while !shared.stopping() && turn(shared, &mut rng) {
            thread::yield_now();
        }
        thread::sleep(REST);
    }
}

/// False when nobody waits any more.
fn turn(shared: &Shared, rng: &mut (impl CryptoRng + ?Sized)) -> bool {
    let now = shared.clock.boot();
    (0..TURN).all(|_| {
        let Some(asked) = shared.forward.ask_for_cookie(now, rng) else { return false };
        let sent = shared.send(&asked.to, Outer::default(), &asked.reply, Evidence::default, now);
        if let Err(error) = sent {
            tracing::debug!(to = %asked.to.remote, %error, "could not send a cookie");
        }
        true
    })
}
