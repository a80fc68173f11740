//! The steps of a run worth looking at: bests, turns, restarts, and what was
//! found.

use serde::{Deserialize, Serialize};

use super::super::Judge;
use super::super::detect::View;
use super::super::finding::{Finding, short};
use super::super::fit;
use super::super::schema::{Direction, Role, Split};
use crate::number;

/// Most moments told.
const MOST: usize = 24;
/// Turns looked for in the training loss.
const TURNS: usize = 4;

/// Why a step is worth looking at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MomentKind {
    /// The best value of a validation metric, or of the primary one.
    Best,
    /// The curve takes another course.
    Turn,
    /// The learning rate changes at once.
    LearningRate,
    /// The run was resumed.
    Resume,
    /// A finding begins.
    Anomaly,
}

/// One step worth looking at.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Moment {
    /// The step; `None` where the program names none.
    pub step: Option<u64>,
    /// Why.
    pub kind: MomentKind,
    /// In which metric.
    pub metric: String,
    /// The metric's value there, where that says something.
    #[serde(with = "number::option")]
    pub value: Option<f64>,
    /// In words.
    pub text: String,
}

pub(super) fn moments(
    judge: &Judge,
    views: &[View<'_>],
    findings: &[Finding],
    primary: Option<&str>,
) -> Vec<Moment> {
    let mut all: Vec<Moment> = Vec::new();
    for view in views {
        let track = view.track;
        let judged = track.traits.split == Split::Validation || Some(track.name.as_str()) == primary;
        let best = match track.traits.direction {
            Direction::Lower => track.lowest,
            Direction::Higher => track.highest,
            Direction::Unknown => None,
        };
        if let Some((value, step)) = best.filter(|_| judged) {
            let text = format!("best {}: {}", track.name, short(value));
            all.push(Moment {
                step,
                kind: MomentKind::Best,
                metric: track.name.clone(),
                value: Some(value),
                text,
            });
        }
    }
    if let Some(loss) = super::findings::training_loss(views) {
        all.extend(turns(loss));
    }
    let rates = views.iter().filter(|v| v.track.traits.role == Role::LearningRate);
    all.extend(rates.flat_map(rate_changes));
    all.extend(judge.segments.iter().map(|step| Moment {
        step: *step,
        kind: MomentKind::Resume,
        metric: String::new(),
        value: None,
        text: "the run was resumed after this step".to_owned(),
    }));
    all.extend(findings.iter().map(|f| Moment {
        step: f.first_step,
        kind: MomentKind::Anomaly,
        metric: f.metric.clone(),
        value: f.evidence.first().map(|e| e.value),
        text: format!("{} in {}", f.kind.name().replace('_', " "), f.metric),
    }));
    // Findings and bests are kept before turns when there are too many.
    all.sort_by_key(|m| match m.kind {
        MomentKind::Anomaly => 0,
        MomentKind::Best => 1,
        MomentKind::Resume => 2,
        MomentKind::LearningRate => 3,
        MomentKind::Turn => 4,
    });
    all.truncate(MOST);
    all.sort_by_key(|m| m.step);
    all
}

/// Where the training loss takes another course: between lines, each worth far
/// more than chance gives.
fn turns(loss: &View<'_>) -> Vec<Moment> {
    let ys = loss.curve.ys();
    let least = (ys.len() / 25).max(5);
    let penalty = 12.0 * (ys.len() as f64).max(2.0).ln();
    let places = fit::line_changes(&ys, least, penalty, TURNS);
    places
        .into_iter()
        .map(|node| {
            let value = loss.curve.value(ys[node]);
            Moment {
                step: loss.step_of_node(node),
                kind: MomentKind::Turn,
                metric: loss.track.name.clone(),
                value: Some(value),
                text: format!("{} takes another course near {}", loss.track.name, short(value)),
            }
        })
        .collect()
}

/// Where the learning rate at least doubles or halves from one bucket to the
/// next.
fn rate_changes(rate: &View<'_>) -> Vec<Moment> {
    let nodes = &rate.curve.nodes;
    let changes = nodes.windows(2).filter(|w| {
        let (a, b) = (rate.curve.value(w[0].y), rate.curve.value(w[1].y));
        a > 0.0
            && b > 0.0
            && !(0.5..=2.0).contains(&(b / a))
            && a.max(b) > 0.01 * rate.track.highest.map_or(0.0, |h| h.0)
    });
    changes
        .take(8)
        .map(|w| {
            let (a, b) = (rate.curve.value(w[0].y), rate.curve.value(w[1].y));
            Moment {
                step: w[1].first_step(),
                kind: MomentKind::LearningRate,
                metric: rate.track.name.clone(),
                value: Some(b),
                text: format!("{} goes from {} to {}", rate.track.name, short(a), short(b)),
            }
        })
        .collect()
}
