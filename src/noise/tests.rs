//! The handshake: a fixed transcript, `snow` as a second implementation in both roles, and what is refused.

use hex_literal::hex;
use rand_chacha::{ChaCha20Rng, rand_core::SeedableRng};
use snow::{HandshakeState, StatelessTransportState};

use super::{
    handshake::{Authentic, HandshakeError, Initiating, Remote, initiate, open_initiation},
    macs::MacKeys,
    primitives,
    symmetric::{IDENTIFIER, Symmetric},
    *,
};
use crate::wire::message::{Index, Initiation, Kind, Response, classify};

const OUR_INDEX: Index = Index(0x1122_3344);
const THEIR_INDEX: Index = Index(0x5566_7788);
const TIMESTAMP: Tai64n = Tai64n(hex!("400000006553f10a3b000000"));

/// The generator's first 32 bytes are the next ephemeral private key.
fn rng(seed: u8) -> ChaCha20Rng {
    ChaCha20Rng::from_seed([seed; 32])
}

/// Two ends that know each other.
struct Pair {
    initiator: Remote,
    responder: Remote,
    psk: PresharedKey,
}

impl Pair {
    fn new(initiator: u8, responder: u8, psk: u8) -> Self {
        let identity = |byte| Identity::new(PrivateKey::new([byte; 32]));
        let (initiator, responder) = (identity(initiator), identity(responder));
        Self {
            initiator: Remote::new(initiator.clone(), *responder.public_key()),
            responder: Remote::new(responder, *initiator.public_key()),
            psk: PresharedKey::new([psk; 32]),
        }
    }
    fn initiate(&self) -> (Initiating, Initiation) {
        initiate(&self.initiator, OUR_INDEX, TIMESTAMP, &mut rng(4)).unwrap()
    }
    fn authenticate(&self, initiation: &Initiation) -> Result<Authentic, HandshakeError> {
        open_initiation(self.responder.local(), initiation)?.authenticate(&self.responder)
    }
    fn respond(&self, initiation: &Initiation) -> (Response, Box<SessionKeys>) {
        let authentic = self.authenticate(initiation).unwrap();
        authentic.respond(&self.responder, &self.psk, THEIR_INDEX, &mut rng(5)).unwrap()
    }
    fn read_response(
        &self,
        waiting: &Initiating,
        response: &Response,
    ) -> Result<Box<SessionKeys>, HandshakeError> {
        waiting.read_response(&self.initiator, &self.psk, response)
    }
}

fn known() -> Pair {
    Pair::new(1, 2, 3)
}

// Known answers: written out in Python from the paper, with `cryptography` and `hashlib`.

const INITIATION: [u8; 148] = hex!(
    "01000000 44332211"
    "325420fcc13cc3a0f84d673c85f59c6c2764afa49e256068c04025fb1855ef17"
    "4adba2bfce66885f7f6402c6d8d52877df40d0f35e1583afe535c8474da0b27a49671cfbfd0698dfead835756db0c875"
    "9d7c7db42844c053b6e607351261832430711513c626c2047f8a92fd"
    "21d25ae2dcda83b466abd158095efdfb befb189c2f4e9948ba63b34ee6b332f6"
);
const RESPONSE: [u8; 92] = hex!(
    "02000000 88776655 44332211"
    "e2f7ef50c811d6e64b901eed154ec2436e5a2a1eb9a2f82a40ccd1ea11ea1144"
    "eaff55f455b3d0401bca14aeae2268af"
    "25b76eb241fbc2117f3028942111e506 00000000000000000000000000000000"
);
const TO_RESPONDER: [u8; 32] = hex!("a7e06cb4a1fad7e643768ac9b7d5547ba3343a11b3796eb2c0231dfaed7fa8b4");
const TO_INITIATOR: [u8; 32] = hex!("940073b34a4071de0c4e183b9b1c52f2829a5d9a2d6a01cbb4214b98138ec1a4");

#[test]
fn a_handshake_has_the_known_transcript() {
    let pair = known();
    let (waiting, initiation) = pair.initiate();
    let mut bytes = initiation.to_bytes();
    let cookie = hex!("000102030405060708090a0b0c0d0e0f");
    MacKeys::new(pair.initiator.public_key()).fill(&mut bytes, Some(&cookie));
    assert_eq!(bytes, INITIATION);

    let (response, theirs) = pair.respond(&Initiation::parse(&INITIATION).unwrap());
    let mut bytes = response.to_bytes();
    MacKeys::new(pair.responder.public_key()).fill(&mut bytes, None);
    assert_eq!(bytes, RESPONSE);
    assert_eq!((theirs.receive, theirs.send), (TO_RESPONDER, TO_INITIATOR));

    let ours = pair.read_response(&waiting, &Response::parse(&RESPONSE).unwrap()).unwrap();
    assert_eq!((ours.send, ours.receive), (TO_RESPONDER, TO_INITIATOR));
}

#[test]
fn the_responder_learns_key_timestamp_and_index() {
    let pair = known();
    let opened = open_initiation(pair.responder.local(), &Initiation::parse(&INITIATION).unwrap()).unwrap();
    assert_eq!(opened.public_key(), pair.responder.public_key());
    let authentic = opened.authenticate(&pair.responder).unwrap();
    assert_eq!((authentic.timestamp(), authentic.sender()), (TIMESTAMP, OUR_INDEX));
    assert_eq!(pair.initiate().0.index(), OUR_INDEX);
}

// A second implementation.

/// One end in `snow`, whose ephemeral key is what `rng(ephemeral)` gives first.
fn snow(local: &Remote, psk: &PresharedKey, ephemeral: u8, initiator: bool) -> HandshakeState {
    let ephemeral = PrivateKey::generate(&mut rng(ephemeral));
    let builder = snow::Builder::new("Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s".parse().unwrap())
        .prologue(IDENTIFIER)
        .unwrap()
        .local_private_key(local.local().private_key().expose())
        .unwrap()
        .psk(2, psk.expose())
        .unwrap()
        .fixed_ephemeral_key_for_testing_only(ephemeral.expose());
    if initiator {
        builder.remote_public_key(&local.public_key().0).unwrap().build_initiator().unwrap()
    } else {
        builder.build_responder().unwrap()
    }
}

/// Both directions carry a packet between our keys and snow's transport.
fn assert_same_keys(ours: &SessionKeys, theirs: &StatelessTransportState) {
    const COUNTER: u64 = 0x0102_0304_0506_0708;
    let mut nonce = [0; 12];
    nonce[4..].copy_from_slice(&COUNTER.to_le_bytes());

    let mut sealed = *b"from us to snow.................";
    let tag = primitives::seal(&ours.send, &nonce, &[], &mut sealed[..16]);
    sealed[16..].copy_from_slice(&tag);
    let mut plain = [0; 16];
    assert_eq!(theirs.read_message(COUNTER, &sealed, &mut plain), Ok(16));
    assert_eq!(&plain, b"from us to snow.");

    assert_eq!(theirs.write_message(COUNTER, b"from snow to us.", &mut sealed), Ok(32));
    let (text, tag) = sealed.split_last_chunk_mut().unwrap();
    assert_eq!(primitives::open(&ours.receive, &nonce, &[], text, tag), Ok(()));
    assert_eq!(text, b"from snow to us.");
}

#[test]
fn snow_answers_our_initiation() {
    for round in 0..8 {
        let pair = Pair::new(10 + round, 30 + round, 50 * (round % 2));
        let (waiting, initiation) = pair.initiate();
        let mut responder = snow(&pair.responder, &pair.psk, 5, false);
        let mut timestamp = [0; 12];
        assert_eq!(responder.read_message(&initiation.to_bytes()[8..116], &mut timestamp), Ok(12));
        assert_eq!(timestamp, TIMESTAMP.0);
        assert_eq!(responder.get_remote_static(), Some(&pair.responder.public_key().0[..]));

        let mut message = [0; 48];
        assert_eq!(responder.write_message(&[], &mut message), Ok(48));
        let (ours, our_keys) = pair.respond(&initiation);
        assert_eq!(ours.to_bytes()[12..60], message, "our responder says the same");
        let response = Response {
            sender: THEIR_INDEX,
            receiver: OUR_INDEX,
            ephemeral: message[..32].try_into().unwrap(),
            encrypted_nothing: message[32..].try_into().unwrap(),
        };
        let keys = pair.read_response(&waiting, &response).unwrap();
        assert_same_keys(&keys, &responder.into_stateless_transport_mode().unwrap());
        assert_eq!((keys.send, keys.receive), (our_keys.receive, our_keys.send));
    }
}

#[test]
fn we_answer_an_initiation_of_snow() {
    for round in 0..8 {
        let pair = Pair::new(10 + round, 30 + round, 50 * (round % 2));
        let mut initiator = snow(&pair.initiator, &pair.psk, 4, true);
        let mut message = [0; 108];
        assert_eq!(initiator.write_message(&TIMESTAMP.0, &mut message), Ok(108));
        let (_, ours) = pair.initiate();
        assert_eq!(ours.to_bytes()[8..116], message, "our initiator says the same");

        let mut datagram = [0; 148];
        datagram[..8].copy_from_slice(&hex!("01000000 44332211"));
        datagram[8..116].copy_from_slice(&message);
        let (response, keys) = pair.respond(&Initiation::parse(&datagram).unwrap());
        assert_eq!(initiator.read_message(&response.to_bytes()[12..60], &mut []), Ok(0));
        assert_same_keys(&keys, &initiator.into_stateless_transport_mode().unwrap());
    }
}

// What is refused.

#[test]
fn an_initiation_with_any_flipped_byte_is_refused() {
    let pair = known();
    let macs = MacKeys::new(pair.initiator.public_key());
    let accepted = |bytes: &[u8]| {
        classify(bytes) == Ok(Kind::Initiation)
            && macs.mac1_is_valid(bytes)
            && pair.authenticate(&Initiation::parse(bytes).unwrap()).is_ok()
    };
    assert!(accepted(&INITIATION));
    // mac2, behind byte 132, counts only under load: see the tests of macs.
    for at in 0..132 {
        let mut flipped = INITIATION;
        flipped[at] ^= 1 << (at % 8);
        assert!(!accepted(&flipped), "byte {at}");
    }
}

#[test]
fn an_initiation_with_any_flipped_byte_and_a_new_mac1_does_not_authenticate() {
    let pair = known();
    let refusal = |at: usize| {
        let mut flipped = INITIATION;
        flipped[at] ^= 1 << (at % 8);
        pair.authenticate(&Initiation::parse(&flipped).unwrap()).unwrap_err()
    };
    for at in 8..88 {
        assert_eq!(refusal(at), HandshakeError::Static, "byte {at}");
    }
    for at in 88..116 {
        assert_eq!(refusal(at), HandshakeError::Timestamp, "byte {at}");
    }
}

#[test]
fn a_response_with_any_flipped_byte_is_refused() {
    let pair = known();
    let (waiting, _) = pair.initiate();
    let macs = MacKeys::new(pair.responder.public_key());
    for at in 0..76 {
        let mut flipped = RESPONSE;
        flipped[at] ^= 1 << (at % 8);
        assert!(classify(&flipped).is_err() || !macs.mac1_is_valid(&flipped), "byte {at}");
        if (12..60).contains(&at) {
            // Whoever knows our public key can mend mac1.
            let response = Response::parse(&flipped).unwrap();
            assert_eq!(
                pair.read_response(&waiting, &response).unwrap_err(),
                HandshakeError::Response,
                "byte {at}"
            );
        }
    }
}

#[test]
fn a_forged_response_leaves_the_handshake_able_to_accept_the_real_one() {
    let pair = known();
    let (waiting, _) = pair.initiate();
    let forged = Response {
        sender: THEIR_INDEX,
        receiver: OUR_INDEX,
        ephemeral: PrivateKey::new([9; 32]).public_key().0,
        encrypted_nothing: [0; 16],
    };
    let low_order = Response { ephemeral: [0; 32], ..forged.clone() };
    for _ in 0..3 {
        assert_eq!(pair.read_response(&waiting, &forged).unwrap_err(), HandshakeError::Response);
        assert_eq!(pair.read_response(&waiting, &low_order).unwrap_err(), HandshakeError::LowOrder);
    }
    let keys = pair.read_response(&waiting, &Response::parse(&RESPONSE).unwrap()).unwrap();
    assert_eq!(keys.send, TO_RESPONDER);
}

#[test]
fn an_initiation_opens_for_its_receiver_alone() {
    let (_, initiation) = known().initiate();
    let stranger = Identity::new(PrivateKey::new([9; 32]));
    assert_eq!(open_initiation(&stranger, &initiation).unwrap_err(), HandshakeError::Static);
}

#[test]
fn an_initiation_proves_one_static_key_alone() {
    let pair = known();
    let (_, initiation) = pair.initiate();
    let other = Pair::new(9, 2, 3).responder;
    let opened = open_initiation(pair.responder.local(), &initiation).unwrap();
    assert_eq!(opened.authenticate(&other).unwrap_err(), HandshakeError::Timestamp);
}

/// An initiation as someone makes it who knows only public keys: he claims `claimed`, and guesses DH(ss).
fn impersonate(responder: &PublicKey, claimed: &PublicKey) -> Initiation {
    let ephemeral = PrivateKey::new([7; 32]);
    let mut state = Symmetric::new(responder);
    state.mix_ephemeral(&ephemeral.public_key());
    let key = state.mix_key_to_seal(&ephemeral.agree(responder).unwrap());
    let encrypted_static = state.seal(&key, &claimed.0);
    let key = state.mix_key_to_seal(&[0; 32]);
    Initiation {
        sender: OUR_INDEX,
        ephemeral: ephemeral.public_key().0,
        encrypted_static,
        encrypted_timestamp: state.seal(&key, &TIMESTAMP.0),
    }
}

#[test]
fn a_claimed_static_key_without_its_private_key_proves_nothing() {
    let pair = known();
    let initiation = impersonate(pair.initiator.public_key(), pair.responder.public_key());
    let opened = open_initiation(pair.responder.local(), &initiation).unwrap();
    assert_eq!(opened.public_key(), pair.responder.public_key(), "it can be claimed");
    assert_eq!(opened.authenticate(&pair.responder).unwrap_err(), HandshakeError::Timestamp);
}

#[test]
fn another_preshared_key_at_either_end_is_refused() {
    let pair = known();
    let (waiting, initiation) = pair.initiate();
    let none = PresharedKey::default();
    let response = Response::parse(&RESPONSE).unwrap();
    let refused = waiting.read_response(&pair.initiator, &none, &response);
    assert_eq!(refused.unwrap_err(), HandshakeError::Response);

    let authentic = pair.authenticate(&initiation).unwrap();
    let (response, _) = authentic.respond(&pair.responder, &none, THEIR_INDEX, &mut rng(5)).unwrap();
    assert_eq!(pair.read_response(&waiting, &response).unwrap_err(), HandshakeError::Response);
    assert!(waiting.read_response(&pair.initiator, &none, &response).is_ok());
}

#[test]
fn a_response_to_another_initiation_is_refused() {
    let pair = known();
    let (_, first) = pair.initiate();
    let (second, _) = initiate(&pair.initiator, OUR_INDEX, TIMESTAMP, &mut rng(8)).unwrap();
    let (response, _) = pair.respond(&first);
    assert_eq!(pair.read_response(&second, &response).unwrap_err(), HandshakeError::Response);
}

#[test]
fn each_handshake_has_keys_of_its_own() {
    let pair = known();
    let (_, initiation) = pair.initiate();
    let (_, first) = pair.respond(&initiation);
    let authentic = pair.authenticate(&initiation).unwrap();
    let (_, second) = authentic.respond(&pair.responder, &pair.psk, THEIR_INDEX, &mut rng(6)).unwrap();
    assert_ne!(first.send, first.receive);
    assert!(first.send != second.send && first.receive != second.receive);
}

// Low-order points: each Diffie-Hellman of the handshake refuses them (which they are: see the tests of keys).

const LOW_ORDER: PublicKey =
    PublicKey(hex!("e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800"));

#[test]
fn no_initiation_goes_to_a_low_order_key() {
    let remote = Remote::new(known().initiator.local().clone(), LOW_ORDER);
    let refused = initiate(&remote, OUR_INDEX, TIMESTAMP, &mut rng(4));
    assert_eq!(refused.unwrap_err(), HandshakeError::LowOrder);
}

#[test]
fn a_low_order_ephemeral_key_is_refused() {
    let pair = known();
    let (_, initiation) = pair.initiate();
    let initiation = Initiation { ephemeral: LOW_ORDER.0, ..initiation };
    let refused = open_initiation(pair.responder.local(), &initiation);
    assert_eq!(refused.unwrap_err(), HandshakeError::LowOrder);
}

#[test]
fn a_low_order_static_key_is_refused_though_its_shared_secret_is_known_to_all() {
    let pair = known();
    // With a zero DH(ss) this one would authenticate.
    let initiation = impersonate(pair.initiator.public_key(), &LOW_ORDER);
    let opened = open_initiation(pair.responder.local(), &initiation).unwrap();
    let remote = Remote::new(pair.responder.local().clone(), *opened.public_key());
    assert_eq!(opened.authenticate(&remote).unwrap_err(), HandshakeError::LowOrder);
}

#[test]
fn nothing_secret_of_a_handshake_can_be_printed() {
    let pair = known();
    let (waiting, initiation) = pair.initiate();
    let secrets = [PrivateKey::generate(&mut rng(4)), pair.initiator.local().private_key().clone()];
    let authentic = pair.authenticate(&initiation).unwrap();
    let shown = format!("{waiting:?} {authentic:?} {:?}", pair.initiator);
    assert!(shown.contains("PrivateKey(…)") && shown.contains("Symmetric(…)"));
    for secret in secrets {
        let bytes = format!("{:?}", secret.expose());
        assert!(!shown.contains(bytes.trim_matches(['[', ']'])));
    }
}
