//! A page as text: two columns for people, the packet on the left and its carrier on the right, down the stack and up
//! again; and a line a station for pipes.

use std::fmt::Write;

use super::{
    Clock, Direction, Outcome, Packet, Page, Place, Rule, Sealed, Station, Step, Verdict, Vpnd, Walk,
    conclude::rule_words, stories,
};

/// No line is longer.
const WIDTH: usize = 100;
/// Where the right column begins.
const RIGHT: usize = 50;
/// The time stands before a station's name.
const TIME: usize = 11;

const BOLD: &str = "1";
const DIM: &str = "2";
const INNER: &str = "36";
const OUTER: &str = "33";
const DEAD: &str = "31";

/// For people; with colours for a terminal if asked.
pub fn page(page: &Page, colours: bool) -> String {
    let mut text = Text { out: String::new(), colours };
    text.opening(page);
    text.way(page);
    let back = page.way_back();
    if let Some(back) = &back {
        text.line(None, "");
        let packet = back.packet.as_ref().map_or_else(|| "a carrier".to_owned(), packet_words);
        text.line(Some(BOLD), &format!("Its answer: {packet}"));
        text.line(None, "");
        text.way(back);
    }
    text.closing(page, back.as_ref());
    text.out
}

/// One line a station: host, walk, place, verdict, time, what is known of it, between tabs. Behind a line `answer` those of
/// its way back.
pub fn plain(page: &Page) -> String {
    let mut out = plain_way(page);
    if let Some(back) = page.way_back() {
        let packet = back.packet.as_ref().map(packet_words).unwrap_or_default();
        let _ = writeln!(out, "answer\t{packet}"); // a String takes all
        out += &plain_way(&back);
    }
    out
}

fn plain_way(page: &Page) -> String {
    let mut out = String::new();
    for station in &page.stations {
        let host = page.hosts.get(station.host).map_or("", |host| host.name.as_str());
        let walk = walk_name(station.walk);
        let known = facts(station).join("; ");
        let line =
            [host, walk, &station.name(), verdict_word(station.verdict), &time(station), &known].join("\t");
        let _ = writeln!(out, "{}", line.trim_end()); // a String takes all
    }
    let _ = writeln!(out, "end\t{}", ending(page));
    out
}

fn walk_name(walk: Walk) -> &'static str {
    match walk {
        Walk::Inner => "inner",
        Walk::Program => "program",
        Walk::Outer => "outer",
    }
}

fn verdict_word(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Passed => "passed",
        Verdict::Dropped => "dropped",
        Verdict::Rejected => "rejected",
        Verdict::Refused => "refused",
        Verdict::Staged => "waits",
        Verdict::Absent => "absent",
        Verdict::Unknown => "unknown",
        Verdict::Would => "would pass",
        Verdict::WouldNot => "would end",
    }
}

/// `12 µs`; `≤ 12 µs` where it was read then and happened before.
fn time(station: &Station) -> String {
    match (station.at_us, station.clock) {
        (Some(at), Some(Clock::Reader)) if station.place != Place::Socket => format!("≤{at:.0} µs"),
        (Some(at), _) => format!("{at:.0} µs"),
        (None, _) => String::new(),
    }
}

/// What is known of a station, a piece each.
fn facts(station: &Station) -> Vec<String> {
    let mut facts = Vec::new();
    if let Some(vpnd) = &station.vpnd {
        facts.extend(vpnd_words(vpnd));
    }
    if let (Some(packet), true) =
        (&station.packet, matches!(station.place, Place::Socket | Place::Postrouting))
    {
        facts.push(packet_words(packet));
    }
    if let Some(mark) = station.mark.filter(|mark| *mark != 0) {
        facts.push(format!("mark {mark:#x}"));
    }
    let next = station.rules.iter().skip(1).map(Some).chain([None]);
    let said = station.rules.iter().zip(next).filter(|(rule, next)| !is_end_before_policy(rule, *next));
    facts.extend(said.map(|(rule, _)| rule_line(rule)));
    facts.extend(station.route.as_ref().map(route_words).into_iter().flatten());
    facts.extend(station.facts.iter().cloned());
    if station.inferred {
        facts.push("? not seen here: it follows from the hook beside it".to_owned());
    }
    facts.extend(station.unknown.iter().map(|unknown| format!("? {unknown}")));
    facts
}

/// That a base chain came to its end is what its policy says.
fn is_end_before_policy(rule: &Rule, next: Option<&Rule>) -> bool {
    let is_end = rule.handle.is_none() && rule.verdict == "continue";
    let chain = |rule: &Rule| [&rule.family, &rule.table, &rule.chain].map(Clone::clone);
    is_end && next.is_some_and(|next| next.step == Step::Policy && chain(next) == chain(rule))
}

fn rule_line(rule: &Rule) -> String {
    format!("{} → {}", rule_words(rule), rule.verdict)
}

fn route_words(route: &super::Route) -> Vec<String> {
    let mut words = Vec::new();
    match (&route.answer, &route.error) {
        (_, Some(error)) => words.push(format!("no way: {error}")),
        (Some(answer), _) => {
            let device = route.device.as_deref().unwrap_or("?");
            let via = route.via.map(|via| format!(" via {via}")).unwrap_or_default();
            let source = route.source.map(|source| format!(", source {source}")).unwrap_or_default();
            let kind = if answer == "unicast" { "by" } else { answer };
            words.push(format!("{kind} {device}{via}{source}"));
        }
        (None, None) => words.push("the kernel was not asked".to_owned()),
    }
    if let Some(text) = &route.text {
        let named = text.contains(" table ");
        let table = route.table.filter(|_| !named).map(|table| match table {
            254 => ", table main".to_owned(),
            255 => ", table local".to_owned(),
            table => format!(", table {table}"),
        });
        words.push(format!("route {text}{}", table.unwrap_or_default()));
    }
    if let Some(rule) = &route.rule {
        words.push(format!("rule {}: {}", rule.priority, rule.text));
    }
    words
}

/// `icmp 10.77.0.1 → 10.77.0.2, 84 bytes`.
pub fn packet_words(packet: &Packet) -> String {
    let end = |address: &std::net::IpAddr, port: Option<u16>| match (port, address) {
        (Some(port), address) => std::net::SocketAddr::new(*address, port).to_string(),
        (None, address) if address.is_unspecified() => "(the kernel's choice)".to_owned(),
        (None, address) => address.to_string(),
    };
    let mut words = format!(
        "{} {} → {}",
        packet.protocol,
        end(&packet.source, packet.source_port),
        end(&packet.destination, packet.destination_port)
    );
    if let Some(bytes) = packet.bytes {
        words += &format!(", {bytes} bytes");
    }
    words
}

fn vpnd_words(vpnd: &Vpnd) -> Vec<String> {
    match vpnd {
        Vpnd::Sealed(sealed) => sealed_words(sealed),
        Vpnd::Opened(opened) => {
            let mut words = vec![
                format!("opened: peer {}, source is its own by {}", opened.peer, opened.prefix),
                format!("session {:#010x}, counter {}, not seen before", opened.session, opened.counter),
                format!("{} bytes of datagram → {} of packet", opened.datagram_bytes, opened.inner_bytes),
                format!("from {}", opened.from),
            ];
            if opened.batch.datagrams > 1 {
                words.push(format!("{} datagrams in one receive (UDP_GRO)", opened.batch.datagrams));
            }
            if opened.merged > 1 {
                words.push(format!("written to the TUN as one super-packet of {}", opened.merged));
            }
            words
        }
        Vpnd::Staged { peer, prefix, .. } => {
            vec![format!("for peer {peer} by {prefix}: waits for a session, for which vpnd shakes hands")]
        }
        Vpnd::Refused(refused) => vec![format!("refused: {}", refused.reason)],
        Vpnd::Owned { peer, prefix, second, endpoint, session, .. } => {
            let mut words = vec![format!("peer {peer} by {prefix}")];
            words.extend(second.as_ref().map(|[prefix, peer]| format!("next: {peer} by {prefix}")));
            words.extend(endpoint.map(|endpoint| format!("endpoint {endpoint}")));
            words.push(if *session { "there is a session" } else { "a handshake comes first" }.to_owned());
            words
        }
    }
}

fn sealed_words(sealed: &Sealed) -> Vec<String> {
    let mut words = vec![
        format!("sealed for peer {} by {}", sealed.peer, sealed.prefix),
        format!("session {:#010x}, counter {}", sealed.session, sealed.counter),
    ];
    match sealed.segments {
        1 => words
            .push(format!("{} bytes of packet → {} of datagram", sealed.inner_bytes, sealed.datagram_bytes)),
        segments => words.push(format!(
            "a super-packet of {} bytes (TSO, USO), cut into {segments}, the first → {} of datagram",
            sealed.inner_bytes, sealed.datagram_bytes
        )),
    }
    if sealed.staged {
        words.push("it had waited for the session".to_owned());
    }
    let mark = if sealed.mark == 0 { String::new() } else { format!(", mark {:#x}", sealed.mark) };
    words.push(format!("to {}{mark}", sealed.endpoint));
    match sealed.batch {
        Some(batch) if batch.datagrams > 1 => words.push(format!(
            "left in one send with {} others (UDP_SEGMENT), {} bytes in all",
            batch.datagrams - 1,
            batch.bytes
        )),
        _ => words.push("left alone".to_owned()),
    }
    words.extend(sealed.error.as_ref().map(|error| format!("the kernel would not send it: {error}")));
    words
}

fn ending(page: &Page) -> String {
    let answered =
        |us: Option<f64>| us.map(|us| format!(" It was answered after {us:.0} µs.")).unwrap_or_default();
    match &page.outcome {
        Outcome::Arrived { answered_us } => format!("It arrived.{}", answered(*answered_us)),
        Outcome::Left { answered_us } => {
            let far = match answered_us {
                Some(_) => String::new(),
                None => " What became of it on the other host, that one can tell: run vpnd trace there, too."
                    .to_owned(),
            };
            format!("Its carrier left this host.{}{far}", answered(*answered_us))
        }
        Outcome::Died(death) => {
            let at = page.stations.get(death.station);
            let host = at.and_then(|at| page.hosts.get(at.host)).map_or("", |host| host.name.as_str());
            let name = at.map(Station::name).unwrap_or_default();
            let reason = death.drop_reason.as_ref().map(|reason| format!(" The kernel's reason: {reason}."));
            format!("It died on {host} at {name}: {}.{}", death.why, reason.unwrap_or_default())
        }
        Outcome::Unknown { why } => format!("Its end is not known: {why}."),
        Outcome::Planned => "No packet was sent.".to_owned(),
    }
}

/// Lines, and what makes them readable.
struct Text {
    out: String,
    colours: bool,
}

impl Text {
    fn opening(&mut self, page: &Page) {
        let packet = page.packet.as_ref().map_or_else(|| "A carrier".to_owned(), packet_words);
        self.line(Some(BOLD), &packet);
        self.line(None, "");
    }

    fn way(&mut self, page: &Page) {
        let mut before: Option<&Station> = None;
        for station in &page.stations {
            let turns = before
                .is_none_or(|before| (before.host, before.direction) != (station.host, station.direction));
            if turns {
                self.turn(page, station, before);
            }
            let host = page.hosts.get(station.host);
            self.station(station, host.and_then(|host| host.interface.as_deref()));
            before = Some(station);
        }
    }

    /// Another host, or from the way down to the way up.
    fn turn(&mut self, page: &Page, station: &Station, before: Option<&Station>) {
        let host = page.hosts.get(station.host).map_or("", |host| host.name.as_str());
        let way = match station.direction {
            Direction::Out => "down the stack",
            Direction::In => "up the stack",
        };
        if before.is_some_and(|before| before.host == station.host) {
            return;
        }
        if before.is_some() {
            self.line(None, "");
        }
        let left = format!("{host}, {way}: the packet ");
        let ruler = |text: &str, width: usize| {
            format!("{text}{}", "─".repeat(width.saturating_sub(text.chars().count())))
        };
        self.line(
            Some(BOLD),
            &format!("{}┬{}", ruler(&left, RIGHT - 1), ruler(" its carrier ", WIDTH - RIGHT)),
        );
    }

    fn station(&mut self, station: &Station, tunnel: Option<&str>) {
        let dead = matches!(
            station.verdict,
            Verdict::Dropped | Verdict::Rejected | Verdict::Refused | Verdict::WouldNot
        );
        let colour = match (dead, station.walk) {
            (true, _) => DEAD,
            (_, Walk::Inner) => INNER,
            (_, Walk::Outer) => OUTER,
            (_, Walk::Program) => BOLD,
        };
        let mut head = format!("{:>width$}  {}", time(station), station.name(), width = TIME - 2);
        if let (Some(device), false) = (&station.device, station.place == Place::Device) {
            head += &format!(" ({device})");
        }
        if dead || matches!(station.verdict, Verdict::Unknown | Verdict::Staged | Verdict::Absent) {
            head += &format!("  ── {}", verdict_word(station.verdict).to_uppercase());
        }
        self.column(station, Some(colour), &head, 0);
        for fact in facts(station) {
            self.column(station, None, &fact, TIME);
        }
        if let Some(story) = stories::of(station, tunnel) {
            self.column(station, Some(DIM), story, TIME);
        }
    }

    /// Words in the column of the station; what belongs to neither packet has the whole width.
    fn column(&mut self, station: &Station, style: Option<&str>, words: &str, indent: usize) {
        let (prefix, width) = match station.walk {
            Walk::Inner => (String::new(), RIGHT - 1),
            Walk::Outer => (format!("{}│", " ".repeat(RIGHT - 1)), WIDTH - RIGHT),
            Walk::Program => (String::new(), WIDTH),
        };
        let lines = wrapped(words, width, indent);
        for line in lines {
            match station.walk {
                Walk::Inner => {
                    let padding = " ".repeat((RIGHT - 1).saturating_sub(line.chars().count()));
                    self.styled(style, &line, &format!("{padding}│"), "");
                }
                _ => self.styled(style, &line, "", &prefix),
            }
        }
    }

    fn closing(&mut self, page: &Page, back: Option<&Page>) {
        self.line(None, "");
        self.end(page, &ending(page));
        match back.map(|back| (back, &back.outcome)) {
            // Said already, with the time that it took.
            Some((_, Outcome::Arrived { answered_us: Some(_) })) | None => {}
            Some((back, Outcome::Arrived { .. })) => self.end(back, "Its answer arrived, too."),
            Some((back, _)) => self.end(back, &format!("Its answer: {}", ending(back))),
        }
        let back = back.map(|back| &back.stations[..]).unwrap_or_default();
        if page
            .stations
            .iter()
            .chain(back)
            .any(|station| station.clock == Some(Clock::Reader) && station.place != Place::Socket)
        {
            let told = "≤: netfilter's messages carry no time; they were read then, and the packet was there before.";
            self.line(Some(DIM), told);
        }
        for note in &page.notes {
            for line in wrapped(note, WIDTH, 0) {
                self.line(Some(DIM), &line);
            }
        }
    }

    fn end(&mut self, page: &Page, words: &str) {
        let dead = matches!(page.outcome, Outcome::Died(_));
        for line in wrapped(words, WIDTH, 0) {
            self.line(Some(if dead { DEAD } else { BOLD }), &line);
        }
    }

    fn line(&mut self, style: Option<&str>, line: &str) {
        self.styled(style, line, "", "");
    }

    fn styled(&mut self, style: Option<&str>, line: &str, behind: &str, before: &str) {
        let text = match style.filter(|_| self.colours && !line.is_empty()) {
            Some(style) => format!("{before}\x1b[{style}m{line}\x1b[0m{behind}"),
            None => format!("{before}{line}{behind}"),
        };
        self.out.push_str(text.trim_end());
        self.out.push('\n');
    }
}

/// Lines of at most `width`, each behind `indent` spaces, the second and later ones two more. What has spaces in front
/// keeps them.
fn wrapped(words: &str, width: usize, indent: usize) -> Vec<String> {
    let lead = words.len() - words.trim_start().len();
    let mut lines = Vec::new();
    let mut line = " ".repeat(indent + lead);
    let mut empty = true;
    for word in words.split_whitespace() {
        if !empty && line.chars().count() + 1 + word.chars().count() > width {
            lines.push(std::mem::replace(&mut line, " ".repeat(indent.max(TIME) + 2)));
            empty = true;
        }
        if !empty {
            line.push(' ');
        }
        line.push_str(word);
        empty = false;
    }
    lines.push(line);
    lines
}

#[cfg(test)]
mod tests;
