//! The keys of `[interface]` that serve `vpnd add-peer`: what goes into the configurations of clients. The daemon itself
//! has no use for them.

use std::path::PathBuf;

use ipnet::IpNet;

use super::{
    EndpointName,
    fields::{Fields, Found},
    interface::{MTU_MAX, MTU_MIN},
    report::{Flaw, Report},
    values,
};

/// What clients are told; absent: not told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Clients {
    /// `public_endpoint`: where this interface is found from outside.
    pub endpoint: Option<EndpointName>,
    /// `client_allowed_ips`: what clients send into the tunnel.
    pub allowed_ips: Vec<IpNet>,
    /// `client_dns`: addresses of servers, and domains to search in.
    pub dns: Vec<String>,
    /// `client_mtu`.
    pub mtu: Option<u16>,
    /// `client_keepalive`, in seconds.
    pub keepalive: Option<u16>,
    /// `client_folder`: where configurations of clients, with their private keys, are kept.
    pub folder: Option<PathBuf>,
}

impl Clients {
    /// Reads the texts of a command line by the rules of the file; `Err`: which of them is wrong, and what would do.
    pub fn endpoint(text: &str) -> Result<EndpointName, String> {
        values::endpoint(text).map_err(told)
    }

    /// See [`Self::endpoint`].
    pub fn prefix(text: &str) -> Result<IpNet, String> {
        values::prefix(text).map_err(told)
    }

    /// See [`Self::endpoint`].
    pub fn peer_name(text: &str) -> Result<String, String> {
        values::peer_name(text).map_err(told)
    }

    /// See [`Self::endpoint`].
    pub fn dns(text: &str) -> Result<String, String> {
        values::dns(text).map_err(told)
    }
}

fn told(flaw: Flaw) -> String {
    format!("found {}; {}", flaw.found, flaw.remedy)
}

pub(super) fn read(fields: &mut Fields<'_>, report: &mut Report<'_>) -> Clients {
    Clients {
        endpoint: endpoint(fields, report),
        allowed_ips: list(fields, report, "client_allowed_ips", "10.77.0.0/24", values::prefix),
        dns: list(fields, report, "client_dns", "10.77.0.1", values::dns),
        mtu: mtu(fields, report),
        keepalive: keepalive(fields, report),
        folder: folder(fields, report),
    }
}

fn endpoint(fields: &mut Fields<'_>, report: &mut Report<'_>) -> Option<EndpointName> {
    const KEY: &str = "public_endpoint";
    let Found { at, value } = fields.text(report, KEY, "vpn.example.org:51820")?;
    values::endpoint(&value).map_err(|flaw| fields.refuse(report, at, KEY, flaw)).ok()
}

fn list<T: PartialEq + std::fmt::Display>(
    fields: &mut Fields<'_>,
    report: &mut Report<'_>,
    key: &str,
    example: &str,
    check: impl Fn(&str) -> Result<T, Flaw>,
) -> Vec<T> {
    let mut list: Vec<T> = Vec::new();
    for Found { at, value } in fields.texts(report, key, example).unwrap_or_default() {
        match check(&value) {
            Ok(one) if list.contains(&one) => {
                let flaw = Flaw::new(format!("{one} a second time"), "write it once");
                fields.refuse(report, at, key, flaw);
            }
            Ok(one) => list.push(one),
            Err(flaw) => fields.refuse(report, at, key, flaw),
        }
    }
    list
}

fn mtu(fields: &mut Fields<'_>, report: &mut Report<'_>) -> Option<u16> {
    let remedy =
        "write a number from 576 (1280 with IPv6) to 65455, or take it out to leave it to the clients";
    let range = i64::from(MTU_MIN)..=i64::from(MTU_MAX);
    let mtu = fields.number(report, "client_mtu", range, |_| None, remedy)?;
    u16::try_from(mtu.value).ok()
}

fn keepalive(fields: &mut Fields<'_>, report: &mut Report<'_>) -> Option<u16> {
    let remedy = "write seconds from 1 to 65535, such as 25, or take it out";
    let word = |text: &str| (text == "off").then_some(0);
    let seconds = fields.number(report, "client_keepalive", 0..=65_535, word, remedy)?;
    u16::try_from(seconds.value).ok().filter(|seconds| *seconds != 0)
}

fn folder(fields: &mut Fields<'_>, report: &mut Report<'_>) -> Option<PathBuf> {
    const KEY: &str = "client_folder";
    let Found { at, value } = fields.text(report, KEY, "clients")?;
    if value.is_empty() {
        let flaw = Flaw::new("an empty text", "name a folder, such as \"clients\", or take it out");
        fields.refuse(report, at, KEY, flaw);
        return None;
    }
    Some(value.into())
}
