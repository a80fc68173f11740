//! How long the driver sleeps. While programs run it is woken by what they
//! write; it looks by itself where nothing can wake it, and now and then in
//! any case.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::{Attempt, Driver, LOOK};
use crate::supervisor::Phase;
use crate::world::World;

/// Between two looks while nothing runs, or while whatever happens wakes the
/// driver.
const QUIET: Duration = Duration::from_secs(1);
/// Between two scans for checkpoints.
const SCAN: Duration = Duration::from_millis(400);
/// The same while none was found for [`RECENT`].
const SCAN_QUIET: Duration = Duration::from_secs(1);
const RECENT: Duration = Duration::from_secs(5);

/// What waking the driver depends on.
pub(super) struct Pace {
    turned: Instant,
    /// Something happened too soon after the last look at programs.
    pub(super) unseen: bool,
    /// When the last new checkpoint was found.
    pub(super) found: Instant,
}

impl Pace {
    pub(super) fn new() -> Self {
        let now = Instant::now();
        Self { turned: now, unseen: false, found: now }
    }

    /// Between two scans for checkpoints, now.
    pub(super) fn scan(&self, now: Instant) -> Duration {
        if now.saturating_duration_since(self.found) < RECENT { SCAN } else { SCAN_QUIET }
    }
}

impl Driver {
    /// How long to sleep at most, and whether changes on disk end the sleep.
    pub(super) fn pace(&mut self, scan_due: Instant) -> (Duration, bool) {
        let now = Instant::now();
        self.pace.turned = now;
        let busy: Vec<&Attempt> = self.attempts.values().filter(|a| a.is_busy()).collect();
        let running = busy.iter().all(|a| a.supervisor.phase == Phase::Running);
        let ids: Vec<&str> = busy.iter().map(|a| a.work.attempt_id.as_str()).collect();
        let told = running && !ids.is_empty() && self.world.tells_changes(&ids);
        let look = if told || ids.is_empty() { QUIET } else { LOOK };
        let until = |due: Instant| due.saturating_duration_since(now);
        let scan = if told { until(scan_due) } else { look };
        let program = if self.pace.unseen { until(self.program_due) } else { look };
        let look = look.min(scan).min(program).min(until(self.beat_due)).min(self.guard.turn());
        (look, told)
    }

    /// Waits for a change, but never wakes more often than output is looked at
    /// anyway: a program that writes without a pause is read in stretches.
    pub(super) fn change(&self, told: bool) -> impl Future<Output = ()> + Send + use<> {
        let (world, not_before) = (self.world.clone(), self.pace.turned + LOOK);
        changed(world, not_before, told)
    }
}

async fn changed(world: Arc<dyn World>, not_before: Instant, told: bool) {
    if told {
        tokio::time::sleep_until(not_before).await;
        world.changed().await;
    } else {
        std::future::pending::<()>().await;
    }
}
