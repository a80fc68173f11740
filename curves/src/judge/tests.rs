//! The judge on made-up curves whose trouble is known.

use super::*;

fn fed(points: impl IntoIterator<Item = (&'static str, Option<u64>, f64)>) -> Judge {
    let mut judge = Judge::new(Settings::default());
    for (name, step, value) in points {
        let id = judge.metric(name);
        judge.point(id, step, None, value);
    }
    judge
}

#[test]
fn nothing_is_a_report_too() {
    let report = Judge::new(Settings::default()).report();
    assert_eq!((report.findings.len(), report.primary), (0, None));
}

#[test]
fn the_first_value_that_is_not_finite_is_told_to_the_step() {
    let judge = fed(
        (0..500).map(|i| ("loss", Some(i * 10), if i == 321 { f64::NAN } else { 2.0 - i as f64 * 1e-3 }))
    );
    let report = judge.report();
    let finding = report.findings.iter().find(|f| f.kind == Kind::NonFinite).expect("found");
    assert_eq!(
        (finding.first_step, finding.last_step, finding.severity),
        (Some(3210), Some(3210), Severity::Warning)
    );
}

#[test]
fn metrics_beyond_the_bound_are_counted() {
    let mut judge = Judge::new(Settings::default());
    for i in 0..MAX_METRICS + 3 {
        let id = judge.metric(&format!("m{i}"));
        judge.point(id, None, None, 1.0);
    }
    let long = judge.metric(&"x".repeat(MAX_NAME_BYTES + 1));
    judge.point(long, None, None, 1.0);
    let report = judge.report();
    assert_eq!((report.metrics.len(), report.dropped_points), (MAX_METRICS, 4));
}

#[test]
fn the_loss_of_a_run_with_a_thousand_layers_is_judged() {
    let mut judge = Judge::new(Settings::default());
    let layers: Vec<_> = (0..1200).map(|i| judge.metric(&format!("layer{i}/weight"))).collect();
    let losses = ["train/loss", "val/loss"].map(|name| judge.metric(name));
    for step in 0..100 {
        layers.iter().for_each(|id| judge.point(*id, Some(step), None, 1.0 / (step + 1) as f64));
        losses
            .iter()
            .for_each(|id| judge.point(*id, Some(step), None, if step > 50 { f64::NAN } else { 1.0 }));
    }
    let many: Vec<_> = (0..200).map(|i| judge.metric(&format!("head{i}/loss"))).collect();
    assert_eq!(many.iter().filter(|id| id.0.is_some()).count(), MORE_JUDGED - 2);
    let report = judge.report();
    assert_eq!(report.primary.as_deref(), Some("val/loss"));
    assert_eq!(report.health.labels[0], Label::Diverged);
    assert_eq!((report.findings[0].kind, report.findings[0].first_step), (Kind::NonFinite, Some(51)));
    assert_eq!(report.dropped_points, 200 * 100);
}

fn noise(random: &mut fastrand::Rng) -> f64 {
    1.0 + 0.02 * (random.f64() - 0.5)
}

/// A loss that falls from 3 to 0.5, with `change` applied to each value.
fn run(settings: Settings, steps: u64, change: impl Fn(u64, f64) -> f64) -> Judge {
    let mut judge = Judge::new(settings);
    let mut random = fastrand::Rng::with_seed(2);
    let loss = judge.metric("train/loss");
    for step in 0..steps {
        let clean = 0.5 + 2.5 * (-(step as f64) / 200.0).exp();
        judge.point(loss, Some(step), Some(step as f64), change(step, clean * noise(&mut random)));
    }
    judge
}

fn kinds(report: &Report) -> Vec<Kind> {
    report.findings.iter().map(|f| f.kind).collect()
}

#[test]
fn a_report_may_be_asked_for_at_any_time_and_changes_nothing() {
    let spiked = |step, value| if (400..405).contains(&step) { value * 20.0 } else { value };
    let mut judge = Judge::new(Settings::default());
    let whole = run(Settings::default(), 900, spiked).report();
    let loss = judge.metric("train/loss");
    let mut random = fastrand::Rng::with_seed(2);
    let mut open = 0;
    for step in 0..900 {
        let clean = 0.5 + 2.5 * (-(step as f64) / 200.0).exp();
        judge.point(loss, Some(step), Some(step as f64), spiked(step, clean * noise(&mut random)));
        let report = judge.report();
        open += usize::from(report.findings.iter().any(|f| f.kind == Kind::Spike && f.last_step.is_none()));
    }
    assert!((3..=8).contains(&open), "the spike lasts for {open} reports");
    assert_eq!(judge.report(), whole);
    let spike = whole.findings.iter().find(|f| f.kind == Kind::Spike).expect("found");
    assert_eq!((spike.first_step, spike.last_step), (Some(400), Some(404)));
    assert!(spike.fact("times the level").is_some_and(|r| (18.0..22.0).contains(&r)), "{spike:?}");
}

#[test]
fn sensitivity_zero_turns_a_metric_off_and_a_higher_one_finds_more() {
    let small = |step, value| if step == 400 { value * 1.14 } else { value };
    let with = |sensitivity| {
        let mut settings = Settings::default();
        let spec = schema::MetricSpec { sensitivity: Some(sensitivity), ..schema::MetricSpec::default() };
        settings.schema.metrics.insert("train/loss".into(), spec);
        kinds(&run(settings, 700, small).report()).contains(&Kind::Spike)
    };
    assert!(with(2.0) && !with(0.5) && !with(0.0));
}

#[test]
fn steps_that_are_absent_repeated_or_odd_change_no_verdict() {
    let mut verdicts = Vec::new();
    for variant in 0..3 {
        let mut judge = Judge::new(Settings::default());
        let mut random = fastrand::Rng::with_seed(2);
        let loss = judge.metric("loss");
        for step in 0..900_u64 {
            let named = match variant {
                0 => Some(step),
                1 => None,
                _ => Some(step / 2 * 2),
            };
            let clean = 0.5 + 2.5 * (-(step as f64) / 200.0).exp();
            judge.point(loss, named, None, clean * noise(&mut random) * if step >= 600 { 9.0 } else { 1.0 });
        }
        let report = judge.report();
        let diverged = report.findings.iter().find(|f| f.kind == Kind::Divergence).expect("found");
        verdicts.push((report.health.score, diverged.first_step));
    }
    assert_eq!(verdicts.iter().map(|v| v.1).collect::<Vec<_>>(), [Some(600), None, Some(600)]);
    assert!(verdicts.iter().all(|v| v.0 <= Some(20)), "{verdicts:?}");
}

#[test]
fn a_stall_that_lasts_needs_the_callers_clock() {
    let judge = run(Settings::default(), 300, |_, v| v);
    assert!(!kinds(&judge.report_at(300.0)).contains(&Kind::Stall));
    let report = judge.report_at(400.0);
    let stall = report.findings.iter().find(|f| f.kind == Kind::Stall).expect("found");
    assert_eq!((stall.first_step, stall.last_step, stall.severity), (Some(299), None, Severity::Critical));
    assert_eq!(report.health.labels, [Label::Stalled]);
}

#[test]
fn the_end_of_a_run_and_a_target_are_foreseen() {
    let settings = Settings { planned_steps: Some(1200), target: Some(0.6), ..Settings::default() };
    let report = run(settings, 400, |_, v| v).report();
    let finish = report.finish.expect("steps and times");
    assert!(
        (finish.seconds_left - 800.0).abs() < 5.0 && (finish.done - 1.0 / 3.0).abs() < 0.01,
        "{finish:?}"
    );
    let forecast = report.forecast.expect("enough points");
    assert!(forecast.low <= 0.51 && forecast.high >= 0.5, "{forecast:?}");
    let target = forecast.target.expect("waited for");
    // 0.5 + 2.5 exp(-s / 200) is 0.6 at step 644.
    assert!(
        target.earliest.is_some_and(|s| s <= 660) && target.latest.is_none_or(|s| s >= 620),
        "{target:?}"
    );
    let never = Settings { target: Some(0.2), ..Settings::default() };
    let report = run(never, 900, |_, v| v).report();
    let arrival = report.forecast.and_then(|f| f.target).expect("waited for");
    assert_eq!(arrival.verdict, Verdict::NotExpected, "{arrival:?}");
    assert!(arrival.text.starts_with("will not reach 0.2 by step "), "{}", arrival.text);
}

#[test]
fn what_is_left_of_a_run_costs_what_its_hours_do() {
    let settings = Settings { planned_steps: Some(1200), ..Settings::default() };
    let mut judge = run(settings, 400, |_, v| v);
    assert_eq!(judge.report().finish.and_then(|finish| finish.usd_left), None);
    judge.costs(Some(3.6));
    let report = judge.report();
    let usd = report.finish.as_ref().and_then(|finish| finish.usd_left).expect("the price is known");
    assert!((usd - 0.8).abs() < 0.01, "{usd}");
    assert!(report.summary.text().contains(" and about $0.80 left."), "{}", report.summary.text());
    judge.end(Some(End::default()));
    assert!(!judge.report().summary.text().contains('$'));
}

#[test]
fn nothing_is_ahead_of_a_run_that_is_over() {
    let settings = Settings { planned_steps: Some(1200), target: Some(0.6), ..Settings::default() };
    let mut judge = run(settings, 400, |_, v| v);
    assert!(judge.report().summary.text().contains("Ahead: "));
    judge.end(Some(End { failed: true, text: "The run failed: exit code 1.".into() }));
    let report = judge.report();
    assert_eq!((report.forecast, report.finish), (None, None));
    assert_eq!(report.health.labels, [Label::Failed]);
    let told = report.summary.text();
    assert!(told.starts_with("The run failed: exit code 1. ") && !told.contains("Ahead"), "{told}");
    assert!(told.contains("Its metrics were fine until then") && !told.contains("healthy"), "{told}");
}

#[test]
fn stages_share_the_gain() {
    let mut settings = Settings::default();
    settings.schema.stages = vec![
        schema::Stage { name: "easy".into(), from_step: 0 },
        schema::Stage { name: "hard".into(), from_step: 300 },
        schema::Stage { name: "later".into(), from_step: 5000 },
    ];
    let report = run(settings, 900, |_, v| v).report();
    let shares: Vec<_> = report.stages.iter().map(|s| s.share_of_gain).collect();
    assert!(shares[0].is_some_and(|s| s > 0.6) && shares[1].is_some_and(|s| s < 0.4), "{shares:?}");
    assert_eq!((shares[2], report.stages[2].points, report.stages[0].to_step), (None, 0, Some(299)));
}

#[test]
fn the_summary_is_short_and_claims_no_significance() {
    for (steps, change) in [(0_u64, 1.0), (10, 1.0), (900, 1.0), (900, 30.0)] {
        let report = run(Settings::default(), steps, |s, v| if s > 700 { v * change } else { v }).report();
        let text = report.summary.text();
        assert!((2..=3).contains(&report.summary.sentences.len()), "{text}");
        assert!(!text.to_lowercase().contains("significan") && text.len() < 900, "{text}");
    }
    let healthy = run(Settings::default(), 900, |_, v| v).report();
    assert!(healthy.summary.text().starts_with("train/loss went from 2."), "{}", healthy.summary.text());
    let never = run(Settings::default(), 900, |_, _| f64::NAN).report();
    assert!(
        never.summary.text().starts_with("train/loss was no number in any of 900 values"),
        "{}",
        never.summary.text()
    );
}

#[test]
fn after_a_restart_a_higher_level_is_the_restarts() {
    let mut judge = run(Settings::default(), 600, |_, v| v);
    judge.segment();
    let mut random = fastrand::Rng::with_seed(8);
    let loss = judge.metric("train/loss");
    for step in 580..900_u64 {
        let clean = 0.5 + 2.5 * (-(step as f64) / 200.0).exp();
        let lost = 1.0 + 1.5 * (-(step as f64 - 580.0) / 60.0).exp();
        judge.point(loss, Some(step), Some(2000.0 + step as f64), clean * lost * noise(&mut random));
    }
    let report = judge.report();
    assert_eq!(kinds(&report).iter().filter(|k| **k == Kind::ResumeJump).count(), 1, "{:?}", report.findings);
    assert_eq!(report.findings[0].first_step, Some(580));
    assert!(!kinds(&report).contains(&Kind::Stall), "the time between lives is no stall");
    assert!(report.moments.iter().any(|m| m.kind == MomentKind::Resume && m.step == Some(599)));
}

/// A run of 2,000 steps that goes wrong at 1,200, is resumed from 1,000 and is
/// then healthy; `void` says that the resume makes the rows after 1,000 void.
fn resumed(void: bool, wrong: impl Fn(u64, f64) -> f64) -> Report {
    let mut judge = Judge::new(Settings::default());
    let mut random = fastrand::Rng::with_seed(2);
    let mut clean = |step: u64| (0.5 + 2.5 * (-(step as f64) / 200.0).exp()) * noise(&mut random);
    let ids = ["train/loss", "grad_norm"].map(|m| judge.metric(m));
    for step in 0..1500 {
        let value = clean(step);
        let value = if step >= 1200 { wrong(step, value) } else { value };
        ids.iter().for_each(|id| judge.point(*id, Some(step), Some(step as f64), value));
    }
    if void {
        judge.segment_from(Some(1000));
    } else {
        judge.segment();
    }
    for step in 1000..2000 {
        let value = clean(step);
        ids.iter().for_each(|id| judge.point(*id, Some(step), Some(3000.0 + step as f64), value));
    }
    judge.report()
}

#[test]
fn rows_that_a_resume_made_void_are_judged_no_more() {
    let faults: [fn(u64, f64) -> f64; 3] = [
        |_, _| f64::NAN,
        |step, value| if step < 1210 { value * 30.0 } else { value },
        |_, value| value * 0.01,
    ];
    for (i, fault) in faults.into_iter().enumerate() {
        let (kept, void) = (resumed(false, fault), resumed(true, fault));
        let loss = &void.metrics[0];
        // It has come to rest by its end, which is worth a note.
        let wrong = void.findings.iter().any(|f| f.kind != Kind::Plateau || f.severity > Severity::Note);
        assert!(!wrong && void.health.score >= Some(95), "{i}: {:?}", void.findings);
        assert_eq!(loss.last_step, Some(1999));
        // The boundary may cut a bucket of eight.
        assert!(loss.count.abs_diff(2000) <= 8, "{i}: {}", loss.count);
        assert!(loss.best.is_some_and(|b| b > 0.45) && loss.best_step.is_some(), "{i}: {:?}", loss.best);
        assert!(void.moments.iter().any(|m| m.kind == MomentKind::Resume));
        assert!(
            kept.findings != void.findings || kept.metrics[0].best != loss.best,
            "{i}: it was seen before"
        );
    }
}

#[test]
fn a_curve_that_falls_is_no_higher_for_going_back_to_a_checkpoint() {
    for (reached, back) in [(170, 101), (120, 101), (400, 380), (109, 101)] {
        let mut judge = Judge::new(Settings::default());
        let loss = judge.metric("loss");
        let value = |step: u64| 0.1 + 2.0 * (-(step as f64) / 40.0).exp();
        (1..=reached).for_each(|step| judge.point(loss, Some(step), None, value(step)));
        judge.segment_from(Some(back));
        (back..=600).for_each(|step| judge.point(loss, Some(step), None, value(step)));
        let jumps = judge.report().findings.into_iter().filter(|f| f.kind == Kind::ResumeJump).count();
        assert_eq!(jumps, 0, "from {reached} back to {back}");
    }
}

#[test]
fn a_run_that_begins_anew_keeps_nothing_of_what_is_void() {
    let mut judge = run(Settings::default(), 300, |_, v| 1000.0 * v);
    judge.segment_from(Some(0));
    let loss = judge.metric("train/loss");
    (0..100).for_each(|step| judge.point(loss, Some(step), None, 1.0 / (step + 1) as f64));
    let report = judge.report();
    let loss = &report.metrics[0];
    assert_eq!(
        (loss.count, loss.best, loss.best_step, loss.last_step),
        (100, Some(0.01), Some(99), Some(99))
    );
    assert_eq!(loss.name, "train/loss");
}

#[test]
fn a_jump_after_a_resume_is_told_though_the_rows_before_are_void() {
    let mut judge = run(Settings::default(), 600, |_, v| v);
    judge.segment_from(Some(560));
    let mut random = fastrand::Rng::with_seed(8);
    let loss = judge.metric("train/loss");
    (560..900).for_each(|step| judge.point(loss, Some(step), None, 0.9 * noise(&mut random)));
    let jumps: Vec<_> = judge.report().findings.into_iter().filter(|f| f.kind == Kind::ResumeJump).collect();
    assert_eq!(jumps.iter().map(|f| f.first_step).collect::<Vec<_>>(), [Some(560)]);
}

#[test]
fn a_spike_without_a_step_outlasts_the_rows_before_it() {
    let mut judge = run(Settings::default(), 300, |_, v| v);
    let loss = judge.metric("train/loss");
    (0..3).for_each(|_| judge.point(loss, None, None, 50.0));
    judge.segment_from(Some(20));
    (20..40).for_each(|step| judge.point(loss, Some(step), None, 50.0));
    let spikes: Vec<_> = judge.report().findings.into_iter().filter(|f| f.kind == Kind::Spike).collect();
    assert!(spikes.iter().all(|f| f.fact("points").is_some_and(|n| n < 100.0)), "{spikes:?}");
}

mod hostile {
    use super::*;
    use proptest::prelude::*;

    fn value() -> impl Strategy<Value = f64> {
        prop_oneof![
            4 => -1e3_f64..1e3,
            1 => any::<f64>(),
            1 => Just(0.0),
            1 => Just(f64::NAN),
            1 => Just(f64::MAX),
            1 => Just(f64::MIN_POSITIVE),
        ]
    }

    const NAMES: [&str; 9] = [
        "train/loss",
        "val/loss",
        "val/acc",
        "lr",
        "grad_norm",
        "tokens/s",
        "loss_scale",
        "step_time",
        "other",
    ];

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(60))]
        #[test]
        fn any_points_give_a_report_that_can_be_stored(
            points in prop::collection::vec((0_usize..9, prop::option::of(prop_oneof![8 => 0_u64..200, 1 => any::<u64>()]), prop::option::of(any::<f64>()), value()), 0..1500),
            repeat in 1_usize..4,
            restart in prop::option::of(0_usize..1500),
        ) {
            let mut judge = Judge::new(Settings { planned_steps: Some(300), ..Settings::default() });
            for round in 0..repeat {
                for (i, (metric, step, time, value)) in points.iter().enumerate() {
                    if restart == Some(i) {
                        judge.segment_from(*step);
                    }
                    let id = judge.metric(NAMES[*metric]);
                    judge.point(id, step.map(|s| s.saturating_add(100 * round as u64)), *time, *value);
                }
            }
            let report = judge.report_at(1e9);
            let text = serde_json::to_string(&report).expect("serialises");
            let read: Report = serde_json::from_str(&text).expect("reads");
            prop_assert_eq!(read.findings.len(), report.findings.len());
        }
    }
}
