//! What criterion measured (`make bench-micro`), a packet each, beside the figures that the design began with.

use std::{collections::BTreeMap, fs, path::Path};

use serde_json::Value;

use crate::{
    failure::{Failure, Result},
    table::Table,
};

/// What a packet cost when the data plane was designed: `ring` for the cipher, a prototype for the rest; nanoseconds.
const DESIGN: [(&str, f64); 10] = [
    ("seal/64", 170.0),
    ("seal/256", 257.0),
    ("seal/1420", 735.0),
    ("open/1420", 735.0),
    ("checksum/sum", 42.0),
    ("checksum/copy alone", 25.0),
    ("segment/44 of 1420", 59.0),
    ("coalesce/44 of 1420", 16.0),
    ("outbound/44 of 1420", 786.0),
    ("inbound/44 of 1420", 698.0),
];

/// Reads `GROUP/FUNCTION/new/*.json` below this folder.
pub fn table(folder: &Path) -> Result<Table> {
    let steps = steps(folder);
    if steps.is_empty() {
        return Err(Failure::Said(format!(
            "nothing was measured below {}: make bench-micro",
            folder.display()
        )));
    }
    let row = |(name, step): (&String, &Step)| {
        let design = DESIGN.iter().find(|(design, _)| design == name);
        let each = step.nanoseconds / step.packets;
        vec![
            name.clone(),
            written(step.nanoseconds),
            written(each),
            design.map_or_else(String::new, |(_, nanoseconds)| written(*nanoseconds)),
            design.map_or_else(String::new, |(_, nanoseconds)| format!("{:.2}", each / nanoseconds)),
        ]
    };
    let heads = ["step", "ns", "ns a packet", "design", "÷ design"].map(str::to_owned).to_vec();
    let title = "Steps of the walk (medians)".to_owned();
    Ok(Table { title, heads, rows: steps.iter().map(row).collect() })
}

struct Step {
    nanoseconds: f64,
    packets: f64,
}

fn steps(folder: &Path) -> BTreeMap<String, Step> {
    let below =
        |folder: &Path| fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    below(folder).flat_map(|group| below(&group).filter_map(|function| step(&function.join("new")))).collect()
}

fn step(folder: &Path) -> Option<(String, Step)> {
    let read = |name| serde_json::from_str::<Value>(&fs::read_to_string(folder.join(name)).ok()?).ok();
    let (benchmark, estimates) = (read("benchmark.json")?, read("estimates.json")?);
    let packets = benchmark["throughput"]["Elements"].as_f64().unwrap_or(1.0);
    let nanoseconds = estimates["median"]["point_estimate"].as_f64()?;
    Some((benchmark["full_id"].as_str()?.to_owned(), Step { nanoseconds, packets }))
}

fn written(nanoseconds: f64) -> String {
    if nanoseconds < 100.0 { format!("{nanoseconds:.1}") } else { format!("{nanoseconds:.0}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_super_packet_is_told_by_the_packet() {
        let folder = std::env::temp_dir().join(format!("vpnd-bench-micro-{}", std::process::id()));
        let new = folder.join("segment/44 of 1420/new");
        fs::create_dir_all(&new).unwrap();
        let benchmark = r#"{"full_id":"segment/44 of 1420","throughput":{"Elements":44}}"#;
        fs::write(new.join("benchmark.json"), benchmark).unwrap();
        fs::write(new.join("estimates.json"), r#"{"median":{"point_estimate":5192.0}}"#).unwrap();
        let table = table(&folder);
        fs::remove_dir_all(&folder).unwrap();
        assert_eq!(table.unwrap().rows, [["segment/44 of 1420", "5192", "118", "59.0", "2.00"]]);
    }

    #[test]
    fn nothing_measured_is_said() {
        assert!(table(Path::new("/nowhere")).unwrap_err().to_string().contains("make bench-micro"));
    }
}
