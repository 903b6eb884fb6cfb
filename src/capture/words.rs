//! The comment on each frame: whose it is, by which session and counter, and which other frame belongs to it.

use crate::trace::{Opened, Refused, Sealed, Seen, Vpnd};

/// On the packet inside; `carrier`: the frame of its (first) carrier.
pub(super) fn inner(seen: &Seen, carrier: Option<u64>) -> String {
    let carrier = carrier.map(|frame| format!("frame {frame}"));
    match &seen.vpnd {
        Vpnd::Sealed(Sealed { peer, prefix, session, counter, segments, .. }) => {
            let carriers = match (carrier, segments) {
                (Some(frame), 1) => format!("carried by {frame}"),
                (Some(frame), n) => format!("a super-packet, cut into {n} carriers from {frame} on"),
                (None, _) => "its carrier is not here".to_owned(),
            };
            format!(
                "to peer {peer} by {prefix}: receiver index {session:#010x}, counter {counter}; {carriers}"
            )
        }
        Vpnd::Opened(Opened { peer, prefix, session, counter, .. }) => {
            let carrier = carrier.unwrap_or_default();
            format!(
                "from peer {peer} by {prefix}: receiver index {session:#010x}, counter {counter}; came in {carrier}"
            )
        }
        Vpnd::Refused(refused) => {
            let carrier = carrier.map(|frame| format!("; came in {frame}")).unwrap_or_default();
            format!("{}{carrier}", refused_words(refused))
        }
        Vpnd::Staged { .. } | Vpnd::Owned { .. } => String::new(),
    }
}

/// On the carrier; `inner`: the frame of what it carries.
pub(super) fn outer(seen: &Seen, inner: Option<u64>) -> String {
    let carries = match inner {
        Some(frame) => format!("carries frame {frame}"),
        None => "what it carries is not here".to_owned(),
    };
    match &seen.vpnd {
        Vpnd::Sealed(Sealed { peer, session, counter, batch, error, .. }) => {
            let sent = match (error, batch) {
                (Some(error), _) => format!("; the kernel did not send it: {error}"),
                (None, Some(batch)) if batch.datagrams > 1 => {
                    format!("; number {} of {} in one send", batch.place + 1, batch.datagrams)
                }
                _ => String::new(),
            };
            format!("to peer {peer}: receiver index {session:#010x}, counter {counter}; {carries}{sent}")
        }
        Vpnd::Opened(Opened { peer, session, counter, .. }) => {
            format!("from peer {peer}: receiver index {session:#010x}, counter {counter}; {carries}")
        }
        Vpnd::Refused(refused) => {
            let carries = inner.map(|frame| format!("; carries frame {frame}")).unwrap_or_default();
            format!("{}{carries}", refused_words(refused))
        }
        Vpnd::Staged { .. } | Vpnd::Owned { .. } => String::new(),
    }
}

fn refused_words(refused: &Refused) -> String {
    let mut words = format!("refused by vpnd: {}", refused.reason);
    if let Some(peer) = &refused.peer {
        words += &format!(", peer {peer}");
    }
    if let Some(session) = refused.session {
        words += &format!(", receiver index {session:#010x}");
    }
    if let Some(counter) = refused.counter {
        words += &format!(", counter {counter}");
    }
    words
}
