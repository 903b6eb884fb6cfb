//! What `wg` writes, line by line, as a [`Command`]. Nothing is handed out before the whole request has been
//! understood, so a request is taken whole or not at all.

use std::net::{SocketAddr, SocketAddrV6};
use std::str::FromStr;

use ipnet::IpNet;

use super::{Errno, MAX_LINE, NO_KEY};
use crate::noise::keys::NotAKey;
use crate::noise::{PresharedKey, PrivateKey, PublicKey};
use crate::tunnel::{AllowedIpOp, Change, PeerChange};

/// A whole request.
#[derive(Debug)]
pub enum Command {
    /// Show everything.
    Get,
    /// Alter it, in this order.
    Set(Vec<Change>),
}

/// Why a request was refused. Never holds a value, which may be a key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line} ({key}): {why}")]
pub struct Refused {
    /// What the answer says.
    pub errno: Errno,
    /// In the request, from 1.
    pub line: u64,
    /// The key of that line, if it is one of the protocol's.
    pub key: &'static str,
    /// For people.
    pub why: &'static str,
}

/// Is fed the lines of requests, one request after another on the same connection.
pub struct Parser {
    scope: fn(&str) -> Option<u32>,
    line: u64,
    stage: Stage,
    changes: Vec<Change>,
    refused: Option<Refused>,
}

#[derive(Clone, Copy)]
enum Stage {
    Operation,
    Get,
    Interface,
    Peer,
}

/// What is wrong with a line.
type Wrong = (Errno, &'static str);

impl Parser {
    /// `scope` finds the index of an interface by its name, for an endpoint such as `[fe80::1%eth0]:51820`.
    pub fn new(scope: fn(&str) -> Option<u32>) -> Self {
        Self { scope, line: 0, stage: Stage::Operation, changes: Vec::new(), refused: None }
    }

    /// Takes the next line, without its line feed. The empty line that ends a request gives the command, or
    /// the first thing that was wrong with it; after that the next request begins.
    pub fn line(&mut self, line: &[u8]) -> Option<Result<Command, Refused>> {
        self.line += 1;
        if line.is_empty() {
            return Some(self.finish());
        }
        if self.refused.is_none()
            && let Err((key, (errno, why))) = self.understand(line)
        {
            self.refuse(key, errno, why);
        }
        None
    }

    /// Refuses the request that is being read, whatever its further lines say; what was gathered is dropped.
    pub fn refuse(&mut self, key: &'static str, errno: Errno, why: &'static str) {
        if self.refused.is_none() {
            self.refused = Some(Refused { errno, line: self.line, key, why });
            self.changes = Vec::new();
        }
    }

    fn finish(&mut self) -> Result<Command, Refused> {
        let whole = std::mem::replace(self, Self::new(self.scope));
        match (whole.refused, whole.stage) {
            (Some(refused), _) => Err(refused),
            (None, Stage::Operation) => Err(Refused {
                errno: Errno::PROTOCOL,
                line: whole.line,
                key: "",
                why: "a request begins with get=1 or set=1",
            }),
            (None, Stage::Get) => Ok(Command::Get),
            (None, Stage::Interface | Stage::Peer) => Ok(Command::Set(whole.changes)),
        }
    }

    fn understand(&mut self, line: &[u8]) -> Result<(), (&'static str, Wrong)> {
        if line.len() > MAX_LINE {
            return Err(("", (Errno::TOO_LARGE, "longer than a line can be")));
        }
        let text = std::str::from_utf8(line).map_err(|_| ("", (Errno::PROTOCOL, "not text")))?;
        let (key, value) = text.split_once('=').ok_or(("", (Errno::PROTOCOL, "not key=value")))?;
        let key = KEYS.iter().find(|known| **known == key).copied();
        let key = key.ok_or(("", (Errno::INVALID, "no such key")))?;
        self.pair(key, value).map_err(|wrong| (key, wrong))
    }

    fn pair(&mut self, key: &'static str, value: &str) -> Result<(), Wrong> {
        match (self.stage, key) {
            (Stage::Operation, "get") => self.stage = one(value).map(|()| Stage::Get)?,
            (Stage::Operation, "set") => self.stage = one(value).map(|()| Stage::Interface)?,
            (Stage::Operation, _) => return Err((Errno::PROTOCOL, "a request begins with get=1 or set=1")),
            (Stage::Get, _) => return Err((Errno::INVALID, "get=1 stands alone")),
            (Stage::Interface | Stage::Peer, "public_key") => {
                self.push(Change::Peer(PeerChange::new(PublicKey::from_hex(value).map_err(not_a_key)?)));
                self.stage = Stage::Peer;
            }
            (Stage::Interface, _) => {
                let change = interface(key, value)?;
                self.push(change);
            }
            (Stage::Peer, _) => {
                let Some(Change::Peer(change)) = self.changes.last_mut() else {
                    unreachable!("the stage is Peer only behind a peer");
                };
                peer(change, key, value, self.scope)?;
            }
        }
        Ok(())
    }

    /// Grows by copy and erasure: a plain push would leave keys behind in the memory that it gives up.
    fn push(&mut self, change: Change) {
        if self.changes.len() == self.changes.capacity() {
            let mut larger = Vec::with_capacity(self.changes.len().max(8) * 2);
            for old in &mut self.changes {
                let allowed_ips = match old {
                    Change::Peer(peer) => std::mem::take(&mut peer.allowed_ips),
                    _ => Vec::new(),
                };
                let mut new = old.clone();
                if let Change::Peer(peer) = &mut new {
                    peer.allowed_ips = allowed_ips;
                }
                larger.push(new);
            }
            self.changes = larger;
        }
        self.changes.push(change);
    }
}

/// The keys that a request may hold.
const KEYS: [&str; 15] = [
    "get",
    "set",
    "private_key",
    "listen_port",
    "fwmark",
    "replace_peers",
    "public_key",
    "remove",
    "update_only",
    "preshared_key",
    "endpoint",
    "persistent_keepalive_interval",
    "replace_allowed_ips",
    "allowed_ip",
    "protocol_version",
];

fn not_a_key(NotAKey(why): NotAKey) -> Wrong {
    (Errno::INVALID, why)
}

fn interface(key: &str, value: &str) -> Result<Change, Wrong> {
    Ok(match key {
        "private_key" if value == NO_KEY => Change::PrivateKey(None),
        "private_key" => Change::PrivateKey(Some(PrivateKey::from_hex(value).map_err(not_a_key)?)),
        "listen_port" => Change::ListenPort(number(value)?),
        "fwmark" => Change::Fwmark(number(value)?),
        "replace_peers" => yes(value).map(|()| Change::ReplacePeers)?,
        _ => return Err((Errno::INVALID, "not a key of an interface")),
    })
}

fn peer(
    change: &mut PeerChange,
    key: &str,
    value: &str,
    scope: fn(&str) -> Option<u32>,
) -> Result<(), Wrong> {
    match key {
        "remove" => change.remove = yes(value).map(|()| true)?,
        "update_only" => change.update_only = yes(value).map(|()| true)?,
        "preshared_key" => change.preshared_key = Some(PresharedKey::from_hex(value).map_err(not_a_key)?),
        "endpoint" => change.endpoint = Some(endpoint(value, scope)?),
        "persistent_keepalive_interval" => change.persistent_keepalive = Some(number(value)?),
        "replace_allowed_ips" => {
            yes(value)?;
            change.replace_allowed_ips = true;
            change.allowed_ips.clear();
        }
        "allowed_ip" => change.allowed_ips.push(allowed_ip(value)?),
        "protocol_version" => one(value)?,
        _ => return Err((Errno::INVALID, "not a key of a peer")),
    }
    Ok(())
}

/// `10.0.0.0/8`; with `-` before it: take it away.
fn allowed_ip(value: &str) -> Result<AllowedIpOp, Wrong> {
    let (remove, prefix) = match value.strip_prefix('-') {
        Some(prefix) => (true, prefix),
        None => (false, value),
    };
    let prefix: IpNet = prefix.parse().map_err(|_| (Errno::INVALID, "not an address with its length"))?;
    let prefix = prefix.trunc();
    Ok(if remove { AllowedIpOp::Remove(prefix) } else { AllowedIpOp::Add(prefix) })
}

/// `192.0.2.1:51820`, `[2001:db8::1]:51820`, `[fe80::1%2]:51820`, `[fe80::1%eth0]:51820`.
fn endpoint(value: &str, scope: fn(&str) -> Option<u32>) -> Result<SocketAddr, Wrong> {
    const WRONG: Wrong = (Errno::INVALID, "not an address with a port");
    let address = match SocketAddr::from_str(value) {
        Ok(address) => address,
        Err(_) => scoped_by_name(value, scope).ok_or(WRONG)?,
    };
    if address.port() == 0 {
        return Err((Errno::INVALID, "port 0"));
    }
    Ok(match address {
        SocketAddr::V6(v6) => match v6.ip().to_ipv4_mapped() {
            Some(v4) => SocketAddr::from((v4, v6.port())),
            None => address,
        },
        SocketAddr::V4(_) => address,
    })
}

/// `getnameinfo`, and so `wg`, names the interface of a link-local address.
fn scoped_by_name(value: &str, scope: fn(&str) -> Option<u32>) -> Option<SocketAddr> {
    let (address, port) = value.strip_prefix('[')?.split_once("]:")?;
    let (address, name) = address.split_once('%')?;
    let (address, port) = (address.parse().ok()?, digits(port)?.parse().ok()?);
    Some(SocketAddrV6::new(address, port, 0, scope(name)?).into())
}

/// A decimal number without a sign.
fn number<T: FromStr>(value: &str) -> Result<T, Wrong> {
    let number = digits(value).and_then(|digits| digits.parse().ok());
    number.ok_or((Errno::INVALID, "not a number in its range"))
}

/// `parse` would take a plus sign.
fn digits(value: &str) -> Option<&str> {
    value.bytes().all(|byte| byte.is_ascii_digit()).then_some(value)
}

fn yes(value: &str) -> Result<(), Wrong> {
    if value == "true" { Ok(()) } else { Err((Errno::INVALID, "only true can be said")) }
}

fn one(value: &str) -> Result<(), Wrong> {
    if value == "1" { Ok(()) } else { Err((Errno::PROTOCOL, "only version 1 is spoken")) }
}
