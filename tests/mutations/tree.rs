//! A copy of this tree that has all mutants in it, each asleep until the environment names its number: so it is built
//! once, not once for each.

use std::{fs, path::Path};

use crate::{Check, list::CHECKS};

/// What stands in the copy's `src/mutant.rs`.
const SWITCH: &str = r#"//! Which mutant is awake.
use std::sync::OnceLock;

pub(crate) fn is(number: usize) -> bool {
    static AWAKE: OnceLock<usize> = OnceLock::new();
    let awake = || std::env::var("VPND_MUTANT").ok().and_then(|number| number.parse().ok()).unwrap_or(0);
    *AWAKE.get_or_init(awake) == number
}
"#;

/// What tests of the pure rooms need of the tree.
const FOLDERS: [&str; 6] = ["src", "tests", "config", "bench", "fuzz/corpus", "docs"];
const FILES: [&str; 4] = ["Cargo.toml", "Cargo.lock", "ARCHITECTURE.md", "clippy.toml"];

/// One mutant: the number that wakes it, its check, and which of the check's wrong texts it is.
pub struct Mutant {
    pub number: usize,
    pub check: &'static Check,
    pub instead: &'static str,
}

/// All of the list, numbered from 1.
pub fn mutants() -> Vec<Mutant> {
    let each = CHECKS.iter().flat_map(|check| check.instead.iter().map(move |instead| (check, *instead)));
    each.zip(1..).map(|((check, instead), number)| Mutant { number, check, instead }).collect()
}

/// Writes the tree at `root` into `copy`, with the mutants in it. Files that are the same stay untouched, so that cargo
/// builds what changed.
pub fn write(root: &Path, copy: &Path) {
    for folder in FOLDERS {
        copy_folder(root, copy, Path::new(folder));
    }
    for file in FILES {
        put(&copy.join(file), &fs::read(root.join(file)).expect("the tree is readable"));
    }
    let library = fs::read_to_string(root.join("src/lib.rs")).expect("the tree is readable");
    put(&copy.join("src/lib.rs"), library.replacen("\npub mod ", "\nmod mutant;\npub mod ", 1).as_bytes());
    put(&copy.join("src/mutant.rs"), SWITCH.as_bytes());
}

/// The source with these checks, each with the number of its first mutant, made ready to be inverted.
pub fn with_mutants(source: &str, checks: &[(usize, &Check)]) -> String {
    let place = |check: &Check| check.place(source).expect("the quick test has found it");
    let mut places: Vec<_> = checks.iter().map(|(first, check)| (place(check), *first, *check)).collect();
    places.sort_by_key(|(at, ..)| *at);
    let (mut mutated, mut end) = (String::new(), 0);
    for (at, first, check) in places {
        assert!(at >= end, "{}: it overlaps another", check.name);
        mutated.push_str(&source[end..at]);
        mutated.push_str(&alternatives(check, first));
        end = at + check.text.len();
    }
    mutated.push_str(&source[end..]);
    mutated
}

fn alternatives(check: &Check, first: usize) -> String {
    let mut choice = String::new();
    for (instead, number) in check.instead.iter().zip(first..) {
        choice += &format!("if crate::mutant::is({number}) {{ {instead} }} else ");
    }
    choice += &format!("{{ {} }}", check.text);
    let is_statement = check.text.ends_with([';', '}']);
    if is_statement { choice } else { format!("({choice})") }
}

fn copy_folder(root: &Path, copy: &Path, folder: &Path) {
    for entry in fs::read_dir(root.join(folder)).expect("the tree is readable") {
        let entry = entry.expect("the tree is readable");
        let below = folder.join(entry.file_name());
        if entry.path().is_dir() {
            copy_folder(root, copy, &below);
            continue;
        }
        let bytes = fs::read(entry.path()).expect("the tree is readable");
        match first_mutants(&below) {
            checks if checks.is_empty() => put(&copy.join(&below), &bytes),
            checks => {
                let source = String::from_utf8(bytes).expect("sources are UTF-8");
                put(&copy.join(&below), with_mutants(&source, &checks).as_bytes());
            }
        }
    }
}

/// The checks of a file, each with the number of its first mutant.
fn first_mutants(file: &Path) -> Vec<(usize, &'static Check)> {
    let mut first = 1;
    let mut found = Vec::new();
    for check in CHECKS {
        if Path::new(check.file) == file {
            found.push((first, check));
        }
        first += check.instead.len();
    }
    found
}

fn put(path: &Path, bytes: &[u8]) {
    if fs::read(path).is_ok_and(|before| before == bytes) {
        return;
    }
    fs::create_dir_all(path.parent().expect("a path below the copy")).expect("target can be written");
    fs::write(path, bytes).expect("target can be written");
}
