//! The last events, for listeners of any speed: each has its place in one ring that all share, so a slow one costs
//! nothing. What it did not read in time it never sees, and is told how much that was.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{Notify, watch};

use super::{EventReport, HookCounts, What, Who};
use crate::noise::PublicKey;

/// Events that are kept.
pub const KEPT: usize = 1024;

/// All that happened lately; clones are the same.
#[derive(Clone)]
pub struct Events {
    inner: Arc<Inner>,
}

struct Inner {
    interface: String,
    ring: Mutex<Ring>,
    /// The number of the newest event.
    newest: watch::Sender<u64>,
    /// Somebody begins to listen.
    attended: Notify,
    hooks: HookCounts,
}

#[derive(Default)]
struct Ring {
    kept: VecDeque<Arc<EventReport>>,
    /// How many there were of each of [`What::NAMES`].
    counts: [u64; What::NAMES.len()],
    last: u64,
}

impl Events {
    /// Nothing has happened yet on this device.
    pub fn new(interface: &str) -> Self {
        let inner = Inner {
            interface: interface.to_owned(),
            ring: Mutex::new(Ring::default()),
            newest: watch::Sender::new(0),
            attended: Notify::new(),
            hooks: HookCounts::default(),
        };
        Self { inner: Arc::new(inner) }
    }

    /// Keeps an event, and wakes who listens. `time`: wall time in Unix seconds.
    pub fn record(&self, time: f64, who: Option<&Who>, what: What) -> Arc<EventReport> {
        let mut ring = self.inner.ring.lock().unwrap_or_else(PoisonError::into_inner);
        ring.last += 1;
        if let Some(place) = What::NAMES.iter().position(|name| *name == what.name()) {
            ring.counts[place] += 1;
        }
        let event = Arc::new(EventReport {
            seq: ring.last,
            time,
            interface: self.inner.interface.clone(),
            peer: who.map(|who| who.name.clone()),
            public_key: who.map(|who| who.key.to_string()),
            what,
        });
        if ring.kept.len() == KEPT {
            ring.kept.pop_front();
        }
        ring.kept.push_back(event.clone());
        drop(ring);
        self.inner.newest.send_replace(event.seq);
        event
    }

    /// How many there were of each of [`What::NAMES`].
    pub fn counts(&self) -> [u64; What::NAMES.len()] {
        self.inner.ring.lock().unwrap_or_else(PoisonError::into_inner).counts
    }

    /// How the commands ended that run on events.
    pub fn hooks(&self) -> &HookCounts {
        &self.inner.hooks
    }

    /// Does anybody listen?
    pub fn has_listeners(&self) -> bool {
        self.inner.newest.receiver_count() > 0
    }

    /// Tells whoever waits for it that somebody has begun to listen.
    pub fn attended(&self) -> &Notify {
        &self.inner.attended
    }

    /// From now on; or, if `since` (Unix seconds) is given, first what is kept and newer.
    pub fn listen(&self, since: Option<f64>, about: Option<About>) -> Listener {
        let newest = self.inner.newest.subscribe();
        let ring = self.inner.ring.lock().unwrap_or_else(PoisonError::into_inner);
        let next = if since.is_some() { 1 } else { ring.last + 1 };
        drop(ring);
        self.inner.attended.notify_one();
        Listener { events: self.clone(), newest, next, since: since.unwrap_or(f64::NEG_INFINITY), about }
    }
}

/// Which peer is meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum About {
    /// The peer with this name.
    Name(String),
    /// The peer with this key.
    Key(PublicKey),
}

/// Somebody's place among the events.
pub struct Listener {
    events: Events,
    newest: watch::Receiver<u64>,
    next: u64,
    since: f64,
    about: Option<About>,
}

impl Listener {
    /// What is there, without waiting.
    pub fn poll(&mut self) -> Option<Arc<EventReport>> {
        self.newest.mark_unchanged();
        let ring = self.events.inner.ring.lock().unwrap_or_else(PoisonError::into_inner);
        let oldest = ring.kept.front()?.seq;
        if self.next < oldest {
            let count = oldest - self.next;
            // Who asked for the past with a time in it does not miss what is older.
            let is_missed = self.next > 1 || self.since <= 0.0;
            self.next = oldest;
            if is_missed {
                return Some(Arc::new(EventReport {
                    seq: oldest - 1,
                    time: ring.kept.front()?.time,
                    interface: self.events.inner.interface.clone(),
                    peer: None,
                    public_key: None,
                    what: What::Lost { count },
                }));
            }
        }
        let place = usize::try_from(self.next - oldest).ok()?;
        for event in ring.kept.iter().skip(place) {
            self.next = event.seq + 1;
            if event.time > self.since && self.about.as_ref().is_none_or(|about| about.is_about(event)) {
                return Some(event.clone());
            }
        }
        None
    }

    /// The next one, when it comes. `None`: the daemon has ended.
    pub async fn next(&mut self) -> Option<Arc<EventReport>> {
        loop {
            if let Some(event) = self.poll() {
                return Some(event);
            }
            self.newest.changed().await.ok()?;
        }
    }
}

impl About {
    /// A key where it is one, else a name.
    pub fn new(text: &str) -> Self {
        text.parse().map_or_else(|_| Self::Name(text.to_owned()), Self::Key)
    }

    /// Is it this peer?
    pub fn is(&self, name: &str, public_key: &str) -> bool {
        match self {
            About::Name(wanted) => wanted == name,
            About::Key(wanted) => wanted.to_string() == public_key,
        }
    }

    fn is_about(&self, event: &EventReport) -> bool {
        event.peer.as_deref().zip(event.public_key.as_deref()).is_some_and(|(name, key)| self.is(name, key))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(events: &Events, n: u64) {
        events.record(n as f64, None, What::Unanswered { attempts: n as u32 });
    }

    fn seqs(listener: &mut Listener) -> Vec<u64> {
        std::iter::from_fn(|| listener.poll()).map(|event| event.seq).collect()
    }

    #[test]
    fn a_listener_hears_what_comes_and_the_past_only_if_it_asks() {
        let events = Events::new("vpn0");
        (1..=3).for_each(|n| record(&events, n));
        let (mut new, mut all) = (events.listen(None, None), events.listen(Some(0.0), None));
        let mut since = events.listen(Some(2.0), None);
        record(&events, 4);
        assert_eq!(seqs(&mut new), [4]);
        assert_eq!(seqs(&mut all), [1, 2, 3, 4]);
        assert_eq!(seqs(&mut since), [3, 4]);
        assert_eq!(events.counts()[5], 4, "unanswered");
    }

    #[test]
    fn a_slow_listener_loses_the_oldest_and_is_told_how_many() {
        let events = Events::new("vpn0");
        let mut slow = events.listen(None, None);
        record(&events, 1);
        assert_eq!(seqs(&mut slow), [1]);
        (2..KEPT as u64 + 12).for_each(|n| record(&events, n));
        let lost = slow.poll().expect("told");
        assert_eq!(lost.what, What::Lost { count: 10 });
        let rest = seqs(&mut slow);
        assert_eq!((rest.len(), rest[0]), (KEPT, 12));
        assert_eq!(slow.poll(), None, "told once");
    }

    #[test]
    fn a_listener_may_want_one_peer_alone() {
        let events = Events::new("vpn0");
        let key = |n| PublicKey([n; 32]);
        let mut by_name = events.listen(None, Some(About::Name("a".to_owned())));
        let mut by_key = events.listen(None, Some(About::Key(key(2))));
        for (name, n) in [("a", 1), ("b", 2), ("a", 1)] {
            events.record(1.0, Some(&Who { name: name.to_owned(), key: key(n) }), What::Silent);
        }
        record(&events, 4);
        assert_eq!(seqs(&mut by_name), [1, 3]);
        assert_eq!(seqs(&mut by_key), [2]);
    }

    #[tokio::test]
    async fn who_waits_is_woken() {
        let events = Events::new("vpn0");
        let mut listener = events.listen(None, None);
        assert!(events.has_listeners());
        let heard = tokio::spawn(async move { listener.next().await.map(|event| event.seq) });
        tokio::task::yield_now().await;
        record(&events, 1);
        assert_eq!(heard.await.expect("no panic"), Some(1));
        assert!(!events.has_listeners());
    }
}
