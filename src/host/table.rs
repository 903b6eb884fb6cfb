//! A routing table, and a mark of the same number, that nobody uses.

use std::ops::Range;

use super::{HostError, exchange::Exchange, message::PresentRule};

/// From wg-quick's number upward.
const CANDIDATES: Range<u32> = 51_820..52_820;

pub(super) async fn free(exchange: &mut Exchange) -> Result<u32, HostError> {
    let mut rules = exchange.rules(false).await?;
    rules.extend(exchange.rules(true).await?);
    for table in CANDIDATES.filter(|number| rules.iter().all(|rule| !is_used_by(*number, rule))) {
        let mut routes = 0;
        for v6 in [false, true] {
            routes += exchange.routes(v6, Some(table), None, |_| Some(())).await?.len();
        }
        if routes == 0 {
            return Ok(table);
        }
    }
    let refused = std::io::Error::from_raw_os_error(libc::EEXIST).into();
    let remedy = "set `table` and `fwmark` in the file".to_owned();
    Err(HostError::with_remedy(format!("find a free table in {CANDIDATES:?}"), refused, Some(remedy)))
}

/// As its table, or as a mark that it would match.
fn is_used_by(number: u32, rule: &PresentRule) -> bool {
    let is_matched = |mark: u32| mark != 0 && mark == number & rule.mask;
    rule.table == number || rule.mark.is_some_and(is_matched)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_used_by_a_rule_to_that_table_or_one_that_its_mark_would_match() {
        let by_table = PresentRule::not_marked(false, 1, 7, 51_820);
        assert!(is_used_by(51_820, &by_table));
        assert!(!is_used_by(51_821, &by_table));
        let by_mark = PresentRule::not_marked(false, 1, 51_821, 100);
        assert!(is_used_by(51_821, &by_mark));
        let by_mask = PresentRule { mark: Some(0x4000), mask: 0x4000, ..by_mark };
        assert!(is_used_by(51_820, &by_mask), "51820 has that bit");
        let no_mark = PresentRule { mark: Some(0), mask: 0x1_0000, ..by_mark };
        assert!(!is_used_by(51_820, &no_mark), "all that is not marked so would match it");
    }
}
