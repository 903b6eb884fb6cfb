//! Texts → addresses, prefixes, endpoints and names; each refusal says what would do.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use ipnet::IpNet;

use super::{EndpointName, report::Flaw, secrecy::cut};

/// Bytes of the longest device name (IFNAMSIZ less the end).
const NAME_MAX: usize = 15;
/// Characters of the longest name of a peer.
pub(super) const PEER_NAME_MAX: usize = 64;

/// A device name that the kernel takes literally (`dev_valid_name`; `%` is its pattern for a free number).
pub(super) fn device_name(text: &str) -> Result<String, Flaw> {
    let remedy = "write 1 to 15 letters, digits, - or _, such as \"vpn0\"";
    let why = match text {
        "" => "an empty name",
        "." | ".." => "a name that means a folder",
        _ if text.len() > NAME_MAX => "a name of more than 15 bytes",
        _ if text.contains(|c: char| c.is_whitespace() || c.is_control()) => "a name with white space",
        _ if text.contains(['/', ':', '%']) => "a name with /, : or %",
        _ => return Ok(text.to_owned()),
    };
    Err(Flaw::new(format!("{why}: {:?}", cut(text)), remedy))
}

/// A name for people.
pub(super) fn peer_name(text: &str) -> Result<String, Flaw> {
    let why = match text {
        "" => "an empty name",
        _ if text.chars().count() > PEER_NAME_MAX => "a name of more than 64 characters",
        _ if text.contains(char::is_control) => "a name with control characters",
        _ if text.trim() != text => "a name with white space around it",
        _ => return Ok(text.to_owned()),
    };
    let remedy = "write up to 64 visible characters, such as \"laptop\", or take it out";
    Err(Flaw::new(format!("{why}: {:?}", cut(text)), remedy))
}

/// Name or number of a user or group (useradd(8) takes up to 32 bytes).
pub(super) fn account(text: &str, example: &str) -> Result<(), Flaw> {
    let is_odd = |c: char| c.is_whitespace() || c.is_control() || matches!(c, ':' | '/' | ',');
    if (1..=32).contains(&text.len()) && !text.contains(is_odd) && !text.starts_with('-') {
        return Ok(());
    }
    Err(Flaw::new(
        format!("{:?}, which names nobody", cut(text)),
        format!("write a name or a number, such as {example:?}"),
    ))
}

/// An address of the device, with its network's length; without one it stands alone, as in wg-quick.
pub(super) fn address(text: &str) -> Result<IpNet, Flaw> {
    let net = net(text, "\"10.77.0.1/24\"")?;
    let address = net.addr();
    if address.is_unspecified() || address.is_multicast() {
        return Err(Flaw::new(
            format!("{text}, which no host can have"),
            "write an address such as 10.77.0.1/24",
        ));
    }
    Ok(net)
}

/// A prefix whose host bits are clear; an address alone is a whole one.
pub(super) fn prefix(text: &str) -> Result<IpNet, Flaw> {
    let net = net(text, "\"10.77.0.2/32\"")?;
    if net.trunc() != net {
        return Err(Flaw::new(
            format!("{text}, which has bits set behind its first {}", net.prefix_len()),
            format!("write {}, or {}/{} for this one host", net.trunc(), net.addr(), net.max_prefix_len()),
        ));
    }
    Ok(net)
}

/// An address with or without length.
pub(super) fn net(text: &str, example: &str) -> Result<IpNet, Flaw> {
    if let Ok(net) = text.parse::<IpNet>() {
        return Ok(net);
    }
    if let Ok(address) = text.parse::<IpAddr>() {
        return Ok(IpNet::from(address));
    }
    let shown = cut(text);
    let why = match text.split_once('/') {
        Some((address, length)) => match address.parse::<IpAddr>() {
            Ok(IpAddr::V4(_)) => format!("{shown:?}, whose length {length:?} is not 0 to 32"),
            Ok(IpAddr::V6(_)) => format!("{shown:?}, whose length {length:?} is not 0 to 128"),
            Err(_) => format!("{shown:?}, which is no IP address"),
        },
        None => format!("{shown:?}, which is no IP address"),
    };
    Err(Flaw::new(why, format!("write an address and a length, such as {example}")))
}

/// `host:port`, `address:port`, `[IPv6 address]:port`.
pub(super) fn endpoint(text: &str) -> Result<EndpointName, Flaw> {
    let found = |why: &str| format!("{:?}, {why}", cut(text));
    if let Ok(address) = text.parse::<Ipv6Addr>() {
        let remedy = format!("write the address in brackets and a port: \"[{address}]:51820\"");
        return Err(Flaw::new(found("an IPv6 address without brackets and port"), remedy));
    }
    let Some((host, port)) = split_port(text) else {
        return Err(Flaw::new(found("which has no port"), format!("add one: \"{}:51820\"", cut(text))));
    };
    let port = match port.parse::<u16>() {
        Ok(number) if number > 0 && port.bytes().all(|b| b.is_ascii_digit()) => number,
        _ => {
            let remedy = format!("write a port from 1 to 65535: \"{}:51820\"", cut(host));
            return Err(Flaw::new(found(&format!("whose port {:?} is none", cut(port))), remedy));
        }
    };
    if let Some(inside) = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        return bracketed(inside, text, port);
    }
    if host.contains(':') {
        let remedy = format!("write an IPv6 address in brackets: \"[{}]:{port}\"", cut(host));
        return Err(Flaw::new(found("which has several colons and no brackets"), remedy));
    }
    if let Ok(address) = host.parse::<Ipv4Addr>() {
        return unicast(SocketAddr::from((address, port)));
    }
    domain_name(host, port)
}

fn split_port(text: &str) -> Option<(&str, &str)> {
    if text.ends_with(']') {
        return None;
    }
    text.rsplit_once(':').filter(|(host, _)| !host.is_empty())
}

fn bracketed(inside: &str, text: &str, port: u16) -> Result<EndpointName, Flaw> {
    if let Ok(address) = text.parse::<SocketAddr>() {
        return unicast(address);
    }
    let found = format!("{:?}, which is no IPv6 address in brackets", cut(text));
    let remedy = match inside.split_once('%') {
        Some((address, _)) => {
            format!("write the number of the link for its name: \"[{}%2]:{port}\"", cut(address))
        }
        None => format!("write \"[2001:db8::1]:{port}\", a name or an IPv4 address without brackets"),
    };
    Err(Flaw::new(found, remedy))
}

fn unicast(address: SocketAddr) -> Result<EndpointName, Flaw> {
    let ip = address.ip().to_canonical();
    if ip.is_unspecified() || ip.is_multicast() {
        return Err(Flaw::new(format!("{address}, where no peer can be"), "write the peer's own address"));
    }
    Ok(EndpointName::Address(address))
}

/// What a resolver is told: the address of a server, or a domain to search in.
pub(super) fn dns(text: &str) -> Result<String, Flaw> {
    if let Ok(address) = text.parse::<IpAddr>() {
        return Ok(address.to_string());
    }
    match domain_name(text, 53) {
        Ok(_) => Ok(text.to_owned()),
        Err(flaw) => Err(Flaw::new(flaw.found, "write the address of a server, or a domain to search in")),
    }
}

/// A DNS name (RFC 1123, section 2.1; underscores are let through).
fn domain_name(host: &str, port: u16) -> Result<EndpointName, Flaw> {
    let labels_are_good = host.strip_suffix('.').unwrap_or(host).split('.').all(|label| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b))
    });
    // A last label of digits alone is a mistyped address, never a name.
    let last_is_number =
        host.rsplit('.').next().is_some_and(|label| label.bytes().all(|b| b.is_ascii_digit()));
    if host.len() > 253 || !labels_are_good || last_is_number {
        let found = format!("{:?}, which is neither a name nor an address", cut(host));
        return Err(Flaw::new(found, format!("write \"vpn.example.org:{port}\" or \"192.0.2.1:{port}\"")));
    }
    Ok(EndpointName::Name { host: host.to_owned(), port })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_is_an_address_or_a_name_with_a_port() {
        let address = |text: &str| EndpointName::Address(text.parse().unwrap());
        for good in ["192.0.2.1:51820", "[2001:db8::1]:1", "[fe80::1%3]:65535"] {
            assert_eq!(endpoint(good), Ok(address(good)));
        }
        let name = EndpointName::Name { host: "vpn.example.org".into(), port: 51820 };
        assert_eq!(endpoint("vpn.example.org:51820"), Ok(name));
        let bad = [
            "",
            ":",
            ":51820",
            "a:",
            "a:0",
            "a:65536",
            "a:+1",
            "a: 1",
            "a b:1",
            "a..b:1",
            "10.0.0.256:1",
            "1.2.3:1",
            "[::1]",
            "[::1]:",
            "[::1:1",
            "::1:1",
            "[10.0.0.1]:1",
            "[fe80::1%eth0]:1",
            "[vpn.example.org]:1",
            "0.0.0.0:1",
            "[::]:1",
            "224.0.0.1:1",
            "[ff02::1]:1",
            "é.org:1",
            "51820",
            "http://a:1",
        ];
        for text in bad {
            assert!(endpoint(text).is_err(), "{text:?} was taken");
        }
    }

    #[test]
    fn a_remedy_for_an_endpoint_is_itself_an_endpoint() {
        for text in ["vpn.example.org", "192.0.2.1", "2001:db8::7", "2001:db8::g:51820:1", "[::1]", "a:0"] {
            let remedy = endpoint(text).unwrap_err().remedy;
            let inside = remedy.split('"').nth(1).unwrap();
            if !text.contains('g') {
                assert!(endpoint(inside).is_ok(), "{text:?} → {remedy}");
            }
        }
    }

    #[test]
    fn host_bits_are_refused_in_a_prefix_and_kept_in_an_address() {
        assert_eq!(address("10.0.0.1/24").unwrap().to_string(), "10.0.0.1/24");
        assert_eq!(address("fd00::1").unwrap().to_string(), "fd00::1/128");
        assert_eq!(prefix("10.0.0.2").unwrap().to_string(), "10.0.0.2/32");
        assert_eq!(prefix("0.0.0.0/0").unwrap().prefix_len(), 0);
        let flaw = prefix("10.0.0.1/24").unwrap_err();
        assert_eq!(flaw.found, "10.0.0.1/24, which has bits set behind its first 24");
        assert_eq!(flaw.remedy, "write 10.0.0.0/24, or 10.0.0.1/32 for this one host");
    }

    #[test]
    fn a_device_name_is_what_the_kernel_takes() {
        for good in ["vpn0", "a", "exactly15bytes_", "wg-home.2"] {
            assert!(device_name(good).is_ok(), "{good}");
        }
        for bad in ["", ".", "..", "a/b", "a b", "a\tb", "vpn%d", "a:1", "sixteen_bytes_xx", "a\0"] {
            assert!(device_name(bad).is_err(), "{bad:?} was taken");
        }
    }
}
