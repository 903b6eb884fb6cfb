//! The picture of a real way, joined from both ends: whole, and nothing on anything else.

use super::world::{Spec, Watcher, World};

/// x, y, width, height.
type Area = [u32; 4];

/// The names of elements, each ended where it may be.
#[track_caller]
fn assert_well_formed(picture: &str) {
    let mut open: Vec<&str> = Vec::new();
    let mut rest = picture;
    while let Some((before, after)) = rest.split_once('<') {
        assert!(!before.contains('>') || open.last() == Some(&"style"), "a > outside: {before}");
        let (tag, behind) = after.split_once('>').expect("a tag ends");
        assert!(tag.matches('"').count() % 2 == 0, "a quote that does not end: {tag}");
        let name = tag.trim_start_matches('/').split([' ', '/', '\n']).next().unwrap_or_default();
        match (tag.starts_with('/'), tag.ends_with('/')) {
            (true, _) => assert_eq!(open.pop(), Some(name), "{tag}"),
            (_, true) => {}
            _ => open.push(name),
        }
        rest = behind;
    }
    assert_eq!((open, rest.trim()), (Vec::new(), ""));
    for (at, _) in picture.match_indices('&') {
        let entity = picture[at + 1..].split(';').next().unwrap_or_default();
        assert!(["amp", "lt", "gt", "quot"].contains(&entity), "&{entity}");
    }
}

fn areas(picture: &str, class: &str) -> Vec<Area> {
    let is_it = |line: &&str| line.contains(&format!("<rect class=\"{class}"));
    let read = |line: &str| {
        ["x", "y", "width", "height"].map(|name| {
            let value = line.split_once(&format!(" {name}=\"")).expect("it has that").1;
            value.split('"').next().and_then(|value| value.parse().ok()).expect("a number")
        })
    };
    picture.lines().filter(is_it).map(read).collect()
}

fn apart([ax, ay, aw, ah]: Area, [bx, by, bw, bh]: Area) -> bool {
    ax + aw < bx || bx + bw < ax || ay + ah < by || by + bh < ay
}

#[test]
fn the_picture_of_both_ends_there_and_back_is_whole_and_nothing_overlaps() {
    let Some(world) = World::ready("picture", &Spec::default()) else { return };
    let follow = "icmp and dst host 10.77.0.2";
    let far = Watcher::with(&world.right, &world.daemons[1], follow, "watch", &["--answers"]);
    let file = world.left.folder().join("way.svg");
    let arguments = format!("10.77.0.2 --svg {}", file.display());
    let traced = world.trace_with(&arguments, std::slice::from_ref(&far.file));
    let picture = std::fs::read_to_string(&file).expect("the picture");
    assert_well_formed(&picture);
    assert!(picture.contains("The way of one packet: icmp, 10.77.0.1 → 10.77.0.2"), "{picture}");
    assert!(picture.contains("The way of its answer: icmp, 10.77.0.2 → 10.77.0.1"), "{picture}");
    let (page, answer) = (traced.page(), traced.page().answer.as_ref().expect("an answer"));
    // Two rows, which are moved apart as wholes.
    let rows: Vec<&str> = picture.split("<g transform=\"translate(0 ").skip(1).collect();
    assert_eq!(rows.len(), 2);
    let heights: Vec<u32> = rows.iter().map(|row| row.split(')').next().unwrap().parse().unwrap()).collect();
    for (row, stations) in rows.iter().zip([&page.stations, &answer.stations]) {
        let (cards, hosts) = (areas(row, "card"), areas(row, "host"));
        assert_eq!((cards.len(), hosts.len()), (stations.len(), 2));
        for (at, &card) in cards.iter().enumerate() {
            assert!(cards[at + 1..].iter().all(|&other| apart(card, other)), "{card:?}");
            assert_eq!(hosts.iter().filter(|&&host| !apart(card, host)).count(), 1, "{card:?} {hosts:?}");
        }
        assert!(apart(hosts[0], hosts[1]));
        assert!(
            hosts.iter().all(|host| host[1] + host[3] < heights[1] - heights[0]),
            "{hosts:?} {heights:?}"
        );
    }
}
