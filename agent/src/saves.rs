//! How often a program saves, what that costs, and when it is to be asked to
//! save once more. Pure: moments are milliseconds of the boot-time clock. A
//! program that does not listen is not asked again, and one that saves often
//! enough by itself never is.

use std::collections::VecDeque;

use lifecycle::cadence::{Bounds, SaveCost, interval_s};
use proto::v1;

/// Saves of which the times are kept.
const KEPT: usize = 9;
/// Until the first save is measured, seconds.
const UNMEASURED_S: f64 = 5.0;
/// Part of the program's speed that publishing takes away: it gives way.
const DRAG: f64 = 0.05;
/// An asking that so many intervals do not answer was in vain.
const PATIENCE: f64 = 2.0;
/// Not for shorter, in milliseconds.
const PATIENCE_LEAST_MS: u64 = 60_000;
/// After so many in vain in a row it is not asked any more.
const IN_VAIN: u32 = 3;

/// The saves of one attempt.
#[derive(Debug, Default)]
pub struct Saves {
    began_ms: Option<u64>,
    found_ms: VecDeque<u64>,
    /// The oldest that was found and of which nothing is durable yet.
    open_ms: Option<u64>,
    asked_ms: Option<u64>,
    /// The last asking, answered or not.
    last_asked_ms: Option<u64>,
    save_s: Option<f64>,
    publish_s: Option<f64>,
    in_vain: u32,
    deaf: bool,
    asked: u64,
}

/// A new value weighs as much as all before.
fn mean(before: Option<f64>, now: f64) -> f64 {
    before.map_or(now, |before| (before + now) / 2.0)
}

#[expect(clippy::cast_precision_loss, reason = "milliseconds of an attempt")]
fn seconds(ms: u64) -> f64 {
    ms as f64 / 1_000.0
}

impl Saves {
    /// The program runs.
    pub fn runs(&mut self, now_ms: u64) {
        self.began_ms.get_or_insert(now_ms);
    }

    /// A checkpoint was found complete.
    pub fn found(&mut self, now_ms: u64) {
        if let Some(asked) = self.asked_ms.take() {
            self.save_s = Some(mean(self.save_s, seconds(now_ms.saturating_sub(asked))));
            self.in_vain = 0;
        }
        self.open_ms.get_or_insert(now_ms);
        self.found_ms.push_back(now_ms);
        if self.found_ms.len() > KEPT {
            self.found_ms.pop_front();
        }
    }

    /// One is durable. Where several waited, so long did the first of them.
    pub fn durable(&mut self, now_ms: u64) {
        if let Some(found) = self.open_ms.take() {
            self.publish_s = Some(mean(self.publish_s, seconds(now_ms.saturating_sub(found))));
        }
    }

    /// So many processes took the signal; whether it is not asked any more. A
    /// program may catch it later than it begins to run.
    pub fn heard(&mut self, processes: usize) -> bool {
        if processes == 0 {
            self.asked_ms = None;
            self.in_vain += 1;
            self.deaf = self.in_vain >= IN_VAIN;
        }
        self.deaf
    }

    fn cost(&self) -> SaveCost {
        SaveCost {
            save_s: self.save_s.unwrap_or(UNMEASURED_S),
            publish_s: self.publish_s.unwrap_or(0.0),
            drag: DRAG,
        }
    }

    /// The best interval, where a loss is to be expected so often.
    #[must_use]
    pub fn best_s(&self, between_losses_s: f64) -> f64 {
        interval_s(&self.cost(), between_losses_s, &Bounds::default())
    }

    /// The median of the program's own intervals; one that lasts longer than
    /// that counts. `None`: nothing ran yet.
    #[must_use]
    pub fn own_s(&self, now_ms: u64) -> Option<f64> {
        let began = self.began_ms?;
        let mut between: Vec<u64> = self
            .found_ms
            .iter()
            .zip(self.found_ms.iter().skip(1))
            .map(|(a, b)| b.saturating_sub(*a))
            .collect();
        let open = now_ms.saturating_sub(self.found_ms.back().copied().unwrap_or(began));
        if between.is_empty() {
            return Some(seconds(open));
        }
        between.sort_unstable();
        Some(seconds(between[between.len() / 2].max(open)))
    }

    /// Whether the program is to be asked to save now; then it counts as asked.
    pub fn ask(&mut self, now_ms: u64, between_losses_s: f64) -> bool {
        let Some(began) = self.began_ms else { return false };
        let best_s = self.best_s(between_losses_s);
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "an hour at most")]
        let best_ms = (best_s * 1_000.0) as u64;
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "two hours at most")]
        let patience = ((best_s * PATIENCE * 1_000.0) as u64).max(PATIENCE_LEAST_MS);
        if let Some(asked) = self.asked_ms {
            if now_ms < asked.saturating_add(patience) {
                return false;
            }
            self.asked_ms = None;
            self.in_vain += 1;
        }
        if self.deaf || self.in_vain >= IN_VAIN {
            return false;
        }
        let last = self.found_ms.back().copied().unwrap_or(began).max(self.last_asked_ms.unwrap_or(0));
        if now_ms < last.saturating_add(best_ms) {
            return false;
        }
        (self.asked_ms, self.last_asked_ms) = (Some(now_ms), Some(now_ms));
        self.asked += 1;
        true
    }

    /// For the report. `None` before the first save, unless that is late: what
    /// has not saved yet has no interval of its own.
    #[must_use]
    pub fn view(&self, now_ms: u64, between_losses_s: f64) -> Option<v1::SaveHealth> {
        let own_s = self.own_s(now_ms)?;
        if self.found_ms.is_empty() && own_s < self.best_s(between_losses_s) {
            return None;
        }
        Some(v1::SaveHealth {
            own_s,
            best_s: self.best_s(between_losses_s),
            cost_s: self.cost().seconds(),
            measured: self.save_s.is_some(),
            publish_s: self.publish_s.unwrap_or(0.0),
            between_losses_s,
            asked: self.asked,
            deaf: self.deaf || self.in_vain >= IN_VAIN,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const TWO_HOURS: f64 = 7_200.0;

    /// 5 s a save, a loss each two hours: 265 s (Daly).
    #[test]
    fn a_program_that_saves_seldom_is_asked_at_the_best_interval() {
        let mut saves = Saves::default();
        assert!(!saves.ask(1_000_000, TWO_HOURS), "nothing runs");
        saves.runs(0);
        assert!(!saves.ask(264_000, TWO_HOURS));
        assert!(saves.ask(266_000, TWO_HOURS));
        assert!(!saves.ask(267_000, TWO_HOURS), "once");
        saves.found(268_000);
        saves.durable(270_000);
        // It took 2 s: the next interval is shorter.
        let best = saves.best_s(TWO_HOURS);
        assert!((160.0..180.0).contains(&best), "{best}");
        assert!(!saves.ask(268_000 + 160_000, TWO_HOURS));
        assert!(saves.ask(268_000 + 180_000, TWO_HOURS));
    }

    #[test]
    fn a_program_that_saves_often_enough_is_never_asked() {
        let mut saves = Saves::default();
        saves.runs(0);
        for at in (100_000..10_000_000).step_by(100_000) {
            assert!(!saves.ask(at, TWO_HOURS), "{at}");
            saves.found(at);
            saves.durable(at + 1_000);
        }
        assert_eq!(saves.own_s(9_950_000), Some(100.0));
        assert_eq!(saves.own_s(10_500_000), Some(600.0), "the open interval counts");
    }

    #[test]
    fn who_does_not_listen_is_left_alone() {
        let mut saves = Saves::default();
        saves.runs(0);
        for at in [400_000, 800_000, 1_200_000] {
            assert!(saves.ask(at, TWO_HOURS), "{at}");
            assert_eq!(saves.heard(0), at == 1_200_000);
        }
        assert!(!saves.ask(90_000_000, TWO_HOURS));
        assert!(saves.view(1, TWO_HOURS).is_none(), "nothing is known so early");
        assert!(saves.view(90_000_000, TWO_HOURS).unwrap().deaf, "none came for a day");
        // Takes the signal and saves nothing.
        let mut saves = Saves::default();
        saves.runs(0);
        let asks = (0..90_000_000).step_by(10_000).filter(|at| saves.ask(*at, TWO_HOURS)).count();
        assert_eq!(asks, 3);
    }

    proptest! {
        #[test]
        fn it_is_never_asked_twice_within_the_interval(
            steps in proptest::collection::vec((0u64..400_000, any::<bool>(), any::<bool>()), 1..80), mean in 1.0f64..1e7,
        ) {
            let mut saves = Saves::default();
            let (mut now, mut last): (u64, Option<u64>) = (0, None);
            saves.runs(0);
            for (pause, found, durable) in steps {
                now += pause;
                if saves.ask(now, mean) {
                    prop_assert!(last.is_none_or(|at| now - at >= 10_000), "{now} {last:?}");
                    last = Some(now);
                }
                if found { saves.found(now); }
                if durable { saves.durable(now); }
                prop_assert!(saves.view(now, mean).is_none_or(|view| view.own_s.is_finite()));
            }
        }
    }
}
