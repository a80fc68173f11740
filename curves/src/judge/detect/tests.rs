//! Single detectors on curves as programs log them, and on healthy curves that
//! look like theirs.

use crate::judge::{End, Finding, Judge, Kind, Label, Report, Settings, Severity};

type Curves<'a> = [(&'a str, &'a dyn Fn(u64) -> Option<f64>)];

/// A judge that saw `steps` rows, in which each metric has the value of its function.
fn fed(settings: Settings, steps: u64, curves: &Curves<'_>) -> Judge {
    let mut judge = Judge::new(settings);
    for step in 0..steps {
        for (name, value) in curves {
            if let Some(value) = value(step) {
                let id = judge.metric(name);
                judge.point(id, Some(step), None, value);
            }
        }
    }
    judge
}

fn judged(steps: u64, curves: &Curves<'_>) -> Report {
    fed(Settings::default(), steps, curves).report()
}

fn of(report: &Report, kind: Kind) -> Option<&Finding> {
    report.findings.iter().find(|f| f.kind == kind)
}

/// Normal values with deviation 1, the same for the same seed.
fn noise(seed: u64, n: u64) -> Vec<f64> {
    let mut random = fastrand::Rng::with_seed(seed);
    let one = |_| (0..12).map(|_| random.f64()).sum::<f64>() - 6.0;
    (0..n).map(one).collect()
}

/// Falls from 3 to 1.
fn falls(step: u64) -> f64 {
    1.0 + 2.0 * (-(step as f64) / 60.0).exp()
}

#[test]
fn a_gradient_that_is_nothing_from_the_start_does_not_explode() {
    let shaky = noise(1, 300);
    let stuck = |i: u64| Some(2.3 + 0.02 * shaky[i as usize]);
    let report = judged(300, &[("loss", &stuck), ("grad_norm", &|_| Some(0.0))]);
    let found: Vec<_> = report.findings.iter().filter(|f| f.metric == "grad_norm").collect();
    assert_eq!(
        found.iter().map(|f| (f.kind, f.first_step)).collect::<Vec<_>>(),
        [(Kind::GradientVanishing, Some(0))]
    );
    assert!(found[0].recommendation.contains("no gradient reaches the weights"), "{found:?}");
    assert!(!report.findings.iter().any(|f| f.recommendation.contains("NaN")), "{report:?}");
    // A loss that falls was trained by something: the log is wrong, not the gradient.
    let report = judged(300, &[("loss", &|i| Some(falls(i))), ("grad_norm", &|_| Some(0.0))]);
    assert!(of(&report, Kind::GradientVanishing).is_none() && of(&report, Kind::DeadMetric).is_some());
    // Nothing at first and something later is no explosion; nothing later is its end.
    let late = |i: u64| Some(if i < 100 { 0.0 } else { 0.5 + 0.05 * shaky[i as usize] });
    let report = judged(300, &[("loss", &stuck), ("grad_norm", &late)]);
    assert!(of(&report, Kind::GradientExplosion).is_none(), "{:?}", report.findings);
    let gone = |i: u64| Some(if i < 150 { 0.5 + 0.05 * shaky[i as usize] } else { 0.0 });
    let report = judged(300, &[("loss", &stuck), ("grad_norm", &gone)]);
    let found = of(&report, Kind::GradientVanishing).expect("it fell to nothing");
    assert!(found.first_step.is_some_and(|s| s.abs_diff(150) <= 3), "{found:?}");
}

#[test]
fn a_run_at_chance_level_is_not_healthy_for_being_short() {
    for (n, seed) in [(20, 1), (20, 2), (30, 3), (30, 4), (49, 5)] {
        let (a, b) = (noise(seed, n), noise(seed + 100, n));
        let loss = |i: u64| Some(0.693 + 0.004 * a[i as usize]);
        let accuracy = |i: u64| Some(50.0 + 0.6 * b[i as usize]);
        let report = judged(n, &[("loss", &loss), ("val_accuracy", &accuracy)]);
        assert_eq!(report.health.labels, [Label::NotLearning], "{n}: {:?}", report.findings);
        assert!(report.health.score <= Some(35));
        // A score that comes from somewhere is learned, whatever its loss does.
        let better = |i: u64| Some(50.0 + 30.0 * i as f64 / n as f64 + 0.6 * b[i as usize]);
        let report = judged(n, &[("loss", &loss), ("val_accuracy", &better)]);
        assert!(of(&report, Kind::NotLearning).is_none(), "{n}: {:?}", report.findings);
        // One that falls is learned too.
        let falling = |i: u64| Some((0.4 + 0.3 * (-(i as f64) / 8.0).exp()) * (1.0 + 0.02 * a[i as usize]));
        assert!(of(&judged(n, &[("loss", &falling)]), Kind::NotLearning).is_none());
    }
}

#[test]
fn the_first_moments_of_a_long_run_are_no_failure_to_learn() {
    let shaky = noise(4, 400);
    let flat = |i: u64| Some(8.0 + 0.05 * shaky[i as usize]);
    let planned = || Settings { planned_steps: Some(10_000), ..Settings::default() };
    let told = |judge: &Judge| of(&judge.report(), Kind::NotLearning).is_some();
    assert!(!told(&fed(planned(), 40, &[("loss", &flat)])), "40 of 10,000 steps");
    let warm = |i: u64| Some(3e-4 * i as f64 / 1000.0);
    assert!(!told(&fed(planned(), 400, &[("loss", &flat), ("lr", &warm)])), "the rate still rises");
    assert!(told(&fed(planned(), 400, &[("loss", &flat), ("lr", &|_| Some(3e-4))])), "it does not");
    let evaluated = |i: u64| Some(10.0 + 0.1 * shaky[i as usize + 200]);
    let epochs = fed(planned(), 40, &[("loss", &flat), ("val_acc", &evaluated)]);
    assert!(told(&epochs), "evaluations say so too");
}

#[test]
fn a_loss_that_leapt_up_at_once_and_stayed_there_diverged() {
    for (n, spread, seed) in [(500, 0.0, 1), (500, 0.05, 2), (500, 0.3, 3), (500, 0.5, 4), (5000, 0.3, 5)] {
        let shaky = noise(seed, n);
        let loss = |i: u64| {
            let up = 40.0 * (1.0 - (-(i as f64) / 5.0).exp());
            Some(2.3 + up * (spread * shaky[i as usize]).exp())
        };
        let report = judged(n, &[("loss", &loss), ("lr", &|_| Some(1.0))]);
        let found =
            of(&report, Kind::Divergence).unwrap_or_else(|| panic!("{spread}: {:?}", report.findings));
        assert!(found.first_step.is_some_and(|s| s <= 20), "{found:?}");
        assert!(found.recommendation.starts_with("loss began at 2.3 and rose to 4"), "{found:?}");
        assert!(of(&report, Kind::LearningRateTooHigh).is_some(), "{:?}", report.findings);
        assert_eq!(report.health.labels, [Label::Diverged]);
    }
    // A first value that is low by chance, and one that was nearly nothing beside its noise.
    for seed in 0..30 {
        let shaky = noise(seed, 400);
        let flat = |i: u64| Some(2.3 * (0.3 * shaky[i as usize]).exp() * if i == 0 { 0.5 } else { 1.0 });
        let report = judged(400, &[("loss", &flat)]);
        assert!(of(&report, Kind::Divergence).is_none(), "{seed}: {:?}", report.findings);
    }
}

#[test]
fn few_evaluations_that_all_rise_are_told_and_others_not_called_fine() {
    let train = |i: u64| Some(1.1 * (-(i as f64) / 300.0).exp());
    let evaluations = |values: &'static [f64]| {
        move |i: u64| (i % 200 == 199).then(|| values.get(i as usize / 200).copied()).flatten()
    };
    let report = |values: &'static [f64]| {
        judged(200 * values.len() as u64, &[("loss", &train), ("eval_loss", &evaluations(values))])
    };
    let rising: [&'static [f64]; 4] = [
        &[1.0, 0.98, 1.15, 1.4, 1.7],
        &[1.0, 0.9, 1.1, 1.4],
        &[1.0, 0.9, 1.1, 1.4, 1.8, 2.2],
        &[1.2, 1.0, 0.9, 1.0, 1.1, 1.2, 1.3],
    ];
    for values in rising {
        let said = report(values);
        let found = of(&said, Kind::Overfitting).unwrap_or_else(|| panic!("{values:?}: {:?}", said.findings));
        let best = values.iter().copied().enumerate().min_by(|a, b| a.1.total_cmp(&b.1)).map_or(0, |b| b.0);
        let kept = format!("take the checkpoint of step {}", 200 * best + 199);
        assert!(found.recommendation.contains(&kept), "{found:?}");
        assert_eq!(said.health.labels[0], Label::Overfit, "{values:?}");
    }
    let others: [&'static [f64]; 5] = [
        &[1.0, 0.9, 0.8],
        &[1.0, 0.9, 0.8, 0.75, 0.7],
        &[1.0, 0.9, 0.95, 1.0],
        &[1.0, 1.3, 0.9, 1.1, 1.3],
        &[1.0, 0.9, 1.4, 1.1, 1.0],
    ];
    for values in others {
        let said = report(values);
        assert!(of(&said, Kind::Overfitting).is_none(), "{values:?}: {:?}", said.findings);
        let text = said.summary.text();
        let wanted = format!("; eval_loss was not judged: {} values are too few.", values.len());
        assert!(text.contains(&wanted) && !text.contains("wrong with it "), "{text}");
    }
    // With training that got worse as well it is no overfitting.
    let worse = |i: u64| Some(if i < 400 { 1.0 - i as f64 / 800.0 } else { 0.5 + (i - 400) as f64 / 600.0 });
    let said = judged(1000, &[("loss", &worse), ("eval_loss", &evaluations(rising[0]))]);
    assert!(of(&said, Kind::Overfitting).is_none(), "{:?}", said.findings);
}

#[test]
fn nothing_of_this_is_said_where_it_is_turned_off() {
    let mut settings = Settings::default();
    let off = crate::judge::schema::MetricSpec { sensitivity: Some(0.0), ..Default::default() };
    settings.schema.metrics.insert("loss".into(), off);
    let mut judge = fed(settings, 60, &[("loss", &|i| Some(if i == 0 { 2.3 } else { 42.0 }))]);
    judge.end(Some(End::default()));
    assert!(judge.report().findings.iter().all(|f| f.severity < Severity::Warning));
}
