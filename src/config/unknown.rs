//! What to say of a key that vpnd does not have.

use super::report::Flaw;

/// Keys of `[interface]`.
pub(super) const INTERFACE: &[&str] = &[
    "name",
    "private_key",
    "private_key_file",
    "listen_port",
    "address",
    "mtu",
    "fwmark",
    "table",
    "offload",
    "clamp_mss",
    "workers",
    "nice",
    "public_endpoint",
    "client_allowed_ips",
    "client_dns",
    "client_mtu",
    "client_keepalive",
    "client_folder",
    "socket_owner",
    "socket_group",
    "socket_mode",
    "metrics_listen",
    "sandbox",
    "capture_secrets",
];
/// Keys of `[[peer]]`.
pub(super) const PEER: &[&str] = &[
    "name",
    "public_key",
    "preshared_key",
    "preshared_key_file",
    "endpoint",
    "allowed_ips",
    "persistent_keepalive",
    "expires",
];
/// Keys of `[[hook]]`.
pub(super) const HOOK: &[&str] = &["run", "events", "timeout"];
/// Tables.
pub(super) const TABLES: &[&str] = &["interface", "peer", "hook"];

/// From here on (Jaro-Winkler, 0 to 1) a name is taken for a slip of the pen.
const SIMILAR: f64 = 0.82;

/// A key in a table whose keys are `here`; `elsewhere` are those of the other table, and how it is written.
pub(super) fn key(name: &str, here: &[&str], elsewhere: &[&str], other_table: &str) -> Flaw {
    let found = format!("the unknown key {name:?}");
    let plain = plain(name);
    if let Some(why) = of_wg_quick(&plain) {
        return Flaw::new(format!("{name:?}, which vpnd does not have"), format!("take it out: {why}"));
    }
    if let Some(known) = here.iter().find(|known| self::plain(known) == plain) {
        return Flaw::new(found, format!("write {known}"));
    }
    if let Some(known) = elsewhere.iter().find(|known| self::plain(known) == plain) {
        return Flaw::new(found, format!("put {known} under {other_table}"));
    }
    match nearest(&plain, here) {
        Some(known) => Flaw::new(found, format!("write {known}, or take the line out")),
        None => Flaw::new(found, format!("take it out; the keys here are {}", here.join(", "))),
    }
}

/// A key of `[[hook]]`.
pub(super) fn hook_key(name: &str) -> Flaw {
    let found = format!("the unknown key {name:?}");
    match nearest(&plain(name), HOOK) {
        Some(known) => Flaw::new(found, format!("write {known}, or take the line out")),
        None => Flaw::new(found, format!("take it out; the keys here are {}", HOOK.join(", "))),
    }
}

/// A table, or a key above all tables.
pub(super) fn table(name: &str) -> Flaw {
    let plain = plain(name);
    if PEER.contains(&name) && !INTERFACE.contains(&name) {
        return Flaw::new(format!("{name:?} outside a table"), "put it under [[peer]]");
    }
    if INTERFACE.contains(&name) {
        return Flaw::new(format!("{name:?} outside a table"), "put it under [interface]");
    }
    let remedy = match nearest(&plain, TABLES) {
        Some("peer") => "write [[peer]]",
        Some("hook") => "write [[hook]]",
        Some(_) => "write [interface]",
        None => "take it out; the tables are [interface], [[peer]] and [[hook]]",
    };
    Flaw::new(format!("the unknown table or key {name:?}"), remedy)
}

/// Lower case without separators: `AllowedIPs`, `allowed-ips` and `allowed_ips` are the same slip.
fn plain(name: &str) -> String {
    name.chars().filter(|c| !matches!(c, '_' | '-')).flat_map(char::to_lowercase).collect()
}

/// The one of these names that a person may have meant.
pub fn nearest_name<'k>(name: &str, known: &[&'k str]) -> Option<&'k str> {
    nearest(&plain(name), known)
}

fn nearest<'k>(plain_name: &str, known: &[&'k str]) -> Option<&'k str> {
    let scored = known.iter().map(|known| (strsim::jaro_winkler(plain_name, &plain(known)), *known));
    let best = scored.max_by(|a, b| a.0.total_cmp(&b.0))?;
    (best.0 >= SIMILAR).then_some(best.1)
}

/// Keys of wg-quick (lower case, no separators) that are absent on purpose, and why.
pub(super) fn of_wg_quick(plain: &str) -> Option<&'static str> {
    match plain {
        "dns" => Some("vpnd leaves the resolver alone; `resolvectl dns DEVICE ADDRESS` sets it"),
        "preup" | "postup" | "predown" | "postdown" => Some(
            "vpnd runs no commands at start and stop; put them into the service unit (ExecStartPre=, ExecStartPost=, \
             ExecStop=, ExecStopPost=)",
        ),
        "saveconfig" => Some("a running vpnd never writes this file"),
        _ => None,
    }
}
