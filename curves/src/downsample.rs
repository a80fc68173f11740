//! Fewer points of a curve, none of its extremes lost.

/// A point: its place, such as a step, and its value.
pub type Place = (u64, f64);

/// At most `most` points of `points`, in their order: the first, the last, and
/// of each stretch between the smallest and the largest. What is not finite is
/// kept as the extreme it is: an infinity as itself, of NaN the first of a
/// stretch in place of its smallest value. With `most` below 4 the first
/// points are returned.
#[must_use]
pub fn min_max(points: &[Place], most: usize) -> Vec<Place> {
    if points.len() <= most {
        return points.to_vec();
    }
    if most < 4 {
        return points[..most].to_vec();
    }
    let (first, rest) = (points[0], &points[1..points.len() - 1]);
    let stretches = (most - 2) / 2;
    let mut kept = vec![first];
    for i in 0..stretches {
        let part = &rest[i * rest.len() / stretches..(i + 1) * rest.len() / stretches];
        let ordered = || part.iter().enumerate().filter(|(_, p)| !p.1.is_nan());
        let low = ordered().min_by(|a, b| a.1.1.total_cmp(&b.1.1)).map(|(i, _)| i);
        let high = ordered().max_by(|a, b| a.1.1.total_cmp(&b.1.1)).map(|(i, _)| i);
        let low = part.iter().position(|p| p.1.is_nan()).or(low);
        let mut both: Vec<usize> = low.into_iter().chain(high).collect();
        both.sort_unstable();
        both.dedup();
        kept.extend(both.into_iter().map(|i| part[i]));
    }
    kept.push(points[points.len() - 1]);
    kept
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
}
