//! Gradients that stay ten times larger, or fall away, for good. Bursts are
//! the business of [`super::spike`].
//!
//! Only ratios to the run's own level: absolute limits depend on the model.

use super::View;
use crate::judge::finding::{Finding, Kind, Severity, at, facts, short};
use crate::judge::fit;
use crate::judge::schema::Role;

/// Times the usual level that is an explosion.
const EXPLODED: f64 = 10.0;
/// Share of the early level that is vanishing.
const VANISHED: f64 = 1e-3;

/// `loss` is the training loss, which tells a vanished gradient from one that
/// is small because all is learned.
pub(in crate::judge) fn find(view: &View<'_>, loss: Option<&View<'_>>) -> Option<Finding> {
    let levels = &view.levels;
    if view.track.traits.role != Role::GradientNorm
        || levels.len() < 10
        || view.track.knobs.sensitivity <= 0.0
    {
        return None;
    }
    let early = fit::median_of(&levels.y[..levels.len() / 5 + 1]);
    let (usual, last) = (fit::median_of(&levels.y), levels.last());
    let base = early.min(usual);
    if view.track.highest.is_some_and(|h| h.0 <= 0.0) {
        return never(view, loss);
    }
    // Ten times nothing is no size.
    if view.curve.value(base) > 0.0 && view.curve.value(last) >= EXPLODED * view.curve.value(base) {
        return Some(exploded(view, base, last));
    }
    let fell = view.curve.value(last) / view.curve.value(early).max(f64::MIN_POSITIVE);
    if fell > VANISHED {
        return None;
    }
    // A loss that fell as far took its gradient with it.
    let loss_fell = left(loss);
    (fell < loss_fell.powi(3)).then(|| vanished(view, early, last, loss_fell))
}

/// Share of its start that the loss still is.
fn left(loss: Option<&View<'_>>) -> f64 {
    loss.map_or(1.0, |l| {
        let (start, last) = (l.curve.value(l.start()), l.curve.value(l.levels.last()));
        if start > 0.0 { (last / start).max(0.0) } else { 1.0 }
    })
}

/// A norm that never was above zero, of a loss that learned little without it.
fn never(view: &View<'_>, loss: Option<&View<'_>>) -> Option<Finding> {
    let loss_fell = left(loss);
    (loss_fell > 0.5).then(|| Finding {
        kind: Kind::GradientVanishing,
        severity: Severity::Warning,
        metric: view.track.name.clone(),
        first_step: view.track.first_step,
        last_step: None,
        window: view.curve.points(),
        threshold: 0.0,
        evidence: facts([
            ("highest value", view.track.highest.map_or(0.0, |h| h.0)),
            ("share of the loss that is left", loss_fell),
        ]),
        recommendation: format!(
            "{} has been 0 in all {} values: no gradient reaches the weights; look for a detached part of the graph, frozen parameters, or gradients that are cleared before the step",
            view.track.name,
            view.curve.points()
        ),
    })
}

fn exploded(view: &View<'_>, base: f64, last: f64) -> Finding {
    let ratio = view.curve.value(last) / view.curve.value(base);
    let half = view.curve.scaled(view.curve.value(base) * EXPLODED.sqrt());
    let first = view.step_of_node(turn(view, |y| y > half));
    Finding {
        kind: Kind::GradientExplosion,
        severity: Severity::Critical,
        metric: view.track.name.clone(),
        first_step: first,
        last_step: None,
        window: view.curve.points(),
        threshold: EXPLODED,
        evidence: facts([
            ("times its level", ratio),
            ("level before", view.curve.value(base)),
            ("level now", view.curve.value(last)),
        ]),
        recommendation: format!(
            "{} grew from {} to {} ({}x) since{}: clip it near {}, or lower the learning rate",
            view.track.name,
            short(view.curve.value(base)),
            short(view.curve.value(last)),
            short(ratio),
            at(first).replace(" at", ""),
            short(2.0 * view.curve.value(base))
        ),
    }
}

fn vanished(view: &View<'_>, early: f64, last: f64, loss_fell: f64) -> Finding {
    let half = view.curve.scaled(view.curve.value(early) * VANISHED.sqrt());
    let first = view.step_of_node(turn(view, |y| y < half));
    Finding {
        kind: Kind::GradientVanishing,
        severity: Severity::Warning,
        metric: view.track.name.clone(),
        first_step: first,
        last_step: None,
        window: view.curve.points(),
        threshold: VANISHED,
        evidence: facts([
            (
                "share of its early level",
                view.curve.value(last) / view.curve.value(early).max(f64::MIN_POSITIVE),
            ),
            ("early level", view.curve.value(early)),
            ("level now", view.curve.value(last)),
            ("share of the loss that is left", loss_fell),
        ]),
        recommendation: format!(
            "{} fell from {} to {} since{} while the loss kept {}% of its start: look for saturated units, a detached part of the graph, or values too small for the number format",
            view.track.name,
            short(view.curve.value(early)),
            short(view.curve.value(last)),
            at(first).replace(" at", ""),
            (100.0 * loss_fell).round()
        ),
    }
}

/// The node at which the curve began to leave for where `gone` holds for good.
fn turn(view: &View<'_>, gone: impl Fn(f64) -> bool) -> usize {
    let levels = &view.levels;
    let stays = levels.y.iter().rposition(|y| !gone(*y)).map_or(0, |g| g + 1);
    let reach = (levels.len() / 5).max(3);
    let (low, high) = (stays.saturating_sub(reach), (stays + 2).min(levels.len()));
    let (low, high) = (levels.from[low], levels.from[high]);
    let stretch: Vec<f64> = view.curve.nodes[low..high].iter().map(|n| n.y).collect();
    let (Some((knot, bent)), Some((jump, error))) = (fit::knot(&stretch, 2), fit::jump(&stretch, 2)) else {
        return low;
    };
    low + if error * 1.3 < bent { jump } else { knot }
}
