//! What happens to the daemon as a whole, told in one place: the log, and the counts of the status.

use tracing::{debug, error, info, warn};

use super::Driver;
use crate::host::Mended;

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
        let count = &mut self.operation;
        match news {
            News::Reloaded { changed, confirm_within_s } => {
                count.reloads += 1;
                count.not_in_force = None;
                match confirm_within_s {
                    Some(seconds) => info!(
                        changes = changed.len(),
                        "reloaded, to be taken back in {seconds} s unless `vpnd confirm` follows"
                    ),
                    None => info!(changes = changed.len(), "reloaded"),
                }
                lines(changed);
            }
            News::ReloadRefused { why } => {
                count.reloads_refused += 1;
                count.not_in_force = why.lines().next().map(str::to_owned);
                for line in why.lines().take(LINES) {
                    error!("not reloaded, nothing changed: {line}");
                }
            }
            News::Confirmed => info!("what was reloaded is confirmed"),
            News::TakenBack { changed } => {
                count.reloads_taken_back += 1;
                count.not_in_force = Some("nobody confirmed it".to_owned());
                warn!(
                    changes = changed.len(),
                    "what was reloaded was not confirmed in time, and is taken back"
                );
                lines(changed);
            }
            News::NotTakenBack { why } => error!("what was reloaded could not be taken back yet: {why}"),
            News::PutBack { mended } => {
                count.put_back += mended.count as u64;
                count.put_back_last = mended.put_back.last().cloned();
                let what = mended.put_back.join(", ");
                match self.drift.is_contested() {
                    false => warn!(what, count = mended.count, "put back what another program removed"),
                    true if self.drift.is_newly_contested() => warn!(
                        what,
                        count = mended.count,
                        "another program removes what is ours again and again: from now on it is put back after \
                         {} s, and longer; find that program",
                        self.drift.pause().as_secs()
                    ),
                    true => debug!(what, count = mended.count, "put back what another program removed"),
                }
            }
            News::Displaced { why } => warn!("not put back: {why}"),
            News::Link { up } => {
                count.link_down = !up;
                match up {
                    true => info!("the device is up again"),
                    false => warn!(
                        "the device was set down from outside: it stays down, and carries nothing, until \
                         `ip link set {} up` or `vpnd reload`",
                        self.name
                    ),
                }
            }
        }
    }
}

fn lines(changed: &[String]) {
    for line in changed.iter().take(LINES) {
        info!("{line}");
    }
    if let Some(more @ 1..) = changed.len().checked_sub(LINES) {
        info!("and {more} more");
    }
}
