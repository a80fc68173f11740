//! A metric that is worse than its best by more than noise, and is neither a
//! diverged loss nor an overfitted one.

use super::View;
use super::divergence::turn;
use super::rise::{Rise, onset};
use crate::judge::date::Change;
use crate::judge::finding::{Finding, Kind, Severity, at, facts, short};
use crate::judge::schema::{Direction, Role, Split};

/// Share of the gain, or of the best value, that must be lost.
pub(in crate::judge) const SHARE: f64 = 0.05;

/// For metrics that nothing is paired with; validation metrics are judged by
/// [`super::overfit`].
/// `beside` are curves that rose with it.
pub(in crate::judge) fn find(view: &View<'_>, beside: &[&View<'_>]) -> Option<Finding> {
    let judged = matches!(view.track.traits.role, Role::Loss | Role::Score | Role::Error);
    if !judged || view.track.traits.direction == Direction::Unknown || view.track.knobs.sensitivity <= 0.0 {
        return None;
    }
    let rise = turn(view)?;
    let curve = &view.curve;
    let (start, best, last) =
        (curve.oriented(view.start()), curve.oriented(rise.best), curve.oriented(rise.last));
    let threshold = SHARE * (start - best).abs().min(best.abs());
    if last - best <= threshold {
        return None;
    }
    let (_, first) = onset(view, &rise, Change::Turn, (&view.levels.from, &view.levels.y), beside, None);
    let collapsed = collapsed(view, &rise);
    let (best, last) = (curve.value(rise.best), curve.value(rise.last));
    Some(Finding {
        kind: Kind::Regression,
        severity: if collapsed { Severity::Critical } else { Severity::Warning },
        metric: view.track.name.clone(),
        first_step: first,
        last_step: None,
        window: curve.points(),
        threshold,
        evidence: facts([
            ("lost since its best", (last - best).abs()),
            ("best level", best),
            ("level now", last),
            ("value at the start", view.track.start()),
        ]),
        recommendation: format!(
            "{} was {} and is {}, worse since{}: {}",
            view.track.name,
            short(best),
            short(last),
            at(first).replace(" at", ""),
            if collapsed { COLLAPSED } else { "keep the checkpoint from before that step" }
        ),
    })
}

/// What to do where most of what was learned is lost.
pub(in crate::judge) const COLLAPSED: &str = "most of what was learned is lost; stop, go back to a checkpoint from before that step and lower the learning rate";
/// Share of its gain that a score must lose to count as lost, as a loss that diverged, and how
/// many deviations of its levels that gain must be: a score that wanders has none.
const OF_GAIN: f64 = 0.5;
const CLEAR: f64 = 30.0;

/// Whether a score lost most of what it had gained. That of an error on other data may be overfitted.
pub(in crate::judge) fn collapsed(view: &View<'_>, rise: &Rise) -> bool {
    let traits = &view.track.traits;
    let judged = match traits.role {
        Role::Score => true,
        Role::Error => traits.split != Split::Validation,
        _ => false,
    };
    let gain = view.start() - rise.best;
    judged
        && view.levels.len() >= 10
        && gain > CLEAR * view.levels.sd
        && rise.last - rise.best > OF_GAIN * gain
}
