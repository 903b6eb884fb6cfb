//! What the daemon may do, made less in two steps: once it has read its file, and once all is made that it needs. By
//! then it can open no device and no raw socket, start no program, and see no file but the few that it keeps or reads
//! again; a data thread not even those. What could not be had is said, here and in the status.

use std::{
    env, fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use tracing::{info, warn};

use super::{Options, vault};
use crate::{
    config::{Config, SocketAccess},
    control,
    plane::NICE,
    sys::{
        namespace, process,
        sandbox::{
            self, Folders,
            capabilities::{self, One},
            seccomp::{self, Stage, Threads},
        },
    },
};

/// What a tunnel needs as long as it runs: netlink, the socket mark, and ports below 1024 where a reload wants one.
const RUNNING: [One; 2] = [One::CAP_NET_ADMIN, One::CAP_NET_BIND_SERVICE];
/// Until all is made: the raw sockets that ICMP errors leave by.
const SET_UP: One = One::CAP_NET_RAW;
/// Where the file gives the control sockets to others.
const GIVE: [One; 2] = [One::CAP_CHOWN, One::CAP_FOWNER];

/// What is in force.
pub(super) struct Sandbox {
    kept: Vec<One>,
    chown: bool,
    report: control::Sandbox,
}

impl Sandbox {
    /// The first step. To be called while there is one thread.
    pub(super) fn enter(config: &Config, options: &Options) -> Self {
        let sockets = &config.interface.sockets;
        let chown = sockets.owner.is_some() || sockets.group.is_some();
        let mut entered = Self { kept: Vec::new(), chown, report: control::Sandbox::default() };
        entered.report.key_page = vault::is_locked();
        if !config.interface.sandbox {
            warn!(
                "the sandbox is off (`sandbox = \"off\"`): whoever takes over this process has all its rights, and each \
                 system call"
            );
            entered.report.missing.push("switched off in the file".to_owned());
            return entered;
        }
        entered.report.on = true;
        let places = Places::of(options);
        entered.kept = kept(config, &places, chown);
        entered.privileges();
        match sandbox::files::only(&places.folders()) {
            Ok(version) => entered.report.landlock = Some(version),
            Err(absent) => entered.lacks(absent),
        }
        let mut at_first = entered.kept.clone();
        at_first.push(SET_UP);
        entered.capabilities(&at_first);
        if let Err(absent) = seccomp::apply(Stage::SetUp, Threads::This) {
            entered.lacks(absent);
        }
        entered
    }

    /// The second step: all is made. Threads that are started from here on are bound, too, as those are that there are.
    pub(super) fn narrow(&mut self) {
        if !self.report.on {
            return;
        }
        self.report
            .missing
            .retain(|missing| !missing.starts_with("seccomp") && !missing.contains("capabilit"));
        let kept = self.kept.clone();
        self.capabilities(&kept);
        match seccomp::apply(Stage::Running { chown: self.chown }, Threads::All) {
            Ok(()) => self.report.seccomp = Some("kill".to_owned()),
            Err(absent) => self.lacks(absent),
        }
        let Self { report, .. } = self;
        let (capabilities, landlock) = (report.capabilities.join(" "), report.landlock);
        info!(seccomp = report.seccomp, landlock, capabilities, "the sandbox is closed");
        for missing in &report.missing {
            warn!("the sandbox has a gap: {missing}");
        }
    }

    /// May data threads narrow themselves further?
    pub(super) fn confines(&self) -> bool {
        self.report.seccomp.is_some()
    }

    /// Why the control sockets cannot be given to these any more.
    pub(super) fn cannot_give(&self, sockets: &SocketAccess) -> Option<String> {
        let wanted = if sockets.owner.is_some() { "socket_owner" } else { "socket_group" };
        let is_wanted = sockets.owner.is_some() || sockets.group.is_some();
        (is_wanted && self.report.on && !self.chown).then(|| {
            format!(
                "interface.{wanted}: the file named none at the start, so the sandbox has given the right to it up; restart \
                 vpnd, which loses no session under a service manager"
            )
        })
    }

    /// For the status.
    pub(super) fn report(&self) -> &control::Sandbox {
        &self.report
    }

    fn privileges(&mut self) {
        match sandbox::no_new_privileges() {
            Ok(()) => self.report.no_new_privileges = true,
            Err(error) => self.lacks(format!("no_new_privs: {error}")),
        }
    }

    fn capabilities(&mut self, kept: &[One]) {
        match capabilities::keep(kept) {
            Ok(is_empty) => self.report.bounding_set_empty = is_empty,
            Err(error) => self.lacks(format!(
                "capabilities could not be given up: {error} (a unit that grants more than is kept needs \
                 SystemCallFilter=capset)"
            )),
        }
        self.report.capabilities = capabilities::in_effect();
    }

    fn lacks(&mut self, what: impl std::fmt::Display) {
        let what = what.to_string();
        if !self.report.missing.contains(&what) {
            self.report.missing.push(what);
        }
    }
}

/// Files and folders of this daemon.
struct Places {
    /// The configuration, and the key files that it names.
    files: Vec<PathBuf>,
    /// Their folders.
    read: Vec<PathBuf>,
    state: PathBuf,
    sockets: [PathBuf; 2],
}

impl Places {
    /// Those that do not exist yet are made: what is not there when the sandbox closes cannot be named.
    fn of(options: &Options) -> Self {
        let sockets = control::folders(&options.run_dir);
        for folder in &sockets {
            let _ = control::make_folder(folder); // who needs it says why it is not there
        }
        let _ = fs::create_dir_all(&options.state_dir); // as above
        let mut read = Vec::new();
        for file in &options.files {
            read.extend(folder_of(file));
            // A link may lead elsewhere, now or after a change.
            read.extend(fs::canonicalize(file).ok().as_deref().and_then(folder_of));
        }
        read.extend(env::var_os("CREDENTIALS_DIRECTORY").map(PathBuf::from));
        read.sort_unstable();
        read.dedup();
        Self { read, files: options.files.clone(), state: options.state_dir.clone(), sockets }
    }

    fn folders(&self) -> Folders {
        // How strictly routes are filtered, whether connections are tracked; how many cores there are for us.
        const KERNEL: [&str; 3] = ["/proc", "/sys/fs/cgroup", "/sys/devices/system/cpu"];
        let mut read = self.read.clone();
        read.extend(KERNEL.map(PathBuf::from));
        Folders {
            read,
            keep: vec![self.state.clone()],
            sockets: self.sockets.to_vec(),
            devices: vec!["/dev/net/tun".into()],
        }
    }

    /// Is it root who runs us, and does some of it belong to somebody else?
    fn need_override(&self) -> bool {
        let mut all = self.files.iter().chain(&self.read).chain([&self.state]).chain(&self.sockets);
        let is_anothers = |path: &PathBuf| fs::metadata(path).is_ok_and(|found| found.uid() != 0);
        namespace::effective_ids().0 == 0 && all.any(is_anothers)
    }
}

fn folder_of(file: &Path) -> Option<PathBuf> {
    let folder = file.parent()?;
    Some(if folder.as_os_str().is_empty() { PathBuf::from(".") } else { folder.to_owned() })
}

/// What is needed as long as the tunnel runs. Where a limit can be raised in its stead, a capability is not.
fn kept(config: &Config, places: &Places, chown: bool) -> Vec<One> {
    let mut kept = RUNNING.to_vec();
    if chown {
        kept.extend(GIVE);
    }
    if places.need_override() {
        kept.push(One::CAP_DAC_OVERRIDE);
    }
    let nice = config.interface.nice.unwrap_or(NICE);
    if process::allow_nice(nice).is_err() && capabilities::has(One::CAP_SYS_NICE) {
        kept.push(One::CAP_SYS_NICE);
    }
    if process::allow_locking().is_err() && capabilities::has(One::CAP_IPC_LOCK) {
        kept.push(One::CAP_IPC_LOCK);
    }
    kept
}
