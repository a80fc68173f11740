//! Where a metric is going, and where it will be.
//!
//! The forecast is a power law or an exponential, whichever fits better, to
//! levels after the first fifth. Its interval is twice the error that the same
//! method made when it saw three fifths of the curve: on 780 published curves
//! that covered 86 to 93 %.

use serde::{Deserialize, Serialize};

use super::super::detect::View;
use super::super::fit;
use crate::number;

/// Groups whose levels are fitted.
const GROUPS: usize = 100;
/// Fewest levels that carry a forecast.
const FEWEST: usize = 16;

/// Where a metric is going.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Going {
    /// In the better direction, beyond noise.
    Better,
    /// In the worse direction, beyond noise.
    Worse,
    /// Neither, as far as noise lets see.
    Level,
}

/// The robust slope of the last third of a curve.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Trend {
    /// Where it goes.
    pub going: Going,
    /// Theil-Sen slope over a thousand steps, or points where no steps are
    /// named, in the metric's unit.
    #[serde(with = "number")]
    pub per_thousand: f64,
    /// Mann-Kendall's z of the same levels.
    #[serde(with = "number")]
    pub z: f64,
    /// Points looked at.
    pub points: u64,
}

/// What a metric will be.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Forecast {
    /// For this step.
    pub step: u64,
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

/// When a target will be reached.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Arrival {
    /// The value waited for.
    #[serde(with = "number")]
    pub target: f64,
    /// Whether it was, or will be.
    pub verdict: Verdict,
    /// The step at which it was, or is expected to be reached.
    pub step: Option<u64>,
    /// The step before which it will hardly be reached.
    pub earliest: Option<u64>,
    /// The step by which it should be reached; `None` when it may never be.
    pub latest: Option<u64>,
    /// In words: `0.35 at step 48000 to 61000`.
    pub text: String,
}

/// Whether a target is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// It has been.
    Reached,
    /// It will be, within the interval.
    Expected,
    /// It may be: one end of the interval never reaches it.
    Uncertain,
    /// It will not be, in four times the length seen or planned.
    NotExpected,
}

pub(super) fn trend(view: &View<'_>) -> Option<Trend> {
    let levels = &view.levels;
    let from = levels.len() - levels.len() / 3;
    if levels.len() < 9 {
        return None;
    }
    let part = &levels.y[from..];
    let z = fit::mann_kendall(part);
    let values: Vec<f64> = part.iter().map(|y| view.curve.value(*y)).collect();
    let nodes = &view.curve.nodes[levels.from[from]..];
    let points: u64 = nodes.iter().map(|n| u64::from(n.n)).sum();
    let steps =
        nodes.first().zip(nodes.last()).and_then(|(a, b)| b.last_step()?.checked_sub(a.first_step()?));
    let length = steps.filter(|s| *s > 0).unwrap_or(points) as f64;
    let change = fit::theil_sen(part) * (part.len() - 1) as f64;
    let beyond = change.abs() > 2.0 * levels.sd * (12.0 / part.len() as f64).sqrt() && z.abs() > 1.64;
    let going = match (beyond, change < 0.0) {
        (false, _) => Going::Level,
        (true, true) => Going::Better,
        (true, false) => Going::Worse,
    };
    Some(Trend {
        going,
        per_thousand: fit::theil_sen(&values) * part.len() as f64 / length * 1000.0,
        z,
        points,
    })
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

fn best(ys: &[f64]) -> Option<(Fitted, f64)> {
    let (power, exponential) = (fitted(ys, true), fitted(ys, false));
    match (power, exponential) {
        (Some(p), Some(e)) => {
            let end = (ys.len() + ys.len() / 2) as f64;
            let apart = (p.at(end) - e.at(end)).abs();
            Some((if p.error <= e.error { p } else { e }, apart))
        }
        (one, other) => one.or(other).map(|f| (f, 0.0)),
    }
}

/// A fitted curve and how its doubt grows.
struct Ahead {
    fitted: Fitted,
    doubt: f64,
    floor: f64,
    n: f64,
    n60: f64,
}

impl Ahead {
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
    Some(Ahead { fitted, doubt, floor, n: n as f64, n60: n60 as f64 })
}

/// What `view` will be at the planned end, or at half as much again as was
/// seen, and when it reaches `target`.
pub(super) fn forecast(view: &View<'_>, planned: Option<u64>, target: Option<f64>) -> Option<Forecast> {
    let n = view.curve.nodes.len();
    let groups = n.min(GROUPS);
    if groups < FEWEST {
        return None;
    }
    let ys: Vec<f64> = (0..groups)
        .map(|g| {
            let part = &view.curve.nodes[g * n / groups..(g + 1) * n / groups];
            view.curve.oriented(fit::median_of(&part.iter().map(|n| n.y).collect::<Vec<_>>()))
        })
        .collect();
    if ys.iter().any(|y| !y.is_finite()) {
        return None;
    }
    let ahead = ahead(&ys)?;
    let first = view.track.first_step?;
    let seen = view.track.last_step?.checked_sub(first).filter(|s| *s > 0)?;
    let place = |step: u64| step.saturating_sub(first) as f64 / seen as f64 * ahead.n;
    let end = planned
        .filter(|p| *p > first.saturating_add(seen))
        .unwrap_or(first.saturating_add(seen).saturating_add(seen / 2));
    let (value, width) = (ahead.fitted.at(place(end)), ahead.width(place(end)));
    let sign = if view.curve.oriented(1.0) < 0.0 || view.track.traits.direction == super::Direction::Higher {
        -1.0
    } else {
        1.0
    };
    let (a, b) = (sign * (value - width), sign * (value + width));
    let target = target.map(|target| arrival(view, &ahead, sign * target, sign, (first, seen, end), &ys));
    Some(Forecast { step: end, value: sign * value, low: a.min(b), high: a.max(b), target })
}

/// `target` is such that lower is better.
fn arrival(
    view: &View<'_>,
    ahead: &Ahead,
    target: f64,
    sign: f64,
    (first, seen, end): (u64, u64, u64),
    ys: &[f64],
) -> Arrival {
    let shown = super::short(sign * target);
    if let Some(group) = ys.iter().position(|y| *y <= target) {
        let node = group * view.curve.nodes.len() / ys.len();
        let step = view.step_of_node(node);
        let text = format!("{shown} was reached{}", super::at(step));
        return Arrival {
            target: sign * target,
            verdict: Verdict::Reached,
            step,
            earliest: step,
            latest: step,
            text,
        };
    }
    let horizon = (end.saturating_sub(first)).max(seen.saturating_mul(4)) as f64;
    let grid = (0..=400).map(|i| seen as f64 * (horizon / seen as f64).powf(f64::from(i) / 400.0));
    let reaches = |side: f64| {
        let hit = grid.clone().find(|s| {
            let x = s / seen as f64 * ahead.n;
            ahead.fitted.at(x) + side * ahead.width(x) <= target
        });
        hit.map(|s| first.saturating_add(s as u64))
    };
    let (earliest, step, latest) = (reaches(-1.0), reaches(0.0), reaches(1.0));
    let (verdict, text) = match (earliest, step, latest) {
        (Some(a), Some(_), Some(b)) => (Verdict::Expected, format!("{shown} at step {a} to {b}")),
        (Some(a), Some(b), None) => (
            Verdict::Uncertain,
            format!("{shown} perhaps at step {b}, not before {a}, and it may never be reached"),
        ),
        (Some(a), None, _) => {
            (Verdict::Uncertain, format!("{shown} is unlikely: not before step {a}, if ever"))
        }
        _ => (
            Verdict::NotExpected,
            format!("{shown} will not be reached by step {}", first.saturating_add(horizon as u64)),
        ),
    };
    Arrival { target: sign * target, verdict, step, earliest, latest, text }
}
