//! Plateaus: Rule P with a test of its own power, and runs that learn next to
//! nothing.
//!
//! "Flat" needs two things: no improvement beyond noise over the stretch, and
//! noise small enough that an improvement worth having would have been seen.

use super::View;
use crate::judge::finding::{Finding, Kind, Severity, at, facts, short};
use crate::judge::fit;
use crate::judge::schema::{Direction, Role};
use crate::judge::track::FEW;

/// Share of the start below which nothing was learned.
const LEARNED: f64 = 0.03;
/// What noise may hide of a gain at most, where none is seen.
const HIDDEN_GAIN: f64 = 0.12;
/// Share of the gain that a flat stretch could hide at most.
const HIDDEN: f64 = 0.06;

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

/// What the learning rate did, for the words of the finding.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(in crate::judge) enum Rate {
    Unknown,
    Constant(f64),
    Changing,
}

/// The flat end of `view`, at least the window long. `run` is how long the
/// whole run is against what was seen of it: 1 when it is over.
pub(in crate::judge) fn flat_end(view: &View<'_>, run: f64) -> Option<Flat> {
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
        let threshold = (share * gain).max(1.7 * doubt);
        let seen = 2.0 * doubt < HIDDEN * gain;
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
    Some(Flat { node: knee(view, group, gain), group, improvement, gain, threshold })
}

/// The node at which the fall ends. A fall that stops is two lines and ends at
/// their knot; one that runs out is an exponential, and ends where a twentieth
/// of the whole gain is left. Whichever describes the curve better is believed.
fn knee(view: &View<'_>, group: usize, gain: f64) -> usize {
    let levels = &view.levels;
    let reach = ((levels.len() - group) / 2).max(6);
    let low = levels.from[group.saturating_sub(reach)];
    let stretch: Vec<f64> = view.curve.nodes[low..].iter().map(|n| n.y).collect();
    let Some((knot, stops)) = fit::stop(&stretch, 3) else { return levels.from[group] };
    let near = levels.from[group.saturating_sub(3)]..=levels.from[(group + 4).min(levels.len() - 1)];
    if let Some((at, error)) = fit::jump(&stretch, 3)
        && error * 1.3 < stops
        && near.contains(&(low + at))
    {
        return low + at;
    }
    // Far apart in likelihood, or the slow end is believed: it claims less.
    let apart = (9.0 / stretch.len() as f64).exp();
    let node = match fit::decay(&stretch) {
        Some(decay) if decay.error < stops * apart && decay.height > 0.0 => {
            let left = (decay.height / (0.05 * gain).max(1e-12)).ln().max(0.0) / decay.rate;
            low + left as usize
        }
        _ => low + knot,
    };
    if near.contains(&node) { node } else { levels.from[group] }
}

pub(in crate::judge) fn find(view: &View<'_>, run: f64, rate: Rate) -> Option<Finding> {
    let traits = &view.track.traits;
    if !matches!(traits.role, Role::Loss | Role::Score | Role::Error)
        || traits.direction == Direction::Unknown
    {
        return None;
    }
    let flat = flat_end(view, run)?;
    let first = view.step_of_node(flat.node);
    let curve = &view.curve;
    let level = curve.value(fit::median_of(&view.levels.y[flat.group..]));
    let share = (view.levels.len() - flat.group) as f64 / view.levels.len() as f64;
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
        severity: if run > 1.05 || share > 0.4 && rate != Rate::Changing {
            Severity::Warning
        } else {
            Severity::Note
        },
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

/// A training loss that cannot have fallen by a tenth in the whole run. With a
/// known learning rate and an even fall the rate is too low.
pub(in crate::judge) fn not_learning(view: &View<'_>, rate: Option<f64>) -> Option<Finding> {
    let levels = &view.levels;
    let judged = view.track.is_training_loss() && view.track.knobs.sensitivity > 0.0;
    if !judged || levels.len() < 10 || view.curve.points() < 50 {
        return None;
    }
    let relative =
        |y: f64| if view.curve.in_logarithms() { y } else { y / view.track.start().abs().max(1e-9) };
    let third = levels.len() / 3;
    let (head, tail) = (fit::median_of(&levels.y[..third]), fit::median_of(&levels.y[2 * third..]));
    let (gain, doubt) = (relative(head - tail), relative(2.5 * levels.sd / (third as f64).sqrt()));
    // What was learned in the first moments is learned too.
    let start = relative(view.curve.scaled(view.track.start()) - head);
    let few = (view.track.start.len().clamp(1, FEW) as f64).sqrt();
    let at_once = start > LEARNED + relative(4.0 * view.point_noise() / few);
    let lead = relative(fit::median_of(&levels.y[..3]) - tail);
    let spread = relative(1.25 * levels.sd / 3_f64.sqrt());
    let soon = lead > 2.0 * LEARNED + 1.5 * spread || lead + 2.0 * spread > HIDDEN_GAIN;
    let rose = gain < -LEARNED;
    if at_once || soon || rose || gain > 2.0 * LEARNED || gain + doubt > HIDDEN_GAIN {
        return None;
    }
    let half = levels.len() / 2;
    let falls = fit::mann_kendall(&levels.y) < -2.6;
    let late = fit::theil_sen(&levels.y[half..]) < 0.4 * fit::theil_sen(&levels.y[..half]);
    let too_low = rate.filter(|_| falls && late);
    let now = view.curve.value(levels.last());
    let advice = match too_low {
        Some(lr) => {
            format!("it falls evenly but hardly at a learning rate of {}: try ten times as much", short(lr))
        }
        None => {
            "check that gradients reach the weights, the labels belong to the inputs, and the learning rate"
                .into()
        }
    };
    Some(Finding {
        kind: if too_low.is_some() { Kind::LearningRateTooLow } else { Kind::NotLearning },
        severity: Severity::Warning,
        metric: view.track.name.clone(),
        first_step: view.track.first_step,
        last_step: None,
        window: view.curve.points(),
        threshold: 2.0 * LEARNED,
        evidence: facts([
            ("share gained from the first to the last third", gain),
            ("value at the start", view.track.start()),
            ("level now", now),
            ("learning rate", rate.unwrap_or(f64::NAN)),
        ]),
        recommendation: format!(
            "{} went from {} to {} in {} points: {advice}",
            view.track.name,
            short(view.track.start()),
            short(now),
            view.curve.points()
        ),
    })
}
