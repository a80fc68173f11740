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
        assert_eq!(report.health.labels[0], Label::Diverged);
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

#[test]
fn a_rate_that_begins_anew_after_a_restart_is_told() {
    let warm = |i: u64| 1e-3 * (i as f64 / 500.0).min(1.0);
    let cosine = |i: u64| 0.5e-3 * (1.0 + (std::f64::consts::PI * i as f64 / 4000.0).cos());
    type Rate = fn(u64) -> f64;
    // What was logged before, where the restart goes on, whether its rows are void, what comes then.
    let told = |before: &dyn Fn(u64) -> f64, to: u64, from: u64, void: bool, after: &dyn Fn(u64) -> f64| {
        let mut judge = Judge::new(Settings::default());
        let lr = judge.metric("lr");
        (0..to).for_each(|i| judge.point(lr, Some(i), None, before(i)));
        if void {
            judge.segment_from(Some(from));
        } else {
            judge.segment();
        }
        (from..from + 1000).for_each(|i| judge.point(lr, Some(i), None, after(i)));
        let report = judge.report();
        of(&report, Kind::ResumeJump).map(|f| (f.first_step, f.metric.clone()))
    };
    let constant: Rate = |_| 1e-3;
    for (to, from) in [(2100, 2000), (2000, 2000), (2900, 1100)] {
        for void in [false, true] {
            let jump = Some((Some(from), "lr".to_owned()));
            assert_eq!(told(&constant, to, from, void, &|i| warm(i - from)), jump, "{to} {from} {void}");
            assert_eq!(told(&warm, to, from, void, &|i| warm(i - from)), jump, "{to} {from} {void}");
            // It goes on, was stretched to more steps, or is a step late.
            assert_eq!(told(&constant, to, from, void, &constant), None);
            assert_eq!(told(&cosine, to, from, void, &cosine), None);
            assert_eq!(told(&cosine, to, from, void, &|i| 0.5e-3 + 0.5 * cosine(i)), None, "{to} {from}");
            assert_eq!(told(&constant, to, from, void, &|i| if i == from { 0.0 } else { 1e-3 }), None);
        }
    }
    // In the warm-up it moves fast by itself, and one that had run out is given more steps.
    assert_eq!(told(&warm, 100, 100, false, &warm), None);
    assert_eq!(told(&warm, 60, 40, true, &warm), None);
    assert_eq!(told(&cosine, 4000, 4000, false, &|_| 1e-3), None);
}

#[test]
fn a_value_that_is_no_number_at_a_proven_rate_is_not_the_rates() {
    let falling = |i: u64| if i < 1234 { 2.0 + 4.0 * (-(i as f64) / 300.0).exp() } else { f64::NAN };
    let told = |loss: &dyn Fn(u64) -> f64, rate: &dyn Fn(u64) -> f64| {
        let report = judged(1300, &[("loss", &|i| Some(loss(i))), ("lr", &|i| Some(rate(i)))]);
        assert!(of(&report, Kind::NonFinite).is_some());
        of(&report, Kind::LearningRateTooHigh).is_some()
    };
    assert!(!told(&falling, &|_| 1e-3), "it did well for 1,234 steps");
    assert!(!told(&falling, &|i| 1e-3 - 4e-7 * i as f64), "and before at a higher rate");
    assert!(told(&falling, &|i| 1e-3 * i as f64), "the rate was never so high");
    assert!(
        told(&|i| if i < 20 { 3.0 - 0.01 * i as f64 } else { f64::NAN }, &|_| 1e-3),
        "20 values prove little"
    );
    let rose = |i: u64| falling(i) * if i > 1200 { 1.2_f64.powi(i as i32 - 1200) } else { 1.0 };
    assert!(told(&rose, &|_| 1e-3), "the loss had left before");
}

#[test]
fn a_score_that_collapses_is_graded_like_a_loss_that_diverged() {
    let shaky = noise(6, 1600);
    let climb = |i: u64| 400.0 / (1.0 + (-(i as f64 - 300.0) / 80.0).exp());
    let lost = |i: u64, left: f64| {
        if i < 1000 { 1.0 } else { left + (1.0 - left) * (-(i as f64 - 1000.0) / 60.0).exp() }
    };
    for (name, scale) in [("reward", 1.0), ("val_acc", 0.002)] {
        let report = |left: f64| {
            let score = |i: u64| Some(scale * (climb(i) * lost(i, left) + 8.0 * shaky[i as usize] + 10.0));
            judged(1600, &[(name, &score), ("train_loss", &|i| Some(falls(i)))])
        };
        let all = report(0.0);
        let found = of(&all, Kind::Regression).unwrap_or_else(|| panic!("{name}: {:?}", all.findings));
        assert_eq!((found.severity, found.metric.as_str()), (Severity::Critical, name));
        assert!(found.recommendation.contains("most of what was learned is lost"), "{found:?}");
        assert_eq!((all.health.labels[0], all.health.score <= Some(20)), (Label::Diverged, true));
        // A part of it is a warning, as ever.
        let part = report(0.8);
        let found = part.findings.iter().find(|f| f.metric == name).expect("it is worse than its best");
        assert_eq!(found.severity, Severity::Warning, "{found:?}");
    }
    // One that stands still at chance level since is lost too.
    let dead = |i: u64| {
        Some(if i < 30 { 76.0 - 60.0 * (-(i as f64) / 8.0).exp() + 0.4 * shaky[i as usize] } else { 10.0 })
    };
    let report = judged(45, &[("val_acc", &dead)]);
    assert_eq!(report.health.labels[0], Label::Diverged, "{:?}", report.findings);
    // What wanders has not learned what it loses.
    for seed in 0..20 {
        let steps = noise(seed, 800);
        let mut walk = 0.0;
        let reward: Vec<f64> = steps
            .iter()
            .map(|s| {
                walk = 0.95 * walk + s;
                walk
            })
            .collect();
        let report = judged(800, &[("reward", &|i| reward.get(i as usize).copied())]);
        assert!(
            report.findings.iter().all(|f| f.severity < Severity::Critical),
            "{seed}: {:?}",
            report.findings
        );
    }
}

#[test]
fn what_a_restart_of_the_rate_or_a_stage_explains_is_a_note() {
    let shaky = noise(7, 3000);
    let cycle = |i: u64| 0.05 * (1.0 + (std::f64::consts::PI * (i % 1000) as f64 / 1000.0).cos());
    let sgdr = |i: u64| {
        let clean = 0.3 + 2.0 * (-(i as f64) / 250.0).exp() + if i >= 1000 { 6.0 * cycle(i) } else { 0.0 };
        Some(clean * (0.04 * shaky[i as usize]).exp())
    };
    let with = judged(2300, &[("loss", &sgdr), ("lr", &|i| Some(cycle(i)))]);
    assert!(with.findings.iter().all(|f| f.severity == Severity::Note), "{:?}", with.findings);
    assert!(with.findings.iter().any(|f| f.recommendation.contains("a warm restart")), "{:?}", with.findings);
    assert_eq!(with.health.labels, [Label::Healthy]);
    let without = judged(2300, &[("loss", &sgdr), ("lr", &|_| Some(0.1))]);
    assert!(without.findings.iter().any(|f| f.severity >= Severity::Warning), "{:?}", without.findings);

    let harder = |i: u64| {
        let stage = (i / 700).min(2) as usize;
        let fall = [3.0, 0.5, 0.5][stage] * (-((i % 700) as f64) / 100.0).exp();
        Some(([1.0, 1.3, 1.6][stage] + fall) * (0.04 * shaky[i as usize]).exp())
    };
    let mut staged = Settings::default();
    let stage = |name: &str, from_step| crate::judge::schema::Stage { name: name.into(), from_step };
    staged.schema.stages = vec![stage("a", 0), stage("b", 700), stage("c", 1400)];
    let said = fed(staged, 2100, &[("loss", &harder)]).report();
    assert!(said.findings.iter().all(|f| f.severity == Severity::Note), "{:?}", said.findings);
    let unsaid = judged(2100, &[("loss", &harder)]);
    assert!(unsaid.findings.iter().any(|f| f.severity >= Severity::Warning), "{:?}", unsaid.findings);
}

#[test]
fn a_plateau_before_the_decay_of_a_constant_rate_is_a_note() {
    let shaky = noise(8, 2500);
    let loss = |i: u64| Some((3.0 + 5.0 * (-(i as f64) / 80.0).exp()) * (0.01 * shaky[i as usize]).exp());
    let told = |seen: u64, rate: &dyn Fn(u64) -> f64| {
        let planned = Settings { planned_steps: Some(2500), ..Settings::default() };
        let report = fed(planned, seen, &[("loss", &loss), ("lr", &|i| Some(rate(i)))]).report();
        of(&report, Kind::Plateau).map(|f| (f.severity, f.recommendation.contains("expect a drop")))
    };
    let wsd = |i: u64| 1e-3 * (i as f64 / 100.0).min(1.0) * (1.0 - (i as f64 - 2000.0).max(0.0) / 500.0);
    assert_eq!(told(1291, &wsd), Some((Severity::Note, true)));
    assert_eq!(told(1291, &|_| 1e-3), Some((Severity::Note, true)));
    // It came down already, or there is no more to come.
    assert_eq!(told(1291, &|i| if i < 500 { 1e-3 } else { 1e-4 }).map(|t| t.0), Some(Severity::Warning));
    assert_eq!(told(2500, &|_| 1e-3), Some((Severity::Warning, true)));
}
