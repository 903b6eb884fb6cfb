//! Keys: where they stand, which are refused, and that none is ever shown.

use super::*;

#[test]
fn a_private_key_must_be_there_once() {
    refuses(
        "\n[interface]\n",
        "peer.toml:2: interface.private_key_file: found no private key; add private_key_file = \"FILE\"; `vpnd genkey \
         --output FILE` makes one",
    );
    refuses(
        &interface(&format!("private_key = \"{SECRET}\"")),
        "peer.toml:2: interface.private_key_file: found both private_key and private_key_file; keep one of them, best \
         private_key_file",
    );
}

#[test]
fn a_key_file_must_be_readable_private_and_hold_a_key() {
    let cases = [
        (
            "missing.key",
            "missing.key, which cannot be read: entity not found; run `vpnd genkey --output missing.key`, or name the \
             file that holds the key",
        ),
        (
            "forbidden.key",
            "forbidden.key, which cannot be read: permission denied; run vpnd as the file's owner, or as root",
        ),
        (
            "credential:absent",
            "credential:absent, which cannot be read: CREDENTIALS_DIRECTORY is not set; give the service \
             LoadCredential=absent:FILE, or name a file here",
        ),
        (
            "shared.key",
            "shared.key, which others than its owner can read (mode 0644); run `chmod 600 shared.key`",
        ),
        (
            "group.key",
            "group.key, which others than its owner can read (mode 0640); run `chmod 600 group.key`",
        ),
        ("empty.key", "empty.key, which is empty; run `vpnd genkey --force --output empty.key`"),
    ];
    for (file, expected) in cases {
        refuses(
            &format!("[interface]\nprivate_key_file = \"{file}\"\n"),
            &format!("peer.toml:2: interface.private_key_file: found {expected}"),
        );
    }
    let problems = told("[interface]\nprivate_key_file = \"bad.key\"\n");
    assert!(
        problems[0].contains("found bad.key, which holds 9 characters that are not a key"),
        "{problems:?}"
    );
    assert!(
        problems[0].ends_with("write the 44 base64 characters that `vpnd genkey` prints"),
        "{problems:?}"
    );
}

#[test]
fn a_preshared_key_file_is_checked_as_a_private_one() {
    refuses(
        &peer("name = \"a\"\npreshared_key_file = \"shared.key\""),
        "peer.toml:6: peer \"a\".preshared_key_file: found shared.key, which others than its owner can read (mode \
         0644); run `chmod 600 shared.key`",
    );
    let problems = told(&peer("preshared_key_file = \"missing.key\""));
    assert!(problems[0].contains("`vpnd genpsk --output missing.key`"), "{problems:?}");
}

#[test]
fn a_bad_key_is_refused_and_never_shown() {
    let bad = &SECRET[..40];
    for text in [
        format!("[interface]\nprivate_key = \"{bad}\"\n"),
        peer(&format!("preshared_key = \"{bad}\"")),
        interface(&format!("[[peer]]\npublic_key = \"{bad}\"")),
    ] {
        let problems = told(&text);
        assert_eq!(problems.len(), 1, "{problems:?}");
        assert!(problems[0].contains("_key: found 40 characters that are not a key: "), "{problems:?}");
        assert!(
            problems[0].contains("; write the 44 base64 characters that `vpnd gen")
                || problems[0].contains("pubkey")
        );
        assert!(!problems[0].contains(&bad[..10]), "{problems:?}");
    }
    let problems = told("[interface]\nprivate_key = [1]\n");
    assert!(problems[0].contains("interface.private_key: found a list"), "{problems:?}");
    assert_eq!(problems.len(), 1, "a refused key is not a missing one: {problems:?}");
}

#[test]
fn a_key_in_the_place_of_its_files_path_is_never_shown() {
    let hex = "5a".repeat(32);
    for secret in [SECRET, &SECRET[..43], &SECRET[..40], &hex] {
        for text in [
            format!("[interface]\nprivate_key_file = \"{secret}\"\n"),
            peer(&format!("preshared_key_file = \"{secret}\"")),
        ] {
            let problems = told(&text);
            assert_eq!(problems.len(), 1, "{problems:?}");
            assert!(problems[0].contains("_key_file: found "), "{problems:?}");
            assert!(
                problems[0].contains("that look like a key, not like a path; name a file"),
                "{problems:?}"
            );
            assert!(!problems[0].contains(&secret[..10]), "{problems:?}");
        }
    }
}

#[test]
fn a_key_in_a_wrong_place_is_never_shown() {
    for text in [
        format!("[interface]\nprivate_key = {SECRET}\n"),
        format!("[interface]\nprivate_key {SECRET}\n"),
        format!("[interface]\n{SECRET}\n"),
        format!("[interface]\nprivate_key = \"{SECRET}\n"),
        format!("[interface]\nprivate_key = '{SECRET}' x\n"),
        format!("[interface]\nprivatekey = \"{SECRET}\"\n"),
        format!("[interface]\n\"{SECRET}\" = 1\n"),
        format!("[\"{SECRET}\"]\n"),
        interface(&format!("name = \"{SECRET}\"")),
        interface(&format!("listen_port = \"{SECRET}\"")),
        interface(&format!("address = [\"{SECRET}\"]")),
        interface(&format!("fwmark = \"{SECRET}\"")),
        interface(&format!("table = \"{SECRET}\"")),
        peer(&format!("endpoint = \"{SECRET}\"")),
        peer(&format!("allowed_ips = \"{SECRET}\"")),
        peer(&format!("allowed_ips = [\"{SECRET}/32\"]")),
        peer(&format!("name = \"{SECRET}\"\nendpoint = 1")),
    ] {
        let problems = told(&text);
        assert!(!problems.is_empty(), "in\n{text}");
        assert!(!problems.concat().contains(&SECRET[5..15]), "{problems:?}");
    }
}

#[test]
fn a_key_that_is_all_zero_is_refused() {
    let zero = STANDARD.encode([0; 32]);
    refuses(
        &format!("[interface]\nprivate_key = \"{zero}\"\n"),
        "peer.toml:2: interface.private_key: found a key that is all zero; make one with `vpnd genkey`",
    );
    refuses(
        &peer(&format!("preshared_key = \"{zero}\"")),
        "peer.toml:5: peer[1].preshared_key: found a key that is all zero, which is the same as none; take it out, or \
         make one with `vpnd genpsk`",
    );
}

#[test]
fn a_file_that_others_can_read_must_not_hold_a_secret() {
    let with = |mode, text: &str| parse_with_mode(text, Path::new("peer.toml"), mode, &key_files);
    let inline = format!("[interface]\nprivate_key = \"{SECRET}\"\n");
    assert_eq!(
        with(0o100_644, &inline).unwrap_err().to_string(),
        "peer.toml:2: interface.private_key: found a secret in a file that others can read (mode 0644); run `chmod 600 \
         peer.toml`, or move the key to a file of its own"
    );
    assert!(with(0o600, &inline).is_ok() && parse(&inline, Path::new("peer.toml"), &key_files).is_ok());
    let preshared = peer(&format!("preshared_key = \"{SECRET}\""));
    let problems = with(
        0o640,
        &format!(
            "{preshared}[[peer]]\nname = \"b\"\npublic_key = \"{}\"\npreshared_key = \
         \"{SECRET}\"\n",
            key(2)
        ),
    )
    .unwrap_err();
    assert!(problems.to_string().starts_with(
        "peer.toml:5: peer[1].preshared_key: found a secret (and 1 more) in a file that others can read (mode 0640)"
    ));
    assert!(with(0o644, &interface("")).is_ok(), "no secret, no problem");
}
