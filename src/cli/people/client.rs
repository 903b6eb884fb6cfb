//! What a client needs to know: from the command line, else from the file, else it is asked for. Nothing is guessed.

use ipnet::IpNet;

use super::Held;
use crate::config::{Clients, EndpointName, Interface};

/// MTU that is not worth telling: every client's own choice.
const USUAL_MTU: u16 = 1420;

/// What the client is told; each stands for the key of `[interface]` beside it.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "What the client is told, instead of what [interface] says")]
pub struct ClientArgs {
    /// Where the client finds this end, seen from outside (public_endpoint).
    #[arg(long, value_name = "HOST:PORT", value_parser = Clients::endpoint)]
    pub public_endpoint: Option<EndpointName>,
    /// What the client sends into the tunnel (client_allowed_ips), such as 0.0.0.0/0,::/0.
    #[arg(long, value_name = "PREFIX,…", value_delimiter = ',', value_parser = Clients::prefix)]
    pub client_allowed_ips: Vec<IpNet>,
    /// Its name servers, and domains to search in (client_dns).
    #[arg(long, value_name = "ADDRESS,…", value_delimiter = ',', value_parser = Clients::dns)]
    pub client_dns: Vec<String>,
    /// The MTU of its device (client_mtu).
    #[arg(long, value_name = "BYTES", value_parser = clap::value_parser!(u16).range(576..=65455))]
    pub client_mtu: Option<u16>,
    /// Seconds between its keepalives (client_keepalive); 0: none.
    #[arg(long, value_name = "SECONDS")]
    pub client_keepalive: Option<u16>,
}

/// What every client of an interface is told.
#[derive(Debug, PartialEq)]
pub(super) struct Told {
    pub(super) endpoint: EndpointName,
    pub(super) allowed_ips: Vec<IpNet>,
    pub(super) dns: Vec<String>,
    pub(super) mtu: Option<u16>,
    pub(super) keepalive: Option<u16>,
}

impl ClientArgs {
    /// All of it, or a line for each thing that nobody has said, and how to say it.
    pub(super) fn told(&self, held: &Held) -> Result<Told, String> {
        let interface = &held.config.interface;
        let clients = &interface.clients;
        let endpoint = self.public_endpoint.clone().or_else(|| clients.endpoint.clone());
        let allowed_ips = first_of(&self.client_allowed_ips, &clients.allowed_ips);
        let file = held.path.display();
        let mut missing = Vec::new();
        if endpoint.is_none() {
            let port = interface.listen_port.unwrap_or(51820);
            missing.push(format!(
                "the client must know where to find {}, seen from outside: write public_endpoint = \
                 \"vpn.example.org:{port}\" under [interface] in {file}, or give --public-endpoint",
                interface.name
            ));
        }
        if allowed_ips.is_empty() {
            missing.push(format!(
                "the client must know what to send into the tunnel: write client_allowed_ips = {} under [interface] \
                 in {file}, or give --client-allowed-ips",
                example(interface)
            ));
        }
        match endpoint {
            Some(endpoint) if missing.is_empty() => Ok(Told {
                endpoint,
                allowed_ips,
                dns: first_of(&self.client_dns, &clients.dns),
                mtu: self.client_mtu.or(clients.mtu).or(Some(interface.mtu).filter(|mtu| *mtu != USUAL_MTU)),
                keepalive: self.client_keepalive.or(clients.keepalive).filter(|seconds| *seconds != 0),
            }),
            _ => Err(missing.join("\n")),
        }
    }
}

fn first_of<T: Clone>(given: &[T], in_file: &[T]) -> Vec<T> {
    if given.is_empty() { in_file.to_vec() } else { given.to_vec() }
}

/// The interface's own networks, as one may mean it.
fn example(interface: &Interface) -> String {
    let networks: Vec<String> = interface.address.iter().map(|net| format!("\"{}\"", net.trunc())).collect();
    if networks.is_empty() {
        "[\"0.0.0.0/0\", \"::/0\"]".to_owned()
    } else {
        format!("[{}]", networks.join(", "))
    }
}
