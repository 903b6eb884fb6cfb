//! A listening socket at a path: made so that nobody but its owner ever reaches it, in place of one that a
//! killed daemon left, and never in place of one that answers.

use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;
use std::{fs, io};

use tokio::net::{UnixListener, UnixStream};
use tokio::time::{sleep, timeout};

/// Why a socket could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// The name cannot be that of an interface.
    #[error("{0:?} cannot name an interface: 1 to 15 characters, without spaces, '/' and ':'")]
    Name(String),
    /// The path does not fit into a socket address.
    #[error("{0} is too long for the path of a socket (107 bytes): choose a shorter run directory")]
    Path(PathBuf),
    /// Somebody listens there.
    #[error(
        "{path} answers: {holder} already runs interface {name}; stop it, or give this interface another name"
    )]
    Held {
        /// The socket.
        path: PathBuf,
        /// The interface.
        name: String,
        /// Who, as far as it can be known.
        holder: Holder,
    },
    /// Something else is there.
    #[error("{0} is in the way and is not a socket: remove it")]
    NotASocket(PathBuf),
    /// A system call failed.
    #[error("cannot {what} {path}: {error}{}", remedy(what, error))]
    Io {
        /// What was attempted.
        what: &'static str,
        /// With which file.
        path: PathBuf,
        /// What came back.
        error: io::Error,
    },
    /// Metrics cannot be served at an address.
    #[error("cannot listen at {address} for metrics (metrics_listen): {error}")]
    Metrics {
        /// Where.
        address: std::net::SocketAddr,
        /// What came back.
        error: io::Error,
    },
    /// A socket that was served is served no longer.
    #[error("{path} is no longer served: {why}")]
    Ended {
        /// The socket.
        path: PathBuf,
        /// What happened.
        why: String,
    },
}

/// Who listens at a socket (SO_PEERCRED).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// Its process, if it can be seen from here.
    pub pid: Option<i32>,
    /// What that process calls itself.
    pub program: Option<String>,
}

impl std::fmt::Display for Holder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (&self.program, self.pid) {
            (Some(program), Some(pid)) if program == "vpnd" => write!(f, "another vpnd (pid {pid})"),
            (Some(program), Some(pid)) => write!(f, "{program} (pid {pid})"),
            (None, Some(pid)) => write!(f, "process {pid}"),
            (_, None) => f.write_str("a process outside this PID namespace"),
        }
    }
}

fn remedy(what: &str, error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::PermissionDenied if what.contains("owner") => {
            "; only root gives files away, and others to groups that they belong to (a service needs \
             SupplementaryGroups= and SystemCallFilter=@chown): see socket_owner and socket_group"
        }
        io::ErrorKind::PermissionDenied => "; run as root, or choose a run directory of your own",
        io::ErrorKind::ReadOnlyFilesystem => "; choose a run directory that can be written",
        _ => "",
    }
}

/// Whose a socket is, and who may speak to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Access {
    /// User; none: who runs us.
    pub owner: Option<u32>,
    /// Group; none: that of who runs us.
    pub group: Option<u32>,
    /// Permission bits.
    pub mode: u32,
}

impl Default for Access {
    fn default() -> Self {
        Self { owner: None, group: None, mode: 0o600 }
    }
}

impl Access {
    /// Nobody but the old owner, then the new one, may use it in between.
    fn give(self, path: &Path) -> Result<(), ControlError> {
        let mode = |bits| {
            fs::set_permissions(path, fs::Permissions::from_mode(bits))
                .map_err(io_error("set the mode of", path))
        };
        let now = fs::symlink_metadata(path).map_err(io_error("look at", path))?;
        let (owner, group) =
            (self.owner.filter(|uid| *uid != now.uid()), self.group.filter(|gid| *gid != now.gid()));
        // A sandbox may forbid what is not needed.
        if owner.or(group).is_some() {
            mode(self.mode & 0o600)?;
            std::os::unix::fs::lchown(path, owner, group).map_err(io_error("change the owner of", path))?;
        }
        mode(self.mode)
    }
}

/// The file of a listening socket; it is removed on drop, if it is still ours.
pub(super) struct SocketFile {
    path: PathBuf,
    inode: (u64, u64),
    /// Who runs us, as the kernel gave it to the socket.
    maker: (u32, u32),
}

impl SocketFile {
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Others may speak to it from now on; not if the file at its path is not ours any more.
    pub(super) fn give(&self, access: Access) -> Result<(), ControlError> {
        if inode(&self.path).ok() != Some(self.inode) {
            return Err(ControlError::Ended {
                path: self.path.clone(),
                why: "another file stands in its place".to_owned(),
            });
        }
        let (user, group) = self.maker;
        let owner = Some(access.owner.unwrap_or(user));
        Access { owner, group: Some(access.group.unwrap_or(group)), ..access }.give(&self.path)
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if inode(&self.path).ok() == Some(self.inode) {
            let _ = fs::remove_file(&self.path); // nobody is left to tell
        }
    }
}

/// Listens at `folder/NAME.sock`.
///
/// The socket is bound in a folder that only we can enter, gets its mode there, and appears at its path, by a
/// hard link, only then: it never stands there with another mode, or without a listener (`wg` deletes a socket
/// file that refuses it), and of two daemons that start at once only one gets the path.
pub(super) async fn listen(
    folder: &Path,
    name: &str,
    access: Access,
) -> Result<(UnixListener, SocketFile), ControlError> {
    check_name(name)?;
    let path = folder.join(format!("{name}.sock"));
    make_folder(folder)?;
    clear_abandoned(folder, name);
    let private = PrivateFolder::new(folder, name)?;
    let bound = private.0.join("new");
    if bound.as_os_str().len() > 107 || path.as_os_str().len() > 107 {
        return Err(ControlError::Path(bound));
    }
    let listener = UnixListener::bind(&bound).map_err(io_error("listen at", &bound))?;
    let made = fs::symlink_metadata(&bound).map_err(io_error("look at", &bound))?;
    access.give(&bound)?;
    let turn = take_turn(folder).await;
    take_place(&bound, &path, name).await?;
    drop(turn);
    let (inode, maker) = ((made.dev(), made.ino()), (made.uid(), made.gid()));
    Ok((listener, SocketFile { path, inode, maker }))
}

/// Of several that start at once, one at a time moves files about (flock on the folder): a third could otherwise take
/// the place of a live one that is being put back. Whoever may read the folder could hold the lock for ever, so that
/// the patience is bounded; without the lock it is as safe for all but that third.
async fn take_turn(folder: &Path) -> Option<fs::File> {
    let file = fs::File::open(folder).ok()?;
    for _ in 0..400 {
        match file.try_lock() {
            Ok(()) => return Some(file),
            Err(fs::TryLockError::WouldBlock) => sleep(Duration::from_millis(5)).await,
            Err(fs::TryLockError::Error(_)) => return None,
        }
    }
    None
}

/// Puts `bound` at `path`. Each round either succeeds, or finds a live holder, or clears one stale file away;
/// more than a few rounds mean that somebody plays with us.
async fn take_place(bound: &Path, path: &Path, name: &str) -> Result<(), ControlError> {
    for _ in 0..8 {
        match fs::hard_link(bound, path) {
            Ok(()) => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(io_error("make", path)(error)),
        }
        match fs::symlink_metadata(path) {
            Ok(found) if found.file_type().is_socket() => {}
            Ok(_) => return Err(ControlError::NotASocket(path.to_owned())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(io_error("look at", path)(error)),
        }
        refuse_if_live(path, path, name).await?;
        // Between the question and the removal another daemon may have taken the place: so the file is moved
        // aside, asked once more where nobody else can change it, and put back if it answers after all.
        let aside = bound.with_file_name("old");
        match fs::rename(path, &aside) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            moved => moved.map_err(io_error("move", path))?,
        }
        if let Err(held) = refuse_if_live(&aside, path, name).await {
            fs::hard_link(&aside, path).map_err(io_error("put back", path))?;
            return Err(held);
        }
        tracing::info!(path = %path.display(), "removed the socket file of a daemon that was killed");
    }
    Err(io_error("make", path)(io::Error::from(io::ErrorKind::AlreadyExists)))
}

/// An error if somebody listens at `ask`, which belongs at `path`.
async fn refuse_if_live(ask: &Path, path: &Path, name: &str) -> Result<(), ControlError> {
    let held = |holder| ControlError::Held { path: path.to_owned(), name: name.to_owned(), holder };
    let nobody = Holder { pid: None, program: None };
    match timeout(Duration::from_secs(2), UnixStream::connect(ask)).await {
        Ok(Ok(stream)) => Err(held(holder(&stream))),
        Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionRefused => Ok(()),
        Ok(Err(error)) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        // A full backlog is somebody's too.
        Ok(Err(error)) if error.kind() == io::ErrorKind::WouldBlock => Err(held(nobody)),
        Ok(Err(error)) => Err(io_error("ask", path)(error)),
        Err(_) => Err(held(nobody)),
    }
}

fn holder(stream: &UnixStream) -> Holder {
    let pid = stream.peer_cred().ok().and_then(|who| who.pid()).filter(|pid| *pid > 0);
    let program = pid.and_then(|pid| fs::read_to_string(format!("/proc/{pid}/comm")).ok());
    Holder { pid, program: program.map(|name| name.trim_end().to_owned()) }
}

/// What the kernel takes as the name of a device.
fn check_name(name: &str) -> Result<(), ControlError> {
    let odd = |c: char| c.is_whitespace() || c.is_control() || c == '/' || c == ':';
    if name.is_empty() || name.len() > 15 || name == "." || name == ".." || name.contains(odd) {
        return Err(ControlError::Name(name.to_owned()));
    }
    Ok(())
}

/// Everybody may enter; the mode of a folder that is there already is its owner's choice.
pub fn make_folder(folder: &Path) -> Result<(), ControlError> {
    if folder.is_dir() {
        return Ok(());
    }
    let made = fs::DirBuilder::new().mode(0o755).recursive(true).create(folder);
    made.map_err(io_error("make the folder", folder))?;
    let mode = fs::Permissions::from_mode(0o755); // whatever the umask is
    fs::set_permissions(folder, mode).map_err(io_error("set the mode of", folder))
}

/// A folder `.NAME.PID.N` of our own beside the socket, gone on drop.
struct PrivateFolder(PathBuf);

impl PrivateFolder {
    fn new(folder: &Path, name: &str) -> Result<Self, ControlError> {
        let mut n = 0;
        loop {
            let path = folder.join(format!(".{name}.{}.{n}", std::process::id()));
            match fs::DirBuilder::new().mode(0o700).create(&path) {
                Ok(()) => return Ok(Self(path)),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists && n < 64 => n += 1,
                Err(error) => return Err(io_error("make the folder", &path)(error)),
            }
        }
    }
}

impl Drop for PrivateFolder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0); // at worst the next start clears it
    }
}

/// Removes the private folders of processes that live no longer.
fn clear_abandoned(folder: &Path, name: &str) {
    let prefix = format!(".{name}.");
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let file = entry.file_name();
        let rest = file.to_str().and_then(|file| file.strip_prefix(&prefix)?.split_once('.'));
        let Some((Ok(pid), Ok(_n))) = rest.map(|(pid, n)| (pid.parse::<u32>(), n.parse::<u32>())) else {
            continue;
        };
        if !Path::new(&format!("/proc/{pid}")).exists() {
            let _ = fs::remove_dir_all(entry.path()); // what stays is small and harmless
        }
    }
}

fn inode(path: &Path) -> io::Result<(u64, u64)> {
    fs::symlink_metadata(path).map(|found| (found.dev(), found.ino()))
}

fn io_error(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> ControlError {
    move |error| ControlError::Io { what, path: path.to_owned(), error }
}
