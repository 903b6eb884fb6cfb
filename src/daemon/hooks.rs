//! Commands on events, as the daemon sees them: which event wants which command, and what became of it. They run in a
//! process beside the daemon ([`super::attendants`]): the daemon itself may start none.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use tracing::{debug, warn};

use super::attendants::{Job, Outcome, Outside};
use crate::{
    config::Hook,
    control::events::{EventReport, Events, HookEnd},
};

/// The hooks of the file.
pub(super) struct Hooks {
    hooks: Vec<Hook>,
    outside: Outside,
    events: Events,
    /// Are there more events than room, and was that said?
    full: Arc<AtomicBool>,
}

impl Hooks {
    /// None yet.
    pub(super) fn new(outside: Outside, events: &Events) -> Self {
        Self { hooks: Vec::new(), outside, events: events.clone(), full: Arc::default() }
    }

    /// These from now on; those that run have their time to end.
    pub(super) async fn set(&mut self, hooks: &[Hook]) -> Result<(), String> {
        // Who runs them takes nobody's word for it. Where none was and none is, he need not look.
        if !hooks.is_empty() {
            self.outside.read_hooks().await?;
        }
        self.hooks = hooks.to_vec();
        Ok(())
    }

    /// Runs what wants to hear of this event, when there is room. Never waits.
    pub(super) fn happened(&self, event: &Arc<EventReport>) {
        let name = event.what.name();
        for hook in self.hooks.iter().filter(|hook| hook.events.iter().any(|wanted| wanted == name)) {
            let input =
                serde_json::to_string(&**event).expect("an event has text keys and no other failures");
            let job = Job::new(hook, name, &event.interface, input);
            let (events, full) = (self.events.clone(), self.full.clone());
            let Some(outcome) = self.outside.run(job) else {
                dropped(&events, &full);
                continue;
            };
            let (program, limit) = (hook.program.display().to_string(), hook.timeout.as_secs());
            tokio::spawn(async move {
                // `ended` tells of one that is gone.
                let Ok(outcome) = outcome.await else { return };
                if matches!(outcome, Outcome::Dropped) {
                    return dropped(&events, &full);
                }
                full.store(false, Ordering::Relaxed);
                events.hooks().count(outcome.end());
                tell(&program, limit, &outcome);
            });
        }
    }

    /// Resolves if the process that runs them ends, which it never should.
    pub(super) async fn ended(&self) {
        self.outside.ended().await;
    }

    /// No more events: what runs has a moment to end.
    pub(super) async fn farewell(&self) {
        self.outside.farewell().await;
    }
}

fn dropped(events: &Events, full: &AtomicBool) {
    events.hooks().count(HookEnd::Dropped);
    if !full.swap(true, Ordering::Relaxed) {
        warn!("hooks are slower than events come: some events run none");
    }
}

fn tell(program: &str, limit: u64, outcome: &Outcome) {
    match outcome {
        Outcome::Succeeded(said) => debug!(program, said, "a hook has run"),
        Outcome::Failed(status, said) => warn!(program, status, said, "a hook failed"),
        Outcome::NotRun(error) => warn!(program, error, "a hook cannot be run"),
        Outcome::TimedOut => warn!(program, limit, "a hook was killed at its time limit"),
        Outcome::Dropped => {}
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, time::Duration};

    use super::*;
    use crate::control::events::What;

    fn hook(script: &str) -> Hook {
        Hook {
            program: "/bin/sh".into(),
            arguments: vec!["-c".to_owned(), script.to_owned()],
            events: vec!["silent".to_owned()],
            timeout: Duration::from_secs(300),
        }
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

    #[tokio::test]
    async fn an_event_runs_the_hooks_that_name_it_and_what_became_of_them_is_counted() {
        let (events, hooks) = (Events::new("vpn0"), [hook("true"), hook("exit 3")]);
        let mut other = hook("true");
        other.events = vec!["roamed".to_owned()];
        let all = [&hooks[..], &[other]].concat();
        let mut running = Hooks::new(Outside::here(all.clone()), &events);
        running.set(&all).await.expect("they are read");
        running.happened(&events.record(1.5, None, What::Silent));
        let count = |wanted: &str| {
            events.hooks().read().iter().find(|(name, _)| *name == wanted).map_or(0, |(_, count)| *count)
        };
        wait_until(|| count("succeeded") == 1 && count("failed") == 1).await;
    }

    #[tokio::test]
    async fn the_end_of_the_daemon_ends_what_runs() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("pid");
        let events = Events::new("vpn0");
        let slow = [hook(&format!("echo $$ > {}; sleep 600", file.display()))];
        let mut hooks = Hooks::new(Outside::here(slow.to_vec()), &events);
        hooks.set(&slow).await.expect("they are read");
        hooks.happened(&events.record(1.5, None, What::Silent));
        let pid = || fs::read_to_string(&file).ok().filter(|text| text.ends_with('\n'));
        wait_until(|| pid().is_some()).await;
        hooks.farewell().await;
        let stat = format!("/proc/{}/stat", pid().expect("it was started").trim());
        wait_until(|| {
            let stat = fs::read_to_string(&stat).unwrap_or_default();
            stat.rsplit_once(") ").is_none_or(|(_, rest)| rest.starts_with('Z'))
        })
        .await;
    }

    #[test]
    fn the_file_may_name_each_event_and_no_other() {
        assert_eq!(crate::config::hook::EVENTS, What::NAMES);
    }
}
