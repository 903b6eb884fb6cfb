//! Why the kernel drops: its tracepoints, in an instance of tracefs that is ours alone. A child process removes it when we
//! are gone, however we went; where that one was killed, too, the next trace does.

use std::{
    fs::{self, File},
    io::{self, Read},
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::process::CommandExt,
    },
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use crate::{sys, trace::drops::Step};

const PREFIX: &str = "vpnd_trace_";
/// Of each core: some ten thousand steps. What does not fit is lost, the oldest first, and told as lost.
const BUFFER_KB: &str = "1024";
/// No more of its text is read.
const TEXT: u64 = 64 << 20;
const EVENTS: [&str; 2] = ["net/netif_receive_skb", "skb/kfree_skb"];

/// The instance, while it stands.
pub struct Drops {
    folder: PathBuf,
    /// As long as it is open nobody can remove the instance.
    pipe: Option<File>,
    /// Reads its standard input to the end, and then calls [`sweep_behind`].
    sweeper: Child,
    /// Behind `folder`.
    _root: OwnedFd,
}

impl Drops {
    /// Looks from now on, in the whole kernel. `sweeper` is the command that becomes the child. Needs CAP_SYS_ADMIN, and a
    /// kernel that has these tracepoints.
    pub fn open(sweeper: &mut Command) -> io::Result<Self> {
        let root = sys::tracefs::open()?;
        let instances = instances(&root);
        sweep(&instances, |number| !Path::new(&format!("/proc/{number}")).exists());
        let folder = instances.join(format!("{PREFIX}{}", std::process::id()));
        let streams = sweeper.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        let sweeper = streams.process_group(0).spawn()?;
        let mut drops = Self { folder, pipe: None, sweeper, _root: root };
        fs::create_dir(&drops.folder)?;
        drops.pipe = Some(File::open(drops.folder.join("trace_pipe"))?);
        fs::write(drops.folder.join("buffer_size_kb"), BUFFER_KB)?;
        fs::write(drops.folder.join("trace_clock"), "boot")?;
        for event in EVENTS {
            fs::write(drops.folder.join("events").join(event).join("enable"), "1")?;
        }
        Ok(drops)
    }

    /// What it saw; and were some lost?
    pub fn told(&self) -> io::Result<(Vec<Step>, bool)> {
        fs::write(self.folder.join("tracing_on"), "0")?;
        let mut text = String::new();
        File::open(self.folder.join("trace"))?.take(TEXT).read_to_string(&mut text)?;
        Ok((text.lines().filter_map(Step::read).collect(), is_lossy(&text)))
    }
}

impl Drop for Drops {
    fn drop(&mut self) {
        drop(self.pipe.take());
        // Where it stands all the same, the next one sweeps it.
        let _ = fs::remove_dir(&self.folder);
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

/// `# entries-in-buffer/entries-written: 102/102`, and a line where some are missing.
fn is_lossy(text: &str) -> bool {
    let counts = text.lines().find_map(|line| line.split_once("entries-written: ")).map(|(_, counts)| counts);
    let pair = counts.and_then(|counts| counts.split_whitespace().next()?.split_once('/'));
    pair.is_none_or(|(kept, written)| kept != written) || text.contains("LOST")
}

/// Those of processes that are gone; one that runs in another PID namespace holds its own.
fn sweep(instances: &Path, is_gone: impl Fn(u32) -> bool) {
    for entry in fs::read_dir(instances).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let number = name.to_str().and_then(|name| name.strip_prefix(PREFIX)?.parse::<u32>().ok());
        if number.is_some_and(&is_gone) {
            let _ = fs::remove_dir(entry.path()); // refused while it is held
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_that_ran_over_is_lossy() {
        let head = |counts: &str| {
            format!("# tracer: nop\n#\n# entries-in-buffer/entries-written: {counts}   #P:2\n")
        };
        assert!(!is_lossy(&head("102/102")));
        assert!(is_lossy(&head("102/103")) && is_lossy(""));
        assert!(is_lossy(&(head("7/7") + "CPU:1 [LOST 12 EVENTS]\n")));
    }
}
