//! Why the kernel drops, and what waits in its queues: its tracepoints, in two instances of tracefs that are ours alone, one
//! for packets that come and one for those that leave. A child process removes them when we are gone, however we went; where
//! that one was killed, too, the next trace does.

use std::{
    fs::{self, File},
    io::{self, BufRead, BufReader, Read},
    ops::RangeInclusive,
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::process::CommandExt,
    },
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use crate::{
    sys,
    trace::{
        drops::{Deed, Neighbour, Step, Steps, Watched},
        lengths,
    },
};

const PREFIX: &str = "vpnd_trace_";
/// Of each core: some ten thousand steps. What does not fit is lost, the oldest first.
const CAME_KB: usize = 1024;
/// More of what leaves, on machines that have few cores: what waits for a neighbour is dropped seconds later.
const LEFT_KB: usize = 8 * CAME_KB;
const LEFT_OF_ALL_KB: usize = 32 * CAME_KB;
/// No more of its text is read.
const TEXT: u64 = 256 << 20;
/// Packets of IP; others share the kernel's buffers.
const IP: &str = "protocol == 2048 || protocol == 34525";

/// The instances, while they stand.
pub struct Drops {
    came: Instance,
    left: Instance,
    /// Reads its standard input to the end, and then calls [`sweep_behind`].
    sweeper: Child,
    /// Behind the instances.
    _root: OwnedFd,
}

struct Instance {
    folder: PathBuf,
    /// As long as it is open nobody can remove the instance.
    pipe: Option<File>,
}

impl Drops {
    /// Looks from now on, in the whole kernel; of packets that leave for those alone that are as long as these, or carry
    /// one. `sweeper` is the command that becomes the child. Needs CAP_SYS_ADMIN, and a kernel that has these tracepoints.
    pub fn open(sweeper: &mut Command, packets: &RangeInclusive<u32>) -> io::Result<Self> {
        let root = sys::tracefs::open()?;
        let instances = instances(&root);
        sweep(&instances, |number| !Path::new(&format!("/proc/{number}")).exists());
        let instance = |end: &str| {
            let folder = instances.join(format!("{PREFIX}{}{end}", std::process::id()));
            Instance { folder, pipe: None }
        };
        let (came, left) = (instance(""), instance("_out"));
        let streams = sweeper.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        let sweeper = streams.process_group(0).spawn()?;
        let mut drops = Self { came, left, sweeper, _root: root };
        drops.came.stand(CAME_KB, &[("net/netif_receive_skb", None), ("skb/kfree_skb", Some(IP))])?;
        let long = lengths::at_devices(packets);
        let long = format!("len >= {} && len <= {}", long.start(), long.end());
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        drops.left.stand(
            (LEFT_OF_ALL_KB / cores).clamp(CAME_KB, LEFT_KB),
            &[
                ("net/net_dev_queue", Some(&long)),
                ("net/net_dev_xmit", Some(&long)),
                ("skb/kfree_skb", Some(IP)),
                ("neigh/neigh_event_send_done", None),
                ("neigh/neigh_update", None),
                ("neigh/neigh_timer_handler", None),
            ],
        )?;
        Ok(drops)
    }

    /// What they saw.
    pub fn told(&self) -> io::Result<Steps> {
        Ok(Steps { came: self.came.told()?, left: self.left.told()? })
    }

    /// Neighbours that packets wait for which were to leave by one of these devices. It goes on looking.
    pub fn awaited(&self, devices: &[String]) -> io::Result<Vec<Neighbour>> {
        let mut awaited: Vec<Neighbour> = Vec::new();
        for step in self.left.read()?.0 {
            match step.deed {
                Deed::Waits(one) if devices.contains(&one.device) && !awaited.contains(&one) => {
                    awaited.push(one)
                }
                Deed::Updated(one) | Deed::Failed(one) => awaited.retain(|other| *other != one),
                _ => {}
            }
        }
        Ok(awaited)
    }
}

impl Instance {
    /// With so much room for each core; events, each with a filter.
    fn stand(&mut self, room_kb: usize, events: &[(&str, Option<&str>)]) -> io::Result<()> {
        fs::create_dir(&self.folder)?;
        self.pipe = Some(File::open(self.folder.join("trace_pipe"))?);
        fs::write(self.folder.join("buffer_size_kb"), room_kb.to_string())?;
        fs::write(self.folder.join("trace_clock"), "boot")?;
        for (event, filter) in events {
            let event = self.folder.join("events").join(event);
            if let Some(filter) = filter {
                fs::write(event.join("filter"), filter)?;
            }
            fs::write(event.join("enable"), "1")?;
        }
        Ok(())
    }

    fn told(&self) -> io::Result<Watched> {
        fs::write(self.folder.join("tracing_on"), "0")?;
        let (steps, is_whole) = self.read()?;
        let since_ns = if is_whole { since(&steps, &self.cores_that_lost()?) } else { u64::MAX };
        Ok(Watched { steps, since_ns })
    }

    fn cores_that_lost(&self) -> io::Result<Vec<u32>> {
        let mut cores = Vec::new();
        for entry in fs::read_dir(self.folder.join("per_cpu"))? {
            let entry = entry?;
            let name = entry.file_name();
            let core: Option<u32> = name.to_str().and_then(|name| name.strip_prefix("cpu")?.parse().ok());
            if has_overrun(&fs::read_to_string(entry.path().join("stats"))?) {
                cores.extend(core);
            }
        }
        Ok(cores)
    }

    /// All steps that there are; and is that the whole text?
    fn read(&self) -> io::Result<(Vec<Step>, bool)> {
        let mut text = BufReader::new(File::open(self.folder.join("trace"))?.take(TEXT));
        let (mut steps, mut is_whole, mut line) = (Vec::new(), true, String::new());
        while text.read_line(&mut line)? > 0 {
            is_whole &= !line.contains(" EVENTS]"); // [LOST 12 EVENTS]
            steps.extend(Step::read(&line));
            line.clear();
        }
        Ok((steps, is_whole && text.get_ref().limit() > 0))
    }
}

impl Drop for Drops {
    fn drop(&mut self) {
        for instance in [&mut self.came, &mut self.left] {
            drop(instance.pipe.take());
            // Where it stands all the same, the next one sweeps it.
            let _ = fs::remove_dir(&instance.folder);
        }
        drop(self.sweeper.stdin.take());
        let _ = self.sweeper.wait();
    }
}

/// The child: waits until nobody holds the other end of its standard input, and removes what process `number` left.
pub fn sweep_behind(number: u32) -> io::Result<()> {
    io::copy(&mut io::stdin(), &mut io::sink())?;
    sweep(&instances(&sys::tracefs::open()?), |one| one == number);
    Ok(())
}

fn instances(root: &OwnedFd) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}/instances", root.as_raw_fd()))
}

/// From when on nothing is missing: a core that had no room has lost what was before the first step that it still has.
fn since(steps: &[Step], cores_that_lost: &[u32]) -> u64 {
    let first = |core: &u32| steps.iter().find(|step| step.core == *core).map_or(u64::MAX, |step| step.at_ns);
    cores_that_lost.iter().map(first).max().unwrap_or(0)
}

/// `entries: 4`, `overrun: 0`, `commit overrun: 0`, `bytes: …`, …
fn has_overrun(stats: &str) -> bool {
    let counts = stats.lines().filter_map(|line| line.split_once("overrun: "));
    let counts: Vec<_> = counts.map(|(_, count)| count.trim()).collect();
    counts.is_empty() || counts.iter().any(|count| *count != "0")
}

/// Those of processes that are gone; one that runs in another PID namespace holds its own.
fn sweep(instances: &Path, is_gone: impl Fn(u32) -> bool) {
    for entry in fs::read_dir(instances).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let of =
            name.to_str().and_then(|name| name.strip_prefix(PREFIX)?.split('_').next()?.parse::<u32>().ok());
        if of.is_some_and(&is_gone) {
            let _ = fs::remove_dir(entry.path()); // refused while it is held
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(core: u32, at_ns: u64) -> Step {
        Step { at_ns, core, buffer: None, deed: Deed::Taken }
    }

    #[test]
    fn what_ran_over_is_whole_from_the_first_that_is_left_on() {
        let steps = [step(0, 5), step(1, 9), step(0, 11)];
        assert_eq!(since(&steps, &[]), 0);
        assert_eq!(since(&steps, &[0]), 5);
        assert_eq!(since(&steps, &[0, 1]), 9);
        assert_eq!(since(&steps, &[2]), u64::MAX, "nothing is left of it");
    }

    #[test]
    fn a_core_says_what_it_has_lost() {
        let stats = |lost: &str, late: &str| {
            format!(
                "entries: 9\noverrun: {lost}\ncommit overrun: {late}\nbytes: 64\ndropped events: 0\nread events: 0\n"
            )
        };
        assert!(!has_overrun(&stats("0", "0")));
        assert!(has_overrun(&stats("12", "0")) && has_overrun(&stats("0", "1")) && has_overrun(""));
    }
}
