//! A page as a picture (SVG): the stack of each host, and the one packet's way down and up through it. Legible on a
//! light and on a dark page, and as wide as a README. No library: a few rectangles, lines and words.

mod card;
mod layout;
mod style;
#[cfg(test)]
mod tests;

use std::fmt::Write;

use super::{Kind, Outcome, Page, Walk};
use card::{Card, Look};
use layout::{Layout, Wire};

/// Draws it; the way back of its answer below.
pub fn svg(page: &Page) -> String {
    let back = page.way_back().map(from_left_to_right);
    let rows: Vec<Row> = std::iter::once(Row::of(page, title(page, "one packet")))
        .chain(back.as_ref().map(|back| Row::of(back, title(back, "its answer"))))
        .collect();
    let width = rows.iter().map(|row| row.width).max().unwrap_or(0);
    let height: u32 = rows.iter().map(|row| row.height).sum();
    let mut out = Drawing::default();
    let _ = write!(
        out.0,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" width=\"{width}\" \
         height=\"{height}\" role=\"img\" aria-label=\"{0}\">\n<title>{0}</title>\n<style>{1}</style>\n{2}",
        escaped(&rows[0].title),
        style::SHEET,
        style::MARKERS,
    );
    out.rectangle("page", [0, 0, width, height], 0);
    let mut top = 0;
    for row in &rows {
        out.push(format_args!("<g transform=\"translate(0 {top})\">"));
        row.draw(&mut out);
        out.push(format_args!("</g>"));
        top += row.height;
    }
    out.0 + "</svg>\n"
}

/// One way, from left to right.
struct Row {
    title: String,
    layout: Layout,
    /// How it ended, line by line.
    end: Vec<String>,
    dead: bool,
    width: u32,
    height: u32,
}

impl Row {
    fn of(page: &Page, title: String) -> Self {
        let layout = Layout::of(page);
        let width = layout.width.max(48 + 8 * title.chars().count() as u32);
        let end = card::wrapped(&outcome(page), (width as usize - 48) / 8);
        let height = layout.height + 16 * end.len() as u32 + 34;
        let dead = matches!(page.outcome, Outcome::Died(_));
        Self { title, layout, end, dead, width, height }
    }

    fn draw(&self, out: &mut Drawing) {
        let layout = &self.layout;
        out.words("title", 24, 34, &self.title);
        legend(out);
        for host in &layout.hosts {
            host_box(out, host, layout);
        }
        for wire in &layout.wires {
            out.wire(wire);
        }
        for &(x, y) in &layout.cables {
            out.push(format_args!(
                "<text class=\"bandname\" x=\"{x}\" y=\"{y}\" text-anchor=\"middle\">cable</text>"
            ));
        }
        for card in &layout.cards {
            out.card(card);
        }
        for (line, words) in self.end.iter().enumerate() {
            let class = if self.dead { "end dead" } else { "end" };
            out.words(class, 24, layout.height + 22 + 16 * line as u32, words);
        }
    }
}

/// The host that the packet meets first stands first.
fn from_left_to_right(mut page: Page) -> Page {
    let mut order: Vec<usize> = Vec::new();
    for host in page.stations.iter().map(|station| station.host).chain(0..page.hosts.len()) {
        if !order.contains(&host) {
            order.push(host);
        }
    }
    page.hosts = order.iter().map(|&host| page.hosts[host].clone()).collect();
    for station in &mut page.stations {
        station.host = order.iter().position(|&host| host == station.host).unwrap_or(0);
    }
    page
}

/// One host: its frame, its name, and the bands of its stack.
fn host_box(out: &mut Drawing, host: &layout::Frame, layout: &Layout) {
    let [x, y, width, height] = host.area;
    out.rectangle("host", [x, y, width, height], 10);
    out.words("name", x + 16, y + 26, &host.name);
    for (at, band) in layout.bands.iter().enumerate() {
        if at > 0 {
            out.line("band", [x + 10, band.top, x + width - 10, band.top]);
        }
        out.words("bandname", x + 16, band.top + 15, band.name);
    }
}

/// What the two colours mean.
fn legend(out: &mut Drawing) {
    let mut x = 24;
    for (class, words) in [("inner", "the packet itself"), ("outer", "the UDP packet that carries it")] {
        out.line(&format!("way {class}"), [x, 52, x + 22, 52]);
        out.words("legend", x + 28, 56, words);
        x += 150;
    }
}

fn title(page: &Page, whose: &str) -> String {
    let verb = match page.kind {
        Kind::Plan => "The way that a packet would take".to_owned(),
        Kind::Trace => format!("The way of {whose}"),
    };
    let Some(packet) = &page.packet else { return verb };
    let end = |address: std::net::IpAddr, port: Option<u16>| match port {
        Some(port) => std::net::SocketAddr::new(address, port).to_string(),
        None => address.to_string(),
    };
    let (from, to) =
        (end(packet.source, packet.source_port), end(packet.destination, packet.destination_port));
    format!("{verb}: {}, {from} → {to}", packet.protocol)
}

fn outcome(page: &Page) -> String {
    let answered = |us: &Option<f64>| {
        us.map_or_else(String::new, |us| format!(" The answer was there after {}.", card::duration(us)))
    };
    match &page.outcome {
        Outcome::Arrived { answered_us } => format!("It arrived.{}", answered(answered_us)),
        Outcome::Left { answered_us } => {
            format!("Its carrier left this host; nobody looked on the other.{}", answered(answered_us))
        }
        Outcome::Died(death) => {
            let place = page.stations.get(death.station).map_or_else(
                || "on the way".to_owned(),
                |station| {
                    let host = page.hosts.get(station.host).map_or("?", |host| host.name.as_str());
                    let walk = match station.walk {
                        Walk::Inner => ", the packet itself",
                        Walk::Outer => ", its carrier",
                        Walk::Program => "",
                    };
                    format!("at {} on {host}{walk}", station.name())
                },
            );
            let reason = death.drop_reason.as_ref().map_or_else(String::new, |r| format!(" ({r})"));
            format!("It died {place}: {}{reason}", death.why)
        }
        Outcome::Unknown { why } => format!("Nobody saw its end: {why}"),
        Outcome::Planned => "No packet was sent: this is what the kernel and vpnd answered.".to_owned(),
    }
}

/// Text that grows.
#[derive(Default)]
struct Drawing(String);

impl Drawing {
    fn rectangle(&mut self, class: &str, [x, y, width, height]: [u32; 4], round: u32) {
        self.push(format_args!(
            "<rect class=\"{class}\" x=\"{x}\" y=\"{y}\" width=\"{width}\" height=\"{height}\" rx=\"{round}\"/>"
        ));
    }

    fn line(&mut self, class: &str, [x1, y1, x2, y2]: [u32; 4]) {
        self.push(format_args!("<path class=\"{class}\" d=\"M{x1} {y1}L{x2} {y2}\"/>"));
    }

    fn words(&mut self, class: &str, x: u32, y: u32, words: &str) {
        self.push(format_args!("<text class=\"{class}\" x=\"{x}\" y=\"{y}\">{}</text>", escaped(words)));
    }

    /// A way with round corners, and an arrow at its end.
    fn wire(&mut self, wire: &Wire) {
        let class = walk_class(wire.walk);
        let faint = if wire.faint { " faint" } else { "" };
        let mut path = String::new();
        for (at, &(x, y)) in wire.points.iter().enumerate() {
            let _ = match (at, wire.points.get(at + 1)) {
                (0, _) => write!(path, "M{x} {y}"),
                (_, None) => write!(path, "L{x} {y}"),
                (_, Some(&next)) => {
                    let (before, after) = (towards((x, y), wire.points[at - 1]), towards((x, y), next));
                    write!(path, "L{} {}Q{x} {y} {} {}", before.0, before.1, after.0, after.1)
                }
            }; // a String takes all
        }
        self.push(format_args!(
            "<path class=\"way {class}{faint}\" d=\"{path}\" marker-end=\"url(#{class})\"/>"
        ));
    }

    fn card(&mut self, card: &Card) {
        let [x, y, width, height] = card.area;
        let look = match card.look {
            Look::Passed => "",
            Look::Dead => " dead",
            Look::Absent => " absent",
        };
        let class = walk_class(card.walk);
        self.push(format_args!("<g>"));
        self.push(format_args!("<title>{}</title>", escaped(&card.whole)));
        self.rectangle(&format!("card {class}{look}"), [x, y, width, height], 6);
        self.push(format_args!(
            "<text class=\"station{look}\" x=\"{}\" y=\"{}\"><tspan class=\"number\">{}</tspan> {}</text>",
            x + 10,
            y + 18,
            card.number,
            escaped(&card.name)
        ));
        if !card.corner.is_empty() {
            self.push(format_args!(
                "<text class=\"time\" x=\"{}\" y=\"{}\" text-anchor=\"end\">{}</text>",
                x + width - if card.look == Look::Dead { 18 } else { 10 },
                y + 18,
                escaped(&card.corner)
            ));
        }
        for (line, words) in card.lines.iter().enumerate() {
            self.words(&format!("detail{look}"), x + 10, y + 34 + 14 * line as u32, words);
        }
        if card.look == Look::Dead {
            let (x, y) = (x + width - 4, y + 4);
            self.push(format_args!("<circle class=\"deathbed\" cx=\"{x}\" cy=\"{y}\" r=\"10\"/>"));
            self.push(format_args!("<path class=\"cross\" d=\"M{} {}l8 8m0 -8l-8 8\"/>", x - 4, y - 4));
        }
        self.push(format_args!("</g>"));
    }

    fn push(&mut self, piece: std::fmt::Arguments<'_>) {
        let _ = writeln!(self.0, "{piece}"); // a String takes all
    }
}

/// Six units from a corner towards another point, for the round of the corner.
fn towards((x, y): (u32, u32), to: (u32, u32)) -> (u32, u32) {
    let step = |from: u32, to: u32| match from.cmp(&to) {
        std::cmp::Ordering::Less => from + 6.min(to - from),
        std::cmp::Ordering::Equal => from,
        std::cmp::Ordering::Greater => from - 6.min(from - to),
    };
    (step(x, to.0), step(y, to.1))
}

fn walk_class(walk: Walk) -> &'static str {
    match walk {
        Walk::Inner => "inner",
        Walk::Program => "program",
        Walk::Outer => "outer",
    }
}

/// Names come from files and the kernel: nothing in them may become markup.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            c if c.is_control() => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out
}
