//! Pauses far longer than steps, evaluations and checkpoints of the run take.

use crate::judge::clock::{Clock, Pause};
use crate::judge::finding::{Finding, Kind, Severity, facts, short};

/// The name of what was read from times.
pub(in crate::judge) const CLOCK: &str = "(clock)";

/// Pauses that ended, and the one that lasts at `now`, if the caller has a
/// clock.
pub(in crate::judge) fn find(clock: &Clock, now: Option<f64>) -> Vec<Finding> {
    let open = now.and_then(|now| clock.stalled(now));
    clock.stalls.iter().chain(&open).map(describe).collect()
}

fn describe(pause: &Pause) -> Finding {
    let place = pause.from.map(|s| format!(" after step {s}")).unwrap_or_default();
    let advice = if pause.to.is_some() {
        "it went on; look at data loading, checkpoints and other users of the machine at that time"
    } else {
        "see whether the process is alive, and in what it waits"
    };
    Finding {
        kind: Kind::Stall,
        severity: if pause.to.is_some() { Severity::Warning } else { Severity::Critical },
        metric: CLOCK.to_owned(),
        first_step: pause.from,
        last_step: pause.to,
        window: crate::judge::window::WIDEST as u64,
        threshold: pause.threshold,
        evidence: facts([("seconds without a step", pause.seconds), ("usual seconds", pause.usual)]),
        recommendation: format!(
            "no step for {} s{place}, where {} s are usual: {advice}",
            short(pause.seconds),
            short(pause.usual)
        ),
    }
}
