//! What a daemon before us left in place for this one: its device with addresses and routes, and the policy rules that
//! lead there. The kernel knows which of them are ours, so no memory is needed.

use std::collections::BTreeSet;

use super::{
    Host, HostError, Workbench,
    apply::Placed,
    exchange::{Exchange, Request},
    message::{Link, PresentRule},
    plan::MAIN_TABLE,
};

impl Host {
    /// Takes over what was placed for this device, as if this `Host` had placed it: `apply` removes of it what its
    /// plan lacks, `undo` all. Returns the table that a default route of ours leads by, if there is one, for
    /// [`super::Plan::new`]; or nothing at all, if there is no such device.
    pub async fn adopt(&self, device: &str) -> Result<Option<u32>, HostError> {
        let Workbench { exchange, placed: ours, .. } = &mut *self.work.lock().await;
        let Some(link) = exchange.link(device).await? else { return Ok(None) };
        let mut placed = Placed { device: link.name, index: link.index, ..Placed::default() };
        let mut present = exchange.addresses().await?;
        present.retain(|address| address.index == link.index);
        // Kernels before 5.18 do not keep our mark: then nobody can say whose they are, and the device is ours.
        let marked = present.iter().any(|address| address.ours);
        placed.addresses =
            present.iter().filter(|address| address.ours || !marked).map(|address| address.network).collect();
        let mut own_table = None;
        for v6 in [false, true] {
            let ours = |route: super::message::PresentRoute| route.ours.then_some(route.route.table);
            let tables = exchange.routes(v6, None, Some(link.index), ours).await?;
            let tables: BTreeSet<u32> = tables.into_iter().filter(|table| *table != MAIN_TABLE).collect();
            let rules = pairs_to(&exchange.rules(v6).await?, &tables);
            own_table = own_table.or(rules.iter().find(|rule| rule.inverted).map(|rule| rule.table));
            placed.rules.extend(rules);
        }
        *ours = Some(placed);
        Ok(own_table)
    }

    /// Deletes the device that `apply` set up, or `adopt` found.
    pub async fn remove_own_device(&self) -> Result<(), HostError> {
        let Workbench { exchange, placed, .. } = &mut *self.work.lock().await;
        let Some(placed) = placed else { return Ok(()) };
        match exchange.link_at(placed.index).await? {
            Some(link) => delete(exchange, &link).await,
            None => Ok(()),
        }
    }

    /// Deletes a device that is ours, whoever holds a descriptor of it. That it is gone already is no error.
    pub async fn remove_device(&self, device: &str) -> Result<(), HostError> {
        let exchange = &mut self.work.lock().await.exchange;
        match exchange.link(device).await? {
            Some(link) => delete(exchange, &link).await,
            None => Ok(()),
        }
    }
}

async fn delete(exchange: &mut Exchange, link: &Link) -> Result<(), HostError> {
    let attempted = || format!("delete link {}", link.name);
    let request = Request { flags: 0, message: Link::deletion(link.index) };
    let refused = exchange.batch(vec![request]).await.map_err(|e| HostError::new(attempted(), e.into()))?;
    match refused.into_iter().next() {
        Some((_, refused)) if refused.errno() != libc::ENODEV => Err(HostError::new(attempted(), refused)),
        _ => Ok(()),
    }
}

/// Our rules that lead to these tables, each behind its other half.
fn pairs_to(rules: &[PresentRule], tables: &BTreeSet<u32>) -> Vec<PresentRule> {
    let leads = |rule: &&PresentRule| rule.ours && rule.inverted && tables.contains(&rule.table);
    let other_half = |rule: &PresentRule| {
        let before = rule.priority.checked_sub(1);
        rules.iter().find(|other| other.ours && other.suppresses_default && Some(other.priority) == before)
    };
    rules.iter().filter(leads).flat_map(|rule| other_half(rule).into_iter().chain([rule])).copied().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_several_daemons_pairs_those_to_our_table_are_taken_over() {
        let pair = |priority, table| {
            [PresentRule::suppress(true, priority), PresentRule::not_marked(true, priority + 1, table, table)]
        };
        let (theirs, ours) = (pair(31_820, 51_820), pair(31_822, 51_821));
        let foreign = PresentRule { ours: false, ..PresentRule::not_marked(true, 5, 51_821, 51_821) };
        let all: Vec<_> = theirs.into_iter().chain(ours).chain([foreign]).collect();
        assert_eq!(pairs_to(&all, &BTreeSet::from([51_821])), ours);
        assert_eq!(pairs_to(&all, &BTreeSet::new()), []);
        assert_eq!(pairs_to(&all[3..], &BTreeSet::from([51_821])), [ours[1]], "half a pair, too");
    }
}
