//! A bad file is the operator's to mend: each problem says where, what was found, and what would do.

use std::{fmt, path::PathBuf};

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The file.
    pub file: PathBuf,
    /// From 1; 0 where no line can be named.
    pub line: usize,
    /// Such as `peer[2].allowed_ips` or `interface.mtu`.
    pub key: String,
    /// What was found.
    pub found: String,
    /// What would do.
    pub remedy: String,
}

impl fmt::Display for Problem {
    /// `peer.toml:12: peer[2].allowed_ips: found …; …`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        todo!()
    }
}

/// All that is wrong with a file, in the order of lines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problems(pub Vec<Problem>);

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        todo!()
    }
}
impl std::error::Error for Problems {}
