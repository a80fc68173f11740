//! When something will be used up, from how it went in the last minutes. Pure.
//! A forecast that is wrong costs more trust than one that is missing: where the
//! fall is not clear against the noise there is none.

use std::collections::VecDeque;

/// Points remembered per series.
const POINTS: usize = 64;
/// A point older than this many milliseconds says nothing of the present.
const WINDOW_MS: u64 = 300_000;
/// The recent part, which sees a change of pace sooner.
const RECENT_MS: u64 = 60_000;
/// No slope from fewer points or a shorter time.
const MIN_POINTS: usize = 4;
const MIN_SPAN_S: f64 = 20.0;
/// The fall must be so many times what the points scatter about the line.
const CLEAR: f64 = 3.0;
/// Share of all pairs of points that must go down (as Kendall's tau counts).
const STEADY: f64 = 0.8;

/// The last minutes of one figure.
#[derive(Debug, Clone, Default)]
pub(super) struct Series {
    points: VecDeque<(u64, f64)>,
}

/// A line through the recent points.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Fit {
    /// Change per second.
    pub(super) slope: f64,
    /// Median distance of the points from the line.
    scatter: f64,
    span_s: f64,
    /// Share of all pairs that go down.
    falling: f64,
}

impl Series {
    /// Adds a point. One that is not later than the last, or no number, is not taken.
    pub(super) fn push(&mut self, at_ms: u64, value: f64) {
        if !value.is_finite() || self.points.back().is_some_and(|(last, _)| at_ms <= *last) {
            return;
        }
        self.points.push_back((at_ms, value));
        let oldest = at_ms.saturating_sub(WINDOW_MS);
        while self.points.len() > POINTS || self.points.front().is_some_and(|(at, _)| *at < oldest) {
            self.points.pop_front();
        }
    }

    /// Change per second over the remembered time; 0 where it is not known.
    pub(super) fn slope(&self) -> f64 {
        self.fit(WINDOW_MS).map_or(0.0, |f| f.slope)
    }

    /// Seconds until the figure is used up, and its change per second; `None`
    /// where it does not clearly fall.
    pub(super) fn until_zero(&self) -> Option<(f64, f64)> {
        let (_, now) = *self.points.back()?;
        // The whole window sees a slow fall through noise; the recent part sees
        // one that has just begun, and that one has ended.
        let recent = self.fit(RECENT_MS).filter(|f| f.slope < 0.0)?;
        let long = self.fit(WINDOW_MS).filter(Fit::falls_clearly);
        let fall = match (recent.falls_clearly(), long) {
            (true, long) => long.map_or(recent.slope, |l| l.slope.min(recent.slope)),
            (false, Some(long)) => long.slope,
            (false, None) => return None,
        };
        Some((now.max(0.0) / -fall, fall))
    }

    /// Theil-Sen: the median of the slopes between all pairs of points. Up to
    /// 29 % of the points may be far off without moving it.
    fn fit(&self, window_ms: u64) -> Option<Fit> {
        let (last, _) = *self.points.back()?;
        // A window always holds enough points, where sampling is slow too.
        let within = self.points.iter().rev().take_while(|(at, _)| last - at <= window_ms).count();
        let take = within.max(MIN_POINTS).min(self.points.len());
        let step = take.div_ceil(POINTS / 2);
        let mut points: Vec<(f64, f64)> = Vec::with_capacity(POINTS);
        for (at, value) in self.points.iter().rev().take(take).step_by(step) {
            #[expect(clippy::cast_precision_loss, reason = "milliseconds of some minutes")]
            points.push((-((last - at) as f64) / 1000.0, *value));
        }
        points.reverse();
        let span_s = -points.first()?.0;
        if points.len() < MIN_POINTS || span_s < MIN_SPAN_S {
            return None;
        }
        let mut slopes = Vec::with_capacity(points.len() * points.len() / 2);
        for (i, (t, v)) in points.iter().enumerate() {
            slopes.extend(points.iter().skip(i + 1).map(|(u, w)| (w - v) / (u - t)));
        }
        #[expect(clippy::cast_precision_loss, reason = "some hundred pairs")]
        let falling = slopes.iter().filter(|s| **s < 0.0).count() as f64 / slopes.len() as f64;
        let slope = median(&mut slopes)?;
        let mut offsets: Vec<f64> = points.iter().map(|(t, v)| v - slope * t).collect();
        let offset = median(&mut offsets)?;
        let mut off: Vec<f64> = points.iter().map(|(t, v)| (v - slope * t - offset).abs()).collect();
        Some(Fit { slope, scatter: median(&mut off)?, span_s, falling })
    }
}

impl Fit {
    fn falls_clearly(&self) -> bool {
        let fall = -self.slope * self.span_s;
        self.slope < 0.0 && self.slope.is_finite() && self.falling >= STEADY && fall > CLEAR * self.scatter
    }
}

fn median(values: &mut [f64]) -> Option<f64> {
    let middle = values.len() / 2;
    if values.is_empty() {
        return None;
    }
    let (_, value, _) = values.select_nth_unstable_by(middle, f64::total_cmp);
    let found = *value;
    found.is_finite().then_some(found)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn series(step_ms: u64, values: impl IntoIterator<Item = f64>) -> Series {
        let mut series = Series::default();
        for (i, value) in (1..).zip(values) {
            series.push(i * step_ms, value);
        }
        series
    }

    #[test]
    fn too_few_points_or_too_short_a_time_forecast_nothing() {
        assert_eq!(series(10_000, [400.0, 300.0, 200.0]).until_zero(), None);
        assert_eq!(series(1000, [400.0, 300.0, 200.0, 100.0]).until_zero(), None);
        assert!(series(10_000, [400.0, 300.0, 200.0, 100.0]).until_zero().is_some());
        assert_eq!(Series::default().until_zero(), None);
    }

    #[test]
    fn a_saw_tooth_is_not_a_fall() {
        // Checkpoints of 40 are written in three steps and the old one is deleted.
        let saw = (0..40).map(|i| 500.0 - f64::from(i % 4) * 13.0);
        assert_eq!(series(10_000, saw).until_zero(), None);
    }

    #[test]
    fn a_fall_that_has_ended_is_over_and_one_that_has_begun_is_seen() {
        let ended = (0..10).map(|i| 1000.0 - f64::from(i) * 50.0).chain(std::iter::repeat_n(550.0, 10));
        assert_eq!(series(10_000, ended).until_zero(), None);
        let begun = std::iter::repeat_n(1000.0, 20).chain((1..=7).map(|i| 1000.0 - f64::from(i) * 100.0));
        let (seconds, slope) = series(10_000, begun).until_zero().unwrap();
        assert!((seconds - 30.0).abs() < 3.0 && (slope + 10.0).abs() < 1.0, "{seconds} {slope}");
    }

    #[test]
    fn one_wild_reading_changes_nothing() {
        let values = (0..20).map(|i| if i == 12 { 5.0 } else { 10_000.0 - f64::from(i) * 100.0 });
        let (seconds, _) = series(10_000, values).until_zero().unwrap();
        assert!((seconds - 810.0).abs() < 81.0, "{seconds}");
    }

    #[test]
    fn a_slow_leak_is_seen_through_noise() {
        let values = (0..30).map(|i| 10_000.0 - f64::from(i) * 100.0 + f64::from(i * 7919 % 13) * 25.0);
        let (seconds, _) = series(10_000, values).until_zero().unwrap();
        assert!((seconds - 710.0).abs() < 100.0, "{seconds}");
    }

    #[test]
    fn what_is_no_number_or_comes_from_the_past_is_not_taken() {
        let mut series = series(10_000, [f64::NAN, f64::INFINITY, 5.0]);
        series.push(1, 9.0);
        series.push(30_000, 9.0);
        assert_eq!(series.points.len(), 1);
        for i in 0..100_000 {
            series.push(40_000 + i, 1.0);
        }
        assert_eq!(series.points.len(), POINTS);
    }

    proptest! {
        #[test]
        fn a_constant_series_never_forecasts(value in 0.0..1e18_f64, count in 0_usize..100, step in 1_u64..60_000) {
            prop_assert_eq!(series(step, std::iter::repeat_n(value, count)).until_zero(), None);
        }

        #[test]
        fn a_rising_series_never_forecasts(start in 0.0..1e12_f64, rise in 1.0..1e9_f64, count in 4_u32..60) {
            let values = (0..count).map(|i| start + rise * f64::from(i));
            prop_assert_eq!(series(10_000, values).until_zero(), None);
        }

        #[test]
        fn noise_alone_never_forecasts_a_near_end(noise in proptest::collection::vec(-1.0..1.0_f64, 30..60)) {
            let values = noise.iter().map(|n| 1e9 + n * 1e5);
            if let Some((seconds, _)) = series(10_000, values).until_zero() {
                prop_assert!(seconds > 86_400.0, "{seconds}");
            }
        }

        #[test]
        fn a_linear_fall_is_told_within_a_tenth(
            rate in 1e3..1e9_f64, left in 10.0..5000.0_f64, count in 4_usize..60, step in 7_u64..15,
            noise in proptest::collection::vec(-1.0..1.0_f64, 60),
        ) {
            let step_s = f64::from(u32::try_from(step).unwrap());
            #[expect(clippy::cast_precision_loss)]
            let values = (0..count).map(|i| {
                let to_come = (count - 1 - i) as f64 * step_s;
                let noise = if i + 1 == count { 0.0 } else { noise[i] * 0.02 * step_s };
                rate * (left + to_come + noise)
            });
            let (seconds, slope) = series(step * 1000, values).until_zero().unwrap();
            prop_assert!((seconds - left).abs() <= left * 0.1, "{seconds} instead of {left}");
            prop_assert!((slope + rate).abs() <= rate * 0.1, "{slope} instead of -{rate}");
        }

        #[test]
        fn nothing_hostile_makes_it_fail(values in proptest::collection::vec((any::<u64>(), any::<f64>()), 0..80)) {
            let mut series = Series::default();
            for (at, value) in values {
                series.push(at, value);
            }
            let _ = series.slope();
            if let Some((seconds, slope)) = series.until_zero() {
                prop_assert!(seconds >= 0.0 && slope < 0.0);
            }
        }
    }
}
