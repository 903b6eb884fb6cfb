//! docs/mutations.md: what was tried, and who noticed. What a trial of some of the list found is kept below target, so that
//! the page can be written when each has had its turn.

use std::{collections::BTreeMap, fmt::Write, fs, path::Path};

use crate::{
    CHECKS,
    tree::{self, Mutant},
    trial::Outcome,
};

const HEAD: &str = "\
# Security checks, inverted

`make mutants` writes this page. Each check of [tests/mutations/list.rs](../tests/mutations/list.rs) is replaced by what
stands beside it, in a copy of the tree, and the tests of the pure rooms are run (unit tests, and the model: two tunnels
under virtual time). A mutant that no test notices fails the run. That each check still stands where the list says is
looked at by `make test`.
";

/// Of each mutant the test that noticed; empty: none.
type Noticed = BTreeMap<String, String>;

/// Adds these outcomes to those that are known, and writes the page if none of the list is missing.
pub fn write(root: &Path, outcomes: &[Outcome]) {
    let kept = root.join("target/mutants.tsv");
    let mut noticed = read(&fs::read_to_string(&kept).unwrap_or_default());
    for outcome in outcomes {
        noticed.insert(name(&outcome.mutant), outcome.noticed.clone().unwrap_or_default());
    }
    let lines: String = noticed.iter().map(|(mutant, test)| format!("{mutant}\t{test}\n")).collect();
    fs::write(&kept, lines).expect("target can be written");
    if let Some(page) = page(&noticed) {
        fs::write(root.join("docs/mutations.md"), page).expect("docs can be written");
    }
}

fn read(kept: &str) -> Noticed {
    let split =
        |line: &str| line.rsplit_once('\t').map(|(mutant, test)| (mutant.to_owned(), test.to_owned()));
    kept.lines().filter_map(split).collect()
}

/// The check, and what stood in its place.
fn name(mutant: &Mutant) -> String {
    format!("{}\t{}", mutant.check.name, mutant.instead)
}

fn page(noticed: &Noticed) -> Option<String> {
    let mutants = tree::mutants();
    let all: Option<Vec<_>> =
        mutants.iter().map(|mutant| Some((mutant, noticed.get(&name(mutant))?))).collect();
    let all = all?;
    let survived = all.iter().filter(|(_, test)| test.is_empty()).count();
    let mut page = HEAD.to_owned();
    let _ = write!(page, "\n{} checks, {} mutants, {survived} survived.\n", CHECKS.len(), all.len());
    let mut file = "";
    for (Mutant { check, instead, .. }, test) in all {
        if check.file != file {
            file = check.file;
            let _ = write!(page, "\n## {file}\n\n| check | instead | noticed by |\n|---|---|---|\n");
        }
        let by = if test.is_empty() { "**nobody**".to_owned() } else { format!("`{test}`") };
        let instead = match *instead {
            "" => "nothing".to_owned(),
            instead => format!("`{}`", instead.replace('|', "\\|")),
        };
        let _ = writeln!(page, "| {} | {instead} | {by} |", check.name);
    }
    Some(page)
}
