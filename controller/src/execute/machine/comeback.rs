//! A rented machine that stopped with the work of its run on it is asked to go
//! on where that is worth it: outbid, stopped by itself for want of a
//! controller, or by somebody. What is only on its disk comes back with it.
//! The row says so before the provider is asked, and how often is bounded; it
//! must never cost more than the run's ceiling and caps allow.

use lifecycle::comeback::{self, Choice, Stop};
use lifecycle::meter::{Billed, Rates};
use lifecycle::spec::WhenStopped;
use lifecycle::{AttemptState, RunState};
use serde_json::json;

use super::SELF;
use crate::core::{Changes, Core, CoreError};
use crate::model::{Attempt, Checkpoint, Machine, ReturnAsked, Run, StopReason, Versioned, Wish};
use crate::money::Books;
use crate::provider::{Provider, Stopped};

/// Until a program works again on a machine whose container starts again.
const HERE_MS: u64 = 60_000;
/// Until it works on another one, where nothing was measured.
const THERE_MS: u64 = 300_000;
/// Work that is left is not known: so much of it is weighed.
const LEFT_MS: u64 = 3_600_000;
/// A machine that is only needed for what is on its disk may cost so much of
/// its time.
const SALVAGE_MS: u64 = 300_000;

/// Whether a machine was asked to go on and has time for it still.
pub(crate) fn returns(machine: &Machine, now_ms: u64) -> bool {
    machine.return_asked.is_some_and(|asked| {
        asked.asked_ms <= now_ms && now_ms < asked.stopped_ms.saturating_add(comeback::PATIENCE_MS)
    })
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
    let reserved = run.body.wish == Wish::Run || bears(core, machine, &run.body).await?;
    let choice = if reserved { comeback::choose(&stop) } else { Choice::Leave("no cap bears its return") };
    match choice {
        Choice::Wait => Ok(true),
        Choice::Ask { bid_usd } => {
            ask(core, &*provider, row.clone(), &run.body, (bid_usd, before, &stop), now).await
        }
        Choice::Leave(why) => {
            let detail = json!({"why": why, "bid_usd": stop.bid_usd, "elsewhere_usd": stop.elsewhere_usd});
            let note =
                Changes::default().note(core, SELF, "left-stopped", machine.id, Some(machine.run), detail);
            core.commit_quietly(note).await?;
            Ok(false)
        }
    }
}

/// The attempt whose work is on the machine, where that is still wanted.
async fn needed(core: &Core, machine: &Machine, run: &Run) -> Result<Option<Attempt>, CoreError> {
    let open = run.status == RunState::Running && !machine.condemned && !machine.given_up;
    let wanted = match run.wish {
        Wish::Run => true,
        // Asked to end for its cap: what it saved before is worth its way home.
        Wish::Stop => run.stop_reason == Some(StopReason::Budget),
        Wish::Kill => false,
    };
    let (true, true, Some(bound)) = (open, wanted, run.bound) else { return Ok(None) };
    let attempt = core.load::<Attempt>(&bound.to_string()).await?.map(|row| row.body);
    Ok(attempt.filter(|a| a.machine == machine.id && !matches!(a.status, AttemptState::Lost { .. })))
}

/// What was asked since this stop; an older stop is over once the machine was
/// heard, or its time was.
fn since_this_stop(core: &Core, machine: &Machine, now: u64) -> Option<ReturnAsked> {
    let asked = machine.return_asked?;
    let silent = core.observe(machine.id).silent_ms;
    let heard_since = now.saturating_sub(silent) > asked.asked_ms;
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
    let elsewhere_usd = match before {
        Some(asked) => asked.elsewhere_usd,
        None if salvage => None,
        None => elsewhere(core, provider, machine, run).await,
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
    })
}

/// An hour of the cheapest other machine.
async fn elsewhere(core: &Core, provider: &dyn Provider, machine: &Machine, run: &Run) -> Option<f64> {
    let instance = machine.instance.as_deref().unwrap_or_default();
    let host = provider.host(instance).await;
    let avoided = run.steer.avoided(core.clock.wall_ms());
    let wish = run.steer.machine(&run.spec.machine);
    let known = crate::reputation::appraisal(core, provider.name(), run).await.ok()?;
    let offers = provider.offers(wish, run.spec.max_usd_per_hour, &known).await.ok()?;
    let others = offers.iter().filter(|o| Some(&o.machine) != host.as_ref() && !avoided.contains(&o.machine));
    others.map(|offer| offer.usd_per_hour).filter(|usd| usd.is_finite() && *usd > 0.0).min_by(f64::total_cmp)
}

/// Whether what every cap of the run leaves, beside what is spent, pays for
/// bringing home what is on the disk.
async fn bears(core: &Core, machine: &Machine, run: &Run) -> Result<bool, CoreError> {
    let world = crate::reconcile::snapshot(core).await?;
    #[expect(clippy::cast_precision_loss, reason = "minutes")]
    let usd = machine.meter.rates.hourly() * SALVAGE_MS as f64 / 3_600_000.0;
    Ok(Books::of(&world).rooms(run).iter().all(|room| room.cap_usd - room.spent_usd >= usd))
}

/// Whether every cap still bears the run where its machine costs so much.
async fn fits(core: &Core, machine: &Machine, run: &Run, rates: Rates) -> Result<bool, CoreError> {
    let mut world = crate::reconcile::snapshot(core).await?;
    if let Some(own) = world.machines.iter_mut().find(|m| m.id == machine.id) {
        own.meter.rates = rates;
        own.usd_per_hour = rates.hourly();
    }
    Ok(Books::of(&world).exhausted(run).is_none())
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
        if run.wish == Wish::Run && !fits(core, &row.body, run, rates).await? {
            return Ok(false);
        }
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
    });
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
    match provider.go_on(&instance, bid_usd).await {
        Ok(()) => Ok(true),
        Err(why) => {
            tracing::warn!(machine = %id.short(), why, "a stopped machine does not go on");
            Ok(false)
        }
    }
}
