//! Keys as 64 hexadecimal digits, without a copy on the heap.

use std::fmt;

use zeroize::Zeroizing;

/// Shows a key; the text is as secret as the key.
pub(super) struct Hex<'a>(pub(super) &'a [u8; 32]);

impl fmt::Display for Hex<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// The key that exactly 64 digits stand for, upper or lower case.
pub(super) fn key(text: &str) -> Option<Zeroizing<[u8; 32]>> {
    let digits: &[u8; 64] = text.as_bytes().try_into().ok()?;
    let mut key = Zeroizing::new([0; 32]);
    for (byte, pair) in key.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(key)
}

fn digit(text: u8) -> Option<u8> {
    char::from(text).to_digit(16).map(|value| value as u8)
}
