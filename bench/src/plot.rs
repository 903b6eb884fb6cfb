//! The record as one SVG: a panel for each figure, a bar for each program, its range as a whisker.

use std::fmt::Write;

use crate::{
    contender::{Contender, Kind},
    figure::{Better, CPU, Figure, MEDIAN, P99, PEAK, RATE, SPEED},
    record::{Record, Spread},
    work::Work,
};

/// What is shown, in reading order.
const PANELS: [(Work, Figure, &str); 12] = [
    (Work::Tcp, SPEED, "TCP, 1 stream"),
    (Work::Reverse, SPEED, "TCP, reverse"),
    (Work::Four, SPEED, "TCP, 4 streams"),
    (Work::Onecore, SPEED, "TCP, all on one core"),
    (Work::Tcp, CPU, "CPU of both daemons, TCP"),
    (Work::Tcp, PEAK, "Resident memory under load"),
    (Work::Ping, MEDIAN, "Ping, idle tunnel"),
    (Work::Ping, P99, "Ping, idle tunnel"),
    (Work::Udp64, RATE, "UDP, 64 B packets, loss < 0.1 %"),
    (Work::Udp64burst, RATE, "UDP, 64 B, sent by UDP_SEGMENT"),
    (Work::Udp512, RATE, "UDP, 512 B packets, loss < 0.1 %"),
    (Work::Udp1400, RATE, "UDP, 1400 B packets, loss < 0.1 %"),
];

const COLUMNS: usize = 3;
const PANEL: f64 = 330.0;
const MARGIN: f64 = 16.0;
const LABEL: f64 = 92.0;
const ROW: f64 = 18.0;
/// Room for the value behind the longest bar.
const VALUE: f64 = 48.0;

/// The whole picture.
pub fn svg(record: &Record) -> String {
    let panels: Vec<_> = PANELS.iter().filter_map(|panel| Panel::of(record, panel)).collect();
    let programs: Vec<_> = record.contenders.iter().filter(|one| one.kind != Kind::Veth).collect();
    let tall = 62.0 + programs.len() as f64 * ROW;
    let lines = captions(record, &programs);
    let rows = panels.len().div_ceil(COLUMNS) as f64;
    let (width, top) = (COLUMNS as f64 * PANEL + 2.0 * MARGIN, 56.0);
    let height = top + rows * tall + lines.len() as f64 * 15.0 + MARGIN;

    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width:.0} {height:.0}\" width=\"{width:.0}\" \
         height=\"{height:.0}\" font-family=\"system-ui, sans-serif\" font-size=\"12\" fill=\"#222\">\n\
         <title>vpnd beside other VPN programs</title>\n<rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n"
    );
    let heading = Text { x: MARGIN, y: 28.0, style: "font-size=\"18\" font-weight=\"600\"" };
    svg += &heading.of("vpnd beside other VPN programs");
    let rule = format!(
        "bars: median of {} rounds, each program in turn; whiskers: lowest and highest",
        record.rounds
    );
    svg += &Text { x: MARGIN, y: 45.0, style: "fill=\"#666\"" }.of(&rule);
    for (at, panel) in panels.iter().enumerate() {
        let (column, row) = (at % COLUMNS, at / COLUMNS);
        panel.draw(&mut svg, MARGIN + column as f64 * PANEL, top + row as f64 * tall);
    }
    for (at, line) in lines.iter().enumerate() {
        let y = top + rows * tall + 12.0 + at as f64 * 15.0;
        svg += &Text { x: MARGIN, y, style: "fill=\"#666\" font-size=\"11\"" }.of(line);
    }
    svg + "</svg>\n"
}

/// Machine, and each program with its version; a few on a line.
fn captions(record: &Record, programs: &[&Contender]) -> Vec<String> {
    let each = |one: &&Contender| match one.kind {
        Kind::Nebula | Kind::Openvpn => format!("{} {} ({})", one.label, one.version, one.kind.remark()),
        _ => format!("{} {}", one.label, one.version),
    };
    let machine = format!("{}; TCP runs of {} s", record.machine, record.seconds);
    let programs: Vec<_> = programs.iter().map(each).collect();
    std::iter::once(machine).chain(programs.chunks(4).map(|some| some.join(" · "))).collect()
}

struct Panel<'a> {
    title: &'static str,
    figure: Figure,
    bars: Vec<(&'a Contender, Option<Spread>)>,
    /// The cable without a VPN: told in words, since its bar would make the others small.
    cable: Option<Spread>,
}

impl<'a> Panel<'a> {
    fn of(record: &'a Record, &(work, figure, title): &(Work, Figure, &'static str)) -> Option<Self> {
        let spread = |one: &Contender| Spread::of(&record.values(work, figure.key, &one.label));
        let cable = record.contenders.iter().find(|one| one.kind == Kind::Veth).and_then(spread);
        // Who was not asked has not failed.
        let asked = |one: &&Contender| one.kind != Kind::Veth && record.was_asked(work, &one.label);
        let programs = record.contenders.iter().filter(asked);
        let bars: Vec<_> = programs.map(|one| (one, spread(one))).collect();
        bars.iter().any(|(_, spread)| spread.is_some()).then_some(Self { title, figure, bars, cable })
    }

    fn draw(&self, svg: &mut String, x: f64, y: f64) {
        let better = match self.figure.better {
            Some(Better::More) => ", more is better",
            Some(Better::Less) => ", less is better",
            None => "",
        };
        let cable = self.cable.map(|cable| format!(" · without VPN {}", self.figure.write(cable.median)));
        let unit = format!("{}{better}{}", self.figure.title, cable.unwrap_or_default());
        *svg += &Text { x, y: y + 18.0, style: "font-weight=\"600\"" }.of(self.title);
        *svg += &Text { x, y: y + 33.0, style: "fill=\"#666\" font-size=\"11\"" }.of(&unit);
        let most = self
            .bars
            .iter()
            .filter_map(|(_, spread)| Some(spread.as_ref()?.high))
            .fold(f64::MIN_POSITIVE, f64::max);
        let scale = (PANEL - LABEL - VALUE - 2.0 * MARGIN) / most;
        for (at, (one, spread)) in self.bars.iter().enumerate() {
            self.bar(svg, (x, y + 40.0 + at as f64 * ROW), one, *spread, scale);
        }
    }

    fn bar(&self, svg: &mut String, (x, y): (f64, f64), one: &Contender, spread: Option<Spread>, scale: f64) {
        let (origin, middle) = (x + LABEL, y + ROW / 2.0);
        let label = Text { x: origin - 6.0, y: middle + 4.0, style: "text-anchor=\"end\"" };
        *svg += &label.of(&one.label);
        let Some(spread) = spread else {
            let absent = Text { x: origin + 4.0, y: middle + 4.0, style: "fill=\"#999\"" };
            *svg += &absent.of("failed");
            return;
        };
        let fill = if one.kind == Kind::Vpnd { "#c2410c" } else { "#94a3b8" };
        let [low, median, high] = [spread.low, spread.median, spread.high].map(|value| value * scale);
        let _ = writeln!(
            svg,
            "<rect x=\"{origin:.1}\" y=\"{:.1}\" width=\"{median:.1}\" height=\"{:.1}\" fill=\"{fill}\"/>",
            y + 2.0,
            ROW - 4.0
        );
        let (from, to) = (origin + low, origin + high);
        let (above, below) = (middle - 3.5, middle + 3.5);
        let _ = writeln!(
            svg,
            "<path d=\"M{from:.1} {middle:.1}H{to:.1}M{from:.1} {above:.1}V{below:.1}M{to:.1} {above:.1}V{below:.1}\" \
             stroke=\"#222\" fill=\"none\"/>"
        );
        *svg += &Text { x: to + 5.0, y: middle + 4.0, style: "" }.of(&self.figure.write(spread.median));
    }
}

struct Text {
    x: f64,
    y: f64,
    style: &'static str,
}

impl Text {
    fn of(&self, words: &str) -> String {
        let words = words.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
        format!("<text x=\"{:.1}\" y=\"{:.1}\" {}>{words}</text>\n", self.x, self.y, self.style)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::tests::record;

    #[test]
    fn each_program_has_a_bar_and_the_cable_is_told_in_words() {
        let svg = svg(&record(&[
            ("veth", &[20.0]),
            ("vpnd", &[6.0, 5.0, 7.0]),
            ("gotatun", &[1.0]),
            ("nebula", &[f64::NAN]),
            ("openvpn", &[]),
        ]));
        assert_eq!(svg.matches("<path").count(), 2, "a whisker for each that was measured");
        assert_eq!(svg.matches(">failed<").count(), 1, "who was not asked has not failed");
        assert!(svg.contains("Gb/s, more is better · without VPN 20.00"));
        assert!(!svg.contains("loss"));
    }

    #[test]
    fn the_picture_is_well_formed() {
        let svg = svg(&record(&[("vpnd <old> & new", &[6.0])]));
        assert!(svg.contains("vpnd &lt;old&gt; &amp; new"));
        for element in ["svg", "text", "title"] {
            let (opened, closed) =
                (svg.matches(&format!("<{element}")).count(), svg.matches(&format!("</{element}>")).count());
            assert_eq!(opened, closed, "{element}");
        }
        assert!(!svg.contains("NaN") && !svg.contains("inf"));
    }
}
