//! The interface: numbers, names, addresses, who may use its sockets; and hooks.

use super::*;

#[test]
fn numbers_out_of_range_are_refused() {
    let mtu = "write a number from 576 (1280 with IPv6) to 65455, or take it out for 1420";
    let port = "write a port from 1 to 65535, or take it out to let the kernel choose";
    let mark = "write a number from 1 to 4294967295, such as 0xca6c, or take it out";
    let offload = "write \"auto\", or \"off\" for one packet a system call";
    let clamp = "write true, or false to leave TCP's segments to path MTU discovery";
    let workers = "write \"auto\", or how many threads each direction has: 1 to 64";
    let nice = "write a number from -20 (before all others) to 19 (after them), or take it out for -10";
    let table = "write \"auto\", \"off\" or the number of a table, not 0, 253 or 255, which are the kernel's";
    let cases = [
        ("mtu = 575", "mtu: found the number 575", mtu),
        ("mtu = 65456", "mtu: found the number 65456", mtu),
        ("listen_port = 65536", "listen_port: found the number 65536", port),
        ("listen_port = -1", "listen_port: found the number -1", port),
        ("offload = true", "offload: found the truth value true", offload),
        ("offload = \"on\"", "offload: found the text \"on\"", offload),
        ("clamp_mss = \"on\"", "clamp_mss: found the text \"on\"", clamp),
        ("workers = 65", "workers: found the number 65", workers),
        ("workers = \"many\"", "workers: found the text \"many\"", workers),
        ("nice = -21", "nice: found the number -21", nice),
        ("nice = 20", "nice: found the number 20", nice),
        ("nice = \"high\"", "nice: found the text \"high\"", nice),
        ("fwmark = 4294967296", "fwmark: found the number 4294967296", mark),
        ("fwmark = \"ca6c\"", "fwmark: found the text \"ca6c\"", mark),
        ("fwmark = \"0x-1\"", "fwmark: found the text \"0x-1\"", mark),
        ("table = 0", "table: found the number 0", table),
        ("table = 253", "table: found the number 253", table),
        ("table = 255", "table: found the number 255", table),
        ("table = -1", "table: found the number -1", table),
        ("table = \"mine\"", "table: found the text \"mine\"", table),
    ];
    for (line, found, remedy) in cases {
        refuses(&interface(line), &format!("peer.toml:3: interface.{found}; {remedy}"));
    }
    let keepalive = "write seconds from 1 to 65535, such as 25, or take it out";
    for number in [-1, 65_536] {
        refuses(
            &peer(&format!("persistent_keepalive = {number}")),
            &format!("peer.toml:5: peer[1].persistent_keepalive: found the number {number}; {keepalive}"),
        );
    }
    for good in
        ["mtu = 576", "mtu = 65455", "listen_port = 65535", "fwmark = 4294967295", "fwmark = 0xFFFFFFFF"]
    {
        assert_eq!(told(&interface(good)), [""; 0], "{good}");
    }
}

#[test]
fn ipv6_needs_an_mtu_of_1280() {
    let expected = "peer.toml:3: interface.mtu: found 1279, while the tunnel carries IPv6; write 1280 or more, or take \
                    the IPv6 addresses and prefixes out";
    refuses(&interface("mtu = 1279\naddress = [\"fd00::1/64\"]"), expected);
    let peer_lines = format!("mtu = 1279\n[[peer]]\npublic_key = \"{}\"\nallowed_ips = [\"::/0\"]", key(1));
    refuses(&interface(&peer_lines), expected);
    assert_eq!(told(&interface("mtu = 1280\naddress = [\"fd00::1/64\"]")), [""; 0]);
    assert_eq!(told(&interface("mtu = 1279\naddress = [\"10.0.0.1/8\"]")), [""; 0]);
}

#[test]
fn names_that_cannot_be_are_refused() {
    refuses(
        &interface("name = \"a/b\""),
        "peer.toml:3: interface.name: found a name with /, : or %: \"a/b\"; write 1 to 15 letters, digits, - or _, \
         such as \"vpn0\"",
    );
    refuses(
        &interface("name = \"sixteen_bytes_xx\""),
        "peer.toml:3: interface.name: found a name of more than 15 bytes: \"sixteen_bytes_xx\"; write 1 to 15 letters, \
         digits, - or _, such as \"vpn0\"",
    );
    refuses(
        &peer("name = \"two\\nlines\""),
        "peer.toml:5: peer[1].name: found a name with control characters: \"two\\nlines\"; write up to 64 visible \
         characters, such as \"laptop\", or take it out",
    );
}

#[test]
fn an_address_of_the_device_is_one_of_a_host_and_stands_once() {
    refuses(
        &interface("address = [\"10.0.0.1/24\",\n\"10.0.0.1/32\"]"),
        "peer.toml:4: interface.address: found 10.0.0.1 a second time; write each address once",
    );
    refuses(
        &interface("address = [\"224.0.0.1/4\"]"),
        "peer.toml:3: interface.address: found 224.0.0.1/4, which no host can have; write an address such as \
         10.77.0.1/24",
    );
    refuses(
        &interface("address = [\"10.0.0\"]"),
        "peer.toml:3: interface.address: found \"10.0.0\", which is no IP address; write an address and a length, such \
         as \"10.77.0.1/24\"",
    );
}

#[test]
fn sockets_are_their_owners_alone_until_a_group_is_named_and_never_everybodys() {
    let sockets = |lines: &str| read(&interface(lines)).unwrap().interface.sockets;
    assert_eq!(sockets(""), SocketAccess::default());
    assert_eq!(sockets("").mode, 0o600);
    let named = sockets("socket_owner = \"1000\"\nsocket_group = \"vpnadmin\"");
    let (owner, group) = (Some("1000".to_owned()), Some("vpnadmin".to_owned()));
    assert_eq!(named, SocketAccess { owner, group, mode: 0o660 });
    assert_eq!(sockets("socket_group = \"vpnadmin\"\nsocket_mode = \"600\"").mode, 0o600);
    refuses(
        &interface("socket_mode = \"0666\""),
        "peer.toml:3: interface.socket_mode: found 0666, with which every user of this host could read the private \
         key; write \"0660\", and name the group that may with socket_group",
    );
    for wrong in ["0770", "7", "rw", "00600", "", "+600"] {
        let text = interface(&format!("socket_mode = {wrong:?}"));
        let error = read(&text).unwrap_err().to_string();
        assert!(error.contains("interface.socket_mode: found "), "{wrong}: {error}");
    }
    refuses(
        &interface("socket_group = \"a b\""),
        "peer.toml:3: interface.socket_group: found \"a b\", which names nobody; write a name or a number, such as \
         \"vpnadmin\"",
    );
}

#[test]
fn hooks_are_read_with_their_defaults() {
    let text = interface(
        "metrics_listen = \"[::1]:9586\"\n[[hook]]\nrun = [\"/bin/true\"]\n[[hook]]\nrun = [\"/bin/echo\", \"a b\"]\n\
         events = [\"refused\"]\ntimeout = 3",
    );
    let config = read(&text).unwrap();
    assert_eq!(config.interface.metrics_listen, Some("[::1]:9586".parse().unwrap()));
    let [first, second] = &config.hooks[..] else { panic!("{:?}", config.hooks) };
    assert_eq!(
        (first.program.to_str(), first.arguments.len(), first.timeout.as_secs()),
        (Some("/bin/true"), 0, 10)
    );
    assert_eq!(first.events, ["connected", "roamed", "silent"]);
    assert_eq!((&second.arguments[..], second.timeout.as_secs()), (&["a b".to_owned()][..], 3));
    assert_eq!(second.events, ["refused"]);
}

#[test]
fn hooks_that_cannot_work_are_refused() {
    let cases = [
        ("", "run: found no command; add run = [\"/usr/local/bin/on-event\"]"),
        ("run = []", "run: found an empty list; write run = [\"/usr/local/bin/on-event\"]"),
        ("run = \"/bin/true\"", "run: found the text \"/bin/true\"; write a list: run = [\"/bin/true\"]"),
        (
            "run = [\"notify\"]",
            "run: found the program \"notify\"; write its whole path, such as /usr/local/bin/on-event; no shell looks \
             for it",
        ),
        (
            "run = [\"/bin/true\"]\ntimeout = 0",
            "timeout: found the number 0; write seconds from 1 to 300, or take it out for 10",
        ),
        (
            "run = [\"/bin/true\"]\ntimeuot = 1",
            "timeuot: found the unknown key \"timeuot\"; write timeout, or take the line out",
        ),
    ];
    for (lines, told_as) in cases {
        let problems = told(&interface(&format!("[[hook]]\n{lines}")));
        let [problem] = &problems[..] else { panic!("{lines}: {problems:?}") };
        assert!(problem.ends_with(&format!("hook[1].{told_as}")), "{problem}");
    }
    let problems = told(&interface("[[hook]]\nrun = [\"/bin/true\"]\nevents = [\"conected\"]"));
    assert!(problems[0].contains("the unknown event \"conected\"; write some of started, "), "{problems:?}");
    for address in ["localhost:9586", "127.0.0.1", "127.0.0.1:0"] {
        let problems = told(&interface(&format!("metrics_listen = {address:?}")));
        assert!(problems[0].contains("write an address and a port"), "{problems:?}");
    }
    let many = "[[hook]]\nrun = [\"/bin/true\"]\n".repeat(33);
    assert!(told(&interface(&many))[0].contains("hook[33]: found more than 32 hooks"));
}
