//! docs/schema.md says what the daemon says: each table's first column against the fields of an answer.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use serde_json::Value;
use vpnd::control::events::{Events, What};
use vpnd::control::samples::Row;
use vpnd::trace::{
    Answer, Batch, Carrier, Clock, Direction, Host as TraceHost, Kind, Opened, Outcome, Packet, Page, Place,
    Refused, Route, Rule, Sealed, Station, Step, VERSION, Verdict, Vpnd, Walk,
};

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
        What::SecretsGiven { on: true },
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

/// A page in which every field is there.
fn whole_page() -> Page {
    let packet = Packet {
        source: [10, 77, 0, 1].into(),
        destination: [10, 77, 0, 2].into(),
        protocol: "icmp".into(),
        source_port: None,
        destination_port: None,
        echo: Some([1, 2]),
        bytes: Some(84),
    };
    let rule = Rule {
        family: "ip".into(),
        table: "filter".into(),
        chain: "OUTPUT".into(),
        step: Step::Rule,
        handle: Some(4),
        text: Some("accept".into()),
        verdict: "accept".into(),
    };
    let refused = Vpnd::Refused(Refused { reason: "no_peer".into(), ..Refused::default() });
    let station = Station {
        at_us: Some(1.5),
        clock: Some(Clock::Vpnd),
        device: Some("vpn0".into()),
        inferred: true,
        packet: Some(packet.clone()),
        mark: Some(0),
        rules: vec![rule],
        route: Some(Route::default()),
        vpnd: Some(refused),
        facts: vec!["a fact".into()],
        unknown: vec!["the kernel does not tell".into()],
        ..Station::new(0, Walk::Inner, Direction::Out, Place::Vpnd, Verdict::Refused)
    };
    Page {
        version: VERSION,
        kind: Kind::Trace,
        packet: Some(packet.clone()),
        carrier: Some(Carrier { session: 1, counter_low: 2 }),
        hosts: vec![TraceHost {
            name: "left".into(),
            interface: Some("vpn0".into()),
            boot_id: None,
            began_ns: None,
        }],
        stations: vec![station.clone()],
        outcome: Outcome::Left { answered_us: None },
        answer: Some(Answer {
            packet: Some(packet),
            carrier: Some(Carrier { session: 3, counter_low: 4 }),
            stations: vec![station],
            outcome: Outcome::Arrived { answered_us: None },
        }),
        notes: vec!["a note".into()],
    }
}

#[test]
fn the_document_lists_each_field_of_a_page_and_no_other() {
    let documented = documented();
    let page = serde_json::to_value(whole_page()).expect("a page is JSON");
    assert_eq!(column(&documented["Pages"][0]), fields(&page));
    assert_eq!(column(&documented["Station"][0]), fields(&page["stations"][0]));
    assert_eq!(column(&documented["Pages"][1]), fields(&page["answer"]));
    let read: Page = serde_json::from_value(page).expect("and is read back");
    assert_eq!(read, whole_page());
}

#[test]
fn the_document_lists_each_field_of_what_vpnd_did() {
    let batch = Batch { datagrams: 1, place: 0, bytes: 128, first: 2 };
    let text = || "x".to_owned();
    let sealed = Sealed {
        peer: text(),
        public_key: text(),
        prefix: text(),
        session: 1,
        counter: 2,
        segments: 1,
        inner_bytes: 84,
        datagram_bytes: 128,
        staged: false,
        local: Some([192, 0, 2, 1].into()),
        endpoint: ([192, 0, 2, 2], 51820).into(),
        mark: 0,
        batch: Some(batch),
        error: Some(text()),
    };
    let opened = Opened {
        peer: text(),
        public_key: text(),
        prefix: text(),
        session: 1,
        counter: 2,
        from: ([192, 0, 2, 1], 51820).into(),
        datagram_bytes: 128,
        inner_bytes: 84,
        batch,
        merged: 1,
    };
    let documented = &documented()["What vpnd did"][0];
    let text =
        fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/schema.md")).expect("the document");
    let opened_too = |name: &String| {
        let row = text.lines().find(|line| line.starts_with(&format!("| `{name}` | `sealed` | `opened`")));
        row.is_some() || text.contains(&format!("| `{name}` | | `opened`"))
    };
    let of_sealed =
        documented.iter().filter(|(_, kinds)| kinds.contains("sealed")).map(|(name, _)| name.clone());
    assert_eq!(of_sealed.collect::<Names>(), fields(&serde_json::to_value(&sealed).expect("JSON")));
    let of_opened = documented.iter().map(|(name, _)| name.clone()).filter(opened_too);
    assert_eq!(of_opened.collect::<Names>(), fields(&serde_json::to_value(&opened).expect("JSON")));
}
