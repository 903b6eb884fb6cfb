//! Where the one copy of the private key lives: in a page of its own ([`SecretPage`]).

use crate::{noise::Vault, sys::page::SecretPage};

struct Page(SecretPage);

impl Vault for Page {
    fn bytes(&self) -> &[u8; 32] {
        self.0.bytes()
    }
    fn bytes_mut(&mut self) -> &mut [u8; 32] {
        self.0.bytes_mut()
    }
}

/// A new one; none where the kernel has no memory for it: the heap then has to do, which leaves no core either.
pub(super) fn page() -> Option<Box<dyn Vault>> {
    match SecretPage::new() {
        Ok(page) => Some(Box::new(Page(page))),
        Err(error) => {
            tracing::warn!(%error, "no page of its own for the private key");
            None
        }
    }
}

/// Can there be one, kept out of swap?
pub(super) fn is_locked() -> bool {
    SecretPage::new().is_ok_and(|page| page.is_locked())
}
