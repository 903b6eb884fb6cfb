//! Each refusal with its line, key, found and remedy: here what is true of all files.

mod interface; // and hooks
mod keys; // none is ever shown
mod peers;
mod texts; // samples, many peers, random text

use std::{io, path::Path};

use base64::{Engine as _, engine::general_purpose::STANDARD};
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
