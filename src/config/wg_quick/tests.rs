//! Files of wg-quick that come and go.

use std::path::Path;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use proptest::prelude::*;

use super::*;
use crate::config::{Config, arbitrary, parse, tests::key};

const SECRET: &str = "yAnz5TF+lXXJte14tji3zlMNq+hd2rYUIgJBgB3fBmk=";

fn wg0(text: &str) -> Result<Converted, Vec<String>> {
    import(text, Path::new("/etc/wireguard/wg0.conf")).map_err(|problems| {
        problems.to_string().lines().map(|line| line.replace("/etc/wireguard/", "")).collect()
    })
}

fn load(text: &str) -> Config {
    parse(text, Path::new("peer.toml"), &|_| Err(std::io::ErrorKind::NotFound.into()))
        .unwrap_or_else(|e| panic!("{e}"))
}

#[test]
fn a_file_of_wg_quick_becomes_one_of_ours_and_says_what_was_left() {
    let text = format!(
        "# my tunnel
[Interface]
PRIVATEKEY = {SECRET} # ours
address = 10.0.0.1/24, fd00::1/64
Address=10.1.0.1
ListenPort = 51820
FwMark = 0xCA6C
Table = off
DNS = 1.1.1.1
PostUp = iptables -A FORWARD -i %i -j ACCEPT; echo a=b
SaveConfig = true

# laptop
[peer]
PublicKey = {}
AllowedIPs = 10.0.0.2/24, 10.0.0.3/24
AllowedIPs = fd00::2/128

[Peer]
# Endpoint = old.example.org:1
# Name = phone
PublicKey={}
PresharedKey={SECRET}
Endpoint = vpn.example.org:51820
AllowedIPs =
PersistentKeepalive = off
",
        key(1),
        key(2)
    );
    let Converted { text, notes } = wg0(&text).unwrap();
    let expected = format!(
        r#"[interface]
name = "wg0"
private_key = "{SECRET}"
listen_port = 51820
fwmark = 0xca6c
table = "off"
address = [
    "10.0.0.1/24",
    "fd00::1/64",
    "10.1.0.1",
]

[[peer]]
name = "laptop"
public_key = "{}"
allowed_ips = [
    "10.0.0.0/24",
    "fd00::2/128",
]

[[peer]]
name = "phone"
public_key = "{}"
preshared_key = "{SECRET}"
endpoint = "vpn.example.org:51820"
allowed_ips = []
"#,
        key(1),
        key(2)
    );
    assert_eq!(*text, expected);
    load(&text);
    let commands = "vpnd runs no commands; put them into the service unit (ExecStartPre=, ExecStartPost=, ExecStop=, \
                    ExecStopPost=)";
    assert_eq!(
        notes,
        [
            "line 9: DNS is not kept: vpnd leaves the resolver alone; `resolvectl dns DEVICE ADDRESS` sets it",
            &format!("line 10: PostUp is not kept: {commands}"),
            "line 11: SaveConfig is not kept: a running vpnd never writes this file",
            "line 16: AllowedIPs 10.0.0.2/24 became 10.0.0.0/24, which is what wg makes of it",
            "line 16: AllowedIPs 10.0.0.3/24 became 10.0.0.0/24, which is what wg makes of it",
            "line 16: AllowedIPs 10.0.0.0/24 stood there twice and is kept once",
        ]
    );
}

#[test]
fn problems_name_the_lines_of_the_file_of_wg_quick() {
    let text = format!(
        "[Interface]\nPrivateKey = {SECRET}\nMTU = 99\nJc = 4\nnonsense\n[Peer]\nPublicKey = {}\n\
         AllowedIPs = 10.0.0.0/8\nAllowedIPs = x, fd00::/8\n[Peer]\nEndpoint = a\nAllowedIPs = 10.0.0.0/8\n\
         PublicKey = {}\nPublicKey = {}\n",
        key(1),
        key(2),
        key(3)
    );
    let problems = wg0(&text).unwrap_err();
    let starts: Vec<_> = problems.iter().map(|line| line.split(';').next().unwrap()).collect();
    assert_eq!(
        starts,
        [
            "wg0.conf:3: interface.mtu: found the number 99",
            "wg0.conf:4: Jc: found \"Jc\", which is no key of wg-quick here",
            "wg0.conf:5: wg-quick: found a line that is neither [Interface], [Peer] nor Key = value",
            "wg0.conf:9: peer[1].allowed_ips: found \"x\", which is no IP address",
            "wg0.conf:11: peer[2].endpoint: found \"a\", which has no port",
            "wg0.conf:12: peer[2].allowed_ips: found 10.0.0.0/8, which peer[1] has on line 8 already",
            "wg0.conf:14: PublicKey: found PublicKey a second time",
        ]
    );
}

#[test]
fn a_key_above_all_sections_and_a_file_without_any_are_refused() {
    let problems = wg0("MTU = 1400\n").unwrap_err();
    assert_eq!(
        problems[0],
        "wg0.conf: interface: found no table [interface]; add [interface] with private_key_file = \"FILE\""
    );
    assert_eq!(
        problems[1],
        "wg0.conf:1: MTU: found a key above all sections; put it under [Interface] or [Peer]"
    );
}

#[test]
fn a_device_is_named_after_its_file_where_that_is_a_name() {
    let text = format!("[Interface]\nPrivateKey = {SECRET}\n");
    let name = |path: &str| {
        let Converted { text, notes } = import(&text, Path::new(path)).unwrap();
        (load(&text).interface.name, notes.len())
    };
    assert_eq!(name("a/wg-home.conf"), ("wg-home".into(), 0));
    assert_eq!(name("my own office tunnel.conf"), ("vpn0".into(), 1));
    assert_eq!(name("/dev/stdin"), ("vpn0".into(), 0));
}

#[test]
fn a_name_is_given_to_one_peer() {
    let text = format!(
        "[Interface]\nPrivateKey = {SECRET}\n### Client a\n[Peer]\nPublicKey = {}\n# BEGIN_PEER b\n[Peer]\nPublicKey = \
         {}\n# END_PEER b\n[Peer]\nPublicKey = {}\n# b\n[Peer]\nPublicKey = {}\n",
        key(1),
        key(2),
        key(3),
        key(4)
    );
    let Converted { text, notes } = wg0(&text).unwrap();
    let names: Vec<_> = load(&text).peers.into_iter().map(|peer| peer.name).collect();
    assert_eq!(names, [Some("Client a".into()), Some("b".into()), None, None]);
    assert_eq!(notes, ["line 13: a second peer named \"b\" was left without name"]);
}

#[test]
fn a_file_of_ours_becomes_one_of_wg_quick() {
    let text = format!(
        "[interface]\nname = \"vpn7\"\nprivate_key = \"{SECRET}\"\naddress = [\"10.0.0.1/24\", \"fd00::1/64\"]\n\
         fwmark = 7\ntable = 1000\n[[peer]]\nname = \"laptop\"\npublic_key = \"{}\"\npreshared_key = \"{SECRET}\"\n\
         endpoint = \"[2001:db8::1]:5\"\nallowed_ips = [\"0.0.0.0/0\"]\npersistent_keepalive = 25\n",
        key(1)
    );
    let Converted { text, notes } = export(&load(&text));
    // As `wg showconf` does, keys are shown clamped.
    let clamped = STANDARD.encode(SECRET.parse::<crate::noise::PrivateKey>().unwrap().expose());
    let expected = format!(
        "[Interface]\nPrivateKey = {clamped}\nAddress = 10.0.0.1/24, fd00::1/64\nMTU = 1420\nFwMark = 0x7\nTable = \
         1000\n\n[Peer]\n# Name = laptop\nPublicKey = {}\nPresharedKey = {SECRET}\nEndpoint = [2001:db8::1]:5\n\
         AllowedIPs = 0.0.0.0/0\nPersistentKeepalive = 25\n",
        key(1)
    );
    assert_eq!(*text, expected);
    assert_eq!(notes, ["the device's name is not in the file: save it as vpn7.conf"]);
}

/// All that a configuration says, secrets too.
fn said(config: &Config) -> String {
    let preshared: Vec<_> =
        config.peers.iter().map(|peer| peer.preshared_key.as_ref().map(|key| *key.expose())).collect();
    format!("{config:#?} {:?} {preshared:?}", config.interface.private_key.expose())
}

proptest! {
    #[test]
    fn what_goes_out_comes_back_the_same(config in arbitrary::config()) {
        let file = format!("{}.conf", config.interface.name);
        let back = import(&export(&config).text, Path::new(&file));
        let back = back.unwrap_or_else(|problems| panic!("{problems}"));
        prop_assert!(back.notes.is_empty(), "{:?}", back.notes);
        let mut kept = config;
        kept.peers.iter_mut().for_each(|peer| peer.expires = None); // it is said that this is lost
        prop_assert_eq!(said(&load(&back.text)), said(&kept));
    }

    #[test]
    fn random_text_is_imported_or_refused(
        lines in prop::collection::vec(
            "\\PC{0,20}|\\[(Interface|Peer)\\]|(PrivateKey|MTU|Table|FwMark|Address|AllowedIPs|Endpoint) = [\\PC]{0,9}|# \\PC{0,9}",
            0..12,
        ),
    ) {
        let text = lines.join("\n");
        if let Err(problems) = import(&text, Path::new("wg0.conf")) {
            prop_assert!(!problems.0.is_empty());
            prop_assert!(problems.0.iter().all(|problem| problem.line <= lines.len()), "{}", problems);
        }
    }
}

#[test]
fn a_key_in_a_wrong_place_is_never_shown() {
    for line in [
        format!("PrivateKey {SECRET}"),
        SECRET.to_owned(),
        format!("PrivateKey: {SECRET}"),
        format!("PrivateKey = x{SECRET}"),
        format!("{SECRET} = 1"),
        format!("Address = {SECRET}"),
        format!("ListenPort = {SECRET}"),
        format!("# PrivateKey = {SECRET}\nPrivateKey = 1"),
    ] {
        let problems = wg0(&format!("[Interface]\n{line}\n")).expect_err("not a good file").concat();
        assert!(!problems.contains(&SECRET[5..15]), "{problems}");
    }
}

#[test]
fn a_key_that_is_commented_out_is_nobodys_name() {
    let peer = |comment: &str| format!("{comment}\n[Peer]\nPublicKey = {}\nAllowedIPs = 10.0.0.2/32", key(1));
    for comment in [format!("# PresharedKey = {SECRET}"), format!("# {SECRET}")] {
        let text = format!("[Interface]\nPrivateKey = {}\n{}\n", key(2), peer(&comment));
        let converted = wg0(&text).expect("a good file");
        assert!(!converted.text.contains(SECRET), "{}", *converted.text);
        assert!(!converted.notes.concat().contains(&SECRET[5..15]), "{:?}", converted.notes);
    }
}
