//! The page of one interface, for people: one block for each peer, and below what was refused, in sentences.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::time::Duration;

use super::super::words::{Paint, ago, bytes, count, duration, printable, rate};
use crate::config::date;
use crate::control::schema::{PeerReport, RefusalReport, StatusReport};
use crate::control::{Operation, Sandbox};
use crate::forward::Refusal;

/// Where the second column begins, and where lines that are too long go on.
const COLUMN: usize = 16;

/// What a page is made of.
pub(super) struct Page<'a> {
    pub(super) report: &'a StatusReport,
    /// Bytes per second from and to peers, by public key; who is not in it was silent.
    pub(super) rates: &'a HashMap<String, (f64, f64)>,
    pub(super) paint: Paint,
    /// Columns to fill; none: lines are as long as they are.
    pub(super) width: Option<usize>,
}

impl Page<'_> {
    /// `next`: there is a page above it; `one`: only some peers are shown, and nothing of the others.
    pub(super) fn text(&self, next: bool, one: bool) -> String {
        let (report, paint) = (self.report, self.paint);
        let mut page = String::new();
        if next {
            page.push('\n');
        }
        if !one {
            self.interface(&mut page);
        }
        for (number, peer) in report.peers.iter().enumerate() {
            if !one || number > 0 {
                page.push('\n');
            }
            self.peer(&mut page, peer);
        }
        if one {
            return page;
        }
        let (harmless, wrong): (Vec<_>, Vec<_>) = report.refusals.iter().partition(|one| is_harmless(one));
        self.refusals(&mut page, "what was refused", &wrong, &paint.bad("•"));
        self.refusals(&mut page, "what was left out", &harmless, "•");
        page
    }

    fn interface(&self, page: &mut String) {
        let (report, paint) = (self.report, self.paint);
        let connected = report.peers.iter().filter(|peer| peer.connected).count();
        let name = paint.bold(format!("interface {}", printable(&report.interface)));
        let peers = count(report.peers.len(), "peer");
        self.line(page, format!("{name}: {connected} of {peers} connected"), 2);
        self.field(page, "public key", report.public_key.as_deref().unwrap_or("(no private key is set)"));
        let mark = if report.fwmark == 0 { String::new() } else { format!(", mark {:#x}", report.fwmark) };
        self.field(page, "UDP port", &format!("{}, MTU {}{mark}", report.listen_port, report.mtu));
        if report.under_load {
            let text = paint.bad("under load: handshakes are answered with cookies");
            self.line(page, format!("  {text}"), 2);
        }
        self.sandbox(page, &report.sandbox);
        self.operation(page, &report.operation);
    }

    /// What the process may do, and what it should not be able to.
    fn sandbox(&self, page: &mut String, sandbox: &Sandbox) {
        let bad = |page: &mut String, text: &str| self.line(page, format!("  {}", self.paint.bad(text)), 2);
        if sandbox.on {
            let calls = sandbox.seccomp.as_ref().map(|_| "few system calls".to_owned());
            let files = sandbox.landlock.map(|version| format!("few files (Landlock {version})"));
            let all: Vec<_> = sandbox.capabilities.iter().map(|one| one.to_lowercase()).collect();
            let capabilities = if all.is_empty() { "no capability".to_owned() } else { all.join(" ") };
            let parts: Vec<_> = calls.into_iter().chain(files).chain([capabilities]).collect();
            self.field(page, "sandbox", &parts.join(", "));
        }
        for missing in &sandbox.missing {
            let text = if sandbox.on { "the sandbox has a gap" } else { "the sandbox is off" };
            bad(page, &format!("{text}: {}", printable(missing)));
        }
    }

    /// What operators and other programs did.
    fn operation(&self, page: &mut String, operation: &Operation) {
        let bad = |page: &mut String, text: &str| self.line(page, format!("  {}", self.paint.bad(text)), 2);
        if let Some(seconds) = operation.confirm_within_s {
            let seconds = count(seconds as usize, "second");
            bad(page, &format!("on trial: taken back in {seconds}, unless `vpnd confirm` follows"));
        }
        if let Some(why) = &operation.not_in_force {
            bad(page, &format!("the file, as it was reloaded last, is not in force: {}", printable(why)));
        }
        if operation.link_down {
            bad(page, "the device was set down from outside: it carries nothing");
        }
        if operation.contested {
            bad(
                page,
                "another program removes or replaces addresses, routes or rules of ours again and again",
            );
        }
        if operation.secrets_given {
            bad(page, "a capture is being given the keys of new sessions (--with-secrets)");
        }
        if operation.put_back > 0 {
            let last = operation.put_back_last.as_deref();
            let last = last.map_or(String::new(), |last| format!(", last: {}", printable(last)));
            self.field(page, "put back", &format!("{}{last}", count(operation.put_back as usize, "thing")));
        }
        if !operation.differs.is_empty() {
            bad(page, "differs from the file, as changed by hand (`vpnd reload` goes back to it):");
        }
        for line in &operation.differs {
            self.line(page, format!("    {}", printable(line)), 6);
        }
    }

    fn peer(&self, page: &mut String, peer: &PeerReport) {
        let now = self.report.now;
        let name = self.paint.bold(format!("peer {}", printable(&peer.name)));
        self.line(page, format!("{name}  {}", peer.public_key), 2);
        for (number, text) in state(peer, now, self.paint).into_iter().enumerate() {
            self.field(page, if number == 0 { "state" } else { "" }, &text);
        }
        let unknown = || "not known: the peer has not been heard from, and the file gives none".to_owned();
        let endpoint = peer.endpoint.map_or_else(unknown, |endpoint| endpoint.to_string());
        let local = peer.local.map_or(String::new(), |local| format!(", reached from {local}"));
        self.field(page, "endpoint", &format!("{endpoint}{local}"));
        let (received, sent) = (bytes(peer.rx_bytes), bytes(peer.tx_bytes));
        self.field(page, "transfer", &format!("{received} received, {sent} sent"));
        if let Some((rx, tx)) = self.rates.get(&peer.public_key).filter(|(rx, tx)| rx + tx > 0.0) {
            self.field(page, "rate", &format!("{} received, {} sent", rate(*rx), rate(*tx)));
        }
        self.field(page, "allowed IPs", &prefixes(&peer.allowed_ips));
        if let Some(moment) = peer.expires.filter(|_| !peer.expired) {
            self.field(page, "expires", &moment_shown(moment));
        }
        if peer.persistent_keepalive != 0 {
            let every = count(peer.persistent_keepalive.into(), "second");
            self.field(page, "keepalive", &format!("every {every}"));
        }
    }

    fn refusals(&self, page: &mut String, title: &str, all: &[&RefusalReport], bullet: &str) {
        if !all.is_empty() {
            page.push('\n');
            self.line(page, self.paint.bold(title), 2);
        }
        for refusal in all {
            let ago =
                refusal.last.as_ref().map_or(String::new(), |last| format!(" (last {})", ago(last.ago_s)));
            self.line(page, format!("  {bullet} {}{ago}", printable(&refusal.text)), 4);
        }
    }

    fn field(&self, page: &mut String, name: &str, text: &str) {
        self.line(page, format!("  {name:<14}{text}"), COLUMN);
    }

    /// One line, or several: those after the first begin at `indent`.
    fn line(&self, page: &mut String, text: String, indent: usize) {
        let Some(width) = self.width else {
            return writeln!(page, "{text}").expect("a string takes every text");
        };
        let indent = " ".repeat(indent);
        // A key or an address is never cut: it is there to be copied.
        let options = textwrap::Options::new(width).subsequent_indent(&indent).break_words(false);
        for line in textwrap::wrap(&text, options) {
            writeln!(page, "{line}").expect("a string takes every text");
        }
    }
}

/// It tells of nothing that anybody should mend.
fn is_harmless(refusal: &RefusalReport) -> bool {
    refusal.reason == Refusal::LinkScope.name()
}

/// One word for how it stands, then why one may say so; where something can be done, what.
fn state(peer: &PeerReport, now: f64, paint: Paint) -> Vec<String> {
    if let Some(moment) = peer.expires.filter(|_| peer.expired) {
        let ago = ago(now - moment);
        return vec![format!("{} on {} ({ago}): not let in", paint.bad("expired"), moment_shown(moment))];
    }
    let handshake = peer.last_handshake.map(|at| format!("last handshake {}", ago(now - at)));
    let heard = peer.last_received_s.map(|seconds| format!(", last heard {}", ago(seconds)));
    let heard = heard.unwrap_or_default();
    let unanswered = format!("{} unanswered", count(peer.attempts as usize, "handshake initiation"));
    let never = || "no handshake yet".to_owned();
    let mut state = match (peer.connected, peer.attempts) {
        (true, 0) => {
            let since = peer.connected_since.and_then(|at| duration(now - at));
            let since = since.map_or(String::new(), |time| format!(" for {time}"));
            format!("{}{since}, {}{heard}", paint.good("connected"), handshake.unwrap_or_else(never))
        }
        (true, _) => format!("{}: {unanswered}{heard}", paint.bad("silent")),
        (false, 1..) => {
            format!("{}: {unanswered}, {}", paint.bad("not connected"), handshake.unwrap_or_else(never))
        }
        (false, 0) if peer.untaken > 0 => {
            let answers = count(peer.untaken as usize, "answer");
            let handshake = handshake.unwrap_or_else(never);
            format!("{}: {answers} to its initiations not taken up, {handshake}", paint.bad("not connected"))
        }
        (false, 0) => match (handshake, peer.endpoint) {
            (Some(handshake), Some(_)) => format!("idle, {handshake}; the next packet makes a new one"),
            (None, Some(_)) => format!("idle, {}; the first packet makes one", never()),
            (handshake, None) => format!("waiting for it to begin, {}", handshake.unwrap_or_else(never)),
        },
    };
    if peer.staged > 0 {
        write!(state, ", {} waiting", count(peer.staged, "packet")).expect("a string takes it");
    }
    let mut lines = vec![state];
    if peer.attempts == 0 && peer.untaken > 0 && !peer.connected {
        lines.push("do the preshared keys of both sides agree,".to_owned());
        lines.push("and do the firewalls on the way let our answers through?".to_owned());
    }
    if peer.attempts > 0 {
        lines.push("does it run at this endpoint, does it know our public key,".to_owned());
        lines.push("and do the firewalls on the way let UDP through?".to_owned());
    }
    lines
}

fn moment_shown(unix_seconds: f64) -> String {
    date::shown(Duration::try_from_secs_f64(unix_seconds).unwrap_or_default())
}

/// The first few: a peer may have 100,000.
fn prefixes(all: &[String]) -> String {
    const SHOWN: usize = 8;
    match all.len() {
        0 => "(none)".to_owned(),
        n if n > SHOWN => format!("{} and {} more", all[..SHOWN].join(", "), n - SHOWN),
        _ => all.join(", "),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::schema::EvidenceReport;

    fn report() -> StatusReport {
        let peer = PeerReport {
            name: "laptop".to_owned(),
            public_key: "KEY=".to_owned(),
            preshared: false,
            endpoint: Some("192.0.2.7:51820".parse().expect("an address")),
            local: None,
            connected: true,
            connected_since: Some(125.0),
            session_age_s: Some(1.0),
            last_handshake: Some(1000.0),
            last_received_s: Some(3.0),
            rx_bytes: 1536,
            tx_bytes: 5 << 20,
            rx_packets: 1,
            tx_packets: 1,
            allowed_ips: (0..10).map(|n| format!("10.0.{n}.0/24")).collect(),
            persistent_keepalive: 25,
            expires: None,
            expired: false,
            staged: 0,
            attempts: 0,
            untaken: 0,
        };
        let silent = PeerReport {
            name: "phone\x1b[2J".to_owned(),
            public_key: "OTHER=".to_owned(),
            endpoint: None,
            connected: false,
            last_handshake: None,
            allowed_ips: Vec::new(),
            persistent_keepalive: 0,
            attempts: 2,
            staged: 1,
            ..peer.clone()
        };
        StatusReport {
            interface: "vpn0".to_owned(),
            public_key: None,
            listen_port: 51820,
            fwmark: 0x51,
            mtu: 1420,
            under_load: true,
            mss_clamped: 0,
            now: 1125.0,
            operation: Operation::default(),
            sandbox: Sandbox::default(),
            peers: vec![peer, silent],
            refusals: vec![
                RefusalReport {
                    reason: "link_scope".to_owned(),
                    count: 1,
                    last: None,
                    text: "nothing is wrong.".to_owned(),
                },
                RefusalReport {
                    reason: "mac1".to_owned(),
                    count: 1,
                    last: Some(EvidenceReport {
                        ago_s: 3.0,
                        from: None,
                        peer: None,
                        key: None,
                        inner: None,
                        owner: None,
                    }),
                    text: "something came once.".to_owned(),
                },
            ],
        }
    }

    fn page(colour: bool, next: bool, width: Option<usize>) -> String {
        let rates = HashMap::from([("KEY=".to_owned(), (1.25e6, 0.0))]);
        Page { report: &report(), rates: &rates, paint: Paint(colour), width }.text(next, false)
    }

    #[test]
    fn what_operators_and_other_programs_did_is_said_in_words_and_nothing_where_nothing_was() {
        let nothing = page(false, false, None);
        for word in ["differs", "trial", "put back", "set down", "in force", "again and again", "capture"] {
            assert!(!nothing.contains(word), "{word}: {nothing}");
        }
        let operation = Operation {
            differs: vec!["mtu 1420 → 1300".to_owned(), "peer a\u{1b}: added".to_owned()],
            confirm_within_s: Some(1),
            not_in_force: Some("peer.toml:3: found nothing".to_owned()),
            link_down: true,
            put_back: 2,
            put_back_last: Some("add route 10.0.0.0/8 dev vpn0 table main".to_owned()),
            contested: true,
            secrets_given: true,
            ..Operation::default()
        };
        let report = StatusReport { operation, ..report() };
        let page = Page { report: &report, rates: &HashMap::new(), paint: Paint(false), width: None };
        let text = page.text(false, false);
        for line in [
            "  on trial: taken back in 1 second, unless `vpnd confirm` follows",
            "  the file, as it was reloaded last, is not in force: peer.toml:3: found nothing",
            "  the device was set down from outside: it carries nothing",
            "  another program removes or replaces addresses, routes or rules of ours again and again",
            "  a capture is being given the keys of new sessions (--with-secrets)",
            "  put back      2 things, last: add route 10.0.0.0/8 dev vpn0 table main",
            "  differs from the file, as changed by hand (`vpnd reload` goes back to it):",
            "    mtu 1420 → 1300",
            "    peer a\u{fffd}: added",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}\n{text}");
        }
    }

    #[test]
    fn what_is_in_force_of_the_sandbox_is_said_and_what_is_missing() {
        let text = |sandbox: Sandbox| {
            let report = StatusReport { sandbox, ..report() };
            Page { report: &report, rates: &HashMap::new(), paint: Paint(false), width: None }
                .text(false, false)
        };
        let whole = Sandbox {
            on: true,
            seccomp: Some("kill".to_owned()),
            landlock: Some(7),
            capabilities: vec!["CAP_NET_ADMIN".to_owned()],
            ..Sandbox::default()
        };
        let line = "  sandbox       few system calls, few files (Landlock 7), cap_net_admin\n";
        assert!(text(whole.clone()).contains(line));
        let gap =
            Sandbox { landlock: None, missing: vec!["this kernel has no Landlock".to_owned()], ..whole };
        let said = text(gap);
        assert!(said.contains("  sandbox       few system calls, cap_net_admin\n"), "{said}");
        assert!(said.contains("  the sandbox has a gap: this kernel has no Landlock\n"), "{said}");
        let off = Sandbox { missing: vec!["switched off in the file".to_owned()], ..Sandbox::default() };
        let said = text(off);
        assert!(said.contains("  the sandbox is off: switched off in the file\n"), "{said}");
        assert!(!text(Sandbox::default()).contains("sandbox"), "a daemon before there was one");
    }

    #[test]
    fn the_page_says_it_in_words() {
        let expected = "\
interface vpn0: 1 of 2 peers connected
  public key    (no private key is set)
  UDP port      51820, MTU 1420, mark 0x51
  under load: handshakes are answered with cookies

peer laptop  KEY=
  state         connected for 16 minutes, 40 seconds, last handshake 2 minutes, 5 seconds ago, last heard 3 seconds ago
  endpoint      192.0.2.7:51820
  transfer      1.50 KiB received, 5.00 MiB sent
  rate          10.0 Mbit/s received, 0 bit/s sent
  allowed IPs   10.0.0.0/24, 10.0.1.0/24, 10.0.2.0/24, 10.0.3.0/24, 10.0.4.0/24, 10.0.5.0/24, 10.0.6.0/24, \
10.0.7.0/24 and 2 more
  keepalive     every 25 seconds

peer phone\u{fffd}[2J  OTHER=
  state         not connected: 2 handshake initiations unanswered, no handshake yet, 1 packet waiting
                does it run at this endpoint, does it know our public key,
                and do the firewalls on the way let UDP through?
  endpoint      not known: the peer has not been heard from, and the file gives none
  transfer      1.50 KiB received, 5.00 MiB sent
  allowed IPs   (none)

what was refused
  • something came once. (last 3 seconds ago)

what was left out
  • nothing is wrong.
";
        assert_eq!(page(false, false, None), expected);
    }

    #[test]
    fn each_state_of_a_peer_has_its_own_words() {
        let told = |change: fn(&mut PeerReport)| {
            let mut peer = report().peers.remove(0);
            change(&mut peer);
            state(&peer, 1125.0, Paint(false)).remove(0)
        };
        let states = [
            told(|_| {}),
            told(|peer| peer.attempts = 3),
            told(|peer| peer.connected = false),
            told(|peer| (peer.connected, peer.last_handshake) = (false, None)),
            told(|peer| (peer.connected, peer.last_handshake, peer.endpoint) = (false, None, None)),
            told(|peer| (peer.connected, peer.attempts) = (false, 1)),
            told(|peer| (peer.connected, peer.untaken, peer.last_handshake) = (false, 2, None)),
        ];
        let expected = [
            "connected for 16 minutes, 40 seconds, last handshake 2 minutes, 5 seconds ago, last heard 3 seconds ago",
            "silent: 3 handshake initiations unanswered, last heard 3 seconds ago",
            "idle, last handshake 2 minutes, 5 seconds ago; the next packet makes a new one",
            "idle, no handshake yet; the first packet makes one",
            "waiting for it to begin, no handshake yet",
            "not connected: 1 handshake initiation unanswered, last handshake 2 minutes, 5 seconds ago",
            "not connected: 2 answers to its initiations not taken up, no handshake yet",
        ];
        assert_eq!(states, expected);
    }

    #[test]
    fn colour_adds_nothing_but_colour() {
        let mut colourful = page(true, true, None);
        assert!(colourful.contains("\x1b[32mconnected\x1b[0m"));
        for code in ["\x1b[1m", "\x1b[32m", "\x1b[33m", "\x1b[0m"] {
            colourful = colourful.replace(code, "");
        }
        assert_eq!(colourful, page(false, true, None));
    }

    #[test]
    fn on_a_terminal_lines_end_at_its_width_and_nothing_is_lost() {
        let wide = page(false, false, None);
        for colour in [false, true] {
            let narrow = page(colour, false, Some(60));
            let longest = narrow.lines().map(textwrap::core::display_width).max();
            assert!(longest.is_some_and(|longest| longest <= 60), "{narrow}");
            assert!(narrow.contains("\n                10.0.6.0/24"), "{narrow}");
        }
        let words = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(words(&page(false, false, Some(60))), words(&wide));
    }
}
