//! What happens to the daemon as a whole, told in one place: the log, and the counts of the status.

use tracing::{debug, error, info, warn};

use super::Driver;
use crate::{control::events::What, host::Mended};

/// Lines of one reload that the log has; the answer to `vpnd reload` has all.
const LINES: usize = 50;

/// Something an operator cares about, beside what [`crate::tunnel::Event`] tells of peers.
pub(super) enum News<'a> {
    /// The file was read again; these lines say what is another now. On trial: for so many seconds.
    Reloaded { changed: &'a [String], confirm_within_s: Option<u64> },
    /// It was refused, and nothing changed.
    ReloadRefused { why: &'a str },
    /// What was on trial stays.
    Confirmed,
    /// What was on trial was not confirmed, and is undone.
    TakenBack { changed: &'a [String] },
    /// It could not be undone, and is tried again.
    NotTakenBack { why: &'a str },
    /// What another program had removed is there again.
    PutBack { mended: &'a Mended },
    /// Something stands in the place of ours.
    Displaced { why: &'a str },
    /// Our device was set down or up.
    Link { up: bool },
}

impl Driver<'_> {
    pub(super) fn tell(&mut self, news: News<'_>) {
        let what = self.event(&news);
        let event = self.events.field(what.name());
        self.events.record(None, what);
        self.count(&news);
        match news {
            News::Reloaded { changed, confirm_within_s } => {
                match confirm_within_s {
                    Some(seconds) => info!(
                        event,
                        changes = changed.len(),
                        "reloaded, to be taken back in {seconds} s unless `vpnd confirm` follows"
                    ),
                    None => info!(event, changes = changed.len(), "reloaded"),
                }
                lines(changed);
            }
            News::ReloadRefused { why } => {
                for line in why.lines().take(LINES) {
                    error!(event, "not reloaded, nothing changed: {line}");
                }
            }
            News::Confirmed => info!(event, "what was reloaded is confirmed"),
            News::TakenBack { changed } => {
                warn!(
                    event,
                    changes = changed.len(),
                    "what was reloaded was not confirmed in time, and is taken back"
                );
                lines(changed);
            }
            News::NotTakenBack { why } => {
                error!(event, "what was reloaded could not be taken back yet: {why}")
            }
            News::PutBack { mended } => self.log_put_back(event, mended),
            News::Displaced { why } => warn!(event, "not put back: {why}"),
            News::Link { up: true } => info!(event, "the device is up again"),
            News::Link { up: false } => warn!(
                event,
                "the device was set down from outside: it stays down, and carries nothing, until `ip link set {} up` or \
                 `vpnd reload`",
                self.name
            ),
        }
    }

    /// For the status.
    fn count(&mut self, news: &News<'_>) {
        let count = &mut self.operation;
        match *news {
            News::Reloaded { .. } => {
                count.reloads += 1;
                count.not_in_force = None;
            }
            News::ReloadRefused { why } => {
                count.reloads_refused += 1;
                count.not_in_force = why.lines().next().map(str::to_owned);
            }
            News::TakenBack { .. } => {
                count.reloads_taken_back += 1;
                count.not_in_force = Some("nobody confirmed it".to_owned());
            }
            News::PutBack { mended } => {
                count.put_back += mended.count as u64;
                count.put_back_last = mended.put_back.last().cloned();
            }
            News::Link { up } => count.link_down = !up,
            News::Confirmed | News::NotTakenBack { .. } | News::Displaced { .. } => {}
        }
    }

    /// Aloud, until it is known that it happens again and again.
    fn log_put_back(&self, event: Option<&'static str>, mended: &Mended) {
        let (what, count) = (mended.put_back.join(", "), mended.count);
        if self.drift.is_newly_contested() {
            warn!(
                event,
                what,
                count,
                "another program removes what is ours again and again: from now on it is put back after {} s, and \
                 longer; find that program",
                self.drift.pause().as_secs()
            );
        } else if self.drift.is_contested() {
            debug!(event, what, count, "put back what another program removed");
        } else {
            warn!(event, what, count, "put back what another program removed");
        }
    }

    /// The same as an event.
    fn event(&self, news: &News<'_>) -> What {
        match *news {
            News::Reloaded { changed, confirm_within_s } => {
                What::Reloaded { changes: first(changed), confirm_within_s }
            }
            News::ReloadRefused { why } => What::ReloadRefused { why: why.to_owned() },
            News::Confirmed => What::Confirmed,
            News::TakenBack { changed } => What::TakenBack { changes: first(changed) },
            News::NotTakenBack { why } => What::NotTakenBack { why: why.to_owned() },
            News::PutBack { mended } => What::Drift {
                what: mended.put_back.join(", "),
                count: mended.count as u64,
                contested: self.drift.is_contested(),
            },
            News::Displaced { why } => What::Displaced { why: why.to_owned() },
            News::Link { up } => What::Link { up },
        }
    }
}

/// Not all of 10,000: an event is kept for long.
fn first(changed: &[String]) -> Vec<String> {
    let mut lines = changed[..changed.len().min(LINES)].to_vec();
    if let Some(more @ 1..) = changed.len().checked_sub(LINES) {
        lines.push(format!("and {more} more"));
    }
    lines
}

fn lines(changed: &[String]) {
    for line in changed.iter().take(LINES) {
        info!("{line}");
    }
    if let Some(more @ 1..) = changed.len().checked_sub(LINES) {
        info!("and {more} more");
    }
}
