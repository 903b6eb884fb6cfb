//! The main job: two ends, packets both ways.

use crate::{
    common::need_root,
    world::{Outer, Pair, Spec},
};

/// Scenarios 1 and 2.
#[test]
fn ten_pings_count_exactly_the_bytes_that_the_kernel_would() {
    if !need_root() {
        return;
    }
    let pair = Pair::start("count", &Spec::default());
    pair.left.ping(pair.right.inner4, 10);
    assert_eq!(pair.right.transfer(&pair.left.key()), (1428, 1372), "{}", pair.left.log());
    assert_eq!(pair.left.transfer(&pair.right.key()), (1372, 1428));
    assert_ne!(pair.left.last_handshake(&pair.right.key()), 0);
    assert_ne!(pair.right.last_handshake(&pair.left.key()), 0);
}

#[test]
fn every_family_travels_in_every_family() {
    if !need_root() {
        return;
    }
    for outer in [Outer::V4, Outer::V6] {
        let pair = Pair::start("family", &Spec { outer, ..Spec::default() });
        pair.left.ping(pair.right.inner4, 3);
        pair.left.ping(pair.right.inner6, 3);
        pair.right.ping(pair.left.inner4, 3);
        pair.right.ping(pair.left.inner6, 3);
    }
}
