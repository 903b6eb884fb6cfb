//! What was measured, as it is written to JSON.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{contender::Contender, work::Work};

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

/// A whole run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Record {
    pub contenders: Vec<Contender>,
    pub samples: Vec<Sample>,
}

impl Record {
    /// What this contender reached in each round.
    pub fn values(&self, work: Work, figure: &str, contender: &str) -> Vec<f64> {
        let theirs =
            self.samples.iter().filter(|sample| sample.work == work && sample.contender == contender);
        theirs.filter_map(|sample| sample.figures.of(figure)).collect()
    }

    /// In each round in which both have a figure: the first divided by the second.
    pub fn ratios(&self, work: Work, figure: &str, ours: &str, theirs: &str) -> Vec<f64> {
        let value = |contender: &str, round| {
            let of = |sample: &&Sample| {
                (sample.work, sample.contender.as_str(), sample.round) == (work, contender, round)
            };
            self.samples.iter().find(of)?.figures.of(figure)
        };
        let rounds = self.samples.iter().map(|sample| sample.round).max().unwrap_or(0);
        let ratio = |round| Some((value(ours, round)?, value(theirs, round)?));
        (1..=rounds)
            .filter_map(ratio)
            .filter(|(_, theirs)| *theirs > 0.0)
            .map(|(ours, theirs)| ours / theirs)
            .collect()
    }
}

/// Median and range.
#[derive(Clone, Copy, Debug, PartialEq)]
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_median_of_an_even_number_lies_between() {
        assert_eq!(Spread::of(&[4.0, 1.0, 3.0, 2.0]), Some(Spread { low: 1.0, median: 2.5, high: 4.0 }));
        assert_eq!(Spread::of(&[7.0]), Some(Spread { low: 7.0, median: 7.0, high: 7.0 }));
        assert_eq!(Spread::of(&[]), None);
    }

    #[test]
    fn ratios_pair_the_same_round_and_leave_out_what_failed() {
        let sample = |round, contender: &str, gbps: Option<f64>| {
            let mut figures = Figures::default();
            gbps.into_iter().for_each(|gbps| figures.set("gbps", gbps));
            Sample { round, work: Work::Tcp, contender: contender.to_owned(), figures, failure: None }
        };
        let samples = vec![
            sample(1, "a", Some(6.0)),
            sample(1, "b", Some(2.0)),
            sample(2, "b", Some(1.0)),
            sample(2, "a", None),
            sample(3, "a", Some(8.0)),
            sample(3, "b", Some(2.0)),
        ];
        let record = Record { contenders: vec![], samples };
        assert_eq!(record.ratios(Work::Tcp, "gbps", "a", "b"), [3.0, 4.0]);
        assert_eq!(record.ratios(Work::Reverse, "gbps", "a", "b"), [0.0; 0]);
    }
}
