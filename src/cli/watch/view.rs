//! Draws the model: a head, the peers that fit, the selected one, what happened, and the keys.

use ratatui::{
    Frame,
    layout::{Constraint, Layout, Rect},
    style::{Modifier, Style, Stylize},
    text::{Line, Span},
    widgets::{Block, Borders, Paragraph, Row, Table, Wrap},
};

use super::super::words::{brief, bytes, count, printable, rate};
use super::model::{HISTORY, Model, Peer, Sort};
use crate::control::events::{EventReport, What};

/// Rows for the selected peer, and for events, with their titles.
const DETAIL: u16 = 8;
const EVENTS: u16 = 7;
/// The heights of a sparkline's columns.
const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// Draws one frame. Of 10,000 peers only those that fit are touched.
pub(super) fn draw(frame: &mut Frame<'_>, model: &mut Model) {
    let detail = if model.is_detailed { DETAIL } else { 0 };
    let events = if frame.area().height >= 16 + detail { EVENTS } else { 0 };
    let [head, peers, detail, log, keys] = Layout::vertical([
        Constraint::Length(1),
        Constraint::Min(3),
        Constraint::Length(detail),
        Constraint::Length(events),
        Constraint::Length(1),
    ])
    .areas(frame.area());
    draw_head(frame, head, model);
    draw_peers(frame, peers, model);
    if detail.height > 0 {
        draw_detail(frame, detail, model);
    }
    if log.height > 0 {
        draw_events(frame, log, model);
    }
    draw_keys(frame, keys, model);
}

fn draw_head(frame: &mut Frame<'_>, area: Rect, model: &Model) {
    if let Some(why) = &model.gone {
        let text = format!("{}: waiting for the daemon: {}", model.interface, printable(why));
        return frame.render_widget(Line::from(text).bold().yellow(), area);
    }
    let mut head = vec![
        Span::from(printable(&model.interface)).bold(),
        Span::from(format!(": {} of {} connected", model.connected, model.total)),
        Span::from(format!("   ↓ {}  ↑ {}", rate(model.rx_rate), rate(model.tx_rate))),
    ];
    if model.matching() != model.total {
        head.push(Span::from(format!("   {} shown", model.matching())));
    }
    if model.under_load {
        head.push(Span::from("   under load").yellow());
    }
    frame.render_widget(Line::from(head), area);
}

fn draw_peers(frame: &mut Frame<'_>, area: Rect, model: &mut Model) {
    let sort = model.sort;
    let bars = if area.width >= 120 { HISTORY } else { HISTORY / 2 };
    let title = |name: &'static str, by: Sort| {
        if sort == by { Span::from(name).underlined() } else { Span::from(name) }
    };
    let heads = [
        Span::from(""),
        title("peer", Sort::Name),
        title("state", Sort::State),
        Span::from("endpoint"),
        title("received", Sort::Received),
        title("sent", Sort::Sent),
        title("heard", Sort::Heard),
        Span::from(if bars == HISTORY { "last half minute" } else { "last seconds" }),
    ];
    let height = usize::from(area.height.saturating_sub(1));
    model.fit(height);
    let rows: Vec<_> = model.visible().map(|(peer, selected)| row(model, peer, selected, bars)).collect();
    // An endpoint is worth more than the older half of what was.
    let widths = [
        Constraint::Length(1),
        Constraint::Fill(2),
        Constraint::Length(13),
        Constraint::Min(21),
        Constraint::Length(12),
        Constraint::Length(12),
        Constraint::Length(7),
        Constraint::Length(bars as u16),
    ];
    let heads = Row::new(heads).style(Style::new().add_modifier(Modifier::DIM));
    frame.render_widget(Table::new(rows, widths).header(heads), area);
}

fn row<'a>(model: &Model, peer: &Peer, selected: bool, bars: usize) -> Row<'a> {
    let connected = model.is_connected(peer);
    let (mark, state) = match (connected, peer.row.attempts, peer.row.connected_since) {
        (_, 1.., _) => (Span::from("!").yellow(), Span::from("unanswered").yellow()),
        (true, 0, Some(since)) => {
            (Span::from("●").green(), Span::from(format!("for {}", brief(model.now - since))))
        }
        (true, 0, None) => (Span::from("●").green(), Span::from("connected")),
        (false, 0, _) => (Span::from("·").dim(), Span::from("idle").dim()),
    };
    let figure = |per_second: f64| if per_second > 0.0 { rate(per_second) } else { "–".to_owned() };
    let cells = [
        mark,
        Span::from(printable(&peer.row.name)),
        state,
        Span::from(peer.row.endpoint.map_or("–".to_owned(), |endpoint| endpoint.to_string())),
        Span::from(format!("{:>11}", figure(peer.rx_rate))),
        Span::from(format!("{:>11}", figure(peer.tx_rate))),
        Span::from(model.heard_ago(peer).map_or("–".to_owned(), brief)),
        Span::from(sparkline(peer, bars)).cyan(),
    ];
    let style = if selected { Style::new().add_modifier(Modifier::REVERSED) } else { Style::new() };
    Row::new(cells).style(style)
}

/// A column for each sample, the newest at the right; the highest is the peer's own.
fn sparkline(peer: &Peer, bars: usize) -> String {
    let highest = peer.history.iter().copied().fold(0.0_f32, f32::max);
    let bar = |value: &f32| match (*value / highest * 7.0).round() {
        _ if *value <= 0.0 => ' ',
        height => BARS[(height as usize).min(7)],
    };
    let shown = peer.history.len().min(bars);
    let pad = " ".repeat(bars - shown);
    pad + &peer.history.iter().skip(peer.history.len() - shown).map(bar).collect::<String>()
}

fn titled(title: String) -> Block<'static> {
    Block::new().borders(Borders::TOP).title(title).border_style(Style::new().add_modifier(Modifier::DIM))
}

fn draw_detail(frame: &mut Frame<'_>, area: Rect, model: &Model) {
    let Some(peer) = model.selected() else {
        return frame.render_widget(titled(" no peer ".to_owned()), area);
    };
    let row = &peer.row;
    let mut lines = vec![
        Line::from(format!("public key   {}", row.public_key)),
        Line::from(format!("transfer     {} received, {} sent", bytes(row.rx_bytes), bytes(row.tx_bytes))),
    ];
    let handshake =
        row.last_handshake.map_or("none yet".to_owned(), |at| format!("{} ago", brief(model.now - at)));
    let mut handshake = format!("handshake    {handshake}");
    if row.attempts > 0 {
        handshake += &format!(", {} initiations unanswered", row.attempts);
    }
    if row.untaken > 0 {
        handshake += &format!(", {} answers not taken up", row.untaken);
    }
    if row.staged > 0 {
        handshake += &format!(", {} packets waiting", row.staged);
    }
    lines.push(Line::from(handshake));
    if let Some(detail) = model.detail() {
        let local = detail.local.map_or("–".to_owned(), |local| local.to_string());
        lines.push(Line::from(format!(
            "reached from {local}, preshared key {}",
            if detail.preshared { "yes" } else { "no" }
        )));
        let prefixes = &detail.allowed_ips[..detail.allowed_ips.len().min(40)];
        let more = detail.allowed_ips.len() - prefixes.len();
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        lines.push(Line::from(format!("allowed IPs  {}{more}", prefixes.join(", "))));
    }
    let text = Paragraph::new(lines).wrap(Wrap { trim: false });
    frame.render_widget(text.block(titled(format!(" {} ", printable(&row.name)))), area);
}

fn draw_events(frame: &mut Frame<'_>, area: Rect, model: &Model) {
    let room = usize::from(area.height.saturating_sub(1));
    let skipped = model.events.len().saturating_sub(room);
    let lines: Vec<_> =
        model.events.iter().skip(skipped).map(|event| Line::from(told(model.now, event))).collect();
    frame.render_widget(Paragraph::new(lines).block(titled(" events ".to_owned())), area);
}

/// One line for one event.
fn told(now: f64, event: &EventReport) -> String {
    let peer = event.peer.as_ref().map_or(String::new(), |peer| format!("{}: ", printable(peer)));
    let what = match &event.what {
        What::Connected { endpoint, .. } => format!("connected from {endpoint}"),
        What::Handshake { .. } => "session renewed".to_owned(),
        What::Roamed { from: Some(from), to } => format!("roamed from {from} to {to}"),
        What::Roamed { from: None, to } => format!("first heard from {to}"),
        What::Unanswered { attempts } => format!("{} unanswered", count(*attempts as usize, "initiation")),
        What::GivenUp => "handshake given up".to_owned(),
        What::Silent => "silent".to_owned(),
        What::Expired => "expired: not let in any more".to_owned(),
        What::Refused { count: times, text, .. } => format!("refused ({times}): {text}"),
        What::PrefixMoved { prefix, .. } => format!("{prefix} moved to another peer"),
        What::UnderLoad { on } => if *on { "under load" } else { "no longer under load" }.to_owned(),
        What::Started { port, peers } => format!("started: UDP port {port}, {}", count(*peers, "peer")),
        What::Stopping { why } => format!("stopping: {why}"),
        What::Reloaded { changes, confirm_within_s: Some(seconds) } => {
            format!("reloaded for {seconds} s on trial: {}", changes.join("; "))
        }
        What::Reloaded { changes, confirm_within_s: None } => format!("reloaded: {}", changes.join("; ")),
        What::ReloadRefused { why } => format!("reload refused: {why}"),
        What::Confirmed => "the reload is confirmed".to_owned(),
        What::TakenBack { changes } => format!("the reload is taken back: {}", changes.join("; ")),
        What::NotTakenBack { why } => format!("the reload cannot be taken back: {why}"),
        What::Drift { what, .. } => format!("another program removed, and we put back: {what}"),
        What::Displaced { why } => format!("not put back: {why}"),
        What::Link { up } => format!("the device was set {}", if *up { "up" } else { "down" }),
        What::SecretsGiven { on: true } => {
            "a capture is given the private key, and what opens each session from now on".to_owned()
        }
        What::SecretsGiven { on: false } => "keys are given to no capture any more".to_owned(),
        What::Lost { count: gone } => format!("({} no longer known)", count(*gone as usize, "event")),
    };
    format!("{:>7} ago  {peer}{}", brief(now - event.time), printable(&what))
}

fn draw_keys(frame: &mut Frame<'_>, area: Rect, model: &Model) {
    let text = if model.is_filtering {
        format!("filter: {}▏  Enter keeps it, Esc clears it", model.filter)
    } else {
        let filter =
            if model.filter.is_empty() { String::new() } else { format!("  filter: {}", model.filter) };
        format!(
            "q quit  ↑↓ select  Enter details  / filter  c connected only  sort by n name s state r received t sent \
             l heard  i invert{filter}"
        )
    };
    frame.render_widget(Line::from(text).dim(), area);
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
