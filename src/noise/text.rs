//! Keys as text: base64 in files, hex on the control socket. Everything on the way erases itself, and a key is
//! read to where it will stay: a value that is returned leaves a copy on the stack.

use base64::{DecodeSliceError, Engine, engine::general_purpose::STANDARD};
use zeroize::Zeroizing;

use super::keys::NotAKey;

/// Characters of 32 bytes in base64: 43 that carry something, and one `=`.
const BASE64_LEN: usize = 44;
/// Digits of 32 bytes in hex.
const HEX_LEN: usize = 64;

/// Strict: 44 characters, canonical.
pub(super) fn from_base64(text: &str, key: &mut [u8; 32]) -> Result<(), NotAKey> {
    check_length(text)?;
    // The decoder asks for room for a last group without padding.
    let mut bytes = Zeroizing::new([0; BASE64_LEN / 4 * 3]);
    match STANDARD.decode_slice(text, bytes.as_mut_slice()) {
        Ok(32) => {
            key.copy_from_slice(&bytes[..32]);
            Ok(())
        }
        Ok(_) => Err(NotAKey("it does not stand for 32 bytes")),
        Err(DecodeSliceError::DecodeError(base64::DecodeError::InvalidLastSymbol(..))) => {
            Err(NotAKey("its last character before the = is wrong"))
        }
        Err(DecodeSliceError::DecodeError(base64::DecodeError::InvalidPadding)) => {
            Err(NotAKey("it does not end in ="))
        }
        Err(_) => Err(NotAKey("it has a character that is not base64")),
    }
}

/// Says what a text of another length may be, for that is the mistake that people make.
fn check_length(text: &str) -> Result<(), NotAKey> {
    Err(NotAKey(match text.len() {
        0 => "it is empty",
        _ if text.contains(char::is_whitespace) => "it has white space in it",
        BASE64_LEN => return Ok(()),
        43 if !text.ends_with('=') => "it has 43 characters, not 44: the = at its end is missing",
        HEX_LEN if text.bytes().all(|digit| digit.is_ascii_hexdigit()) => {
            "it has 64 hex digits; a key has 44 characters of base64"
        }
        len if len < BASE64_LEN => "it is shorter than 44 characters of base64",
        _ => "it is longer than 44 characters of base64",
    }))
}

/// 44 characters.
pub(super) fn to_base64(bytes: &[u8; 32]) -> Zeroizing<String> {
    let mut text = Zeroizing::new(String::with_capacity(BASE64_LEN));
    STANDARD.encode_string(bytes, &mut text);
    text
}

/// Strict: 64 digits, of either case.
pub(super) fn from_hex(text: &str, key: &mut [u8; 32]) -> Result<(), NotAKey> {
    if text.len() != HEX_LEN {
        return Err(NotAKey("it has not 64 hex digits"));
    }
    let digit =
        |digit: u8| char::from(digit).to_digit(16).ok_or(NotAKey("it has a character that is not hex"));
    for (byte, [high, low]) in key.iter_mut().zip(text.as_bytes().as_chunks::<2>().0) {
        *byte = (digit(*high)? << 4 | digit(*low)?) as u8;
    }
    Ok(())
}

/// 64 digits in lower case.
pub(super) fn to_hex(bytes: &[u8; 32]) -> Zeroizing<String> {
    let digit = |value: u8| char::from_digit(value.into(), 16).expect("four bits are a hex digit");
    // The room is made at once, so that growing leaves no part of a secret behind.
    let mut text = Zeroizing::new(String::with_capacity(HEX_LEN));
    text.extend(bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]));
    text
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const KEY: &str = "AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=";

    fn from_base64(text: &str) -> Result<[u8; 32], NotAKey> {
        let mut key = [0; 32];
        super::from_base64(text, &mut key).map(|()| key)
    }
    fn from_hex(text: &str) -> Result<[u8; 32], NotAKey> {
        let mut key = [0; 32];
        super::from_hex(text, &mut key).map(|()| key)
    }
    fn problem(text: &str) -> &'static str {
        from_base64(text).expect_err("not a key").0
    }

    #[test]
    fn a_key_has_44_characters() {
        assert_eq!(from_base64(KEY).unwrap(), [1; 32]);
        assert_eq!(*to_base64(&[1; 32]), KEY);
        assert_eq!(*to_hex(&[0x1f; 32]), "1f".repeat(32));
    }

    #[test]
    fn the_error_says_what_is_wrong_with_base64() {
        let hex = "01".repeat(32);
        assert_eq!(problem(""), "it is empty");
        assert_eq!(problem(&format!("{KEY}\n")), "it has white space in it");
        assert_eq!(problem(&KEY[..43]), "it has 43 characters, not 44: the = at its end is missing");
        assert_eq!(problem(&hex), "it has 64 hex digits; a key has 44 characters of base64");
        assert_eq!(problem(&KEY[..40]), "it is shorter than 44 characters of base64");
        assert_eq!(problem(&format!("A{KEY}")), "it is longer than 44 characters of base64");
        assert_eq!(problem(&KEY.replace("AQE=", "A_E=")), "it has a character that is not base64");
        assert_eq!(problem(&KEY.replace("AQE=", "Aä=")), "it has a character that is not base64");
        assert_eq!(problem(&KEY.replace("AQE=", "AQEB")), "it does not stand for 32 bytes");
        assert_eq!(problem(&KEY.replace("AQE=", "AQ==")), "it does not stand for 32 bytes");
    }

    #[test]
    fn bits_that_mean_nothing_must_be_zero() {
        // Else one key would have four names, and a duplicate would not be seen.
        for last in ["F", "G", "H"] {
            let text = format!("{}{last}=", &KEY[..42]);
            assert_eq!(problem(&text), "its last character before the = is wrong");
        }
    }

    #[test]
    fn hex_has_64_digits_of_either_case() {
        assert_eq!(from_hex(&"aF".repeat(32)).unwrap(), [0xaf; 32]);
        for wrong in ["", &"a".repeat(63), &"a".repeat(65), KEY] {
            assert_eq!(from_hex(wrong).expect_err("not a key"), NotAKey("it has not 64 hex digits"));
        }
        for wrong in ["g", "+", " ", "-"] {
            let text = "a".repeat(63) + wrong;
            assert_eq!(
                from_hex(&text).expect_err("not a key"),
                NotAKey("it has a character that is not hex")
            );
        }
    }

    proptest! {
        #[test]
        fn no_text_panics_and_what_is_read_is_written_again(
            text in prop_oneof![".{0,70}", "[A-Za-z0-9+/]{42}[AEIMQUYcgkosw048]=", "[A-Za-z0-9+/=]{44}", "[0-9a-f]{64}"],
        ) {
            if let Ok(key) = from_base64(&text) {
                prop_assert!(*to_base64(&key) == text);
            }
            if let Ok(key) = from_hex(&text) {
                prop_assert!(*to_hex(&key) == text.to_lowercase());
            }
        }
    }
}
