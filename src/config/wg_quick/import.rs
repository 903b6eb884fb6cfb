//! wg-quick → peer.toml.

use std::{
    collections::{BTreeMap, HashSet},
    io,
    path::Path,
};

use ipnet::IpNet;
use zeroize::Zeroizing;

use super::{
    Converted,
    lines::{self, Key, Kind, Section},
};
use crate::config::{
    Problem, Problems, reader,
    report::Flaw,
    unknown,
    values::{self, device_name},
};

/// Turns a wg-quick file into one of ours that loads, and says what was left behind. The device gets the file's
/// name, as wg-quick has it. Problems name the lines of the wg-quick file.
pub fn import(text: &str, file: &Path) -> Result<Converted, Problems> {
    let (sections, problems) = lines::read(text, file);
    let mut import = Import {
        file,
        problems,
        notes: Vec::new(),
        names: HashSet::new(),
        // Room for all of it: growing would leave copies of the key behind.
        out: Zeroizing::new(String::with_capacity(3 * text.len() + 1024)),
        origins: Vec::new(),
    };
    for section in &sections {
        import.section(section);
    }
    import.finish()
}

/// Items of a list, each with its line.
type Items = Vec<(usize, String)>;

/// How a value is written in TOML.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    Text,
    Number,
    Addresses,
    Prefixes,
}

/// Our name of a key, and how its value is written.
fn translate(kind: Kind, plain: &str) -> Option<(&'static str, Form)> {
    Some(match (kind, plain) {
        (Kind::Interface, "privatekey") => ("private_key", Form::Text),
        (Kind::Interface, "listenport") => ("listen_port", Form::Number),
        (Kind::Interface, "address") => ("address", Form::Addresses),
        (Kind::Interface, "mtu") => ("mtu", Form::Number),
        (Kind::Interface, "fwmark") => ("fwmark", Form::Number),
        (Kind::Interface, "table") => ("table", Form::Number),
        (Kind::Peer, "publickey") => ("public_key", Form::Text),
        (Kind::Peer, "presharedkey") => ("preshared_key", Form::Text),
        (Kind::Peer, "endpoint") => ("endpoint", Form::Text),
        (Kind::Peer, "allowedips") => ("allowed_ips", Form::Prefixes),
        (Kind::Peer, "persistentkeepalive") => ("persistent_keepalive", Form::Number),
        _ => return None,
    })
}

struct Import<'a> {
    file: &'a Path,
    problems: Problems,
    notes: Vec<String>,
    /// Peers' names so far.
    names: HashSet<String>,
    out: Zeroizing<String>,
    /// Line of the wg-quick file for each line of `out`.
    origins: Vec<usize>,
}

impl Import<'_> {
    fn section(&mut self, section: &Section) {
        if !self.out.is_empty() {
            self.write("", section.line);
        }
        match section.kind {
            Kind::Interface => {
                self.write("[interface]", section.line);
                self.device(section.line);
            }
            Kind::Peer => {
                self.write("[[peer]]", section.line);
                self.peer_name(section);
            }
        }
        // Lists may be spread over several lines of one key; all else stands once.
        let mut lists: BTreeMap<&'static str, (Form, Items)> = BTreeMap::new();
        let mut seen = HashSet::new();
        for key in &section.keys {
            let Some((ours, form)) = translate(section.kind, &key.plain) else {
                self.not_translated(key);
                continue;
            };
            match form {
                Form::Addresses | Form::Prefixes => {
                    let items = key.value.split(',').map(str::trim).filter(|item| !item.is_empty());
                    let list = lists.entry(ours).or_insert((form, Vec::new()));
                    list.1.extend(items.map(|item| (key.line, item.to_owned())));
                }
                Form::Text | Form::Number if !seen.insert(ours) => {
                    self.refuse(
                        key,
                        Flaw::new(format!("{} a second time", key.name), "keep one of the two lines"),
                    );
                }
                Form::Text => self.assign(ours, &quote(&key.value), key.line),
                Form::Number => self.number(ours, key),
            }
        }
        for (ours, (form, items)) in lists {
            let items = if form == Form::Prefixes { self.mask(items) } else { items };
            self.list(ours, &items, section.line);
        }
    }

    /// The device is named after the file.
    fn device(&mut self, line: usize) {
        let stem = match self.file.extension() {
            Some(extension) if extension == "conf" => self.file.file_stem().and_then(|stem| stem.to_str()),
            _ => None,
        };
        match stem.map(device_name) {
            Some(Ok(name)) => self.assign("name", &quote(&name), line),
            Some(Err(_)) => self.notes.push("the file's name is no device name: the device is vpn0".into()),
            None => {}
        }
    }

    fn peer_name(&mut self, section: &Section) {
        let Some(name) = &section.name else { return };
        if self.names.insert(name.clone()) {
            self.assign("name", &quote(name), section.line);
        } else {
            self.notes
                .push(format!("line {}: a second peer named {name:?} was left without name", section.line));
        }
    }

    /// wg-quick writes "off" and 0 where we leave the key out.
    fn number(&mut self, ours: &'static str, key: &Key) {
        let value = key.value.to_ascii_lowercase();
        let is_absence = matches!(value.as_str(), "off" | "0" | "0x0");
        if is_absence && !matches!(ours, "mtu" | "table") {
            return;
        }
        match is_toml_number(&value) {
            true => self.assign(ours, &value, key.line),
            false => self.assign(ours, &quote(&value), key.line),
        }
    }

    /// wg clears host bits in silence and takes a prefix twice; we say it.
    fn mask(&mut self, items: Items) -> Items {
        let mut seen: HashSet<IpNet> = HashSet::new();
        let mut kept = Vec::with_capacity(items.len());
        for (line, item) in items {
            let Ok(net) = values::net(&item, "") else {
                kept.push((line, item)); // refused below, by its line
                continue;
            };
            let masked = net.trunc();
            if masked != net {
                self.notes.push(format!(
                    "line {line}: AllowedIPs {net} became {masked}, which is what wg makes of it"
                ));
            }
            if seen.insert(masked) {
                kept.push((line, masked.to_string()));
            } else {
                self.notes
                    .push(format!("line {line}: AllowedIPs {masked} stood there twice and is kept once"));
            }
        }
        kept
    }

    fn not_translated(&mut self, key: &Key) {
        match unknown::of_wg_quick(&key.plain) {
            Some(why) => self.notes.push(format!("line {}: {} is not kept: {why}", key.line, key.name)),
            None => {
                let remedy = "take it out if the tunnel works without it, or put it under the right section";
                self.refuse(
                    key,
                    Flaw::new(format!("{:?}, which is no key of wg-quick here", key.name), remedy),
                );
            }
        }
    }

    fn refuse(&mut self, key: &Key, flaw: Flaw) {
        self.problems.0.push(Problem {
            file: self.file.to_owned(),
            line: key.line,
            key: key.name.clone(),
            found: flaw.found,
            remedy: flaw.remedy,
        });
    }

    fn list(&mut self, ours: &str, items: &[(usize, String)], line: usize) {
        match items {
            [] => return self.assign(ours, "[]", line),
            [(line, only)] => return self.assign(ours, &format!("[{}]", *quote(only)), *line),
            _ => {}
        }
        // One on each line, so that a problem with it finds its origin.
        self.write(&format!("{ours} = ["), line);
        for (line, item) in items {
            self.write(&format!("    {},", *quote(item)), *line);
        }
        self.write("]", line);
    }

    fn assign(&mut self, ours: &str, value: &str, origin: usize) {
        self.out.push_str(ours);
        self.out.push_str(" = ");
        self.write(value, origin);
    }

    /// Ends a line.
    fn write(&mut self, text: &str, origin: usize) {
        self.out.push_str(text);
        self.out.push('\n');
        self.origins.push(origin);
    }

    /// What was written must load; problems with it are told by the line that they come from.
    fn finish(mut self) -> Result<Converted, Problems> {
        let no_files = |_: &Path| Err(io::ErrorKind::NotFound.into());
        if let Err(Problems(problems)) =
            reader::read(&self.out, self.file, None, Some(&self.origins), &no_files)
        {
            self.problems.0.extend(problems);
        }
        if !self.problems.0.is_empty() {
            self.problems.0.sort_by_key(|problem| problem.line);
            return Err(self.problems);
        }
        Ok(Converted { text: self.out, notes: self.notes })
    }
}

/// Digits, or 0x and digits, without leading zeros, that fit 64 bits.
fn is_toml_number(text: &str) -> bool {
    let (digits, radix) = text.strip_prefix("0x").map_or((text, 10), |digits| (digits, 16));
    let is_plain = radix == 16 || digits == "0" || !digits.starts_with('0');
    is_plain && (1..=15).contains(&digits.len()) && digits.chars().all(|c| c.is_digit(radix))
}

/// A TOML basic string. It may be a secret.
fn quote(text: &str) -> Zeroizing<String> {
    let mut quoted = Zeroizing::new(String::with_capacity(2 + 6 * text.len())); // an escape takes 6
    quoted.push('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            c if c.is_control() => quoted.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}
