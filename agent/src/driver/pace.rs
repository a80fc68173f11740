//! How long the driver sleeps. While programs run it is woken by what they
//! write; it looks by itself where nothing can wake it, and now and then in
//! any case.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use proto::v1::down;
use tokio::time::Instant;

use super::{Attempt, Driver, LOOK};
use crate::supervisor::Phase;
use crate::uplink::Event;
use crate::world::World;

/// Between two looks while nothing runs, or while whatever happens wakes the
/// driver.
const QUIET: Duration = Duration::from_secs(1);
/// Between two looks, whatever happens: who writes beside the output by the
/// thousand must not keep the driver busy.
const SOON: Duration = Duration::from_millis(5);
/// Between two scans for checkpoints.
const SCAN: Duration = Duration::from_millis(400);
/// The same while none was found for [`RECENT`].
const SCAN_QUIET: Duration = Duration::from_secs(1);
const RECENT: Duration = Duration::from_secs(5);
/// In quiet times a scan is done this much early, together with a heartbeat.
const SLACK: Duration = Duration::from_millis(400);

/// What waking the driver depends on.
pub(super) struct Pace {
    /// When output was last found: it is looked for at once after a pause, and
    /// in stretches while it flows.
    flowed: Instant,
    /// The last look at output and programs.
    looked: Instant,
    /// An end was recorded and not looked at yet.
    ended: Arc<AtomicBool>,
    /// Something changed on disk and was not looked at yet.
    dirty: Arc<AtomicBool>,
    /// Whether this turn looks at output and programs.
    pub(super) fresh: bool,
    /// Something happened too soon after the last look at programs.
    pub(super) unseen: bool,
    /// When the last new checkpoint was found.
    pub(super) found: Instant,
}

impl Pace {
    pub(super) fn new() -> Self {
        let now = Instant::now();
        Self {
            flowed: now,
            looked: now,
            ended: Arc::default(),
            dirty: Arc::default(),
            fresh: true,
            unseen: false,
            found: now,
        }
    }

    /// A turn begins. `look`: it must look at output in any case.
    pub(super) fn turn(&mut self, look: bool) {
        self.fresh = self.dirty.swap(false, Ordering::Relaxed) || look;
        if self.fresh {
            self.looked = Instant::now();
        }
    }

    /// The look that begins is at ends.
    pub(super) fn looks_at_ends(&self) {
        self.ended.store(false, Ordering::Relaxed);
    }

    /// Output was found now.
    pub(super) fn flows(&mut self, now: Instant) {
        self.flowed = now;
        self.again();
    }

    /// Output flows, or could not be sent: there is to be another look soon.
    pub(super) fn again(&self) {
        self.dirty.store(true, Ordering::Relaxed);
    }

    /// Whether a scan for checkpoints is due.
    pub(super) fn scans(&self, now: Instant, due: Instant) -> bool {
        let early = if self.scan(now) == SCAN { Duration::ZERO } else { SLACK };
        now + early >= due
    }

    /// Between two scans for checkpoints, now.
    pub(super) fn scan(&self, now: Instant) -> Duration {
        if now.saturating_duration_since(self.found) < RECENT { SCAN } else { SCAN_QUIET }
    }
}

/// Whether there may be more to send now than before: all but the answer to a
/// heartbeat.
pub(super) fn lets_send(event: &Event) -> bool {
    match event {
        Event::Down(message) => !matches!(message.body, Some(down::Body::Granted(_))),
        Event::Connected | Event::Disconnected => true,
    }
}

impl Driver {
    /// How long to sleep at most, and whether changes on disk end the sleep.
    pub(super) fn pace(&mut self, scan_due: Instant) -> (Duration, bool) {
        let now = Instant::now();
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
        let (world, not_before) =
            (self.world.clone(), (self.pace.flowed + LOOK).max(self.pace.looked + SOON));
        changed(world, self.pace.dirty.clone(), not_before, told)
    }

    /// Waits until the end of a program was recorded; for ever where nothing
    /// tells. May be dropped at any moment: programs are looked at anyway.
    pub(super) fn exit(&self, told: bool) -> impl Future<Output = ()> + Send + use<> {
        let (world, ended, not_before) =
            (self.world.clone(), self.pace.ended.clone(), self.pace.looked + SOON);
        async move {
            if !told {
                return std::future::pending().await;
            }
            if !ended.load(Ordering::Relaxed) {
                world.exited().await;
                // Kept where this wait is dropped for something else.
                ended.store(true, Ordering::Relaxed);
            }
            tokio::time::sleep_until(not_before).await;
        }
    }
}

async fn changed(world: Arc<dyn World>, dirty: Arc<AtomicBool>, not_before: Instant, told: bool) {
    if !told {
        return std::future::pending().await;
    }
    if !dirty.load(Ordering::Relaxed) {
        world.changed().await;
        // Kept where this wait is dropped for something else.
        dirty.store(true, Ordering::Relaxed);
    }
    tokio::time::sleep_until(not_before).await;
}
