//! How often to save. A rare save costs work that is done twice after a loss,
//! a frequent one costs the time that saving takes; between them lies a best
//! interval. Pure. It never says that a save is not needed: without any loss
//! seen, a prior stands for the losses that will come.
//!
//! The model is the usual one: losses come at a constant rate, a loss costs
//! what was done since the last durable save. J. W. Young, "A first order
//! approximation to the optimum checkpoint interval", CACM 17(9), 1974;
//! J. T. Daly, "A higher order estimate of the optimum checkpoint interval for
//! restart dumps", FGCS 22(3), 2006. Lifetimes of spot machines have heavier
//! tails; decision 0040 says what that costs.

use serde::{Deserialize, Serialize};

/// What one save costs.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct SaveCost {
    /// Seconds in which the program stands still.
    pub save_s: f64,
    /// Seconds from then until the save is durable; the program runs meanwhile.
    pub publish_s: f64,
    /// Part of the program's speed that publishing takes away, 0 to 1.
    pub drag: f64,
}

impl SaveCost {
    /// A save that is durable when the program goes on.
    #[must_use]
    pub fn blocking(save_s: f64) -> Self {
        Self { save_s, publish_s: 0.0, drag: 0.0 }
    }

    /// Seconds of the program's work that one save takes away.
    #[must_use]
    pub fn seconds(&self) -> f64 {
        positive(self.save_s) + positive(self.drag).min(1.0) * positive(self.publish_s)
    }
}

/// Between which intervals a choice is made, in seconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Bounds {
    /// Not more often.
    pub least_s: f64,
    /// Not more seldom, however good the times are.
    pub most_s: f64,
}

impl Default for Bounds {
    fn default() -> Self {
        Self { least_s: 10.0, most_s: 3_600.0 }
    }
}

/// What is not a number of seconds counts as none.
fn positive(seconds: f64) -> f64 {
    if seconds.is_finite() && seconds > 0.0 { seconds } else { 0.0 }
}

/// Young's interval: the square root of twice the cost of a save times the mean
/// time between losses. Good where the cost is far below that mean.
#[must_use]
pub fn young_s(cost_s: f64, between_losses_s: f64) -> f64 {
    (2.0 * positive(cost_s) * positive(between_losses_s)).sqrt()
}

/// Daly's interval: seconds of work between the end of one save and the
/// beginning of the next. It is near the best also where a save costs about as
/// much as the mean time between losses.
#[must_use]
pub fn daly_s(cost_s: f64, between_losses_s: f64) -> f64 {
    let (cost, mean) = (positive(cost_s), positive(between_losses_s));
    if cost >= 2.0 * mean {
        return mean;
    }
    let part = cost / (2.0 * mean);
    young_s(cost, mean) * (1.0 + part.sqrt() / 3.0 + part / 9.0) - cost
}

/// The interval to save at. Publishing is a queue: saving more often than it
/// takes makes nothing durable sooner.
#[must_use]
pub fn interval_s(cost: &SaveCost, between_losses_s: f64, bounds: &Bounds) -> f64 {
    let most = positive(bounds.most_s).max(1.0);
    let least = positive(bounds.least_s).max(positive(cost.publish_s)).max(1.0).min(most);
    daly_s(cost.seconds(), between_losses_s).clamp(least, most)
}

/// Part of all time that is not useful work: saves, repeated work and
/// restarts, in Daly's complete model. 0 to 1.
#[must_use]
pub fn wasted(interval_s: f64, cost_s: f64, between_losses_s: f64, restart_s: f64) -> f64 {
    let (interval, cost) = (positive(interval_s), positive(cost_s));
    let (mean, restart) = (positive(between_losses_s), positive(restart_s));
    if interval == 0.0 || mean == 0.0 {
        return 1.0;
    }
    // Seconds needed for one second of work.
    let needed = mean / interval * (restart / mean).exp() * ((interval + cost) / mean).exp_m1();
    if needed.is_finite() && needed > 1.0 { 1.0 - 1.0 / needed } else { f64::from(!needed.is_finite()) }
}

/// What a cadence costs beside the best one.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Price {
    /// The interval that would be best, in seconds.
    pub best_s: f64,
    /// Part of the time that is wasted at the interval in use.
    pub own_wasted: f64,
    /// Part of the time that would be wasted at the best one.
    pub best_wasted: f64,
    /// What an hour at the interval in use wastes, in dollars.
    pub own_usd_per_hour: f64,
    /// What of it the best one would spare, in dollars.
    pub spare_usd_per_hour: f64,
}

/// What it costs per hour to save each `own_s` seconds.
#[must_use]
pub fn price(
    own_s: f64,
    cost: &SaveCost,
    between_losses_s: f64,
    restart_s: f64,
    usd_per_hour: f64,
    bounds: &Bounds,
) -> Price {
    let waste = |interval| wasted(interval, cost.seconds(), between_losses_s, restart_s);
    let best_s = interval_s(cost, between_losses_s, bounds);
    let (own_wasted, best_wasted) = (waste(own_s), waste(best_s));
    let usd = positive(usd_per_hour);
    Price {
        best_s,
        own_wasted,
        best_wasted,
        own_usd_per_hour: own_wasted * usd,
        spare_usd_per_hour: (own_wasted - best_wasted).max(0.0) * usd,
    }
}

/// What is believed of a kind of machine before any was seen.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Prior {
    /// Mean time between losses, in seconds.
    pub mean_s: f64,
    /// How many seen losses it weighs as much as.
    pub weight: f64,
}

impl Prior {
    /// Machines that may be taken back: recorded ones live 1 to 10 hours in
    /// the mean, half of them less than an hour.
    pub const SPOT: Self = Self { mean_s: 7_200.0, weight: 1.0 };
    /// Machines that are kept.
    pub const KEPT: Self = Self { mean_s: 30.0 * 86_400.0, weight: 1.0 };
}

/// How long machines of one kind were up, and how many of them were lost. A
/// machine that was given back, or is up still, has told of its time and of no
/// loss: it is censored, and counts for the time alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Lifetimes {
    /// Milliseconds that all of them were up.
    pub up_ms: u64,
    /// How many were lost.
    pub losses: u32,
}

impl Lifetimes {
    /// A machine was up for so long, and was then lost or not.
    pub fn add(&mut self, up_ms: u64, lost: bool) {
        self.up_ms = self.up_ms.saturating_add(up_ms);
        self.losses = self.losses.saturating_add(u32::from(lost));
    }

    /// Both together.
    #[must_use]
    pub fn with(mut self, other: &Self) -> Self {
        self.up_ms = self.up_ms.saturating_add(other.up_ms);
        self.losses = self.losses.saturating_add(other.losses);
        self
    }

    /// Mean time between losses in seconds: time up by losses, with the
    /// prior's time and losses added. Without a prior and without a loss it
    /// would be endless.
    #[must_use]
    pub fn mean_s(&self, prior: &Prior) -> f64 {
        let weight = positive(prior.weight).max(1e-3);
        #[expect(clippy::cast_precision_loss, reason = "milliseconds of machines fit")]
        let up_s = self.up_ms as f64 / 1_000.0;
        (positive(prior.mean_s).max(1.0) * weight + up_s) / (weight + f64::from(self.losses))
    }
}

/// Where one class of ages ends and the next begins, in milliseconds.
const AGES_MS: [u64; 3] = [20 * 60_000, 60 * 60_000, 240 * 60_000];
/// Mean time between losses within a class by that over all ages, as it is for
/// lifetimes spread log-normally with a median of 0.54 and a mean of 2.26 hours:
/// a zone in the middle of the published recordings.
const SHAPE: [f64; AGES_MS.len() + 1] = [0.3, 0.55, 1.1, 3.6];
/// How many losses seen within a class that shape weighs as much as.
const SHAPE_WEIGHT: f64 = 5.0;

/// Lifetimes by age. Half of all spot machines are lost within the hour, and
/// those that are not live for long: a young one is better saved more often.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ByAge {
    classes: [Lifetimes; AGES_MS.len() + 1],
}

impl ByAge {
    /// A machine was seen from one age to another, and was then lost or not.
    pub fn add(&mut self, from_ms: u64, to_ms: u64, lost: bool) {
        let mut begins = 0;
        for (class, lives) in self.classes.iter_mut().enumerate() {
            let ends = AGES_MS.get(class).copied().unwrap_or(u64::MAX);
            let here = to_ms.min(ends).saturating_sub(from_ms.max(begins));
            lives.add(here, lost && (begins..ends).contains(&to_ms));
            begins = ends;
        }
    }

    /// Over all ages.
    #[must_use]
    pub fn all(&self) -> Lifetimes {
        self.classes.iter().fold(Lifetimes::default(), Lifetimes::with)
    }

    /// Mean time between losses of machines of this age, in seconds: what was
    /// seen of them, and what the mean over all ages makes likely where that
    /// is little.
    #[must_use]
    pub fn mean_s(&self, age_ms: u64, prior: &Prior) -> f64 {
        let class = AGES_MS.iter().filter(|ends| age_ms >= **ends).count();
        let mean_s = self.all().mean_s(prior) * SHAPE[class];
        self.classes[class].mean_s(&Prior { mean_s, weight: SHAPE_WEIGHT })
    }
}

/// When to save once more where a loss was announced: seconds from now until
/// the last save must begin, so that it is durable with as much time to spare
/// as it takes. `None`: the window is too short for a save beside the one that
/// begins at once.
#[must_use]
pub fn last_save_s(left_s: f64, cost: &SaveCost) -> Option<f64> {
    let takes = positive(cost.save_s) + positive(cost.publish_s);
    let begins = left_s - 2.0 * takes.max(SPARE_S);
    (begins > takes + SPARE_S).then_some(begins)
}

/// Time to spare before a machine that was announced to end ends, at least.
const SPARE_S: f64 = 5.0;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const HOUR: f64 = 3_600.0;

    #[test]
    fn intervals_as_the_papers_have_them() {
        // (cost, mean between losses, Young, Daly), in seconds.
        for (cost, mean, young, daly) in [
            (5.0, 2.0 * HOUR, 268.3, 265.0),
            (20.0, 2.0 * HOUR, 536.7, 523.4),
            (300.0, 24.0 * HOUR, 7_200.0, 7_001.4),
            (300.0, 1.0 * HOUR, 1_469.7, 1_276.5),
        ] {
            assert!((young_s(cost, mean) - young).abs() < 0.1, "{cost} {mean}: {}", young_s(cost, mean));
            assert!((daly_s(cost, mean) - daly).abs() < 0.5, "{cost} {mean}: {}", daly_s(cost, mean));
        }
        assert_eq!(daly_s(600.0, 300.0), 300.0, "a save as long as two lives: save once a life");
    }

    #[test]
    fn what_is_no_number_never_makes_an_interval_that_is_none() {
        for bad in [f64::NAN, f64::INFINITY, -1.0, 0.0] {
            for good in [bad, 5.0] {
                let cost = SaveCost { save_s: bad, publish_s: good, drag: bad };
                let at = interval_s(&cost, good, &Bounds { least_s: bad, most_s: bad });
                assert!(at.is_finite() && at >= 1.0, "{bad} {good}: {at}");
                let waste = wasted(good, bad, good, bad);
                assert!((0.0..=1.0).contains(&waste), "{bad} {good}: {waste}");
            }
        }
    }

    #[test]
    fn no_loss_seen_is_no_promise_and_time_without_loss_is_evidence() {
        let none = Lifetimes::default();
        assert_eq!(none.mean_s(&Prior::SPOT), Prior::SPOT.mean_s);
        let mut long = Lifetimes::default();
        long.add(36_000_000, false);
        assert!((long.mean_s(&Prior::SPOT) - 43_200.0).abs() < 1e-9, "ten hours and the prior's two");
        // 40 h with 20 losses: what was seen outweighs what was believed.
        let mut many = Lifetimes::default();
        for _ in 0..20 {
            many.add(7_200_000 / 2, true);
            many.add(7_200_000 / 2, false);
        }
        assert!((many.mean_s(&Prior::SPOT) - 151_200.0 / 21.0).abs() < 1e-9);
        assert!((many.mean_s(&Prior::KEPT) - (144_000.0 + 30.0 * 86_400.0) / 21.0).abs() < 1e-6);
    }

    #[test]
    fn the_young_are_lost_sooner_once_that_was_seen() {
        let mut seen = ByAge::default();
        assert_eq!(
            seen.mean_s(0, &Prior::SPOT),
            Prior::SPOT.mean_s * SHAPE[0],
            "believed before any was seen"
        );
        for _ in 0..20 {
            seen.add(0, 10 * 60_000, true);
            seen.add(0, 10 * 3_600_000, false);
        }
        assert_eq!((seen.all().losses, seen.all().up_ms), (20, 20 * (10 * 60_000 + 36_000_000)));
        let at = |age_ms| seen.mean_s(age_ms, &Prior::SPOT);
        // Young: ten hours and 20 losses. Old: 120 hours and none.
        assert!(at(0) < 4_000.0 && at(0) == at(19 * 60_000), "{}", at(0));
        assert!(at(5 * 3_600_000) > 50_000.0, "{}", at(5 * 3_600_000));
        let mean = seen.all().mean_s(&Prior::SPOT);
        assert!(at(0) < mean && mean < at(5 * 3_600_000));
    }

    #[test]
    fn a_rare_save_has_its_price() {
        let cost = SaveCost::blocking(5.0);
        let hourly = price(HOUR, &cost, 2.0 * HOUR, 100.0, 3.0, &Bounds::default());
        assert!((hourly.best_s - 265.0).abs() < 1.0);
        // Half an hour lost per loss at about two hours between them.
        assert!((0.20..0.30).contains(&hourly.own_wasted), "{hourly:?}");
        assert!((0.04..0.06).contains(&hourly.best_wasted), "{hourly:?}");
        assert!((hourly.own_usd_per_hour - 3.0 * hourly.own_wasted).abs() < 1e-12);
        assert!((0.45..0.75).contains(&hourly.spare_usd_per_hour), "{hourly:?}");
        let best = price(hourly.best_s, &cost, 2.0 * HOUR, 100.0, 3.0, &Bounds::default());
        assert_eq!(best.spare_usd_per_hour, 0.0);
    }

    #[test]
    fn publishing_that_takes_long_bounds_the_cadence_and_its_drag_is_a_cost() {
        let slow = SaveCost { save_s: 1.0, publish_s: 900.0, drag: 0.0 };
        assert_eq!(interval_s(&slow, HOUR, &Bounds::default()), 900.0);
        let dragging = SaveCost { drag: 0.1, ..slow };
        assert_eq!(dragging.seconds(), 91.0);
        assert_eq!(interval_s(&SaveCost::blocking(5.0), 1e12, &Bounds::default()), HOUR, "at most");
        assert_eq!(interval_s(&SaveCost::blocking(0.0), HOUR, &Bounds::default()), 10.0, "at least");
    }

    #[test]
    fn the_last_save_before_an_announced_end_leaves_time_to_spare() {
        let cost = SaveCost::blocking(5.0);
        assert_eq!(last_save_s(120.0, &cost), Some(110.0));
        assert_eq!(last_save_s(120.0, &SaveCost::blocking(30.0)), Some(60.0));
        assert_eq!(last_save_s(30.0, &SaveCost::blocking(25.0)), None);
        assert_eq!(last_save_s(f64::NAN, &cost), None);
    }

    proptest! {
        /// Against brute force over the model's own cost: never more than one
        /// part in five thousand of all time worse than the best interval there
        /// is, also where a save takes as long as half a life.
        #[test]
        fn the_interval_is_as_good_as_the_best_that_a_search_finds(
            cost in 0.1f64..600.0, ratio in 1.0f64..100_000.0, restart in 0.0f64..600.0,
        ) {
            let mean = cost * ratio;
            let found = (1..4_000)
                .map(|n| mean * 3.0 * (f64::from(n) / 4_000.0).powi(2))
                .map(|interval| wasted(interval, cost, mean, restart))
                .fold(1.0, f64::min);
            let ours = wasted(daly_s(cost, mean), cost, mean, restart);
            prop_assert!(ours <= found + 0.0002, "{ours} where {found} is possible");
        }

        /// More losses never make saves rarer, dearer saves never more frequent.
        #[test]
        fn the_interval_moves_the_right_way(
            cost in 0.1f64..100.0, mean in 300.0f64..1e6, more in 1.0f64..5.0,
        ) {
            let bounds = Bounds { least_s: 1.0, most_s: 1e9 };
            let at = |cost: f64, mean: f64| interval_s(&SaveCost::blocking(cost), mean, &bounds);
            prop_assert!(at(cost, mean * more) >= at(cost, mean));
            if cost * more < mean / 8.0 {
                prop_assert!(at(cost * more, mean) >= at(cost, mean));
            }
        }

        /// A censored machine never makes losses seem more frequent, a lost
        /// one that lived no longer than the mean never less frequent.
        #[test]
        fn censoring_counts_for_time_alone(up in 0u64..1u64 << 50, losses in 0u32..1_000, more in 0u64..1u64 << 40) {
            let before = Lifetimes { up_ms: up, losses };
            let (mut censored, mut lost) = (before, before);
            censored.add(more, false);
            prop_assert!(censored.mean_s(&Prior::SPOT) >= before.mean_s(&Prior::SPOT));
            lost.add(more, true);
            if (more as f64) / 1_000.0 <= before.mean_s(&Prior::SPOT) {
                prop_assert!(lost.mean_s(&Prior::SPOT) <= before.mean_s(&Prior::SPOT) + 1e-6);
            }
        }
    }
}
