//! Recordings that nobody made: zones whose spans are as heavy tailed as
//! published statistics of recorded ones (docs/economics.md). For trying things
//! out; claims rest on real recordings.

use super::Zone;

/// Median of the time up, in hours, between these over all zones.
const MEDIAN_UP: (f64, f64) = (0.3, 1.4);
/// Mean of the time up, in hours, between these.
const MEAN_UP: (f64, f64) = (1.0, 10.0);
/// Mean of the time down, in hours, between these.
const MEAN_DOWN: (f64, f64) = (0.5, 3.5);
/// Moments are whole minutes, as a probe would see them.
const TICK_MS: u64 = 60_000;

/// Makes `zones` zones over so many days. The same seed makes the same.
#[must_use]
pub fn generate(zones: u32, days: f64, seed: u64) -> Vec<Zone> {
    let mut chance = fastrand::Rng::with_seed(seed);
    let end_ms = ((days * 86_400_000.0) as u64 / TICK_MS).max(1) * TICK_MS;
    (1..=zones).map(|number| zone(&format!("zone-{number}"), end_ms, &mut chance.fork())).collect()
}

fn zone(name: &str, end_ms: u64, chance: &mut fastrand::Rng) -> Zone {
    let median = between(MEDIAN_UP, chance);
    // Where half of all spans are short, the mean is a few times the median.
    let mean = between(MEAN_UP, chance).clamp(median * 1.5, median * 9.0);
    let down = between(MEAN_DOWN, chance);
    let up = LogNormal::new(median, mean);
    let gone = LogNormal::new(down / 2.5, down);
    let mut is_up = chance.f64() < mean / (mean + down);
    let (mut changes, mut at) = (Vec::new(), 0);
    while at < end_ms {
        changes.push((at, is_up));
        let hours = if is_up { up.draw(chance) } else { gone.draw(chance) };
        let ticks = (hours * 3_600_000.0 / TICK_MS as f64).clamp(1.0, 1e6) as u64;
        at += ticks * TICK_MS;
        is_up = !is_up;
    }
    Zone::from_changes(name, changes, end_ms)
}

/// Between two bounds, evenly in the logarithm.
fn between((least, most): (f64, f64), chance: &mut fastrand::Rng) -> f64 {
    least * (most / least).powf(chance.f64())
}

/// A heavy tail with a median and a mean.
struct LogNormal {
    median: f64,
    sigma: f64,
}

impl LogNormal {
    fn new(median: f64, mean: f64) -> Self {
        Self { median, sigma: (2.0 * (mean / median).max(1.0).ln()).sqrt() }
    }

    fn draw(&self, chance: &mut fastrand::Rng) -> f64 {
        // Box and Muller; the logarithm of nothing is avoided.
        let (a, b) = (1.0 - chance.f64(), chance.f64());
        let normal = (-2.0 * a.ln()).sqrt() * (std::f64::consts::TAU * b).cos();
        self.median * (self.sigma * normal).exp()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_as_heavy_tailed_as_recorded_ones() {
        let mut within = 0;
        let zones = generate(40, 45.0, 7);
        for zone in &zones {
            let mut hours: Vec<f64> =
                zone.up().iter().map(|(from, to)| (to - from) as f64 / 3_600_000.0).collect();
            hours.sort_by(f64::total_cmp);
            let median = hours[hours.len() / 2];
            let mean = hours.iter().sum::<f64>() / hours.len() as f64;
            assert!(mean > median, "{}: no tail", zone.name());
            // A few dozen draws of a heavy tail stray far from its mean.
            within += usize::from((0.2..2.0).contains(&median) && (0.7..13.0).contains(&mean));
        }
        assert!(within >= 36, "{within} of 40 zones are like recorded ones");
    }

    #[test]
    fn a_seed_makes_the_same_zones_and_another_seed_others() {
        assert_eq!(generate(3, 5.0, 1), generate(3, 5.0, 1));
        assert_ne!(generate(3, 5.0, 1), generate(3, 5.0, 2));
        assert_eq!(generate(2, 5.0, 1)[0], generate(3, 5.0, 1)[0], "a zone more changes no other");
    }
}
