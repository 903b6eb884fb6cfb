//! Each security check, inverted: a test must notice. The list is looked at in each run of the tests; the trial of all
//! of it is `make mutants`.

mod list;
mod table;
mod tree;
mod trial;

use std::path::Path;

use list::CHECKS;

/// One check, and what is tried in its place.
pub struct Check {
    /// What it sees to.
    pub name: &'static str,
    /// Where.
    pub file: &'static str,
    /// What stands right before it, where its text alone is not enough to find it.
    pub behind: &'static str,
    /// An expression, or statements, of Rust.
    pub text: &'static str,
    /// The same, wrong.
    pub instead: &'static [&'static str],
}

impl Check {
    /// Where its text begins in the file; the number of places if that is not one.
    fn place(&self, source: &str) -> Result<usize, usize> {
        let whole = [self.behind, self.text].concat();
        let mut places = source.match_indices(&whole);
        match (places.next(), places.count()) {
            (Some((at, _)), 0) => Ok(at + self.behind.len()),
            (None, _) => Err(0),
            (Some(_), more) => Err(1 + more),
        }
    }
}

/// This project.
fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

#[test]
fn each_check_of_the_list_stands_in_the_tree_once() {
    let mut wrong = Vec::new();
    for check in CHECKS {
        let source = std::fs::read_to_string(root().join(check.file)).unwrap_or_default();
        if let Err(places) = check.place(&source) {
            wrong.push(format!("{}: {places} places in {}: {:?}", check.name, check.file, check.text));
        }
        assert!(!check.instead.is_empty(), "{}: nothing is tried", check.name);
        assert!(!check.instead.contains(&check.text), "{}: it is tried as it is", check.name);
    }
    assert!(wrong.is_empty(), "mend tests/mutations/list.rs, and run `make mutants`:\n{}", wrong.join("\n"));
}

#[test]
fn no_two_checks_have_one_name() {
    let mut names: Vec<_> = CHECKS.iter().map(|check| check.name).collect();
    names.sort_unstable();
    assert!(names.is_sorted_by(|one, next| one < next), "{names:?}");
}

#[test]
fn a_mutant_takes_the_place_of_its_check_and_of_nothing_else() {
    let check = Check { name: "", file: "", behind: "if ", text: "a < b", instead: &["true", "b < a"] };
    let source = "fn f() -> u8 { if a < b { 1 } else { g(a < b) } }";
    let mutated = tree::with_mutants(source, &[(7, &check)]);
    let expected = "fn f() -> u8 { if \
                    (if crate::mutant::is(7) { true } else if crate::mutant::is(8) { b < a } else { a < b }) \
                    { 1 } else { g(a < b) } }";
    assert_eq!(mutated, expected);
}

#[test]
#[ignore = "takes half an hour: make mutants"]
fn every_mutant_is_noticed() {
    // Words of names, with a bar between.
    let only = std::env::var("MUTANT").unwrap_or_default();
    let outcomes = trial::Trial::prepare(root()).run(&only.split('|').collect::<Vec<_>>());
    table::write(root(), &outcomes);
    let survivors = outcomes.iter().filter(|outcome| outcome.noticed.is_none());
    let survivors: Vec<_> = survivors.map(|it| (it.mutant.check.name, it.mutant.instead)).collect();
    println!("{} mutants, {} survived", outcomes.len(), survivors.len());
    assert!(!outcomes.is_empty(), "no check is called {only:?}");
    assert!(survivors.is_empty(), "no test noticed: {survivors:#?}");
}
