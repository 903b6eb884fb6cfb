//! The table that finds a session by the index that we chose for it.

use std::{array, sync::Arc};

use arc_swap::ArcSwap;

use super::{Peer, Session};
use crate::wire::message::Index;

/// Receiver index → (session, peer): 256 shards by the index's first byte, each an immutable table behind an
/// atomic pointer, so that one handshake among 10,000 peers copies a few dozen entries.
pub struct Sessions {
    shards: [ArcSwap<Shard>; 256],
}

/// Sorted by index.
type Shard = Vec<Entry>;

#[derive(Clone)]
struct Entry {
    index: Index,
    session: Arc<Session>,
    peer: Arc<Peer>,
}

impl Sessions {
    /// An empty table.
    pub fn new() -> Self {
        Self { shards: array::from_fn(|_| ArcSwap::default()) }
    }
    /// The session that the peer means by this index.
    pub fn find(&self, index: Index) -> Option<(Arc<Session>, Arc<Peer>)> {
        let shard = self.shard(index).load();
        let entry = &shard[place(&shard, index).ok()?];
        Some((entry.session.clone(), entry.peer.clone()))
    }
    /// Upper half: makes a session known under its local index.
    pub fn insert(&self, session: Arc<Session>, peer: Arc<Peer>) {
        let entry = Entry { index: session.start().local, session, peer };
        self.shard(entry.index).rcu(|shard| {
            let mut changed = Shard::with_capacity(shard.len() + 1);
            changed.extend_from_slice(shard);
            match place(shard, entry.index) {
                Ok(at) => changed[at] = entry.clone(),
                Err(at) => changed.insert(at, entry.clone()),
            }
            changed
        });
    }
    /// Upper half: forgets it; its keys are erased when the last data thread lets go.
    pub fn remove(&self, index: Index) {
        self.shard(index).rcu(|shard| match place(shard, index) {
            Ok(at) => Arc::new([&shard[..at], &shard[at + 1..]].concat()),
            Err(_) => shard.clone(),
        });
    }
    /// Is the index taken?
    pub fn contains(&self, index: Index) -> bool {
        place(&self.shard(index).load(), index).is_ok()
    }

    fn shard(&self, index: Index) -> &ArcSwap<Shard> {
        &self.shards[usize::from(index.0.to_be_bytes()[0])]
    }
}

impl Default for Sessions {
    fn default() -> Self {
        Self::new()
    }
}

/// Where the index is, or where it belongs.
fn place(shard: &Shard, index: Index) -> Result<usize, usize> {
    shard.binary_search_by_key(&index, |entry| entry.index)
}

#[cfg(test)]
mod tests;
