//! Inner sources that are not the sender's: another peer's, nested prefixes, the covering peer as attacker, a prefix that
//! moves while traffic runs.

use std::{net::SocketAddr, thread, time::Duration};

use vpnd::{lab::link, noise::PrivateKey, sys::random::os_rng};

use crate::{
    Torment,
    common::flow::Flow,
    field::Field,
    flood::{Aim, Rein, Sources, flood},
    report::Figure,
    world::{DEVICE, wait_until},
};

/// Packets that came out of the victim's tunnel.
fn delivered(field: &Field) -> u64 {
    link::passed(&field.victim.host, DEVICE).expect("its counters").rx_packets
}

pub fn sources(torment: &Torment) -> Vec<Figure> {
    let field = Field::new("sources", "");
    let owner = PrivateKey::generate(&mut os_rng()).public_key();
    // The friend has the prefix that covers all, and another peer the two halves of it.
    field.victim.set(&format!(
        "peer {} allowed-ips 10.77.0.1/32,fd77::1/128,198.18.0.0/15,2001:db8:bad::/48",
        field.friend.key()
    ));
    field.victim.set(&format!(
        "peer {owner} allowed-ips 198.18.0.0/16,198.19.0.0/16,2001:db8:bad::/49,2001:db8:bad:8000::/49"
    ));
    let mut figures = Vec::new();
    for (family, to) in [("IPv4", field.victim.inner4), ("IPv6", field.victim.inner6)] {
        let (before, counted) = (delivered(&field), field.victim.refused("source_not_allowed"));
        let aim = Aim {
            to: SocketAddr::new(to, 9),
            sources: Sources::Any,
            rate: 20_000.0,
            most: torment.count(1_000_000, 2000),
            limit: Duration::from_secs(100),
            seed: torment.seed,
        };
        let sent = flood(&field.friend.host, &aim, |_, bytes| bytes.extend([7; 64]), &Rein::default());
        let sent = sent.expect("it can be sent").count;
        let counted = || field.victim.refused("source_not_allowed") - counted;
        wait_until(Duration::from_secs(5), || counted() >= sent);
        let passed = delivered(&field) - before;
        let last = field.victim.refusal("source_not_allowed").map(|refusal| refusal["last"].clone());
        let told = last.as_ref().is_some_and(|last| {
            last["key"] == field.friend.key().to_string()
                && last["owner"]
                    .as_str()
                    .is_some_and(|name| owner.to_string().starts_with(name.trim_end_matches('…')))
        });
        figures.push(Figure::hard(
            format!(
                "{sent} packets of the covering peer with sources of those inside it, {family}: delivered"
            ),
            "0",
            passed,
            passed == 0,
        ));
        figures.push(Figure::hard(
            format!("counted, with sender and owner as evidence, {family}"),
            "most of them, yes",
            format!("{}, {told}", counted()),
            // What the device's own queue had no room for never came.
            counted() > 0 && told,
        ));
    }
    figures.push(moved(torment, &field));
    figures
}

/// A prefix is given to another peer and back, again and again, while its first owner sends.
fn moved(torment: &Torment, field: &Field) -> Figure {
    let owner = PrivateKey::generate(&mut os_rng()).public_key();
    let pace = Duration::from_millis(1);
    let flow = Flow::start(&field.friend.host, &field.victim.host, field.victim.inner4, pace, 200);
    let (times, mut leaked, mut back) = (torment.count(50, 3), 0, 0);
    for _ in 0..times {
        field.victim.set(&format!("peer {owner} allowed-ips 10.77.0.1/32"));
        thread::sleep(Duration::from_millis(50)); // what was on its way through the kernel
        let before = delivered(field);
        thread::sleep(Duration::from_millis(100));
        leaked += delivered(field) - before;
        field.victim.set(&format!("peer {} allowed-ips 10.77.0.1/32,fd77::1/128", field.friend.key()));
        let before = delivered(field);
        back += u64::from(wait_until(Duration::from_secs(2), || delivered(field) > before));
    }
    drop(flow.finish());
    Figure::hard(
        format!("a prefix moved {times} × while its first owner sends"),
        format!("0 delivered meanwhile, {times} × back"),
        format!("{leaked}, {back} ×"),
        leaked == 0 && back == times,
    )
}
