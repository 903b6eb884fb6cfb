//! `[interface]`.

use std::{
    collections::HashSet,
    net::{IpAddr, SocketAddr},
    num::NonZeroUsize,
};

use ipnet::IpNet;

use super::{
    Clients, Interface, SocketAccess, Table, clients,
    fields::{Fields, Found, describe},
    keys::Secrets,
    report::{Flaw, Report, Subject},
    unknown, values,
};
use crate::noise::PrivateKey;

/// MTU where the file names none: 1500 less the outer IPv6, UDP and WireGuard headers.
pub(super) const DEFAULT_MTU: u16 = 1420;
/// Device name where the file names none.
pub(super) const DEFAULT_NAME: &str = "vpn0";

/// The smallest packet that each IPv4 host takes (RFC 791, section 3.2).
pub(super) const MTU_MIN: u16 = 576;
/// The smallest MTU of a link that carries IPv6 (RFC 8200, section 5).
const MTU_MIN_V6: u16 = 1280;
/// More data threads than this for a direction only wait for each other.
const WORKERS_MAX: i64 = 64;
/// The largest UDP payload over IPv4, less header and tag of a transport message and up to 20 of padding.
pub(super) const MTU_MAX: u16 = 65_455;

/// A table as it was read. The private key is absent only where the report says why.
pub(super) struct Draft {
    pub(super) name: String,
    pub(super) private_key: Option<PrivateKey>,
    pub(super) listen_port: Option<u16>,
    pub(super) address: Vec<IpNet>,
    /// The value, and where it stands if the file gives it.
    pub(super) mtu: (u16, Option<usize>),
    pub(super) fwmark: Option<u32>,
    pub(super) table: Table,
    pub(super) offload: bool,
    pub(super) clamp_mss: bool,
    pub(super) workers: Option<NonZeroUsize>,
    pub(super) nice: Option<i8>,
    pub(super) clients: Clients,
    pub(super) sockets: SocketAccess,
    pub(super) metrics_listen: Option<SocketAddr>,
    pub(super) sandbox: bool,
    pub(super) capture_secrets: bool,
}

impl Draft {
    /// Takes each key; what is wrong is in the report, and its default here.
    pub(super) fn read(mut fields: Fields<'_>, secrets: &mut Secrets<'_>, report: &mut Report<'_>) -> Self {
        let draft = Self {
            name: name(&mut fields, report),
            private_key: secrets.private_key(&mut fields, report),
            listen_port: listen_port(&mut fields, report),
            address: addresses(&mut fields, report),
            mtu: mtu(&mut fields, report),
            fwmark: fwmark(&mut fields, report),
            table: table(&mut fields, report),
            offload: offload(&mut fields, report),
            clamp_mss: clamp_mss(&mut fields, report),
            workers: workers(&mut fields, report),
            nice: nice(&mut fields, report),
            clients: clients::read(&mut fields, report),
            sockets: sockets(&mut fields, report),
            metrics_listen: metrics_listen(&mut fields, report),
            sandbox: sandbox(&mut fields, report),
            capture_secrets: capture_secrets(&mut fields, report),
        };
        let subject = fields.subject.clone();
        for Found { at, value } in fields.left_over() {
            let flaw = unknown::key(&value, unknown::INTERFACE, unknown::PEER, "[[peer]]");
            report.refuse(at, &subject, &value, flaw);
        }
        draft
    }

    /// IPv6 needs a larger MTU than IPv4; `v6`: a prefix of some peer is IPv6.
    pub(super) fn check_mtu(&self, v6: bool, report: &mut Report<'_>) {
        let v6 = v6 || self.address.iter().any(|net| net.addr().is_ipv6());
        let (mtu, Some(at)) = self.mtu else { return };
        if v6 && mtu < MTU_MIN_V6 {
            let found = format!("{mtu}, while the tunnel carries IPv6");
            let remedy = format!("write {MTU_MIN_V6} or more, or take the IPv6 addresses and prefixes out");
            report.refuse(at, &Subject::Interface, "mtu", Flaw::new(found, remedy));
        }
    }

    /// The checked table; `None` without a private key.
    pub(super) fn finish(self) -> Option<Interface> {
        Some(Interface {
            name: self.name,
            private_key: self.private_key?,
            listen_port: self.listen_port,
            address: self.address,
            mtu: self.mtu.0,
            fwmark: self.fwmark,
            table: self.table,
            offload: self.offload,
            clamp_mss: self.clamp_mss,
            workers: self.workers,
            nice: self.nice,
            clients: self.clients,
            sockets: self.sockets,
            metrics_listen: self.metrics_listen,
            sandbox: self.sandbox,
            capture_secrets: self.capture_secrets,
        })
    }
}

fn name(fields: &mut Fields<'_>, report: &mut Report<'_>) -> String {
    let Some(Found { at, value }) = fields.text(report, "name", DEFAULT_NAME) else {
        return DEFAULT_NAME.to_owned();
    };
    values::device_name(&value).unwrap_or_else(|flaw| {
        fields.refuse(report, at, "name", flaw);
        DEFAULT_NAME.to_owned()
    })
}

/// 0 is the same as absent: the kernel chooses.
fn listen_port(fields: &mut Fields<'_>, report: &mut Report<'_>) -> Option<u16> {
    let remedy = "write a port from 1 to 65535, or take it out to let the kernel choose";
    let port = fields.number(report, "listen_port", 0..=65_535, |_| None, remedy)?.value;
    u16::try_from(port).ok().filter(|port| *port != 0)
}

fn addresses(fields: &mut Fields<'_>, report: &mut Report<'_>) -> Vec<IpNet> {
    let texts = fields.texts(report, "address", "10.77.0.1/24").unwrap_or_default();
    let mut seen: HashSet<IpAddr> = HashSet::with_capacity(texts.len());
    let mut addresses = Vec::with_capacity(texts.len());
    for Found { at, value } in texts {
        let checked = values::address(&value).and_then(|net| match seen.insert(net.addr()) {
            true => Ok(net),
            false => Err(Flaw::new(format!("{} a second time", net.addr()), "write each address once")),
        });
        match checked {
            Ok(net) => addresses.push(net),
            Err(flaw) => fields.refuse(report, at, "address", flaw),
        }
    }
    addresses
}

fn mtu(fields: &mut Fields<'_>, report: &mut Report<'_>) -> (u16, Option<usize>) {
    let remedy = "write a number from 576 (1280 with IPv6) to 65455, or take it out for 1420";
    let range = i64::from(MTU_MIN)..=i64::from(MTU_MAX);
    match fields.number(report, "mtu", range, |_| None, remedy) {
        Some(Found { at, value }) => (value as u16, Some(at)), // within the range
        None => (DEFAULT_MTU, None),
    }
}

/// 0 and "off" are the same as absent.
fn fwmark(fields: &mut Fields<'_>, report: &mut Report<'_>) -> Option<u32> {
    let word = |text: &str| match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        _ if text == "off" => Some(0),
        Some(hex) if !hex.starts_with('+') => i64::from_str_radix(hex, 16).ok(),
        _ => None,
    };
    let remedy = "write a number from 1 to 4294967295, such as 0xca6c, or take it out";
    let mark = fields.number(report, "fwmark", 0..=i64::from(u32::MAX), word, remedy)?.value;
    u32::try_from(mark).ok().filter(|mark| *mark != 0)
}

/// 0 (unspecified), 253 (default) and 255 (local) are the kernel's own.
fn table(fields: &mut Fields<'_>, report: &mut Report<'_>) -> Table {
    let Some(Found { at, value }) = fields.take("table") else { return Table::Auto };
    let number = match (value.as_str(), value.as_integer()) {
        (Some("auto"), _) => return Table::Auto,
        (Some("off"), _) => return Table::Off,
        (Some("main"), _) => Some(254),
        (_, Some(number)) => u32::try_from(number).ok(),
        _ => None,
    };
    if let Some(number) = number.filter(|number| ![0, 253, 255].contains(number)) {
        return Table::Number(number);
    }
    let remedy =
        "write \"auto\", \"off\" or the number of a table, not 0, 253 or 255, which are the kernel's";
    fields.refuse(report, at, "table", Flaw::new(describe(&value), remedy));
    Table::Auto
}

/// On, unless it is switched off.
fn offload(fields: &mut Fields<'_>, report: &mut Report<'_>) -> bool {
    let Some(Found { at, value }) = fields.take("offload") else { return true };
    match value.as_str() {
        Some("auto") => true,
        Some("off") => false,
        _ => {
            let remedy = "write \"auto\", or \"off\" for one packet a system call";
            fields.refuse(report, at, "offload", Flaw::new(describe(&value), remedy));
            true
        }
    }
}

/// On, unless it is switched off.
fn clamp_mss(fields: &mut Fields<'_>, report: &mut Report<'_>) -> bool {
    let Some(Found { at, value }) = fields.take("clamp_mss") else { return true };
    value.as_bool().unwrap_or_else(|| {
        let remedy = "write true, or false to leave TCP's segments to path MTU discovery";
        fields.refuse(report, at, "clamp_mss", Flaw::new(describe(&value), remedy));
        true
    })
}

/// "auto" and 0 are the same as absent.
fn workers(fields: &mut Fields<'_>, report: &mut Report<'_>) -> Option<NonZeroUsize> {
    let word = |text: &str| (text == "auto").then_some(0);
    let remedy = "write \"auto\", or how many threads each direction has: 1 to 64";
    let workers = fields.number(report, "workers", 0..=WORKERS_MAX, word, remedy)?;
    usize::try_from(workers.value).ok().and_then(NonZeroUsize::new)
}

/// Of the data threads, as nice(1) counts.
fn nice(fields: &mut Fields<'_>, report: &mut Report<'_>) -> Option<i8> {
    let remedy = "write a number from -20 (before all others) to 19 (after them), or take it out for -10";
    let nice = fields.number(report, "nice", -20..=19, |_| None, remedy)?;
    i8::try_from(nice.value).ok()
}

/// An address and a port: names resolve to too much.
fn metrics_listen(fields: &mut Fields<'_>, report: &mut Report<'_>) -> Option<SocketAddr> {
    const KEY: &str = "metrics_listen";
    let Found { at, value } = fields.text(report, KEY, "127.0.0.1:9586")?;
    match value.parse::<SocketAddr>() {
        Ok(address) if address.port() != 0 => Some(address),
        _ => {
            let remedy = "write an address and a port, such as \"127.0.0.1:9586\" or \"[::1]:9586\"";
            fields.refuse(report, at, KEY, Flaw::new(format!("{value:?}"), remedy));
            None
        }
    }
}

/// On, unless it is switched off.
fn sandbox(fields: &mut Fields<'_>, report: &mut Report<'_>) -> bool {
    let Some(Found { at, value }) = fields.take("sandbox") else { return true };
    match value.as_str() {
        Some("on") => true,
        Some("off") => false,
        _ => {
            let remedy = "write \"on\", or \"off\" for a kernel that it does not fit";
            fields.refuse(report, at, "sandbox", Flaw::new(describe(&value), remedy));
            true
        }
    }
}

/// Off, unless it is switched on.
fn capture_secrets(fields: &mut Fields<'_>, report: &mut Report<'_>) -> bool {
    let Some(Found { at, value }) = fields.take("capture_secrets") else { return false };
    value.as_bool().unwrap_or_else(|| {
        let remedy = "write true to let root write the tunnel's keys into a capture, or take it out";
        fields.refuse(report, at, "capture_secrets", Flaw::new(describe(&value), remedy));
        false
    })
}

fn sockets(fields: &mut Fields<'_>, report: &mut Report<'_>) -> SocketAccess {
    let owner = account(fields, report, "socket_owner", "operator");
    let group = account(fields, report, "socket_group", "vpnadmin");
    let mode = if group.is_some() { 0o660 } else { 0o600 };
    let mode = socket_mode(fields, report).unwrap_or(mode);
    SocketAccess { owner, group, mode }
}

/// Name or number of a user or group; which one it is, the daemon finds out.
fn account(fields: &mut Fields<'_>, report: &mut Report<'_>, key: &str, example: &str) -> Option<String> {
    let Found { at, value } = fields.text(report, key, example)?;
    if let Err(flaw) = values::account(&value, example) {
        fields.refuse(report, at, key, flaw);
        return None;
    }
    Some(value)
}

/// Whoever may write to a socket owns the tunnel, and reads its private key: so nobody may whom the file does not name.
fn socket_mode(fields: &mut Fields<'_>, report: &mut Report<'_>) -> Option<u32> {
    const KEY: &str = "socket_mode";
    let Found { at, value } = fields.text(report, KEY, "0660")?;
    let is_octal = matches!(value.len(), 1..=4) && value.bytes().all(|byte| byte.is_ascii_digit());
    let flaw = match u32::from_str_radix(&value, 8) {
        Ok(mode) if is_octal && mode & !0o660 == 0 => return Some(mode),
        Ok(mode) if is_octal && mode & !0o666 == 0 => Flaw::new(
            format!("{value}, with which every user of this host could read the private key"),
            "write \"0660\", and name the group that may with socket_group",
        ),
        _ => Flaw::new(
            format!("{value:?}, which is no mode of a socket"),
            "write \"0600\" (its owner alone) or \"0660\" (its group, too)",
        ),
    };
    fields.refuse(report, at, KEY, flaw);
    None
}
