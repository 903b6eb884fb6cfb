//! What a trace places goes with it, however it ends.

use super::{
    common::need_root,
    world::{Watcher, World, on, until},
};

#[test]
fn a_killed_trace_leaves_no_table_behind() {
    if !need_root() {
        return;
    }
    let world = World::new("kill");
    let before = on(&world.right, "nft list ruleset");
    let mut watcher = Watcher::start(&world.right, &world.daemons[1], "icmp", "killed");
    let table = format!("vpnd_trace_{}", watcher.pid());
    assert!(on(&world.right, "nft list tables").contains(&table));
    watcher.kill9();
    until("the table is gone", || on(&world.right, "nft list ruleset") == before);
}
