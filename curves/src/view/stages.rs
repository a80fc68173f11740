//! Several courses over the same part of their steps, such as a stage of a
//! curriculum. What one of them did not reach is left out of all: a stage is never
//! compared at different steps.

use super::course::Course;
use super::matching::{At, at};

/// A part of the steps of several courses.
#[derive(Debug, Clone, PartialEq)]
pub struct Stretch {
    /// The first step that all who are in it have reached.
    pub from: u64,
    /// The last.
    pub to: u64,
    /// The values at both; `None` for a course without values in it.
    pub cells: Vec<Option<(At, At)>>,
}

/// The courses from step `from` on, and before step `end`; `None` where none has
/// values in it, or those that have share no step.
#[must_use]
pub fn stretch(courses: &[Option<Course>], from: u64, end: Option<u64>) -> Option<Stretch> {
    let inside = |step: u64| step >= from && end.is_none_or(|end| step < end);
    let ends: Vec<Option<(u64, u64)>> = courses
        .iter()
        .map(|course| {
            let points = &course.as_ref()?.points;
            let first = points.iter().find(|point| inside(point.0))?.0;
            let last = points.iter().rev().find(|point| inside(point.0))?.0;
            Some((first, last))
        })
        .collect();
    let first = ends.iter().flatten().map(|ends| ends.0).max()?;
    let last = ends.iter().flatten().map(|ends| ends.1).min()?;
    let cells = courses.iter().zip(&ends).map(|(course, ends)| {
        let course = course.as_ref().filter(|_| ends.is_some())?;
        Some((at(course, first).ok()?, at(course, last).ok()?))
    });
    (first <= last).then(|| Stretch { from: first, to: last, cells: cells.collect() })
}

#[cfg(test)]
mod tests {
    use super::super::course::Axis;
    use super::*;
    use crate::downsample::Place;
    use proptest::prelude::*;

    fn course(points: &[Place]) -> Option<Course> {
        Some(Course { axis: Axis::Step, points: points.to_vec(), replaced: 0 })
    }

    fn values(found: &Stretch) -> Vec<Option<(f64, f64)>> {
        found.cells.iter().map(|cell| cell.map(|(first, last)| (first.value, last.value))).collect()
    }

    #[test]
    fn a_stage_is_compared_where_all_of_its_runs_have_been() {
        let long = course(&(0..100).map(|step| (step, 100.0 - step as f64)).collect::<Vec<_>>());
        let short = course(&(0..10).map(|n| (n * 5, 50.0)).collect::<Vec<_>>());
        let none = course(&[(70, 1.0)]);
        let found =
            stretch(&[long.clone(), short.clone(), none.clone(), None], 20, Some(60)).expect("shared");
        assert_eq!((found.from, found.to), (20, 45));
        assert_eq!(values(&found), [Some((80.0, 55.0)), Some((50.0, 50.0)), None, None]);
        let later = stretch(&[long, short, none], 60, None).expect("shared");
        assert_eq!((later.from, later.to, values(&later)[1]), (70, 70, None));
        assert_eq!(stretch(&[course(&[(1, 1.0)]), course(&[(5, 1.0)])], 0, None), None);
        assert_eq!(stretch(&[], 0, None), None);
    }

    proptest! {
        #[test]
        fn nothing_outside_the_stage_is_taken(
            one in proptest::collection::btree_map(0_u64..60, -9.0..9.0, 0..30),
            two in proptest::collection::btree_map(0_u64..60, -9.0..9.0, 0..30),
            from in 0_u64..60,
            length in 1_u64..60,
        ) {
            let of = |points: std::collections::BTreeMap<u64, f64>| course(&points.into_iter().collect::<Vec<_>>());
            if let Some(found) = stretch(&[of(one), of(two)], from, Some(from + length)) {
                prop_assert!(found.from >= from && found.to < from + length && found.from <= found.to);
                prop_assert!(found.cells.iter().any(Option::is_some));
            }
        }
    }
}
