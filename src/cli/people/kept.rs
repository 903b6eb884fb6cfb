//! Configurations of clients that are kept, if `client_folder` says so: `qr` can show them again. They hold private keys,
//! so they are the owner's alone; one whose key is not the peer's is somebody else's, and left alone.

use std::{
    fs::{self, DirBuilder},
    io,
    os::unix::fs::{DirBuilderExt, chown},
    path::{Path, PathBuf},
};

use zeroize::Zeroizing;

use super::Held;
use crate::{
    cli::{
        disk::{self, FileError},
        rewrite,
    },
    config::{self, wg_quick},
    noise::PublicKey,
};

/// Where the configuration of a client of this name is kept; `None`: nowhere.
pub(super) fn path(held: &Held, name: &str) -> Option<PathBuf> {
    let folder = held.config.interface.clients.folder.as_ref()?;
    Some(held.folder().join(folder).join(format!("{}.conf", stem(name))))
}

/// A name for people as one of a file.
pub(super) fn stem(name: &str) -> String {
    let plain = |c: char| if c.is_alphanumeric() || "-_.@ +".contains(c) { c } else { '_' };
    let stem: String = name.chars().map(plain).collect();
    if stem.starts_with('.') { format!("_{stem}") } else { stem }
}

/// Keeps a configuration that is not there yet.
pub(super) fn keep(held: &Held, path: &Path, text: &str) -> Result<(), FileError> {
    make_folder(held, path.parent().unwrap_or(Path::new("")))?;
    rewrite::create(path, text, held.owner().alone())
}

/// The folder is made for the owner of the tunnel's file alone; its parent must be there.
fn make_folder(held: &Held, folder: &Path) -> Result<(), FileError> {
    let made = match DirBuilder::new().mode(0o700).create(folder) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(()),
        Err(error) => Err(error),
        Ok(()) => chown(folder, Some(held.owner().uid), Some(held.owner().gid)),
    };
    made.map_err(|source| FileError {
        attempted: "cannot make the folder",
        path: folder.to_owned(),
        source,
        remedy: "make it yourself, or take client_folder out of [interface]".to_owned(),
    })
}

/// The configuration that is kept of this peer. `None`: there is none, or it is another one's.
pub(super) fn read(path: &Path, peer: &PublicKey) -> Result<Option<Zeroizing<String>>, FileError> {
    let text = match disk::read_secret(path) {
        Ok(text) => text,
        Err(error) if error.source.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    Ok((public_key(&text, path) == Some(*peer)).then_some(text))
}

fn public_key(text: &str, path: &Path) -> Option<PublicKey> {
    let ours = wg_quick::import(text, path).ok()?.text;
    let no_files = |_: &Path| Err(io::ErrorKind::NotFound.into());
    Some(config::parse(&ours, path, &no_files).ok()?.interface.private_key.public_key())
}

/// The peer goes: so does what is kept of it.
pub(super) fn forget(path: &Path, peer: &PublicKey) -> Result<bool, FileError> {
    if read(path, peer)?.is_none() {
        return Ok(false);
    }
    fs::remove_file(path).map_err(|source| failed("cannot remove", path, source))?;
    Ok(true)
}

/// The peer has another name: so has what is kept of it. Nothing is replaced.
pub(super) fn rename(from: &Path, to: &Path, peer: &PublicKey) -> Result<bool, FileError> {
    if from == to || read(from, peer)?.is_none() {
        return Ok(false);
    }
    fs::hard_link(from, to).map_err(|source| failed("cannot rename to", to, source))?;
    fs::remove_file(from).map_err(|source| failed("cannot remove", from, source))?;
    Ok(true)
}

fn failed(attempted: &'static str, path: &Path, source: io::Error) -> FileError {
    let remedy = match source.kind() {
        io::ErrorKind::AlreadyExists => "another one's is there: move it away, and rename this one by hand",
        _ => "see to it by hand: it holds the client's private key",
    };
    FileError { attempted, path: path.to_owned(), source, remedy: remedy.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_for_people_makes_a_file_in_the_folder_and_nowhere_else() {
        for (name, expected) in
            [("anna", "anna"), ("../x", "_.._x"), ("a/b", "a_b"), ("Jörg's", "Jörg_s"), (".", "_.")]
        {
            assert_eq!(stem(name), expected);
        }
    }
}
