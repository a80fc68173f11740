//! Performs one action. Everything is a compare-and-set on the rows it rests
//! on: an action that comes late finds other versions and changes nothing.
//! Calls to providers happen between transactions, never inside one.

use lifecycle::retry::Ending;
use lifecycle::{
    AttemptEvent, AttemptId, AttemptState, Exit, LossCause, MachineEvent, MachineId, MachineState, RunEvent,
    RunId,
};
use serde_json::json;

use crate::core::{Changes, Core, CoreError};
use crate::durable;
use crate::model::{Attempt, Machine, Record, Run, StopReason, Versioned, Wish};
use crate::money::Books;
use crate::notify;
use crate::plan::{self, Action};

pub mod ask;
mod first_boot;
mod follow;
pub mod machine;

use follow::{Next, ending, follow, remember};

/// The actor in the journal for what the controller decides itself.
pub const SELF: &str = "controller";
/// Checkpoints offered to a new attempt; each is tried in turn.
pub(crate) const OFFERED: usize = 5;

/// Performs `action`.
///
/// # Errors
/// Where a store fails, or a move is illegal (a bug: the plan rests on the
/// same diagrams).
pub async fn perform(core: &Core, action: &Action) -> Result<(), CoreError> {
    match action {
        Action::Place(run) => step_run(core, *run, "placed", RunEvent::Place).await,
        Action::Intend(run) => machine::intend(core, *run).await,
        Action::Create(id) => machine::create(core, *id).await,
        Action::Resolve(id) => machine::resolve(core, *id).await,
        Action::Boot(id) => machine::step(core, *id, "booting", MachineEvent::Boot, json!({})).await,
        Action::Probe(id) => machine::probe(core, *id).await,
        Action::Suspect(id) => machine::suspect(core, *id).await,
        Action::LoseMachine(id, cause) => machine::lose(core, *id, *cause).await,
        Action::GiveUp(id) => machine::give_up(core, *id).await,
        Action::Condemn(run, id) => condemn(core, *run, *id).await,
        Action::Release(id, why) => machine::release(core, *id, why).await,
        Action::Destroy(id) => machine::destroy(core, *id).await,
        Action::Bind(run, id) => bind(core, *run, *id).await,
        Action::LoseAttempt(run, cause) => lose_attempt(core, *run, *cause).await,
        Action::Settle(run) => settle(core, *run).await,
        Action::StopForBudget(run) => stop_for_budget(core, *run).await,
        Action::Tell(run, percent) => tell(core, *run, *percent).await,
        Action::Close(run) => close(core, *run).await,
        Action::Storm(run) => ask::storm(core, *run).await,
        Action::Ask(run) => ask::refused(core, *run).await,
        Action::Answer(run) => ask::over(core, *run).await,
        Action::Alarm(count) => {
            core.alarmed();
            core.alert(
                "mass-loss",
                Some(format!(
                    "{count} machines fell silent at once: no loss by silence is declared until some are heard"
                )),
            );
            Ok(())
        }
    }
}

/// A run's row after an event, with its end stamped where the event ends it.
fn moved(core: &Core, run: &mut Run, event: RunEvent) -> Result<(), CoreError> {
    run.status = run.status.apply(event)?;
    if run.status.is_final() {
        run.ended_ms = core.clock.wall_ms();
    }
    Ok(())
}

async fn step_run(core: &Core, id: RunId, verb: &str, event: RunEvent) -> Result<(), CoreError> {
    let mut run: Versioned<Run> = core.need(&id.to_string()).await?;
    let detail = match &event {
        RunEvent::Fail(why) => json!({"why": why}),
        _ => json!({}),
    };
    moved(core, &mut run.body, event)?;
    core.commit(Changes::default().put(&run).note(core, SELF, verb, id, Some(id), detail)).await?;
    Ok(())
}

pub(crate) async fn bound_attempt(core: &Core, run: &Run) -> Result<Option<Versioned<Attempt>>, CoreError> {
    match run.bound {
        Some(id) => core.load(&id.to_string()).await,
        None => Ok(None),
    }
}

async fn lose_attempt(core: &Core, id: RunId, cause: LossCause) -> Result<(), CoreError> {
    let mut run: Versioned<Run> = core.need(&id.to_string()).await?;
    let Some(mut attempt) = bound_attempt(core, &run.body).await? else { return Ok(()) };
    if attempt.body.status.is_final() {
        return Ok(());
    }
    // What was planned may be about an attempt before this one.
    let machine: Versioned<Machine> = core.need(&attempt.body.machine.to_string()).await?;
    if machine.body.status.is_up() && !machine.body.given_up && !machine.body.condemned {
        return Ok(());
    }
    // What the machine stored before it vanished counts as durable for the
    // decision below, and must be committed while its generation is current.
    if durable::adopt_stored(core, &run.body, attempt.body.id).await? > 0 {
        run = core.need(&id.to_string()).await?;
    }
    attempt.body.status = attempt.body.status.apply(AttemptEvent::Lose(cause))?;
    attempt.body.ended_ms = core.clock.wall_ms();
    let end = ending(core, &run.body, &attempt.body, machine.body.usd_per_hour);
    remember(&mut run.body, end);
    let next = follow(core, &mut run.body).await?;
    next.take(core, &mut run.body)?;
    let detail = json!({"cause": cause, "run": run.body.status.name()});
    let changes = Changes::default().put(&run).put(&attempt).expect(&machine).note(
        core,
        SELF,
        "attempt-lost",
        attempt.body.id,
        Some(id),
        detail,
    );
    if core.commit(next.note(core, &run.body, changes)).await? {
        core.capsules.add(attempt.body.id);
    }
    Ok(())
}

async fn settle(core: &Core, id: RunId) -> Result<(), CoreError> {
    let mut run: Versioned<Run> = core.need(&id.to_string()).await?;
    let Some(attempt) = bound_attempt(core, &run.body).await? else { return Ok(()) };
    let AttemptState::Ended { exit } = &attempt.body.status else {
        // A lost attempt leaves RUNNING with its own transaction.
        return Ok(());
    };
    let exit = exit.clone();
    // What it stored and could not tell of is listed before the run ends for
    // good: later nobody looks. It ended all the same where that cannot be.
    match durable::adopt_stored(core, &run.body, attempt.body.id).await {
        Ok(0) => {}
        Ok(_) => run = core.need(&id.to_string()).await?,
        Err(error) => {
            tracing::warn!(run = %id.short(), %error, "what it stored last may be missing from the list");
        }
    }
    run.body.exit = Some(exit.clone());
    let lacking = &attempt.body.unpublished;
    // What was ended for want of progress did not succeed, whatever its code.
    let success = exit.is_success() && attempt.body.hang.is_empty();
    let mut machine: Option<Versioned<Machine>> = core.load(&attempt.body.machine.to_string()).await?;
    let price = machine.as_ref().map_or(0.0, |machine| machine.body.usd_per_hour);
    // Its machine stopped under it and came back: that is no failure of its own.
    let stopped = matches!(exit, Exit::Unknown { .. })
        && machine
            .as_ref()
            .and_then(|m| m.body.return_asked)
            .is_some_and(|r| r.stopped_ms >= attempt.body.bound_ms);
    let next: Next = if run.body.wish == Wish::Run && stopped {
        let end = Ending { exit: None, ..ending(core, &run.body, &attempt.body, price) };
        remember(&mut run.body, end);
        follow(core, &mut run.body).await?
    } else if run.body.wish == Wish::Run && attempt.body.alone {
        // It was cut short because nobody spoke: neither a success nor a
        // failure of its own, whatever its code.
        RunEvent::Unbind.into()
    } else if run.body.wish == Wish::Run && success && lacking.is_empty() {
        RunEvent::Succeed.into()
    } else if run.body.wish == Wish::Run && success {
        // I13: what cannot be had back is no success, whatever the code.
        RunEvent::Fail(format!("its program ended with 0, but {lacking}")).into()
    } else {
        let end = ending(core, &run.body, &attempt.body, price);
        remember(&mut run.body, end);
        follow(core, &mut run.body).await?
    };
    next.take(core, &mut run.body)?;
    let detail = json!({"exit": exit, "run": run.body.status.name()});
    let mut changes =
        Changes::default().put(&run).expect(&attempt).note(core, SELF, "settled", id, Some(id), detail);
    if let Some(machine) = machine.as_mut().filter(|m| next.is_larger() && m.body.status.is_up()) {
        machine.body.condemned = true;
        machine.body.reason = format!("{}it is too small", plan::UNFIT);
        changes = changes.put(machine);
    }
    if core.commit(next.note(core, &run.body, changes)).await? {
        core.poke(attempt.body.machine);
    }
    Ok(())
}

/// A machine on which the run's last attempt met what another try would meet
/// again: it handed in all that it has, and is left.
async fn condemn(core: &Core, id: RunId, machine_id: MachineId) -> Result<(), CoreError> {
    let mut run: Versioned<Run> = core.need(&id.to_string()).await?;
    let mut machine: Versioned<Machine> = core.need(&machine_id.to_string()).await?;
    let Some(attempt) = bound_attempt(core, &run.body).await? else { return Ok(()) };
    let ended = matches!(attempt.body.status, AttemptState::Ended { .. });
    if !ended || attempt.body.machine != machine_id || machine.body.condemned {
        return Ok(());
    }
    machine.body.condemned = true;
    machine.body.conduct.faulty = true;
    machine.body.reason = format!("{}{}", plan::UNFIT, attempt.body.leave_machine);
    let avoided = run.body.steer.avoid(machine_id, &attempt.body.leave_machine, core.clock.wall_ms());
    let detail = json!({"why": attempt.body.leave_machine, "attempt": attempt.body.id, "avoids": avoided});
    let changes = Changes::default().put(&machine).expect(&attempt).put(&run);
    core.commit(changes.note(core, SELF, "condemned", machine_id, Some(id), detail)).await?;
    Ok(())
}

/// Another share of a cap is reached: it is journalled, once.
async fn tell(core: &Core, id: RunId, percent: u8) -> Result<(), CoreError> {
    let mut run: Versioned<Run> = core.need(&id.to_string()).await?;
    let world = crate::reconcile::snapshot(core).await?;
    let Some((_, reached, room)) = Books::of(&world).news().into_iter().find(|(run, ..)| *run == id) else {
        return Ok(());
    };
    if run.body.told_percent >= reached || reached < percent {
        return Ok(());
    }
    run.body.told_percent = reached;
    let changes = notify::budget(core, Changes::default().put(&run), id, u32::from(reached), &room);
    core.commit(changes).await?;
    Ok(())
}

async fn stop_for_budget(core: &Core, id: RunId) -> Result<(), CoreError> {
    let mut run: Versioned<Run> = core.need(&id.to_string()).await?;
    if run.body.wish != Wish::Run || run.body.status.is_final() {
        return Ok(());
    }
    run.body.wish = Wish::Stop;
    run.body.stop_reason = Some(StopReason::Budget);
    let world = crate::reconcile::snapshot(core).await?;
    let Some(room) = Books::of(&world).exhausted(&run.body) else { return Ok(()) };
    let detail = json!({
        "max_usd": room.cap_usd, "of": room.scope, "spent_usd": room.spent_usd, "kept_back_usd": room.reserved_usd,
    });
    let attempt = bound_attempt(core, &run.body).await?;
    if core
        .commit(Changes::default().put(&run).note(core, SELF, "budget-reached", id, Some(id), detail))
        .await?
        && let Some(attempt) = attempt
    {
        core.poke(attempt.body.machine);
    }
    Ok(())
}

async fn close(core: &Core, id: RunId) -> Result<(), CoreError> {
    let run: Versioned<Run> = core.need(&id.to_string()).await?;
    step_run(core, id, "closed", plan::stopped_as(&run.body)).await
}

/// Issues the next generation and binds an attempt on a ready machine. An
/// attempt that is bound still (its machine fell silent) is lost in the same
/// transaction: fencing and binding are one step.
async fn bind(core: &Core, id: RunId, machine_id: MachineId) -> Result<(), CoreError> {
    let mut run: Versioned<Run> = core.need(&id.to_string()).await?;
    let machine: Versioned<Machine> = core.need(&machine_id.to_string()).await?;
    if machine.body.status != MachineState::Ready || run.body.status.is_final() || run.body.wish != Wish::Run
    {
        return Ok(());
    }
    let old = bound_attempt(core, &run.body).await?;
    if let Some(old) = &old
        && durable::adopt_stored(core, &run.body, old.body.id).await? > 0
    {
        run = core.need(&id.to_string()).await?;
    }
    let replaced = old.as_ref().filter(|old| !old.body.status.is_final()).map(|old| old.body.id);
    let mut changes = Changes::default().expect(&machine);
    if let Some(mut old) = old
        && !old.body.status.is_final()
    {
        // Planned before its machine spoke again, or performed before.
        let Some(lost) = replace(core, &mut run.body, &mut old, machine_id, changes).await? else {
            return Ok(());
        };
        changes = lost;
    }
    let mut resume = durable::offered(core, &run.body).await?;
    resume.truncate(OFFERED);
    if resume.is_empty() && ask::had_checkpoint(&run.body) {
        return ask::no_checkpoint(core, id).await;
    }
    let spent = || CoreError::Impossible("no generation is left to issue".into());
    let generation = run.body.generation.next(core.restore_count).ok_or_else(spent)?;
    run.body.attempts += 1;
    let attempt = Versioned::new(Attempt {
        id: AttemptId::from_bytes(core.entropy.bytes()?),
        run: id,
        number: run.body.attempts,
        generation,
        machine: machine_id,
        status: AttemptState::Assigned,
        bound_ms: core.clock.wall_ms(),
        started_ms: 0,
        ended_ms: 0,
        resume,
        restored: None,
        restore_ms: 0,
        prepare_ms: 0,
        environment_cached: false,
        first_step: None,
        first_step_ms: 0,
        last_step: None,
        last_error_line: String::new(),
        exited: None,
        out_of_memory: String::new(),
        program_started: false,
        transient: false,
        unpublished: String::new(),
        hang: String::new(),
        alone: false,
        leave_machine: String::new(),
        oom_process: None,
        notes: Vec::new(),
        pace: Vec::new(),
    });
    run.body.generation = generation;
    run.body.bound = Some(attempt.body.id);
    moved(core, &mut run.body, RunEvent::Bind)?;
    let detail = json!({
        "generation": generation, "machine": machine_id, "number": attempt.body.number,
        "resume": attempt.body.resume.first().and_then(|r| r.step),
    });
    let changes =
        changes.put(&run).put(&attempt).note(core, SELF, "bound", attempt.body.key(), Some(id), detail);
    if core.commit(changes).await? {
        core.poke(machine_id);
        replaced.into_iter().for_each(|ended| core.capsules.add(ended));
    }
    Ok(())
}

/// Gives up the bound attempt and its machine, which is silent or about to be
/// taken, in favour of another. `None`: nobody has given that machine up.
async fn replace(
    core: &Core,
    run: &mut Run,
    old: &mut Versioned<Attempt>,
    by: MachineId,
    changes: Changes,
) -> Result<Option<Changes>, CoreError> {
    let mut machine: Versioned<Machine> = core.need(&old.body.machine.to_string()).await?;
    let (up, given_up) = (machine.body.status.is_up(), machine.body.given_up);
    let noticed = plan::may_be_left(&machine.body, core.clock.wall_ms());
    if machine.body.id == by || up && !given_up && !noticed {
        return Ok(None);
    }
    let cause = if noticed && !given_up { LossCause::Noticed } else { LossCause::Silent };
    old.body.status = old.body.status.apply(AttemptEvent::Lose(cause))?;
    old.body.ended_ms = core.clock.wall_ms();
    let end = ending(core, run, &old.body, machine.body.usd_per_hour);
    remember(run, end);
    moved(core, run, RunEvent::Unbind)?;
    if up {
        machine.body.status = machine.body.status.apply(MachineEvent::Lose(cause))?;
        machine.body.reason = cause.to_string();
        crate::reputation::lost(core, &mut machine.body, cause);
    }
    let detail = json!({"cause": cause});
    let changes = changes
        .put(old)
        .put(&machine)
        .note(core, SELF, "attempt-lost", old.body.id, Some(run.id), detail.clone())
        .note(core, SELF, "lost", machine.body.id, Some(run.id), detail);
    Ok(Some(changes))
}
