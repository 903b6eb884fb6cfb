//! Each refusal with its line, key, found and remedy; the samples; many peers; random text.

use std::{fmt::Write as _, io, path::Path};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use proptest::prelude::*;
use zeroize::Zeroizing;

use super::*;

const SECRET: &str = "yAnz5TF+lXXJte14tji3zlMNq+hd2rYUIgJBgB3fBmk=";

/// A public key that no other number has.
pub(super) fn key(number: u32) -> String {
    let mut bytes = [7; 32];
    bytes[..4].copy_from_slice(&number.to_le_bytes());
    STANDARD.encode(bytes)
}

/// Folder of keys for tests: what the name says.
pub(super) fn key_files(path: &Path) -> io::Result<KeyFile> {
    let (text, mode) = match path.to_str().expect("tests name files in ASCII") {
        "missing.key" => return Err(io::ErrorKind::NotFound.into()),
        "forbidden.key" => return Err(io::ErrorKind::PermissionDenied.into()),
        "credential:absent" => return Err(io::Error::other("CREDENTIALS_DIRECTORY is not set")),
        "shared.key" => (format!("{SECRET}\n"), 0o100_644),
        "group.key" => (format!("{SECRET}\n"), 0o640),
        "empty.key" => (" \n".to_owned(), 0o600),
        "bad.key" => ("not a key\n".to_owned(), 0o600),
        _ => (format!("{SECRET}\n"), 0o600),
    };
    Ok(KeyFile { text: Zeroizing::new(text), mode })
}

fn read(text: &str) -> Result<Config, Problems> {
    parse(text, Path::new("peer.toml"), &key_files)
}

/// The problems of a text, as an operator sees them.
fn told(text: &str) -> Vec<String> {
    match read(text) {
        Ok(_) => Vec::new(),
        Err(problems) => problems.to_string().lines().map(str::to_owned).collect(),
    }
}

/// `[interface]` with a key, and these lines from line 3 on.
fn interface(lines: &str) -> String {
    format!("[interface]\nprivate_key_file = \"vpn0.key\"\n{lines}\n")
}

/// The same, and a peer with a key, and these lines from line 5 on.
fn peer(lines: &str) -> String {
    interface(&format!("[[peer]]\npublic_key = \"{}\"\n{lines}", key(1)))
}

/// The second of two peers: its lines begin at line 7, the first one's single line is line 5.
fn two_peers(first: &str, second: &str) -> String {
    peer(&format!("{first}\n[[peer]]\n{second}"))
}

#[track_caller]
fn refuses(text: &str, expected: &str) {
    assert_eq!(told(text), [expected], "in\n{text}");
}

#[test]
fn a_whole_file_is_read_as_it_says() {
    let text = format!(
        r#"
[interface]
name = "wg-home"
private_key = "{SECRET}"
listen_port = 51820
address = ["10.77.0.1/24", "fd77::1"]
mtu = 1380
fwmark = "0xca6c"
table = 1000

[[peer]]
name = "laptop"
public_key = "{}"
preshared_key_file = "laptop.psk"
endpoint = "[2001:db8::1]:51820"
allowed_ips = ["10.77.0.2", "fd77:2::/64"]
persistent_keepalive = 25

[[peer]]
public_key = "{}"
endpoint = "vpn.example.org:1"
persistent_keepalive = "off"
"#,
        key(1),
        key(2)
    );
    let Config { interface, peers, .. } = read(&text).unwrap();
    assert_eq!(interface.name, "wg-home");
    assert_eq!(interface.private_key.expose(), SECRET.parse::<PrivateKey>().unwrap().expose());
    assert_eq!((interface.listen_port, interface.mtu, interface.fwmark), (Some(51820), 1380, Some(0xca6c)));
    assert_eq!(interface.address, ["10.77.0.1/24", "fd77::1/128"].map(|net| net.parse().unwrap()));
    assert_eq!(interface.table, Table::Number(1000));

    assert_eq!(peers[0].name.as_deref(), Some("laptop"));
    assert_eq!(peers[0].public_key.to_string(), key(1));
    assert_eq!(peers[0].preshared_key, Some(SECRET.parse().unwrap()));
    assert_eq!(peers[0].endpoint, Some(EndpointName::Address("[2001:db8::1]:51820".parse().unwrap())));
    assert_eq!(peers[0].allowed_ips, ["10.77.0.2/32", "fd77:2::/64"].map(|net| net.parse().unwrap()));
    assert_eq!(peers[0].persistent_keepalive, 25);

    assert_eq!(peers[1].endpoint, Some(EndpointName::Name { host: "vpn.example.org".into(), port: 1 }));
    assert!(peers[1].name.is_none() && peers[1].preshared_key.is_none() && peers[1].allowed_ips.is_empty());
    assert_eq!((peers.len(), peers[1].persistent_keepalive), (2, 0));
}

#[test]
fn what_is_absent_has_its_default() {
    let config = read(&interface("")).unwrap();
    let read_back = &config.interface;
    assert_eq!((read_back.name.as_str(), read_back.mtu, read_back.table), ("vpn0", 1420, Table::Auto));
    assert_eq!((read_back.listen_port, read_back.fwmark), (None, None));
    assert!(read_back.address.is_empty() && config.peers.is_empty());
    let zeros = read(&interface("listen_port = 0\nfwmark = \"off\"\ntable = \"off\"")).unwrap().interface;
    assert_eq!((zeros.listen_port, zeros.fwmark, zeros.table), (None, None, Table::Off));
    assert_eq!((zeros.offload, zeros.workers), (true, None), "as if absent");
    assert!(zeros.clamp_mss && !read(&interface("clamp_mss = false")).unwrap().interface.clamp_mss);
    let captured = read(&interface("capture_secrets = true")).unwrap().interface.capture_secrets;
    assert!(captured && !zeros.capture_secrets);
    let plane = |lines: &str| read(&interface(lines)).unwrap().interface;
    let few = plane("offload = \"off\"\nworkers = 3");
    assert_eq!((few.offload, few.workers.map(NonZeroUsize::get)), (false, Some(3)));
    assert!(zeros.sandbox && plane("sandbox = \"on\"").sandbox && !plane("sandbox = \"off\"").sandbox);
    let auto = plane("offload = \"auto\"\nworkers = \"auto\"");
    assert_eq!((auto.offload, auto.workers, auto.nice), (true, None, None));
    assert_eq!(
        [-20, 0, 19].map(|nice| plane(&format!("nice = {nice}")).nice),
        [Some(-20), Some(0), Some(19)]
    );
    assert_eq!(read(&interface("table = 254")).unwrap().interface.table, Table::Number(254));
}

#[test]
fn tables_may_be_written_inline_dotted_or_in_any_order() {
    let text = format!(
        "interface.private_key_file = \"a\"\ninterface.mtu = 1300\npeer = [{{ public_key = \"{}\" }}, \
         {{ public_key = \"{}\" }}]\n",
        key(1),
        key(2)
    );
    let config = read(&text).unwrap();
    assert_eq!((config.interface.mtu, config.peers.len()), (1300, 2));
    let text = format!("[[peer]]\npublic_key = \"{}\"\n[interface]\nprivate_key_file = \"a\"\n", key(1));
    assert_eq!(read(&text).unwrap().peers.len(), 1);
}

#[test]
fn bad_syntax_is_refused_with_line_and_column() {
    let problems = told(&interface("mtu = = 3"));
    assert_eq!(problems.len(), 1, "{problems:?}");
    assert!(problems[0].starts_with("peer.toml:3: TOML: found bad syntax at column 7: "), "{problems:?}");
    assert!(problems[0].ends_with("; write one key = value a line, texts in double quotes, lists in [ ]"));
    let problems = told(&interface("mtu = 1400\nmtu = 1500"));
    assert!(
        problems[0].starts_with("peer.toml:4: TOML: found bad syntax at column 1: duplicate key"),
        "{problems:?}"
    );
}

#[test]
fn a_piece_that_is_no_toml_hides_no_other_problem_and_invents_none() {
    let problems = told("[interface]\nmtu = \n[[peer]]\nallowed_ips = [\"x\"]\n");
    let lines: Vec<_> = problems.iter().map(|problem| problem.split(": found").next().unwrap()).collect();
    assert_eq!(
        lines,
        ["peer.toml:2: TOML", "peer.toml:3: peer[1].public_key", "peer.toml:4: peer[1].allowed_ips"]
    );
}

#[test]
fn problems_are_told_in_the_order_of_lines() {
    let text = "[[peer]]\nendpoint = \"a\"\n[interface]\nmtu = 1\nfoo = 1\n";
    let lines: Vec<_> = read(text).unwrap_err().0.iter().map(|problem| problem.line).collect();
    assert_eq!(lines, [1, 2, 3, 4, 5]);
}

#[test]
fn an_unknown_key_is_refused_with_the_nearest() {
    refuses(
        &interface("adress = []"),
        r#"peer.toml:3: interface.adress: found the unknown key "adress"; write address, or take the line out"#,
    );
    refuses(
        &peer("AllowedIPs = []"),
        r#"peer.toml:5: peer[1].AllowedIPs: found the unknown key "AllowedIPs"; write allowed_ips"#,
    );
    refuses(
        &interface("endpoint = \"a:1\""),
        r#"peer.toml:3: interface.endpoint: found the unknown key "endpoint"; put endpoint under [[peer]]"#,
    );
    refuses(
        &peer("listen_port = 1"),
        r#"peer.toml:5: peer[1].listen_port: found the unknown key "listen_port"; put listen_port under [interface]"#,
    );
    refuses(
        &interface("colour = 1"),
        "peer.toml:3: interface.colour: found the unknown key \"colour\"; take it out; the keys here are name, \
         private_key, private_key_file, listen_port, address, mtu, fwmark, table, offload, clamp_mss, \
         workers, nice, public_endpoint, client_allowed_ips, client_dns, client_mtu, client_keepalive, client_folder, \
         socket_owner, socket_group, socket_mode, metrics_listen, sandbox, capture_secrets",
    );
}

#[test]
fn keys_of_wg_quick_that_vpnd_lacks_say_why() {
    refuses(
        &interface("dns = [\"1.1.1.1\"]"),
        "peer.toml:3: interface.dns: found \"dns\", which vpnd does not have; take it out: vpnd leaves the resolver \
         alone; `resolvectl dns DEVICE ADDRESS` sets it",
    );
    for key in ["pre_up", "post_up", "pre_down", "post_down", "PostUp"] {
        let problems = told(&interface(&format!("{key} = \"x\"")));
        assert!(problems[0].contains(&format!("found {key:?}, which vpnd does not have")), "{problems:?}");
        assert!(problems[0].contains("vpnd runs no commands at start and stop"), "{problems:?}");
    }
    let problems = told(&interface("save_config = true"));
    assert!(problems[0].ends_with("take it out: a running vpnd never writes this file"), "{problems:?}");
}

#[test]
fn an_unknown_table_is_refused_with_the_nearest() {
    refuses(
        &interface("[[peers]]"),
        r#"peer.toml:3: peers: found the unknown table or key "peers"; write [[peer]]"#,
    );
    refuses(
        &interface("[zzz]"),
        "peer.toml:3: zzz: found the unknown table or key \"zzz\"; take it out; the tables are [interface], \
         [[peer]] and [[hook]]",
    );
    refuses(
        &interface("[interface.inner]\na = 1"),
        "peer.toml:3: interface.inner: found the unknown table [interface.inner]; take it out; no key holds a table",
    );
    refuses(
        &peer("[peer.inner]"),
        "peer.toml:5: peer.inner: found the unknown table [peer.inner]; take it out; no key holds a table",
    );
    refuses(
        &format!("mtu = 1400\n{}", interface("")),
        "peer.toml:1: mtu: found \"mtu\" outside a table; put it under [interface]",
    );
    refuses(
        &format!("endpoint = \"\"\n{}", interface("")),
        "peer.toml:1: endpoint: found \"endpoint\" outside a table; put it under [[peer]]",
    );
}

#[test]
fn tables_of_the_wrong_shape_are_refused() {
    refuses(
        "",
        "peer.toml: interface: found no table [interface]; add [interface] with private_key_file = \"FILE\"",
    );
    refuses(
        &interface("[interface]\nmtu = 1400"),
        "peer.toml:3: interface: found [interface] a second time; the first is on line 1; join the two",
    );
    refuses(
        &interface("[peer]"),
        "peer.toml:3: peer: found a table; write [[peer]], in two brackets, once for each peer",
    );
    assert_eq!(
        told("interface = 5")[0],
        "peer.toml:1: interface: found the number 5; write [interface], once, and its keys under it"
    );
}

#[test]
fn a_wrong_type_is_refused() {
    refuses(
        &interface("name = 5"),
        r#"peer.toml:3: interface.name: found the number 5; write a text in quotes: name = "vpn0""#,
    );
    refuses(
        &interface("mtu = \"1400\""),
        "peer.toml:3: interface.mtu: found the text \"1400\"; write a number from 576 (1280 with IPv6) to 65455, or \
         take it out for 1420",
    );
    refuses(
        &peer("allowed_ips = \"10.0.0.0/8, fd00::/8\""),
        "peer.toml:5: peer[1].allowed_ips: found the text \"10.0.0.0/8, fd00::/8\"; write a list: allowed_ips = \
         [\"10.0.0.0/8\", \"fd00::/8\"]",
    );
    refuses(
        &peer("allowed_ips = [\n\"10.0.0.0/8\",\n7,\n]"),
        r#"peer.toml:7: peer[1].allowed_ips: found the number 7; write texts in quotes: "10.77.0.2/32""#,
    );
    refuses(
        &interface("address = true"),
        "peer.toml:3: interface.address: found the truth value true; write a list: address = [\"10.77.0.1/24\"]",
    );
}

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
fn a_peer_needs_a_public_key_and_not_our_own() {
    refuses(
        &interface("[[peer]]\nname = \"desk\""),
        "peer.toml:3: peer \"desk\".public_key: found no public key; add the peer's public key; `vpnd pubkey` prints \
         it there from its private key",
    );
    let own = SECRET.parse::<PrivateKey>().unwrap().public_key();
    refuses(
        &interface(&format!("[[peer]]\nname = \"me\"\npublic_key = \"{own}\"")),
        &format!(
            "peer.toml:5: peer \"me\".public_key: found {own}, the public key of this interface itself; write the \
             other end's public key, as `vpnd pubkey` prints it there"
        ),
    );
}

#[test]
fn two_peers_share_neither_key_nor_name() {
    let one = key(1);
    refuses(
        &two_peers("", &format!("public_key = \"{one}\"")),
        &format!(
            "peer.toml:7: peer[2].public_key: found {one}, the key of peer[1] on line 4 too; join the two tables into \
             one, or give this peer its own key"
        ),
    );
    refuses(
        &two_peers("name = \"a\"", &format!("name = \"a\"\npublic_key = \"{}\"", key(2))),
        "peer.toml:7: peer[2].name: found \"a\", the name of the peer on line 5 too; give each peer a name of its own",
    );
}

#[test]
fn a_prefix_belongs_to_one_peer_once() {
    let remedy = "write it once: a prefix leads to one peer (a longer one inside it may lead elsewhere)";
    let second = format!("public_key = \"{}\"\nallowed_ips = [\"fd00::/8\",\n  \"10.0.0.0/8\"]", key(2));
    refuses(
        &two_peers("allowed_ips = [\"10.0.0.0/8\"]", &second),
        &format!(
            "peer.toml:9: peer[2].allowed_ips: found 10.0.0.0/8, which peer[1] has on line 5 already; {remedy}"
        ),
    );
    refuses(
        &peer("allowed_ips = [\"fd00::/8\",\n\"fd00::/8\"]"),
        &format!(
            "peer.toml:6: peer[1].allowed_ips: found fd00::/8, which this peer has on line 5 already; {remedy}"
        ),
    );
    let nested = format!("public_key = \"{}\"\nallowed_ips = [\"10.1.0.0/16\", \"10.0.0.0/9\"]", key(2));
    assert_eq!(told(&two_peers("allowed_ips = [\"10.0.0.0/8\", \"10.1.0.0/17\"]", &nested)), [""; 0]);
}

#[test]
fn host_bits_in_a_prefix_are_refused_with_the_masked_form() {
    refuses(
        &peer("allowed_ips = [\"10.0.0.1/24\"]"),
        "peer.toml:5: peer[1].allowed_ips: found 10.0.0.1/24, which has bits set behind its first 24; write \
         10.0.0.0/24, or 10.0.0.1/32 for this one host",
    );
    refuses(
        &peer("allowed_ips = [\"10.0.0.0/33\"]"),
        "peer.toml:5: peer[1].allowed_ips: found \"10.0.0.0/33\", whose length \"33\" is not 0 to 32; write an \
         address and a length, such as \"10.77.0.2/32\"",
    );
    refuses(
        &peer("allowed_ips = [\"example.org\"]"),
        "peer.toml:5: peer[1].allowed_ips: found \"example.org\", which is no IP address; write an address and a \
         length, such as \"10.77.0.2/32\"",
    );
}

#[test]
fn an_endpoint_that_cannot_be_is_refused() {
    let cases = [
        ("vpn.example.org", r#""vpn.example.org", which has no port; add one: "vpn.example.org:51820""#),
        ("a.org:0", r#""a.org:0", whose port "0" is none; write a port from 1 to 65535: "a.org:51820""#),
        (
            "a.org:70000",
            r#""a.org:70000", whose port "70000" is none; write a port from 1 to 65535: "a.org:51820""#,
        ),
        (
            "2001:db8::1",
            r#""2001:db8::1", an IPv6 address without brackets and port; write the address in brackets and a port: "[2001:db8::1]:51820""#,
        ),
        (
            "2001:db8:0:0:0:0:0:0:1:5",
            r#""2001:db8:0:0:0:0:0:0:1:5", which has several colons and no brackets; write an IPv6 address in brackets: "[2001:db8:0:0:0:0:0:0:1]:5""#,
        ),
        (
            "[fe80::1%eth0]:5",
            r#""[fe80::1%eth0]:5", which is no IPv6 address in brackets; write the number of the link for its name: "[fe80::1%2]:5""#,
        ),
        (
            "10.0.0.256:5",
            r#""10.0.0.256", which is neither a name nor an address; write "vpn.example.org:5" or "192.0.2.1:5""#,
        ),
        ("0.0.0.0:5", "0.0.0.0:5, where no peer can be; write the peer's own address"),
    ];
    for (endpoint, expected) in cases {
        refuses(
            &peer(&format!("endpoint = \"{endpoint}\"")),
            &format!("peer.toml:5: peer[1].endpoint: found {expected}"),
        );
    }
}

#[test]
fn an_endpoint_inside_the_tunnel_is_refused_because_it_loops() {
    refuses(
        &peer("endpoint = \"10.1.2.3:5\"\nallowed_ips = [\"10.0.0.0/8\", \"0.0.0.0/0\"]"),
        "peer.toml:5: peer[1].endpoint: found 10.1.2.3:5, which lies inside its own allowed IP 10.0.0.0/8 (line 6): a \
         loop; leave 10.1.2.3 out of the prefixes, or write 0.0.0.0/0 for them",
    );
    let second = format!("name = \"b\"\npublic_key = \"{}\"\nendpoint = \"[2001:db8::1]:5\"", key(2));
    refuses(
        &two_peers("allowed_ips = [\"2001:db8::/32\"]", &second),
        "peer.toml:9: peer \"b\".endpoint: found [2001:db8::1]:5, which lies inside peer[1]'s allowed IP \
         2001:db8::/32 (line 5): a loop; leave 2001:db8::1 out of the prefixes, or write ::/0 for them",
    );
    let problems = told(&peer("endpoint = \"[::ffff:10.1.2.3]:5\"\nallowed_ips = [\"10.0.0.0/8\"]"));
    assert!(problems[0].contains("a loop"), "an IPv4 address in IPv6 clothes: {problems:?}");
}

#[test]
fn an_endpoint_under_a_default_route_or_without_routes_does_not_loop() {
    assert_eq!(told(&peer("endpoint = \"192.0.2.1:5\"\nallowed_ips = [\"0.0.0.0/0\", \"::/0\"]")), [""; 0]);
    let lines = "table = \"off\"\n[[peer]]\nendpoint = \"10.1.2.3:5\"\nallowed_ips = [\"10.0.0.0/8\"]";
    assert_eq!(told(&interface(&format!("{lines}\npublic_key = \"{}\"", key(1)))), [""; 0]);
}

#[test]
fn numbers_out_of_range_are_refused() {
    let mtu = "write a number from 576 (1280 with IPv6) to 65455, or take it out for 1420";
    let port = "write a port from 1 to 65535, or take it out to let the kernel choose";
    let mark = "write a number from 1 to 4294967295, such as 0xca6c, or take it out";
    let offload = "write \"auto\", or \"off\" for one packet a system call";
    let clamp = "write true, or false to leave TCP's segments to path MTU discovery";
    let workers = "write \"auto\", or how many threads each direction has: 1 to 64";
    let nice = "write a number from -20 (before all others) to 19 (after them), or take it out for -10";
    let table = "write \"auto\", \"off\" or the number of a table, not 0, 253 or 255, which are the kernel's";
    let cases = [
        ("mtu = 575", "mtu: found the number 575", mtu),
        ("mtu = 65456", "mtu: found the number 65456", mtu),
        ("listen_port = 65536", "listen_port: found the number 65536", port),
        ("listen_port = -1", "listen_port: found the number -1", port),
        ("offload = true", "offload: found the truth value true", offload),
        ("offload = \"on\"", "offload: found the text \"on\"", offload),
        ("clamp_mss = \"on\"", "clamp_mss: found the text \"on\"", clamp),
        ("workers = 65", "workers: found the number 65", workers),
        ("workers = \"many\"", "workers: found the text \"many\"", workers),
        ("nice = -21", "nice: found the number -21", nice),
        ("nice = 20", "nice: found the number 20", nice),
        ("nice = \"high\"", "nice: found the text \"high\"", nice),
        ("fwmark = 4294967296", "fwmark: found the number 4294967296", mark),
        ("fwmark = \"ca6c\"", "fwmark: found the text \"ca6c\"", mark),
        ("fwmark = \"0x-1\"", "fwmark: found the text \"0x-1\"", mark),
        ("table = 0", "table: found the number 0", table),
        ("table = 253", "table: found the number 253", table),
        ("table = 255", "table: found the number 255", table),
        ("table = -1", "table: found the number -1", table),
        ("table = \"mine\"", "table: found the text \"mine\"", table),
    ];
    for (line, found, remedy) in cases {
        refuses(&interface(line), &format!("peer.toml:3: interface.{found}; {remedy}"));
    }
    let keepalive = "write seconds from 1 to 65535, such as 25, or take it out";
    for number in [-1, 65_536] {
        refuses(
            &peer(&format!("persistent_keepalive = {number}")),
            &format!("peer.toml:5: peer[1].persistent_keepalive: found the number {number}; {keepalive}"),
        );
    }
    for good in
        ["mtu = 576", "mtu = 65455", "listen_port = 65535", "fwmark = 4294967295", "fwmark = 0xFFFFFFFF"]
    {
        assert_eq!(told(&interface(good)), [""; 0], "{good}");
    }
}

#[test]
fn ipv6_needs_an_mtu_of_1280() {
    let expected = "peer.toml:3: interface.mtu: found 1279, while the tunnel carries IPv6; write 1280 or more, or take \
                    the IPv6 addresses and prefixes out";
    refuses(&interface("mtu = 1279\naddress = [\"fd00::1/64\"]"), expected);
    let peer_lines = format!("mtu = 1279\n[[peer]]\npublic_key = \"{}\"\nallowed_ips = [\"::/0\"]", key(1));
    refuses(&interface(&peer_lines), expected);
    assert_eq!(told(&interface("mtu = 1280\naddress = [\"fd00::1/64\"]")), [""; 0]);
    assert_eq!(told(&interface("mtu = 1279\naddress = [\"10.0.0.1/8\"]")), [""; 0]);
}

#[test]
fn names_that_cannot_be_are_refused() {
    refuses(
        &interface("name = \"a/b\""),
        "peer.toml:3: interface.name: found a name with /, : or %: \"a/b\"; write 1 to 15 letters, digits, - or _, \
         such as \"vpn0\"",
    );
    refuses(
        &interface("name = \"sixteen_bytes_xx\""),
        "peer.toml:3: interface.name: found a name of more than 15 bytes: \"sixteen_bytes_xx\"; write 1 to 15 letters, \
         digits, - or _, such as \"vpn0\"",
    );
    refuses(
        &peer("name = \"two\\nlines\""),
        "peer.toml:5: peer[1].name: found a name with control characters: \"two\\nlines\"; write up to 64 visible \
         characters, such as \"laptop\", or take it out",
    );
}

#[test]
fn an_address_of_the_device_is_one_of_a_host_and_stands_once() {
    refuses(
        &interface("address = [\"10.0.0.1/24\",\n\"10.0.0.1/32\"]"),
        "peer.toml:4: interface.address: found 10.0.0.1 a second time; write each address once",
    );
    refuses(
        &interface("address = [\"224.0.0.1/4\"]"),
        "peer.toml:3: interface.address: found 224.0.0.1/4, which no host can have; write an address such as \
         10.77.0.1/24",
    );
    refuses(
        &interface("address = [\"10.0.0\"]"),
        "peer.toml:3: interface.address: found \"10.0.0\", which is no IP address; write an address and a length, such \
         as \"10.77.0.1/24\"",
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

#[test]
fn the_samples_load() {
    let samples = [
        ("peer", include_str!("../../config/peer.toml"), 1, 2),
        ("gateway", include_str!("../../config/gateway.toml"), 3, 8),
        ("client", include_str!("../../config/client.toml"), 1, 2),
    ];
    for (name, text, peers, prefixes) in samples {
        let config =
            parse_with_mode(text, Path::new(name), 0o644, &key_files).unwrap_or_else(|e| panic!("{e}"));
        let count: usize = config.peers.iter().map(|peer| peer.allowed_ips.len()).sum();
        assert_eq!((config.peers.len(), count), (peers, prefixes), "{name}");
        assert!(config.peers.iter().all(|peer| peer.name.is_some()), "{name}");
    }
    let client = read(include_str!("../../config/client.toml")).unwrap();
    assert!(client.peers[0].allowed_ips.iter().all(|prefix| prefix.prefix_len() == 0));
}

#[test]
fn sockets_are_their_owners_alone_until_a_group_is_named_and_never_everybodys() {
    let sockets = |lines: &str| read(&interface(lines)).unwrap().interface.sockets;
    assert_eq!(sockets(""), SocketAccess::default());
    assert_eq!(sockets("").mode, 0o600);
    let named = sockets("socket_owner = \"1000\"\nsocket_group = \"vpnadmin\"");
    let (owner, group) = (Some("1000".to_owned()), Some("vpnadmin".to_owned()));
    assert_eq!(named, SocketAccess { owner, group, mode: 0o660 });
    assert_eq!(sockets("socket_group = \"vpnadmin\"\nsocket_mode = \"600\"").mode, 0o600);
    refuses(
        &interface("socket_mode = \"0666\""),
        "peer.toml:3: interface.socket_mode: found 0666, with which every user of this host could read the private \
         key; write \"0660\", and name the group that may with socket_group",
    );
    for wrong in ["0770", "7", "rw", "00600", "", "+600"] {
        let text = interface(&format!("socket_mode = {wrong:?}"));
        let error = read(&text).unwrap_err().to_string();
        assert!(error.contains("interface.socket_mode: found "), "{wrong}: {error}");
    }
    refuses(
        &interface("socket_group = \"a b\""),
        "peer.toml:3: interface.socket_group: found \"a b\", which names nobody; write a name or a number, such as \
         \"vpnadmin\"",
    );
}

#[test]
fn the_annotated_sample_names_every_key() {
    let text = include_str!("../../config/peer.toml");
    for key in unknown::INTERFACE.iter().chain(unknown::PEER).chain(unknown::HOOK) {
        let named = text.lines().any(|line| line.trim_start_matches("# ").starts_with(&format!("{key} = ")));
        assert!(named, "{key} is not explained");
    }
}

#[test]
fn what_the_sample_comments_out_is_accepted_too() {
    let text: String = include_str!("../../config/peer.toml")
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

#[test]
fn a_peer_expires_at_a_moment_in_utc_and_at_nothing_else() {
    let moment = |text: &str| read(&peer(&format!("expires = {text}"))).unwrap().peers[0].expires;
    assert_eq!(moment("2027-01-01"), date::parse("2027-01-01T00:00:00Z"));
    assert_eq!(moment("2027-01-01T01:00:00+01:00"), moment("2027-01-01 00:00:00"));
    assert_eq!(read(&peer("")).unwrap().peers[0].expires, None);

    let remedy = "write a date or a time in UTC: expires = 2027-01-01, or 2027-01-01T18:00:00Z";
    refuses(
        &peer("expires = 18:00:00"),
        &format!("peer.toml:5: peer[1].expires: found 18:00:00, which names no moment; {remedy}"),
    );
    refuses(
        &peer("expires = \"soon\""),
        &format!("peer.toml:5: peer[1].expires: found the text \"soon\"; {remedy}"),
    );
    refuses(&peer("expires = 30"), &format!("peer.toml:5: peer[1].expires: found the number 30; {remedy}"));
    refuses(
        &peer("expires = \"2027-01-01\""),
        "peer.toml:5: peer[1].expires: found the text \"2027-01-01\"; write it without quotes: expires = 2027-01-01",
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
        for sample in [include_str!("../../config/peer.toml"), include_str!("../../config/gateway.toml")] {
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

#[test]
fn hooks_are_read_with_their_defaults() {
    let text = interface(
        "metrics_listen = \"[::1]:9586\"\n[[hook]]\nrun = [\"/bin/true\"]\n[[hook]]\nrun = [\"/bin/echo\", \"a b\"]\n\
         events = [\"refused\"]\ntimeout = 3",
    );
    let config = read(&text).unwrap();
    assert_eq!(config.interface.metrics_listen, Some("[::1]:9586".parse().unwrap()));
    let [first, second] = &config.hooks[..] else { panic!("{:?}", config.hooks) };
    assert_eq!(
        (first.program.to_str(), first.arguments.len(), first.timeout.as_secs()),
        (Some("/bin/true"), 0, 10)
    );
    assert_eq!(first.events, ["connected", "roamed", "silent"]);
    assert_eq!((&second.arguments[..], second.timeout.as_secs()), (&["a b".to_owned()][..], 3));
    assert_eq!(second.events, ["refused"]);
}

#[test]
fn hooks_that_cannot_work_are_refused() {
    let cases = [
        ("", "run: found no command; add run = [\"/usr/local/bin/on-event\"]"),
        ("run = []", "run: found an empty list; write run = [\"/usr/local/bin/on-event\"]"),
        ("run = \"/bin/true\"", "run: found the text \"/bin/true\"; write a list: run = [\"/bin/true\"]"),
        (
            "run = [\"notify\"]",
            "run: found the program \"notify\"; write its whole path, such as /usr/local/bin/on-event; no shell looks \
             for it",
        ),
        (
            "run = [\"/bin/true\"]\ntimeout = 0",
            "timeout: found the number 0; write seconds from 1 to 300, or take it out for 10",
        ),
        (
            "run = [\"/bin/true\"]\ntimeuot = 1",
            "timeuot: found the unknown key \"timeuot\"; write timeout, or take the line out",
        ),
    ];
    for (lines, told_as) in cases {
        let problems = told(&interface(&format!("[[hook]]\n{lines}")));
        let [problem] = &problems[..] else { panic!("{lines}: {problems:?}") };
        assert!(problem.ends_with(&format!("hook[1].{told_as}")), "{problem}");
    }
    let problems = told(&interface("[[hook]]\nrun = [\"/bin/true\"]\nevents = [\"conected\"]"));
    assert!(problems[0].contains("the unknown event \"conected\"; write some of started, "), "{problems:?}");
    for address in ["localhost:9586", "127.0.0.1", "127.0.0.1:0"] {
        let problems = told(&interface(&format!("metrics_listen = {address:?}")));
        assert!(problems[0].contains("write an address and a port"), "{problems:?}");
    }
    let many = "[[hook]]\nrun = [\"/bin/true\"]\n".repeat(33);
    assert!(told(&interface(&many))[0].contains("hook[33]: found more than 32 hooks"));
}
