//! Keeps what was seen of hosts, and hands it out where offers are compared. A
//! machine's evidence is written once, in the transaction that confirms its
//! absence: then all of it is known, and no crash counts it twice. It decides
//! nothing and forbids nothing; the formula is `lifecycle::choice`.

use lifecycle::LossCause;
use lifecycle::choice::{self, Appraisal, Work};
use lifecycle::reputation::{Evidence, Reputation};
use lifecycle::spec::MachineSpec;

use crate::core::{Changes, Core, CoreError};
use crate::model::{Attempt, Checkpoint, Conduct, Host, Machine, Of, Record as _, Run, Versioned};
use crate::provider::Provider;
use crate::store::Kind;

/// Rows of each sort at most; what tells least is forgotten.
const HOSTS: usize = 2_000;
const KINDS: usize = 256;
/// What ended while no controller watched may have ended for want of one.
const WATCHED_MS: u64 = 120_000;
/// After a mass loss no host is blamed for so long.
const ALARM_MS: u64 = 3_600_000;
/// A share of the memory that is offered goes to the driver.
const MEMORY_SLACK: f64 = 0.9;
/// Shorter transfers measure the way and not the link.
const MOVED_LEAST_MS: u64 = 500;

/// On which host a machine lies, as its provider says.
pub async fn conduct(provider: &dyn Provider, instance: &str, machine: &MachineSpec) -> Conduct {
    let Some(host) = provider.host(instance).await else { return Conduct::default() };
    let gpu = provider.gpu(instance).await.unwrap_or_default();
    Conduct::on(&host, &choice::kind(&gpu, machine.market), &gpu)
}

/// Notes a loss in the machine's row, where its host is to blame for it.
pub fn lost(core: &Core, machine: &mut Machine, cause: LossCause) {
    let now = core.clock.wall_ms();
    let watched = core.up_ms();
    let unwatched = watched < WATCHED_MS && machine.created_ms.saturating_add(watched) < now;
    // Many at once: the way to them was cut here, and machines that nobody
    // speaks to end by themselves.
    let unwatched = unwatched || core.alarmed_ms_ago().is_some_and(|ms| ms < ALARM_MS);
    if cause != LossCause::Operator && !unwatched && !machine.condemned && machine.conduct.lost.is_none() {
        machine.conduct.lost = Some((now, cause));
    }
}

/// What a machine that is gone tells of its host.
fn evidence(machine: &Machine) -> Vec<Evidence> {
    #[expect(clippy::cast_precision_loss, reason = "milliseconds of years fit")]
    let seconds = |from: u64, to: u64| to.saturating_sub(from) as f64 / 1_000.0;
    let conduct = &machine.conduct;
    let mut all = Vec::new();
    if conduct.host.is_empty() || machine.called_ms == 0 {
        return all;
    }
    if machine.ready_ms > 0 {
        all.push(Evidence::CameUp { after_s: seconds(machine.called_ms, machine.ready_ms) });
        let until = conduct.lost.map_or(machine.ended_ms, |(at, _)| at);
        let for_s = seconds(machine.ready_ms, until);
        all.push(Evidence::Lived { for_s, lost: conduct.lost.is_some() });
    } else if let Some((at, _)) = conduct.lost {
        all.push(Evidence::Failed { after_s: seconds(machine.called_ms, at) });
    }
    if conduct.faulty {
        all.push(Evidence::Fault);
    }
    if conduct.lied {
        all.push(Evidence::Lied);
    }
    all
}

/// What its attempts measured of its link.
async fn moved(core: &Core, machine: &Machine) -> Result<Vec<Evidence>, CoreError> {
    let mut all = Vec::new();
    for attempt in core.of_run::<Attempt>(machine.run).await? {
        let attempt = attempt.body;
        let Some(restored) = attempt.restored.filter(|_| attempt.machine == machine.id) else { continue };
        if attempt.restore_ms < MOVED_LEAST_MS {
            continue;
        }
        if let Some(checkpoint) = core.load::<Checkpoint>(&restored.key).await? {
            #[expect(clippy::cast_precision_loss, reason = "bytes of a checkpoint fit")]
            let (bytes, ms) = (checkpoint.body.bytes as f64, attempt.restore_ms as f64);
            all.push(Evidence::Moved { bytes, in_s: ms / 1_000.0 });
        }
    }
    Ok(all)
}

/// Whether it has less than was asked for, as its own agent says.
async fn is_smaller(core: &Core, machine: &Machine) -> Result<bool, CoreError> {
    let Some((count, memory)) = core.health.gpus(machine.id) else { return Ok(false) };
    let Some(run) = core.load::<Run>(&machine.run.to_string()).await? else { return Ok(false) };
    // As its run asked at first: what a failure made larger since was never
    // ordered of this one.
    let spec = &run.body.spec.machine;
    #[expect(clippy::cast_precision_loss, reason = "sizes of memory fit")]
    let short = (memory as f64) < spec.gpu_memory_bytes as f64 * MEMORY_SLACK;
    Ok(count < spec.gpu_count as usize || short)
}

/// Adds to `changes` what a machine that is gone tells of its host and its kind.
///
/// # Errors
/// Where the store fails.
pub async fn learn(core: &Core, mut changes: Changes, machine: &Machine) -> Result<Changes, CoreError> {
    let mut seen = evidence(machine);
    if seen.is_empty() {
        return Ok(changes);
    }
    seen.extend(moved(core, machine).await?);
    // A card that fell off is a fault, and was delivered.
    if !machine.conduct.lied && !machine.conduct.faulty && is_smaller(core, machine).await? {
        seen.push(Evidence::Lied);
    }
    let now = core.clock.wall_ms();
    let all: Vec<Versioned<Host>> = core.all().await?;
    let names = [(Of::Host, &machine.conduct.host, HOSTS), (Of::Kind, &machine.conduct.kind, KINDS)];
    for (of, name, most) in names {
        let fresh = Host::new(&machine.provider, of, name);
        let known = all.iter().find(|row| row.body.key() == fresh.key()).cloned();
        let added = known.is_none();
        let mut row = known.unwrap_or_else(|| Versioned::new(fresh));
        for evidence in &seen {
            row.body.record.learn(now, evidence);
        }
        changes = changes.put(&row);
        for surplus in surplus(&all, of, most.saturating_sub(usize::from(added)), now, &row.body.key()) {
            changes.0.delete.push((Kind::Host, surplus));
        }
    }
    Ok(changes)
}

/// Which rows go so that `most` of a sort are left: those that tell least.
fn surplus(all: &[Versioned<Host>], of: Of, most: usize, now: u64, but: &str) -> Vec<String> {
    let mut own: Vec<(f64, String)> = all
        .iter()
        .filter(|row| row.body.of == of)
        .map(|row| (row.body.record.at(now).weight(), row.body.key()))
        .filter(|(_, key)| key != but)
        .collect();
    let over = own.len().saturating_sub(most);
    own.sort_by(|a, b| a.0.total_cmp(&b.0).then_with(|| a.1.cmp(&b.1)));
    own.into_iter().take(over).map(|(_, key)| key).collect()
}

/// What is known of a provider's hosts now, with no work in particular.
///
/// # Errors
/// Where the store fails.
pub async fn known(core: &Core, provider: &str) -> Result<Appraisal, CoreError> {
    let now = core.clock.wall_ms();
    let mut known = Appraisal::default();
    for row in core.all::<Host>().await?.into_iter().map(|row| row.body) {
        if row.provider == provider {
            let record: Reputation = row.record.at(now);
            match row.of {
                Of::Host => known.hosts.insert(row.name, record),
                Of::Kind => known.kinds.insert(row.name, record),
            };
        }
    }
    Ok(known)
}

/// The same for a run: each start fetches its newest checkpoint.
///
/// # Errors
/// Where the store fails.
pub async fn appraisal(core: &Core, provider: &str, run: &Run) -> Result<Appraisal, CoreError> {
    let mut known = known(core, provider).await?;
    #[expect(clippy::cast_precision_loss, reason = "bytes of a checkpoint fit")]
    let start_bytes = run.head_bytes as f64;
    known.work = Work { start_bytes, ..known.work };
    Ok(known)
}

#[cfg(test)]
mod tests {
    use lifecycle::{MachineId, RunId};
    use serde_json::json;

    use super::*;

    fn machine(ready_ms: u64, conduct: Conduct) -> Machine {
        let mut machine: Machine = serde_json::from_value(json!({
            "id": MachineId::from_bytes([1; 16]), "provider": "vast", "label": "",
            "run": RunId::from_bytes([1; 16]), "status": {"state": "destroyed"}, "instance": "1",
            "created_ms": 1_000, "called_ms": 2_000, "ready_ms": ready_ms, "ended_ms": 900_000, "usd_per_hour": 1.1
        }))
        .unwrap();
        machine.conduct = conduct;
        machine
    }

    #[test]
    fn a_machines_end_tells_of_its_host_and_a_persons_wish_does_not() {
        let on = Conduct::on("7", "on-demand rtx 4090", "RTX 4090");
        let up = Evidence::CameUp { after_s: 100.0 };
        let lost = Some((302_000, LossCause::Terminated));
        for (machine, told) in [
            (machine(0, Conduct::default()), vec![]),
            (machine(0, on.clone()), vec![]),
            (machine(102_000, on.clone()), vec![up, Evidence::Lived { for_s: 798.0, lost: false }]),
            (
                machine(102_000, Conduct { lost, ..on.clone() }),
                vec![up, Evidence::Lived { for_s: 200.0, lost: true }],
            ),
            (
                machine(0, Conduct { lost, lied: true, faulty: true, ..on }),
                vec![Evidence::Failed { after_s: 300.0 }, Evidence::Fault, Evidence::Lied],
            ),
        ] {
            assert_eq!(evidence(&machine), told, "{machine:?}");
        }
    }

    #[test]
    fn a_row_of_an_older_build_has_no_conduct_and_a_name_is_bounded() {
        let old = machine(0, Conduct::default());
        assert!(!serde_json::to_string(&old).unwrap().contains("conduct"), "older builds read it");
        let hostile = Host::new("vast", Of::Host, &"\u{1b}x".repeat(500));
        assert!(hostile.key().len() < 120 && !hostile.key().contains('\u{1b}'));
    }

    #[test]
    fn what_tells_least_is_forgotten_first_and_never_what_was_just_learned() {
        let row = |n: usize, of: Of, failed: f64| {
            let mut host = Host::new("vast", of, &n.to_string());
            host.record.failed = failed;
            Versioned { version: Some(1), body: host }
        };
        let mut all: Vec<_> = (0..10).map(|n| row(n, Of::Host, 10.0 - n as f64)).collect();
        all.push(row(99, Of::Kind, 0.0));
        assert_eq!(surplus(&all, Of::Host, 10, 0, ""), [""; 0]);
        assert_eq!(surplus(&all, Of::Host, 8, 0, "vast/host/x"), ["vast/host/9", "vast/host/8"]);
        assert_eq!(surplus(&all, Of::Host, 8, 0, "vast/host/9"), ["vast/host/8"]);
    }
}
