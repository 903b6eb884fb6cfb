//! Attributes of netlink messages as netfilter writes them: numbers in network order, texts that end with a zero.

/// Kind and value of each attribute; what is cut or lies about its length ends the list.
pub(super) fn attributes(mut rest: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    const HEADER: usize = 4;
    /// Above are the flags for nesting and byte order.
    const KIND: u16 = 0x3fff;
    std::iter::from_fn(move || {
        let header = rest.first_chunk::<HEADER>()?;
        let length = usize::from(u16::from_ne_bytes([header[0], header[1]]));
        let kind = u16::from_ne_bytes([header[2], header[3]]) & KIND;
        let value = rest.get(HEADER..length)?;
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or(&[]);
        Some((kind, value))
    })
}

pub(super) fn number(value: &[u8]) -> u32 {
    value.first_chunk().map_or(0, |bytes| u32::from_be_bytes(*bytes))
}

pub(super) fn number64(value: &[u8]) -> u64 {
    value.first_chunk().map_or(0, |bytes| u64::from_be_bytes(*bytes))
}

pub(super) fn text(value: &[u8]) -> String {
    String::from_utf8_lossy(value).trim_end_matches('\0').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_cut_or_lies_ends_the_list() {
        let bytes = [8, 0, 1, 0, 0, 0, 0, 7, 6, 0, 2, 0x80, b'a', 0, 0, 0];
        let all: Vec<_> = attributes(&bytes).collect();
        assert_eq!(all, [(1, &[0, 0, 0, 7][..]), (2, b"a\0")]);
        assert_eq!((number(all[0].1), text(all[1].1).as_str()), (7, "a"));
        for cut in 0..bytes.len() {
            assert!(attributes(&bytes[..cut]).count() <= 2);
        }
        assert_eq!(attributes(&[3, 0, 1, 0]).count(), 0, "shorter than its header");
        assert_eq!(attributes(&[200, 0, 1, 0]).count(), 0, "longer than what is there");
    }
}
