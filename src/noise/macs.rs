//! mac1, mac2 and cookies (paper, sections 5.3 and 5.4.4 to 5.4.7). Time comes in as "is it still young".

use std::net::{IpAddr, SocketAddr};

use rand_core::CryptoRng;
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use super::{
    PublicKey,
    primitives::{Secret, hash, mac, xopen, xseal},
};
use crate::wire::message::{CookieReply, Index, TAG_LEN};

const LABEL_MAC1: &[u8] = b"mac1----";
const LABEL_COOKIE: &[u8] = b"cookie--";
const MAC_LEN: usize = 16;

/// 16 bytes that a loaded responder wants to see keyed into mac2.
pub type Cookie = [u8; 16];

/// Keys derived from the *receiver's* public key: mac1 key and cookie-sealing key. As public as that one is.
#[derive(Clone)]
pub struct MacKeys {
    mac1: [u8; 32],
    cookie: [u8; 32],
}

impl MacKeys {
    /// For messages to the owner of `public`.
    pub fn new(public: &PublicKey) -> Self {
        Self { mac1: hash([LABEL_MAC1, &public.0]), cookie: hash([LABEL_COOKIE, &public.0]) }
    }
    /// Fills mac1 of an initiation or response (148 or 92 bytes), and mac2 if we hold a cookie; returns mac1,
    /// which a cookie reply is bound to.
    ///
    /// # Panics
    /// If there is no room for two macs: the message is our own, never a received one.
    pub fn fill(&self, message: &mut [u8], cookie: Option<&Cookie>) -> [u8; 16] {
        let mac1_at = message.len().checked_sub(2 * MAC_LEN).expect("our own message ends in two macs");
        let mac2_at = mac1_at + MAC_LEN;
        let mac1 = mac(&self.mac1, [&message[..mac1_at]]);
        message[mac1_at..mac2_at].copy_from_slice(&mac1);
        let mac2 = cookie.map_or([0; MAC_LEN], |cookie| mac(cookie, [&message[..mac2_at]]));
        message[mac2_at..].copy_from_slice(&mac2);
        mac1
    }
    /// Does mac1 hold? In constant time.
    pub fn mac1_is_valid(&self, message: &[u8]) -> bool {
        Macs::of(message).is_some_and(|macs| mac(&self.mac1, [macs.before_mac1]).ct_eq(macs.mac1).into())
    }
    /// Opens a cookie reply bound to the mac1 that we sent last.
    pub fn open_cookie(&self, reply: &CookieReply, our_mac1: &[u8; 16]) -> Option<Cookie> {
        let (sealed, tag) = reply.encrypted_cookie.split_last_chunk::<TAG_LEN>()?;
        let mut cookie: Cookie = sealed.try_into().ok()?;
        xopen(&self.cookie, &reply.nonce, our_mac1, &mut cookie, tag).ok()?;
        Some(cookie)
    }
    /// Seals `cookie` for the sender of `message` (whose mac1 is valid and whose index is `receiver`).
    ///
    /// # Panics
    /// If `message` has no room for two macs: then its mac1 was not valid.
    pub fn seal_cookie(
        &self,
        receiver: Index,
        message: &[u8],
        cookie: &Cookie,
        rng: &mut (impl CryptoRng + ?Sized),
    ) -> CookieReply {
        let macs = Macs::of(message).expect("a message with a valid mac1 has one");
        let mut nonce = [0; 24];
        rng.fill_bytes(&mut nonce);
        let mut encrypted_cookie = [0; 32];
        let (sealed, tag) = encrypted_cookie.split_at_mut(cookie.len());
        sealed.copy_from_slice(cookie);
        tag.copy_from_slice(&xseal(&self.cookie, &nonce, macs.mac1, sealed));
        CookieReply { receiver, nonce, encrypted_cookie }
    }
}

/// The end of a received initiation or response.
struct Macs<'a> {
    before_mac1: &'a [u8],
    mac1: &'a [u8; MAC_LEN],
    before_mac2: &'a [u8],
    mac2: &'a [u8; MAC_LEN],
}

impl<'a> Macs<'a> {
    /// `None`: shorter than two macs.
    fn of(message: &'a [u8]) -> Option<Self> {
        let (before_mac2, mac2) = message.split_last_chunk()?;
        let (before_mac1, mac1) = before_mac2.split_last_chunk()?;
        Some(Self { before_mac1, mac1, before_mac2, mac2 })
    }
}

/// The responder's changing secret; the owner renews it every 120 s.
pub struct CookieSecret(Secret);

impl CookieSecret {
    /// A new secret.
    pub fn generate(rng: &mut (impl CryptoRng + ?Sized)) -> Self {
        let mut secret = Secret::default();
        rng.fill_bytes(secret.as_mut_slice());
        Self(secret)
    }
    /// The cookie of a source: MAC over address **and** port.
    pub fn cookie(&self, from: &SocketAddr) -> Cookie {
        let port = from.port().to_be_bytes();
        match from.ip() {
            IpAddr::V4(address) => mac(self.0.as_slice(), [&address.octets(), &port]),
            IpAddr::V6(address) => mac(self.0.as_slice(), [&address.octets(), &port]),
        }
    }
    /// Does mac2 hold for this source? In constant time.
    pub fn mac2_is_valid(&self, message: &[u8], from: &SocketAddr) -> bool {
        // Most messages show no cookie, which costs no calculation to see.
        Macs::of(message).filter(|macs| *macs.mac2 != [0; MAC_LEN]).is_some_and(|macs| {
            let cookie = Zeroizing::new(self.cookie(from));
            mac(cookie.as_slice(), [macs.before_mac2]).ct_eq(macs.mac2).into()
        })
    }
}

#[cfg(test)]
mod tests {
    use hex_literal::hex;
    use rand_chacha::{ChaCha20Rng, rand_core::SeedableRng};

    use super::*;
    use crate::noise::PrivateKey;

    const COOKIE: Cookie = hex!("000102030405060708090a0b0c0d0e0f");

    fn rng(seed: u8) -> ChaCha20Rng {
        ChaCha20Rng::from_seed([seed; 32])
    }

    fn keys(private: u8) -> MacKeys {
        MacKeys::new(&PrivateKey::new([private; 32]).public_key())
    }

    /// A message with its macs filled in for the owner of key 2.
    fn message(len: usize, cookie: Option<&Cookie>) -> Vec<u8> {
        let mut message: Vec<u8> = (0..len as u8).collect();
        keys(2).fill(&mut message, cookie);
        message
    }

    fn from(address: &str) -> SocketAddr {
        address.parse().unwrap()
    }

    #[test]
    fn mac1_is_for_one_receiver() {
        for len in [148, 92] {
            assert!(keys(2).mac1_is_valid(&message(len, None)));
            assert!(!keys(3).mac1_is_valid(&message(len, None)));
        }
    }

    #[test]
    fn mac1_covers_each_byte_before_it_and_none_behind() {
        let message = message(148, Some(&COOKIE));
        for at in 0..148 {
            let mut flipped = message.clone();
            flipped[at] ^= 1 << (at % 8);
            assert_eq!(keys(2).mac1_is_valid(&flipped), at >= 132, "byte {at}");
        }
    }

    #[test]
    fn what_is_too_short_for_macs_has_no_valid_one() {
        let secret = CookieSecret::generate(&mut rng(6));
        for len in 0..32 {
            assert!(!keys(2).mac1_is_valid(&vec![0; len]), "{len} bytes");
            assert!(!secret.mac2_is_valid(&vec![0; len], &from("192.0.2.1:1")), "{len} bytes");
        }
    }

    #[test]
    fn fill_returns_the_mac1_that_it_wrote() {
        let mut message = vec![7; 92];
        let mac1 = keys(2).fill(&mut message, Some(&COOKIE));
        assert_eq!(message[60..76], mac1);
    }

    #[test]
    fn mac2_is_zero_without_a_cookie() {
        assert_eq!(message(148, None)[132..], [0; 16]);
        let mut refilled = message(148, Some(&COOKIE));
        assert_ne!(refilled[132..], [0; 16]);
        keys(2).fill(&mut refilled, None);
        assert_eq!(refilled[132..], [0; 16], "one filled before is taken out");
    }

    #[test]
    fn the_cookie_is_a_mac_over_address_and_port() {
        // Python: hashlib.blake2s(address + port, key=the first 32 bytes of the generator, digest_size=16).
        let secret = CookieSecret::generate(&mut rng(6));
        assert_eq!(secret.cookie(&from("192.0.2.1:51820")), hex!("81e2c09d06428480b89b4b638ae4a417"));
        assert_eq!(secret.cookie(&from("[2001:db8::1]:51820")), hex!("f6e0b2c9cccfa6086d568a55cb28a4fb"));
    }

    #[test]
    fn mac2_is_valid_from_its_address_and_port_alone() {
        let secret = CookieSecret::generate(&mut rng(6));
        for (source, others) in [
            ("192.0.2.1:51820", ["192.0.2.1:51821", "192.0.2.2:51820", "[2001:db8::1]:51820"]),
            ("[2001:db8::1]:51820", ["[2001:db8::1]:51821", "[2001:db8::2]:51820", "192.0.2.1:51820"]),
        ] {
            let message = message(148, Some(&secret.cookie(&from(source))));
            assert!(secret.mac2_is_valid(&message, &from(source)));
            for other in others {
                assert!(!secret.mac2_is_valid(&message, &from(other)), "{other}");
            }
        }
    }

    #[test]
    fn mac2_covers_each_byte_of_the_message() {
        let (secret, source) = (CookieSecret::generate(&mut rng(6)), from("192.0.2.1:51820"));
        let message = message(148, Some(&secret.cookie(&source)));
        for at in 0..148 {
            let mut flipped = message.clone();
            flipped[at] ^= 1 << (at % 8);
            assert!(!secret.mac2_is_valid(&flipped, &source), "byte {at}");
        }
    }

    #[test]
    fn a_renewed_secret_makes_old_cookies_worthless() {
        let source = from("192.0.2.1:51820");
        let mut rng = rng(6);
        let (old, new) = (CookieSecret::generate(&mut rng), CookieSecret::generate(&mut rng));
        let message = message(148, Some(&old.cookie(&source)));
        assert!(old.mac2_is_valid(&message, &source));
        assert!(!new.mac2_is_valid(&message, &source));
    }

    #[test]
    fn an_unfilled_mac2_is_not_valid() {
        let secret = CookieSecret::generate(&mut rng(6));
        assert!(!secret.mac2_is_valid(&message(148, None), &from("192.0.2.1:51820")));
    }

    #[test]
    fn a_cookie_travels_to_the_one_who_sent_the_mac1() {
        for len in [148, 92] {
            let mut message: Vec<u8> = (0..len).collect();
            let mac1 = keys(2).fill(&mut message, None);
            let reply = keys(2).seal_cookie(Index(9), &message, &COOKIE, &mut rng(1));
            assert_eq!(reply.receiver, Index(9));
            assert_eq!(keys(2).open_cookie(&reply, &mac1), Some(COOKIE));

            let mut other_mac1 = mac1;
            other_mac1[0] ^= 1;
            assert_eq!(keys(2).open_cookie(&reply, &other_mac1), None, "bound to another message");
            assert_eq!(keys(3).open_cookie(&reply, &mac1), None, "from another responder");
        }
    }

    #[test]
    fn a_cookie_reply_with_any_flipped_byte_does_not_open() {
        let mut message = vec![7; 148];
        let mac1 = keys(2).fill(&mut message, None);
        let reply = keys(2).seal_cookie(Index(9), &message, &COOKIE, &mut rng(1));
        let bytes = reply.to_bytes();
        // The receiver index in front finds the handshake; it is not sealed.
        for at in 8..bytes.len() {
            let mut flipped = bytes;
            flipped[at] ^= 1 << (at % 8);
            let flipped = CookieReply::parse(&flipped).unwrap();
            assert_eq!(keys(2).open_cookie(&flipped, &mac1), None, "byte {at}");
        }
    }

    #[test]
    fn each_cookie_reply_has_a_nonce_of_its_own() {
        let (message, mut rng) = (message(148, None), rng(1));
        let mut seal = || keys(2).seal_cookie(Index(9), &message, &COOKIE, &mut rng);
        let (one, two) = (seal(), seal());
        assert_ne!(one.nonce, two.nonce);
        assert_ne!(one.encrypted_cookie, two.encrypted_cookie);
    }
}
