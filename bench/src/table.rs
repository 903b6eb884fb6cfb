//! The record as text.

use std::{fmt::Write, time::Duration};

use crate::record::{Record, Sample, Spread};

const FIGURES: [&str; 9] = [
    "gbps",
    "cpu_s_per_gb",
    "rss_peak_mb",
    "ping_median_us",
    "ping_p99_us",
    "ping_flood_median_us",
    "ping_flood_p99_us",
    "pps",
    "reordered",
];

/// One sample, as soon as it is there.
pub fn line(sample: &Sample, took: Duration) -> String {
    let mut text = format!("round {} {:?} {}:", sample.round, sample.work, sample.contender);
    for name in FIGURES {
        if let Some(value) = sample.figures.of(name) {
            let _ = write!(text, " {name} {value:.2}");
        }
    }
    if let Some(failure) = &sample.failure {
        let _ = write!(text, " failed: {failure}");
    }
    let _ = write!(text, " ({:.1} s)", took.as_secs_f64());
    text
}

/// Medians and ranges, and ratios of the first vpnd to each other one.
pub fn text(record: &Record) -> String {
    let mut text = String::new();
    let first = record.contenders.iter().find(|one| one.kind == crate::contender::Kind::Vpnd);
    for work in crate::work::Work::ALL {
        for figure in FIGURES {
            let mut rows = String::new();
            for one in &record.contenders {
                let Some(spread) = Spread::of(&record.values(work, figure, &one.label)) else { continue };
                let _ = write!(
                    rows,
                    "  {:16} {:8.3}  {:8.3} – {:8.3}",
                    one.label, spread.median, spread.low, spread.high
                );
                let ratio = first.filter(|first| first.label != one.label).and_then(|first| {
                    let ratios = record.ratios(work, figure, &first.label, &one.label);
                    Some((first, Spread::of(&ratios)?))
                });
                if let Some((first, ratio)) = ratio {
                    let _ = write!(
                        rows,
                        "   {} is {:.3} × ({:.3} – {:.3})",
                        first.label, ratio.median, ratio.low, ratio.high
                    );
                }
                rows.push('\n');
            }
            if !rows.is_empty() {
                let _ = write!(text, "{}: {figure}\n{rows}", work.title());
            }
        }
    }
    text
}
