//! The quality of the detectors on a small seeded part of the corpus that
//! `examples/detectors` measures in full. A change that lets it fall fails.

#[path = "../examples/detectors/corpus.rs"]
mod corpus;
#[path = "../examples/detectors/measure.rs"]
mod measure;

use curves::judge::Kind;
use measure::{Tally, measure, plans};

/// Least recall, least share within 1 % of the run of the true step, and most
/// false alarms of a kind, over 3 noises and 2 lengths, `EACH` runs of each.
/// Set a little below what was measured; see docs/detectors.md.
const BOUNDS: [(Kind, f64, f64, u32); 20] = [
    (Kind::NonFinite, 1.0, 1.0, 0),
    (Kind::Spike, 0.94, 0.94, 2),
    (Kind::Divergence, 0.97, 0.97, 1),
    (Kind::GradientExplosion, 0.97, 0.97, 1),
    (Kind::GradientVanishing, 0.97, 0.94, 1),
    (Kind::Plateau, 0.9, 0.8, 5),
    (Kind::NotLearning, 0.97, 0.97, 1),
    (Kind::Regression, 0.83, 0.58, 1),
    (Kind::Overfitting, 0.97, 0.7, 3),
    (Kind::ThroughputDrop, 0.97, 0.97, 1),
    (Kind::Stall, 0.97, 0.97, 0),
    (Kind::LearningRateTooHigh, 0.97, 0.94, 2),
    (Kind::LearningRateTooLow, 0.94, 0.94, 1),
    (Kind::WarmupMissing, 0.94, 0.94, 1),
    (Kind::LearningRateVanished, 0.97, 0.97, 1),
    (Kind::Oscillation, 0.94, 0.88, 1),
    (Kind::DeadMetric, 1.0, 1.0, 0),
    (Kind::SilentMetric, 1.0, 1.0, 0),
    (Kind::ResumeJump, 0.91, 0.91, 1),
    (Kind::LossScaleCollapse, 0.97, 0.97, 1),
];

const EACH: u64 = 6;
const SEED: u64 = 20;

#[test]
fn detectors_keep_their_measured_quality() {
    let mut tally = Tally::default();
    for steps in [300, 3000] {
        for sigma in [0.05, 0.1, 0.3] {
            let mut part = Tally::default();
            plans(steps, sigma, EACH, SEED).iter().for_each(|plan| measure(plan, &mut part));
            tally.add(part);
        }
    }
    let mut failed = Vec::new();
    for (kind, recall, placed, wrong) in BOUNDS {
        let sum = tally.sum(kind, |_, _| true);
        let held = sum.recall() >= recall && sum.placed_share() >= placed && sum.false_alarms <= wrong;
        if !held {
            failed.push(format!(
                "{}: recall {:.3}, placed {:.3}, {} false, median and p95 step error {:.4} {:.4}, precision {:.3}",
                kind.name(),
                sum.recall(),
                sum.placed_share(),
                sum.false_alarms,
                sum.error(0.5),
                sum.error(0.95),
                sum.precision()
            ));
        }
    }
    assert!(failed.is_empty(), "{}\nfor example\n{}", failed.join("\n"), tally.examples.join("\n"));
    // Smoothed losses are measured, not bounded: see docs/detectors.md.
    let white = tally.healthy.iter().filter(|(key, _)| !key.2);
    let (runs, bad) = white.fold((0, 0), |sum, (_, (runs, bad))| (sum.0 + runs, sum.1 + bad));
    assert!(bad <= 3, "{bad} of {runs} healthy runs with a false alarm: {:?}", tally.examples);
}
