//! Which settings go with the result, and how sure that is.
//!
//! Results count by their ranks, so that one run that diverged does not decide.
//! Two things are looked for. The share of the ranks' variance that lies between
//! groups of runs with like values of a setting (Kruskal and Wallis' H by n - 1,
//! lessened by what chance alone would give: Kelley's epsilon squared) sees an
//! effect of any shape, such as an optimum in the middle. For settings with
//! numbers Spearman's rank correlation sees a straight one with fewer runs. Both
//! get an interval from resampled runs, and together one p: the chance that
//! permuted results give as much of either. Below [`GROUPED`] runs groups are too
//! small to say anything, and numbers have the correlation alone.
//!
//! A setting is looked at by itself: what only matters together with another is
//! not seen. Runs that were chosen by a search are no independent trials, and
//! settings that change together cannot be told apart: both are said, not mended.

mod groups;

use serde::{Deserialize, Serialize};

use crate::number;
use crate::statistics::holm;
use groups::{Groups, ranks};

/// Fewest runs: with fewer no order of the results can be told from chance.
pub const FEWEST_RUNS: usize = 6;
/// Fewest runs that groups are made of.
pub const GROUPED: usize = 10;
/// Resamples, and fewest permutations where the work allows them.
const DRAWS: usize = 1000;
/// Permutations times runs times settings, which bounds the time to seconds.
const WORK: usize = 100_000_000;
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
    /// Whether its values are numbers; then the sign of the correlation says
    /// whether more of it goes with more of the result.
    pub numeric: bool,
    /// How many different values it has.
    pub values: usize,
    /// Share of the variance of the results' ranks that lies between its values,
    /// 0 to 1; `None` below [`GROUPED`] runs of a setting with numbers.
    pub share: Option<f64>,
    /// Its 95 % interval over resampled runs.
    pub share_interval: Option<(f64, f64)>,
    /// Spearman's rank correlation, -1 to 1; for words the root of the share.
    #[serde(with = "number")]
    pub correlation: f64,
    /// 95 % percentile interval over resampled runs.
    pub interval: (f64, f64),
    /// The values with the smallest and with the largest results.
    pub ends: Option<(String, String)>,
    /// Chance of as much of either among permuted results.
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
    let results = ranks(&kept.iter().map(|i| results[*i]).collect::<Vec<_>>());
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
    // A p that is to stay small after Holm's correction needs more permutations.
    let most = WORK / (results.len() * columns.len().max(1));
    let draws = (40 * columns.len()).max(DRAWS).min(most).max(200);
    let mut found: Vec<Importance> = columns
        .iter()
        .map(|(name, column)| {
            let together = columns
                .iter()
                .filter(|(other, they)| other != name && column.moves_with(they))
                .map(|(other, _)| (*other).to_owned())
                .collect();
            let share = column.groups.as_ref().map(|groups| groups.share(&results));
            Importance {
                name: (*name).to_owned(),
                numeric: column.numbers.is_some(),
                values: column.distinct,
                share,
                share_interval: column.groups.as_ref().map(|groups| groups.interval(&results, &mut random)),
                correlation: column.correlation(&results),
                interval: column.interval(&results, &mut random),
                ends: column.groups.as_ref().and_then(|groups| groups.ends(&results)),
                p: column.chance(&results, draws, &mut random),
                p_adjusted: 1.0,
                together,
            }
        })
        .collect();
    let adjusted = holm(&found.iter().map(|one| one.p).collect::<Vec<_>>());
    found.iter_mut().zip(adjusted).for_each(|(one, p)| one.p_adjusted = p);
    let strength = |one: &Importance| one.share.unwrap_or(0.0).max(one.correlation.powi(2));
    found.sort_by(|a, b| a.p.total_cmp(&b.p).then(strength(b).total_cmp(&strength(a))));
    Some(found)
}

struct Column {
    /// Ranks of its values, where they are numbers.
    numbers: Option<Vec<f64>>,
    classes: Vec<usize>,
    groups: Option<Groups>,
    distinct: usize,
}

impl Column {
    fn of(values: &[&str]) -> Self {
        let mut seen: Vec<&str> = Vec::new();
        let classes: Vec<usize> = values
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
        let groups = match &numbers {
            Some(numbers) => (numbers.len() >= GROUPED).then(|| Groups::of_numbers(numbers)),
            None => Some(Groups::of_words(&classes, &seen)),
        };
        Self { numbers: numbers.map(|numbers| ranks(&numbers)), classes, groups, distinct: seen.len() }
    }

    /// Whether the runs cannot tell one from the other.
    fn moves_with(&self, other: &Self) -> bool {
        match (&self.numbers, &other.numbers) {
            (Some(a), Some(b)) => pearson(a, b).abs() > 0.95,
            _ => self.classes == other.classes && self.distinct < self.classes.len(),
        }
    }

    fn correlation(&self, results: &[f64]) -> f64 {
        match (&self.numbers, &self.groups) {
            (Some(numbers), _) => pearson(numbers, results),
            (None, Some(groups)) => groups.share(results).sqrt(),
            (None, None) => 0.0,
        }
    }

    fn interval(&self, results: &[f64], random: &mut fastrand::Rng) -> (f64, f64) {
        let Some(numbers) = &self.numbers else {
            let interval = self.groups.as_ref().map(|groups| groups.interval(results, random));
            return interval.map_or((0.0, 1.0), |(low, high)| (low.sqrt(), high.sqrt()));
        };
        let n = results.len();
        let mut drawn: Vec<f64> = (0..DRAWS)
            .map(|_| {
                let runs: Vec<usize> = (0..n).map(|_| random.usize(..n)).collect();
                let of = |all: &[f64]| ranks(&runs.iter().map(|i| all[*i]).collect::<Vec<_>>());
                pearson(&of(numbers), &of(results))
            })
            .collect();
        drawn.sort_by(f64::total_cmp);
        (drawn[DRAWS * 25 / 1000], drawn[DRAWS * 975 / 1000])
    }

    /// As much as the setting explains, one way or the other.
    fn explained(&self, results: &[f64]) -> f64 {
        let straight = self.numbers.as_ref().map_or(0.0, |numbers| pearson(numbers, results).powi(2));
        self.groups.as_ref().map_or(0.0, |groups| groups.share(results)).max(straight)
    }

    fn chance(&self, results: &[f64], draws: usize, random: &mut fastrand::Rng) -> f64 {
        let seen = self.explained(results);
        let mut shuffled = results.to_vec();
        let extreme = (0..draws).filter(|_| {
            random.shuffle(&mut shuffled);
            self.explained(&shuffled) >= seen - 1e-12
        });
        (extreme.count() + 1) as f64 / (draws + 1) as f64
    }
}

fn pearson(x: &[f64], y: &[f64]) -> f64 {
    let n = x.len() as f64;
    let (mx, my) = (x.iter().sum::<f64>() / n, y.iter().sum::<f64>() / n);
    let (mut xy, mut xx, mut yy) = (0.0, 0.0, 0.0);
    for (x, y) in x.iter().zip(y) {
        let (x, y) = (x - mx, y - my);
        (xy, xx, yy) = (xy + x * y, xx + x * x, yy + y * y);
    }
    if xx > 0.0 && yy > 0.0 { (xy / (xx * yy).sqrt()).clamp(-1.0, 1.0) } else { 0.0 }
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
    fn an_optimum_in_the_middle_is_seen_although_nothing_goes_straight() {
        let mut random = fastrand::Rng::with_seed(2);
        let rates: Vec<f64> = (0..24).map(|run| f64::from(run % 12) / 11.0).collect();
        let results: Vec<f64> = rates.iter().map(|rate| (rate - 0.5).powi(2) + 0.02 * random.f64()).collect();
        let other = setting("other", (0..24).map(|_| random.f64().to_string()));
        let found = importance(&[other, setting("lr", rates.iter().map(ToString::to_string))], &results)
            .expect("enough runs");
        let lr = &found[0];
        assert_eq!(lr.name, "lr", "{found:?}");
        assert!(lr.correlation.abs() < 0.2 && lr.p_adjusted < 0.01, "{lr:?}");
        let (share, interval) = (lr.share.expect("groups"), lr.share_interval.expect("groups"));
        assert!(share > 0.5 && interval.0 > 0.2 && interval.0 <= share && share <= interval.1, "{lr:?}");
        let (least, _) = lr.ends.clone().expect("groups");
        let ends: Vec<f64> = least.split(" to ").filter_map(|end| end.parse().ok()).collect();
        assert!(ends.iter().all(|end| (0.25..0.75).contains(end)), "{least}");
        assert!(found[1].p_adjusted > 0.05, "{:?}", found[1]);
        // Below ten runs there is nothing but the correlation.
        let few = importance(&[setting("lr", rates[..9].iter().map(ToString::to_string))], &results[..9]);
        assert_eq!(few.expect("nine runs")[0].share, None);
    }

    #[test]
    fn two_settings_at_once_are_told_from_a_third() {
        let mut random = fastrand::Rng::with_seed(7);
        let values = |random: &mut fastrand::Rng| (0..60).map(|_| random.f64()).collect::<Vec<f64>>();
        let (lr, decay, none) = (values(&mut random), values(&mut random), values(&mut random));
        let kinds: Vec<&str> = (0..60).map(|i| ["a", "b", "c"][i % 3]).collect();
        let results: Vec<f64> = (0..60)
            .map(|i| {
                let kind = if kinds[i] == "b" { 0.3 } else { 0.0 };
                3.0 * (lr[i] - 0.5).powi(2) + 0.6 * decay[i] + kind + 0.1 * random.f64()
            })
            .collect();
        let texts = |all: &[f64]| all.iter().map(ToString::to_string).collect::<Vec<_>>();
        let found = importance(
            &[
                setting("none", texts(&none)),
                setting("lr", texts(&lr)),
                setting("decay", texts(&decay)),
                setting("kind", kinds.iter().map(|kind| (*kind).to_owned())),
            ],
            &results,
        )
        .expect("enough runs");
        let sure: Vec<&str> =
            found.iter().filter(|one| one.p_adjusted < 0.05).map(|one| one.name.as_str()).collect();
        assert!(sure.contains(&"lr") && sure.contains(&"decay") && sure.contains(&"kind"), "{found:?}");
        assert!(!sure.contains(&"none"), "{found:?}");
    }

    #[test]
    fn chance_alone_is_seldom_called_important() {
        let mut random = fastrand::Rng::with_seed(9);
        for (runs, kinds) in [(8, 0), (12, 0), (24, 0), (24, 4), (40, 0)] {
            let wrong = (0..100).filter(|_| {
                let results: Vec<f64> = (0..runs).map(|_| random.f64()).collect();
                let value = |random: &mut fastrand::Rng| match kinds {
                    0 => random.f64().to_string(),
                    kinds => format!("kind{}", random.u32(..kinds)),
                };
                let values = (0..runs).map(|_| value(&mut random)).collect::<Vec<_>>();
                let found = importance(&[setting("x", values)], &results).expect("enough runs");
                found.first().is_some_and(|one| one.p_adjusted < 0.05)
            });
            // Five are expected; more than eleven come once in a hundred times.
            assert!(wrong.count() <= 11, "{runs} runs, {kinds} kinds");
        }
    }
}
