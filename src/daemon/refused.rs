//! From counts of refusals to events: each reason at once when it first counts, then at growing intervals, so that a
//! flood fills no log.

use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

use crate::{
    control::{
        events::{What, Who},
        schema::{EvidenceReport, RefusalReport},
    },
    forward::{Evidence, Refusal, Refusals, Time},
    tunnel::Tunnel,
};

/// How often the counts are looked at while somebody listens …
const ATTENDED: Duration = Duration::from_secs(1);
/// … and while nobody does: a daemon that has nothing to do wakes this seldom.
const ALONE: Duration = Duration::from_secs(10);
/// A reason that goes on counting is told again after this, then after twice as long, …
const FIRST_PAUSE: Duration = Duration::from_secs(5);
/// … but at least this often; and one that was quiet for so long is new.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// What was told of each reason.
pub(super) struct Watch {
    told: [Told; Refusal::ALL.len()],
    looked: Instant,
}

#[derive(Clone, Copy, Default)]
struct Told {
    count: u64,
    /// When, and how long it is then silent; none: never, or long ago.
    last: Option<(Time, Duration)>,
}

impl Watch {
    pub(super) fn new() -> Self {
        Self { told: [Told::default(); Refusal::ALL.len()], looked: Instant::now() }
    }

    /// `attended` tells that somebody has just begun to listen.
    pub(super) async fn due(&self, attended: &Notify, listened_to: bool) {
        tokio::select! {
            () = sleep_until(self.looked + pause(listened_to)) => {}
            () = attended.notified(), if !listened_to => {}
        }
    }

    pub(super) fn is_due(&self, now: Instant, listened_to: bool) -> bool {
        // Who is awake for another reason may as well look.
        now >= self.looked + if listened_to { ATTENDED } else { ATTENDED * 2 }
    }

    /// What is to be told now.
    pub(super) fn look(&mut self, tunnel: &Tunnel, now: Time) -> Vec<(Option<Who>, What)> {
        self.looked = Instant::now();
        let refusals = &tunnel.forward().refusals;
        let news = self.news(refusals, now);
        news.into_iter().map(|(what, count)| event(what, count, refusals.read(what).1, tunnel, now)).collect()
    }

    fn news(&mut self, refusals: &Refusals, now: Time) -> Vec<(Refusal, u64)> {
        let mut news = Vec::new();
        for what in Refusal::ALL {
            let told = &mut self.told[what as usize];
            let count = refusals.counted(what);
            if !is_told(what) || count == told.count {
                continue;
            }
            let pause = match told.last {
                Some((at, pause)) if now.since(at) < pause => continue,
                Some((at, pause)) if now.since(at) < pause + LONGEST_PAUSE => (pause * 2).min(LONGEST_PAUSE),
                _ => FIRST_PAUSE,
            };
            news.push((what, count - told.count));
            *told = Told { count, last: Some((now, pause)) };
        }
        news
    }
}

fn pause(listened_to: bool) -> Duration {
    if listened_to { ATTENDED } else { ALONE }
}

/// Nothing is wrong where a host speaks to all on the link.
fn is_told(what: Refusal) -> bool {
    what != Refusal::LinkScope
}

fn event(
    what: Refusal,
    count: u64,
    last: Option<Evidence>,
    tunnel: &Tunnel,
    now: Time,
) -> (Option<Who>, What) {
    let who = last.as_ref().and_then(|last| last.peer).and_then(|id| tunnel.peer_name(id));
    let who = who.map(|(key, name)| Who { name, key });
    let name_of = |id| tunnel.peer_name(id).map(|(_, name)| name);
    let by_key = |key| tunnel.peer_id(&key).and_then(name_of);
    let last = last.map(|last| EvidenceReport::new(&last, now, name_of, by_key));
    let report = RefusalReport::new(what, count, last);
    let (from, key, inner, owner) = match report.last {
        Some(last) => (last.from, last.key, last.inner, last.owner),
        None => (None, None, None, None),
    };
    let RefusalReport { reason, text, .. } = report;
    (who, What::Refused { reason, count, from, key, inner, owner, text })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(n: u64) -> Time {
        Time(n * 1_000_000_000)
    }

    #[tokio::test]
    async fn a_reason_is_told_at_once_then_less_and_less_often_and_with_all_that_was_counted() {
        let refusals = Refusals::new();
        let mut watch = Watch::new();
        assert_eq!(watch.news(&refusals, seconds(1)), []);
        let mut told = Vec::new();
        for second in 1..=300 {
            refusals.add(Refusal::Malformed, 10);
            let news = watch.news(&refusals, seconds(second));
            told.extend(news.into_iter().map(|(_, count)| (second, count)));
        }
        assert_eq!(
            told,
            [(1, 10), (6, 50), (16, 100), (36, 200), (76, 400), (136, 600), (196, 600), (256, 600)]
        );
    }

    #[tokio::test]
    async fn after_a_quiet_time_a_reason_is_new_and_what_is_harmless_is_never_told() {
        let refusals = Refusals::new();
        let mut watch = Watch::new();
        refusals.add(Refusal::Mac1, 1);
        refusals.add(Refusal::LinkScope, 1);
        assert_eq!(watch.news(&refusals, seconds(1)), [(Refusal::Mac1, 1)]);
        refusals.add(Refusal::Mac1, 1);
        assert_eq!(watch.news(&refusals, seconds(2)), []);
        assert_eq!(watch.news(&refusals, seconds(100)), [(Refusal::Mac1, 1)]);
        refusals.add(Refusal::Mac1, 3);
        assert_eq!(watch.news(&refusals, seconds(104)), []);
        assert_eq!(watch.news(&refusals, seconds(105)), [(Refusal::Mac1, 3)]);
    }
}
