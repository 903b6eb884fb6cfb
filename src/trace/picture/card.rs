//! A station as a card: its name, the time, and the two lines that matter most.

use crate::trace::{Clock, Death, Route, Station, Verdict, Vpnd, Walk};

/// Characters of a detail that fit into a card.
const FITS: usize = 30;

/// What became of the packet there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Look {
    /// It went on.
    Passed,
    /// It ended there.
    Dead,
    /// It never came there, or nobody knows.
    Absent,
}

/// Where the packet ended.
#[derive(Clone, Copy, Debug)]
pub(super) enum End<'a> {
    /// At this station.
    Here(&'a Death),
    /// At another one.
    Elsewhere,
    /// Nowhere, or nobody knows.
    Open,
}

/// What is drawn of a station.
#[derive(Clone, Debug)]
pub(super) struct Card {
    /// x, y, width, height.
    pub(super) area: [u32; 4],
    pub(super) walk: Walk,
    pub(super) look: Look,
    /// Which of the stations, from 1 on.
    pub(super) number: usize,
    pub(super) name: String,
    /// Beside the name: when.
    pub(super) corner: String,
    pub(super) lines: Vec<String>,
    /// All that is known, for who points at it.
    pub(super) whole: String,
}

impl Card {
    /// Of a station, at this place; `end` if it is known where the packet ended: here, or elsewhere.
    pub(super) fn of(number: usize, station: &Station, end: End<'_>, area: [u32; 4]) -> Self {
        let look = match station.verdict {
            _ if matches!(end, End::Here(_)) => Look::Dead,
            Verdict::Absent | Verdict::Unknown => Look::Absent,
            // What a later station did, the sender may hear as a refusal.
            _ if matches!(end, End::Elsewhere) => Look::Passed,
            Verdict::Dropped | Verdict::Rejected | Verdict::Refused | Verdict::WouldNot => Look::Dead,
            Verdict::Passed | Verdict::Staged | Verdict::Would => Look::Passed,
        };
        let mut facts = details(station);
        if let End::Here(death) = end {
            facts.insert(0, death.why.clone());
        }
        let whole = std::iter::once(station.name()).chain(facts.clone()).collect::<Vec<_>>().join("\n");
        let mut lines: Vec<String> = match look {
            // What killed it may take both lines.
            Look::Dead => facts.first().map(|why| wrapped(why, FITS)).unwrap_or_default(),
            _ => facts.iter().take(2).map(|fact| shortened(fact, FITS)).collect(),
        };
        if lines.len() > 2 {
            lines.truncate(2);
            lines[1] = shortened(&(lines[1].clone() + " …"), FITS);
        }
        // The reader of the kernel's messages looks at the clock later than it happened.
        let sign = if station.clock == Some(Clock::Reader) { '≤' } else { '+' };
        let corner = station.at_us.map(|us| format!("{sign}{}", duration(us))).unwrap_or_default();
        Self { area, walk: station.walk, look, number, name: station.name(), corner, lines, whole }
    }
}

/// The facts of a station, the most telling first.
fn details(station: &Station) -> Vec<String> {
    let mut told = Vec::new();
    if let Some(route) = &station.route {
        told.extend(routed(route));
    }
    if let Some(vpnd) = &station.vpnd {
        told.extend(vpnd_did(vpnd));
    }
    if let Some(bytes) = station.packet.as_ref().and_then(|packet| packet.bytes) {
        told.push(format!("{bytes} bytes"));
    }
    if let Some(rule) = station.rules.iter().rev().find(|rule| rule.text.is_some()) {
        told.push(format!("{}: {}", rule.chain, rule.text.as_deref().unwrap_or_default()));
    }
    told.extend(station.facts.iter().cloned());
    if let Some(packet) = station.packet.as_ref().filter(|packet| !packet.source.is_unspecified()) {
        told.push(format!("{} → {}", packet.source, packet.destination));
    }
    match station.rules.len() {
        0 => {}
        1 => told.push("one rule or policy saw it".to_owned()),
        n => told.push(format!("{n} rules and policies saw it")),
    }
    if let Some(mark) = station.mark.filter(|mark| *mark != 0) {
        told.push(format!("mark {mark:#x}"));
    }
    told.extend(station.unknown.iter().cloned());
    told
}

fn routed(route: &Route) -> Vec<String> {
    if let Some(error) = &route.error {
        return vec![format!("no way: {error}")];
    }
    let table = match route.table {
        Some(253) => "default".to_owned(),
        Some(254) => "main".to_owned(),
        Some(255) => "local".to_owned(),
        Some(number) => number.to_string(),
        None => "?".to_owned(),
    };
    let answer = match (route.answer.as_deref(), route.device.as_deref()) {
        (Some("local"), _) => "for this host itself".to_owned(),
        (_, Some(device)) => format!("by {device}"),
        (Some(answer), None) => answer.to_owned(),
        (None, None) => "no device".to_owned(),
    };
    let mut told = vec![format!("{answer}, table {table}")];
    told.extend(route.prefix.as_ref().map(|prefix| format!("route {prefix}")));
    told.extend(route.rule.as_ref().map(|rule| format!("rule {}: {}", rule.priority, rule.text)));
    told
}

fn vpnd_did(vpnd: &Vpnd) -> Vec<String> {
    match vpnd {
        Vpnd::Sealed(sealed) => vec![
            format!("sealed for {}: {} → {}", sealed.peer, sealed.inner_bytes, sealed.datagram_bytes),
            format!("by {}, no. {}", sealed.prefix, sealed.counter),
        ],
        Vpnd::Opened(opened) => vec![
            format!("opened, of {}: {} → {}", opened.peer, opened.datagram_bytes, opened.inner_bytes),
            format!("source in {}, no. {}", opened.prefix, opened.counter),
        ],
        Vpnd::Staged { peer, .. } => vec![format!("waits for a session with {peer}")],
        Vpnd::Refused(refused) => vec![format!("refused: {}", refused.reason.replace('_', " "))],
        Vpnd::Owned { peer, prefix, endpoint, .. } => {
            let mut told = vec![format!("would go to {peer}, by {prefix}")];
            told.extend(endpoint.map(|endpoint| format!("at {endpoint}")));
            told
        }
    }
}

/// `412 µs`, `1.2 ms`.
pub(super) fn duration(us: f64) -> String {
    match us {
        ..1000.0 => format!("{us:.0} µs"),
        ..1e6 => format!("{:.1} ms", us / 1e3),
        _ => format!("{:.1} s", us / 1e6),
    }
}

/// At most so many characters.
fn shortened(text: &str, fits: usize) -> String {
    match text.chars().count() > fits {
        true => text.chars().take(fits - 1).chain(['…']).collect(),
        false => text.to_owned(),
    }
}

/// Lines of at most so many characters; a word that is longer is cut.
pub(super) fn wrapped(text: &str, fits: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        let word = shortened(word, fits);
        match lines.last_mut() {
            Some(line) if line.chars().count() + 1 + word.chars().count() <= fits => {
                line.push(' ');
                line.push_str(&word);
            }
            _ => lines.push(word),
        }
    }
    lines
}
