//! The difference between the plan and what is there: link, addresses, routes, rules, in this order; then what
//! is no longer wanted, in the reverse order. A failure takes back what this call did.

use std::{collections::HashSet, time::Duration};

use ipnet::IpNet;

use super::{
    HostError,
    error::general_remedy,
    exchange::{BATCH, Exchange, Refused, Request},
    message::{Address, LOCAL_TABLE, Link, PresentRoute, PresentRule},
    plan::{Plan, Route, is_v6},
    policy, return_path,
    step::{Step, table_name},
};

/// Between two looks whether the kernel has made an address local.
const LOCAL_INTERVAL: Duration = Duration::from_millis(5);
/// So many looks: two seconds.
const LOCAL_TRIES: u32 = 400;

/// What we placed, as far as the kernel does not say itself that it is ours.
#[derive(Clone, Debug, Default)]
pub(super) struct Placed {
    pub(super) device: String,
    pub(super) index: u32,
    /// Kernels before 5.18 do not keep our mark on addresses.
    pub(super) addresses: Vec<IpNet>,
    /// In the order in which they were placed.
    pub(super) rules: Vec<PresentRule>,
}

/// One call's work on one device, and what it has done so far.
pub(super) struct Work<'a> {
    pub(super) exchange: &'a mut Exchange,
    pub(super) device: &'a str,
    pub(super) index: u32,
    done: Vec<Step>,
}

/// Brings the host to the plan; `placed` says afterwards what is ours there.
pub(super) async fn apply(
    exchange: &mut Exchange,
    placed: &mut Option<Placed>,
    plan: &Plan,
) -> Result<(), HostError> {
    let link = exchange.link(&plan.device).await?.ok_or_else(|| no_device(plan))?;
    let before = placed.clone().filter(|p| p.index == link.index);
    let mut now = Placed { device: link.name.clone(), index: link.index, ..Placed::default() };
    if let Some(former) = placed.as_ref() {
        // Rules outlive their device: those for a device of the same name before this one are still ours.
        now.rules.clone_from(&former.rules);
    }
    if let Some(former) = &before {
        now.addresses.clone_from(&former.addresses);
    }
    // Known as ours before anything is done: should this call be dropped half-way, `undo` finds it all.
    let now = placed.insert(now);
    let known = now.clone();
    let mut work = Work::new(exchange, &plan.device, link.index);
    match work.bring(now, plan, &link).await {
        Ok(()) => {
            now.addresses.clone_from(&plan.addresses);
            Ok(())
        }
        Err(error) => {
            work.take_back().await;
            *now = known;
            Err(error)
        }
    }
}

/// Removes what was placed: rules before the routes that they point at.
pub(super) async fn undo(exchange: &mut Exchange, placed: Placed) -> Result<(), HostError> {
    let mut work = Work::new(exchange, &placed.device, placed.index);
    let rules = placed.rules.iter().rev().map(|rule| Step::RemoveRule(*rule)).collect::<Vec<_>>();
    let mut outcome = work.run_all(rules).await;
    let device = work.exchange.link_at(placed.index).await;
    if let Ok(None) = device {
        return outcome;
    }
    outcome = outcome.and(device.map(drop));
    for v6 in [false, true] {
        let ours = work.exchange.routes(v6, None, Some(placed.index), |r| r.ours.then_some(r.route)).await;
        let removed = match ours {
            Ok(routes) => work.run_all(routes.into_iter().map(Step::RemoveRoute)).await,
            Err(error) => Err(error),
        };
        outcome = outcome.and(removed);
    }
    let removed = match work.addresses().await {
        Ok(present) => {
            let ours = present.iter().filter(|a| a.ours || placed.addresses.contains(&a.network));
            work.run_all(ours.map(|a| Step::RemoveAddress(a.network)).collect::<Vec<_>>()).await
        }
        Err(error) => Err(error),
    };
    outcome.and(removed)
}

impl<'a> Work<'a> {
    pub(super) fn new(exchange: &'a mut Exchange, device: &'a str, index: u32) -> Self {
        Self { exchange, device, index, done: Vec::new() }
    }

    /// What was done so far.
    pub(super) fn done(&self) -> &[Step] {
        &self.done
    }

    async fn bring(&mut self, now: &mut Placed, plan: &Plan, link: &Link) -> Result<(), HostError> {
        self.bring_link(plan, link).await?;
        self.bring_addresses(now, plan).await?;
        let unwanted_routes = self.add_routes(plan).await?;
        let unwanted_rules = policy::add(self, &mut now.rules, plan).await?;
        self.run(unwanted_rules.iter().map(|rule| Step::RemoveRule(*rule))).await?;
        now.rules.retain(|rule| !unwanted_rules.contains(rule));
        self.run(unwanted_routes.into_iter().map(Step::RemoveRoute)).await?;
        self.await_local(plan).await?;
        return_path::warn(plan);
        Ok(())
    }

    async fn bring_link(&mut self, plan: &Plan, link: &Link) -> Result<(), HostError> {
        let mtu = plan.mtu.into();
        let was_up = link.is_up();
        if !was_up {
            self.silence().await?;
        }
        if link.mtu != mtu || !was_up {
            let gso_max_segs = plan.gso_max_segs;
            let step = Step::SetLink { mtu, up: true, gso_max_segs, former_mtu: link.mtu, was_up };
            self.run([step]).await?;
        }
        Ok(())
    }

    /// Nobody in the tunnel is asked for routers, so that an idle one stays silent: as the kernel's own WireGuard does.
    /// Where it is refused there is no IPv6, and so nothing to silence.
    async fn silence(&mut self) -> Result<(), HostError> {
        let request = Request { flags: 0, message: Link::without_link_local(self.index) };
        let asked = self.exchange.batch(vec![request]).await;
        let attempted = || format!("set link {} addrgenmode none", self.device);
        asked.map(drop).map_err(|e| HostError::new(attempted(), e.into()))
    }

    /// New ones first: when the last IPv4 address goes, the kernel drops all IPv4 routes of the device.
    async fn bring_addresses(&mut self, now: &mut Placed, plan: &Plan) -> Result<(), HostError> {
        let present = self.addresses().await?;
        self.run(missing(plan, &present)).await?;
        let is_ours = |a: &&Address| a.ours || now.addresses.contains(&a.network);
        let is_unwanted = |a: &&Address| !plan.addresses.contains(&a.network);
        let unwanted: Vec<_> = present
            .iter()
            .filter(is_ours)
            .filter(is_unwanted)
            .map(|a| Step::RemoveAddress(a.network))
            .collect();
        now.addresses.extend(&plan.addresses);
        if unwanted.is_empty() {
            return Ok(());
        }
        self.run(unwanted).await?;
        // The first IPv4 address of a subnet takes the others of that subnet with it.
        let present = self.addresses().await?;
        self.run(missing(plan, &present)).await
    }

    /// The kernel makes an IPv6 address local in its own time (a work queue), after it has said yes: on a busy
    /// machine it dropped what came to the address for 100 ms. Waits for that, so that ready means ready.
    async fn await_local(&mut self, plan: &Plan) -> Result<(), HostError> {
        let wanted: Vec<_> = plan.addresses.iter().filter(|a| is_v6(a)).map(IpNet::addr).collect();
        if wanted.is_empty() {
            return Ok(());
        }
        for _ in 0..LOCAL_TRIES {
            let local = |r: PresentRoute| Some(r.route.destination.addr());
            let local = self.exchange.routes(true, Some(LOCAL_TABLE), Some(self.index), local).await?;
            if wanted.iter().all(|address| local.contains(address)) {
                return Ok(());
            }
            tokio::time::sleep(LOCAL_INTERVAL).await;
        }
        tracing::warn!(device = self.device, "the kernel has not made the IPv6 addresses local yet");
        Ok(())
    }

    pub(super) async fn addresses(&mut self) -> Result<Vec<Address>, HostError> {
        let mut present = self.exchange.addresses().await?;
        present.retain(|address| address.index == self.index);
        Ok(present)
    }

    /// The routes to the device, and those of them that are ours.
    pub(super) async fn routes(&mut self) -> Result<(HashSet<Route>, Vec<Route>), HostError> {
        let (mut present, mut ours) = (HashSet::new(), Vec::new());
        for v6 in [false, true] {
            let found = self.exchange.routes(v6, None, Some(self.index), |r| Some((r.route, r.ours))).await?;
            ours.extend(found.iter().filter(|(_, ours)| *ours).map(|(route, _)| *route));
            present.extend(found.into_iter().map(|(route, _)| route));
        }
        Ok((present, ours))
    }

    /// Adds what is missing; returns ours that the plan lacks.
    async fn add_routes(&mut self, plan: &Plan) -> Result<Vec<Route>, HostError> {
        let (present, mut ours) = self.routes().await?;
        self.run(plan.routes.iter().filter(|r| !present.contains(*r)).map(|r| Step::AddRoute(*r))).await?;
        if !ours.is_empty() {
            let wanted: HashSet<_> = plan.routes.iter().collect();
            ours.retain(|route| !wanted.contains(route));
        }
        Ok(ours)
    }

    /// Does the steps, many in one system call; ends after the first call in which one failed.
    pub(super) async fn run(&mut self, steps: impl IntoIterator<Item = Step>) -> Result<(), HostError> {
        let mut steps = steps.into_iter();
        loop {
            let chunk: Vec<_> = steps.by_ref().take(BATCH).collect();
            if chunk.is_empty() {
                return Ok(());
            }
            if let Some((step, refused)) = self.run_batch(&chunk).await?.into_iter().next() {
                return Err(self.explain(step, refused).await);
            }
        }
    }

    /// Does all the steps whatever fails; returns the first failure.
    pub(super) async fn run_all(&mut self, steps: impl IntoIterator<Item = Step>) -> Result<(), HostError> {
        let mut steps = steps.into_iter();
        let mut outcome = Ok(());
        loop {
            let chunk: Vec<_> = steps.by_ref().take(BATCH).collect();
            if chunk.is_empty() {
                return outcome;
            }
            let failed = match self.run_batch(&chunk).await {
                Ok(failures) => failures.into_iter().next().map(|(step, r)| step.error(self.device, r)),
                Err(error) => Some(error),
            };
            outcome = outcome.and(failed.map_or(Ok(()), Err));
        }
    }

    /// One system call. Returns the steps that failed; an error means that it is unknown which did.
    pub(super) async fn run_batch(&mut self, chunk: &[Step]) -> Result<Vec<(Step, Refused)>, HostError> {
        let before = self.done.len();
        // The undo is armed first; what turns out not to have been done is taken off again.
        self.done.extend(chunk);
        let requests = chunk.iter().map(|step| step.request(self.index)).collect();
        let refused = self.exchange.batch(requests).await;
        let refused = refused.map_err(|e| chunk[0].error(self.device, e.into()))?;
        let not_done: HashSet<_> = refused.iter().map(|(position, _)| *position).collect();
        self.done.truncate(before);
        self.done
            .extend(chunk.iter().enumerate().filter(|(i, _)| !not_done.contains(i)).map(|(_, step)| step));
        let failures = refused.into_iter().map(|(position, refused)| (chunk[position], refused));
        Ok(failures.filter(|(step, refused)| !step.is_met_by(refused)).collect())
    }

    /// A route that exists already is somebody's: says whose.
    pub(super) async fn explain(&mut self, step: Step, refused: Refused) -> HostError {
        let Step::AddRoute(route) = step else { return step.error(self.device, refused) };
        if refused.errno() != libc::EEXIST {
            return step.error(self.device, refused);
        }
        let remedy = match self.holder_of(route).await {
            Some(holder) => Some(format!(
                "this host routes {} to {holder} already, in table {}: remove that route, or take the prefix \
                 out of allowed_ips, or set `table`",
                route.destination,
                table_name(route.table),
            )),
            None => general_remedy(libc::EEXIST).map(str::to_owned),
        };
        HostError::with_remedy(step.words(self.device), refused, remedy)
    }

    async fn holder_of(&mut self, route: Route) -> Option<String> {
        let same = |r: super::message::PresentRoute| (r.route == route).then_some(r.index);
        let found =
            self.exchange.routes(is_v6(&route.destination), Some(route.table), None, same).await.ok()?;
        match found.first()? {
            Some(index) => {
                self.exchange.link_at(*index).await.ok()?.map(|link| format!("device {}", link.name))
            }
            None => Some("no single device".into()),
        }
    }

    /// Undoes what this call did, last first. What cannot be undone is told; the first error matters more.
    async fn take_back(&mut self) {
        let steps: Vec<_> = std::mem::take(&mut self.done).into_iter().rev().map(Step::undo).collect();
        if let Err(error) = self.run_all(steps).await {
            tracing::warn!(%error, "not everything could be taken back");
        }
    }
}

pub(super) fn missing<'a>(plan: &'a Plan, present: &[Address]) -> impl Iterator<Item = Step> + use<'a> {
    let present: Vec<_> = present.iter().map(|address| address.network).collect();
    plan.addresses.iter().filter(move |a| !present.contains(a)).map(|a| Step::AddAddress(*a))
}

fn no_device(plan: &Plan) -> HostError {
    let refused = std::io::Error::from_raw_os_error(libc::ENODEV).into();
    HostError::new(format!("show link {}", plan.device), refused)
}
