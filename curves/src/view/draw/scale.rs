//! From values to shares of a frame, and the round numbers beside it.

use super::Chart;
use crate::downsample::Place;
use crate::judge::short;

/// The ranges of a chart.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Frame {
    from: u64,
    to: u64,
    low: f64,
    high: f64,
    log: bool,
}

/// A round number on an axis.
#[derive(Debug, Clone, PartialEq)]
pub struct Tick {
    /// Share of the axis.
    pub at: f64,
    /// What stands there.
    pub text: String,
}

impl Frame {
    /// The frame of all values with a place; `None` without any.
    #[must_use]
    pub fn of(chart: &Chart) -> Option<Self> {
        let points = || chart.lines.iter().flat_map(|line| &line.points);
        let values = || points().map(|p| p.1).filter(|v| v.is_finite() && (!chart.log || *v > 0.0));
        let (low, high) = (values().reduce(f64::min)?, values().reduce(f64::max)?);
        let (low, high) = if chart.log { (low.log10(), high.log10()) } else { (low, high) };
        // A flat line stands in the middle.
        let room = if high > low {
            0.0
        } else if low == 0.0 {
            1.0
        } else {
            low.abs() * 0.1
        };
        let (low, high) = (low - room, high + room);
        let (low, high) =
            if low.is_finite() && high.is_finite() { (low, high) } else { (f64::MIN, f64::MAX) };
        Some(Self {
            from: points().map(|p| p.0).min()?,
            to: points().map(|p| p.0).max()?,
            low,
            high,
            log: chart.log,
        })
    }

    /// Share of the width.
    #[must_use]
    pub fn across(&self, place: u64) -> f64 {
        let wide = self.to.saturating_sub(self.from);
        if wide == 0 { 0.5 } else { place.saturating_sub(self.from) as f64 / wide as f64 }
    }

    /// Share of the width and of the height, the latter from below; `None` where
    /// the value has no place.
    #[must_use]
    pub fn place(&self, point: Place) -> Option<(f64, f64)> {
        let value = if self.log { point.1.log10() } else { point.1 };
        let share = self.up(value);
        (point.1.is_finite() && share.is_finite()).then(|| (self.across(point.0), share.clamp(0.0, 1.0)))
    }

    fn up(&self, value: f64) -> f64 {
        // Halves, as the range may be more than a float holds.
        (value / 2.0 - self.low / 2.0) / (self.high / 2.0 - self.low / 2.0)
    }

    /// About `most` round values, from below.
    #[must_use]
    pub fn values(&self, most: usize) -> Vec<Tick> {
        let tick = |value: f64| {
            let shown = if self.log { 10_f64.powf(value) } else { value };
            Tick { at: self.up(value), text: short(shown) }
        };
        let found: Vec<Tick> = round(self.low, self.high, most, self.log)
            .into_iter()
            .map(tick)
            .filter(|tick| (0.0..=1.0).contains(&tick.at))
            .collect();
        // Within one power of ten there may be none.
        if found.len() < 2 { vec![tick(self.low), tick(self.high)] } else { found }
    }

    /// About `most` round places, from the left.
    #[must_use]
    pub fn places(&self, most: usize) -> Vec<Tick> {
        let mut ticks: Vec<Tick> = round(self.from as f64, self.to as f64, most, true)
            .into_iter()
            .filter(|place| *place >= self.from as f64 && *place <= self.to as f64)
            .map(|place| Tick { at: self.across(place as u64), text: format!("{}", place as u64) })
            .collect();
        if ticks.is_empty() {
            ticks.push(Tick { at: self.across(self.from), text: self.from.to_string() });
        }
        ticks
    }

    /// First and last place.
    #[must_use]
    pub fn ends(&self) -> (u64, u64) {
        (self.from, self.to)
    }
}

/// Multiples of 1, 2 or 5 times a power of ten; whole ones where `whole`.
fn round(low: f64, high: f64, most: usize, whole: bool) -> Vec<f64> {
    let rough = (high / most.max(1) as f64 - low / most.max(1) as f64).max(f64::MIN_POSITIVE);
    let power = 10_f64.powf(rough.log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0].into_iter().map(|m| m * power).find(|step| *step >= rough);
    let step = step.unwrap_or(power * 10.0);
    let step = if whole { step.max(1.0).round() } else { step };
    let first = (low / step).ceil();
    if !(first.is_finite() && step > 0.0) {
        return Vec::new();
    }
    (0..=most * 2)
        .map(|i| (first + i as f64) * step)
        .take_while(|value| *value <= high + step * 1e-9)
        // 0.30000000000000004 is 0.3, and -0 is 0.
        .map(|value| if value.abs() < step / 2.0 { 0.0 } else { value })
        .collect()
}
