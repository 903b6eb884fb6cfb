//! `[[peer]]`.

use std::time::Duration;

use ipnet::IpNet;
use toml_edit::{Item, Value};

use super::{
    EndpointName, Peer,
    census::Census,
    date,
    fields::{Fields, Found, describe},
    keys::{self, Secrets},
    report::{Flaw, Report, Subject},
    unknown, values,
};
use crate::noise::PublicKey;

/// Stands for a key that the report refuses; no [`super::Config`] comes of it.
const NO_KEY: PublicKey = PublicKey([0; 32]);

/// Takes each key of one table, and enters the peer, `number` from 1, into the census.
pub(super) fn read(
    mut fields: Fields<'_>,
    number: usize,
    secrets: &mut Secrets<'_>,
    census: &mut Census,
    report: &mut Report<'_>,
) -> Peer {
    let name = name(&mut fields, census, report);
    let public_key = public_key(&mut fields, number, census, report);
    let peer = Peer {
        name,
        public_key,
        preshared_key: secrets.preshared_key(&mut fields, report),
        endpoint: endpoint(&mut fields, number, census, report),
        allowed_ips: allowed_ips(&mut fields, number, census, report),
        persistent_keepalive: persistent_keepalive(&mut fields, report),
        expires: expires(&mut fields, report),
    };
    let subject = fields.subject.clone();
    for Found { at, value } in fields.left_over() {
        let flaw = unknown::key(&value, unknown::PEER, unknown::INTERFACE, "[interface]");
        report.refuse(at, &subject, &value, flaw);
    }
    peer
}

/// First of all, because it names the peer in all problems.
fn name(fields: &mut Fields<'_>, census: &mut Census, report: &mut Report<'_>) -> Option<String> {
    let Found { at, value } = fields.text(report, "name", "laptop")?;
    let name = match values::peer_name(&value) {
        Ok(name) => name,
        Err(flaw) => {
            fields.refuse(report, at, "name", flaw);
            return None;
        }
    };
    if let Some(first) = census.enter_name(&name, at) {
        let found = format!("{name:?}, the name of the peer on line {} too", report.line(first));
        fields.refuse(report, at, "name", Flaw::new(found, "give each peer a name of its own"));
    }
    if let Subject::Peer { name: subject_name, .. } = &mut fields.subject {
        *subject_name = Some(name.clone());
    }
    Some(name)
}

fn public_key(
    fields: &mut Fields<'_>,
    number: usize,
    census: &mut Census,
    report: &mut Report<'_>,
) -> PublicKey {
    let Some(Found { at, value: key }) = keys::public_key(fields, report) else { return NO_KEY };
    if let Some(first) = census.enter_key(key, at, number) {
        let found = format!("{key}, the key of peer[{}] on line {} too", first.peer, report.line(first.at));
        let remedy = "join the two tables into one, or give this peer its own key";
        fields.refuse(report, at, "public_key", Flaw::new(found, remedy));
    }
    key
}

fn endpoint(
    fields: &mut Fields<'_>,
    number: usize,
    census: &mut Census,
    report: &mut Report<'_>,
) -> Option<EndpointName> {
    let Found { at, value } = fields.text(report, "endpoint", "vpn.example.org:51820")?;
    match values::endpoint(&value) {
        Ok(endpoint) => {
            if let EndpointName::Address(address) = endpoint {
                census.enter_endpoint(address, at, number);
            }
            Some(endpoint)
        }
        Err(flaw) => {
            fields.refuse(report, at, "endpoint", flaw);
            None
        }
    }
}

fn allowed_ips(
    fields: &mut Fields<'_>,
    number: usize,
    census: &mut Census,
    report: &mut Report<'_>,
) -> Vec<IpNet> {
    const KEY: &str = "allowed_ips";
    let texts = fields.texts(report, KEY, "10.77.0.2/32").unwrap_or_default();
    let mut prefixes = Vec::with_capacity(texts.len());
    for Found { at, value } in texts {
        let prefix = match values::prefix(&value) {
            Ok(prefix) => prefix,
            Err(flaw) => {
                fields.refuse(report, at, KEY, flaw);
                continue;
            }
        };
        if let Some(first) = census.enter_prefix(prefix, at, number) {
            let line = report.line(first.at);
            let owner = match first.peer {
                peer if peer == number => "this peer".to_owned(),
                peer => format!("peer[{peer}]"),
            };
            let found = format!("{prefix}, which {owner} has on line {line} already");
            let remedy =
                "write it once: a prefix leads to one peer (a longer one inside it may lead elsewhere)";
            fields.refuse(report, at, KEY, Flaw::new(found, remedy));
        }
        prefixes.push(prefix);
    }
    prefixes
}

fn persistent_keepalive(fields: &mut Fields<'_>, report: &mut Report<'_>) -> u16 {
    let remedy = "write seconds from 1 to 65535, such as 25, or take it out";
    let word = |text: &str| (text == "off").then_some(0);
    let seconds = fields.number(report, "persistent_keepalive", 0..=65_535, word, remedy);
    seconds.map_or(0, |seconds| seconds.value as u16) // within the range
}

fn expires(fields: &mut Fields<'_>, report: &mut Report<'_>) -> Option<Duration> {
    const KEY: &str = "expires";
    let Found { at, value } = fields.take(KEY)?;
    let remedy = "write a date or a time in UTC: expires = 2027-01-01, or 2027-01-01T18:00:00Z";
    match value {
        Item::Value(Value::Datetime(moment)) => date::moment(moment.value()).or_else(|| {
            let found = format!("{}, which names no moment", moment.value());
            fields.refuse(report, at, KEY, Flaw::new(found, remedy));
            None
        }),
        Item::Value(Value::String(text)) if date::parse(text.value()).is_some() => {
            let found = format!("the text {:?}", text.value());
            let remedy = format!("write it without quotes: expires = {}", text.value());
            fields.refuse(report, at, KEY, Flaw::new(found, remedy));
            None
        }
        other => {
            fields.refuse(report, at, KEY, Flaw::new(describe(&other), remedy));
            None
        }
    }
}
