//! Handshakes whose sessions may still be in use: each file of a ring is to be opened without those before it.

use std::{collections::VecDeque, net::IpAddr};

use crate::trace::Handshake;

/// A session lives for 180 s (REJECT_AFTER_TIME), from the end of its handshake on.
const LIFETIME_NS: u64 = 190_000_000_000;
/// Ten thousand peers renew their sessions in two minutes, each by two messages.
const KEPT: usize = 32_768;

/// The messages, and our address on them, the oldest first.
#[derive(Default)]
pub(super) struct Recent(VecDeque<(Handshake, Option<IpAddr>)>);

impl Recent {
    /// One more; those that can be of no more use are forgotten. What was refused made no session.
    pub(super) fn note(&mut self, handshake: &Handshake, ours: Option<IpAddr>) {
        let now = handshake.at_ns;
        while self.0.front().is_some_and(|(first, _)| first.at_ns.saturating_add(LIFETIME_NS) < now)
            || self.0.len() >= KEPT
        {
            self.0.pop_front();
        }
        if handshake.refused.is_none() {
            self.0.push_back((handshake.clone(), ours));
        }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &(Handshake, Option<IpAddr>)> {
        self.0.iter()
    }
}
