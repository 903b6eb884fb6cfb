//! ChaCha20-Poly1305 by intel-ipsec-mb where it is there and right, else by AWS-LC.

use std::sync::OnceLock;

use subtle::ConstantTimeEq;
use vpnd_ipsec_mb::{Absent, Direction, KEY_LEN, Library};
use zeroize::Zeroizing;

use super::{Forged, fast};
use crate::wire::message::TAG_LEN;

/// A key: of the library that this process seals with.
pub(super) enum Cipher {
    Wide(Wide),
    Usual(fast::Cipher),
}

/// A key in memory of its own, which is wiped when it is freed.
pub(super) struct Wide {
    library: Library,
    key: Box<Zeroizing<[u8; KEY_LEN]>>,
}

/// The library, if it is there, works on this processor, and seals as AWS-LC does.
pub(super) fn library() -> Result<Library, Absent> {
    static FOUND: OnceLock<Result<Library, Absent>> = OnceLock::new();
    *FOUND.get_or_init(|| {
        let library = Library::open()?;
        if agrees(library) {
            Ok(library)
        } else {
            Err(Absent("intel-ipsec-mb was found to calculate wrongly"))
        }
    })
}

/// A short text and one that takes all lanes, sealed and opened: both libraries say the same.
fn agrees(library: Library) -> bool {
    let (key, nonce) = (std::array::from_fn(|at| at as u8), [7; 12]);
    let (wide, usual) = (Wide::new(library, &key), fast::Cipher::new(&key));
    [0, 45, 1420].into_iter().all(|len| {
        let text: Vec<u8> = (0..len).map(|at| at as u8).collect();
        let (mut ours, mut theirs) = (text.clone(), text.clone());
        let (tag, other_tag) = (wide.seal(nonce, &[], &mut ours), usual.seal(nonce, &[], &mut theirs));
        let same = tag == other_tag && ours == theirs;
        ours.extend(tag);
        same && wide.open(nonce, &[], &mut ours).is_ok_and(|opened| *opened == text[..])
    })
}

impl Cipher {
    pub(super) fn new(key: &[u8; KEY_LEN]) -> Self {
        match library() {
            Ok(library) => Self::Wide(Wide::new(library, key)),
            Err(_) => Self::Usual(fast::Cipher::new(key)),
        }
    }

    pub(super) fn seal(&self, nonce: [u8; 12], aad: &[u8], text: &mut [u8]) -> [u8; TAG_LEN] {
        match self {
            Self::Wide(wide) => wide.seal(nonce, aad, text),
            Self::Usual(usual) => usual.seal(nonce, aad, text),
        }
    }

    pub(super) fn open<'a>(
        &self,
        nonce: [u8; 12],
        aad: &[u8],
        sealed: &'a mut [u8],
    ) -> Result<&'a mut [u8], Forged> {
        match self {
            Self::Wide(wide) => wide.open(nonce, aad, sealed),
            Self::Usual(usual) => usual.open(nonce, aad, sealed),
        }
    }
}

impl Wide {
    fn new(library: Library, key: &[u8; KEY_LEN]) -> Self {
        // Written where it stays: a move would leave a copy behind.
        let mut own = Box::new(Zeroizing::new([0; KEY_LEN]));
        own.copy_from_slice(key);
        Self { library, key: own }
    }

    fn seal(&self, nonce: [u8; 12], aad: &[u8], text: &mut [u8]) -> [u8; TAG_LEN] {
        self.library.run(Direction::Seal, &self.key, &nonce, aad, text)
    }

    fn open<'a>(&self, nonce: [u8; 12], aad: &[u8], sealed: &'a mut [u8]) -> Result<&'a mut [u8], Forged> {
        let (text, tag) = sealed.split_last_chunk_mut::<TAG_LEN>().ok_or(Forged)?;
        let wanted = self.library.run(Direction::Open, &self.key, &nonce, aad, text);
        if wanted.ct_eq(tag).into() { Ok(text) } else { Err(Forged) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// In a test, so that a machine of the project's that should have it and has not is told.
    #[test]
    fn a_processor_with_avx_512_ifma_seals_with_it() {
        let able = std::fs::read_to_string("/proc/cpuinfo").is_ok_and(|text| text.contains("avx512ifma"));
        let found = library();
        assert!(!able || found.is_ok(), "{found:?}: install libipsec-mb-dev, and build again");
    }
}
