//! What one rented machine has cost, from what was seen of it. The provider's
//! bill is never seen in time: between two looks everything that could have
//! been billed counts as billed, so that a cap holds in the provider's books
//! too. A look makes the estimate smaller, never what was looked at before.
//!
//! A price that cannot be is counted only once it was said twice, and bounded:
//! see [`Meter::hear`]. What was charged in the end makes the estimate smaller
//! too ([`Meter::charged`]), but never less than was certainly billed.
//!
//! Pure: moments are handed in, in unix milliseconds. Sums are US dollars in
//! `f64`: cents of millions are exact enough, and nothing is paid from here.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

mod doubt;

use doubt::Doubt;
pub use doubt::Word;

const HOUR_MS: f64 = 3_600_000.0;
const GB: f64 = 1e9;
/// Days of which is kept what they began with.
const DAYS: usize = 400;
/// Between two looks that are further apart nothing is certain.
const CERTAIN_MS: u64 = 300_000;
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

    /// How many milliseconds of it cost as much as a gigabyte from and to it.
    #[must_use]
    pub fn gigabytes_as_ms(&self) -> (u64, u64) {
        let hourly = self.hourly();
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a year at most")]
        let ms = |usd: f64| {
            if hourly > 0.0 && usd > 0.0 { (usd / hourly * HOUR_MS).ceil().min(3.2e10) as u64 } else { 0 }
        };
        (ms(self.up_usd_per_gb), ms(self.down_usd_per_gb))
    }

    fn cheaper(&self, other: &Self) -> Self {
        Self {
            compute_usd_per_hour: self.compute_usd_per_hour.min(other.compute_usd_per_hour),
            disk_usd_per_hour: self.disk_usd_per_hour.min(other.disk_usd_per_hour),
            up_usd_per_gb: self.up_usd_per_gb.min(other.up_usd_per_gb),
            down_usd_per_gb: self.down_usd_per_gb.min(other.down_usd_per_gb),
        }
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
    /// What of that was for what it sent.
    pub up_usd: f64,
}

impl Parts {
    /// All of it.
    #[must_use]
    pub fn total(&self) -> f64 {
        self.compute_usd + self.disk_usd + self.traffic_usd
    }

    /// What of the traffic was for what it received.
    #[must_use]
    pub fn down_usd(&self) -> f64 {
        (self.traffic_usd - self.up_usd).max(0.0)
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
    /// What was settled when each of the last days began, the newest last.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    days: Vec<(u64, f64)>,
    /// What was billed for certain, US dollars.
    certain_usd: f64,
    /// What was charged in the end, US dollars.
    #[serde(skip_serializing_if = "Option::is_none")]
    charged_usd: Option<f64>,
    /// Its provider says a price that cannot be.
    #[serde(skip_serializing_if = "Option::is_none")]
    doubt: Option<Box<Doubt>>,
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
        if now_ms.saturating_sub(self.looked_ms) <= CERTAIN_MS {
            let mut least = Parts::default();
            let both = if between == self.billed { billed } else { self.billed };
            add(&mut least, now_ms.saturating_sub(self.looked_ms), both, &self.rates.cheaper(&rates));
            self.certain_usd += least.total();
        }
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
        if let Some(doubt) = &mut self.doubt {
            doubt.sound.traffic(up_bytes, down_bytes);
        }
        let grown = |now: u64, before: u64| if now >= before { now - before } else { now };
        #[expect(clippy::cast_precision_loss, reason = "bytes of one machine")]
        let usd = |bytes: u64, rate: f64| bytes as f64 / GB * rate;
        let up_usd = usd(grown(up_bytes, self.up_bytes), self.rates.up_usd_per_gb);
        self.settled.up_usd += up_usd;
        self.settled.traffic_usd +=
            up_usd + usd(grown(down_bytes, self.down_bytes), self.rates.down_usd_per_gb);
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

    /// It was seen alive after its end: all since then may have been billed.
    pub fn resume(&mut self, called_ms: u64) {
        (self.off, self.charged_usd) = (false, None);
        self.billed = Billed::Disk;
        self.begin(called_ms, self.rates);
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

    /// What of that fell on `from_day` (days since 1970) and later, for bills of
    /// a part of its life. More rather than less, where that is not known.
    #[must_use]
    pub fn since_day(&self, from_day: u64, now_ms: u64) -> f64 {
        let total = self.at(now_ms).total();
        let before = match self.days.iter().find(|(day, _)| *day == from_day) {
            Some((_, before)) => *before,
            None if from_day > self.day => self.at(from_day * DAY_MS).total(),
            None if from_day == self.day => self.before_day,
            None => 0.0,
        };
        (total - before).max(0.0)
    }

    /// Its provider's last word on what it cost, after its end: the estimate
    /// comes down to that, and not below what is certain. Whether that was new.
    pub fn charged(&mut self, usd: f64) -> bool {
        let total = self.settled.total();
        if !self.off || !usd.is_finite() || self.charged_usd.is_some_and(|before| before <= usd) {
            return false;
        }
        self.charged_usd = Some(usd);
        let least = usd.max(self.certain_usd).max(0.0);
        if total <= 0.0 || least >= total {
            return true;
        }
        let share = least / total;
        let parts = &mut self.settled;
        for part in [&mut parts.compute_usd, &mut parts.disk_usd, &mut parts.traffic_usd, &mut parts.up_usd] {
            *part *= share;
        }
        self.before_day *= share;
        self.days.iter_mut().for_each(|(_, before)| *before *= share);
        true
    }

    /// What of it is settled: up to the last look, at which somebody saw what it
    /// does. The rest of [`Meter::at`] is open: it counts as if it ran.
    #[must_use]
    pub fn settled(&self) -> Parts {
        self.settled
    }

    /// What fell on each day of UTC (days since 1970) from its beginning to a
    /// moment. What nobody remembers the days of counts to the last of those.
    #[must_use]
    pub fn by_day(&self, begun_ms: u64, now_ms: u64) -> BTreeMap<u64, f64> {
        let mut found = BTreeMap::new();
        let last = if self.off { self.day } else { (now_ms / DAY_MS).max(self.day) };
        let total = self.at(now_ms).total();
        // What it had come to when a day began.
        let began = |day: u64| match day {
            day if day == self.day => self.before_day,
            day if day > self.day => self.at(day * DAY_MS).total(),
            day => self.days.iter().find(|(known, _)| *known == day).map_or(0.0, |(_, usd)| *usd),
        };
        let first = (begun_ms / DAY_MS).clamp(last.saturating_sub(DAYS as u64), last);
        let mut before = 0.0;
        for day in first..=last {
            let until = if day == last { total } else { began(day + 1) }.max(before);
            if until > before {
                found.insert(day, until - before);
            }
            before = until;
        }
        found
    }

    fn settle(&mut self, now_ms: u64, billed: Billed, rates: Rates) {
        let now_ms = now_ms.max(self.looked_ms);
        let day = now_ms / DAY_MS;
        if day > self.day {
            for begun in (self.day + 1).max((day + 1).saturating_sub(DAYS as u64))..=day {
                let mut at_midnight = self.settled;
                add(&mut at_midnight, (begun * DAY_MS).saturating_sub(self.looked_ms), billed, &rates);
                self.before_day = at_midnight.total();
                self.days.push((begun, self.before_day));
            }
            self.day = day;
            self.days.drain(..self.days.len().saturating_sub(DAYS));
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
mod tests;
