//! Walks the tables of a file, in order.

use std::{ops::Range, path::Path};

use toml_edit::{Item, TableLike, Value};

use super::{
    Config, Hook, KeyFiles, Peer, Problems,
    census::Census,
    document,
    fields::{Fields, describe},
    hook::{self, MAX_HOOKS},
    interface::Draft,
    keys::Secrets,
    peer,
    report::{Flaw, Report, Subject},
    unknown,
};
use crate::tunnel::change::MAX_PEERS;

/// See [`super::parse`] and [`super::parse_with_mode`]; `origins`: see [`Report::new`].
pub(super) fn read(
    text: &str,
    file: &Path,
    mode: Option<u32>,
    origins: Option<&[usize]>,
    keys: KeyFiles<'_>,
) -> Result<Config, Problems> {
    let sections = document::sections(text);
    let mut reader = Reader {
        report: Report::new(text, file, origins),
        secrets: Secrets::new(keys),
        census: Census::default(),
        interface: None,
        peers: Vec::new(),
        hooks: Vec::new(),
        hooks_seen: 0,
        incomplete: false,
    };
    let hooks = sections.iter().filter(|section| text[(*section).clone()].starts_with("[[hook")).count();
    // Text above the first header and [interface] come on top.
    let peers = sections.len() - hooks.min(MAX_HOOKS);
    if peers > MAX_PEERS + 2 {
        reader.refuse_too_many(peers - 2);
        return Err(reader.report.into_problems());
    }
    for section in sections {
        reader.section(text, section);
    }
    reader.finish(mode)
}

/// What was read so far.
struct Reader<'a> {
    report: Report<'a>,
    secrets: Secrets<'a>,
    census: Census,
    interface: Option<(usize, Draft)>,
    peers: Vec<Peer>,
    hooks: Vec<Hook>,
    hooks_seen: usize,
    /// A piece was refused as a whole: what is missing may stand there.
    incomplete: bool,
}

impl Reader<'_> {
    /// One header with its keys, or the keys above the first header.
    fn section(&mut self, text: &str, range: Range<usize>) {
        let base = range.start;
        let Some(mut root) = document::parse_section(text, range, &mut self.report) else {
            self.incomplete = true;
            return;
        };
        let names: Vec<String> = root.iter().map(|(name, _)| name.to_owned()).collect();
        for name in names {
            let at = root.key(&name).and_then(|key| key.span()).map_or(base, |span| base + span.start);
            let Some(item) = root.get_mut(&name) else { continue };
            match name.as_str() {
                "interface" => self.interface(item, base, at),
                "peer" => self.list(("peer", "peer"), Self::one_peer, item, (base, at)),
                "hook" => self.list(("hook", "command"), Self::one_hook, item, (base, at)),
                _ => self.report.refuse(at, &Subject::File, &name, unknown::table(&name)),
            }
        }
    }

    fn interface(&mut self, item: &mut Item, base: usize, at: usize) {
        let table: &mut dyn TableLike = match item {
            Item::Table(table) if table.is_implicit() && !table.is_dotted() => {
                return self.refuse_inner_tables("interface", table, at);
            }
            Item::Table(table) => table,
            Item::Value(Value::InlineTable(table)) => table,
            other => {
                self.incomplete = true;
                let flaw = Flaw::new(describe(other), "write [interface], once, and its keys under it");
                return self.report.refuse(at, &Subject::File, "interface", flaw);
            }
        };
        if let Some((first, _)) = &self.interface {
            let found =
                format!("[interface] a second time; the first is on line {}", self.report.line(*first));
            let flaw = Flaw::new(found, "join the two");
            return self.report.refuse(at, &Subject::File, "interface", flaw);
        }
        let fields = Fields::new(table, base, at, Subject::Interface);
        self.interface = Some((at, Draft::read(fields, &mut self.secrets, &mut self.report)));
    }

    /// `[[name]]`, or an array of inline tables: `one` takes each.
    fn list(
        &mut self,
        (name, of_whom): (&str, &str),
        one: fn(&mut Self, &mut dyn TableLike, usize, usize),
        item: &mut Item,
        (base, at): (usize, usize),
    ) {
        match item {
            Item::ArrayOfTables(tables) => tables.iter_mut().for_each(|table| one(self, table, base, at)),
            Item::Value(Value::Array(array)) if array.iter().all(Value::is_inline_table) => {
                for table in array.iter_mut() {
                    let at = table.span().map_or(at, |span| base + span.start);
                    if let Value::InlineTable(table) = table {
                        one(self, table, base, at);
                    }
                }
            }
            Item::Table(table) if table.is_implicit() => self.refuse_inner_tables(name, table, at),
            other => {
                let remedy = format!("write [[{name}]], in two brackets, once for each {of_whom}");
                self.report.refuse(at, &Subject::File, name, Flaw::new(describe(other), remedy));
            }
        }
    }

    fn one_peer(&mut self, table: &mut dyn TableLike, base: usize, at: usize) {
        let number = self.peers.len() + 1;
        let fields = Fields::new(table, base, at, Subject::Peer { number, name: None });
        let peer = peer::read(fields, number, &mut self.secrets, &mut self.census, &mut self.report);
        self.peers.push(peer);
    }

    fn one_hook(&mut self, table: &mut dyn TableLike, base: usize, at: usize) {
        self.hooks_seen += 1;
        let subject = Subject::Hook { number: self.hooks_seen };
        if self.hooks_seen > MAX_HOOKS {
            let flaw =
                Flaw::new(format!("more than {MAX_HOOKS} hooks"), "let one command do the work of several");
            return self.report.refuse(at, &subject, "", flaw);
        }
        let fields = Fields::new(table, base, at, subject);
        self.hooks.extend(hook::read(fields, &mut self.report));
    }

    /// `[interface.x]`, `[peer.x]`: no key is a table.
    fn refuse_inner_tables(&mut self, name: &str, table: &toml_edit::Table, at: usize) {
        for (inner, _) in table.iter() {
            let path = format!("{name}.{inner}");
            let flaw = Flaw::new(format!("the unknown table [{path}]"), "take it out; no key holds a table");
            self.report.refuse(at, &Subject::File, &path, flaw);
        }
    }

    fn refuse_too_many(&mut self, count: usize) {
        let found = format!("{count} peers or more");
        let remedy = format!("split them over several interfaces of up to {MAX_PEERS} each");
        self.report.refuse_file("peer", Flaw::new(found, remedy));
    }

    /// What can only be said at the end.
    fn finish(mut self, mode: Option<u32>) -> Result<Config, Problems> {
        if self.peers.len() > MAX_PEERS {
            self.refuse_too_many(self.peers.len());
        }
        if let Some(mode) = mode {
            self.secrets.check_exposure(mode, &mut self.report);
        }
        let Some((_, draft)) = self.interface else {
            if !self.incomplete {
                let remedy = "add [interface] with private_key_file = \"FILE\"";
                self.report.refuse_file("interface", Flaw::new("no table [interface]", remedy));
            }
            return Err(self.report.into_problems());
        };
        draft.check_mtu(self.census.has_v6(), &mut self.report);
        if let Some(key) = &draft.private_key {
            self.census.check_own_key(&key.public_key(), &self.peers, &mut self.report);
        }
        self.census.check_endpoints(draft.table, &self.peers, &mut self.report);
        match draft.finish() {
            Some(interface) if self.report.is_clean() => {
                Ok(Config { interface, peers: self.peers, hooks: self.hooks })
            }
            _ => Err(self.report.into_problems()),
        }
    }
}
