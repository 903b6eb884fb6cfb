//! A routing table, and a mark of the same number, that nobody uses.

use std::{
    io,
    ops::RangeInclusive,
    os::{
        linux::net::SocketAddrExt,
        unix::net::{SocketAddr, UnixDatagram},
    },
};

use super::{
    HostError,
    exchange::Exchange,
    message::{OWN_MARKS, PresentRule},
};

/// From wg-quick's number upward, as long as the rules of all daemons let the mark pass.
const CANDIDATES: RangeInclusive<u32> = 51_820..=*OWN_MARKS.end();

/// The right to fill a table that is still empty, against other daemons that start at this moment. An abstract
/// socket: known in this network namespace alone, as tables are, and gone with its process.
#[derive(Debug)]
pub(super) struct Claim {
    _socket: UnixDatagram,
}

impl Claim {
    /// None: another daemon has it.
    fn take(table: u32) -> io::Result<Option<Self>> {
        let name = SocketAddr::from_abstract_name(format!("vpnd/table/{table}"))?;
        match UnixDatagram::bind_addr(&name) {
            Ok(socket) => Ok(Some(Self { _socket: socket })),
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => Ok(None),
            Err(error) => Err(error),
        }
    }
}

pub(super) async fn free(exchange: &mut Exchange) -> Result<(u32, Claim), HostError> {
    let mut rules = exchange.rules(false).await?;
    rules.extend(exchange.rules(true).await?);
    for table in CANDIDATES.filter(|number| rules.iter().all(|rule| !is_used_by(*number, rule))) {
        let mut routes = 0;
        for v6 in [false, true] {
            routes += exchange.routes(v6, Some(table), None, |_| Some(())).await?.len();
        }
        if routes > 0 {
            continue;
        }
        let failed = |e: io::Error| HostError::new(format!("claim table {table}"), e.into());
        if let Some(claim) = Claim::take(table).map_err(failed)? {
            return Ok((table, claim));
        }
    }
    let refused = std::io::Error::from_raw_os_error(libc::EEXIST).into();
    let remedy = "set `table` and `fwmark` in the file".to_owned();
    Err(HostError::with_remedy(format!("find a free table in {CANDIDATES:?}"), refused, Some(remedy)))
}

/// As its table, or as a mark that it would match. A rule of ours lets the marks of all daemons pass, but only one
/// is its own.
fn is_used_by(number: u32, rule: &PresentRule) -> bool {
    let mask = if rule.ours { u32::MAX } else { rule.mask };
    let is_matched = |mark: u32| mark & mask != 0 && (mark ^ number) & mask == 0;
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
        let by_mask = PresentRule { mark: Some(0x4000), mask: 0x4000, ours: false, ..by_mark };
        assert!(is_used_by(51_820, &by_mask), "51820 has that bit");
        let no_mark = PresentRule { mark: Some(0), mask: 0x1_0000, ours: false, ..by_mark };
        assert!(!is_used_by(51_820, &no_mark), "all that is not marked so would match it");
    }

    #[test]
    fn each_candidate_is_a_mark_that_every_daemon_lets_pass() {
        for number in CANDIDATES {
            let rule = PresentRule::not_marked(false, 1, 51_820, 51_820);
            assert_eq!((number ^ 51_820) & rule.mask, 0, "{number}");
            assert_eq!(is_used_by(number, &rule), number == 51_820, "{number}");
        }
    }

    #[test]
    fn a_table_is_claimed_once_and_free_again_when_the_claim_ends() {
        let number = 4_000_000_000 + std::process::id(); // in the namespace of whoever runs this test
        let claim = Claim::take(number).expect("asked").expect("nobody has it");
        assert!(Claim::take(number).expect("asked").is_none());
        drop(claim);
        // A process that another test is just starting may have the descriptor until its exec.
        let free = (0..200).any(|_| {
            std::thread::sleep(std::time::Duration::from_millis(5));
            Claim::take(number).expect("asked").is_some()
        });
        assert!(free);
    }
}
