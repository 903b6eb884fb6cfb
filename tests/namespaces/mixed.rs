//! Twenty seconds of everything at once, with a rekey each five: the guard of the long run (`tests/long.rs`).

use std::time::Duration;

use crate::{
    common::need_root,
    mixture::{Recipe, losses, run},
    world::{Pair, Spec},
};

#[test]
fn mixed_traffic_with_rekeys_loses_and_reorders_nothing() {
    if !need_root() {
        return;
    }
    let pair = Pair::start("mixed", &Spec { rekey_after: Some(5), ..Spec::default() });
    pair.left.ping(pair.right.inner4, 1);
    let recipe = Recipe {
        duration: Duration::from_secs(20),
        pace: Duration::from_millis(5),
        interval: Duration::from_millis(20),
        pause: Duration::from_secs(1),
    };
    let [there, back] = run(&pair, &recipe);
    assert!(there.whole() && back.whole(), "there: {there}\nback: {back}\n{}", losses(&pair));
    let rekeys = pair.left.log().matches("session renewed").count();
    assert!(rekeys >= 3, "{rekeys} rekeys in 20 s\n{}", pair.left.log());
    for node in [&pair.left, &pair.right] {
        let status = node.status();
        // What comes unasked from a new device (router solicitations) belongs to no peer.
        let refusals = status["refusals"].as_array().expect("refusals are a list");
        let others: Vec<_> = refusals.iter().filter(|refusal| refusal["reason"] != "no_peer").collect();
        assert!(others.is_empty(), "{others:?}");
    }
}
