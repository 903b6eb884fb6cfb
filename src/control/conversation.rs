//! One client of `/run/wireguard/NAME.sock`: requests in, answers out, until it closes or wears us out.

use std::fmt::Write;
use std::{io, time::Duration};

use tokio::io::{AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::net::UnixStream;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;
use tracing::{debug, warn};
use zeroize::{Zeroize, Zeroizing};

use super::lines::{Budget, Lines, Share};
use super::uapi::{self, Command, EndOfGet, EndOfSet, Errno, Parser, Refused};
use super::{InterfaceStatus, Request, SetError};
use crate::tunnel::{Change, ChangeError};

/// A request, or an answer, that takes longer than this ends the connection.
const REQUEST: Duration = Duration::from_secs(60);

/// The text of an answer goes out in pieces of this size. A part that is added to it is smaller than 1 KiB.
const PIECE: usize = 64 * 1024;

/// Answers until the client closes, is silent for too long, or is gone.
pub(super) async fn converse(stream: UnixStream, requests: mpsc::Sender<Request>, budget: Budget) {
    let (from, to) = tokio::io::split(stream);
    let mut client = Client { lines: Lines::new(from), to, requests, budget };
    // Why a client went away is its own matter: a time-out, a reset and a closed pipe end alike.
    if let Err(error) = client.answer_all().await {
        debug!(%error, "control client let go");
    }
}

struct Client {
    lines: Lines<ReadHalf<UnixStream>>,
    to: WriteHalf<UnixStream>,
    requests: mpsc::Sender<Request>,
    budget: Budget,
}

impl Client {
    async fn answer_all(&mut self) -> io::Result<()> {
        loop {
            let Some(command) = timeout(REQUEST, self.request()).await?? else { return Ok(()) };
            match command {
                Ok(Command::Get) => self.get().await?,
                Ok(Command::Set(changes)) => {
                    let errno = self.set(changes).await;
                    self.send(&EndOfSet(errno).to_string()).await?;
                }
                Err(refused) => {
                    warn!(%refused, "control request refused");
                    self.send(&EndOfSet(refused.errno).to_string()).await?;
                }
            }
        }
    }

    /// Reads to the end of a request even when it is refused at once: a client that is still writing when we
    /// close would die of SIGPIPE and never see the reason.
    async fn request(&mut self) -> io::Result<Option<Result<Command, Refused>>> {
        let mut parser = Parser::new(interface_index);
        let mut share = Share::new(&self.budget);
        let mut whole = true;
        loop {
            let Some(line) = self.lines.next().await? else { return Ok(None) };
            if whole && !share.take(line.len() + 1) {
                whole = false;
                parser.refuse("", Errno::TOO_LARGE, "more than all requests together may hold");
            }
            if let Some(command) = parser.line(line) {
                return Ok(Some(command));
            }
        }
    }

    async fn get(&mut self) -> io::Result<()> {
        let Some(status) = super::status(&self.requests).await else {
            return self.send(&EndOfGet(Errno::IO).to_string()).await;
        };
        timeout(REQUEST, self.show(&status)).await?
    }

    async fn show(&mut self, status: &InterfaceStatus) -> io::Result<()> {
        // Never grows, so no copy of a key stays behind in memory that was given up.
        let mut piece = Zeroizing::new(String::with_capacity(PIECE));
        for part in uapi::lines(status) {
            if piece.len() > PIECE - 1024 {
                self.send(&piece).await?;
                piece.zeroize();
            }
            write!(piece, "{part}").expect("a string takes every text");
        }
        self.send(&piece).await?;
        self.send(&EndOfGet(Errno(0)).to_string()).await
    }

    async fn set(&mut self, changes: Vec<Change>) -> Errno {
        let (answer, done) = oneshot::channel();
        if self.requests.send(Request::Set(changes, answer)).await.is_err() {
            return Errno::IO;
        }
        match done.await {
            Ok(Ok(())) => Errno(0),
            Ok(Err(error)) => {
                warn!(%error, "control request failed");
                errno(&error)
            }
            Err(_gone) => Errno::IO,
        }
    }

    async fn send(&mut self, text: &str) -> io::Result<()> {
        timeout(super::lines::IDLE, self.to.write_all(text.as_bytes())).await?
    }
}

/// The kernel's errno for the same refusal.
fn errno(error: &SetError) -> Errno {
    match error {
        SetError::Change(ChangeError::TooManyPeers) => Errno(libc::ENOMEM),
        SetError::Change(ChangeError::OwnKey(_)) => Errno::INVALID,
        SetError::Io(error) => match error.raw_os_error().filter(|n| *n > 0) {
            Some(errno) => Errno(errno),
            None => Errno(errno_of(error.kind())),
        },
    }
}

/// An error that says more than its errno (who holds the port) has kept only its kind.
fn errno_of(kind: io::ErrorKind) -> i32 {
    match kind {
        io::ErrorKind::AddrInUse => libc::EADDRINUSE,
        io::ErrorKind::AddrNotAvailable => libc::EADDRNOTAVAIL,
        io::ErrorKind::PermissionDenied => libc::EACCES,
        _ => libc::EIO,
    }
}

/// The index of an interface of this thread's network namespace. Each one that has a link-local address, which
/// is where the question comes from, stands in `if_inet6`: address, index in hex, …, name.
fn interface_index(name: &str) -> Option<u32> {
    let table = std::fs::read_to_string("/proc/thread-self/net/if_inet6").ok()?;
    table.lines().find_map(|line| {
        let mut columns = line.split_whitespace();
        let index = columns.nth(1)?;
        (columns.next_back()? == name).then(|| u32::from_str_radix(index, 16).ok())?
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_errno_outlives_the_words_that_were_put_around_it() {
        let bare = io::Error::from_raw_os_error(libc::EADDRINUSE);
        let explained = io::Error::new(bare.kind(), format!("port 53 is held by somebody: {bare}"));
        for error in [bare, explained] {
            assert_eq!(errno(&SetError::Io(error)), Errno(libc::EADDRINUSE));
        }
        assert_eq!(errno(&SetError::Io(io::Error::other("?"))), Errno::IO);
    }

    #[test]
    fn loopback_is_interface_one_and_nonsense_is_none() {
        assert_eq!(interface_index("lo"), Some(1));
        assert_eq!(interface_index("vpndnowhere"), None);
    }
}
