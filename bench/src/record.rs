//! What was measured, as it is written to JSON.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{
    contender::{Contender, Kind},
    figure::Figure,
    machine::Machine,
    work::Work,
};

/// Raised when a reader of old files would misread a new one.
pub const SCHEMA: u32 = 1;

/// A whole run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Record {
    pub schema: u32,
    pub machine: Machine,
    pub rounds: u32,
    /// Of each TCP run.
    pub seconds: u32,
    /// Peers of each end in the work `peers`.
    pub peers: u32,
    pub contenders: Vec<Contender>,
    /// Programs that were not on the machine, and how to get them.
    pub missing: BTreeMap<String, String>,
    pub samples: Vec<Sample>,
}

/// One contender did one work in one round.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Sample {
    pub round: u32,
    pub work: Work,
    pub contender: String,
    #[serde(default)]
    pub figures: Figures,
    /// Why there are no figures.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<String>,
}

/// Named numbers of one run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Figures(BTreeMap<String, f64>);

impl Figures {
    /// Notes one.
    pub fn set(&mut self, name: &str, value: f64) {
        self.0.insert(name.to_owned(), value);
    }

    /// If it was noted.
    pub fn of(&self, name: &str) -> Option<f64> {
        self.0.get(name).copied()
    }
}

/// Median and range of the rounds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Spread {
    pub low: f64,
    pub median: f64,
    pub high: f64,
}

impl Spread {
    /// `None` of nothing.
    pub fn of(values: &[f64]) -> Option<Self> {
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        let (low, high) = (*sorted.first()?, *sorted.last()?);
        let middle = sorted.len() / 2;
        let median =
            if sorted.len() % 2 == 1 { sorted[middle] } else { (sorted[middle - 1] + sorted[middle]) / 2.0 };
        Some(Self { low, median, high })
    }
}

/// One line of the summary: what the samples come to. Written for other programs, never read back.
#[derive(Clone, Debug, Serialize)]
pub struct Summary {
    pub work: Work,
    pub figure: &'static str,
    pub contender: String,
    pub value: Spread,
    /// The first vpnd divided by this one, round by round.
    pub ratio: Option<Spread>,
}

impl Record {
    /// The vpnd that the others are compared with: the first.
    pub fn ours(&self) -> Option<&Contender> {
        self.contenders.iter().find(|one| one.kind == Kind::Vpnd)
    }

    /// Was it measured at this work, whatever came of it?
    pub fn was_asked(&self, work: Work, contender: &str) -> bool {
        self.samples.iter().any(|sample| sample.is(work, contender))
    }

    /// What this contender reached in each round.
    pub fn values(&self, work: Work, figure: &str, contender: &str) -> Vec<f64> {
        let theirs = self.samples.iter().filter(|sample| sample.is(work, contender));
        theirs.filter_map(|sample| sample.figures.of(figure)).collect()
    }

    /// In each round in which both have a figure: the first divided by the second.
    pub fn ratios(&self, work: Work, figure: &str, ours: &str, theirs: &str) -> Vec<f64> {
        let value = |contender, round| {
            let sample =
                self.samples.iter().find(|sample| sample.is(work, contender) && sample.round == round);
            sample?.figures.of(figure)
        };
        let rounds = self.samples.iter().map(|sample| sample.round).max().unwrap_or(0);
        let both = (1..=rounds).filter_map(|round| Some((value(ours, round)?, value(theirs, round)?)));
        both.filter(|(_, theirs)| *theirs > 0.0).map(|(ours, theirs)| ours / theirs).collect()
    }

    /// All medians and ranges.
    pub fn summary(&self) -> Vec<Summary> {
        let mut lines = Vec::new();
        for work in Work::ALL {
            for (figure, contender) in
                Figure::of(work).iter().flat_map(|f| self.contenders.iter().map(move |c| (f, c)))
            {
                let Some(value) = Spread::of(&self.values(work, figure.key, &contender.label)) else {
                    continue;
                };
                let others = self.ours().filter(|ours| ours.label != contender.label);
                let ratio = others.and_then(|ours| {
                    Spread::of(&self.ratios(work, figure.key, &ours.label, &contender.label))
                });
                lines.push(Summary {
                    work,
                    figure: figure.key,
                    contender: contender.label.clone(),
                    value,
                    ratio,
                });
            }
        }
        lines
    }

    /// As JSON: the record, and its summary beside it.
    pub fn json(&self) -> serde_json::Result<String> {
        #[derive(Serialize)]
        struct Whole<'a> {
            #[serde(flatten)]
            record: &'a Record,
            summary: Vec<Summary>,
        }
        serde_json::to_string_pretty(&Whole { record: self, summary: self.summary() })
    }
}

impl Sample {
    fn is(&self, work: Work, contender: &str) -> bool {
        self.work == work && self.contender == contender
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;

    /// Speeds over one TCP stream, round by round; what is not a number failed.
    pub fn record(speeds: &[(&str, &[f64])]) -> Record {
        let contenders = speeds.iter().map(|(label, _)| {
            let kind = Kind::ALL.into_iter().find(|kind| label.starts_with(kind.name())).unwrap();
            Contender {
                label: (*label).to_owned(),
                kind,
                program: None,
                version: "1".to_owned(),
                lines: vec![],
            }
        });
        let mut samples = Vec::new();
        for (contender, speeds) in speeds {
            for (round, &speed) in (1..).zip(*speeds) {
                let mut figures = Figures::default();
                if speed.is_finite() {
                    figures.set("gbps", speed);
                }
                let contender = (*contender).to_owned();
                samples.push(Sample { round, work: Work::Tcp, contender, figures, failure: None });
            }
        }
        let (machine, missing) = (Machine::default(), BTreeMap::new());
        let contenders = contenders.collect();
        Record { schema: SCHEMA, machine, rounds: 3, seconds: 1, peers: 1, contenders, missing, samples }
    }

    #[test]
    fn a_median_of_an_even_number_lies_between() {
        assert_eq!(Spread::of(&[4.0, 1.0, 3.0, 2.0]), Some(Spread { low: 1.0, median: 2.5, high: 4.0 }));
        assert_eq!(Spread::of(&[7.0]), Some(Spread { low: 7.0, median: 7.0, high: 7.0 }));
        assert_eq!(Spread::of(&[]), None);
    }

    #[test]
    fn ratios_pair_the_same_round_and_leave_out_what_failed() {
        let record = record(&[("vpnd", &[6.0, f64::NAN, 8.0]), ("veth", &[2.0, 1.0, 2.0])]);
        assert_eq!(record.ratios(Work::Tcp, "gbps", "vpnd", "veth"), [3.0, 4.0]);
        assert_eq!(record.ratios(Work::Reverse, "gbps", "vpnd", "veth"), [0.0; 0]);
    }

    #[test]
    fn what_is_written_is_read_back_and_has_a_summary() {
        let text = record(&[("vpnd", &[6.0]), ("veth", &[12.0])]).json().unwrap();
        let read: Record = serde_json::from_str(&text).unwrap();
        assert_eq!(read.values(Work::Tcp, "gbps", "veth"), [12.0]);
        let whole: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(whole["schema"], SCHEMA);
        assert_eq!(whole["summary"][1]["contender"], "veth");
        assert_eq!(whole["summary"][1]["ratio"]["median"], 0.5);
        assert!(whole["summary"][0]["ratio"].is_null());
    }
}
