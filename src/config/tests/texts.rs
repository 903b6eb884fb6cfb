//! Whole files: the samples, many peers, random text.

use std::fmt::Write as _;

use proptest::prelude::*;

use super::*;

#[test]
fn the_samples_load() {
    let samples = [
        ("peer", include_str!("../../../config/peer.toml"), 1, 2),
        ("gateway", include_str!("../../../config/gateway.toml"), 3, 8),
        ("client", include_str!("../../../config/client.toml"), 1, 2),
    ];
    for (name, text, peers, prefixes) in samples {
        let config =
            parse_with_mode(text, Path::new(name), 0o644, &key_files).unwrap_or_else(|e| panic!("{e}"));
        let count: usize = config.peers.iter().map(|peer| peer.allowed_ips.len()).sum();
        assert_eq!((config.peers.len(), count), (peers, prefixes), "{name}");
        assert!(config.peers.iter().all(|peer| peer.name.is_some()), "{name}");
    }
    let client = read(include_str!("../../../config/client.toml")).unwrap();
    assert!(client.peers[0].allowed_ips.iter().all(|prefix| prefix.prefix_len() == 0));
}

#[test]
fn the_annotated_sample_names_every_key() {
    let text = include_str!("../../../config/peer.toml");
    for key in unknown::INTERFACE.iter().chain(unknown::PEER).chain(unknown::HOOK) {
        let named = text.lines().any(|line| line.trim_start_matches("# ").starts_with(&format!("{key} = ")));
        assert!(named, "{key} is not explained");
    }
}

#[test]
fn what_the_sample_comments_out_is_accepted_too() {
    let text: String = include_str!("../../../config/peer.toml")
        .lines()
        .map(|line| match line.strip_prefix("# ") {
            Some(code) if code.contains(" = ") && !code.contains('…') && !code.contains(':') => {
                format!("{code}\n")
            }
            Some("[[hook]]") => "[[hook]]\n".to_owned(),
            _ => format!("{line}\n"),
        })
        .collect();
    let config = read(&text).unwrap();
    assert_eq!((config.interface.fwmark, config.peers[0].persistent_keepalive), (Some(0xca6c), 25));
    assert!(config.peers[0].preshared_key.is_some());
    assert_eq!(
        (config.hooks.len(), config.interface.metrics_listen.is_none()),
        (1, true),
        "its line has a colon"
    );
}

/// A file with so many peers, two prefixes each.
fn many(peers: u32) -> String {
    let mut text = interface("listen_port = 51820");
    for i in 0..peers {
        let (a, b, c) = (i >> 16, (i >> 8) & 255, i & 255);
        writeln!(
            text,
            "\n[[peer]]\nname = \"peer-{i}\"\npublic_key = \"{}\"\nendpoint = \"192.0.2.1:51820\"\n\
             allowed_ips = [\"10.{a}.{b}.{c}/32\", \"fd77::{i:x}/128\"]\npersistent_keepalive = 25",
            key(i)
        )
        .unwrap();
    }
    text
}

#[test]
fn ten_thousand_peers_are_read() {
    let config = read(&many(10_000)).unwrap();
    assert_eq!(config.peers.len(), 10_000);
    assert_eq!(config.peers[9_999].name.as_deref(), Some("peer-9999"));
    assert_eq!(config.peers[9_999].allowed_ips[0].to_string(), "10.0.39.15/32");
    assert_eq!(config.changes().len(), 10_002);
}

#[test]
fn more_peers_than_a_tunnel_takes_are_refused() {
    let limit = crate::tunnel::change::MAX_PEERS;
    let problems = told(&interface(&"[[peer]]\n".repeat(limit + 1)));
    assert_eq!(
        problems,
        [
            "peer.toml: peer: found 1048577 peers or more; split them over several interfaces of up to 1048576 each"
        ]
    );
}

/// Pieces of which files are made, good and bad.
fn fragment() -> impl Strategy<Value = String> {
    prop_oneof![
        Just("[interface]\n".to_owned()),
        Just("[[peer]]\n".to_owned()),
        Just(format!("private_key = \"{SECRET}\"\n")),
        (0..3u32).prop_map(|i| format!("public_key = \"{}\"\n", key(i))),
        "(name|mtu|table|fwmark|endpoint|allowed_ips|address|peer|interface) = ",
        "\"[a-z0-9:./%\\[\\]-]{0,20}\"\n",
        "\\[(\"[0-9a-f:./]{0,12}\",?){0,3}\\]\n",
        "-?[0-9]{1,20}\n",
        "\\PC{0,12}",
        "[\\[\\]{}\"'=#,.\n\r\\\\]{1,4}",
    ]
}

proptest! {
    #[test]
    fn random_text_is_read_or_refused_and_never_more(pieces in prop::collection::vec(fragment(), 0..12)) {
        let text = pieces.concat();
        if let Err(problems) = read(&text) {
            prop_assert!(!problems.0.is_empty(), "refused without a reason");
            let last = text.lines().count() + 1;
            prop_assert!(problems.0.iter().all(|p| p.line <= last && !p.found.is_empty() && !p.remedy.is_empty()));
            prop_assert!(problems.0.is_sorted_by_key(|p| p.line));
        }
    }

    #[test]
    fn a_mutated_sample_is_read_or_refused(at in 0usize..4096, cut in 0usize..20, put in "\\PC{0,6}|[\\[\\]\"\n=]{1,3}") {
        for sample in [include_str!("../../../config/peer.toml"), include_str!("../../../config/gateway.toml")] {
            let chars: Vec<char> = sample.chars().collect();
            let at = at % chars.len();
            let after = (at + cut).min(chars.len());
            let text: String = chars[..at].iter().copied().chain(put.chars()).chain(chars[after..].iter().copied()).collect();
            if let Err(problems) = read(&text) {
                prop_assert!(!problems.0.is_empty());
            }
        }
    }

    /// Cutting a file at its headers changes nothing of what is TOML and what is not.
    #[test]
    fn pieces_are_toml_where_the_whole_is(pieces in prop::collection::vec(fragment(), 0..10)) {
        let text = pieces.concat();
        if toml_edit::Document::parse(text.as_str()).is_ok() {
            let mut report = report::Report::new(&text, Path::new("x"), None);
            for range in document::sections(&text) {
                document::parse_section(&text, range, &mut report);
            }
            prop_assert!(report.is_clean(), "{}", report.into_problems());
        }
    }
}
