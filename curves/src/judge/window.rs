//! Rolling order statistics, and a follower of level and noise built on them.
//!
//! The follower answers one question of each new value: how far is it above
//! what the last values let expect, in units of their noise? It must not be
//! moved by the very excursion that it measures, so callers hold it still while
//! one lasts.

use std::collections::VecDeque;

/// Most values that a window holds.
pub(super) const WIDEST: usize = 200;

/// Standard deviations in one median absolute deviation of normal noise.
pub(super) const MAD_TO_SD: f64 = 1.4826;

/// The newest values, in order of arrival and in order of size.
#[derive(Debug, Clone, Default)]
pub(super) struct SortedWindow {
    ring: VecDeque<f64>,
    sorted: Vec<f64>,
}

impl SortedWindow {
    /// Takes in a finite value and lets go of the oldest beyond `width`.
    pub(super) fn push(&mut self, value: f64, width: usize) {
        let width = width.max(1);
        while self.ring.len() > width {
            let Some(oldest) = self.ring.pop_front() else { break };
            let at = self.place(oldest);
            if at < self.sorted.len() {
                self.sorted.remove(at);
            }
        }
        let oldest = if self.ring.len() == width { self.ring.pop_front() } else { None };
        self.ring.push_back(value);
        let to = self.place(value);
        let Some(from) = oldest.map(|oldest| self.place(oldest)).filter(|from| *from < self.sorted.len())
        else {
            self.sorted.insert(to, value);
            return;
        };
        // One takes the place of the other: only what lies between them moves.
        if from < to {
            self.sorted.copy_within(from + 1..to, from);
            self.sorted[to - 1] = value;
        } else {
            self.sorted.copy_within(to..from, to + 1);
            self.sorted[to] = value;
        }
    }

    /// How many values are smaller.
    fn place(&self, value: f64) -> usize {
        // Two short counts whose comparisons do not wait for each other, unlike those of halving.
        const ROW: usize = 16;
        let (rows, rest) = self.sorted.as_chunks::<ROW>();
        let below = |row: &[f64]| row.iter().map(|v| usize::from(*v < value)).sum::<usize>();
        let begun = rows.iter().map(|row| usize::from(row[0] < value)).sum::<usize>();
        let Some(row) = begun.checked_sub(1) else { return if rows.is_empty() { below(rest) } else { 0 } };
        let whole = row * ROW + below(&rows[row]);
        if whole == rows.len() * ROW { whole + below(rest) } else { whole }
    }

    pub(super) fn len(&self) -> usize {
        self.sorted.len()
    }

    pub(super) fn clear(&mut self) {
        self.ring.clear();
        self.sorted.clear();
    }

    /// The value below which a share `q` of the window lies; 0 when empty.
    pub(super) fn quantile(&self, q: f64) -> f64 {
        let at = (q * self.sorted.len() as f64) as usize;
        self.sorted.get(at.min(self.sorted.len().saturating_sub(1))).copied().unwrap_or(0.0)
    }

    pub(super) fn median(&self) -> f64 {
        self.quantile(0.5)
    }

    /// Median absolute deviation from the median.
    pub(super) fn mad(&self) -> f64 {
        if self.sorted.is_empty() {
            return 0.0;
        }
        let centre = self.median();
        // Deviations come in order of size on either side of the median; the
        // smallest `middle + 1` of both are some of the left and the rest right.
        let (left, right) = self.sorted.split_at(self.sorted.len() / 2);
        let middle = left.len();
        let below = |i: usize| centre - left[middle - 1 - i];
        let above = |i: usize| right[i] - centre;
        let (mut few, mut many) = (middle + 1 - right.len().min(middle + 1), middle);
        while few < many {
            let taken = few.midpoint(many);
            if below(taken) < above(middle - taken) { few = taken + 1 } else { many = taken }
        }
        let of_left = few.checked_sub(1).map_or(0.0, below);
        let of_right = (middle + 1).checked_sub(few + 1).map_or(0.0, above);
        of_left.max(of_right)
    }
}

/// How a value stands to those before it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sight {
    /// Height above the expected value in standard deviations of the noise.
    pub(super) z: f64,
    /// The expected value.
    pub(super) expected: f64,
    /// One standard deviation, widened while few values are known.
    pub(super) sd: f64,
}

/// Level and noise of a noisy, drifting sequence.
///
/// The level is the median of the last n/6 values (10 to [`WIDEST`]), the noise
/// the median absolute deviation of the distances from it: a steady slope puts
/// the same distance on every value, and so cancels. Where a fall ends that
/// distance is too low for a while, so nothing is expected below the median of
/// the last [`Self::NEAR`] values.
#[derive(Debug, Clone, Default)]
pub(super) struct Follower {
    level: SortedWindow,
    near: SortedWindow,
    distances: SortedWindow,
    seen: u64,
    sd: f64,
    aged: u8,
}

impl Follower {
    /// Fewest values that are called a history.
    const FEWEST: u64 = 20;
    const NEAR: usize = 21;
    /// The noise is measured anew each so many values.
    const MEASURED_EACH: u8 = 4;

    /// Judges `value` by what was taken in before; `None` while that is little.
    pub(super) fn look(&self, value: f64) -> Option<Sight> {
        if self.seen < Self::FEWEST || self.distances.len() < 8 {
            return None;
        }
        let expected = (self.level.median() + self.distances.median()).max(self.near.median());
        // A spread of m values is itself uncertain by about 1/sqrt(m).
        let doubt = 1.0 + 1.5 / (self.distances.len() as f64).sqrt();
        let sd = (self.sd * doubt).max(1e-3 * expected.abs().clamp(1e-9, 1.0));
        Some(Sight { z: (value - expected) / sd, expected, sd })
    }

    /// Takes in `value`.
    pub(super) fn push(&mut self, value: f64) {
        let width = |share: u64, least: u64| (self.seen / share).clamp(least, WIDEST as u64) as usize;
        let (of_level, of_distances) = (width(6, 10), width(3, 20));
        if self.seen >= 5 {
            self.distances.push(value - self.level.median(), of_distances);
        }
        self.level.push(value, of_level);
        self.near.push(value, Self::NEAR.min(of_level));
        self.seen += 1;
        self.aged += 1;
        if self.aged >= Self::MEASURED_EACH {
            self.aged = 0;
            self.sd = MAD_TO_SD * self.distances.mad();
        }
    }

    /// Forgets all but that there was a history: the level is a new one.
    pub(super) fn restart(&mut self) {
        self.level.clear();
        self.near.clear();
        self.distances.clear();
        self.seen = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn order_statistics_are_those_of_the_newest_values(values in prop::collection::vec(-1e6_f64..1e6, 1..400), width in 1_usize..60) {
            let mut window = SortedWindow::default();
            values.iter().for_each(|v| window.push(*v, width));
            let mut newest: Vec<f64> = values[values.len().saturating_sub(width)..].to_vec();
            newest.sort_by(f64::total_cmp);
            prop_assert_eq!(window.len(), newest.len());
            let median = newest[newest.len() / 2];
            prop_assert_eq!(window.median(), median);
            let mut away: Vec<f64> = newest.iter().map(|v| (v - median).abs()).collect();
            away.sort_by(f64::total_cmp);
            prop_assert_eq!(window.mad(), away[away.len() / 2]);
        }
    }

    #[test]
    fn a_slope_is_not_noise_and_noise_is_measured() {
        let mut follower = Follower::default();
        let mut random = fastrand::Rng::with_seed(4);
        for i in 0..2000 {
            follower.push(-0.01 * f64::from(i) + random.f64() - 0.5);
        }
        let sight = follower.look(-20.0).expect("a long history");
        assert!(sight.z.abs() < 1.0, "{sight:?}");
        assert!((0.25..0.45).contains(&sight.sd), "uniform noise of width 1 has sd 0.29: {sight:?}");
        assert!(follower.look(-15.0).is_some_and(|s| s.z > 10.0));
    }
}
