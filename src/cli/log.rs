//! Where the daemon's log goes: to the journal with its fields, if that is where standard error leads, else to
//! standard error as lines.

use std::io::{self, IsTerminal, Write};
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
        .with_writer(|| Lines)
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

/// How often a line is begun that signals cut off.
const ATTEMPTS: u32 = 8;

/// Standard error, where a line that cannot be written is lost.
struct Lines;

impl Write for Lines {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        io::stderr().write(line)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }

    /// Not for ever, as the library's own: who waits for a line to be written is a data thread.
    fn write_all(&mut self, mut line: &[u8]) -> io::Result<()> {
        let mut attempts = 0;
        while !line.is_empty() {
            match self.write(line) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(length) => line = &line[length..],
                Err(error) if error.kind() == io::ErrorKind::Interrupted && attempts < ATTEMPTS => {
                    attempts += 1
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// `DEVICE:INODE` of what the service manager gave us: is standard error still that (systemd.exec(5))?
fn is_stderr(stream: &str) -> bool {
    let own = std::fs::metadata("/proc/self/fd/2").map(|file| (file.dev(), file.ino()));
    let given = stream
        .split_once(':')
        .and_then(|(device, inode)| Some((device.parse::<u64>().ok()?, inode.parse::<u64>().ok()?)));
    own.ok().zip(given).is_some_and(|(own, given)| own == given)
}
