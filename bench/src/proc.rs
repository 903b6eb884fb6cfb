//! What processes cost, and on which cores they run.

use std::fs;

use nix::{
    sched::{CpuSet, sched_getaffinity, sched_setaffinity},
    unistd::{Pid, SysconfVar, sysconf},
};

use crate::failure::{Attempted, Failure, Result};

/// Seconds of user and system time of a process, all its threads, those that have ended included.
pub fn cpu_seconds(pid: u32) -> Result<f64> {
    let path = format!("/proc/{pid}/stat");
    let text = fs::read_to_string(&path).attempted(|| format!("read {path}"))?;
    let ticks = ticks(&text).ok_or_else(|| Failure::Said(format!("{path} says {text:?}")))?;
    Ok(ticks as f64 / ticks_per_second())
}

/// Seconds that all cores together were busy since boot: softirqs on behalf of a tunnel count here, wherever the
/// kernel ran them.
pub fn machine_cpu_seconds() -> f64 {
    let text = fs::read_to_string("/proc/stat").unwrap_or_default();
    busy_ticks(&text) as f64 / ticks_per_second()
}

fn ticks_per_second() -> f64 {
    sysconf(SysconfVar::CLK_TCK).ok().flatten().unwrap_or(100) as f64
}

/// utime + stime of `/proc/PID/stat`; the name in parentheses may hold spaces.
fn ticks(stat: &str) -> Option<u64> {
    let behind_name = stat.rsplit_once(')')?.1;
    let fields: Vec<_> = behind_name.split_whitespace().collect();
    Some(fields.get(11)?.parse::<u64>().ok()? + fields.get(12)?.parse::<u64>().ok()?)
}

/// All but idle, waiting for a disk, and what stands in user time already (guests).
fn busy_ticks(stat: &str) -> u64 {
    let first = stat.lines().next().unwrap_or_default();
    let fields: Vec<u64> = first.split_whitespace().skip(1).filter_map(|field| field.parse().ok()).collect();
    fields.iter().take(8).enumerate().filter(|(at, _)| ![3, 4].contains(at)).map(|(_, ticks)| ticks).sum()
}

/// Resident memory of a process in 10^6 bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Memory {
    /// Now.
    pub now: f64,
    /// At its highest.
    pub peak: f64,
}

/// From `/proc/PID/status`.
pub fn memory(pid: u32) -> Result<Memory> {
    let path = format!("/proc/{pid}/status");
    let text = fs::read_to_string(&path).attempted(|| format!("read {path}"))?;
    let megabytes = |key| kilobytes(&text, key).map(|k| k as f64 * 1024.0 / 1e6);
    match (megabytes("VmRSS:"), megabytes("VmHWM:")) {
        (Some(now), Some(peak)) => Ok(Memory { now, peak }),
        _ => Err(Failure::Said(format!("{path} names no resident memory"))),
    }
}

fn kilobytes(status: &str, key: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(key))?;
    line.trim().strip_suffix("kB")?.trim().parse().ok()
}

/// Runs `work` in a thread that may use this core only, as may whatever it starts.
pub fn on_core<T: Send>(core: Option<usize>, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    let Some(core) = core else { return work() };
    std::thread::scope(|scope| {
        let pinned = scope.spawn(|| {
            let mut set = CpuSet::new();
            set.set(core)
                .and_then(|()| sched_setaffinity(Pid::from_raw(0), &set))
                .attempted(|| format!("stay on core {core}; `--core` names another"))?;
            work()
        });
        pinned.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// The last core that we may use: the first one often serves interrupts.
pub fn last_core() -> usize {
    let allowed = sched_getaffinity(Pid::from_raw(0)).unwrap_or_default();
    (0..CpuSet::count()).rev().find(|&core| allowed.is_set(core).unwrap_or(false)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_spaces_and_parentheses_does_not_shift_the_times() {
        let stat = "12 (a ) b) S 1 2 3 4 5 6 7 8 9 10 70 7 0 0 20 0 3 0";
        assert_eq!(ticks(stat), Some(77));
    }

    #[test]
    fn idle_and_waiting_are_not_busy() {
        assert_eq!(busy_ticks("cpu  1 2 3 1000 2000 4 5 6 100 100\ncpu0 9 9 9"), 21);
    }

    #[test]
    fn memory_is_found_by_its_key() {
        assert_eq!(kilobytes("Name:\tx\nVmHWM:\t  2048 kB\nVmRSS:\t 1024 kB\n", "VmRSS:"), Some(1024));
        assert_eq!(kilobytes("Name:\tx\n", "VmRSS:"), None);
    }

    #[test]
    fn a_pinned_thread_has_one_core() {
        let core = last_core();
        let seen = on_core(Some(core), || Ok(sched_getaffinity(Pid::from_raw(0)).unwrap())).unwrap();
        let cores: Vec<_> = (0..CpuSet::count()).filter(|&core| seen.is_set(core).unwrap()).collect();
        assert_eq!(cores, [core]);
    }
}
