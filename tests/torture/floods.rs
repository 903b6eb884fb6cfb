//! Rows in which somebody sends more than he should: malformed datagrams, handshakes, data with a bad tag, replays.

use std::{
    net::SocketAddr,
    sync::Mutex,
    thread,
    time::{Duration, Instant},
};

use vpnd::{lab::link, noise::macs::MacKeys};

use crate::{
    Torment,
    dice::Dice,
    field::{Field, UNREAD},
    flood::{Aim, Rein, Sent, Sources, flood},
    goodput::{Stream, median},
    payload::{self, Malformed, Recorder, Strangers},
    report::Figure,
    world::{DEVICE, counter, sh, wait_until},
};

/// No flood lasts longer, whatever happens.
const LIMIT: Duration = Duration::from_secs(300);
/// Bytes a second of the friend under the control: with less, somebody else had the machine.
const LEAST_CONTROL: f64 = 5e6;
/// So many datagrams of a flood are enough to look at what it does besides.
const UNBOUNDED: u64 = 1 << 32;

/// Writes the payload of one datagram.
pub type Content<'a> = dyn Fn(&mut Dice<'_>, &mut Vec<u8>) + Sync + 'a;

/// Runs `then` while a flood goes to the victim; what was sent, and what `then` gave.
fn under<T>(field: &Field, aim: Aim, content: &Content<'_>, then: impl FnOnce(&Rein) -> T) -> (Sent, T) {
    let rein = Rein::default();
    thread::scope(|scope| {
        let sender = scope.spawn(|| flood(&field.attacker, &aim, content, &rein));
        // Also where `then` panics: else the flood would go on.
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| then(&rein)));
        rein.stop();
        let sent = sender.join().expect("the sender lives").expect("datagrams can be sent");
        (sent, outcome.unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    })
}

/// Goodput of the friend under the flood, as a part of that under a flood of the rate that it reached, to a port that
/// nobody reads: the median of so many rounds, each of which measures both.
struct Compared {
    ratio: f64,
    /// Bytes a second under the control.
    control: f64,
    /// Datagrams a second, of the flood and of the control.
    rates: [f64; 2],
}

fn compare(field: &Field, aim: Aim, content: &Content<'_>, rounds: u64, time: Duration) -> Compared {
    let stream = Stream::start(&field.friend.host, &field.victim.host, field.victim.inner4);
    let measured = |aim: Aim| {
        let (sent, goodput) = under(field, aim, content, |_| {
            thread::sleep(time / 4); // TCP finds its new rate
            stream.over(time)
        });
        (sent.rate(), goodput)
    };
    let (mut ratios, mut controls) = (Vec::new(), Vec::new());
    let mut rates = [Vec::new(), Vec::new()];
    for _ in 0..rounds {
        let (rate, loaded) = measured(aim);
        let (control_rate, idle) = measured(Aim { to: SocketAddr::new(aim.to.ip(), UNREAD), rate, ..aim });
        ratios.push(loaded / idle.max(1.0));
        controls.push(idle);
        rates[0].push(rate);
        rates[1].push(control_rate);
    }
    Compared { ratio: median(ratios), control: median(controls), rates: rates.map(median) }
}

impl Compared {
    fn figure(&self, what: &str, least: f64) -> Figure {
        let Self { ratio, control, rates: [rate, control_rate] } = self;
        // Where others use the machine, the two are not comparable, and the ratio says nothing.
        let alike = (rate / control_rate - 1.0).abs() < 0.15 && *control > LEAST_CONTROL;
        let figure = Figure::speed(
            format!("goodput of a living peer, {what}"),
            format!("≥ {:.0} % of control", least * 100.0),
            format!(
                "{:.0} % of {:.0} Mbit/s, at {:.0}/s (control {:.0}/s)",
                ratio * 100.0,
                control * 8.0 / 1e6,
                rate,
                control_rate
            ),
            alike && *ratio >= least,
        );
        if alike && *ratio >= least {
            figure
        } else if alike {
            figure.note(
                "the sender has a core for itself; what is read, refused or answered takes its time from the other, \
                 while the kernel drops for nothing what nobody reads",
            )
        } else {
            figure.note("no figure: flood and control were not alike, the machine was not quiet")
        }
    }
}

/// A session, data both ways, and what was seen of it on the friend's cable.
fn recorded(field: &Field) -> Vec<payload::Recorded> {
    let recorder = Recorder::start(&field.victim.host, "eth0");
    // A responder takes one initiation in 20 ms from a peer.
    std::thread::sleep(Duration::from_millis(30));
    field.friend.set(&format!("peer {} remove", field.victim.key()));
    let peer =
        format!("peer {} endpoint 192.0.2.2:51820 allowed-ips 10.77.0.2/32,fd77::2/128", field.victim.key());
    field.friend.set(&peer);
    field.friend.ping(field.victim.inner4, 20);
    recorder.finish()
}

/// 10,000,000 malformed datagrams.
pub fn malformed(torment: &Torment) -> Vec<Figure> {
    let field = Field::new("malformed", "");
    let real = recorded(&field);
    sh(
        &field.victim.host,
        "nft 'table inet vpnd_test { counter answers {}; chain out { type filter hook output priority 0; \
         oifname eth1 udp sport 51820 counter name answers; }; }'",
    );
    let pid = field.victim.pid();
    let most = torment.count(10_000_000, 20_000);
    let aim = |most| Aim {
        to: field.target(),
        sources: Sources::Own,
        rate: f64::INFINITY,
        most,
        limit: LIMIT,
        seed: torment.seed,
    };
    // What it allocates when it first meets each kind is no leak.
    let mut malformed = Malformed::of(&real);
    let warm = flood(&field.attacker, &aim(most / 10), |d, b| malformed.write(d, b), &Rein::default());
    warm.expect("datagrams can be sent");
    let before = field.resident();
    let mut malformed = Malformed::of(&real);
    let sent = flood(&field.attacker, &aim(most), |d, b| malformed.write(d, b), &Rein::default());
    let sent = sent.expect("datagrams can be sent");
    let reaches = wait_until(Duration::from_secs(5), || field.friend.reaches(field.victim.inner4));
    let grown = field.resident() as i64 - before as i64;
    let answers = counter(&field.victim.host, "answers");
    let refused =
        ["malformed", "mac1", "no_such_session", "forged", "session_expired", "oversized", "not_asked"]
            .map(|reason| field.victim.refused(reason));
    let panics = field.victim.log().matches("panick").count();

    let mixture = Mutex::new(Malformed::of(&real));
    let seen = |dice: &mut Dice<'_>, bytes: &mut Vec<u8>| {
        mixture.lock().expect("one sender at a time").write(dice, bytes);
    };
    let rate = 60_000.0;
    let aim = Aim { most: UNBOUNDED, rate, ..aim(UNBOUNDED) };
    let compared = compare(&field, aim, &seen, torment.rounds(), torment.time(Duration::from_secs(3)));
    vec![
        Figure::hard(
            "panics, and the same process",
            "0, yes",
            format!("{panics}, {}", if field.victim.pid() == pid { "yes" } else { "no" }),
            panics == 0 && reaches,
        ),
        Figure::hard(
            "datagrams sent",
            most,
            format!("{} at {:.0}/s", sent.count, sent.rate()),
            sent.count >= most,
        ),
        Figure::hard("answers", "0", answers, answers == 0),
        Figure::hard(
            "refused and counted",
            "> 0",
            refused.iter().sum::<u64>(),
            refused.iter().sum::<u64>() > 0,
        ),
        Figure::hard("growth of RSS", "< 1 MB", format!("{grown} kB"), grown < 1024),
        compared.figure("malformed datagrams", 0.9),
    ]
}

/// What a flood of handshakes is made of.
struct Kind<'a> {
    name: &'a str,
    sources: Sources,
    content: &'a Content<'a>,
    /// Multiples of the handshake capacity, and the least goodput under each.
    at: &'a [(f64, f64)],
    /// Is the victim to demand cookies?
    cookies: bool,
}

/// What a flood of handshake messages is held against: at so many times the capacity, so much goodput at least.
const FULL: &[(f64, f64)] = &[(1.0, 0.9), (4.0, 0.9), (16.0, 0.75)];
const FOUR: &[(f64, f64)] = &[(4.0, 0.9)];

/// Floods of what looks like an initiation, and was made for nobody here.
pub fn wrong_mac1(torment: &Torment) -> Vec<Figure> {
    let kind = Kind {
        name: "wrong mac1",
        sources: Sources::Any,
        content: &payload::wrong_mac1,
        at: FULL,
        cookies: false,
    };
    handshakes(torment, &Field::new("wrongmac1", ""), &[kind])
}

/// Floods of good initiations of keys that nobody knows.
pub fn strangers(torment: &Torment) -> Vec<Figure> {
    let field = Field::new("strangers", "");
    let strangers = Strangers::calling(&field.victim.key(), 4096);
    let kind = Kind {
        name: "initiations of a stranger",
        sources: Sources::Any,
        content: &|dice, bytes| strangers.write(dice, bytes),
        at: FULL,
        cookies: true,
    };
    let mut figures = handshakes(torment, &field, &[kind]);
    figures.extend(one_source(torment, &field, payload::handshake_capacity()));
    figures
}

/// Floods of other handshake messages.
pub fn odd_handshakes(torment: &Torment) -> Vec<Figure> {
    let field = Field::new("odd", "");
    let real = recorded(&field);
    let replayed = real.iter().find(|one| one.bytes.len() == payload::INITIATION).expect("an initiation");
    let keys = MacKeys::new(&field.victim.key());
    let kinds = [
        Kind {
            name: "cookie replies",
            sources: Sources::Any,
            content: &payload::cookie_reply,
            at: FOUR,
            cookies: false,
        },
        Kind {
            name: "noise under a right mac1",
            sources: Sources::Any,
            content: &|dice, bytes| payload::noise_under_mac1(&keys, dice, bytes),
            at: FOUR,
            cookies: true,
        },
        Kind {
            name: "a replayed initiation",
            sources: Sources::Any,
            content: &|_, bytes| bytes.extend_from_slice(&replayed.bytes),
            at: FOUR,
            cookies: true,
        },
    ];
    // A quick run sees to it that nobody is kept out, by the kind that differs most from the other rows'.
    let some = if torment.is_full() { kinds.len() } else { 1 };
    handshakes(torment, &field, &kinds[..some])
}

fn handshakes(torment: &Torment, field: &Field, kinds: &[Kind<'_>]) -> Vec<Figure> {
    let capacity = payload::handshake_capacity();
    let mut figures = vec![Figure::hard(
        "handshake capacity of one core (the unit below)",
        "–",
        format!("{capacity:.0}/s"),
        capacity > 0.0,
    )];
    for kind in kinds {
        for &(times, least) in kind.at.iter().filter(|(times, _)| torment.is_full() || *times == 4.0) {
            figures.extend(flooded(torment, field, kind, capacity, times, least));
        }
    }
    figures
}

fn flooded(
    torment: &Torment,
    field: &Field,
    kind: &Kind<'_>,
    capacity: f64,
    times: f64,
    least: f64,
) -> Vec<Figure> {
    let Kind { name, sources, content, cookies, .. } = *kind;
    let what = format!("{name} at {times} ×");
    let aim = Aim {
        to: field.target(),
        sources,
        rate: capacity * times,
        most: UNBOUNDED,
        limit: LIMIT,
        seed: torment.seed,
    };
    let mut figures = Vec::new();
    // A quick run has no time to compare: speed is not for it anyway.
    if torment.is_full() {
        let compared = compare(field, aim, content, torment.rounds(), torment.time(Duration::from_secs(3)));
        figures.push(compared.figure(&what, least));
    }
    wait_until(Duration::from_secs(5), || !field.under_load());
    let (asked, dropped) =
        (field.victim.refused("cookie_wanted"), field.victim.refused("handshake_queue_full"));
    let (sent, (on, connected)) = under(field, aim, content, |rein| {
        let on = cookies_demanded(field, rein, cookies && times > 1.0);
        (on, field.newcomer_connects(Duration::from_secs(20)))
    });
    let connected_in =
        connected.map_or("not in 20 s".to_owned(), |time| format!("{:.1} s", time.as_secs_f64()));
    let asked = field.victim.refused("cookie_wanted") - asked;
    let dropped = field.victim.refused("handshake_queue_full") - dropped;
    figures.push(Figure::speed(
        format!("a new peer is connected, {what}"),
        "≤ 10 s",
        format!("{connected_in}; {} sent, {asked} cookies, {dropped} dropped", sent.count),
        connected.is_some_and(|time| time <= Duration::from_secs(10)),
    ));
    figures.push(Figure::hard(
        format!("it is connected at all, {what}"),
        "≤ 20 s",
        connected_in,
        connected.is_some(),
    ));
    if let Some(on) = on {
        figures.push(Figure::speed(
            format!("cookie mode on, {what}"),
            "≤ 100 ms",
            format!("{} ms", on.as_millis()),
            on <= Duration::from_millis(100),
        ));
    }
    if !cookies {
        figures.push(Figure::hard(format!("cookies demanded, {what}"), "0", asked, asked == 0));
    }
    let off = wait_until(Duration::from_secs(5), || !field.under_load());
    figures.push(Figure::hard(
        format!("cookie mode off again, {what}"),
        "≤ 5 s",
        if off { "yes" } else { "no" },
        off,
    ));
    figures
}

/// How long after the first datagram cookies are demanded.
fn cookies_demanded(field: &Field, rein: &Rein, expected: bool) -> Option<Duration> {
    if !expected {
        return None;
    }
    let limit = Instant::now() + Duration::from_secs(10);
    while rein.sent() == 0 && Instant::now() < limit {
        thread::yield_now();
    }
    let begin = Instant::now();
    let told = field.victim.log().matches("under load: handshakes must show a cookie").count();
    while field.victim.log().matches("under load: handshakes must show a cookie").count() <= told {
        if field.under_load() {
            break;
        }
        if Instant::now() > limit {
            return Some(Duration::from_secs(10));
        }
        thread::sleep(Duration::from_millis(2));
    }
    Some(begin.elapsed())
}

/// One address, or one /64, sends four times what can be answered: nobody else has to show a cookie for it.
fn one_source(torment: &Torment, field: &Field, capacity: f64) -> Vec<Figure> {
    let strangers = Strangers::calling(&field.victim.key(), 1024);
    let one = Sources::One("198.18.7.7:7777".parse().expect("an address"));
    [("one address", field.target(), one), ("one /64", field.target6(), Sources::Subnet64)]
        .into_iter()
        .map(|(name, to, sources)| {
            wait_until(Duration::from_secs(5), || !field.under_load());
            let asked = field.victim.refused("cookie_wanted");
            let aim =
                Aim { to, sources, rate: 4.0 * capacity, most: UNBOUNDED, limit: LIMIT, seed: torment.seed };
            let content = |dice: &mut Dice<'_>, bytes: &mut Vec<u8>| strangers.write(dice, bytes);
            let (sent, loaded) = under(field, aim, &content, |_| {
                let end = Instant::now() + torment.time(Duration::from_secs(5));
                let mut loaded = false;
                while Instant::now() < end {
                    loaded |= field.under_load();
                    thread::sleep(Duration::from_millis(20));
                }
                loaded
            });
            let asked = field.victim.refused("cookie_wanted") - asked;
            Figure::hard(
                format!("{name} puts the others in cookie mode"),
                "never",
                format!(
                    "{} after {} datagrams; {asked} cookies",
                    if loaded { "yes" } else { "no" },
                    sent.count
                ),
                !loaded && asked == 0,
            )
        })
        .collect()
}

/// Data of a live session with a bad tag, as fast as they go.
pub fn bad_tags(torment: &Torment) -> Vec<Figure> {
    let field = Field::new("badtags", "");
    let index = payload::live_index(&recorded(&field), field.victim.outer);
    let before = field.friend_is_at();
    let content = |dice: &mut Dice<'_>, bytes: &mut Vec<u8>| payload::bad_tag(index, dice, bytes);
    let aim = Aim {
        to: field.target(),
        sources: Sources::Any,
        rate: f64::INFINITY,
        most: UNBOUNDED,
        limit: LIMIT,
        seed: torment.seed,
    };
    let compared = compare(&field, aim, &content, torment.rounds(), torment.time(Duration::from_secs(3)));
    let forged = field.victim.refused("forged");
    vec![
        compared.figure("bad tags at line rate", 0.8),
        Figure::hard("forged and counted", "> 0", forged, forged > 0),
        Figure::hard("endpoint", "unmoved", field.friend_is_at(), field.friend_is_at() == before),
        Figure::hard(
            "the session",
            "goes on",
            "",
            wait_until(Duration::from_secs(5), || field.friend.reaches(field.victim.inner4)),
        ),
    ]
}

/// All that was recorded, again and again, from where it came and from elsewhere.
pub fn replays(torment: &Torment) -> Vec<Figure> {
    let field = Field::new("replays", "");
    let mut real = recorded(&field);
    // Cookie replies belong to it: of a handshake that the victim demanded a cookie for there is none here.
    let mut reply = Vec::new();
    payload::cookie_reply(&mut Dice::Seed(torment.seed), &mut reply);
    real.push(payload::Recorded { bytes: reply, ..real[0].clone() });
    let kinds: std::collections::BTreeSet<u8> =
        real.iter().filter_map(|one| one.bytes.first().copied()).collect();
    let (endpoint, shaken) = (field.friend_is_at(), field.victim.last_handshake(&field.friend.key()));
    let delivered = || link::passed(&field.victim.host, DEVICE).expect("its counters").rx_packets;
    let before = delivered();
    let mut sent = 0;
    let friend = Sources::One("192.0.2.1:51820".parse().expect("an address"));
    for sources in [friend, Sources::Any, Sources::Own] {
        let (mut next, rounds) = (0, 10);
        let aim = Aim {
            to: field.target(),
            sources,
            rate: 20_000.0,
            most: rounds * real.len() as u64,
            limit: LIMIT,
            seed: torment.seed,
        };
        let content = |_: &mut Dice<'_>, bytes: &mut Vec<u8>| {
            bytes.extend_from_slice(&real[next % real.len()].bytes);
            next += 1;
        };
        sent += flood(&field.attacker, &aim, content, &Rein::default()).expect("it can be sent").count;
    }
    let replayed = || field.victim.refused("replayed") + field.victim.refused("timestamp_not_newer");
    wait_until(Duration::from_secs(5), || replayed() >= 30);
    let twice = delivered() - before;
    let moved = field.friend_is_at();
    field.friend.ping(field.victim.inner4, 3);
    let session = field.victim.last_handshake(&field.friend.key());
    vec![
        Figure::hard("types replayed", "1, 2, 3, 4", format!("{kinds:?}"), kinds.len() == 4),
        Figure::hard("replayed datagrams", "≥ 30 × all", sent, sent >= 30 * real.len() as u64),
        Figure::hard("refused as replays", "> 0", replayed(), replayed() > 0),
        Figure::hard("delivered again", "0", twice, twice == 0),
        Figure::hard("endpoint", "unmoved", &moved, moved == endpoint),
        Figure::hard("sessions lost", "0", u8::from(session != shaken), session == shaken),
    ]
}
