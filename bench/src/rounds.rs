//! The loop: in every round, each work is done by each contender in turn.

use std::time::Instant;

use crate::{
    arguments::Arguments,
    contender::{Contender, Kind},
    failure::{Failure, Result},
    machine::Machine,
    micro,
    record::{Figures, Record, SCHEMA, Sample},
    report, stop, table,
};

/// All that was asked for; what was measured until Ctrl-C is still told.
pub fn run(arguments: &Arguments) -> Result<()> {
    if let Some(path) = &arguments.from {
        return report::show(&report::read(path)?, arguments.out.as_deref());
    }
    if let Some(folder) = &arguments.micro {
        print!("{}", micro::table(folder)?.text());
        return Ok(());
    }
    stop::listen()?;
    let mut record = prepare(arguments)?;
    println!("{}", record.machine);
    for one in &record.contenders {
        let program = one.program.as_deref().map(|path| path.display().to_string()).unwrap_or_default();
        println!("{} {} {program} ({})", one.label, one.version, one.kind.remark());
    }
    for (name, remedy) in &record.missing {
        println!("{name} is missing: {remedy}");
    }
    let ended = measure(arguments, &mut record);
    report::show(&record, arguments.out.as_deref().filter(|_| ended.is_ok()))?;
    ended
}

fn prepare(arguments: &Arguments) -> Result<Record> {
    let contenders = contenders(arguments)?;
    let absent = |kind: &Kind| contenders.iter().all(|one| one.kind != *kind);
    let missing = match arguments.only.is_empty() {
        true => Kind::ALL.into_iter().filter(absent).collect(),
        false => vec![],
    };
    Ok(Record {
        schema: SCHEMA,
        machine: Machine::here(arguments.congestion.as_deref()),
        rounds: arguments.rounds,
        seconds: arguments.seconds,
        peers: arguments.peers,
        missing: missing.into_iter().map(|kind| (kind.name().to_owned(), kind.remedy().to_owned())).collect(),
        contenders,
        samples: Vec::new(),
    })
}

fn contenders(arguments: &Arguments) -> Result<Vec<Contender>> {
    let mut chosen: Vec<Contender> = match arguments.only.is_empty() {
        true => Kind::ALL.into_iter().filter_map(|kind| Contender::found(kind.name(), kind)).collect(),
        false => arguments.only.iter().map(|text| Contender::parse(text)).collect::<Result<_>>()?,
    };
    for line in &arguments.line {
        let unknown = || Failure::Said(format!("--line {line:?}: it is NAME=LINE, and NAME is measured"));
        let (label, text) = line.split_once('=').ok_or_else(unknown)?;
        let meant = chosen.iter_mut().find(|one| one.label == label && one.kind == Kind::Vpnd);
        meant.ok_or_else(unknown)?.lines.push(text.to_owned());
    }
    Ok(chosen)
}

fn measure(arguments: &Arguments, record: &mut Record) -> Result<()> {
    for round in 1..=arguments.rounds {
        for &work in &arguments.work {
            for at in turns(round, record.contenders.len()) {
                let contender = &record.contenders[at];
                if !work.suits(contender.kind) {
                    continue;
                }
                let start = Instant::now();
                let (figures, failure) = match work.measure(contender, arguments) {
                    Ok(figures) => (figures, None),
                    Err(Failure::Interrupted) => return Err(Failure::Interrupted),
                    Err(failure) => (Figures::default(), Some(failure.to_string())),
                };
                let contender = contender.label.clone();
                let sample = Sample { round, work, contender, figures, failure };
                println!("{}", table::line(&sample, start.elapsed()));
                record.samples.push(sample);
            }
        }
    }
    Ok(())
}

/// There and back again: whoever comes first in one round comes last in the next, so that a machine which slows down
/// favours nobody.
fn turns(round: u32, count: usize) -> Vec<usize> {
    if round % 2 == 1 { (0..count).collect() } else { (0..count).rev().collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_second_round_goes_backwards() {
        assert_eq!([turns(1, 3), turns(2, 3), turns(3, 3)], [[0, 1, 2], [2, 1, 0], [0, 1, 2]]);
    }

    #[test]
    fn a_line_is_for_a_vpnd_that_is_measured() {
        let arguments = |line: &str| {
            let words = ["bench", "--only", "vpnd2=/bin/sh", "--only", "veth", "--line", line];
            contenders(&<Arguments as clap::Parser>::parse_from(words))
        };
        assert_eq!(arguments("vpnd2=workers = 1").unwrap()[0].lines, ["workers = 1"]);
        assert!(arguments("vpnd=workers = 1").is_err());
        assert!(arguments("veth=mtu = 1").is_err());
    }
}
