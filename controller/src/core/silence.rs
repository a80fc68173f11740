//! How long machines have been silent, as far as this controller can tell: no
//! longer than it has watched, and not through a time in which it stood still
//! itself. It only measures; `liveness` judges.

use std::sync::atomic::Ordering;
use std::time::Duration;

use lifecycle::MachineId;

use super::Core;
use crate::liveness::{self, Observation};

impl Core {
    /// One tick of the reconciler, due every `period_ms`. Where it comes so late
    /// that this controller must have stood still, silence is counted anew; says
    /// for how many milliseconds it did.
    pub fn tick(&self, period_ms: u64) -> Option<u64> {
        let now = self.clock.mono_ms();
        let mut all = self.presence();
        let before = self.ticked_ms.swap(now, Ordering::Relaxed);
        let stall = liveness::stall(now.saturating_sub(before), period_ms, &self.clocks)?;
        for entry in all.values_mut() {
            entry.heard_ms = entry.heard_ms.map(|at| liveness::heard_after(at, stall, now, &self.clocks));
        }
        self.watching_ms.store(now, Ordering::Relaxed);
        Some(stall)
    }

    /// Milliseconds for which this controller has watched without standing still.
    #[must_use]
    pub fn up_ms(&self) -> u64 {
        self.clock.mono_ms().saturating_sub(self.watching_ms.load(Ordering::Relaxed))
    }

    /// A mass loss is seen now.
    pub fn alarmed(&self) {
        self.alarmed_ms.store(self.clock.mono_ms().max(1), Ordering::Relaxed);
    }

    /// Milliseconds since a mass loss was last seen.
    #[must_use]
    pub fn alarmed_ms_ago(&self) -> Option<u64> {
        let at = self.alarmed_ms.load(Ordering::Relaxed);
        (at > 0).then(|| self.clock.mono_ms().saturating_sub(at))
    }

    /// How long until the next machine would be suspect if nothing came.
    #[must_use]
    pub fn until_suspect(&self) -> Option<Duration> {
        let now = self.clock.mono_ms();
        let due = |heard: u64| (heard + self.clocks.suspect_ms).checked_sub(now).filter(|ms| *ms > 0);
        let all = self.presence();
        all.values().filter_map(|entry| due(entry.heard_ms?)).min().map(Duration::from_millis)
    }

    /// What is seen of a machine now.
    #[must_use]
    pub fn observe(&self, machine: MachineId) -> Observation {
        let (now, up) = (self.clock.mono_ms(), self.up_ms());
        let all = self.presence();
        let Some(entry) = all.get(&machine) else {
            return Observation { silent_ms: up, ..Observation::default() };
        };
        let silent_ms = entry.heard_ms.map_or(up, |at| now.saturating_sub(at));
        Observation {
            // Each provider says that itself.
            boots_longer_ms: 0,
            // Its row says that.
            returns: false,
            silent_ms,
            attached: entry.attached,
            broke: entry.broke,
            // A stream that broke may be back in a moment: what is saved with
            // the last grace must not be refused for that.
            farewell: entry.farewell
                && !entry.attached
                && (entry.orderly || silent_ms >= self.clocks.suspect_ms),
            provider: entry.provider,
            asked_ms_ago: entry.asked_ms.map(|at| now.saturating_sub(at)),
        }
    }
}
