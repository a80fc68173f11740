//! Machines that could be rented now, what is remembered of their hosts, and
//! what a submission would rent, as people's tools ask for them. Translates and
//! decides nothing; nothing is rented here.

use std::time::Duration;

use lifecycle::choice::{Appraisal, Outlook};
use lifecycle::question::Trouble;
use lifecycle::reputation::Reputation;
use lifecycle::spec::{MachineSpec, Market};
use lifecycle::{RunSpec, RunState, choice};
use proto::v1;
use tonic::metadata::{MetadataMap, MetadataValue};
use tonic::{Code, Status};

use crate::core::Core;
use crate::model::{Host, Of, Run};
use crate::provider::{NoOffers, Offer, Provider, Reach};
use crate::{money, reputation};

/// Longest description of a machine taken, and of a run.
const SPEC_MAX: usize = 64 << 10;
const RUN_MAX: usize = 256 << 10;
/// Offers told at most, and hosts.
const TOLD_MAX: usize = 500;
const HOSTS_MAX: usize = 1_000;
/// Whoever waits at a terminal does not wait longer for a vendor.
const PATIENCE: Duration = Duration::from_secs(20);

/// Asks a provider.
///
/// # Errors
/// Where the description is none, there is no such provider, or it does not
/// answer.
pub(super) async fn list(core: &Core, ask: v1::OffersRequest) -> Result<v1::OfferList, Status> {
    let provider = core.provider(&ask.provider)?;
    let machine = machine(&ask.machine_json)?;
    provider.ready().map_err(Status::failed_precondition)?;
    let mut known = reputation::known(core, provider.name()).await?;
    known.work.hours = amount(ask.work_hours);
    known.reference_gpu = ask.reference_gpu.chars().take(64).collect();
    let most = amount(ask.max_usd_per_hour);
    let found = asked(&*provider, &machine, most, &known).await?;
    let reference = known.reference(found.iter().map(|offer| (offer.gpu.as_str(), offer.speed)));
    let offers = found.into_iter().take(TOLD_MAX).map(|offer| shown(offer, &known, machine.market));
    let offers = offers.map(|offer| v1::Offer { reference_gpu: reference.clone(), ..offer });
    Ok(v1::OfferList { offers: offers.collect() })
}

/// What a provider offers now.
///
/// # Errors
/// Where it does not answer: `unavailable`, marked as a provider's; where it has
/// no market or refuses the key: `failed_precondition`.
pub(super) async fn asked(
    provider: &dyn Provider,
    machine: &MachineSpec,
    most: Option<f64>,
    known: &Appraisal,
) -> Result<Vec<Offer>, Status> {
    provider.offers(machine, most, known).await.map_err(|none| silent(provider.name(), &none))
}

/// Only what may pass by itself is a provider that does not answer: elsewhere
/// there is no use in waiting.
fn silent(provider: &str, NoOffers { why, trouble }: &NoOffers) -> Status {
    match trouble {
        Trouble::Key => {
            return Status::failed_precondition(format!("`{provider}` does not accept its key: {why}"));
        }
        Trouble::Credit | Trouble::Invalid => return Status::failed_precondition(why.clone()),
        Trouble::Passing | Trouble::Quota | Trouble::NoOffer => {}
    }
    let mut marks = MetadataMap::new();
    marks.insert(proto::FROM_PROVIDER, MetadataValue::from_static("1"));
    Status::with_metadata(Code::Unavailable, format!("`{provider}` does not answer: {why}"), marks)
}

/// A description of a machine.
///
/// # Errors
/// Where it is none.
pub(super) fn machine(json: &str) -> Result<MachineSpec, Status> {
    if json.len() > SPEC_MAX {
        return Err(Status::invalid_argument("the machine's description is too long"));
    }
    serde_json::from_str(json)
        .map_err(|e| Status::invalid_argument(format!("the machine's description: {e}")))
}

/// A number that is more than 0; others mean that none was given.
pub(super) fn amount(number: f64) -> Option<f64> {
    Some(number).filter(|number| number.is_finite() && *number > 0.0)
}

/// An offer as it is told.
pub(super) fn shown(offer: Offer, known: &Appraisal, market: Market) -> v1::Offer {
    let none = Reputation::default();
    let host = known.hosts.get(&offer.machine);
    let prior = known.kinds.get(&choice::kind(&offer.gpu, market)).unwrap_or(&none);
    let prior_s = prior.between_losses_s(choice::prior_s(market, offer.reliability));
    v1::Offer {
        reputation: host.unwrap_or(&none).score(prior_s),
        known: host.is_some(),
        outlook: Some(told(&offer.outlook)),
        reference_gpu: String::new(),
        id: offer.id,
        gpu: offer.gpu,
        gpus: offer.gpus,
        gpu_memory_bytes: offer.gpu_memory_bytes,
        place: offer.place,
        machine: offer.machine,
        reliability: offer.reliability,
        usd_per_hour: offer.usd_per_hour,
        down_usd_per_gb: offer.down_usd_per_gb,
        up_usd_per_gb: offer.up_usd_per_gb,
        speed_per_usd: offer.speed_per_usd,
        speed: offer.speed,
    }
}

fn told(outlook: &Outlook) -> v1::Outlook {
    v1::Outlook {
        hours: outlook.hours,
        usd: outlook.usd,
        usd_per_useful_hour: outlook.usd_per_useful_hour,
        work_hours: outlook.work_hours,
        useful: outlook.useful,
        losses: outlook.losses,
        chance_up: outlook.chance_up,
        boot_seconds: outlook.boot_s,
        between_losses_seconds: outlook.between_losses_s,
        speed: outlook.speed,
    }
}

/// What is remembered, of which most is known first.
///
/// # Errors
/// Where the store fails.
pub(super) async fn hosts(core: &Core, ask: v1::HostsRequest) -> Result<v1::HostList, Status> {
    let now = core.clock.wall_ms();
    let mut rows: Vec<Host> = core.all::<Host>().await?.into_iter().map(|row| row.body).collect();
    rows.retain(|row| ask.provider.is_empty() || row.provider == ask.provider);
    let weight = |row: &Host| row.record.at(now).weight();
    rows.sort_by(|a, b| weight(b).total_cmp(&weight(a)).then_with(|| a.name.cmp(&b.name)));
    let hosts = rows.into_iter().take(HOSTS_MAX).map(|row| {
        let record = row.record.at(now);
        let bid = row.of == Of::Kind && row.name.starts_with("interruptible");
        let market = if bid { Market::Interruptible } else { Market::OnDemand };
        let prior_s = choice::prior_s(market, 0.0);
        v1::HostView {
            of: row.of.as_str().to_owned(),
            score: record.score(prior_s),
            came_up: record.up,
            failed: record.failed,
            boot_seconds: record.mean_boot_s(),
            lived_seconds: record.lived_s,
            losses: record.losses,
            between_losses_seconds: record.between_losses_s(prior_s),
            faults: record.faults,
            lies: record.lies,
            bytes_per_second: record.bandwidth(0.0),
            seen_ms: row.record.at_ms,
            provider: row.provider,
            name: row.name,
        }
    });
    Ok(v1::HostList { hosts: hosts.collect() })
}

/// What a submission would rent.
///
/// # Errors
/// Where the description is none or the store fails; a provider that does not
/// answer is told in words.
pub(super) async fn preflight(core: &Core, ask: v1::PreflightRequest) -> Result<v1::PreflightReply, Status> {
    if ask.spec_json.len() > RUN_MAX {
        return Err(Status::invalid_argument("the run's description is too long"));
    }
    let spec: RunSpec = serde_json::from_str(&ask.spec_json)
        .map_err(|e| Status::invalid_argument(format!("the run's description: {e}")))?;
    let provider = core.provider(&spec.provider)?;
    // Where machines are this very computer, nothing is safer than it is.
    let local_store = provider.reach() == Reach::ControllerDials
        && core.local_store.load(std::sync::atomic::Ordering::Relaxed);
    if !provider.is_paid() {
        return Ok(v1::PreflightReply { local_store, ..v1::PreflightReply::default() });
    }
    let known = reputation::known(core, provider.name()).await?;
    let mut reply = v1::PreflightReply {
        paid: true,
        least_cap_usd: money::least_cap(&spec, &spec.machine, 0, true),
        local_store,
        hours_before: before(core, &spec).await?,
        ..v1::PreflightReply::default()
    };
    // What is missing for a submission is told where that is refused.
    let found = match provider.ready() {
        Ok(()) => offered(&*provider, &spec, &known).await,
        Err(why) => Err(why),
    };
    match found {
        Ok(found) => {
            let prices = || found.iter().map(|offer| offer.usd_per_hour);
            reply.offers = u32::try_from(found.len()).unwrap_or(u32::MAX);
            reply.least_usd_per_hour = prices().reduce(f64::min).unwrap_or(0.0);
            reply.most_usd_per_hour = prices().reduce(f64::max).unwrap_or(0.0);
            reply.first = found.into_iter().next().map(|offer| shown(offer, &known, spec.machine.market));
        }
        Err(why) => reply.problem = why,
    }
    Ok(reply)
}

async fn offered(provider: &dyn Provider, spec: &RunSpec, known: &Appraisal) -> Result<Vec<Offer>, String> {
    let asked = provider.offers(&spec.machine, spec.max_usd_per_hour, known);
    match tokio::time::timeout(PATIENCE, asked).await {
        Ok(found) => found.map_err(|none| none.why),
        Err(_) => Err(format!("`{}` did not answer in time", provider.name())),
    }
}

/// Hours that the newest run of the same project with the same command took.
async fn before(core: &Core, spec: &RunSpec) -> Result<f64, Status> {
    let all = core.all::<Run>().await?.into_iter().map(|row| row.body);
    let same = |run: &Run| {
        run.status == RunState::Succeeded
            && run.spec.project == spec.project
            && run.spec.command == spec.command
            && run.ended_ms > run.created_ms
    };
    let newest = all.filter(same).max_by_key(|run| run.ended_ms);
    #[expect(clippy::cast_precision_loss, reason = "milliseconds of years fit")]
    let hours = |run: Run| (run.ended_ms - run.created_ms) as f64 / 3_600_000.0;
    Ok(newest.map_or(0.0, hours))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::Ordering;

    use super::*;
    use crate::bench;
    use crate::core::Parts;
    use crate::provider::ssh::{SshProvider, configured};
    use crate::provider::{LocalConfig, LocalProvider};

    #[tokio::test]
    async fn checkpoints_on_this_computer_alone_are_told_of_where_machines_are_elsewhere() {
        let dir = tempfile::tempdir().unwrap();
        let objects = artifacts::store::MemoryStore::default();
        let local = LocalProvider::new(LocalConfig { root: dir.path().join("machines"), usd_per_hour: 0.0 });
        let ssh = SshProvider::new(configured(dir.path(), "hub", &|_| None).unwrap());
        let providers =
            [("local".to_owned(), Arc::new(local) as Arc<dyn Provider>), ("ssh".to_owned(), Arc::new(ssh))];
        let parts = bench::parts(dir.path(), Arc::new(objects));
        let core = Core::new(Parts { providers: providers.into(), ..parts });
        for (provider, local_store, told) in
            [("ssh", true, true), ("ssh", false, false), ("local", true, false)]
        {
            core.local_store.store(local_store, Ordering::Relaxed);
            let spec =
                serde_json::json!({"project": "p", "name": "n", "command": ["x"], "provider": provider});
            let reply = preflight(&core, v1::PreflightRequest { spec_json: spec.to_string() }).await.unwrap();
            assert_eq!((reply.paid, reply.local_store), (false, told), "{provider} {local_store}");
        }
    }

    #[test]
    fn only_what_passes_by_itself_is_a_provider_that_does_not_answer() {
        let said = |trouble| silent("vast", &NoOffers { why: "why".into(), trouble });
        for trouble in [Trouble::Passing, Trouble::Quota] {
            assert!(said(trouble).metadata().contains_key(proto::FROM_PROVIDER), "{trouble:?}");
        }
        for trouble in [Trouble::Key, Trouble::Credit, Trouble::Invalid] {
            assert_eq!(said(trouble).code(), Code::FailedPrecondition, "{trouble:?}");
        }
    }
}
