//! wg-quick's files ⇄ ours. Neither direction opens a file; what one side cannot say is named.

mod client;
mod export;
mod import;
mod lines;
#[cfg(test)]
mod tests;

use zeroize::Zeroizing;

pub use client::Client;
pub use export::export;
pub use import::import;

/// A file in the other form.
#[derive(Debug)]
pub struct Converted {
    /// Its text; holds the private key in clear.
    pub text: Zeroizing<String>,
    /// What could not be kept or was altered, by line and name.
    pub notes: Vec<String>,
}
