//! Where a capture goes: standard output, a file, or a ring of files. What is in it is secret: its owner's alone.

use std::{
    collections::VecDeque,
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use super::CaptureError;

/// Where bytes go.
pub(super) struct Output {
    path: PathBuf,
    /// Of the ring; none: there is one file.
    files: Option<u32>,
    size: Option<u64>,
    sink: Sink,
    written: u64,
    /// Those of the ring that are there, the oldest first, and how many there were.
    ring: VecDeque<PathBuf>,
    begun: u64,
}

enum Sink {
    Nowhere,
    Stdout,
    File(File),
}

impl Output {
    pub(super) fn open(path: &Path, files: Option<u32>, size: Option<u64>) -> Self {
        let sink = if path.as_os_str() == "-" { Sink::Stdout } else { Sink::Nowhere };
        let path = path.to_owned();
        Self { path, files, size, sink, written: 0, ring: VecDeque::new(), begun: 0 }
    }

    /// The next file, with this at its beginning; of a ring the oldest gives way.
    pub(super) fn begin(&mut self, header: &[u8]) -> Result<(), CaptureError> {
        self.begun += 1;
        if !matches!(self.sink, Sink::Stdout) {
            let path = match self.files {
                None => self.path.clone(),
                Some(_) => {
                    let mut name = self.path.clone().into_os_string();
                    name.push(format!(".{:05}", self.begun));
                    name.into()
                }
            };
            self.sink = Sink::File(private(&path).map_err(|error| wrong(&path, error))?);
            self.ring.push_back(path);
            while self.files.is_some_and(|files| self.ring.len() > files as usize) {
                let oldest = self.ring.pop_front().expect("there is one");
                fs::remove_file(&oldest).map_err(|error| wrong(&oldest, error))?;
            }
        }
        self.written = 0;
        self.write(header).map(drop)
    }

    /// False: nobody reads any more, or the one file is full.
    pub(super) fn write(&mut self, bytes: &[u8]) -> Result<bool, CaptureError> {
        if self.files.is_none() && self.size.is_some_and(|size| self.written + bytes.len() as u64 > size) {
            return Ok(false);
        }
        self.put(bytes)
    }

    /// What the file ends with; it may grow beyond its size by that.
    pub(super) fn end(&mut self, trailer: &[u8]) -> Result<(), CaptureError> {
        self.put(trailer).map(drop)
    }

    /// Is it time for the next file of the ring?
    pub(super) fn is_full(&self) -> bool {
        self.files.is_some() && self.size.is_some_and(|size| self.written >= size)
    }

    fn put(&mut self, bytes: &[u8]) -> Result<bool, CaptureError> {
        let done = match &mut self.sink {
            Sink::Nowhere => Ok(()),
            Sink::Stdout => {
                let mut stdout = io::stdout().lock();
                stdout.write_all(bytes).and_then(|()| stdout.flush())
            }
            Sink::File(file) => file.write_all(bytes),
        };
        self.written += bytes.len() as u64;
        match done {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
            Err(error) => Err(wrong(&self.path, error)),
        }
    }
}

/// Made anew, for its owner alone; a file of others that stands there keeps neither its content nor its mode.
fn private(path: &Path) -> io::Result<File> {
    match fs::symlink_metadata(path) {
        Ok(there) if there.is_file() => fs::remove_file(path)?,
        // A device, a pipe: as it is.
        Ok(_) => return OpenOptions::new().write(true).open(path),
        Err(_) => {}
    }
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)
}

fn wrong(path: &Path, error: io::Error) -> CaptureError {
    CaptureError::Write { path: path.to_owned(), error }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_ring_keeps_the_newest_files_and_nobody_else_may_read_them() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("a.pcapng");
        let mut output = Output::open(&path, Some(2), Some(10));
        for file in 0..4 {
            output.begin(&[file; 4]).expect("written");
            assert!(!output.is_full());
            assert!(output.write(&[file; 8]).expect("written"));
            assert!(output.is_full());
            output.end(&[9]).expect("written");
        }
        let mut names: Vec<_> = fs::read_dir(folder.path()).expect("a folder").flatten().collect();
        names.sort_by_key(fs::DirEntry::file_name);
        assert_eq!(names.len(), 2);
        for (entry, (name, file)) in names.iter().zip([("a.pcapng.00003", 2), ("a.pcapng.00004", 3)]) {
            assert_eq!(entry.file_name(), name);
            assert_eq!(fs::read(entry.path()).expect("a file"), [vec![file; 12], vec![9]].concat());
            assert_eq!(entry.metadata().expect("a file").permissions().mode() & 0o777, 0o600);
        }
    }

    #[test]
    fn one_file_with_a_size_ends_there() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("a.pcapng");
        fs::write(&path, "of before").expect("written");
        let mut output = Output::open(&path, None, Some(10));
        output.begin(&[1; 4]).expect("written");
        assert!(output.write(&[2; 6]).expect("written"));
        assert!(!output.write(&[3]).expect("not written"));
        output.end(&[4]).expect("written");
        assert_eq!(fs::read(&path).expect("a file"), [1, 1, 1, 1, 2, 2, 2, 2, 2, 2, 4]);
        assert_eq!(fs::metadata(&path).expect("a file").permissions().mode() & 0o777, 0o600);
    }
}
