//! Two or three sentences for somebody who reads nothing else, and the same as
//! data.
//!
//! They speak of one run: what differs within it is never called significant.

use serde::{Deserialize, Serialize};

use super::super::finding::{Finding, Severity, short};
use super::health::{Health, Label};
use super::trend::{Forecast, Going};
use super::{MetricReport, course::Finish};
use crate::number;

/// What there is to say first.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// The primary metric, its start, its newest level and its best.
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
    /// Two or three, each complete.
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
    pub(super) findings: &'a [Finding],
    pub(super) health: &'a Health,
    pub(super) forecast: Option<&'a Forecast>,
    pub(super) finish: Option<&'a Finish>,
    pub(super) step: Option<u64>,
    pub(super) planned: Option<u64>,
}

pub(super) fn summary(of: &Material<'_>) -> Summary {
    let label = of.health.labels.first().copied().unwrap_or(Label::TooEarly);
    let mut sentences = vec![course(of)];
    sentences.push(verdict(of, label));
    sentences.extend(outlook(of));
    let primary = of.primary;
    Summary {
        metric: primary.map(|m| m.name.clone()),
        start: primary.and_then(|m| m.levels.first()).map(|l| l.value),
        now: primary.and_then(|m| m.levels.last()).map(|l| l.value),
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
    let ends = metric.levels.first().zip(metric.levels.last());
    let (first, last) = ends.map_or((metric.last, metric.last), |(a, b)| (a.value, b.value));
    if !first.is_finite() && !last.is_finite() && metric.best.is_none() {
        return format!("{} was no number in any of {} values{place}.", metric.display, metric.count);
    }
    format!(
        "{} went from {} to {}{place} ({} values{}).",
        metric.display,
        short(first),
        short(last),
        metric.count,
        best.unwrap_or_default()
    )
}

fn verdict(of: &Material<'_>, label: Label) -> String {
    let score = of.health.score.map(|s| format!(" (health {s} of 100)")).unwrap_or_default();
    let Some(worst) = of.findings.first().filter(|f| f.severity >= Severity::Warning) else {
        let notes = of.findings.len();
        return match (label, notes) {
            (Label::TooEarly, _) => "There are too few points to judge it.".to_owned(),
            (_, 0) => format!("Nothing is wrong with it as far as its metrics tell{score}."),
            (_, n) => format!(
                "It looks healthy{score}; {n} lesser finding{} noted.",
                if n == 1 { " is" } else { "s are" }
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

fn outlook(of: &Material<'_>) -> Option<String> {
    let lost = of.health.labels.contains(&Label::Diverged);
    let forecast = of.forecast.filter(|_| !lost);
    let going = of.primary.and_then(|m| m.trend.as_ref()).map(|t| t.going);
    let left =
        of.finish.filter(|f| f.seconds_left > 0.0).map(|f| format!("{} left", duration(f.seconds_left)));
    let ahead = forecast.map(|f| match &f.target {
        Some(arrival) => arrival.text.clone(),
        None => format!("about {} to {} expected at step {}", short(f.low), short(f.high), f.step),
    });
    let ahead =
        ahead.filter(|_| forecast.is_some_and(|f| f.target.is_some()) || going == Some(Going::Better));
    let parts: Vec<String> = ahead.into_iter().chain(left).collect();
    (!parts.is_empty()).then(|| {
        let text = parts.join("; ");
        format!("Ahead: {text}.")
    })
}

fn duration(seconds: f64) -> String {
    match seconds {
        s if s < 90.0 => format!("{s:.0} s"),
        s if s < 5400.0 => format!("{:.0} min", s / 60.0),
        s if s < 172_800.0 => format!("{:.1} h", s / 3600.0),
        s => format!("{:.1} days", s / 86_400.0),
    }
}
