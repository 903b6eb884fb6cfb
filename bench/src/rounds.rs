//! The loop: in every round, each work is done by each contender in turn.

use std::time::Instant;

use crate::{
    arguments::Arguments,
    contender::{Contender, Kind},
    failure::{Failure, Result},
    proc,
    record::{Figures, Record, Sample},
    stop, table,
};

/// All that was asked for; what was measured until Ctrl-C is still told.
pub fn run(arguments: &Arguments) -> Result<()> {
    stop::listen()?;
    let contenders = contenders(arguments)?;
    println!("{}, kernel {}", proc::cpu_model(), proc::kernel());
    for one in &contenders {
        let program = one.program.as_deref().map(|path| path.display().to_string()).unwrap_or_default();
        println!("{}: {} {} ({})", one.label, one.version, program, one.kind.remark());
    }
    let mut record = Record { contenders, samples: Vec::new() };
    let ended = measure(arguments, &mut record);
    print!("{}", table::text(&record));
    ended
}

fn contenders(arguments: &Arguments) -> Result<Vec<Contender>> {
    let mut chosen = match arguments.only.is_empty() {
        true => all_found(),
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

fn all_found() -> Vec<Contender> {
    let find = |kind: Kind| {
        let found = Contender::found(kind.name(), kind);
        if found.is_none() {
            println!("{} is missing: {}", kind.name(), kind.remedy());
        }
        found
    };
    Kind::ALL.into_iter().filter_map(find).collect()
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
