//! What is said of curves whose truth is known: where they began, where they
//! go, and what is waited for.

use super::super::schema::MetricSpec;
use super::super::{End, Judge, Settings};
use super::*;

/// A judge that saw `values` of one metric; `step` gives their steps.
fn fed(settings: Settings, name: &str, step: impl Fn(u64) -> Option<u64>, values: &[f64]) -> Judge {
    let mut judge = Judge::new(settings);
    let id = judge.metric(name);
    values.iter().zip(0..).for_each(|(value, i)| judge.point(id, step(i), None, *value));
    judge
}

fn report(name: &str, step: impl Fn(u64) -> Option<u64>, values: &[f64]) -> Report {
    fed(Settings::default(), name, step, values).report()
}

/// From `from` to `to` in even steps.
fn line(from: f64, to: f64, n: u32) -> Vec<f64> {
    (0..n).map(|i| from + (to - from) * f64::from(i) / f64::from(n - 1)).collect()
}

fn waiting(name: &str, target: f64, planned: Option<u64>) -> Settings {
    let mut settings = Settings { planned_steps: planned, ..Settings::default() };
    settings.schema.metrics.insert(name.into(), MetricSpec { target: Some(target), ..MetricSpec::default() });
    settings
}

#[test]
fn a_run_is_told_from_its_first_value_to_its_last_with_steps_or_without() {
    let evaluations = [0.5419, 0.48, 0.43, 0.39, 0.3634];
    for (steps, by) in [(true, " by step 4"), (false, "")] {
        let said = report("eval_loss", |i| steps.then_some(i), &evaluations);
        let wanted = format!("eval_loss went from 0.5419 to 0.3634{by} (5 values, best 0.3634");
        assert!(said.summary.sentences[0].starts_with(&wanted), "{}", said.summary.text());
        assert_eq!(said.summary.start, Some(0.5419));
        assert!(said.summary.now.is_some_and(|now| (now - 0.3634).abs() < 1e-12));
    }
    let odd = report("loss", |_| None, &[f64::NAN, 2.0, 1.0, f64::INFINITY]);
    assert!(odd.summary.sentences[0].starts_with("loss went from 2 to inf (4 values"), "{:?}", odd.summary);
    // The level of the newest values is no value of the log, and is not told as one.
    let mut random = fastrand::Rng::with_seed(5);
    let noisy: Vec<f64> = line(3.0, 1.0, 900).into_iter().map(|v| v * (0.9 + 0.2 * random.f64())).collect();
    let mut settings = Settings::default();
    let spec = MetricSpec { unit: Some("nats".into()), ..MetricSpec::default() };
    settings.schema.metrics.insert("loss".into(), spec);
    let said = fed(settings, "loss", Some, &noisy).report();
    let (start, text) = (short(noisy[0]), said.summary.text());
    assert!(text.starts_with(&format!("loss went from {start} to about 1.0")), "{text}");
    assert!(text.contains(" nats by step 899 (900 values"), "{text}");
}

#[test]
fn a_curve_that_falls_at_every_point_is_never_called_level() {
    for n in 4..120 {
        let going = |values: &[f64]| report("loss", Some, values).metrics[0].trend.as_ref().map(|t| t.going);
        let falls = going(&line(3.0, 0.58, n));
        assert_ne!(falls, Some(Going::Level), "{n} values");
        assert!(n < 18 || falls == Some(Going::Better), "{n} values: {falls:?}");
        let still: Vec<f64> = (0..n).map(|i| 1.0 + 0.01 * f64::from(i % 3)).collect();
        let stays = going(&still);
        assert!(stays == if n < 18 { None } else { Some(Going::Level) }, "{n} values: {stays:?}");
    }
    let mut lost = line(3.0, 1.0, 90);
    lost.push(f64::NAN);
    assert_eq!(report("loss", Some, &lost).metrics[0].trend, None);
}

#[test]
fn a_spike_that_came_and_went_bends_no_forecast() {
    let plain = line(3.0, 2.01, 100);
    let clean = report("loss", |i| Some(10 * i), &plain).forecast.expect("values enough");
    for (at, width) in [(70, 1), (40, 1), (60, 3), (55, 8)] {
        let mut spiked = plain.clone();
        spiked[at..at + width].iter_mut().for_each(|v| *v = 99.0);
        let found = report("loss", |i| Some(10 * i), &spiked).forecast.expect("values enough");
        assert!(
            (found.value - clean.value).abs() < 0.3 && found.high < 2.6,
            "{at}: {found:?}, not {clean:?}"
        );
    }
}

#[test]
fn no_forecast_is_impossible() {
    for n in [20, 40, 60, 200] {
        for (name, values, floor, cap) in [
            ("loss", line(3.0, 0.3, n), 0.0, 3.0),
            ("val/acc", line(0.1, 0.995, n), 0.1, 1.0),
            ("top1", line(10.0, 99.0, n), 10.0, 100.0),
        ] {
            if let Some(found) = report(name, Some, &values).forecast {
                assert!(
                    found.low >= floor && found.high <= cap && found.low <= found.value,
                    "{name} {found:?}"
                );
                assert!(found.value <= found.high && found.low < found.high, "{name} {found:?}");
            }
        }
    }
    // A reward has no end, and a loss that was below zero may fall further.
    let reward = report("reward", Some, &line(0.1, 0.99, 60)).forecast.expect("values enough");
    assert!(reward.high > 1.0, "{reward:?}");
    let below = report("loss", Some, &line(1.0, -2.0, 60)).forecast.expect("values enough");
    assert!(below.value < -2.0, "{below:?}");
}

#[test]
fn nothing_is_foreseen_of_a_run_that_is_over_and_no_plan_is_made_up() {
    let falling: Vec<f64> = (0..100).map(|i| 0.5 + 2.5 * (-f64::from(i) / 40.0).exp()).collect();
    let with = |planned| {
        let settings = Settings { planned_steps: planned, ..Settings::default() };
        fed(settings, "loss", |i| Some(10 * i), &falling)
    };
    let said = with(None).report();
    assert!(said.forecast.is_some_and(|f| !f.planned && f.step == 1485));
    assert!(said.summary.sentences[2].contains("at step 1485, were it half as long again"));
    let said = with(Some(4000)).report();
    assert!(said.forecast.is_some_and(|f| f.planned && f.step == 4000));
    assert!(said.summary.sentences[2].ends_with("expected at step 4000."), "{:?}", said.summary);
    // 990 is the last step of a thousand that is logged every ten.
    for planned in [500, 991, 1000] {
        assert_eq!(with(Some(planned)).report().forecast, None, "planned {planned}");
    }
    let mut ended = with(Some(4000));
    ended.end(Some(End::default()));
    assert_eq!((ended.report().forecast, ended.report().summary.sentences.len()), (None, 2));
    ended.segment();
    assert!(ended.report().forecast.is_some(), "it goes on");
    let lost: Vec<f64> = falling.iter().copied().chain((0..40).map(|_| 50.0)).collect();
    assert_eq!(report("loss", Some, &lost).forecast, None);
}

#[test]
fn the_end_of_a_run_that_ended_is_not_waited_for() {
    let timed = |planned, last: u64| {
        let mut judge = Judge::new(Settings { planned_steps: Some(planned), ..Settings::default() });
        let id = judge.metric("loss");
        let point = |step: u64| (Some(step), Some(step as f64), 1.0 + 1.0 / (step + 1) as f64);
        (0..=last).step_by(10).map(point).for_each(|(step, time, value)| judge.point(id, step, time, value));
        judge
    };
    let left = |judge: &Judge| judge.report().finish.map(|f| f.seconds_left);
    assert_eq!(left(&timed(1000, 490)), Some(509.0));
    assert_eq!(left(&timed(1000, 990)), Some(0.0), "the last nine steps are not logged");
    let mut ended = timed(1000, 490);
    ended.end(Some(End::default()));
    assert_eq!(left(&ended), None);
}

#[test]
fn a_target_of_any_metric_is_reached_or_told_when_it_will_be() {
    let accuracy: Vec<f64> = (0..120).map(|i| 0.9 * (1.0 - (-f64::from(i) / 40.0).exp())).collect();
    let told = |target, planned, values: &[f64], ended| {
        let mut judge = fed(waiting("val/acc", target, planned), "val/acc", |i| Some(100 * i), values);
        let other = judge.metric("val/loss");
        (0..40).for_each(|i| judge.point(other, Some(100 * i), None, 1.0 / (i + 1) as f64));
        if ended {
            judge.end(Some(End::default()));
        }
        let report = judge.report();
        assert_eq!(report.primary.as_deref(), Some("val/loss"));
        let found = report.metrics[0].target.clone().expect("waited for");
        let wanted = format!("Targets: val/acc {}.", found.text);
        assert!(report.summary.sentences.contains(&wanted), "{wanted} {:?}", report.summary.sentences);
        found
    };
    // It is 0.5 at step 3244, 0.8 at step 8789, 0.85 at step 11561, and never 0.9.
    let reached = told(0.5, None, &accuracy, false);
    assert_eq!((reached.verdict, reached.step), (Verdict::Reached, Some(3300)));
    assert_eq!(reached.text, "reached 0.5 at step 3300");
    let expected = told(0.8, None, &accuracy[..80], false);
    assert_eq!(expected.verdict, Verdict::Expected, "{expected:?}");
    let (step, earliest, latest) =
        (expected.step.unwrap(), expected.earliest.unwrap(), expected.latest.unwrap());
    assert!(step.abs_diff(8789) < 400 && earliest <= step && step <= latest, "{expected:?}");
    assert_eq!(expected.text, format!("reaches 0.8 at step {step} ({earliest} to {latest})"));
    let never = told(1.5, None, &accuracy, false);
    assert_eq!(never.verdict, Verdict::NotExpected, "{never:?}");
    assert!(never.text.starts_with("will not reach 1.5 by step "), "{}", never.text);
    let never = told(0.97, Some(13_000), &accuracy, false);
    assert_eq!(never.text, "will not reach 0.97 by step 13000, its planned end");
    let never = told(0.85, Some(9500), &accuracy[..90], false);
    assert_eq!(never.text, "will not reach 0.85 by step 9500, its planned end");
    let late = told(0.85, Some(10_900), &accuracy[..90], false);
    assert_eq!(late.verdict, Verdict::Uncertain, "{late:?}");
    assert!(
        late.text.starts_with("may reach 0.85 by step 10900, its planned end, but is expected to at step 11"),
        "{late:?}"
    );
    let over = told(0.85, None, &accuracy[..90], true);
    assert_eq!((over.verdict, over.text.as_str()), (Verdict::Missed, "did not reach 0.85"));
    let few = told(0.85, None, &accuracy[..9], false);
    assert_eq!(few.verdict, Verdict::Unknown);
    // Nobody knows which way an unknown metric should go.
    let odd = fed(waiting("odd", 5.0, None), "odd", Some, &accuracy).report();
    assert_eq!(odd.metrics[0].target, None);
}

#[test]
fn the_checkpoint_to_take_is_that_of_the_best_value() {
    let mut judge = Judge::new(Settings::default());
    let (train, validation) = (judge.metric("train/loss"), judge.metric("val/loss"));
    let mut random = fastrand::Rng::with_seed(4);
    for step in 0..400_u64 {
        let (i, noise) = (step as f64, 0.98 + 0.04 * random.f64());
        judge.point(train, Some(step), None, (0.1 + 2.0 * (-i / 60.0).exp()) * noise);
        if step % 10 == 0 {
            // One evaluation before the turn is lower than all others.
            let value = 0.6 + (-i / 20.0).exp() + 0.002 * (i - 120.0).max(0.0);
            judge.point(validation, Some(step), None, if step == 90 { 0.55 } else { value * noise });
        }
    }
    let report = judge.report();
    let found = report.findings.iter().find(|f| f.metric == "val/loss").expect("it overfits");
    assert_eq!(found.kind, crate::judge::Kind::Overfitting, "{found:?}");
    let text = &found.recommendation;
    assert!(
        text.starts_with("val/loss was at best 0.55 at step 90, turned for the worse near step 1"),
        "{text}"
    );
    assert!(text.contains("take the checkpoint of step 90,"), "{text}");
}

#[test]
fn a_run_with_values_that_are_no_numbers_is_not_called_healthy() {
    let mut values: Vec<f64> = (0..300).map(|i| 0.5 + 2.0 * (-f64::from(i) / 40.0).exp()).collect();
    (values[80], values[81]) = (f64::NAN, f64::INFINITY);
    assert_eq!(report("loss", Some, &values).health.labels, [Label::Unstable]);
}

#[test]
fn no_rate_is_advised_where_nothing_was_learned() {
    let advice = |rate: f64, lost: u64| {
        let mut judge = Judge::new(Settings::default());
        let (loss, lr) = (judge.metric("loss"), judge.metric("lr"));
        for step in 0..200 {
            // It leaves what it had reached before it is no number.
            let value = if step + 2 < lost { 2.0 / (step + 1) as f64 } else { 20.0 };
            judge.point(loss, Some(step), None, if step < lost { value } else { f64::NAN });
            judge.point(lr, Some(step), None, rate);
        }
        let kind = crate::judge::Kind::LearningRateTooHigh;
        judge.report().findings.into_iter().find(|f| f.kind == kind).expect("found").recommendation
    };
    assert!(
        advice(1e30, 1)
            .ends_with("it was lost after 1 of its values, so search upwards from rates far below it")
    );
    assert!(advice(0.3, 120).ends_with("100% of its highest: try 0.1"), "{}", advice(0.3, 120));
}

/// A log of `n` measurements, one a minute.
fn measured(name: &str, value: impl Fn(f64) -> f64, n: u32) -> Judge {
    let mut judge = Judge::new(Settings::default());
    (0..n).for_each(|i| judge.machine(name, 1e9 + 60.0 * f64::from(i), value(f64::from(i) / f64::from(n))));
    judge
}

#[test]
fn what_fills_up_is_told_with_its_numbers_and_full_only_where_the_log_says_of_what() {
    let mut random = fastrand::Rng::with_seed(7);
    let noise: Vec<f64> = (0..241).map(|_| random.f64() - 0.5).collect();
    let shaky = |x: f64| noise[(x * 240.0) as usize];
    let resources = |judge: &Judge| judge.report().resources;
    // Four hours from 50 to 95: 11.25 an hour, full after 0.44 hours more.
    let disk = resources(&measured("disk./.usagePercent", |x| 50.0 + 45.0 * x + shaky(x), 240));
    let found = &disk[0];
    assert!(found.seconds_left.is_some_and(|s| (s - 1600.0).abs() < 200.0), "{found:?}");
    assert!((found.slope - 11.25).abs() < 0.5 && found.timed && found.limit == Some(100.0), "{found:?}");
    assert!(found.text.starts_with("disk./.usagePercent rose from 7"), "{}", found.text);
    assert!(found.text.contains(" an hour): full in about "), "{}", found.text);
    // 95 of what? Nothing says so.
    let rss = resources(&measured("proc.memory.rssMB", |x| 50.0 + 45.0 * x + shaky(x), 240));
    assert_eq!((rss[0].limit, rss[0].seconds_left), (None, None));
    assert!(rss[0].text.ends_with("; no total is logged that says when it is full"), "{}", rss[0].text);
    let left = resources(&measured("proc.memory.availableMB", |x| 9000.0 - 6000.0 * x + shaky(x), 240));
    assert!(
        left[0].text.contains(" fell from ") && left[0].text.contains(" an hour): used up in about 2."),
        "{left:?}"
    );
    let mut judge = measured("memory/used_gb", |x| 10.0 + 20.0 * x + 0.1 * shaky(x), 240);
    (0..240).for_each(|i| judge.machine("memory/total_gb", 1e9 + 60.0 * f64::from(i), 40.0));
    assert_eq!(resources(&judge)[0].limit, Some(40.0));
    assert!(judge.report().summary.text().contains("Resources: memory/used_gb rose from "));
    judge.end(Some(End::default()));
    assert_eq!(resources(&judge)[0].seconds_left, None, "it is over");
    // Level, saturated, noisy, too short, or no store at all.
    for (name, n, value) in [
        ("memory_percent", 240, &(|x: f64| 50.0 + 5.0 * shaky(x)) as &dyn Fn(f64) -> f64),
        ("memory_percent", 240, &|x| 80.0 * (1.0 - (-x * 30.0).exp()) + shaky(x)),
        ("memory_percent", 240, &|x| 50.0 + 0.3 * x + shaky(x)),
        ("memory_percent", 16, &|x| 50.0 + 45.0 * x),
        ("disk.vda.in", 240, &|x| 900.0 * x),
        ("memory_percent", 240, &|x| 90.0 - 45.0 * x),
    ] {
        assert_eq!(resources(&measured(name, value, n)), [], "{name} {n}");
    }
}

#[test]
fn resources_that_are_logged_with_steps_are_full_at_a_step() {
    let values: Vec<f64> = (0..200).map(|i| 40.0 + 0.25 * f64::from(i) + f64::from(i % 3)).collect();
    let with = |planned| {
        let settings = Settings { planned_steps: planned, ..Settings::default() };
        fed(settings, "gpu_memory_percent", |i| Some(10 * i), &values).report().resources
    };
    // 90.25 at step 1990 and 25 in 1000 steps.
    let found = with(None);
    assert!(found[0].limit_step.is_some_and(|step| step.abs_diff(2400) < 60), "{found:?}");
    assert!(!found[0].timed && (found[0].slope - 25.0).abs() < 1.0);
    assert!(with(Some(2200))[0].text.ends_with(", after the planned end"));
    assert!(!with(Some(9000))[0].text.contains("planned"));
}

#[test]
fn steps_that_repeat_or_go_back_are_told() {
    let twice = report("loss", |i| Some(i / 2), &line(3.0, 1.0, 200));
    assert_eq!(twice.notes, ["values under the step of the value before them: 100 of 200 values of loss"]);
    let back = |i: u64| Some(if i < 150 { i } else { i - 50 });
    let values = line(3.0, 1.0, 250);
    let notes = report("loss", back, &values).notes;
    assert_eq!(notes, ["steps go back although the log names no restart: loss once, first from 149 to 100"]);
    let mut judge = Judge::new(Settings::default());
    let loss = judge.metric("loss");
    for (i, value) in (0..).zip(&values) {
        if i == 150 {
            judge.segment();
        }
        judge.point(loss, back(i), None, *value);
    }
    assert_eq!(judge.report().notes, [] as [&str; 0], "the log names the restart");
}

#[test]
fn where_evaluations_are_too_few_the_training_loss_is_foreseen() {
    let with = |evaluations: u64| {
        let mut judge = Judge::new(Settings { planned_steps: Some(6000), ..Settings::default() });
        let (loss, eval, epoch) = (judge.metric("loss"), judge.metric("eval_loss"), judge.metric("epoch"));
        for i in 1..=200 {
            let (step, value) = (10 * i, 0.5 + 2.5 * (-(i as f64) / 80.0).exp());
            judge.point(loss, Some(step), None, value);
            judge.point(epoch, Some(step), None, i as f64 / 20.0);
            if i % (200 / evaluations) == 0 {
                judge.point(eval, Some(step), None, value + 0.1);
                judge.point(epoch, Some(step), None, i as f64 / 20.0);
            }
        }
        judge.report()
    };
    let few = with(10);
    assert_eq!((few.primary.as_deref(), &few.forecast), (Some("eval_loss"), &None));
    let text = few.summary.text();
    let said = "Ahead: 10 values of eval_loss are too few to foresee it (16 are needed); loss: about ";
    assert!(text.contains(said) && text.contains("expected at step 6000"), "{text}");
    // Rows of the same step that all have the epoch are how the Trainer writes.
    assert_eq!(few.notes, [] as [&str; 0]);
    let enough = with(40);
    assert!(enough.forecast.is_some() && !enough.summary.text().contains("too few"), "{enough:?}");
}
