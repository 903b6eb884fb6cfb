//! The handbook says what is: each output in it is compared with what its lab prints now, and no link leads nowhere.
//! `make book-outputs` (VPND_BOOK_WRITE=1) writes what the labs print into the pages instead.

mod common;

use std::{
    collections::BTreeSet,
    fmt::Write,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use common::need_root;
use vpnd::lab::chapters::{CHAPTERS, without_measured};

const VPND: &str = env!("CARGO_BIN_EXE_vpnd");

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn page(chapter: &str) -> PathBuf {
    root().join("docs/handbook").join(format!("{chapter}.md"))
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// What `vpnd lab CHAPTER` prints, as numbered parts, without their numbers' lines in between.
fn parts(output: &str) -> Vec<String> {
    let mut parts: Vec<String> = Vec::new();
    for line in output.lines() {
        if line.starts_with(&format!("{}. ", parts.len() + 1)) {
            parts.push(String::new());
        }
        if let Some(part) = parts.last_mut() {
            let _ = writeln!(part, "{line}");
        }
    }
    parts.iter().map(|part| part.trim_end().to_owned()).collect()
}

/// An output that stands in a page: which part it shows, and the lines of its text.
struct Shown {
    part: usize,
    lines: std::ops::Range<usize>,
}

/// `<!-- vpnd lab CHAPTER: N -->`, and the block behind it.
fn shown(chapter: &str, text: &str) -> Vec<Shown> {
    let lines: Vec<&str> = text.lines().collect();
    let mut found = Vec::new();
    for (at, line) in lines.iter().enumerate() {
        let Some(number) = line.strip_prefix(&format!("<!-- vpnd lab {chapter}: ")) else {
            assert!(!line.starts_with("<!-- vpnd"), "{chapter}.md:{}: not of this chapter: {line}", at + 1);
            continue;
        };
        let number = number.strip_suffix(" -->").and_then(|number| number.parse().ok());
        let part = number.unwrap_or_else(|| panic!("{chapter}.md:{}: which part? {line}", at + 1));
        assert_eq!(lines.get(at + 1), Some(&"```text"), "{chapter}.md:{}: a block follows", at + 2);
        let length = lines[at + 2..].iter().position(|line| *line == "```").expect("the block ends");
        found.push(Shown { part, lines: at + 2..at + 2 + length });
    }
    found
}

fn lab(chapter: &str) -> Vec<String> {
    let name = format!("vpnd-book-{chapter}");
    let output = Command::new(VPND).args(["lab", chapter, "--name", &name]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    parts(&String::from_utf8(output.stdout).unwrap())
}

fn compare(chapter: &str) {
    if !need_root() {
        return;
    }
    let printed = lab(chapter);
    let path = page(chapter);
    let text = read(&path);
    let shown = shown(chapter, &text);
    let numbers: Vec<usize> = shown.iter().map(|shown| shown.part).collect();
    assert_eq!(numbers, (1..=printed.len()).collect::<Vec<_>>(), "{chapter}: each part once, in order");
    if std::env::var_os("VPND_BOOK_WRITE").is_some() {
        return write(&path, &text, &shown, &printed);
    }
    let lines: Vec<&str> = text.lines().collect();
    for shown in shown {
        let (in_book, now) = (lines[shown.lines.clone()].join("\n"), &printed[shown.part - 1]);
        if now.contains("This kernel has no br_netfilter") {
            eprintln!(
                "\n*** NOT TESTED: {chapter}, part {}: this kernel has no br_netfilter ***\n",
                shown.part
            );
            continue;
        }
        assert_eq!(
            without_measured(&in_book),
            without_measured(now),
            "docs/handbook/{chapter}.md:{}: the lab prints something else now; if that is right, `make book-outputs`.\n\
             The lab:\n{now}\n",
            shown.lines.start + 1
        );
    }
}

/// The page with what the lab printed; where nothing but measured values differ, the page stays as it is.
fn write(path: &Path, text: &str, shown: &[Shown], printed: &[String]) {
    let lines: Vec<&str> = text.lines().collect();
    let mut out: Vec<&str> = Vec::new();
    let mut done = 0;
    for shown in shown {
        out.extend(&lines[done..shown.lines.start]);
        let (old, new) = (lines[shown.lines.clone()].join("\n"), &printed[shown.part - 1]);
        match without_measured(&old) == without_measured(new) {
            true => out.extend(&lines[shown.lines.clone()]),
            false => out.extend(new.lines()),
        }
        done = shown.lines.end;
    }
    out.extend(&lines[done..]);
    fs::write(path, out.join("\n") + "\n").unwrap();
}

macro_rules! labs {
    ($($chapter:ident)*) => {
        mod each_output_in_the_book_is_what_its_lab_prints {
            $(#[test] fn $chapter() { super::compare(stringify!($chapter)); })*
        }

        #[test]
        fn no_chapter_is_left_out() {
            let tested = [$(stringify!($chapter)),*];
            assert_eq!(CHAPTERS.map(|chapter| chapter.name).as_slice(), tested);
        }
    };
}

labs!(stack hooks routing namespaces bridge tun twice wireguard offloads nat mtu);

/// A picture without what differs from run to run: the hosts' names and the time that the answer took.
fn without_names_and_times(picture: &str, name: &str) -> String {
    let picture = picture.replace(name, "vpnd-lab");
    match picture.split_once("The answer was there after ") {
        Some((head, tail)) => format!("{head}{}", tail.split_once("s.").map_or("", |(_, rest)| rest)),
        None => picture,
    }
}

#[test]
fn the_picture_in_the_book_is_what_the_lab_draws() {
    if !need_root() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let (file, name) = (folder.path().join("way.svg"), "vpnd-book-svg");
    let output = Command::new(VPND).args(["lab", "--name", name, "--svg"]).arg(&file).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let (drawn, path) = (read(&file), root().join("docs/handbook/way.svg"));
    let in_book = fs::read_to_string(&path).unwrap_or_default();
    let same = without_names_and_times(&drawn, name) == without_names_and_times(&in_book, "vpnd-lab");
    if std::env::var_os("VPND_BOOK_WRITE").is_some() && !same {
        return fs::write(&path, drawn.replace(name, "vpnd-lab")).unwrap();
    }
    assert!(
        same,
        "the lab draws another picture than docs/handbook/way.svg; if that is right, `make book-outputs`"
    );
    assert!(
        drawn.contains("1 packet, 84 bytes") && drawn.contains("1 packet, 156 bytes"),
        "with its counters"
    );
}

#[test]
fn the_list_of_labs_names_every_chapter() {
    let output = Command::new(VPND).args(["lab", "--list"]).output().unwrap();
    let list = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success());
    for chapter in &CHAPTERS {
        assert!(list.contains(chapter.name) && list.contains(chapter.title), "{list}");
    }
}

#[test]
fn a_chapter_that_does_not_exist_is_refused_with_those_that_do() {
    let output = Command::new(VPND).args(["lab", "cheese"]).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(said.contains("cheese") && said.contains("routing"), "{said}");
}

#[test]
fn each_chapter_has_a_page_that_says_how_to_run_its_lab() {
    let summary = read(&root().join("docs/SUMMARY.md"));
    for chapter in &CHAPTERS {
        assert!(
            summary.contains(&format!("(handbook/{}.md)", chapter.name)),
            "{} is in no list",
            chapter.name
        );
        let text = read(&page(chapter.name));
        assert!(text.starts_with(&format!("# {}\n", chapter.title)), "{}: another title", chapter.name);
        assert!(text.contains(&format!("vpnd lab {}\n", chapter.name)), "{}: how is it run?", chapter.name);
        assert!(text.contains("\n## Read on\n"), "{}: where do its facts come from?", chapter.name);
    }
}

/// All Markdown pages that people read.
fn documents() -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "SECURITY.md"]
        .map(|name| root().join(name))
        .into();
    let mut folders = vec![root().join("docs")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            match path.is_dir() {
                true => folders.push(path),
                false if path.extension().is_some_and(|e| e == "md") => found.push(path),
                false => {}
            }
        }
    }
    found
}

/// The text without code blocks and code spans, in which nothing is a link.
fn prose(text: &str) -> String {
    let mut out = String::new();
    let mut fenced = false;
    for line in text.lines() {
        fenced ^= line.trim_start().starts_with("```");
        if !fenced && !line.trim_start().starts_with("```") {
            out.extend(line.split('`').step_by(2));
        }
        out.push('\n');
    }
    out
}

/// The target of each `[words](target)` and `![words](target)`.
fn links(text: &str) -> Vec<String> {
    let targets = prose(text);
    targets.split("](").skip(1).filter_map(|rest| Some(rest.split_once(')')?.0.to_owned())).collect()
}

/// What `#anchor` may name in a page, by GitHub's rule, which is mdBook's, too.
fn anchors(text: &str) -> BTreeSet<String> {
    let headings = text.lines().filter(|line| line.starts_with('#'));
    let anchor = |heading: &str| {
        let words = heading.trim_start_matches('#').trim().to_lowercase();
        let kept = words.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
        kept.map(|c| if c == ' ' { '-' } else { c }).collect()
    };
    headings.map(anchor).collect()
}

/// Why a link leads nowhere.
fn broken(from: &Path, link: &str) -> Option<String> {
    if link.contains("://") || link.starts_with("mailto:") {
        return None;
    }
    let (path, anchor) = link.split_once('#').map_or((link, None), |(path, anchor)| (path, Some(anchor)));
    let target = if path.is_empty() { from.to_owned() } else { from.parent()?.join(path) };
    if !target.exists() {
        return Some(format!("{}: {link}: there is no such file", from.display()));
    }
    let text = anchor.is_some().then(|| fs::read_to_string(&target).unwrap_or_default())?;
    let anchor = anchor.filter(|anchor| !anchors(&text).contains(*anchor))?;
    Some(format!("{}: {link}: there is no heading #{anchor}", from.display()))
}

#[test]
fn no_link_in_the_documents_leads_nowhere() {
    let mut wrong = Vec::new();
    let mut seen = 0;
    for document in documents() {
        for link in links(&read(&document)) {
            seen += 1;
            wrong.extend(broken(&document, &link));
        }
    }
    assert!(seen > 50, "only {seen} links were found");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn links_inside_the_book_stay_inside() {
    let book = root().join("docs");
    let chapters = documents().into_iter().filter(|path| path.starts_with(book.join("handbook")));
    for document in chapters {
        for link in
            links(&read(&document)).iter().filter(|link| !link.contains("://") && !link.starts_with('#'))
        {
            let path = link.split('#').next().unwrap_or_default();
            let target = document.parent().unwrap().join(path).canonicalize().unwrap();
            assert!(target.starts_with(&book), "{}: {link} is not part of the book", document.display());
        }
    }
}

#[test]
fn a_broken_link_is_seen() {
    let here = root().join("docs/SUMMARY.md");
    assert_eq!(links("[a](b.md) `[no](link)` ![c](d.svg)"), ["b.md", "d.svg"]);
    assert!(broken(&here, "no-such.md").is_some());
    assert!(broken(&here, "../README.md#no-such-heading").is_some());
    assert!(broken(&here, "../README.md#how-fast").is_none());
    assert!(broken(&here, "https://example.org/nothing").is_none());
}

#[test]
fn parts_are_told_apart_by_their_numbers() {
    let printed = "Title\n\n10.0.0.1 left\n\n1. First\n\n1. not a title\n10.0.0.2 x\n\n2. Second\n\nend\n";
    assert_eq!(parts(printed), ["1. First\n\n1. not a title\n10.0.0.2 x", "2. Second\n\nend"]);
}
