//! Commands that run on events: few at once, few wait, each with a time limit for all that it started. They run in a
//! process that has the rights which the daemon was started with; it runs what the file names, as it has read the file
//! itself, and nothing else that it is told.

use std::{
    io,
    path::PathBuf,
    process::Stdio,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWriteExt},
    process::{Child, Command},
    signal::unix::{Signal, SignalKind, signal},
    sync::Semaphore,
    time::{Instant, timeout_at},
};

use super::ReadHooks;
use crate::{config::Hook, control::events::HookEnd, sys};

/// Commands that run at the same time.
pub(super) const AT_ONCE: usize = 4;
/// Events that wait for one of them to end; the newest is dropped.
pub(super) const WAITING: usize = 64;
/// What a command says is told up to here.
const OUTPUT: usize = 4096;
/// At the end of the daemon what runs has so long, then it is killed.
pub(super) const LAST_WORDS: Duration = Duration::from_secs(2);
/// What is searched where a hook names other programs.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// Hooks that are remembered of files before this one: a reload on trial may be taken back. The oldest go.
const REMEMBERED: usize = 256;

/// One command for one event.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(in super::super) struct Job {
    program: PathBuf,
    arguments: Vec<String>,
    timeout: Duration,
    /// The event's name, whose it is, and the event itself.
    pub(in super::super) event: String,
    pub(in super::super) interface: String,
    pub(in super::super) input: String,
}

impl Job {
    /// Of this hook.
    pub(in super::super) fn new(hook: &Hook, event: &str, interface: &str, input: String) -> Self {
        Self {
            program: hook.program.clone(),
            arguments: hook.arguments.clone(),
            timeout: hook.timeout,
            event: event.to_owned(),
            interface: interface.to_owned(),
            input,
        }
    }

    fn is(&self, hook: &Hook) -> bool {
        (&self.program, &self.arguments, self.timeout) == (&hook.program, &hook.arguments, hook.timeout)
    }
}

/// How it ended, and what there is to say of it.
#[derive(Debug, Serialize, Deserialize)]
pub(in super::super) enum Outcome {
    /// It ran, and said this.
    Succeeded(String),
    /// It ended otherwise: how, and what it said.
    Failed(String, String),
    /// It could not be run.
    NotRun(String),
    /// It was killed at its time limit.
    TimedOut,
    /// Too many waited.
    Dropped,
}

impl Outcome {
    /// For the counts.
    pub(in super::super) fn end(&self) -> HookEnd {
        match self {
            Self::Succeeded(_) => HookEnd::Succeeded,
            Self::Failed(..) | Self::NotRun(_) => HookEnd::Failed,
            Self::TimedOut => HookEnd::TimedOut,
            Self::Dropped => HookEnd::Dropped,
        }
    }
}

/// Signals that are meant for the daemon, and reach its whole group: caught, and not ignored, so that commands are born
/// with none of it.
pub(super) struct Signals {
    _caught: Vec<Signal>,
}

impl Signals {
    /// To be called within a runtime.
    pub(super) fn catch() -> io::Result<Self> {
        let kinds = [
            SignalKind::terminate(),
            SignalKind::interrupt(),
            SignalKind::hangup(),
            SignalKind::user_defined1(),
            SignalKind::user_defined2(),
        ];
        Ok(Self { _caught: kinds.into_iter().map(signal).collect::<io::Result<_>>()? })
    }
}

/// What may be run, and how much room there is.
#[derive(Clone)]
pub(super) struct Runner {
    read: ReadHooks,
    known: Arc<Mutex<Vec<Hook>>>,
    waiting: Arc<Semaphore>,
    places: Arc<Semaphore>,
}

impl Runner {
    pub(super) fn new(read: ReadHooks) -> Self {
        Self {
            read,
            known: Arc::default(),
            waiting: Arc::new(Semaphore::new(AT_ONCE + WAITING)),
            places: Arc::new(Semaphore::new(AT_ONCE)),
        }
    }

    /// What the file names may be run from now on.
    pub(super) fn read(&self) -> Result<(), String> {
        let hooks = (self.read)()?;
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|one| !hooks.contains(one));
        known.extend(hooks);
        let beyond = known.len().saturating_sub(REMEMBERED);
        known.drain(..beyond);
        Ok(())
    }

    fn knows(&self, job: &Job) -> bool {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).iter().any(|hook| job.is(hook))
    }

    /// Waits for its turn, and runs it.
    pub(super) async fn run(&self, job: Job) -> Outcome {
        if !self.knows(&job) {
            return Outcome::NotRun("the file, as it was read for this, does not name it".to_owned());
        }
        let Ok(_room) = self.waiting.try_acquire() else { return Outcome::Dropped };
        let _place = self.places.acquire().await.expect("the places are never closed");
        run(&job).await
    }
}

/// One command from its start to its end.
async fn run(job: &Job) -> Outcome {
    let mut command = Command::new(&job.program);
    command.args(&job.arguments).env_clear().env("PATH", PATH).current_dir("/");
    command.env("VPND_INTERFACE", &job.interface).env("VPND_EVENT", &job.event);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
    let child = match command.spawn() {
        Ok(child) => child,
        Err(error) => return Outcome::NotRun(error.to_string()),
    };
    let mut group = Group(child);
    let input = format!("{}\n", job.input);
    let until = Instant::now() + job.timeout;
    // Not reaped before its pipes are closed or its time is over: until then its number can be nobody else's.
    let said = match timeout_at(until, group.converse(input.as_bytes())).await {
        Ok(said) => said,
        Err(_) => return group.out_of_time().await,
    };
    let Ok(status) = timeout_at(until, group.0.wait()).await else {
        return group.out_of_time().await;
    };
    let said = String::from_utf8_lossy(&said).trim_end().to_owned();
    match status {
        Ok(status) if status.success() => Outcome::Succeeded(said),
        Ok(status) => Outcome::Failed(status.to_string(), said),
        Err(error) => Outcome::Failed(format!("it was lost: {error}"), said),
    }
}

/// A command and all that it started; killed when dropped before its end.
struct Group(Child);

impl Group {
    /// Hands the event over, and collects what is said until nobody can say more.
    async fn converse(&mut self, input: &[u8]) -> Vec<u8> {
        let (stdin, stdout, stderr) = (self.0.stdin.take(), self.0.stdout.take(), self.0.stderr.take());
        let hand_over = async {
            if let Some(mut stdin) = stdin {
                let _ = stdin.write_all(input).await; // whether it wants to read is its own matter
            }
        };
        let ((), mut said, errors) = tokio::join!(hand_over, collect(stdout), collect(stderr));
        said.extend(errors);
        said.truncate(OUTPUT);
        said
    }

    async fn out_of_time(mut self) -> Outcome {
        self.kill();
        let _ = self.0.wait().await; // killed: it ends
        Outcome::TimedOut
    }

    fn kill(&self) {
        // None: it was waited for, and its number may be another's.
        if let Some(pid) = self.0.id() {
            let _ = sys::signal::kill_group(pid); // at worst nobody is left
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The first of what comes, to the end of it.
async fn collect(from: Option<impl AsyncRead + Unpin>) -> Vec<u8> {
    let mut said = Vec::new();
    let Some(mut from) = from else { return said };
    let mut piece = [0; 1024];
    while let Ok(length @ 1..) = from.read(&mut piece).await {
        let room = OUTPUT - said.len();
        said.extend_from_slice(&piece[..length.min(room)]);
    }
    said
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use super::*;
    use crate::control::events::{EventReport, Events, What};

    fn hook(script: &str, seconds: u64) -> Hook {
        Hook {
            program: "/bin/sh".into(),
            arguments: vec!["-c".to_owned(), script.to_owned()],
            events: vec!["silent".to_owned()],
            timeout: Duration::from_secs(seconds),
        }
    }

    fn job(hook: &Hook) -> Job {
        let event = Events::new("vpn0").record(1.5, None, What::Silent);
        let input = serde_json::to_string(&*event).expect("an event");
        Job::new(hook, "silent", "vpn0", input)
    }

    async fn wait_until(what: impl Fn() -> bool) {
        for _ in 0..600 {
            if what() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("waited for half a minute");
    }

    fn is_running(pid: &str) -> bool {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with('Z'))
    }

    fn pid_in(file: &Path) -> Option<String> {
        fs::read_to_string(file).ok().filter(|text| text.ends_with('\n')).map(|text| text.trim().to_owned())
    }

    #[tokio::test]
    async fn a_command_gets_the_event_on_its_input_and_little_else() {
        let folder = tempfile::tempdir().expect("a folder");
        let out = folder.path().join("out");
        let script = format!("cat > {0}.part; env | sort >> {0}.part; mv {0}.part {0}", out.display());
        assert_eq!(run(&job(&hook(&script, 30))).await.end(), HookEnd::Succeeded);
        let text = fs::read_to_string(&out).expect("it has run");
        let (json, environment) = text.split_once('\n').expect("a line, and the environment");
        assert_eq!(serde_json::from_str::<EventReport>(json).expect("an event").what, What::Silent);
        let names: Vec<_> =
            environment.lines().filter_map(|line| line.split_once('=')).map(|(name, _)| name).collect();
        assert_eq!(names, ["PATH", "PWD", "VPND_EVENT", "VPND_INTERFACE"]);
    }

    #[tokio::test]
    async fn how_a_command_ends_is_told_apart() {
        assert_eq!(run(&job(&hook("exit 3", 30))).await.end(), HookEnd::Failed);
        let nowhere = Hook { program: "/nonexistent/hook".into(), ..hook("", 30) };
        assert_eq!(run(&job(&nowhere)).await.end(), HookEnd::Failed);
        let talkative = hook("exec 0<&-; head -c 1000000 /dev/zero; true", 30);
        assert_eq!(
            run(&job(&talkative)).await.end(),
            HookEnd::Succeeded,
            "its output is bounded, not its run"
        );
    }

    #[tokio::test]
    async fn at_its_time_limit_a_command_is_killed_with_all_that_it_started() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("pid");
        // The shell ends at once; what it started holds its output open.
        let script = format!("sleep 600 & echo $! > {}", file.display());
        assert_eq!(run(&job(&hook(&script, 1))).await.end(), HookEnd::TimedOut);
        let child = pid_in(&file).expect("it was started");
        wait_until(|| !is_running(&child)).await;
    }

    #[tokio::test]
    async fn what_the_file_does_not_name_is_not_run_whoever_asks() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("ran");
        let wanted = hook(&format!("echo x > {}", file.display()), 30);
        let named = Arc::new(Mutex::new(Vec::new()));
        let read = named.clone();
        let runner = Runner::new(Arc::new(move || Ok(read.lock().expect("not poisoned").clone())));
        runner.read().expect("read");
        assert!(matches!(runner.run(job(&wanted)).await, Outcome::NotRun(_)));
        let mut other = wanted.clone();
        other.arguments.push("more".to_owned());
        named.lock().expect("not poisoned").push(wanted.clone());
        runner.read().expect("read");
        assert!(matches!(runner.run(job(&other)).await, Outcome::NotRun(_)));
        assert!(!file.exists());
        assert!(matches!(runner.run(job(&wanted)).await, Outcome::Succeeded(_)));
        assert!(file.exists());
    }

    #[tokio::test]
    async fn few_run_at_once_few_wait_and_the_rest_is_dropped() {
        let folder = tempfile::tempdir().expect("a folder");
        let gate = folder.path().join("gate");
        let slow = hook(&format!("while [ ! -e {} ]; do sleep 0.05; done", gate.display()), 60);
        let known = vec![slow.clone()];
        let runner = Runner::new(Arc::new(move || Ok(known.clone())));
        runner.read().expect("read");
        let mut running = tokio::task::JoinSet::new();
        for _ in 0..AT_ONCE + WAITING {
            let (runner, job) = (runner.clone(), job(&slow));
            running.spawn(async move { runner.run(job).await.end() });
        }
        let waiting = runner.waiting.clone();
        wait_until(|| waiting.available_permits() == 0).await;
        assert_eq!(runner.places.available_permits(), 0);
        for _ in 0..7 {
            assert_eq!(runner.run(job(&slow)).await.end(), HookEnd::Dropped);
        }
        fs::write(&gate, "").expect("the folder can be written");
        let ends = running.join_all().await;
        assert_eq!(ends, vec![HookEnd::Succeeded; AT_ONCE + WAITING]);
    }
}
