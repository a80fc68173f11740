//! Slopes, knots and jumps of short sequences.
//!
//! All work on at most a few hundred values, so quadratic time is bounded.

/// Median of `values`, reordering them; `None` when empty.
pub(super) fn median(values: &mut [f64]) -> Option<f64> {
    let middle = values.len() / 2;
    (!values.is_empty()).then(|| *values.select_nth_unstable_by(middle, f64::total_cmp).1)
}

/// Median of a slice left as it is; 0 when empty.
pub(super) fn median_of(values: &[f64]) -> f64 {
    median(&mut values.to_vec()).unwrap_or(0.0)
}

/// Mean of what lies between the quarters, reordering the values; 0 when empty.
/// Nearly as still as the mean under normal noise, and not moved by a wild
/// value in four.
pub(super) fn middle_mean(values: &mut [f64]) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    let cut = values.len() / 4;
    let middle = &values[cut..values.len() - cut];
    middle.iter().sum::<f64>() / middle.len().max(1) as f64
}

/// Noise of a sequence with a smooth trend: the median absolute second
/// difference, in standard deviations of white noise.
pub(super) fn noise(values: &[f64]) -> f64 {
    let mut bends: Vec<f64> = values.windows(3).map(|w| (w[2] - 2.0 * w[1] + w[0]).abs()).collect();
    1.4826 * median(&mut bends).unwrap_or(0.0) / 6_f64.sqrt()
}

/// Median of the slopes between all pairs, per place (Theil 1950, Sen 1968).
pub(super) fn theil_sen(values: &[f64]) -> f64 {
    if let Some(slope) = near_least_squares(values) {
        return slope;
    }
    let mut slopes = Vec::with_capacity(values.len() * values.len() / 2);
    for (i, a) in values.iter().enumerate() {
        slopes.extend(values[i + 1..].iter().enumerate().map(|(gap, b)| (b - a) / (gap + 1) as f64));
    }
    median(&mut slopes).unwrap_or(0.0)
}

/// The same median, where it is within 0.7 standard errors of the least-squares slope, which it is
/// unless values are wild: then few slopes must be ordered, the others be counted only.
fn near_least_squares(values: &[f64]) -> Option<f64> {
    const FEWEST: usize = 16;
    let n = values.len();
    if n < FEWEST {
        return None;
    }
    let (_, middle, error) = regress(values, |i| i as f64);
    let reach = 0.7 * (error / (n - 2) as f64 * 12.0 / (n as f64).powi(3)).sqrt();
    let all = n * (n - 1) / 2;
    let (mut kept, mut count, mut below) = (vec![0.0; all], 0, 0);
    for gap in 1..n {
        let (from, later) = (count, &values[gap..]);
        let (middle, reach) = (middle * gap as f64, reach * gap as f64);
        below += values.iter().zip(later).map(|(a, b)| usize::from(b - a < middle - reach)).sum::<usize>();
        for (a, b) in values.iter().zip(later) {
            // What is not counted is written over by the next.
            kept[count] = b - a;
            count += usize::from((b - a - middle).abs() <= reach);
        }
        kept[from..count].iter_mut().for_each(|rise| *rise /= gap as f64);
    }
    ranked(&mut kept[..count], (all / 2).checked_sub(below)?, middle, reach)
}

/// Median of `values`, which is looked for within `reach` of `middle` first.
pub(super) fn median_near(values: &[f64], middle: f64, reach: f64) -> f64 {
    let below = values.iter().map(|v| usize::from(*v < middle - reach)).sum::<usize>();
    let (mut kept, mut count) = (vec![0.0; values.len()], 0);
    for value in values {
        kept[count] = *value;
        count += usize::from((value - middle).abs() <= reach);
    }
    let rank = (values.len() / 2).checked_sub(below);
    rank.and_then(|rank| ranked(&mut kept[..count], rank, middle, reach)).unwrap_or_else(|| median_of(values))
}

/// The value of that rank of those that were kept for lying within `reach` of `middle`; `None` at the
/// very edges, where rounding may have kept too many or too few.
fn ranked(kept: &mut [f64], rank: usize, middle: f64, reach: f64) -> Option<f64> {
    if rank >= kept.len() {
        return None;
    }
    let found = *kept.select_nth_unstable_by(rank, f64::total_cmp).1;
    ((found - middle).abs() < reach - 1e-12 * (middle.abs() + reach)).then_some(found)
}

/// Mann-Kendall's z without ties: negative when the sequence falls.
pub(super) fn mann_kendall(values: &[f64]) -> f64 {
    let mut s = 0.0;
    for (i, a) in values.iter().enumerate() {
        for b in &values[i + 1..] {
            s += if b > a { 1.0 } else { f64::from(u8::from(b == a)) - 1.0 };
        }
    }
    let n = values.len() as f64;
    let spread = (n * (n - 1.0) * (2.0 * n + 5.0) / 18.0).sqrt();
    if spread > 0.0 && s != 0.0 { (s - f64::signum(s)) / spread } else { 0.0 }
}

/// Sums over a prefix, for the error of a line or a constant over any stretch.
pub(super) struct Prefix {
    sums: Vec<[f64; 5]>,
}

impl Prefix {
    pub(super) fn new(values: &[f64]) -> Self {
        let centre = median_of(values);
        let mut sums = vec![[0.0; 5]];
        let mut running = [0.0; 5];
        for (i, value) in values.iter().enumerate() {
            let (x, y) = (i as f64, value - centre);
            for (sum, term) in running.iter_mut().zip([x, x * x, y, y * y, x * y]) {
                *sum += term;
            }
            sums.push(running);
        }
        Self { sums }
    }

    fn over(&self, from: usize, to: usize) -> (f64, [f64; 5]) {
        let mut part = self.sums[to];
        part.iter_mut().zip(self.sums[from]).for_each(|(a, b)| *a -= b);
        ((to - from) as f64, part)
    }

    /// Squared error of the best line over `from..to`.
    pub(super) fn line(&self, from: usize, to: usize) -> f64 {
        let (n, [x, xx, y, yy, xy]) = self.over(from, to);
        let (sxx, sxy, syy) = (xx - x * x / n, xy - x * y / n, yy - y * y / n);
        if sxx > 1e-9 { (syy - sxy * sxy / sxx).max(0.0) } else { syy.max(0.0) }
    }

    /// Squared error of the mean over `from..to`.
    pub(super) fn constant(&self, from: usize, to: usize) -> f64 {
        let (n, [_, _, y, yy, _]) = self.over(from, to);
        (yy - y * y / n).max(0.0)
    }

    /// Mean over `from..to`, less the centre that was taken off.
    pub(super) fn mean(&self, from: usize, to: usize) -> f64 {
        let (n, [_, _, y, _, _]) = self.over(from, to);
        y / n
    }
}

/// Where two lines that need not meet describe `values` best: the place of the
/// first value of the second, and the squared error.
pub(super) fn jump(values: &[f64], margin: usize) -> Option<(usize, f64)> {
    let prefix = Prefix::new(values);
    let n = values.len();
    (margin.max(1)..n.saturating_sub(margin.max(1)))
        .map(|k| (k, prefix.line(0, k) + prefix.line(k, n)))
        .min_by(|a, b| a.1.total_cmp(&b.1))
}

/// Where two lines that meet describe `values` best: the place where they do,
/// and the squared error.
pub(super) fn knot(values: &[f64], margin: usize) -> Option<(usize, f64)> {
    let n = values.len();
    let knots = (margin.max(1)..n.saturating_sub(margin.max(1))).filter_map(|k| Some((k, hinge(values, k)?)));
    knots.min_by(|a, b| a.1.total_cmp(&b.1))
}

/// Squared error of `values` on 1, i and max(0, i - k).
fn hinge(values: &[f64], k: usize) -> Option<f64> {
    let mut m = [[0.0_f64; 4]; 3];
    for (i, y) in values.iter().enumerate() {
        let row = [1.0, i as f64 - k as f64, i.saturating_sub(k) as f64];
        for (a, line) in m.iter_mut().enumerate() {
            for b in 0..3 {
                line[b] += row[a] * row[b];
            }
            line[3] += row[a] * y;
        }
    }
    let [base, slope, bend] = solve(m)?;
    let error = values.iter().enumerate().map(|(i, y)| {
        let x = i as f64 - k as f64;
        (y - base - slope * x - bend * x.max(0.0)).powi(2)
    });
    Some(error.sum())
}

/// Where a line that becomes level describes `values` best: the place at which
/// it does, and the squared error.
pub(super) fn stop(values: &[f64], margin: usize) -> Option<(usize, f64)> {
    let n = values.len();
    let error = |k: usize| regress(values, |i| i.min(k) as f64 - k as f64).2;
    (margin.max(1)..n.saturating_sub(margin.max(1))).map(|k| (k, error(k))).min_by(|a, b| a.1.total_cmp(&b.1))
}

/// An exponential that runs out.
#[derive(Debug, Clone, Copy)]
pub(super) struct Decay {
    /// Above its end, at the first place.
    pub(super) height: f64,
    /// Per place.
    pub(super) rate: f64,
    /// Squared error.
    pub(super) error: f64,
}

/// The exponential that describes `values` best.
pub(super) fn decay(values: &[f64]) -> Option<Decay> {
    let n = values.len() as f64;
    let rates = (0..30).map(|i| 2.0 / n * 1.25_f64.powi(i)).filter(|r| *r < 2.0);
    let fits = rates.map(|rate| {
        let (_, height, error) = regress(values, |i| (-rate * i as f64).exp());
        Decay { height, rate, error }
    });
    fits.min_by(|a, b| a.error.total_cmp(&b.error))
}

/// Least squares on 1 and `x`: base, slope and squared error.
pub(super) fn regress(values: &[f64], x: impl Fn(usize) -> f64) -> (f64, f64, f64) {
    let n = values.len() as f64;
    let (mut sx, mut sy, mut sxx, mut sxy, mut syy) = (0.0, 0.0, 0.0, 0.0, 0.0);
    let centre = values.first().copied().unwrap_or(0.0);
    for (i, value) in values.iter().enumerate() {
        let (x, y) = (x(i), value - centre);
        (sx, sy, sxx, sxy, syy) = (sx + x, sy + y, sxx + x * x, sxy + x * y, syy + y * y);
    }
    let (vx, vxy, vy) = (sxx - sx * sx / n, sxy - sx * sy / n, syy - sy * sy / n);
    if vx <= 1e-12 {
        return (centre + sy / n, 0.0, vy.max(0.0));
    }
    let slope = vxy / vx;
    (centre + (sy - slope * sx) / n, slope, (vy - slope * vxy).max(0.0))
}

fn solve(mut m: [[f64; 4]; 3]) -> Option<[f64; 3]> {
    for column in 0..3 {
        let pivot = (column..3).max_by(|a, b| m[*a][column].abs().total_cmp(&m[*b][column].abs()))?;
        m.swap(column, pivot);
        let top = m[column];
        if top[column].abs() < 1e-12 {
            return None;
        }
        for (row, line) in m.iter_mut().enumerate() {
            if row != column {
                let factor = line[column] / top[column];
                line.iter_mut().zip(top).for_each(|(a, b)| *a -= factor * b);
            }
        }
    }
    Some([m[0][3] / m[0][0], m[1][3] / m[1][1], m[2][3] / m[2][2]])
}

/// Places at which the level of `values` changes: splits found one within the
/// other, each worth more than `penalty` times the noise's variance.
pub(super) fn level_changes(values: &[f64], least: usize, penalty: f64, most: usize) -> Vec<usize> {
    split(values, least, penalty, most, Prefix::constant)
}

/// The same for stretches that are lines.
pub(super) fn line_changes(values: &[f64], least: usize, penalty: f64, most: usize) -> Vec<usize> {
    split(values, least, penalty, most, Prefix::line)
}

fn split(
    values: &[f64],
    least: usize,
    penalty: f64,
    most: usize,
    cost: fn(&Prefix, usize, usize) -> f64,
) -> Vec<usize> {
    let prefix = Prefix::new(values);
    let variance = noise(values).powi(2).max(1e-12);
    let mut places: Vec<usize> = vec![0, values.len()];
    while places.len() < most + 2 {
        let best = places
            .windows(2)
            .flat_map(|w| {
                let (from, to, prefix) = (w[0], w[1], &prefix);
                (from + least..to.saturating_sub(least - 1))
                    .map(move |k| (k, cost(prefix, from, to) - cost(prefix, from, k) - cost(prefix, k, to)))
            })
            .max_by(|a, b| a.1.total_cmp(&b.1));
        match best {
            Some((at, worth)) if worth > penalty * variance => {
                let place = places.partition_point(|p| *p < at);
                places.insert(place, at);
            }
            _ => break,
        }
    }
    places[1..places.len() - 1].to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slopes_and_their_sign() {
        let falling: Vec<f64> = (0..40).map(|i| 5.0 - 0.25 * f64::from(i)).collect();
        assert!((theil_sen(&falling) + 0.25).abs() < 1e-12);
        assert!(mann_kendall(&falling) < -8.0);
        assert_eq!((theil_sen(&[]), mann_kendall(&[1.0])), (0.0, 0.0));
        assert_eq!(mann_kendall(&[2.0; 9]), 0.0);
    }

    proptest::proptest! {
        #[test]
        fn the_median_slope_is_that_of_all_pairs(noise in proptest::collection::vec(-1.0_f64..1.0, 0..70), slope in -3.0_f64..3.0, wild in 0_usize..9, scale in -300_i32..300) {
            let scale = 10_f64.powi(scale);
            let value = |(i, v): (usize, &f64)| scale * (slope * i as f64 + if wild > 0 && i % 9 == wild { 50.0 * v } else { *v });
            let values: Vec<f64> = noise.iter().enumerate().map(value).collect();
            let mut slopes = Vec::new();
            for (i, a) in values.iter().enumerate() {
                slopes.extend(values[i + 1..].iter().enumerate().map(|(gap, b)| (b - a) / (gap + 1) as f64));
            }
            slopes.sort_by(f64::total_cmp);
            let middle = slopes.get(slopes.len() / 2).copied().unwrap_or(0.0);
            proptest::prop_assert_eq!(theil_sen(&values).to_bits(), middle.to_bits());
        }

        #[test]
        fn a_median_is_the_same_wherever_it_is_looked_for(values in proptest::collection::vec(-3_i32..3, 0..90), middle in -4.0_f64..4.0, reach in 0.0_f64..3.0) {
            let values: Vec<f64> = values.into_iter().map(|v| f64::from(v) / 3.0).collect();
            proptest::prop_assert_eq!(median_near(&values, middle, reach).to_bits(), median_of(&values).to_bits());
        }
    }

    #[test]
    fn a_knot_and_a_jump_are_found_where_they_are() {
        let v: Vec<f64> = (0..100).map(|i| f64::from(i - 60).abs() + f64::from(i % 3) * 0.1).collect();
        let found = knot(&v, 5).expect("long enough");
        assert!(found.0.abs_diff(60) <= 1, "{found:?}");
        let shifted: Vec<f64> =
            (0..80).map(|i| f64::from(i) * 0.01 + if i >= 33 { 2.0 } else { 0.0 }).collect();
        assert_eq!(jump(&shifted, 2).map(|j| j.0), Some(33));
        assert_eq!(level_changes(&shifted, 3, 20.0, 1), [33]);
        assert!(jump(&[1.0], 2).is_none() && knot(&[1.0, 2.0], 2).is_none());
    }

    #[test]
    fn noise_is_measured_beside_a_trend() {
        let mut random = fastrand::Rng::with_seed(1);
        let v: Vec<f64> = (0..500).map(|i| f64::from(i).sqrt() + random.f64()).collect();
        assert!((0.2..0.4).contains(&noise(&v)), "uniform noise has sd 0.29, not {}", noise(&v));
        let mut plain = random;
        let white: Vec<f64> = (0..300).map(|_| plain.f64()).collect();
        assert_eq!(level_changes(&white, 5, 40.0, 4), [] as [usize; 0]);
    }
}
