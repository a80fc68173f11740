//! The loop: snapshot, plan, perform; on every event and on a period. It
//! takes no arguments, and a second pass over the same facts does nothing.
//! Actions run side by side, at most one per machine and one per run: nothing
//! that waits for a provider or the store of objects is awaited in the loop.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use lifecycle::{MachineId, MachineState, RunId};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::core::{Changes, Core, CoreError};
use crate::execute;
use crate::model::{Attempt, Machine, Run};
use crate::money::Books;
use crate::plan::{Action, Again, Snapshot, plan};

mod lanes;
#[cfg(test)]
mod tests;

use lanes::{Lanes, Subject, subject_of};

/// Without any event the world is looked at this often.
const PERIOD: Duration = Duration::from_millis(500);

/// Reads everything that decisions rest on.
///
/// # Errors
/// Where the store fails.
pub async fn snapshot(core: &Core) -> Result<Snapshot, CoreError> {
    let up_ms = core.up_ms();
    let now_ms = core.clock.wall_ms();
    let mut world = Snapshot { now_ms, alarmed_ms_ago: core.alarmed_ms_ago(), ..Snapshot::default() };
    world.paid = core.providers.iter().filter(|(_, p)| p.is_paid()).map(|(name, _)| name.clone()).collect();
    let all = core.every::<Machine>().await?;
    let mut ended = BTreeMap::new();
    let mut past: BTreeMap<RunId, f64> = BTreeMap::new();
    let runs: Vec<Arc<Run>> = core.every::<Run>().await?.into_iter().map(|row| row.body).collect();
    let by_id: BTreeMap<RunId, &Run> = runs.iter().map(|run| (run.id, &**run)).collect();
    core.believe(crate::hazard::between_losses_ms(all.iter().map(|row| &*row.body), &by_id, now_ms));
    for machine in all.into_iter().map(|row| row.body) {
        let live = !machine.status.is_final() && machine.status != MachineState::Abandoned;
        if live {
            let age = now_ms.saturating_sub(machine.created_ms).min(up_ms);
            let mut seen = core.observe(machine.id);
            seen.boots_longer_ms = core.providers.get(&machine.provider).map_or(0, |p| p.boots_longer_ms());
            seen.returns = execute::machine::returns(&machine, now_ms)
                && by_id.get(&machine.run).is_some_and(|run| execute::machine::may_await(run));
            world.seen.push((machine.id, seen, age));
            world.machines.push(machine);
        } else {
            let usd = machine.cost_usd(now_ms);
            world.spent.push((machine.run, usd));
            *past.entry(machine.run).or_default() += usd;
            world.past.today += machine.spent_today(now_ms);
            ended.insert(machine.id, machine);
        }
    }
    let with_machines: BTreeSet<RunId> = world.machines.iter().map(|m| m.run).collect();
    drop(by_id);
    for run in runs {
        if let Some(usd) = past.get(&run.id) {
            *world.past.by_project.entry(run.spec.project.clone()).or_default() += usd;
        }
        if run.status.is_final() && !with_machines.contains(&run.id) {
            continue;
        }
        if let Some(id) = run.bound
            && let Some(attempt) = core.look::<Attempt>(&id.to_string()).await?
        {
            if let Some(machine) = ended.remove(&attempt.body.machine) {
                world.gone.push((machine.id, machine.reason.clone()));
            }
            world.bound.push(attempt.body);
        }
        world.runs.push(run);
    }
    Ok(world)
}

/// Whether a provider was asked about a machine too short ago for this action,
/// so that one that says no is not asked in a loop.
fn is_early(core: &Core, machine: MachineId, action: &Action) -> bool {
    let pause_ms = match action.promise().again {
        Again::After(ms) => ms,
        Again::Backoff => core.ends_again_ms(machine),
        _ => return false,
    };
    core.observe(machine).asked_ms_ago.is_some_and(|ms| ms < pause_ms)
}

/// Ticks; where the last tick is too long ago, this controller stood still, and
/// that time is nobody's silence.
///
/// # Errors
/// Where the store fails.
pub async fn beat(core: &Core) -> Result<(), CoreError> {
    let period = u64::try_from(PERIOD.as_millis()).unwrap_or(u64::MAX);
    let Some(stall_ms) = core.tick(period) else { return Ok(()) };
    tracing::warn!(stall_ms, "this controller stood still: no machine's silence counts for that time");
    let detail = json!({"stall_ms": stall_ms});
    let note = Changes::default().note(core, execute::SELF, "stalled", core.hub, None, detail);
    core.commit_quietly(note).await?;
    Ok(())
}

/// Runs until cancelled; then lets what is under way end.
pub async fn run(core: Arc<Core>, stop: CancellationToken) {
    // Beside the work and not in it: an action that takes long is no stall.
    let ticks = async {
        core.tick(u64::MAX);
        loop {
            tokio::time::sleep(PERIOD).await;
            if let Err(error) = beat(&core).await {
                tracing::warn!(error = chain(&error), "a stall could not be journalled");
            }
        }
    };
    tokio::select! {
        biased;
        () = Box::pin(work(core.clone(), stop)) => {}
        () = ticks => {}
    }
}

async fn work(core: Arc<Core>, stop: CancellationToken) {
    let mut lanes = Lanes::default();
    let (mut swept_ms, mut planned) = (None, false);
    loop {
        let begun_ms = core.clock.mono_ms();
        match pass(&core, &mut lanes).await {
            Ok(()) => {
                if !std::mem::replace(&mut planned, true) {
                    tracing::info!(up_ms = core.up_ms(), "planned for the first time");
                }
                core.alert("reconcile", None);
            }
            Err(error) => core.alert("reconcile", Some(format!("work is held up: {}", chain(&error)))),
        }
        if swept_ms.is_none_or(|at| core.clock.mono_ms() >= at + core.clocks.sweep_ms) {
            swept_ms = Some(core.clock.mono_ms());
            if let Err(error) = execute::machine::sweep(&core).await {
                core.alert("reconcile", Some(format!("the sweep failed: {}", chain(&error))));
            }
        }
        // However much happens, at least as long is left to everything else as a
        // pass takes.
        let took = Duration::from_millis(core.clock.mono_ms().saturating_sub(begun_ms)).min(PERIOD);
        if !took.is_zero() {
            tokio::time::sleep(took).await;
        }
        tokio::select! {
            biased;
            () = stop.cancelled() => break,
            Some(done) = lanes.next() => lanes.freed(&core, done),
            () = core.wake.notified() => {}
            () = tokio::time::sleep(core.until_suspect().map_or(PERIOD, |soon| soon.min(PERIOD))) => {}
        }
    }
    let _ = tokio::time::timeout(Duration::from_secs(10), lanes.drain()).await;
}

async fn pass(core: &Arc<Core>, lanes: &mut Lanes) -> Result<(), CoreError> {
    lanes.collect(core);
    beat(core).await?;
    let world = snapshot(core).await?;
    let actions = plan(&world, &core.clocks);
    let books = Books::of(&world);
    core.allow(books.allowances());
    let held_up = books.held_up();
    let why = held_up.first().map(|(run, room)| {
        format!(
            "{} run(s) wait for a machine, the first is {}: of the cap for the {} (${:.2}) ${:.2} are spent and ${:.2} kept back",
            held_up.len(), run.short(), room.scope.name(), room.cap_usd, room.spent_usd, room.reserved_usd
        )
    });
    core.alert("caps", why);
    lanes.tell(core, &actions);
    if !actions.iter().any(|a| matches!(a, Action::Alarm(_))) {
        core.alert("mass-loss", None);
    }
    let mut failed = Ok(());
    for action in actions {
        match subject_of(&action) {
            None => {
                // One run's trouble must not hold up the others.
                if let Err(error) = execute::perform(core, &action).await {
                    failed = Err(error);
                }
            }
            Some(Subject::Machine(id)) if is_early(core, id, &action) => {}
            Some(subject) => lanes.begin(core, subject, action),
        }
    }
    failed
}

/// An error with its causes, in one line.
#[must_use]
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let said = cause.to_string();
        if !text.ends_with(&said) {
            text.push_str(": ");
            text.push_str(&said);
        }
        source = cause.source();
    }
    text
}
