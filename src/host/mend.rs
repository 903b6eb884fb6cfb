//! What somebody else removed is put back: addresses, then routes, then rules. Unlike a reload it stops at nothing:
//! what is refused (another program has put its own there) is told, and the rest is done.

use super::{
    HostError,
    apply::{Placed, Work, missing},
    exchange::{BATCH, Exchange},
    plan::Plan,
    policy,
    step::Step,
};

/// What was put back, and what could not be.
#[derive(Debug, Default)]
pub struct Mended {
    /// In the words of `ip`, such as "add route 10.0.0.0/8 dev vpn0 table main"; the first few of many.
    pub put_back: Vec<String>,
    /// How many.
    pub count: usize,
    /// The first refusal.
    pub refused: Option<HostError>,
}

/// Of very many things that went at once the first ones tell enough.
const NAMED: usize = 8;

pub(super) async fn mend(
    exchange: &mut Exchange,
    placed: &mut Placed,
    plan: &Plan,
) -> Result<Mended, HostError> {
    match exchange.link_at(placed.index).await? {
        Some(link) if link.is_up() => {}
        // A device that is gone ends the daemon; one that is down has no routes.
        _ => return Ok(Mended::default()),
    }
    let mut work = Work::new(exchange, &plan.device, placed.index);
    let refused = put_back(&mut work, placed, plan).await?;
    let is_put_back = |step: &&Step| !matches!(step, Step::RemoveRule(_));
    let done = work.done().iter().filter(is_put_back);
    let put_back = done.clone().take(NAMED).map(|step| step.words(&plan.device)).collect();
    Ok(Mended { put_back, count: done.count(), refused })
}

/// Returns the first refusal.
async fn put_back(
    work: &mut Work<'_>,
    placed: &mut Placed,
    plan: &Plan,
) -> Result<Option<HostError>, HostError> {
    let mut refused = None;
    let present = work.addresses().await?;
    refused = refused.or(attempt(work, missing(plan, &present).collect()).await?);
    let (present, _) = work.routes().await?;
    let missing_routes = plan.routes.iter().filter(|route| !present.contains(*route));
    refused = refused.or(attempt(work, missing_routes.map(|route| Step::AddRoute(*route)).collect()).await?);
    let halves = match policy::add(work, &mut placed.rules, plan).await {
        Ok(halves) => halves,
        Err(error) => return Ok(refused.or(Some(error))),
    };
    // What is left of a pair whose other half was removed: a new pair stands in its place.
    work.run_all(halves.iter().map(|rule| Step::RemoveRule(*rule)).collect::<Vec<_>>()).await?;
    placed.rules.retain(|rule| !halves.contains(rule));
    Ok(refused)
}

async fn attempt(work: &mut Work<'_>, steps: Vec<Step>) -> Result<Option<HostError>, HostError> {
    let mut first = None;
    for chunk in steps.chunks(BATCH) {
        let failure = work.run_batch(chunk).await?.into_iter().next();
        if let (None, Some((step, refused))) = (&first, failure) {
            first = Some(work.explain(step, refused).await);
        }
    }
    Ok(first)
}
