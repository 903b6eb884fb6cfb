//! The walls between rooms: imports against the table in ARCHITECTURE.md, and doors that only one room has.
//! (The other walls are the compiler's: the feature `daemon`, `deny(unsafe_code)`, clippy's disallowed methods.)

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

type Table = BTreeMap<String, BTreeSet<String>>;

/// The rows `| room | may use | may not know |` under "Who may know whom".
fn table(architecture: &str) -> Table {
    let section = architecture.split("## Who may know whom").nth(1).expect("ARCHITECTURE.md has the table");
    let section = section.split("\n## ").next().expect("a split has a first part");
    let rows = section.lines().filter(|line| line.starts_with('|')).skip(2);
    rows.map(|row| {
        let cells: Vec<_> = row.trim_matches('|').split('|').map(str::trim).collect();
        let names = |cell: &str| -> BTreeSet<String> {
            cell.split([',', ' '])
                .filter(|word| !word.is_empty() && *word != "–")
                .map(str::to_owned)
                .collect()
        };
        (cells[0].to_owned(), names(cells[1]))
    })
    .collect()
}

/// Source without comments and without its tests.
fn code(text: &str) -> String {
    let text = text.split("#[cfg(test)]\nmod tests").next().expect("a split has a first part");
    text.lines().map(|line| line.split("//").next().unwrap_or("")).collect::<Vec<_>>().join("\n")
}

/// The rooms that `crate::…` paths name, also inside `use crate::{…}`.
fn rooms_named(code: &str, rooms: &BTreeSet<String>) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for (at, _) in code.match_indices("crate::") {
        let rest = &code[at + "crate::".len()..];
        let heads: Vec<&str> = match rest.strip_prefix('{') {
            Some(group) => heads_of_group(group),
            None => vec![rest],
        };
        for head in heads {
            let word: String =
                head.trim_start().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
            if rooms.contains(&word) {
                found.insert(word);
            }
        }
    }
    found
}

/// Where each element at depth one of `a::{b, c}, d::e}` begins.
fn heads_of_group(group: &str) -> Vec<&str> {
    let (mut depth, mut heads) = (1, vec![group]);
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 1 => heads.push(&group[at + 1..]),
            _ => {}
        }
        if depth == 0 {
            break;
        }
    }
    heads
}

fn sources(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).expect("src is readable") {
        let path = entry.expect("src is readable").path();
        if path.is_dir() {
            files.extend(sources(&path));
        } else if path.extension().is_some_and(|e| e == "rs")
            && path.file_stem().is_some_and(|s| !s.to_string_lossy().ends_with("tests"))
        {
            files.push(path);
        }
    }
    files
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn room_of(file: &Path) -> String {
    let inside = file.strip_prefix(root().join("src")).expect("the file lies in src");
    let first = inside.components().next().expect("a file has a name").as_os_str().to_string_lossy();
    first.trim_end_matches(".rs").to_owned()
}

fn trespasses(table: &Table, room: &str, text: &str) -> Vec<String> {
    let rooms: BTreeSet<String> = table.keys().cloned().collect();
    let Some(allowed) = table.get(room) else { return vec![format!("room {room} is not in the table")] };
    rooms_named(&code(text), &rooms)
        .into_iter()
        .filter(|named| named != room && !allowed.contains(named))
        .map(|named| format!("{room} may not know {named}"))
        .collect()
}

#[test]
fn each_room_knows_only_whom_the_table_allows() {
    let table = table(&fs::read_to_string(root().join("ARCHITECTURE.md")).expect("ARCHITECTURE.md"));
    assert!(table.len() >= 13, "the table lost its rows: {table:?}");
    let mut wrong = Vec::new();
    let files = sources(&root().join("src"));
    assert!(files.len() > 40, "only {} source files found", files.len());
    for file in files {
        let room = room_of(&file);
        if room == "lib" || room == "main" {
            continue;
        }
        let text = fs::read_to_string(&file).expect("a source file is readable");
        for trespass in trespasses(&table, &room, &text) {
            wrong.push(format!("{}: {trespass}", file.display()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_trespass_is_seen() {
    let table = table(
        "## Who may know whom\n| room | may use | no |\n|---|---|---|\n| wire | – | x |\n| noise | wire | x |\n",
    );
    let bad = "use crate::{\n    wire::{ip, noise},\n    noise::PublicKey,\n};";
    assert_eq!(trespasses(&table, "wire", bad), ["wire may not know noise"]);
    assert_eq!(trespasses(&table, "noise", bad), [""; 0]);
    assert_eq!(
        trespasses(&table, "wire", "// crate::noise\n#[cfg(test)]\nmod tests { use crate::noise; }"),
        [""; 0]
    );
    assert_eq!(trespasses(&table, "wire", "fn f() { crate::noise::f() }"), ["wire may not know noise"]);
    assert_eq!(trespasses(&table, "attic", ""), ["room attic is not in the table"]);
}

/// Words that only one room may say.
#[test]
fn each_door_stands_in_one_room() {
    let doors: [(&str, &[&str]); 6] = [
        ("println!", &["cli", "lab"]),
        ("process::exit", &[]),
        ("allow(unsafe_code)", &["sys"]),
        ("std::fs", &["cli", "control", "daemon", "host", "lab", "plane", "sys"]),
        ("UdpSocket::", &["plane", "lab", "daemon"]),
        ("thread::spawn", &["plane", "lab", "host", "cli"]), // in cli: a terminal's keys
    ];
    for file in sources(&root().join("src")) {
        let room = room_of(&file);
        let text = code(&fs::read_to_string(&file).expect("a source file is readable"));
        for (word, rooms) in doors {
            assert!(
                !text.contains(word) || rooms.contains(&room.as_str()),
                "{}: {word} belongs to {rooms:?}",
                file.display()
            );
        }
    }
}

fn texts_below(folder: &str) -> String {
    let mut files = Vec::new();
    let mut folders = vec![root().join(folder)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("a folder of ours is readable") {
            let path = entry.expect("a folder of ours is readable").path();
            match path.is_dir() {
                true => folders.push(path),
                false if path.extension().is_some_and(|e| e == "rs") => files.push(path),
                false => {}
            }
        }
    }
    files.iter().map(|file| fs::read_to_string(file).expect("a source file is readable")).collect()
}

/// Names in backticks in the last column of the tables.
fn tests_named(document: &str) -> BTreeSet<&str> {
    let rows = document.lines().filter(|line| line.starts_with('|'));
    let last = rows.filter_map(|row| row.trim_matches('|').rsplit('|').next());
    last.flat_map(|cell| cell.split('`').skip(1).step_by(2)).collect()
}

#[test]
fn every_test_that_the_list_of_bugs_names_exists() {
    let document = fs::read_to_string(root().join("docs/bugs-of-others.md")).expect("the list of bugs");
    let code = texts_below("src") + &texts_below("tests");
    let named = tests_named(&document);
    assert!(named.len() > 60, "only {} tests are named", named.len());
    let is_test = |name: &&str| {
        code.match_indices(&format!("fn {name}(")).any(|(at, _)| {
            let before = code[..at].trim_end().trim_end_matches("async").trim_end();
            before.ends_with(']') || before.ends_with("proptest! {")
        })
    };
    let missing: Vec<_> = named.into_iter().filter(|name| !is_test(name)).collect();
    assert!(missing.is_empty(), "no such tests: {missing:?}");
}
