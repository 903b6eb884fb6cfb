//! What may be shown of a file: a key that stands in the wrong place is not.

use std::borrow::Cow;

/// Shown in its stead.
const HIDDEN: &str = "…";
/// A key that lost a few characters at its end is one still, to whoever reads the rest.
const SHORTEST: usize = 40;

/// A text that is a key in base64 or hex, or may have been one. (A long path of such letters alone has a slash
/// every few of them, and seldom capitals and digits.)
pub(super) fn looks_like_a_key(text: &str) -> bool {
    if text.len() < SHORTEST || !text.chars().all(is_base64) {
        return false;
    }
    let many = |is: fn(&char) -> bool| text.chars().filter(is).take(3).count() == 3;
    text.ends_with('=')
        || text.split('/').any(|part| part.len() >= 32)
        || many(char::is_ascii_digit) && many(char::is_ascii_uppercase)
}

/// The text without what looks like a key.
pub(super) fn hidden(text: &str) -> Cow<'_, str> {
    if text.len() < SHORTEST || !words(text).any(looks_like_a_key) {
        return text.into();
    }
    let mut shown = text.to_owned();
    for word in words(text).filter(|word| looks_like_a_key(word)) {
        shown = shown.replace(word, HIDDEN);
    }
    shown.into()
}

/// The start of a text that somebody wrote where something else belongs.
pub(super) fn cut(text: &str) -> &str {
    if words(text).any(looks_like_a_key) {
        return HIDDEN;
    }
    text.char_indices().nth(40).map_or(text, |(end, _)| &text[..end])
}

fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c| !is_base64(c))
}

fn is_base64(c: char) -> bool {
    c.is_ascii_alphanumeric() || "+/=".contains(c)
}

#[cfg(test)]
mod tests {
    use super::*;
    use base64::{Engine, engine::general_purpose::STANDARD};

    /// The worst of keys: with a slash in the middle.
    const KEY: &str = "yAnz5TF+lXXJte14tji3/lMNq+hd2rYUIgJBgB3fBmk=";

    #[test]
    fn a_key_is_known_whole_and_without_its_end() {
        for text in [KEY, &KEY[..43], &KEY[..40], &"5a".repeat(32), &STANDARD.encode([0xff; 32])] {
            assert!(looks_like_a_key(text), "{text}");
            assert_eq!(hidden(&format!("found {text:?}, x")), "found \"…\", x");
            assert_eq!(cut(&format!("PrivateKey {text}")), HIDDEN);
        }
    }

    #[test]
    fn other_texts_are_shown() {
        for text in [
            "/home/alexander/projects/tunnels/configuration/vpn0",
            "credential:the-key-of-the-gateway-in-the-cellar",
            "2001:db8:1234:5678:9abc:def0:1234:5678/128, 2001:db8::/32",
            "a-very-long-name-of-a-host.in-a-very-long-domain.example.org:51820",
            "",
        ] {
            assert_eq!(hidden(text), text);
            assert!(text.starts_with(cut(text)));
        }
    }
}
