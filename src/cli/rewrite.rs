//! A configuration that is altered: one at a time, and in one step, so that nobody ever sees half of it.

use std::{
    ffi::OsString,
    fmt,
    fs::{self, File, OpenOptions, Permissions, TryLockError},
    io::{self, Write},
    os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, fchown},
    path::{Path, PathBuf},
    process::ExitCode,
    thread,
    time::Duration,
};

use zeroize::Zeroizing;

use super::disk::{self, FileError, ReadError};
use crate::config::{Config, EditError};

/// How long another command may take with the files of the same folder: 100 times this.
const TURN: Duration = Duration::from_millis(100);
const TURNS: u32 = 100;

/// A checked configuration that nobody else alters as long as this lives. (The lock is the folder's: it needs no file of
/// its own, and it stays where it is when the configuration is replaced.)
pub struct Held {
    /// As it was named: key files are looked for beside it.
    pub path: PathBuf,
    /// Its text.
    pub text: Zeroizing<String>,
    /// What it says.
    pub config: Config,
    /// Behind all links: this one is replaced, not a link to it.
    target: PathBuf,
    owner: Owner,
    _lock: File,
}

/// Whose a file is, and who may read it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner {
    /// Its user …
    pub uid: u32,
    /// … and group.
    pub gid: u32,
    mode: u32,
}

impl Owner {
    fn of(metadata: &fs::Metadata) -> Self {
        Self { uid: metadata.uid(), gid: metadata.gid(), mode: metadata.mode() & 0o7777 }
    }

    /// Its permission bits.
    pub fn mode(self) -> u32 {
        self.mode
    }

    /// May others than the owner read it?
    pub fn is_open(self) -> bool {
        self.mode & 0o077 != 0
    }

    /// The same owner's alone.
    pub fn alone(self) -> Self {
        Self { mode: 0o600, ..self }
    }
}

/// Why a configuration was not altered.
#[derive(Debug)]
pub enum RewriteError {
    /// It could not be read, or is wrong, before or after.
    Read(ReadError),
    /// It could not be written.
    File(FileError),
    /// It cannot be edited.
    Edit(PathBuf, EditError),
    /// Something else, in words.
    Other(String),
}

impl fmt::Display for RewriteError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Read(error) => error.fmt(f),
            Self::File(error) => error.fmt(f),
            Self::Edit(path, error) => write!(f, "cannot edit {}: {error}", path.display()),
            Self::Other(why) => f.write_str(why),
        }
    }
}
impl std::error::Error for RewriteError {}

impl RewriteError {
    /// 78 for a file that is wrong, else 1.
    pub fn exit_code(&self) -> ExitCode {
        match self {
            Self::Read(error) => error.exit_code(),
            _ => ExitCode::FAILURE,
        }
    }
}

impl From<String> for RewriteError {
    fn from(why: String) -> Self {
        Self::Other(why)
    }
}

impl From<FileError> for RewriteError {
    fn from(error: FileError) -> Self {
        Self::File(error)
    }
}

impl Held {
    /// Waits for its turn, reads and checks.
    pub fn open(path: &Path) -> Result<Self, RewriteError> {
        let target =
            fs::canonicalize(path).map_err(|error| RewriteError::Read(disk::unreadable(path, error)))?;
        let lock = lock(target.parent().unwrap_or(Path::new("/")))?;
        let (config, text, metadata) = disk::read_whole(path).map_err(RewriteError::Read)?;
        Ok(Self { path: path.to_owned(), text, config, target, owner: Owner::of(&metadata), _lock: lock })
    }

    /// Whose it is.
    pub fn owner(&self) -> Owner {
        self.owner
    }

    /// The folder that relative paths in it start at.
    pub fn folder(&self) -> &Path {
        self.path.parent().unwrap_or(Path::new(""))
    }

    /// An error of editing it.
    pub fn cannot_edit(&self) -> impl Fn(EditError) -> RewriteError {
        |error| RewriteError::Edit(self.path.clone(), error)
    }

    /// Replaces it by this text, if that is a good configuration. Owner, group and mode stay.
    pub fn save(&self, text: &str) -> Result<(), RewriteError> {
        disk::check(&self.path, text, self.owner.mode).map_err(RewriteError::Read)?;
        let now = disk::read_secret(&self.path)?;
        if *now != *self.text {
            let why = format!(
                "{} was changed by somebody else meanwhile; run the command again",
                self.path.display()
            );
            return Err(RewriteError::Other(why));
        }
        replace(&self.target, text, self.owner)?;
        Ok(())
    }
}

/// Writes a new file of this owner; there must be none.
pub fn create(path: &Path, text: &str, owner: Owner) -> Result<(), FileError> {
    write(path, text, owner).map_err(|source| {
        let remedy = match source.kind() {
            io::ErrorKind::AlreadyExists => "move it away first, or choose another name",
            io::ErrorKind::NotFound => "make its folder first",
            _ => "free some space, or run vpnd as somebody who may write there, such as root",
        };
        FileError { attempted: "cannot create", path: path.to_owned(), source, remedy: remedy.to_owned() }
    })
}

/// Puts this text in the place of a file: what is there is the old one or the new one, whatever happens.
fn replace(target: &Path, text: &str, owner: Owner) -> Result<(), FileError> {
    let mut name = OsString::from(".");
    name.push(target.file_name().unwrap_or_default());
    name.push(".new");
    let beside = target.with_file_name(name);
    let _ = fs::remove_file(&beside); // of one that was killed: we have the lock
    let written = write(&beside, text, owner).and_then(|()| {
        fs::rename(&beside, target)?;
        // The folder's entry, too, is to outlast a power cut.
        File::open(target.parent().unwrap_or(Path::new("/")))?.sync_all()
    });
    written.map_err(|source| {
        let _ = fs::remove_file(&beside); // the first error is the one to tell
        let remedy = match source.kind() {
            io::ErrorKind::PermissionDenied => "run vpnd as the file's owner, or as root",
            io::ErrorKind::ReadOnlyFilesystem => "it is on a file system that is read-only",
            _ => "it is as it was before",
        };
        FileError { attempted: "cannot replace", path: target.to_owned(), source, remedy: remedy.to_owned() }
    })
}

fn write(path: &Path, text: &str, owner: Owner) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    let mut fill = || {
        file.write_all(text.as_bytes())?;
        let made = Owner::of(&file.metadata()?);
        if (made.uid, made.gid) != (owner.uid, owner.gid) {
            fchown(&file, Some(owner.uid), Some(owner.gid))?;
        }
        file.set_permissions(Permissions::from_mode(owner.mode))?;
        file.sync_all()
    };
    fill().inspect_err(|_| {
        let _ = fs::remove_file(path); // the first error is the one to tell
    })
}

fn lock(folder: &Path) -> Result<File, RewriteError> {
    let failed = |source| FileError {
        attempted: "cannot lock",
        path: folder.to_owned(),
        source,
        remedy: "run vpnd as somebody who may read the folder, such as root".to_owned(),
    };
    let file = File::open(folder).map_err(failed)?;
    for _ in 0..TURNS {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) => thread::sleep(TURN),
            Err(TryLockError::Error(error)) => return Err(failed(error).into()),
        }
    }
    let why = format!(
        "another command has held {} for {} s; try again when it has ended",
        folder.display(),
        (TURN * TURNS).as_secs()
    );
    Err(RewriteError::Other(why))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{chown, symlink};

    use super::*;

    const TEXT: &str = "[interface]\nprivate_key = \"yAnz5TF+lXXJte14tji3zlMNq+hd2rYUIgJBgB3fBmk=\"\n";

    fn file() -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("vpn0.toml");
        disk::write_secret(&path, TEXT, false).unwrap();
        (folder, path)
    }

    #[test]
    fn owner_and_mode_stay_and_nothing_else_is_left() {
        let (folder, path) = file();
        fs::set_permissions(&path, Permissions::from_mode(0o400)).unwrap();
        let owner = if fs::metadata(&path).unwrap().uid() == 0 {
            (12, 34)
        } else {
            (fs::metadata(&path).unwrap().uid(), fs::metadata(&path).unwrap().gid())
        };
        chown(&path, Some(owner.0), Some(owner.1)).unwrap();
        fs::write(folder.path().join(".vpn0.toml.new"), "of one that was killed").unwrap();
        let held = Held::open(&path).unwrap();
        held.save(&format!("# new\n{TEXT}")).unwrap();
        let metadata = fs::metadata(&path).unwrap();
        assert_eq!((metadata.uid(), metadata.gid(), metadata.mode() & 0o7777), (owner.0, owner.1, 0o400));
        assert!(fs::read_to_string(&path).unwrap().starts_with("# new\n"));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_link_stays_one_and_what_it_leads_to_is_replaced() {
        let (folder, path) = file();
        let link = folder.path().join("link.toml");
        symlink("vpn0.toml", &link).unwrap();
        Held::open(&link).unwrap().save(&format!("# new\n{TEXT}")).unwrap();
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert!(fs::read_to_string(&path).unwrap().starts_with("# new\n"));
    }

    #[test]
    fn a_text_that_is_wrong_or_that_somebody_else_changed_is_left_as_it_is() {
        let (_folder, path) = file();
        let held = Held::open(&path).unwrap();
        let error = held.save(&format!("{TEXT}colour = 1\n")).unwrap_err();
        assert!(error.to_string().contains("unknown key \"colour\""), "{error}");
        assert_eq!(fs::read_to_string(&path).unwrap(), TEXT);
        fs::write(&path, format!("{TEXT}# theirs\n")).unwrap();
        let error = held.save(&format!("{TEXT}# ours\n")).unwrap_err().to_string();
        assert!(error.contains("meanwhile"), "{error}");
        assert!(fs::read_to_string(&path).unwrap().ends_with("# theirs\n"));
    }
}
