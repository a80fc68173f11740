//! The dead-man switch in the driver's loop: what was granted is written down,
//! and when it is over programs are asked to end, and then the machine.

use super::Driver;
use crate::deadman::{DeadMan, Step, Work};
use crate::supervisor::{Input, Phase, Wish};

impl Driver {
    /// Takes up the deadline of an agent before this one.
    pub(super) fn remember_deadline(&mut self) {
        let (now, wall) = ((self.boottime_ms)(), (self.wall_ms)());
        let restored = self.ending.as_ref().map(|ending| ending.restored(now, wall));
        self.deadman = restored.unwrap_or_else(|| DeadMan::restored(None, now));
    }

    /// Every turn.
    pub(super) fn watch_deadline(&mut self) {
        let Some(ending) = self.ending.clone() else { return };
        let now = (self.boottime_ms)();
        if self.deadman.counts(now)
            && let Some((sent, received)) = ending.traffic()
        {
            self.deadman.moved(sent, received);
        }
        if let Some(deadline) = self.deadman.to_write()
            && let Err(error) = ending.keep(&self.deadman, deadline, now, (self.wall_ms)())
        {
            tracing::warn!(%error, "how long this machine may go on alone cannot be written down");
        }
        let work = Work {
            busy: self.attempts.values().any(|a| a.supervisor.phase != Phase::Ended),
            // Its end, its output and its metrics are nowhere else either.
            unpublished: self
                .attempts
                .values()
                .any(|a| a.unpublished || a.supervisor.phase == Phase::Ended && !a.is_delivered()),
            grace_ms: self
                .attempts
                .values()
                .filter(|a| a.supervisor.phase != Phase::Ended)
                .map(|a| a.work.grace_seconds.saturating_mul(1_000))
                .max()
                .unwrap_or(0),
        };
        match self.deadman.step(now, work, ending.is_possible()) {
            None => {}
            Some(Step::Save) => self.save_and_end(),
            Some(Step::End(how)) if ending.is_possible() => {
                tracing::error!(
                    how = how.word(),
                    "no controller spoke and the allowance is over: this machine ends"
                );
                if let Err(error) = ending.begin(how) {
                    tracing::error!(%error, "this machine cannot end itself");
                }
            }
            Some(Step::End(_)) => {
                tracing::error!(
                    "the allowance is over and nobody left a way to end this machine: it goes on"
                );
            }
        }
    }

    fn save_and_end(&mut self) {
        tracing::error!("no controller spoke and what this machine may spend is spent: its programs end");
        let running: Vec<(String, u64)> = self
            .attempts
            .values()
            .filter(|a| a.supervisor.phase != Phase::Ended)
            .map(|a| (a.work.attempt_id.clone(), a.work.grace_seconds.saturating_mul(1_000)))
            .collect();
        for (id, grace_ms) in running {
            if let Some(attempt) = self.attempts.get_mut(&id) {
                attempt.alone = true;
            }
            self.input(&id, Input::Wished(Wish::Stop(grace_ms)));
        }
    }
}
