//! Puts runs into WAITING, and takes what an answer means to their rows. The
//! questions themselves are `lifecycle::question`'s; nothing here decides when
//! one is asked.

use lifecycle::question::{self, Kind, Question, Verb};
use lifecycle::{RunEvent, RunId, RunState};
use serde_json::{Value, json};

use super::{SELF, moved};
use crate::core::{Changes, Core, CoreError};
use crate::model::{Machine, Run, StopReason, Versioned, Wish};
use crate::plan;

/// What the journal, and who is told of it, know of a question.
pub(super) fn detail(question: &Question) -> Value {
    json!({
        "kind": question.kind.name(), "text": question.text, "evidence": question.evidence,
        "options": question.options.iter().map(|choice| choice.text.clone()).collect::<Vec<_>>(),
        "default": question.default, "deadline_ms": question.deadline_ms, "again": question.again,
    })
}

/// The run waits for an answer, in the same transaction as `changes`.
fn put(
    core: &Core,
    run: &mut Versioned<Run>,
    question: Question,
    changes: Changes,
) -> Result<Changes, CoreError> {
    let (id, told) = (run.body.id, detail(&question));
    moved(core, &mut run.body, RunEvent::Ask(question))?;
    Ok(changes.put(run).note(core, SELF, "asked", id, Some(id), told))
}

/// Something destroys this run's machines: no more are made within the hour,
/// unless a person says so.
pub(super) async fn storm(core: &Core, id: RunId) -> Result<(), CoreError> {
    let mut run: Versioned<Run> = core.need(&id.to_string()).await?;
    let now = core.clock.wall_ms();
    // The hour may have ended since this was planned.
    let Some(over_ms) = plan::storm_of(&run.body, now) else { return Ok(()) };
    let since_ms = run.body.creates_ms.first().copied().unwrap_or(now);
    let machines = core.every::<Machine>().await?.into_iter().map(|row| row.body);
    let made = machines.filter(|machine| machine.run == id && machine.created_ms >= since_ms);
    let unstarted: Vec<_> = made.filter(|machine| machine.ready_ms == 0 && !machine.status.is_up()).collect();
    let last = unstarted.iter().max_by_key(|machine| machine.created_ms);
    let question = match last {
        Some(last) => {
            question::storm_unstarted(plan::CREATES_PER_HOUR, unstarted.len(), &last.reason, now, over_ms)
        }
        None => question::storm(plan::CREATES_PER_HOUR, now, over_ms),
    };
    let changes = put(core, &mut run, question, Changes::default())?;
    core.commit(changes).await?;
    Ok(())
}

/// Its provider keeps refusing.
pub(super) async fn refused(core: &Core, id: RunId) -> Result<(), CoreError> {
    let mut run: Versioned<Run> = core.need(&id.to_string()).await?;
    let now = core.clock.wall_ms();
    let provider = run.body.spec.provider.clone();
    let Some(row) = run.body.steer.refusals.as_mut().filter(|row| row.is_due(now)) else { return Ok(()) };
    let question = question::refused(&provider, row, now);
    row.was_told();
    let changes = put(core, &mut run, question, Changes::default())?;
    core.commit(changes).await?;
    Ok(())
}

/// What it could go on from is not good any more: a person says whether all is
/// done again.
pub(super) async fn no_checkpoint(core: &Core, id: RunId) -> Result<(), CoreError> {
    let mut run: Versioned<Run> = core.need(&id.to_string()).await?;
    let question = question::no_checkpoint(lost_step(&run.body), core.clock.wall_ms());
    let changes = put(core, &mut run, question, Changes::default())?;
    core.commit(changes).await?;
    Ok(())
}

/// Whether the run had a checkpoint of its own.
pub(super) fn had_checkpoint(run: &Run) -> bool {
    run.head.is_some() || lost_step(run).is_some()
}

fn lost_step(run: &Run) -> Option<u64> {
    let before = run.endings.iter().filter_map(|end| end.durable_step).max();
    run.head.as_ref().and_then(|head| head.step).max(before)
}

/// The question's deadline passed and its default is taken, or it is over.
pub(super) async fn over(core: &Core, id: RunId) -> Result<(), CoreError> {
    let mut run: Versioned<Run> = core.need(&id.to_string()).await?;
    let RunState::Waiting { question, .. } = &run.body.status else { return Ok(()) };
    let (kind, number) = (question.kind.name(), question.default);
    let late = core.clock.wall_ms() >= question.deadline_ms;
    let verb = if late && run.body.wish == Wish::Run { Some(question.by_default()) } else { None };
    match verb {
        Some(verb) => answered(&mut run.body, verb, false)?,
        None => run.body.status = run.body.status.apply(RunEvent::Answer)?,
    }
    if run.body.status.is_final() {
        run.body.ended_ms = core.clock.wall_ms();
    }
    let what = if verb.is_some() { "deadline-answered" } else { "question-over" };
    let detail = json!({
        "kind": kind, "number": verb.map(|_| number), "answer": verb.map(Verb::name), "run": run.body.status.name(),
    });
    core.commit(Changes::default().put(&run).note(core, SELF, what, id, Some(id), detail)).await?;
    Ok(())
}

/// What an answer makes of the run. By default (nobody said anything) a stop
/// is a failure with the question as its reason; a person's stop is their will.
///
/// # Errors
/// Where the run waits for no answer.
pub fn answered(run: &mut Run, verb: Verb, by_person: bool) -> Result<(), CoreError> {
    let RunState::Waiting { question, .. } = &run.status else {
        return Err(CoreError::Impossible(format!(
            "{} waits for no answer: it is {}",
            run.name,
            run.status.name()
        )));
    };
    let (kind, text) = (question.kind, question.text.clone());
    match verb {
        Verb::Stop if by_person => {
            // The plan ends it, with a program that is still there if need be.
            run.wish = Wish::Stop;
            run.stop_reason = Some(StopReason::Person);
            return Ok(());
        }
        Verb::Stop => {
            run.status = run.status.apply(RunEvent::Fail(format!("nobody answered: {text}")))?;
            return Ok(());
        }
        Verb::Wait => {}
        Verb::GoOn | Verb::StartOver => {
            // A person takes the responsibility for more machines and tries.
            run.creates_ms.clear();
            run.steer.refusals = None;
            (run.rejections, run.retry_at_ms) = (0, 0);
        }
    }
    if verb == Verb::StartOver || verb == Verb::GoOn && kind == Kind::Fruitless {
        run.endings.clear();
    }
    if verb == Verb::StartOver {
        run.head = None;
    }
    run.status = run.status.apply(RunEvent::Answer)?;
    Ok(())
}

#[cfg(test)]
pub(crate) mod tests;
