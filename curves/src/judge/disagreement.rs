//! What a loss that rises means where the run is for something else: a part of an
//! objective may rise in a run that is well, and so may a whole loss while the
//! task metric improves. Then both are told, and neither is called a failure.
//!
//! It weighs what detectors found, before a graver finding speaks for a lesser
//! one. It must never make a fault of its own, and never take back that values are
//! no numbers.

use super::detect::View;
use super::finding::{Fact, Finding, Kind, Severity, at, short};
use super::fit;
use super::schema::{Direction, Role, Schema, Split, is_part, is_return, is_whole};

/// Evidence of a finding that a task metric contradicts.
pub(in crate::judge) const TASK: &str = "task metric now";
/// Deviations of the difference of two medians that make a gain.
const SURE: f64 = 5.0;
/// Share of its gain that a task metric may have lost again.
const KEPT: f64 = 0.25;
/// Fewest values of a metric that say something of a run.
const FEWEST: u64 = 4;

/// Whether nothing is to be told of a run by this loss alone.
pub(in crate::judge) fn serves(view: &View<'_>, views: &[View<'_>], schema: &Schema) -> bool {
    is_component(view, views, schema) || view.track.is_training_loss() && earns(views, schema)
}

/// A part of the objective, of a run that logs another measure too; or any loss beside
/// the whole one on the same data.
fn is_component(view: &View<'_>, views: &[View<'_>], schema: &Schema) -> bool {
    let traits = &view.track.traits;
    if traits.role != Role::Loss || says(schema, &view.track.name) {
        return false;
    }
    let another = |v: &View<'_>| judged(v) && v.track.traits.stem != traits.stem;
    let held_out = |v: &View<'_>| v.track.traits.split == Split::Validation;
    let whole = |v: &View<'_>| another(v) && is_whole(&v.track.traits) && held_out(v) == held_out(view);
    is_part(traits) && views.iter().any(another) || !is_whole(traits) && views.iter().any(whole)
}

/// Whether the caller said what a metric is.
fn says(schema: &Schema, name: &str) -> bool {
    let role = schema.metrics.get(name).and_then(|spec| spec.role);
    schema.primary.as_deref() == Some(name) || role.is_some()
}

fn judged(view: &View<'_>) -> bool {
    matches!(view.track.traits.role, Role::Loss | Role::Error | Role::Score) && view.curve.points() >= FEWEST
}

/// Whether what an agent earns is logged, and no other metric was called primary.
fn earns(views: &[View<'_>], schema: &Schema) -> bool {
    let earned = |view: &View<'_>| judged(view) && is_return(&view.track.traits);
    match &schema.primary {
        Some(primary) => views.iter().any(|view| view.track.name == *primary && earned(view)),
        None => views.iter().any(earned),
    }
}

/// The findings, those of losses weighed by what else the run logs.
pub(in crate::judge) fn weigh(found: Vec<Finding>, views: &[View<'_>], schema: &Schema) -> Vec<Finding> {
    let earning = earns(views, schema);
    let weighed = found.into_iter().filter_map(|finding| {
        let view = views.iter().find(|v| v.track.name == finding.metric);
        let Some(view) = view.filter(|v| v.track.traits.role == Role::Loss) else { return Some(finding) };
        if is_component(view, views, schema) {
            return of_component(finding, is_part(&view.track.traits));
        }
        let training = earning && view.track.is_training_loss();
        let told = match finding.kind {
            Kind::Divergence | Kind::Regression | Kind::Overfitting => true,
            // The losses of an agent need not fall; whether it learned, its reward says.
            Kind::NotLearning | Kind::LearningRateTooLow | Kind::Oscillation if training => {
                let learned = views.iter().any(|v| is_return(&v.track.traits) && judged(v) && has_learned(v));
                return Some(finding).filter(|_| !learned);
            }
            Kind::Plateau | Kind::Spike if training => return Some(noted(finding)),
            _ => false,
        };
        let task = views.iter().filter(|v| told && speaks_for(v, view)).filter_map(|v| gain(v, &finding));
        match task.min_by_key(|gain| (!is_return(&gain.view.track.traits), gain.view.track.name.len())) {
            Some(gain) => Some(against(finding, view, &gain)),
            None => Some(finding),
        }
    });
    weighed.collect()
}

fn noted(finding: Finding) -> Finding {
    Finding { severity: Severity::Note, ..finding }
}

/// That a part of an objective rose is worth a note; that it does not fall is none.
/// `named`: by its name it may well rise.
fn of_component(finding: Finding, named: bool) -> Option<Finding> {
    match finding.kind {
        Kind::NonFinite | Kind::DeadMetric | Kind::SilentMetric => Some(finding),
        Kind::Divergence => {
            let [from, to] = ["best level", "level now"].map(|name| finding.fact(name).unwrap_or(f64::NAN));
            let recommendation = format!(
                "{} went from {} to {} since it turned{}: a part of the objective may do so, the run is judged by the others",
                finding.metric,
                short(from),
                short(to),
                at(finding.first_step)
            );
            Some(Finding { recommendation, ..noted(finding) })
        }
        Kind::Spike | Kind::ResumeJump => Some(noted(finding)),
        Kind::Regression | Kind::Overfitting | Kind::Plateau | Kind::Oscillation => {
            Some(noted(finding)).filter(|_| !named)
        }
        _ => None,
    }
}

/// Whether `task` tells how well a run does where `loss` gets worse: a score of
/// training says nothing against a loss of validation.
fn speaks_for(task: &View<'_>, loss: &View<'_>) -> bool {
    let traits = &task.track.traits;
    matches!(traits.role, Role::Score | Role::Error)
        && traits.direction != Direction::Unknown
        && task.track.knobs.sensitivity > 0.0
        && judged(task)
        && (loss.track.traits.split != Split::Validation
            || traits.split == Split::Validation
            || is_return(traits))
}

/// How a metric improved.
struct Gain<'a, 'b> {
    view: &'a View<'b>,
    from: f64,
    to: f64,
}

/// Whether a metric was ever better than it began, beyond its noise.
fn has_learned(view: &View<'_>) -> bool {
    let levels = &view.levels;
    let k = (levels.len() / 3).clamp(1, 3);
    let smooth: Vec<f64> = levels.y.windows(k).map(fit::median_of).collect();
    let best = smooth.iter().copied().fold(f64::INFINITY, f64::min);
    smooth.first().is_some_and(|first| first - best > SURE * levels.sd * (2.0 / k as f64).sqrt())
}

/// The gain of a metric since a finding began, beyond its noise and not lost again.
fn gain<'a, 'b>(view: &'a View<'b>, finding: &Finding) -> Option<Gain<'a, 'b>> {
    let levels = &view.levels;
    let begun = |g: &usize| {
        let step = view.step_of_node(levels.from[*g]);
        finding.first_step.zip(step).is_none_or(|(first, step)| step >= first)
    };
    // The level before belongs to it: the turn lies between the two.
    let since = (0..levels.len()).find(begun)?.saturating_sub(1);
    let part = &levels.y[since..];
    let k = (part.len() / 3).min(3);
    if k == 0 || part.len() < FEWEST as usize {
        return None;
    }
    let smooth: Vec<f64> = part.windows(k).map(fit::median_of).collect();
    let (from, to) = (*smooth.first()?, *smooth.last()?);
    let best = smooth.iter().copied().fold(f64::INFINITY, f64::min);
    let sure = from - to > SURE * levels.sd * (2.0 / k as f64).sqrt();
    (sure && to - best <= KEPT * (from - best)).then(|| Gain {
        view,
        from: view.curve.value(from),
        to: view.curve.value(to),
    })
}

/// The finding as a note that tells both.
fn against(finding: Finding, loss: &View<'_>, gain: &Gain<'_, '_>) -> Finding {
    let (name, track) = (&finding.metric, gain.view.track);
    let best = match track.traits.direction {
        Direction::Higher => track.highest,
        _ => track.lowest,
    };
    let (low, low_step) = loss.track.lowest.unwrap_or((f64::NAN, None));
    let rose = match finding.fact("level now") {
        Some(now) => format!("{name} was at best {}{} and is {}", short(low), at(low_step), short(now)),
        None => format!("{name} got worse"),
    };
    let (best, best_step) = best.unwrap_or((f64::NAN, None));
    let recommendation = format!(
        "{rose}, while {} went from {} to {}: loss and task metric disagree, so choose the checkpoint by {} (best {}{})",
        track.name,
        short(gain.from),
        short(gain.to),
        track.name,
        short(best),
        at(best_step)
    );
    let mut finding = Finding { recommendation, ..noted(finding) };
    let facts = [("task metric at its first step", gain.from), (TASK, gain.to)];
    finding.evidence.extend(facts.map(|(name, value)| Fact { name: name.to_owned(), value }));
    finding
}

#[cfg(test)]
mod tests;
