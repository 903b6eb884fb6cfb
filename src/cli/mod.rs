//! The commands; the only place that prints.

pub mod status;

/// Parses the command line and runs the command.
pub fn main() -> std::process::ExitCode {
    todo!()
}
