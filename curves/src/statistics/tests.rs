//! Statistics against known values and against themselves under resampling.

use super::*;
use fastrand::Rng;

fn normal(random: &mut Rng, mean: f64) -> f64 {
    let radius = (-2.0 * (1.0 - random.f64()).ln()).sqrt();
    mean + radius * (std::f64::consts::TAU * random.f64()).cos()
}

fn arm(random: &mut Rng, n: usize, mean: f64) -> Vec<f64> {
    (0..n).map(|_| normal(random, mean)).collect()
}

#[test]
fn spreads_of_known_numbers() {
    let found = spread(&[2.0, 4.0, f64::NAN, 6.0]).expect("three are finite");
    assert_eq!((found.n, found.left_out, found.mean, found.sd), (3, 1, 4.0, Some(2.0)));
    let (low, high) = found.interval.expect("three runs");
    assert!(
        (low + 0.968).abs() < 1e-3 && (high - 8.968).abs() < 1e-3,
        "t 4.303 with 2 degrees: {low} {high}"
    );
    let one = spread(&[1.0]).expect("one");
    assert_eq!((one.sd, one.interval), (None, None));
    assert_eq!(spread(&[f64::INFINITY]), None);
}

#[test]
fn welch_gives_what_others_give() {
    // scipy 1.16: ttest_ind(a, b, equal_var=False), n 5 and 4.
    let found = compare(&[3.1, 2.9, 3.3, 3.0, 3.2], &[3.6, 3.5, 3.9, 3.4]);
    let t = 0.5 / (0.025_f64 / 5.0 + 0.046_666_666_7 / 4.0).sqrt();
    assert!((found.difference - 0.5).abs() < 1e-12 && t > 3.8);
    assert!(found.p_t.is_some_and(|p| (0.004..0.02).contains(&p)), "{found:?}");
    assert!(found.p_permutation.is_some_and(|p| (p - 1.0 / 126.0).abs() < 1e-9), "{found:?}");
    assert_eq!(found.verdict, Verdict::Different);
}

#[test]
fn fewer_than_three_runs_cannot_be_told() {
    let found = compare(&[1.0, 1.0], &[9.0, 9.0, 9.0]);
    assert_eq!((found.verdict, found.p(), found.difference), (Verdict::CannotTell, None, 8.0));
    assert!(found.text.starts_with("cannot tell: 2 and 3 runs"), "{}", found.text);
    assert_eq!(compare_pairs(&[(1.0, 2.0), (1.0, f64::NAN), (1.0, 2.0)]).verdict, Verdict::CannotTell);
    assert_eq!(compare(&[], &[]).verdict, Verdict::CannotTell);
}

#[test]
fn equal_arms_are_called_different_as_often_as_promised() {
    let mut random = Rng::with_seed(7);
    for n in [3, 5, 10] {
        let wrong = (0..600).filter(|_| {
            let (a, b) = (arm(&mut random, n, 0.0), arm(&mut random, n, 0.0));
            compare(&a, &b).verdict == Verdict::Different
        });
        let share = wrong.count() as f64 / 600.0;
        assert!(share < 0.075, "n {n}: {share}");
    }
}

#[test]
fn a_difference_of_two_deviations_is_seen_in_six_runs() {
    let mut random = Rng::with_seed(3);
    let seen = (0..200).filter(|_| {
        let found = compare(&arm(&mut random, 6, 0.0), &arm(&mut random, 6, 2.5));
        found.verdict == Verdict::Different && found.effect.is_some_and(|g| g > 0.5)
    });
    assert!(seen.count() > 170);
}

#[test]
fn pairs_see_what_seeds_hide() {
    let mut random = Rng::with_seed(5);
    let pairs: Vec<(f64, f64)> = (0..8)
        .map(|_| {
            let seed = 5.0 * normal(&mut random, 0.0);
            (seed + 0.1 * normal(&mut random, 0.0), seed + 0.5 + 0.1 * normal(&mut random, 0.0))
        })
        .collect();
    let (a, b): (Vec<f64>, Vec<f64>) = pairs.iter().copied().unzip();
    assert_eq!(compare_pairs(&pairs).verdict, Verdict::Different);
    assert_eq!(compare(&a, &b).verdict, Verdict::NotDifferent);
}

#[test]
fn holm_steps_down() {
    assert_eq!(holm(&[0.01, 0.04, 0.03]), [0.03, 0.06, 0.06]);
    assert_eq!(holm(&[0.9, 0.8]), [1.0, 1.0]);
    assert_eq!(holm(&[]), [] as [f64; 0]);
    let mut random = Rng::with_seed(11);
    let mut many: Vec<Difference> =
        (0..10).map(|_| compare(&arm(&mut random, 5, 0.0), &arm(&mut random, 5, 1.2))).collect();
    many.push(compare(&[1.0], &[2.0]));
    let alone = many.iter().filter(|d| d.verdict == Verdict::Different).count();
    let adjusted = adjust(&mut many);
    assert_eq!((adjusted[10], many[10].verdict), (None, Verdict::CannotTell));
    let together = many.iter().filter(|d| d.verdict == Verdict::Different).count();
    assert!(together <= alone, "{together} of {alone}");
}

#[test]
fn a_difference_beyond_doubt_is_shown_with_any_number_of_runs_and_arms() {
    let shifted = |n: usize, by: f64| (0..n).map(|i| by + 0.005 * i as f64).collect::<Vec<f64>>();
    for n in 3..8 {
        for arms in [1, 2, 3, 7, 20] {
            let mut all: Vec<Difference> =
                (0..arms).map(|arm| compare(&shifted(n, 0.0), &shifted(n, 1.0 + arm as f64))).collect();
            let adjusted = adjust(&mut all);
            assert!(
                all.iter().all(|one| one.verdict == Verdict::Different),
                "{n} runs an arm, {arms} comparisons: {adjusted:?}"
            );
        }
    }
}

#[test]
fn equal_arms_of_few_runs_stay_equal_among_many() {
    let mut random = Rng::with_seed(13);
    let families = 400;
    let wrong = (0..families).filter(|_| {
        let base = arm(&mut random, 4, 0.0);
        let mut all: Vec<Difference> = (0..3).map(|_| compare(&base, &arm(&mut random, 4, 0.0))).collect();
        adjust(&mut all);
        all.iter().any(|one| one.verdict == Verdict::Different)
    });
    let share = wrong.count() as f64 / f64::from(families);
    assert!(share < 0.075, "{share}");
}
