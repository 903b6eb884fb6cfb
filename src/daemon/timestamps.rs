//! The newest timestamp that was sent with our key, kept on disk: peers take no initiation that is not newer than each
//! before (paper, section 5.1), so a wall clock that went back while we did not run would lock us out until it has
//! caught up. The largest of all peers is enough, as no peer may then be sent an older one.
//!
//! Not each handshake writes: what is kept is a moment a little ahead of the newest timestamp, and it is moved before it
//! is reached. After a crash the next process begins there, which is minutes ahead at most, and does no harm.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    time::Duration,
};

use futures_util::FutureExt;
use tokio::task::JoinHandle;
use tracing::{debug, info, warn};

use crate::{
    forward::Time,
    noise::{PublicKey, Tai64n},
};

/// How far ahead of the newest timestamp the kept one is.
const AHEAD: Duration = Duration::from_secs(600);
/// It is moved when less than this is left.
const LEFT: Duration = Duration::from_secs(300);
/// After a failure it is tried again, not more often.
const AGAIN: Duration = Duration::from_secs(60);
/// How long the end waits for a disk.
const PATIENCE: Duration = Duration::from_secs(2);
/// Bytes of the largest file that is read.
const LARGEST: u64 = 4096;

/// What a missing record means.
const MEANING: &str = "if this key was used here before and the clock has gone back since, peers take no handshake of \
                       ours until it has caught up";

/// The record of one key.
pub(super) struct Timestamps {
    key: PublicKey,
    path: PathBuf,
    /// On disk: no timestamp after this one may be sent without a new record.
    kept: Tai64n,
    /// A record on its way to the disk.
    writing: Option<(Tai64n, JoinHandle<io::Result<()>>)>,
    /// When a record could not be written.
    failed: Option<Time>,
}

impl Timestamps {
    /// What was kept for this key in `folder`; timestamps begin after [`Self::kept`].
    pub(super) fn open(folder: &Path, key: PublicKey) -> Self {
        let path = folder.join(format!("timestamp-{}", &key.to_hex()[..16]));
        let kept = match read(&path, &key) {
            Ok(kept) => kept,
            Err(Unreadable::Io(error)) if error.kind() == io::ErrorKind::NotFound => {
                let file = path.display();
                // Where nothing was ever kept, this is the first start; where other records are, this one was lost.
                match is_empty(folder) {
                    true => {
                        info!(%file, "no earlier run with this key is known here; its timestamps are kept from now on")
                    }
                    false => warn!(%file, "no timestamps of earlier runs are kept for this key: {MEANING}"),
                }
                Tai64n::default()
            }
            Err(error) => {
                warn!(file = %path.display(), %error, "the timestamps of earlier runs cannot be read: {MEANING}");
                Tai64n::default()
            }
        };
        Self { key, path, kept, writing: None, failed: None }
    }

    /// Whose they are.
    pub(super) fn key(&self) -> &PublicKey {
        &self.key
    }

    /// Nothing after this was sent before now.
    pub(super) fn kept(&self) -> Tai64n {
        self.kept
    }

    /// To be called before anything with this timestamp leaves: sees to it that the record covers it.
    pub(super) fn cover(&mut self, newest: Tai64n, now: Time) {
        if newest == Tai64n::default() || newest.after(LEFT) <= self.kept {
            return; // nothing was sent, or all is well
        }
        self.look_after_writing(now);
        if self.writing.is_some() || newest.after(LEFT) <= self.kept || !self.may_try(now) {
            return;
        }
        let wanted = newest.after(AHEAD);
        if newest > self.kept {
            let written = write(&self.path, &self.key, wanted);
            return self.written(wanted, written, now);
        }
        // It is ahead still: nobody has to wait for the disk.
        self.begin(wanted);
    }

    /// At a restart, when packets wait: this is about to be sent, and the disk may take its time. (Should the machine die
    /// within that time, and its clock go back, the record would be too old; at other starts the first handshake waits.)
    pub(super) fn expect(&mut self, newest: Tai64n) {
        if newest.after(LEFT) > self.kept && self.writing.is_none() {
            self.begin(newest.after(AHEAD));
        }
    }

    fn begin(&mut self, wanted: Tai64n) {
        let (path, key) = (self.path.clone(), self.key);
        self.writing = Some((wanted, tokio::task::spawn_blocking(move || write(&path, &key, wanted))));
    }

    /// What became of the record that was on its way, if that is known by now.
    fn look_after_writing(&mut self, now: Time) {
        let Some((wanted, writing)) = self.writing.take_if(|(_, writing)| writing.is_finished()) else {
            return;
        };
        match writing.now_or_never() {
            Some(Ok(outcome)) => self.written(wanted, outcome, now),
            // A panic in any task ends the process; nobody cancels a write.
            Some(Err(error)) => std::panic::resume_unwind(error.into_panic()),
            None => {} // it is finished
        }
    }

    fn may_try(&self, now: Time) -> bool {
        self.failed.is_none_or(|failed| now.since(failed) >= AGAIN)
    }

    fn written(&mut self, wanted: Tai64n, outcome: io::Result<()>, now: Time) {
        match outcome {
            Ok(()) => {
                if self.failed.take().is_some() {
                    info!(file = %self.path.display(), "timestamps are kept again");
                }
                debug!(file = %self.path.display(), "timestamps are kept ten minutes ahead");
                self.kept = wanted;
            }
            Err(error) => {
                if self.failed.replace(now).is_none() {
                    warn!(
                        file = %self.path.display(), %error,
                        "the newest timestamp cannot be kept: after a restart with a clock that went back, peers take no \
                         handshake of ours until it has caught up; give a folder that can be written (--state-dir, \
                         StateDirectory=)"
                    );
                }
            }
        }
    }

    /// At an end in order the record says what was really sent, and not more.
    pub(super) async fn close(mut self, newest: Tai64n) {
        if let Some((_, writing)) = self.writing.take() {
            // Two writers at once might leave the older one's record.
            if tokio::time::timeout(PATIENCE, writing).await.is_err() {
                return;
            }
        }
        if newest == Tai64n::default() {
            return;
        }
        let (path, key) = (self.path, self.key);
        let writing = tokio::task::spawn_blocking(move || write(&path, &key, newest));
        if let Ok(Ok(Err(error))) = tokio::time::timeout(PATIENCE, writing).await {
            debug!(%error, "the last timestamp could not be kept");
        }
    }
}

/// Why there is no record.
#[derive(Debug, thiserror::Error)]
enum Unreadable {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error("it is damaged")]
    Damaged,
    #[error("it is another key's")]
    Other,
}

/// Whether anything was ever kept there.
fn is_empty(folder: &Path) -> bool {
    fs::read_dir(folder).is_ok_and(|mut entries| entries.next().is_none())
        || fs::metadata(folder).is_err_and(|error| error.kind() == io::ErrorKind::NotFound)
}

fn read(path: &Path, key: &PublicKey) -> Result<Tai64n, Unreadable> {
    let mut text = String::new();
    let file = File::open(path)?;
    match file.take(LARGEST).read_to_string(&mut text) {
        Err(error) if error.kind() == io::ErrorKind::InvalidData => return Err(Unreadable::Damaged),
        done => done?,
    };
    parse(&text, key)
}

/// The text says itself when it is not whole: it is what [`text`] makes of what it says.
fn parse(found: &str, key: &PublicKey) -> Result<Tai64n, Unreadable> {
    let value = |name: &str| {
        let line = found.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(" = "));
        line.ok_or(Unreadable::Damaged)
    };
    let newest = label(value("newest")?).ok_or(Unreadable::Damaged)?;
    if value("key")? != key.to_string() {
        return Err(Unreadable::Other);
    }
    if found == text(key, newest) { Ok(newest) } else { Err(Unreadable::Damaged) }
}

/// Twelve bytes in hexadecimal digits. Labels from 2^63 seconds on are no times (TAI64), and leave no room for later
/// ones.
fn label(digits: &str) -> Option<Tai64n> {
    let number = u128::from_str_radix(digits, 16).ok().filter(|_| digits.len() == 24)?;
    let bytes: [u8; 12] = number.to_be_bytes()[4..].try_into().ok()?;
    (bytes[0] < 0x80).then_some(Tai64n(bytes))
}

fn text(key: &PublicKey, newest: Tai64n) -> String {
    let digits: String = newest.0.iter().map(|byte| format!("{byte:02x}")).collect();
    let body = format!(
        "# The newest timestamp (TAI64N) that vpnd may have sent with this key. Without this file peers refuse its\n\
         # handshakes after the clock went back, until it has caught up.\n\
         key = {key}\n\
         newest = {digits}\n"
    );
    let check = super::checksum(body.as_bytes());
    format!("{body}check = {check:016x}\n")
}

/// The old record or the new one, whatever happens: a new file, on the disk before it takes the old one's place.
fn write(path: &Path, key: &PublicKey, newest: Tai64n) -> io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    if !folder.is_dir() {
        fs::create_dir_all(folder)?;
    }
    let beside = path.with_extension("new");
    match fs::remove_file(&beside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&beside)?;
    file.write_all(text(key, newest).as_bytes())?;
    file.sync_all()?;
    fs::rename(&beside, path)?;
    // Not all file systems can; the name may then be the old one after a power cut.
    let _ = File::open(folder).and_then(|folder| folder.sync_all());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{noise::PrivateKey, sys::random::os_rng};

    const NOW: Duration = Duration::from_secs(1_800_000_000);

    fn key() -> PublicKey {
        PrivateKey::generate(&mut os_rng()).public_key()
    }

    fn at(seconds: u64) -> Tai64n {
        Tai64n::from_unix(NOW + Duration::from_secs(seconds))
    }

    #[tokio::test]
    async fn what_a_process_sent_is_known_to_the_next_one_however_it_ended() {
        let (folder, key) = (tempfile::tempdir().unwrap(), key());
        let mut first = Timestamps::open(folder.path(), key);
        assert_eq!(first.kept(), Tai64n::default());
        first.cover(at(0), Time(1));
        let killed = Timestamps::open(folder.path(), key);
        assert_eq!(killed.kept(), at(0).after(AHEAD), "killed: a little ahead");
        first.close(at(7)).await;
        assert_eq!(Timestamps::open(folder.path(), key).kept(), at(7), "stopped: exactly");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[tokio::test]
    async fn a_record_serves_for_minutes_of_handshakes_and_is_renewed_ahead_of_its_end() {
        let (folder, key) = (tempfile::tempdir().unwrap(), key());
        let mut kept = Timestamps::open(folder.path(), key);
        kept.cover(at(0), Time(1));
        let path = kept.path.clone();
        fs::remove_file(&path).unwrap();
        for second in 0..=300 {
            kept.cover(at(second), Time(1));
            assert!(kept.writing.is_none() && !path.exists(), "{second}");
        }
        kept.cover(at(301), Time(1));
        let (_, writing) = kept.writing.as_mut().expect("it is under way, and nobody waits for it");
        writing.await.unwrap().unwrap();
        assert_eq!(Timestamps::open(folder.path(), key).kept(), at(901));
    }

    #[tokio::test]
    async fn at_a_restart_the_first_handshake_does_not_wait_for_the_disk() {
        let (folder, key) = (tempfile::tempdir().unwrap(), key());
        let mut kept = Timestamps::open(folder.path(), key);
        kept.expect(at(0));
        kept.cover(at(1), Time(1));
        assert_eq!(kept.kept(), Tai64n::default(), "it is under way, and goes on so");
        let (_, writing) = kept.writing.as_mut().expect("it is under way");
        writing.await.unwrap().unwrap();
        assert_eq!(Timestamps::open(folder.path(), key).kept(), at(600));
    }

    #[tokio::test]
    async fn a_clock_that_leaps_ahead_is_on_the_disk_before_it_is_sent() {
        let (folder, key) = (tempfile::tempdir().unwrap(), key());
        let mut kept = Timestamps::open(folder.path(), key);
        kept.cover(at(0), Time(1));
        kept.cover(at(10 * 365 * 86_400), Time(1));
        assert!(Timestamps::open(folder.path(), key).kept() > at(10 * 365 * 86_400));
    }

    #[tokio::test]
    async fn where_nothing_was_sent_nothing_is_written() {
        let (folder, key) = (tempfile::tempdir().unwrap(), key());
        let mut kept = Timestamps::open(folder.path(), key);
        kept.cover(Tai64n::default(), Time(1));
        kept.close(Tai64n::default()).await;
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn any_damage_is_seen() {
        let (folder, key) = (tempfile::tempdir().unwrap(), key());
        let path = folder.path().join("x");
        write(&path, &key, at(0)).unwrap();
        let good = fs::read(&path).unwrap();
        assert_eq!(read(&path, &key).unwrap(), at(0));
        for place in 0..good.len() {
            let mut bad = good.clone();
            bad[place] ^= 1;
            fs::write(&path, &bad).unwrap();
            assert!(read(&path, &key).is_err(), "byte {place}");
            fs::write(&path, &good[..place]).unwrap();
            assert!(read(&path, &key).is_err(), "cut at {place}");
        }
        fs::write(&path, [0xff; 9000]).unwrap();
        assert!(matches!(read(&path, &key), Err(Unreadable::Damaged)));
        assert!(matches!(parse(&text(&self::key(), at(0)), &key), Err(Unreadable::Other)));
        assert!(parse(&text(&key, Tai64n([0xff; 12])), &key).is_err(), "after that one there is none");
    }

    #[tokio::test]
    async fn a_folder_that_cannot_be_written_is_tried_again_after_a_minute_and_not_before() {
        let folder = tempfile::tempdir().unwrap();
        let (state, key) = (folder.path().join("state"), key());
        fs::write(&state, "a file where a folder should be").unwrap();
        let mut kept = Timestamps::open(&state, key);
        let second = |n: u64| Time(n * 1_000_000_000);
        kept.cover(at(0), second(100));
        assert_eq!(kept.kept(), Tai64n::default());
        fs::remove_file(&state).unwrap();
        kept.cover(at(59), second(159));
        assert!(!state.exists());
        kept.cover(at(60), second(160));
        assert_eq!(Timestamps::open(&state, key).kept(), at(660));
    }
}
