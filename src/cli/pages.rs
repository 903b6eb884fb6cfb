//! What is made from the command definitions: completions for shells, and man pages for the package.

use std::{fs, io, path::PathBuf, process::ExitCode};

use clap::CommandFactory;

use super::{Cli, disk};

/// For which shell.
#[derive(Debug, clap::Args)]
pub struct Completions {
    /// Such as `source <(vpnd completions bash)`; the package installs them for bash, zsh and fish.
    #[arg(value_name = "SHELL")]
    pub shell: clap_complete::Shell,
}

/// Where to.
#[derive(Debug, clap::Args)]
pub struct Man {
    /// A folder that is there.
    #[arg(value_name = "FOLDER")]
    pub folder: PathBuf,
}

/// `vpnd completions SHELL`.
pub fn completions(args: &Completions) -> ExitCode {
    let mut text = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "vpnd", &mut text);
    disk::print("completions", &String::from_utf8_lossy(&text))
}

/// `vpnd man FOLDER`: vpnd.1, and vpnd-COMMAND.1 for each command.
pub fn man(args: &Man) -> ExitCode {
    match write_all(args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("vpnd man: cannot write into {}: {error}", args.folder.display());
            ExitCode::FAILURE
        }
    }
}

fn write_all(args: &Man) -> io::Result<()> {
    let mut root = Cli::command().disable_help_subcommand(true);
    root.build();
    let commands = root.get_subcommands().filter(|command| !command.is_hide_set()).cloned();
    for command in commands.collect::<Vec<_>>() {
        let name = format!("vpnd-{}", command.get_name());
        // The page's title and synopsis are the command as it is typed.
        let typed = format!("vpnd {}", command.get_name());
        let command = command.display_name(name.clone()).bin_name(typed).version(None::<&str>);
        page(&args.folder.join(format!("{name}.1")), command)?;
    }
    page(&args.folder.join("vpnd.1"), root)
}

fn page(path: &std::path::Path, command: clap::Command) -> io::Result<()> {
    let mut text = Vec::new();
    clap_mangen::Man::new(command).manual("vpnd").render(&mut text)?;
    fs::write(path, text)
}
