//! Where the next machine comes from: the provider of a replay asks the rule
//! of the policy, as one would that rents in several zones.

use lifecycle::cadence::{self, Prior};
use lifecycle::market::{self, Delays, Place, View};

use super::world::{LOOK_MS, World};
use crate::plan::{CREATES_PER_HOUR, HOUR_MS};

fn seconds(ms: u64) -> f64 {
    ms as f64 / 1_000.0
}

impl World<'_> {
    /// Where the run is, as far as it can stay there.
    pub(super) fn on(&self) -> Place {
        let instance = self.program.as_ref().and_then(|program| self.rows.instance(program.machine));
        match instance {
            None => Place::Nowhere,
            Some(instance) if instance.noticed => Place::Nowhere,
            Some(instance) if instance.zone.is_some() => Place::Spot,
            Some(_) => Place::OnDemand,
        }
    }

    /// The zone that a spot machine would come from now.
    pub(super) fn zone(&self) -> Option<usize> {
        let held = |zone: usize| self.rows.instances.iter().any(|it| it.zone == Some(zone) && !it.dead);
        let open = (0..self.zones.len())
            .filter(|zone| self.zones[*zone].until(self.rows.now_ms).is_some() && !held(*zone));
        if !self.policy.chooses_zones {
            return open.into_iter().next();
        }
        open.min_by(|a, b| self.useful_usd(*a).total_cmp(&self.useful_usd(*b)))
    }

    /// What an hour of useful work is expected to cost in a zone.
    fn useful_usd(&self, zone: usize) -> f64 {
        let cost = self.settings.save_cost();
        let mean = self.between_losses_s(zone);
        let interval = cadence::interval_s(&cost, mean, &cadence::Bounds::default());
        let restart = seconds(self.settings.detect_ms + self.settings.relaunch_ms);
        let wasted = cadence::wasted(interval, cost.seconds(), mean, restart);
        market::usd_per_useful_hour(self.usd(zone), wasted)
    }

    /// Mean time between losses in a zone: what is believed of it before is
    /// what was seen in all of them.
    fn between_losses_s(&self, zone: usize) -> f64 {
        let all = self.lives.iter().fold(cadence::Lifetimes::default(), cadence::Lifetimes::with);
        let prior = Prior { mean_s: all.mean_s(&Prior::SPOT), weight: 1.0 };
        self.lives[zone].mean_s(&prior)
    }

    pub(super) fn usd(&self, zone: usize) -> f64 {
        self.zones[zone].usd_at(self.rows.now_ms).unwrap_or(self.settings.spot_usd)
    }

    /// Where the run should be now.
    pub(super) fn wanted(&self) -> Place {
        let zone = self.zone();
        let now = self.rows.wall_ms();
        let recent = self.rows.run.creates_ms.iter().filter(|at| **at + HOUR_MS > now).count();
        // A machine whose intent is recorded is made already in that count.
        let intents = self.rows.machines.iter().filter(|m| m.called_ms == 0).count();
        let left = CREATES_PER_HOUR.saturating_sub(recent.saturating_sub(intents));
        let view = View {
            now_s: seconds(self.rows.now_ms - self.rows.began_ms),
            deadline_s: self.settings.deadline_ms.map(seconds),
            work_s: self.settings.work_ms.map_or(f64::INFINITY, seconds),
            done_s: seconds(self.done_ms()),
            on: self.on(),
            spot: zone.is_some(),
            spot_usd: zone.map_or(self.settings.spot_usd, |zone| self.usd(zone)),
            on_demand_usd: self.settings.on_demand_usd,
            between_losses_s: zone
                .map_or_else(|| self.exposed.all().mean_s(&Prior::SPOT), |zone| self.between_losses_s(zone)),
            creates_left: u32::try_from(left).unwrap_or(u32::MAX),
            delays: Delays {
                detect_s: seconds(self.settings.detect_ms),
                start_s: seconds(self.settings.relaunch_ms),
                save_s: seconds(self.settings.save_ms),
                unsaved_s: seconds(self.spot_interval_ms()),
                look_s: seconds(LOOK_MS),
            },
        };
        market::decide(self.policy.rule, &view)
    }
}
