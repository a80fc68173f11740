//! What is said of a run.

mod course;
mod findings;
mod health;
mod moments;
mod summary;
mod trend;

use serde::{Deserialize, Serialize};

use super::Judge;
use super::detect::View;
use super::finding::{Finding, at, short};
use super::schema::{Direction, Role, Split};
use crate::number;
pub use course::{Finish, Level, StageReport, relative_speed};
pub use health::{Health, Label, Part};
pub use moments::{Moment, MomentKind};
pub use summary::Summary;
pub use trend::{Arrival, Forecast, Going, Trend, Verdict};

/// One metric in a report.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MetricReport {
    /// As the program wrote it.
    pub name: String,
    /// How to call it: the schema's word, else the name.
    pub display: String,
    /// Its unit, where the schema gives one.
    pub unit: Option<String>,
    /// Its group, where the schema gives one.
    pub group: Option<String>,
    /// What it measures.
    pub role: Role,
    /// On which data.
    pub split: Split,
    /// Which way is better.
    pub direction: Direction,
    /// Why that way.
    pub reason: String,
    /// The training metric that it is measured against.
    pub pair: Option<String>,
    /// Points taken in.
    pub count: u64,
    /// First and newest step, on the metric's own axis.
    pub first_step: Option<u64>,
    /// The newest step.
    pub last_step: Option<u64>,
    /// The newest value.
    #[serde(with = "number")]
    pub last: f64,
    /// The best value and its step, where a direction is known.
    #[serde(with = "number::option")]
    pub best: Option<f64>,
    /// Step of the best value.
    pub best_step: Option<u64>,
    /// Where it goes; of metrics with a direction.
    pub trend: Option<Trend>,
    /// Its course in at most 48 levels; of metrics with a direction.
    pub levels: Vec<Level>,
}

/// All that is said of a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// The metric that the run is judged by.
    pub primary: Option<String>,
    /// In order of their first point.
    pub metrics: Vec<MetricReport>,
    /// The worst first, then by step.
    pub findings: Vec<Finding>,
    /// How it is.
    pub health: Health,
    /// What there is to say first.
    pub summary: Summary,
    /// What the primary metric will be.
    pub forecast: Option<Forecast>,
    /// When the run will be done.
    pub finish: Option<Finish>,
    /// The stages of the schema.
    pub stages: Vec<StageReport>,
    /// The steps worth looking at, in order.
    pub moments: Vec<Moment>,
    /// Points of metrics beyond the bound.
    pub dropped_points: u64,
}

pub(super) fn make(judge: &Judge, now: Option<f64>) -> Report {
    let views: Vec<View<'_>> = judge.tracks.iter().map(View::new).collect();
    let findings = findings::all(judge, &views, now);
    let names = || judge.tracks.iter().map(|t| (t.name.as_str(), t.traits.clone()));
    let schema = &judge.settings.schema;
    let primary = schema
        .primary
        .as_deref()
        .filter(|p| judge.by_name.contains_key(*p))
        .or_else(|| super::schema::primary(names()))
        .map(str::to_owned);
    let metrics: Vec<MetricReport> = views.iter().map(|v| metric(judge, v)).collect();
    let of_primary = primary.as_deref().and_then(|p| views.iter().find(|v| v.track.name == p));
    let planned = judge.settings.planned_steps;
    let forecast = of_primary.and_then(|v| trend::forecast(v, planned, judge.settings.target));
    let finish = course::finish(judge);
    let health = health::health(&findings, views.iter().any(enough));
    let summary = summary::summary(&summary::Material {
        primary: primary.as_deref().and_then(|p| metrics.iter().find(|m| m.name == p)),
        findings: &findings,
        health: &health,
        forecast: forecast.as_ref(),
        finish: finish.as_ref(),
        step: judge.max_step,
        planned,
    });
    let stages = course::stages(judge, findings::training_loss(&views).or(of_primary));
    let moments = moments::moments(judge, &views, &findings, primary.as_deref());
    Report {
        primary,
        metrics,
        findings,
        health,
        summary,
        forecast,
        finish,
        stages,
        moments,
        dropped_points: judge.dropped_points,
    }
}

/// Whether a metric has points enough to judge the run by.
fn enough(view: &View<'_>) -> bool {
    let judged = matches!(view.track.traits.role, Role::Loss | Role::Score | Role::Error);
    judged && view.curve.points() >= 20
}

fn metric(judge: &Judge, view: &View<'_>) -> MetricReport {
    let track = view.track;
    let shown = track.traits.direction != Direction::Unknown;
    let schema = &judge.settings.schema;
    let spec = schema.metrics.get(&track.name);
    let best = match track.traits.direction {
        Direction::Lower => track.lowest,
        Direction::Higher => track.highest,
        Direction::Unknown => None,
    };
    let pair = super::schema::pair(
        (&track.name, &track.traits),
        schema,
        judge.tracks.iter().map(|t| (t.name.as_str(), &t.traits)),
    );
    MetricReport {
        name: track.name.clone(),
        display: spec.and_then(|s| s.display.clone()).unwrap_or_else(|| track.name.clone()),
        unit: spec.and_then(|s| s.unit.clone()),
        group: spec.and_then(|s| s.group.clone()),
        role: track.traits.role,
        split: track.traits.split,
        direction: track.traits.direction,
        reason: track.traits.reason.clone(),
        pair: pair.map(str::to_owned),
        count: track.count,
        first_step: track.first_step,
        last_step: track.last_step,
        last: track.last,
        best: best.map(|b| b.0),
        best_step: best.and_then(|b| b.1),
        trend: if shown { trend::trend(view) } else { None },
        levels: if shown { course::levels(view) } else { Vec::new() },
    }
}
