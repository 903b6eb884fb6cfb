//! The table of figures: what was asked, what was reached; kept as JSON, and shown as `docs/torture.md`.

use std::{collections::BTreeMap, fs, path::Path, process::Command};

use serde::{Deserialize, Serialize};

/// One line of the table.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Figure {
    pub what: String,
    pub asked: String,
    pub reached: String,
    pub met: bool,
    /// It depends on who else uses the machine: a test does not fail for it.
    pub speed: bool,
    /// Why it falls short, or how it is to be read.
    pub note: String,
}

impl Figure {
    /// What must hold on any machine.
    pub fn hard(what: impl Into<String>, asked: impl ToString, reached: impl ToString, met: bool) -> Self {
        Self {
            what: what.into(),
            asked: asked.to_string(),
            reached: reached.to_string(),
            met,
            speed: false,
            note: String::new(),
        }
    }

    /// What a busy machine may spoil.
    pub fn speed(what: impl Into<String>, asked: impl ToString, reached: impl ToString, met: bool) -> Self {
        Self { speed: true, ..Self::hard(what, asked, reached, met) }
    }

    pub fn note(mut self, note: impl Into<String>) -> Self {
        self.note = note.into();
        self
    }
}

/// What a row gave when it was run last.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Outcome {
    pub class: String,
    pub date: String,
    pub machine: String,
    pub seed: u64,
    pub scale: f64,
    pub seconds: f64,
    pub figures: Vec<Figure>,
}

/// All rows by name, as they were run last.
#[derive(Default, Serialize, Deserialize)]
pub struct Report(BTreeMap<String, Outcome>);

impl Report {
    /// What is there already: rows that are not run now keep their figures.
    pub fn load(json: &Path) -> Self {
        fs::read(json).ok().and_then(|text| serde_json::from_slice(&text).ok()).unwrap_or_default()
    }

    pub fn set(&mut self, row: &str, outcome: Outcome) {
        self.0.insert(row.to_owned(), outcome);
    }

    pub fn save(&self, json: &Path, markdown: &Path) {
        let text = serde_json::to_string_pretty(self).expect("it is plain data");
        fs::write(json, text + "\n").expect("the report can be written");
        fs::write(markdown, self.markdown()).expect("the report can be written");
    }

    fn markdown(&self) -> String {
        let mut text = HEAD.to_owned();
        for (name, outcome) in &self.0 {
            let Outcome { class, date, machine, seed, scale, seconds, figures } = outcome;
            text += &format!("\n## {name}: {class}\n\n");
            text += &format!("{date}, {machine}; scale {scale}, seed {seed}, {seconds:.0} s.\n\n");
            text += "| what | asked | reached | met |\n|---|---|---|---|\n";
            for Figure { what, asked, reached, met, note, .. } in figures {
                let met = if *met { "yes" } else { "**no**" };
                let note = if note.is_empty() { String::new() } else { format!(" ({note})") };
                text += &format!("| {what} | {asked} | {reached}{note} | {met} |\n");
            }
        }
        text
    }
}

const HEAD: &str = "# What the hostile world did to vpnd

Written by `make torture`, which runs each row at its full size; a row that is not run keeps its figures of the last
time. Floods are judged against a control flood of the same rate to a port that nobody reads, since sender and victim
share the cores. Quick forms of the rows are tests, and run in `make test`. The same lies in [torture.json](torture.json).
";

/// Today, in UTC.
pub fn date() -> String {
    said("date", &["-u", "+%F %H:%M UTC"])
}

/// Kernel, cores and build.
pub fn machine() -> String {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let build = if cfg!(debug_assertions) { "debug" } else { "release" };
    format!("Linux {}, {cores} cores, {build} build", said("uname", &["-r"]))
}

fn said(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().expect("it is there");
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}
