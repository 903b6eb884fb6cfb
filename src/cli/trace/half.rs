//! What `vpnd trace --json` printed on the other end, or on a host between.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use tokio::time::{Instant, sleep};

use crate::trace::{Page, join, station::VERSION};

/// The other end writes a moment after it saw the packet: its file is read again until that is there.
const PATIENCE: Duration = Duration::from_secs(3);
const AGAIN: Duration = Duration::from_millis(100);

/// Each page with what the files have of its way; an error is a sentence.
pub(super) async fn join_all(pages: Vec<Page>, files: &[PathBuf]) -> Result<Vec<Page>, String> {
    let until = Instant::now() + PATIENCE;
    loop {
        let others = read(files)?;
        let has_half = |page: &Page| others.iter().any(|other| other.carrier == page.carrier);
        let whole = pages.iter().filter(|page| page.carrier.is_some()).all(has_half);
        if files.is_empty() || whole || Instant::now() >= until {
            return Ok(pages.into_iter().map(|page| join(page, &others)).collect());
        }
        sleep(AGAIN).await;
    }
}

/// All pages of all files.
fn read(files: &[PathBuf]) -> Result<Vec<Page>, String> {
    let mut pages = Vec::new();
    for file in files {
        let text = std::fs::read_to_string(file).map_err(|error| format!("{}: {error}", file.display()))?;
        for (number, line) in (1..).zip(text.lines()).filter(|(_, line)| !line.trim().is_empty()) {
            pages.push(page(file, number, line)?);
        }
    }
    Ok(pages)
}

fn page(file: &Path, number: usize, line: &str) -> Result<Page, String> {
    let place = format!("{}, line {number}", file.display());
    let page: Page = serde_json::from_str(line)
        .map_err(|error| format!("{place}: not a page of `vpnd trace --json`: {error}"))?;
    match page.version {
        VERSION => Ok(page),
        other => Err(format!("{place}: a page of version {other}; this vpnd reads {VERSION}")),
    }
}
