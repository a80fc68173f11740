//! A market that is played on this computer: when there is a machine to be had,
//! at what price, how long it boots, and when those that live are taken. For
//! trying everything that happens to rented machines without an account. Pure.

use serde::{Deserialize, Serialize};

/// Changes of one market at most.
const MOST_STEPS: usize = 10_000;
/// Longest time of anything in it: a year.
const LONGEST_MS: u64 = 366 * 86_400_000;

/// A market, from the submission of its run on.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct PlayedMarket {
    /// When it begins, unix milliseconds.
    pub begins_ms: u64,
    /// How much longer than usual a machine boots, in milliseconds.
    #[serde(default)]
    pub boot_ms: u64,
    /// In so many milliseconds an hour of it passes; 0: in an hour.
    #[serde(default)]
    pub hour_ms: u64,
    /// What changes, by time. Before the first there are machines, for nothing.
    pub steps: Vec<MarketStep>,
}

/// A change.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct MarketStep {
    /// When, in milliseconds after the beginning.
    pub at_ms: u64,
    /// Whether there are machines to be had from here on.
    pub capacity: bool,
    /// What a machine costs an hour that is made from here on, in dollars.
    pub usd_per_hour: f64,
    /// The machines end now that live, and were made before the notice: who is
    /// made after it is none of those.
    #[serde(default)]
    pub ends: bool,
    /// So long before they were told; where that is before the beginning, half of
    /// the time until then. 0: they were not.
    #[serde(default)]
    pub notice_ms: u64,
}

/// When a machine is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Taken {
    /// Unix milliseconds.
    pub ends_ms: u64,
    /// When it is told, unix milliseconds; `None`: it is not.
    pub told_ms: Option<u64>,
}

impl MarketStep {
    /// When those are told that it ends, in milliseconds after the beginning.
    fn told_ms(&self) -> u64 {
        if self.notice_ms < self.at_ms { self.at_ms - self.notice_ms } else { self.at_ms / 2 }
    }
}

impl PlayedMarket {
    /// Whether it can be played: asked again by whoever got it from somebody
    /// else.
    ///
    /// # Errors
    /// What is wrong, in words.
    pub fn check(&self) -> Result<(), String> {
        if self.steps.len() > MOST_STEPS {
            return Err(format!("a market has at most {MOST_STEPS} changes"));
        }
        if !self.steps.is_sorted_by_key(|step| step.at_ms) {
            return Err("the changes of a market must rise".to_owned());
        }
        let long = |ms: u64| ms > LONGEST_MS;
        let odd = |step: &MarketStep| {
            long(step.at_ms) || long(step.notice_ms) || !(0.0..=1e6).contains(&step.usd_per_hour)
        };
        if long(self.boot_ms) || self.steps.iter().any(odd) {
            return Err("a market lasts a year at most, and its prices are 0 to a million".to_owned());
        }
        Ok(())
    }

    /// Whether there are machines to be had, and what one costs an hour. Who
    /// tells all that they end, and has none afterwards, has none to give.
    #[must_use]
    pub fn at(&self, now_ms: u64) -> (bool, f64) {
        let since = now_ms.saturating_sub(self.begins_ms);
        let last = self.steps.iter().take_while(|step| step.at_ms <= since).last();
        let (capacity, usd) = last.map_or((true, 0.0), |step| (step.capacity, step.usd_per_hour));
        let told = |step: &MarketStep| step.told_ms() <= since && since < step.at_ms;
        let leaves = self.steps.iter().any(|step| step.ends && !step.capacity && told(step));
        (capacity && !leaves, usd)
    }

    /// When a machine is taken that was made at this moment; `None`: never.
    #[must_use]
    pub fn takes(&self, made_ms: u64) -> Option<Taken> {
        let since = made_ms.saturating_sub(self.begins_ms);
        // One that is made within the time of a notice is what that calls for.
        let step = self.steps.iter().find(|step| step.ends && step.told_ms() > since)?;
        let told = (step.notice_ms > 0).then(|| self.begins_ms.saturating_add(step.told_ms()));
        Some(Taken { ends_ms: self.begins_ms.saturating_add(step.at_ms), told_ms: told })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(at_ms: u64, capacity: bool, usd: f64, ends: bool, notice_ms: u64) -> MarketStep {
        MarketStep { at_ms, capacity, usd_per_hour: usd, ends, notice_ms }
    }

    #[test]
    fn a_market_gives_prices_and_takes_back_by_its_own_time() {
        let steps =
            vec![step(0, true, 0.4, false, 0), step(60, false, 0.4, true, 20), step(90, true, 0.9, true, 0)];
        let market = PlayedMarket { begins_ms: 1_000, boot_ms: 5, hour_ms: 0, steps };
        assert_eq!(market.check(), Ok(()));
        for (now, wanted) in [
            (0, (true, 0.4)),
            (1_039, (true, 0.4)),
            (1_040, (false, 0.4)),
            (1_060, (false, 0.4)),
            (1_095, (true, 0.9)),
        ] {
            assert_eq!(market.at(now), wanted, "{now}");
        }
        let taken = |ends_ms, told_ms| Some(Taken { ends_ms, told_ms });
        assert_eq!(market.takes(1_010), taken(1_060, Some(1_040)));
        assert_eq!(market.takes(1_050), taken(1_090, None), "made after the notice");
        assert_eq!(market.takes(1_060), taken(1_090, None));
        assert_eq!(market.takes(1_090), None);
        assert_eq!(PlayedMarket::default().at(5), (true, 0.0));
    }

    #[test]
    fn who_replaces_a_machine_that_was_told_of_its_end_is_not_taken_with_it() {
        let one = |at_ms, notice_ms| PlayedMarket {
            steps: vec![step(at_ms, true, 1.0, true, notice_ms)],
            ..PlayedMarket::default()
        };
        let market = one(25_000, 15_000);
        assert_eq!(market.takes(9_999), Some(Taken { ends_ms: 25_000, told_ms: Some(10_000) }));
        for made in [10_000, 11_000, 24_999, 25_000] {
            assert_eq!(market.takes(made), None, "{made}");
            assert!(market.at(made).0, "there is another one at {made}");
        }
        // A notice that is longer than the market is old takes somebody all the same.
        let told = one(25_000, 60_000).takes(1_000).unwrap();
        assert_eq!((told.ends_ms, told.told_ms), (25_000, Some(12_500)));
    }

    #[test]
    fn what_cannot_be_played_is_refused() {
        let market = |steps: Vec<MarketStep>| PlayedMarket { steps, ..PlayedMarket::default() };
        for bad in [
            market(vec![step(5, true, 0.0, false, 0), step(4, true, 0.0, false, 0)]),
            market(vec![step(u64::MAX, true, 0.0, false, 0)]),
            market(vec![step(1, true, f64::NAN, false, 0)]),
            market(vec![step(1, true, -1.0, false, 0)]),
            market(vec![step(1, true, 0.0, false, 0); MOST_STEPS + 1]),
        ] {
            assert!(bad.check().is_err(), "{:?}", bad.steps.first());
        }
    }
}
