//! What is made from the command definitions and the annotated sample: completions for shells, and man pages.

use std::{
    fs, io,
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::CommandFactory;

use super::{Cli, disk};

/// The file that vpnd.toml(5) shows.
const SAMPLE: &str = include_str!("../../config/peer.toml");

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

/// `vpnd man FOLDER`: vpnd.1, vpnd-COMMAND.1 for each command, and vpnd.toml.5.
pub fn man(args: &Man) -> ExitCode {
    match write_all(&args.folder) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("vpnd man: cannot write into {}: {error}", args.folder.display());
            ExitCode::FAILURE
        }
    }
}

fn write_all(folder: &Path) -> io::Result<()> {
    let mut root = Cli::command().disable_help_subcommand(true);
    root.build();
    let commands: Vec<_> = root.get_subcommands().filter(|command| !command.is_hide_set()).cloned().collect();
    for command in commands {
        let name = format!("vpnd-{}", command.get_name());
        let typed = format!("vpnd {}", command.get_name());
        page(&folder.join(format!("{name}.1")), command.display_name(name).bin_name(typed))?;
    }
    page(&folder.join("vpnd.1"), root)?;
    fs::write(folder.join("vpnd.toml.5"), file_page(SAMPLE))
}

fn page(path: &Path, command: clap::Command) -> io::Result<()> {
    let mut text = Vec::new();
    clap_mangen::Man::new(command).source("vpnd").manual("User Commands").render(&mut text)?;
    fs::write(path, text)
}

/// The sample explains each key: it is the manual.
fn file_page(sample: &str) -> String {
    let mut page = String::from(
        ".TH vpnd.toml 5 \"\" vpnd \"File Formats\"\n.SH NAME\nvpnd.toml \\- the file that describes a tunnel of vpnd\n\
         .SH SYNOPSIS\n/etc/vpnd/\\fINAME\\fR.toml\n.SH DESCRIPTION\n\
         One file in TOML describes one tunnel: a table [interface], and a table [[peer]] for each other end.\n\
         .BR vpnd\\-check (1)\nsays what is wrong with a file;\n.BR vpnd\\-reload (1)\napplies a changed one to a running tunnel;\n\
         .BR vpnd\\-add\\-peer (1)\nwrites a peer into it.\nThis is a file with every key, each explained:\n.PP\n.nf\n",
    );
    for line in sample.lines() {
        page.push_str(&roff(line));
        page.push('\n');
    }
    page.push_str(".fi\n.SH SEE ALSO\n.BR vpnd (1),\n.BR vpnd\\-check (1)\n");
    page
}

/// A line as it stands: nothing in it is a request.
fn roff(line: &str) -> String {
    let escaped = line.replace('\\', "\\e").replace('-', "\\-");
    let escaped = escaped.replace('…', "...").replace('⇄', "<\\->");
    if escaped.starts_with(['.', '\'']) { format!("\\&{escaped}") } else { escaped }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_command_that_is_shown_has_a_page_and_the_file_has_one() {
        let folder = tempfile::tempdir().unwrap();
        write_all(folder.path()).unwrap();
        let read = |name: &str| fs::read_to_string(folder.path().join(name)).unwrap();
        for command in Cli::command().get_subcommands().filter(|command| !command.is_hide_set()) {
            let name = format!("vpnd-{}", command.get_name());
            let page = read(&format!("{name}.1"));
            assert!(page.contains(&format!(".TH {name} 1")), "{page}");
            assert!(page.contains(".SH SYNOPSIS"), "{page}");
        }
        assert!(read("vpnd.1").contains("add\\-peer"));
        assert!(!folder.path().join("vpnd-man.1").exists());
        let file = read("vpnd.toml.5");
        assert!(
            file.contains("\nprivate_key_file = \"vpn0.key\"\n") && file.contains("persistent_keepalive")
        );
    }

    #[test]
    fn a_line_that_looks_like_a_request_is_text() {
        assert_eq!(roff(".so /etc/passwd"), "\\&.so /etc/passwd");
        assert_eq!(roff("a-b \\n 'c'"), "a\\-b \\en 'c'");
    }

    #[test]
    fn the_command_definitions_hold_together() {
        Cli::command().debug_assert();
    }
}
