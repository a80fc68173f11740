//! How machines end at their provider: destroyed again and again until its
//! absence is certain, and destroyed once more where one that had ended is seen
//! alive. It must never touch what does not carry this hub's label, whatever
//! number an answer named.

use lifecycle::{MachineEvent, MachineId, MachineState};
use serde_json::json;

use super::SELF;
use crate::core::{Changes, Core, CoreError};
use crate::label;
use crate::model::{Machine, Versioned};
use crate::provider::{CreateOutcome, DestroyOutcome, Idempotency, Instance, Listing, Presence, Provider};
use crate::reputation;

/// Complete lists that must lack a machine.
const LISTS: u32 = 2;

/// A created machine that another row has already is none: what an answer named
/// is then unknown, and the right one is looked for by its label.
pub(super) async fn unshared(
    core: &Core,
    machine: &Machine,
    outcome: CreateOutcome,
) -> Result<CreateOutcome, CoreError> {
    let CreateOutcome::Created { instance } = &outcome else { return Ok(outcome) };
    let all = core.every::<Machine>().await?;
    let other = all.iter().map(|row| &row.body).find(|other| {
        other.id != machine.id
            && other.provider == machine.provider
            && !other.status.is_final()
            && other.instance.as_ref() == Some(instance)
    });
    Ok(match other {
        None => outcome,
        Some(other) => {
            let reason = format!("the answer named {instance}, which is machine {}", other.id.short());
            CreateOutcome::Unknown { reason }
        }
    })
}

/// Has the provider remove a machine; only its confirmed absence ends it.
pub(in crate::execute) async fn destroy(core: &Core, id: MachineId) -> Result<(), CoreError> {
    let mut row: Versioned<Machine> = core.need(&id.to_string()).await?;
    if row.body.status != MachineState::Destroying {
        return Ok(());
    }
    // I5: nothing is destroyed that this hub did not label.
    if !label::is_ours(&row.body.label, core.hub, &core.label_key) {
        return Err(CoreError::Impossible(format!("machine {id} does not carry this hub's label")));
    }
    let provider = core.provider(&row.body.provider)?;
    let instance = row.body.instance.clone().unwrap_or_default();
    let key = format!("destroy {id}");
    // What a list lacks already was ordered away: only its absence is to be seen.
    let (lists, mut strangers) = core.lacking(id);
    if lists == 0 {
        let seen = provider.label(&instance).await;
        strangers = seen.as_ref().is_some_and(|seen| *seen != row.body.label);
        core.is_strangers(id, strangers);
    }
    let heard = if strangers || lists > 0 {
        Ok(())
    } else {
        match provider.destroy(&instance).await {
            DestroyOutcome::Accepted | DestroyOutcome::Absent => Ok(()),
            DestroyOutcome::Unknown(why) => Err(why),
        }
    };
    let gone = heard.is_ok() && is_absent(core, &*provider, &mut row, strangers).await?;
    core.provider_said(id, None);
    if !gone {
        let again_s = core.ends_in_vain(id, heard.is_ok()).div_ceil(1_000);
        let why = match heard {
            Err(why) => format!("{why}; tried again in {again_s} s"),
            Ok(()) if strangers => format!("{instance} carries another label and is not touched"),
            // Most need a moment.
            Ok(()) if again_s < 2 => return Ok(()),
            Ok(()) => format!("its provider took the order, and has it still; tried again in {again_s} s"),
        };
        core.alert(&key, Some(format!("machine {} is not confirmed gone: {why}", id.short())));
        return Ok(());
    }
    let again = row.body.ended_ms > 0;
    row.body.status = row.body.status.apply(MachineEvent::ConfirmAbsence)?;
    row.body.ended_ms = core.clock.wall_ms();
    if let Some((sent, received)) = core.health.traffic(id) {
        row.body.meter.traffic(sent, received);
    }
    row.body.meter.end(row.body.ended_ms);
    let run = row.body.run;
    let cost = row.body.cost_usd(row.body.ended_ms);
    let mut changes = Changes::default();
    if !again {
        // Its host was judged when it ended first.
        changes = reputation::learn(core, changes, &row.body).await?;
    }
    let changes = changes.put(&row).note(core, SELF, "destroyed", id, Some(run), json!({"cost_usd": cost}));
    if core.commit(changes).await? {
        core.alert(&key, None);
        core.alert(&format!("doubt {id}"), None);
        core.forget(id);
    }
    Ok(())
}

/// Whether a machine is gone for certain: a question for it finds nothing, and
/// where anything but its label could be anybody's, two complete lists that were
/// asked for after one another lack it. An order's own answer proves nothing.
async fn is_absent(
    core: &Core,
    provider: &dyn Provider,
    row: &mut Versioned<Machine>,
    strangers: bool,
) -> Result<bool, CoreError> {
    let (id, label) = (row.body.id, row.body.label.clone());
    let instance = row.body.instance.clone().unwrap_or_default();
    if provider.idempotency() != Idempotency::LabelOnly {
        return Ok(strangers || matches!(provider.get(&instance).await, Presence::Absent));
    }
    let listing = core.next_list(provider, id).await;
    let Listing::Complete(all) = &*listing else { return Ok(false) };
    // Another one under the same label is the sweep's: what this one cost stays its own.
    let is_it = |one: &&Instance| if strangers { one.label == label } else { one.id == instance };
    let found = all.iter().find(is_it);
    let lists = core.lacked(id, found.is_none());
    if let Some(found) = found.filter(|_| strangers) {
        // What it was taken for is another one.
        row.body.instance = Some(found.id.clone());
        let detail = json!({"instance": found.id, "before": instance});
        let note = Changes::default().put(row).note(core, SELF, "adopted", id, Some(row.body.run), detail);
        core.commit(note).await?;
    }
    if lists < LISTS {
        return Ok(false);
    }
    if strangers {
        return Ok(true);
    }
    match provider.get(&instance).await {
        Presence::Absent => Ok(true),
        Presence::Present(_) => {
            core.lacked(id, false);
            Ok(false)
        }
        Presence::Error(_) => Ok(false),
    }
}

/// A machine that had ended is listed. Where a question for it finds it too it
/// bills: its row goes back to being destroyed, and people are told.
///
/// # Errors
/// Where the store fails.
pub(super) async fn reappeared(
    core: &Core,
    provider: &dyn Provider,
    mut row: Versioned<Machine>,
    (seen, listed_ms): (&Instance, u64),
) -> Result<bool, CoreError> {
    let id = row.body.id;
    let ended = row.body.status.is_final() || row.body.status == MachineState::Abandoned;
    // Another one under its label is another one, whose cost is not this one's.
    if row.body.instance.as_ref().is_some_and(|known| *known != seen.id) {
        return Ok(false);
    }
    // A list that was asked for before its end says nothing about what followed.
    if !ended || row.body.called_ms == 0 || row.body.ended_ms >= listed_ms {
        return Ok(false);
    }
    if !matches!(provider.get(&seen.id).await, Presence::Present(_)) {
        return Ok(false);
    }
    let was = row.body.status.name();
    row.body.status = row.body.status.apply(MachineEvent::Reappear)?;
    row.body.instance = Some(seen.id.clone());
    row.body.meter.resume(row.body.called_ms);
    let detail = json!({"instance": seen.id, "was": was});
    let note = Changes::default().put(&row).note(core, SELF, "reappeared", id, Some(row.body.run), detail);
    if core.commit(note).await? {
        let text = format!(
            "machine {} ({}) was {was} and its provider lists it: it bills and is destroyed again",
            id.short(),
            seen.id
        );
        core.alert(&format!("destroy {id}"), Some(text));
    }
    Ok(true)
}

#[cfg(test)]
mod tests;
