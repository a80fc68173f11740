//! A whole curve in ten digits: 0 is its smallest value and 9 its largest.
//! Digits, because three of them are one token of a language model, where a
//! block character is two.

use super::course::groups;
use crate::downsample::Place;

/// Digits of it.
const WIDTH: usize = 10;

/// One digit for each tenth of the values; `!` where a tenth holds a value that
/// is not finite. Fewer than ten values give fewer digits.
#[must_use]
pub fn spark(points: &[Place]) -> String {
    let width = WIDTH.min(points.len());
    let parts: Vec<&[Place]> = (0..width)
        .filter_map(|i| points.get(i * points.len() / width..(i + 1) * points.len() / width))
        .collect();
    let levels: Vec<Option<f64>> =
        parts
            .iter()
            .map(|part| {
                if part.iter().all(|p| p.1.is_finite()) { groups(part, 1).first().map(|p| p.1) } else { None }
            })
            .collect();
    let finite = || levels.iter().flatten().copied();
    let (low, high) = (finite().fold(f64::MAX, f64::min), finite().fold(f64::MIN, f64::max));
    levels
        .iter()
        .map(|level| match level {
            None => '!',
            // Halves, as the whole range may be more than a float holds.
            Some(value) if high > low => {
                let part = (value / 2.0 - low / 2.0) / (high / 2.0 - low / 2.0);
                char::from_digit((part * 9.0).round().clamp(0.0, 9.0) as u32, 10).unwrap_or('0')
            }
            Some(_) => '5',
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_curve_in_digits() {
        let falling: Vec<Place> = (0..1000).map(|i| (i, 1000.0 - i as f64)).collect();
        assert_eq!(spark(&falling), "9876543210");
        let mut broken = falling;
        broken[450].1 = f64::NAN;
        assert_eq!(spark(&broken).chars().nth(4), Some('!'));
        assert_eq!((spark(&[(0, 2.0), (1, 2.0)]), spark(&[])), ("55".to_owned(), String::new()));
    }

    proptest! {
        #[test]
        fn any_values_give_digits(values in prop::collection::vec(any::<f64>(), 0..50)) {
            let points: Vec<Place> = values.iter().enumerate().map(|(i, v)| (i as u64, *v)).collect();
            let drawn = spark(&points);
            prop_assert_eq!(drawn.len(), values.len().min(10));
            prop_assert!(drawn.chars().all(|c| c == '!' || c.is_ascii_digit()));
        }
    }
}
