//! The commands; the only place that prints. `vpnd --config FILE` is the daemon, the rest stand beside it.

mod advice; // what check says of a file that is right
mod ask; // questions to the daemons that run
pub mod capture; // capture
pub mod check; // check
pub mod convert; // import, export
pub mod disk; // configurations and secrets as files
pub mod events; // events
pub mod explain; // explain
mod journal; // the journal's own protocol
pub mod keys; // genkey, genpsk, pubkey
pub mod lab; // lab
mod log; // where the daemon's log goes
pub mod pages; // completions, and man pages
pub mod people; // add-peer, remove-peer, rename-peer, qr
pub mod reload; // reload, confirm
mod rewrite; // a configuration that is altered
pub mod status; // status
pub mod trace; // trace
mod watch; // status --watch
mod words; // numbers and times as people say them

use std::{io, path::PathBuf, process::ExitCode, sync::Arc, time::Duration};

use clap::{Parser, Subcommand};

use crate::{
    daemon::{self, Attendants, Options},
    forward::session::REKEY_AFTER_TIME,
    tunnel::Timing,
};

/// A WireGuard VPN daemon: one process, one file, and it explains itself.
///
/// `vpnd --config peer.toml` opens the tunnel and runs in the foreground until SIGTERM or Ctrl-C.
#[derive(Debug, Parser)]
#[command(version, args_conflicts_with_subcommands = true, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    daemon: DaemonArgs,
}

#[derive(Debug, clap::Args)]
struct DaemonArgs {
    /// The file that describes the tunnel.
    #[arg(short, long, value_name = "FILE", required = true)]
    config: Option<PathBuf>,
    /// Where the control sockets are made: DIR/wireguard/NAME.sock and DIR/vpnd/NAME.sock.
    #[arg(long, value_name = "DIR", default_value = "/run")]
    run_dir: PathBuf,
    /// Where the newest timestamp sent with each key is kept, so that a clock that goes back locks nobody out.
    #[arg(long, value_name = "DIR", env = "STATE_DIRECTORY", default_value = "/var/lib/vpnd")]
    state_dir: PathBuf,
    /// How much is logged: error, warn, info, debug, trace, or a tracing filter.
    #[arg(long, value_name = "LEVEL", env = "VPND_LOG", default_value = "info")]
    log: String,
    /// Rekey sooner than the protocol's 120 s; for tests.
    #[arg(long, value_name = "SECONDS", hide = true, value_parser = clap::value_parser!(u64).range(1..=120))]
    rekey_after: Option<u64>,
    /// As if the time of day were so much later; for tests.
    #[arg(long, value_name = "SECONDS", hide = true, allow_negative_numbers = true, default_value_t = 0)]
    wall_clock_ahead: i64,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Check configuration files without opening anything.
    Check(check::Check),
    /// Make a private key.
    Genkey(keys::NewKey),
    /// Print the public key of a private key.
    Pubkey(keys::Pubkey),
    /// Make a preshared key.
    Genpsk(keys::NewKey),
    AddPeer(people::AddPeer),
    RemovePeer(people::RemovePeer),
    RenamePeer(people::RenamePeer),
    Qr(people::Qr),
    /// Turn a wg-quick file into vpnd's form.
    Import(convert::Convert),
    /// Turn vpnd's form into a wg-quick file.
    Export(convert::Convert),
    /// Show running tunnels: who is connected, and what is wrong.
    Status(status::Args),
    /// Print what happens, as lines of JSON, as it happens.
    Events(events::Args),
    Explain(explain::Args),
    Capture(capture::Args),
    Trace(trace::Args),
    /// Read the file of a running tunnel again, and apply what changed.
    Reload(reload::Args),
    /// Keep what `reload --confirm` changed.
    Confirm(reload::Confirm),
    /// Two hosts in network namespaces, a tunnel between them, and the way that a packet takes.
    Lab(lab::Args),
    /// Print what completes vpnd's commands in a shell.
    Completions(pages::Completions),
    /// Write a man page for each command into a folder.
    #[command(hide = true)]
    Man(pages::Man),
}

/// Parses the command line and runs the command.
pub fn main() -> ExitCode {
    if let Some(ended) = daemon::resume_name_service() {
        return ended.map_or_else(not_beside_a_daemon, |()| ExitCode::SUCCESS);
    }
    let cli = Cli::parse();
    match cli.command {
        None => run_daemon(cli.daemon),
        Some(Command::Check(args)) => check::run(&args),
        Some(Command::Genkey(args)) => keys::genkey(&args),
        Some(Command::Pubkey(args)) => keys::pubkey(&args),
        Some(Command::Genpsk(args)) => keys::genpsk(&args),
        Some(Command::Import(args)) => convert::import(&args),
        Some(Command::Export(args)) => convert::export(&args),
        Some(Command::Status(args)) => in_runtime(status::run(args)),
        Some(Command::Events(args)) => in_runtime(events::run(args)),
        Some(Command::Capture(args)) => in_runtime(capture::run(args)),
        Some(Command::Explain(args)) => in_runtime(explain::run(args)),
        Some(Command::Trace(args)) => in_runtime(trace::run(args)),
        Some(Command::Reload(args)) => in_runtime(reload::reload(args)),
        Some(Command::Confirm(args)) => in_runtime(reload::confirm(args)),
        Some(Command::AddPeer(args)) => people::add_peer(&args),
        Some(Command::RemovePeer(args)) => people::remove_peer(&args),
        Some(Command::RenamePeer(args)) => people::rename_peer(&args),
        Some(Command::Qr(args)) => people::qr(&args),
        Some(Command::Lab(args)) => lab::run(args),
        Some(Command::Completions(args)) => pages::completions(&args),
        Some(Command::Man(args)) => pages::man(&args),
    }
}

fn not_beside_a_daemon(error: io::Error) -> ExitCode {
    eprintln!("vpnd-names: only a daemon starts this: standard input is no connection to one: {error}");
    ExitCode::FAILURE
}

fn run_daemon(args: DaemonArgs) -> ExitCode {
    let path = args.config.expect("clap requires --config where there is no command");
    let hooks_of = path.clone();
    let read_hooks = Arc::new(move || disk::read_hooks(&hooks_of).map_err(|error| error.to_string()));
    // Before anything secret is read, and before there are other threads.
    let attendants = match Attendants::split(read_hooks) {
        Ok(attendants) => attendants,
        Err(error) => {
            eprintln!("vpnd: cannot start the processes beside the daemon: {error}");
            return ExitCode::FAILURE;
        }
    };
    let journal = match log::start(&args.log) {
        Ok(journal) => journal,
        Err(error) => {
            eprintln!("vpnd: --log {}: {error}; give error, warn, info, debug or trace", args.log);
            return ExitCode::from(2);
        }
    };
    let (config, files) = match disk::read_config_and_name_files(&path) {
        Ok(read) => read,
        Err(error) => {
            eprintln!("{error}");
            daemon::give_up_inherited();
            return error.exit_code();
        }
    };
    let rekey_after = args.rekey_after.map_or(REKEY_AFTER_TIME, Duration::from_secs);
    let read_config = Arc::new(move || disk::read_config(&path).map_err(|error| read_again(&error)));
    let options = Options {
        read_config,
        files,
        run_dir: args.run_dir,
        state_dir: args.state_dir,
        wall_ahead: args.wall_clock_ahead,
        timing: Timing { rekey_after },
        journal,
    };
    match daemon::run(config, options, attendants) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("vpnd: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Why the file cannot be taken while the tunnel runs.
fn read_again(error: &disk::ReadError) -> String {
    let text = error.to_string();
    match text.contains("Permission denied") {
        true => format!(
            "{text}\n(in its sandbox vpnd reads the folders alone that the file named when it was started: a key file in \
             another one needs a restart)"
        ),
        false => text,
    }
}

fn in_runtime(command: impl Future<Output = ExitCode>) -> ExitCode {
    match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime.block_on(command),
        Err(error) => {
            eprintln!("vpnd: cannot start the runtime: {error}");
            ExitCode::FAILURE
        }
    }
}
