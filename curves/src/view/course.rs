//! A metric's values along one axis, as they hold now: after a resume steps
//! come again, and what was logged last replaces what was before.

use serde::{Deserialize, Serialize};

use crate::downsample::Place;
use crate::log::Column;

/// What the places of values are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Axis {
    /// The program's steps.
    Step,
    /// Numbers of the values, from zero: some of them have no step.
    Row,
}

impl Axis {
    /// What to call it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Step => "step",
            Self::Row => "row",
        }
    }
}

/// The values in order of their places, one for each place.
#[derive(Debug, Clone, PartialEq)]
pub struct Course {
    /// What the places are.
    pub axis: Axis,
    /// In ascending order of distinct places.
    pub points: Vec<Place>,
    /// Values that a later one of the same step replaced.
    pub replaced: usize,
}

impl Course {
    /// The course of a column.
    #[must_use]
    pub fn of(column: &Column) -> Self {
        let steps: Option<Vec<Place>> =
            column.pairs().map(|(step, value)| step.map(|step| (step, value))).collect();
        let Some(mut points) = steps else {
            let points = column.values.iter().enumerate().map(|(row, value)| (row as u64, *value)).collect();
            return Self { axis: Axis::Row, points, replaced: 0 };
        };
        let logged = points.len();
        if points.windows(2).any(|pair| pair[0].0 >= pair[1].0) {
            // Stable: of equal steps the order of the log stays, and the last is kept.
            points.sort_by_key(|point| point.0);
            let mut kept: Vec<Place> = Vec::with_capacity(points.len());
            for point in points {
                match kept.last_mut() {
                    Some(last) if last.0 == point.0 => *last = point,
                    _ => kept.push(point),
                }
            }
            points = kept;
        }
        Self { axis: Axis::Step, replaced: logged - points.len(), points }
    }

    /// The part with places from `from` to `to`, both inside.
    #[must_use]
    pub fn between(&self, from: Option<u64>, to: Option<u64>) -> &[Place] {
        let low = self.points.partition_point(|point| from.is_some_and(|from| point.0 < from));
        let high = self.points.partition_point(|point| to.is_none_or(|to| point.0 <= to));
        self.points.get(low..high.max(low)).unwrap_or_default()
    }

    /// The last value that holds.
    #[must_use]
    pub fn last(&self) -> Option<Place> {
        self.points.last().copied()
    }
}

/// At most `most` groups of neighbours, as the first place and the median of the
/// finite values of each; groups without any are left out.
#[must_use]
pub(crate) fn groups(points: &[Place], most: usize) -> Vec<Place> {
    let finite: Vec<Place> = points.iter().copied().filter(|point| point.1.is_finite()).collect();
    let count = most.min(finite.len());
    (0..count)
        .filter_map(|i| {
            let part = finite.get(i * finite.len() / count..(i + 1) * finite.len() / count)?;
            let mut values: Vec<f64> = part.iter().map(|point| point.1).collect();
            Some((part.first()?.0, median(&mut values)?))
        })
        .collect()
}

/// The middle value (of an even number the upper one), reordering them.
pub(crate) fn median(values: &mut [f64]) -> Option<f64> {
    let middle = values.len() / 2;
    (!values.is_empty()).then(|| *values.select_nth_unstable_by(middle, f64::total_cmp).1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::{Collected, Row, Sink as _};
    use proptest::prelude::*;

    fn column(rows: &[(Option<u64>, f64)]) -> Column {
        let mut log = Collected::default();
        let metric = log.metric("m").expect("there is room");
        for &(step, value) in rows {
            log.row(&Row { step, time: None, values: &[(metric, value)] });
        }
        log.columns.swap_remove(0)
    }

    #[test]
    fn what_was_logged_last_holds() {
        let course = Course::of(&column(&[(Some(1), 1.0), (Some(3), 3.0), (Some(2), 2.0), (Some(3), 9.0)]));
        assert_eq!(course.points, [(1, 1.0), (2, 2.0), (3, 9.0)]);
        assert_eq!((course.axis, course.replaced, course.last()), (Axis::Step, 1, Some((3, 9.0))));
        assert_eq!(course.between(Some(2), None), [(2, 2.0), (3, 9.0)]);
        assert_eq!(course.between(Some(3), Some(1)), []);
        let rows = Course::of(&column(&[(None, 5.0), (Some(7), 6.0)]));
        assert_eq!((rows.axis, rows.points), (Axis::Row, vec![(0, 5.0), (1, 6.0)]));
    }

    proptest! {
        #[test]
        fn places_ascend_and_nothing_is_lost(steps in prop::collection::vec(0_u64..50, 0..200)) {
            let rows: Vec<_> = steps.iter().enumerate().map(|(i, step)| (Some(*step), i as f64)).collect();
            let course = Course::of(&column(&rows));
            prop_assert!(course.points.windows(2).all(|pair| pair[0].0 < pair[1].0));
            prop_assert_eq!(course.points.len() + course.replaced, steps.len());
            for &(step, value) in &course.points {
                let last = steps.iter().rposition(|other| *other == step).map(|i| i as f64);
                prop_assert_eq!(Some(value), last);
            }
        }
    }
}
