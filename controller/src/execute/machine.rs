//! What is done to machines: wished for, created under a recorded intent,
//! looked for when an answer was lost, probed, released, and confirmed gone.

use lifecycle::meter::{Meter, Rates};
use lifecycle::{LossCause, MachineEvent, MachineId, MachineState, RunId, RunState};
use serde_json::{Value, json};

use super::SELF;
use super::first_boot::first_boot;
use crate::core::{Changes, Core, CoreError};
use crate::label;
use crate::liveness::{self, Hypothesis, ProviderWord};
use crate::model::{Attempt, Conduct, Machine, Run, Versioned, Wish};
use crate::money::{self, Books};
use crate::plan::{self, Action};
use crate::provider::{CreateOutcome, CreateRequest, InstanceState, Listing, Presence, Reach};
use crate::reputation;

/// A list that takes longer is as good as none.
const LIST_PATIENCE: std::time::Duration = std::time::Duration::from_secs(30);
/// Characters of what a machine said last.
const LAST_WORDS: usize = 240;

mod comeback;
mod ending;
mod look;
mod sweep;
#[cfg(test)]
mod tests;

pub(crate) use comeback::{may_await, returns};
pub(super) use ending::destroy;
use look::look;
pub use sweep::sweep;

/// Moves a machine by one event.
pub(super) async fn step(
    core: &Core,
    id: MachineId,
    verb: &str,
    event: MachineEvent,
    detail: Value,
) -> Result<(), CoreError> {
    let mut row: Versioned<Machine> = core.need(&id.to_string()).await?;
    if let MachineEvent::Lose(cause) = &event {
        row.body.reason = match core.carried.of(id) {
            // Why nobody came to it says more than that it did not come.
            Some(trouble) if *cause == LossCause::NeverJoined => format!("{cause}: {trouble}"),
            _ => match detail["said"].as_str() {
                Some(said) => format!("{cause}; what it said last: {said}"),
                None => cause.to_string(),
            },
        };
        reputation::lost(core, &mut row.body, *cause);
    }
    row.body.status = row.body.status.apply(event)?;
    let run = row.body.run;
    core.commit(Changes::default().put(&row).note(core, SELF, verb, id, Some(run), detail)).await?;
    Ok(())
}

/// Three heartbeats of silence: the row says so at once, with a guess; then
/// the provider is asked, whose word makes a better one.
pub(super) async fn suspect(core: &Core, id: MachineId) -> Result<(), CoreError> {
    let mut row: Versioned<Machine> = core.need(&id.to_string()).await?;
    let seen = core.observe(id);
    if row.body.status != MachineState::Ready || seen.silent_ms < core.clocks.suspect_ms {
        return Ok(());
    }
    let guess = liveness::hypothesis(&seen);
    row.body.status = row.body.status.apply(MachineEvent::Suspect)?;
    row.body.reason = guess.to_string();
    let run = row.body.run;
    let detail = json!({"hypothesis": guess.name(), "silent_ms": seen.silent_ms});
    if core.commit(Changes::default().put(&row).note(core, SELF, "suspect", id, Some(run), detail)).await? {
        probe(core, id).await?;
    }
    Ok(())
}

/// What is guessed of a suspect machine, once its provider has said something.
async fn explain(core: &Core, id: MachineId) -> Result<(), CoreError> {
    let mut row: Versioned<Machine> = core.need(&id.to_string()).await?;
    let seen = core.observe(id);
    let open = Hypothesis::is_before_the_word(&row.body.reason);
    if row.body.status != MachineState::Suspect || !open || seen.provider.is_none() {
        return Ok(());
    }
    let guess = liveness::hypothesis(&seen);
    row.body.reason = guess.to_string();
    let run = row.body.run;
    let detail = json!({"hypothesis": guess.name(), "why": guess.to_string()});
    core.commit(Changes::default().put(&row).note(core, SELF, "hypothesis", id, Some(run), detail)).await?;
    Ok(())
}

/// Positive evidence of a loss. A machine that speaks meanwhile is not lost.
pub(super) async fn lose(core: &Core, id: MachineId, cause: LossCause) -> Result<(), CoreError> {
    let row: Versioned<Machine> = core.need(&id.to_string()).await?;
    let joined = cause == LossCause::NeverJoined && row.body.status != MachineState::Booting;
    if joined || liveness::speaks(&core.observe(id), &core.clocks) {
        return Ok(());
    }
    let mut detail = json!({"cause": cause});
    let unstarted = row.body.ready_ms == 0
        && matches!(cause, LossCause::NeverJoined | LossCause::Terminated | LossCause::Gone);
    if unstarted {
        let joined = cause == LossCause::NeverJoined;
        let why = if joined { "no agent came from it" } else { "it did not start" };
        detail["avoids"] = json!(avoid_host(core, row.body.run, id, why).await?);
        if let Some(said) = last_words(core, &row.body).await {
            detail["said"] = json!(said);
        }
    }
    step(core, id, "lost", MachineEvent::Lose(cause), detail).await
}

/// What a machine that no agent came from left to say. Asked before it is
/// destroyed, and never waited for long: a loss is not held up by an answer.
async fn last_words(core: &Core, machine: &Machine) -> Option<String> {
    const WAIT: std::time::Duration = std::time::Duration::from_secs(2);
    let provider = core.provider(&machine.provider).ok()?;
    let asked = provider.last_words(machine.instance.as_deref()?);
    let said = tokio::time::timeout(WAIT, asked).await.ok()??;
    Some(said.chars().take(LAST_WORDS).collect())
}

/// A host that failed this run is not tried again for a while.
async fn avoid_host(core: &Core, run: RunId, id: MachineId, why: &str) -> Result<Option<String>, CoreError> {
    let Some(mut run): Option<Versioned<Run>> = core.load(&run.to_string()).await? else { return Ok(None) };
    let avoided = run.body.steer.avoid(id, why, core.clock.wall_ms());
    if avoided.is_some() && !core.commit(Changes::default().put(&run)).await? {
        // Somebody was faster: it may be chosen once more, and no harm is done.
        return Ok(None);
    }
    Ok(avoided)
}

/// Records the wish for a machine (I3: before anything is asked), if every cap
/// can bear it (I16).
pub(super) async fn intend(core: &Core, run_id: RunId) -> Result<(), CoreError> {
    let _purse = core.purse.lock().await;
    let mut run: Versioned<Run> = core.need(&run_id.to_string()).await?;
    let provider = core.provider(&run.body.spec.provider)?;
    let world = crate::reconcile::snapshot(core).await?;
    if !money::spends(&run.body) || Books::of(&world).refuses(&run.body).is_some() {
        return Ok(());
    }
    // One beside a machine that is still its run's: it may have been heard since.
    let beside = run.body.status == RunState::Running;
    if beside && !plan::plan(&world, &core.clocks).contains(&Action::Intend(run_id)) {
        return Ok(());
    }
    let spec = &run.body.spec;
    // What the machine may cost counts until its real price is known (I16).
    let price = match provider.usd_per_hour() {
        fixed if fixed > 0.0 => fixed,
        _ if provider.is_paid() => spec.max_usd_per_hour.unwrap_or(0.0),
        _ => spec.usd_per_hour.unwrap_or(0.0),
    };
    let id = MachineId::from_bytes(core.entropy.bytes()?);
    let now = core.clock.wall_ms();
    run.body.creates_ms.retain(|at| at + plan::HOUR_MS > now);
    run.body.creates_ms.push(now);
    let machine = Versioned::new(Machine {
        id,
        provider: provider.name().to_owned(),
        label: label::write(core.hub, id, &core.label_key),
        run: run_id,
        status: MachineState::Intent,
        instance: None,
        created_ms: now,
        called_ms: 0,
        ready_ms: 0,
        ended_ms: 0,
        usd_per_hour: price,
        meter: Meter::default(),
        reason: String::new(),
        condemned: false,
        given_up: false,
        notice: None,
        return_asked: None,
        conduct: Conduct::default(),
    });
    let mut detail = json!({"provider": provider.name(), "usd_per_hour": price});
    let bound = world.bound.iter().find(|attempt| beside && Some(attempt.id) == run.body.bound);
    if let Some(bound) = bound {
        detail["in_place_of"] = json!(bound.machine);
        detail["silent_ms"] = json!(core.observe(bound.machine).silent_ms);
    }
    let changes =
        Changes::default().put(&run).put(&machine).note(core, SELF, "intent", id, Some(run_id), detail);
    core.commit(changes).await?;
    Ok(())
}

/// Asks the provider for a machine. The row says CALLING durably before, so
/// that a crash in between leaves something to look for.
pub(super) async fn create(core: &Core, id: MachineId) -> Result<(), CoreError> {
    let mut row: Versioned<Machine> = core.need(&id.to_string()).await?;
    if row.body.status != MachineState::Intent {
        return Ok(());
    }
    let provider = core.provider(&row.body.provider)?;
    let run = row.body.run;
    let wanted: Versioned<Run> = core.need(&run.to_string()).await?;
    let mut request = CreateRequest {
        machine_id: id.to_string(),
        label: row.body.label.clone(),
        user_data: String::new(),
        machine: wanted.body.steer.machine(&wanted.body.spec.machine).clone(),
        max_usd_per_hour: wanted.body.spec.max_usd_per_hour,
        avoid: wanted.body.steer.avoided(core.clock.wall_ms()),
        appraisal: reputation::appraisal(core, provider.name(), &wanted.body).await?,
    };
    let offered = match provider.prepare(&request).await {
        Ok(offered) => offered,
        Err(rejection) => return record_create(core, id, rejection, Conduct::default()).await,
    };
    let wanted: Versioned<Run> = core.need(&run.to_string()).await?;
    // It may have been asked about, held or ended meanwhile.
    let open =
        matches!(wanted.body.status, RunState::Provisioning | RunState::Recovering | RunState::Running);
    if !open || wanted.body.wish != Wish::Run {
        return Ok(());
    }
    // The machine in whose place it is made may have been heard meanwhile.
    let beside = wanted.body.status == RunState::Running;
    if beside {
        let world = crate::reconcile::snapshot(core).await?;
        if !plan::plan(&world, &core.clocks).contains(&Action::Create(id)) {
            return Ok(());
        }
    }
    let now = core.clock.wall_ms();
    row.body.status = row.body.status.apply(MachineEvent::Call)?;
    row.body.called_ms = now;
    let rates = match offered {
        Some(offered) => offered,
        None if provider.is_paid() => money::expected(&wanted.body.spec, &request.machine, true),
        None => Rates::flat(row.body.usd_per_hour),
    };
    row.body.meter.begin(now, rates);
    row.body.usd_per_hour = rates.hourly();
    let mut changes = Changes::default().put(&row);
    request.user_data = match provider.reach() {
        Reach::MachineDials => {
            let (right, script) = first_boot(core, &row.body, now)?;
            changes = changes.put(&right);
            script
        }
        // What it must know is brought to it later, and the right to join is
        // made then: no provider ever sees it.
        Reach::ControllerDials => String::new(),
    };
    let changes = changes.note(core, SELF, "calling", id, Some(run), json!({}));
    if !core.commit(changes).await? {
        return Ok(());
    }
    let outcome = ending::unshared(core, &row.body, provider.create(&request).await).await?;
    let on = match &outcome {
        CreateOutcome::Created { instance } => {
            reputation::conduct(&*provider, instance, &request.machine).await
        }
        _ => Conduct::default(),
    };
    record_create(core, id, outcome, on).await?;
    look(core, id).await
}

async fn record_create(
    core: &Core,
    id: MachineId,
    outcome: CreateOutcome,
    on: Conduct,
) -> Result<(), CoreError> {
    for _ in 0..8 {
        let mut row: Versioned<Machine> = core.need(&id.to_string()).await?;
        let (verb, event, detail) = match &outcome {
            CreateOutcome::Created { instance } => {
                row.body.instance = Some(instance.clone());
                ("created", MachineEvent::Exist, json!({"instance": instance}))
            }
            CreateOutcome::Rejected { reason, .. } => {
                row.body.reason.clone_from(reason);
                ("rejected", MachineEvent::Reject(reason.clone()), json!({"reason": reason}))
            }
            CreateOutcome::Unknown { reason } => {
                row.body.reason.clone_from(reason);
                ("unknown", MachineEvent::LoseReply, json!({"reason": reason}))
            }
        };
        // The agent may have joined before the create call returned.
        let Ok(next) = row.body.status.apply(event) else { return Ok(()) };
        row.body.status = next;
        let run = row.body.run;
        let mut changes = Changes::default();
        let mut owner: Versioned<Run> = core.need(&run.to_string()).await?;
        if matches!(row.body.status, MachineState::Rejected { .. }) {
            row.body.meter.void();
            row.body.ended_ms = if row.body.called_ms > 0 { row.body.called_ms } else { row.body.created_ms };
            // Nothing was made: it is no part of a storm, but the next asking
            // waits longer each time.
            owner.body.creates_ms.pop();
            owner.body.rejections += 1;
            let now = core.clock.wall_ms();
            owner.body.retry_at_ms = now + plan::pause_after_refusal(owner.body.rejections);
            if let CreateOutcome::Rejected { reason, trouble, not_before_ms } = &outcome {
                owner.body.steer.refused(*trouble, reason, *not_before_ms, now);
            }
            changes = changes.put(&owner);
        } else if row.body.status == MachineState::Created {
            let refused = owner.body.steer.refusals.take().is_some() || owner.body.rejections > 0;
            owner.body.rejections = 0;
            if !on.host.is_empty() {
                owner.body.steer.note_host(id, &on.host);
            }
            if refused || !on.host.is_empty() {
                changes = changes.put(&owner);
            }
            row.body.conduct = on.clone();
        }
        if core.commit(changes.put(&row).note(core, SELF, verb, id, Some(run), detail)).await? {
            return Ok(());
        }
    }
    Err(CoreError::Contended)
}

/// Looks for a machine whose creation has an unknown outcome: by its label,
/// never by asking for another one.
pub(super) async fn resolve(core: &Core, id: MachineId) -> Result<(), CoreError> {
    let mut row: Versioned<Machine> = core.need(&id.to_string()).await?;
    let provider = core.provider(&row.body.provider)?;
    core.provider_said(id, None);
    let listing = provider.list(&row.body.label).await;
    let found = match &listing {
        Listing::Complete(all) | Listing::Partial(all) => {
            let ours = all.iter().filter(|i| i.label == row.body.label);
            ours.min_by_key(|i| i.state == InstanceState::Terminal)
        }
        Listing::Error(_) => None,
    };
    let run = row.body.run;
    if row.body.status == MachineState::Calling {
        row.body.status = row.body.status.apply(MachineEvent::LoseReply)?;
    }
    let (verb, detail) = if let Some(instance) = found {
        row.body.status = row.body.status.apply(MachineEvent::Exist)?;
        row.body.instance = Some(instance.id.clone());
        ("adopted", json!({"instance": instance.id}))
    } else {
        let age = core.clock.wall_ms().saturating_sub(row.body.called_ms);
        if !matches!(listing, Listing::Complete(_)) || age < provider.settle_window_ms() {
            return Ok(());
        }
        row.body.status = row.body.status.apply(MachineEvent::Abandon)?;
        // Nothing was made, and nothing billed.
        row.body.ended_ms = row.body.called_ms;
        row.body.meter.void();
        row.body.reason = "its creation left no trace".into();
        ("abandoned", json!({}))
    };
    core.commit(Changes::default().put(&row).note(core, SELF, verb, id, Some(run), detail)).await?;
    Ok(())
}

/// Asks the provider whether a machine is there. An error is no word.
pub(super) async fn probe(core: &Core, id: MachineId) -> Result<(), CoreError> {
    let row: Versioned<Machine> = core.need(&id.to_string()).await?;
    let Some(instance) = &row.body.instance else { return Ok(()) };
    let word = match core.provider(&row.body.provider)?.get(instance).await {
        Presence::Present(InstanceState::Terminal) if comeback::is_awaited(core, &row).await? => None,
        Presence::Present(InstanceState::Terminal) => Some(ProviderWord::Terminal),
        Presence::Present(_) => Some(ProviderWord::Alive),
        Presence::Absent => Some(ProviderWord::Absent),
        Presence::Error(error) => {
            tracing::warn!(machine = %id.short(), error, "the provider could not be asked");
            None
        }
    };
    core.provider_said(id, word);
    core.wake.notify_one();
    look(core, id).await?;
    explain(core, id).await
}

/// Silence beyond patience: the run wants another machine; this one stays
/// bound until that one is.
pub(super) async fn give_up(core: &Core, id: MachineId) -> Result<(), CoreError> {
    let mut row: Versioned<Machine> = core.need(&id.to_string()).await?;
    if row.body.status != MachineState::Suspect {
        return Ok(());
    }
    // Planned before this controller stood still, or before the machine spoke.
    crate::reconcile::beat(core).await?;
    let silent = core.observe(id).silent_ms;
    let owner: Versioned<Run> = core.need(&row.body.run.to_string()).await?;
    if silent < core.clocks.of(&owner.body.spec.machine).lost_after_ms {
        return Ok(());
    }
    row.body.given_up = true;
    row.body.reason = "silent; a replacement is wanted".into();
    let run = row.body.run;
    let changes = Changes::default().put(&row).note(
        core,
        SELF,
        "given-up",
        id,
        Some(run),
        json!({"silent_ms": silent}),
    );
    core.commit(changes).await?;
    Ok(())
}

/// Whether the live bound attempt of its run is on a machine that is up (I5).
async fn serves(core: &Core, machine: &Machine, run: Option<&Versioned<Run>>) -> Result<bool, CoreError> {
    let Some(run) = run.filter(|r| !r.body.status.is_final() && machine.status.is_up()) else {
        return Ok(false);
    };
    let Some(bound) = run.body.bound else { return Ok(false) };
    let attempt: Option<Versioned<Attempt>> = core.load(&bound.to_string()).await?;
    Ok(attempt.is_some_and(|a| a.body.machine == machine.id && !a.body.status.is_final()))
}

/// A machine is needed no more: its row says so, then it is destroyed.
pub(super) async fn release(core: &Core, id: MachineId, why: &str) -> Result<(), CoreError> {
    let mut row: Versioned<Machine> = core.need(&id.to_string()).await?;
    let run: Option<Versioned<Run>> = core.load(&row.body.run.to_string()).await?;
    if !row.body.condemned && serves(core, &row.body, run.as_ref()).await? {
        return Ok(());
    }
    let event = if row.body.status == MachineState::Intent {
        MachineEvent::Reject(why.to_owned())
    } else {
        MachineEvent::Destroy
    };
    row.body.status = row.body.status.apply(event)?;
    if row.body.reason.is_empty() {
        why.clone_into(&mut row.body.reason);
    }
    let mut changes = Changes::default().put(&row);
    if let Some(run) = &run {
        // A bind in between writes this row: then nothing is released.
        changes = changes.expect(run);
    }
    let changes = changes.note(core, SELF, "release", id, Some(row.body.run), json!({"why": why}));
    if core.commit(changes).await? && row.body.status == MachineState::Destroying {
        destroy(core, id).await?;
    }
    Ok(())
}
