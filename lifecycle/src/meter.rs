//! What one rented machine has cost, from what was seen of it. The provider's
//! bill is never seen in time: between two looks everything that could have
//! been billed counts as billed, so that a cap holds in the provider's books
//! too. A look makes the estimate smaller, never what was looked at before.
//!
//! Pure: moments are handed in, in unix milliseconds. Sums are US dollars in
//! `f64`: cents of millions are exact enough, and nothing is paid from here.

use serde::{Deserialize, Serialize};

const HOUR_MS: f64 = 3_600_000.0;
const GB: f64 = 1e9;
/// A day of UTC.
pub const DAY_MS: u64 = 86_400_000;

/// What a provider takes for one machine.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Rates {
    /// US dollars an hour while it runs, beside its disk.
    pub compute_usd_per_hour: f64,
    /// US dollars an hour for its whole disk, from its creation until it is
    /// destroyed.
    pub disk_usd_per_hour: f64,
    /// US dollars for each gigabyte (10^9 bytes) from the machine.
    pub up_usd_per_gb: f64,
    /// US dollars for each gigabyte to the machine.
    pub down_usd_per_gb: f64,
}

impl Rates {
    /// One price an hour and nothing else.
    #[must_use]
    pub fn flat(usd_per_hour: f64) -> Self {
        Self { compute_usd_per_hour: usd_per_hour, ..Self::default() }
    }

    /// An hour while it runs.
    #[must_use]
    pub fn hourly(&self) -> f64 {
        self.compute_usd_per_hour + self.disk_usd_per_hour
    }

    /// The dearer of both in everything.
    #[must_use]
    pub fn dearer(&self, other: &Self) -> Self {
        Self {
            compute_usd_per_hour: self.compute_usd_per_hour.max(other.compute_usd_per_hour),
            disk_usd_per_hour: self.disk_usd_per_hour.max(other.disk_usd_per_hour),
            up_usd_per_gb: self.up_usd_per_gb.max(other.up_usd_per_gb),
            down_usd_per_gb: self.down_usd_per_gb.max(other.down_usd_per_gb),
        }
    }
}

/// What was seen to be billed at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Billed {
    /// Nothing: it is not there.
    #[default]
    Nothing,
    /// Its disk alone: it is being made, or was stopped.
    Disk,
    /// All of it.
    All,
}

/// What a machine has cost in parts, in US dollars.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Parts {
    /// While it ran.
    pub compute_usd: f64,
    /// For its disk.
    pub disk_usd: f64,
    /// For what it sent and received.
    pub traffic_usd: f64,
}

impl Parts {
    /// All of it.
    #[must_use]
    pub fn total(&self) -> f64 {
        self.compute_usd + self.disk_usd + self.traffic_usd
    }
}

/// The meter of one machine.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Meter {
    /// What it costs now.
    pub rates: Rates,
    /// What is settled: up to the last look.
    settled: Parts,
    /// The last look, unix milliseconds; 0: it was never on.
    looked_ms: u64,
    /// What was billed at the last look.
    billed: Billed,
    /// It is off for good.
    off: bool,
    /// The day of the last look, and what was settled when that began.
    day: u64,
    before_day: f64,
    /// Bytes since its boot that are settled.
    up_bytes: u64,
    down_bytes: u64,
}

impl Meter {
    /// Begins: from now on everything may be billed.
    pub fn begin(&mut self, now_ms: u64, rates: Rates) {
        if self.looked_ms == 0 {
            *self = Self { rates, looked_ms: now_ms.max(1), day: now_ms / DAY_MS, ..Self::default() };
            // Nobody has seen it yet: it may run before the first look.
            self.billed = Billed::Disk;
        }
    }

    /// Whether it ever began.
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.looked_ms > 0
    }

    /// What was billed at the last look.
    #[must_use]
    pub fn billed(&self) -> Billed {
        self.billed
    }

    /// The last look, unix milliseconds.
    #[must_use]
    pub fn looked_ms(&self) -> u64 {
        self.looked_ms
    }

    /// What was seen at the provider. What is between two looks counts as the
    /// dearer of both.
    pub fn look(&mut self, now_ms: u64, billed: Billed, rates: Rates) {
        if self.looked_ms == 0 || self.off {
            return;
        }
        let between = self.billed.max_with(billed);
        self.settle(now_ms, between, self.rates.dearer(&rates));
        self.billed = billed;
        self.rates = rates;
    }

    /// Bytes that the machine has sent and received since its boot; a smaller
    /// number is another boot.
    pub fn traffic(&mut self, up_bytes: u64, down_bytes: u64) {
        if self.off {
            return;
        }
        let grown = |now: u64, before: u64| if now >= before { now - before } else { now };
        #[expect(clippy::cast_precision_loss, reason = "bytes of one machine")]
        let usd = |bytes: u64, rate: f64| bytes as f64 / GB * rate;
        self.settled.traffic_usd += usd(grown(up_bytes, self.up_bytes), self.rates.up_usd_per_gb)
            + usd(grown(down_bytes, self.down_bytes), self.rates.down_usd_per_gb);
        (self.up_bytes, self.down_bytes) = (up_bytes, down_bytes);
    }

    /// It is gone, as of now. Since the last look it may have run.
    pub fn end(&mut self, now_ms: u64) {
        if self.looked_ms == 0 || self.off {
            return;
        }
        self.settle(now_ms, Billed::All, self.rates);
        self.billed = Billed::Nothing;
        self.off = true;
    }

    /// Nothing was ever made.
    pub fn void(&mut self) {
        *self = Self { rates: self.rates, ..Self::default() };
    }

    /// What it has cost at a moment, as far as can be known then: what was not
    /// looked at counts as if it ran.
    #[must_use]
    pub fn at(&self, now_ms: u64) -> Parts {
        let mut parts = self.settled;
        if self.looked_ms == 0 || self.off {
            return parts;
        }
        add(&mut parts, now_ms.saturating_sub(self.looked_ms), Billed::All, &self.rates);
        parts
    }

    /// What of that fell on the day of `now_ms`.
    #[must_use]
    pub fn on_day_of(&self, now_ms: u64) -> f64 {
        let day = now_ms / DAY_MS;
        let total = self.at(now_ms).total();
        let before = match day {
            same if same == self.day => self.before_day,
            // The day began after the last look.
            later if later > self.day => self.at(later * DAY_MS).total(),
            // A clock that went back: all of it, rather than too little.
            _ => 0.0,
        };
        (total - before).max(0.0)
    }

    fn settle(&mut self, now_ms: u64, billed: Billed, rates: Rates) {
        let now_ms = now_ms.max(self.looked_ms);
        let day = now_ms / DAY_MS;
        if day > self.day {
            let mut at_midnight = self.settled;
            add(&mut at_midnight, (day * DAY_MS).saturating_sub(self.looked_ms), billed, &rates);
            (self.day, self.before_day) = (day, at_midnight.total());
        }
        add(&mut self.settled, now_ms - self.looked_ms, billed, &rates);
        self.looked_ms = now_ms;
    }
}

impl Billed {
    fn max_with(self, other: Self) -> Self {
        let weight = |b: Self| match b {
            Self::Nothing => 0,
            Self::Disk => 1,
            Self::All => 2,
        };
        if weight(self) >= weight(other) { self } else { other }
    }
}

fn add(parts: &mut Parts, ms: u64, billed: Billed, rates: &Rates) {
    #[expect(clippy::cast_precision_loss, reason = "milliseconds of years fit")]
    let hours = ms as f64 / HOUR_MS;
    if billed == Billed::All {
        parts.compute_usd += hours * rates.compute_usd_per_hour;
    }
    if billed != Billed::Nothing {
        parts.disk_usd += hours * rates.disk_usd_per_hour;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const HOUR: u64 = 3_600_000;
    const RATES: Rates = Rates {
        compute_usd_per_hour: 1.0,
        disk_usd_per_hour: 0.1,
        up_usd_per_gb: 0.02,
        down_usd_per_gb: 0.01,
    };

    fn close(a: f64, b: f64) -> bool {
        (a - b).abs() < 1e-9
    }

    #[test]
    fn the_disk_costs_from_the_creation_and_the_rest_while_it_runs() {
        let mut meter = Meter::default();
        assert!(close(meter.at(HOUR).total(), 0.0));
        meter.begin(HOUR, RATES);
        // Not looked at: it may run.
        assert!(close(meter.at(2 * HOUR).total(), 1.1));
        meter.look(2 * HOUR, Billed::Disk, RATES);
        assert!(close(meter.at(2 * HOUR).total(), 0.1));
        // Running at the next look: since the last one, for all that is known.
        meter.look(3 * HOUR, Billed::All, RATES);
        assert!(close(meter.at(3 * HOUR).compute_usd, 1.0), "{meter:?}");
        // Outbid in between.
        meter.look(4 * HOUR, Billed::Disk, RATES);
        meter.look(5 * HOUR, Billed::Disk, RATES);
        meter.end(6 * HOUR);
        let parts = meter.at(100 * HOUR);
        assert!(close(parts.compute_usd, 3.0) && close(parts.disk_usd, 0.5), "{parts:?}");
    }

    #[test]
    fn a_price_that_changed_counts_as_the_dearer_one_until_the_look() {
        let mut meter = Meter::default();
        meter.begin(HOUR, Rates::flat(1.0));
        meter.look(HOUR, Billed::All, Rates::flat(1.0));
        meter.look(2 * HOUR, Billed::All, Rates::flat(3.0));
        assert!(close(meter.at(2 * HOUR).total(), 3.0));
        meter.look(3 * HOUR, Billed::All, Rates::flat(1.0));
        assert!(close(meter.at(4 * HOUR).total(), 7.0));
    }

    #[test]
    fn bytes_count_both_ways_and_a_new_boot_begins_at_nothing() {
        let mut meter = Meter::default();
        meter.begin(1, RATES);
        meter.traffic(2_000_000_000, 1_000_000_000);
        meter.traffic(3_000_000_000, 1_000_000_000);
        meter.traffic(1_000_000_000, 0);
        assert!(close(meter.at(1).traffic_usd, 4.0 * 0.02 + 0.01), "{meter:?}");
    }

    #[test]
    fn a_day_has_what_fell_on_it() {
        let mut meter = Meter::default();
        let begin = DAY_MS - 2 * HOUR;
        meter.begin(begin, Rates::flat(1.0));
        meter.look(begin, Billed::All, Rates::flat(1.0));
        assert!(close(meter.on_day_of(DAY_MS - HOUR), 1.0));
        // Without a look after midnight, and with one.
        assert!(close(meter.on_day_of(DAY_MS + HOUR), 1.0));
        meter.look(DAY_MS + HOUR, Billed::All, Rates::flat(1.0));
        assert!(close(meter.on_day_of(DAY_MS + 3 * HOUR), 3.0));
        meter.end(DAY_MS + 4 * HOUR);
        assert!(close(meter.on_day_of(DAY_MS + 5 * HOUR), 4.0));
        assert!(close(meter.on_day_of(3 * DAY_MS), 0.0));
    }

    proptest! {
        /// However seldom it is looked at, the meter never shows less than a
        /// provider bills that charges each second for what it does then.
        #[test]
        fn i16_the_meter_is_never_below_the_bill(
            plan in proptest::collection::vec((0u8..3, 1u64..600, 1u32..40, any::<bool>()), 1..40)
        ) {
            let mut meter = Meter::default();
            let mut now = 1_000_000;
            let mut bill = 0.0;
            let rates = |cents: u32| Rates { compute_usd_per_hour: f64::from(cents) / 10.0, disk_usd_per_hour: 0.05, ..RATES };
            meter.begin(now, rates(plan[0].2));
            let mut last = (Billed::Disk, rates(plan[0].2));
            for (state, seconds, cents, looked) in plan {
                let billed = [Billed::Disk, Billed::All, Billed::Disk][usize::from(state)];
                // What is not looked at stays as it was: only looks see changes.
                let (billed, rate) = if looked { (billed, rates(cents)) } else { last };
                // The change happens somewhere between two looks.
                let half = seconds * 500;
                let mut parts = Parts::default();
                add(&mut parts, half, last.0, &last.1);
                add(&mut parts, seconds * 1_000 - half, billed, &rate);
                bill += parts.total();
                now += seconds * 1_000;
                prop_assert!(meter.at(now).total() + 1e-9 >= bill || looked, "{meter:?} {bill}");
                if looked { meter.look(now, billed, rate); }
                last = (billed, rate);
                if looked { prop_assert!(meter.at(now).total() + 1e-9 >= bill, "{meter:?} {bill}"); }
            }
            // It starts once more, and nobody looks before it is gone.
            let mut parts = Parts::default();
            add(&mut parts, 60_000, Billed::All, &last.1);
            bill += parts.total();
            meter.end(now + 60_000);
            prop_assert!(meter.at(now).total() + 1e-9 >= bill);
        }
    }
}
