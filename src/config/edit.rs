//! A file with one peer more, less, or altered. All else stays as it was written, to the byte: pieces of the text are
//! cut and put, and toml_edit says where they stand.

use std::{ops::Range, time::Duration};

use ipnet::IpNet;
use toml_edit::{Document, Item, Table, Value};
use zeroize::Zeroizing;

use super::{date, document};
use crate::noise::{PresharedKey, PublicKey};

/// A file that cannot be edited here.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EditError {
    /// Peers are a list of inline tables.
    #[error("its peers stand in a list `peer = [ … ]`; write a table [[peer]] for each, or edit it by hand")]
    InlineList,
    /// It was checked before.
    #[error("it is no configuration any more: {0}")]
    NotToml(String),
}

/// A new peer, as it is written.
pub struct NewPeer {
    /// For people.
    pub name: String,
    /// Its static key.
    pub public_key: PublicKey,
    /// The preshared key, if there is one.
    pub preshared: Option<Preshared>,
    /// Where it is.
    pub endpoint: Option<String>,
    /// Prefixes.
    pub allowed_ips: Vec<IpNet>,
    /// Until when it is let in.
    pub expires: Option<Duration>,
}

/// A preshared key, as it is written.
pub enum Preshared {
    /// In the file itself.
    Inline(PresharedKey),
    /// In this file.
    File(String),
}

/// The text with one more peer at its end.
pub fn with_peer(text: &str, peer: &NewPeer) -> Result<Zeroizing<String>, EditError> {
    peer_sections(text)?; // it may be one that has no room for another table
    let mut lines = vec![
        Zeroizing::new("[[peer]]".to_owned()),
        line("name", quoted(&peer.name)),
        line("public_key", quoted(&peer.public_key.to_string())),
    ];
    lines.extend(peer.preshared.as_ref().map(preshared_line));
    lines.extend(peer.endpoint.as_ref().map(|endpoint| line("endpoint", quoted(endpoint))));
    let prefixes: Vec<String> = peer.allowed_ips.iter().map(|net| format!("\"{net}\"")).collect();
    lines.push(line("allowed_ips", format!("[{}]", prefixes.join(", "))));
    lines.extend(peer.expires.map(|at| line("expires", date::written(at).to_string())));

    let newline = newline(text);
    let mut edited = Zeroizing::new(String::with_capacity(text.len() + 1024 + 64 * prefixes.len()));
    edited.push_str(text);
    if !text.is_empty() && !text.ends_with('\n') {
        edited.push_str(newline);
    }
    if !text.trim().is_empty() {
        edited.push_str(newline);
    }
    for line in lines {
        edited.push_str(&line);
        edited.push_str(newline);
    }
    Ok(edited)
}

/// The text without its peer number `index` (from 0). Comments that touch it and no other table go with it.
pub fn without_peer(text: &str, index: usize) -> Result<Zeroizing<String>, EditError> {
    let (section, table) = peer_section(text, index)?;
    let header = line_start(text, section.start);
    let end_of_table = line_end(text, last_of(&table, &section));
    let (start, mut end) = (comments_above(text, header), comments_below(text, end_of_table));
    let below = &text[end..];
    let blank = below.len() - below.trim_start_matches(['\n', '\r', ' ', '\t']).len();
    end += below[..blank].rfind('\n').map_or(0, |newline| newline + 1);
    let mut kept = &text[..start];
    if text[end..].trim().is_empty() {
        end = text.len();
        kept = kept.trim_end_matches(['\n', '\r', ' ', '\t']);
    }
    let mut edited = Zeroizing::new(String::with_capacity(text.len()));
    edited.push_str(kept);
    if !kept.is_empty() && !kept.ends_with('\n') {
        edited.push_str(newline(text));
    }
    edited.push_str(&text[end..]);
    Ok(edited)
}

/// The text with another name for its peer number `index`.
pub fn with_name(text: &str, index: usize, name: &str) -> Result<Zeroizing<String>, EditError> {
    let (section, table) = peer_section(text, index)?;
    Ok(match value_of(&table, &section, "name") {
        Some(place) => splice(text, &[(place, Zeroizing::new(quoted(name)))]),
        None => {
            let end = line_end(text, section.start);
            splice(text, &[(end..end, own_line(text, end, line("name", quoted(name))))])
        }
    })
}

/// The text with other keys for its peer number `index`. A preshared key in a file of its own stays there; `preshared`
/// takes the place of one that stands here, and none is added.
pub fn with_keys(
    text: &str,
    index: usize,
    public_key: &PublicKey,
    preshared: &PresharedKey,
) -> Result<Zeroizing<String>, EditError> {
    let (section, table) = peer_section(text, index)?;
    let mut changes = Vec::new();
    if let Some(place) = value_of(&table, &section, "public_key") {
        changes.push((place, Zeroizing::new(quoted(&public_key.to_string()))));
    }
    if let Some(place) = value_of(&table, &section, "preshared_key") {
        changes.push((place, Zeroizing::new(quoted(&preshared.to_base64()))));
    }
    changes.sort_by_key(|(place, _)| place.start);
    Ok(splice(text, &changes))
}

/// Where the tables `[[peer]]` stand, in order: each from its header to the next one of any kind.
fn peer_sections(text: &str) -> Result<Vec<(Range<usize>, Table)>, EditError> {
    let mut peers = Vec::new();
    for range in document::sections(text) {
        let root = Document::parse(&text[range.clone()])
            .map_err(|error| EditError::NotToml(error.message().to_owned()))?
            .into_table();
        match root.get("peer") {
            None => {}
            Some(Item::ArrayOfTables(tables)) => {
                peers.extend(tables.iter().map(|table| (range.clone(), table.clone())));
            }
            Some(_) => return Err(EditError::InlineList),
        }
    }
    Ok(peers)
}

fn peer_section(text: &str, index: usize) -> Result<(Range<usize>, Table), EditError> {
    let gone = || EditError::NotToml(format!("it has no peer {}", index + 1));
    peer_sections(text)?.into_iter().nth(index).ok_or_else(gone)
}

fn value_of(table: &Table, section: &Range<usize>, key: &str) -> Option<Range<usize>> {
    let span = table.get(key)?.as_value()?.span()?;
    Some(section.start + span.start..section.start + span.end)
}

/// Where the last value of a table ends; of one without any, its header begins.
fn last_of(table: &Table, section: &Range<usize>) -> usize {
    let ends = table.iter().filter_map(|(_, item)| item.span()).map(|span| span.end);
    ends.max().map_or(section.start, |end| section.start + end)
}

fn splice(text: &str, changes: &[(Range<usize>, Zeroizing<String>)]) -> Zeroizing<String> {
    let more: usize = changes.iter().map(|(_, new)| new.len()).sum();
    let mut edited = Zeroizing::new(String::with_capacity(text.len() + more));
    let mut at = 0;
    for (place, new) in changes {
        edited.push_str(&text[at..place.start]);
        edited.push_str(new);
        at = place.end;
    }
    edited.push_str(&text[at..]);
    edited
}

fn line(key: &str, value: impl AsRef<str>) -> Zeroizing<String> {
    Zeroizing::new(format!("{key} = {}", value.as_ref()))
}

fn preshared_line(preshared: &Preshared) -> Zeroizing<String> {
    match preshared {
        Preshared::Inline(key) => line("preshared_key", quoted(&key.to_base64())),
        Preshared::File(path) => line("preshared_key_file", quoted(path)),
    }
}

/// A line that is put in at `at`, where one begins or the text ends.
fn own_line(text: &str, at: usize, line: Zeroizing<String>) -> Zeroizing<String> {
    let newline = newline(text);
    let before = if text[..at].ends_with('\n') { "" } else { newline };
    Zeroizing::new(format!("{before}{}{newline}", *line))
}

fn quoted(text: &str) -> String {
    Value::from(text).to_string()
}

fn newline(text: &str) -> &'static str {
    if text.contains("\r\n") { "\r\n" } else { "\n" }
}

/// The first byte of the line that holds `at`.
fn line_start(text: &str, at: usize) -> usize {
    text[..at].rfind('\n').map_or(0, |newline| newline + 1)
}

/// The first byte behind the line that holds `at`.
fn line_end(text: &str, at: usize) -> usize {
    text[at..].find('\n').map_or(text.len(), |newline| at + newline + 1)
}

fn is_comment(line: &str) -> bool {
    line.trim_start().starts_with('#')
}

/// Where the block of comments above a header begins: `header` itself if there is none, or if it touches what stands
/// above it, whose it may be.
fn comments_above(text: &str, header: usize) -> usize {
    let mut start = header;
    while start > 0 {
        let above = line_start(text, start - 1);
        let line = &text[above..start];
        if line.trim().is_empty() {
            return start;
        }
        if !is_comment(line) {
            return header;
        }
        start = above;
    }
    start
}

/// Where the block of comments below a table ends: `end` itself if there is none, or if it touches the next table.
fn comments_below(text: &str, end: usize) -> usize {
    let mut below = end;
    while below < text.len() {
        let next = line_end(text, below);
        let line = &text[below..next];
        if line.trim().is_empty() {
            return below;
        }
        if !is_comment(line) {
            return end;
        }
        below = next;
    }
    below
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use proptest::prelude::*;

    use super::*;
    use crate::config::{
        Config, parse,
        tests::{key, key_files},
    };

    const FILE: &str = "# The gateway of the house.\n\n[interface] # one\nprivate_key_file = \"k\"   # of its own\n\n# ---- phones ----\n\n# Anna's, since spring.\n[[peer]]\nname = \"anna\" # hers\npublic_key = \"KEY0\"\nallowed_ips = [\n  \"10.77.0.2/32\", # fixed\n]\n# persistent_keepalive = 25\n\n  [[peer]]\n  public_key='KEY1'\n  name = 'bob'\n# whose is this?\n[[peer]]\nname = \"carl\"\npublic_key = \"KEY2\"\n\n# The end.\n";

    fn file() -> String {
        (0..3).fold(FILE.to_owned(), |text, n| text.replace(&format!("KEY{n}"), &key(n)))
    }

    fn read(text: &str) -> Config {
        parse(text, Path::new("x"), &key_files).unwrap_or_else(|problems| panic!("{problems} in\n{text}"))
    }

    fn names(text: &str) -> Vec<String> {
        read(text).peers.iter().map(|peer| peer.name.clone().unwrap_or_default()).collect()
    }

    fn new_peer(name: &str) -> NewPeer {
        NewPeer {
            name: name.to_owned(),
            public_key: key(9).parse().unwrap(),
            preshared: Some(Preshared::Inline(PresharedKey::new([7; 32]))),
            endpoint: Some("[2001:db8::1]:5".to_owned()),
            allowed_ips: vec!["10.77.0.9/32".parse().unwrap(), "fd77::9/128".parse().unwrap()],
            expires: date::parse("2027-01-01"),
        }
    }

    #[test]
    fn a_new_peer_stands_at_the_end_and_nothing_else_changed() {
        let edited = with_peer(&file(), &new_peer("dora")).unwrap();
        let added = edited.strip_prefix(&file()).expect("what was there is the same");
        let expected = format!(
            "\n[[peer]]\nname = \"dora\"\npublic_key = \"{}\"\npreshared_key = \"{}\"\nendpoint = \"[2001:db8::1]:5\"\n\
             allowed_ips = [\"10.77.0.9/32\", \"fd77::9/128\"]\nexpires = 2027-01-01\n",
            key(9),
            *PresharedKey::new([7; 32]).to_base64()
        );
        assert_eq!(added, expected);
        assert_eq!(names(&edited), ["anna", "bob", "carl", "dora"]);
    }

    #[test]
    fn a_removed_peer_takes_its_own_comments_along_and_no_others() {
        let without = |index| without_peer(&file(), index).unwrap().to_string();
        assert_eq!(names(&without(0)), ["bob", "carl"]);
        assert!(without(0).contains("# ---- phones ----\n\n  [[peer]]\n  public_key="), "{}", without(0));
        assert!(!without(0).contains("Anna") && !without(0).contains("keepalive"));
        assert_eq!(names(&without(1)), ["anna", "carl"]);
        assert!(
            without(1).contains("# persistent_keepalive = 25\n\n# whose is this?\n[[peer]]\nname = \"carl\"")
        );
        assert_eq!(names(&without(2)), ["anna", "bob"]);
        assert!(without(2).ends_with("name = 'bob'\n# whose is this?\n# The end.\n"), "{}", without(2));
    }

    #[test]
    fn a_name_is_replaced_where_it_stands_or_added() {
        let renamed = with_name(&file(), 1, "böb \"2\" \\").unwrap();
        assert_eq!(*renamed, file().replace("'bob'", r#"'böb "2" \'"#));
        assert_eq!(names(&renamed)[1], "böb \"2\" \\");
        let nameless = file().replace("name = \"carl\"\n", "");
        let named = with_name(&nameless, 2, "carl").unwrap();
        assert_eq!(*named, file());
    }

    #[test]
    fn keys_are_replaced_where_they_stand() {
        let (public, preshared) = (key(77).parse().unwrap(), PresharedKey::new([8; 32]));
        let added = with_peer(&file(), &new_peer("dora")).unwrap();
        let rekeyed = with_keys(&added, 3, &public, &preshared).unwrap();
        let expected = added
            .replace(&key(9), &key(77))
            .replace(&*PresharedKey::new([7; 32]).to_base64(), &preshared.to_base64());
        assert_eq!(*rekeyed, expected);
        assert_eq!(
            *with_keys(&file(), 0, &public, &preshared).unwrap(),
            file().replace(&key(0), &key(77)),
            "none is added"
        );
    }

    #[test]
    fn a_file_keeps_its_line_ends_and_its_end() {
        let windows = file().replace('\n', "\r\n");
        let edited = with_peer(&windows, &new_peer("dora")).unwrap();
        assert!(!edited.replace("\r\n", "").contains(['\r', '\n']));
        assert_eq!(*without_peer(&edited, 3).unwrap(), windows);
        let open = file().trim_end().trim_end_matches("# The end.").trim_end().to_owned();
        let edited = with_peer(&open, &new_peer("dora")).unwrap();
        assert_eq!(names(&edited).len(), 4);
        assert_eq!(*without_peer(&edited, 3).unwrap(), format!("{open}\n"));
    }

    #[test]
    fn a_list_of_inline_tables_is_left_to_people() {
        let text =
            format!("peer = [{{ public_key = \"{}\" }}]\n[interface]\nprivate_key_file = \"k\"\n", key(1));
        assert_eq!(read(&text).peers.len(), 1);
        for refused in [with_peer(&text, &new_peer("x")), without_peer(&text, 0), with_name(&text, 0, "x")] {
            assert_eq!(refused, Err(EditError::InlineList));
        }
    }

    /// Lines that people write around a peer.
    fn around() -> impl Strategy<Value = String> {
        prop::collection::vec(
            prop_oneof![Just("\n"), Just("# a comment\n"), Just("  # [[peer]]\n"), Just("\t\n")],
            0..4,
        )
        .prop_map(|lines| lines.concat())
    }

    proptest! {
        #[test]
        fn of_any_file_one_peer_goes_and_the_others_stay_as_they_are(
            around in prop::collection::vec(around(), 5), index in 0usize..4, crlf: bool,
        ) {
            let peer = |n: u32| format!("[[peer]]\nname = \"p{n}\"\n{}public_key = \"{}\"\n", around[4], key(n));
            let mut text = "[interface]\nprivate_key_file = \"k\"\n".to_owned();
            (0..4).for_each(|n| text += &format!("{}{}", around[n as usize], peer(n)));
            let text = if crlf { text.replace('\n', "\r\n") } else { text };
            let edited = without_peer(&text, index).unwrap();
            let expected: Vec<_> = (0..4).filter(|n| *n != index).map(|n| format!("p{n}")).collect();
            prop_assert_eq!(names(&edited), expected);
            for n in (0..4).filter(|n| *n != index) {
                let whole = peer(n as u32);
                let whole = if crlf { whole.replace('\n', "\r\n") } else { whole };
                prop_assert!(edited.contains(&whole), "{:?} of {:?}", edited, text);
            }
            // Adding is undone by removing, but for blank lines at the end.
            let added = with_peer(&edited, &new_peer("new")).unwrap();
            let back = without_peer(&added, 3).unwrap();
            prop_assert_eq!(back.trim_end(), edited.trim_end());
        }
    }
}
