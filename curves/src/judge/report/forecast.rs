//! Where a metric will be.
//!
//! The forecast is a power law or an exponential, whichever fits better, to
//! levels after the first fifth. Its interval is twice the error that the same
//! method made when it saw three fifths of the curve: on 780 published curves
//! that covered 86 to 93 %. It is never narrower than twice the distance between
//! the two: all of it when that was measured, now the less the worse the rejected
//! one fits (docs/detectors.md has what that covers).
//!
//! Nothing is foreseen of a run that is over, and never what cannot be: a loss
//! below zero that was never negative, or more than all of a share.

use serde::{Deserialize, Serialize};

use super::super::Judge;
use super::super::detect::View;
use super::super::detect::spike::End;
use super::super::fit;
use super::super::schema::{Direction, Role, is_share};
use super::arrival::Arrival;
use crate::number;

/// Groups whose levels are fitted.
const GROUPS: usize = 100;
/// Fewest levels that carry a forecast.
pub(super) const FEWEST: usize = 16;

/// What a metric will be.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Forecast {
    /// For this step.
    pub step: u64,
    /// Whether that is the planned end; else it is half as far again as the
    /// metric has come.
    pub planned: bool,
    /// The expected value.
    #[serde(with = "number")]
    pub value: f64,
    /// About 90 % of such forecasts end within these.
    #[serde(with = "number")]
    pub low: f64,
    /// See `low`.
    #[serde(with = "number")]
    pub high: f64,
    /// When a target will be reached, if one is waited for.
    pub target: Option<Arrival>,
}

/// How far a run is to go.
#[derive(Debug, Clone, Copy)]
pub(super) struct Plan {
    planned: Option<u64>,
    newest: Option<u64>,
    ended: bool,
}

impl Plan {
    pub(super) fn of(judge: &Judge) -> Self {
        Self { planned: judge.settings.planned_steps, newest: judge.max_step, ended: judge.end.is_some() }
    }

    /// Whether the log says that the run is over.
    pub(super) fn has_ended(&self) -> bool {
        self.ended
    }

    /// Whether nothing more will come of a metric that was last logged at `last`,
    /// every `interval` steps.
    fn is_over(&self, last: u64, interval: u64) -> bool {
        let reached = last.saturating_add(interval.max(1)).max(self.newest.unwrap_or(0).saturating_add(1));
        self.ended || self.planned.is_some_and(|planned| planned <= reached)
    }
}

/// One fitted curve: `base + height * shape(x)`.
#[derive(Clone, Copy)]
struct Fitted {
    base: f64,
    height: f64,
    rate: f64,
    power: bool,
    error: f64,
}

impl Fitted {
    fn at(&self, x: f64) -> f64 {
        self.base + self.height * shape(self.power, self.rate, x)
    }
}

fn shape(power: bool, rate: f64, x: f64) -> f64 {
    if power { x.max(1e-9).powf(-rate) } else { (-rate * x).exp() }
}

/// `ys` at places 1, 2, ... `scale` puts the places of a prefix on the axis of
/// the whole, so that rates mean the same.
fn fitted(ys: &[f64], power: bool) -> Option<Fitted> {
    let skip = ys.len() / 5;
    let (low, high): (f64, f64) = if power { (0.05, 3.0) } else { (0.002, 2.0) };
    let rates = (0..40).map(|i| low * (high / low).powf(f64::from(i) / 39.0));
    rates
        .map(|rate| {
            let (base, height, error) =
                fit::regress(&ys[skip..], |i| shape(power, rate, (i + skip + 1) as f64));
            Fitted { base, height, rate, power, error }
        })
        .filter(|f| f.height >= 0.0)
        .min_by(|a, b| a.error.total_cmp(&b.error))
}

/// The curve that fits better, and how far the other family ends from it, by how
/// much less the other explains.
fn best(ys: &[f64]) -> Option<(Fitted, f64)> {
    let (power, exponential) = (fitted(ys, true), fitted(ys, false));
    match (power, exponential) {
        (Some(p), Some(e)) => {
            let end = (ys.len() + ys.len() / 2) as f64;
            let apart = (p.at(end) - e.at(end)).abs();
            let (taken, other) = if p.error <= e.error { (p, e) } else { (e, p) };
            // What describes the curve twice as badly says little of where it goes.
            let credible = if other.error > 0.0 { taken.error / other.error } else { 1.0 };
            Some((taken, apart * credible * credible))
        }
        (one, other) => one.or(other).map(|f| (f, 0.0)),
    }
}

/// A fitted curve and how its doubt grows. Lower is better on its scale.
pub(super) struct Ahead {
    fitted: Fitted,
    doubt: f64,
    floor: f64,
    n: f64,
    n60: f64,
    /// First step, and how many steps were seen after it.
    pub(super) first: u64,
    pub(super) seen: u64,
    /// The planned end, if it is known and lies ahead.
    pub(super) planned: Option<u64>,
    /// Nothing more will come.
    pub(super) over: bool,
}

impl Ahead {
    /// The fitted curve of a metric that has values and steps enough.
    pub(super) fn of(view: &View<'_>, plan: Plan) -> Option<Self> {
        let calm = calm(view);
        let (n, groups) = (calm.len(), calm.len().min(GROUPS));
        if groups < FEWEST || !view.track.last.is_finite() {
            return None;
        }
        let group =
            |g: usize| view.curve.oriented(fit::median_of(&calm[g * n / groups..(g + 1) * n / groups]));
        let ys: Vec<f64> = (0..groups).map(group).collect();
        if ys.iter().any(|y| !y.is_finite()) {
            return None;
        }
        let first = view.track.first_step?;
        let last = view.track.last_step?;
        let seen = last.checked_sub(first).filter(|s| *s > 0)?;
        let over = plan.is_over(last, seen / view.track.count.saturating_sub(1).max(1));
        Some(Self { first, seen, planned: plan.planned.filter(|_| !over), over, ..ahead(&ys)? })
    }

    /// The value at a step, and half the width of its interval.
    pub(super) fn at(&self, step: u64) -> (f64, f64) {
        let x = step.saturating_sub(self.first) as f64 / self.seen as f64 * self.n;
        (self.fitted.at(x), self.width(x))
    }

    /// The planned end, or half as far again.
    pub(super) fn end(&self) -> u64 {
        self.planned.unwrap_or(self.first.saturating_add(self.seen).saturating_add(self.seen / 2))
    }

    /// Half the width of the interval at place `x`.
    fn width(&self, x: f64) -> f64 {
        let grown = (x / self.n).ln().max(0.0) / (self.n / self.n60).ln();
        2.0 * (self.doubt * grown).max(self.floor)
    }
}

fn ahead(ys: &[f64]) -> Option<Ahead> {
    let n = ys.len();
    let n60 = n * 3 / 5;
    let (fitted, apart) = best(ys)?;
    let (early, _) = best(&ys[..n60])?;
    let now = fit::median_of(&ys[n - 3..]);
    let doubt = (early.at(n as f64) - now).abs();
    let floor = apart.max(fit::noise(ys));
    let (n, n60) = (n as f64, n60 as f64);
    Some(Ahead { fitted, doubt, floor, n, n60, first: 0, seen: 0, planned: None, over: false })
}

/// Levels of the nodes without what came and went: a spike bends no course.
fn calm(view: &View<'_>) -> Vec<f64> {
    let mut ys = view.curve.despiked();
    let Some(following) = &view.track.following else { return ys };
    let passed = following.spike.spikes().filter(|spike| spike.end == End::Recovered);
    let steps: Vec<(u64, u64)> = passed.filter_map(|spike| spike.first.zip(spike.last)).collect();
    let nodes = &view.curve.nodes;
    let spiked: Vec<bool> = nodes
        .iter()
        .map(|node| {
            let within =
                |(from, to): &(u64, u64)| node.last_step() >= Some(*from) && node.first_step() <= Some(*to);
            steps.iter().any(within)
        })
        .collect();
    if spiked.iter().filter(|spiked| **spiked).count() * 4 > nodes.len() {
        return ys;
    }
    let mut at = 0;
    while let Some(from) = (at..ys.len()).find(|i| spiked[*i]) {
        let to = (from..ys.len()).find(|i| !spiked[*i]).unwrap_or(ys.len());
        let before = from.checked_sub(1).map(|i| ys[i]);
        let after = ys.get(to).copied();
        if let Some((a, b)) = before.or(after).zip(after.or(before)) {
            let width = (to - from + 1) as f64;
            ys[from..to].iter_mut().enumerate().for_each(|(i, y)| *y = a + (b - a) * (i + 1) as f64 / width);
        }
        at = to;
    }
    ys
}

/// Between which values a metric must lie: what its name and all that it ever was
/// say together.
fn limits(view: &View<'_>) -> (f64, f64) {
    let traits = &view.track.traits;
    let (Some((low, _)), Some((high, _))) = (view.track.lowest, view.track.highest) else {
        return (f64::MIN, f64::MAX);
    };
    let share = traits.role == Role::Score && is_share(traits);
    let counts = share || matches!(traits.role, Role::Loss | Role::Error);
    let floor = if counts && low >= 0.0 { 0.0 } else { f64::MIN };
    let cap = match high {
        _ if !share || low < 0.0 => f64::MAX,
        high if high <= 1.0 => 1.0,
        high if high <= 100.0 => 100.0,
        _ => f64::MAX,
    };
    (floor, cap)
}

/// 1 where lower is better, -1 where higher is.
pub(super) fn sign(view: &View<'_>) -> f64 {
    if view.track.traits.direction == Direction::Higher { -1.0 } else { 1.0 }
}

/// What `view` will be at the planned end, or at half as much again as was
/// seen. `None` of a run that is over.
pub(super) fn forecast(view: &View<'_>, plan: Plan, target: Option<Arrival>) -> Option<Forecast> {
    let ahead = Ahead::of(view, plan).filter(|ahead| !ahead.over)?;
    let step = ahead.end();
    let ((value, width), sign, (floor, cap)) = (ahead.at(step), sign(view), limits(view));
    let (a, b) = (sign * (value - width), sign * (value + width));
    let (low, high) = (a.min(b), a.max(b));
    // A curve of which all is impossible is no course of this metric.
    let within = |value: f64| value.clamp(floor, cap);
    (low < cap && high > floor).then(|| Forecast {
        step,
        planned: ahead.planned.is_some(),
        value: within(sign * value),
        low: within(low),
        high: within(high),
        target,
    })
}

#[cfg(test)]
mod tests;
