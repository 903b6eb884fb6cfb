//! How a packet ended, in a sentence that names what it was.

use super::{
    Death, Killer, Outcome, Page, Refused, Route, Rule, Station, Step, Verdict, Vpnd, build::Draft,
    drops::Steps,
};

/// Where the stations of a page end, before routing was asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// It came to a socket, or left by another device than the tunnel's.
    Arrived,
    /// The carrier left by a device.
    Left,
    /// A rule or policy that netfilter told of.
    Netfilter { station: usize },
    /// It came into the hook, and not to its end.
    Unseen { station: usize },
    /// It was queued to a program, or taken by a module.
    Taken { station: usize },
    /// It passed PREROUTING, and came to no hook behind: the station of the routing decision.
    Unrouted { station: usize },
    /// The system call failed.
    Unsent { station: usize, error: String },
    /// Routing led it past the tunnel.
    Astray { station: usize, device: String },
    /// vpnd refused it, or the kernel refused vpnd.
    Vpnd { station: usize },
    /// It waits in vpnd.
    Staged { station: usize },
    /// vpnd handed the carrier over, and netfilter's trace did not show it.
    CarrierUnseen { station: usize },
    /// vpnd wrote it to the TUN, and netfilter's trace did not show it.
    InnerUnseen { station: usize },
    /// It was seen here, and not at the next place.
    Gap { station: usize, why: String },
    /// The kernel gave it up on its way out; with the reason, where that is sure.
    GivenUp { station: usize, why: String, reason: Option<String> },
    /// It is in one of the kernel's queues.
    Waits { why: String },
}

impl Draft {
    /// The page, whose routes were answered. `losses`: what the kernel counted meanwhile, for a packet whose end is not
    /// plain; `steps`: what it did with its buffers.
    pub fn conclude(mut self, losses: Option<&str>, steps: &Steps) -> Page {
        self.find_departure(steps);
        self.page.outcome = self.outcome();
        self.find_reason(steps);
        let plain = match &self.page.outcome {
            Outcome::Died(death) => !matches!(death.by, Killer::Kernel | Killer::Route),
            outcome => !matches!(outcome, Outcome::Unknown { .. }),
        };
        self.page.notes.extend(losses.filter(|_| !plain).map(str::to_owned));
        if let Outcome::Died(death) = &self.page.outcome {
            let station = &mut self.page.stations[death.station];
            if matches!(station.verdict, Verdict::Unknown | Verdict::Passed) && death.by != Killer::Kernel {
                station.verdict = Verdict::Dropped;
            }
        }
        if let Some(answer) = self.answer.take() {
            answer.conclude(losses, steps).stand_behind(&mut self.page);
        }
        self.page
    }

    fn outcome(&mut self) -> Outcome {
        let answered_us = self.answered_us;
        let died = |station, by, why: String| Outcome::Died(Death { station, by, why, drop_reason: None });
        match self.end.clone() {
            End::Arrived => Outcome::Arrived { answered_us },
            End::Left => Outcome::Left { answered_us },
            End::Netfilter { station } => died(station, Killer::Netfilter, by_rule(self.at(station))),
            End::Unseen { station } => died(station, Killer::UnseenNetfilter, unseen(self.at(station))),
            End::Taken { station } => Outcome::Unknown { why: taken(self.at(station)) },
            End::Unrouted { station } => match self.at(station).route.as_ref().and_then(no_route) {
                Some(why) => died(station, Killer::Route, why),
                None => Outcome::Unknown {
                    why: "it passed PREROUTING and came to no other hook, although routing has a way for it"
                        .to_owned(),
                },
            },
            End::Unsent { station, error } => {
                let said = self.at(station).route.as_ref().and_then(no_route);
                let said = said.map(|said| format!("; {said}")).unwrap_or_default();
                died(station, Killer::Route, format!("the kernel would not send it: {error}{said}"))
            }
            End::Astray { station, device } => {
                let route = self.at(station).route.as_ref().map(by_route).unwrap_or_default();
                let why = format!("routing led it to {device}, and so past the tunnel{route}");
                died(station, Killer::Route, why)
            }
            End::Vpnd { station } => died(station, Killer::Vpnd, by_vpnd(self.at(station))),
            End::Staged { .. } if answered_us.is_some() => Outcome::Left { answered_us },
            End::Staged { .. } => Outcome::Unknown {
                why: "it waits in vpnd for a session with the peer, and none came while it was watched".to_owned(),
            },
            End::CarrierUnseen { .. } | End::InnerUnseen { .. } if answered_us.is_some() => {
                Outcome::Left { answered_us }
            }
            End::CarrierUnseen { .. } => Outcome::Unknown {
                why: "vpnd handed its carrier to the kernel; netfilter's trace, whose rate is limited, did not show it"
                    .to_owned(),
            },
            End::InnerUnseen { .. } => Outcome::Unknown {
                why: "vpnd wrote it to the device; netfilter's trace, whose rate is limited, did not show it".to_owned(),
            },
            End::Gap { station, why } => died(station, Killer::Kernel, why),
            End::GivenUp { station, why, reason } => {
                let drop_reason = reason.map(|reason| format!("SKB_DROP_REASON_{reason}"));
                Outcome::Died(Death { station, by: Killer::Kernel, why, drop_reason })
            }
            End::Waits { why } => Outcome::Unknown { why },
        }
    }

    fn at(&self, station: usize) -> &Station {
        &self.page.stations[station]
    }
}

/// The rule in a sentence.
pub(super) fn rule_words(rule: &Rule) -> String {
    let place = format!("chain {} of table {} {}", rule.chain, rule.family, rule.table);
    match (rule.step, rule.handle, &rule.text) {
        (Step::Policy, ..) => format!("the policy of {place}"),
        (_, Some(handle), Some(text)) => format!("rule \"{text}\" (handle {handle}) in {place}"),
        (_, Some(handle), None) => format!("the rule with handle {handle} in {place}, which is gone by now"),
        // The kernel tells of the end of a chain as of one more rule, that has no handle.
        _ if rule.step == Step::Return || rule.verdict == "continue" => format!("the end of {place}"),
        (..) => format!("a rule in {place}"),
    }
}

fn by_rule(station: &Station) -> String {
    let name = station.name();
    match station.rules.iter().find(|rule| rule.verdict == "drop") {
        Some(rule) => {
            let did = if station.verdict == Verdict::Rejected { "rejected" } else { "dropped" };
            format!("{did} at {name} by {}", rule_words(rule))
        }
        None => format!("dropped at {name}"),
    }
}

fn unseen(station: &Station) -> String {
    let name = station.name();
    let last = station.rules.last().map(|rule| format!(" The last that was seen is {}.", rule_words(rule)));
    format!(
        "it came into {name}, and not to its end: something took it there that nftables does not trace, such as a rule \
         of iptables-legacy or a kernel module.{}",
        last.unwrap_or_default()
    )
}

fn taken(station: &Station) -> String {
    let rule = station.rules.iter().find(|rule| rule.verdict == "queue" || rule.verdict == "stolen");
    let rule = rule.map(|rule| format!(" by {}", rule_words(rule))).unwrap_or_default();
    format!("it was taken out of {}{rule}; the kernel does not tell what became of it", station.name())
}

/// Why routing has no way; `None`: it has one.
fn no_route(route: &Route) -> Option<String> {
    let to = route.destination.map(|to| format!(" to {to}")).unwrap_or_default();
    let came = route.iif.as_ref().map(|iif| format!(" that came by {iif}")).unwrap_or_default();
    if let Some(error) = &route.error {
        let meaning = match (error.as_str(), route.iif.is_some()) {
            ("EXDEV", _) => {
                ": the way back to its source leads by another device, and rp_filter lets no such packet in (RFC 3704)"
            }
            ("EHOSTUNREACH", true) => {
                ": it is for another host, and this one does not forward (ip_forward), or has no way"
            }
            ("ENETUNREACH", _) => ": there is no route",
            ("EACCES", _) => ": a route or rule prohibits it",
            ("EINVAL", true) => {
                ": its source cannot be true here (rp_filter, or a martian), or it fell into a blackhole"
            }
            ("EINVAL", false) => ": it fell into a blackhole",
            _ => "",
        };
        return Some(format!(
            "routing of a packet{to}{came} is answered with {error}{meaning}{}",
            by_route(route)
        ));
    }
    let deadly = matches!(route.answer.as_deref(), Some("blackhole" | "unreachable" | "prohibit"));
    deadly.then(|| format!("routing of a packet{to}{came} ends{}", by_route(route)))
}

/// Rule and route that decided, as far as they are known.
fn by_route(route: &Route) -> String {
    let mut words = String::new();
    if let Some(rule) = &route.rule {
        words += &format!(" (rule {}: {}", rule.priority, rule.text);
    }
    if let Some(text) = &route.text {
        words += if words.is_empty() { " (" } else { "; " };
        words += &format!("route {text}");
    }
    if !words.is_empty() {
        words.push(')');
    }
    words
}

fn by_vpnd(station: &Station) -> String {
    match &station.vpnd {
        Some(Vpnd::Refused(refused)) => refusal(refused),
        Some(Vpnd::Sealed(sealed)) => {
            let error = sealed.error.as_deref().unwrap_or("an error");
            format!("the kernel would not send its carrier to {}: {error}", sealed.endpoint)
        }
        _ => "vpnd refused it".to_owned(),
    }
}

fn refusal(refused: &Refused) -> String {
    let who = refused.peer.as_deref().unwrap_or("a peer");
    let inner = refused.inner.map_or_else(|| "the address".to_owned(), |inner| inner.to_string());
    let owner = match (&refused.owner, &refused.owner_prefix) {
        (Some(owner), Some(prefix)) => format!("it belongs to peer {owner} by {prefix}"),
        _ => "it belongs to no peer".to_owned(),
    };
    let sentence = match refused.reason.as_str() {
        "no_peer" => format!("no peer has {inner} in its allowed IPs"),
        "no_endpoint" => format!("it is for peer {who}, of which vpnd has no endpoint"),
        "source_not_allowed" => {
            format!("peer {who} sent it with the source {inner}, which is not in its allowed IPs: {owner}")
        }
        "no_such_session" => "the receiver index on its carrier is of no session that vpnd has".to_owned(),
        "session_expired" => "its session is older than 180 s".to_owned(),
        "replayed" => "its counter was seen before, or is older than the window".to_owned(),
        "forged" => "its carrier does not open: it was altered, or is not of this session".to_owned(),
        "routing_loop" => {
            format!("it is a datagram that was sealed for peer {who}: its route leads into its own tunnel")
        }
        "tun_write_failed" => "the kernel would not take it at the TUN".to_owned(),
        _ => "see the meaning of the reason in the status".to_owned(),
    };
    format!("vpnd refused it ({}): {sentence}", refused.reason)
}
