//! A fault must not spin. What fails, or is said to be ready and is not, is tried again a few times at once; where that
//! was in vain, the loop rests before it tries again. In good times this costs a store beside each system call, or less.

use std::{os::fd::AsFd, thread, time::Duration};

use super::Clock;
use crate::sys::{
    event::EventFd,
    poll::{self, Interest, Ready},
};

/// How many attempts in a row are in vain, before a loop rests.
const AT_ONCE: u32 = 8;
/// How long it rests.
const PAUSE: Duration = Duration::from_millis(50);
/// How often what must succeed is attempted: for ten seconds.
const ATTEMPTS: u32 = 200;

/// Counts attempts in a row that were in vain.
#[derive(Debug, Default)]
pub(super) struct Vain(u32);

impl Vain {
    /// It worked.
    pub(super) fn none(&mut self) {
        self.0 = 0;
    }

    /// It was in vain; true when it is time to rest.
    pub(super) fn one_more(&mut self) -> bool {
        self.0 = self.0.saturating_add(1);
        self.0 > AT_ONCE
    }

    /// A wait is over: because something was `found`, or by these wakers, which are made ready for the next time. A signal
    /// ends a wait for nothing, and a waker that cannot be cleared ends each: neither may keep a loop busy.
    pub(super) fn waited<const N: usize>(&mut self, found: bool, wakers: [(Ready, &EventFd); N]) {
        let (mut found, mut stuck) = (found, false);
        for (_, wake) in wakers.iter().filter(|(ready, _)| ready.readable) {
            let cleared = wake.clear();
            (found, stuck) = (found || cleared, stuck || !cleared);
        }
        if found && !stuck {
            self.none();
        } else if self.one_more() {
            thread::sleep(PAUSE);
        }
    }
}

/// Rests a moment, unless there is something else to do.
pub(super) fn rest(wake: &EventFd) {
    let begin = Clock.boot();
    if poll::wait([Some((wake.as_fd(), Interest::Read))], Some(PAUSE)).is_ok_and(|[wake]| wake.readable) {
        return;
    }
    // Poll itself may be what fails (ENOMEM), or what signals end: there is still the plain way to sleep.
    thread::sleep(PAUSE.saturating_sub(Clock.boot().since(begin)));
}

/// Wakes by this, where nobody will do it again, and nothing goes on without it.
pub(super) fn insist(wake: &EventFd) {
    persevere(|| wake.signal());
}

/// Again until it succeeds; not for ever, since somebody may wait for us to end.
pub(super) fn persevere(attempt: impl Fn() -> bool) {
    for _ in 0..ATTEMPTS {
        if attempt() {
            return;
        }
        thread::sleep(PAUSE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const READABLE: Ready = Ready { readable: true, writable: false, failed: false };
    const NOT: Ready = Ready { readable: false, writable: false, failed: false };

    #[test]
    fn a_few_failures_in_a_row_are_tried_again_at_once_and_then_each_is_followed_by_a_rest() {
        let mut vain = Vain::default();
        let rests: Vec<bool> = (0..12).map(|_| vain.one_more()).collect();
        assert_eq!(rests, [[false; 8].as_slice(), &[true; 4]].concat());
        vain.none();
        assert!(!vain.one_more(), "what works once is trusted again");
    }

    #[test]
    fn waits_that_end_for_nothing_are_slowed_down_and_those_that_a_waker_ends_are_not() {
        let wake = EventFd::new().unwrap();
        let mut vain = Vain::default();
        let took = |vain: &mut Vain, found, ready| {
            let begin = Clock.boot();
            (0..20).for_each(|_| {
                if ready == READABLE {
                    wake.signal();
                }
                vain.waited(found, [(ready, &wake)]);
            });
            Clock.boot().since(begin)
        };
        assert!(took(&mut vain, false, NOT) >= 12 * PAUSE);
        // Whatever else this machine does, it does not sleep twenty times.
        assert!(took(&mut vain, true, NOT) < 12 * PAUSE && took(&mut vain, false, READABLE) < 12 * PAUSE);
    }

    /// Whatever else is there to do: it would cut each rest short, and each wait.
    #[test]
    fn a_waker_that_cannot_be_cleared_keeps_no_loop_busy() {
        let wake = EventFd::new().unwrap();
        let mut vain = Vain::default();
        let begin = Clock.boot();
        // It is said to be readable, and is not: what cannot be read cannot be told from that.
        (0..12).for_each(|_| vain.waited(true, [(READABLE, &wake)]));
        assert!(Clock.boot().since(begin) >= 4 * PAUSE);
    }

    #[test]
    fn a_rest_ends_early_by_a_waker_alone() {
        let wake = EventFd::new().unwrap();
        let begin = Clock.boot();
        rest(&wake);
        assert!(Clock.boot().since(begin) >= PAUSE);
        wake.signal();
        rest(&wake);
        assert!(wake.clear(), "it is for the loop to see");
    }
}
