//! Who owns which prefix, and the table for the data threads that is built from it once per batch of changes.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    sync::Arc,
};

use ipnet::IpNet;

use super::peer::Peers;
use crate::forward::{AllowedIps, Peer, PeerId};

/// Prefix → owner.
#[derive(Default)]
pub(super) struct Routes {
    owners: BTreeMap<IpNet, PeerId>,
    changed: bool,
}

impl Routes {
    /// Gives a prefix (without host bits) to a peer; says who had it before, if another did.
    pub(super) fn give(&mut self, prefix: IpNet, to: PeerId) -> Option<PeerId> {
        let before = self.owners.insert(prefix, to).filter(|&before| before != to);
        self.changed = true;
        before
    }

    /// Takes a prefix from a peer, if it has it.
    pub(super) fn take(&mut self, prefix: IpNet, from: PeerId) {
        if let Entry::Occupied(entry) = self.owners.entry(prefix)
            && *entry.get() == from
        {
            entry.remove();
            self.changed = true;
        }
    }

    /// The table for the data threads, if it changed since it was last asked for.
    pub(super) fn take_changed(&mut self, peers: &Peers) -> Option<AllowedIps<Arc<Peer>>> {
        if !std::mem::take(&mut self.changed) {
            return None;
        }
        let owned = |(&prefix, &id): (&IpNet, &PeerId)| Some((prefix, peers.of(id)?.shared.clone()));
        Some(AllowedIps::build(self.owners.iter().filter_map(owned)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_is_taken_from_who_has_it_and_from_nobody_else() {
        let (prefix, one, other) = ("10.0.0.0/8".parse().expect("a prefix"), PeerId(1), PeerId(2));
        let mut routes = Routes::default();
        assert_eq!(routes.give(prefix, one), None);
        assert_eq!(routes.give(prefix, other), Some(one));
        routes.changed = false;
        routes.take(prefix, one);
        assert_eq!((routes.owners.get(&prefix), routes.changed), (Some(&other), false));
        routes.take(prefix, other);
        assert_eq!((routes.owners.get(&prefix), routes.changed), (None, true));
    }
}
