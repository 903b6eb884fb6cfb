//! A packet that was to leave by a device, and what the kernel's tracepoints say of it: given up by the queue or the driver,
//! waiting for a neighbour, or given up since that one did not answer. A packet socket at the device does not see what its
//! queue dropped: so the packet is known by device, length and time. Where more than one fits, nobody is believed.

use std::{collections::HashMap, net::IpAddr, ops::RangeInclusive};

use super::{
    Draft, Place,
    conclude::End,
    drops::{Deed, Neighbour, Step, Steps, Watched},
    station::{Clock, Verdict},
};

/// Between the kernel's words about POSTROUTING and about the device; the former are read later than they were said.
const APART_NS: u64 = 200_000_000;
/// Between what vpnd's clock says of a system call, and the kernel's.
const CLOCKS_NS: u64 = 1_000_000;
/// Between the end of what waited for a neighbour, and the kernel's word that this one failed: one run of a timer.
const TIMER_NS: u64 = 10_000_000;
/// The kernel's functions that end what waited for a neighbour.
const INVALIDATE: [&str; 3] = ["neigh_invalidate", "arp_error_report", "ndisc_error_report"];

/// A packet that had passed POSTROUTING.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Leaving {
    /// The device's station.
    pub(super) station: usize,
    /// Its name.
    pub(super) device: String,
    /// Has it a carrier?
    pub(super) running: bool,
    /// Is the packet too long to leave in one piece? The pieces have other buffers.
    pub(super) is_cut: bool,
    /// Length from the IP header on.
    pub(super) bytes: u64,
    /// Length of the link's header.
    pub(super) header: u64,
    /// When it came to the device: then, by CLOCK_BOOTTIME.
    pub(super) span: RangeInclusive<u64>,
}

/// What became of it.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Fate {
    /// The queue or the driver of a device gave it up: of this one, or of one below.
    Dropped { at_ns: u64, device: String, reason: String, by: String },
    /// The driver took it.
    Taken,
    /// It is in the queue of the device.
    Queued { at_ns: u64 },
    /// It waits for a neighbour.
    Waits(IpAddr),
    /// That one did not answer; where it is sure, reason and function.
    Unanswered { at_ns: u64, neighbour: IpAddr, how: Option<(String, String)> },
}

impl Leaving {
    /// Behind POSTROUTING, whose message was read at `told_ns`; not before `after_ns`, and not after `done_ns`.
    pub(super) fn span(told_ns: u64, after_ns: Option<u64>, done_ns: Option<u64>) -> RangeInclusive<u64> {
        let first = after_ns.map(|after| after.saturating_sub(CLOCKS_NS));
        let last = done_ns.map_or(told_ns.saturating_add(APART_NS), |done| done.saturating_add(CLOCKS_NS));
        first.unwrap_or(told_ns.saturating_sub(APART_NS))..=last
    }

    /// `next_hop`: the neighbour to which routing leads it.
    fn fate(&self, watched: &Watched, next_hop: Option<IpAddr>) -> Option<Fate> {
        let queued = Deed::Queued { device: self.device.clone(), bytes: self.bytes + self.header };
        if let Some((one, next)) = watched.the_one(&self.span, &queued) {
            return self.fate_behind(one, next);
        }
        if watched.within(&self.span).any(|(_, step)| step.deed == queued) {
            return None; // one of several
        }
        self.waits(watched, next_hop?)
    }

    /// It came to the device; what became of its buffer then.
    fn fate_behind<'a>(&self, one: &'a Step, mut next: impl Iterator<Item = &'a Step>) -> Option<Fate> {
        let at_ns = one.at_ns;
        let mut device = &self.device;
        loop {
            return match next.next().map(|next| &next.deed) {
                None => (!self.is_cut).then_some(Fate::Queued { at_ns }),
                Some(Deed::Dropped { reason, by }) => {
                    let (device, reason, by) = (device.clone(), reason.clone(), by.clone());
                    Some(Fate::Dropped { at_ns, device, reason, by })
                }
                Some(Deed::Taken) => Some(Fate::Taken),
                // From a bridge, a bond or a VLAN to the device below.
                Some(Deed::Queued { device: below, bytes })
                    if *bytes == self.bytes + self.header && below != device =>
                {
                    device = below;
                    continue;
                }
                // Its end was not told.
                Some(_) => None,
            };
        }
    }

    /// Is it among those that wait for this neighbour?
    fn waits(&self, watched: &Watched, next_hop: IpAddr) -> Option<Fate> {
        if *self.span.start() < watched.since_ns {
            return None;
        }
        let mut ones = watched.within(&self.span).filter_map(|(at, step)| match &step.deed {
            Deed::Waits(one) if (&one.device, one.address) == (&self.device, next_hop) => Some((at, one)),
            _ => None,
        });
        let (at, one) = ones.next()?;
        if ones.any(|(_, other)| other != one) {
            return None; // one of several network namespaces
        }
        let later = &watched.steps[at..];
        let ends = |step: &Step| matches!(&step.deed, Deed::Failed(end) | Deed::Updated(end) if end == one);
        let Some(end) = later.iter().position(ends) else { return Some(Fate::Waits(next_hop)) };
        let Deed::Failed(_) = later[end].deed else { return None };
        let how = how_it_ended(&later[..=end], one);
        Some(Fate::Unanswered { at_ns: watched.steps[at].at_ns, neighbour: next_hop, how })
    }
}

/// Reason and function for what had waited for a neighbour, if they were the same for all. The last step is the one that says
/// that it failed.
fn how_it_ended(steps: &[Step], neighbour: &Neighbour) -> Option<(String, String)> {
    let (failed, before) = steps.split_last()?;
    // Something waited that had no room: that may have been this one.
    let mut on_the_core: HashMap<u32, bool> = HashMap::new();
    for step in before {
        let is_full = matches!(&step.deed, Deed::Dropped { reason, .. } if reason == "NEIGH_QUEUEFULL");
        let was_full = on_the_core.insert(step.core, is_full).unwrap_or(false);
        if was_full && step.deed == Deed::Waits(neighbour.clone()) {
            return None;
        }
    }
    // What the same run of the timer did, before it came to say so.
    let of_the_run =
        before.iter().rev().filter(|step| step.core == failed.core).take_while(|step| {
            failed.at_ns - step.at_ns <= TIMER_NS && !matches!(step.deed, Deed::Failed(_))
        });
    let mut drops = of_the_run.filter_map(|step| match &step.deed {
        Deed::Dropped { reason, by } if INVALIDATE.contains(&by.as_str()) => Some((reason, by)),
        _ => None,
    });
    let how = drops.next()?;
    drops.all(|other| other == how).then(|| (how.0.clone(), how.1.clone()))
}

impl Draft {
    /// Did it die, or wait, at a device by which it was to leave? Nobody else sees that.
    pub(super) fn find_departure(&mut self, steps: &Steps) {
        let last = self.page.stations.len().wrapping_sub(1);
        let at = match self.end {
            End::Gap { station, .. } => station,
            End::Left | End::Arrived if self.answered_us.is_none() && self.answer.is_none() => last,
            _ => return,
        };
        let Some(leaving) = self.leaving.iter().find(|leaving| leaving.station == at).cloned() else {
            return;
        };
        match leaving.fate(&steps.left, self.next_hop(&leaving)) {
            Some(fate) => self.depart(&leaving, fate),
            None if *leaving.span.start() < steps.left.since_ns => self.page.note_a_loss(),
            None => {}
        }
    }

    /// Where routing leads it.
    fn next_hop(&self, leaving: &Leaving) -> Option<IpAddr> {
        let before = self.page.stations.get(..leaving.station)?;
        let walk = self.page.stations[leaving.station].walk;
        let station = before.iter().rfind(|station| station.place == Place::Route && station.walk == walk)?;
        let route = station.route.as_ref().filter(|route| route.device.as_ref() == Some(&leaving.device))?;
        route.via.or(route.destination)
    }

    fn depart(&mut self, leaving: &Leaving, fate: Fate) {
        let Leaving { station: at, device, bytes, .. } = leaving;
        let was_seen = self.page.stations[*at].clock == Some(Clock::Kernel);
        let known = format!("known as the only packet of {bytes} bytes that was to leave by {device} then");
        match fate {
            Fate::Dropped { at_ns, device, reason, by } => {
                let fact = format!("the kernel gave it up in {by} (skb:kfree_skb): {known}");
                self.give_up(leaving, at_ns, vec![fact]);
                let why = by_reason(&device, &reason);
                self.end = End::GivenUp { station: *at, why, reason: Some(reason) };
            }
            Fate::Unanswered { at_ns, neighbour, how } if !was_seen => {
                let mut facts = vec![format!(
                    "the neighbour {neighbour} failed (neigh:neigh_timer_handler): it did not answer"
                )];
                if let Some((_, by)) = &how {
                    facts.push(format!("the kernel gave up in {by} (skb:kfree_skb) whatever waited for it"));
                }
                self.give_up(leaving, at_ns, facts);
                let why = format!("its next hop {neighbour} on {device} did not say its address on the link");
                self.end = End::GivenUp { station: *at, why, reason: how.map(|(reason, _)| reason) };
            }
            Fate::Waits(neighbour) if !was_seen => {
                let why = format!(
                    "it waits until its next hop {neighbour} on {device} has said its address on the link, which had not \
                     happened when the trace ended"
                );
                self.page.stations[*at].verdict = Verdict::Unknown;
                self.end = End::Waits { why };
            }
            Fate::Queued { at_ns } if !was_seen => {
                self.give_up(
                    leaving,
                    at_ns,
                    vec![format!("it is in its queue (net:net_dev_queue): {known}")],
                );
                self.page.stations[*at].verdict = Verdict::Unknown;
                let why = format!("it waits in the queue of {device}, and had not left when the trace ended");
                self.end = End::Waits { why };
            }
            Fate::Taken if matches!(self.end, End::Gap { .. }) => {
                let why =
                    format!("the device {device} has it, and vpnd had not read it when the trace ended");
                self.end = End::Waits { why };
            }
            _ => {}
        }
    }

    /// It came to the device, and not through it.
    fn give_up(&mut self, leaving: &Leaving, at_ns: u64, facts: Vec<String>) {
        let station = &mut self.page.stations[leaving.station];
        if station.at_us.is_none() {
            station.at_us = Some((at_ns as f64 - self.began_ns as f64) / 1e3);
            station.clock = Some(Clock::Kernel);
        }
        (station.inferred, station.verdict) = (false, Verdict::Dropped);
        station.facts.extend(facts);
        if !leaving.running {
            station.facts.push(format!("{} is down, or has no carrier", leaving.device));
        }
    }
}

/// In words.
fn by_reason(device: &str, reason: &str) -> String {
    match reason.split('_').next() {
        Some("QDISC" | "FQ" | "CAKE" | "DUALPI2") => {
            format!("the queueing discipline (qdisc) of {device} dropped it")
        }
        _ if reason == "FULL_RING" => {
            format!("the ring of {device} is full: whoever reads it does not keep up")
        }
        _ => format!("the kernel gave it up when it was to leave by {device}"),
    }
}

#[cfg(test)]
mod tests {
    use super::{super::drops::tests::watched, *};

    // As the kernel wrote them: a TUN whose ring is full, and a queue that has no room.
    const QUEUED: &str = "         python3-26533   [001] b.... 23689.104617: net_dev_queue: dev=xtun skbaddr=00000000bf3301bd len=729";
    const FULL: &str = "         python3-26533   [001] b..1. 23689.104620: kfree_skb: skbaddr=00000000bf3301bd \
                        rx_sk=0000000000000000 protocol=2048 location=tun_net_xmit+0x2e2/0x4f0 reason: FULL_RING";
    const REFUSED: &str = "         python3-26533   [001] b..1. 23689.104620: net_dev_xmit: dev=xtun skbaddr=00000000bf3301bd \
                           len=729 rc=1";
    const AGAIN: &str = "         python3-26533   [001] b.... 23689.104623: net_dev_queue: dev=xtun skbaddr=00000000bf3301bd len=730";
    const TAKEN: &str = "         python3-26533   [001] b..1. 23689.104620: net_dev_xmit: dev=xtun skbaddr=00000000bf3301bd \
                         len=729 rc=0";

    /// As if it had been sent 17 µs before it came to the device, and netfilter's message been read 20 µs behind that.
    fn leaving(device: &str, bytes: u64, header: u64) -> Leaving {
        let at_ns = 23_689_104_617_000;
        Leaving {
            station: 4,
            device: device.to_owned(),
            running: true,
            is_cut: false,
            bytes,
            header,
            span: Leaving::span(at_ns + 20_000, Some(at_ns - 17_000), None),
        }
    }

    fn dropped(device: &str, reason: &str, by: &str) -> Option<Fate> {
        let [device, reason, by] = [device, reason, by].map(str::to_owned);
        Some(Fate::Dropped { at_ns: 23_689_104_617_000, device, reason, by })
    }

    #[test]
    fn what_the_ring_has_no_room_for_is_known_by_device_length_and_time() {
        let lines = [QUEUED, FULL, REFUSED, AGAIN, &FULL.replace("104620", "104623")];
        let watched = watched(&lines);
        let fate = |one: Leaving| one.fate(&watched, None);
        assert_eq!(fate(leaving("xtun", 729, 0)), dropped("xtun", "FULL_RING", "tun_net_xmit"));
        assert_eq!(
            fate(leaving("xtun", 715, 14)),
            dropped("xtun", "FULL_RING", "tun_net_xmit"),
            "with a link's header"
        );
        assert_eq!(fate(leaving("xtun", 728, 0)), None);
        assert_eq!(fate(leaving("vpn0", 729, 0)), None);
        let at = |first, last| Leaving { span: first..=last, ..leaving("xtun", 729, 0) };
        assert_eq!(fate(at(0, 23_689_104_616_999)), None, "it was sent later");
        assert_eq!(fate(at(23_689_104_617_001, u64::MAX)), None, "it was sent before");
        let late = Watched { since_ns: 23_689_104_617_000, ..watched.clone() };
        assert_eq!(leaving("xtun", 729, 0).fate(&late, None), None, "another may be missing");
    }

    #[test]
    fn where_two_are_as_long_or_the_buffer_was_used_again_nobody_is_believed() {
        let fate = |lines: &[&str]| leaving("xtun", 729, 0).fate(&watched(lines), Some([10, 7, 7, 2].into()));
        let other = QUEUED.replace("bf3301bd", "bf330100");
        assert_eq!(fate(&[QUEUED, &other, FULL]), None);
        assert_eq!(fate(&[QUEUED, AGAIN, FULL]), None, "its end was not told");
    }

    #[test]
    fn a_device_below_may_be_the_one_that_drops() {
        let below = QUEUED.replace("dev=xtun", "dev=eth0");
        let fate = |lines: &[&str]| leaving("xtun", 729, 0).fate(&watched(lines), None);
        assert_eq!(fate(&[QUEUED, &below, FULL]), dropped("eth0", "FULL_RING", "tun_net_xmit"));
        assert_eq!(fate(&[QUEUED, &below, TAKEN]), Some(Fate::Taken));
        assert_eq!(fate(&[QUEUED, &below.replace("len=729", "len=72"), FULL]), None, "another packet");
    }

    #[test]
    fn what_the_driver_took_was_not_dropped_and_what_nobody_took_waits() {
        let fate = |lines: &[&str]| leaving("xtun", 729, 0).fate(&watched(lines), None);
        // Some drivers give up in the same words what they have sent.
        assert_eq!(fate(&[QUEUED, TAKEN, FULL]), Some(Fate::Taken));
        assert_eq!(fate(&[QUEUED]), Some(Fate::Queued { at_ns: 23_689_104_617_000 }));
        let cut = Leaving { is_cut: true, ..leaving("xtun", 729, 0) };
        assert_eq!(cut.fate(&watched(&[QUEUED]), None), None, "its pieces may have left");
    }

    const WAITS: &str = "            ping-25197   [001] ..... 23684.058507: neigh_event_send_done: family 2 dev xq7 lladdr \
                         000000000000 flags 00 nud_state incomplete type 01 dead 0 refcnt 2 primary_key4 192.0.2.9 \
                         primary_key6 ::ffff:192.0.2.9 confirmed 4300798249 updated 4300813249 used 4300813249 err 1";
    const ASKED: &str = "       vpnd-data-4108    [000] .Ns.. 23685.076057: neigh_timer_handler: family 2 dev xq7 lladdr \
                         000000000000 flags 00 nud_state incomplete type 01 dead 0 refcnt 3 primary_key4 192.0.2.9 \
                         primary_key6 ::ffff:192.0.2.9 confirmed 4300798249 updated 4300813249 used 4300813249 err 0";
    const GIVEN_UP: &str = "      vpnd-out-1-22551   [001] .Ns.. 23687.124040: kfree_skb: skbaddr=000000001f693f26 \
                            rx_sk=0000000000000000 protocol=2048 location=neigh_invalidate+0x7e/0x140 reason: NEIGH_FAILED";
    const FAILED: &str = "      vpnd-out-1-22551   [001] .Ns.. 23687.124056: neigh_timer_handler: family 2 dev xq7 lladdr \
                          000000000000 flags 00 nud_state failed type 01 dead 0 refcnt 2 primary_key4 192.0.2.9 \
                          primary_key6 ::ffff:192.0.2.9 confirmed 4300798249 updated 4300814016 used 4300813249 err 0";
    const UPDATED: &str = "            ping-26296   [001] ..s1. 23684.717734: neigh_update: family 2 dev xq7 lladdr \
                           000000000000 flags 00 nud_state incomplete type 01 dead 0 refcnt 3 primary_key4 192.0.2.9 \
                           primary_key6 ::ffff:192.0.2.9 confirmed 4300798249 updated 4300813249 used 4300813249 \
                           new_lladdr a664c0b8bd2c new_state reachable update_flags 00 pid 0";

    /// A packet to 192.0.2.9.
    fn neighbour(lines: &[&str]) -> Option<Fate> {
        let at_ns = 23_684_058_500_000;
        let span = Leaving::span(at_ns, Some(at_ns), Some(at_ns + 20_000));
        let leaving = Leaving { span, ..leaving("xq7", 599, 14) };
        leaving.fate(&watched(lines), Some([192, 0, 2, 9].into()))
    }

    fn unanswered(how: Option<(&str, &str)>) -> Option<Fate> {
        let how = how.map(|(reason, by)| (reason.to_owned(), by.to_owned()));
        Some(Fate::Unanswered { at_ns: 23_684_058_507_000, neighbour: [192, 0, 2, 9].into(), how })
    }

    #[test]
    fn what_waited_for_a_neighbour_that_failed_has_the_reason_of_all_that_did() {
        let how = Some(("NEIGH_FAILED", "neigh_invalidate"));
        assert_eq!(neighbour(&[WAITS, ASKED, GIVEN_UP, FAILED]), unanswered(how));
        assert_eq!(neighbour(&[WAITS, GIVEN_UP, GIVEN_UP, FAILED]), unanswered(how), "two waited");
        // The same function names no reason for IPv6: two families, and one of them is ours.
        let other = GIVEN_UP.replace("NEIGH_FAILED", "NOT_SPECIFIED");
        assert_eq!(neighbour(&[WAITS, GIVEN_UP, &other, FAILED]), unanswered(None));
        let before = FAILED.replace("192.0.2.9", "192.0.2.7");
        assert_eq!(neighbour(&[WAITS, &other, &before, GIVEN_UP, FAILED]), unanswered(how), "another one's");
        let elsewhere = GIVEN_UP.replace("[001]", "[000]");
        assert_eq!(neighbour(&[WAITS, &elsewhere, FAILED]), unanswered(None));
        let long_ago = GIVEN_UP.replace("23687.124040", "23687.024040");
        assert_eq!(neighbour(&[WAITS, &long_ago, FAILED]), unanswered(None));
    }

    #[test]
    fn what_found_no_room_may_have_been_this_one() {
        let full =
            GIVEN_UP.replace("23687.124040", "23684.060000").replace("NEIGH_FAILED", "NEIGH_QUEUEFULL");
        let again = WAITS.replace("23684.058507", "23684.060001");
        let end = [GIVEN_UP, FAILED];
        assert_eq!(neighbour(&[&[WAITS, &full, &again], &end[..]].concat()), unanswered(None));
        let how = Some(("NEIGH_FAILED", "neigh_invalidate"));
        let another = again.replace("192.0.2.9", "192.0.2.7");
        assert_eq!(neighbour(&[&[WAITS, &full, &another], &end[..]].concat()), unanswered(how));
    }

    #[test]
    fn a_neighbour_is_waited_for_until_it_is_told_what_became_of_it() {
        assert_eq!(neighbour(&[WAITS, ASKED]), Some(Fate::Waits([192, 0, 2, 9].into())));
        assert_eq!(neighbour(&[WAITS, UPDATED]), None, "it went on");
        assert_eq!(neighbour(&[GIVEN_UP, FAILED]), None, "nothing waited then");
        // Of the same name, in another network namespace.
        let other = |line: &str| line.replace("4300798249", "4300798111");
        assert_eq!(neighbour(&[WAITS, &other(UPDATED)]), Some(Fate::Waits([192, 0, 2, 9].into())));
        assert_eq!(neighbour(&[WAITS, &other(FAILED)]), Some(Fate::Waits([192, 0, 2, 9].into())));
        assert_eq!(neighbour(&[WAITS, &other(WAITS), GIVEN_UP, FAILED]), None, "which of the two?");
    }

    #[test]
    fn who_reads_late_is_given_time_and_who_knows_is_not() {
        assert_eq!(Leaving::span(900_000_000, None, None), 700_000_000..=1_100_000_000);
        assert_eq!(Leaving::span(900_000_000, Some(800_000_000), None), 799_000_000..=1_100_000_000);
        assert_eq!(
            Leaving::span(900_000_000, Some(800_000_000), Some(850_000_000)),
            799_000_000..=851_000_000
        );
    }
}
