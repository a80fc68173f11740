//! What a checkpoint is worth by a metric of its program. Pure.
//!
//! A checkpoint at step 120 is worth what was measured last at or before 120 on
//! the way that led to it: in its own attempt, else in the attempt from whose
//! checkpoint that one went on, up to there. What an attempt measured beyond
//! the checkpoint that was gone on from belongs to work that was lost.
//!
//! One measurement counts for one checkpoint, the first at or after it: it says
//! nothing of what was trained later.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

/// Which metric says what is best.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Best {
    /// The metric's name, as the program prints it.
    pub metric: String,
    /// More is better.
    #[serde(default)]
    pub more: bool,
}

impl Best {
    /// The value turned so that less is better.
    #[must_use]
    pub fn turned(&self, value: f64) -> f64 {
        if self.more { -value } else { value }
    }
}

/// What is known of one attempt.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Way {
    /// The attempt and the step that it went on from; `None`: it began anew, or
    /// in another run.
    pub from: Option<(u32, u64)>,
    /// What was measured, in the order in which it was printed.
    pub measured: Vec<(u64, f64)>,
}

/// The value of each checkpoint of which one is known, by the place in
/// `saves`, which are (attempt, step).
#[must_use]
pub fn values(saves: &[(u32, u64)], ways: &BTreeMap<u32, Way>) -> BTreeMap<usize, f64> {
    let mut order: Vec<usize> = (0..saves.len()).collect();
    order.sort_by_key(|at| (saves[*at].1, *at));
    let mut used = BTreeSet::new();
    let mut values = BTreeMap::new();
    for at in order {
        let Some((place, value)) = last_before(saves[at], ways) else { continue };
        if used.insert(place) && value.is_finite() {
            values.insert(at, value);
        }
    }
    values
}

/// Where and what was measured last at or before a step of an attempt.
fn last_before((attempt, step): (u32, u64), ways: &BTreeMap<u32, Way>) -> Option<((u32, usize), f64)> {
    let (mut attempt, mut limit) = (attempt, step);
    // Attempts only ever go on from earlier ones; hostile rows may say else.
    for _ in 0..=ways.len() {
        let way = ways.get(&attempt)?;
        let before = way.measured.iter().enumerate().filter(|(_, (at, _))| *at <= limit);
        // Of several at one step what was printed last holds.
        if let Some((place, (_, value))) = before.max_by_key(|(place, (at, _))| (*at, *place)) {
            return Some(((attempt, place), *value));
        }
        let (earlier, reached) = way.from?;
        (attempt, limit) = (earlier, limit.min(reached));
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn way(from: Option<(u32, u64)>, measured: &[(u64, f64)]) -> Way {
        Way { from, measured: measured.to_vec() }
    }

    #[test]
    fn a_measurement_counts_for_the_first_checkpoint_at_or_after_it() {
        let ways = BTreeMap::from([(1, way(None, &[(100, 0.5), (200, 0.3), (210, 0.4)]))]);
        let saves = [(1, 240), (1, 50), (1, 100), (1, 120), (1, 200), (1, 220)];
        let found = values(&saves, &ways);
        assert_eq!(found, BTreeMap::from([(2, 0.5), (4, 0.3), (5, 0.4)]));
    }

    #[test]
    fn what_was_measured_after_the_checkpoint_that_was_gone_on_from_is_lost_work() {
        let first = way(None, &[(100, 0.5), (140, 0.1)]);
        let ways = BTreeMap::from([(1, first), (2, way(Some((1, 120)), &[(180, 0.4)]))]);
        assert_eq!(values(&[(2, 160)], &ways), BTreeMap::from([(0, 0.5)]), "not the 0.1 of step 140");
        assert_eq!(values(&[(2, 160), (2, 180)], &ways), BTreeMap::from([(0, 0.5), (1, 0.4)]));
        let circle = BTreeMap::from([(1, way(Some((2, 9)), &[])), (2, way(Some((1, 9)), &[]))]);
        assert!(values(&[(1, 5), (7, 5)], &circle).is_empty());
    }

    #[test]
    fn what_is_no_number_makes_nothing_best() {
        let ways = BTreeMap::from([(1, way(None, &[(100, 0.5), (200, f64::NAN), (300, 0.2), (300, 0.3)]))]);
        let saves = [(1, 100), (1, 200), (1, 250), (1, 300)];
        assert_eq!(values(&saves, &ways), BTreeMap::from([(0, 0.5), (3, 0.3)]), "the last of a step holds");
    }
}
