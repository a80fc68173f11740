//! Divergence of a training loss: Rule D, on levels of groups of points so that
//! noise of single steps does not count.

use super::View;
use super::rise::{Rise, onset, rise};
use super::spike::End;
use crate::judge::date::Change;
use crate::judge::finding::{Finding, Kind, Severity, at, facts, short};
use crate::judge::schema::{Role, Split};

/// Share of what was learned that must be lost.
const OF_GAIN: f64 = 0.5;
/// Points for which the end of a run must explode: a spike may come back.
const LASTING: u64 = 20;
/// A rise that is smaller than this share of the best value is no divergence.
const OF_BEST: f64 = 0.1;
/// First values of which one, or the mean of the first, is held against the end of a
/// loss that leapt up at once; by how many of its deviations it must lie below, and by
/// what factor, in logarithms.
const FIRST: usize = 3;
const LEAPT: f64 = 5.0;
const TWICE: f64 = std::f64::consts::LN_2;

pub(in crate::judge) fn find(view: &View<'_>, beside: &[&View<'_>]) -> Option<Finding> {
    if view.track.traits.role != Role::Loss || view.track.knobs.sensitivity <= 0.0 {
        return None;
    }
    leapt(view).or_else(|| settled(view, beside)).or_else(|| exploding(view))
}

/// A training loss that left its first values at once and for good: what it had learned
/// cannot be lost, but its levels never knew anything better than the leap.
fn leapt(view: &View<'_>) -> Option<Finding> {
    let levels = &view.levels;
    if !view.track.is_training_loss() || !view.curve.in_logarithms() || levels.len() < 10 {
        return None;
    }
    let (last, noise) = (levels.last(), view.point_noise());
    let first: Vec<f64> = view.track.start.iter().take(FIRST).map(|v| view.curve.scaled(*v)).collect();
    let start = (1..=first.len()).find_map(|few| {
        let start = first[..few].iter().sum::<f64>() / few as f64;
        let bound = TWICE.max(LEAPT * noise / (few as f64).sqrt());
        (last - start > bound).then_some(start)
    })?;
    let middle = f64::midpoint(start, last);
    let low = levels.y[1..].iter().filter(|y| **y < middle).count();
    if 20 * low > levels.len() {
        return None;
    }
    let node = view.curve.nodes.iter().position(|n| n.y > middle)?;
    let first = view.step_of_node(node);
    let (start, now) = (view.curve.value(start), view.curve.value(last));
    Some(Finding {
        recommendation: format!(
            "{} began at {} and rose to {} at once, and it has stayed there{}: start again with a lower learning rate",
            view.track.name,
            short(start),
            short(now),
            at(first).replace(" at", " since")
        ),
        ..describe(view, first, [start, start, now], start)
    })
}

/// The rise of the levels of a metric, if it has one.
pub(in crate::judge) fn turn(view: &View<'_>) -> Option<Rise> {
    if view.levels.len() < 5 {
        return None;
    }
    let alarm = 1.0 / view.track.knobs.sensitivity.max(1e-9);
    let rising = rise(&view.levels.y, view.levels.sd, &[3, 6, 12], alarm);
    // From the first level on it may have known no better one.
    rising.or_else(|| {
        let (first, last) = (view.levels.first(), view.levels.last());
        let threshold = 6.8 * view.levels.sd * alarm;
        (last - first > threshold).then_some(Rise { best_at: 0, best: first, last, threshold })
    })
}

fn settled(view: &View<'_>, beside: &[&View<'_>]) -> Option<Finding> {
    let rise = turn(view)?;
    let curve = &view.curve;
    let (start, best, last) =
        (curve.oriented(view.start()), curve.oriented(rise.best), curve.oriented(rise.last));
    let (gain, lost) = ((start - best).max(0.0), last - best);
    if lost <= OF_BEST * best.abs() {
        return None;
    }
    let lost_it = if view.track.traits.split == Split::Validation {
        // An overfitted validation loss may well exceed its first value.
        last > 3.0 * start && start > 0.0
    } else {
        lost > OF_GAIN * gain
    };
    if !lost_it {
        return None;
    }
    let (_, step) = onset(view, &rise, Change::Leap, (&view.levels.from, &view.levels.y), beside, None);
    let first = dated(view, step);
    Some(describe(view, first, [start, best, last], OF_GAIN * gain))
}

/// The step of the excursion that began there, if one did: it was seen point by
/// point, the curve only in buckets.
fn dated(view: &View<'_>, node: Option<u64>) -> Option<u64> {
    let run = view.track.last_step.unwrap_or(0).saturating_sub(view.track.first_step.unwrap_or(0));
    let near = |s: &u64| node.is_some_and(|n| n.abs_diff(*s) <= run / 50 + 2);
    let spikes = view.track.following.as_ref()?.spike.spikes().filter(|s| s.end != End::Recovered);
    let seen = spikes.filter_map(|s| s.first).find(near);
    // Where every point has a node, the knot dates a slow rise better: it takes
    // some points to stand out of the noise.
    let fine = view.curve.nodes.first().is_some_and(|n| n.n == 1);
    if fine { seen.min(node).or(node) } else { seen.or(node) }
}

/// The end of a run that explodes: too short for levels, but far above the
/// start.
fn exploding(view: &View<'_>) -> Option<Finding> {
    let following = view.track.following.as_ref()?;
    let spike = following.spike.open().filter(|s| s.end == End::Lasts && s.points >= LASTING)?;
    let newest: Vec<f64> = following.recent.iter().rev().take(5).map(|(_, y)| *y).collect();
    let (last, best) =
        (following.value(crate::judge::fit::median_of(&newest)), following.value(spike.expected));
    let start = view.track.start();
    if view.track.traits.split == Split::Validation || last <= start.max(best * 2.0) {
        return None;
    }
    Some(describe(view, spike.first, [start, best, last], start - best))
}

fn describe(view: &View<'_>, first: Option<u64>, [start, best, last]: [f64; 3], threshold: f64) -> Finding {
    Finding {
        kind: Kind::Divergence,
        severity: Severity::Critical,
        metric: view.track.name.clone(),
        first_step: first,
        last_step: None,
        window: view.curve.points(),
        threshold,
        evidence: facts([
            ("rise above the best level", last - best),
            ("best level", best),
            ("level now", last),
            ("value at the start", start),
        ]),
        recommendation: format!(
            "{} was down to {} and is at {} since it left{}: stop, go back to a checkpoint before that step and lower the learning rate",
            view.track.name,
            short(best),
            short(last),
            at(first)
        ),
    }
}
