//! A program that runs in a namespace and ends with its owner.

use std::{
    fs::{self, File},
    os::unix::process::{CommandExt, ExitStatusExt},
    path::PathBuf,
    process::{Child, Command, ExitStatus, Stdio},
    time::Duration,
};

use super::{
    error::{Attempted, LabError},
    leftovers,
    namespace::Namespace,
    stopwatch::poll_until,
};
use crate::sys;

/// A program in a namespace; ended (SIGTERM, then SIGKILL) when dropped.
#[derive(Debug)]
pub struct Process {
    child: Child,
    /// Keeps the namespace, and the folder with the log, as long as the process.
    namespace: Namespace,
    log: PathBuf,
    entry: PathBuf,
}

impl Process {
    /// Starts `command` in `namespace`, in a process group of its own: Ctrl-C at the terminal reaches the lab
    /// alone, which then ends its processes in order.
    pub(super) fn spawn(namespace: &Namespace, label: &str, mut command: Command) -> Result<Self, LabError> {
        let program = command.get_program().to_string_lossy().into_owned();
        let what = || format!("start {program} on {}", namespace.name());
        let log = namespace.folder().join(format!("{label}.log"));
        let file = File::create(&log).attempted(what)?;
        namespace.enter_on_exec(&mut command)?;
        let mut child = command.stdin(Stdio::null()).stderr(file).process_group(0).spawn().attempted(what)?;
        let entry =
            leftovers::register(namespace.folder(), child.id()).attempted(what).inspect_err(|_| {
                let _ = child.kill();
                let _ = child.wait();
            })?;
        Ok(Self { child, namespace: namespace.clone(), log, entry })
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// All that it wrote to its standard error.
    pub fn log(&self) -> String {
        fs::read(&self.log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
    }

    /// Where it runs.
    pub fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// Its exit status, if it has ended.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// Waits for its end, at most so long.
    pub fn wait(&mut self, limit: Duration) -> Option<ExitStatus> {
        poll_until(limit, || self.ended())
    }

    /// Asks it to end (SIGTERM) and waits, at most so long. `None`: it still runs.
    pub fn terminate(&mut self, limit: Duration) -> Option<ExitStatus> {
        if let Some(status) = self.ended() {
            return Some(status);
        }
        let _ = sys::signal::terminate(self.pid()); // not waited for yet: the number is still its own
        self.wait(limit)
    }

    /// Ends it without a chance to clean up (SIGKILL).
    pub fn kill9(&mut self) -> ExitStatus {
        let _ = self.child.kill();
        self.child.wait().unwrap_or_else(|_| ExitStatus::from_raw(0))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.terminate(Duration::from_secs(3)).is_none() {
            self.kill9();
        }
        let _ = fs::remove_file(&self.entry);
    }
}
