//! TCP by iperf3, one end on each host.

use std::{fs, time::Duration};

use serde_json::Value;

use crate::{
    failure::{Attempted, Failure, Result},
    pair::Pair,
    stop,
};

const PORT: u16 = 5201;

/// How the bytes flow.
#[derive(Clone, Copy, Debug)]
pub struct Stream {
    /// From the right host to the left one.
    pub reverse: bool,
    /// So many connections at once.
    pub parallel: u32,
}

impl Default for Stream {
    fn default() -> Self {
        Self { reverse: false, parallel: 1 }
    }
}

/// What arrived.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Flow {
    pub bytes: f64,
    pub bits_per_second: f64,
    pub retransmits: f64,
}

/// One run.
pub fn run(pair: &Pair, stream: Stream, seconds: Duration, congestion: Option<&str>) -> Result<Flow> {
    let mut server = pair.right.host.command("iperf3")?;
    server
        .args(["--server", "--one-off", "--port", &PORT.to_string()])
        .stdout(pair.right.output("iperf-server")?);
    let server = pair.right.host.spawn("iperf-server", server)?;
    if !stop::wait_until(Duration::from_secs(5), || pair.right.listens(PORT))? {
        return Err(Failure::Said(format!("iperf3 does not listen: {}", server.log())));
    }

    let mut client = pair.left.host.command("iperf3")?;
    client.args(["--client", &pair.right.inner.to_string(), "--port", &PORT.to_string(), "--json"]);
    client.args(["--time", &seconds.as_secs().to_string(), "--parallel", &stream.parallel.to_string()]);
    if stream.reverse {
        client.arg("--reverse");
    }
    if let Some(name) = congestion {
        client.args(["--congestion", name]);
    }
    client.stdout(pair.left.output("iperf-client")?);
    let mut client = pair.left.host.spawn("iperf-client", client)?;
    stop::finish(&mut client, "iperf3", seconds + Duration::from_secs(15))?;
    let path = pair.left.host.folder().join("iperf-client.out");
    let text = fs::read_to_string(&path).attempted(|| format!("read {}", path.display()))?;
    flow(&text)
}

fn flow(text: &str) -> Result<Flow> {
    let said: Value = serde_json::from_str(text).attempted(|| format!("read iperf3's answer {text:?}"))?;
    if let Some(error) = said["error"].as_str() {
        return Err(Failure::Said(format!("iperf3: {error}")));
    }
    let (received, sent) = (&said["end"]["sum_received"], &said["end"]["sum_sent"]);
    match (received["bytes"].as_f64(), received["bits_per_second"].as_f64()) {
        (Some(bytes), Some(bits_per_second)) if bytes > 0.0 => {
            let retransmits = sent["retransmits"].as_f64().unwrap_or(0.0);
            Ok(Flow { bytes, bits_per_second, retransmits })
        }
        _ => Err(Failure::Said(format!("iperf3 moved nothing: {text}"))),
    }
}

/// Is somebody in LISTEN on this port? `table` is `/proc/net/tcp` or `tcp6`.
pub fn names_listener(table: &str, port: u16) -> bool {
    let ending = format!(":{port:04X}");
    table.lines().any(|line| {
        let mut fields = line.split_whitespace().skip(1);
        fields.next().is_some_and(|local| local.ends_with(&ending)) && fields.nth(1) == Some("0A")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_read_and_an_error_is_told() {
        let good = r#"{"end":{"sum_sent":{"retransmits":3},"sum_received":{"bytes":125.0,"bits_per_second":1000.0}}}"#;
        assert_eq!(flow(good).unwrap(), Flow { bytes: 125.0, bits_per_second: 1000.0, retransmits: 3.0 });
        assert!(
            flow(r#"{"error":"unable to connect"}"#).unwrap_err().to_string().contains("unable to connect")
        );
        assert!(flow("").is_err());
    }

    #[test]
    fn only_a_listener_on_this_very_port_counts() {
        let listening = "  0: 00000000:1451 00000000:0000 0A 00000000:00000000";
        let connected = "  0: 0200004D:1451 0100004D:D431 01 00000000:00000000";
        assert!(names_listener(listening, 5201));
        assert!(!names_listener(connected, 5201));
        assert!(!names_listener(listening, 5202));
    }
}
