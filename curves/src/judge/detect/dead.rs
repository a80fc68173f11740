//! Metrics that repeat one value, and metrics that are no longer logged.

use crate::judge::finding::{Finding, Kind, Severity, at, facts, short};
use crate::judge::schema::{Role, Split};
use crate::judge::track::Track;

/// Fewest repeats that say anything, for metrics of every step and of
/// evaluations.
const FEWEST: u64 = 30;
const FEWEST_EVALUATIONS: u64 = 8;
/// Times its usual interval that a metric may be absent.
const ABSENT: f64 = 5.0;

/// The present row of equal values.
#[derive(Debug, Clone, Default)]
pub(in crate::judge) struct Watch {
    value: f64,
    first: Option<u64>,
    row: u64,
    longest_before: u64,
    rows: u64,
}

impl Watch {
    pub(in crate::judge) fn push(&mut self, step: Option<u64>, value: f64) {
        if self.row > 0 && value.to_bits() == self.value.to_bits() {
            self.row += 1;
            return;
        }
        self.longest_before = self.longest_before.max(self.row);
        self.rows += 1;
        (self.value, self.first, self.row) = (value, step, 1);
    }
}

impl Watch {
    /// Forgets a row that began at `from` or after.
    pub(in crate::judge) fn void(&mut self, from: u64) {
        if self.first >= Some(from) {
            self.row = 0;
        }
    }
}

fn judged(track: &Track) -> bool {
    track.knobs.sensitivity > 0.0
        && matches!(
            track.traits.role,
            Role::Loss | Role::Error | Role::Score | Role::GradientNorm | Role::Throughput
        )
}

pub(in crate::judge) fn find(track: &Track) -> Option<Finding> {
    let watch = &track.dead;
    let fewest = if track.traits.split == Split::Validation { FEWEST_EVALUATIONS } else { FEWEST };
    let threshold = fewest.max(track.count / 10).max(5 * (watch.longest_before + 1));
    // A score at its ceiling stays there when all is learned.
    let ceiling = track.traits.role == Role::Score && (watch.value == 1.0 || watch.value == 100.0);
    if !judged(track) || watch.row < threshold || ceiling {
        return None;
    }
    Some(Finding {
        kind: Kind::DeadMetric,
        severity: Severity::Warning,
        metric: track.name.clone(),
        first_step: watch.first,
        last_step: None,
        window: watch.row,
        threshold: threshold as f64,
        evidence: facts([
            ("equal values in a row", watch.row as f64),
            ("value", watch.value),
            ("longest such row before", watch.longest_before as f64),
        ]),
        recommendation: format!(
            "{} has been exactly {} for {} points{}: what computes it no longer sees the model, or the model no longer changes",
            track.name,
            short(watch.value),
            watch.row,
            at(watch.first)
        ),
    })
}

/// `run_step` is the newest step of any metric.
pub(in crate::judge) fn silent(track: &Track, run_step: Option<u64>) -> Option<Finding> {
    let (first, last, now) = (track.first_step?, track.last_step?, run_step?);
    if !judged(track) || track.count < 4 || last <= first || now <= last {
        return None;
    }
    let interval = (last - first) as f64 / (track.count - 1) as f64;
    let gap = (now - last) as f64;
    let threshold = (ABSENT * interval).max(0.2 * (now - first) as f64);
    (gap > threshold).then(|| Finding {
        kind: Kind::SilentMetric,
        severity: Severity::Warning,
        metric: track.name.clone(),
        first_step: Some(last),
        last_step: None,
        window: track.count,
        threshold,
        evidence: facts([("steps without it", gap), ("usual steps between", interval), ("last value", track.last)]),
        recommendation: format!(
            "{} came every {} steps and has not come since step {last} ({} steps): see whether what computes it still runs",
            track.name,
            short(interval),
            short(gap)
        ),
    })
}
