//! What stands behind the `?` of a request's path.

use percent_encoding::percent_decode_str;

use super::events::About;

/// The parameters, each at most once.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Query {
    /// A time: of an event in Unix seconds, of a sample in nanoseconds since boot.
    pub(super) since: Option<String>,
    pub(super) generation: Option<u64>,
    pub(super) peer: Option<About>,
    pub(super) follow: bool,
    /// Of a trace.
    pub(super) filter: Option<String>,
    pub(super) packets: Option<u64>,
    pub(super) seconds: Option<u64>,
    pub(super) snap: Option<u64>,
    pub(super) each: bool,
    pub(super) handshakes: bool,
    pub(super) secrets: bool,
    pub(super) renew: bool,
}

impl Query {
    /// An error is a sentence for whoever asked.
    pub(super) fn read(text: Option<&str>) -> Result<Self, String> {
        let mut query = Self { follow: true, ..Self::default() };
        for pair in text.unwrap_or_default().split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let Ok(value) = percent_decode_str(value).decode_utf8() else {
                return Err(format!("{name} is not UTF-8"));
            };
            match name {
                "since" => query.since = Some(value.into_owned()),
                "generation" => query.generation = Some(number(name, &value)?),
                "filter" => query.filter = Some(value.into_owned()),
                "packets" => query.packets = Some(number(name, &value)?),
                "seconds" => query.seconds = Some(number(name, &value)?),
                "snap" => query.snap = Some(number(name, &value)?),
                "each" => query.each = flag(name, &value)?,
                "handshakes" => query.handshakes = flag(name, &value)?,
                "secrets" => query.secrets = flag(name, &value)?,
                "renew" => query.renew = flag(name, &value)?,
                "peer" => query.peer = Some(About::new(&value)),
                "follow" => query.follow = flag(name, &value)?,
                _ => {
                    return Err(format!(
                        "{name:?} is not known here: since, generation, peer, follow, filter, packets, seconds, snap, each, handshakes, secrets and renew are"
                    ));
                }
            }
        }
        Ok(query)
    }

    /// `since` as a number.
    pub(super) fn since<T: std::str::FromStr>(&self) -> Result<Option<T>, String> {
        let number = |text: &String| text.parse().map_err(|_| format!("since is no number: {text:?}"));
        self.since.as_ref().map(number).transpose()
    }
}

fn flag(name: &str, value: &str) -> Result<bool, String> {
    match value {
        "0" => Ok(false),
        "1" => Ok(true),
        _ => Err(format!("{name} is 0 or 1, not {value:?}")),
    }
}

fn number(name: &str, value: &str) -> Result<u64, String> {
    value.parse().map_err(|_| format!("{name} is no number: {value:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_decoded_and_what_is_wrong_is_named() {
        let query = Query::read(Some("since=12.5&peer=my%20caf%C3%A9&follow=0")).expect("it is right");
        assert_eq!(query.since::<f64>(), Ok(Some(12.5)));
        assert_eq!((query.peer, query.follow), (Some(About::Name("my café".to_owned())), false));
        assert!(Query::read(None).expect("nothing is right").follow);
        for wrong in ["follow=2", "secrets=yes", "peer=%FF", "generation=x", "colour=red", "=", "since"] {
            let read = Query::read(Some(wrong)).and_then(|query| query.since::<u64>());
            assert!(read.is_err(), "{wrong}");
        }
        let key = "YWFhYWFhYWFhYWFhYWFhYWFhYWFhYWFhYWFhYWFhYWE%3D";
        let query = Query::read(Some(&format!("peer={key}"))).expect("it is right");
        assert!(matches!(query.peer, Some(About::Key(_))));
    }
}
