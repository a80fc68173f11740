//! Intervals of forecasts against curves whose end is known.

use super::super::arrival::{Verdict, foreseen};
use super::*;

/// Levels of the first `seen` of 6,000 steps of a curve with noise, in 100 groups.
fn levels(curve: &dyn Fn(f64) -> f64, seen: f64, noise: f64, random: &mut fastrand::Rng) -> Vec<f64> {
    let normal = |random: &mut fastrand::Rng| (0..12).map(|_| random.f64()).sum::<f64>() - 6.0;
    (0..100)
        .map(|group| curve((group as f64 + 0.5) / 100.0 * seen) * (1.0 + noise * normal(random)))
        .collect()
}

fn seen(levels: &[f64], seen: u64) -> Ahead {
    Ahead { first: 0, seen, ..ahead(levels).expect("values enough") }
}

#[test]
fn an_exponential_half_of_which_was_seen_has_an_interval_for_its_target() {
    let curve = |step: f64| 0.3 + 2.0 * (-step / 1500.0).exp();
    let mut random = fastrand::Rng::with_seed(3);
    let (mut told, mut right) = (0, 0);
    for _ in 0..40 {
        let ahead = seen(&levels(&curve, 3000.0, 0.008, &mut random), 3000);
        let (verdict, [_, earliest, latest], text) = foreseen(&ahead, 0.4, "0.4");
        if let (Verdict::Expected, Some(from), Some(to)) = (verdict, earliest, latest) {
            told += 1;
            right += u32::from((from..=to).contains(&4494));
            assert!(text.contains(&format!("({from} to {to})")), "{text}");
        }
        let (value, width) = ahead.at(4500);
        assert!(value + width < curve(3000.0), "{value} +- {width} is no better than now");
    }
    assert!(told >= 30 && right >= 28, "{told} of 40 have an interval, {right} hold the step");
}

#[test]
fn intervals_hold_where_the_course_is_of_neither_family() {
    let curves: [(&str, &dyn Fn(f64) -> f64); 5] = [
        ("power", &|step| 0.3 + 2.0 * (1.0 + step / 100.0).powf(-0.6)),
        ("two exponentials", &|step| 0.3 + 1.4 * (-step / 200.0).exp() + 0.6 * (-step / 2500.0).exp()),
        ("mixed", &|step| 0.3 + (-step / 1500.0).exp() + (1.0 + step / 100.0).powf(-0.6)),
        ("logarithm", &|step| 2.3 - 2.0 * (1.0 + step).ln() / 20_000_f64.ln()),
        ("exponential", &|step| 0.3 + 2.0 * (-step / 1500.0).exp()),
    ];
    let mut random = fastrand::Rng::with_seed(7);
    let (mut all, mut held) = (0, 0);
    for (name, curve) in curves {
        let mut here = 0;
        for _ in 0..40 {
            let (value, width) = seen(&levels(curve, 4000.0, 0.006, &mut random), 4000).at(6000);
            here += u32::from((curve(6000.0) - value).abs() <= width);
        }
        assert!(here >= 28, "{name}: {here} of 40");
        (all, held) = (all + 40, held + here);
    }
    assert!(held * 10 >= all * 9, "{held} of {all}");
}
