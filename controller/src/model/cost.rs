//! What a machine has cost, from its meter, or from its price alone in rows of
//! older builds. It must never show less than was billed.

use std::collections::BTreeMap;

use lifecycle::meter::{DAY_MS, Parts};

use super::Machine;

impl Machine {
    /// Dollars so far.
    #[must_use]
    pub fn cost_usd(&self, now_ms: u64) -> f64 {
        if self.meter.is_on() {
            return self.meter.at(now_ms).total();
        }
        // A row of an older build, or one that nothing was ever made for.
        if self.called_ms == 0 {
            return 0.0;
        }
        let until = if self.ended_ms > 0 { self.ended_ms } else { now_ms };
        #[expect(clippy::cast_precision_loss, reason = "milliseconds of years fit")]
        let hours = until.saturating_sub(self.called_ms) as f64 / 3_600_000.0;
        hours * self.usd_per_hour
    }

    /// What of that fell on the day of `from_ms` (UTC) and later.
    #[must_use]
    pub fn cost_since(&self, from_ms: u64, now_ms: u64) -> f64 {
        let day = from_ms / lifecycle::meter::DAY_MS;
        if self.meter.is_on() {
            self.meter.since_day(day, now_ms)
        } else if self.ended_ms > 0 && self.ended_ms / lifecycle::meter::DAY_MS < day {
            0.0
        } else {
            self.cost_usd(now_ms)
        }
    }

    /// What of that fell on the day of `now_ms` (UTC).
    #[must_use]
    pub fn spent_today(&self, now_ms: u64) -> f64 {
        let day = |at: u64| at / lifecycle::meter::DAY_MS;
        if self.meter.is_on() {
            self.meter.on_day_of(now_ms)
        } else if self.ended_ms > 0 && day(self.ended_ms) < day(now_ms) {
            0.0
        } else {
            self.cost_usd(now_ms)
        }
    }

    /// What it has cost in parts. A row of an older build knows no parts: all of
    /// it counts as its hours.
    #[must_use]
    pub fn parts(&self, now_ms: u64) -> Parts {
        if self.meter.is_on() {
            return self.meter.at(now_ms);
        }
        Parts { compute_usd: self.cost_usd(now_ms), ..Parts::default() }
    }

    /// What of that nobody has seen at the provider yet.
    #[must_use]
    pub fn open_usd(&self, now_ms: u64) -> f64 {
        if self.meter.is_on() {
            return (self.meter.at(now_ms).total() - self.meter.settled().total()).max(0.0);
        }
        if self.ended_ms > 0 { 0.0 } else { self.cost_usd(now_ms) }
    }

    /// What fell on each day of UTC, in days since 1970.
    #[must_use]
    pub fn spent_by_day(&self, now_ms: u64) -> BTreeMap<u64, f64> {
        if self.meter.is_on() {
            return self.meter.by_day(self.called_ms.max(self.created_ms), now_ms);
        }
        let usd = self.cost_usd(now_ms);
        let last = if self.ended_ms > 0 { self.ended_ms } else { now_ms };
        if usd > 0.0 { BTreeMap::from([(last / DAY_MS, usd)]) } else { BTreeMap::new() }
    }
}
