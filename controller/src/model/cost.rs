//! What a machine has cost, from its meter, or from its price alone in rows of
//! older builds. It must never show less than was billed.

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
}
