//! Reads back what a machine really costs, and what of it is billed now. The
//! ledger takes the provider's word, never the offer's; a price above what its
//! run allows is a finding, and such a machine is not begun with.

use lifecycle::MachineId;
use serde_json::json;

use super::SELF;
use crate::core::{Changes, Core, CoreError};
use crate::model::{Attempt, Machine, Run, Versioned};
use crate::plan;
use crate::reputation;

/// A price may differ from the one agreed by what rounding makes of it.
const PRICE_SLACK: f64 = 1.001;
/// Where nothing changes the meter is settled this often: until then what was
/// not looked at counts as if it ran.
const SETTLE_MS: u64 = 50_000;

/// Looks at every machine of a provider that may be billed.
pub(super) async fn look_at_all(core: &Core, provider: &str) -> Result<(), CoreError> {
    let all: Vec<Versioned<Machine>> = core.all().await?;
    for machine in all.into_iter().map(|row| row.body) {
        if machine.provider == provider && machine.meter.is_on() && !machine.status.is_final() {
            look(core, machine.id).await?;
        }
    }
    Ok(())
}

/// Looks at one machine of a paid provider.
///
/// # Errors
/// Where the store fails.
pub(in crate::execute) async fn look(core: &Core, id: MachineId) -> Result<(), CoreError> {
    let row: Versioned<Machine> = core.need(&id.to_string()).await?;
    let provider = core.provider(&row.body.provider)?;
    let Some(instance) = row.body.instance.clone().filter(|_| provider.is_paid()) else { return Ok(()) };
    if row.body.status.is_final() {
        return Ok(());
    }
    let Some(terms) = provider.terms(&instance).await else { return Ok(()) };
    // As it is now: asking took its time.
    let mut row: Versioned<Machine> = core.need(&id.to_string()).await?;
    if row.body.status.is_final() {
        return Ok(());
    }
    let run: Versioned<Run> = core.need(&row.body.run.to_string()).await?;
    let now = core.clock.wall_ms();
    let before = row.body.meter.rates;
    let was = row.body.meter.billed();
    let due = row.body.meter.looked_ms() + SETTLE_MS <= now;
    let rates = terms.rates.unwrap_or(before);
    if let Some((sent, received)) = core.health.traffic(id) {
        row.body.meter.traffic(sent, received);
    }
    row.body.meter.look(now, terms.billed, rates);
    if row.body.conduct.host.is_empty() {
        // Found by its label: only now its host is known.
        let spec = run.body.steer.machine(&run.body.spec.machine);
        row.body.conduct = reputation::conduct(&*provider, &instance, spec).await;
    }
    if rates == before {
        if due || was != terms.billed {
            core.commit_quietly(Changes::default().put(&row)).await?;
        }
        return Ok(());
    }
    let most = run.body.spec.max_usd_per_hour;
    let dear = most.is_some_and(|most| rates.hourly() > most * PRICE_SLACK);
    row.body.usd_per_hour = rates.hourly();
    // The first price is the dearest of the offers that were tried.
    let lies = rates.hourly() > before.hourly() * PRICE_SLACK;
    row.body.conduct.lied |= lies || dear;
    let verb = if lies || dear { "dearer-than-offered" } else { "priced" };
    if dear && !row.body.condemned {
        let text =
            format!("it costs ${:.4}/h, and max_usd_per_hour is ${:.4}", rates.hourly(), most.unwrap_or(0.0));
        if works(core, &run.body, id).await? {
            // Its work since the last save is worth more than the difference;
            // the caps count the real price.
            core.alert(&format!("price {id}"), Some(format!("machine {}: {text}", id.short())));
        } else {
            row.body.condemned = true;
            row.body.reason = format!("{}{text}", plan::UNFIT);
            // The same host would do the same again.
            super::avoid_host(core, row.body.run, id, "it is dearer than offered").await?;
        }
    }
    let detail = json!({
        "usd_per_hour": rates.hourly(), "disk_usd_per_hour": rates.disk_usd_per_hour,
        "up_usd_per_gb": rates.up_usd_per_gb, "down_usd_per_gb": rates.down_usd_per_gb,
        "before": before.hourly(), "said": terms.said,
    });
    core.commit(Changes::default().put(&row).note(core, SELF, verb, id, Some(row.body.run), detail)).await?;
    Ok(())
}

/// Whether a program of its run has begun on it.
async fn works(core: &Core, run: &Run, id: MachineId) -> Result<bool, CoreError> {
    let Some(bound) = run.bound else { return Ok(false) };
    let attempt: Option<Versioned<Attempt>> = core.load(&bound.to_string()).await?;
    Ok(attempt.is_some_and(|a| a.body.machine == id && a.body.program_started && !a.body.status.is_final()))
}
