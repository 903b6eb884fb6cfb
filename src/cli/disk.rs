//! Files of the commands and of the daemon: configurations with the keys beside them, and secrets that only
//! their owner may read.

use std::{
    cell::RefCell,
    env, fmt,
    fs::{self, File, Metadata, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
    process::ExitCode,
};

use zeroize::Zeroizing;

use crate::config::{self, CREDENTIAL, Config, Hook, KeyFile, Problems};

/// Bytes of the largest configuration: a million peers with a few prefixes each.
const CONFIG_MAX: u64 = 512 << 20;
/// Bytes of the largest key file: a key takes 45.
const KEY_MAX: u64 = 4096;

/// A file and what it says were both needed.
#[derive(Debug)]
pub enum ReadError {
    /// It could not be read.
    Unreadable(FileError),
    /// It was read, and is wrong.
    Refused(Problems),
}

impl fmt::Display for ReadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreadable(error) => error.fmt(f),
            Self::Refused(problems) => problems.fmt(f),
        }
    }
}
impl std::error::Error for ReadError {}

impl ReadError {
    /// 78 (sysexits: EX_CONFIG) for a file that is wrong, 1 for one that cannot be read.
    pub fn exit_code(&self) -> ExitCode {
        match self {
            Self::Unreadable(_) => ExitCode::FAILURE,
            Self::Refused(_) => ExitCode::from(super::check::EX_CONFIG),
        }
    }
}

/// What was attempted with a file, what came back, what to do.
#[derive(Debug, thiserror::Error)]
#[error("{attempted} {}: {source}; {remedy}", path.display())]
pub struct FileError {
    /// Such as "read".
    pub attempted: &'static str,
    /// Which file.
    pub path: PathBuf,
    /// The kernel's answer.
    pub source: io::Error,
    /// What would do.
    pub remedy: String,
}

/// Reads and checks a configuration with the key files that it names: relative paths are relative to the
/// file's own folder, `credential:NAME` is a credential of the service manager. A file that holds secrets
/// itself must be its owner's alone.
pub fn read_config(path: &Path) -> Result<Config, ReadError> {
    read_whole(path).map(|(config, ..)| config)
}

/// The same, with the files that were read: the configuration itself, and its key files.
pub(super) fn read_config_and_name_files(path: &Path) -> Result<(Config, Vec<PathBuf>), ReadError> {
    let (text, metadata) = read(path, CONFIG_MAX).map_err(|source| unreadable(path, source))?;
    let folder = path.parent().unwrap_or(Path::new(""));
    let files = RefCell::new(vec![path.to_owned()]);
    let keys = |key: &Path| {
        files.borrow_mut().extend(key_path(folder, key));
        read_key(folder, key)
    };
    let config = config::parse_with_mode(&text, path, mode(&metadata), &keys).map_err(ReadError::Refused)?;
    Ok((config, files.into_inner()))
}

/// The hooks of a configuration; its key files are left alone.
pub(super) fn read_hooks(path: &Path) -> Result<Vec<Hook>, ReadError> {
    const SOME_KEY: &str = "AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=";
    let (text, metadata) = read(path, CONFIG_MAX).map_err(|source| unreadable(path, source))?;
    let keys = |_: &Path| Ok(KeyFile { text: Zeroizing::new(SOME_KEY.to_owned()), mode: 0o600 });
    let config = config::parse_with_mode(&text, path, mode(&metadata), &keys).map_err(ReadError::Refused)?;
    Ok(config.hooks)
}

/// The same, with its text and what is known of the file.
pub(super) fn read_whole(path: &Path) -> Result<(Config, Zeroizing<String>, Metadata), ReadError> {
    let (text, metadata) = read(path, CONFIG_MAX).map_err(|source| unreadable(path, source))?;
    let config = check(path, &text, mode(&metadata))?;
    Ok((config, text, metadata))
}

/// Checks a text as the configuration `path` with these permission bits.
pub(super) fn check(path: &Path, text: &str, mode: u32) -> Result<Config, ReadError> {
    let folder = path.parent().unwrap_or(Path::new(""));
    config::parse_with_mode(text, path, mode, &|key| read_key(folder, key)).map_err(ReadError::Refused)
}

pub(super) fn unreadable(path: &Path, source: io::Error) -> ReadError {
    let remedy = match source.kind() {
        io::ErrorKind::NotFound => {
            "write one, for which the annotated config/peer.toml is a start, or name another with --config"
        }
        io::ErrorKind::PermissionDenied => "run vpnd as the file's owner, or as root",
        _ => "name a configuration in TOML",
    };
    ReadError::Unreadable(FileError {
        attempted: "cannot read",
        path: path.to_owned(),
        source,
        remedy: remedy.to_owned(),
    })
}

/// A text file that may hold secrets.
pub(super) fn read_secret(path: &Path) -> Result<Zeroizing<String>, FileError> {
    read(path, CONFIG_MAX).map(|(text, _)| text).map_err(|source| FileError {
        attempted: "cannot read",
        path: path.to_owned(),
        source,
        remedy: "name a text file that you may read".to_owned(),
    })
}

/// Writes a secret to a new file that only its owner may read. An existing one is replaced (in one step, so
/// that nobody sees half of it) only with `force`.
pub(super) fn write_secret(path: &Path, text: &str, force: bool) -> Result<(), FileError> {
    let written = if force { replace(path, text) } else { create(path, text) };
    written.map_err(|source| {
        let remedy = match source.kind() {
            io::ErrorKind::AlreadyExists => "name another file, or replace this one with --force",
            io::ErrorKind::NotFound => "make its folder first",
            _ => "name a file in a folder that you may write to",
        };
        FileError { attempted: "cannot create", path: path.to_owned(), source, remedy: remedy.to_owned() }
    })
}

/// Writes to standard output. A reader that went away is a failure to tell, and no panic.
pub(super) fn print(command: &str, text: &str) -> ExitCode {
    let mut output = io::stdout().lock();
    match output.write_all(text.as_bytes()).and_then(|()| output.flush()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("vpnd {command}: cannot write to standard output: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Where a key file is; none: it is a credential, whose folder is known.
fn key_path(folder: &Path, path: &Path) -> Option<PathBuf> {
    let is_credential = path.to_str().is_some_and(|path| path.starts_with(CREDENTIAL));
    (!is_credential).then(|| folder.join(path))
}

fn read_key(folder: &Path, path: &Path) -> io::Result<KeyFile> {
    if let Some(name) = path.to_str().and_then(|path| path.strip_prefix(CREDENTIAL)) {
        let (text, _) = read(&credential(name)?, KEY_MAX)?;
        // systemd grants a credential by an access list, whose mask reads as group permission; its folder is
        // the service's alone.
        return Ok(KeyFile { text, mode: 0o400 });
    }
    let (text, metadata) = read(&folder.join(path), KEY_MAX)?;
    Ok(KeyFile { text, mode: mode(&metadata) })
}

/// See systemd.exec(5), LoadCredential=.
fn credential(name: &str) -> io::Result<PathBuf> {
    if name.is_empty() || name.contains('/') || name.starts_with('.') {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "no name of a credential"));
    }
    match env::var_os("CREDENTIALS_DIRECTORY") {
        Some(folder) => Ok(Path::new(&folder).join(name)),
        None => Err(io::Error::new(io::ErrorKind::NotFound, "CREDENTIALS_DIRECTORY is not set")),
    }
}

fn mode(metadata: &Metadata) -> u32 {
    metadata.mode() & 0o7777
}

/// Text of at most `limit` bytes, and what is known of one and the same open file.
fn read(path: &Path, limit: u64) -> io::Result<(Zeroizing<String>, Metadata)> {
    let file = File::open(path)?;
    let metadata = file.metadata()?;
    // Room for all of it: growing would leave copies of a key behind.
    let room = metadata.len().min(limit).max(KEY_MAX) as usize + 1;
    let mut bytes = Zeroizing::new(Vec::with_capacity(room));
    file.take(limit + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > limit {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("more than {limit} bytes")));
    }
    match String::from_utf8(std::mem::take(&mut *bytes)) {
        Ok(text) => Ok((Zeroizing::new(text), metadata)),
        Err(error) => {
            drop(Zeroizing::new(error.into_bytes()));
            Err(io::Error::new(io::ErrorKind::InvalidData, "not text in UTF-8"))
        }
    }
}

/// `O_CREAT | O_EXCL`: never through a link or into a file that is there. What could not be written whole is
/// removed.
fn create(path: &Path, text: &str) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).inspect_err(|_| {
        let _ = fs::remove_file(path); // the first error is the one to tell
    })
}

fn replace(path: &Path, text: &str) -> io::Result<()> {
    if path.is_dir() {
        return Err(io::ErrorKind::IsADirectory.into());
    }
    let mut beside = path.as_os_str().to_owned();
    beside.push(format!(".new-{}", std::process::id()));
    create(Path::new(&beside), text)?;
    fs::rename(&beside, path).inspect_err(|_| {
        let _ = fs::remove_file(&beside); // the first error is the one to tell
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    const KEY: &str = "yAnz5TF+lXXJte14tji3zlMNq+hd2rYUIgJBgB3fBmk=\n";

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().mode() & 0o7777
    }

    #[test]
    fn a_secret_is_its_owners_alone_and_never_overwrites_unasked() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("vpn0.key");
        write_secret(&path, "first\n", false).unwrap();
        assert_eq!((fs::read_to_string(&path).unwrap().as_str(), mode(&path)), ("first\n", 0o600));

        let error = write_secret(&path, "second\n", false).unwrap_err().to_string();
        assert!(error.contains("cannot create") && error.contains("--force"), "{error}");
        assert_eq!(fs::read_to_string(&path).unwrap(), "first\n");

        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        write_secret(&path, "second\n", true).unwrap();
        assert_eq!((fs::read_to_string(&path).unwrap().as_str(), mode(&path)), ("second\n", 0o600));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "nothing else is left");
    }

    #[test]
    fn a_link_is_not_followed_when_a_secret_is_created() {
        let folder = tempfile::tempdir().unwrap();
        let (target, link) = (folder.path().join("target"), folder.path().join("link"));
        std::os::unix::fs::symlink(&target, &link).unwrap();
        assert!(write_secret(&link, "x", false).is_err());
        assert!(!target.exists());
    }

    #[test]
    fn a_key_file_is_looked_for_beside_the_configuration() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("peer.toml");
        fs::write(&path, "[interface]\nprivate_key_file = \"vpn0.key\"\n").unwrap();
        let error = read_config(&path).unwrap_err().to_string();
        assert!(error.contains("peer.toml:2: interface.private_key_file: found vpn0.key"), "{error}");
        assert!(error.contains("vpnd genkey --output vpn0.key"), "{error}");

        write_secret(&folder.path().join("vpn0.key"), KEY, false).unwrap();
        assert_eq!(read_config(&path).unwrap().interface.name, "vpn0");

        fs::set_permissions(folder.path().join("vpn0.key"), fs::Permissions::from_mode(0o640)).unwrap();
        let error = read_config(&path).unwrap_err().to_string();
        assert!(error.contains("mode 0640") && error.contains("chmod 600 vpn0.key"), "{error}");
    }

    #[test]
    fn a_world_readable_file_with_a_key_inside_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("peer.toml");
        write_secret(&path, &format!("[interface]\nprivate_key = \"{}\"\n", KEY.trim()), false).unwrap();
        assert!(read_config(&path).is_ok());
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        let error = read_config(&path).unwrap_err().to_string();
        assert!(error.contains("mode 0644") && error.contains("chmod 600"), "{error}");
    }

    #[test]
    fn a_missing_file_says_its_path_and_what_to_do() {
        let error = read_config(Path::new("/nonexistent/peer.toml")).unwrap_err();
        assert!(matches!(error, ReadError::Unreadable(_)));
        let text = error.to_string();
        assert!(text.starts_with("cannot read /nonexistent/peer.toml: No such file"), "{text}");
        assert!(text.contains("write one"), "{text}");
    }

    #[test]
    fn a_credential_is_a_name_and_not_a_path() {
        for bad in ["", "../shadow", "a/b", "."] {
            assert_eq!(credential(bad).unwrap_err().kind(), io::ErrorKind::InvalidInput, "{bad:?}");
        }
    }

    #[test]
    fn what_is_too_long_or_no_text_is_not_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x");
        fs::write(&path, [b'a'; 10]).unwrap();
        assert!(read(&path, 10).is_ok());
        assert_eq!(read(&path, 9).unwrap_err().kind(), io::ErrorKind::FileTooLarge);
        fs::write(&path, [0xff]).unwrap();
        assert_eq!(read(&path, 10).unwrap_err().kind(), io::ErrorKind::InvalidData);
    }
}
