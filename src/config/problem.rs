//! A bad file is the operator's to mend: each problem says where, what was found, and what would do.

use std::{fmt, path::PathBuf};

use super::secrecy::hidden;

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The file.
    pub file: PathBuf,
    /// From 1; 0 where no line can be named.
    pub line: usize,
    /// Such as `interface.mtu`, `peer[2].allowed_ips` (the second peer), `peer "laptop".endpoint` (where it
    /// has a name), or `TOML` where the text is no TOML.
    pub key: String,
    /// What was found; reads on from "found". Never a secret.
    pub found: String,
    /// What would do; an imperative.
    pub remedy: String,
}

impl fmt::Display for Problem {
    /// `peer.toml:12: peer[2].allowed_ips: found …; …`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.file.display())?;
        if self.line > 0 {
            write!(f, "{}:", self.line)?;
        }
        // Public keys are shown where they belong.
        let found =
            if self.key.ends_with(".public_key") { self.found.as_str().into() } else { hidden(&self.found) };
        write!(f, " {}: found {found}; {}", hidden(&self.key), hidden(&self.remedy))
    }
}

/// All that is wrong with a file, in the order of lines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problems(pub Vec<Problem>);

impl fmt::Display for Problems {
    /// A line for each.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, problem) in self.0.iter().enumerate() {
            if i > 0 {
                writeln!(f)?;
            }
            problem.fmt(f)?;
        }
        Ok(())
    }
}
impl std::error::Error for Problems {}
