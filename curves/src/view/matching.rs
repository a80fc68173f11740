//! The value at a step: the one that was logged there, or one between its
//! neighbours, and which of both it is.

use serde::{Deserialize, Serialize};

use super::course::{Course, groups};
use crate::downsample::Place;
use crate::judge::schema::Direction;
use crate::number;

/// Groups of a course that a level is sought in.
const LEVELS: usize = 200;

/// Where a value comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "how")]
pub enum How {
    /// It was logged at that very step.
    Exact,
    /// It lies on the line between the values of two steps.
    Interpolated {
        /// The step before.
        before: u64,
        /// The step after.
        after: u64,
    },
}

/// A value at a step.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct At {
    /// The step.
    pub step: u64,
    /// The value; NaN between neighbours of which one is not finite.
    #[serde(with = "number")]
    pub value: f64,
    /// Where it comes from.
    #[serde(flatten)]
    pub how: How,
}

/// A step before the first or after the last value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("step {step} is outside of its values, which are of steps {first} to {last}")]
pub struct Outside {
    /// What was asked for.
    pub step: u64,
    /// The first step with a value.
    pub first: u64,
    /// The last.
    pub last: u64,
}

/// The value of a course at `step`. Nothing is continued beyond its ends.
///
/// # Errors
/// [`Outside`] of its ends; of an empty course both are zero.
pub fn at(course: &Course, step: u64) -> Result<At, Outside> {
    let points = &course.points;
    let (first, last) = (points.first().map_or(0, |p| p.0), points.last().map_or(0, |p| p.0));
    let outside = Outside { step, first, last };
    match points.binary_search_by_key(&step, |point| point.0) {
        Ok(index) => {
            points.get(index).map(|point| At { step, value: point.1, how: How::Exact }).ok_or(outside)
        }
        Err(0) => Err(outside),
        Err(index) => {
            let (Some(&before), Some(&after)) = (points.get(index - 1), points.get(index)) else {
                return Err(outside);
            };
            let part = (step - before.0) as f64 / (after.0 - before.0) as f64;
            let both = before.1.is_finite() && after.1.is_finite();
            // The sum of two shares cannot overflow, a difference could.
            let value = if both { before.1 * (1.0 - part) + after.1 * part } else { f64::NAN };
            Ok(At { step, value, how: How::Interpolated { before: before.0, after: after.0 } })
        }
    }
}

/// Where a course, by the medians of groups of its values, first is at least as
/// good as `level`.
#[must_use]
pub fn first_reaching(points: &[Place], level: f64, direction: Direction) -> Option<u64> {
    let good = |value: f64| match direction {
        Direction::Lower => value <= level,
        Direction::Higher => value >= level,
        Direction::Unknown => false,
    };
    groups(points, LEVELS).into_iter().find(|point| good(point.1)).map(|point| point.0)
}

#[cfg(test)]
mod tests {
    use super::super::course::Axis;
    use super::*;
    use proptest::prelude::*;

    fn course(points: &[Place]) -> Course {
        Course { axis: Axis::Step, points: points.to_vec(), replaced: 0 }
    }

    #[test]
    fn exact_where_logged_and_between_otherwise() {
        let course = course(&[(0, 1.0), (10, 2.0), (20, f64::NAN), (30, 4.0)]);
        assert_eq!(at(&course, 10), Ok(At { step: 10, value: 2.0, how: How::Exact }));
        let between = at(&course, 4).expect("inside");
        assert_eq!((between.value, between.how), (1.4, How::Interpolated { before: 0, after: 10 }));
        assert!(at(&course, 25).is_ok_and(|at| at.value.is_nan()));
        assert_eq!(at(&course, 31), Err(Outside { step: 31, first: 0, last: 30 }));
        assert!(at(&Course { points: Vec::new(), ..course }, 0).is_err());
    }

    #[test]
    fn a_level_is_reached_once() {
        let falling: Vec<Place> = (0..100).map(|i| (i, 100.0 - i as f64)).collect();
        assert_eq!(first_reaching(&falling, 50.0, Direction::Lower), Some(50));
        assert_eq!(first_reaching(&falling, 200.0, Direction::Higher), None);
    }

    proptest! {
        #[test]
        fn a_value_between_lies_between(a in -1e300_f64..1e300, b in -1e300_f64..1e300, step in 0_u64..=100) {
            let found = at(&course(&[(0, a), (100, b)]), step).expect("inside").value;
            let slack = 1e-9 * a.abs().max(b.abs());
            prop_assert!(found >= a.min(b) - slack && found <= a.max(b) + slack);
        }
    }
}
