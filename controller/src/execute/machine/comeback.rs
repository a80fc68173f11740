//! A rented machine that stopped with the work of its run on it is asked to go
//! on where that is worth it: outbid, stopped by itself for want of a
//! controller, or by somebody. What is only on its disk comes back with it.
//! The row says so before the provider is asked, and how often is bounded; it
//! must never cost more than the run's ceiling and caps allow.

use std::sync::Arc;

use lifecycle::comeback::{self, Choice, Stop};
use lifecycle::meter::{Billed, Rates};
use lifecycle::spec::WhenStopped;
use lifecycle::{AttemptState, RunState};
use serde_json::json;

use super::SELF;
use crate::core::{Changes, Core, CoreError};
use crate::model::{Attempt, Checkpoint, Machine, ReturnAsked, Run, StopReason, Versioned, Wish};
use crate::money::{Books, DISK_HOURS, Room, reserve};
use crate::plan;
use crate::provider::{Provider, Stopped};

/// Until a program works again on a machine whose container starts again.
const HERE_MS: u64 = 60_000;
/// Until it works on another one, where nothing was measured.
const THERE_MS: u64 = 300_000;
/// Work that is left is not known: so much of it is weighed.
const LEFT_MS: u64 = 3_600_000;
/// A machine that is only needed for what is on its disk may cost three minutes
/// of its time (the plan ends it then), two more until its end is confirmed,
/// since its provider answers, and two days of its disk.
const SALVAGE_HOURS: f64 = 3.0 / 60.0;
const END_HOURS: f64 = 2.0 / 60.0;
/// Nobody waits longer for what other machines cost.
const LOOK_ELSEWHERE: std::time::Duration = std::time::Duration::from_secs(8);

/// Whether a machine was asked to go on and has time for it still.
pub(crate) fn returns(machine: &Machine, now_ms: u64) -> bool {
    machine.return_asked.is_some_and(|asked| {
        asked.asked_ms <= now_ms && now_ms < asked.stopped_ms.saturating_add(comeback::PATIENCE_MS)
    })
}

/// Whether a run may wait for a machine that has stopped: to go on, or to have
/// home what it saved before it was asked to end for its cap.
pub(crate) fn may_await(run: &Run) -> bool {
    match run.wish {
        _ if run.status != RunState::Running => false,
        Wish::Run => true,
        Wish::Stop => run.stop_reason == Some(StopReason::Budget),
        Wish::Kill => false,
    }
}

/// Its provider says that it does not run. Whether it is on its way back all
/// the same; else it is lost.
pub(super) async fn is_awaited(core: &Core, row: &Versioned<Machine>) -> Result<bool, CoreError> {
    let machine = &row.body;
    let provider = core.provider(&machine.provider)?;
    let Some(instance) = machine.instance.clone() else { return Ok(false) };
    let Some(stopped) = provider.stopped(&instance).await else { return Ok(false) };
    let Some(run) = core.load::<Run>(&machine.run.to_string()).await? else { return Ok(false) };
    let Some(attempt) = needed(core, machine, &run.body).await? else { return Ok(false) };
    let now = core.clock.wall_ms();
    let before = since_this_stop(core, machine, now);
    let stop = facts(core, &*provider, machine, &run.body, &attempt, (stopped, before), now).await?;
    match comeback::choose(&stop) {
        Choice::Wait => Ok(true),
        Choice::Ask { bid_usd } => {
            ask(core, &*provider, row.clone(), &run.body, (bid_usd, before, &stop), now).await
        }
        Choice::Leave(why) => left(core, machine, &stop, why).await,
    }
}

/// It is lost, and people can read why.
async fn left(core: &Core, machine: &Machine, stop: &Stop, why: &str) -> Result<bool, CoreError> {
    let detail = json!({"why": why, "bid_usd": stop.bid_usd, "elsewhere_usd": stop.elsewhere_usd});
    let note = Changes::default().note(core, SELF, "left-stopped", machine.id, Some(machine.run), detail);
    core.commit_quietly(note).await?;
    Ok(false)
}

/// The attempt whose work is on the machine, where that is still wanted.
async fn needed(core: &Core, machine: &Machine, run: &Run) -> Result<Option<Attempt>, CoreError> {
    let leaves = plan::is_leaving(machine, core.clock.wall_ms());
    let open = may_await(run) && !machine.condemned && !machine.given_up && !leaves;
    let (true, Some(bound)) = (open, run.bound) else { return Ok(None) };
    // One that is on its way is paid already.
    let own: Vec<Versioned<Machine>> = core.of_run(run.id).await?;
    if own.iter().any(|row| row.body.id != machine.id && row.body.status.is_hopeful() && !row.body.condemned)
    {
        return Ok(None);
    }
    let attempt = core.load::<Attempt>(&bound.to_string()).await?.map(|row| row.body);
    Ok(attempt.filter(|a| a.machine == machine.id && !matches!(a.status, AttemptState::Lost { .. })))
}

/// What was asked since this stop; an older stop is over once the machine was
/// heard, or its time was.
fn since_this_stop(core: &Core, machine: &Machine, now: u64) -> Option<ReturnAsked> {
    let asked = machine.return_asked?;
    // Of a machine that was not heard since this controller began nothing is
    // known but its row.
    let seen = core.observe(machine.id);
    let heard_since = seen.silent_ms < core.up_ms() && now.saturating_sub(seen.silent_ms) > asked.asked_ms;
    let over = now >= asked.stopped_ms.saturating_add(comeback::PATIENCE_MS.saturating_mul(2));
    (!heard_since && !over).then_some(asked)
}

async fn facts(
    core: &Core,
    provider: &dyn Provider,
    machine: &Machine,
    run: &Run,
    attempt: &Attempt,
    (stopped, before): (Stopped, Option<ReturnAsked>),
    now: u64,
) -> Result<Stop, CoreError> {
    let rates = machine.meter.rates;
    let ceiling_usd = run.spec.max_usd_per_hour.unwrap_or(0.0);
    let salvage = run.wish != Wish::Run;
    let (elsewhere_usd, looked_elsewhere) = match before {
        Some(asked) => (asked.elsewhere_usd, !asked.blind),
        None if salvage => (None, true),
        None => elsewhere(core, provider, machine, run).await.map_or((None, false), |usd| (usd, true)),
    };
    let saves: Vec<Versioned<Checkpoint>> = core.of_run(run.id).await?;
    let durable = saves.iter().map(|row| &row.body).filter(|c| c.status.is_durable() && !c.stray);
    let last = durable.map(|c| c.committed_ms).max().unwrap_or(0).max(attempt.started_ms);
    let stopped_ms = before.map_or(now, |asked| asked.stopped_ms);
    let repeat_there_ms = if attempt.started_ms > 0 { stopped_ms.saturating_sub(last) } else { 0 };
    let booted = machine.ready_ms.saturating_sub(machine.called_ms);
    Ok(Stop {
        bid_usd: stopped.bid_usd.map(|usd| before.and_then(|b| b.bid_usd).map_or(usd, |last| last.max(usd))),
        winning_usd: stopped.winning_usd,
        price_usd: rates.hourly(),
        disk_usd: rates.disk_usd_per_hour,
        ceiling_usd,
        stopped_for_ms: now.saturating_sub(stopped_ms),
        asked_ago_ms: before.map(|asked| now.saturating_sub(asked.asked_ms)),
        ever: machine.return_asked.map_or(0, |asked| asked.ever),
        here_ms: HERE_MS,
        // What it saved and had not published yet is on its disk.
        repeat_here_ms: repeat_there_ms.min(HERE_MS),
        repeat_there_ms,
        there_ms: if booted > 0 { booted.max(HERE_MS) } else { THERE_MS },
        elsewhere_usd,
        left_ms: if salvage { 0 } else { LEFT_MS },
        wish: if salvage { WhenStopped::Return } else { run.spec.machine.when_stopped },
        looked_elsewhere,
    })
}

/// An hour of the cheapest other machine, if there is one; `None`: nobody said.
async fn elsewhere(
    core: &Core,
    provider: &dyn Provider,
    machine: &Machine,
    run: &Run,
) -> Option<Option<f64>> {
    let instance = machine.instance.as_deref().unwrap_or_default();
    let host = provider.host(instance).await;
    let avoided = run.steer.avoided(core.clock.wall_ms());
    let wish = run.steer.machine(&run.spec.machine);
    let known = crate::reputation::appraisal(core, provider.name(), run).await.ok()?;
    let asked = provider.offers(wish, run.spec.max_usd_per_hour, &known);
    let offers = tokio::time::timeout(LOOK_ELSEWHERE, asked).await.ok()?.ok()?;
    let others = offers.iter().filter(|o| Some(&o.machine) != host.as_ref() && !avoided.contains(&o.machine));
    let prices = others.map(|offer| offer.usd_per_hour).filter(|usd| usd.is_finite() && *usd > 0.0);
    Some(prices.min_by(f64::total_cmp))
}

/// Whether every cap bears the return of the machine at this price. What others
/// keep back is theirs; a run that ends anyway spends of its own reserve, and
/// what is left of that still pays for the end of the machine and its disk.
async fn fits(core: &Core, machine: &Machine, run: &Run, rates: Rates) -> Result<bool, CoreError> {
    let mut world = crate::reconcile::snapshot(core).await?;
    if let Some(own) = world.machines.iter_mut().find(|m| m.id == machine.id) {
        let own = Arc::make_mut(own);
        own.meter.rates = rates;
        own.usd_per_hour = rates.hourly();
    }
    let books = Books::of(&world);
    if run.wish == Wish::Run {
        return Ok(books.exhausted(run).is_none());
    }
    let own = reserve(&rates, true, &run.spec, run.head_bytes);
    let needs = rates.hourly() * (SALVAGE_HOURS + END_HOURS) + rates.disk_usd_per_hour * DISK_HOURS;
    let left = |room: &Room| room.cap_usd - room.spent_usd - (room.reserved_usd - own);
    Ok(books.rooms(run).iter().all(|room| left(room) >= needs))
}

async fn ask(
    core: &Core,
    provider: &dyn Provider,
    mut row: Versioned<Machine>,
    run: &Run,
    (bid_usd, before, stop): (Option<f64>, Option<ReturnAsked>, &Stop),
    now: u64,
) -> Result<bool, CoreError> {
    let id = row.body.id;
    let mut rates = row.body.meter.rates;
    if let Some(usd) = bid_usd {
        rates.compute_usd_per_hour = usd;
    }
    // Held until the row says what it may cost: two that ask at once would both
    // be told that the cap bears it.
    let purse = core.purse.lock().await;
    if !fits(core, &row.body, run, rates).await? {
        return left(core, &row.body, stop, "no cap bears its return").await;
    }
    let instance = row.body.instance.clone().unwrap_or_default();
    let ever = row.body.return_asked.map_or(0, |asked| asked.ever) + 1;
    row.body.return_asked = Some(ReturnAsked {
        stopped_ms: before.map_or(now, |asked| asked.stopped_ms),
        asked_ms: now,
        times: before.map_or(0, |asked| asked.times) + 1,
        ever,
        bid_usd,
        elsewhere_usd: stop.elsewhere_usd,
        blind: !stop.looked_elsewhere,
    });
    "stopped; asked to go on".clone_into(&mut row.body.reason);
    // From now on it may cost that.
    row.body.meter.look(now, Billed::Disk, rates);
    row.body.usd_per_hour = rates.hourly();
    let detail = json!({
        "bid_usd": bid_usd, "usd_per_hour": rates.hourly(), "elsewhere_usd": stop.elsewhere_usd,
        "repeats_ms": stop.repeat_there_ms, "times": ever,
    });
    let changes =
        Changes::default().put(&row).note(core, SELF, "return-asked", id, Some(row.body.run), detail);
    if !core.commit(changes).await? {
        // Somebody was faster: it is looked at again in a moment.
        return Ok(true);
    }
    drop(purse);
    // Whatever comes of it: the higher bid alone may start it, and an answer that
    // was lost says nothing. What does not come back in time is left.
    if let Err(why) = provider.go_on(&instance, bid_usd).await {
        tracing::warn!(machine = %id.short(), why, "a stopped machine may not go on");
    }
    Ok(true)
}
