//! Two hosts on a cable, and the same program on both; all of it vanishes on drop.

use std::{
    fs,
    net::Ipv4Addr,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use vpnd::lab::{Daemon, Host, Process, link};

use crate::{
    contender::Contender,
    failure::{Attempted, Failure, Result},
    iperf,
    proc::{self, Memory},
    programs, stop,
};

/// Every tunnel device.
pub const DEVICE: &str = "vpn0";
/// The MTU inside, the same for all.
pub const MTU: u16 = 1420;

/// Both ends.
pub struct Pair {
    pub left: End,
    pub right: End,
}

/// A host with a program on it.
pub struct End {
    pub host: Host,
    /// Its address inside the tunnel; on the cable where there is none.
    pub inner: Ipv4Addr,
    carrier: Carrier,
}

/// What carries the tunnel.
pub enum Carrier {
    /// Nothing: the cable itself.
    Cable,
    Vpnd(Daemon),
    Other(Other),
}

/// A program that is not ours.
pub struct Other {
    process: Process,
    output: PathBuf,
}

impl Other {
    /// Starts it; what it prints goes to a file.
    pub fn spawn(host: &Host, mut command: Command) -> Result<Self> {
        command.stdout(output(host.folder(), "other")?);
        Ok(Self { process: host.spawn("other", command)?, output: host.folder().join("other.out") })
    }

    /// All that it said.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.output).unwrap_or_default() + &self.process.log()
    }
}

impl Carrier {
    fn pid(&self) -> Option<u32> {
        match self {
            Self::Cable => None,
            Self::Vpnd(daemon) => Some(daemon.pid()),
            Self::Other(other) => Some(other.process.pid()),
        }
    }

    fn log(&self) -> String {
        match self {
            Self::Cable => String::new(),
            Self::Vpnd(daemon) => daemon.log(),
            Self::Other(other) => other.log(),
        }
    }
}

impl Pair {
    /// Builds and starts both, and waits until a ping passes. Each end has so many peers more that never come.
    pub fn start(contender: &Contender, strangers: usize) -> Result<Self> {
        let hosts = cable()?;
        let [left, right] = programs::start(contender, &hosts, strangers)?;
        let [left_host, right_host] = hosts;
        let [one, two] =
            if matches!(left, Carrier::Cable) { [outer(1), outer(2)] } else { [inner(1), inner(2)] };
        let pair = Self {
            left: End { host: left_host, inner: one, carrier: left },
            right: End { host: right_host, inner: two, carrier: right },
        };
        pair.carries(&contender.label)?;
        Ok(pair)
    }

    fn carries(&self, label: &str) -> Result<()> {
        let to = self.right.inner.into();
        let answered = || self.left.host.ping(to, 1).is_ok_and(|pings| pings.received == 1);
        if stop::wait_until(Duration::from_secs(20), answered)? {
            return Ok(());
        }
        let logs = [&self.left, &self.right].map(|end| end.carrier.log()).join("\n");
        Err(Failure::Said(format!("no ping passes {label}: {logs}")))
    }

    fn pids(&self) -> impl Iterator<Item = u32> {
        [&self.left, &self.right].into_iter().filter_map(|end| end.carrier.pid())
    }

    /// What both have cost until now.
    pub fn cpu_seconds(&self) -> Result<f64> {
        self.pids().map(proc::cpu_seconds).sum()
    }

    /// Of the one that has more; `None` where there is no program.
    pub fn memory(&self) -> Result<Option<Memory>> {
        let all = self.pids().map(proc::memory).collect::<Result<Vec<_>>>()?;
        let larger = |a: Memory, b: Memory| Memory { now: a.now.max(b.now), peak: a.peak.max(b.peak) };
        Ok(all.into_iter().reduce(larger))
    }
}

impl End {
    /// Does anything listen on this TCP port?
    pub fn listens(&self, port: u16) -> bool {
        self.host.run(|| {
            ["tcp", "tcp6"].iter().any(|table| {
                let text = fs::read_to_string(format!("/proc/thread-self/net/{table}")).unwrap_or_default();
                iperf::names_listener(&text, port)
            })
        })
    }

    /// A file in the host's folder for what a program prints.
    pub fn output(&self, label: &str) -> Result<fs::File> {
        output(self.host.folder(), label)
    }
}

/// A file `LABEL.out` for what a program prints.
pub fn output(folder: &Path, label: &str) -> Result<fs::File> {
    let path = folder.join(format!("{label}.out"));
    fs::File::create(&path).attempted(|| format!("write {}", path.display()))
}

/// An address inside the tunnel.
pub fn inner(number: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 77, 0, number)
}

/// An address on the cable.
pub fn outer(number: u8) -> Ipv4Addr {
    Ipv4Addr::new(192, 0, 2, number)
}

/// Two hosts whose `eth0` are joined.
fn cable() -> Result<[Host; 2]> {
    let (left, right) = (Host::create("vpnd-bench-l")?, Host::create("vpnd-bench-r")?);
    link::veth(&left, "eth0", &right, "eth0")?;
    left.add_address("eth0", &format!("{}/24", outer(1)))?;
    right.add_address("eth0", &format!("{}/24", outer(2)))?;
    Ok([left, right])
}
