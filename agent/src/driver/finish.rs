//! The last publish of an attempt whose program has ended: whatever was saved
//! and never became durable with this very content, whatever step it bears.
//! Waits for the publish that is under way, or what that just made durable
//! would be published a second time.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use proto::v1::{self, event::Kind};

use super::Driver;
use super::effects::{Done, RETRY};
use super::settle::{Settled, settle_last, settle_strays, stored_fact};
use super::strain::Strain;
use crate::world::{Cancelled, Candidate, Published, SharedGateway, World};

impl Driver {
    /// Publishes what the program left, once nothing else of it is published.
    pub(super) fn finish(&mut self, id: &str, counts: bool) {
        let Some(attempt) = self.attempts.get_mut(id) else { return };
        attempt.queue.clear();
        let cancelled = Arc::new(AtomicBool::new(false));
        attempt.cancelled = cancelled.clone();
        let is_under_way = std::mem::replace(&mut attempt.publishing, true);
        if is_under_way && counts {
            attempt.finish = Some(cancelled);
        } else {
            self.begin_finish(id, counts, cancelled);
        }
    }

    /// What was under way has come to its end.
    pub(super) fn finish_what_waits(&mut self, id: &str) {
        let Some(attempt) = self.attempts.get_mut(id) else { return };
        let Some(cancelled) = attempt.finish.take() else { return };
        attempt.publishing = true;
        let counts = !attempt.supervisor.is_superseded();
        self.begin_finish(id, counts, cancelled);
    }

    fn begin_finish(&mut self, id: &str, counts: bool, cancelled: Cancelled) {
        let Some(attempt) = self.attempts.get_mut(id) else { return };
        let (world, gateway, work) = (self.world.clone(), self.gateway.clone(), attempt.work.clone());
        let last = Last {
            durable: attempt.published_step,
            step: attempt.step(),
            cancelled,
            strain: attempt.strain.clone(),
        };
        let (key, last_words) = (id.to_owned(), self.last_words(id));
        self.jobs.spawn(async move {
            let (unpublished, facts) = if counts {
                finish(&*world, work.clone(), gateway.clone(), last).await
            } else {
                settle_strays(&*world, &work, &gateway).await;
                (None, Vec::new())
            };
            world.close(work, gateway).await;
            super::care::end_evidence(&world, &key, last_words).await;
            (key, Done::Finished(unpublished, facts))
        });
    }
}

/// The step of a checkpoint whose name tells none: what the program reported,
/// and never below what is durable, since a later save is a newer one.
pub(super) fn unnamed(step_now: Option<u64>, durable: Option<u64>) -> Option<u64> {
    step_now.max(durable)
}

/// What the finish knows of the attempt.
pub(super) struct Last {
    pub(super) durable: Option<u64>,
    pub(super) step: Option<u64>,
    pub(super) cancelled: Cancelled,
    /// Where it is told that nothing can be stored.
    pub(super) strain: Strain,
}

/// Checkpoints published at the end, those that were written last and the one
/// with the highest step: a machine that costs does not wait for all that a
/// program ever saved.
const LAST_MOST: usize = 16;

/// Tries at what this machine itself fails at, before it is given up.
const LOCAL_TRIES: u32 = 10;

/// One publish, again and again while only the controller is missing: it is
/// worth more than the machine's idle minutes. `Err`: given up, in words.
async fn insist<F>(last: &Last, publish: impl Fn() -> F) -> Result<Published, String>
where
    F: Future<Output = Published>,
{
    let done = tried(last, publish).await;
    last.strain.over();
    done
}

async fn tried<F>(last: &Last, publish: impl Fn() -> F) -> Result<Published, String>
where
    F: Future<Output = Published>,
{
    let mut failed_here = 0;
    loop {
        let why = match publish().await {
            Published::Later(why) => why,
            Published::Local(why) => {
                failed_here += 1;
                if failed_here >= LOCAL_TRIES {
                    return Err(why);
                }
                why
            }
            Published::Refused(why) => return Err(why),
            done => return Ok(done),
        };
        if last.cancelled.load(Ordering::Relaxed) {
            return Err(format!("it was ended before that: {why}"));
        }
        last.strain.failed(&why);
        tracing::info!(why, "a last publish must be tried again");
        tokio::time::sleep(RETRY).await;
    }
}

/// Rounds in which what was stored is published again because its commit came
/// to nothing, before that is told as the reason why it is not durable.
const ROUNDS: u32 = 5;

/// Publishes every checkpoint that is left, and then the results; and again
/// what was stored and could not become durable as it was.
pub(super) async fn finish(
    world: &dyn World,
    work: v1::Work,
    gateway: SharedGateway,
    last: Last,
) -> (Option<String>, Vec<Kind>) {
    let mut facts = Vec::new();
    for round in 1.. {
        let done = finish_once(world, &work, &gateway, &last).await;
        facts.extend(done.facts);
        if !done.again {
            return (done.unpublished, facts);
        }
        if round >= ROUNDS || last.cancelled.load(Ordering::Relaxed) {
            let why = "what was stored last could not be made durable".to_owned();
            return (done.unpublished.or(Some(why)), facts);
        }
        tokio::time::sleep(RETRY).await;
    }
    (None, facts)
}

/// The order in which what is left is published, each with its step. First
/// what the head may come from, oldest first, so that it ends on the newest;
/// then what bears a lower step than the one that is durable, newest first.
/// What is older keeps no step: it is stored and never the head.
fn in_order(left: Vec<Candidate>, last: &Last) -> Vec<Candidate> {
    let step = |c: &Candidate| c.step.or_else(|| unnamed(last.step, last.durable)).filter(|_| !c.older);
    let place = |c: &Candidate| (step(c), c.step.is_none());
    let (lower, mut first): (Vec<_>, Vec<_>) =
        left.into_iter().partition(|c| c.step.is_some() && c.step < last.durable);
    first.reverse();
    first.sort_by_key(place);
    let all = first.into_iter().chain(lower);
    all.map(|candidate| Candidate { step: step(&candidate), ..candidate }).collect()
}

async fn finish_once(world: &dyn World, work: &v1::Work, gateway: &SharedGateway, last: &Last) -> Settled {
    let mut facts = Vec::new();
    let (mut unpublished, mut gone) = (None, None);
    let mut left = world.candidates(work.clone(), true).await;
    let remarks = || {
        let remarks = world.remarks(&work.attempt_id).into_iter();
        remarks.map(|text| Kind::Note(v1::Note { level: "warning".into(), text }))
    };
    facts.extend(remarks());
    if left.len() > LAST_MOST {
        let text = format!("{} older checkpoints were not published at the end", left.len() - LAST_MOST);
        facts.push(Kind::Note(v1::Note { level: "warning".into(), text }));
        left.truncate(LAST_MOST);
    }
    for candidate in in_order(left, last) {
        facts.push(Kind::CheckpointSeen(v1::CheckpointSeen {
            name: candidate.name.clone(),
            step: candidate.step,
        }));
        let publish = || world.publish(work.clone(), candidate.clone(), gateway.clone());
        match insist(last, publish).await {
            Ok(Published::Durable { key, step }) => {
                facts.push(stored_fact(key, step));
            }
            Ok(Published::Superseded) => return Settled { facts, ..Settled::default() },
            // It was whole and is not sent: looked at again, or nobody would ever hear of it.
            Ok(Published::Gone) => gone = Some(candidate.name),
            Ok(_) => {}
            Err(why) => unpublished = Some(format!("checkpoint {} was not published: {why}", candidate.name)),
        }
    }
    if let Err(why) = insist(last, || world.publish_outputs(work.clone(), gateway.clone())).await {
        unpublished = Some(format!("the results were not published: {why}"));
    }
    facts.extend(remarks());
    let cancelled = || last.cancelled.load(Ordering::Relaxed);
    let settled = settle_last(world, work, gateway, cancelled).await;
    facts.extend(settled.facts);
    let again = settled.again || gone.is_some();
    let gone = gone.map(|name| {
        format!(
            "checkpoint {name} changed or went away each time it was read: does something still write there?"
        )
    });
    Settled { unpublished: unpublished.or(settled.unpublished).or(gone), again, facts }
}

#[cfg(test)]
mod tests;
