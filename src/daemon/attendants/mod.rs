//! Two processes beside the daemon, split off before it has keys, threads or a sandbox, for what a sandbox has no room
//! for: `vpnd-names` looks up names, for which the C library loads modules; `vpnd-hooks` runs the file's commands, and
//! says who holds a port. Neither ever sees a packet or a key of the tunnel, and both end with the daemon.

mod holders; // who has what we want
pub(super) mod link; // question and answer
pub(super) mod names; // the name service
mod runner; // commands on events

pub(super) use runner::{Job, Outcome};

use std::{ffi::CStr, io, os::unix::net::UnixStream, sync::Arc, time::Duration};

use serde::{Deserialize, Serialize};

use crate::{config::Hook, sys};
use link::Link;

/// The hooks that the file names, read by the process that runs them.
pub type ReadHooks = Arc<dyn Fn() -> Result<Vec<Hook>, String> + Send + Sync>;

/// How long the end of the daemon waits for hooks that run: they have two seconds themselves.
const PATIENCE: Duration = Duration::from_secs(3);

/// Both processes, before a runtime can speak to them.
pub struct Attendants {
    names: UnixStream,
    outside: UnixStream,
}

impl Attendants {
    /// Splits them off. To be called first of all: there must be one thread, and no secret in memory.
    pub fn split(read_hooks: ReadHooks) -> io::Result<Self> {
        Ok(Self {
            names: sys::attendant::split(NAMES, |stream| {
                sys::attendant::without_capabilities(&stream, NAMES_PROGRAM);
                in_runtime(names::serve(stream));
            })?,
            outside: sys::attendant::split(c"vpnd-hooks", |stream| {
                in_runtime(serve_outside(stream, read_hooks));
            })?,
        })
    }

    /// To be called within a runtime.
    pub(super) fn attach(self) -> io::Result<(names::Names, Outside)> {
        Ok((names::Names::new(Link::new(self.names)?), Outside(Link::new(self.outside)?)))
    }
}

/// The process that looks up names: what it is called, and as what it is started anew.
const NAMES: &CStr = c"vpnd-names";
const NAMES_PROGRAM: &str = "vpnd-names";

/// If this process is the one that looks up names, started anew to have no capability: does that, to its end.
pub fn resume_name_service() -> Option<io::Result<()>> {
    let stream = sys::attendant::resumed(NAMES, NAMES_PROGRAM)?;
    Some(stream.map(|stream| in_runtime(names::serve(stream))))
}

fn in_runtime(work: impl Future<Output = io::Result<()>>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let ended = runtime.and_then(|runtime| runtime.block_on(work));
    // It has no other voice; the daemon sees that it is gone.
    ended.expect("a process beside the daemon can do its work");
}

/// What is asked of the process that has the rights which the daemon was started with.
#[derive(Debug, Serialize, Deserialize)]
enum Question {
    /// Read the hooks of the file, once more.
    Read,
    /// Run one of them.
    Run(Job),
    /// Who holds this UDP port?
    Port(u16),
    /// Who holds this device?
    Device(String),
}

/// The process that has the rights which the daemon was started with. It runs what it has itself read in the file,
/// and nothing that it is told.
#[derive(Clone)]
pub(super) struct Outside(Link);

impl Outside {
    /// For tests: in this process.
    #[cfg(test)]
    pub(super) fn here(hooks: Vec<Hook>) -> Self {
        let (ours, theirs) = UnixStream::pair().expect("a pair");
        let read: ReadHooks = Arc::new(move || Ok(hooks.clone()));
        tokio::spawn(async move { serve_outside(theirs, read).await.expect("it is served") });
        Self(Link::new(ours).expect("within a runtime"))
    }

    /// It reads the file's hooks again; an error says why it cannot.
    pub(super) async fn read_hooks(&self) -> Result<(), String> {
        self.0.ask(&Question::Read).await.unwrap_or_else(|error| Err(error.to_string()))
    }

    /// Has it run a hook, as soon as there is room; `None`: too many wait already to be even told.
    pub(super) fn run(&self, job: Job) -> Option<impl Future<Output = io::Result<Outcome>> + Send + use<>> {
        self.0.try_ask(&Question::Run(job))
    }

    /// An error about a UDP port that is in use, with who holds it.
    pub(super) async fn explain_port(&self, port: u16, error: io::Error) -> io::Error {
        if error.kind() != io::ErrorKind::AddrInUse {
            return error;
        }
        let said: io::Result<Option<String>> = self.0.ask(&Question::Port(port)).await;
        said.ok().flatten().map_or(error, |text| io::Error::new(io::ErrorKind::AddrInUse, text))
    }

    /// Who holds this network device, in words.
    pub(super) async fn holder_of_device(&self, name: &str) -> Option<String> {
        self.0.ask(&Question::Device(name.to_owned())).await.ok().flatten()
    }

    /// Resolves if the process ends, which it never should.
    pub(super) async fn ended(&self) {
        self.0.ended().await;
    }

    /// Nothing more is asked. Waits, but not long, until what runs has ended.
    pub(super) async fn farewell(&self) {
        self.0.close();
        let _ = tokio::time::timeout(PATIENCE, self.0.ended()).await;
    }
}

async fn serve_outside(stream: UnixStream, read_hooks: ReadHooks) -> io::Result<()> {
    let _caught = runner::Signals::catch()?;
    let runner = runner::Runner::new(read_hooks);
    let answer = |question: Question| {
        let runner = runner.clone();
        async move {
            match question {
                Question::Read => link::text(&runner.read()),
                Question::Run(job) => link::text(&runner.run(job).await),
                Question::Port(port) => link::text(&holders::of_port(port)),
                Question::Device(name) => link::text(&holders::of_device(&name).await),
            }
        }
    };
    link::serve(stream, answer, runner::LAST_WORDS).await
}
