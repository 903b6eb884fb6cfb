//! What a running daemon gives away: by its memory, a core, its environment, and all that it says.

use std::{
    fs,
    io::{Read, Write},
    os::unix::{net::UnixStream, process::ExitStatusExt},
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::{Duration, Instant},
};

use vpnd::{
    lab::{Daemon, Host, Setup},
    noise::{PresharedKey, PrivateKey, PublicKey},
    sys::random::os_rng,
};

use crate::{
    Torment,
    keys::{Known, Other, count, memory},
    outages::{VPND, signal},
    report::Figure,
    world::{DEVICE, NodeFile, PORT, PeerText, attempt, cable, wait_until, wg_in},
};

/// So long after a session was followed by the next one its keys may still be there: the issue's own limit.
const AFTERWARDS: Duration = Duration::from_secs(10);

/// Initiations that come sooner after each other are refused.
const APART: Duration = Duration::from_millis(100);

/// A daemon that says all that it can, and may dump its core as far as its starter is concerned; and what is known of it.
struct Watched {
    host: Host,
    daemon: Daemon,
    other: Other,
    _other_host: Host,
    own: PrivateKey,
    shared: PresharedKey,
    /// What a hook wrote: its environment and its input.
    told: PathBuf,
}

impl Watched {
    fn start() -> Self {
        let (host, far) = cable("secrets", 1500);
        let mut rng = os_rng();
        let [own, theirs] = [(); 2].map(|()| PrivateKey::generate(&mut rng));
        let shared = PresharedKey::generate(&mut rng);
        let peer = PeerText {
            key: theirs.public_key(),
            preshared: Some(&shared),
            endpoint: Some(("192.0.2.2".parse().expect("an address"), PORT)),
            allowed_ips: vec!["10.77.0.2/32".to_owned()],
            keepalive: 1,
        };
        let told = host.folder().join("told");
        let hook =
            format!("[[hook]]\nrun = [\"/bin/sh\", \"-c\", \"env >> {0}; cat >> {0}\"]\n", told.display());
        let peers = format!("{}{hook}", peer.toml());
        let address = ["10.77.0.1/24".to_owned()];
        let file = NodeFile { private: &own, address: &address, mtu: 1420, interface: "", peers: &peers };
        let shared_there = PresharedKey::from_hex(&shared.to_hex()).expect("its own text");
        let other = Other::new(&far, theirs, own.public_key(), shared_there);
        let mut setup = Setup::new(dumpable(&host, VPND), file.toml());
        setup.log = "trace".to_owned();
        let daemon = Daemon::start(&host, &setup).unwrap_or_else(|error| panic!("{error}"));
        Self { host, daemon, other, _other_host: far, own, shared, told }
    }

    /// All that makes it handle its secrets: `wg` is shown them and sets them, the file is read again, answers are given.
    fn use_secrets(&self) -> String {
        let sockets = self.daemon.run_dir().join("wireguard");
        assert!(wg_in(&self.host, &sockets, &["showconf", DEVICE]).contains(&*self.own.to_base64()));
        let file = self.host.folder().join("secrets.key");
        fs::write(&file, self.own.to_base64().as_bytes()).expect("a file");
        let file = file.to_str().expect("a path in text");
        wg_in(&self.host, &sockets, &["set", DEVICE, "private-key", file]);
        signal(&self.host, "HUP", self.daemon.pid());
        wait_until(Duration::from_secs(5), || self.daemon.log().contains("reload"));
        let asked = |arguments: &[&str]| {
            let mut command = Command::new(VPND);
            command.args(arguments).arg("--run-dir").arg(self.daemon.run_dir());
            let said = attempt(&self.host, &command);
            String::from_utf8_lossy(&said.stdout).into_owned() + &String::from_utf8_lossy(&said.stderr)
        };
        let status = self.daemon.status(DEVICE).expect("a status").to_string();
        let spoken: String = ["status", "diff"].map(|word| asked(&[word, DEVICE])).concat();
        let wrong = wg_set_wrong(&self.host, &sockets);
        [status, spoken, wrong, self.events_and_metrics()].concat()
    }

    fn events_and_metrics(&self) -> String {
        let socket = self.daemon.run_dir().join("vpnd").join(format!("{DEVICE}.sock"));
        let get = |path: &str| {
            let mut stream = UnixStream::connect(&socket).expect("it listens");
            stream.write_all(format!("GET {path} HTTP/1.0\r\n\r\n").as_bytes()).expect("it reads");
            stream.set_read_timeout(Some(Duration::from_secs(1))).expect("a time-out");
            let mut answer = Vec::new();
            let _no_end_of_events = stream.read_to_end(&mut answer);
            String::from_utf8_lossy(&answer).into_owned()
        };
        ["/v1/events?since=0", "/metrics"].map(get).concat()
    }

    /// Each secret in each form that a text may have it in.
    fn in_text(&self, sessions: &[&Known]) -> Vec<(&'static str, Vec<u8>)> {
        let mut wanted = Vec::new();
        let mut add = |name: &'static str, key: &[u8; 32]| {
            let as_key = PublicKey(*key); // for its texts
            wanted.push((name, key[..16].to_vec()));
            wanted.push((name, as_key.to_string().as_bytes()[..20].to_vec()));
            wanted.push((name, as_key.to_hex().as_bytes()[..24].to_vec()));
            let numbers: Vec<_> = key[..6].iter().map(u8::to_string).collect();
            wanted.push((name, numbers.join(", ").into_bytes()));
        };
        add("private key", self.own.expose());
        add("preshared key", self.shared.expose());
        sessions.iter().flat_map(|known| &known.keys).for_each(|key| add("session key", key));
        wanted
    }
}

/// What cannot be set is answered by words.
fn wg_set_wrong(host: &Host, sockets: &Path) -> String {
    crate::world::try_wg(host, sockets, &["set", DEVICE, "peer", "nonsense"]).err().unwrap_or_default()
}

/// A program that becomes this one, in the folder where its core would be found, with no limit on that.
fn dumpable(host: &Host, program: &str) -> PathBuf {
    let path = host.folder().join("dumpable");
    let folder = host.folder().display();
    let text = format!("#!/bin/sh\nulimit -c unlimited\ncd {folder}\nexec {program} \"$@\"\n");
    crate::common::program::script(&path, &text, 0o700);
    path
}

/// Where these bytes lie in the memory of a process, and what the kernel says of that place.
fn flags_around(pid: u32, wanted: &[u8; 32]) -> Option<String> {
    use std::os::unix::fs::FileExt;
    let maps = fs::read_to_string(format!("/proc/{pid}/smaps")).ok()?;
    let file = fs::File::open(format!("/proc/{pid}/mem")).ok()?;
    let mut place = None;
    for line in maps.lines() {
        let range = line.split(' ').next().and_then(|word| word.split_once('-'));
        let bounds = range.and_then(|(from, to)| {
            Some((u64::from_str_radix(from, 16).ok()?, u64::from_str_radix(to, 16).ok()?))
        });
        if let Some((from, to)) = bounds {
            let mut bytes = vec![0; usize::try_from(to - from).ok()?];
            let is_readable = line.split(' ').nth(1).is_some_and(|may| may.starts_with("rw"));
            place = (is_readable && file.read_exact_at(&mut bytes, from).is_ok())
                .then(|| bytes.windows(32).any(|window| window == wanted))
                .filter(|found| *found);
        } else if let Some(flags) = line.strip_prefix("VmFlags:")
            && place.is_some()
        {
            return Some(flags.trim().to_owned());
        }
    }
    None
}

/// How many places of the memory hold a private key of one of these public keys. Random bytes are told from others by how
/// many different ones there are; what is random is multiplied with the base point.
fn private_keys_of(memory: &[Vec<u8>], publics: &[[u8; 32]]) -> (usize, usize) {
    let (mut tried, mut found) = (0, 0);
    for part in memory {
        let mut counts = [0_u16; 256];
        let mut distinct = 0;
        for (end, &byte) in part.iter().enumerate() {
            counts[usize::from(byte)] += 1;
            distinct += u32::from(counts[usize::from(byte)] == 1);
            if end >= 32 {
                let gone = usize::from(part[end - 32]);
                counts[gone] -= 1;
                distinct -= u32::from(counts[gone] == 0);
            }
            if end >= 31 && distinct >= 24 {
                tried += 1;
                let secret: [u8; 32] = part[end - 31..=end].try_into().expect("32 bytes");
                let public = x25519_dalek::PublicKey::from(&x25519_dalek::StaticSecret::from(secret));
                found += usize::from(publics.contains(public.as_bytes()));
            }
        }
    }
    (found, tried)
}

fn beside(pid: u32) -> Vec<u32> {
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    children.split_whitespace().filter_map(|child| child.parse().ok()).collect()
}

pub fn secrets(torment: &Torment) -> Vec<Figure> {
    let mut watched = Watched::start();
    let pid = watched.daemon.pid();
    let mut figures = Vec::new();
    let first = watched.other.answer(); // its keepalive wanted it
    let in_use =
        wait_until(Duration::from_secs(10), || in_memory(pid, &first).iter().all(|copies| *copies > 0));
    figures.push(Figure::hard(
        "keys of a session in use are found, so that those that are not found are not there",
        "yes",
        in_use,
        in_use,
    ));
    let said = watched.use_secrets();
    thread::sleep(APART);
    let second = watched.other.call();
    thread::sleep(APART);
    let third = watched.other.call();
    let renewed = Instant::now();
    wait_until(AFTERWARDS, || {
        [&first, &second].into_iter().flat_map(|old| in_memory(pid, old)).all(|copies| copies == 0)
    });
    figures.extend(of_memory(torment, &watched, [&first, &second], &third, renewed.elapsed()));
    figures.extend(of_texts(&watched, &said, &[&first, &second, &third]));
    figures.extend(of_core(&mut watched));
    figures
}

fn in_memory(pid: u32, known: &Known) -> [usize; 2] {
    let memory = memory(pid);
    known.keys.map(|key| count(&memory, &key))
}

fn of_memory(
    torment: &Torment,
    watched: &Watched,
    old: [&Known; 2],
    current: &Known,
    after: Duration,
) -> Vec<Figure> {
    let pid = watched.daemon.pid();
    let memory = memory(pid);
    let of = |known: &Known| known.keys.map(|key| count(&memory, &key));
    let old_keys: usize = old.into_iter().flat_map(of).sum();
    let own = [
        count(&memory, watched.own.expose()),
        count(&memory, watched.own.to_base64().as_bytes()),
        count(&memory, watched.own.to_hex().as_bytes()),
    ];
    let shared = [
        count(&memory, watched.shared.expose()),
        count(&memory, watched.shared.to_base64().as_bytes()),
        count(&memory, watched.shared.to_hex().as_bytes()),
    ];
    let flags = flags_around(pid, watched.own.expose()).unwrap_or_default();
    let has = |flag: &str| flags.split(' ').any(|one| one == flag);
    let locked = has("lo") && has("dd");
    let mut figures = vec![
        Figure::hard(
            format!("{:.1} s after a rekey: keys of the two sessions before", after.as_secs_f64()),
            "0 after 10 s",
            old_keys,
            old_keys == 0,
        ),
        Figure::hard(
            "copies of the keys in use",
            "1, 1",
            format!("{:?}", of(current)),
            of(current) == [1, 1],
        ),
        Figure::hard(
            "copies of the static key: bytes, base64, hex",
            "≤ 1, 0, 0",
            format!("{own:?}"),
            own[0] <= 1 && own[1..] == [0, 0],
        ),
        Figure::hard("its page is locked, and in no core (VmFlags lo, dd)", "yes", &flags, locked),
        Figure::hard(
            "copies of a preshared key: bytes, base64, hex",
            "≤ 1, 0, 0",
            format!("{shared:?}"),
            shared[0] <= 1 && shared[1..] == [0, 0],
        ),
    ];
    if torment.is_full() {
        let (found, _) = private_keys_of(&memory, &[watched.own.public_key().0]);
        let publics: Vec<_> = old.into_iter().chain([current]).map(|known| known.ephemeral).collect();
        let (ephemeral, tried) = private_keys_of(&memory, &publics);
        figures.push(
            Figure::hard(
                "ephemeral private keys of its last three handshakes",
                "0",
                ephemeral,
                ephemeral == 0 && found == 1,
            )
            .note(format!(
                "{tried} random-looking places times the base point; the same search finds the static key {found} ×"
            )),
        );
    }
    let left: usize = beside(pid)
        .into_iter()
        .map(crate::keys::memory)
        .map(|memory| {
            let secrets = [watched.own.expose(), watched.shared.expose()];
            secrets.into_iter().chain(&current.keys).map(|key| count(&memory, key)).sum::<usize>()
        })
        .sum();
    figures.push(Figure::hard("secrets in the two processes beside it", "0", left, left == 0));
    figures
}

/// Nothing that anybody reads has a secret in it.
fn of_texts(watched: &Watched, said: &str, sessions: &[&Known]) -> Vec<Figure> {
    let pid = watched.daemon.pid();
    let wanted = watched.in_text(sessions);
    let has = |text: &[u8]| -> Vec<&'static str> {
        let found =
            |secret: &&(&'static str, Vec<u8>)| text.windows(secret.1.len()).any(|part| part == secret.1);
        wanted.iter().filter(found).map(|(name, _)| *name).collect()
    };
    let log = watched.daemon.log();
    let at_trace = ["TRACE", "DEBUG"].iter().any(|level| log.contains(level));
    let all: Vec<u32> = [pid].into_iter().chain(beside(pid)).collect();
    let of_processes = |name: &str| -> Vec<u8> {
        all.iter().flat_map(|pid| fs::read(format!("/proc/{pid}/{name}")).unwrap_or_default()).collect()
    };
    let hooked = fs::read(&watched.told).unwrap_or_default();
    let kept: Vec<u8> = files_below(&watched.host.folder().join("vpnd.state"))
        .iter()
        .flat_map(|path| fs::read(path).unwrap_or_default())
        .collect();
    let texts = [
        ("the log, at trace", log.as_bytes().to_vec(), at_trace),
        (
            "status, events, metrics and refusals, as they are asked for",
            said.as_bytes().to_vec(),
            said.len() > 2000,
        ),
        ("environment, its own and that of those beside it", of_processes("environ"), true),
        ("command lines", of_processes("cmdline"), true),
        (
            "what a hook got: environment and input",
            hooked.clone(),
            hooked.windows(5).any(|part| part == b"VPND_"),
        ),
        ("what it keeps on disk", kept.clone(), !kept.is_empty()),
    ];
    let figure = |(name, text, there): (&str, Vec<u8>, bool)| {
        let found = has(&text);
        Figure::hard(
            format!("secrets in {name}"),
            "0",
            format!("{} in {} bytes", found.len(), text.len()),
            found.is_empty() && there,
        )
        .note(found.join(", "))
    };
    let mut figures: Vec<_> = texts.into_iter().map(figure).collect();
    // The file is where they must be found, or nothing above says anything.
    let file = has(&fs::read(watched.daemon.config()).unwrap_or_default());
    figures.push(Figure::hard(
        "the same search finds those in its file",
        "private, preshared",
        file.join(", "),
        file == ["private key", "preshared key"],
    ));
    figures
}

fn files_below(folder: &Path) -> Vec<PathBuf> {
    let entries =
        fs::read_dir(folder).map(|entries| entries.flatten().collect()).unwrap_or_else(|_| Vec::new());
    let below = |path: PathBuf| if path.is_dir() { files_below(&path) } else { vec![path] };
    entries.into_iter().flat_map(|entry| below(entry.path())).collect()
}

/// Both are ended by SIGABRT in the same way: another program dumps its core, the daemon does not.
fn of_core(watched: &mut Watched) -> Vec<Figure> {
    let mut control = Command::new(dumpable(&watched.host, "/bin/sleep"));
    control.arg("60");
    let mut control = watched.host.spawn("control", control).expect("it starts");
    // Until it is the program, and no shell any more.
    let is_sleep =
        || fs::read_to_string(format!("/proc/{}/comm", control.pid())).is_ok_and(|name| name == "sleep\n");
    wait_until(Duration::from_secs(5), is_sleep);
    let cores = |folder: &Path| {
        let named =
            |path: &PathBuf| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("core"));
        files_below(folder).into_iter().filter(named).count()
    };
    let folder = watched.host.folder().to_owned();
    signal(&watched.host, "ABRT", control.pid());
    let dumped = control.wait(Duration::from_secs(10)).is_some_and(|status| status.core_dumped());
    let of_control = cores(&folder);
    let _ = fs::remove_file(folder.join("core"));
    let before = cores(&folder);
    signal(&watched.host, "ABRT", watched.daemon.pid());
    let status = watched.daemon.wait(Duration::from_secs(10));
    let own = status.is_some_and(|status| status.core_dumped());
    thread::sleep(Duration::from_millis(100));
    let left = cores(&folder) - before;
    let ended = status.and_then(|status| status.signal()) == Some(6);
    vec![
        Figure::hard(
            "core of a daemon that SIGABRT ends, with no limit on cores",
            "none",
            if own || left > 0 { "there is one" } else { "none" },
            ended && !own && left == 0,
        )
        .note(if dumped {
            format!("`sleep`, ended in the same way, left {of_control}")
        } else {
            "here not even `sleep` leaves one: it says nothing".to_owned()
        }),
        Figure::hard("so that is the daemon's doing", "yes", dumped, dumped),
    ]
}
