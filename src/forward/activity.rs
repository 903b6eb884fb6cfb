//! When what last happened at a peer, and how much: what the upper half's timers go by.

use std::sync::atomic::{
    AtomicU32, AtomicU64,
    Ordering::{Relaxed, SeqCst},
};

use super::Time;

/// When what last happened (nanoseconds of [`Time`], 0 = never) and how much: written by data threads once a
/// batch, read by the upper half's timers and by status.
#[derive(Default, Debug)]
pub struct Activity {
    /// Last authentic packet of any kind sent (data, keepalive; the upper half adds handshakes).
    pub sent: AtomicU64,
    /// Last authentic packet of any kind received.
    pub received: AtomicU64,
    /// First data (not keepalive) sent since the last authentic packet was received.
    pub unanswered_since: AtomicU64,
    /// First data received since we last sent anything authentic: we owe a keepalive.
    pub owed_since: AtomicU64,
    /// Bit 0: the upper half has a timer armed for `unanswered_since`; bit 1: for `owed_since`. A data thread
    /// raises [`super::Raised::TIMER`] only when the bit is not set, so a busy peer costs one notice per timeout.
    pub armed: AtomicU32,
    /// UDP payload bytes of authentic messages received, handshakes included.
    pub rx_bytes: AtomicU64,
    /// UDP payload bytes sent, handshakes included.
    pub tx_bytes: AtomicU64,
    /// Data packets delivered to the TUN.
    pub rx_packets: AtomicU64,
    /// Data packets sealed.
    pub tx_packets: AtomicU64,
}

/// Bit of [`Activity::armed`] for `unanswered_since`.
pub const UNANSWERED_ARMED: u32 = 1;
/// Bit of [`Activity::armed`] for `owed_since`.
pub const OWED_ARMED: u32 = 2;

/// The hooks, named by what happened (the kernel's timers.c). Where one returns true, the
/// upper half has no timer armed for what just began: a data thread then raises [`super::Raised::TIMER`].
///
/// The upper half, when a timer fires, first clears its bit in `armed` and then reads the time, both `SeqCst`:
/// so either it sees the time that a data thread has just set, or that thread sees the bit cleared.
impl Activity {
    /// Anything authentic was sent: `bytes` of UDP payload. A keepalive is no longer owed.
    pub fn authentic_sent(&self, bytes: u64, now: Time) {
        self.sent.store(now.0, Relaxed);
        self.tx_bytes.fetch_add(bytes, Relaxed);
        clear(&self.owed_since);
    }
    /// `packets` of data (not keepalives) were sent: an answer is expected.
    #[must_use]
    pub fn data_sent(&self, packets: u64, bytes: u64, now: Time) -> bool {
        self.authentic_sent(bytes, now);
        self.tx_packets.fetch_add(packets, Relaxed);
        begin(&self.unanswered_since, now) && self.armed.load(SeqCst) & UNANSWERED_ARMED == 0
    }
    /// Anything authentic was received: the peer lives.
    pub fn authentic_received(&self, bytes: u64, now: Time) {
        self.received.store(now.0, Relaxed);
        self.rx_bytes.fetch_add(bytes, Relaxed);
        clear(&self.unanswered_since);
    }
    /// So many data packets of it were fit for the TUN.
    pub fn packets_delivered(&self, packets: u64) {
        self.rx_packets.fetch_add(packets, Relaxed);
    }
    /// Some of it was data (not a keepalive), and will be answered by a keepalive if by nothing else.
    #[must_use]
    pub fn data_received(&self, now: Time) -> bool {
        begin(&self.owed_since, now) && self.armed.load(SeqCst) & OWED_ARMED == 0
    }
}

/// Sets a time that is still "never"; true if this was it. A read first: a busy peer's line is not written.
fn begin(since: &AtomicU64, now: Time) -> bool {
    since.load(Relaxed) == 0 && since.compare_exchange(0, now.0.max(1), SeqCst, Relaxed).is_ok()
}

fn clear(since: &AtomicU64) {
    if since.load(Relaxed) != 0 {
        since.store(0, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn times(activity: &Activity) -> [u64; 4] {
        [&activity.sent, &activity.received, &activity.unanswered_since, &activity.owed_since]
            .map(|time| time.load(Relaxed))
    }

    #[test]
    fn data_sent_waits_for_an_answer_from_the_first_packet_on() {
        let activity = Activity::default();
        assert!(activity.data_sent(1, 100, Time(5)));
        assert!(!activity.data_sent(2, 200, Time(6)), "one notice is enough");
        assert_eq!(times(&activity), [6, 0, 5, 0]);
        assert_eq!((activity.tx_packets.load(Relaxed), activity.tx_bytes.load(Relaxed)), (3, 300));
    }

    #[test]
    fn anything_received_is_an_answer() {
        let activity = Activity::default();
        assert!(activity.data_sent(1, 100, Time(5)));
        activity.authentic_received(32, Time(7));
        assert_eq!(times(&activity), [5, 7, 0, 0]);
        assert!(activity.data_sent(1, 100, Time(9)), "the next wait begins");
        assert_eq!(times(&activity), [9, 7, 9, 0]);
    }

    #[test]
    fn data_received_is_owed_a_keepalive_until_anything_is_sent() {
        let activity = Activity::default();
        activity.authentic_received(128, Time(3));
        assert!(activity.data_received(Time(3)));
        activity.authentic_received(128, Time(4));
        assert!(!activity.data_received(Time(4)));
        assert_eq!(times(&activity), [0, 4, 0, 3]);
        activity.authentic_sent(32, Time(8));
        assert_eq!(times(&activity), [8, 4, 0, 0], "a keepalive is not answered");
        assert_eq!(activity.tx_packets.load(Relaxed), 0);
    }

    #[test]
    fn an_armed_timer_wants_no_notice() {
        let activity = Activity::default();
        activity.armed.store(UNANSWERED_ARMED, SeqCst);
        assert!(!activity.data_sent(1, 1, Time(1)));
        assert!(activity.data_received(Time(1)));
        let activity = Activity::default();
        activity.armed.store(OWED_ARMED, SeqCst);
        assert!(activity.data_sent(1, 1, Time(1)));
        activity.owed_since.store(0, SeqCst);
        assert!(!activity.data_received(Time(2)));
        assert_eq!(times(&activity), [1, 0, 1, 2], "the times are kept all the same");
    }
}
