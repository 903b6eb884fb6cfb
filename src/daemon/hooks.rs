//! Commands that run on events. They have a thread of their own, so that nothing that starts a process, or waits for
//! one, is ever in the way of a handshake; few run at once, few wait, and each has a time limit for all that it
//! started.

use std::{process::Stdio, sync::Arc, thread, time::Duration};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWriteExt},
    process::{Child, Command},
    sync::{Semaphore, mpsc, mpsc::error::TrySendError, oneshot},
    task::JoinSet,
    time::{Instant, timeout, timeout_at},
};
use tracing::{debug, warn};

use crate::{
    config::Hook,
    control::events::{EventReport, Events, HookEnd},
    sys,
};

/// Commands that run at the same time.
const AT_ONCE: usize = 4;
/// Events that wait for one of them to end; the newest is dropped.
const WAITING: usize = 64;
/// What a command says is logged up to here.
const OUTPUT: usize = 4096;
/// At its end the daemon waits so long for what runs, then kills it.
const LAST_WORDS: Duration = Duration::from_secs(2);
/// What is searched where a hook names other programs.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Runs them until it is dropped; what does not end soon after is killed.
pub(super) struct Hooks {
    hooks: Arc<[Hook]>,
    queue: Option<mpsc::Sender<Run>>,
    events: Events,
    /// Is the queue full, and was that said?
    full: bool,
    thread: Option<thread::JoinHandle<()>>,
    ended: oneshot::Receiver<()>,
}

/// One command for one event.
struct Run {
    hook: usize,
    event: Arc<EventReport>,
}

impl Hooks {
    /// None of them: no thread.
    pub(super) fn start(hooks: &[Hook], events: &Events) -> std::io::Result<Option<Self>> {
        if hooks.is_empty() {
            return Ok(None);
        }
        let hooks: Arc<[Hook]> = hooks.into();
        let (queue, waiting) = mpsc::channel(WAITING);
        let (alive, ended) = oneshot::channel();
        let (own, counts) = (hooks.clone(), events.clone());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let work = move || {
            let _alive = alive; // dropped by a panic, too
            runtime.block_on(work(own, waiting, counts));
        };
        let thread = thread::Builder::new().name("vpnd-hooks".to_owned()).spawn(work)?;
        let events = events.clone();
        Ok(Some(Self { hooks, queue: Some(queue), events, full: false, thread: Some(thread), ended }))
    }

    /// Runs what wants to hear of this event, when there is room. Never waits.
    pub(super) fn happened(&mut self, event: &Arc<EventReport>) {
        let name = event.what.name();
        for (hook, wants) in self.hooks.iter().enumerate() {
            if !wants.events.iter().any(|wanted| wanted == name) {
                continue;
            }
            let Some(queue) = &self.queue else { return };
            match queue.try_send(Run { hook, event: event.clone() }) {
                Ok(()) => self.full = false,
                Err(TrySendError::Full(_)) => {
                    self.events.hooks().count(HookEnd::Dropped);
                    if !std::mem::replace(&mut self.full, true) {
                        warn!(waiting = WAITING, "hooks are slower than events come: some events run none");
                    }
                }
                Err(TrySendError::Closed(_)) => return, // `ended` tells
            }
        }
    }

    /// No more events; nobody waits for what still runs.
    pub(super) fn retire(mut self) {
        self.thread = None; // it ends by itself once the queue is gone
    }

    /// Resolves if the thread ends, which it never should.
    pub(super) async fn ended(&mut self) {
        let _ = (&mut self.ended).await;
    }
}

impl Drop for Hooks {
    fn drop(&mut self) {
        self.queue = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join(); // it kills what runs, and ends
        }
    }
}

async fn work(hooks: Arc<[Hook]>, mut waiting: mpsc::Receiver<Run>, events: Events) {
    let places = Arc::new(Semaphore::new(AT_ONCE));
    let mut running = JoinSet::new();
    loop {
        let next = async {
            let place = places.clone().acquire_owned().await.expect("the places are never closed");
            waiting.recv().await.map(|run| (run, place))
        };
        tokio::select! {
            Some(ended) = running.join_next() => if let Err(error) = ended {
                std::panic::resume_unwind(error.into_panic());
            },
            next = next => {
                let Some((Run { hook, event }, place)) = next else { break };
                let (hooks, events) = (hooks.clone(), events.clone());
                running.spawn(async move {
                    let end = run(&hooks[hook], &event).await;
                    events.hooks().count(end);
                    drop(place);
                });
            }
        }
    }
    let last = async { while running.join_next().await.is_some() {} };
    let _ = timeout(LAST_WORDS, last).await;
    // Dropping a run kills its whole group.
    running.shutdown().await;
}

/// One command from its start to its end.
async fn run(hook: &Hook, event: &EventReport) -> HookEnd {
    let program = hook.program.display();
    let mut command = Command::new(&hook.program);
    command.args(&hook.arguments).env_clear().env("PATH", PATH).current_dir("/");
    command.env("VPND_INTERFACE", &event.interface).env("VPND_EVENT", event.what.name());
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
    let child = match command.spawn() {
        Ok(child) => child,
        Err(error) => {
            warn!(%program, %error, "a hook cannot be run");
            return HookEnd::Failed;
        }
    };
    let mut group = Group(child);
    let mut input = serde_json::to_vec(event).expect("an event has text keys and no other failures");
    input.push(b'\n');
    let until = Instant::now() + hook.timeout;
    // Not reaped before its pipes are closed or its time is over: until then its number can be nobody else's.
    let said = match timeout_at(until, group.converse(&input)).await {
        Ok(said) => said,
        Err(_) => return group.out_of_time(hook).await,
    };
    let Ok(status) = timeout_at(until, group.0.wait()).await else {
        return group.out_of_time(hook).await;
    };
    let said = String::from_utf8_lossy(&said);
    let said = said.trim_end();
    match status {
        Ok(status) if status.success() => {
            debug!(%program, said, "a hook has run");
            HookEnd::Succeeded
        }
        Ok(status) => {
            warn!(%program, %status, said, "a hook failed");
            HookEnd::Failed
        }
        Err(error) => {
            warn!(%program, %error, "a hook was lost");
            HookEnd::Failed
        }
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

    async fn out_of_time(mut self, hook: &Hook) -> HookEnd {
        self.kill();
        let _ = self.0.wait().await; // killed: it ends
        warn!(program = %hook.program.display(), limit = hook.timeout.as_secs(), "a hook was killed at its time limit");
        HookEnd::TimedOut
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
    use crate::control::events::What;

    fn hook(script: &str, seconds: u64) -> Hook {
        Hook {
            program: "/bin/sh".into(),
            arguments: vec!["-c".to_owned(), script.to_owned()],
            events: vec!["silent".to_owned()],
            timeout: Duration::from_secs(seconds),
        }
    }

    fn event(events: &Events) -> Arc<EventReport> {
        events.record(1.5, None, What::Silent)
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
        let events = Events::new("vpn0");
        assert_eq!(run(&hook(&script, 30), &event(&events)).await, HookEnd::Succeeded);
        let text = fs::read_to_string(&out).expect("it has run");
        let (json, environment) = text.split_once('\n').expect("a line, and the environment");
        assert_eq!(serde_json::from_str::<EventReport>(json).expect("an event").what, What::Silent);
        let names: Vec<_> =
            environment.lines().filter_map(|line| line.split_once('=')).map(|(name, _)| name).collect();
        assert_eq!(names, ["PATH", "PWD", "VPND_EVENT", "VPND_INTERFACE"]);
    }

    #[tokio::test]
    async fn how_a_command_ends_is_told_apart() {
        let events = Events::new("vpn0");
        let event = event(&events);
        assert_eq!(run(&hook("exit 3", 30), &event).await, HookEnd::Failed);
        let nowhere = Hook { program: "/nonexistent/hook".into(), ..hook("", 30) };
        assert_eq!(run(&nowhere, &event).await, HookEnd::Failed);
        let talkative = hook("exec 0<&-; head -c 1000000 /dev/zero; true", 30);
        assert_eq!(run(&talkative, &event).await, HookEnd::Succeeded, "its output is bounded, not its run");
    }

    #[tokio::test]
    async fn at_its_time_limit_a_command_is_killed_with_all_that_it_started() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("pid");
        // The shell ends at once; what it started holds its output open.
        let script = format!("sleep 600 & echo $! > {}", file.display());
        let events = Events::new("vpn0");
        assert_eq!(run(&hook(&script, 1), &event(&events)).await, HookEnd::TimedOut);
        let child = pid_in(&file).expect("it was started");
        wait_until(|| !is_running(&child)).await;
    }

    #[tokio::test]
    async fn few_run_at_once_few_wait_and_the_rest_is_dropped_and_counted() {
        let folder = tempfile::tempdir().expect("a folder");
        let gate = folder.path().join("gate");
        let script = format!("while [ ! -e {} ]; do sleep 0.05; done", gate.display());
        let events = Events::new("vpn0");
        let mut hooks = Hooks::start(&[hook(&script, 60)], &events).expect("a thread").expect("a hook");
        let event = event(&events);
        let count = |name: &str| {
            let counts = events.hooks().read();
            counts.iter().find(|(known, _)| *known == name).map_or(0, |(_, count)| *count)
        };
        for _ in 0..AT_ONCE {
            hooks.happened(&event);
        }
        wait_until(|| hooks.queue.as_ref().is_some_and(|queue| queue.capacity() == WAITING)).await;
        for _ in 0..WAITING + 7 {
            hooks.happened(&event);
        }
        assert_eq!(count("dropped"), 7);
        fs::write(&gate, "").expect("the folder can be written");
        wait_until(|| count("succeeded") == (AT_ONCE + WAITING) as u64).await;
    }

    #[tokio::test]
    async fn the_end_of_the_daemon_ends_what_runs() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("pid");
        let events = Events::new("vpn0");
        let script = format!("echo $$ > {}; sleep 600", file.display());
        let mut hooks = Hooks::start(&[hook(&script, 300)], &events).expect("a thread").expect("a hook");
        hooks.happened(&event(&events));
        wait_until(|| pid_in(&file).is_some()).await;
        tokio::task::spawn_blocking(move || drop(hooks)).await.expect("no panic");
        let pid = pid_in(&file).expect("it was started");
        wait_until(|| !is_running(&pid)).await;
    }

    #[test]
    fn the_file_may_name_each_event_and_no_other() {
        assert_eq!(crate::config::hook::EVENTS, What::NAMES);
    }
}
