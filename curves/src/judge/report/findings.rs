//! Asks every detector, and lets the graver finding speak for the lesser ones
//! that it explains.

use super::super::Judge;
use super::super::curve::Curve;
use super::super::detect::{
    View, covers, dead, divergence, gradient, learning_rate, loss_scale, nonfinite, not_learning,
    oscillation, overfit, plateau, regression, resume, schedule, spike, stall, throughput,
};
use super::super::disagreement;
use super::super::finding::{Finding, Kind, Severity};
use super::super::schema::{Direction, Role, Split, is_part, is_whole, pair};
use super::expected;

pub(super) fn all(judge: &Judge, views: &[View<'_>], now: Option<f64>) -> Vec<Finding> {
    let loss = training_loss(views);
    let rate = views.iter().find(|v| v.track.traits.role == Role::LearningRate && v.curve.points() > 0);
    let mut found: Vec<Finding> = Vec::new();
    let turned: Vec<bool> = views.iter().map(has_turned).collect();
    for view in views {
        found.extend(nonfinite::find(view.track));
        found.extend(dead::find(view.track));
        found.extend(dead::silent(view.track, judge.max_step));
        found.extend(loss_scale::find(view.track));
        found.extend(schedule::find(view.track));
        found.extend(shape(judge, views, view, (loss, rate), &beside(views, &turned, view)));
    }
    found = disagreement::weigh(found, views, &judge.settings.schema);
    let loss = loss.filter(|l| !disagreement::serves(l, views, &judge.settings.schema));
    if let Some((loss, step)) = loss.and_then(|l| Some((l, learning_rate::blown_up(l)?))) {
        found.extend(not_learning::after_leap(loss, step, views));
    }
    found.extend(pace(judge, views));
    found.extend(stall::find(&judge.clock, now));
    expected::explain(judge, rate, &mut found);
    if let Some(rate) = rate {
        let more = learning_rate::find(rate, loss, &found);
        found.extend(more);
    }
    let mut kept = settle(&found, judge.max_step.unwrap_or(0));
    kept.sort_by(|a, b| {
        b.severity.cmp(&a.severity).then(a.first_step.cmp(&b.first_step)).then(a.kind.cmp(&b.kind))
    });
    kept
}

/// Curves that date a turn together, at most.
const TOGETHER: usize = 3;

fn has_turned(view: &View<'_>) -> bool {
    let judged = view.track.traits.role == Role::Loss && view.track.knobs.sensitivity > 0.0;
    judged
        && match view.track.traits.split {
            Split::Validation => overfit::turn(view).is_some(),
            _ => divergence::turn(view).is_some(),
        }
}

/// The same loss on other data.
fn others<'a, 'b>(views: &'a [View<'b>], view: &View<'_>) -> Vec<&'a View<'b>> {
    let (name, traits) = (&view.track.name, &view.track.traits);
    let same = |v: &&View<'_>| {
        v.track.traits.role == Role::Loss && v.track.traits.stem == traits.stem && v.track.name != *name
    };
    views.iter().filter(|_| traits.role == Role::Loss).filter(same).take(TOGETHER).collect()
}

/// Those of them that rose too.
fn beside<'a, 'b>(views: &'a [View<'b>], turned: &[bool], view: &View<'_>) -> Vec<&'a View<'b>> {
    let turned = |v: &&View<'_>| {
        let at = views.iter().position(|w| std::ptr::eq(w, *v));
        at.is_some_and(|at| turned[at])
    };
    others(views, view).into_iter().filter(turned).collect()
}

/// What is said of one metric's curve.
fn shape(
    judge: &Judge,
    views: &[View<'_>],
    view: &View<'_>,
    (loss, rate): (Option<&View<'_>>, Option<&View<'_>>),
    beside: &[&View<'_>],
) -> Vec<Finding> {
    let mut found: Vec<Finding> = spike::find(view.track);
    if let Some(following) = &view.track.following {
        found.extend(oscillation::find(view.track, following));
        let same =
            |v: &&View<'_>| v.track.traits.stem == view.track.traits.stem && v.track.name != view.track.name;
        // Nothing is asked of the others where the run was never resumed.
        let others = views.iter().filter(|_| following.resume.jumped()).filter(same);
        let certain: Vec<_> = others.flat_map(|v| resume::certain(v.track)).collect();
        found.extend(resume::find(view.track, following, &certain));
    }
    found.extend(gradient::find(view, loss));
    found.extend(divergence::find(view, beside));
    if view.track.traits.split == Split::Validation {
        let names = views.iter().map(|v| (v.track.name.as_str(), &v.track.traits));
        let partner = pair((&view.track.name, &view.track.traits), &judge.settings.schema, names);
        let partner = partner.and_then(|name| views.iter().find(|v| v.track.name == name));
        found.extend(overfit::find(view, partner.or(loss), beside));
    } else {
        found.extend(regression::find(view, beside));
    }
    let same_loss = others(views, view);
    let (constant, state) = rate_state(rate);
    found.extend(plateau::find(view, run_length(judge), state, &same_loss).map(|mut flat| {
        // One metric at its end, while what is trained on still improves, or
        // did for long, is worth a note.
        let rested = loss.and_then(|l| l.step_of_node(plateau::flat_end(l, run_length(judge))?.node));
        let late = flat.first_step.map(|s| s.saturating_add(judge.max_step.unwrap_or(0) / 10));
        let trains = loss.is_some() && rested.is_none_or(|rested| Some(rested) > late);
        if trains && !view.track.is_training_loss() {
            flat.severity = Severity::Note;
        }
        flat
    }));
    let around = not_learning::Around { views, rate: constant, rates: rate, run: run_length(judge) };
    found.extend(not_learning::find(view, &around, &same_loss));
    found
}

fn rate_state(rate: Option<&View<'_>>) -> (Option<f64>, plateau::Rate) {
    let Some((low, high)) = rate.and_then(|r| r.track.lowest.zip(r.track.highest)) else {
        return (None, plateau::Rate::Unknown);
    };
    let held = |low: f64| high.0 - low <= 1e-6 * high.0.abs();
    // After a warm-up it is constant too, for as long as it has not come down.
    let buckets = rate.map_or(&[][..], |r| r.track.sketch.buckets());
    let newest = &buckets[buckets.len() - buckets.len() * 3 / 20..];
    let constant = held(low.0) || !newest.is_empty() && newest.iter().all(|b| held(b.min));
    (Some(high.0), if constant { plateau::Rate::Constant(high.0) } else { plateau::Rate::Changing })
}

/// The planned length over what was seen, at least 1.
fn run_length(judge: &Judge) -> f64 {
    let planned = judge.settings.planned_steps.unwrap_or(0) as f64;
    let seen = judge.max_step.map_or(0.0, |s| s as f64 + 1.0);
    if seen > 0.0 { (planned / seen).max(1.0) } else { 1.0 }
}

/// The training loss that the others are held against: the plainly named one, else the
/// one with the shortest name, parts of the objective last.
pub(super) fn training_loss<'a, 'b>(views: &'a [View<'b>]) -> Option<&'a View<'b>> {
    views.iter().filter(|v| v.track.is_training_loss() && v.curve.points() > 0).min_by_key(|v| {
        let (traits, name) = (&v.track.traits, v.track.name.as_str());
        (is_part(traits), !is_whole(traits), name.len(), name)
    })
}

/// Throughput as the program logs it; from times only where it does not.
fn pace(judge: &Judge, views: &[View<'_>]) -> Vec<Finding> {
    let logged: Vec<Finding> = views
        .iter()
        .filter(|v| {
            matches!(v.track.traits.role, Role::Throughput | Role::StepTime)
                && v.track.knobs.sensitivity > 0.0
        })
        .filter_map(|v| throughput::find(&v.track.name, &v.curve, 1.0 / v.track.knobs.sensitivity))
        .collect();
    if !logged.is_empty() || judge.clock.pace.count() == 0 {
        return logged;
    }
    let curve: Curve = throughput::curve(&judge.clock.pace, Direction::Lower);
    throughput::find(stall::CLOCK, &curve, 1.0).into_iter().collect()
}

/// Whether a metric that repeats one value repeats 0.
fn is_nothing(dead: &Finding) -> bool {
    dead.fact("value") == Some(0.0)
}

/// Leaves out what a graver finding of the same metric explains.
fn settle(found: &[Finding], run: u64) -> Vec<Finding> {
    let margin = run / 50 + 2;
    let explained = |f: &Finding| {
        found.iter().any(|by| {
            let same = by.metric == f.metric;
            let covers = covers(by, f.first_step, margin);
            match f.kind {
                Kind::Spike => {
                    same && covers
                        && match by.kind {
                            Kind::Divergence | Kind::Oscillation => true,
                            Kind::Regression | Kind::Overfitting => f.last_step.is_none(),
                            Kind::ResumeJump => {
                                f.first_step >= by.first_step.map(|s| s.saturating_sub(margin))
                            }
                            Kind::GradientExplosion => by.last_step.is_none(),
                            _ => false,
                        }
                }
                Kind::GradientExplosion => {
                    // Many bursts: the one that lasts speaks.
                    same && by.kind == f.kind
                        && covers
                        && by.last_step.is_none()
                        && by != f
                        && (f.last_step.is_some()
                            || by.first_step < f.first_step
                            || (by.first_step == f.first_step && by.window > f.window))
                }
                Kind::Regression => {
                    same && matches!(by.kind, Kind::Divergence | Kind::Overfitting)
                        || by.kind == Kind::Divergence && by.severity == Severity::Critical
                        || same && by.kind == Kind::NonFinite && by.last_step.is_none()
                        || same
                            // What stands still where most was lost was lost all the same.
                            && (by.kind == Kind::DeadMetric && f.severity < Severity::Critical
                                || by.kind == Kind::Oscillation
                                || by.kind == Kind::ResumeJump && covers)
                }
                Kind::Overfitting => {
                    by.kind == Kind::Divergence && by.severity == Severity::Critical
                        || same && by.kind == Kind::DeadMetric
                }
                Kind::Plateau => {
                    same && matches!(
                        by.kind,
                        Kind::Divergence
                            | Kind::Regression
                            | Kind::Overfitting
                            | Kind::NotLearning
                            | Kind::LearningRateTooLow
                            | Kind::DeadMetric
                            | Kind::SilentMetric
                    ) || same && by.kind == Kind::NonFinite && by.last_step.is_none()
                }
                Kind::NotLearning | Kind::LearningRateTooLow => {
                    same && (by.kind == Kind::Divergence
                        || by.kind == Kind::NonFinite && by.last_step.is_none())
                }
                Kind::GradientVanishing => same && by.kind == Kind::DeadMetric && !is_nothing(by),
                // Nothing again and again is no value that stands still.
                Kind::DeadMetric => same && by.kind == Kind::GradientVanishing && is_nothing(f),
                _ => false,
            }
        })
    };
    found.iter().filter(|f| !explained(f)).cloned().collect()
}
