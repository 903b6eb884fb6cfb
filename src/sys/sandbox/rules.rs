//! The lists as filters: which calls have conditions on their arguments, and what becomes of the others.

use std::collections::BTreeMap;

use seccompiler::{
    BackendError, BpfProgram, SeccompAction, SeccompCmpArgLen::Dword, SeccompCmpArgLen::Qword, SeccompCmpOp,
    SeccompCondition, SeccompFilter, SeccompRule, TargetArch,
};

use super::{
    list,
    seccomp::{Absent, Stage},
};

/// The filters of a stage; of what they say, the strictest counts.
pub(super) fn of(stage: Stage) -> Result<Vec<BpfProgram>, Absent> {
    let softened = softened(stage);
    let mut programs = vec![];
    if !softened.is_empty() {
        programs.push(filter(softened, SeccompAction::Allow, errno_of(stage))?);
    }
    programs.push(filter(allowed(stage)?, SeccompAction::KillProcess, SeccompAction::Allow)?);
    Ok(programs)
}

/// Calls that lead out of a process fail, all others pass.
pub(super) fn without_ways_out() -> Result<BpfProgram, Absent> {
    let rules = list::WAYS_OUT.iter().map(|number| (widened(*number), Vec::new())).collect();
    filter(rules, SeccompAction::Allow, SeccompAction::Errno(libc::EPERM as u32))
}

type Rules = BTreeMap<i64, Vec<SeccompRule>>;

fn filter(rules: Rules, others: SeccompAction, these: SeccompAction) -> Result<BpfProgram, Absent> {
    let target = TargetArch::try_from(std::env::consts::ARCH).map_err(|_| Absent::Architecture)?;
    Ok(SeccompFilter::new(rules, others, these, target)?.try_into()?)
}

/// Calls that fail and kill nobody.
fn softened(stage: Stage) -> Rules {
    let numbers: &[libc::c_long] = match stage {
        // Its flags lie in memory, where no filter sees them: the C library then uses the older call.
        Stage::SetUp => &[libc::SYS_clone3],
        Stage::Running { .. } => &[],
        Stage::Data => list::FILES,
    };
    numbers.iter().map(|number| (widened(*number), Vec::new())).collect()
}

fn errno_of(stage: Stage) -> SeccompAction {
    SeccompAction::Errno(if stage == Stage::Data { libc::EACCES } else { libc::ENOSYS } as u32)
}

fn allowed(stage: Stage) -> Result<Rules, BackendError> {
    let mut numbers = [list::DATA, list::FILES].concat();
    if stage != Stage::Data {
        numbers.extend(list::RUNNING);
    }
    if stage == Stage::SetUp {
        numbers.extend(list::SET_UP);
    }
    if matches!(stage, Stage::SetUp | Stage::Running { chown: true }) {
        numbers.extend(list::CHOWN);
    }
    let mut rules: Rules = numbers.into_iter().map(|number| (widened(number), Vec::new())).collect();
    for (number, conditions) in conditional(stage)? {
        // What is allowed anyway needs no condition.
        let Some(known) = rules.get(&number) else {
            rules.insert(number, conditions);
            continue;
        };
        debug_assert!(known.is_empty());
    }
    Ok(rules)
}

/// Calls that are allowed with some arguments.
fn conditional(stage: Stage) -> Result<Vec<(i64, Vec<SeccompRule>)>, BackendError> {
    let own = u64::from(std::process::id());
    let never_executed = || one_of(&[&[flags(2, libc::PROT_EXEC as u64, 0)]]);
    let mut rules = vec![
        (libc::SYS_mmap, never_executed()?),
        (libc::SYS_mprotect, never_executed()?),
        (
            libc::SYS_ioctl,
            one_of(&list::IOCTL.map(|request| [is(1, request)]).each_ref().map(|one| &one[..]))?,
        ),
        (libc::SYS_fcntl, any(1, list::FCNTL)?),
        // abort(3).
        (libc::SYS_tgkill, one_of(&[&[is(0, own)]])?),
        (libc::SYS_socket, sockets(stage)?),
    ];
    if stage != Stage::Data {
        // Threads, in the namespaces where we are.
        const THREAD: u64 = libc::CLONE_THREAD as u64;
        rules.push((libc::SYS_clone, one_of(&[&[flags(0, THREAD | list::NAMESPACES, THREAD)]])?));
        rules.push((libc::SYS_prctl, any(0, list::PRCTL)?));
        rules.push((libc::SYS_seccomp, one_of(&[&[is(0, u64::from(libc::SECCOMP_SET_MODE_FILTER))]])?));
        rules.push((libc::SYS_sched_setattr, one_of(&[&[is(0, 0)]])?));
        // getrlimit(3): nobody's limit is set.
        rules.push((libc::SYS_prlimit64, one_of(&[&[all(2, 0)]])?));
    }
    Ok(rules.into_iter().map(|(number, rules)| (widened(number), rules)).collect())
}

/// No raw socket; of netlink the routes, and the firewall's for what a packet was before NAT.
fn sockets(stage: Stage) -> Result<Vec<SeccompRule>, BackendError> {
    const KIND: u64 = 0xf;
    let of_family = |family: libc::c_int| is(0, family as u64);
    let of_kind = |kind: libc::c_int| flags(1, KIND, kind as u64);
    let netlink = |protocol: libc::c_int| [of_family(libc::AF_NETLINK), is(2, protocol as u64)];
    let ip = |family, kind| [of_family(family), of_kind(kind)];
    let mut rules = vec![
        ip(libc::AF_INET, libc::SOCK_DGRAM).to_vec(),
        ip(libc::AF_INET6, libc::SOCK_DGRAM).to_vec(),
        netlink(libc::NETLINK_NETFILTER).to_vec(),
    ];
    if stage != Stage::Data {
        rules.push(ip(libc::AF_INET, libc::SOCK_STREAM).to_vec());
        rules.push(ip(libc::AF_INET6, libc::SOCK_STREAM).to_vec());
        rules.push(netlink(libc::NETLINK_ROUTE).to_vec());
        rules.push(vec![of_family(libc::AF_UNIX)]);
    }
    let rules: Vec<&[Condition]> = rules.iter().map(Vec::as_slice).collect();
    one_of(&rules)
}

/// Of the argument at this place.
#[derive(Clone, Copy)]
struct Condition {
    argument: u8,
    wide: bool,
    mask: Option<u64>,
    value: u64,
}

/// The lower half is this.
fn is(argument: u8, value: u64) -> Condition {
    Condition { argument, wide: false, mask: None, value: value & u64::from(u32::MAX) }
}

/// The whole is this.
fn all(argument: u8, value: u64) -> Condition {
    Condition { argument, wide: true, mask: None, value }
}

/// What the mask leaves of the whole is this.
fn flags(argument: u8, mask: u64, value: u64) -> Condition {
    Condition { argument, wide: true, mask: Some(mask), value }
}

/// Each alternative is a list of conditions that all hold.
fn one_of(alternatives: &[&[Condition]]) -> Result<Vec<SeccompRule>, BackendError> {
    let condition = |condition: &Condition| {
        let Condition { argument, wide, mask, value } = *condition;
        let operator = mask.map_or(SeccompCmpOp::Eq, SeccompCmpOp::MaskedEq);
        SeccompCondition::new(argument, if wide { Qword } else { Dword }, operator, value)
    };
    let rule = |all: &&[Condition]| SeccompRule::new(all.iter().map(condition).collect::<Result<_, _>>()?);
    alternatives.iter().map(rule).collect()
}

/// The argument is one of these.
fn any(argument: u8, values: &[libc::c_int]) -> Result<Vec<SeccompRule>, BackendError> {
    let conditions: Vec<_> = values.iter().map(|value| [is(argument, *value as u64)]).collect();
    let alternatives: Vec<&[Condition]> = conditions.iter().map(<[Condition; 1]>::as_slice).collect();
    one_of(&alternatives)
}

#[allow(clippy::useless_conversion)] // a C long is 32 bits on some
fn widened(number: libc::c_long) -> i64 {
    i64::from(number)
}
