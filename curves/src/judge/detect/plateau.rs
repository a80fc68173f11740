//! Plateaus: Rule P with a test of its own power.
//!
//! "Flat" needs two things: no improvement beyond noise over the stretch, and
//! noise small enough that an improvement worth having would have been seen.

use super::View;
use super::gain::together;
use crate::judge::date::{Change, date};
use crate::judge::finding::{Finding, Kind, Severity, at, facts, short};
use crate::judge::fit;
use crate::judge::schema::{Direction, Role};

/// Share of the gain that a flat stretch could hide at most, and where the same
/// loss on other data is flat by itself.
const HIDDEN: f64 = 0.06;
const HIDDEN_BOTH: f64 = 0.1;
/// Share of the gain that a stretch may still improve by and be called flat.
const REMAINS: f64 = 0.1;
/// The shapes of a gain that a stretch may hide, the deviations that are added
/// before it is compared, and how often a later node is tried.
const WITHIN: [f64; 3] = [0.15, 0.4, 1.0];
const SURE: f64 = 1.65;
const LATER: usize = 4;
/// By how much likelier a fall that stops must be than one that runs out, twice
/// the logarithm.
const STOPS: f64 = 6.0;

/// A flat end of a curve.
#[derive(Debug, Clone, Copy)]
pub(in crate::judge) struct Flat {
    /// The first node of it.
    pub(in crate::judge) node: usize,
    /// The first group of it.
    pub(in crate::judge) group: usize,
    /// Improvement over it, on the curve's scale.
    pub(in crate::judge) improvement: f64,
    /// Improvement from the start to its best.
    pub(in crate::judge) gain: f64,
    /// What the improvement had to stay under.
    pub(in crate::judge) threshold: f64,
}

/// What the learning rate did, for the words and the weight of the finding.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(in crate::judge) enum Rate {
    Unknown,
    /// At its highest for long and still: no decay was seen so far.
    Constant(f64),
    Changing,
}

/// The flat end of `view`, at least the window long. `run` is how long the
/// whole run is against what was seen of it: 1 when it is over.
pub(in crate::judge) fn flat_end(view: &View<'_>, run: f64) -> Option<Flat> {
    flat_to(view, run, HIDDEN)
}

fn flat_to(view: &View<'_>, run: f64, hidden: f64) -> Option<Flat> {
    let levels = &view.levels;
    let n = levels.len();
    let window =
        ((view.track.knobs.plateau_window * n as f64 * run).ceil() as usize).max(8.min(n / 2).max(4));
    if n < 2 * window || view.track.knobs.sensitivity <= 0.0 {
        return None;
    }
    let (_, best) = levels.best()?;
    let gain = view.start() - best;
    if gain <= 4.0 * levels.sd {
        return None;
    }
    let share = view.track.knobs.plateau_threshold * view.track.knobs.sensitivity;
    let flat = |from: usize| {
        let part = &levels.y[from..];
        let len = part.len() as f64;
        let improvement = -fit::theil_sen(part) * (len - 1.0);
        let doubt = levels.sd * (12.0 / len).sqrt();
        let threshold = (share * gain).max((1.7 * doubt).min(REMAINS * gain));
        let seen = doubt < hidden * gain;
        // The first groups of a stretch that a fall runs into stand above the
        // rest, however flat the whole.
        let lead = (part.len() / 8).clamp(2, 4);
        let above = fit::median_of(&part[..lead]) - fit::median_of(&part[lead..]);
        let level_start = above < (2.0 * share * gain).max(2.5 * levels.sd / (lead as f64).sqrt());
        let below = fit::median_of(&part[..part.len() - lead]) - fit::median_of(&part[part.len() - lead..]);
        let level_end = below < (2.0 * share * gain).max(2.5 * levels.sd / (lead as f64).sqrt());
        (seen && level_start && level_end && improvement.abs() < threshold && fit::mann_kendall(part) > -2.6)
            .then_some((improvement, threshold))
    };
    // The longest stretch that is flat, whether or not shorter ones are seen
    // through the noise; noise may interrupt it for a few groups.
    let mut found: Option<(usize, (f64, f64))> = None;
    for group in (1..=n - window).rev() {
        let failed = found.map_or(0, |(last, _)| last - group);
        if failed > 4 || found.is_none() && group < n / 2 {
            break;
        }
        found = flat(group).map(|f| (group, f)).or(found);
    }
    let (group, (improvement, threshold)) = found?;
    Some(Flat { node: levels.from[group], group, improvement, gain, threshold })
}

/// The node at which the fall ends. A fall that stops is a line and ends at its
/// knot; one that runs out is an exponential, and ends where a twentieth of the
/// whole gain is left; one that a lower rate cut short is a jump. What describes
/// the curve better is believed, and in doubt the slow end: it claims less.
fn knee(view: &View<'_>, flat: &Flat, beside: &[&View<'_>]) -> usize {
    let (levels, group) = (&view.levels, flat.group);
    let reach = ((levels.len() - group) / 2).max(6);
    let low = levels.from[group.saturating_sub(reach)];
    let stretch: Vec<f64> = view.curve.nodes[low..].iter().map(|n| n.y).collect();
    let Some((_, stops)) = fit::stop(&stretch, 3) else { return levels.from[group] };
    let near = levels.from[group.saturating_sub(3)]..=levels.from[(group + 4).min(levels.len() - 1)];
    if let Some((at, error)) = fit::jump(&stretch, 3)
        && error * 1.3 < stops
        && near.contains(&(low + at))
    {
        return low + at;
    }
    let changed = levels.from[(group + 3).min(levels.len() - 1)];
    if let Some(dated) = date(view, Change::Stop, (levels.from[group], changed), beside, None)
        && dated.over_decay > STOPS
        && level_from(view, flat, dated.node)
    {
        return dated.node;
    }
    let node = match fit::decay(&stretch) {
        Some(decay) if decay.height > 0.0 => {
            let left = (decay.height / (0.05 * flat.gain).max(1e-12)).ln().max(0.0) / decay.rate;
            low + left as usize
        }
        _ => levels.from[group],
    };
    if near.contains(&node) { node } else { levels.from[group] }
}

/// Whether what comes after `node` is as level as the stretch that was found:
/// noise may have hidden its first part from the search.
fn level_from(view: &View<'_>, flat: &Flat, node: usize) -> bool {
    let levels = &view.levels;
    let group = levels.from.partition_point(|from| *from < node).min(levels.len() - 1);
    let part = &levels.y[group..];
    let len = part.len() as f64;
    let improvement = -fit::regress(part, |i| i as f64).1 * (len - 1.0);
    let doubt = levels.sd * (12.0 / len).sqrt();
    group >= flat.group || improvement.abs() < flat.threshold.max((2.5 * doubt).min(REMAINS * flat.gain))
}

/// The flat end of `view`, dated. Where it is too noisy to be called flat by
/// itself, the same loss on other data may be.
fn found(view: &View<'_>, run: f64, beside: &[&View<'_>]) -> Option<Flat> {
    let flat: Vec<&View<'_>> = beside.iter().copied().filter(|v| flat_end(v, run).is_some()).collect();
    let hidden = if flat.is_empty() { HIDDEN } else { HIDDEN_BOTH };
    let mut end = flat_to(view, run, hidden)?;
    end.node = knee(view, &end, &flat);
    if beside.is_empty() {
        return Some(end);
    }
    // Where it is not level enough yet, it is so later, or it is not told.
    let n = view.curve.nodes.len();
    for _ in 0..LATER {
        if level_since(view, &end, beside) {
            return Some(end);
        }
        end.node += (n.saturating_sub(end.node) / 8).max(1);
    }
    None
}

/// Whether the curves together exclude that more than a little of the gain came
/// after the node, be it at once, later or evenly.
fn level_since(view: &View<'_>, flat: &Flat, beside: &[&View<'_>]) -> bool {
    let (step, n) = (view.step_of_node(flat.node), view.curve.nodes.len());
    let same = |v: &&View<'_>| v.curve.in_logarithms() == view.curve.in_logarithms();
    let from = |v: &View<'_>| v.curve.nodes.partition_point(|n| n.first_step() < step);
    let others = beside.iter().copied().filter(same).map(|v| (v, from(v)));
    let curves: Vec<(&View<'_>, usize)> = std::iter::once((view, flat.node)).chain(others).collect();
    flat.node < n
        && WITHIN.iter().all(|within| {
            together(&curves, *within)
                .is_some_and(|g| g.gain + SURE * g.variance.sqrt() < REMAINS * flat.gain)
        })
}

/// Before the decay of a rate that is constant so far a level loss is no failure: it falls with the rate.
fn weight(run: f64, share: f64, rate: Rate) -> Severity {
    let warned = match rate {
        Rate::Constant(_) => run <= 1.05 && share > 0.4,
        Rate::Unknown => run > 1.05 || share > 0.4,
        Rate::Changing => run > 1.05,
    };
    if warned { Severity::Warning } else { Severity::Note }
}

pub(in crate::judge) fn find(view: &View<'_>, run: f64, rate: Rate, beside: &[&View<'_>]) -> Option<Finding> {
    let traits = &view.track.traits;
    if !matches!(traits.role, Role::Loss | Role::Score | Role::Error)
        || traits.direction == Direction::Unknown
    {
        return None;
    }
    let flat = found(view, run, beside)?;
    let first = view.step_of_node(flat.node);
    let curve = &view.curve;
    let level = curve.value(fit::median_of(&view.levels.y[flat.group..]));
    let share = (curve.nodes.len() - flat.node) as f64 / curve.nodes.len() as f64;
    // A run that comes to rest under its schedule, and is over, has converged.
    let advice = match rate {
        Rate::Constant(lr) => format!(
            "the learning rate is constant at {}: if a decay is planned expect a drop then; if none is, decay it or stop",
            short(lr)
        ),
        Rate::Changing if run > 1.05 => "wait for the rest of the schedule, or stop to save it".to_owned(),
        _ => "more steps of this kind will not help: stop, or change the learning rate".to_owned(),
    };
    Some(Finding {
        kind: Kind::Plateau,
        severity: weight(run, share, rate),
        metric: view.track.name.clone(),
        first_step: first,
        last_step: None,
        window: view.curve.nodes[flat.node..].iter().map(|n| u64::from(n.n)).sum(),
        threshold: flat.threshold,
        evidence: facts([
            ("improvement over the stretch, in the unit of the gain", flat.improvement),
            ("level", level),
            ("share of the run", share),
            ("gain before", flat.gain),
        ]),
        recommendation: format!(
            "{} has stayed near {} since{} ({}% of the run): {advice}",
            view.track.name,
            short(level),
            at(first).replace(" at", ""),
            (100.0 * share).round()
        ),
    })
}
