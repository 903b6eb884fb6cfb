//! Whether TCP's maximum segment size is lowered on its way through, and how often it was. A host behind this one does
//! not know the tunnel's MTU, and where ICMP is dropped it never learns of it.

use std::sync::atomic::{AtomicU16, AtomicU64, Ordering};

use crate::wire::mss::{self, Checksum};

/// Both directions: a SYN that leaves tells the far host, a SYN that came tells the near one.
#[derive(Debug, Default)]
pub struct MssClamp {
    /// The tunnel's MTU; 0: it is left alone.
    mtu: AtomicU16,
    clamped: AtomicU64,
}

impl MssClamp {
    /// From now on; `None`: no longer.
    pub fn set(&self, mtu: Option<u16>) {
        self.mtu.store(mtu.unwrap_or(0), Ordering::Relaxed);
    }

    /// How many SYNs were altered.
    pub fn clamped(&self) -> u64 {
        self.clamped.load(Ordering::Relaxed)
    }

    /// Looks at one packet. A SYN of this host itself names no more than fits, and stays as it is.
    #[inline]
    pub(super) fn apply(&self, packet: &mut [u8], checksum: Checksum) {
        if !mss::may_be_syn(packet) {
            return;
        }
        let mtu = self.mtu.load(Ordering::Relaxed);
        if mtu != 0 && mss::clamp(packet, mtu, checksum) {
            self.clamped.fetch_add(1, Ordering::Relaxed);
        }
    }
}
