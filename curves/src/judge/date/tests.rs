//! Made-up changes at known places.

use super::*;

fn noisy(n: usize, sd: f64, seed: u64, values: bool, clean: impl Fn(f64) -> f64) -> Series {
    let mut random = fastrand::Rng::with_seed(seed);
    // The sum of twelve is near enough to normal.
    let mut normal = || (0..12).map(|_| random.f64()).sum::<f64>() - 6.0;
    let x: Vec<f64> = (0..n).map(|i| i as f64).collect();
    let y: Vec<f64> = x.iter().map(|x| clean(*x) + sd * normal()).collect();
    Series::new(x, y, true, values)
}

fn dated(series: &Series, change: Change, guess: usize, changed: usize) -> f64 {
    let stretch = Stretch::widest(series, change, guess, changed).expect("long enough");
    let (low, high) = stretch.range();
    let places = grid(low, high, 400);
    let costs: Vec<f64> = places.iter().map(|at| stretch.cost(*at)).collect();
    likeliest(&places, &costs, TOLERANCE * series.x.len() as f64).expect("a place")
}

#[test]
fn turns_of_every_form_are_dated() {
    for seed in 0..20 {
        // Twice from a fall, once from a level; a rise that goes on, slows down, ends.
        let on = noisy(100, 0.02, seed, false, |x| -0.01 * x.min(60.0) + 0.02 * (x - 60.0).max(0.0));
        let slows =
            noisy(100, 0.02, seed, true, |x| (1.0 + 0.025 * (x - 60.0).max(0.0) + (-x / 15.0).exp()).ln());
        let ends = noisy(300, 0.05, seed, false, |x| 0.02 * (x - 180.0).clamp(0.0, 30.0));
        for (series, at, changed) in [(on, 60.0, 70), (slows, 60.0, 75), (ends, 180.0, 200)] {
            let found = dated(&series, Change::Turn, at as usize - 5, changed);
            assert!((found - at).abs() <= 3.0, "seed {seed}: {found} for {at}");
        }
    }
}

#[test]
fn a_fall_that_stops_is_dated() {
    let date = |seed| dated(&noisy(300, 0.1, seed, false, |x| -0.015 * x.min(120.0)), Change::Stop, 126, 130);
    let off: Vec<f64> = (0..20).map(|seed| (date(seed) - 120.0).abs()).collect();
    assert!(off.iter().filter(|off| **off <= 4.0).count() >= 17, "{off:?}");
}

#[test]
fn a_bend_far_away_does_not_move_the_date() {
    let series = noisy(300, 0.02, 3, false, |x| if x < 100.0 { 3.0 } else { 0.01 * (x - 200.0).max(0.0) });
    let found = dated(&series, Change::Turn, 195, 230);
    assert!((found - 200.0).abs() <= 3.0, "{found}");
}

#[test]
fn short_and_level_curves_have_no_date() {
    for n in 0..12 {
        let series = noisy(n, 0.0, 1, false, |_| 1.0);
        let stretch = Stretch::widest(&series, Change::Turn, n / 2, n);
        assert!(stretch.is_none_or(|s| s.cost(s.range().0) > 1e100 || n >= 4 * SIDE), "{n}");
    }
}

#[test]
fn the_course_of_training_is_quieter_than_its_nodes_and_not_bent() {
    let clean = |x: f64| 0.5 + (-x / 20.0).exp();
    let series = noisy(100, 0.04, 1, true, |x| clean(x).ln());
    for seed in 0..20 {
        let training = noisy(500, 0.08, seed, false, |x| clean(x / 5.0).ln());
        let training = Series { x: (0..500).map(|i| f64::from(i) / 5.0).collect(), ..training };
        let course = guide::guide(&series, &training, true).expect("long enough");
        // Up to a factor, which any fit takes up.
        let away: Vec<f64> = course.iter().zip(&series.x).map(|(c, x)| c.ln() - clean(*x).ln()).collect();
        let mean = away.iter().sum::<f64>() / 100.0;
        let rms = (away.iter().map(|a| (a - mean).powi(2)).sum::<f64>() / 100.0).sqrt();
        assert!(rms < 0.04, "half of the noise of a node: {rms}");
    }
    let short = noisy(9, 0.1, 1, false, |x| -x);
    assert!(guide::guide(&series, &short, true).is_none());
}
