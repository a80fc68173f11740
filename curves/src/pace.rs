//! How fast a run moves and when it will be done.
//!
//! Estimates only: an answer is given when the samples carry one, and never
//! from a clock of this crate's own.

use std::time::Duration;

/// Only this many samples, the newest, are looked at.
pub const MAX_SAMPLES: usize = 256;

/// Of these, so many, evenly spaced, are compared pairwise.
const COMPARED: usize = 48;

/// Steps per second from samples of `(time in ms, step)` in order of arrival:
/// the median of the slopes between all pairs, which one long pause or one odd
/// sample cannot move far.
///
/// A step below the one before it means that the run was resumed or started
/// anew; only what follows the last such place counts. Of repeated steps the
/// first sample counts; samples whose clock did not advance are left out.
/// `None` until two different steps at two different times are known.
#[must_use]
pub fn rate(samples: &[(u64, u64)]) -> Option<f64> {
    let recent = &samples[samples.len().saturating_sub(MAX_SAMPLES)..];
    let mut kept: Vec<(u64, u64)> = Vec::with_capacity(recent.len());
    for &(time, step) in recent {
        match kept.last() {
            Some(&(_, last)) if step < last => {
                kept.clear();
                kept.push((time, step));
            }
            Some(&(before, last)) if step == last || time <= before => {}
            _ => kept.push((time, step)),
        }
    }
    let count = kept.len().min(COMPARED);
    let chosen: Vec<_> = (0..count)
        .map(|i| if count == 1 { kept[0] } else { kept[i * (kept.len() - 1) / (count - 1)] })
        .collect();
    let mut slopes = Vec::with_capacity(count * count / 2);
    for (i, &(early, low)) in chosen.iter().enumerate() {
        slopes.extend(
            chosen[i + 1..].iter().map(|&(late, high)| (high - low) as f64 * 1000.0 / (late - early) as f64),
        );
    }
    let middle = slopes.len() / 2;
    (!slopes.is_empty()).then(|| *slopes.select_nth_unstable_by(middle, f64::total_cmp).1)
}

/// Time left until `total` steps are done, counted from the last sample.
/// Zero when they are; `None` while no rate is known or when the time is
/// beyond what a `Duration` holds.
#[must_use]
pub fn eta(samples: &[(u64, u64)], total: u64) -> Option<Duration> {
    let &(_, step) = samples.last()?;
    if step >= total {
        return Some(Duration::ZERO);
    }
    let seconds = (total - step) as f64 / rate(samples)?;
    Duration::try_from_secs_f64(seconds).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn steady(from: u64, count: u64) -> Vec<(u64, u64)> {
        (0..count).map(|i| (1000 + i * 100, from + i)).collect()
    }

    #[test]
    fn a_steady_run_has_its_rate_and_eta() {
        let samples = steady(0, 50);
        assert_eq!(rate(&samples), Some(10.0));
        assert_eq!(eta(&samples, 149), Some(Duration::from_secs(10)));
        assert_eq!(eta(&samples, 10), Some(Duration::ZERO));
    }

    #[test]
    fn one_pause_and_one_odd_step_move_it_little() {
        let mut samples = steady(0, 40);
        samples[38..].iter_mut().for_each(|s| s.0 += 60_000);
        let found = rate(&samples).expect("enough samples");
        assert!((9.0..=10.0).contains(&found), "{found}");
    }

    #[test]
    fn after_a_resume_only_the_new_part_counts() {
        let mut samples = steady(500, 30);
        samples.extend((0..30).map(|i| (100_000 + i * 1000, 480 + i)));
        assert_eq!(rate(&samples), Some(1.0));
    }

    #[test]
    fn too_little_is_no_answer() {
        assert_eq!(rate(&[]), None);
        assert_eq!(rate(&[(5, 1)]), None);
        assert_eq!(rate(&[(5, 1), (9, 1), (20, 1)]), None);
        assert_eq!(rate(&[(5, 1), (5, 2), (4, 3)]), None);
        assert_eq!(eta(&[(5, 1)], 10), None);
        assert_eq!(eta(&[], 10), None);
    }

    proptest! {
        #[test]
        fn a_rate_is_positive_and_finite(samples in prop::collection::vec((any::<u64>(), any::<u64>()), 0..400), total: u64) {
            if let Some(found) = rate(&samples) {
                prop_assert!(found > 0.0 && found.is_finite());
            }
            let _ = eta(&samples, total);
        }
    }
}
