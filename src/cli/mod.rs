//! The commands; the only place that prints.

/// Parses the command line and runs the command.
pub fn main() -> std::process::ExitCode {
    todo!()
}
