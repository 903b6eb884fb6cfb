//! Whatever text: read as a file or refused by line, never a panic; an edit changes what it is to change, and the rest
//! of the configuration stays.

use std::{io, path::Path};

use vpnd::{
    config::{
        self, Config, KeyFile, Peer, Problems,
        edit::{self, EditError, NewPeer, Preshared},
        wg_quick,
    },
    noise::{PresharedKey, PublicKey},
};

const FILE: &str = "/etc/vpnd/vpn0.toml";
/// A name that no corpus has.
const NAME: &str = "newcomer \"7\" \\ é";
const KEY: PublicKey = PublicKey([0x42; 32]);
const PREFIX: &str = "198.18.7.77/32";

/// The first byte says what the text is.
pub fn check_bytes(bytes: &[u8]) {
    let Some((kind, text)) = bytes.split_first() else { return };
    let Ok(text) = std::str::from_utf8(text) else { return };
    match kind % 2 {
        0 => check_file(text),
        _ => check_wg_quick(text),
    }
}

/// Good, open to others, and missing.
fn key_files(path: &Path) -> io::Result<KeyFile> {
    let file = |text: &str, mode| Ok(KeyFile { text: text.to_owned().into(), mode });
    match path.to_str() {
        Some("vpn0.key") => file("yAnz5TF+lXXJte14tji3/lMNq+hd2rYUIgJBgB3fBmk=\n", 0o600),
        Some("psk") => file("AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=", 0o400),
        Some("open.key") => file("yAnz5TF+lXXJte14tji3/lMNq+hd2rYUIgJBgB3fBmk=\n", 0o644),
        Some("bad.key") => file("not a key", 0o600),
        _ => Err(io::ErrorKind::NotFound.into()),
    }
}

fn read(text: &str) -> Result<Config, Problems> {
    config::parse_with_mode(text, Path::new(FILE), 0o600, &key_files)
}

fn check_file(text: &str) {
    match read(text) {
        Err(problems) => check_problems(&problems, text, FILE),
        Ok(config) => {
            check_edits(text, &config);
            check_export(&config);
        }
    }
    // One that others can read: the same, or refused because of what is in it.
    match config::parse_with_mode(text, Path::new(FILE), 0o644, &key_files) {
        Err(problems) => check_problems(&problems, text, FILE),
        Ok(open) => assert_same(&open, &read(text).expect("it was good enough for all to read")),
    }
}

/// Each names a line that is there, in order, and shows no key.
fn check_problems(problems: &Problems, text: &str, file: &str) {
    let lines = text.matches('\n').count() + 1;
    assert!(!problems.0.is_empty(), "refused, and nobody says why");
    assert!(problems.0.is_sorted_by_key(|problem| problem.line));
    for problem in &problems.0 {
        assert!(problem.line <= lines, "line {} of {lines}: {problem}", problem.line);
        assert!(!problem.found.is_empty() && !problem.remedy.is_empty() && !problem.key.is_empty());
        let told = problem.to_string();
        let place =
            if problem.line == 0 { format!("{file}: ") } else { format!("{file}:{}: ", problem.line) };
        assert!(told.starts_with(&place), "{told}");
        if !problem.key.ends_with(".public_key") {
            let shown = |word: &str| word.len() == 44 && word.ends_with('=') && text.contains(word);
            let mut words = told.split(|c: char| !(c.is_ascii_alphanumeric() || "+/=".contains(c)));
            assert!(!words.any(shown), "it shows a key: {told}");
        }
    }
    assert!(problems.to_string().lines().count() >= problems.0.len());
}

fn check_edits(text: &str, config: &Config) {
    check_addition(text, config);
    for index in 0..config.peers.len().min(3) {
        check_removal(text, config, index);
        check_alteration(text, config, index);
    }
    let beyond = edit::without_peer(text, config.peers.len());
    assert!(beyond.is_err(), "there is no such peer");
}

/// Does a file that has these peers have room for the new one?
fn has_room(config: &Config) -> bool {
    let prefix = PREFIX.parse().expect("a prefix");
    let taken = |peer: &Peer| {
        peer.public_key == KEY || peer.name.as_deref() == Some(NAME) || peer.allowed_ips.contains(&prefix)
    };
    !config.peers.iter().any(taken) && config.interface.private_key.public_key() != KEY
}

fn check_addition(text: &str, config: &Config) {
    let new = NewPeer {
        name: NAME.to_owned(),
        public_key: KEY,
        preshared: Some(Preshared::Inline(PresharedKey::new([7; 32]))),
        endpoint: Some("[2001:db8::77]:5".to_owned()),
        allowed_ips: vec![PREFIX.parse().expect("a prefix")],
        expires: None,
    };
    let edited = match edit::with_peer(text, &new) {
        Ok(edited) => edited,
        Err(error) => return assert_eq!(error, EditError::InlineList),
    };
    assert!(edited.starts_with(text), "what was there stays, to the byte");
    if !has_room(config) {
        return;
    }
    let read = read(&edited);
    // Its endpoint may lie inside a prefix of another; that is all that can be wrong.
    let Ok(larger) = read else {
        let Err(problems) = read else { return };
        let loops = |problem: &config::Problem| problem.found.ends_with("a loop");
        return assert!(problems.0.iter().all(loops), "{problems}\n{}", *edited);
    };
    let (last, others) = larger.peers.split_last().expect("there is one more");
    assert_peers(others, &config.peers.iter().collect::<Vec<_>>());
    assert_eq!((last.name.as_deref(), last.public_key), (Some(NAME), KEY));
    let back = edit::without_peer(&edited, others.len()).expect("it was put there");
    assert_eq!(back.trim_end(), text.trim_end(), "taken away again");
}

fn check_removal(text: &str, config: &Config, index: usize) {
    let edited = match edit::without_peer(text, index) {
        Ok(edited) => edited,
        Err(error) => return assert_eq!(error, EditError::InlineList),
    };
    let smaller = read(&edited).unwrap_or_else(|problems| panic!("{problems}\n{}", *edited));
    let mut others: Vec<_> = config.peers.iter().collect();
    others.remove(index);
    assert_peers(&smaller.peers, &others);
    assert_interface(&smaller, config);
}

fn check_alteration(text: &str, config: &Config, index: usize) {
    if !has_room(config) {
        return;
    }
    let Ok(named) = edit::with_name(text, index, NAME) else { return };
    let named = read(&named).unwrap_or_else(|problems| panic!("{problems}\n{}", *named));
    let mut expected = config.peers.clone();
    expected[index].name = Some(NAME.to_owned());
    assert_peers(&named.peers, &expected.iter().collect::<Vec<_>>());
    let psk = PresharedKey::new([8; 32]);
    let rekeyed = edit::with_keys(text, index, &KEY, &psk).expect("it could be named, too");
    let rekeyed = read(&rekeyed).unwrap_or_else(|problems| panic!("{problems}\n{}", *rekeyed));
    let mut expected = config.peers.clone();
    expected[index].public_key = KEY;
    if rekeyed.peers[index].preshared_key.as_ref() == Some(&psk) {
        assert!(expected[index].preshared_key.is_some(), "none is added");
        expected[index].preshared_key = Some(psk);
    }
    assert_peers(&rekeyed.peers, &expected.iter().collect::<Vec<_>>());
    assert_interface(&rekeyed, config);
}

/// What wg-quick is told makes the same tunnel when it comes back.
fn check_export(config: &Config) {
    let exported = wg_quick::export(config);
    let imported = wg_quick::import(&exported.text, Path::new("vpn0.conf"));
    let imported = imported.unwrap_or_else(|problems| panic!("{problems}\n{}", *exported.text));
    let again = read(&imported.text).unwrap_or_else(|problems| panic!("{problems}\n{}", *imported.text));
    let plain = |peer: &Peer| Peer { name: None, expires: None, ..peer.clone() };
    let (ours, theirs): (Vec<_>, Vec<_>) =
        (config.peers.iter().map(plain).collect(), again.peers.iter().map(plain).collect());
    assert_peers(&theirs, &ours.iter().collect::<Vec<_>>());
}

fn check_wg_quick(text: &str) {
    match wg_quick::import(text, Path::new("wg0.conf")) {
        Err(problems) => check_problems(&problems, text, "wg0.conf"),
        Ok(converted) => {
            let config =
                config::parse(&converted.text, Path::new(FILE), &|_| Err(io::ErrorKind::NotFound.into()));
            let config = config.unwrap_or_else(|problems| panic!("{problems}\n{}", *converted.text));
            assert_eq!(config.interface.name, "wg0");
            check_export(&config);
        }
    }
}

fn assert_same(one: &Config, other: &Config) {
    assert_interface(one, other);
    assert_peers(&one.peers, &other.peers.iter().collect::<Vec<_>>());
}

/// Names of keys apart: `Debug` hides them.
fn assert_interface(one: &Config, other: &Config) {
    assert!(one.interface.private_key == other.interface.private_key);
    assert_eq!(
        format!("{:?}{:?}", one.interface, one.hooks),
        format!("{:?}{:?}", other.interface, other.hooks)
    );
}

fn assert_peers(peers: &[Peer], expected: &[&Peer]) {
    assert_eq!(peers.len(), expected.len());
    for (one, other) in peers.iter().zip(expected) {
        assert!(one.preshared_key == other.preshared_key, "{one:?}");
        assert_eq!(format!("{one:?}"), format!("{other:?}"));
    }
}
