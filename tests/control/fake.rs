//! A daemon without a device: it answers requests from a model of the tunnel in memory.

use std::collections::BTreeMap;
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::process::Output;
use std::time::Duration;

use ipnet::IpNet;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::sync::mpsc;
use vpnd::control::events::Events;
use vpnd::control::{
    Access, ControlServer, InterfaceSample, InterfaceStatus, NoTrace, NotReloaded, Operation, Reloaded,
    Request, Sandbox, SetError,
};
use vpnd::forward::{Evidence, PeerId, Refusal, Time};
use vpnd::noise::{PrivateKey, PublicKey};
use vpnd::tunnel::{AllowedIpOp, Change, PeerChange, PeerSample, PeerStatus, Sample, Status};

/// The port that the fake host says is taken.
pub const TAKEN_PORT: u16 = 9;

/// The interface of every fake: each has a run directory of its own.
pub const NAME: &str = "vpndctl0";

pub struct Fake {
    run: tempfile::TempDir,
    pub server: ControlServer,
    pub events: Events,
}

impl Fake {
    pub async fn start() -> Self {
        Self::start_with(Model::default()).await
    }

    pub async fn start_with(model: Model) -> Self {
        let run = tempfile::tempdir().expect("a run directory");
        let events = Events::new(NAME);
        let server = ControlServer::serve(NAME, run.path(), Access::default(), daemon(model), events.clone())
            .await
            .expect("nobody is there yet");
        Self { run, server, events }
    }

    /// Where `wg` and `vpnd status` find it.
    pub fn socket(&self, kind: &str) -> PathBuf {
        self.run.path().join(kind).join(format!("{NAME}.sock"))
    }

    pub async fn connect(&self, kind: &str) -> UnixStream {
        UnixStream::connect(self.socket(kind)).await.expect("the socket answers")
    }

    /// One request over a connection of its own; everything that comes back.
    pub async fn ask(&self, kind: &str, request: &[u8]) -> String {
        let mut stream = self.connect(kind).await;
        stream.write_all(request).await.expect("it is read");
        stream.shutdown().await.expect("half closed");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.expect("an answer");
        answer
    }

    /// Runs `wg` where `/run` is our run directory, in a mount namespace of its own. It must succeed.
    pub async fn wg(&self, arguments: &[&str]) -> String {
        let output = self.try_wg(arguments).await;
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "wg {arguments:?}: {error}");
        String::from_utf8(output.stdout).expect("wg writes text")
    }

    pub async fn try_wg(&self, arguments: &[&str]) -> Output {
        let mut command = tokio::process::Command::from(unshare());
        command.args(["sh", "-c", r#"mount --bind "$0" /run && exec wg "$@""#]).arg(self.run.path());
        let output = command.args(arguments).kill_on_drop(true).output();
        let output = tokio::time::timeout(Duration::from_secs(60), output).await;
        output.expect("wg ends within a minute").expect("unshare can be run")
    }

    /// A file for `wg` to read.
    pub fn file(&self, name: &str, text: &str) -> String {
        let path = self.run.path().join(name);
        std::fs::write(&path, text).expect("the run directory can be written");
        format!("/run/{name}")
    }
}

/// Runs its arguments in a mount namespace of their own.
fn unshare() -> std::process::Command {
    let root = std::fs::metadata("/proc/self").expect("we exist").uid() == 0;
    let mut command = std::process::Command::new("unshare");
    command.args(if root { &["--mount"][..] } else { &["--mount", "--map-root-user"] });
    command
}

/// True if `wg` cannot be run here; says so where no test runner hides it, and fails under CI.
pub fn wg_is_missing() -> bool {
    let probe = unshare().args(["wg", "--version"]).output();
    let runs = matches!(probe, Ok(output) if output.status.success());
    if !runs {
        assert!(std::env::var_os("CI").is_none_or(|ci| ci != "true"), "wg must run under CI");
        let _ = writeln!(
            std::io::stderr(),
            "NOT TESTED: needs wg (wireguard-tools), unshare, and root or user namespaces"
        );
    }
    !runs
}

/// Answers until the sockets are gone.
pub fn daemon(mut model: Model) -> mpsc::Sender<Request> {
    let (asker, mut requests) = mpsc::channel(4);
    tokio::spawn(async move {
        while let Some(request) = requests.recv().await {
            match request {
                Request::Get(answer) => drop(answer.send(model.status())),
                Request::Peer(about, answer) => {
                    let wanted = |peer: &&PeerStatus| about.is(&peer.label, &peer.public_key.to_string());
                    drop(answer.send(model.status().tunnel.peers.iter().find(wanted).cloned()));
                }
                Request::Sample(known, answer) => drop(answer.send(model.sample(known))),
                Request::Trace(_, answer) => drop(answer.send(Err(NoTrace::TooMany))),
                Request::Set(changes, answer) => {
                    let done = changes.into_iter().try_for_each(|change| model.apply(change));
                    drop(answer.send(done));
                }
                Request::Reload(confirm, answer) => {
                    let confirm_within_s = confirm.map(|time| time.as_secs());
                    let changed = vec!["peer laptop: removed".to_owned()];
                    drop(answer.send(Ok(Reloaded { changed, confirm_within_s })));
                }
                Request::Confirm(answer) => drop(answer.send(Err(NotReloaded("nothing waits".to_owned())))),
            }
        }
    });
    asker
}

/// A tunnel that never sends a packet.
#[derive(Default)]
pub struct Model {
    pub private_key: Option<PrivateKey>,
    pub port: u16,
    pub mark: u32,
    pub peers: Vec<PeerStatus>,
    pub refusals: Vec<(Refusal, u64, Option<Evidence>)>,
    pub routes: BTreeMap<IpNet, PublicKey>,
}

impl Model {
    fn status(&self) -> InterfaceStatus {
        let mut peers = self.peers.clone();
        for peer in &mut peers {
            let own = self.routes.iter().filter(|(_, owner)| **owner == peer.public_key);
            peer.allowed_ips = own.map(|(prefix, _)| *prefix).collect();
        }
        InterfaceStatus {
            name: NAME.to_owned(),
            listen_port: self.port,
            fwmark: self.mark,
            mtu: 1420,
            tunnel: Status {
                private_key: self.private_key.clone(),
                public_key: self.private_key.as_ref().map(PrivateKey::public_key),
                peers,
                refusals: self.refusals.clone(),
                under_load: false,
                mss_clamped: 0,
            },
            now: Duration::from_secs(1_700_000_000),
            operation: Operation::default(),
            sandbox: Sandbox::default(),
            boot: Time(90_000_000_000),
        }
    }

    fn sample(&self, known: Option<(Time, u64)>) -> InterfaceSample {
        let peers: Vec<_> = self.peers.iter().map(sample_of).collect();
        let is_connected = |peer: &&PeerSample| peer.session_age.is_some();
        let count = |what: Refusal| {
            self.refusals.iter().find(|(known, ..)| *known == what).map_or(0, |found| found.1)
        };
        InterfaceSample {
            name: NAME.to_owned(),
            listen_port: self.port,
            tunnel: Sample {
                generation: 1,
                total: peers.len(),
                connected: peers.iter().filter(is_connected).count(),
                whole: known.is_none(),
                peers: if known.is_none() { peers } else { Vec::new() },
                refusals: Refusal::ALL.map(count),
                under_load: false,
                mss_clamped: 3,
                public_key: None,
            },
            now: Duration::from_secs(1_700_000_000),
            boot: Time(90_000_000_000),
        }
    }

    pub fn apply(&mut self, change: Change) -> Result<(), SetError> {
        match change {
            Change::PrivateKey(key) => self.private_key = key,
            Change::ListenPort(TAKEN_PORT) => return Err(std::io::Error::from_raw_os_error(98).into()),
            Change::ListenPort(port) => self.port = port,
            Change::Fwmark(mark) => self.mark = mark,
            Change::ReplacePeers => {
                self.peers.clear();
                self.routes.clear();
            }
            Change::Peer(change) => self.apply_peer(change),
        }
        Ok(())
    }

    fn apply_peer(&mut self, change: PeerChange) {
        let key = change.public_key;
        let found = self.peers.iter().position(|peer| peer.public_key == key);
        if change.remove || change.replace_allowed_ips {
            self.routes.retain(|_, owner| *owner != key);
        }
        let at = match found {
            Some(at) if change.remove => {
                self.peers.remove(at);
                return;
            }
            Some(at) => at,
            None if change.remove || change.update_only => return,
            None => {
                self.peers.push(peer(self.peers.len() as u64, key));
                self.peers.len() - 1
            }
        };
        let peer = &mut self.peers[at];
        if let Some(preshared) = change.preshared_key {
            peer.preshared_key = (*preshared.expose() != [0; 32]).then_some(preshared);
        }
        peer.endpoint = change.endpoint.or(peer.endpoint);
        peer.persistent_keepalive = change.persistent_keepalive.unwrap_or(peer.persistent_keepalive);
        for op in change.allowed_ips {
            match op {
                AllowedIpOp::Add(prefix) => drop(self.routes.insert(prefix, key)),
                AllowedIpOp::Remove(prefix) if self.routes.get(&prefix) == Some(&key) => {
                    self.routes.remove(&prefix);
                }
                AllowedIpOp::Remove(_) => {}
            }
        }
    }
}

fn sample_of(peer: &PeerStatus) -> PeerSample {
    PeerSample {
        id: peer.id,
        public_key: peer.public_key,
        label: peer.label.clone().into(),
        endpoint: peer.endpoint,
        last_handshake: peer.last_handshake,
        connected_since: peer.connected_since,
        session_age: peer.session_age.filter(|age| age.as_secs() < 180),
        last_received: peer.last_received,
        rx_bytes: peer.rx_bytes,
        tx_bytes: peer.tx_bytes,
        rx_packets: peer.rx_packets,
        tx_packets: peer.tx_packets,
        staged: peer.staged,
        attempts: peer.attempts,
        untaken: peer.untaken,
    }
}

/// A peer that nothing is known of.
pub fn peer(id: u64, public_key: PublicKey) -> PeerStatus {
    PeerStatus {
        id: PeerId(id),
        public_key,
        label: format!("peer{id}"),
        preshared_key: None,
        endpoint: None,
        set_endpoint: None,
        local: None,
        last_handshake: None,
        connected_since: None,
        session_age: None,
        last_received: None,
        rx_bytes: 0,
        tx_bytes: 0,
        rx_packets: 0,
        tx_packets: 0,
        persistent_keepalive: 0,
        allowed_ips: Vec::new(),
        expires: None,
        expired: false,
        staged: 0,
        attempts: 0,
        untaken: 0,
    }
}
