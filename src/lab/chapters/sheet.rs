//! What a chapter's lab shows: numbered parts with lines and tables. A value that differs from run to run stands
//! behind a `~`, so that a test can compare all the rest.

use std::{fmt::Write, ops::Range};

/// One experiment and what came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// What was done, as a sentence without its full stop.
    pub title: String,
    body: String,
}

impl Part {
    /// An empty part.
    pub(super) fn new(title: &str) -> Self {
        Self { title: title.to_owned(), body: String::new() }
    }

    /// One line.
    pub(super) fn line(&mut self, line: impl AsRef<str>) {
        self.body.push_str(line.as_ref().trim_end());
        self.body.push('\n');
    }

    /// Lines as they stand, after an empty one.
    pub(super) fn text(&mut self, text: &str) {
        self.blank();
        text.trim_matches('\n').lines().for_each(|line| self.line(line));
    }

    /// An empty line, unless there is one or nothing stands before it.
    pub(super) fn blank(&mut self) {
        if !self.body.is_empty() && !self.body.ends_with("\n\n") {
            self.body.push('\n');
        }
    }

    /// A table; columns of numbers stand to the right.
    pub(super) fn table<const N: usize>(&mut self, head: [&str; N], rows: &[[String; N]]) {
        let width = |column: usize| {
            let cells = rows.iter().map(|row| row[column].chars().count());
            cells.chain([head[column].chars().count()]).max().unwrap_or(0)
        };
        let numbers: [bool; N] = std::array::from_fn(|column| {
            let cells = || rows.iter().map(|row| row[column].as_str());
            cells().any(is_number)
                && cells().all(|cell| is_number(cell) || ["", "yes", "no", "–"].contains(&cell))
        });
        let line = |cells: [&str; N]| {
            let mut line = String::new();
            for (column, cell) in cells.into_iter().enumerate() {
                let (width, gap) = (width(column), if column == 0 { "" } else { "   " });
                let _ = match numbers[column] {
                    true => write!(line, "{gap}{cell:>width$}"),
                    false => write!(line, "{gap}{cell:<width$}"),
                }; // a String takes all
            }
            line
        };
        self.line(line(head));
        for row in rows {
            self.line(line(row.each_ref().map(String::as_str)));
        }
    }

    /// The whole part, number and title first.
    pub fn render(&self, number: usize) -> String {
        format!("{number}. {}\n\n{}", self.title, self.body.trim_end_matches('\n'))
    }
}

fn is_number(cell: &str) -> bool {
    let digits = cell.trim_start_matches('~').replace(',', "");
    !digits.is_empty() && digits.parse::<f64>().is_ok()
}

/// 16 bytes a line, in hexadecimal and as text; those that differ from run to run as `··`.
pub(super) fn hex(bytes: &[u8], differ: &[Range<usize>]) -> String {
    let mut out = String::new();
    let digits = |(at, byte): (usize, &u8)| match differ.iter().any(|range| range.contains(&at)) {
        true => "··".to_owned(),
        false => format!("{byte:02x}"),
    };
    let shown: Vec<String> = bytes.iter().enumerate().map(digits).collect();
    for (line, (part, digits)) in bytes.chunks(16).zip(shown.chunks(16)).enumerate() {
        let differs = |at: usize| differ.iter().any(|range| range.contains(&(line * 16 + at)));
        let printable = |(at, &b): (usize, &u8)| (32..127).contains(&b) && !differs(at);
        let text: String =
            part.iter().enumerate().map(|b| if printable(b) { char::from(*b.1) } else { '.' }).collect();
        let _ = writeln!(out, "{:04x}  {:<47}  {text}", line * 16, digits.join(" ")); // a String takes all
    }
    out
}

/// A value that is measured, and another one in the next run.
pub(super) fn about(value: impl std::fmt::Display) -> String {
    format!("~{value}")
}

/// The text with each measured value (a `~` and the digits behind it) made the same.
pub fn without_measured(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find('~') {
        out.push_str(&rest[..=at]);
        rest = rest[at + 1..].trim_start_matches(|c: char| c.is_ascii_hexdigit() || c == ',' || c == '.');
    }
    out.push_str(rest);
    // A longer number moves its column: one space is as good as three.
    out.lines().map(|line| if line.contains('~') { squeezed(line) } else { line.to_owned() } + "\n").collect()
}

fn squeezed(line: &str) -> String {
    line.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_stand_to_the_right_and_words_to_the_left() {
        let mut part = Part::new("A table");
        let row = |name: &str, count: &str| [name.to_owned(), count.to_owned()];
        part.table(["hook", "packets"], &[row("INPUT", "1"), row("OUTPUT", "1,200")]);
        assert_eq!(part.render(2), "2. A table\n\nhook     packets\nINPUT          1\nOUTPUT     1,200");
    }

    #[test]
    fn a_measured_value_may_differ_and_no_other() {
        let told = |time: &str, packets: u8| without_measured(&format!("sent  {packets}   in {time} ms\n"));
        assert_eq!(told("~0.41", 1), told("~12", 1));
        assert_ne!(told("~0.41", 1), told("~0.41", 2));
        assert_ne!(told("0.41", 1), told("0.42", 1));
    }

    #[test]
    fn bytes_are_shown_by_sixteen() {
        let shown = hex(b"0123456789abcdef!\n", &[]);
        assert!(shown.starts_with("0000  30 31"), "{shown}");
        assert!(shown.ends_with("0010  21 0a                                            !.\n"), "{shown}");
        assert!(hex(b"0123", &[1..3]).starts_with("0000  30 ·· ·· 33"));
    }
}
