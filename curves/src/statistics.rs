//! What several runs say together: spread over random seeds, and whether two
//! arms differ.
//!
//! A sample is one number of each run, never the points of one run: points of
//! a run are no independent trials, and a test on them calls two runs of the
//! same configuration different in most cases. With fewer than [`FEWEST`] runs
//! an arm the answer is that it cannot be told.

mod distribution;
mod permutation;

use serde::{Deserialize, Serialize};

use crate::number;

/// Fewest runs of an arm that a test is made with.
pub const FEWEST: usize = 3;

/// The chance of error at which a difference is called one.
pub const ALPHA: f64 = 0.05;

/// One number over several runs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Spread {
    /// Runs whose number is finite.
    pub n: usize,
    /// Runs left out because theirs is not.
    pub left_out: usize,
    /// Their mean.
    #[serde(with = "number")]
    pub mean: f64,
    /// Standard deviation between runs (n - 1); `None` for one run.
    #[serde(with = "number::option")]
    pub sd: Option<f64>,
    /// 95 % interval of the mean by Student's t; `None` below [`FEWEST`] runs.
    pub interval: Option<(f64, f64)>,
    /// The smallest.
    #[serde(with = "number")]
    pub min: f64,
    /// The largest.
    #[serde(with = "number")]
    pub max: f64,
}

/// The spread of `values`; `None` when none is finite.
#[must_use]
pub fn spread(values: &[f64]) -> Option<Spread> {
    let kept: Vec<f64> = values.iter().copied().filter(|v| v.is_finite()).collect();
    if kept.is_empty() {
        return None;
    }
    let n = kept.len();
    let mean = mean(&kept);
    let sd = (n > 1).then(|| variance(&kept).sqrt());
    let half = |sd: f64| distribution::t_quantile(0.975, n as f64 - 1.0) * sd / (n as f64).sqrt();
    let interval = sd.filter(|_| n >= FEWEST).map(|sd| (mean - half(sd), mean + half(sd)));
    let min = kept.iter().copied().fold(f64::MAX, f64::min);
    let max = kept.iter().copied().fold(f64::MIN, f64::max);
    Some(Spread { n, left_out: values.len() - n, mean, sd, interval, min, max })
}

/// Whether two arms differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// More than chance gives, at [`ALPHA`].
    Different,
    /// Not more than chance gives: no proof that they are equal.
    NotDifferent,
    /// Too few runs.
    CannotTell,
}

/// What was found between two arms, `b` less `a`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Difference {
    /// Finite runs of each arm; of pairs, their number twice.
    pub runs: (usize, usize),
    /// Difference of the means.
    #[serde(with = "number")]
    pub difference: f64,
    /// Its 95 % interval (Welch, or paired t).
    pub interval: Option<(f64, f64)>,
    /// p of the t test.
    pub p_t: Option<f64>,
    /// p of the permutation test, exact where all can be counted.
    pub p_permutation: Option<f64>,
    /// Hedges' g, or for pairs the mean difference in deviations of the
    /// differences, with the same correction for small samples.
    pub effect: Option<f64>,
    /// The smallest p that so few runs can give at all.
    pub p_floor: Option<f64>,
    /// What it comes to.
    pub verdict: Verdict,
    /// In words, with the numbers of runs.
    pub text: String,
}

/// Compares two arms of independent runs: Welch's t, and a permutation test of
/// the difference of means. Both must agree for small samples: the verdict
/// takes the larger p of the two, unless so few runs cannot reach [`ALPHA`] by
/// permutation; then Welch alone speaks. Several comparisons with each other
/// lower what permutation has to reach: see [`adjust`].
#[must_use]
pub fn compare(a: &[f64], b: &[f64]) -> Difference {
    let (a, b) = (finite(a), finite(b));
    if a.len() < FEWEST || b.len() < FEWEST {
        return cannot_tell(&a, &b);
    }
    let (n, m) = (a.len() as f64, b.len() as f64);
    let difference = mean(&b) - mean(&a);
    let (va, vb) = (variance(&a) / n, variance(&b) / m);
    let error = (va + vb).sqrt();
    let df = if error > 0.0 {
        (va + vb).powi(2) / (va * va / (n - 1.0) + vb * vb / (m - 1.0))
    } else {
        n + m - 2.0
    };
    let p_t = two_sided(difference, error, df);
    let (p_permutation, p_floor) = permutation::unpaired(&a, &b);
    let pooled = (((n - 1.0) * variance(&a) + (m - 1.0) * variance(&b)) / (n + m - 2.0)).sqrt();
    let effect = (pooled > 0.0).then(|| difference / pooled * (1.0 - 3.0 / (4.0 * (n + m) - 9.0)));
    let half = distribution::t_quantile(0.975, df) * error;
    let interval = Some((difference - half, difference + half));
    finish(&Tested { runs: (a.len(), b.len()), difference, interval, p_t, p_permutation, p_floor, effect })
}

/// Compares pairs of runs, such as those of one random seed each: paired t,
/// and a permutation of signs. Pairs with a value that is not finite are left
/// out.
#[must_use]
pub fn compare_pairs(pairs: &[(f64, f64)]) -> Difference {
    let kept: Vec<f64> = pairs.iter().map(|(a, b)| b - a).filter(|d| d.is_finite()).collect();
    if kept.len() < FEWEST {
        let (a, b): (Vec<f64>, Vec<f64>) = pairs.iter().filter(|(a, b)| (b - a).is_finite()).copied().unzip();
        return cannot_tell(&a, &b);
    }
    let n = kept.len() as f64;
    let difference = mean(&kept);
    let sd = variance(&kept).sqrt();
    let error = sd / n.sqrt();
    let p_t = two_sided(difference, error, n - 1.0);
    let (p_permutation, p_floor) = permutation::paired(&kept);
    let effect = (sd > 0.0).then(|| difference / sd * (1.0 - 3.0 / (4.0 * n - 5.0)));
    let half = distribution::t_quantile(0.975, n - 1.0) * error;
    let interval = Some((difference - half, difference + half));
    let runs = (kept.len(), kept.len());
    finish(&Tested { runs, difference, interval, p_t, p_permutation, p_floor, effect })
}

/// Adjusts the p values of several comparisons for their number (Holm 1979),
/// in the same order: step-down, never above 1.
#[must_use]
pub fn holm(p: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..p.len()).collect();
    order.sort_by(|a, b| p[*a].total_cmp(&p[*b]));
    let mut adjusted = vec![0.0; p.len()];
    let mut highest: f64 = 0.0;
    for (rank, at) in order.into_iter().enumerate() {
        highest = highest.max((p[at] * (p.len() - rank) as f64).min(1.0));
        adjusted[at] = highest;
    }
    adjusted
}

/// Sets the verdicts of several comparisons anew with Holm's adjusted p, and
/// returns these; those that cannot be told stay so and do not count.
///
/// Holm multiplies the smallest p by the number of comparisons. Where the smallest
/// p that permutation can give a comparison does not survive that (four runs
/// against four give 2/70, of three comparisons 0.086), no difference of any size
/// could ever be shown by it: there the t test alone speaks.
pub fn adjust(differences: &mut [Difference]) -> Vec<Option<f64>> {
    let comparisons = differences.iter().filter(|difference| difference.p().is_some()).count();
    let told: Vec<f64> =
        differences.iter().filter_map(|difference| difference.p_among(comparisons)).collect();
    let mut adjusted = holm(&told).into_iter();
    differences
        .iter_mut()
        .map(|difference| {
            difference.p()?;
            let p = adjusted.next()?;
            difference.verdict = if p < ALPHA { Verdict::Different } else { Verdict::NotDifferent };
            difference.text = words(difference, p);
            Some(p)
        })
        .collect()
}

impl Difference {
    /// The p that the verdict of this comparison alone rests on.
    #[must_use]
    pub fn p(&self) -> Option<f64> {
        self.p_among(1)
    }

    /// The p that its verdict rests on as one of so many comparisons, not adjusted.
    fn p_among(&self, comparisons: usize) -> Option<f64> {
        let (t, permutation) = (self.p_t?, self.p_permutation?);
        let reachable = self.p_floor.is_some_and(|floor| floor * (comparisons as f64) < ALPHA);
        Some(if reachable { t.max(permutation) } else { t })
    }
}

struct Tested {
    runs: (usize, usize),
    difference: f64,
    interval: Option<(f64, f64)>,
    p_t: f64,
    p_permutation: f64,
    p_floor: f64,
    effect: Option<f64>,
}

fn finish(tested: &Tested) -> Difference {
    let mut found = Difference {
        runs: tested.runs,
        difference: tested.difference,
        interval: tested.interval,
        p_t: Some(tested.p_t),
        p_permutation: Some(tested.p_permutation),
        effect: tested.effect,
        p_floor: Some(tested.p_floor),
        verdict: Verdict::NotDifferent,
        text: String::new(),
    };
    let p = found.p().unwrap_or(1.0);
    if p < ALPHA {
        found.verdict = Verdict::Different;
    }
    found.text = words(&found, p);
    found
}

fn words(found: &Difference, p: f64) -> String {
    let short = crate::judge::short;
    let (low, high) = found.interval.unwrap_or((f64::NAN, f64::NAN));
    let said = if found.verdict == Verdict::Different { "different" } else { "not shown to be different" };
    format!(
        "{said}: {} (95 % interval {} to {}, p {}, n {} and {})",
        short(found.difference),
        short(low),
        short(high),
        short(p),
        found.runs.0,
        found.runs.1
    )
}

fn cannot_tell(a: &[f64], b: &[f64]) -> Difference {
    let difference = if a.is_empty() || b.is_empty() { f64::NAN } else { mean(b) - mean(a) };
    let text = format!(
        "cannot tell: {} and {} runs, {FEWEST} of each are needed to know the spread between runs",
        a.len(),
        b.len()
    );
    Difference {
        runs: (a.len(), b.len()),
        difference,
        interval: None,
        p_t: None,
        p_permutation: None,
        effect: None,
        p_floor: None,
        verdict: Verdict::CannotTell,
        text,
    }
}

fn two_sided(difference: f64, error: f64, df: f64) -> f64 {
    if error > 0.0 {
        2.0 * distribution::t_upper((difference / error).abs(), df)
    } else {
        f64::from(u8::from(difference == 0.0))
    }
}

fn finite(values: &[f64]) -> Vec<f64> {
    values.iter().copied().filter(|v| v.is_finite()).collect()
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

fn variance(values: &[f64]) -> f64 {
    let centre = mean(values);
    values.iter().map(|v| (v - centre).powi(2)).sum::<f64>() / (values.len() as f64 - 1.0)
}

#[cfg(test)]
mod tests;
