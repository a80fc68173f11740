//! Fewer points of a curve, none of its extremes lost.

/// A point: its place, such as a step, and its value.
pub type Place = (u64, f64);

/// At most `most` points of `points`, in their order: the first, the last, and
/// of each stretch between the smallest and the largest, where the curve turns
/// there. The extremes of a stretch that only goes on from its neighbours are
/// theirs too; it is shown by points that lie apart. What is not finite is kept as
/// the extreme it is: an infinity as itself, of NaN the first of a stretch in
/// place of its smallest value. With `most` below 4 the first points are returned.
#[must_use]
pub fn min_max(points: &[Place], most: usize) -> Vec<Place> {
    if points.len() <= most {
        return points.to_vec();
    }
    if most < 4 {
        return points[..most].to_vec();
    }
    let rest = points.len() - 2;
    let stretches = (most - 2) / 2;
    let mut kept = vec![points[0]];
    for i in 0..stretches {
        let (from, to) = (1 + i * rest / stretches, 1 + (i + 1) * rest / stretches);
        kept.extend(of_stretch(points, from, to).into_iter().map(|at| points[at]));
    }
    kept.push(points[points.len() - 1]);
    kept
}

/// The places of at most two points of `from..to`, which lies within `points`.
fn of_stretch(points: &[Place], from: usize, to: usize) -> Vec<usize> {
    let ordered = || (from..to).filter(|at| !points[*at].1.is_nan());
    let by_value = |a: &usize, b: &usize| points[*a].1.total_cmp(&points[*b].1);
    let low = (from..to).find(|at| points[*at].1.is_nan()).or_else(|| ordered().min_by(by_value));
    let high = ordered().max_by(by_value);
    let mut kept: Vec<usize> = low.into_iter().chain(high).filter(|at| turns(points, *at)).collect();
    match kept[..] {
        [] => kept.extend([from + (to - from) / 3, from + 2 * (to - from) / 3]),
        // Into the wider of the parts on both sides.
        [at] if at - from >= to - at => kept.push(from + (at - from) / 2),
        [at] => kept.push(at + (to - at) / 2),
        _ => {}
    }
    kept.sort_unstable();
    kept.dedup();
    kept
}

/// Whether a point within the curve is no mere part of a rise, a fall or a level.
fn turns(points: &[Place], at: usize) -> bool {
    let (before, here, after) = (points[at - 1].1, points[at].1, points[at + 1].1);
    let goes_on =
        before < here && here < after || before > here && here > after || before == here && here == after;
    !goes_on
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn extremes_ends_and_order_are_kept(values in prop::collection::vec(-1e9_f64..1e9, 0..3000), most in 4_usize..200) {
            let points: Vec<Place> = values.iter().enumerate().map(|(i, v)| (i as u64, *v)).collect();
            let kept = min_max(&points, most);
            prop_assert!(kept.len() <= most.max(points.len().min(most)));
            prop_assert!(kept.windows(2).all(|w| w[0].0 < w[1].0));
            prop_assert_eq!(kept.first(), points.first());
            prop_assert_eq!(kept.last(), points.last());
            let top = |p: &[Place]| p.iter().map(|p| p.1).fold(f64::MIN, f64::max);
            let low = |p: &[Place]| p.iter().map(|p| p.1).fold(f64::MAX, f64::min);
            prop_assert_eq!((top(&kept), low(&kept)), (top(&points), low(&points)));
        }
    }

    #[test]
    fn a_single_nan_and_a_single_infinity_are_kept() {
        let mut points: Vec<Place> = (0..10_000).map(|i| (i, 1.0)).collect();
        points[1234].1 = f64::NAN;
        points[7777].1 = f64::INFINITY;
        let kept = min_max(&points, 50);
        assert!(kept.len() <= 50);
        assert!(kept.iter().any(|p| p.0 == 1234) && kept.iter().any(|p| p.0 == 7777));
        assert_eq!(min_max(&points, 2).len(), 2);
    }

    #[test]
    fn a_smooth_curve_is_shown_by_points_that_lie_apart() {
        let falling: Vec<Place> = (1..=1176).map(|i| (i, (-(i as f64) / 300.0).exp())).collect();
        let steps = |most| min_max(&falling, most).into_iter().map(|p| p.0).collect::<Vec<_>>();
        assert_eq!(steps(4), [1, 393, 784, 1176]);
        for most in [6, 10, 31] {
            let found = steps(most);
            let evenly = 1175 / (found.len() as u64 - 1);
            assert!(found.len() + 1 >= most, "{found:?}");
            assert!(found.windows(2).all(|w| (evenly / 3..evenly * 3).contains(&(w[1] - w[0]))), "{found:?}");
        }
        let level: Vec<Place> = (0..1000).map(|i| (i, 7.0)).collect();
        assert!(min_max(&level, 8).windows(2).all(|w| w[1].0 - w[0].0 > 50));
        // A turn is kept to the point.
        let turned: Vec<Place> = (0..1000_u64).map(|i| (i, i.abs_diff(619) as f64)).collect();
        assert!(min_max(&turned, 4).iter().any(|p| p.0 == 619));
    }
}
