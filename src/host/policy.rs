//! The pair of rules for a default route, as wg-quick has it: at priority P the host's own routes except its
//! default (`lookup main suppress_prefixlength 0`), at P + 1 our table for all but the tunnel's own packets
//! (`not fwmark MARK lookup TABLE`). The pair is placed in this order and removed in the reverse one; its two
//! rules know each other by adjacent priorities, so that several daemons can live on one host.

use std::{collections::BTreeSet, time::Duration};

use tokio::sync::Mutex;

use super::{
    HostError,
    apply::Work,
    exchange::Exchange,
    message::PresentRule,
    plan::{Plan, Rule},
    step::Step,
};

/// Priorities for our pairs, each at an even number: before the kernel's `lookup main` (32766), behind the rules
/// that administrators and other programs usually number from the front.
const PRIORITIES: std::ops::Range<u32> = 31_820..32_620;

/// Two daemons that start at once choose the same pair; one of them sees it taken and goes on.
const ATTEMPTS: usize = 16;

/// Between the two looks of a sweep.
const SECOND_LOOK: Duration = Duration::from_millis(200);

/// Places the plan's pairs where they are missing, and adds them to `ours`. Returns those of ours that the plan
/// does not want.
pub(super) async fn add(
    work: &mut Work<'_>,
    ours: &mut Vec<PresentRule>,
    plan: &Plan,
) -> Result<Vec<PresentRule>, HostError> {
    let mut present = work.exchange.rules(false).await?;
    present.extend(work.exchange.rules(true).await?);
    let mut wanted = Vec::new();
    for rule in &plan.rules {
        let Rule::NotMarked { v6, mark, table } = *rule else { continue };
        match find(&present, v6, mark, table) {
            Some(pair) => wanted.extend(pair),
            None => wanted.extend(place(work, ours, &mut present, (v6, mark, table)).await?),
        }
    }
    // Removed in the reverse order of placing.
    let unwanted = ours.iter().rev().filter(|rule| !wanted.contains(rule)).copied().collect();
    let adopted: Vec<_> = wanted.into_iter().filter(|rule| !ours.contains(rule)).collect();
    ours.extend(adopted);
    Ok(unwanted)
}

/// The whole pair, if it is there.
fn find(present: &[PresentRule], v6: bool, mark: u32, table: u32) -> Option<[PresentRule; 2]> {
    present.iter().find_map(|rule| {
        let pair = pair_at(v6, rule.priority.checked_sub(1)?, mark, table);
        (*rule == pair[1] && present.contains(&pair[0])).then_some(pair)
    })
}

fn pair_at(v6: bool, priority: u32, mark: u32, table: u32) -> [PresentRule; 2] {
    [PresentRule::suppress(v6, priority), PresentRule::not_marked(v6, priority + 1, mark, table)]
}

async fn place(
    work: &mut Work<'_>,
    ours: &mut Vec<PresentRule>,
    present: &mut Vec<PresentRule>,
    (v6, mark, table): (bool, u32, u32),
) -> Result<[PresentRule; 2], HostError> {
    for _ in 0..ATTEMPTS {
        let Some(priority) = free_priority(present, v6) else { break };
        let pair = pair_at(v6, priority, mark, table);
        let suppress = Step::AddRule(pair[0]);
        // The kernel refuses a second identical rule: the first of the pair claims the place. It is ours only
        // once that is known; a refused one is another daemon's and must not be removed by our undo.
        if let Some((step, refused)) = work.run_batch(&[suppress]).await?.pop() {
            if refused.errno() != libc::EEXIST {
                return Err(step.error(work.device, refused));
            }
            present.push(pair[0]);
            continue;
        }
        ours.extend(pair);
        work.run([Step::AddRule(pair[1])]).await?;
        present.extend(pair);
        return Ok(pair);
    }
    let refused = std::io::Error::from_raw_os_error(libc::EEXIST).into();
    let attempted = format!("find two free rule priorities in {PRIORITIES:?}");
    Err(HostError::with_remedy(attempted, refused, Some("remove rules there that nobody needs".into())))
}

/// The first free pair of places in one family's list.
fn free_priority(present: &[PresentRule], v6: bool) -> Option<u32> {
    let of_family = present.iter().filter(|rule| rule.v6 == v6);
    let used: BTreeSet<_> = of_family.map(|rule| rule.priority).collect();
    PRIORITIES.step_by(2).find(|p| !used.contains(p) && !used.contains(&(p + 1)))
}

/// Removes pairs whose table is empty, and halves of pairs; not those in `own`. Says what it removed.
pub(super) async fn sweep(exchange: &Mutex<Exchange>, own: &[PresentRule]) -> Result<Vec<String>, HostError> {
    let first = stale(&mut *exchange.lock().await, own).await?;
    if first.is_empty() {
        return Ok(Vec::new());
    }
    tokio::time::sleep(SECOND_LOOK).await;
    let exchange = &mut *exchange.lock().await;
    let mut removed = Vec::new();
    for rule in stale(exchange, own).await?.into_iter().filter(|rule| first.contains(rule)) {
        let step = Step::RemoveRule(rule);
        let refused = exchange.batch(vec![step.request(0)]).await;
        let refused = refused.map_err(|e| step.error("", e.into()))?.pop();
        match refused {
            None => removed.push(format!("rule {rule}")),
            Some((_, refused)) if step.is_met_by(&refused) => {}
            Some((_, refused)) => return Err(step.error("", refused)),
        }
    }
    Ok(removed)
}

/// In the order of removal: of each pair the second rule first.
async fn stale(exchange: &mut Exchange, own: &[PresentRule]) -> Result<Vec<PresentRule>, HostError> {
    let mut stale = Vec::new();
    for v6 in [false, true] {
        let mut ours = exchange.rules(v6).await?;
        ours.retain(|rule| rule.ours && !own.contains(rule));
        let mut empty = BTreeSet::new();
        for table in ours.iter().filter(|rule| rule.inverted).map(|rule| rule.table).collect::<BTreeSet<_>>()
        {
            if exchange.routes(v6, Some(table), None, Some).await?.is_empty() {
                empty.insert(table);
            }
        }
        stale.extend(leftovers(&ours, &empty));
    }
    Ok(stale)
}

/// Of our protocol's rules of one family, those that no living daemon holds: the second of a pair is one whose
/// table is empty, and the first belongs to the second behind it.
fn leftovers(ours: &[PresentRule], empty: &BTreeSet<u32>) -> Vec<PresentRule> {
    let is_dead = |rule: &&PresentRule| rule.inverted && empty.contains(&rule.table);
    let is_alive = |rule: &&PresentRule| rule.inverted && !empty.contains(&rule.table);
    let claimed: BTreeSet<_> =
        ours.iter().filter(is_alive).filter_map(|rule| rule.priority.checked_sub(1)).collect();
    let orphans = ours.iter().filter(|rule| rule.suppresses_default && !claimed.contains(&rule.priority));
    ours.iter().filter(is_dead).chain(orphans).copied().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVERY: PresentRule = PresentRule {
        v6: false,
        priority: 0,
        table: 254,
        mark: None,
        mask: u32::MAX,
        inverted: false,
        suppresses_default: false,
        ours: false,
    };

    #[test]
    fn the_first_free_pair_leaves_out_a_place_of_which_either_half_is_taken() {
        let taken = |priority| PresentRule { priority, ..EVERY };
        assert_eq!(free_priority(&[], false), Some(31_820));
        assert_eq!(free_priority(&[taken(31_820)], false), Some(31_822));
        assert_eq!(free_priority(&[taken(31_821), taken(31_822)], false), Some(31_824));
        assert_eq!(free_priority(&[taken(31_820)], true), Some(31_820), "families have lists of their own");
    }

    #[test]
    fn no_place_is_found_where_all_are_taken() {
        let all: Vec<_> = PRIORITIES.map(|priority| PresentRule { priority, ..EVERY }).collect();
        assert_eq!(free_priority(&all, false), None);
    }

    #[test]
    fn a_pair_is_found_only_whole_and_with_its_own_mark_and_table() {
        let pair = pair_at(true, 31_830, 5, 6);
        assert_eq!(find(&pair, true, 5, 6), Some(pair));
        assert_eq!(find(&pair, true, 5, 7), None);
        assert_eq!(find(&pair, true, 4, 6), None);
        assert_eq!(find(&pair, false, 5, 6), None);
        assert_eq!(find(&pair[1..], true, 5, 6), None);
    }

    #[test]
    fn a_pair_with_an_empty_table_is_left_over_and_one_with_routes_is_not() {
        let dead = pair_at(false, 31_820, 1, 100);
        let live = pair_at(false, 31_822, 2, 200);
        let ours = [dead, live].concat();
        let left = leftovers(&ours, &BTreeSet::from([100]));
        assert_eq!(left, [dead[1], dead[0]], "the second of the pair goes first");
        assert!(leftovers(&ours, &BTreeSet::new()).is_empty());
    }

    #[test]
    fn half_a_pair_is_left_over() {
        let [first, second] = pair_at(false, 31_820, 1, 100);
        assert_eq!(leftovers(&[first], &BTreeSet::new()), [first]);
        assert!(leftovers(&[second], &BTreeSet::new()).is_empty(), "its table has routes");
        assert_eq!(leftovers(&[second], &BTreeSet::from([100])), [second]);
    }
}
