//! The record as tables, for a terminal and for Markdown.

use std::{fmt::Write, time::Duration};

use crate::{
    contender::Contender,
    figure::Figure,
    record::{Record, Sample, Spread},
    work::Work,
};

/// Rows under a title. The first column is text, the others numbers.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Table {
    pub title: String,
    pub heads: Vec<String>,
    pub rows: Vec<Vec<String>>,
}

impl Table {
    /// One for each work that was done: medians, ranges, and the first vpnd divided by each other one.
    pub fn of(record: &Record) -> Vec<Self> {
        Work::ALL.into_iter().filter_map(|work| Self::of_work(record, work)).collect()
    }

    fn of_work(record: &Record, work: Work) -> Option<Self> {
        let ours = record.ours();
        let mut heads = vec![String::new()];
        for figure in Figure::of(work) {
            heads.push(figure.title.to_owned());
            if let (Some(ours), Some(_)) = (ours, figure.better) {
                heads.push(format!("{} ÷ it", ours.label));
            }
        }
        let row = |one: &Contender| {
            let mut cells = vec![one.label.clone()];
            for figure in Figure::of(work) {
                let spread = Spread::of(&record.values(work, figure.key, &one.label));
                cells.push(spread.map_or_else(String::new, |spread| with_range(spread, |v| figure.write(v))));
                if let (Some(ours), Some(_)) = (ours, figure.better) {
                    cells.push(ratio(record, work, figure, ours, one));
                }
            }
            cells
        };
        let rows: Vec<_> = record.contenders.iter().map(row).collect();
        let rows: Vec<_> =
            rows.into_iter().filter(|row| row[1..].iter().any(|cell| !cell.is_empty())).collect();
        (!rows.is_empty()).then(|| Self { title: work.title().to_owned(), heads, rows })
    }

    /// With columns of even width.
    pub fn text(&self) -> String {
        let width = |column: usize| {
            let cells = self.rows.iter().chain([&self.heads]).filter_map(|row| row.get(column));
            cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
        };
        let widths: Vec<_> = (0..self.heads.len()).map(width).collect();
        let mut text = format!("{}\n", self.title);
        for row in [&self.heads].into_iter().chain(&self.rows) {
            for (column, cell) in row.iter().enumerate() {
                let padding = " ".repeat(widths[column] - cell.chars().count());
                let _ = if column == 0 {
                    write!(text, "  {cell}{padding}")
                } else {
                    write!(text, "   {padding}{cell}")
                };
            }
            text.truncate(text.trim_end().len());
            text.push('\n');
        }
        text
    }

    /// For a README.
    pub fn markdown(&self) -> String {
        let mut text = format!("### {}\n\n", self.title);
        let line = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
        text += &line(&self.heads);
        let rule = self.heads.iter().enumerate().map(|(column, _)| if column == 0 { "---" } else { "---:" });
        text += &line(&rule.map(str::to_owned).collect::<Vec<_>>());
        self.rows.iter().for_each(|row| text += &line(row));
        text
    }
}

fn ratio(record: &Record, work: Work, figure: &Figure, ours: &Contender, theirs: &Contender) -> String {
    if ours.label == theirs.label {
        return String::new();
    }
    let ratios = record.ratios(work, figure.key, &ours.label, &theirs.label);
    Spread::of(&ratios).map_or_else(String::new, |spread| with_range(spread, |value| format!("{value:.2}")))
}

/// `1.20 (1.10–1.30)`; alone where the range is nothing.
pub fn with_range(spread: Spread, write: impl Fn(f64) -> String) -> String {
    let [low, median, high] = [spread.low, spread.median, spread.high].map(write);
    if low == high { median } else { format!("{median} ({low}–{high})") }
}

/// One sample, as soon as it is there.
pub fn line(sample: &Sample, took: Duration) -> String {
    let mut text = format!("round {} {:30} {:14}", sample.round, sample.work.title(), sample.contender);
    for figure in Figure::of(sample.work) {
        if let Some(value) = sample.figures.of(figure.key) {
            let _ = write!(text, " {} {};", figure.write(value), figure.title);
        }
    }
    if let Some(failure) = &sample.failure {
        let _ = write!(text, " failed: {failure}");
    }
    let _ = write!(text, " ({:.1} s)", took.as_secs_f64());
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::tests::record;

    #[test]
    fn a_table_has_medians_ranges_and_ratios() {
        let tables = Table::of(&record(&[("vpnd", &[6.0, 8.0, 7.0]), ("gotatun", &[2.0, 2.0, 1.0])]));
        assert_eq!(tables.len(), 1);
        assert_eq!(tables[0].heads[..3], ["", "Gb/s", "vpnd ÷ it"]);
        assert_eq!(tables[0].rows[0][..3], ["vpnd", "7.00 (6.00–8.00)", ""]);
        assert_eq!(tables[0].rows[1][..3], ["gotatun", "2.00 (1.00–2.00)", "4.00 (3.00–7.00)"]);
    }

    #[test]
    fn columns_stand_below_each_other_and_markdown_has_as_many() {
        let rows = vec![vec!["a".to_owned(), "1–2".to_owned()], vec!["longer".to_owned(), String::new()]];
        let table = Table { title: "T".to_owned(), heads: vec![String::new(), "µs".to_owned()], rows };
        assert_eq!(table.text(), "T\n            µs\n  a        1–2\n  longer\n");
        assert_eq!(table.markdown(), "### T\n\n|  | µs |\n| --- | ---: |\n| a | 1–2 |\n| longer |  |\n");
    }
}
