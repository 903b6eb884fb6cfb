//! What `vpnd trace --json` printed on the other end, or on a host between.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use tokio::time::{Instant, sleep};

use crate::trace::{Page, VERSION, join};

/// The other end writes a moment after it saw the packet, on a busy machine some seconds: its file is read again until
/// that is there.
const PATIENCE: Duration = Duration::from_secs(10);
const AGAIN: Duration = Duration::from_millis(100);

/// Each page with what the files have of its way; an error is a sentence.
pub(super) async fn join_all(
    pages: Vec<Page>,
    loose: Vec<Page>,
    files: &[PathBuf],
) -> Result<Vec<Page>, String> {
    let until = Instant::now() + PATIENCE;
    let mut others: Vec<Vec<Page>> = files.iter().map(|file| read(file)).collect::<Result<_, _>>()?;
    loop {
        let half = |page: &Page, others: &Vec<Page>| others.iter().any(|other| other.carrier == page.carrier);
        let carried = || pages.iter().filter(|page| page.carrier.is_some());
        let whole = others.iter().all(|others| carried().all(|page| half(page, others)));
        if whole || Instant::now() >= until {
            if files.is_empty() {
                return Ok(pages);
            }
            let others = [others.concat(), loose].concat();
            return Ok(pages.into_iter().map(|page| join(page, &others)).collect());
        }
        sleep(AGAIN).await;
        // A pipe was read to its end.
        for (file, pages) in files.iter().zip(&mut others).filter(|(file, _)| file.is_file()) {
            *pages = read(file)?;
        }
    }
}

/// All pages of a file; its last line may still be written.
fn read(file: &Path) -> Result<Vec<Page>, String> {
    let text = std::fs::read_to_string(file).map_err(|error| format!("{}: {error}", file.display()))?;
    let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
    let lines = (1..).zip(whole.lines()).filter(|(_, line)| !line.trim().is_empty());
    lines.map(|(number, line)| page(file, number, line)).collect()
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
