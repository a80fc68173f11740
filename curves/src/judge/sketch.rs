//! A whole curve in a fixed number of buckets, whatever its length.
//!
//! Every value goes into a bucket; when all are full, neighbours are merged and
//! each holds twice as many. Nothing is sampled: the extremes of a bucket are
//! exact, so a fault of one step is never lost. What was
//! forgotten is only the order within a bucket, at most 1/256 of a run.

/// Buckets of one curve; even, since they are merged in pairs.
pub(super) const BUCKETS: usize = 512;

/// Stands for "no step was named" in a bucket.
pub(super) const NO_STEP: u64 = u64::MAX;

/// Neighbouring points of one metric, in order of arrival.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bucket {
    /// Points in it.
    pub(super) n: u32,
    /// Step of its first point, or [`NO_STEP`].
    pub(super) first_step: u64,
    /// Step of its last point, or [`NO_STEP`].
    pub(super) last_step: u64,
    sum: f64,
    sum_ln: f64,
    /// Smallest value.
    pub(super) min: f64,
    /// Largest value.
    pub(super) max: f64,
}

impl Bucket {
    fn of(step: u64, value: f64) -> Self {
        Self {
            n: 1,
            first_step: step,
            last_step: step,
            sum: value,
            sum_ln: ln(value),
            min: value,
            max: value,
        }
    }

    fn merge(&mut self, later: &Self) {
        self.n = self.n.saturating_add(later.n);
        self.last_step = later.last_step;
        self.sum = (self.sum + later.sum).clamp(-f64::MAX, f64::MAX);
        self.sum_ln += later.sum_ln;
        self.min = self.min.min(later.min);
        self.max = self.max.max(later.max);
    }

    /// Mean without the smallest and the largest value, of the logarithms where
    /// `log`: one wild value in a bucket does not move it.
    pub(super) fn level(&self, log: bool) -> f64 {
        let (sum, low, high) =
            if log { (self.sum_ln, ln(self.min), ln(self.max)) } else { (self.sum, self.min, self.max) };
        if self.n < 3 { sum / f64::from(self.n) } else { (sum - low - high) / f64::from(self.n - 2) }
    }
}

fn ln(value: f64) -> f64 {
    value.max(f64::MIN_POSITIVE).ln()
}

/// The finite values of one metric in order of arrival.
#[derive(Debug, Clone)]
pub(super) struct Sketch {
    buckets: Vec<Bucket>,
    per: u32,
    positive: bool,
}

impl Default for Sketch {
    fn default() -> Self {
        Self { buckets: Vec::new(), per: 1, positive: true }
    }
}

impl Sketch {
    /// Takes in one finite value.
    pub(super) fn push(&mut self, step: Option<u64>, value: f64) {
        debug_assert!(value.is_finite());
        self.positive &= value > 0.0;
        let new = Bucket::of(step.unwrap_or(NO_STEP), value);
        match self.buckets.last_mut() {
            Some(last) if last.n < self.per => last.merge(&new),
            _ => {
                if self.buckets.len() == BUCKETS {
                    self.halve();
                }
                self.buckets.push(new);
            }
        }
    }

    fn halve(&mut self) {
        for i in 0..BUCKETS / 2 {
            let later = self.buckets[2 * i + 1];
            let mut merged = self.buckets[2 * i];
            merged.merge(&later);
            self.buckets[i] = merged;
        }
        self.buckets.truncate(BUCKETS / 2);
        self.per = self.per.saturating_mul(2);
    }

    /// Forgets the newest points at `from` or after, and says how many they were.
    /// A bucket on both sides keeps its mean and extremes for as many points as
    /// were before, if steps are even in it.
    pub(super) fn void(&mut self, from: u64) -> u64 {
        let mut void = 0;
        while let Some(last) = self.buckets.last_mut() {
            if last.first_step == NO_STEP || last.last_step < from {
                break;
            }
            if last.first_step >= from {
                void += u64::from(last.n);
                self.buckets.pop();
                continue;
            }
            let share = (from - last.first_step) as f64 / (last.last_step - last.first_step + 1) as f64;
            let kept = ((f64::from(last.n) * share).round() as u32).clamp(1, last.n);
            let part = f64::from(kept) / f64::from(last.n);
            void += u64::from(last.n - kept);
            (last.sum, last.sum_ln) = (last.sum * part, last.sum_ln * part);
            (last.n, last.last_step) = (kept, from - 1);
            break;
        }
        void
    }

    /// In order of arrival.
    pub(super) fn buckets(&self) -> &[Bucket] {
        &self.buckets
    }

    /// Whether every value so far was above zero.
    pub(super) fn positive(&self) -> bool {
        self.positive
    }

    /// Points taken in.
    pub(super) fn count(&self) -> u64 {
        self.buckets.iter().map(|b| u64::from(b.n)).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn nothing_is_lost_but_the_order_within_a_bucket(values in prop::collection::vec(-1e3_f64..1e3, 1..6000)) {
            let mut sketch = Sketch::default();
            values.iter().enumerate().for_each(|(i, v)| sketch.push(Some(i as u64), *v));
            prop_assert!(sketch.buckets().len() <= BUCKETS);
            prop_assert_eq!(sketch.count(), values.len() as u64);
            let mut from = 0;
            for bucket in sketch.buckets() {
                let part = &values[from..from + bucket.n as usize];
                prop_assert_eq!(bucket.first_step, from as u64);
                from += part.len();
                prop_assert_eq!(bucket.last_step, from as u64 - 1);
                let max = part.iter().copied().fold(f64::MIN, f64::max);
                prop_assert_eq!(bucket.max, max);
                prop_assert_eq!(bucket.min, part.iter().copied().fold(f64::MAX, f64::min));
            }
            let full = sketch.buckets().len() - 1;
            prop_assert!(sketch.buckets()[..full].iter().all(|b| b.n == sketch.buckets()[0].n));
        }
    }

    #[test]
    fn void_points_are_forgotten_and_the_rest_goes_on() {
        for from in [1_u64, 7, 640, 2999] {
            let mut sketch = Sketch::default();
            (0..3000).for_each(|i| sketch.push(Some(i), if i < from { 1.0 } else { 50.0 }));
            let void = sketch.void(from);
            let per = u64::from(sketch.per);
            assert_eq!(sketch.count() + void, 3000);
            assert!(
                sketch.count().abs_diff(from) <= per && sketch.buckets().iter().all(|b| b.last_step < from)
            );
            let whole = &sketch.buckets()[..sketch.buckets().len() - 1];
            assert!(whole.iter().all(|b| b.max == 1.0), "{from}");
            (from..3000).for_each(|i| sketch.push(Some(i), 2.0));
            assert!(sketch.buckets().len() <= BUCKETS && sketch.count().abs_diff(3000) <= per);
        }
    }

    #[test]
    fn one_wild_value_does_not_move_a_level() {
        let mut sketch = Sketch::default();
        (0..4000).for_each(|i| sketch.push(Some(i), if i == 1234 { 1e9 } else { 2.0 }));
        assert!(sketch.buckets().iter().all(|b| (b.level(true) - 2_f64.ln()).abs() < 1e-9));
        assert!(sketch.buckets().iter().any(|b| b.first_step <= 1234 && b.last_step >= 1234 && b.max == 1e9));
    }
}
