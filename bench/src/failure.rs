//! Why a measurement has no figure.

use vpnd::lab::LabError;

/// What was attempted and what came of it.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// Ctrl-C: what was made is removed on the way out.
    #[error("interrupted")]
    Interrupted,
    /// A namespace, a cable or a process.
    #[error(transparent)]
    Lab(#[from] LabError),
    /// Anything else, in words.
    #[error("{0}")]
    Said(String),
}

/// The usual result here.
pub type Result<T> = std::result::Result<T, Failure>;

/// Says what was attempted when something fails.
pub trait Attempted<T> {
    /// `attempted` reads as "cannot …".
    fn attempted(self, attempted: impl FnOnce() -> String) -> Result<T>;
}

impl<T, E: std::fmt::Display> Attempted<T> for std::result::Result<T, E> {
    fn attempted(self, attempted: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|error| Failure::Said(format!("cannot {}: {error}", attempted())))
    }
}
