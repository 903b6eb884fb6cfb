//! docs/mutations.md: what was tried, and who noticed.

use std::{fmt::Write, path::Path};

use crate::trial::Outcome;

const HEAD: &str = "\
# Security checks, inverted

`make mutants` writes this page. Each check of [tests/mutations/list.rs](../tests/mutations/list.rs) is replaced by what
stands beside it, in a copy of the tree, and the tests of the pure rooms are run (unit tests, and the model: two tunnels
under virtual time). A mutant that no test notices fails the run. That each check still stands where the list says is
looked at by `make test`.
";

pub fn write(path: &Path, outcomes: &[Outcome]) {
    let survived = outcomes.iter().filter(|outcome| outcome.noticed.is_none()).count();
    let mut page = HEAD.to_owned();
    let (checks, mutants) = (crate::CHECKS.len(), outcomes.len());
    let _ = write!(page, "\n{checks} checks, {mutants} mutants, {survived} survived.\n");
    let mut file = "";
    for outcome in outcomes {
        if outcome.file != file {
            file = outcome.file;
            let _ = write!(page, "\n## {file}\n\n| check | instead | noticed by |\n|---|---|---|\n");
        }
        let by = match &outcome.noticed {
            None => "**nobody**".to_owned(),
            Some((test, 0)) => format!("`{test}`"),
            Some((test, others)) => format!("`{test}` and {others} more"),
        };
        let instead = match outcome.instead {
            "" => "nothing".to_owned(),
            instead => format!("`{}`", instead.replace('|', "\\|")),
        };
        let _ = writeln!(page, "| {} | {instead} | {by} |", outcome.name);
    }
    std::fs::write(path, page).expect("docs can be written");
}
