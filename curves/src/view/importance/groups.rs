//! Groups of runs with like values of one setting, and how much of the spread of
//! the results lies between them.

/// Resamples.
const DRAWS: usize = 1000;
/// Most groups of a setting with numbers.
const MOST: usize = 8;

/// Runs by the group they are in.
#[derive(Debug, Clone)]
pub(super) struct Groups {
    of: Vec<usize>,
    /// What the runs of each have in common.
    names: Vec<String>,
}

impl Groups {
    /// A group for each word.
    pub(super) fn of_words(classes: &[usize], words: &[&str]) -> Self {
        Self { of: classes.to_vec(), names: words.iter().map(|word| (*word).to_owned()).collect() }
    }

    /// A group for each value where there are few and each has several runs, as on
    /// a grid; else groups of about equally many runs next to each other, the root
    /// of their number (Sturges' and Scott's rules give about as many). Equal
    /// values stay together.
    pub(super) fn of_numbers(numbers: &[f64]) -> Self {
        let mut sorted = numbers.to_vec();
        sorted.sort_by(f64::total_cmp);
        let mut values = sorted.clone();
        values.dedup();
        let n = numbers.len();
        let count = (n as f64).sqrt().floor().clamp(3.0, MOST as f64) as usize;
        let few = values.len() <= MOST && n >= 2 * values.len();
        let mut begins: Vec<f64> = if few {
            values
        } else {
            (0..count).filter_map(|group| sorted.get(group * n / count).copied()).collect()
        };
        begins.dedup();
        let of: Vec<usize> = numbers
            .iter()
            .map(|value| begins.iter().filter(|begin| **begin <= *value).count().saturating_sub(1))
            .collect();
        let names = (0..begins.len()).map(|group| {
            let within = || numbers.iter().zip(&of).filter(|(_, of)| **of == group).map(|(value, _)| *value);
            let (low, high) = (within().fold(f64::MAX, f64::min), within().fold(f64::MIN, f64::max));
            if low < high { format!("{low} to {high}") } else { low.to_string() }
        });
        Self { names: names.collect(), of: of.clone() }
    }

    /// Epsilon squared, not below 0. `results` are in the order of the runs.
    pub(super) fn share(&self, results: &[f64]) -> f64 {
        self.share_of(results, &self.of)
    }

    fn share_of(&self, results: &[f64], of: &[usize]) -> f64 {
        let n = results.len() as f64;
        let mean = results.iter().sum::<f64>() / n;
        let mut sums = vec![(0.0, 0.0); self.names.len()];
        let mut all = 0.0;
        for (group, result) in of.iter().zip(results) {
            let off = result - mean;
            all += off * off;
            if let Some(sum) = sums.get_mut(*group) {
                *sum = (sum.0 + off, sum.1 + 1.0);
            }
        }
        let filled = sums.iter().filter(|(_, count)| *count > 0.0);
        let between: f64 = filled.clone().map(|(sum, count)| sum * sum / count).sum();
        let groups = filled.count() as f64;
        if all <= 0.0 || groups < 2.0 || n <= groups {
            return 0.0;
        }
        (1.0 - (1.0 - between / all) * (n - 1.0) / (n - groups)).clamp(0.0, 1.0)
    }

    /// 95 % of the share over runs that are drawn again. Drawing the same runs
    /// several times makes groups look more alike than they are, so that the draws
    /// lie too high on the whole: the interval is theirs turned around what was
    /// seen (Davison and Hinkley's basic bootstrap).
    pub(super) fn interval(&self, results: &[f64], random: &mut fastrand::Rng) -> (f64, f64) {
        let (n, seen) = (results.len(), self.share(results));
        let mut drawn: Vec<f64> = (0..DRAWS)
            .map(|_| {
                let runs: Vec<usize> = (0..n).map(|_| random.usize(..n)).collect();
                let of: Vec<usize> = runs.iter().map(|run| self.of[*run]).collect();
                let again = ranks(&runs.iter().map(|run| results[*run]).collect::<Vec<_>>());
                self.share_of(&again, &of)
            })
            .collect();
        drawn.sort_by(f64::total_cmp);
        let turned = |at: usize| (2.0 * seen - drawn[at]).clamp(0.0, 1.0);
        (turned(DRAWS * 975 / 1000).min(seen), turned(DRAWS * 25 / 1000).max(seen))
    }

    /// What the groups with the smallest and with the largest results have in
    /// common.
    pub(super) fn ends(&self, results: &[f64]) -> Option<(String, String)> {
        let mean = |group: usize| {
            let within =
                self.of.iter().zip(results).filter(|(of, _)| **of == group).map(|(_, result)| *result);
            let (sum, count) = within.fold((0.0, 0.0), |(sum, count), result| (sum + result, count + 1.0));
            (count > 0.0).then_some((group, sum / count))
        };
        let means = || (0..self.names.len()).filter_map(mean);
        let least = means().min_by(|a, b| a.1.total_cmp(&b.1))?.0;
        let most = means().max_by(|a, b| a.1.total_cmp(&b.1))?.0;
        (least != most).then(|| (self.names[least].clone(), self.names[most].clone()))
    }
}

/// Ranks from 0; equal values share the mean of theirs.
pub(super) fn ranks(values: &[f64]) -> Vec<f64> {
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
