//! Collects problems while a file is read, and turns byte offsets into lines.

use std::path::Path;

use super::problem::{Problem, Problems};

/// What a key belongs to.
#[derive(Clone, Debug)]
pub(super) enum Subject {
    /// The file itself.
    File,
    /// `[interface]`.
    Interface,
    /// `[[peer]]`.
    Peer {
        /// From 1, as people count.
        number: usize,
        /// If it has one.
        name: Option<String>,
    },
    /// `[[hook]]`.
    Hook {
        /// From 1, as people count.
        number: usize,
    },
}

impl Subject {
    /// The whole path of one of its keys; `""` is the table itself.
    pub(super) fn path(&self, key: &str) -> String {
        let table = match self {
            Self::File => return key.to_owned(),
            Self::Interface => "interface".to_owned(),
            Self::Hook { number } => format!("hook[{number}]"),
            Self::Peer { name: Some(name), .. } => format!("peer {name:?}"),
            Self::Peer { number, name: None } => format!("peer[{number}]"),
        };
        if key.is_empty() { table } else { format!("{table}.{key}") }
    }
}

/// What is wrong with a value, before it is known where it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Flaw {
    /// Reads on from "found".
    pub(super) found: String,
    /// An imperative.
    pub(super) remedy: String,
}

impl Flaw {
    pub(super) fn new(found: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { found: found.into(), remedy: remedy.into() }
    }
}

/// The problems of one file.
pub(super) struct Report<'a> {
    file: &'a Path,
    /// Offset of the first byte of each line but the first.
    line_starts: Vec<usize>,
    /// For a text that was made of another: which line of that each line came from.
    origins: Option<&'a [usize]>,
    problems: Vec<Problem>,
}

impl<'a> Report<'a> {
    /// `origins`: the line to name for each line of the text, where that is another.
    pub(super) fn new(text: &str, file: &'a Path, origins: Option<&'a [usize]>) -> Self {
        let line_starts = text.bytes().enumerate().filter(|(_, b)| *b == b'\n').map(|(i, _)| i + 1).collect();
        Self { file, line_starts, origins, problems: Vec::new() }
    }

    /// The file's own name, for remedies.
    pub(super) fn file(&self) -> &'a Path {
        self.file
    }

    /// Line (from 1) to name for a byte offset.
    pub(super) fn line(&self, at: usize) -> usize {
        let index = self.index(at);
        match self.origins {
            Some(origins) => origins.get(index).or(origins.last()).copied().unwrap_or(0),
            None => index + 1,
        }
    }

    /// Offset of the first byte of the line that holds `at`.
    pub(super) fn line_start(&self, at: usize) -> usize {
        self.index(at).checked_sub(1).map_or(0, |newline| self.line_starts[newline])
    }

    fn index(&self, at: usize) -> usize {
        self.line_starts.partition_point(|start| *start <= at)
    }

    /// One more problem, at a byte offset.
    pub(super) fn refuse(&mut self, at: usize, subject: &Subject, key: &str, flaw: Flaw) {
        self.problems.push(Problem {
            file: self.file.to_owned(),
            line: self.line(at),
            key: subject.path(key),
            found: flaw.found,
            remedy: flaw.remedy,
        });
    }

    /// One more problem, of the file as a whole.
    pub(super) fn refuse_file(&mut self, key: &str, flaw: Flaw) {
        self.problems.push(Problem {
            file: self.file.to_owned(),
            line: 0,
            key: key.to_owned(),
            found: flaw.found,
            remedy: flaw.remedy,
        });
    }

    pub(super) fn is_clean(&self) -> bool {
        self.problems.is_empty()
    }

    /// All problems in the order of lines; those of one line in the order in which they were seen.
    pub(super) fn into_problems(mut self) -> Problems {
        self.problems.sort_by_key(|p| p.line);
        Problems(self.problems)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_offset_is_on_the_line_whose_newline_ends_it() {
        let report = Report::new("ab\n\ncd\n", Path::new("x"), None);
        let lines: Vec<_> = (0..8).map(|at| report.line(at)).collect();
        assert_eq!(lines, [1, 1, 1, 2, 3, 3, 3, 4]);
        assert_eq!((report.line_start(1), report.line_start(3), report.line_start(6)), (0, 3, 4));
    }
}
