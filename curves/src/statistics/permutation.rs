//! Permutation tests of a mean: all permutations where they can be counted,
//! else seeded draws, so that the same numbers give the same p.

/// Most permutations that are counted one by one.
const COUNTED: u64 = 50_000;
/// Draws where there are more.
const DRAWS: u32 = 10_000;
const SEED: u64 = 0x5eed;

/// p of the difference of means, two-sided, and the smallest that is possible.
pub(super) fn unpaired(a: &[f64], b: &[f64]) -> (f64, f64) {
    let all: Vec<f64> = a.iter().chain(b).copied().collect();
    let total: f64 = all.iter().sum();
    let (n, m) = (a.len(), b.len());
    let distance = |sum: f64| ((total - sum) / m as f64 - sum / n as f64).abs();
    let seen = distance(a.iter().sum()) * (1.0 - 1e-12);
    let count = choose(all.len() as u64, n as u64);
    if count <= COUNTED {
        let mut extreme = 0_u64;
        let mut chosen: Vec<usize> = (0..n).collect();
        loop {
            extreme += u64::from(distance(chosen.iter().map(|i| all[*i]).sum()) >= seen);
            if !next(&mut chosen, all.len()) {
                break;
            }
        }
        let floor = if n == m { 2.0 } else { 1.0 } / count as f64;
        return (extreme as f64 / count as f64, floor);
    }
    let mut random = fastrand::Rng::with_seed(SEED);
    let mut shuffled = all;
    let draws = (0..DRAWS).filter(|_| {
        random.shuffle(&mut shuffled);
        distance(shuffled[..n].iter().sum()) >= seen
    });
    ((draws.count() + 1) as f64 / f64::from(DRAWS + 1), 1.0 / f64::from(DRAWS + 1))
}

/// The same for differences of pairs, whose signs are exchanged.
pub(super) fn paired(differences: &[f64]) -> (f64, f64) {
    let n = differences.len();
    let seen = differences.iter().sum::<f64>().abs() * (1.0 - 1e-12);
    if n <= 15 {
        let all = 1_u32 << n;
        let extreme = (0..all).filter(|signs| {
            let sum: f64 =
                differences.iter().enumerate().map(|(i, d)| if signs >> i & 1 == 1 { -d } else { *d }).sum();
            sum.abs() >= seen
        });
        return (extreme.count() as f64 / f64::from(all), 2.0 / f64::from(all));
    }
    let mut random = fastrand::Rng::with_seed(SEED);
    let draws = (0..DRAWS).filter(|_| {
        let sum: f64 = differences.iter().map(|d| if random.bool() { *d } else { -d }).sum();
        sum.abs() >= seen
    });
    ((draws.count() + 1) as f64 / f64::from(DRAWS + 1), 1.0 / f64::from(DRAWS + 1))
}

/// Binomial coefficient, held at the largest number.
fn choose(n: u64, k: u64) -> u64 {
    let k = k.min(n - k);
    (0..k).try_fold(1_u64, |c, i| c.checked_mul(n - i).map(|c| c / (i + 1))).unwrap_or(u64::MAX)
}

/// The next combination of places below `n`, in order; false after the last.
fn next(chosen: &mut [usize], n: usize) -> bool {
    let k = chosen.len();
    let Some(at) = (0..k).rev().find(|i| chosen[*i] < n - k + i) else { return false };
    chosen[at] += 1;
    for i in at + 1..k {
        chosen[i] = chosen[i - 1] + 1;
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_combination_comes_once() {
        let mut chosen = vec![0, 1, 2];
        let mut count = 1;
        while next(&mut chosen, 7) {
            count += 1;
        }
        assert_eq!((count, choose(7, 3)), (35, 35));
        assert_eq!(choose(200, 100), u64::MAX);
    }

    #[test]
    fn the_extreme_arrangement_has_the_smallest_p() {
        assert_eq!(unpaired(&[1.0, 2.0, 3.0], &[10.0, 11.0, 12.0]), (0.1, 0.1));
        assert_eq!(paired(&[1.0, 2.0, 3.0, 4.0]), (0.125, 0.125));
        assert_eq!(unpaired(&[1.0; 4], &[1.0; 4]).0, 1.0);
    }
}
