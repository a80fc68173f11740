//! Losses that swing with a period of a few points: the autocorrelation of the
//! newest points falls below zero at half a period and comes back at a whole.
//!
//! Noise has neither; a trend, a spike or smoothing has no return.

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
        let away = detrended(&values);
        let half = values.len().saturating_sub(LOOKED_AT / 2);
        let found = swing(&away, 1.0).or_else(|| {
            let half = (half > 0).then(|| detrended(&values[half..]))?;
            swing(&half, OF_HALF)
        });
        let Some(swing) = found else {
            self.misses += 1;
            if self.misses > QUIET {
                (self.first, self.hits) = (None, 0);
            }
            return;
        };
        if self.first.is_none() {
            self.first = Some(newest[began(&away)].0);
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
                    let first = set_in(&points, now.2.period).map_or(now.0, |at| recent[at].0);
                    self.confirmed = Some((first, now.1, now.2));
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
    let flat: Vec<f64> = values.iter().enumerate().map(|(i, v)| v - slope * i as f64).collect();
    let centre = fit::median_of(&flat);
    let mut size: Vec<f64> = flat.iter().map(|v| (v - centre).abs()).collect();
    let bound = 4.0 * 1.4826 * fit::median(&mut size).unwrap_or(0.0);
    flat.into_iter().map(|v| (v - centre).clamp(-bound, bound)).collect()
}

/// `times` is what is asked of the correlation, as a multiple.
fn swing(away: &[f64], times: f64) -> Option<Swing> {
    let mean = away.iter().sum::<f64>() / away.len() as f64;
    let variance: f64 = away.iter().map(|v| (v - mean).powi(2)).sum();
    let size = (variance / away.len() as f64).sqrt();
    if size < LEAST {
        return None;
    }
    let longest = LONGEST.min(away.len() * 5 / 12);
    let correlation: Vec<f64> = (0..=longest)
        .map(|lag| {
            let sum: f64 = away.iter().zip(&away[lag..]).map(|(a, b)| (a - mean) * (b - mean)).sum();
            sum / variance * away.len() as f64 / (away.len() - lag) as f64
        })
        .collect();
    let (period, best) = (2..=longest).map(|k| (k, correlation[k])).max_by(|a, b| a.1.total_cmp(&b.1))?;
    let trough = correlation[period / 2].min(correlation[period.div_ceil(2)]);
    (best >= RETURN * times && trough <= TROUGH * times).then_some(Swing { period, correlation: best, size })
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

    #[test]
    fn a_swing_has_its_period_and_begin() {
        let found =
            watched(|i, noise| 0.2 * noise + if i >= 300 { (i as f64 * 0.7).sin() * 0.3 } else { 0.0 });
        let (first, _, swing) = found.confirmed.expect("swings");
        assert!(first.is_some_and(|s| s.abs_diff(300) <= 6), "{first:?}");
        assert_eq!(swing.period, 9);
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
