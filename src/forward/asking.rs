//! Who comes without a cookie while we are under load is asked for one, from a queue of his own and by a thread that has
//! nothing else to do, and that comes after those that carry data: the upper half has those to hear who show theirs.
//! Where there is no such thread, the upper half asks.

use std::{
    net::SocketAddr,
    sync::{
        OnceLock,
        atomic::{AtomicU64, Ordering},
    },
};

use crossbeam_queue::ArrayQueue;
use rand_core::CryptoRng;

use super::{Bell, Endpoint, Evidence, Forward, HandshakeDatagram, Refusal, Time, tap::HandshakeSeen};
use crate::wire::{
    Malformed,
    message::{COOKIE_REPLY_LEN, Index, Initiation, Kind, Response, classify},
};

/// Messages that wait to be asked for a cookie: of ten thousand peers that come back at once each is, and none has to call
/// a third time.
pub(super) const ASKED_QUEUE: usize = 2 * super::HANDSHAKE_QUEUE;

/// The queue, and who serves it.
pub struct Asking {
    pub(super) queue: ArrayQueue<HandshakeDatagram>,
    bell: Bell,
    /// Wakes who serves it; none: nobody does.
    wake: OnceLock<Box<dyn Fn() -> bool + Send + Sync>>,
    /// Messages that came, and the source of the last one.
    came: AtomicU64,
    source: AtomicU64,
}

/// What is to be sent to somebody who showed no cookie.
pub struct Asked {
    /// Where he is, and which of our addresses he called.
    pub to: Endpoint,
    /// A cookie reply.
    pub reply: [u8; COOKIE_REPLY_LEN],
}

impl Asking {
    pub(super) fn new() -> Self {
        Self {
            queue: ArrayQueue::new(super::handshakes::places(ASKED_QUEUE)),
            bell: Bell::default(),
            wake: OnceLock::new(),
            came: AtomicU64::new(0),
            source: AtomicU64::new(0),
        }
    }

    /// From now on somebody calls [`Forward::ask_for_cookie`] whenever he was woken, until it gives nothing more. A `wake`
    /// that fails (false) is called again by what comes next.
    pub fn serve(&self, wake: Box<dyn Fn() -> bool + Send + Sync>) {
        let _only_the_first = self.wake.set(wake);
    }

    /// Does somebody?
    pub(super) fn is_served(&self) -> bool {
        self.wake.get().is_some()
    }

    /// One came, of the source of this number. One source alone is no load, however often it calls.
    pub(super) fn came(&self, source: u64) {
        if self.source.swap(source, Ordering::Relaxed) != source {
            self.came.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// How many came, from changing sources, whether there was room for them or not.
    pub fn count(&self) -> u64 {
        self.came.load(Ordering::Relaxed)
    }

    pub(super) fn ring(&self) {
        if let Some(wake) = self.wake.get() {
            self.bell.ring(wake);
        }
    }
}

impl Forward {
    /// The next cookie reply to be sent; `None`: nobody waits.
    pub fn ask_for_cookie(&self, now: Time, rng: &mut (impl CryptoRng + ?Sized)) -> Option<Asked> {
        let handshakes = &self.handshakes;
        loop {
            let datagram = handshakes.asking.bell.pop(|| handshakes.pop_asking())?;
            match handshakes.reply_to(&datagram, rng) {
                Reply::Ask(reply) => {
                    self.tell_asked(&datagram, &reply, now);
                    return Some(Asked { to: datagram.from, reply });
                }
                Reply::Hear => {
                    let HandshakeDatagram { from, bytes } = datagram;
                    if let Err(why) = self.hear(&from, &bytes) {
                        self.refuse_asked(&from.remote, why, now);
                    }
                }
                Reply::Refuse(why) => self.refuse_asked(&datagram.from.remote, why, now),
            }
        }
    }

    /// It is over: whoever still waits needs no cookie any more.
    fn hear(&self, from: &Endpoint, bytes: &[u8]) -> Result<(), Refusal> {
        let kind = classify(bytes).map_err(|_| Refusal::Malformed)?;
        self.push_handshake(from, kind, bytes)
    }

    fn refuse_asked(&self, from: &SocketAddr, why: Refusal, now: Time) {
        self.refusals.count(why, Evidence { at: now, from: Some(*from), ..Evidence::default() });
    }

    /// Counts it, and shows it to those who look at handshakes.
    fn tell_asked(&self, datagram: &HandshakeDatagram, reply: &[u8], now: Time) {
        let why = Refusal::CookieWanted;
        self.refuse_asked(&datagram.from.remote, why, now);
        let Some(look) = self.tap.look().filter(|look| look.wants_handshakes()) else { return };
        for (sent, refused, bytes) in [(false, Some(why), &datagram.bytes[..]), (true, None, reply)] {
            let endpoint = datagram.from;
            look.handshake(&HandshakeSeen { now, sent, peer: None, endpoint, refused, bytes, keys: None });
        }
    }
}

/// What becomes of a message that showed no cookie.
pub(super) enum Reply {
    Ask([u8; COOKIE_REPLY_LEN]),
    Hear,
    Refuse(Refusal),
}

/// The index that its sender chose.
pub(super) fn sender(message: &[u8]) -> Result<Index, Malformed> {
    match classify(message)? {
        Kind::Initiation => Ok(Initiation::parse(message)?.sender),
        Kind::Response => Ok(Response::parse(message)?.sender),
        Kind::CookieReply | Kind::Transport => Err(Malformed::Type),
    }
}

#[cfg(test)]
mod tests;
