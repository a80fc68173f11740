//! Whether a metric reaches a value that is waited for, and when.

use serde::{Deserialize, Serialize};

use super::super::detect::View;
use super::super::fit;
use super::super::schema::{Direction, Split};
use super::forecast::{Ahead, Plan, sign};
use super::{at, short};
use crate::number;

/// Groups of a training metric, of which none reaches a value by its noise alone.
const GROUPS: usize = 100;
/// Places ahead that are tried.
const PLACES: u32 = 400;

/// When a target will be reached.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Arrival {
    /// The value waited for.
    #[serde(with = "number")]
    pub target: f64,
    /// Whether it was, or will be.
    pub verdict: Verdict,
    /// The step at which it was, or is expected to be reached.
    pub step: Option<u64>,
    /// The step before which it will hardly be reached.
    pub earliest: Option<u64>,
    /// The step by which it should be reached; `None` when it may never be.
    pub latest: Option<u64>,
    /// In words that follow the metric's name: `reaches 0.35 at step 52000 (48000 to 61000)`.
    pub text: String,
}

/// Whether a target is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// It has been.
    Reached,
    /// It will be, within the interval.
    Expected,
    /// It may be: one end of the interval never reaches it, or only after the
    /// planned end.
    Uncertain,
    /// It will not be by the planned end, or, where none is known, in four times
    /// the length seen.
    NotExpected,
    /// The run is over and it was not.
    Missed,
    /// It has not been, and there is too little to tell when it will be.
    Unknown,
}

/// When `view` reaches `target`; `None` where no way is the better one.
pub(super) fn arrival(view: &View<'_>, target: f64, plan: Plan) -> Option<Arrival> {
    if view.track.traits.direction == Direction::Unknown || !target.is_finite() {
        return None;
    }
    let ahead = Ahead::of(view, plan);
    let made = |verdict, [step, earliest, latest]: [Option<u64>; 3], text: String| Arrival {
        target,
        verdict,
        step,
        earliest,
        latest,
        text,
    };
    let shown = short(target);
    if let Some(node) = reached(view, sign(view) * target) {
        let step = view.step_of_node(node);
        return Some(made(Verdict::Reached, [step; 3], format!("reached {shown}{}", at(step))));
    }
    Some(match ahead {
        _ if plan.has_ended() => made(Verdict::Missed, [None; 3], format!("did not reach {shown}")),
        Some(ahead) if ahead.over => made(Verdict::Missed, [None; 3], format!("did not reach {shown}")),
        None => {
            let text =
                format!("has not reached {shown} so far, and there is too little to tell when it will");
            made(Verdict::Unknown, [None; 3], text)
        }
        Some(ahead) => {
            let (verdict, steps, text) = foreseen(&ahead, sign(view) * target, &shown);
            made(verdict, steps, text)
        }
    })
}

/// The first node that was as good as `target`, which is such that lower is
/// better: of evaluations each counts, of training the median of a group.
fn reached(view: &View<'_>, target: f64) -> Option<usize> {
    let ys = view.curve.ys();
    let groups = if view.track.traits.split == Split::Validation { ys.len() } else { ys.len().min(GROUPS) };
    let from = |group: usize| group * ys.len() / groups;
    let level = |group: usize| view.curve.oriented(fit::median_of(&ys[from(group)..from(group + 1)]));
    (0..groups).find(|group| level(*group) <= target).map(from)
}

pub(super) fn foreseen(ahead: &Ahead, target: f64, shown: &str) -> (Verdict, [Option<u64>; 3], String) {
    let end = ahead.end();
    let horizon = end.saturating_sub(ahead.first).max(ahead.seen.saturating_mul(4));
    let ratio = horizon as f64 / ahead.seen as f64;
    let place = |i: u32| {
        let steps = ahead.seen as f64 * ratio.powf(f64::from(i) / f64::from(PLACES));
        ahead.first.saturating_add(steps as u64)
    };
    let reaches = |side: f64| {
        (0..=PLACES).map(place).find(|step| {
            let (value, width) = ahead.at(*step);
            value + side * width <= target
        })
    };
    let steps @ [step, earliest, latest] = [reaches(0.0), reaches(-1.0), reaches(1.0)];
    let planned = |step: u64| ahead.planned.is_some_and(|planned| step > planned);
    let (verdict, text) = match (earliest, step, latest) {
        (None, _, _) if ahead.planned.is_none() => {
            let by = ahead.first.saturating_add(horizon);
            (Verdict::NotExpected, format!("will not reach {shown} by step {by}"))
        }
        (earliest, _, _) if earliest.is_none_or(planned) => {
            (Verdict::NotExpected, format!("will not reach {shown} by step {end}, its planned end"))
        }
        (Some(a), Some(b), _) if planned(b) => (
            Verdict::Uncertain,
            format!(
                "may reach {shown} by step {end}, its planned end, but is expected to at step {b} (from {a} on)"
            ),
        ),
        (Some(a), Some(b), Some(c)) => {
            (Verdict::Expected, format!("reaches {shown} at step {b} ({a} to {c})"))
        }
        (Some(a), Some(b), None) => {
            (Verdict::Uncertain, format!("may reach {shown} at step {b}, not before {a}, or never"))
        }
        (Some(a), None, _) => {
            (Verdict::Uncertain, format!("is unlikely to reach {shown}: not before step {a}, if ever"))
        }
        (None, _, _) => (Verdict::NotExpected, format!("will not reach {shown}")),
    };
    (verdict, steps, text)
}
