//! Whether a swing stands out of noise that remembers.
//!
//! A loss that was smoothed before it was logged, or whose batches are alike, wanders: over a
//! hundred points its autocorrelation falls below zero and comes back by chance, as that of a
//! swing does. What it has not is power at one frequency beyond what noise of its own memory has
//! there. So the best sine is taken out, first-order autoregressive noise is fitted to what is
//! left, and the sine's power is held against that noise's spectrum at its frequency.

use super::{LONGEST, detrended};

/// Times the noise's power that a swing must have. Of 240 healthy curves of 2,000 points with a memory
/// of 0.5 to 0.98 one look was above 40 and none above 50; of swings of 2.5 to 4 deviations that began
/// within 300 points nine in ten were above 100.
const STANDS_OUT: f64 = 45.0;
/// Frequencies that are tried, from one in a little more than the longest period to one in two points.
const FREQUENCIES: usize = 120;
/// Fewest values that are looked at.
const FEWEST: usize = 40;

/// Whether the values from `from` on, or the newest where these are too few, swing beyond what noise
/// of their own memory would.
pub(super) fn stands_out(values: &[f64], from: usize) -> bool {
    let from = from.min(values.len().saturating_sub(FEWEST));
    power(&detrended(&values[from..])) >= STANDS_OUT
}

/// The power of the best sine over that of first-order autoregressive noise at its frequency; about 1 on
/// average for a frequency that was not chosen.
fn power(away: &[f64]) -> f64 {
    let mean = away.iter().sum::<f64>() / away.len().max(1) as f64;
    let away: Vec<f64> = away.iter().map(|v| v - mean).collect();
    let (lowest, highest) = (1.0 / (LONGEST as f64 * 1.1), 0.5);
    let step = (highest - lowest) / (FREQUENCIES - 1) as f64;
    let turn = |place: f64| std::f64::consts::TAU * (lowest + step * place);
    let best = |places: &mut dyn Iterator<Item = f64>| {
        let fits = places.filter_map(|place| Some((place, Fit::of(&away, turn(place))?)));
        fits.max_by(|a, b| a.1.explained.total_cmp(&b.1.explained))
    };
    let Some((near, _)) = best(&mut (0..FREQUENCIES).map(|i| i as f64)) else { return 0.0 };
    let finer =
        (-4..=4).map(|quarter| (near + f64::from(quarter) / 4.0).clamp(0.0, (FREQUENCIES - 1) as f64));
    let Some((place, fit)) = best(&mut finer.into_iter()) else { return 0.0 };
    let left: Vec<f64> = away.iter().enumerate().map(|(i, v)| v - fit.at(i)).collect();
    let all: f64 = left.iter().map(|v| v * v).sum();
    let after: f64 = left.windows(2).map(|w| w[0] * w[1]).sum();
    let memory = (after / all.max(f64::MIN_POSITIVE)).clamp(0.0, 0.99);
    let new: f64 = left.windows(2).map(|w| (w[1] - memory * w[0]).powi(2)).sum();
    let each = new / (left.len().max(2) - 1) as f64;
    let spectrum = each / (1.0 + memory * memory - 2.0 * memory * turn(place).cos());
    // A clean sine leaves nothing.
    fit.explained / 2.0 / spectrum.max(1e-9 * fit.explained).max(f64::MIN_POSITIVE)
}

/// A sine fitted by least squares.
struct Fit {
    turn: f64,
    sin: f64,
    cos: f64,
    explained: f64,
}

impl Fit {
    fn of(values: &[f64], turn: f64) -> Option<Self> {
        let [mut ss, mut cc, mut sc, mut sy, mut cy] = [0.0_f64; 5];
        for (i, y) in values.iter().enumerate() {
            let (s, c) = (turn * i as f64).sin_cos();
            (ss, cc, sc) = (ss + s * s, cc + c * c, sc + s * c);
            (sy, cy) = (sy + s * y, cy + c * y);
        }
        let det = ss * cc - sc * sc;
        if det < 1e-9 {
            // One value in two: the sine is nothing at all of them.
            return (cc > 1e-9).then(|| Self { turn, sin: 0.0, cos: cy / cc, explained: cy * cy / cc });
        }
        let (sin, cos) = ((sy * cc - cy * sc) / det, (cy * ss - sy * sc) / det);
        Some(Self { turn, sin, cos, explained: sin * sy + cos * cy })
    }

    fn at(&self, i: usize) -> f64 {
        let (s, c) = (self.turn * i as f64).sin_cos();
        self.sin * s + self.cos * c
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Noise that keeps a share of what it was.
    fn remembers(memory: f64, seed: u64, n: usize) -> Vec<f64> {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut last = 0.0;
        let mut next = || {
            last = memory * last + (0..12).map(|_| random.f64()).sum::<f64>() - 6.0;
            last
        };
        (0..n + 100).map(|_| next()).skip(100).collect()
    }

    #[test]
    fn a_swing_stands_out_of_its_noise_and_memory_alone_does_not() {
        for seed in 0..20 {
            for memory in [0.0, 0.5, 0.9, 0.98] {
                let noise = remembers(memory, seed, 200);
                assert!(power(&noise) < STANDS_OUT, "{memory} {seed}: {}", power(&noise));
            }
            for period in [2.0, 3.0, 4.5, 9.0, 17.0, 29.0] {
                let noise = remembers(0.0, seed, 120);
                let swings: Vec<f64> = (0..120)
                    .map(|i| noise[i] + 2.5 * (i as f64 * std::f64::consts::TAU / period + 0.8).sin())
                    .collect();
                assert!(stands_out(&swings, 0), "{period} {seed}: {}", power(&swings));
            }
        }
        let clean: Vec<f64> = (0..60).map(|i| (f64::from(i) * 0.7).sin()).collect();
        assert!(stands_out(&clean, 0) && power(&clean).is_finite());
        assert!(power(&[0.0; 60]).is_finite() && !stands_out(&[0.0; 60], 0) && power(&[]) == 0.0);
    }
}
