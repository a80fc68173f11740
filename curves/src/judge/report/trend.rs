//! Where a metric is going: the robust slope of the end of its curve, or that
//! there is too little of it to tell.

use serde::{Deserialize, Serialize};

use super::super::detect::View;
use super::super::fit;
use crate::number;

/// Fewest values that may show a slope: Mann-Kendall's z of fewer never passes
/// its bound.
const SLOPE: usize = 4;
/// Fewest values that may show that there is none.
const LEVEL: usize = 6;

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

/// `None` where the last third has too few values to tell, or where the newest
/// value is no number.
pub(super) fn trend(view: &View<'_>) -> Option<Trend> {
    if !view.track.last.is_finite() {
        return None;
    }
    let (part, sd, from) = last_third(view)?;
    let z = fit::mann_kendall(&part);
    let values: Vec<f64> = part.iter().map(|y| view.curve.value(*y)).collect();
    let nodes = &view.curve.nodes[from..];
    let points: u64 = nodes.iter().map(|n| u64::from(n.n)).sum();
    let steps =
        nodes.first().zip(nodes.last()).and_then(|(a, b)| b.last_step()?.checked_sub(a.first_step()?));
    let length = steps.filter(|s| *s > 0).unwrap_or(points) as f64;
    let change = fit::theil_sen(&part) * (part.len() - 1) as f64;
    let beyond = change.abs() > 2.0 * sd * (12.0 / part.len() as f64).sqrt() && z.abs() > 1.64;
    let going = match (beyond, change < 0.0) {
        (false, _) => Going::Level,
        (true, true) => Going::Better,
        (true, false) => Going::Worse,
    };
    // So few values show a slope, if it is steep, but not that there is none.
    (beyond || part.len() >= LEVEL).then(|| Trend {
        going,
        per_thousand: fit::theil_sen(&values) * part.len() as f64 / length * 1000.0,
        z,
        points,
    })
}

/// The last third in groups, or value by value where it has few groups; its
/// noise, and its first node.
fn last_third(view: &View<'_>) -> Option<(Vec<f64>, f64, usize)> {
    let levels = &view.levels;
    let third = levels.len() - levels.len() / 3;
    if levels.len() / 3 >= LEVEL {
        return Some((levels.y[third..].to_vec(), levels.sd, levels.from[third]));
    }
    let ys = view.curve.ys();
    let from = ys.len() - ys.len() / 3;
    let range = ys.iter().copied().fold(f64::MIN, f64::max) - ys.iter().copied().fold(f64::MAX, f64::min);
    let sd = fit::noise(&ys).max(1e-4 * range.abs()).max(1e-9);
    (ys.len() - from >= SLOPE).then(|| (ys[from..].to_vec(), sd, from))
}
