//! Reads back what a machine really costs, and what of it is billed now. The
//! ledger takes the provider's word, never the offer's; a price above what its
//! run allows is a finding, and such a machine is not begun with. A price that
//! cannot be is doubted: it ends nobody's work and is told.

use lifecycle::MachineId;
use lifecycle::meter::{Rates, Word};
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
    let most = run.body.spec.max_usd_per_hour;
    let doubted = row.body.meter.is_doubted();
    if let Some((sent, received)) = core.health.traffic(id) {
        row.body.meter.traffic(sent, received);
    }
    let word = match terms.rates {
        Some(said) => row.body.meter.hear(now, terms.billed, said, most),
        None => {
            row.body.meter.look(now, terms.billed, before);
            Word::Sound
        }
    };
    let rates = row.body.meter.rates;
    if row.body.conduct.host.is_empty() {
        // Found by its label: only now its host is known.
        let spec = run.body.steer.machine(&run.body.spec.machine);
        let lied = row.body.conduct.lied;
        row.body.conduct = reputation::conduct(&*provider, &instance, spec).await;
        row.body.conduct.lied |= lied;
    }
    if let (Some(said), Word::Doubted | Word::Repeated) = (terms.rates, word) {
        return doubt(core, row, &run.body, (before, said), word).await;
    }
    if doubted && !row.body.meter.is_doubted() {
        core.alert(&format!("doubt {id}"), None);
    }
    if rates == before {
        if doubted || due || was != terms.billed {
            core.commit_quietly(Changes::default().put(&row)).await?;
        }
        return Ok(());
    }
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

/// Its provider says a price that cannot be. One that has not begun to work is
/// not begun with; the others work on, and people are told.
async fn doubt(
    core: &Core,
    mut row: Versioned<Machine>,
    run: &Run,
    (before, said): (Rates, Rates),
    word: Word,
) -> Result<(), CoreError> {
    let id = row.body.id;
    let counted = row.body.meter.rates;
    row.body.usd_per_hour = counted.hourly();
    let counts = match word {
        Word::Repeated => format!("it said so again: ${:.4}/h are counted", counted.hourly()),
        _ => format!("${:.4}/h are counted until it says so again", counted.hourly()),
    };
    let text = format!(
        "its provider says that it costs ${:.4}/h, ${:.4} for each GB from it and ${:.4} for each to it, which cannot be; {counts}",
        said.hourly(),
        said.up_usd_per_gb,
        said.down_usd_per_gb
    );
    let condemns = !row.body.condemned && !works(core, run, id).await?;
    if condemns {
        row.body.condemned = true;
        row.body.reason = format!("{}{text}", plan::UNFIT);
        super::avoid_host(core, row.body.run, id, "its price cannot be").await?;
    }
    let alert = format!("machine {}: {text}", id.short());
    let news = !core.alerts().contains(&alert);
    core.alert(&format!("doubt {id}"), Some(alert));
    row.body.conduct.lied = true;
    let mut changes = Changes::default().put(&row);
    if news || condemns {
        let detail = json!({
            "usd_per_hour": counted.hourly(), "said_usd_per_hour": said.hourly(),
            "said_up_usd_per_gb": said.up_usd_per_gb, "said_down_usd_per_gb": said.down_usd_per_gb,
            "before": before.hourly(), "again": word == Word::Repeated,
        });
        changes = changes.note(core, SELF, "price-doubted", id, Some(row.body.run), detail);
    }
    core.commit(changes).await?;
    Ok(())
}

/// Whether a program of its run has begun on it.
async fn works(core: &Core, run: &Run, id: MachineId) -> Result<bool, CoreError> {
    let Some(bound) = run.bound else { return Ok(false) };
    let attempt: Option<Versioned<Attempt>> = core.load(&bound.to_string()).await?;
    Ok(attempt.is_some_and(|a| a.body.machine == id && a.body.program_started && !a.body.status.is_final()))
}

#[cfg(test)]
mod tests;
