//! Both directions in one thread: all that a machine with one core needs, and the best where little happens.

use std::{os::fd::AsFd, time::Duration};

use super::{
    Fatal, inbound, outbound,
    pulse::Pulse,
    rest::{Vain, rest},
    shared::{ROUNDS, Shared},
};
use crate::sys::poll::{self, Interest, Ready};

/// Batches in a row after which the second thread is called.
const BUSY: usize = 4;

/// Runs until it is stopped, or the device is gone.
pub(super) fn run(shared: &Shared, pulse: &Pulse) -> Result<(), Fatal> {
    let (mut out, mut inb) = (outbound::Walk::new(shared), inbound::Walk::new(shared));
    let mut waits = Vain::default();
    while !shared.stopping() {
        // While the second thread has the sockets, this one leaves them alone; it waits with their input held.
        let own = (!shared.relief.is_active()).then(|| {
            let mut input = shared.inbound.input();
            (input.sockets(&shared.sockets), input.any())
        });
        let at_once = own.as_ref().is_some_and(|(_, more)| *more);
        let [v4, v6] = own.as_ref().map_or([None; 2], |(sockets, _)| inbound::waited_for(sockets));
        let [tun, wake_out, wake_in] =
            [shared.tun.as_fd(), shared.outbound.wake.as_fd(), shared.inbound.wake.as_fd()]
                .map(|fd| Some((fd, Interest::Read)));
        let waited_for = [tun, v4, v6, wake_out, wake_in.filter(|_| own.is_some())];
        let patience = at_once.then_some(Duration::ZERO);
        let Ok([tun, v4, v6, wake_out, wake_in]) = pulse.rests(|| poll::wait(waited_for, patience)) else {
            rest(&shared.outbound.wake);
            continue;
        };
        let found = at_once || [tun, v4, v6] != [Ready::default(); 3];
        waits.waited(found, [(wake_out, &shared.outbound.wake), (wake_in, &shared.inbound.wake)]);
        let rounds = if shared.relief.is_ready() { BUSY } else { ROUNDS };
        let mut drained = true;
        if outbound::is_ready(shared, tun)? {
            shared.outbound.input().more[0] = true;
            drained &= out.rounds(rounds)?;
        }
        if own.is_some() {
            inbound::is_ready(&mut shared.inbound.input(), [v4, v6]);
            drained &= inb.rounds(rounds)?;
        }
        if !drained && shared.relief.is_ready() {
            shared.relief.call();
        }
    }
    Ok(())
}
