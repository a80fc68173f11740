//! Which settings go with the result, and how sure that is.
//!
//! For a setting with numbers: Spearman's rank correlation. For one with words:
//! the share of the ranks' variance that lies between its values (Kruskal and
//! Wallis' H by n - 1), as a correlation its square root. Both get a percentile
//! interval from resampled runs and a p from permuted results. Runs that were
//! chosen by a search are no independent trials, and settings that change
//! together cannot be told apart: both are said, not mended.

use serde::{Deserialize, Serialize};

use crate::number;
use crate::statistics::holm;

/// Fewest runs: with fewer no order of the results can be told from chance.
pub const FEWEST_RUNS: usize = 6;
/// Resamples and permutations each.
const DRAWS: usize = 1000;
/// The same runs give the same answer.
const SEED: u64 = 0x0b5e;
/// Settings that are looked at.
const MAX_SETTINGS: usize = 100;

/// One setting over the runs.
#[derive(Debug, Clone, PartialEq)]
pub struct Setting {
    /// Its name.
    pub name: String,
    /// Its value in each run, as text; numbers are told by parsing.
    pub values: Vec<String>,
}

/// How a setting goes with the result.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Importance {
    /// The setting.
    pub name: String,
    /// Whether its values are numbers; then the sign says whether more of it goes
    /// with more of the result.
    pub numeric: bool,
    /// How many different values it has.
    pub values: usize,
    /// -1 to 1; for words 0 to 1.
    #[serde(with = "number")]
    pub correlation: f64,
    /// 95 % percentile interval over resampled runs.
    pub interval: (f64, f64),
    /// Chance of as strong a correlation among permuted results.
    pub p: f64,
    /// The same, adjusted for the number of settings (Holm).
    pub p_adjusted: f64,
    /// Settings that change in step with it, so that either may be the cause.
    pub together: Vec<String>,
}

/// The settings that vary, the strongest first; `None` with fewer than
/// [`FEWEST_RUNS`] finite results.
#[must_use]
pub fn importance(settings: &[Setting], results: &[f64]) -> Option<Vec<Importance>> {
    let kept: Vec<usize> = (0..results.len()).filter(|i| results[*i].is_finite()).collect();
    if kept.len() < FEWEST_RUNS {
        return None;
    }
    let results: Vec<f64> = kept.iter().map(|i| results[*i]).collect();
    let mut random = fastrand::Rng::with_seed(SEED);
    let columns: Vec<(&str, Column)> = settings
        .iter()
        .filter(|setting| kept.iter().all(|i| *i < setting.values.len()))
        .map(|setting| {
            let values: Vec<&str> = kept.iter().map(|i| setting.values[*i].as_str()).collect();
            (setting.name.as_str(), Column::of(&values))
        })
        .filter(|(_, column)| column.distinct > 1)
        .take(MAX_SETTINGS)
        .collect();
    let mut found: Vec<Importance> = columns
        .iter()
        .map(|(name, column)| {
            let correlation = column.correlation(&results, None);
            let together = columns
                .iter()
                .filter(|(other, they)| other != name && column.moves_with(they))
                .map(|(other, _)| (*other).to_owned())
                .collect();
            Importance {
                name: (*name).to_owned(),
                numeric: column.numbers.is_some(),
                values: column.distinct,
                correlation,
                interval: column.interval(&results, &mut random),
                p: column.chance(&results, correlation, &mut random),
                p_adjusted: 1.0,
                together,
            }
        })
        .collect();
    let adjusted = holm(&found.iter().map(|one| one.p).collect::<Vec<_>>());
    found.iter_mut().zip(adjusted).for_each(|(one, p)| one.p_adjusted = p);
    found.sort_by(|a, b| b.correlation.abs().total_cmp(&a.correlation.abs()));
    Some(found)
}

struct Column {
    numbers: Option<Vec<f64>>,
    classes: Vec<usize>,
    distinct: usize,
}

impl Column {
    fn of(values: &[&str]) -> Self {
        let mut seen: Vec<&str> = Vec::new();
        let classes = values
            .iter()
            .map(|value| {
                seen.iter().position(|known| known == value).unwrap_or_else(|| {
                    seen.push(value);
                    seen.len() - 1
                })
            })
            .collect();
        let numbers: Option<Vec<f64>> =
            values.iter().map(|value| value.parse().ok().filter(|v: &f64| v.is_finite())).collect();
        Self { numbers, classes, distinct: seen.len() }
    }

    /// Whether the runs cannot tell one from the other.
    fn moves_with(&self, other: &Self) -> bool {
        match (&self.numbers, &other.numbers) {
            (Some(a), Some(b)) => pearson(&ranks(a), &ranks(b)).abs() > 0.95,
            _ => self.classes == other.classes && self.distinct < self.classes.len(),
        }
    }

    /// Over all runs, or over those that were drawn.
    fn correlation(&self, results: &[f64], drawn: Option<&[usize]>) -> f64 {
        let all: Vec<usize>;
        let drawn = if let Some(drawn) = drawn {
            drawn
        } else {
            all = (0..results.len()).collect();
            &all
        };
        let y = ranks(&drawn.iter().map(|i| results[*i]).collect::<Vec<_>>());
        match &self.numbers {
            Some(numbers) => pearson(&ranks(&drawn.iter().map(|i| numbers[*i]).collect::<Vec<_>>()), &y),
            None => between(&drawn.iter().map(|i| self.classes[*i]).collect::<Vec<_>>(), self.distinct, &y),
        }
    }

    fn interval(&self, results: &[f64], random: &mut fastrand::Rng) -> (f64, f64) {
        let n = results.len();
        let mut drawn: Vec<f64> = (0..DRAWS)
            .map(|_| {
                let runs: Vec<usize> = (0..n).map(|_| random.usize(..n)).collect();
                self.correlation(results, Some(&runs))
            })
            .collect();
        drawn.sort_by(f64::total_cmp);
        (drawn[DRAWS * 25 / 1000], drawn[DRAWS * 975 / 1000])
    }

    fn chance(&self, results: &[f64], seen: f64, random: &mut fastrand::Rng) -> f64 {
        let mut shuffled = results.to_vec();
        let extreme = (0..DRAWS).filter(|_| {
            random.shuffle(&mut shuffled);
            self.correlation(&shuffled, None).abs() >= seen.abs() - 1e-12
        });
        (extreme.count() + 1) as f64 / (DRAWS + 1) as f64
    }
}

/// Ranks from 0; equal values share the mean of theirs.
fn ranks(values: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|a, b| values[*a].total_cmp(&values[*b]));
    let mut ranks = vec![0.0; values.len()];
    let mut from = 0;
    while from < order.len() {
        let alike = order[from..].iter().take_while(|i| values[**i] == values[order[from]]).count().max(1);
        let rank = from as f64 + (alike - 1) as f64 / 2.0;
        order[from..from + alike].iter().for_each(|i| ranks[*i] = rank);
        from += alike;
    }
    ranks
}

fn pearson(x: &[f64], y: &[f64]) -> f64 {
    let n = x.len() as f64;
    let (mx, my) = (x.iter().sum::<f64>() / n, y.iter().sum::<f64>() / n);
    let sum = |f: &dyn Fn(f64, f64) -> f64| x.iter().zip(y).map(|(x, y)| f(x - mx, y - my)).sum::<f64>();
    let (xy, xx, yy) = (sum(&|x, y| x * y), sum(&|x, _| x * x), sum(&|_, y| y * y));
    if xx > 0.0 && yy > 0.0 { (xy / (xx * yy).sqrt()).clamp(-1.0, 1.0) } else { 0.0 }
}

fn between(classes: &[usize], count: usize, y: &[f64]) -> f64 {
    let mean = y.iter().sum::<f64>() / y.len() as f64;
    let mut sums = vec![(0.0, 0.0); count];
    for (class, y) in classes.iter().zip(y) {
        sums[*class].0 += y - mean;
        sums[*class].1 += 1.0;
    }
    let all: f64 = y.iter().map(|y| (y - mean).powi(2)).sum();
    let inside: f64 = sums.iter().filter(|(_, n)| *n > 0.0).map(|(sum, n)| sum * sum / n).sum();
    if all > 0.0 { (inside / all).clamp(0.0, 1.0).sqrt() } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn setting(name: &str, values: impl IntoIterator<Item = String>) -> Setting {
        Setting { name: name.into(), values: values.into_iter().collect() }
    }

    #[test]
    fn what_moves_the_result_comes_first_and_the_rest_is_chance() {
        let mut random = fastrand::Rng::with_seed(4);
        let runs = 24;
        let rates: Vec<f64> = (0..runs).map(|_| random.f64()).collect();
        let results: Vec<f64> = rates.iter().map(|rate| -rate + 0.1 * random.f64()).collect();
        let settings = [
            setting("noise", (0..runs).map(|_| random.u32(..1000).to_string())),
            setting("lr", rates.iter().map(ToString::to_string)),
            setting("copy", rates.iter().map(ToString::to_string)),
            setting("same", (0..runs).map(|_| "1".into())),
            setting("kind", (0..runs).map(|_| if random.bool() { "a".into() } else { "b".into() })),
        ];
        let found = importance(&settings, &results).expect("enough runs");
        let names: Vec<&str> = found.iter().map(|one| one.name.as_str()).collect();
        assert!(names[..2].contains(&"lr") && names[..2].contains(&"copy") && names.len() == 4, "{names:?}");
        assert!(found[0].correlation < -0.9 && found[0].p_adjusted < 0.05 && found[0].interval.1 < -0.7);
        assert_eq!(found[0].together.len(), 1);
        let kind = found.iter().find(|one| one.name == "kind").expect("it varies");
        assert!(
            !kind.numeric && (0.0..=1.0).contains(&kind.correlation) && kind.p_adjusted > 0.05,
            "{kind:?}"
        );
        assert_eq!(importance(&settings, &results[..5]), None);
    }

    #[test]
    fn chance_alone_is_seldom_called_important() {
        let mut random = fastrand::Rng::with_seed(9);
        let wrong = (0..100).filter(|_| {
            let results: Vec<f64> = (0..8).map(|_| random.f64()).collect();
            let values = (0..8).map(|_| random.f64().to_string()).collect::<Vec<_>>();
            let found = importance(&[setting("x", values)], &results).expect("eight runs");
            found[0].p_adjusted < 0.05
        });
        assert!(wrong.count() <= 12);
    }
}
