//! Runs that are well although a loss of theirs rises, and such that are not.

use super::super::{Judge, Label, Report, Settings};
use super::*;

/// Noise of about one standard deviation.
struct Noise(fastrand::Rng);

impl Noise {
    fn new() -> Self {
        Self(fastrand::Rng::with_seed(7))
    }

    fn at(&mut self, sd: f64) -> f64 {
        sd * ((0..12).map(|_| self.0.f64()).sum::<f64>() - 6.0)
    }
}

fn falls(i: u32, within: f64) -> f64 {
    (-f64::from(i) / within).exp()
}

/// A run whose rows `row` gives: metrics and values of a step.
fn run(
    settings: Settings,
    steps: u32,
    mut row: impl FnMut(u32, &mut Noise) -> Vec<(&'static str, f64)>,
) -> Report {
    let (mut judge, mut noise) = (Judge::new(settings), Noise::new());
    for step in 0..steps {
        for (name, value) in row(step, &mut noise) {
            let id = judge.metric(name);
            judge.point(id, Some(u64::from(step)), None, value);
        }
    }
    judge.report()
}

fn told(report: &Report) -> String {
    let all = report.findings.iter().map(|f| format!("{:?} {:?} {}", f.severity, f.kind, f.recommendation));
    format!("{:?} {}\n{}", report.health, report.summary.text(), all.collect::<Vec<_>>().join("\n"))
}

fn is_well(report: &Report, primary: &str) {
    assert_eq!(report.primary.as_deref(), Some(primary), "{}", told(report));
    assert_eq!(report.health.labels, [Label::Healthy], "{}", told(report));
    assert!(report.findings.iter().all(|f| f.severity == Severity::Note), "{}", told(report));
}

/// The keys of Stable-Baselines3's PPO.
fn policy(reward: impl Fn(u32) -> f64) -> Report {
    run(Settings::default(), 1500, |i, noise| {
        vec![
            ("rollout/ep_rew_mean", reward(i) + noise.at(25.0)),
            ("rollout/ep_len_mean", 300.0 + noise.at(10.0)),
            ("train/value_loss", 20.0 * noise.at(0.5).exp()),
            ("train/policy_gradient_loss", -0.01 + noise.at(0.006)),
            ("train/entropy_loss", -1.4 + 1.0 - falls(i, 450.0) + noise.at(0.02)),
            ("train/approx_kl", 0.008 * noise.at(0.4).exp()),
            ("train/loss", 9.0 * noise.at(0.5).exp()),
            ("train/learning_rate", 3e-4),
        ]
    })
}

#[test]
fn an_agent_is_judged_by_what_it_earns_and_not_by_its_losses() {
    let well = policy(|i| 500.0 / (1.0 + falls(i, 125.0) * 25.0));
    is_well(&well, "rollout/ep_rew_mean");
    for verdict in ["diverged", "not learning", "plateau"] {
        let rule: crate::early::Rule = verdict.parse().unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(rule.holds(&well, &mut |_| Vec::new()), None, "{verdict}: {}", told(&well));
    }
    let lost = policy(|i| if i < 900 { 500.0 * (1.0 - falls(i, 200.0)) } else { 20.0 });
    assert!(!lost.health.labels.contains(&Label::Healthy), "{}", told(&lost));
    let worse = lost.findings.iter().find(|f| f.severity >= Severity::Warning);
    assert_eq!(worse.map(|f| f.metric.as_str()), Some("rollout/ep_rew_mean"), "{}", told(&lost));
}

/// The error of values grows as values do.
fn values(reward: impl Fn(u32) -> f64) -> Report {
    run(Settings::default(), 1000, |i, noise| {
        vec![
            ("reward", reward(i) + noise.at(60.0)),
            ("loss", 0.5 + 4.0 * (1.0 - falls(i, 200.0)) * noise.at(0.4).exp()),
            ("epsilon", (1.0 - f64::from(i) / 500.0).max(0.05)),
        ]
    })
}

#[test]
fn a_loss_that_rises_while_the_reward_does_too_is_no_divergence() {
    let well = values(|i| -200.0 + 380.0 * (1.0 - falls(i, 250.0)));
    is_well(&well, "reward");
    let rose = well.findings.iter().find(|f| f.metric == "loss" && f.kind == Kind::Divergence);
    let rose = rose.unwrap_or_else(|| panic!("{}", told(&well)));
    assert!(rose.fact(TASK).is_some_and(|now| now > 100.0), "{rose:?}");
    assert!(rose.recommendation.contains("while reward went from"), "{rose:?}");
    assert!(well.summary.text().contains("loss and task metric disagree"), "{}", told(&well));
    // With a reward that stays it is one.
    let lost = values(|_| -200.0);
    assert_eq!(lost.health.labels[0], Label::Diverged, "{}", told(&lost));
}

#[test]
fn a_part_of_the_objective_that_rises_is_a_note() {
    let steps = 3000;
    let healthy = run(Settings::default(), steps, |i, noise| {
        let loss = -1200.0 + 900.0 * falls(i, 300.0) + 200.0 * falls(i, 1500.0);
        vec![("kl", 25.0 * (1.0 - falls(i, 400.0)) + noise.at(0.6)), ("loss", loss + noise.at(15.0))]
    });
    is_well(&healthy, "loss");
    // Alone, or called the primary one, it is judged.
    let rising = |i: u32, noise: &mut Noise| vec![("kl", 5.0 + f64::from(i) / 100.0 + noise.at(0.6))];
    let alone = run(Settings::default(), steps, rising);
    assert_eq!(alone.health.labels, [Label::Diverged], "{}", told(&alone));
    let mut settings = Settings::default();
    settings.schema.primary = Some("kl".into());
    let both = run(settings, steps, |i, noise| {
        let mut row = rising(i, noise);
        row.push(("loss", 1.0 + falls(i, 300.0)));
        row
    });
    assert_eq!(both.health.labels, [Label::Diverged], "{}", told(&both));
    // What is no number is no number.
    let nan = run(Settings::default(), steps, |i, noise| {
        let kl = if i < 2000 { 5.0 + noise.at(0.6) } else { f64::NAN };
        vec![("kl", kl), ("loss", 1.0 + falls(i, 300.0) + noise.at(0.01))]
    });
    assert!(nan.findings.iter().any(|f| f.kind == Kind::NonFinite && f.severity > Severity::Note));
}

#[test]
fn what_stands_beside_the_whole_loss_is_no_failure_of_its_own() {
    let all = |whole: &'static str, part: &'static str| {
        run(Settings::default(), 1500, |i, noise| {
            let total = 2.0 + 2.0 * falls(i, 300.0) + noise.at(0.05);
            vec![(whole, total), (part, 0.4 + 0.4 * (1.0 - falls(i, 400.0)) + noise.at(0.01))]
        })
    };
    for (whole, part) in
        [("loss", "loss_kd"), ("train/total_loss", "train/router_z_loss"), ("loss", "perplexity")]
    {
        is_well(&all(whole, part), whole);
    }
    // Beside one on other data, or none, it is the loss itself.
    for (other, part) in [("val_loss", "train_nll"), ("recon_loss", "train_nll")] {
        let report = all(other, part);
        assert!(report.health.labels.contains(&Label::Diverged), "{other} {part}: {}", told(&report));
    }
}

#[test]
fn losses_that_play_against_each_other_end_nothing() {
    let adversarial = run(Settings::default(), 4000, |i, noise| {
        let mut row = vec![
            ("g_loss", 2.2 + 0.8 * (1.0 - falls(i, 400.0)) + noise.at(0.3)),
            ("d_loss", 0.55 + 0.6 * falls(i, 150.0) + noise.at(0.05)),
        ];
        if i % 100 == 0 {
            row.push(("fid", 18.0 + 180.0 * falls(i, 900.0) + noise.at(0.6)));
        }
        row
    });
    assert_eq!(adversarial.primary.as_deref(), Some("fid"));
    let grave = adversarial.findings.iter().filter(|f| f.severity > Severity::Note);
    assert_eq!(grave.filter(|f| f.metric != "fid").count(), 0, "{}", told(&adversarial));
}

/// Twelve evaluations of a fine-tuned recogniser of speech.
fn finetune(name: &'static str, of: impl Fn(u32) -> f64) -> Report {
    run(Settings::default(), 12, |i, noise| {
        vec![
            ("train_loss", 0.6 * falls(i, 2.0) + 0.02),
            ("eval_loss", 0.30 + 0.02 * f64::from(i) + noise.at(0.003)),
            (name, of(i) + noise.at(0.1)),
        ]
    })
}

#[test]
fn a_checkpoint_is_chosen_by_the_task_metric_where_the_loss_disagrees() {
    let improves = |i: u32| 12.0 + 6.0 * falls(i, 3.0);
    let report = finetune("eval_wer", improves);
    let found = report.findings.iter().find(|f| f.kind == Kind::Overfitting);
    let found = found.unwrap_or_else(|| panic!("{}", told(&report)));
    assert_eq!(found.severity, Severity::Note, "{found:?}");
    assert!(found.recommendation.contains("choose the checkpoint by eval_wer (best 1"), "{found:?}");
    assert!(!report.health.labels.contains(&Label::Overfit), "{}", told(&report));
    assert!(report.summary.text().contains("choose the checkpoint by eval_wer"), "{}", told(&report));
    // Not where it gets worse too, stays, or is of the data that is trained on.
    for (name, slope, start) in [("eval_wer", 0.4, 0.0), ("eval_wer", 0.0, 0.0), ("train_wer", 0.0, 6.0)] {
        let report = finetune(name, |i| 12.0 + slope * f64::from(i) + start * falls(i, 3.0));
        let grave =
            report.findings.iter().any(|f| f.kind == Kind::Overfitting && f.severity > Severity::Note);
        assert!(grave, "{name}: {}", told(&report));
    }
}
