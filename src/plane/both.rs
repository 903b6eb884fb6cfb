//! Both directions in one thread: what a machine with one core has the most of.

use std::{os::fd::AsFd, time::Duration};

use super::{
    Fatal, inbound, outbound,
    shared::{Shared, rest},
};
use crate::sys::poll::{self, Interest};

/// Runs until it is stopped, or the device is gone.
pub(super) fn run(shared: &Shared) -> Result<(), Fatal> {
    let (mut out, mut inb) = (outbound::Walk::new(shared), inbound::Walk::new(shared));
    while !shared.stopping() {
        let (sockets, at_once) = {
            let mut input = shared.inbound.input();
            (input.sockets(&shared.sockets), input.any().then_some(Duration::ZERO))
        };
        let [v4, v6] = inbound::waited_for(&sockets);
        let [tun, wake_out, wake_in] =
            [shared.tun.as_fd(), shared.outbound.wake.as_fd(), shared.inbound.wake.as_fd()]
                .map(|fd| Some((fd, Interest::Read)));
        let Ok([tun, v4, v6, wake_out, wake_in]) = poll::wait([tun, v4, v6, wake_out, wake_in], at_once)
        else {
            rest(&shared.inbound.wake);
            continue;
        };
        for (woken, lane) in [(wake_out, &shared.outbound), (wake_in, &shared.inbound)] {
            if woken.readable {
                lane.wake.clear();
            }
        }
        if outbound::is_ready(shared, tun)? {
            shared.outbound.input().more[0] = true;
            out.rounds()?;
        }
        inbound::is_ready(&mut shared.inbound.input(), [v4, v6]);
        inb.rounds()?;
    }
    Ok(())
}
