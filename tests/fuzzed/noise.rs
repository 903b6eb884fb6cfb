//! Messages that a fuzzer bent, into initiator and responder: what was bent does not authenticate, what was not does.

use std::{str::FromStr, sync::LazyLock, time::Duration};

use rand_chacha::ChaCha8Rng;
use rand_core::SeedableRng;
use vpnd::{
    noise::{
        Identity, PresharedKey, PrivateKey, PublicKey, SessionKeys, Tai64n,
        handshake::{Initiating, Remote, initiate, open_initiation},
        macs::{CookieSecret, MacKeys},
    },
    wire::message::{CookieReply, Index, Initiation, Response},
};

use crate::dice::Dice;

const COOKIE: [u8; 16] = [0xc0; 16];

/// Points of order 1, 2, 4 and 8, and two that are not canonical (<https://cr.yp.to/ecdh.html>, "Validate").
const LOW_ORDER: [[u8; 32]; 6] = [
    [0; 32],
    point(1, 0, 0),
    point(0xec, 0xff, 0x7f),
    point(0xed, 0xff, 0x7f),
    point(0xee, 0xff, 0x7f),
    [
        0xe0, 0xeb, 0x7a, 0x7c, 0x3b, 0x41, 0xb8, 0xae, 0x16, 0x56, 0xe3, 0xfa, 0xf1, 0x9f, 0xc4, 0x6a, 0xda,
        0x09, 0x8d, 0xeb, 0x9c, 0x32, 0xb1, 0xfd, 0x86, 0x62, 0x05, 0x16, 0x5f, 0x49, 0xb8, 0x00,
    ],
];

const fn point(first: u8, middle: u8, last: u8) -> [u8; 32] {
    let mut bytes = [middle; 32];
    bytes[0] = first;
    bytes[31] = last;
    bytes
}

/// A handshake that went well, with every message of it, macs filled in, and a cookie reply to the first.
struct Genuine {
    initiator: Identity,
    responder: Identity,
    psk: PresharedKey,
    pending: Initiating,
    messages: [Vec<u8>; 3],
    keys: [SessionKeys; 2],
}

static GENUINE: LazyLock<Genuine> = LazyLock::new(|| {
    let [initiator, responder] = [1, 2].map(|byte| Identity::new(PrivateKey::new([byte; 32])));
    let psk = PresharedKey::new([3; 32]);
    let rng = &mut ChaCha8Rng::seed_from_u64(7);
    let (to, from) = (remote(&initiator, &responder), remote(&responder, &initiator));
    let time = Tai64n::from_unix(Duration::from_secs(1_700_000_000));
    let (pending, initiation) = initiate(&to, Index(11), time, rng).expect("good keys");
    let opened = open_initiation(&responder, &initiation).expect("genuine");
    let authentic = opened.authenticate(&from).expect("genuine");
    let (response, theirs) = authentic.respond(&from, &psk, Index(22), rng).expect("genuine");
    let ours = pending.read_response(&to, &psk, &response).expect("genuine");
    let mut first = initiation.to_bytes().to_vec();
    MacKeys::new(responder.public_key()).fill(&mut first, None);
    let mut second = response.to_bytes().to_vec();
    MacKeys::new(initiator.public_key()).fill(&mut second, None);
    let reply = MacKeys::new(responder.public_key()).seal_cookie(Index(11), &first, &COOKIE, rng);
    let messages = [first, second, reply.to_bytes().to_vec()];
    Genuine { initiator, responder, psk, pending, messages, keys: [*ours, *theirs] }
});

fn remote(local: &Identity, other: &Identity) -> Remote {
    Remote::new(local.clone(), *other.public_key())
}

/// The first byte says what the others are.
pub fn check_bytes(bytes: &[u8]) {
    let Some((kind, rest)) = bytes.split_first() else { return };
    let genuine = &*GENUINE;
    match kind % 6 {
        0 => check_initiation(genuine, &bent(&genuine.messages[0], rest)),
        1 => check_response(genuine, &bent(&genuine.messages[1], rest)),
        2 => check_cookie_reply(genuine, &bent(&genuine.messages[2], rest)),
        3 => check_handshake(&mut Dice::Bytes(rest)),
        4 => check_text(rest),
        _ => check_timestamp(rest),
    }
}

/// A message with bytes in other places: each two bytes are a place and what is added there; `0xff` before them puts a
/// point of low order into the place of the ephemeral key.
fn bent(message: &[u8], edits: &[u8]) -> Vec<u8> {
    let mut message = message.to_vec();
    let (low, edits) = match edits {
        [0xff, which, rest @ ..] => (Some(LOW_ORDER[usize::from(*which) % LOW_ORDER.len()]), rest),
        _ => (None, edits),
    };
    if let Some(low) = low {
        let at = if message.len() == 148 { 8 } else { 12 };
        message[at..at + 32].copy_from_slice(&low);
    }
    for edit in edits.chunks_exact(2) {
        let at = usize::from(edit[0]) % message.len();
        message[at] = message[at].wrapping_add(edit[1]);
    }
    message
}

fn check_initiation(genuine: &Genuine, message: &[u8]) {
    let original = &genuine.messages[0];
    check_macs(&MacKeys::new(genuine.responder.public_key()), message, original);
    let Ok(initiation) = Initiation::parse(message) else { return };
    let authentic = open_initiation(&genuine.responder, &initiation)
        .and_then(|opened| opened.authenticate(&remote(&genuine.responder, &genuine.initiator)));
    // Type and index stand before what is sealed, the macs behind it.
    assert_eq!(authentic.is_ok(), message[8..116] == original[8..116], "{message:02x?}");
    // The calculation for another peer proves nothing, and neither does one at another responder.
    let stranger = Identity::new(PrivateKey::new([9; 32]));
    if let Ok(opened) = open_initiation(&genuine.responder, &initiation) {
        assert_eq!(opened.public_key(), genuine.initiator.public_key());
        assert!(opened.authenticate(&remote(&genuine.responder, &stranger)).is_err());
    }
    assert!(open_initiation(&stranger, &initiation).is_err());
}

fn check_response(genuine: &Genuine, message: &[u8]) {
    let original = &genuine.messages[1];
    check_macs(&MacKeys::new(genuine.initiator.public_key()), message, original);
    let Ok(response) = Response::parse(message) else { return };
    let to = remote(&genuine.initiator, &genuine.responder);
    let keys = genuine.pending.read_response(&to, &genuine.psk, &response);
    assert_eq!(keys.is_ok(), message[12..60] == original[12..60], "{message:02x?}");
    if let Ok(keys) = keys {
        assert_eq!((keys.send, keys.receive), (genuine.keys[1].receive, genuine.keys[1].send));
    }
    let other = PresharedKey::new([4; 32]);
    assert!(genuine.pending.read_response(&to, &other, &response).is_err(), "another preshared key");
    // Whatever came, the handshake still waits for its response.
    let right = Response::parse(original).expect("genuine");
    assert!(genuine.pending.read_response(&to, &genuine.psk, &right).is_ok());
}

/// mac1 holds for the message as it was and for no other; mac2 without a cookie for none.
fn check_macs(keys: &MacKeys, message: &[u8], original: &[u8]) {
    let before_mac2 = original.len() - 16;
    assert_eq!(keys.mac1_is_valid(message), message[..before_mac2] == original[..before_mac2]);
    let secret = CookieSecret::generate(&mut ChaCha8Rng::seed_from_u64(1));
    let from = ([192, 0, 2, 1], 51820).into();
    assert!(!secret.mac2_is_valid(message, &from));
    let mut filled = message.to_vec();
    keys.fill(&mut filled, Some(&secret.cookie(&from)));
    assert!(keys.mac1_is_valid(&filled) && secret.mac2_is_valid(&filled, &from));
}

fn check_cookie_reply(genuine: &Genuine, message: &[u8]) {
    let original = &genuine.messages[2];
    let Ok(reply) = CookieReply::parse(message) else { return };
    let keys = MacKeys::new(genuine.responder.public_key());
    let mac1: [u8; 16] = genuine.messages[0][116..132].try_into().expect("16 bytes");
    let expected = (message[8..] == original[8..]).then_some(COOKIE);
    assert_eq!(keys.open_cookie(&reply, &mac1), expected, "{message:02x?}");
    assert_eq!(keys.open_cookie(&reply, &[0; 16]), None, "bound to what was sent");
}

/// Keys of the fuzzer's choice: the handshake comes about exactly if both ends mean each other, agree in the preshared
/// key, and no key is of low order.
fn check_handshake(dice: &mut Dice<'_>) {
    let mut private = || PrivateKey::new(dice.noise(32).try_into().expect("32 bytes"));
    let [initiator, responder, stranger] = [(); 3].map(|()| Identity::new(private()));
    let (meant, psks) = (dice.below(4), [dice.below(3), dice.below(3)]);
    let meant = match meant {
        0 => *stranger.public_key(),
        1 => PublicKey(LOW_ORDER[dice.below(LOW_ORDER.len())]),
        _ => *responder.public_key(),
    };
    let psks = psks.map(|byte| PresharedKey::new([byte as u8; 32]));
    let rng = &mut ChaCha8Rng::seed_from_u64(dice.below(256) as u64);
    let to = Remote::new(initiator.clone(), meant);
    let low = LOW_ORDER.contains(&meant.0);
    let started = initiate(&to, Index(1), Tai64n::default(), rng);
    assert_eq!(started.is_err(), low, "no handshake with a point of low order");
    let Ok((pending, initiation)) = started else { return };
    let from = remote(&responder, &initiator);
    let opened = open_initiation(&responder, &initiation).and_then(|opened| opened.authenticate(&from));
    assert_eq!(opened.is_ok(), meant == *responder.public_key());
    let Ok(authentic) = opened else { return };
    let (response, theirs) = authentic.respond(&from, &psks[0], Index(2), rng).expect("good keys");
    let ours = pending.read_response(&to, &psks[1], &response);
    assert_eq!(ours.is_ok(), psks[0] == psks[1], "the preshared key is proven");
    if let Ok(ours) = ours {
        assert_eq!((ours.send, ours.receive), (theirs.receive, theirs.send));
        assert_ne!(ours.send, ours.receive, "a key for each direction");
    }
}

/// Keys as text: what is read is what is written.
fn check_text(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Ok(key) = PublicKey::from_str(text) {
        assert_eq!(key.to_string(), text);
        assert!(text.starts_with(&key.short()));
    }
    if let Ok(key) = PublicKey::from_hex(text) {
        assert_eq!(key.to_hex(), text.to_ascii_lowercase());
    }
    if let Ok(key) = PresharedKey::from_str(text) {
        assert_eq!(*key.to_base64(), text);
    }
    if let Ok(key) = PrivateKey::from_str(text) {
        let again = PrivateKey::from_str(&key.to_base64()).expect("it was written so");
        assert!(again == key && !format!("{key:?}").contains(&text[..8]));
    }
    assert_eq!(PrivateKey::from_hex(text).is_ok(), PresharedKey::from_hex(text).is_ok());
}

fn check_timestamp(bytes: &[u8]) {
    let Some((label, rest)) = bytes.split_first_chunk::<12>() else { return };
    let label = Tai64n(*label);
    assert!(label < label.next() || label.0[..8] == [0xff; 8]);
    let seconds = rest.iter().take(5).fold(0u64, |number, byte| number << 8 | u64::from(*byte));
    let later = Duration::from_millis(seconds);
    let whitened = Tai64n::from_unix(later).next();
    assert!(
        Tai64n::from_unix(later) < whitened
            && whitened <= Tai64n::from_unix(later + Duration::from_millis(17))
    );
    let _ = label.after(later);
}
