//! The comment on each frame: whose it is, by which session and counter, and which other frame belongs to it.

use crate::trace::{Direction, Handshake, Message, Opened, Refused, Sealed, Seen, Vpnd};

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

/// On a message of a handshake; `again`: it stands in a file before this one, too.
pub(super) fn handshake(handshake: &Handshake, again: bool) -> String {
    let word = |at: usize| {
        let bytes = handshake.bytes.get(at..at + 4).and_then(|bytes| bytes.try_into().ok());
        u32::from_le_bytes(bytes.unwrap_or_default())
    };
    let message = match handshake.message {
        Message::Initiation => format!("handshake initiation, sender index {:#010x}", word(4)),
        Message::Response => {
            format!("handshake response, sender index {:#010x} to receiver index {:#010x}", word(4), word(8))
        }
        Message::CookieReply => format!("cookie reply to receiver index {:#010x}", word(4)),
    };
    let way = match handshake.way {
        Direction::Out => "to",
        Direction::In => "from",
    };
    let mut words = match &handshake.peer {
        Some(peer) => format!("{way} peer {peer}: {message}"),
        None => format!("{way} {}: {message}", handshake.remote),
    };
    if let Some(reason) = &handshake.refused {
        words += &format!("; refused by vpnd: {reason}");
    }
    if handshake.secrets.is_some() {
        words += "; its keys stand before it";
    }
    if again {
        words += "; again from the file before, since its session may still be in use";
    }
    words
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
