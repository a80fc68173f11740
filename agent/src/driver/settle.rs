//! What is stored becomes durable once the controller answers, and the next
//! booklet is there before it sleeps. Asked of the world when a connection is
//! new, soon after something was stored, and now and then in between.

use std::time::Duration;

use proto::v1::{self, event::Kind};
use tokio::time::Instant;

use super::Driver;
use super::attempt::Attempt;
use super::effects::{Done, RETRY};
use crate::supervisor::{Input, Phase};
use crate::world::{Published, Settlement, SharedGateway, World};

/// Between two looks at whether a booklet is due.
const NOW_AND_THEN: Duration = Duration::from_mins(1);
/// For what a superseded attempt stored: it counts no more.
const STRAYS: Duration = Duration::from_secs(15);

/// When the world is asked next.
#[derive(Debug, Clone, Copy)]
pub(super) struct Due {
    at: Instant,
    /// The connection is new.
    fresh: bool,
}

impl Due {
    pub(super) fn now() -> Self {
        Self { at: Instant::now(), fresh: true }
    }

    /// Something was stored and not answered for.
    pub(super) fn soon(&mut self) {
        self.at = self.at.min(Instant::now() + RETRY);
    }
}

/// A checkpoint that is durable, as a fact.
pub(super) fn stored_fact(key: String, step: Option<u64>) -> Kind {
    Kind::CheckpointStored(v1::CheckpointStored { manifest_key: key, step })
}

impl Attempt {
    /// Whether it is time to ask; then it is not for a while.
    pub(super) fn settles(&mut self, now: Instant) -> Option<bool> {
        (now >= self.settle.at).then(|| {
            self.settle.at = now + NOW_AND_THEN;
            std::mem::take(&mut self.settle.fresh)
        })
    }
}

impl Driver {
    /// There is a new connection: whatever waits is committed.
    pub(super) fn settle_all(&mut self) {
        for attempt in self.attempts.values_mut() {
            attempt.settle = Due::now();
        }
    }

    pub(super) fn settlement(&mut self, id: &str, settlement: Settlement) {
        let Some(attempt) = self.attempts.get_mut(id) else { return };
        // The finish has its own.
        if attempt.supervisor.phase == Phase::Running {
            attempt.publishing = false;
        }
        if settlement.left > 0 {
            attempt.settle.soon();
        }
        let mut superseded = false;
        for outcome in settlement.outcomes {
            match outcome {
                Published::Durable { key, step } => {
                    if let Some(attempt) = self.attempts.get_mut(id) {
                        attempt.published_step = attempt.published_step.max(step);
                    }
                    self.record(id, stored_fact(key, step));
                    self.answered(id, step, None);
                }
                Published::Superseded => superseded = true,
                other => {
                    if let Some(kind) = note_of(other) {
                        self.record(id, kind);
                    }
                }
            }
        }
        if superseded {
            self.input(id, Input::Superseded);
        }
    }

    /// Has the world asked, in a job that no publish runs beside.
    pub(super) fn spawn_settle(&mut self, id: &str, fresh: bool) {
        let Some(attempt) = self.attempts.get_mut(id) else { return };
        attempt.publishing = true;
        let (world, gateway, work) = (self.world.clone(), self.gateway.clone(), attempt.work.clone());
        let key = id.to_owned();
        self.jobs.spawn(async move { (key, Done::Settled(world.settle(work, gateway, fresh).await)) });
    }
}

fn note_of(outcome: Published) -> Option<Kind> {
    let text = match outcome {
        Published::Refused(why) => format!("a checkpoint that was stored is not durable: {why}"),
        Published::Later(why) => format!("a checkpoint that was stored is published again: {why}"),
        _ => return None,
    };
    Some(Kind::Note(v1::Note { level: "warning".into(), text }))
}

/// How the last settlement ended.
#[derive(Default)]
pub(super) struct Settled {
    /// Why something is not durable for good.
    pub(super) unpublished: Option<String>,
    /// Something has to be published again.
    pub(super) again: bool,
    /// What became of all of it.
    pub(super) facts: Vec<Kind>,
}

/// At the end: waits until all that is stored was answered for, unless it is
/// ended before that.
pub(super) async fn settle_last(
    world: &dyn World,
    work: &v1::Work,
    gateway: &SharedGateway,
    cancelled: impl Fn() -> bool + Send,
) -> Settled {
    let mut settled = Settled::default();
    loop {
        let settlement = world.settle(work.clone(), gateway.clone(), false).await;
        for outcome in settlement.outcomes {
            match outcome {
                Published::Durable { key, step } => settled.facts.push(stored_fact(key, step)),
                other => {
                    match &other {
                        Published::Refused(why) => settled.unpublished = Some(why.clone()),
                        Published::Later(_) => settled.again = true,
                        _ => {}
                    }
                    settled.facts.extend(note_of(other));
                }
            }
        }
        if settlement.left == 0 {
            return settled;
        }
        if cancelled() {
            let left = settlement.left;
            let why = format!("{left} checkpoints are in the store, and nobody said that they are durable");
            settled.unpublished = Some(why);
            return settled;
        }
        tokio::time::sleep(RETRY).await;
    }
}

/// Of an attempt that counts no more: what it stored is known at least as
/// stray, if somebody answers soon.
pub(super) async fn settle_strays(world: &dyn World, work: &v1::Work, gateway: &SharedGateway) {
    let _ = tokio::time::timeout(STRAYS, world.settle(work.clone(), gateway.clone(), false)).await;
}

#[cfg(test)]
mod tests;
