//! Peers that come, go and get other names, in a file in a folder of its own; no daemon runs.

use std::{os::unix::fs::PermissionsExt, path::Path, time::Duration};

use clap::Parser;

use super::*;
use crate::{
    cli::disk,
    config::{date, wg_quick},
    noise::PrivateKey,
};

const KEY: &str = "yAnz5TF+lXXJte14tji3zlMNq+hd2rYUIgJBgB3fBmk=";
const FILE: &str = "# ours\n[interface]\nprivate_key_file = \"vpn0.key\"\nlisten_port = 51820\naddress = [\"10.77.0.1/24\", \"fd77::1/64\"]\n\
                    public_endpoint = \"vpn.example.org:51820\"\nclient_allowed_ips = [\"10.77.0.0/24\", \"fd77::/64\"]\n";

#[derive(Debug, Parser)]
enum Line {
    AddPeer(AddPeer),
    RemovePeer(RemovePeer),
    RenamePeer(RenamePeer),
    Qr(Qr),
}

/// A tunnel's file in a folder.
struct Tunnel(tempfile::TempDir);

impl Tunnel {
    fn new(file: &str) -> Self {
        let tunnel = Self(tempfile::tempdir().unwrap());
        disk::write_secret(&tunnel.at("vpn0.key"), KEY, false).unwrap();
        disk::write_secret(&tunnel.file(), file, false).unwrap();
        tunnel
    }

    fn at(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn file(&self) -> PathBuf {
        self.at("vpn0.toml")
    }

    fn text(&self) -> String {
        fs::read_to_string(self.file()).unwrap()
    }

    fn config(&self) -> Config {
        disk::read_config(&self.file()).unwrap_or_else(|error| panic!("{error}"))
    }

    fn parse(&self, line: &str) -> Result<Line, String> {
        let config = self.file();
        let run = self.0.path();
        let words = ["vpnd"].into_iter().chain(line.split_whitespace());
        let options = ["--config", config.to_str().unwrap(), "--run-dir", run.to_str().unwrap()];
        Line::try_parse_from(words.chain(options)).map_err(|error| error.to_string())
    }

    /// What a command shows; its words may not hold white space.
    fn run(&self, line: &str) -> Result<String, String> {
        let shown = match self.parse(line)? {
            Line::AddPeer(args) => add::add(&args).map(|(text, _)| text.to_string()),
            Line::RemovePeer(args) => remove::remove(&args).map(|_| String::new()),
            Line::RenamePeer(args) => remove::rename(&args).map(|_| String::new()),
            Line::Qr(args) if args.rekey => show::rekey(&args).map(|(text, _)| text.to_string()),
            Line::Qr(args) => show::kept_of(&args).map(|text| text.to_string()),
        };
        shown.map_err(|error| error.to_string())
    }

    #[track_caller]
    fn does(&self, line: &str) -> String {
        self.run(line).unwrap_or_else(|error| panic!("{line}: {error}"))
    }

    #[track_caller]
    fn refuses(&self, line: &str, why: &str) {
        let before = self.text();
        let error = self.run(line).expect_err(line);
        assert!(error.contains(why), "{line}: {error}");
        assert_eq!(self.text(), before, "a refused command altered the file");
        let files: Vec<_> =
            fs::read_dir(self.0.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert!(files.iter().all(|name| !name.to_string_lossy().starts_with('.')), "{files:?}");
    }
}

/// A client's file as it would run with vpnd.
fn client(text: &str) -> Config {
    let imported =
        wg_quick::import(text, Path::new("client.conf")).unwrap_or_else(|problems| panic!("{problems}"));
    let no_files = |_: &Path| Err(std::io::ErrorKind::NotFound.into());
    crate::config::parse(&imported.text, Path::new("client.toml"), &no_files).unwrap()
}

#[test]
fn client_and_gateway_know_each_other_after_one_command() {
    let tunnel = Tunnel::new(FILE);
    let text = tunnel.does("add-peer laptop --expires 2099-01-01 --client-keepalive 25");
    let (ours, theirs) = (tunnel.config(), client(&text));
    let (peer, gateway) = (&ours.peers[0], &theirs.peers[0]);
    assert_eq!(peer.public_key, theirs.interface.private_key.public_key());
    assert_eq!(gateway.public_key, ours.interface.private_key.public_key());
    assert!(peer.preshared_key.is_some() && peer.preshared_key == gateway.preshared_key);
    assert_eq!(peer.allowed_ips, theirs.interface.address);
    assert_eq!(theirs.interface.address, ["10.77.0.2/32", "fd77::2/128"].map(|net| net.parse().unwrap()));
    assert_eq!(gateway.allowed_ips, ours.interface.clients.allowed_ips);
    assert_eq!(gateway.endpoint, ours.interface.clients.endpoint);
    assert_eq!((gateway.persistent_keepalive, peer.persistent_keepalive), (25, 0));
    assert_eq!(peer.expires, date::parse("2099-01-01"));
    assert!(tunnel.text().starts_with(FILE), "what was there stays");
    assert!(
        !tunnel.text().contains(text.lines().nth(1).unwrap().split_once(" = ").unwrap().1),
        "the client's key is kept"
    );

    tunnel.does("add-peer phone --no-preshared-key --allowed-ips 192.168.7.0/24,10.77.0.40/32");
    let peer = &tunnel.config().peers[1];
    assert_eq!(peer.preshared_key, None);
    assert_eq!(
        peer.allowed_ips,
        ["10.77.0.40/32", "fd77::3/128", "192.168.7.0/24"].map(|net| net.parse().unwrap())
    );
}

#[test]
fn what_the_client_must_know_is_asked_for_and_not_guessed() {
    let tunnel = Tunnel::new(
        "[interface]\nprivate_key_file = \"vpn0.key\"\naddress = [\"10.77.0.1/24\"]\nmtu = 1380\n",
    );
    tunnel.refuses("add-peer a", "public_endpoint = \"vpn.example.org:51820\" under [interface]");
    tunnel.refuses("add-peer a", "client_allowed_ips = [\"10.77.0.0/24\"] under [interface]");
    tunnel.refuses("add-peer a --client-allowed-ips ::/0", "give --public-endpoint");
    let given = "--client-allowed-ips 0.0.0.0/0,::/0 --public-endpoint 192.0.2.1:5";
    let theirs = client(&tunnel.does(&format!("add-peer a {given}")));
    assert_eq!(
        (theirs.interface.mtu, theirs.peers[0].persistent_keepalive),
        (1380, 0),
        "ours is not the usual one"
    );
    assert!(
        tunnel
            .does(&format!("add-peer b {given} --client-dns 9.9.9.9,example.org"))
            .contains("DNS = 9.9.9.9, example.org\n")
    );
    let inside = "--client-allowed-ips 192.0.2.0/24 --public-endpoint 192.0.2.1:5";
    tunnel.refuses(&format!("add-peer c {inside}"), "a loop");
}

#[test]
fn a_wrong_word_on_the_command_line_says_what_would_do() {
    let tunnel = Tunnel::new(FILE);
    for (line, why) in [
        ("add-peer a --public-endpoint vpn.example.org", "add one: \"vpn.example.org:51820\""),
        ("add-peer a --allowed-ips 10.0.0.1/24", "write 10.0.0.0/24"),
        ("add-peer a --expires 2020-01-01", "which has passed"),
        ("add-peer a --expires 0d", "found no moment"),
        ("add-peer a --public-key hunter2", "found 7 characters that are"),
        ("add-peer a --client-dns 9.9.9.9:53", "address of a server"),
        ("add-peer a --interface vpn0", "cannot be used with"),
    ] {
        tunnel.refuses(line, why);
    }
    let Line::AddPeer(args) = tunnel.parse("add-peer a --expires 2d").unwrap() else {
        panic!("another command")
    };
    let left = args.expires.unwrap() - crate::sys::clock::wall();
    assert!((Duration::from_secs(172_700)..=Duration::from_secs(172_800)).contains(&left), "{left:?}");
}

#[test]
fn a_client_that_made_its_own_keys_keeps_them() {
    let tunnel = Tunnel::new(FILE);
    let public = PrivateKey::new([3; 32]).public_key();
    let text = tunnel.does(&format!("add-peer laptop --public-key {public}"));
    assert_eq!(tunnel.config().peers[0].public_key, public);
    assert!(text.contains("# PrivateKey = the one") && !text.contains("\nPrivateKey"), "{text}");
    let again = format!("add-peer other --public-key {public}");
    tunnel.refuses(&again, "the key of peer[1] on line");
}

#[test]
fn a_file_that_others_can_read_gets_no_secret() {
    let tunnel = Tunnel::new(FILE);
    fs::set_permissions(tunnel.file(), fs::Permissions::from_mode(0o644)).unwrap();
    let text = tunnel.does("add-peer laptop");
    let metadata = fs::metadata(tunnel.at("laptop.psk")).unwrap();
    assert_eq!(metadata.permissions().mode() & 0o777, 0o600);
    assert!(tunnel.text().contains("preshared_key_file = \"laptop.psk\""));
    assert_eq!(tunnel.config().peers[0].preshared_key, client(&text).peers[0].preshared_key);

    fs::write(tunnel.at("phone.psk"), "somebody's").unwrap();
    tunnel.refuses("add-peer phone", "phone.psk");
    assert_eq!(fs::read_to_string(tunnel.at("phone.psk")).unwrap(), "somebody's");
    // What was made for a peer that cannot be goes again.
    tunnel.refuses("add-peer tablet --allowed-ips 10.77.0.2/32", "which peer[1] has on line");
    assert!(!tunnel.at("tablet.psk").exists());
}

#[test]
fn a_peer_is_found_by_name_or_key_and_otherwise_the_nearest_is_named() {
    let tunnel = Tunnel::new(FILE);
    tunnel.does("add-peer laptop");
    tunnel.does("add-peer phone");
    tunnel.refuses("add-peer laptop", "has a peer laptop already");
    tunnel.refuses("remove-peer labtop", "the nearest name is \"laptop\"");
    tunnel.refuses("remove-peer x", "its peers are laptop, phone");
    tunnel.refuses("rename-peer phone laptop", "has a peer laptop already");
    tunnel.refuses("rename-peer phone \u{7}", "control characters");

    let key = tunnel.config().peers[1].public_key.to_string();
    tunnel.refuses(&format!("remove-peer {}", &key[..4]), "there is no peer");
    tunnel.does(&format!("rename-peer {} Anna", &key[..8]));
    assert_eq!(tunnel.config().peers[1].name.as_deref(), Some("Anna"));
    tunnel.does("remove-peer laptop");
    assert_eq!(tunnel.config().peers.len(), 1);
    tunnel.does("remove-peer Anna");
    assert_eq!(tunnel.text(), FILE, "the file is as it was");

    let same =
        |end: &str| format!("[[peer]]\npublic_key = \"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA{end}=\"\n");
    let tunnel = Tunnel::new(&format!("{FILE}{}{}", same("AE"), same("BE")));
    tunnel.refuses("remove-peer AAAAAAAA", "the start of several public keys");
    tunnel.refuses("remove-peer bob", "its peers have no names");
}

#[test]
fn a_private_key_is_shown_again_only_if_it_was_to_be_kept() {
    let tunnel = Tunnel::new(FILE);
    let text = tunnel.does("add-peer laptop");
    tunnel.refuses("qr laptop", "kept nowhere: `vpnd qr \"laptop\" --rekey`");
    let renewed = tunnel.does("qr laptop --rekey");
    let (old, new) = (client(&text), client(&renewed));
    assert_ne!(old.interface.private_key.public_key(), new.interface.private_key.public_key());
    assert_eq!(tunnel.config().peers[0].public_key, new.interface.private_key.public_key());
    assert_eq!(tunnel.config().peers[0].preshared_key, new.peers[0].preshared_key);
    assert_ne!(old.peers[0].preshared_key, new.peers[0].preshared_key);
    assert_eq!(old.interface.address, new.interface.address);

    let tunnel = Tunnel::new(&format!("{FILE}client_folder = \"clients\"\n"));
    let text = tunnel.does("add-peer laptop");
    let path = tunnel.at("clients/laptop.conf");
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(fs::metadata(tunnel.at("clients")).unwrap().permissions().mode() & 0o777, 0o700);
    assert_eq!(tunnel.does("qr laptop"), text);
    tunnel.does("rename-peer laptop Anna");
    assert_eq!(tunnel.does("qr Anna"), text);
    assert!(!path.exists());
    let renewed = tunnel.does("qr Anna --rekey");
    assert_eq!(tunnel.does("qr Anna"), renewed);
    fs::write(tunnel.at("clients/Anna.conf"), &text).unwrap();
    tunnel.refuses("qr Anna", "does not hold the private key of Anna");
    tunnel.does("remove-peer Anna");
    assert!(tunnel.at("clients/Anna.conf").exists(), "another one's is left alone");
    tunnel.does("add-peer phone");
    tunnel.does("remove-peer phone");
    assert!(!tunnel.at("clients/phone.conf").exists());
}

#[test]
fn the_tunnels_file_is_found_where_there_is_one_alone() {
    let folder = tempfile::tempdir().unwrap();
    let target = |interface: Option<&str>| Target {
        config: None,
        interface: interface.map(str::to_owned),
        run_dir: "/run".into(),
        etc_dir: folder.path().to_owned(),
    };
    assert!(target(None).path().unwrap_err().contains("there is no tunnel's file"));
    fs::write(folder.path().join("vpn0.toml"), "").unwrap();
    fs::write(folder.path().join("vpn0.key"), "").unwrap();
    assert_eq!(target(None).path().unwrap(), folder.path().join("vpn0.toml"));
    fs::write(folder.path().join("home.toml"), "").unwrap();
    assert!(target(None).path().unwrap_err().contains("(home, vpn0); name one with --interface"));
    assert_eq!(target(Some("home")).path().unwrap(), folder.path().join("home.toml"));
    assert!(target(Some("../x")).path().is_err());
}
