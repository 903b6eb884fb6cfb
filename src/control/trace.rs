//! `GET /v1/trace`: what vpnd sees of the packets that a filter means, as lines of JSON while they pass.

use std::{fmt, pin::Pin, sync::Arc, time::Duration};

use hyper::body::Bytes;
use tokio::time::{Instant, timeout_at};
use zeroize::Zeroizing;

use super::query::Query;
use crate::trace::{Feed, Record, Wanted};

/// Asked for nothing else: so many packets, for so many seconds.
const PACKETS: u64 = 100;
const SECONDS: u64 = 60;
/// More is not to be had: a reader that was forgotten ends.
const MOST_PACKETS: u64 = 10_000_000;
const MOST_SECONDS: u64 = 24 * 3600;
/// A whole packet.
const MOST_SNAP: usize = 65_535;
/// Records that wait go out together, up to about this much.
const PIECE: usize = 64 * 1024;
/// A line with keys in it, which is no longer: a message of 148 bytes and four keys.
const SECRET_LINE: usize = 4096;

/// What of packets is asked for; an error is a sentence for whoever asked.
pub(super) fn wanted(query: &Query) -> Result<Wanted, String> {
    let filter = query.filter.as_deref().unwrap_or_default().parse();
    Ok(Wanted {
        filter: filter.map_err(|error: crate::trace::filter::FilterError| error.to_string())?,
        packets: bounded("packets", query.packets.unwrap_or(PACKETS), MOST_PACKETS)?,
        seconds: bounded("seconds", query.seconds.unwrap_or(SECONDS), MOST_SECONDS)?,
        snap: query.snap.map_or(Ok(0), |snap| match snap <= MOST_SNAP as u64 {
            true => Ok(snap as usize),
            false => Err(format!("snap is at most {MOST_SNAP}, not {snap}")),
        })?,
        each: query.each,
        handshakes: query.handshakes || query.secrets,
        secrets: query.secrets,
    })
}

fn bounded(name: &str, value: u64, most: u64) -> Result<u64, String> {
    match (1..=most).contains(&value) {
        true => Ok(value),
        false => Err(format!("{name} is 1 to {most}, not {value}")),
    }
}

/// Makes futures that resolve when there may be something new.
pub type News = Box<dyn Fn() -> Pin<Box<dyn Future<Output = ()> + Send>> + Send + Sync>;

/// A trace that runs. Dropping it ends it.
pub struct Tracing {
    began: Option<Record>,
    feed: Arc<Feed>,
    news: News,
    until: Instant,
    over: bool,
    /// It has keys in it, and goes out by itself, after what came before it.
    held: Option<Record>,
    end: Option<Box<dyn FnOnce() + Send + Sync>>,
}

impl Tracing {
    /// `began` is the first line; `news` resolves when the feed has something to pop; `end` is called once, when the
    /// reader is gone.
    pub fn new(
        began: Record,
        feed: Arc<Feed>,
        news: News,
        end: impl FnOnce() + Send + Sync + 'static,
    ) -> Self {
        let until = Instant::now() + Duration::from_secs(feed.wanted().seconds);
        Self { began: Some(began), feed, news, until, over: false, held: None, end: Some(Box::new(end)) }
    }

    /// What is there or comes next, as lines; `None`: that was all.
    pub(super) async fn lines(&mut self) -> Option<Bytes> {
        if self.over {
            return None;
        }
        let mut text = Vec::new();
        // Once a piece, so that a reader that never catches up hears it, too; behind the first line.
        if let Some(lost) = self.began.is_none().then(|| self.feed.lost()).flatten() {
            write_line(&mut text, &lost);
        }
        loop {
            // Asked before the ring is emptied: what comes later is not lost.
            let enough = self.feed.has_enough();
            while let Some(record) = self.next() {
                if has_secrets(&record) {
                    if text.is_empty() {
                        return Some(erased_line(&record));
                    }
                    self.held = Some(record);
                    return Some(text.into());
                }
                write_line(&mut text, &record);
                if text.len() >= PIECE {
                    return Some(text.into());
                }
            }
            let late = Instant::now() >= self.until;
            if enough || late {
                self.over = true;
                write_line(&mut text, &Record::Ended);
            }
            if !text.is_empty() {
                return Some(text.into());
            }
            // Late is asked at the top of the loop.
            let _ = timeout_at(self.until, (self.news)()).await;
        }
    }

    fn next(&mut self) -> Option<Record> {
        self.began.take().or_else(|| self.held.take()).or_else(|| self.feed.pop())
    }
}

impl Drop for Tracing {
    fn drop(&mut self) {
        if let Some(end) = self.end.take() {
            end();
        }
    }
}

impl fmt::Debug for Tracing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tracing").field("wanted", self.feed.wanted()).finish_non_exhaustive()
    }
}

fn has_secrets(record: &Record) -> bool {
    matches!(record, Record::Handshake(handshake) if handshake.secrets.is_some())
}

/// Bytes that are erased when they have been sent.
fn erased_line(record: &Record) -> Bytes {
    // It never grows, so that no part of it is left behind.
    let mut text = Zeroizing::new(Vec::with_capacity(SECRET_LINE));
    write_line(&mut text, record);
    debug_assert!(text.capacity() == SECRET_LINE, "a line with keys has grown to {}", text.len());
    Bytes::from_owner(text)
}

fn write_line(text: &mut Vec<u8>, record: &Record) {
    serde_json::to_writer(&mut *text, record).expect("a record has text keys and no other failures");
    text.push(b'\n');
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;
    use crate::trace::{Refused, Seen, Vpnd};

    fn asked(query: &str) -> Result<Wanted, String> {
        wanted(&Query::read(Some(query))?)
    }

    #[test]
    fn what_is_asked_for_has_bounds_and_what_is_wrong_is_named() {
        let wanted = asked("filter=icmp%20and%20host%2010.0.0.1&packets=3&seconds=5&snap=64").unwrap();
        assert_eq!((wanted.packets, wanted.seconds, wanted.snap), (3, 5, 64));
        assert_eq!(wanted.filter.to_string(), "icmp and host 10.0.0.1");
        let none = asked("").unwrap();
        assert_eq!((none.packets, none.seconds, none.snap), (PACKETS, SECONDS, 0));
        for (query, said) in [
            ("filter=prot", "is proto meant?"),
            ("packets=0", "packets is 1 to"),
            ("seconds=100000", "seconds is 1 to 86400"),
            ("snap=65536", "snap is at most 65535"),
            ("packets=many", "packets is no number"),
        ] {
            let why = asked(query).expect_err(query);
            assert!(why.contains(said), "{query}: {why}");
        }
    }

    fn tracing(feed: Arc<Feed>, ended: Arc<AtomicBool>) -> Tracing {
        let end = move || ended.store(true, Ordering::Relaxed);
        let began =
            Record::Began { interface: "vpn0".into(), listen_port: 1, fwmark: 0, boot_ns: 1, wall_ns: 2 };
        Tracing::new(began, feed, Box::new(|| Box::pin(std::future::pending())), end)
    }

    #[tokio::test]
    async fn a_trace_begins_tells_and_ends_after_its_time_or_its_packets() {
        for packets in [1, 2] {
            let ended = Arc::new(AtomicBool::new(false));
            let wanted = Wanted { packets, ..asked("seconds=1").unwrap() };
            let feed = Arc::new(Feed::new(wanted, 0, Box::new(|| ())));
            let mut tracing = tracing(feed.clone(), ended.clone());
            let first = String::from_utf8(tracing.lines().await.unwrap().to_vec()).unwrap();
            assert!(first.starts_with(r#"{"record":"began","interface":"vpn0""#), "{first}");
            let packet =
                crate::trace::Facts::of(&[0x45, 0, 0, 20, 0, 0, 0, 0, 64, 1, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
            let vpnd = Vpnd::Refused(Refused { reason: "no_peer".into(), ..Refused::default() });
            let packet = packet.map(Into::into);
            feed.push(Seen { at_ns: 5, done_ns: None, packet, vpnd, inner: vec![], outer: vec![] });
            let mut rest = String::new();
            while let Some(more) = tracing.lines().await {
                rest += std::str::from_utf8(&more).unwrap();
            }
            let lines: Vec<_> = rest.lines().collect();
            assert!(lines[0].contains(r#""did":"refused","reason":"no_peer""#), "{rest}");
            assert_eq!(lines[1..], [r#"{"record":"ended"}"#]);
            assert!(!ended.load(Ordering::Relaxed));
            drop(tracing);
            assert!(ended.load(Ordering::Relaxed), "the tap is free again");
        }
    }
}
