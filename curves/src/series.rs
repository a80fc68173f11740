//! Running statistics of metrics, of fixed size however long a run is.
//!
//! Points arrive in the order in which they were printed. After a resume steps
//! come again; what arrived last is what holds now.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{MAX_NAME_BYTES, Point, number};

/// How many metrics one run may have.
pub const MAX_SERIES: usize = 1000;

/// What is known of one metric.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Series {
    /// All values, NaN and infinities and repeated steps included.
    pub count: u64,
    /// How many of them were NaN.
    pub nan_count: u64,
    /// How many of them were an infinity.
    pub inf_count: u64,
    /// The smallest value; infinities count, NaN does not.
    #[serde(with = "number::option")]
    pub min: Option<f64>,
    /// The largest value; infinities count, NaN does not.
    #[serde(with = "number::option")]
    pub max: Option<f64>,
    /// The value that arrived last, whatever its step; it may be NaN.
    #[serde(with = "number::option")]
    pub last: Option<f64>,
    /// The newest step that a value carried, in order of arrival: after a
    /// resume it goes back. A value without a step leaves it.
    pub last_step: Option<u64>,
    /// Sum of the finite values; held at the largest finite number when it
    /// would overflow.
    pub sum: f64,
}

impl Series {
    /// Takes in one value.
    pub fn push(&mut self, step: Option<u64>, value: f64) {
        self.count = self.count.saturating_add(1);
        self.last = Some(value);
        self.last_step = step.or(self.last_step);
        if value.is_nan() {
            self.nan_count = self.nan_count.saturating_add(1);
            return;
        }
        self.min = Some(self.min.map_or(value, |min| min.min(value)));
        self.max = Some(self.max.map_or(value, |max| max.max(value)));
        if value.is_infinite() {
            self.inf_count = self.inf_count.saturating_add(1);
        } else {
            self.sum = (self.sum + value).clamp(-f64::MAX, f64::MAX);
        }
    }

    /// Mean of the finite values; `None` without any.
    #[must_use]
    pub fn mean(&self) -> Option<f64> {
        let finite = self.count.saturating_sub(self.nan_count).saturating_sub(self.inf_count);
        (finite > 0).then(|| self.sum / finite as f64)
    }
}

/// All metrics of one run.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct RunMetrics {
    /// By name; at most [`MAX_SERIES`].
    pub series: BTreeMap<String, Series>,
    /// The newest step in order of arrival: after a resume it goes back.
    pub step: Option<u64>,
    /// The highest step ever seen.
    pub max_step: Option<u64>,
    /// Points that were not taken because their name was new and there was no
    /// room, or was longer than [`MAX_NAME_BYTES`].
    pub dropped_names: u64,
}

impl RunMetrics {
    /// Takes in one point; false when it was dropped. Its step counts anyway.
    pub fn push(&mut self, point: &Point) -> bool {
        self.step = point.step.or(self.step);
        self.max_step = self.max_step.max(point.step);
        if let Some(series) = self.series.get_mut(&point.name) {
            series.push(point.step, point.value);
            return true;
        }
        if self.series.len() >= MAX_SERIES || point.name.len() > MAX_NAME_BYTES {
            self.dropped_names = self.dropped_names.saturating_add(1);
            return false;
        }
        self.series.entry(point.name.clone()).or_default().push(point.step, point.value);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(values: &[(u64, f64)]) -> Series {
        let mut series = Series::default();
        values.iter().for_each(|&(step, value)| series.push(Some(step), value));
        series
    }

    #[test]
    fn nan_and_infinity_are_counted_and_kept_out_of_the_mean() {
        let s = filled(&[
            (1, 2.0),
            (2, f64::NAN),
            (3, f64::INFINITY),
            (4, 4.0),
            (5, f64::NEG_INFINITY),
            (6, f64::NAN),
        ]);
        assert_eq!((s.count, s.nan_count, s.inf_count), (6, 2, 2));
        assert_eq!((s.min, s.max), (Some(f64::NEG_INFINITY), Some(f64::INFINITY)));
        assert_eq!((s.mean(), s.sum, s.last_step), (Some(3.0), 6.0, Some(6)));
        assert!(s.last.is_some_and(f64::is_nan));
        let only = filled(&[(1, f64::NAN)]);
        assert_eq!((only.min, only.max, only.mean()), (None, None, None));
    }

    #[test]
    fn the_sum_is_held_at_the_largest_number() {
        let s = filled(&[(1, 1e308), (2, 1e308), (3, 1e308)]);
        assert_eq!((s.sum, s.max), (f64::MAX, Some(1e308)));
    }

    #[test]
    fn repeated_and_earlier_steps_follow_arrival() {
        let s = filled(&[(10, 1.0), (20, 0.5), (20, 0.6), (15, 0.9)]);
        assert_eq!((s.count, s.last, s.last_step, s.min), (4, Some(0.9), Some(15), Some(0.5)));
        let mut run = RunMetrics::default();
        for step in [Some(10), Some(20), Some(15), None] {
            assert!(run.push(&Point { name: "loss".into(), step, value: 1.0 }));
        }
        assert_eq!((run.step, run.max_step, run.series["loss"].last_step), (Some(15), Some(20), Some(15)));
    }

    #[test]
    fn names_are_bounded_and_known_ones_still_counted() {
        let mut run = RunMetrics::default();
        for i in 0..MAX_SERIES + 5 {
            run.push(&Point { name: format!("m{i}"), step: None, value: 0.0 });
        }
        assert_eq!((run.series.len(), run.dropped_names), (MAX_SERIES, 5));
        assert!(run.push(&Point { name: "m0".into(), step: Some(3), value: 1.0 }));
        assert!(!RunMetrics::default().push(&Point {
            name: "x".repeat(MAX_NAME_BYTES + 1),
            step: None,
            value: 0.0
        }));
        assert_eq!((run.series["m0"].count, run.dropped_names), (2, 5));
    }

    #[test]
    fn stored_and_read_back_it_is_the_same() {
        let s = filled(&[(1, 0.1), (2, f64::INFINITY), (3, f64::NEG_INFINITY)]);
        let text = serde_json::to_string(&s).expect("serialises");
        assert_eq!(serde_json::from_str::<Series>(&text).expect("reads"), s);
        let nan: Series =
            serde_json::from_str(&serde_json::to_string(&filled(&[(1, f64::NAN)])).expect("ok")).expect("ok");
        assert!(nan.last.is_some_and(f64::is_nan));
        assert_eq!(
            serde_json::from_str::<Series>(&serde_json::to_string(&Series::default()).expect("ok"))
                .expect("ok"),
            Series::default()
        );
    }
}
