//! Two or three sentences for somebody who reads nothing else, and the same as
//! data. One more each for targets and resources where there are such.
//!
//! They speak of one run: what differs within it is never called significant.

use serde::{Deserialize, Serialize};

use super::super::End;
use super::super::detect::overfit::FEWEST;
use super::super::disagreement;
use super::super::finding::{Finding, Severity, short};
use super::super::schema::{Direction, Role, Split};
use super::forecast::FEWEST as FORESEEN;
use super::health::{Health, Label};
use super::trend::Going;
use super::{Forecast, MetricReport, ResourceTrend, Verdict, course::Finish};
use crate::number;

/// Targets that are told.
const TARGETS: usize = 4;
/// Resources that are told.
const RESOURCES: usize = 3;

/// What there is to say first.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// The primary metric, its first finite value, its newest level (what is no
    /// number, where it ended so) and its best.
    pub metric: Option<String>,
    /// See `metric`.
    #[serde(with = "number::option")]
    pub start: Option<f64>,
    /// See `metric`.
    #[serde(with = "number::option")]
    pub now: Option<f64>,
    /// See `metric`.
    #[serde(with = "number::option")]
    pub best: Option<f64>,
    /// Step of the best.
    pub best_step: Option<u64>,
    /// The gravest label.
    pub label: Label,
    /// Two or three, and one each for targets and resources where there are
    /// such; each complete.
    pub sentences: Vec<String>,
}

impl Summary {
    /// The sentences as one text.
    #[must_use]
    pub fn text(&self) -> String {
        self.sentences.join(" ")
    }
}

/// What the sentences are made of.
pub(super) struct Material<'a> {
    pub(super) primary: Option<&'a MetricReport>,
    pub(super) metrics: &'a [MetricReport],
    pub(super) findings: &'a [Finding],
    pub(super) health: &'a Health,
    pub(super) forecast: Option<&'a Forecast>,
    /// The training loss and where it goes, where the primary metric has too few
    /// values for a forecast.
    pub(super) instead: Option<(&'a MetricReport, Forecast)>,
    pub(super) finish: Option<&'a Finish>,
    pub(super) resources: &'a [ResourceTrend],
    pub(super) step: Option<u64>,
    pub(super) planned: Option<u64>,
    pub(super) end: Option<&'a End>,
}

pub(super) fn summary(of: &Material<'_>) -> Summary {
    let label = of.health.labels.first().copied().unwrap_or(Label::TooEarly);
    let how = of.end.filter(|end| !end.text.is_empty()).map(|end| end.text.clone());
    let mut sentences: Vec<String> = how.into_iter().collect();
    sentences.extend([course(of), verdict(of, label)]);
    sentences.extend(targets(of));
    sentences.extend(outlook(of).filter(|_| of.end.is_none()));
    sentences.extend(resources(of));
    let primary = of.primary;
    Summary {
        metric: primary.map(|m| m.name.clone()),
        start: primary.and_then(|m| m.first),
        now: primary.map(now),
        best: primary.and_then(|m| m.best),
        best_step: primary.and_then(|m| m.best_step),
        label,
        sentences,
    }
}

fn course(of: &Material<'_>) -> String {
    let Some(metric) = of.primary else {
        return "Nothing was logged that a run could be judged by.".to_owned();
    };
    let place = match (of.step, of.planned) {
        (Some(step), Some(planned)) => format!(" by step {step} of {planned}"),
        (Some(step), None) => format!(" by step {step}"),
        _ => String::new(),
    };
    let best = metric.best.map(|b| {
        let step = metric.best_step.map(|s| format!(" at step {s}")).unwrap_or_default();
        format!(", best {}{step}", short(b))
    });
    let Some(first) = metric.first else {
        return format!("{} was no number in any of {} values{place}.", metric.display, metric.count);
    };
    let (last, shown) = (short(metric.last), short(now(metric)));
    // A level is not what was logged.
    let about = if shown == last { "" } else { "about " };
    let unit = metric.unit.as_ref().map(|unit| format!(" {unit}")).unwrap_or_default();
    format!(
        "{} went from {} to {about}{shown}{unit}{place} ({} values{}).",
        metric.display,
        short(first),
        metric.count,
        best.unwrap_or_default()
    )
}

/// The newest level, or the newest value where it is no number.
fn now(metric: &MetricReport) -> f64 {
    metric.level.filter(|_| metric.last.is_finite()).unwrap_or(metric.last)
}

fn verdict(of: &Material<'_>, label: Label) -> String {
    let score = of.health.score.map(|s| format!(" (health {s} of 100)")).unwrap_or_default();
    let Some(worst) = of.findings.first().filter(|f| f.severity >= Severity::Warning) else {
        let notes = of.findings.len();
        // Of what one would stop for by the loss alone, more is said than its number.
        let contradicted = of.findings.iter().find(|f| f.fact(disagreement::TASK).is_some());
        if let Some(finding) = contradicted.filter(|_| label != Label::Failed) {
            let few = "There are too few points to judge it";
            let how = if label == Label::TooEarly { few } else { "It looks healthy" };
            return format!("{how}{score}, but mind: {}.", finding.recommendation);
        }
        return match (label, notes) {
            (Label::Failed, _) if !score.is_empty() => {
                let lesser =
                    if notes > 0 { format!("; {notes} of lesser weight noted") } else { String::new() };
                format!("Its metrics were fine until then{score}{lesser}.")
            }
            (Label::TooEarly | Label::Failed, _) if of.primary.is_none() && !of.metrics.is_empty() => {
                "No name in it says which way is better: say so in [metrics].".to_owned()
            }
            (Label::TooEarly | Label::Failed, _) => "There are too few points to judge it.".to_owned(),
            (_, 0) => {
                let (what, but) = match unjudged(of) {
                    Some(but) => ("its training", but),
                    None => ("it", String::new()),
                };
                format!("Nothing is wrong with {what} as far as its metrics tell{score}{but}.")
            }
            (_, n) => format!(
                "It looks healthy{score}; {n} lesser finding{} noted{}.",
                if n == 1 { " is" } else { "s are" },
                unjudged(of).unwrap_or_default()
            ),
        };
    };
    let more = of.findings.len() - 1;
    let others = if more > 0 {
        format!("; {more} more finding{}", if more == 1 { "" } else { "s" })
    } else {
        String::new()
    };
    let mut said = worst.recommendation.clone();
    if let Some(first) = said.get(..1) {
        let upper = if worst.metric.starts_with(first) { first.to_owned() } else { first.to_uppercase() };
        said.replace_range(..1, &upper);
    }
    format!("{said}{others}{score}.")
}

/// That evaluations were too few to be judged, where no metric of them had enough.
fn unjudged(of: &Material<'_>) -> Option<String> {
    let evaluates = |m: &&MetricReport| {
        m.split == Split::Validation
            && m.direction != Direction::Unknown
            && matches!(m.role, Role::Loss | Role::Score | Role::Error)
    };
    let most = of.metrics.iter().filter(evaluates).max_by_key(|m| m.count)?;
    let values = if most.count == 1 { "value is" } else { "values are" };
    (most.count < FEWEST as u64)
        .then(|| format!("; {} was not judged: {} {values} too few", most.display, most.count))
}

/// Values that are waited for; of a run that is lost only those that it had
/// reached.
fn targets(of: &Material<'_>) -> Option<String> {
    let lost = of.health.labels.contains(&Label::Diverged);
    let told = of.metrics.iter().filter_map(|metric| {
        let target = metric.target.as_ref().filter(|t| !lost || t.verdict == Verdict::Reached)?;
        Some(format!("{} {}", metric.display, target.text))
    });
    let told: Vec<String> = told.take(TARGETS).collect();
    (!told.is_empty()).then(|| format!("Targets: {}.", told.join("; ")))
}

fn resources(of: &Material<'_>) -> Option<String> {
    let told: Vec<&str> = of.resources.iter().take(RESOURCES).map(|one| one.text.as_str()).collect();
    (!told.is_empty()).then(|| format!("Resources: {}.", told.join("; ")))
}

fn outlook(of: &Material<'_>) -> Option<String> {
    let lost = of.health.labels.contains(&Label::Diverged);
    let forecast = of.forecast.filter(|_| !lost);
    let going = of.primary.and_then(|m| m.trend.as_ref()).map(|t| t.going);
    let left = of.finish.filter(|f| f.seconds_left > 0.0).map(|f| {
        let cost = f.usd_left.map(|usd| format!(" and about {}", dollars(usd))).unwrap_or_default();
        format!("{}{cost} left", duration(f.seconds_left))
    });
    let expected = |f: &Forecast| {
        let (low, high) = (short(f.low), short(f.high));
        // A longer run is nobody's plan.
        let longer = if f.planned { "" } else { ", were it half as long again" };
        format!("about {low} to {high} expected at step {}{longer}", f.step)
    };
    let ahead = forecast.filter(|_| going == Some(Going::Better)).map(expected);
    let better = |m: &MetricReport| m.trend.as_ref().is_some_and(|t| t.going == Going::Better);
    let ahead = ahead.or_else(|| {
        let (training, forecast) = of.instead.as_ref().filter(|(m, _)| !lost && better(m))?;
        let primary = of.primary?;
        Some(format!(
            "{} values of {} are too few to foresee it ({FORESEEN} are needed); {}: {}",
            primary.count,
            primary.display,
            training.display,
            expected(forecast)
        ))
    });
    let parts: Vec<String> = ahead.into_iter().chain(left).collect();
    (!parts.is_empty()).then(|| {
        let text = parts.join("; ");
        format!("Ahead: {text}.")
    })
}

/// Of less than a cent its first digits.
fn dollars(usd: f64) -> String {
    if usd < 0.005 { format!("${usd:.4}") } else { format!("${usd:.2}") }
}

pub(super) fn duration(seconds: f64) -> String {
    match seconds {
        s if s < 90.0 => format!("{s:.0} s"),
        s if s < 5400.0 => format!("{:.0} min", s / 60.0),
        s if s < 172_800.0 => format!("{:.1} h", s / 3600.0),
        s => format!("{:.1} days", s / 86_400.0),
    }
}
