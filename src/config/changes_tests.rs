use std::{net::IpAddr, sync::Arc, time::Duration};

use proptest::prelude::*;
use rand_chacha::rand_core::SeedableRng;

use super::*;
use crate::{
    config::arbitrary,
    forward::{Forward, Time},
    tunnel::{Event, Now, Timing, Tunnel},
};

const NOW: Now = Now { boot: Time(1), wall: Duration::from_secs(1_700_000_000) };

/// A real tunnel, and the names that a resolver would follow for it.
struct World {
    forward: Arc<Forward>,
    tunnel: Tunnel,
    followed: Followed,
}

/// All that can be seen of a peer, by its key.
type Seen =
    (PublicKey, String, Option<[u8; 32]>, Option<String>, Option<String>, u16, Vec<IpNet>, Option<Duration>);

impl World {
    fn fresh(config: &Config) -> Self {
        let forward = Forward::new(Box::new(|| {}));
        let rng = rand_chacha::ChaCha8Rng::from_seed([7; 32]);
        let tunnel = Tunnel::new(forward.clone(), Timing::default(), Box::new(rng));
        let mut world = Self { forward, tunnel, followed: followed(&config.peers) };
        world.apply(config.changes());
        world
    }

    /// Not published yet.
    fn apply(&mut self, changes: Vec<Change>) {
        for change in changes {
            self.tunnel.apply(change, NOW).expect("no file asks for what cannot be");
        }
    }

    /// What `vpnd reload` does.
    fn reload(&mut self, config: &Config) -> Vec<String> {
        let status = self.tunnel.status(NOW);
        let running = Running { status: &status, followed: &self.followed };
        let own = Own::Key(Some(&config.interface.private_key));
        let difference = Difference::towards(running, own, &config.peers);
        let (changes, words) = (difference.changes(), difference.applied());
        assert_eq!(difference.is_none(), words.is_empty());
        self.apply(changes);
        self.followed = followed(&config.peers);
        words
    }

    fn differs(&self, config: &Config) -> Vec<String> {
        let status = self.tunnel.status(NOW);
        let baseline = Baseline::from(config.clone());
        baseline.difference(Running { status: &status, followed: &self.followed }).differs()
    }

    fn seen(&self) -> (Option<PublicKey>, Vec<Seen>) {
        let status = self.tunnel.status(NOW);
        let mut peers: Vec<_> = status
            .peers
            .into_iter()
            .map(|peer| {
                let text = |endpoint: Option<std::net::SocketAddr>| endpoint.map(|place| place.to_string());
                let (endpoint, set) = (text(peer.endpoint), text(peer.set_endpoint));
                // What a name resolved to before is where the peer is until the name says otherwise.
                let by_name = self.followed.contains_key(&peer.public_key);
                let (endpoint, set) = if by_name { (None, None) } else { (endpoint, set) };
                let preshared = peer.preshared_key.map(|key| *key.expose());
                let PeerStatus { public_key, label, persistent_keepalive, allowed_ips, expires, .. } = peer;
                (public_key, label, preshared, endpoint, set, persistent_keepalive, allowed_ips, expires)
            })
            .collect();
        peers.sort();
        (status.public_key, peers)
    }

    /// Whose these addresses are, as the data threads have it.
    fn owners(&self) -> Vec<Option<PublicKey>> {
        let table = self.forward.routes.load();
        let addresses =
            ["10.1.2.3", "10.1.9.9", "10.9.9.9", "192.0.2.1", "fd77::1", "fd77::2", "fd99::1", "2001:db8::1"];
        let owner = |text: &&str| {
            let address: IpAddr = text.parse().expect("an address");
            table.find(address).map(|(peer, _)| peer.public_key)
        };
        addresses.iter().map(owner).collect()
    }
}

proptest! {
    #[test]
    fn a_file_reloaded_shows_the_same_as_started_fresh_and_back_again(
        old in arbitrary::config(),
        new in arbitrary::config(),
    ) {
        let mut world = World::fresh(&old);
        let before = world.seen();
        world.reload(&new);
        prop_assert_eq!(world.seen(), World::fresh(&new).seen());
        prop_assert_eq!(world.differs(&new), Vec::<String>::new());
        prop_assert_eq!(world.reload(&new), Vec::<String>::new(), "a second time there is nothing to do");
        world.reload(&old);
        prop_assert_eq!(world.seen(), before);
    }

    #[test]
    fn the_order_of_peers_does_not_matter_and_no_prefix_is_a_third_ones_in_between(
        old in arbitrary::config(),
        new in arbitrary::config().prop_shuffle_peers(),
    ) {
        let mut world = World::fresh(&old);
        world.tunnel.publish();
        let before = world.owners();
        world.reload(&new);
        prop_assert_eq!(world.owners(), before, "nothing is published half done");
        world.tunnel.publish();
        let mut fresh = World::fresh(&new);
        fresh.tunnel.publish();
        prop_assert_eq!(world.owners(), fresh.owners());
        let moved = std::iter::from_fn(|| world.tunnel.poll_event());
        prop_assert_eq!(moved.filter(|event| matches!(event, Event::PrefixMoved { .. })).count(), 0);
    }

    #[test]
    fn what_is_changed_by_hand_differs_from_the_file_until_it_is_reloaded(
        file in arbitrary::config(),
        by_hand in arbitrary::config(),
    ) {
        let mut world = World::fresh(&file);
        let done = world.reload(&by_hand);
        prop_assert_eq!(world.differs(&file).len(), done.len(), "{:?}", done);
        world.reload(&file);
        prop_assert_eq!(world.differs(&file), Vec::<String>::new());
    }

    #[test]
    fn one_altered_peer_is_one_change_of_that_alone(config in arbitrary::config(), seconds: u16) {
        let mut new = config.clone();
        let Some(peer) = new.peers.first_mut() else { return Ok(()) };
        prop_assume!(peer.persistent_keepalive != seconds);
        peer.persistent_keepalive = seconds;
        let world = World::fresh(&config);
        let status = world.tunnel.status(NOW);
        let running = Running { status: &status, followed: &world.followed };
        let own = Own::Key(Some(&new.interface.private_key));
        let difference = Difference::towards(running, own, &new.peers);
        let changes = difference.changes();
        let [Change::Peer(change)] = changes.as_slice() else { panic!("{changes:?}") };
        prop_assert_eq!(change.persistent_keepalive, Some(seconds));
        let rest = (&change.name, change.endpoint, change.allowed_ips.len(), change.replace_allowed_ips);
        prop_assert_eq!(rest, (&None, None, 0, false));
        prop_assert!(change.preshared_key.is_none() && change.update_only && !change.remove);
        prop_assert_eq!(difference.applied().len(), 1);
    }
}

/// Peers in another order.
trait Shuffled: Strategy<Value = Config> + Sized {
    fn prop_shuffle_peers(self) -> impl Strategy<Value = Config> {
        self.prop_flat_map(|config| {
            let order = Just((0..config.peers.len()).collect::<Vec<_>>()).prop_shuffle();
            order.prop_map(move |order| {
                let peers = order.iter().map(|at| config.peers[*at].clone()).collect();
                Config { interface: config.interface.clone(), peers }
            })
        })
    }
}
impl<S: Strategy<Value = Config>> Shuffled for S {}

fn peer(key: u8, name: &str, prefixes: &[&str]) -> Peer {
    Peer {
        name: Some(name.to_owned()),
        public_key: PublicKey([key; 32]),
        preshared_key: None,
        endpoint: None,
        allowed_ips: prefixes.iter().map(|prefix| prefix.parse().unwrap()).collect(),
        persistent_keepalive: 0,
        expires: None,
    }
}

fn config(peers: Vec<Peer>) -> Config {
    let text = format!("[interface]\nprivate_key = \"{}\"\n", *PrivateKey::new([0x11; 32]).to_base64());
    let no_files = |_: &std::path::Path| Err(std::io::ErrorKind::NotFound.into());
    let mut config = crate::config::parse(&text, std::path::Path::new("peer.toml"), &no_files).unwrap();
    config.peers = peers;
    config
}

#[test]
fn the_difference_reads_like_the_file_in_both_directions() {
    let old = config(vec![
        peer(1, "laptop", &["10.0.0.1/32", "10.2.0.0/16"]),
        peer(2, "phone", &["10.0.0.2/32"]),
        peer(4, "tablet", &[]),
    ]);
    let mut laptop = peer(1, "laptop", &["10.0.0.1/32", "10.1.0.0/16"]);
    laptop.endpoint = Some(EndpointName::Address("192.0.2.1:51820".parse().unwrap()));
    laptop.preshared_key = Some(PresharedKey::new([9; 32]));
    laptop.persistent_keepalive = 25;
    let mut tablet = peer(4, "slate", &[]);
    tablet.endpoint = Some(EndpointName::Name { host: "vpn.example.org".into(), port: 1 });
    let new = config(vec![laptop, peer(3, "office", &["10.0.0.2/32"]), tablet]);
    let mut world = World::fresh(&old);
    let lines = world.reload(&new);
    assert_eq!(
        lines,
        [
            "peer phone: removed",
            "peer office: added",
            "peer laptop: preshared_key set",
            "peer laptop: endpoint none → 192.0.2.1:51820",
            "peer laptop: persistent_keepalive off → 25",
            "peer laptop: allowed_ips +10.1.0.0/16 -10.2.0.0/16",
            "peer slate: was called tablet",
            "peer slate: endpoint none → vpn.example.org:1",
        ]
    );
    assert_eq!(
        world.differs(&old),
        [
            "peer office: added",
            "peer phone: removed",
            "peer laptop: preshared_key set",
            "peer laptop: endpoint none → 192.0.2.1:51820",
            "peer laptop: persistent_keepalive off → 25",
            "peer laptop: allowed_ips +10.1.0.0/16 -10.2.0.0/16",
            "peer slate: was called tablet",
            "peer slate: endpoint none → vpn.example.org:1",
        ]
    );
}

#[test]
fn a_baseline_holds_no_secret() {
    let mut peer = peer(1, "laptop", &[]);
    peer.preshared_key = Some(PresharedKey::new([9; 32]));
    let baseline = Baseline::from(config(vec![peer]));
    assert_ne!(baseline.interface.private_key.expose(), PrivateKey::new([0x11; 32]).expose());
    assert_ne!(baseline.peers[0].preshared_key.as_ref().unwrap().expose(), &[9; 32]);
}

#[test]
fn what_cannot_change_is_said_with_what_runs_and_what_would_do() {
    let old = config(vec![]).interface;
    let mut new = old.clone();
    assert!(old.cannot_become(&new).is_empty() && old.becomes(&new).is_empty());
    (new.name, new.offload, new.workers) = ("vpn1".to_owned(), false, std::num::NonZeroUsize::new(2));
    let sentences = old.cannot_become(&new);
    assert_eq!(
        sentences[0],
        "interface.name: found vpn1, and vpn0 runs, which cannot change; restart vpnd, or put vpn0 back"
    );
    assert_eq!(sentences.len(), 3, "{sentences:?}");
    new.mtu = 1300;
    new.address = vec!["10.0.0.1/24".parse().unwrap()];
    assert_eq!(old.becomes(&new), ["address +10.0.0.1/24", "mtu 1420 → 1300"]);
}
