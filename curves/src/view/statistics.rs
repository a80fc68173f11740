//! Plain statistics of one metric of one run. They describe; points of one run
//! are no independent trials, so nothing here is a test.

use serde::{Deserialize, Serialize};

use super::course::{groups, median};
use crate::downsample::Place;
use crate::number;

/// Groups that a slope is fitted to; all pairs of them are looked at.
const GROUPS: usize = 200;
/// Fewest groups of a slope.
const FEWEST: usize = 4;

/// Where a stretch goes, by the median of the slopes between all pairs of its
/// groups' medians (Theil 1950, Sen 1968): up to 29 % of them may be wrong.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Slope {
    /// First place of the stretch.
    pub from: u64,
    /// Last place of it.
    pub to: u64,
    /// Change in a thousand places.
    #[serde(with = "number")]
    pub per_thousand: f64,
    /// Change over the stretch.
    #[serde(with = "number")]
    pub change: f64,
    /// Noise of single values: the median absolute second difference, as the
    /// standard deviation of white noise.
    #[serde(with = "number")]
    pub noise: f64,
}

impl Slope {
    /// `rising`, `falling`, or `level` where the change is not more than the
    /// noise of a single value.
    #[must_use]
    pub fn word(&self) -> &'static str {
        if self.change.abs() <= self.noise || self.change == 0.0 {
            "level"
        } else if self.change > 0.0 {
            "rising"
        } else {
            "falling"
        }
    }
}

/// What is known of the values.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Statistics {
    /// All values.
    pub count: usize,
    /// Of them NaN.
    pub nan: usize,
    /// Of them infinite.
    pub inf: usize,
    /// Place of the first value.
    pub first_place: Option<u64>,
    /// Place of the last value.
    pub last_place: Option<u64>,
    /// The first value, whatever it is.
    #[serde(with = "number::option")]
    pub first: Option<f64>,
    /// The last value, whatever it is.
    #[serde(with = "number::option")]
    pub last: Option<f64>,
    /// The smallest finite value, and where it first was.
    #[serde(with = "number::option")]
    pub min: Option<f64>,
    /// See `min`.
    pub min_place: Option<u64>,
    /// The largest finite value, and where it first was.
    #[serde(with = "number::option")]
    pub max: Option<f64>,
    /// See `max`.
    pub max_place: Option<u64>,
    /// Mean of the finite values.
    #[serde(with = "number::option")]
    pub mean: Option<f64>,
    /// Standard deviation of the finite values (n - 1).
    #[serde(with = "number::option")]
    pub sd: Option<f64>,
    /// Over all values.
    pub whole: Option<Slope>,
    /// Over the last third.
    pub recent: Option<Slope>,
}

/// The statistics of `points`, which are in order.
#[must_use]
pub fn statistics(points: &[Place]) -> Statistics {
    let finite = || points.iter().filter(|point| point.1.is_finite());
    let min = finite().copied().reduce(|a, b| if b.1 < a.1 { b } else { a });
    let max = finite().copied().reduce(|a, b| if b.1 > a.1 { b } else { a });
    let (mean, sd) = moments(points);
    let third = points.len() - points.len() / 3;
    Statistics {
        count: points.len(),
        nan: points.iter().filter(|point| point.1.is_nan()).count(),
        inf: points.iter().filter(|point| point.1.is_infinite()).count(),
        first_place: points.first().map(|p| p.0),
        last_place: points.last().map(|p| p.0),
        first: points.first().map(|p| p.1),
        last: points.last().map(|p| p.1),
        min: min.map(|p| p.1),
        min_place: min.map(|p| p.0),
        max: max.map(|p| p.1),
        max_place: max.map(|p| p.0),
        mean,
        sd,
        whole: slope(points),
        recent: points.get(third..).and_then(slope),
    }
}

/// Mean and standard deviation, of values divided by their largest, as sums of
/// squares would overflow.
fn moments(points: &[Place]) -> (Option<f64>, Option<f64>) {
    let largest = points.iter().map(|p| p.1.abs()).filter(|v| v.is_finite()).fold(0.0, f64::max);
    let scale = if largest > 0.0 { largest } else { 1.0 };
    let (mut n, mut mean, mut squares) = (0.0, 0.0, 0.0);
    for value in points.iter().map(|p| p.1).filter(|v| v.is_finite()) {
        n += 1.0;
        let value = value / scale;
        let from = value - mean;
        mean += from / n;
        squares += from * (value - mean);
    }
    let sd = (n > 1.0).then(|| (squares / (n - 1.0)).sqrt() * scale);
    ((n > 0.0).then_some(mean * scale), sd)
}

fn slope(points: &[Place]) -> Option<Slope> {
    let nodes = groups(points, GROUPS);
    if nodes.len() < FEWEST {
        return None;
    }
    let (from, to) = (points.first()?.0, points.last()?.0);
    let mut slopes = Vec::with_capacity(nodes.len() * nodes.len() / 2);
    for (i, a) in nodes.iter().enumerate() {
        let later = nodes.get(i + 1..).unwrap_or_default();
        slopes.extend(later.iter().map(|b| (b.1 - a.1) / (b.0 - a.0) as f64).filter(|s| !s.is_nan()));
    }
    let slope = median(&mut slopes)?;
    let values: Vec<f64> = points.iter().map(|p| p.1).filter(|v| v.is_finite()).collect();
    let mut bends: Vec<f64> = values.windows(3).map(|w| (w[2] - 2.0 * w[1] + w[0]).abs()).collect();
    let noise = 1.4826 * median(&mut bends).unwrap_or(0.0) / 6_f64.sqrt();
    Some(Slope { from, to, per_thousand: slope * 1000.0, change: slope * (to - from) as f64, noise })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn known_values() {
        let points = [(0, 2.0), (10, 4.0), (20, f64::NAN), (30, 6.0), (40, f64::NEG_INFINITY)];
        let found = statistics(&points);
        assert_eq!((found.count, found.nan, found.inf), (5, 1, 1));
        assert_eq!(
            (found.min, found.min_place, found.max, found.max_place),
            (Some(2.0), Some(0), Some(6.0), Some(30))
        );
        assert_eq!((found.mean, found.sd), (Some(4.0), Some(2.0)));
        assert_eq!((found.first, found.last), (Some(2.0), Some(f64::NEG_INFINITY)));
        assert_eq!(found.whole, None);
        assert_eq!(statistics(&[]), Statistics::default());
    }

    #[test]
    fn a_line_with_outliers_has_its_slope() {
        let mut points: Vec<Place> = (0..1000).map(|i| (i * 2, 5.0 - 0.001 * i as f64)).collect();
        (0..1000).step_by(10).for_each(|i| points[i].1 = 1e6);
        let whole = statistics(&points).whole.expect("long enough");
        assert!((whole.per_thousand + 0.5).abs() < 0.01, "{whole:?}");
        assert_eq!(whole.word(), "falling");
        let flat: Vec<Place> = (0..100).map(|i| (i, 1.0)).collect();
        assert_eq!(statistics(&flat).recent.map(|s| s.word()), Some("level"));
    }

    #[test]
    fn the_largest_numbers_do_not_overflow() {
        let found = statistics(&[(0, f64::MAX), (1, f64::MAX), (2, f64::MAX)]);
        assert_eq!((found.mean, found.sd), (Some(f64::MAX), Some(0.0)));
    }

    proptest! {
        #[test]
        fn counts_add_up_and_the_mean_lies_within(values in prop::collection::vec(any::<f64>(), 0..300)) {
            let points: Vec<Place> = values.iter().enumerate().map(|(i, v)| (i as u64, *v)).collect();
            let found = statistics(&points);
            let finite = values.iter().filter(|v| v.is_finite()).count();
            prop_assert_eq!(found.count - found.nan - found.inf, finite);
            if let (Some(min), Some(mean), Some(max)) = (found.min, found.mean, found.max) {
                let slack = 1e-9 * min.abs().max(max.abs());
                prop_assert!(mean >= min - slack && mean <= max + slack);
            }
        }
    }
}
