//! How far a run is: its stages, its end, and its speed beside another's.

use serde::{Deserialize, Serialize};

use super::super::Judge;
use super::super::detect::View;
use super::super::fit;
use super::super::schema::Direction;
use crate::number;

/// A stage of a run, in its primary training metric.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StageReport {
    /// Its name in the schema.
    pub name: String,
    /// Its first step.
    pub from_step: u64,
    /// Its last step so far; `None` when it has not begun.
    pub to_step: Option<u64>,
    /// Points of it.
    pub points: u64,
    /// Level of its first and last tenth.
    #[serde(with = "number::option")]
    pub first: Option<f64>,
    /// See `first`.
    #[serde(with = "number::option")]
    pub last: Option<f64>,
    /// Share of the whole run's improvement that came in it.
    #[serde(with = "number::option")]
    pub share_of_gain: Option<f64>,
}

/// When a run will be done.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Finish {
    /// Share of the planned steps that is done.
    pub done: f64,
    /// Steps a second, by the newest points.
    pub steps_per_second: f64,
    /// Seconds to the planned end.
    pub seconds_left: f64,
    /// The same by the slower and the faster half of the newest points.
    pub seconds_left_low: f64,
    /// See `seconds_left_low`.
    pub seconds_left_high: f64,
    /// US dollars to the planned end, where the price of an hour is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usd_left: Option<f64>,
}

/// The level of a metric around a step.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Level {
    /// First step of the group.
    pub step: u64,
    /// Its median.
    #[serde(with = "number")]
    pub value: f64,
}

pub(super) fn stages(judge: &Judge, view: Option<&View<'_>>) -> Vec<StageReport> {
    let stages = &judge.settings.schema.stages;
    let Some(view) = view else { return Vec::new() };
    let curve = &view.curve;
    let whole = curve.oriented(view.levels.first()) - curve.oriented(view.levels.last());
    let ends = stages.iter().skip(1).map(|s| Some(s.from_step)).chain([None]);
    stages
        .iter()
        .zip(ends)
        .map(|(stage, end)| {
            let inside =
                |step: Option<u64>| step.is_some_and(|s| s >= stage.from_step && end.is_none_or(|e| s < e));
            let nodes: Vec<_> = curve.nodes.iter().filter(|n| inside(n.first_step())).collect();
            let tenth = (nodes.len() / 10).max(1).min(nodes.len());
            let level = |part: &[&super::super::curve::Node]| {
                (!part.is_empty()).then(|| fit::median_of(&part.iter().map(|n| n.y).collect::<Vec<_>>()))
            };
            let (first, last) = (level(&nodes[..tenth]), level(&nodes[nodes.len() - tenth..]));
            let gain = first.zip(last).map(|(a, b)| curve.oriented(a) - curve.oriented(b));
            StageReport {
                name: stage.name.clone(),
                from_step: stage.from_step,
                to_step: nodes.last().and_then(|n| n.last_step()),
                points: nodes.iter().map(|n| u64::from(n.n)).sum(),
                first: first.map(|y| curve.value(y)),
                last: last.map(|y| curve.value(y)),
                share_of_gain: gain.filter(|_| whole.abs() > 1e-12).map(|g| g / whole),
            }
        })
        .collect()
}

pub(super) fn finish(judge: &Judge) -> Option<Finish> {
    let planned = judge.settings.planned_steps.filter(|p| *p > 0 && judge.end.is_none())?;
    let pairs: Vec<(u64, u64)> = judge.clock.pairs.iter().copied().collect();
    let (_, step) = *pairs.last()?;
    let rate = crate::rate(&pairs)?;
    // The last steps of a run are often not logged.
    let usual = pairs.len().checked_sub(2).and_then(|i| step.checked_sub(pairs[i].1)).unwrap_or(0);
    let left = planned.saturating_sub(step.saturating_add(1));
    let left = if left < usual { 0.0 } else { left as f64 };
    let middle = pairs.len() / 2;
    let halves = [&pairs[..middle], &pairs[middle..]].map(|half| crate::rate(half).unwrap_or(rate));
    let (slow, fast) = (halves[0].min(halves[1]).min(rate), halves[0].max(halves[1]).max(rate));
    Some(Finish {
        done: (step.saturating_add(1) as f64 / planned as f64).min(1.0),
        steps_per_second: rate,
        seconds_left: left / rate,
        seconds_left_low: left / fast,
        seconds_left_high: left / slow,
        usd_left: judge.usd_per_hour.map(|usd| usd * left / rate / 3600.0),
    })
}

pub(super) fn levels(view: &View<'_>) -> Vec<Level> {
    let pairs = view.levels.y.iter().zip(&view.levels.from);
    pairs
        .filter_map(|(y, from)| Some(Level { step: view.step_of_node(*from)?, value: view.curve.value(*y) }))
        .filter(|l| l.value.is_finite())
        .collect()
}

/// How many times fewer steps `a` needs than `b` for the same levels: 2 means
/// twice as fast. The median over levels that both reached; `None` where they
/// share none. It says nothing of what another random seed would give.
#[must_use]
pub fn relative_speed(a: &[Level], b: &[Level], direction: Direction) -> Option<f64> {
    let sign = if direction == Direction::Higher { -1.0 } else { 1.0 };
    let reached =
        |levels: &[Level], target: f64| levels.iter().find(|l| sign * l.value <= target).map(|l| l.step);
    let (start_a, start_b) = (a.first()?, b.first()?);
    let start = (sign * start_a.value).min(sign * start_b.value);
    let lowest = |levels: &[Level]| levels.iter().map(|l| sign * l.value).fold(f64::MAX, f64::min);
    let end = lowest(a).max(lowest(b));
    if end >= start {
        return None;
    }
    let mut ratios: Vec<f64> = (1..=10)
        .filter_map(|i| {
            let target = start + (end - start) * f64::from(i) / 10.0;
            let (in_a, in_b) = (
                reached(a, target)?.checked_sub(start_a.step)?,
                reached(b, target)?.checked_sub(start_b.step)?,
            );
            (in_a > 0 && in_b > 0).then(|| in_b as f64 / in_a as f64)
        })
        .collect();
    fit::median(&mut ratios)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn curve(pace: f64) -> Vec<Level> {
        (0..50).map(|i| Level { step: i * 100, value: (-(i as f64) * pace).exp() }).collect()
    }

    #[test]
    fn twice_as_fast_is_two() {
        let found = relative_speed(&curve(0.1), &curve(0.05), Direction::Lower).expect("shared levels");
        assert!((1.7..2.3).contains(&found), "{found}");
        let back = relative_speed(&curve(0.05), &curve(0.1), Direction::Lower).expect("shared levels");
        assert!((found * back - 1.0).abs() < 0.2);
        let flat = vec![Level { step: 0, value: 5.0 }, Level { step: 10, value: 5.0 }];
        assert_eq!(relative_speed(&curve(0.1), &flat, Direction::Lower), None);
    }
}
