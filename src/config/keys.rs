//! Keys, from the file itself or from files beside it that nobody else may read.

use std::{io::ErrorKind, path::Path, str::FromStr};

use zeroize::Zeroizing;

use super::{
    KeyFile, KeyFiles,
    fields::{Fields, Found},
    report::{Flaw, Report},
    secrecy::looks_like_a_key,
};
use crate::noise::{PresharedKey, PrivateKey, PublicKey, keys::NotAKey};

/// Begins a `…_file` that names a credential of the service manager instead of a path.
pub const CREDENTIAL: &str = "credential:";

/// Permission bits that let others than the owner at a secret.
const OTHERS: u32 = 0o077;

/// Where secrets come from, and those that stand in the file itself.
pub(super) struct Secrets<'a> {
    files: KeyFiles<'a>,
    /// The first of them, for the check of the file's own mode.
    inline: Option<(usize, String)>,
    inline_count: usize,
}

/// Where one secret key may stand, and how it is made.
struct Spot {
    inline: &'static str,
    file: &'static str,
    command: &'static str,
}
const PRIVATE: Spot = Spot { inline: "private_key", file: "private_key_file", command: "vpnd genkey" };
const PRESHARED: Spot = Spot { inline: "preshared_key", file: "preshared_key_file", command: "vpnd genpsk" };

impl<'a> Secrets<'a> {
    pub(super) fn new(files: KeyFiles<'a>) -> Self {
        Self { files, inline: None, inline_count: 0 }
    }

    /// `private_key` or `private_key_file`; there must be one.
    pub(super) fn private_key(
        &mut self,
        fields: &mut Fields<'_>,
        report: &mut Report<'_>,
    ) -> Option<PrivateKey> {
        let (at, spot, key) = match self.take::<PrivateKey>(fields, report, &PRIVATE) {
            Taken::Key { at, spot, key } => (at, spot, key),
            Taken::Refused => return None,
            Taken::Absent => {
                let remedy = "add private_key_file = \"FILE\"; `vpnd genkey --output FILE` makes one";
                fields.refuse(report, fields.at, PRIVATE.file, Flaw::new("no private key", remedy));
                return None;
            }
        };
        if key.expose() == PrivateKey::new([0; 32]).expose() {
            let flaw = Flaw::new("a key that is all zero", "make one with `vpnd genkey`");
            fields.refuse(report, at, spot, flaw);
            return None;
        }
        Some(key)
    }

    /// `preshared_key` or `preshared_key_file`, if any.
    pub(super) fn preshared_key(
        &mut self,
        fields: &mut Fields<'_>,
        report: &mut Report<'_>,
    ) -> Option<PresharedKey> {
        let Taken::Key { at, spot, key } = self.take::<PresharedKey>(fields, report, &PRESHARED) else {
            return None;
        };
        if key.is_zero() {
            let remedy = "take it out, or make one with `vpnd genpsk`";
            fields.refuse(
                report,
                at,
                spot,
                Flaw::new("a key that is all zero, which is the same as none", remedy),
            );
            return None;
        }
        Some(key)
    }

    /// Refuses a file that others can read and that holds secrets itself.
    pub(super) fn check_exposure(&self, mode: u32, report: &mut Report<'_>) {
        let Some((at, path)) = &self.inline else { return };
        if mode & OTHERS == 0 {
            return;
        }
        let more = match self.inline_count {
            1 => String::new(),
            count => format!(" (and {} more)", count - 1),
        };
        let found = format!("a secret{more} in a file that others can read (mode {:04o})", mode & 0o7777);
        let remedy =
            format!("run `chmod 600 {}`, or move the key to a file of its own", report.file().display());
        report.refuse(*at, &super::report::Subject::File, path, Flaw::new(found, remedy));
    }

    fn take<K: FromStr<Err = NotAKey>>(
        &mut self,
        fields: &mut Fields<'_>,
        report: &mut Report<'_>,
        spot: &Spot,
    ) -> Taken<K> {
        match (fields.has(spot.inline), fields.has(spot.file)) {
            (false, false) => Taken::Absent,
            (true, false) => self.inline_key(fields, report, spot).map_or(Taken::Refused, Taken::from),
            (false, true) => self.file_key(fields, report, spot).map_or(Taken::Refused, Taken::from),
            (true, true) => {
                drop(fields.text(report, spot.inline, "").map(|text| Zeroizing::new(text.value)));
                let file = fields.take(spot.file).map_or(fields.at, |file| file.at);
                let found = format!("both {} and {}", spot.inline, spot.file);
                let remedy = format!("keep one of them, best {}", spot.file);
                fields.refuse(report, file, spot.file, Flaw::new(found, remedy));
                Taken::Refused
            }
        }
    }

    fn inline_key<K: FromStr<Err = NotAKey>>(
        &mut self,
        fields: &mut Fields<'_>,
        report: &mut Report<'_>,
        spot: &Spot,
    ) -> Option<(usize, &'static str, K)> {
        let Found { at, value } = fields.text(report, spot.inline, "…")?;
        let text = Zeroizing::new(value);
        self.inline_count += 1;
        if self.inline.is_none() {
            self.inline = Some((at, fields.subject.path(spot.inline)));
        }
        match text.parse() {
            Ok(key) => Some((at, spot.inline, key)),
            Err(error) => {
                fields.refuse(report, at, spot.inline, not_a_key(&text, error, spot.command));
                None
            }
        }
    }

    fn file_key<K: FromStr<Err = NotAKey>>(
        &self,
        fields: &mut Fields<'_>,
        report: &mut Report<'_>,
        spot: &Spot,
    ) -> Option<(usize, &'static str, K)> {
        let Found { at, value: path } = fields.text(report, spot.file, "/etc/vpnd/vpn0.key")?;
        if looks_like_a_key(&path) {
            let path = Zeroizing::new(path);
            let found = format!("{} characters that look like a key, not like a path", path.chars().count());
            let remedy =
                format!("name a file that holds it, or write `{}` if it is to stand here", spot.inline);
            fields.refuse(report, at, spot.file, Flaw::new(found, remedy));
            return None;
        }
        let read = (self.files)(Path::new(&path));
        let outcome = match read {
            Ok(file) => key_in_file(&path, &file, spot),
            Err(error) => Err(unreadable(&path, &error, spot)),
        };
        match outcome {
            Ok(key) => Some((at, spot.file, key)),
            Err(flaw) => {
                fields.refuse(report, at, spot.file, flaw);
                None
            }
        }
    }
}

/// `public_key`; a peer must have one.
pub(super) fn public_key(fields: &mut Fields<'_>, report: &mut Report<'_>) -> Option<Found<PublicKey>> {
    const KEY: &str = "public_key";
    if !fields.has(KEY) {
        let remedy = "add the peer's public key; `vpnd pubkey` prints it there from its private key";
        fields.refuse(report, fields.at, KEY, Flaw::new("no public key", remedy));
        return None;
    }
    let Found { at, value } = fields.text(report, KEY, "…")?;
    // It may be a private key in the wrong place: treated as secret until it is known to be a public one.
    let text = Zeroizing::new(value);
    match text.parse() {
        Ok(value) => Some(Found { at, value }),
        Err(error) => {
            fields.refuse(report, at, KEY, not_a_key(&text, error, "vpnd pubkey"));
            None
        }
    }
}

/// What became of a secret key.
enum Taken<K> {
    Absent,
    Refused,
    Key { at: usize, spot: &'static str, key: K },
}

impl<K> From<(usize, &'static str, K)> for Taken<K> {
    fn from((at, spot, key): (usize, &'static str, K)) -> Self {
        Self::Key { at, spot, key }
    }
}

fn key_in_file<K: FromStr<Err = NotAKey>>(path: &str, file: &KeyFile, spot: &Spot) -> Result<K, Flaw> {
    if file.mode & OTHERS != 0 {
        let found = format!("{path}, which others than its owner can read (mode {:04o})", file.mode & 0o7777);
        return Err(Flaw::new(found, format!("run `chmod 600 {path}`")));
    }
    let text = file.text.trim();
    if text.is_empty() {
        let remedy = format!("run `{} --force --output {path}`", spot.command);
        return Err(Flaw::new(format!("{path}, which is empty"), remedy));
    }
    text.parse().map_err(|error| {
        let flaw = not_a_key(text, error, spot.command);
        Flaw::new(format!("{path}, which holds {}", flaw.found), flaw.remedy)
    })
}

/// Says how long the text is, and never what it is.
fn not_a_key(text: &str, error: NotAKey, command: &str) -> Flaw {
    let found = format!("{} characters that are {error}", text.chars().count());
    Flaw::new(found, format!("write the 44 base64 characters that `{command}` prints"))
}

fn unreadable(path: &str, error: &std::io::Error, spot: &Spot) -> Flaw {
    let found = format!("{path}, which cannot be read: {error}");
    let remedy = match (path.strip_prefix(CREDENTIAL), error.kind()) {
        (Some(name), _) => format!("give the service LoadCredential={name}:FILE, or name a file here"),
        (None, ErrorKind::NotFound) => {
            format!("run `{} --output {path}`, or name the file that holds the key", spot.command)
        }
        (None, ErrorKind::PermissionDenied) => "run vpnd as the file's owner, or as root".to_owned(),
        (None, _) => format!("name a file that holds one key, as `{}` makes it", spot.command),
    };
    Flaw::new(found, remedy)
}
