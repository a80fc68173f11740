//! Losses that swing with a period of a few points: the autocorrelation of the
//! newest points falls below zero at half a period and comes back at a whole.
//!
//! White noise has neither; a trend or a spike has no return. Noise that remembers, such as that of
//! a smoothed loss, has both by chance now and then: see [`null`].

mod null;

use std::collections::VecDeque;

use crate::judge::finding::{Finding, Kind, Severity, at, facts};
use crate::judge::fit;
use crate::judge::schema::Role;
use crate::judge::track::{Following, Track};

/// Points that are looked at, how often, and the longest period. Half as many
/// are looked at too, with more asked of them: a level may have changed before.
const LOOKED_AT: usize = 120;
const EACH: u64 = 20;
const LONGEST: usize = 30;
/// Looks without a swing after which it is over.
const QUIET: u32 = 4;
/// What the correlation must reach at a whole period and at half of one.
const RETURN: f64 = 0.4;
const TROUGH: f64 = -0.3;
const OF_HALF: f64 = 1.35;
/// Swings smaller than this share of the level are not worth a word.
const LEAST: f64 = 0.03;

/// The one stretch of swinging that is kept: the strongest.
#[derive(Debug, Clone, Default)]
pub(in crate::judge) struct Watch {
    first: Option<Option<u64>>,
    last: Option<u64>,
    hits: u32,
    misses: u32,
    strongest: Swing,
    confirmed: Option<(Option<u64>, Option<u64>, Swing)>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Swing {
    period: usize,
    correlation: f64,
    /// Standard deviation on the follower's scale.
    size: f64,
}

impl Watch {
    /// `seen` counts points; every so many the newest are looked at.
    pub(in crate::judge) fn push(&mut self, recent: &VecDeque<(Option<u64>, f64)>, seen: u64) {
        if !seen.is_multiple_of(EACH) || recent.len() < LOOKED_AT / 2 {
            return;
        }
        let newest: Vec<(Option<u64>, f64)> =
            recent.range(recent.len().saturating_sub(LOOKED_AT)..).copied().collect();
        let values: Vec<f64> = newest.iter().map(|p| p.1).collect();
        let half = values.len().saturating_sub(LOOKED_AT / 2);
        let look =
            |part: &[f64], times| may_swing(part, times).then(|| swing(&detrended(part), times)).flatten();
        let found = look(&values, 1.0).or_else(|| look(values.get(half..).filter(|_| half > 0)?, OF_HALF));
        let Some(swing) = found else {
            self.misses += 1;
            if self.misses > QUIET {
                (self.first, self.hits) = (None, 0);
            }
            return;
        };
        if self.first.is_none() {
            self.first = Some(newest[began(&detrended(&values))].0);
            self.strongest = swing;
        }
        self.misses = 0;
        self.hits += 1;
        self.last = newest.last().and_then(|p| p.0);
        if swing.size > self.strongest.size {
            self.strongest = swing;
        }
        if self.hits >= 2 {
            let now = (self.first.flatten(), self.last, self.strongest);
            match &mut self.confirmed {
                // It began when it first did, however often it paused.
                Some(kept) => {
                    kept.1 = now.1;
                    if now.2.size > kept.2.size {
                        kept.2 = now.2;
                    }
                }
                None => {
                    let points: Vec<f64> = recent.iter().map(|p| p.1).collect();
                    let from = set_in(&points, now.2.period);
                    if null::stands_out(&points, from.unwrap_or(0)) {
                        self.confirmed = Some((from.map_or(now.0, |at| recent[at].0), now.1, now.2));
                    }
                }
            }
        }
    }
}

impl Watch {
    /// Forgets a swing that began at `from` or after.
    pub(in crate::judge) fn void(&mut self, from: u64) {
        (self.first, self.hits, self.misses) = (None, 0, 0);
        self.confirmed = self.confirmed.filter(|c| c.0.is_none_or(|first| first < from));
    }
}

/// Less the line through them.
fn detrended(values: &[f64]) -> Vec<f64> {
    let slope = fit::theil_sen(&values.iter().step_by(2).copied().collect::<Vec<_>>()) / 2.0;
    level(values, slope)
}

/// Less a line of that slope, and nothing wilder than four deviations.
fn level(values: &[f64], slope: f64) -> Vec<f64> {
    let flat: Vec<f64> = values.iter().enumerate().map(|(i, v)| v - slope * i as f64).collect();
    // Where the median and the median deviation of noise without wild values lie.
    let (mean, sd) = mean_and_sd(&flat);
    let centre = fit::median_near(&flat, mean, 0.35 * sd);
    let size: Vec<f64> = flat.iter().map(|v| (v - centre).abs()).collect();
    let bound = 4.0 * 1.4826 * fit::median_near(&size, 0.65 * sd, 0.25 * sd);
    flat.into_iter().map(|v| (v - centre).clamp(-bound, bound)).collect()
}

/// Of several sums side by side, so that no addition waits for the one before it.
fn mean_and_sd(values: &[f64]) -> (f64, f64) {
    const WIDE: usize = 8;
    let (mut sums, mut squares) = ([0.0; WIDE], [0.0; WIDE]);
    let first = values.first().copied().unwrap_or(0.0);
    for part in values.chunks(WIDE) {
        for (i, value) in part.iter().enumerate() {
            sums[i] += value - first;
            squares[i] += (value - first) * (value - first);
        }
    }
    let (sum, square): (f64, f64) = (sums.iter().sum(), squares.iter().sum());
    let (n, mean) = (values.len().max(1) as f64, sum / values.len().max(1) as f64);
    (first + mean, (square / n - mean * mean).max(0.0).sqrt())
}

/// `times` is what is asked of the correlation, as a multiple.
fn swing(away: &[f64], times: f64) -> Option<Swing> {
    let (size, correlation) = correlation(away);
    if size < LEAST {
        return None;
    }
    let (period, best) =
        correlation.iter().copied().enumerate().skip(2).max_by(|a, b| a.1.total_cmp(&b.1))?;
    let trough = correlation[period / 2].min(correlation[period.div_ceil(2)]);
    (best >= RETURN * times && trough <= TROUGH * times).then_some(Swing { period, correlation: best, size })
}

/// Whether [`swing`] of the detrended values can find one. Most looks end here: it takes a slope
/// that costs little for the one that costs most, and asks for part of the distance between
/// correlations alone, to which what is left of a trend adds as much after half a period as after
/// a whole.
fn may_swing(values: &[f64], times: f64) -> bool {
    const PART: f64 = 0.6;
    let half = values.len() / 2;
    let mut rises: Vec<f64> = values.iter().zip(&values[half..]).map(|(a, b)| b - a).collect();
    let slope = fit::median(&mut rises).unwrap_or(0.0) / half.max(1) as f64;
    let (size, correlation) = correlation(&level(values, slope));
    let swings = |period: usize| {
        let trough = correlation[period / 2].min(correlation[period.div_ceil(2)]);
        correlation[period] - trough >= PART * (RETURN - TROUGH) * times
    };
    !size.is_finite() || size >= 0.8 * LEAST && (2..correlation.len()).any(swings)
}

/// Standard deviation and autocorrelation up to the longest period.
fn correlation(away: &[f64]) -> (f64, Vec<f64>) {
    let mean = away.iter().sum::<f64>() / away.len() as f64;
    let variance: f64 = away.iter().map(|v| (v - mean).powi(2)).sum();
    let size = (variance / away.len() as f64).sqrt();
    let longest = LONGEST.min(away.len() * 5 / 12);
    let away: Vec<f64> = away.iter().map(|v| v - mean).collect();
    let of_lag = |(lag, sum)| sum / variance * away.len() as f64 / (away.len() - lag) as f64;
    (size, products(&away, longest).into_iter().enumerate().map(of_lag).collect())
}

/// Sums of the products of values that are `lag` apart, for each up to `longest`.
fn products(away: &[f64], longest: usize) -> Vec<f64> {
    /// Lags whose sums grow side by side, each in the order of the values.
    const WIDE: usize = 8;
    let mut all = vec![0.0; (longest + 1).next_multiple_of(WIDE)];
    for (group, sums) in all.as_chunks_mut::<WIDE>().0.iter_mut().enumerate() {
        let later = away.get(group * WIDE..).unwrap_or_default();
        for (value, others) in away.iter().zip(later.array_windows::<WIDE>()) {
            sums.iter_mut().zip(others).for_each(|(sum, other)| *sum += value * other);
        }
        // The last values have fewer others than that.
        let whole = (later.len() + 1).saturating_sub(WIDE);
        for (i, value) in away.iter().enumerate().take(later.len()).skip(whole) {
            sums.iter_mut().zip(&later[i..]).for_each(|(sum, other)| *sum += value * other);
        }
    }
    all.truncate(longest + 1);
    all
}

/// The place at which the values began to swing wider.
fn began(away: &[f64]) -> usize {
    let size: Vec<f64> = away.iter().map(|v| v.abs()).collect();
    let prefix = fit::Prefix::new(&size);
    let n = size.len();
    let split = (5..n - 5).min_by(|a, b| {
        let cost = |k: usize| prefix.constant(0, k) + prefix.constant(k, n);
        cost(*a).total_cmp(&cost(*b))
    });
    split
        .filter(|k| prefix.mean(*k, n) - prefix.mean(0, *k) > 0.3 * size.iter().sum::<f64>() / n as f64)
        .unwrap_or(0)
}

/// A sine from a place on.
#[derive(Debug, Clone, Copy)]
struct Sine {
    explained: f64,
    at: usize,
    turn: f64,
    sin: f64,
    cos: f64,
}

impl Sine {
    fn at(&self, i: usize) -> f64 {
        let (s, c) = (self.turn * i as f64).sin_cos();
        if i < self.at { 0.0 } else { self.sin * s + self.cos * c }
    }
}

/// The place at which a swing of about `period` set in: least squares of what
/// is level before it and a sine of any phase after, over all places. The trend
/// is the mean of one period around each point, first of the values and then
/// of what the sine leaves of them.
fn set_in(values: &[f64], period: usize) -> Option<usize> {
    let (n, half) = (values.len(), period.max(2) / 2);
    let mut found: Option<Sine> = None;
    for _ in 0..3 {
        let left: Vec<f64> =
            values.iter().enumerate().map(|(i, v)| v - found.map_or(0.0, |f| f.at(i))).collect();
        let trend = |i: usize| {
            let part = &left[i.saturating_sub(half)..(i + half + 1).min(n)];
            part.iter().sum::<f64>() / part.len() as f64
        };
        let mut away: Vec<f64> = (0..n).map(|i| values[i] - trend(i)).collect();
        let mut size: Vec<f64> = away.iter().map(|v| v.abs()).collect();
        let bound = 6.0 * fit::median(&mut size).unwrap_or(0.0);
        away.iter_mut().for_each(|v| *v = v.clamp(-bound, bound));
        found = sine(&away, period);
    }
    found.map(|f| f.at)
}

/// The sine of about `period` that explains most of `away`, whose second part
/// it is.
fn sine(away: &[f64], period: usize) -> Option<Sine> {
    let mut best: Option<Sine> = None;
    for tenth in -8..=8 {
        let turn = std::f64::consts::TAU / (period as f64 * (1.0 + 0.02 * f64::from(tenth)));
        // From the end towards the beginning: sums of what the sine explains.
        let [mut ss, mut cc, mut sc, mut sy, mut cy] = [0.0_f64; 5];
        for (at, y) in away.iter().enumerate().rev() {
            let (s, c) = (turn * at as f64).sin_cos();
            (ss, cc, sc) = (ss + s * s, cc + c * c, sc + s * c);
            (sy, cy) = (sy + s * y, cy + c * y);
            let det = ss * cc - sc * sc;
            if away.len() - at < 2 * period.max(3) || det < 1e-9 {
                continue;
            }
            let (sin, cos) = ((sy * cc - cy * sc) / det, (cy * ss - sy * sc) / det);
            let explained = sin * sy + cos * cy;
            if best.is_none_or(|b| explained > b.explained) {
                best = Some(Sine { explained, at, turn, sin, cos });
            }
        }
    }
    best
}

pub(in crate::judge) fn find(track: &Track, following: &Following) -> Option<Finding> {
    if track.traits.role != Role::Loss {
        return None;
    }
    let watch = &following.oscillation;
    let (first, last, swing) = watch.confirmed?;
    let lasts = watch.last == last && watch.misses <= QUIET && watch.hits > 0;
    let width = following.ratio(swing.size * 2.83, 0.0) - 1.0;
    Some(Finding {
        kind: Kind::Oscillation,
        severity: Severity::Warning,
        metric: track.name.clone(),
        first_step: first,
        last_step: if lasts { None } else { last },
        window: LOOKED_AT as u64,
        threshold: RETURN,
        evidence: facts([
            ("correlation after one period", swing.correlation),
            ("period in points", swing.period as f64),
            ("width of the swing as a share of the level", width),
        ]),
        recommendation: format!(
            "{} swings with a period of {} points by {}% of its level{}: the learning rate is near its limit, or batches come in a fixed order; halve the rate or shuffle",
            track.name,
            swing.period,
            (100.0 * width).round(),
            at(first)
        ),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn watched(value: impl Fn(u64, f64) -> f64) -> Watch {
        let mut random = fastrand::Rng::with_seed(9);
        let (mut watch, mut recent) = (Watch::default(), VecDeque::new());
        for i in 0..600 {
            recent.push_back((Some(i), value(i, random.f64() - 0.5)));
            if recent.len() > 200 {
                recent.pop_front();
            }
            watch.push(&recent, i + 1);
        }
        watch
    }

    /// What was smoothed before it was logged swings by chance, for a hundred points.
    #[test]
    fn smoothed_noise_does_not_swing() {
        let mut looked_like_it = 0;
        for (seed, memory) in (0..60).map(|seed| (seed, [0.7, 0.9, 0.95][seed as usize % 3])) {
            let mut random = fastrand::Rng::with_seed(seed);
            let (mut watch, mut recent, mut last) = (Watch::default(), VecDeque::new(), 0.0);
            for i in 0..2000 {
                last = memory * last + (1.0 - memory) * 0.5 * (random.f64() + random.f64() - 1.0);
                recent.push_back((Some(i), last));
                if recent.len() > 200 {
                    recent.pop_front();
                }
                watch.push(&recent, i + 1);
                looked_like_it += u32::from(watch.hits == 2);
            }
            assert!(watch.confirmed.is_none(), "{seed} {memory}: {:?}", watch.confirmed);
        }
        assert!(looked_like_it > 0, "the first look alone would tell them apart");
    }

    #[test]
    fn a_swing_has_its_period_and_begin() {
        let found =
            watched(|i, noise| 0.2 * noise + if i >= 300 { (i as f64 * 0.7).sin() * 0.3 } else { 0.0 });
        let (first, _, swing) = found.confirmed.expect("swings");
        assert!(first.is_some_and(|s| s.abs_diff(300) <= 6), "{first:?}");
        assert_eq!(swing.period, 9);
    }

    /// Noise of several kinds, trends, levels that jump, wild values and swings that set in: a look is
    /// never ended early where it would have found a swing.
    #[test]
    fn what_swings_passes_the_first_look() {
        let mut random = fastrand::Rng::with_seed(3);
        let (mut found, mut ended) = (0, 0);
        for round in 0..16_000 {
            let n = random.usize(60..=120);
            let (period, phase) = (2.0 + 26.0 * random.f64(), 6.3 * random.f64());
            let (size, from) = (random.f64() * 1.5, random.usize(0..n));
            let (trend, bend, remains) = (random.f64() - 0.5, random.f64() * 3.0, random.f64() * 0.9);
            let (jump, jumps_at) =
                (if round % 3 == 0 { 4.0 * random.f64() } else { 0.0 }, random.usize(0..n));
            let (wild, wide) = (random.usize(0..n), random.usize(0..20));
            let mut last = 0.0;
            let values: Vec<f64> = (0..n)
                .map(|i| {
                    let x = i as f64;
                    let white = random.f64() + random.f64() + random.f64() - 1.5;
                    last = if round % 4 == 0 { remains * last + white } else { white };
                    let swing = if i >= from {
                        size * (x * std::f64::consts::TAU / period + phase).sin()
                    } else {
                        0.0
                    };
                    let far = if round % 5 == 0 && (wild..wild + wide).contains(&i) { 30.0 } else { 0.0 };
                    last + swing
                        + far
                        + trend * x
                        + bend * (-x / 30.0).exp()
                        + if i >= jumps_at { jump } else { 0.0 }
                })
                .collect();
            for times in [1.0, OF_HALF] {
                let passes = may_swing(&values, times);
                let swings = swing(&detrended(&values), times).is_some();
                (found, ended) = (found + u32::from(swings), ended + u32::from(!passes));
                assert!(passes || !swings, "{round} {times}: {values:?}");
            }
        }
        assert!(found > 1_500 && ended > 8_000, "{found} found, {ended} ended early");
    }

    #[test]
    fn noise_trend_and_smoothing_do_not_swing() {
        assert!(watched(|_, noise| noise).confirmed.is_none());
        assert!(watched(|i, noise| 9.0 - (i as f64).sqrt() * 0.3 + noise * 0.1).confirmed.is_none());
        assert!(
            watched(|i, noise| ((i / 40) % 2) as f64 + noise * 0.1).confirmed.is_none(),
            "epochs are no swing"
        );
    }
}
