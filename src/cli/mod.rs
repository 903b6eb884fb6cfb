//! The commands; the only place that prints.

pub mod check; // check
pub mod convert; // import, export
pub mod disk; // configurations and secrets as files
pub mod keys; // genkey, genpsk, pubkey

/// Parses the command line and runs the command.
pub fn main() -> std::process::ExitCode {
    todo!()
}
