//! What is remembered of a physical machine, or of a kind of machine: how often
//! it came up and how fast, how long it lived, whether it was as offered. Pure.
//! Everything is forgotten by halves, and where little is known a prior speaks:
//! an unknown host is neither loved nor hated. It never forbids a host; what it
//! says is weighed against the price ([`crate::choice`]).

use serde::{Deserialize, Serialize};

/// After this time an observation counts half.
pub const HALF_LIFE_MS: u64 = 14 * 86_400_000;

/// Nine of ten starts of an unknown machine are believed to come up, with the
/// weight of two that were seen.
const PRIOR_UP: f64 = 1.8;
const PRIOR_FAILED: f64 = 0.2;
/// An image of many gigabytes and the agent, in seconds.
const PRIOR_BOOT_S: f64 = 300.0;
/// Until a start is known to have failed, in seconds.
const PRIOR_FAIL_S: f64 = 900.0;
/// How many losses that were seen the prior of a lifetime weighs as much as.
/// Hosts differ widely, so it is little.
const PRIOR_LOSSES: f64 = 0.2;
/// Bytes and seconds that a measured bandwidth is mixed with.
const PRIOR_MOVED: f64 = 1e8;
/// What one observation may tell at most: a day of starting, 30 years of life.
const SECONDS_MOST: f64 = 1e9;

/// One thing that was seen.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "saw")]
pub enum Evidence {
    /// Its agent spoke so long after it was ordered.
    CameUp {
        /// Seconds.
        after_s: f64,
    },
    /// No agent ever came from it, and that was known after this.
    Failed {
        /// Seconds.
        after_s: f64,
    },
    /// It was up for so long, and was then lost or given back.
    Lived {
        /// Seconds.
        for_s: f64,
        /// Lost, and not by anybody's wish here.
        lost: bool,
    },
    /// Its hardware failed the program (an Xid, for example).
    Fault,
    /// It was dearer, smaller or another thing than was offered.
    Lied,
    /// So much came over its link.
    Moved {
        /// Bytes.
        bytes: f64,
        /// Seconds.
        in_s: f64,
    },
}

/// What is remembered. Counts are parts of one after a while.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Reputation {
    /// Unix milliseconds as of which the figures are.
    pub at_ms: u64,
    /// Starts that came up.
    pub up: f64,
    /// Seconds that these took together.
    pub boot_s: f64,
    /// Starts that did not.
    pub failed: f64,
    /// Seconds until that was known, together.
    pub fail_s: f64,
    /// Seconds that machines were up.
    pub lived_s: f64,
    /// Losses in that time.
    pub losses: f64,
    /// Faults of its hardware.
    pub faults: f64,
    /// Offers that were not kept.
    pub lies: f64,
    /// Bytes that were seen to come over its link.
    pub bytes: f64,
    /// Seconds that they took.
    pub moved_s: f64,
}

fn positive(number: f64) -> f64 {
    if number.is_finite() && number > 0.0 { number } else { 0.0 }
}

impl Reputation {
    /// As of a later moment. A clock that was set back makes nothing younger.
    #[must_use]
    pub fn at(&self, now_ms: u64) -> Self {
        let age = now_ms.saturating_sub(self.at_ms);
        #[expect(clippy::cast_precision_loss, reason = "milliseconds of years fit")]
        let left = 0.5_f64.powf(age as f64 / HALF_LIFE_MS as f64);
        let part = |value: f64| positive(value) * left;
        Self {
            at_ms: self.at_ms.max(now_ms),
            up: part(self.up),
            boot_s: part(self.boot_s),
            failed: part(self.failed),
            fail_s: part(self.fail_s),
            lived_s: part(self.lived_s),
            losses: part(self.losses),
            faults: part(self.faults),
            lies: part(self.lies),
            bytes: part(self.bytes),
            moved_s: part(self.moved_s),
        }
    }

    /// Something was seen.
    pub fn learn(&mut self, now_ms: u64, evidence: &Evidence) {
        let mut now = self.at(now_ms);
        let bound = |seconds: f64| positive(seconds).min(SECONDS_MOST);
        match *evidence {
            Evidence::CameUp { after_s } => {
                now.up += 1.0;
                now.boot_s += bound(after_s);
            }
            Evidence::Failed { after_s } => {
                now.failed += 1.0;
                now.fail_s += bound(after_s);
            }
            Evidence::Lived { for_s, lost } => {
                now.lived_s += bound(for_s);
                now.losses += f64::from(u8::from(lost));
            }
            Evidence::Fault => now.faults += 1.0,
            Evidence::Lied => now.lies += 1.0,
            Evidence::Moved { bytes, in_s } if positive(in_s) > 0.0 => {
                now.bytes += positive(bytes).min(1e15);
                now.moved_s += bound(in_s);
            }
            Evidence::Moved { .. } => {}
        }
        *self = now;
    }

    /// The chance that a start comes up, between 0 and 1 and neither of them.
    #[must_use]
    pub fn chance_up(&self) -> f64 {
        let (up, failed) = (PRIOR_UP + positive(self.up), PRIOR_FAILED + positive(self.failed));
        up / (up + failed)
    }

    /// Seconds from the order to the agent's first word, of a start that comes up.
    #[must_use]
    pub fn mean_boot_s(&self) -> f64 {
        (PRIOR_BOOT_S + positive(self.boot_s)) / (1.0 + positive(self.up))
    }

    /// Seconds until a start that fails is known to.
    #[must_use]
    pub fn mean_fail_s(&self) -> f64 {
        (PRIOR_FAIL_S + positive(self.fail_s)) / (1.0 + positive(self.failed))
    }

    /// Mean seconds between losses, where `prior_s` is believed of machines of
    /// which nothing was seen. A fault of the hardware ends its use as a loss does.
    #[must_use]
    pub fn between_losses_s(&self, prior_s: f64) -> f64 {
        let losses = PRIOR_LOSSES + positive(self.losses) + positive(self.faults);
        (positive(prior_s).clamp(1.0, SECONDS_MOST) * PRIOR_LOSSES + positive(self.lived_s)) / losses
    }

    /// Bytes a second of its link, where `prior` is what is said of it; 0:
    /// nobody knows.
    #[must_use]
    pub fn bandwidth(&self, prior: f64) -> f64 {
        let prior = positive(prior);
        if positive(self.moved_s) == 0.0 {
            return prior;
        }
        if prior == 0.0 {
            return positive(self.bytes) / self.moved_s;
        }
        (PRIOR_MOVED + positive(self.bytes)) / (PRIOR_MOVED / prior + positive(self.moved_s))
    }

    /// How much it tells: what tells least is forgotten first.
    #[must_use]
    pub fn weight(&self) -> f64 {
        self.up + self.failed + self.losses + self.faults + self.lies + self.lived_s / 86_400.0
    }

    /// One figure for people, 0 to 100: the chance that a machine there comes
    /// up, lives for a day and is as offered, by what an unknown one has.
    #[must_use]
    pub fn score(&self, prior_s: f64) -> f64 {
        let lives = |known: &Self| {
            let day = (-86_400.0 / known.between_losses_s(prior_s)).exp();
            known.chance_up() * day / (1.0 + positive(known.lies))
        };
        let usual = lives(&Self::default()).max(1e-6);
        (50.0 * lives(self) / usual).clamp(0.0, 100.0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const DAY_MS: u64 = 86_400_000;

    #[test]
    fn an_unknown_host_is_neither_loved_nor_hated() {
        let none = Reputation::default();
        assert!((none.chance_up() - 0.9).abs() < 1e-9);
        assert!((none.between_losses_s(3_600.0) - 3_600.0).abs() < 1e-6);
        assert!((none.score(86_400.0) - 50.0).abs() < 1e-9);
        assert_eq!(none.bandwidth(5e6), 5e6);
        assert_eq!(none.bandwidth(0.0), 0.0);
    }

    #[test]
    fn what_was_seen_moves_the_figures_and_is_forgotten_by_halves() {
        let mut seen = Reputation::default();
        for _ in 0..3 {
            seen.learn(0, &Evidence::Failed { after_s: 60.0 });
        }
        assert!((seen.chance_up() - 1.8 / 5.0).abs() < 1e-9);
        assert!(seen.mean_fail_s() < 300.0);
        let later = seen.at(14 * DAY_MS);
        assert!((later.failed - 1.5).abs() < 1e-9 && later.chance_up() > seen.chance_up());
        assert!((seen.at(400 * DAY_MS).chance_up() - 0.9).abs() < 1e-3, "forgotten");
        // A clock that was set back changes nothing.
        let mut back = later;
        back.learn(0, &Evidence::Fault);
        assert_eq!((back.at_ms, back.faults), (14 * DAY_MS, 1.0));
        let mut lived = Reputation::default();
        for _ in 0..10 {
            lived.learn(0, &Evidence::Lived { for_s: 3_600.0, lost: true });
        }
        let mean = lived.between_losses_s(86_400.0);
        assert!((3_600.0..6_000.0).contains(&mean), "{mean}");
        assert!(lived.score(86_400.0) < 5.0);
        lived.learn(0, &Evidence::Lied);
        assert!(lived.lies > 0.9);
        let mut moved = Reputation::default();
        moved.learn(0, &Evidence::Moved { bytes: 1e10, in_s: 1e4 });
        assert!(moved.bandwidth(1e8) < 1.1e6, "measured, and not as told: {}", moved.bandwidth(1e8));
    }

    proptest! {
        /// Whatever is told, the figures stay figures; a loss never makes a host
        /// better, and time without one never worse.
        #[test]
        fn figures_stay_figures(
            kinds in prop::collection::vec((0u8..6, prop::sample::select(vec![
                f64::NAN, f64::INFINITY, f64::NEG_INFINITY, -1.0, 0.0, 1.0, 3_600.0, 1e300]), 0u64..1 << 50), 0..40),
            prior in prop::sample::select(vec![f64::NAN, f64::INFINITY, -1.0, 0.0, 1.0, 1e300, 7_200.0]),
        ) {
            let mut seen = Reputation::default();
            for (kind, number, at) in kinds {
                let evidence = match kind {
                    0 => Evidence::CameUp { after_s: number },
                    1 => Evidence::Failed { after_s: number },
                    2 => Evidence::Lived { for_s: number, lost: true },
                    3 => Evidence::Fault,
                    4 => Evidence::Lied,
                    _ => Evidence::Moved { bytes: number, in_s: number },
                };
                seen.learn(at, &evidence);
                for figure in [seen.chance_up(), seen.mean_boot_s(), seen.mean_fail_s(),
                    seen.between_losses_s(prior), seen.bandwidth(prior), seen.weight(), seen.score(prior)] {
                    prop_assert!(figure.is_finite() && figure >= 0.0, "{evidence:?} {figure}");
                }
                prop_assert!(seen.chance_up() > 0.0 && seen.chance_up() < 1.0);
                let mut worse = seen;
                worse.learn(seen.at_ms, &Evidence::Lived { for_s: 0.0, lost: true });
                prop_assert!(worse.between_losses_s(prior) <= seen.between_losses_s(prior));
                let mut better = seen;
                better.learn(seen.at_ms, &Evidence::Lived { for_s: 3_600.0, lost: false });
                prop_assert!(better.between_losses_s(prior) >= seen.between_losses_s(prior));
            }
        }
    }
}
