//! The live view on a terminal in memory.

use ratatui::{
    Terminal,
    backend::TestBackend,
    crossterm::event::{KeyCode, KeyEvent, KeyModifiers},
};

use super::super::feed::News;
use super::super::model::{Model, Turn};
use super::draw;
use crate::control::{
    events::{EventReport, What},
    samples::{Row, SampleReport},
};

fn row(id: u64, name: &str) -> Row {
    Row {
        id,
        name: name.to_owned(),
        public_key: format!("KEY{id}="),
        endpoint: Some(([192, 0, 2, 7], 1000 + id as u16).into()),
        rx_bytes: 0,
        tx_bytes: 0,
        last_received_s: Some(2.0),
        last_handshake: Some(990.0),
        connected_since: Some(900.0),
        session_age_s: Some(10.0),
        attempts: 0,
        untaken: 0,
        staged: 0,
    }
}

fn sample(second: u64, whole: bool, peers: Vec<Row>) -> News {
    News::Sample(SampleReport {
        interface: "vpn0".to_owned(),
        now: 1000.0 + second as f64,
        boot: (100 + second) * 1_000_000_000,
        generation: 1,
        under_load: false,
        listen_port: 51820,
        total: 3,
        connected: 2,
        whole,
        peers,
    })
}

/// Three peers; in the second sample one has received, another sent.
fn model() -> Model {
    let mut model = Model::new("vpn0");
    let silent = Row { session_age_s: None, connected_since: None, last_received_s: None, ..row(3, "gone") };
    model.take(sample(0, true, vec![row(1, "laptop"), row(2, "phone"), silent]));
    let receiving = Row { rx_bytes: 125_000, ..row(1, "laptop") };
    let sending = Row { tx_bytes: 1_250_000, ..row(2, "phone") };
    model.take(sample(1, false, vec![receiving, sending]));
    model
}

fn screen(model: &mut Model, width: u16, height: u16) -> Vec<String> {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).expect("memory does not fail");
    terminal.draw(|frame| draw(frame, model)).expect("memory does not fail");
    let buffer = terminal.backend().buffer();
    let line = |y| (0..width).map(|x| buffer[(x, y)].symbol()).collect::<String>().trim_end().to_owned();
    (0..height).map(line).collect()
}

fn names(lines: &[String]) -> Vec<String> {
    let peers = lines.iter().skip(2).map_while(|line| {
        let mut words = line.split_whitespace();
        words.next().filter(|mark| ["●", "·", "!"].contains(mark))?;
        words.next().map(str::to_owned)
    });
    peers.collect()
}

fn press(model: &mut Model, keys: &str) -> Turn {
    let mut turn = Turn::On;
    for key in keys.chars() {
        let code = match key {
            '\n' => KeyCode::Enter,
            '\x1b' => KeyCode::Esc,
            key => KeyCode::Char(key),
        };
        turn = model.press(KeyEvent::new(code, KeyModifiers::NONE));
    }
    turn
}

#[test]
fn the_screen_shows_peers_with_rates_and_sparklines_and_the_events_below() {
    let mut model = model();
    model.take(News::Event(Box::new(EventReport {
        seq: 1,
        time: 990.0,
        interface: "vpn0".to_owned(),
        peer: Some("laptop\x1b".to_owned()),
        public_key: None,
        what: What::Connected { endpoint: ([192, 0, 2, 7], 5).into(), initiator: true },
    })));
    let lines = screen(&mut model, 120, 20);
    assert_eq!(lines[0], "vpn0: 2 of 3 connected   ↓ 1.0 Mbit/s  ↑ 10.0 Mbit/s");
    assert_eq!(names(&lines), ["gone", "laptop", "phone"]);
    let laptop = &lines[3];
    for part in ["● laptop", "for 1m41s", "192.0.2.7:1001", "1.0 Mbit/s", "2s", "█"] {
        assert!(laptop.contains(part), "{part}: {laptop}");
    }
    assert!(lines[2].contains("· gone") && lines[2].contains("idle"), "{}", lines[2]);
    let log = lines.iter().find(|line| line.contains("connected from 192.0.2.7:5")).expect("the event");
    assert!(log.contains("11s ago  laptop\u{fffd}:"), "{log}");
    assert!(lines[19].starts_with("q quit"));
}

#[test]
fn keys_sort_filter_select_and_show_details() {
    let mut model = model();
    let mut after = |keys: &str| {
        assert_eq!(press(&mut model, keys), Turn::On);
        let lines = screen(&mut model, 120, 24);
        (names(&lines), lines)
    };
    assert_eq!(after("r").0, ["laptop", "gone", "phone"]);
    assert_eq!(after("t").0, ["phone", "gone", "laptop"]);
    assert_eq!(after("s").0, ["laptop", "phone", "gone"]);
    assert_eq!(after("i").0, ["gone", "laptop", "phone"]);
    assert_eq!(after("nc").0, ["laptop", "phone"]);
    assert_eq!(after("c/PHO").0, ["phone"]);
    let (_, lines) = after("\n\n");
    assert!(lines.iter().any(|line| line.starts_with("public key   KEY2=")), "{lines:#?}");
    assert_eq!(after("\x1b").0, ["gone", "laptop", "phone"], "Esc clears");
    assert_eq!(press(&mut model, "\x1b"), Turn::End);
    assert_eq!(press(&mut model, "q"), Turn::End);
    press(&mut model, "/");
    model.press(KeyEvent::new(KeyCode::Char('j'), KeyModifiers::CONTROL));
    assert_eq!(model.filter, "", "no letter");
    let interrupt = KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL);
    assert_eq!(model.press(interrupt), Turn::End);
}

#[test]
fn ten_thousand_peers_scroll_and_the_selected_one_stays_in_sight() {
    let mut model = Model::new("vpn0");
    let peers = || (0..10_000).map(|id| row(id, &format!("p{id:05}"))).collect::<Vec<_>>();
    model.take(sample(0, true, peers()));
    model.take(sample(1, true, peers()));
    assert_eq!(names(&screen(&mut model, 100, 30))[0], "p00000");
    press(&mut model, "G");
    let shown = names(&screen(&mut model, 100, 30));
    assert_eq!((shown.len(), shown.last().map(String::as_str)), (20, Some("p09999")));
    press(&mut model, "k");
    assert_eq!(names(&screen(&mut model, 100, 30)).last().map(String::as_str), Some("p09999"), "no jump");
    press(&mut model, "g");
    assert_eq!(names(&screen(&mut model, 100, 30))[0], "p00000");
    press(&mut model, "/p0777\n");
    assert_eq!(names(&screen(&mut model, 100, 30)).len(), 10);
}

#[test]
fn the_busiest_are_seen_where_they_are_sorted_and_who_was_selected_is_followed() {
    let mut model = Model::new("vpn0");
    let peers = |busy: u64, bytes: u64| {
        let one = |id| Row { rx_bytes: if id == busy { bytes } else { 0 }, ..row(id, &format!("p{id:05}")) };
        (0..1000).map(one).collect::<Vec<_>>()
    };
    let selected = |model: &Model| model.selected().expect("there are peers").row.name.clone();
    model.take(sample(0, true, peers(777, 0)));
    model.take(sample(1, true, peers(777, 5000)));
    press(&mut model, "r");
    assert_eq!(names(&screen(&mut model, 100, 30))[0], "p00777");
    // Whoever comes first now is seen first, though nobody pressed a key.
    model.take(sample(2, true, peers(333, 9000)));
    assert_eq!(
        (names(&screen(&mut model, 100, 30))[0].as_str(), selected(&model).as_str()),
        ("p00333", "p00333")
    );
    press(&mut model, "j");
    let second = selected(&model);
    model.take(sample(3, true, peers(500, 9000)));
    assert_eq!(selected(&model), second, "it is followed");
    press(&mut model, "t");
    assert_eq!(selected(&model), "p00000", "sorted anew, the first is meant");
}

#[test]
fn a_session_dies_on_the_screen_when_it_dies_in_the_daemon() {
    let mut model = model();
    model.take(sample(169, false, Vec::new()));
    assert!(screen(&mut model, 100, 20)[3].contains("● laptop"));
    model.take(sample(171, false, Vec::new()));
    assert!(screen(&mut model, 100, 20)[3].contains("· laptop"));
}

#[test]
fn a_daemon_that_goes_is_waited_for_and_the_next_one_counts_anew() {
    let mut model = model();
    model.take(News::Gone("nothing listens".to_owned()));
    let lines = screen(&mut model, 100, 20);
    assert_eq!(lines[0], "vpn0: waiting for the daemon: nothing listens");
    assert_eq!(names(&lines).len(), 3, "what was known stays to be read");
    model.take(sample(5, true, vec![Row { rx_bytes: 9, ..row(1, "tablet") }]));
    let lines = screen(&mut model, 100, 20);
    assert!(lines[0].starts_with("vpn0: 2 of 3 connected   ↓ 0 bit/s"), "{}", lines[0]);
    assert_eq!(names(&lines), ["tablet"]);
}

#[test]
fn no_size_of_the_terminal_is_too_small() {
    let mut model = model();
    press(&mut model, "\n");
    for width in [1, 2, 7, 40] {
        for height in 1..30 {
            screen(&mut model, width, height);
        }
    }
    press(&mut model, "/zzz\n");
    screen(&mut model, 80, 24);
}
