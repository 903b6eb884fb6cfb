//! Where and by what a packet ends: rule, routing, refusal.

use vpnd::trace::{Killer, Outcome, Place, Walk};

use super::{
    common::need_root,
    world::{Spec, World, nft, on},
};

#[test]
fn a_drop_in_the_inner_output_names_the_rule() {
    if !need_root() {
        return;
    }
    let world = World::new("out");
    world.shake_hands();
    nft(
        &world.left,
        "table inet mine {\n chain out {\n  type filter hook output priority 0; policy accept;\n  \
         ip daddr 10.77.0.2 icmp type echo-request counter drop comment \"no pings\"\n }\n}\n",
    );
    let traced = world.trace("10.77.0.2");
    let (place, by, why) = traced.death();
    assert_eq!((place.as_str(), by), ("l inner OUTPUT dropped", Killer::Netfilter));
    for part in ["comment \"no pings\"", "(handle ", "chain out of table inet mine"] {
        assert!(why.contains(part), "{why}");
    }
    assert_eq!(traced.code, Some(1));
}
