//! A number from 0 to 100 for a run, as a documented sum of penalties under a
//! cap by class, and the labels that go with it.
//!
//! Too little data has no number: 50 would be a claim.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::super::detect::schedule::RATE_EXPECTED;
use super::super::finding::{Finding, Kind, Severity};

/// What a run is like, in a word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Label {
    /// Its program ended with an error, whatever its metrics were.
    Failed,
    /// Its loss is lost: not finite, or far above what was reached; or a score lost most of its gain.
    Diverged,
    /// It learned next to nothing.
    NotLearning,
    /// Validation gets worse while training improves.
    Overfit,
    /// A metric is worse than its best.
    Regressed,
    /// Nothing comes any more, or nothing came for long; or the same value again and again.
    Stalled,
    /// No more progress.
    Plateaued,
    /// Values that were no numbers for a while, spikes that did not come back,
    /// swings, exploding gradients, or a warning that has no word of its own.
    Unstable,
    /// It became slower.
    Slowed,
    /// Nothing of the above.
    Healthy,
    /// Too few points to say.
    TooEarly,
}

/// What was taken off.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Part {
    /// For which kind of finding.
    pub kind: Kind,
    /// In which metric.
    pub metric: String,
    /// Points taken off.
    pub penalty: u8,
    /// The score that a run with such a finding can have at most.
    pub cap: u8,
}

/// How a run is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Health {
    /// 0 to 100; `None` when there are too few points.
    pub score: Option<u8>,
    /// What was taken off, the gravest first.
    pub parts: Vec<Part>,
    /// In words, the gravest first.
    pub labels: Vec<Label>,
}

/// Penalty and cap of a finding.
fn weight(finding: &Finding) -> (u8, u8) {
    let warned = finding.severity >= Severity::Warning;
    match finding.kind {
        Kind::NonFinite | Kind::Divergence | Kind::Regression if finding.severity == Severity::Critical => {
            (80, 20)
        }
        Kind::NotLearning | Kind::LearningRateTooLow if warned => (65, 35),
        Kind::Overfitting if warned => {
            let best = finding.fact("best level").unwrap_or(1.0).abs().max(1e-9);
            let lost = finding.fact("lost since its best").unwrap_or(0.0) / best;
            // 70 for a slight one, 40 where half of the best value is lost.
            let cap = 70.0 - 60.0 * lost.clamp(0.0, 0.5);
            (30, cap as u8)
        }
        Kind::Plateau if warned => {
            let share = finding.fact("share of the run").unwrap_or(0.0);
            (20, (80.0 - 25.0 * share.clamp(0.0, 0.8)) as u8)
        }
        Kind::Plateau => (5, 95),
        Kind::Regression if warned => (25, 75),
        Kind::GradientExplosion if finding.severity == Severity::Critical => (50, 50),
        Kind::GradientVanishing | Kind::LossScaleCollapse => (40, 60),
        Kind::Stall if finding.severity == Severity::Critical => (30, 70),
        Kind::Oscillation | Kind::DeadMetric | Kind::LearningRateVanished | Kind::ResumeJump if warned => {
            (20, 80)
        }
        _ if warned => (15, 84),
        _ => (4, 96),
    }
}

fn label(finding: &Finding) -> Option<Label> {
    let warned = finding.severity >= Severity::Warning;
    match finding.kind {
        Kind::NonFinite | Kind::Divergence | Kind::Regression if finding.severity == Severity::Critical => {
            Some(Label::Diverged)
        }
        Kind::NotLearning | Kind::LearningRateTooLow => Some(Label::NotLearning).filter(|_| warned),
        Kind::Overfitting => Some(Label::Overfit).filter(|_| warned),
        // A rate is not better or worse.
        Kind::ResumeJump if finding.fact(RATE_EXPECTED).is_some() => Some(Label::Unstable),
        Kind::Regression | Kind::ResumeJump => Some(Label::Regressed).filter(|_| warned),
        Kind::Stall => Some(Label::Stalled),
        Kind::Plateau => Some(Label::Plateaued).filter(|_| warned),
        Kind::NonFinite | Kind::Spike | Kind::Oscillation | Kind::GradientExplosion => {
            Some(Label::Unstable).filter(|_| warned)
        }
        Kind::ThroughputDrop => Some(Label::Slowed).filter(|_| warned),
        _ => None,
    }
}

/// `enough`: whether a loss or a score has enough points to be judged.
pub(super) fn health(findings: &[Finding], enough: bool) -> Health {
    let mut parts: Vec<Part> = findings
        .iter()
        .map(|f| {
            let (penalty, cap) = weight(f);
            Part { kind: f.kind, metric: f.metric.clone(), penalty, cap }
        })
        .collect();
    parts.sort_by_key(|p| (p.cap, std::cmp::Reverse(p.penalty)));
    let mut labels: BTreeSet<Label> = findings.iter().filter_map(label).collect();
    let lost = labels.contains(&Label::Diverged);
    if !enough && !lost {
        labels.insert(Label::TooEarly);
        return Health { score: None, parts, labels: labels.into_iter().collect() };
    }
    let warned = findings.iter().any(|f| f.severity >= Severity::Warning);
    if labels.is_empty() {
        // What follows from another fault says nothing beside that one.
        let dead = findings.iter().any(|f| f.kind == Kind::DeadMetric && f.severity >= Severity::Warning);
        let otherwise = if warned { Label::Unstable } else { Label::Healthy };
        labels.insert(if dead { Label::Stalled } else { otherwise });
    }
    // The gravest of a kind counts; ten small spikes are no ten faults.
    let mut kinds = BTreeSet::new();
    let counted: u32 = parts.iter().filter(|p| kinds.insert(p.kind)).map(|p| u32::from(p.penalty)).sum();
    let cap = parts.iter().map(|p| p.cap).min().unwrap_or(100);
    let floor = if warned { 0 } else { 85 };
    let score = (100_u32.saturating_sub(counted) as u8).min(cap).max(floor);
    Health { score: Some(score), parts, labels: labels.into_iter().collect() }
}

#[cfg(test)]
mod tests {
    use super::super::super::finding::facts;
    use super::*;

    fn finding(kind: Kind, severity: Severity, lost: f64) -> Finding {
        Finding {
            kind,
            severity,
            metric: "m".into(),
            first_step: None,
            last_step: None,
            window: 0,
            threshold: 0.0,
            evidence: facts([("lost since its best", lost), ("best level", 1.0), ("share of the run", lost)]),
            recommendation: String::new(),
        }
    }

    fn score(findings: &[Finding]) -> Option<u8> {
        health(findings, true).score
    }

    #[test]
    fn classes_keep_to_their_bounds() {
        assert_eq!(score(&[]), Some(100));
        assert!(score(&[finding(Kind::Divergence, Severity::Critical, 0.0)]) <= Some(20));
        assert!(score(&[finding(Kind::NotLearning, Severity::Warning, 0.0)]) <= Some(35));
        assert!(
            (60..=80).contains(&score(&[finding(Kind::Plateau, Severity::Warning, 0.5)]).expect("enough"))
        );
        for lost in [0.05, 0.3, 2.0] {
            assert!(
                (40..=70).contains(
                    &score(&[finding(Kind::Overfitting, Severity::Warning, lost)]).expect("enough")
                )
            );
        }
        let notes: Vec<Finding> = (0..30).map(|_| finding(Kind::Spike, Severity::Note, 0.0)).collect();
        assert!(score(&notes) >= Some(85), "notes alone are healthy");
    }

    #[test]
    fn more_is_never_better() {
        let all: Vec<Finding> = Kind::ALL.into_iter().map(|k| finding(k, Severity::Warning, 0.4)).collect();
        let mut before = 101;
        for n in 0..=all.len() {
            let now = score(&all[..n]).expect("enough");
            assert!(now <= before);
            before = now;
        }
        let worse = |lost| score(&[finding(Kind::Overfitting, Severity::Warning, lost)]);
        assert!(worse(0.1) > worse(0.4));
    }

    #[test]
    fn nothing_with_a_warning_is_called_healthy() {
        for kind in Kind::ALL {
            let labels = |severity| health(&[finding(kind, severity, 0.4)], true).labels;
            assert!(!labels(Severity::Warning).contains(&Label::Healthy), "{kind:?}");
            assert!(!labels(Severity::Critical).contains(&Label::Healthy), "{kind:?}");
        }
    }

    #[test]
    fn too_little_has_no_number_unless_it_is_lost() {
        assert_eq!(health(&[], false).score, None);
        assert_eq!(health(&[], false).labels, [Label::TooEarly]);
        assert!(health(&[finding(Kind::NonFinite, Severity::Critical, 0.0)], false).score.is_some());
    }
}
