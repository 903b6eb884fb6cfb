//! A named network namespace, as `ip netns add` makes it, that vanishes when its last owner lets go.

use std::{
    fs::{self, File, Permissions},
    io,
    os::{
        fd::{AsRawFd, RawFd},
        unix::{fs::PermissionsExt, net::UnixListener},
    },
    panic::resume_unwind,
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
    thread,
};

use super::{
    error::{Attempted, LabError},
    leftovers, link,
    netlink::inside,
    process::Process,
};
use crate::sys;

/// Where `ip netns` keeps the names.
const NAMES: &str = "/run/netns";

/// A network namespace with a name, and a private folder for what runs in it.
///
/// `ip netns exec NAME …` works. Clones share it; when the last one is dropped, also by a panic, links, name
/// and folder are gone. What a killed lab left under the same name is removed by [`Namespace::create`].
#[derive(Clone, Debug)]
pub struct Namespace(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    name: String,
    folder: PathBuf,
    file: File,
    _claim: UnixListener,
}

impl Namespace {
    /// Makes it, with `lo` up. Needs root, or the user namespace of [`super::rootless`].
    pub fn create(name: &str) -> Result<Self, LabError> {
        let claim = leftovers::claim(name)?;
        leftovers::sweep(name)?;
        let undo = Undo { name };
        make_folder(&leftovers::folder(name))?;
        make_names()?;
        let file = mount_new(name)?;
        std::mem::forget(undo);
        let namespace = Self(Arc::new(Inner {
            name: name.to_owned(),
            folder: leftovers::folder(name),
            file,
            _claim: claim,
        }));
        link::up(&namespace, "lo")?;
        Ok(namespace)
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// A folder (mode 0700) for configurations, sockets and logs of what runs in it; vanishes with it.
    pub fn folder(&self) -> &Path {
        &self.0.folder
    }

    /// Runs `work` in a thread inside this namespace and hands back what it returns; a panic comes through.
    /// Sockets opened there stay in the namespace wherever they are used later.
    ///
    /// # Panics
    /// When the thread cannot enter the namespace, which is open, so that only a missing capability remains.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        inside(&self.0.file, work)
    }

    /// A command that will run in this namespace.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Result<Command, LabError> {
        let mut command = Command::new(program);
        self.enter_on_exec(&mut command)?;
        Ok(command)
    }

    /// Starts a program in this namespace; it ends when the [`Process`] is dropped. Its standard error goes to
    /// `label`.log in the [folder](Self::folder), which is emptied first.
    pub fn spawn(&self, label: &str, command: Command) -> Result<Process, LabError> {
        Process::spawn(self, label, command)
    }

    /// Writes a setting below `/proc/sys/net` of this namespace, such as `ipv4.ip_forward`.
    pub fn sysctl(&self, key: &str, value: &str) -> Result<(), LabError> {
        let path = Path::new("/proc/sys/net").join(key.replace('.', "/"));
        self.run(|| fs::write(&path, value))
            .attempted(|| format!("set net.{key} = {value} in {}", self.name()))
    }

    pub(super) fn file(&self) -> &File {
        &self.0.file
    }

    pub(super) fn raw_fd(&self) -> RawFd {
        self.0.file.as_raw_fd()
    }

    pub(super) fn enter_on_exec(&self, command: &mut Command) -> Result<(), LabError> {
        let file = self.0.file.try_clone().attempted(|| format!("open namespace {} again", self.name()))?;
        sys::namespace::enter_network_on_exec(command, file.into());
        Ok(())
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        // A program that a person started inside keeps the namespace alive; it shall not keep the links.
        let _ = link::delete_all(&self.file);
        leftovers::remove(&self.name);
    }
}

/// Removes a half-made namespace.
struct Undo<'a> {
    name: &'a str,
}

impl Drop for Undo<'_> {
    fn drop(&mut self) {
        leftovers::remove(self.name);
    }
}

/// The file that names the namespace.
pub(super) fn path(name: &str) -> PathBuf {
    Path::new(NAMES).join(name)
}

fn make_folder(folder: &Path) -> Result<(), LabError> {
    let make = || {
        fs::create_dir_all(folder)?;
        fs::set_permissions(folder, Permissions::from_mode(0o700))
    };
    make().attempted(|| format!("make folder {}", folder.display()))
}

/// Makes `/run/netns` a shared mount, as `ip netns` does: so the names show, and vanish, in every mount
/// namespace of the host, and `ip netns del` in one of them does not leave them busy in another.
fn make_names() -> Result<(), LabError> {
    let names = Path::new(NAMES);
    let make = || {
        fs::create_dir_all(names)?;
        match sys::namespace::share_mounts(names) {
            // Not a mount point yet.
            Err(e) if e.kind() == io::ErrorKind::InvalidInput => {
                sys::namespace::bind_mount_recursive(names, names)?;
                sys::namespace::share_mounts(names)
            }
            other => other,
        }
    };
    // Two labs at once would mount it twice.
    let _lock = leftovers::lock_names();
    make().attempted(|| format!("prepare {NAMES}"))
}

/// A new namespace comes into being in a thread of its own and lives on by its mount.
fn mount_new(name: &str) -> Result<File, LabError> {
    let target = path(name);
    let make = || {
        sys::namespace::unshare_network()?;
        File::options().write(true).create_new(true).open(&target)?;
        sys::namespace::bind_mount(Path::new("/proc/thread-self/ns/net"), &target)?;
        File::open(&target)
    };
    thread::scope(|scope| scope.spawn(make).join())
        .unwrap_or_else(|panic| resume_unwind(panic))
        .attempted(|| format!("make network namespace {name}"))
}
