//! The kernel's decision in the words of a page: the route, the rule that led to it, and why a packet goes nowhere.

use std::io;

use super::{Answer, Decision, Planner, Question};
use crate::host::fib::{self, FibRoute};
use crate::trace::{Route, Station};
use crate::witness::decision::{answered, errno_name, route_words};

/// So many rules are named where it may have been any of them.
const NAMED: usize = 4;

impl Planner<'_> {
    /// What was asked and what was told, at a station of its own; what is not told stands there, too.
    pub(super) fn describe(&self, station: &mut Station, question: &Question, decision: &Decision) {
        let mut route = Route {
            destination: Some(question.to),
            from: question.from,
            iif: question.iif.clone(),
            mark: question.mark,
            ..Route::default()
        };
        station.unknown.extend(answered(&mut route, decision, &self.devices));
        (station.mark, station.device) = (Some(question.mark), route.device.clone());
        station.route = Some(route);
    }

    /// Why a packet goes nowhere, as far as rules and routes are to blame.
    pub(super) fn refused_by_routing(&self, question: &Question, decision: &Decision) -> Option<String> {
        let error = decision.told.as_ref().err()?;
        let mut reasons: Vec<_> = decision
            .by
            .iter()
            .map(|end| match (&end.rule, &end.route) {
                (Some(rule), Some(route)) => {
                    format!("route \"{}\" ({rule})", route_words(route, &self.devices))
                }
                (Some(rule), None) => format!("rule \"{rule}\""),
                (None, _) => format!("no rule leads to a route for {}", question.to),
            })
            .collect();
        reasons.dedup();
        match &reasons[..] {
            [] => None,
            [one] => Some(format!("{one}: {}", consequence(error))),
            several => {
                let several = several[..several.len().min(NAMED)].join(", or ");
                Some(format!("{}: {several}; the kernel does not tell which", consequence(error)))
            }
        }
    }
}

/// What a program sees.
fn consequence(error: &io::Error) -> &'static str {
    match error.raw_os_error() {
        Some(libc::EINVAL) => "it is dropped without a word (EINVAL)",
        Some(libc::EACCES) => "it is refused as prohibited (EACCES)",
        Some(libc::EHOSTUNREACH) => "it is refused as unreachable (EHOSTUNREACH)",
        Some(libc::ENETUNREACH) => "the network is unreachable (ENETUNREACH)",
        _ => "it is refused",
    }
}

/// The largest packet on this way: what the route or the path said, else the device.
pub(super) fn path_mtu(planner: &Planner<'_>, answer: &Answer, matched: Option<&FibRoute>) -> Option<u32> {
    let device = planner.device(answer.index).map(|device| device.mtu);
    [answer.mtu, matched.and_then(|route| route.mtu), device].into_iter().flatten().min()
}

/// IPv6 found no way without a source, chose one, and asked again.
pub(super) fn asked_twice(question: &Question, first: Option<&Decision>) -> Option<String> {
    let error = errno_name(first?.told.as_ref().err()?);
    let source = question.from?;
    Some(format!("without a source there is no way ({error}): so the kernel chose {source} and asked again"))
}

/// "main", or a number.
pub(super) fn table(number: u32) -> String {
    fib::table_name(number)
}

/// The kernel said no, and neither rules nor routes say why.
pub(super) fn unexplained(decision: &Decision) -> String {
    let error = decision.told.as_ref().err().map(errno_name).unwrap_or_default();
    format!("the kernel refuses it ({error}), and does not tell why")
}
