//! Handshake datagrams on their way to the upper half: bounded, and nobody's flood takes the place of the others.
//!
//! What is not meant for our key never gets here. A source has a part of the queue, and not the queue. Who shows a cookie
//! is asked in before those who do not; and cookie replies, which carry no mac1 and which anybody can make for nothing,
//! wait in a queue of their own, and are no load.

use std::{
    net::IpAddr,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU16, AtomicU32, Ordering},
    },
};

use arc_swap::ArcSwapOption;
use crossbeam_queue::ArrayQueue;
use rand_core::CryptoRng;

use super::{
    Endpoint, Refusal,
    asking::{ASKED_QUEUE, Asking, Reply, sender},
};
use crate::{
    noise::macs::{CookieSecret, MacKeys},
    wire::message::Kind,
};

/// A handshake datagram (or cookie reply) on its way to the upper half.
#[derive(Clone, Debug)]
pub struct HandshakeDatagram {
    /// Where it came from, and which of our addresses it came to.
    pub from: Endpoint,
    /// The whole datagram, at most 148 bytes.
    pub bytes: bytes::Bytes,
}

/// Datagrams that may wait for the upper half (the kernel's MAX_QUEUED_INCOMING_HANDSHAKES).
pub const HANDSHAKE_QUEUE: usize = 4096;
/// Of one source: half of what puts everybody under load, so that no source alone can.
pub const SHARE: u16 = (HANDSHAKE_QUEUE / 16) as u16;
/// Messages with a cookie that may wait, beside those: ten thousand peers that come back at once are asked for one, and
/// then show it within a third of a second.
const SHOWN_QUEUE: usize = 8192;
/// Cookie replies that may wait, beside those. We ask for one a peer in five seconds.
const REPLY_QUEUE: usize = 256;
/// Counters of sources; two share one by chance, and no sender knows which.
const COUNTERS: usize = 4096;

/// The queues, and who may enter them.
pub struct Handshakes {
    messages: ArrayQueue<HandshakeDatagram>,
    shown: ArrayQueue<HandshakeDatagram>,
    /// Who shows no cookie under load.
    pub asking: Asking,
    replies: ArrayQueue<HandshakeDatagram>,
    shares: Shares,
    /// Of our key; none: whoever comes is told by the upper half.
    macs: ArcSwapOption<MacKeys>,
    /// While we are under load.
    cookies: ArcSwapOption<CookieSecret>,
    turn: AtomicU32,
}

/// Memory for so many. A fuzzer makes thousands of tunnels a minute, in which few wait.
pub(super) fn places(room: usize) -> usize {
    if cfg!(fuzzing) { 64 } else { room }
}

impl Handshakes {
    pub(super) fn new() -> Self {
        Self {
            messages: ArrayQueue::new(places(HANDSHAKE_QUEUE)),
            shown: ArrayQueue::new(places(SHOWN_QUEUE)),
            asking: Asking::new(),
            replies: ArrayQueue::new(REPLY_QUEUE),
            shares: Shares::new(),
            macs: ArcSwapOption::empty(),
            cookies: ArcSwapOption::empty(),
            turn: AtomicU32::new(0),
        }
    }

    /// Upper half: messages to us have these macs from now on.
    pub fn set_macs(&self, macs: Option<MacKeys>) {
        self.macs.store(macs.map(Arc::new));
    }

    /// Upper half: we are under load, and these are the cookies that we take; `None`: no longer.
    pub fn set_cookies(&self, secret: Option<Arc<CookieSecret>>) {
        self.cookies.store(secret);
    }

    /// Upper half, once: which sources share a counter is drawn from this.
    pub fn scatter(&self, key: [u64; 2]) {
        let _only_the_first = self.shares.key.set(key);
    }

    /// Is this message, which is an initiation or a response, meant for our key?
    pub(super) fn is_for_us(&self, message: &[u8]) -> bool {
        self.macs.load().as_ref().is_none_or(|macs| macs.mac1_is_valid(message))
    }

    /// Puts a copy where its kind waits; false: that is not with the upper half. A full queue, or a source that has its part
    /// of it, is seen before the copy is made: a flood costs no memory.
    pub(super) fn push(&self, from: &Endpoint, kind: Kind, datagram: &[u8]) -> Result<bool, Refusal> {
        let loaded = self.cookies.load().is_some();
        let (queue, room) = match kind {
            Kind::CookieReply => (&self.replies, REPLY_QUEUE),
            _ if self.shows_cookie(from, datagram) => (&self.shown, SHOWN_QUEUE),
            _ if loaded => (&self.asking.queue, ASKED_QUEUE),
            _ => (&self.messages, HANDSHAKE_QUEUE),
        };
        let is_asked = std::ptr::eq(queue, &raw const self.asking.queue) && self.asking.is_served();
        if is_asked {
            self.asking.came(number(from.remote.ip()));
        }
        if queue.len() >= room {
            return Err(Refusal::HandshakeQueueFull);
        }
        let waiting = self.shares.of(from.remote.ip());
        if waiting.fetch_add(1, Ordering::Relaxed) >= SHARE {
            waiting.fetch_sub(1, Ordering::Relaxed);
            return Err(Refusal::RateLimited);
        }
        let datagram = HandshakeDatagram { from: *from, bytes: bytes::Bytes::copy_from_slice(datagram) };
        let pushed = queue.push(datagram).map_err(|_| {
            waiting.fetch_sub(1, Ordering::Relaxed);
            Refusal::HandshakeQueueFull
        });
        pushed.map(|()| !is_asked)
    }

    /// The next one that is to be asked for a cookie.
    pub(super) fn pop_asking(&self) -> Option<HandshakeDatagram> {
        let datagram = self.asking.queue.pop()?;
        self.shares.of(datagram.from.remote.ip()).fetch_sub(1, Ordering::Relaxed);
        Some(datagram)
    }

    /// What it is answered. (Our key may be another one since it came, and load may be over.)
    pub(super) fn reply_to(
        &self,
        datagram: &HandshakeDatagram,
        rng: &mut (impl CryptoRng + ?Sized),
    ) -> Reply {
        let (macs, cookies) = (self.macs.load(), self.cookies.load());
        let Some(macs) = &*macs else { return Reply::Refuse(Refusal::NoPrivateKey) };
        let Some(secret) = &*cookies else { return Reply::Hear };
        let HandshakeDatagram { from, bytes } = datagram;
        let Ok(sender) = sender(bytes) else { return Reply::Refuse(Refusal::Malformed) };
        if !macs.mac1_is_valid(bytes) {
            return Reply::Refuse(Refusal::Mac1);
        }
        Reply::Ask(macs.seal_cookie(sender, bytes, &secret.cookie(&from.remote), rng).to_bytes())
    }

    /// Under load: does it carry a cookie that we gave? (The upper half looks again: the secret may be a newer one.)
    fn shows_cookie(&self, from: &Endpoint, message: &[u8]) -> bool {
        self.cookies.load().as_ref().is_some_and(|secret| secret.mac2_is_valid(message, &from.remote))
    }

    /// The next one. Those with a cookie first, but one in four turns begins with each of the others.
    pub(super) fn pop(&self) -> Option<HandshakeDatagram> {
        let Self { messages, shown, replies, asking, .. } = self;
        let unserved = || if asking.is_served() { None } else { asking.queue.pop() };
        let message = || messages.pop().or_else(unserved);
        let (shown, reply) = (|| shown.pop(), || replies.pop());
        let datagram = match self.turn.fetch_add(1, Ordering::Relaxed) % 4 {
            0 => message().or_else(reply).or_else(shown),
            1 => reply().or_else(shown).or_else(message),
            _ => shown().or_else(message).or_else(reply),
        }?;
        self.shares.of(datagram.from.remote.ip()).fetch_sub(1, Ordering::Relaxed);
        Some(datagram)
    }

    /// How many wait that are work for the upper half; a cookie reply is hardly any.
    pub(super) fn len(&self) -> usize {
        let unserved = if self.asking.is_served() { 0 } else { self.asking.queue.len() };
        self.messages.len() + self.shown.len() + unserved
    }

    /// How many wait, cookie replies among them.
    #[cfg(test)]
    pub(super) fn all(&self) -> usize {
        self.len() + self.replies.len()
    }
}

/// How many of each source wait: an IPv4 address, or the /64 of an IPv6 one.
struct Shares {
    counters: Box<[AtomicU16]>,
    key: OnceLock<[u64; 2]>,
}

impl Shares {
    fn new() -> Self {
        Self { counters: (0..COUNTERS).map(|_| AtomicU16::new(0)).collect(), key: OnceLock::new() }
    }

    fn of(&self, source: IpAddr) -> &AtomicU16 {
        let number = number(source);
        let [add, multiply] =
            self.key.get().copied().unwrap_or([0x9e37_79b9_7f4a_7c15, 0xbf58_476d_1ce4_e5b9]);
        let product = u128::from(number ^ add) * u128::from(multiply | 1);
        let mixed = (product >> 64) as u64 ^ product as u64;
        &self.counters[(mixed.wrapping_mul(0x94d0_49bb_1331_11eb) >> 52) as usize % COUNTERS]
    }
}

/// A source: an IPv4 address, or the /64 of an IPv6 one.
fn number(source: IpAddr) -> u64 {
    match source.to_canonical() {
        IpAddr::V4(v4) => u64::from(v4.to_bits()),
        // And a bit by which it is none of the others.
        IpAddr::V6(v6) => (v6.to_bits() >> 64) as u64 | 1 << 63,
    }
}

#[cfg(test)]
mod tests;
