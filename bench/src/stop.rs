//! Ctrl-C and SIGTERM: whoever waits looks here, returns early, and what was made is dropped in order.

use std::{
    process::ExitStatus,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use vpnd::lab::{Interrupt, Process};

use crate::failure::{Attempted, Failure, Result};

static ASKED: AtomicBool = AtomicBool::new(false);

/// From now on these signals only set a flag.
pub fn listen() -> Result<()> {
    let interrupt = Interrupt::listen().attempted(|| "listen for signals".to_owned())?;
    thread::spawn(move || {
        interrupt.wait();
        ASKED.store(true, Ordering::Relaxed);
    });
    Ok(())
}

/// An error once somebody asked us to end.
pub fn check() -> Result<()> {
    if ASKED.load(Ordering::Relaxed) { Err(Failure::Interrupted) } else { Ok(()) }
}

/// Asks every 20 ms; false after `limit`.
pub fn wait_until(limit: Duration, mut true_now: impl FnMut() -> bool) -> Result<bool> {
    let end = Instant::now() + limit;
    loop {
        check()?;
        if true_now() {
            return Ok(true);
        }
        if Instant::now() > end {
            return Ok(false);
        }
        thread::sleep(Duration::from_millis(20));
    }
}

/// Waits for a process to end; kills it after `limit`.
pub fn finish(process: &mut Process, what: &str, limit: Duration) -> Result<ExitStatus> {
    let mut status = None;
    let in_time = wait_until(limit, || {
        status = process.ended();
        status.is_some()
    })?;
    if !in_time {
        process.kill9();
        return Err(Failure::Said(format!("{what} did not end within {} s", limit.as_secs())));
    }
    Ok(status.unwrap_or_default())
}
