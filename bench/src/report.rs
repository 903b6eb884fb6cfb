//! What is printed at the end, and the files that are kept.

use std::{fs, path::Path};

use crate::{
    failure::{Attempted, Failure, Result},
    plot,
    record::{Record, SCHEMA},
    table::Table,
    target,
};

/// Tables on the terminal; `bench.json`, `bench.md` and `bench.svg` in the folder.
pub fn show(record: &Record, folder: Option<&Path>) -> Result<()> {
    let tables = tables(record);
    println!();
    tables.iter().for_each(|table| println!("{}", table.text()));
    for sample in record.samples.iter().filter(|sample| sample.failure.is_some()) {
        let why = sample.failure.as_deref().unwrap_or_default();
        println!("round {}, {}, {}: {why}", sample.round, sample.work.title(), sample.contender);
    }
    let Some(folder) = folder else { return Ok(()) };
    fs::create_dir_all(folder).attempted(|| format!("make {}", folder.display()))?;
    let json = record.json().attempted(|| "write JSON".to_owned())?;
    for (name, text) in [
        ("bench.json", json + "\n"),
        ("bench.md", markdown(record, &tables)),
        ("bench.svg", plot::svg(record)),
    ] {
        let path = folder.join(name);
        fs::write(&path, text).attempted(|| format!("write {}", path.display()))?;
        println!("{}", path.display());
    }
    Ok(())
}

/// A `bench.json` of an earlier run.
pub fn read(path: &Path) -> Result<Record> {
    let text = fs::read_to_string(path).attempted(|| format!("read {}", path.display()))?;
    let record: Record =
        serde_json::from_str(&text).attempted(|| format!("understand {}", path.display()))?;
    match record.schema {
        SCHEMA => Ok(record),
        other => {
            Err(Failure::Said(format!("{} has schema {other}, this bench reads {SCHEMA}", path.display())))
        }
    }
}

fn tables(record: &Record) -> Vec<Table> {
    Table::of(record).into_iter().chain(target::table(record)).collect()
}

fn markdown(record: &Record, tables: &[Table]) -> String {
    let mut text = format!(
        "# vpnd beside other VPN programs\n\n{}. {} rounds, TCP runs of {} s, each program in turn; median (lowest–highest).\n\n",
        record.machine, record.rounds, record.seconds
    );
    for one in &record.contenders {
        let version = if one.version.is_empty() { String::new() } else { format!(" {}", one.version) };
        text += &format!("- {}{version}: {}\n", one.label, one.kind.remark());
    }
    for (name, remedy) in &record.missing {
        text += &format!("- {name} was not on this machine (`{remedy}`)\n");
    }
    tables.iter().for_each(|table| text += &format!("\n{}", table.markdown()));
    text
}
