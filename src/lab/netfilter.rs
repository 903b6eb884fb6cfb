//! Counters at netfilter's hooks, in a table of our own: how often, and as what, a packet walks the stack.

use std::{borrow::Cow, ops::Sub};

use nftables::{
    batch::Batch,
    expr::{Expression, Meta, MetaKey, NamedExpression, Payload, PayloadField},
    helper::{self, NftablesError},
    schema::{Chain, Counter, NfListObject, NfObject, Rule, Table},
    stmt::{self, Match, Operator, Statement},
    types::{NfChainType, NfFamily, NfHook},
};

use super::namespace::Namespace;

/// Packets and their bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
    /// How many.
    pub packets: u64,
    /// Bytes of all of them, from the IP header on.
    pub bytes: u64,
}

impl Sub for Count {
    type Output = Self;
    fn sub(self, earlier: Self) -> Self {
        Self {
            packets: self.packets.saturating_sub(earlier.packets),
            bytes: self.bytes.saturating_sub(earlier.bytes),
        }
    }
}

/// The four hooks that a host's own packets pass, at one moment or between two.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Hooks {
    /// Packets that programs of this host send.
    pub output: Count,
    /// Packets about to leave by a device.
    pub postrouting: Count,
    /// Packets that a device brought.
    pub prerouting: Count,
    /// Packets for programs of this host.
    pub input: Count,
}

impl Sub for Hooks {
    type Output = Self;
    fn sub(self, earlier: Self) -> Self {
        Self {
            output: self.output - earlier.output,
            postrouting: self.postrouting - earlier.postrouting,
            prerouting: self.prerouting - earlier.prerouting,
            input: self.input - earlier.input,
        }
    }
}

/// Both walks: of the packet inside the tunnel, and of the UDP packet that carries it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Walks {
    /// The packet that the program sent or will get (IPv4).
    pub inner: Hooks,
    /// The UDP packet that vpnd sent or will get.
    pub outer: Hooks,
}

impl Sub for Walks {
    type Output = Self;
    fn sub(self, earlier: Self) -> Self {
        Self { inner: self.inner - earlier.inner, outer: self.outer - earlier.outer }
    }
}

/// The table `inet vpnd_lab` in one namespace.
pub(super) struct Counters {
    namespace: Namespace,
    nft: &'static str,
}

const TABLE: &str = "vpnd_lab";
/// By their place too: the path of an ordinary user often lacks the folders of the administrator.
const PROGRAMS: [&str; 3] = ["nft", "/usr/sbin/nft", "/sbin/nft"];

impl Counters {
    /// Places the table: packets by `tunnel` are inner, UDP packets to `port` by `wire` are outer. An error is
    /// a sentence: what is missing or what nft said.
    pub(super) fn place(namespace: &Namespace, tunnel: &str, wire: &str, port: u16) -> Result<Self, String> {
        let nft = program().ok_or("the program nft was not found (package nftables)")?;
        let rules = ruleset(tunnel, wire, port);
        namespace
            .run(|| helper::apply_ruleset_with_args(&rules, Some(nft), helper::DEFAULT_ARGS))
            .map_err(|e| explain(&e))?;
        Ok(Self { namespace: namespace.clone(), nft })
    }

    /// What they counted since they were placed.
    pub(super) fn read(&self) -> Result<Walks, String> {
        let arguments = ["list", "counters", "table", "inet", TABLE];
        let list = self
            .namespace
            .run(|| helper::get_current_ruleset_with_args(Some(self.nft), &arguments))
            .map_err(|e| explain(&e))?;
        Ok(sort(&list.objects))
    }
}

/// Where nft is.
pub(super) fn program() -> Option<&'static str> {
    let runs = |program: &&str| {
        let mut command = std::process::Command::new(program);
        command.arg("--version").stdout(std::process::Stdio::null()).status().is_ok_and(|s| s.success())
    };
    PROGRAMS.into_iter().find(runs)
}

fn explain(error: &NftablesError) -> String {
    match error {
        NftablesError::NftFailed { stderr, .. } => format!("nft failed: {}", stderr.trim()),
        other => other.to_string(),
    }
}

/// One hook: its chain, and the device that tells inner from outer there.
struct Place {
    hook: NfHook,
    chain: &'static str,
    device: MetaKey,
}

const PLACES: [Place; 4] = [
    Place { hook: NfHook::Output, chain: "output", device: MetaKey::Oifname },
    Place { hook: NfHook::Postrouting, chain: "postrouting", device: MetaKey::Oifname },
    Place { hook: NfHook::Prerouting, chain: "prerouting", device: MetaKey::Iifname },
    Place { hook: NfHook::Input, chain: "input", device: MetaKey::Iifname },
];

fn ruleset(tunnel: &str, wire: &str, port: u16) -> nftables::schema::Nftables<'static> {
    let mut batch = Batch::new();
    batch.add(NfListObject::Table(Table { family: NfFamily::INet, name: TABLE.into(), handle: None }));
    for place in PLACES {
        batch.add(NfListObject::Chain(Chain {
            family: NfFamily::INet,
            table: TABLE.into(),
            name: place.chain.into(),
            _type: Some(NfChainType::Filter),
            hook: Some(place.hook),
            prio: Some(0),
            ..Chain::default()
        }));
        // Only IPv4 inside: the kernel's own IPv6 chatter on a new device shall not blur the count.
        let inner = [equal(meta(place.device), text(tunnel)), equal(meta(MetaKey::Nfproto), text("ipv4"))];
        add_counted(&mut batch, place.chain, "inner", inner);
        let udp = PayloadField { protocol: "udp".into(), field: "dport".into() };
        let to_port = Expression::Named(NamedExpression::Payload(Payload::PayloadField(udp)));
        let outer =
            [equal(meta(place.device), text(wire)), equal(to_port, Expression::Number(u32::from(port)))];
        add_counted(&mut batch, place.chain, "outer", outer);
    }
    batch.to_nftables()
}

/// A named counter, and the rule that feeds it.
fn add_counted(
    batch: &mut Batch<'static>,
    chain: &'static str,
    walk: &str,
    conditions: [Statement<'static>; 2],
) {
    let name: Cow<'static, str> = format!("{walk}_{chain}").into();
    batch.add(NfListObject::Counter(Counter {
        family: NfFamily::INet,
        table: TABLE.into(),
        name: name.clone(),
        handle: None,
        packets: None,
        bytes: None,
    }));
    let [first, second] = conditions;
    let count = Statement::Counter(stmt::Counter::Named(name));
    batch.add(NfListObject::Rule(Rule {
        family: NfFamily::INet,
        table: TABLE.into(),
        chain: chain.into(),
        expr: vec![first, second, count].into(),
        ..Rule::default()
    }));
}

fn equal(left: Expression<'static>, right: Expression<'static>) -> Statement<'static> {
    Statement::Match(Match { left, right, op: Operator::EQ })
}

fn meta(key: MetaKey) -> Expression<'static> {
    Expression::Named(NamedExpression::Meta(Meta { key }))
}

fn text(value: &str) -> Expression<'static> {
    Expression::String(value.to_owned().into())
}

fn sort(objects: &[NfObject<'_>]) -> Walks {
    let mut walks = Walks::default();
    for object in objects {
        let NfObject::ListObject(NfListObject::Counter(counter)) = object else { continue };
        let Some((walk, chain)) = counter.name.split_once('_') else { continue };
        let hooks = if walk == "inner" { &mut walks.inner } else { &mut walks.outer };
        let count = match chain {
            "output" => &mut hooks.output,
            "postrouting" => &mut hooks.postrouting,
            "prerouting" => &mut hooks.prerouting,
            "input" => &mut hooks.input,
            _ => continue,
        };
        *count = Count {
            packets: counter.packets.unwrap_or_default().into(),
            bytes: counter.bytes.unwrap_or_default().into(),
        };
    }
    walks
}
