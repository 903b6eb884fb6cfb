//! nebula: a certificate authority for two hosts that know each other's address; no lighthouse.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use serde_json::json;
use vpnd::lab::Host;

use super::tool;
use crate::{
    contender::Contender,
    failure::{Attempted, Result},
    pair::{Carrier, DEVICE, MTU, Other, inner, outer},
};

const PORT: u16 = 4242;

/// On both hosts.
pub fn start(contender: &Contender, hosts: &[Host; 2]) -> Result<[Carrier; 2]> {
    let program = contender.program.clone().unwrap_or_default();
    let authority = Authority::make(&program, &hosts[0])?;
    let end = |number: u8| -> Result<Carrier> {
        let host = &hosts[usize::from(number) - 1];
        authority.sign(host, number)?;
        let file = host.folder().join("nebula.yml");
        let config = config(&authority, host, number).to_string();
        fs::write(&file, config).attempted(|| format!("write {}", file.display()))?;
        let mut command = host.command(&program)?;
        command.arg("-config").arg(&file);
        let other = Other::spawn(host, command)?;
        super::device_appears(host, &other)?;
        Ok(Carrier::Other(other))
    };
    Ok([end(1)?, end(2)?])
}

struct Authority {
    tool: PathBuf,
    certificate: PathBuf,
    key: PathBuf,
}

impl Authority {
    fn make(program: &Path, host: &Host) -> Result<Self> {
        let beside = program.with_file_name("nebula-cert");
        let tool = if beside.exists() { beside } else { "nebula-cert".into() };
        let (certificate, key) = (host.folder().join("ca.crt"), host.folder().join("ca.key"));
        let authority = Self { tool, certificate, key };
        authority.run(host, &["ca", "-name", "bench"], &authority.certificate, &authority.key, &[])?;
        Ok(authority)
    }

    fn sign(&self, host: &Host, number: u8) -> Result<()> {
        let (name, address) = (format!("host{number}"), format!("{}/24", inner(number)));
        let signed_by = [("-ca-crt", &self.certificate), ("-ca-key", &self.key)];
        let (certificate, key) = (host.folder().join("host.crt"), host.folder().join("host.key"));
        self.run(host, &["sign", "-name", &name, "-ip", &address], &certificate, &key, &signed_by)
    }

    fn run(
        &self,
        host: &Host,
        words: &[&str],
        certificate: &Path,
        key: &Path,
        files: &[(&str, &PathBuf)],
    ) -> Result<()> {
        let mut command = host.command(&self.tool)?;
        command.args(words).arg("-out-crt").arg(certificate).arg("-out-key").arg(key);
        for (flag, file) in files {
            command.arg(flag).arg(file);
        }
        tool(host, "nebula-cert", command, Duration::from_secs(10)).map(drop)
    }
}

/// JSON is YAML.
fn config(authority: &Authority, host: &Host, number: u8) -> serde_json::Value {
    let other = 3 - number;
    let all = json!([{ "port": "any", "proto": "any", "host": "any" }]);
    let endpoint = [format!("{}:{PORT}", outer(other))];
    json!({
        "pki": {
            "ca": authority.certificate,
            "cert": host.folder().join("host.crt"),
            "key": host.folder().join("host.key"),
        },
        "static_host_map": { inner(other).to_string(): endpoint },
        "lighthouse": { "am_lighthouse": false, "hosts": [] },
        "listen": { "host": "0.0.0.0", "port": PORT },
        "tun": { "dev": DEVICE, "mtu": MTU },
        "logging": { "level": "error" },
        "firewall": { "outbound": all, "inbound": all },
    })
}
