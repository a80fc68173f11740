//! A machine that fell silent without evidence may speak again in a moment or
//! be lost for good. While `lost_after` runs, another one is made ready: what
//! costs nothing after a few seconds of suspicion, what costs something only
//! where the run asks for it and its caps bear the ends of both. Pure.
//!
//! Nothing is ever bound from here: the silent machine keeps its attempt until
//! it is given up, and when it is heard before that, what was made is released.
//! Where many fell silent at once, or silence is no longer than this controller
//! has watched, nothing is made: the fault is more likely here than there.

use lifecycle::MachineState;

use crate::liveness::{Clocks, ProviderWord};
use crate::model::{Attempt, Machine, Run, Wish};
use crate::money::Books;

use super::{Action, CREATES_PER_HOUR, HOUR_MS, World, is_leaving};

/// So long a machine is suspect before one that costs nothing is made.
const FREE_AFTER_MS: u64 = 5_000;
/// So many machines of an hour are left for machines that are lost for good: one
/// that falls silent again and again must not use up the storm limit.
const LEFT_FOR_LOSSES: usize = 3;

/// Whether a machine of this run is anything that counts as money, be it a
/// figure that its owner gave.
fn costs(world: &World<'_>, run: &Run, held: &Machine) -> bool {
    let priced = |usd: f64| usd > 0.0;
    world.snapshot.is_paid(&run.spec.provider)
        || run.spec.usd_per_hour.is_some_and(priced)
        || priced(held.usd_per_hour)
}

/// Whether nobody knows yet if this machine is lost, so that what was made for
/// its place is kept.
pub(super) fn is_open(world: &World<'_>, run: &Run, held: &Machine) -> bool {
    held.status == MachineState::Suspect
        && run.wish == Wish::Run
        && (run.spec.machine.speculate || !costs(world, run, held))
}

/// Wants another machine beside the silent one of a run.
pub(super) fn prepare(
    world: &World<'_>,
    books: &Books<'_>,
    clocks: &Clocks,
    run: &Run,
    attempt: &Attempt,
    out: &mut Vec<Action>,
) {
    let held = world.machine(attempt.machine).filter(|held| is_open(world, run, held));
    let Some(held) = held.filter(|held| !held.condemned && !is_leaving(held, world.now_ms)) else { return };
    let (seen, age_ms) = world.seen(held.id);
    let costs = costs(world, run, held);
    let patience_ms = match costs {
        true => run.spec.machine.speculate_after_seconds.saturating_mul(1_000).max(clocks.suspect_ms),
        false => clocks.suspect_ms + FREE_AFTER_MS,
    };
    let explained = seen.returns
        || seen.farewell
        || matches!(seen.provider, Some(ProviderWord::Absent | ProviderWord::Terminal));
    // A machine that this controller has never heard is silent for as long as it
    // watches: that tells nothing.
    let unheard = seen.silent_ms >= age_ms;
    if world.doubtful || explained || unheard || seen.silent_ms < patience_ms {
        return;
    }
    // What is not made now is made when the machine is given up: nobody is asked
    // and nothing waits.
    let made = run.creates_ms.iter().filter(|at| at.saturating_add(HOUR_MS) > world.now_ms).count();
    let refused = run.rejections > 0 || run.steer.refusals.is_some() || run.retry_at_ms > world.now_ms;
    let borne = if costs { books.bears_both(run) } else { books.refuses(run).is_none() };
    if made + LEFT_FOR_LOSSES >= CREATES_PER_HOUR || refused || !borne {
        return;
    }
    let others = world.of_run(run).filter(|m| m.id != held.id && !m.given_up && !m.condemned);
    if !others.filter(|m| !is_leaving(m, world.now_ms)).any(|m| m.status.is_hopeful()) {
        out.push(Action::Intend(run.id));
    }
}
