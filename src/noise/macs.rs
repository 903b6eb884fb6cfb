//! mac1, mac2 and cookies (paper, sections 5.3 and 5.4.4 to 5.4.7). Time comes in as "is it still young".

use std::net::SocketAddr;

use rand_core::CryptoRng;

use super::PublicKey;
use crate::wire::message::{CookieReply, Index};

/// 16 bytes that a loaded responder wants to see keyed into mac2.
pub type Cookie = [u8; 16];

/// Keys derived from the *receiver's* public key: mac1 key and cookie-sealing key.
#[derive(Clone)]
pub struct MacKeys {/* private */}

impl MacKeys {
    /// For messages to the owner of `public`.
    pub fn new(public: &PublicKey) -> Self {
        todo!()
    }
    /// Fills mac1 of an initiation or response (148 or 92 bytes), and mac2 if we hold a cookie; returns mac1,
    /// which a cookie reply is bound to.
    pub fn fill(&self, message: &mut [u8], cookie: Option<&Cookie>) -> [u8; 16] {
        todo!()
    }
    /// Does mac1 hold? In constant time.
    pub fn mac1_is_valid(&self, message: &[u8]) -> bool {
        todo!()
    }
    /// Opens a cookie reply bound to the mac1 that we sent last.
    pub fn open_cookie(&self, reply: &CookieReply, our_mac1: &[u8; 16]) -> Option<Cookie> {
        todo!()
    }
    /// Seals `cookie` for the sender of `message` (whose mac1 is valid and whose index is `receiver`).
    pub fn seal_cookie(
        &self,
        receiver: Index,
        message: &[u8],
        cookie: &Cookie,
        rng: &mut (impl CryptoRng + ?Sized),
    ) -> CookieReply {
        todo!()
    }
}

/// The responder's changing secret; the owner renews it every 120 s.
pub struct CookieSecret {/* private: erases itself */}

impl CookieSecret {
    /// A new secret.
    pub fn generate(rng: &mut (impl CryptoRng + ?Sized)) -> Self {
        todo!()
    }
    /// The cookie of a source: MAC over address **and** port.
    pub fn cookie(&self, from: &SocketAddr) -> Cookie {
        todo!()
    }
    /// Does mac2 hold for this source? In constant time.
    pub fn mac2_is_valid(&self, message: &[u8], from: &SocketAddr) -> bool {
        todo!()
    }
}
