//! Locks on files (flock(2)): they go with the last descriptor, however a process ends.

use std::{fs::File, io, os::fd::AsRawFd};

/// Takes the one exclusive lock of this open file or folder; false if somebody else has it.
pub fn try_lock(file: &File) -> io::Result<bool> {
    // SAFETY: flock takes no pointers; the descriptor is open as long as the file is borrowed.
    match super::checked(unsafe { libc::flock(file.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) }) {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_has_one_holder_and_goes_with_it() {
        let folder = tempfile::tempdir().unwrap();
        let open = || File::open(folder.path()).unwrap();
        let (first, second) = (open(), open());
        assert!(try_lock(&first).unwrap());
        assert!(!try_lock(&second).unwrap());
        drop(first);
        assert!(try_lock(&second).unwrap());
    }
}
