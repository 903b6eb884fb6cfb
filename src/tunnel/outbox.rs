//! The two queues that leave the room: datagrams to send and events to tell. Both are bounded.

use std::collections::VecDeque;

use super::{Event, Transmit};

/// Datagrams that may wait to be sent: the newest is dropped when it is full.
pub const TRANSMIT_QUEUE: usize = 4096;
/// Events that may wait to be told: the oldest is dropped when it is full.
pub const EVENT_QUEUE: usize = 1024;

/// What waits to leave.
#[derive(Default)]
pub(super) struct Outbox {
    transmits: VecDeque<Transmit>,
    events: VecDeque<Event>,
}

impl Outbox {
    /// Is there no room for another datagram?
    pub(super) fn is_full(&self) -> bool {
        self.transmits.len() >= TRANSMIT_QUEUE
    }

    /// Queues a datagram; false if there was no room and it was dropped.
    pub(super) fn transmit(&mut self, transmit: Transmit) -> bool {
        let room = !self.is_full();
        if room {
            self.transmits.push_back(transmit);
        }
        room
    }

    /// Queues an event.
    pub(super) fn event(&mut self, event: Event) {
        if self.events.len() >= EVENT_QUEUE {
            self.events.pop_front();
        }
        self.events.push_back(event);
    }

    /// The next datagram.
    pub(super) fn poll_transmit(&mut self) -> Option<Transmit> {
        self.transmits.pop_front()
    }

    /// The next event.
    pub(super) fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::forward::Endpoint;

    fn datagram(n: usize) -> Transmit {
        Transmit {
            peer: None,
            to: Endpoint { remote: ([127, 0, 0, 1], 1).into(), local: None },
            outer: crate::wire::outer::Outer::default(),
            datagram: n.to_le_bytes().to_vec().into(),
        }
    }

    #[test]
    fn a_full_outbox_drops_the_newest_datagram_and_the_oldest_event() {
        let mut outbox = Outbox::default();
        for n in 0..TRANSMIT_QUEUE {
            assert!(outbox.transmit(datagram(n)));
        }
        assert!(!outbox.transmit(datagram(TRANSMIT_QUEUE)));
        assert_eq!(outbox.poll_transmit().expect("full").datagram, datagram(0).datagram);
        assert_eq!(std::iter::from_fn(|| outbox.poll_transmit()).count(), TRANSMIT_QUEUE - 1);

        outbox.event(Event::UnderLoad(true));
        for _ in 0..EVENT_QUEUE {
            outbox.event(Event::UnderLoad(false));
        }
        assert_eq!(outbox.poll_event(), Some(Event::UnderLoad(false)));
        assert_eq!(std::iter::from_fn(|| outbox.poll_event()).count(), EVENT_QUEUE - 1);
    }
}
