//! The figures to reach, and whether they were.

use crate::{
    contender::Kind,
    figure::{CPU, Figure, MEDIAN, P99, PEAK, RATE, SPEED},
    record::{Record, Spread},
    table::{Table, with_range},
    work::Work,
};

/// What is asked of the median.
#[derive(Clone, Copy, Debug)]
enum Bound {
    AtLeast(f64),
    AtMost(f64),
}

/// One figure to reach.
#[derive(Clone, Copy, Debug)]
struct Target {
    work: Work,
    figure: Figure,
    /// Of ratios to this one; `None`: of the figure itself.
    other: Option<Kind>,
    bound: Bound,
}

const fn times(work: Work, figure: Figure, other: Kind, bound: Bound) -> Target {
    Target { work, figure, other: Some(other), bound }
}

const TARGETS: [Target; 15] = [
    times(Work::Tcp, SPEED, Kind::Gotatun, Bound::AtLeast(6.0)),
    times(Work::Tcp, SPEED, Kind::Boringtun, Bound::AtLeast(9.0)),
    times(Work::Reverse, SPEED, Kind::Gotatun, Bound::AtLeast(6.0)),
    times(Work::Reverse, SPEED, Kind::Boringtun, Bound::AtLeast(9.0)),
    times(Work::Four, SPEED, Kind::Gotatun, Bound::AtLeast(6.0)),
    times(Work::Four, SPEED, Kind::Boringtun, Bound::AtLeast(9.0)),
    // 3.5 Gb/s where the cable alone carries 20.
    times(Work::Onecore, SPEED, Kind::Veth, Bound::AtLeast(0.175)),
    times(Work::Tcp, CPU, Kind::Gotatun, Bound::AtMost(0.2)),
    times(Work::Ping, MEDIAN, Kind::Boringtun, Bound::AtMost(1.0)),
    times(Work::Ping, P99, Kind::Boringtun, Bound::AtMost(1.0)),
    times(Work::Udp64, RATE, Kind::Gotatun, Bound::AtLeast(3.0)),
    times(Work::Udp64burst, RATE, Kind::Gotatun, Bound::AtLeast(3.0)),
    Target { work: Work::Tcp, figure: PEAK, other: None, bound: Bound::AtMost(12.0) },
    Target { work: Work::Four, figure: PEAK, other: None, bound: Bound::AtMost(12.0) },
    Target { work: Work::Peers, figure: PEAK, other: None, bound: Bound::AtMost(40.0) },
];

/// Of the first vpnd; absent where none was measured.
pub fn table(record: &Record) -> Option<Table> {
    let ours = record.ours()?;
    let row = |target: &Target| {
        let reached = target.reached(record, &ours.label);
        let cells = [
            target.work.title().to_owned(),
            target.asked(),
            reached.map_or_else(String::new, |spread| with_range(spread, |value| target.write(value))),
            reached.map_or("not measured", |spread| target.judge(spread.median)).to_owned(),
        ];
        cells.to_vec()
    };
    let heads = ["", "target", "reached", ""].map(str::to_owned).to_vec();
    Some(Table { title: "Targets (medians)".to_owned(), heads, rows: TARGETS.iter().map(row).collect() })
}

impl Target {
    fn reached(&self, record: &Record, ours: &str) -> Option<Spread> {
        let Some(other) = self.other else {
            return Spread::of(&record.values(self.work, self.figure.key, ours));
        };
        let other = record.contenders.iter().find(|one| one.kind == other)?;
        Spread::of(&record.ratios(self.work, self.figure.key, ours, &other.label))
    }

    fn asked(&self) -> String {
        let (sign, bound) = match self.bound {
            Bound::AtLeast(bound) => ('≥', bound),
            Bound::AtMost(bound) => ('≤', bound),
        };
        match self.other {
            Some(other) => format!("{}: {sign} {bound} × {}", self.figure.title, other.name()),
            None => format!("{}: {sign} {bound}", self.figure.title),
        }
    }

    fn write(&self, value: f64) -> String {
        if self.other.is_some() { format!("{value:.3}") } else { self.figure.write(value) }
    }

    fn judge(&self, median: f64) -> &'static str {
        let met = match self.bound {
            Bound::AtLeast(bound) => median >= bound,
            Bound::AtMost(bound) => median <= bound,
        };
        if met { "met" } else { "not met" }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::tests::record;

    fn judged(ours: &[f64]) -> Vec<Vec<String>> {
        table(&record(&[("gotatun", &[1.0, 2.0, 1.0]), ("vpnd", ours)])).unwrap().rows
    }

    #[test]
    fn a_target_is_met_by_the_median_of_ratios() {
        let row = &judged(&[7.0, 8.0, 6.0])[0];
        assert_eq!(row[1..], ["Gb/s: ≥ 6 × gotatun", "6.000 (4.000–7.000)", "met"]);
        assert_eq!(judged(&[5.9, 20.0, 5.0])[0][3], "not met");
    }

    #[test]
    fn what_was_not_measured_is_not_called_met() {
        assert!(judged(&[9.0])[1..].iter().all(|row| row[3] == "not measured" && row[2].is_empty()));
    }
}
