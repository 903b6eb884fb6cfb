//! docs/schema.md says what the daemon says: each table's first column against the fields of an answer.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use serde_json::Value;
use vpnd::control::events::{Events, What};
use vpnd::control::samples::Row;

use super::fake::Fake;
use super::http::{busy, get, raw};

type Names = BTreeSet<String>;

/// The tables under each heading: for each row the names in backticks of the first two cells.
fn documented() -> BTreeMap<String, Vec<Vec<(String, Names)>>> {
    let text =
        fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/schema.md")).expect("the document");
    let mut found: BTreeMap<String, Vec<Vec<(String, Names)>>> = BTreeMap::new();
    let (mut heading, mut in_table) = (String::new(), false);
    for line in text.lines() {
        if let Some(title) = line.strip_prefix('#') {
            heading = title.trim_start_matches('#').trim().to_owned();
        }
        let Some(cells) = line.strip_prefix('|') else {
            in_table = false;
            continue;
        };
        let tables = found.entry(heading.clone()).or_default();
        if !in_table {
            tables.push(Vec::new());
            in_table = true;
        }
        let names = |cell: &str| -> Names { cell.split('`').skip(1).step_by(2).map(str::to_owned).collect() };
        let mut cells = cells.split('|');
        let (first, second) = (cells.next().expect("a cell"), cells.next().expect("a second one"));
        if let Some(name) = names(first).pop_first() {
            tables.last_mut().expect("one was begun").push((name, names(second)));
        }
    }
    found
}

fn column(table: &[(String, Names)]) -> Names {
    table.iter().map(|(name, _)| name.clone()).collect()
}

fn fields(json: &Value) -> Names {
    json.as_object().expect("an object").keys().cloned().collect()
}

#[tokio::test]
async fn the_document_lists_each_field_of_a_status_and_no_other() {
    let documented = documented();
    let fake = Fake::start_with(busy()).await;
    let (_, status) = get(&fake, "GET /v1/status").await;
    assert_eq!(column(&documented["Status"][0]), fields(&status));
    assert_eq!(column(&documented["Operation"][0]), fields(&status["operation"]));
    assert_eq!(column(&documented["Sandbox"][0]), fields(&status["sandbox"]));
    assert_eq!(column(&documented["Peer"][0]), fields(&status["peers"][0]));
    assert_eq!(column(&documented["Refusal"][0]), fields(&status["refusals"][0]));
    assert_eq!(column(&documented["Evidence"][0]), fields(&status["refusals"][0]["last"]));
    let (_, peer) = get(&fake, "GET /v1/peer?peer=laptop").await;
    assert_eq!(peer, status["peers"][0]);
    assert_eq!(get(&fake, "GET /v1/peer?peer=nobody").await.0, 404);
    assert_eq!(get(&fake, "GET /v1/peer").await.0, 400);
}

#[tokio::test]
async fn the_document_lists_each_field_of_a_sample_and_its_columns_in_order() {
    let documented = documented();
    let fake = Fake::start_with(busy()).await;
    let (_, sample) = get(&fake, "GET /v1/samples").await;
    assert_eq!(column(&documented["Samples"][0]), fields(&sample));
    let row = sample["peers"][0].as_array().expect("an array").clone();
    let columns: Vec<_> = documented["Samples"][1].iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(columns.len(), row.len());
    let named: serde_json::Map<_, _> =
        columns.iter().map(|name| (*name).to_owned()).zip(row.clone()).collect();
    let by_name: Row = serde_json::from_value(named.into()).expect("the columns are the fields");
    let by_place: Row = serde_json::from_value(row.into()).expect("and so is their order");
    assert_eq!(by_name, by_place);
    let (_, sample) = get(&fake, "GET /v1/samples?since=90000000000&generation=1").await;
    assert_eq!((&sample["whole"], &sample["peers"]), (&false.into(), &Value::Array(Vec::new())));
}

/// One of each.
fn all_events() -> Vec<What> {
    let place = || ([192, 0, 2, 7], 51820).into();
    let text = String::new;
    vec![
        What::Started { port: 1, peers: 1 },
        What::Stopping { why: text() },
        What::Connected { endpoint: place(), initiator: true },
        What::Handshake { endpoint: place(), initiator: true },
        What::Roamed { from: None, to: place() },
        What::Unanswered { attempts: 1 },
        What::GivenUp,
        What::Silent,
        What::Expired,
        What::PrefixMoved { prefix: text(), from: text(), to: text() },
        What::UnderLoad { on: true },
        What::Refused {
            reason: text(),
            count: 1,
            from: None,
            key: None,
            inner: None,
            owner: None,
            text: text(),
        },
        What::Reloaded { changes: Vec::new(), confirm_within_s: None },
        What::ReloadRefused { why: text() },
        What::Confirmed,
        What::TakenBack { changes: Vec::new() },
        What::NotTakenBack { why: text() },
        What::Drift { what: text(), count: 1, contested: false },
        What::Displaced { why: text() },
        What::Link { up: true },
        What::Lost { count: 1 },
    ]
}

#[test]
fn the_document_lists_each_event_and_each_field_of_it() {
    let documented = &documented()["Events"];
    let common = column(&documented[0]);
    let events = Events::new("vpn0");
    let mut told = BTreeMap::new();
    for what in all_events() {
        let json = serde_json::to_value(&*events.record(1.0, None, what)).expect("it is plain");
        let own = fields(&json).difference(&common).cloned().collect::<Names>();
        assert!(common.is_subset(&fields(&json)), "{json}");
        told.insert(json["event"].as_str().expect("a name").to_owned(), own);
    }
    assert_eq!(documented[1].iter().cloned().collect::<BTreeMap<_, _>>(), told);
    let recorded: Names = What::NAMES.map(str::to_owned).into_iter().chain(["lost".to_owned()]).collect();
    assert_eq!(column(&documented[1]), recorded);
}

#[tokio::test]
async fn the_document_lists_each_metric() {
    let fake = Fake::start_with(busy()).await;
    let answer = raw(&fake, "GET /metrics").await;
    let told: Names = answer
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next().map(str::to_owned))
        .collect();
    assert_eq!(column(&documented()["Metrics"][0]), told);
}
