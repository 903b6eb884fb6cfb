//! Runs the pure rooms' tests with one mutant awake after the other.

use std::{
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use crate::tree::{self, Mutant};

/// A mutant that never comes to an end has been noticed, too.
const SECONDS: &str = "300";
/// And one that takes all memory: so many KiB of addresses.
const MEMORY: &str = "8000000";

/// What became of a mutant.
pub struct Outcome {
    pub mutant: Mutant,
    /// The test that failed, the first by name.
    pub noticed: Option<String>,
}

/// The tests of the copy, built.
pub struct Trial {
    /// Unit tests.
    library: PathBuf,
    /// Tunnels under virtual time.
    model: PathBuf,
    copy: PathBuf,
}

impl Trial {
    /// Makes the copy, builds its tests, and sees them pass while all mutants are asleep.
    pub fn prepare(root: &Path) -> Self {
        let copy = root.join("target/mutants");
        tree::write(root, &copy);
        let mut cargo = Command::new(env!("CARGO"));
        cargo.args(["test", "--locked", "--no-default-features", "--lib", "--test", "model", "--no-run"]);
        cargo.current_dir(&copy).env("CARGO_TARGET_DIR", root.join("target"));
        let output = cargo.stdin(Stdio::null()).output().expect("cargo runs");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "the copy in {} does not build:\n{said}", copy.display());
        let binary = |of: &str| {
            let line = said.lines().find(|line| line.contains("Executable") && line.contains(of));
            let path = line.and_then(|line| line.split(['(', ')']).nth(1)).expect("cargo names its path");
            copy.join(path)
        };
        let trial = Self { library: binary("src/lib.rs"), model: binary("tests/model"), copy: copy.clone() };
        for binary in [&trial.library, &trial.model] {
            assert_eq!(trial.failure(binary, "", 0), None, "a test fails without any mutant");
        }
        trial
    }

    /// Wakes each mutant whose name contains one of these.
    pub fn run(&self, only: &[&str]) -> Vec<Outcome> {
        let wanted = |mutant: &Mutant| only.iter().any(|words| mutant.check.name.contains(words));
        tree::mutants().into_iter().filter(wanted).map(|mutant| self.try_one(mutant)).collect()
    }

    fn try_one(&self, mutant: Mutant) -> Outcome {
        let room = mutant.check.file.split('/').nth(1).expect("a file of a room");
        let room = format!("{room}::");
        // The likeliest first: the first that notices is enough.
        let runs = match room.as_str() {
            "tunnel::" => [(&self.model, ""), (&self.library, room.as_str()), (&self.library, "")],
            _ => [(&self.library, room.as_str()), (&self.model, ""), (&self.library, "")],
        };
        let noticed = runs.iter().find_map(|(binary, filter)| self.failure(binary, filter, mutant.number));
        let Mutant { check, instead, .. } = mutant;
        let by = noticed.as_deref().unwrap_or("SURVIVED");
        println!("{}: {by}\n    {} ⇒ {instead}", check.name, check.text.replace('\n', " "));
        Outcome { mutant, noticed }
    }

    /// The first test that fails.
    fn failure(&self, binary: &Path, filter: &str, number: usize) -> Option<String> {
        let limits = r#"ulimit -v "$0"; exec timeout --signal=KILL "$@""#;
        let mut command = Command::new("bash");
        command.args(["-c", limits, MEMORY, SECONDS]).arg(binary);
        command.args(Some(filter).filter(|filter| !filter.is_empty()));
        command.current_dir(&self.copy).env("VPND_MUTANT", number.to_string()).stdin(Stdio::null());
        command.env("PROPTEST_DISABLE_FAILURE_PERSISTENCE", "true").env("PROPTEST_MAX_SHRINK_ITERS", "0");
        let output = command.output().expect("bash and timeout are there");
        (!output.status.success()).then(|| failed(&output))
    }
}

/// Of what a test binary wrote: the first by name that failed.
fn failed(output: &Output) -> String {
    let said = String::from_utf8_lossy(&output.stdout);
    let tests = said.lines().filter_map(|line| line.strip_prefix("test ")?.strip_suffix(" ... FAILED"));
    tests.min().map_or_else(|| format!("the tests did not come to an end ({})", output.status), str::to_owned)
}
