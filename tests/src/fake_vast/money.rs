//! Money as the vendor counts it: rates, and what they come to over time.
//! Whole numbers only, so that a bill is the same however the time it covers
//! is cut into pieces. It must never round what it adds up.

use std::ops::{Add, AddAssign, Sub};

use serde::{Serialize, Serializer};

/// Milliseconds of an hour.
const HOUR_MS: i128 = 3_600_000;
/// Nanodollars of a dollar.
const NANO: f64 = 1e9;
/// Hours of a billed month.
pub(super) const MONTH_HOURS: f64 = 720.0;

/// A price for an hour, in nanodollars.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Rate(u64);

impl Rate {
    /// Nothing an hour.
    pub const ZERO: Self = Self(0);

    /// The rate of a price in dollars; what is no price is nothing.
    #[must_use]
    pub fn dollars(dollars: f64) -> Self {
        if dollars.is_finite() && dollars > 0.0 {
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "positive, and saturates where no price is"
            )]
            return Self((dollars * NANO).round() as u64);
        }
        Self::ZERO
    }

    /// So much disk at a price for a gigabyte and month.
    #[must_use]
    pub fn disk(gigabytes: f64, gigabyte_month: f64) -> Self {
        Self::dollars(gigabytes * gigabyte_month / MONTH_HOURS)
    }

    /// In dollars, for people and JSON.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "prices are far below 2^53 nanodollars")]
    pub fn in_dollars(self) -> f64 {
        self.0 as f64 / NANO
    }

    /// What it comes to over so many milliseconds.
    #[must_use]
    pub fn over(self, ms: u64) -> Amount {
        Amount(i128::from(self.0) * i128::from(ms))
    }
}

impl Add for Rate {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }
}

impl Serialize for Rate {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_f64(self.in_dollars())
    }
}

/// An amount of money, in nanodollars of an hour times milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Amount(i128);

impl Amount {
    /// No money.
    pub const ZERO: Self = Self(0);

    /// An amount in dollars, also below nothing.
    #[must_use]
    pub fn dollars(dollars: f64) -> Self {
        if !dollars.is_finite() {
            return Self::ZERO;
        }
        #[expect(clippy::cast_possible_truncation, reason = "an i128 holds any sum in question")]
        let nano = (dollars * NANO).round() as i128;
        Self(nano.saturating_mul(HOUR_MS))
    }

    /// What bytes cost at a price for a gigabyte, of which the part below the
    /// smallest unit is dropped once.
    fn traffic(bytes: u64, gigabyte: Rate) -> Self {
        Self(i128::from(bytes) * i128::from(gigabyte.0) * HOUR_MS / 1_000_000_000)
    }

    /// In dollars, for people and JSON.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "shown, not counted with")]
    pub fn in_dollars(self) -> f64 {
        self.0 as f64 / (HOUR_MS as f64 * NANO)
    }

    /// The first millisecond after which a rate has used it up; `None` where
    /// it never does. Nothing left is used up now.
    #[must_use]
    pub fn lasts(self, rate: Rate) -> Option<u64> {
        if self.0 <= 0 {
            return Some(0);
        }
        let rate = i128::from(rate.0);
        if rate == 0 {
            return None;
        }
        u64::try_from((self.0 + rate - 1) / rate).ok()
    }
}

impl Add for Amount {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        Self(self.0 + other.0)
    }
}

impl AddAssign for Amount {
    fn add_assign(&mut self, other: Self) {
        self.0 += other.0;
    }
}

impl Sub for Amount {
    type Output = Self;
    fn sub(self, other: Self) -> Self {
        Self(self.0 - other.0)
    }
}

impl Serialize for Amount {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_f64(self.in_dollars())
    }
}

/// Everything one instance costs.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Rates {
    /// The GPUs, while they are billed.
    pub gpu: Rate,
    /// The disk.
    pub disk: Rate,
    /// The disk of a stopped instance.
    pub disk_stopped: Rate,
    /// A gigabyte sent.
    pub up_gigabyte: Rate,
    /// A gigabyte received.
    pub down_gigabyte: Rate,
}

/// What one instance has cost so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Meter {
    /// For GPUs.
    pub gpu: Amount,
    /// For disk.
    pub disk: Amount,
    /// Milliseconds for which GPUs were billed.
    pub gpu_ms: u64,
    /// Milliseconds for which disk was billed.
    pub disk_ms: u64,
    /// Bytes sent.
    pub up: u64,
    /// Bytes received.
    pub down: u64,
}

impl Meter {
    /// Goes on by so many milliseconds at these rates.
    pub(super) fn run(&mut self, ms: u64, gpu: Rate, disk: Rate) {
        self.gpu += gpu.over(ms);
        self.disk += disk.over(ms);
        if gpu > Rate::ZERO {
            self.gpu_ms += ms;
        }
        if disk > Rate::ZERO {
            self.disk_ms += ms;
        }
    }

    /// For bytes, both ways.
    pub(super) fn traffic(&self, rates: &Rates) -> Amount {
        Amount::traffic(self.up, rates.up_gigabyte) + Amount::traffic(self.down, rates.down_gigabyte)
    }

    /// All of it.
    pub(super) fn total(&self, rates: &Rates) -> Amount {
        self.gpu + self.disk + self.traffic(rates)
    }
}
