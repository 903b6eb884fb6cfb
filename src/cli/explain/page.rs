//! A plan on the terminal: station by station, inner packet, vpnd, carrier, and what would stop it.

use crate::cli::words::{Paint, printable};
use crate::trace::{Direction, Outcome, Page, Place, Route, Station, Verdict, Vpnd, Walk};

/// For people: stations under each other, what is said of each beneath it.
pub(super) fn page(page: &Page, paint: Paint) -> String {
    let mut text = format!("{}\n", paint.bold(title(page)));
    let (mut walk, mut unseen) = (None, Vec::new());
    for station in &page.stations {
        if walk != Some(station.walk) {
            flush(&mut text, &mut unseen);
            text += &format!("\n{}\n", paint.bold(heading(station.walk)));
            walk = Some(station.walk);
        }
        if is_unseen_hook(station) {
            unseen.push(station.name());
            continue;
        }
        flush(&mut text, &mut unseen);
        let sign = if station.verdict == Verdict::WouldNot { paint.bad("✗") } else { paint.good("·") };
        let mut lines = lines(station).into_iter();
        text +=
            &format!("  {sign} {:<12} {}\n", printable(&station.name()), lines.next().unwrap_or_default());
        for line in lines {
            text += &format!("    {:<12} {line}\n", "");
        }
    }
    flush(&mut text, &mut unseen);
    text += &format!("\n{}\n", end(page, paint));
    for note in &page.notes {
        text += &format!("{} {}\n", paint.bad("note:"), printable(note));
    }
    text
}

fn title(page: &Page) -> String {
    let port = |port: Option<u16>| port.map(|port| format!(" port {port}")).unwrap_or_default();
    let packet = page.packet.as_ref().map(|packet| {
        let from = match packet.source.is_unspecified() {
            true => String::new(),
            false => format!(" from {}{}", packet.source, port(packet.source_port)),
        };
        format!("{}{from} to {}{}", packet.protocol, packet.destination, port(packet.destination_port))
    });
    format!("{}: what would become of it (nothing was sent)", packet.unwrap_or_default())
}

fn heading(walk: Walk) -> &'static str {
    match walk {
        Walk::Inner => "The packet",
        Walk::Program => "In vpnd",
        Walk::Outer => "Its carrier, a UDP packet",
    }
}

/// A hook of netfilter of which a plan knows nothing.
fn is_unseen_hook(station: &Station) -> bool {
    station.verdict == Verdict::Unknown
        && matches!(
            station.place,
            Place::Output | Place::Postrouting | Place::Prerouting | Place::Input | Place::Forward
        )
}

fn flush(text: &mut String, unseen: &mut Vec<String>) {
    if !unseen.is_empty() {
        *text += &format!(
            "  ? {:<12} netfilter's rules are not run through without a packet\n",
            unseen.join(", ")
        );
        unseen.clear();
    }
}

fn lines(station: &Station) -> Vec<String> {
    let mut lines = Vec::new();
    match (station.place, station.direction) {
        (Place::Socket, Direction::Out) => lines.push("a program of this host sends it".to_owned()),
        (Place::Socket, Direction::In) => lines.push("a program of this host gets it".to_owned()),
        (Place::Device, Direction::Out) => lines.push("it leaves here".to_owned()),
        (Place::Device, Direction::In) => lines.push("it comes in here".to_owned()),
        _ => {}
    }
    lines.extend(station.route.iter().flat_map(route));
    lines.extend(station.vpnd.iter().flat_map(vpnd));
    lines.extend(station.facts.iter().cloned());
    lines.extend(station.unknown.iter().cloned());
    lines.iter().map(|line| printable(line)).collect()
}

fn route(route: &Route) -> Vec<String> {
    let mut way = match (&route.device, &route.error) {
        (Some(device), _) => format!("by {device}"),
        (None, Some(error)) => format!("nowhere ({error})"),
        (None, None) => String::new(),
    };
    if let Some(via) = route.via {
        way += &format!(" via {via}");
    }
    if let Some(source) = route.source {
        way += &format!(", source {source}");
    }
    if route.mark != 0 {
        way += &format!(", mark {:#x}", route.mark);
    }
    let mut lines = vec![way];
    lines.extend(route.text.as_ref().map(|text| format!("route: {text}")));
    lines.extend(route.rule.as_ref().map(|rule| format!("rule:  {}: {}", rule.priority, rule.text)));
    lines
}

fn vpnd(vpnd: &Vpnd) -> Vec<String> {
    match vpnd {
        Vpnd::Owned { peer, prefix, second, endpoint, session, .. } => {
            let second = match second {
                Some([prefix, peer]) => format!("the next would be {prefix} of {peer}"),
                None => "no other prefix holds it".to_owned(),
            };
            let endpoint = match endpoint {
                Some(endpoint) => format!("endpoint {endpoint}"),
                None => "no endpoint".to_owned(),
            };
            let session = if *session { "a session" } else { "no session" };
            vec![format!("peer {peer} owns it by {prefix}; {second}"), format!("{endpoint}, {session}")]
        }
        Vpnd::Refused(refused) => vec![format!("refused: {}", refused.reason)],
        _ => Vec::new(),
    }
}

fn end(page: &Page, paint: Paint) -> String {
    match &page.outcome {
        Outcome::Died(death) => {
            let name = page.stations.get(death.station).map(Station::name).unwrap_or_default();
            format!("{} at {}: {}", paint.bad("It would end"), printable(&name), printable(&death.why))
        }
        _ => format!("{}.", paint.good("Nothing that can be known without a packet stops it")),
    }
}
