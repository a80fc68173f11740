//! A machine whose provider gave notice is replaced before it dies: another is
//! made while it works on, and the run is bound there once it is ready and what
//! was asked for is saved, or the time is nearly over. Pure.
//!
//! A notice may be false. Until [`GRACE_MS`] after its time the decision
//! stands: a replacement that is ready is taken. After that the machine is as
//! good as any, and what was made for its replacement is released.

use crate::model::{Attempt, Machine, Run, Wish};
use crate::money::Books;

use super::{Action, REFUSED_MOST_MS, World, storm_of};

/// So long before its time nothing is waited for any more: what is not saved by
/// then is lost with the machine.
const NEAR_MS: u64 = 2_000;
/// A notice that is given much earlier makes no machine until so long before
/// its time: the one that works is paid too.
const EARLY_MS: u64 = 900_000;
/// So long after its time a notice was false.
const GRACE_MS: u64 = 60_000;

/// Whether a machine is about to be taken, as far as is known.
#[must_use]
pub fn is_leaving(machine: &Machine, now_ms: u64) -> bool {
    let notice = machine.notice.as_ref().filter(|notice| notice.ends && !notice.withdrawn);
    notice.is_some_and(|notice| {
        let soon = now_ms.saturating_add(EARLY_MS) >= notice.until_ms;
        soon && now_ms < notice.until_ms.saturating_add(GRACE_MS)
    })
}

/// Whether a run may leave a machine that is about to be taken: what was asked
/// for is saved, or there is no time left for it.
#[must_use]
pub fn may_be_left(machine: &Machine, now_ms: u64) -> bool {
    let Some(notice) = &machine.notice else { return false };
    is_leaving(machine, now_ms) && (notice.saved || now_ms.saturating_add(NEAR_MS) >= notice.until_ms)
}

/// Wants a replacement for the bound machine of a run that works on.
pub(super) fn replace_early(
    world: &World<'_>,
    books: &Books<'_>,
    run: &Run,
    attempt: &Attempt,
    out: &mut Vec<Action>,
) {
    let held = world.machine(attempt.machine);
    let Some(held) = held.filter(|m| run.wish == Wish::Run && is_leaving(m, world.now_ms)) else { return };
    let others = || {
        let own = world.of_run(run).filter(|m| m.id != held.id);
        own.filter(|m| !m.given_up && !m.condemned && !is_leaving(m, world.now_ms))
    };
    if let Some(ready) = world.ready(others()) {
        if may_be_left(held, world.now_ms) {
            out.push(Action::Bind(run.id, ready));
        }
        return;
    }
    let waits = run.retry_at_ms > world.now_ms && run.retry_at_ms <= world.now_ms + REFUSED_MOST_MS;
    // Nobody is asked and nothing is stopped for a machine that works: where no
    // other may be made now, its end decides.
    let may = !waits && storm_of(run, world.now_ms).is_none() && books.refuses(run).is_none();
    if may && !others().any(|m| m.status.is_hopeful()) {
        out.push(Action::Intend(run.id));
    }
}
