//! What is said of a run.

mod arrival;
mod course;
mod expected;
mod findings;
mod forecast;
mod health;
mod moments;
mod notes;
mod resources;
mod summary;
mod trend;

use serde::{Deserialize, Serialize};

use super::Judge;
use super::detect::View;
use super::finding::{Finding, at, short};
use super::schema::{Direction, Role, Split};
use crate::number;
pub use arrival::{Arrival, Verdict};
pub use course::{Finish, Level, StageReport, relative_speed};
pub use forecast::Forecast;
pub use health::{Health, Label, Part};
pub use moments::{Moment, MomentKind};
pub use resources::ResourceTrend;
pub use summary::Summary;
pub use trend::{Going, Trend};

use forecast::Plan;

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
    /// The first value that is finite.
    #[serde(with = "number::option")]
    pub first: Option<f64>,
    /// The newest value.
    #[serde(with = "number")]
    pub last: f64,
    /// The level of the newest finite values: of at most the last 48th of them.
    #[serde(with = "number::option")]
    pub level: Option<f64>,
    /// The best value and its step, where a direction is known.
    #[serde(with = "number::option")]
    pub best: Option<f64>,
    /// Step of the best value.
    pub best_step: Option<u64>,
    /// Where it goes; of metrics with a direction, where values are enough to tell.
    pub trend: Option<Trend>,
    /// Its course in at most 48 levels; of metrics with a direction.
    pub levels: Vec<Level>,
    /// When it reaches the value that is waited for, if one is.
    pub target: Option<Arrival>,
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
    /// Memory and disks that fill up, the first to be full first.
    pub resources: Vec<ResourceTrend>,
    /// Whether a learning rate stands below its highest; `None`: none was logged.
    #[serde(default)]
    pub rate_fell: Option<bool>,
    /// What is odd about the log itself, such as steps that go back.
    pub notes: Vec<String>,
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
    let metrics: Vec<MetricReport> = views.iter().map(|v| metric(judge, v, primary.as_deref())).collect();
    let of_primary = primary.as_deref().and_then(|p| views.iter().find(|v| v.track.name == p));
    let planned = judge.settings.planned_steps;
    let mut health = health::health(&findings, views.iter().any(enough));
    if judge.end.as_ref().is_some_and(|end| end.failed) {
        health.labels.retain(|label| *label != Label::Healthy);
        health.labels.insert(0, Label::Failed);
    }
    let target = metrics.iter().find(|m| Some(&m.name) == primary.as_ref()).and_then(|m| m.target.clone());
    // What is lost goes nowhere.
    let of_primary = of_primary.filter(|_| !health.labels.contains(&Label::Diverged));
    let forecast = of_primary.and_then(|v| forecast::forecast(v, Plan::of(judge), target));
    let finish = course::finish(judge);
    let shown = primary.as_deref().and_then(|p| views.iter().find(|v| v.track.name == p));
    let staged = findings::training_loss(&views).or(shown);
    let stages = course::stages(judge, staged);
    let resources = resources::resources(judge);
    let summary = summary::summary(&summary::Material {
        primary: primary.as_deref().and_then(|p| metrics.iter().find(|m| m.name == p)),
        metrics: &metrics,
        findings: &findings,
        health: &health,
        forecast: forecast.as_ref(),
        instead: of_primary.and_then(|primary| instead(judge, primary, &views, &metrics)),
        finish: finish.as_ref(),
        resources: &resources,
        step: judge.max_step,
        planned,
        end: judge.end.as_ref(),
    });
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
        resources,
        rate_fell: rate_fell(judge),
        notes: notes::notes(judge),
        dropped_points: judge.dropped_points,
    }
}

/// Of its highest a rate that falls has less.
const FELL: f64 = 0.95;

fn rate_fell(judge: &Judge) -> Option<bool> {
    let highest = |track: &super::track::Track| track.highest.map(|high| high.0).filter(|high| *high > 0.0);
    let rates = judge.tracks.iter().filter(|track| track.traits.role == Role::LearningRate);
    let fell: Vec<bool> = rates.filter_map(|track| Some(track.last < FELL * highest(track)?)).collect();
    (!fell.is_empty()).then(|| fell.contains(&true))
}

/// The training loss and where it goes, where the primary metric is another that
/// has too few values to be foreseen.
fn instead<'a>(
    judge: &Judge,
    primary: &View<'_>,
    views: &[View<'_>],
    metrics: &'a [MetricReport],
) -> Option<(&'a MetricReport, Forecast)> {
    let training = findings::training_loss(views).filter(|v| v.track.name != primary.track.name)?;
    let few = primary.curve.points() < forecast::FEWEST as u64;
    let said = metrics.iter().find(|m| m.name == training.track.name)?;
    Some((said, forecast::forecast(training, Plan::of(judge), None).filter(|_| few)?))
}

/// Whether a metric has points enough to judge the run by.
fn enough(view: &View<'_>) -> bool {
    let judged = matches!(view.track.traits.role, Role::Loss | Role::Score | Role::Error);
    judged && view.curve.points() >= 20
}

fn metric(judge: &Judge, view: &View<'_>, primary: Option<&str>) -> MetricReport {
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
    let of_primary = judge.settings.target.filter(|_| primary == Some(track.name.as_str()));
    let target = spec.and_then(|s| s.target).or(of_primary);
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
        first: track.start.first().copied(),
        last: track.last,
        level: view.levels.y.last().map(|y| view.curve.value(*y)),
        best: best.map(|b| b.0),
        best_step: best.and_then(|b| b.1),
        trend: if shown { trend::trend(view) } else { None },
        levels: if shown { course::levels(view) } else { Vec::new() },
        target: target.and_then(|target| arrival::arrival(view, target, Plan::of(judge))),
    }
}

#[cfg(test)]
mod tests;
