//! Asks providers what they charged and compares it with the ledger: each hour,
//! and when a person asks. Money that the ledger cannot explain is an alert that
//! stands, and news once. It changes no machine and no cap.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use lifecycle::bill::{Charged, Entry, Finding, Reckoning, Whose, reckon};
use lifecycle::meter::DAY_MS;
use lifecycle::{MachineId, MachineState, RunId};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::core::{Changes, Core, CoreError};
use crate::execute::SELF;
use crate::label;
use crate::model::{Machine, Record, Versioned};
use crate::provider::{Charges, Provider};
use crate::reconcile::chain;
use crate::store::Kind;

/// How often it is compared.
const PERIOD: Duration = Duration::from_hours(1);
/// The first time after a start.
const FIRST: Duration = Duration::from_mins(2);
/// How far back, by itself.
const DAYS: u32 = 7;
/// So long after a machine's end its charges are final.
const FINAL_MS: u64 = DAY_MS;
/// A bill that takes longer is as good as none.
const PATIENCE: Duration = Duration::from_mins(2);
/// Findings told and remembered at most.
pub const FINDINGS: usize = 200;

/// A comparison with one provider.
#[derive(Debug, Clone, PartialEq)]
pub struct Bill {
    /// Whose charges.
    pub provider: String,
    /// Unix milliseconds of the question, and of the first charge looked for.
    pub asked_ms: u64,
    /// See [`Bill::asked_ms`].
    pub from_ms: u64,
    /// What came of it, and whether all charges were read.
    pub outcome: Result<(Reckoning, bool), String>,
    /// Which machine and run each finding is of.
    pub owners: BTreeMap<String, (MachineId, RunId)>,
}

/// The newest comparison with each provider.
#[derive(Debug, Default)]
pub struct Desk(Mutex<BTreeMap<String, Bill>>);

impl Desk {
    fn bills(&self) -> MutexGuard<'_, BTreeMap<String, Bill>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What was found last.
    #[must_use]
    pub fn last(&self) -> Vec<Bill> {
        self.bills().values().cloned().collect()
    }
}

/// What was told already, so that it is news once: instance and dollars.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct Told {
    findings: BTreeMap<String, f64>,
}

impl Record for Told {
    const KIND: Kind = Kind::Meta;
    fn key(&self) -> String {
        "bill".to_owned()
    }
    fn run(&self) -> Option<RunId> {
        None
    }
}

/// Compares each hour until it is stopped.
pub async fn run(core: Arc<Core>, stop: CancellationToken) {
    let mut pause = FIRST;
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
        }
        pause = PERIOD;
        if let Err(error) = compare(&core, DAYS, false).await {
            tracing::warn!(error = chain(&error), "no bill could be compared with the ledger");
        }
    }
}

/// Asks every provider that bills, keeps what was found, and raises or clears
/// its alert. A person who asks is told also why a provider cannot be asked.
///
/// # Errors
/// Where the store fails.
pub async fn compare(core: &Core, days: u32, by_person: bool) -> Result<Vec<Bill>, CoreError> {
    let now = core.clock.wall_ms();
    // Whole days of UTC: so charges are told, and so the ledger keeps them.
    let from_ms = (now / DAY_MS).saturating_sub(u64::from(days)) * DAY_MS;
    let machines: Vec<Machine> =
        core.all().await?.into_iter().map(|row: Versioned<Machine>| row.body).collect();
    let mut bills = Vec::new();
    for (name, provider) in core.providers.iter().filter(|(_, p)| p.is_paid()) {
        let mine: Vec<&Machine> = machines.iter().filter(|m| m.provider == *name).collect();
        if let (Err(why), true) = (provider.ready(), mine.is_empty()) {
            // Whoever never gave a key has no bill there.
            if by_person {
                let owners = BTreeMap::new();
                bills.push(Bill {
                    provider: name.clone(),
                    asked_ms: now,
                    from_ms,
                    outcome: Err(why),
                    owners,
                });
            }
            continue;
        }
        let Some((bill, charges)) = ask(core, &**provider, &mine, (from_ms, now)).await else { continue };
        if let Some(charges) = charges.filter(|charges| charges.complete) {
            settle(core, &charges, &mine, (from_ms, now)).await?;
        }
        // What stands is always about the same time, whoever asks for another.
        let stands = days == DAYS;
        tell(core, &bill, stands).await?;
        if stands {
            core.bills.bills().insert(name.clone(), bill.clone());
        }
        bills.push(bill);
    }
    Ok(bills)
}

async fn ask(
    core: &Core,
    provider: &dyn Provider,
    mine: &[&Machine],
    (from_ms, now): (u64, u64),
) -> Option<(Bill, Option<Charges>)> {
    let asked = match tokio::time::timeout(PATIENCE, provider.charges(from_ms, now)).await {
        Ok(Ok(Some(charges))) => Ok(charges),
        Ok(Ok(None)) => return None,
        Ok(Err(why)) => Err(why),
        Err(_) => Err(format!("no answer within {} s", PATIENCE.as_secs())),
    };
    let mut owners = BTreeMap::new();
    for machine in mine {
        if let Some(instance) = &machine.instance {
            owners.insert(instance.clone(), (machine.id, machine.run));
        }
    }
    let found = |charges: &Charges| (against(core, charges, mine, (from_ms, now)), charges.complete);
    let outcome = asked.as_ref().map(found).map_err(Clone::clone);
    let bill = Bill { provider: provider.name().to_owned(), asked_ms: now, from_ms, outcome, owners };
    Some((bill, asked.ok()))
}

/// What was charged in the end for machines that began and ended since `from_ms`
/// is the provider's last word: where the ledger has more it comes down to that.
async fn settle(
    core: &Core,
    charges: &Charges,
    mine: &[&Machine],
    (from_ms, now): (u64, u64),
) -> Result<(), CoreError> {
    let is_final = |m: &Machine| {
        let ended = m.status == MachineState::Destroyed && m.ended_ms > 0;
        ended && m.called_ms >= from_ms && m.ended_ms.saturating_add(FINAL_MS) <= now
    };
    for machine in mine.iter().filter(|machine| is_final(machine)) {
        let rows = charges.rows.iter().filter(|row| Some(&row.instance) == machine.instance.as_ref());
        let told: Vec<f64> = rows.map(|row| row.usd).collect();
        if told.is_empty() {
            continue;
        }
        let mut row: Versioned<Machine> = core.need(&machine.id.to_string()).await?;
        let before = row.body.cost_usd(now);
        if row.body.status != MachineState::Destroyed || !row.body.meter.charged(told.iter().sum()) {
            continue;
        }
        let detail = json!({"before_usd": before, "cost_usd": row.body.cost_usd(now), "charged_usd": told.iter().sum::<f64>()});
        let note =
            Changes::default().put(&row).note(core, SELF, "charged", machine.id, Some(machine.run), detail);
        core.commit_quietly(note).await?;
    }
    Ok(())
}

fn against(core: &Core, charges: &Charges, mine: &[&Machine], (from_ms, now): (u64, u64)) -> Reckoning {
    let charged: Vec<Charged<'_>> = charges
        .rows
        .iter()
        .map(|row| {
            let whose = if label::is_ours(&row.label, core.hub, &core.label_key) {
                Whose::Ours
            } else if row.label.starts_with(label::EVERYBODY) {
                Whose::Foreign
            } else {
                Whose::Other
            };
            Charged { instance: &row.instance, whose, usd: row.usd }
        })
        .collect();
    let ledger: Vec<Entry<'_>> = mine
        .iter()
        .filter_map(|machine| {
            let instance = machine.instance.as_deref()?;
            Some(Entry { instance, usd: machine.cost_since(from_ms, now) })
        })
        .collect();
    reckon(&charged, &ledger)
}

/// A finding in a sentence.
#[must_use]
pub fn sentence(finding: &Finding) -> String {
    let (instance, billed, ledger) = (&finding.instance, finding.billed_usd, finding.ledger_usd);
    if finding.known {
        format!("instance {instance} was charged with ${billed:.4}, and the ledger bears ${ledger:.4}")
    } else {
        format!(
            "instance {instance} was charged with ${billed:.4} under this installation's label, and no row knows it"
        )
    }
}

async fn tell(core: &Core, bill: &Bill, stands: bool) -> Result<(), CoreError> {
    let key = format!("bill {}", bill.provider);
    let (reckoning, complete) = match &bill.outcome {
        // Not to know is no alarm: it is asked again within the hour.
        Err(why) => {
            tracing::warn!(provider = bill.provider, why, "the bill could not be asked for");
            return Ok(());
        }
        Ok((reckoning, complete)) => (reckoning, *complete),
    };
    let alert = reckoning.findings.first().map(|first| {
        format!(
            "`{}` charged ${:.4} that the ledger does not explain, for {} machine(s): {}; see `outlast cost --bill`",
            bill.provider,
            reckoning.unexplained_usd(),
            reckoning.findings.len(),
            sentence(first)
        )
    });
    // A part of a bill clears nobody.
    if stands && (complete || alert.is_some()) {
        core.alert(&key, alert);
    }
    let mut told: Versioned<Told> =
        core.load(&Told::default().key()).await?.unwrap_or_else(|| Versioned::new(Told::default()));
    let mut changes = Changes::default();
    let mut news = false;
    if stands && complete {
        // What is explained by now makes room.
        let prefix = format!("{}/", bill.provider);
        let open =
            |name: &str| reckoning.findings.iter().any(|f| name.strip_prefix(&prefix) == Some(&f.instance));
        told.body.findings.retain(|name, _| !name.starts_with(&prefix) || open(name));
    }
    for finding in reckoning.findings.iter().take(FINDINGS) {
        let name = format!("{}/{}", bill.provider, finding.instance);
        let usd = finding.unexplained_usd();
        // More by a dollar or by half is news again.
        let known =
            told.body.findings.get(&name).is_some_and(|before| usd <= (before * 1.5).max(before + 1.0));
        if known {
            continue;
        }
        if told.body.findings.len() >= FINDINGS && !told.body.findings.contains_key(&name) {
            // The alert and the command tell of all; the journal is not flooded.
            continue;
        }
        news = true;
        told.body.findings.insert(name.clone(), usd);
        let run = bill.owners.get(&finding.instance).map(|(_, run)| *run);
        let detail = json!({
            "provider": bill.provider, "instance": finding.instance, "billed_usd": finding.billed_usd,
            "ledger_usd": finding.ledger_usd, "text": sentence(finding),
        });
        changes = changes.note(core, SELF, "bill-unexplained", name, run, detail);
    }
    if news {
        core.commit_quietly(changes.put(&told)).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
