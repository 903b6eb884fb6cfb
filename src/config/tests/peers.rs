//! Peers: their keys and names, prefixes, endpoints, and when they expire.

use super::*;

#[test]
fn a_peer_needs_a_public_key_and_not_our_own() {
    refuses(
        &interface("[[peer]]\nname = \"desk\""),
        "peer.toml:3: peer \"desk\".public_key: found no public key; add the peer's public key; `vpnd pubkey` prints \
         it there from its private key",
    );
    let own = SECRET.parse::<PrivateKey>().unwrap().public_key();
    refuses(
        &interface(&format!("[[peer]]\nname = \"me\"\npublic_key = \"{own}\"")),
        &format!(
            "peer.toml:5: peer \"me\".public_key: found {own}, the public key of this interface itself; write the \
             other end's public key, as `vpnd pubkey` prints it there"
        ),
    );
}

#[test]
fn two_peers_share_neither_key_nor_name() {
    let one = key(1);
    refuses(
        &two_peers("", &format!("public_key = \"{one}\"")),
        &format!(
            "peer.toml:7: peer[2].public_key: found {one}, the key of peer[1] on line 4 too; join the two tables into \
             one, or give this peer its own key"
        ),
    );
    refuses(
        &two_peers("name = \"a\"", &format!("name = \"a\"\npublic_key = \"{}\"", key(2))),
        "peer.toml:7: peer[2].name: found \"a\", the name of the peer on line 5 too; give each peer a name of its own",
    );
}

#[test]
fn a_prefix_belongs_to_one_peer_once() {
    let remedy = "write it once: a prefix leads to one peer (a longer one inside it may lead elsewhere)";
    let second = format!("public_key = \"{}\"\nallowed_ips = [\"fd00::/8\",\n  \"10.0.0.0/8\"]", key(2));
    refuses(
        &two_peers("allowed_ips = [\"10.0.0.0/8\"]", &second),
        &format!(
            "peer.toml:9: peer[2].allowed_ips: found 10.0.0.0/8, which peer[1] has on line 5 already; {remedy}"
        ),
    );
    refuses(
        &peer("allowed_ips = [\"fd00::/8\",\n\"fd00::/8\"]"),
        &format!(
            "peer.toml:6: peer[1].allowed_ips: found fd00::/8, which this peer has on line 5 already; {remedy}"
        ),
    );
    let nested = format!("public_key = \"{}\"\nallowed_ips = [\"10.1.0.0/16\", \"10.0.0.0/9\"]", key(2));
    assert_eq!(told(&two_peers("allowed_ips = [\"10.0.0.0/8\", \"10.1.0.0/17\"]", &nested)), [""; 0]);
}

#[test]
fn host_bits_in_a_prefix_are_refused_with_the_masked_form() {
    refuses(
        &peer("allowed_ips = [\"10.0.0.1/24\"]"),
        "peer.toml:5: peer[1].allowed_ips: found 10.0.0.1/24, which has bits set behind its first 24; write \
         10.0.0.0/24, or 10.0.0.1/32 for this one host",
    );
    refuses(
        &peer("allowed_ips = [\"10.0.0.0/33\"]"),
        "peer.toml:5: peer[1].allowed_ips: found \"10.0.0.0/33\", whose length \"33\" is not 0 to 32; write an \
         address and a length, such as \"10.77.0.2/32\"",
    );
    refuses(
        &peer("allowed_ips = [\"example.org\"]"),
        "peer.toml:5: peer[1].allowed_ips: found \"example.org\", which is no IP address; write an address and a \
         length, such as \"10.77.0.2/32\"",
    );
}

#[test]
fn an_endpoint_that_cannot_be_is_refused() {
    let cases = [
        ("vpn.example.org", r#""vpn.example.org", which has no port; add one: "vpn.example.org:51820""#),
        ("a.org:0", r#""a.org:0", whose port "0" is none; write a port from 1 to 65535: "a.org:51820""#),
        (
            "a.org:70000",
            r#""a.org:70000", whose port "70000" is none; write a port from 1 to 65535: "a.org:51820""#,
        ),
        (
            "2001:db8::1",
            r#""2001:db8::1", an IPv6 address without brackets and port; write the address in brackets and a port: "[2001:db8::1]:51820""#,
        ),
        (
            "2001:db8:0:0:0:0:0:0:1:5",
            r#""2001:db8:0:0:0:0:0:0:1:5", which has several colons and no brackets; write an IPv6 address in brackets: "[2001:db8:0:0:0:0:0:0:1]:5""#,
        ),
        (
            "[fe80::1%eth0]:5",
            r#""[fe80::1%eth0]:5", which is no IPv6 address in brackets; write the number of the link for its name: "[fe80::1%2]:5""#,
        ),
        (
            "10.0.0.256:5",
            r#""10.0.0.256", which is neither a name nor an address; write "vpn.example.org:5" or "192.0.2.1:5""#,
        ),
        ("0.0.0.0:5", "0.0.0.0:5, where no peer can be; write the peer's own address"),
    ];
    for (endpoint, expected) in cases {
        refuses(
            &peer(&format!("endpoint = \"{endpoint}\"")),
            &format!("peer.toml:5: peer[1].endpoint: found {expected}"),
        );
    }
}

#[test]
fn an_endpoint_inside_the_tunnel_is_refused_because_it_loops() {
    refuses(
        &peer("endpoint = \"10.1.2.3:5\"\nallowed_ips = [\"10.0.0.0/8\", \"0.0.0.0/0\"]"),
        "peer.toml:5: peer[1].endpoint: found 10.1.2.3:5, which lies inside its own allowed IP 10.0.0.0/8 (line 6): a \
         loop; leave 10.1.2.3 out of the prefixes, or write 0.0.0.0/0 for them",
    );
    let second = format!("name = \"b\"\npublic_key = \"{}\"\nendpoint = \"[2001:db8::1]:5\"", key(2));
    refuses(
        &two_peers("allowed_ips = [\"2001:db8::/32\"]", &second),
        "peer.toml:9: peer \"b\".endpoint: found [2001:db8::1]:5, which lies inside peer[1]'s allowed IP \
         2001:db8::/32 (line 5): a loop; leave 2001:db8::1 out of the prefixes, or write ::/0 for them",
    );
    let problems = told(&peer("endpoint = \"[::ffff:10.1.2.3]:5\"\nallowed_ips = [\"10.0.0.0/8\"]"));
    assert!(problems[0].contains("a loop"), "an IPv4 address in IPv6 clothes: {problems:?}");
}

#[test]
fn an_endpoint_under_a_default_route_or_without_routes_does_not_loop() {
    assert_eq!(told(&peer("endpoint = \"192.0.2.1:5\"\nallowed_ips = [\"0.0.0.0/0\", \"::/0\"]")), [""; 0]);
    let lines = "table = \"off\"\n[[peer]]\nendpoint = \"10.1.2.3:5\"\nallowed_ips = [\"10.0.0.0/8\"]";
    assert_eq!(told(&interface(&format!("{lines}\npublic_key = \"{}\"", key(1)))), [""; 0]);
}

#[test]
fn a_peer_expires_at_a_moment_in_utc_and_at_nothing_else() {
    let moment = |text: &str| read(&peer(&format!("expires = {text}"))).unwrap().peers[0].expires;
    assert_eq!(moment("2027-01-01"), date::parse("2027-01-01T00:00:00Z"));
    assert_eq!(moment("2027-01-01T01:00:00+01:00"), moment("2027-01-01 00:00:00"));
    assert_eq!(read(&peer("")).unwrap().peers[0].expires, None);

    let remedy = "write a date or a time in UTC: expires = 2027-01-01, or 2027-01-01T18:00:00Z";
    refuses(
        &peer("expires = 18:00:00"),
        &format!("peer.toml:5: peer[1].expires: found 18:00:00, which names no moment; {remedy}"),
    );
    refuses(
        &peer("expires = \"soon\""),
        &format!("peer.toml:5: peer[1].expires: found the text \"soon\"; {remedy}"),
    );
    refuses(&peer("expires = 30"), &format!("peer.toml:5: peer[1].expires: found the number 30; {remedy}"));
    refuses(
        &peer("expires = \"2027-01-01\""),
        "peer.toml:5: peer[1].expires: found the text \"2027-01-01\"; write it without quotes: expires = 2027-01-01",
    );
}
