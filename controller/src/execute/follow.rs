//! What follows an ended attempt: its end as the retry rules see it, the run's
//! next event, and what the next machine must be. The rules themselves are
//! `lifecycle::retry`'s.

use lifecycle::cause::Cause;
use lifecycle::question::{self, Question};
use lifecycle::retry::{self, Decision, Ending, Means};
use lifecycle::{AttemptState, RunEvent};
use serde_json::{Value, json};

use super::{SELF, ask, moved};
use crate::capsule;
use crate::core::{Changes, Core, CoreError};
use crate::model::{Attempt, Machine, Run, Versioned, Wish};
use crate::plan;

const ENDINGS: usize = 100;

/// The end of an attempt as the retry rules see it.
pub(super) fn ending(core: &Core, run: &Run, attempt: &Attempt, usd_per_hour: f64) -> Ending {
    let exit = match &attempt.status {
        AttemptState::Ended { exit } => Some(exit.clone()),
        // What was heard of the program before its machine was lost is its
        // failure all the same: another machine would buy it again.
        _ => attempt.heard_failure().cloned(),
    };
    let verdict = capsule::judge_rows(run, attempt);
    let known = !matches!(verdict.cause, Cause::Unknown | Cause::Running);
    let until = if attempt.ended_ms > 0 { attempt.ended_ms } else { core.clock.wall_ms() };
    #[expect(clippy::cast_precision_loss, reason = "milliseconds of years fit")]
    let hours = until.saturating_sub(attempt.bound_ms) as f64 / 3_600_000.0;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "saturates, not negative")]
    let micro_usd = (hours * usd_per_hour.max(0.0) * 1e6) as u64;
    Ending {
        exit,
        fingerprint: retry::fingerprint(&attempt.last_error_line),
        step: attempt.last_step,
        durable_step: run.head.as_ref().and_then(|h| h.step),
        started: attempt.program_started,
        transient: attempt.transient,
        hang: !attempt.hang.is_empty(),
        at_ms: core.clock.wall_ms(),
        cause: known.then_some((verdict.cause, verdict.confidence)),
        micro_usd,
    }
}

pub(super) fn remember(run: &mut Run, end: Ending) {
    run.endings.push(end);
    let surplus = run.endings.len().saturating_sub(ENDINGS);
    run.endings.drain(..surplus);
}

/// What follows.
pub(super) struct Next {
    event: RunEvent,
    asked: Option<Question>,
    /// Why the next machine must be a larger one, and how large.
    larger: Option<Value>,
}

impl From<RunEvent> for Next {
    fn from(event: RunEvent) -> Self {
        Self { event, asked: None, larger: None }
    }
}

impl Next {
    /// Whether the machine of the ended attempt is too small for the next.
    pub(super) fn is_larger(&self) -> bool {
        self.larger.is_some()
    }

    /// Moves the run.
    pub(super) fn take(&self, core: &Core, run: &mut Run) -> Result<(), CoreError> {
        moved(core, run, self.event.clone())?;
        match &self.asked {
            Some(question) => moved(core, run, RunEvent::Ask(question.clone())),
            None => Ok(()),
        }
    }

    /// Journals what there is to say besides the end itself.
    pub(super) fn note(self, core: &Core, run: &Run, changes: Changes) -> Changes {
        let id = run.id;
        let changes = match self.larger {
            Some(detail) => changes.note(core, SELF, "larger-machine", id, Some(id), detail),
            None => changes,
        };
        match self.asked {
            Some(question) => changes.note(core, SELF, "asked", id, Some(id), ask::detail(&question)),
            None => changes,
        }
    }
}

async fn means(core: &Core, run: &Run) -> Result<Means, CoreError> {
    let left_micro_usd = match run.spec.max_usd {
        None => None,
        Some(cap) => {
            let now = core.clock.wall_ms();
            let machines: Vec<Versioned<Machine>> = core.of_run(run.id).await?;
            let spent: f64 = machines.iter().map(|m| m.body.cost_usd(now)).sum();
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "saturates, not negative"
            )]
            let left = ((cap - spent).max(0.0) * 1e6) as u64;
            Some(left)
        }
    };
    let chooses = core.providers.get(&run.spec.provider).is_some_and(|provider| provider.chooses());
    Ok(Means { chooses, enlarged: run.steer.enlarged, left_micro_usd })
}

/// What follows the newest ending, as the run's next event.
pub(super) async fn follow(core: &Core, run: &mut Run) -> Result<Next, CoreError> {
    if run.wish != Wish::Run {
        return Ok(plan::stopped_as(run).into());
    }
    let means = means(core, run).await?;
    Ok(match retry::after(&run.endings, &run.spec.retry, &means) {
        Decision::GiveUp(why) => RunEvent::Fail(why).into(),
        Decision::Ask(why) => {
            Next { asked: Some(question::fruitless(&why, core.clock.wall_ms())), ..RunEvent::Unbind.into() }
        }
        Decision::Again => {
            let last = run.endings.last();
            let remedy = last.filter(|_| means.chooses).map(|end| (retry::remedy(end), end.cause));
            let larger = remedy.and_then(|(remedy, cause)| {
                let said = run.steer.enlarge(&run.spec.machine, remedy)?;
                Some(json!({"why": cause.map(|(cause, _)| cause.name()), "asks": said}))
            });
            Next { larger, ..RunEvent::Unbind.into() }
        }
    })
}
