//! Twelve real trainings of a small network, whose conditions are known: what
//! is said of each. The detectors were not tuned on them.

use curves::judge::{Finding, Judge, Kind, Label, Report, Settings, Severity};

fn judged(name: &str) -> Report {
    let path = format!("{}/tests/data/{name}.csv", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{path}: {e}"));
    let mut lines = text.lines();
    let names: Vec<&str> = lines.next().expect("a head").split(',').skip(1).collect();
    let mut judge = Judge::new(Settings::default());
    let ids: Vec<_> = names.iter().map(|n| judge.metric(n)).collect();
    for line in lines {
        let mut cells = line.split(',');
        let step: u64 = cells.next().and_then(|c| c.parse().ok()).expect("a step");
        for (id, cell) in ids.iter().zip(cells) {
            if let Ok(value) = cell.parse() {
                judge.point(*id, Some(step), Some(1.7e9 + step as f64 * 0.05), value);
            }
        }
    }
    judge.report()
}

fn of(report: &Report, kind: Kind) -> Vec<&Finding> {
    report.findings.iter().filter(|f| f.kind == kind).collect()
}

fn told(report: &Report) -> String {
    let all: Vec<String> = report
        .findings
        .iter()
        .map(|f| {
            format!(
                "{:?} {} in {} from {:?} to {:?}: {}",
                f.severity,
                f.kind.name(),
                f.metric,
                f.first_step,
                f.last_step,
                f.recommendation
            )
        })
        .collect();
    format!(
        "{:?} {:?}\n{}\n{}",
        report.health.score,
        report.health.labels,
        report.summary.text(),
        all.join("\n")
    )
}

#[test]
fn healthy_trainings_are_called_healthy() {
    for name in ["ok_cosine", "seedA_0", "seedA_1", "seedA_2", "seedB_0", "seedB_1", "seedB_2"] {
        let report = judged(name);
        let grave: Vec<_> = report.findings.iter().filter(|f| f.severity >= Severity::Warning).collect();
        assert!(grave.is_empty(), "{name}: {}", told(&report));
        assert_eq!(report.health.labels, [Label::Healthy], "{name}");
        assert!(report.health.score >= Some(85), "{name}");
    }
}

#[test]
fn nan_from_the_second_step_on() {
    let report = judged("nan_lr");
    let found = of(&report, Kind::NonFinite);
    assert!(found.iter().any(|f| f.metric == "train/loss" && f.first_step == Some(1)), "{}", told(&report));
    assert!(
        report.health.score <= Some(20) && report.health.labels[0] == Label::Diverged,
        "{}",
        told(&report)
    );
    assert_eq!(of(&report, Kind::LearningRateTooHigh).len(), 1, "{}", told(&report));
}

#[test]
fn an_explosion_at_the_start_is_the_learning_rates() {
    let report = judged("diverge_momentum");
    let found = of(&report, Kind::LearningRateTooHigh);
    assert!(found.iter().any(|f| f.first_step.is_some_and(|s| s <= 5)), "{}", told(&report));
    // It came down to chance and stayed there: no evaluation ever improved.
    assert_eq!(of(&report, Kind::NotLearning).len(), 1, "{}", told(&report));
    assert!(report.health.labels.contains(&Label::NotLearning), "{}", told(&report));
    assert!(report.health.score <= Some(35), "{}", told(&report));
}

#[test]
fn overfitting_from_step_131() {
    let report = judged("overfit_small");
    let found = of(&report, Kind::Overfitting);
    let first = found.iter().find(|f| f.metric == "val/loss").and_then(|f| f.first_step);
    assert!(first.is_some_and(|s| s.abs_diff(131) <= 88), "{}", told(&report));
    let best = report.metrics.iter().find(|m| m.name == "val/loss").and_then(|m| m.best_step);
    assert_eq!(best, Some(131));
    assert_eq!(report.health.labels[0], Label::Overfit, "{}", told(&report));
}

#[test]
fn a_tiny_learning_rate_learns_nothing() {
    let report = judged("plateau_tiny_lr");
    let found = [of(&report, Kind::LearningRateTooLow), of(&report, Kind::NotLearning)].concat();
    assert_eq!(found.len(), 1, "{}", told(&report));
    assert!(report.health.score <= Some(35), "{}", told(&report));
}

#[test]
fn two_spikes_that_recover() {
    let report = judged("spike_recovers");
    let spikes: Vec<_> =
        report.findings.iter().filter(|f| f.kind == Kind::Spike && f.metric == "train/loss").collect();
    for (first, last) in [(700, 741), (1200, 1273)] {
        let hit = spikes.iter().find(|f| f.first_step == Some(first));
        let ends = hit.and_then(|f| f.last_step);
        assert!(ends.is_some_and(|s| s <= last + 30), "{first}: {}", told(&report));
    }
    assert!(report.findings.iter().all(|f| f.severity < Severity::Critical), "{}", told(&report));
}
