//! The loop: in every round, each work is done by each contender in turn.

use std::time::Instant;

use crate::{
    arguments::Arguments,
    contender::{Contender, Kind},
    failure::{Failure, Result},
    machine::Machine,
    record::{Figures, Record, SCHEMA, Sample},
    report, stop, table,
};

/// All that was asked for; what was measured until Ctrl-C is still told.
pub fn run(arguments: &Arguments) -> Result<()> {
    if let Some(path) = &arguments.from {
        return report::show(&report::read(path)?, arguments.out.as_deref());
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
            for at in 0..record.contenders.len() {
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
