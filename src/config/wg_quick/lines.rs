//! A wg-quick file as sections and keys; knows its syntax, and not what the values mean.

use std::path::Path;

use zeroize::Zeroizing;

use crate::config::{
    problem::{Problem, Problems},
    values,
};

/// `[Interface]` or `[Peer]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Interface,
    Peer,
}

/// One section.
pub(super) struct Section {
    pub(super) kind: Kind,
    /// From 1.
    pub(super) line: usize,
    /// A peer's, from a comment.
    pub(super) name: Option<String>,
    pub(super) keys: Vec<Key>,
}

/// `Name = value`.
pub(super) struct Key {
    /// As written.
    pub(super) name: String,
    /// In lower case: wg-quick does not tell the cases apart.
    pub(super) plain: String,
    /// Without comment and white space. It may be a secret.
    pub(super) value: Zeroizing<String>,
    pub(super) line: usize,
}

/// Cuts a file into sections; problems are lines that are neither section nor key.
pub(super) fn read(text: &str, file: &Path) -> (Vec<Section>, Problems) {
    let mut sections: Vec<Section> = Vec::new();
    let mut problems = Problems(Vec::new());
    let mut comment_above = None;
    for (index, raw) in text.trim_start_matches('\u{feff}').lines().enumerate() {
        let line = index + 1;
        let (code, comment) = raw.split_once('#').map_or((raw, None), |(code, rest)| (code, Some(rest)));
        let code = code.trim();
        if code.is_empty() {
            let name = comment.and_then(Name::in_comment);
            match sections.last_mut() {
                Some(section) if section.kind == Kind::Peer && section.keys.is_empty() => section.take(name),
                _ => comment_above = name,
            }
            continue;
        }
        let above = comment_above.take();
        match (parse(code, line), sections.last_mut()) {
            (Code::Section(kind), _) => {
                let mut section = Section { kind, line, name: None, keys: Vec::new() };
                if kind == Kind::Peer {
                    section.take(above);
                }
                sections.push(section);
            }
            (Code::Key(key), Some(section)) => section.keys.push(key),
            (Code::Key(key), None) => problems.0.push(Problem {
                file: file.to_owned(),
                line,
                key: key.name,
                found: "a key above all sections".into(),
                remedy: "put it under [Interface] or [Peer]".into(),
            }),
            (Code::Neither, _) => problems.0.push(Problem {
                file: file.to_owned(),
                line,
                key: "wg-quick".into(),
                found: "a line that is neither [Interface], [Peer] nor Key = value".into(),
                remedy: "mend it, or take it out".into(),
            }),
        }
    }
    (sections, problems)
}

impl Section {
    /// A comment says the peer's name; `Name =` says it better than a mere comment.
    fn take(&mut self, name: Option<Name>) {
        match name {
            Some(Name { text, explicit }) if explicit || self.name.is_none() => self.name = Some(text),
            _ => {}
        }
    }
}

/// What one line says.
enum Code {
    Section(Kind),
    Key(Key),
    Neither,
}

fn parse(code: &str, line: usize) -> Code {
    if code.eq_ignore_ascii_case("[Interface]") {
        return Code::Section(Kind::Interface);
    }
    if code.eq_ignore_ascii_case("[Peer]") {
        return Code::Section(Kind::Peer);
    }
    match code.split_once('=') {
        Some((name, value)) if !name.trim().is_empty() && !code.starts_with('[') => Code::Key(Key {
            name: name.trim().to_owned(),
            plain: name.trim().to_ascii_lowercase(),
            value: Zeroizing::new(value.trim().to_owned()),
            line,
        }),
        _ => Code::Neither,
    }
}

/// A peer's name in a comment.
struct Name {
    text: String,
    /// `# Name = laptop`.
    explicit: bool,
}

impl Name {
    /// `# Name = laptop`, `### laptop`, `# BEGIN_PEER laptop`; not `# Endpoint = …`, which is a key put out of use.
    fn in_comment(comment: &str) -> Option<Self> {
        let comment = comment.trim_start_matches('#').trim();
        let (text, explicit) = match comment.split_once('=') {
            Some((key, name)) if key.trim().eq_ignore_ascii_case("name") => (name.trim(), true),
            Some(_) => return None,
            None => (comment.strip_prefix("BEGIN_PEER ").unwrap_or(comment).trim(), false),
        };
        if !explicit && text.starts_with("END_PEER") {
            return None;
        }
        values::peer_name(text).ok().map(|text| Self { text, explicit })
    }
}
