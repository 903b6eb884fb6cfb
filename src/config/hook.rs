//! `[[hook]]`: a command that runs on events.

use std::{path::PathBuf, time::Duration};

use super::{
    fields::{Fields, Found},
    report::{Flaw, Report},
    unknown,
};

/// Events that a hook may name: all that `vpnd events` tells.
pub const EVENTS: [&str; 21] = [
    "started",
    "stopping",
    "connected",
    "handshake",
    "roamed",
    "unanswered",
    "given_up",
    "silent",
    "expired",
    "prefix_moved",
    "under_load",
    "refused",
    "reloaded",
    "reload_refused",
    "confirmed",
    "taken_back",
    "not_taken_back",
    "drift",
    "displaced",
    "link",
    "secrets_given",
];
/// What it runs on where it names none: a peer comes, moves, goes.
pub const DEFAULT_EVENTS: [&str; 3] = ["connected", "roamed", "silent"];
/// Hooks in one file.
pub const MAX_HOOKS: usize = 32;

/// Time limit where the file names none.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(10);
/// One that takes longer is no hook but a service.
const MAX_TIMEOUT: i64 = 300;

/// `[[hook]]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hook {
    /// The program, by its whole path.
    pub program: PathBuf,
    /// Its arguments, as they stand: no shell sees them.
    pub arguments: Vec<String>,
    /// Names of events, out of [`EVENTS`].
    pub events: Vec<String>,
    /// It is killed after this.
    pub timeout: Duration,
}

/// Takes each key of one table; `None`: the report says what is wrong.
pub(super) fn read(mut fields: Fields<'_>, report: &mut Report<'_>) -> Option<Hook> {
    let run = run(&mut fields, report);
    let events = events(&mut fields, report);
    let remedy = "write seconds from 1 to 300, or take it out for 10";
    let timeout = fields.number(report, "timeout", 1..=MAX_TIMEOUT, |_| None, remedy);
    let timeout = timeout.map_or(DEFAULT_TIMEOUT, |seconds| Duration::from_secs(seconds.value as u64)); // in range
    let subject = fields.subject.clone();
    for Found { at, value } in fields.left_over() {
        report.refuse(at, &subject, &value, unknown::hook_key(&value));
    }
    let (program, arguments) = run?;
    Some(Hook { program, arguments, events, timeout })
}

fn run(fields: &mut Fields<'_>, report: &mut Report<'_>) -> Option<(PathBuf, Vec<String>)> {
    const EXAMPLE: &str = "/usr/local/bin/on-event";
    let at = fields.at;
    if !fields.has("run") {
        let flaw = Flaw::new("no command", format!("add run = [\"{EXAMPLE}\"]"));
        fields.refuse(report, at, "run", flaw);
        return None;
    }
    let texts = fields.texts(report, "run", EXAMPLE)?;
    let nul = texts.iter().find(|text| text.value.contains('\0'));
    if let Some(Found { at, .. }) = nul {
        fields.refuse(
            report,
            *at,
            "run",
            Flaw::new("a NUL character", "take it out: no argument can hold it"),
        );
        return None;
    }
    let mut words = texts.into_iter();
    let Some(Found { at, value: program }) = words.next() else {
        fields.refuse(report, at, "run", Flaw::new("an empty list", format!("write run = [\"{EXAMPLE}\"]")));
        return None;
    };
    if !program.starts_with('/') {
        let remedy = format!("write its whole path, such as {EXAMPLE}; no shell looks for it");
        fields.refuse(report, at, "run", Flaw::new(format!("the program {program:?}"), remedy));
        return None;
    }
    Some((program.into(), words.map(|word| word.value).collect()))
}

fn events(fields: &mut Fields<'_>, report: &mut Report<'_>) -> Vec<String> {
    let Some(texts) = fields.texts(report, "events", "connected") else {
        return DEFAULT_EVENTS.map(str::to_owned).to_vec();
    };
    let mut events = Vec::new();
    for Found { at, value } in texts {
        if EVENTS.contains(&value.as_str()) {
            events.push(value);
            continue;
        }
        let remedy = format!("write some of {}", EVENTS.join(", "));
        fields.refuse(report, at, "events", Flaw::new(format!("the unknown event {value:?}"), remedy));
    }
    events
}
