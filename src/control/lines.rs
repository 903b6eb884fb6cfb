//! Lines from a client that may be slow, half gone or hostile: bounded in length, in number and in time.

use std::{io, sync::Arc, time::Duration};

use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;
use zeroize::Zeroizing;

use super::uapi::MAX_LINE;

/// A client that says nothing for so long is let go.
pub(super) const IDLE: Duration = Duration::from_secs(10);

/// What the requests that are being read may hold, in all connections together, in KiB of text. A set of
/// 130,560 prefixes takes 4 MB; what it becomes in memory is at most three times its text.
const BUDGET_KIB: usize = 64 * 1024;

/// The budget, shared by all connections of one socket.
#[derive(Clone)]
pub(super) struct Budget(Arc<Semaphore>);

impl Budget {
    pub(super) fn new() -> Self {
        Self(Arc::new(Semaphore::new(BUDGET_KIB)))
    }
}

/// What one request took from the budget; it goes back when this is dropped.
pub(super) struct Share {
    budget: Budget,
    taken: Option<OwnedSemaphorePermit>,
    left: usize,
}

impl Share {
    pub(super) fn new(budget: &Budget) -> Self {
        Self { budget: budget.clone(), taken: None, left: 0 }
    }

    /// Takes `bytes` more; false if they are not to be had.
    pub(super) fn take(&mut self, bytes: usize) -> bool {
        while self.left < bytes {
            let Ok(kib) = self.budget.0.clone().try_acquire_owned() else { return false };
            match &mut self.taken {
                Some(taken) => taken.merge(kib),
                None => self.taken = Some(kib),
            }
            self.left += 1024;
        }
        self.left -= bytes;
        true
    }
}

/// Splits a stream into lines, in one buffer of a fixed size that is erased at the end (it holds keys).
pub(super) struct Lines<R> {
    from: R,
    buffer: Zeroizing<Vec<u8>>,
    start: usize,
    end: usize,
    /// The rest of a line that is too long is being thrown away.
    overlong: bool,
}

impl<R: AsyncRead + Unpin> Lines<R> {
    pub(super) fn new(from: R) -> Self {
        Self { from, buffer: Zeroizing::new(vec![0; 8192]), start: 0, end: 0, overlong: false }
    }

    /// The next line, without its line feed; of a line longer than [`MAX_LINE`] its first [`MAX_LINE`] + 1
    /// bytes. `None`: the client has closed, or left in the middle of a line.
    pub(super) async fn next(&mut self) -> io::Result<Option<&[u8]>> {
        loop {
            let waiting = &self.buffer[self.start..self.end];
            let feed = waiting.iter().position(|byte| *byte == b'\n');
            match (feed, self.overlong) {
                (Some(length), true) => {
                    self.start += length + 1;
                    self.overlong = false;
                }
                (Some(length), false) => {
                    let line = self.start..self.start + length.min(MAX_LINE + 1);
                    self.start += length + 1;
                    return Ok(Some(&self.buffer[line]));
                }
                (None, true) => self.start = self.end,
                (None, false) if waiting.len() > MAX_LINE => {
                    let line = self.start..self.start + MAX_LINE + 1;
                    self.start = self.end;
                    self.overlong = true;
                    return Ok(Some(&self.buffer[line]));
                }
                (None, false) => {}
            }
            if feed.is_none() && self.fill().await? == 0 {
                return Ok(None);
            }
        }
    }

    async fn fill(&mut self) -> io::Result<usize> {
        self.buffer.copy_within(self.start..self.end, 0);
        self.end -= self.start;
        self.start = 0;
        let read = timeout(IDLE, self.from.read(&mut self.buffer[self.end..])).await??;
        self.end += read;
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn all(text: &[u8]) -> Vec<Vec<u8>> {
        let mut lines = Lines::new(text);
        let mut found = Vec::new();
        while let Some(line) = lines.next().await.expect("memory does not fail") {
            found.push(line.to_vec());
        }
        found
    }

    #[tokio::test]
    async fn lines_are_split_at_line_feeds_and_an_unfinished_one_is_none() {
        assert_eq!(all(b"get=1\n\nhalf").await, [&b"get=1"[..], b""]);
    }

    #[tokio::test]
    async fn an_overlong_line_is_cut_and_the_next_one_is_whole() {
        for length in [MAX_LINE, MAX_LINE + 1, 8191, 8192, 8193, 100_000] {
            let mut text = vec![b'a'; length];
            text.extend(b"\nb\n");
            let found = all(&text).await;
            assert_eq!(found.len(), 2, "{length}");
            assert_eq!(found[0].len(), length.min(MAX_LINE + 1), "{length}");
            assert_eq!(found[1], b"b", "{length}");
        }
    }

    #[tokio::test]
    async fn lines_that_cross_the_buffer_stay_whole() {
        let text: Vec<u8> = (0..5000).flat_map(|n| format!("allowed_ip={n}\n").into_bytes()).collect();
        let found = all(&text).await;
        assert_eq!(found.len(), 5000);
        assert!(found.iter().enumerate().all(|(n, line)| *line == format!("allowed_ip={n}").into_bytes()));
    }

    #[test]
    fn a_share_ends_with_the_budget_and_gives_back_what_it_took() {
        let budget = Budget::new();
        let (mut first, mut second) = (Share::new(&budget), Share::new(&budget));
        assert!(first.take(BUDGET_KIB * 1024 - 1024));
        assert!(second.take(1024));
        assert!(!second.take(1));
        assert!(!first.take(1));
        drop(first);
        assert!(second.take(BUDGET_KIB * 1024 - 1024));
    }
}
