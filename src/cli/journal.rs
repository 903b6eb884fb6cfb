//! The journal's own protocol (<https://systemd.io/JOURNAL_NATIVE_PROTOCOL/>): each line with its fields, `VPND_PEER`
//! and the like. The line itself is what standard error would have got. (tracing-journald leaves the fields out of
//! it, so that `journalctl` would say "connected" and not who.)

use std::fmt::{self, Debug, Write};
use std::{io, os::unix::net::UnixDatagram, time::Duration};

use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::fmt::format::{DefaultVisitor, Writer};
use tracing_subscriber::layer::{Context, Layer};

const SOCKET: &str = "/run/systemd/journal/socket";
/// A journal that takes nothing for so long misses a line: it may not hold us up.
const PATIENCE: Duration = Duration::from_millis(100);
/// A longer text is cut: what is larger than a datagram would need a file of its own.
const TEXT: usize = 16 * 1024;

/// Sends what is logged.
pub(super) struct Journal {
    socket: UnixDatagram,
}

impl Journal {
    /// Fails where no journal runs.
    pub(super) fn open() -> io::Result<Self> {
        let socket = UnixDatagram::unbound()?;
        socket.set_write_timeout(Some(PATIENCE))?;
        socket.send_to(&[], SOCKET)?; // an empty one is no entry
        Ok(Self { socket })
    }
}

impl<S: Subscriber> Layer<S> for Journal {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let entry = entry(event);
        // There is no other place to complain at.
        let _ = self.socket.send_to(&entry, SOCKET);
    }
}

fn entry(event: &Event<'_>) -> Vec<u8> {
    let mut fields = Fields { entry: Vec::with_capacity(512) };
    let mut line = String::new();
    event.record(&mut Shown(&mut DefaultVisitor::new(Writer::new(&mut line), true)));
    fields.put("MESSAGE", &line);
    fields.put("PRIORITY", priority(*event.metadata().level()));
    fields.put("SYSLOG_IDENTIFIER", "vpnd");
    event.record(&mut fields);
    fields.entry
}

/// As syslog numbers them.
fn priority(level: Level) -> &'static str {
    match level {
        Level::ERROR => "3",
        Level::WARN => "4",
        Level::INFO => "6",
        _ => "7",
    }
}

/// What a line shows: a person finds `event` and `public_key` in what else it says.
struct Shown<'a>(&'a mut dyn Visit);

impl Visit for Shown<'_> {
    fn record_str(&mut self, field: &Field, value: &str) {
        if !["event", "public_key"].contains(&field.name()) {
            self.0.record_str(field, value);
        }
    }
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.0.record_debug(field, value);
    }
}

/// Fields, in the form of the protocol.
struct Fields {
    entry: Vec<u8>,
}

impl Fields {
    fn put(&mut self, name: &str, text: &str) {
        let end = (0..=text.len().min(TEXT)).rev().find(|at| text.is_char_boundary(*at));
        let text = &text[..end.unwrap_or(0)];
        self.entry.extend_from_slice(name.as_bytes());
        if text.contains('\n') {
            self.entry.push(b'\n');
            self.entry.extend_from_slice(&(text.len() as u64).to_le_bytes());
        } else {
            self.entry.push(b'=');
        }
        self.entry.extend_from_slice(text.as_bytes());
        self.entry.push(b'\n');
    }
}

impl Visit for Fields {
    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() != "message" {
            self.put(&format!("VPND_{}", name(field.name())), value);
        }
    }
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        let mut text = String::new();
        let _ = write!(text, "{value:?}");
        self.record_str(field, &text);
    }
}

/// Capitals, digits and underscores alone.
fn name(field: &str) -> impl fmt::Display {
    field
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' })
        .collect::<String>()
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use tracing_subscriber::layer::SubscriberExt;

    use super::*;

    struct Kept(Arc<Mutex<Vec<u8>>>);

    impl<S: Subscriber> Layer<S> for Kept {
        fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
            *self.0.lock().expect("not poisoned") = entry(event);
        }
    }

    #[test]
    fn an_entry_has_the_line_for_people_and_each_field() {
        let kept = Arc::new(Mutex::new(Vec::new()));
        let said = |log: &dyn Fn()| {
            tracing::subscriber::with_default(subscriber_of(&kept), log);
            String::from_utf8_lossy(&kept.lock().expect("not poisoned")).into_owned()
        };
        let text = said(&|| {
            tracing::info!(
                peer = "laptop",
                event = "connected",
                public_key = "KEY=",
                initiator = true,
                "connected"
            );
        });
        let expected = "MESSAGE=connected peer=\"laptop\" initiator=true\nPRIORITY=6\nSYSLOG_IDENTIFIER=vpnd\n\
                        VPND_PEER=laptop\nVPND_EVENT=connected\nVPND_PUBLIC_KEY=KEY=\nVPND_INITIATOR=true\n";
        assert_eq!(text, expected);
        let text = said(&|| tracing::error!(why = "a\nb", "no"));
        assert!(text.contains("VPND_WHY\n\u{3}\0\0\0\0\0\0\0a\nb\n"), "{text:?}");
    }

    fn subscriber_of(kept: &Arc<Mutex<Vec<u8>>>) -> impl Subscriber + Send + Sync + use<> {
        tracing_subscriber::registry().with(Kept(kept.clone()))
    }
}
