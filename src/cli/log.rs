//! Where the daemon's log goes: to the journal with its fields, if that is where standard error leads, else to
//! standard error as lines.

use std::io::IsTerminal;
use std::os::unix::fs::MetadataExt;

use tracing_subscriber::{EnvFilter, layer::SubscriberExt, util::SubscriberInitExt};

use super::journal::Journal;

/// Starts logging; says whether it goes to the journal.
pub(super) fn start(filter: &str) -> Result<bool, tracing_subscriber::filter::ParseError> {
    let filter: EnvFilter = filter.parse()?;
    let stream = std::env::var("JOURNAL_STREAM").ok();
    if stream.as_deref().is_some_and(is_stderr)
        && let Ok(journal) = Journal::open()
    {
        tracing_subscriber::registry().with(filter).with(journal).init();
        return Ok(true);
    }
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false)
        // Said where the line itself could not be written, and by a panic: on a full disk, that of the data thread.
        .log_internal_errors(false);
    match stream {
        // Under a service manager the journal has the time.
        Some(_) => builder.without_time().init(),
        None => builder.init(),
    }
    Ok(false)
}

/// `DEVICE:INODE` of what the service manager gave us: is standard error still that (systemd.exec(5))?
fn is_stderr(stream: &str) -> bool {
    let own = std::fs::metadata("/proc/self/fd/2").map(|file| (file.dev(), file.ino()));
    let given = stream
        .split_once(':')
        .and_then(|(device, inode)| Some((device.parse::<u64>().ok()?, inode.parse::<u64>().ok()?)));
    own.ok().zip(given).is_some_and(|(own, given)| own == given)
}
