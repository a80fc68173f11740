//! Which ranks leave the others, and since when. A rank that diverges late stays
//! near the others in most of the run: what counts is its worst tenth, not its
//! median over all steps. It never names a rank where no majority is left to
//! say who is right: of two ranks neither leaves the other.

/// Fewest shared steps, and fewest of a stretch.
const FEWEST: usize = 5;
/// A stretch that counts is this much farther away than ranks are from each
/// other in the median. The median of five values of white noise is beyond that
/// in less than one of 100,000 stretches.
const BEYOND: f64 = 4.0;
/// Distances below this share of the values are rounding.
const ROUNDING: f64 = 1e-6;

/// A rank that stands apart from the others.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Leaving {
    /// Which, by its place in what was given.
    pub(super) rank: usize,
    /// Median distance from the median of all ranks in its worst stretch.
    pub(super) distance: f64,
    /// The step at which it begins.
    pub(super) from: u64,
    /// The step at which it is over; `None`: it is not.
    pub(super) to: Option<u64>,
}

/// The ranks that leave the others, the farthest first. `rows` are shared steps
/// in order, each with the finite values of all ranks.
pub(super) fn leaving(rows: &[(u64, Vec<f64>)]) -> Vec<Leaving> {
    let ranks = rows.first().map_or(0, |row| row.1.len());
    if ranks < 3 || rows.len() < FEWEST {
        return Vec::new();
    }
    let middles: Vec<f64> = rows.iter().map(|(_, values)| median(values.clone())).collect();
    let of_rank = |rank: usize| -> Vec<f64> {
        let values = rows.iter().map(|(_, values)| values.get(rank).copied().unwrap_or(0.0));
        values.zip(&middles).map(|(value, middle)| (value - middle).abs()).collect()
    };
    let off: Vec<Vec<f64>> = (0..ranks).map(of_rank).collect();
    let usual = median(off.iter().flatten().copied().collect());
    let level = median(rows.iter().flat_map(|(_, values)| values).map(|value| value.abs()).collect());
    let least = (BEYOND * usual).max(ROUNDING * level);
    let length = (rows.len() / 10).max(FEWEST);
    let worst = |off: &Vec<f64>| {
        let stretches = off.windows(length).step_by((length / 4).max(1)).enumerate();
        let stretches = stretches.map(|(at, stretch)| (at * (length / 4).max(1), median(stretch.to_vec())));
        stretches
            .chain([(off.len() - length, median(off[off.len() - length..].to_vec()))])
            .max_by(|a, b| a.1.total_cmp(&b.1))
    };
    let mut found: Vec<Leaving> = off
        .iter()
        .enumerate()
        .filter_map(|(rank, off)| {
            let (at, distance) = worst(off).filter(|(_, distance)| *distance > least)?;
            let (from, to) = stretch(off, at, length, distance / 2.0);
            let step = |at: usize| rows.get(at).map(|row| row.0);
            Some(Leaving { rank, distance, from: step(from)?, to: step(to) })
        })
        .collect();
    found.sort_by(|a, b| b.distance.total_cmp(&a.distance));
    let most = found.first().map_or(0.0, |first| first.distance);
    found.retain(|one| one.distance >= most / 2.0);
    if found.len() * 2 >= ranks { Vec::new() } else { found }
}

/// Where the stretch that a window lies in begins, and where what comes after it
/// does: it goes on as long as no two values in a row are below `least`.
fn stretch(off: &[f64], at: usize, length: usize, least: f64) -> (usize, usize) {
    let far = |at: usize| off.get(at).is_some_and(|off| *off > least);
    let mut from = (at..at + length).find(|at| far(*at)).unwrap_or(at);
    while from > 0 && (far(from - 1) || from > 1 && far(from - 2)) {
        from -= if far(from - 1) { 1 } else { 2 };
    }
    let mut to = from + 1;
    while far(to) || far(to + 1) {
        to += 1;
    }
    (from, to)
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let half = values.len() / 2;
    match (values.get(half), half.checked_sub(1).and_then(|before| values.get(before))) {
        (Some(high), Some(low)) if values.len().is_multiple_of(2) => low + (high - low) / 2.0,
        (Some(middle), _) => *middle,
        (None, _) => 0.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 300 steps of four ranks with noise, and what is added to single ranks.
    fn rows(added: impl Fn(usize, u64) -> f64) -> Vec<(u64, Vec<f64>)> {
        let mut random = fastrand::Rng::with_seed(9);
        (0..300)
            .map(|step| {
                let noise = |rank| 0.02 * (random.f64() + random.f64() - 1.0) + added(rank, step);
                (step, (0..4).map(noise).map(|off| 2.0 / (1.0 + step as f64 / 50.0) + off).collect())
            })
            .collect()
    }

    #[test]
    fn a_rank_that_leaves_late_is_named_with_the_step() {
        let found = leaving(&rows(|rank, step| if rank == 3 && step >= 200 { 0.8 } else { 0.0 }));
        let [Leaving { rank: 3, distance, from: 200, to: None }] = found[..] else { panic!("{found:?}") };
        assert!((distance - 0.8).abs() < 0.02, "{distance}");
    }

    #[test]
    fn one_that_comes_back_is_named_with_both_steps() {
        let found =
            leaving(&rows(|rank, step| if rank == 1 && (100..140).contains(&step) { -0.3 } else { 0.0 }));
        assert!(matches!(found[..], [Leaving { rank: 1, from: 100, to: Some(140), .. }]), "{found:?}");
    }

    #[test]
    fn a_slow_drift_is_seen_and_noise_is_not() {
        let found = leaving(&rows(|rank, step| if rank == 0 { 0.002 * step as f64 } else { 0.0 }));
        assert!(matches!(found[..], [Leaving { rank: 0, to: None, .. }]), "{found:?}");
        assert!(leaving(&rows(|_, _| 0.0)).is_empty());
        let same: Vec<(u64, Vec<f64>)> = (0..50).map(|step| (step, vec![1.0; 4])).collect();
        assert!(leaving(&same).is_empty());
    }

    #[test]
    fn where_there_is_no_majority_nobody_is_named() {
        assert!(leaving(&rows(|rank, step| if rank > 1 && step > 100 { 1.0 } else { 0.0 })).is_empty());
        let two: Vec<(u64, Vec<f64>)> = (0..50).map(|step| (step, vec![1.0, 2.0])).collect();
        assert!(leaving(&two).is_empty());
        let three: Vec<(u64, Vec<f64>)> = (0..50).map(|step| (step, vec![1.0, 2.0, 1.0])).collect();
        assert!(matches!(leaving(&three)[..], [Leaving { rank: 1, from: 0, to: None, .. }]));
        assert!(leaving(&[]).is_empty());
    }
}
