//! The WireGuard cross-platform UAPI (<https://www.wireguard.com/xplatform/>) as pure text ⇄ types: what `wg`
//! writes becomes a [`Command`], what the tunnel is becomes lines.
//!
//! A request is an operation line (`get=1`, `set=1`), lines of `key=value`, and an empty line. An answer is
//! lines of `key=value` (for `get`), `errno=N`, and an empty line.

mod parse;
mod render;
#[cfg(test)]
mod tests;

use std::fmt;

pub use parse::{Command, Parser, Refused};
pub use render::{lines, render};

/// The longest line that a request may have, without its line feed. The longest one that means something is
/// `preshared_key=` with 64 digits, or an IPv6 endpoint with the name of an interface.
pub const MAX_LINE: usize = 256;

/// The absence of a private or preshared key.
const NO_KEY: &str = "0000000000000000000000000000000000000000000000000000000000000000";

/// A positive errno, as the answer to a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Errno(pub i32);

impl Errno {
    /// The line that does not follow the protocol.
    pub const PROTOCOL: Errno = Errno(libc::EPROTO);
    /// A key or value that has no meaning.
    pub const INVALID: Errno = Errno(libc::EINVAL);
    /// More than a request may hold.
    pub const TOO_LARGE: Errno = Errno(libc::E2BIG);
    /// The daemon gave no answer.
    pub const IO: Errno = Errno(libc::EIO);
}

/// The end of an answer to `get`. `wg` reads an unsigned number here.
pub struct EndOfGet(pub Errno);

/// The end of an answer to `set`. `wg` negates the number and takes that for an errno, so it is written with a
/// minus, as wireguard-go does.
pub struct EndOfSet(pub Errno);

impl fmt::Display for EndOfGet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "errno={}\n\n", self.0.0)
    }
}

impl fmt::Display for EndOfSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "errno={}\n\n", -self.0.0)
    }
}
