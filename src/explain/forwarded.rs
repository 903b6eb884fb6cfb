//! A packet of another host: what this host must allow before it passes it on.

use super::{Answer, Asked, Decision, Direction, ExplainError, Killer, Place, Planner, Question, Walk};
use crate::host::fib::settings::{self, ReversePath};
use crate::witness::decision::route_words;
use std::net::IpAddr;

impl Planner<'_> {
    /// The route is there: FORWARD, and out. Returns the device, if the packet gets so far.
    pub(super) async fn forward(
        &mut self,
        asked: &Asked,
        question: &Question,
        answer: &Answer,
    ) -> Result<Option<String>, ExplainError> {
        let iif = question.iif.as_deref().unwrap_or_default();
        let (forwards, setting) = settings::forwards(question.is_v6(), iif);
        if !forwards {
            self.die(Killer::Route, does_not_forward(iif, &setting));
            return Ok(None);
        }
        self.hook(Walk::Inner, Direction::Out, Place::Forward);
        Ok(self.go_out(answer, asked.mark))
    }

    /// Why the kernel does not take in what came by a device.
    pub(super) async fn not_forwarded(
        &mut self,
        question: &Question,
        decision: &Decision,
        from: IpAddr,
    ) -> Result<String, ExplainError> {
        let iif = question.iif.clone().unwrap_or_default();
        // In IPv4 it says the same for a sender that it does not believe, and for a route that swallows the packet:
        // what the lists say of the route decides.
        let routed = decision.listed.iter().any(|end| end.errno.is_none());
        let (forwards, setting) = settings::forwards(question.is_v6(), &iif);
        let blocked = (!forwards).then(|| does_not_forward(&iif, &setting));
        let disbelieved = match question.is_v6() {
            true => None,
            false => self.disbelieved(question, from, &iif).await?,
        };
        let refused = self.refused_by_routing(question, decision);
        let why = match (routed, refused) {
            (false, Some(refused)) => Some(refused),
            (_, refused) => disbelieved.or(blocked).or(refused),
        };
        Ok(why.unwrap_or_else(|| super::way::unexplained(decision)))
    }

    /// Why the sender is not believed (fib_validate_source): its address is ours, or the way back to it leads
    /// elsewhere (rp_filter).
    async fn disbelieved(
        &mut self,
        question: &Question,
        from: IpAddr,
        iif: &str,
    ) -> Result<Option<String>, ExplainError> {
        if from.is_loopback() || from.is_multicast() || from.is_unspecified() {
            return Ok(Some(format!(
                "{from} cannot be the source of a packet that comes by a device (martian)"
            )));
        }
        if self.is_own_address(from) {
            return Ok(Some(format!(
                "{from} is an address of this host: nobody else may send from it (martian)"
            )));
        }
        self.filtered(question.to, from, iif, question.mark).await
    }

    /// Would reverse-path filtering drop what comes from `from` to `to` by the device `iif`? The sentence that says so.
    pub(super) async fn filtered(
        &mut self,
        to: IpAddr,
        from: IpAddr,
        iif: &str,
        mark: u32,
    ) -> Result<Option<String>, ExplainError> {
        let filter = settings::reverse_path(iif);
        if filter == ReversePath::Off {
            return Ok(None);
        }
        // As the kernel asks: for a packet of this host's from the one to the other, of no protocol.
        let mark = if settings::source_mark_counts(iif) { mark } else { 0 };
        let back = Question { from: Some(to), mark, protocol: 0, ..Question::local(from, 0) };
        let ends = self.fib.list(&back).await?.walk(&back);
        let leads_back = |end: &crate::host::fib::Outcome| {
            let route = end.route.as_ref().filter(|_| end.errno.is_none());
            route.is_some_and(|route| {
                filter == ReversePath::Loose
                    || route
                        .hops
                        .iter()
                        .any(|hop| hop.index.is_some_and(|index| self.device_name(index) == iif))
            })
        };
        if ends.iter().any(leads_back) {
            return Ok(None);
        }
        let way = match ends.last().and_then(|end| end.route.as_ref().zip(end.rule.as_ref())) {
            Some((route, rule)) => {
                format!("by route \"{}\" (rule \"{rule}\")", route_words(route, &self.devices))
            }
            None => "nowhere".to_owned(),
        };
        let (word, value) = if filter == ReversePath::Strict { ("strict", 1) } else { ("loose", 2) };
        Ok(Some(format!(
            "{word} reverse-path filtering on {iif} (rp_filter = {value}) drops it: the way back to {from} leads {way}"
        )))
    }
}

fn does_not_forward(iif: &str, setting: &str) -> String {
    format!("this host passes nothing on that comes by {iif}: `sysctl {setting}=1` lets it")
}
