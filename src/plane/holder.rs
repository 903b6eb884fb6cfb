//! Who holds what we want: the process behind a UDP port or a TUN device, out of `/proc`. Only read after a
//! refusal, to say whose it is; what cannot be seen from here is said, too.

use std::{
    fmt, fs,
    path::{Path, PathBuf},
};

/// Who has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Holder {
    /// This process.
    Process {
        /// Its id.
        pid: u32,
        /// Its command name.
        name: String,
    },
    /// No process that can be seen.
    Unseen,
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Holder::Process { pid, name } => write!(f, "process {pid} ({name})"),
            Holder::Unseen => f.write_str("no process that can be seen from here"),
        }
    }
}

/// Who has a UDP socket bound to `port`; `table` is `udp` or `udp6`.
pub(super) fn of_udp_port(table: &str, port: u16) -> Holder {
    // Not /proc/net: that is the namespace of the process's first thread.
    let rows = fs::read_to_string(Path::new("/proc/thread-self/net").join(table)).unwrap_or_default();
    let inodes: Vec<u64> = inodes_bound_to(&rows, port).collect();
    let wanted: Vec<PathBuf> = inodes.iter().map(|inode| format!("socket:[{inode}]").into()).collect();
    descriptors().find_map(|fd| wanted.contains(&fd.target).then(|| fd.holder())).unwrap_or(Holder::Unseen)
}

/// The socket inodes with this local port in a `/proc/net/udp` table (proc_pid_net(5)).
fn inodes_bound_to(table: &str, port: u16) -> impl Iterator<Item = u64> {
    table.lines().skip(1).filter_map(move |row| {
        let mut fields = row.split_whitespace();
        let (_, local) = fields.nth(1)?.rsplit_once(':')?;
        let bound = u16::from_str_radix(local, 16).ok()?;
        // sl local remote st queues tr:tm retrnsmt uid timeout inode
        let inode = fields.nth(7)?.parse().ok()?;
        (bound == port && inode != 0).then_some(inode)
    })
}

/// Who has the TUN device `name` of this thread's network namespace open: a process that lives there, too, since
/// other namespaces have devices of the same name, and the kernel tells only the name.
pub(super) fn of_tun(name: &str) -> Holder {
    let line = format!("iff:\t{name}");
    let here = fs::read_link("/proc/thread-self/ns/net").ok();
    descriptors()
        .filter(|fd| fd.target == Path::new("/dev/net/tun"))
        .filter(|fd| fd.info().lines().any(|told| told == line))
        .find(|fd| here.is_some() && fd.namespaces().any(|there| Some(there) == here))
        .map_or(Holder::Unseen, |fd| fd.holder())
}

/// One open file of one process.
struct Descriptor {
    pid: u32,
    number: u32,
    target: PathBuf,
}

impl Descriptor {
    /// What the kernel tells of it (for a TUN, its device).
    fn info(&self) -> String {
        fs::read_to_string(format!("/proc/{}/fdinfo/{}", self.pid, self.number)).unwrap_or_default()
    }

    /// The network namespaces that the process's threads live in.
    fn namespaces(&self) -> impl Iterator<Item = PathBuf> + use<> {
        let tasks = PathBuf::from(format!("/proc/{}/task", self.pid));
        numbers_in(&tasks).filter_map(move |task| fs::read_link(tasks.join(format!("{task}/ns/net"))).ok())
    }

    fn holder(&self) -> Holder {
        let name = fs::read_to_string(format!("/proc/{}/comm", self.pid)).unwrap_or_default();
        Holder::Process { pid: self.pid, name: name.trim_end().to_owned() }
    }
}

/// Every open file of every process that we may look into.
fn descriptors() -> impl Iterator<Item = Descriptor> {
    numbers_in(Path::new("/proc")).flat_map(|pid| {
        let folder = PathBuf::from(format!("/proc/{pid}/fd"));
        numbers_in(&folder).filter_map(move |number| {
            let target = fs::read_link(folder.join(number.to_string())).ok()?;
            Some(Descriptor { pid, number, target })
        })
    })
}

/// The entries of a folder whose names are numbers; none if it may not be read.
fn numbers_in(folder: &Path) -> impl Iterator<Item = u32> + use<> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::UdpSocket;

    #[test]
    fn a_port_held_by_this_process_names_this_process() {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let holder = of_udp_port("udp", socket.local_addr().unwrap().port());
        assert!(matches!(holder, Holder::Process { pid, .. } if pid == std::process::id()), "{holder:?}");
    }

    #[test]
    fn a_port_that_nobody_bound_has_no_holder() {
        assert_eq!(of_udp_port("udp", 0), Holder::Unseen);
    }

    #[test]
    fn rows_of_other_ports_of_the_kernel_and_of_nonsense_are_passed_over() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops
  1: 00000000:CA6C 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 4711 2 0000000000000000 0
  2: 00000000:CA6D 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 4712 2 0000000000000000 0
  3: 00000000000000000000000000000000:CA6C 00000000000000000000000000000000:0000 07 00000000:00000000 00:00000000 00000000 0 0 4713 2 0 0
  4: 00000000:CA6C 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 0 2 0000000000000000 0
  5: nonsense\n\n";
        assert_eq!(inodes_bound_to(table, 51820).collect::<Vec<_>>(), [4711, 4713]);
    }
}
