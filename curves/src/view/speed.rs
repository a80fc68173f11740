//! Which of two runs gets to the same level first. A description of two runs:
//! what another random seed would give, it does not say.

use serde::{Deserialize, Serialize};

use super::course::groups;
use super::matching::first_reaching;
use crate::downsample::Place;
use crate::judge::schema::Direction;
use crate::judge::short;
use crate::number;

/// Groups of a course, as the best of single values is noise.
const LEVELS: usize = 200;

/// How two runs get to the level that both reach.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Speed {
    /// The level: the lesser of the best levels of both.
    #[serde(with = "number")]
    pub level: f64,
    /// Whether it is the best level of the second run; else it is the first's.
    pub of_second: bool,
    /// Where the first run reaches it.
    pub first: u64,
    /// Where the second run does.
    pub second: u64,
    /// How many times as many places the second takes, counted from the start
    /// of each; above 1 the first is faster.
    #[serde(with = "number::option")]
    pub factor: Option<f64>,
}

/// How fast the one is that a factor above 1 makes the faster.
#[must_use]
pub fn times_as_fast(factor: f64) -> String {
    let (faster, slower) = (short(factor), short(1.0 / factor));
    // What rounds to one is no difference.
    if faster == "1" || slower == "1" {
        "as fast".to_owned()
    } else if factor > 1.0 {
        format!("{faster} times as fast")
    } else {
        format!("{slower} times slower")
    }
}

/// Compares two courses; `None` where a run has no values or the direction is
/// unknown.
#[must_use]
pub fn speed(first: &[Place], second: &[Place], direction: Direction) -> Option<Speed> {
    let best = |points: &[Place]| {
        let levels = groups(points, LEVELS).into_iter().map(|point| point.1);
        match direction {
            Direction::Lower => levels.reduce(f64::min),
            Direction::Higher => levels.reduce(f64::max),
            Direction::Unknown => None,
        }
    };
    let (a, b) = (best(first)?, best(second)?);
    let of_second = if direction == Direction::Lower { b >= a } else { b <= a };
    let level = if of_second { b } else { a };
    let (at_a, at_b) = (first_reaching(first, level, direction)?, first_reaching(second, level, direction)?);
    let (from_a, from_b) = (at_a - first.first()?.0, at_b - second.first()?.0);
    let factor = (from_a > 0 && from_b > 0).then(|| from_b as f64 / from_a as f64);
    Some(Speed { level, of_second, first: at_a, second: at_b, factor })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn falling(length: u64, rate: f64) -> Vec<Place> {
        (0..length).map(|i| (i, 1.0 / (1.0 + rate * i as f64))).collect()
    }

    #[test]
    fn one_time_as_fast_is_as_fast() {
        for (factor, text) in [
            (1.0, "as fast"),
            (1.000_01, "as fast"),
            (0.999_99, "as fast"),
            (1.333_33, "1.333 times as fast"),
            (0.5, "2 times slower"),
        ] {
            assert_eq!(times_as_fast(factor), text);
        }
    }

    #[test]
    fn twice_the_rate_is_twice_as_fast() {
        let found =
            speed(&falling(1000, 0.02), &falling(1000, 0.01), Direction::Lower).expect("both have values");
        assert!(found.of_second && found.factor.is_some_and(|f| (f - 2.0).abs() < 0.05), "{found:?}");
        let other = speed(&falling(1000, 0.01), &falling(1000, 0.02), Direction::Lower).expect("both");
        assert!(!other.of_second && other.factor.is_some_and(|f| (f - 0.5).abs() < 0.02), "{other:?}");
        assert_eq!(speed(&falling(9, 1.0), &falling(9, 1.0), Direction::Unknown), None);
        assert_eq!(speed(&[], &falling(9, 1.0), Direction::Lower), None);
    }
}
