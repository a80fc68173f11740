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
    /// The machines that live now end now.
    #[serde(default)]
    pub ends: bool,
    /// So long before they were told; 0: they were not.
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

    /// Whether there are machines to be had, and what one costs an hour.
    #[must_use]
    pub fn at(&self, now_ms: u64) -> (bool, f64) {
        let since = now_ms.saturating_sub(self.begins_ms);
        let last = self.steps.iter().take_while(|step| step.at_ms <= since).last();
        last.map_or((true, 0.0), |step| (step.capacity, step.usd_per_hour))
    }

    /// When a machine is taken that was made at this moment; `None`: never.
    #[must_use]
    pub fn takes(&self, made_ms: u64) -> Option<Taken> {
        let since = made_ms.saturating_sub(self.begins_ms);
        let step = self.steps.iter().find(|step| step.ends && step.at_ms > since)?;
        let ends_ms = self.begins_ms.saturating_add(step.at_ms);
        // One that is made within the time of the notice is told at once.
        let told = (step.notice_ms > 0).then(|| ends_ms.saturating_sub(step.notice_ms).max(made_ms));
        Some(Taken { ends_ms, told_ms: told })
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
        let market = PlayedMarket { begins_ms: 1_000, boot_ms: 5, steps };
        assert_eq!(market.check(), Ok(()));
        for (now, wanted) in
            [(0, (true, 0.4)), (1_059, (true, 0.4)), (1_060, (false, 0.4)), (1_095, (true, 0.9))]
        {
            assert_eq!(market.at(now), wanted, "{now}");
        }
        let taken = |ends_ms, told_ms| Some(Taken { ends_ms, told_ms });
        assert_eq!(market.takes(1_010), taken(1_060, Some(1_040)));
        assert_eq!(market.takes(1_050), taken(1_060, Some(1_050)), "told at once");
        assert_eq!(market.takes(1_060), taken(1_090, None));
        assert_eq!(market.takes(1_090), None);
        assert_eq!(PlayedMarket::default().at(5), (true, 0.0));
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
