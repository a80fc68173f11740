//! What a report says of runs, before it is Markdown or HTML.

use curves::judge::schema::{Direction, Role};
use curves::judge::{Severity, short};
use curves::log::Value;
use curves::view::draw::{Line, Mark};
use curves::view::{Statistics, statistics};

use super::described::Described;
use super::load::Run;
use super::{plot, remarks, settings};
use crate::commands::analyze::words;

/// Metrics that are drawn, and listed.
const DRAWN: usize = 12;
const LISTED: usize = 100;
/// Findings of a run.
const FINDINGS: usize = 20;

/// One run of a report.
pub(super) struct Part {
    pub(super) described: Described,
    pub(super) sentences: Vec<String>,
    /// Severity, what, steps, advice.
    pub(super) findings: Vec<[String; 4]>,
    pub(super) metrics: Vec<(String, Statistics)>,
    /// Metrics beyond those listed.
    pub(super) more: usize,
    pub(super) settings: Vec<(String, String)>,
    pub(super) lines: Vec<Line>,
    pub(super) marks: Vec<Mark>,
    pub(super) notes: Vec<String>,
    /// What people said of it: what that is and when, and the text.
    pub(super) remarks: Vec<(String, String)>,
}

impl Part {
    pub(super) fn of(run: &Run, wanted: &[String]) -> Self {
        let report = run.gathered.judge();
        let described = Described::of(run);
        let mut names: Vec<(u8, String)> = run
            .columns()
            .filter(|(name, _)| {
                wanted.is_empty() || wanted.iter().any(|text| name == text || super::load::like(text, name))
            })
            .map(|(name, _)| (rank(name, described.primary.as_deref(), &report), name.to_owned()))
            .collect();
        names.sort();
        let more = names.len().saturating_sub(LISTED);
        names.truncate(LISTED);
        let mut metrics = Vec::new();
        let mut lines = Vec::new();
        for (_, name) in names {
            let Some(course) = run.course(&name) else { continue };
            metrics.push((name.clone(), statistics(&course.points)));
            if lines.len() < DRAWN && course.points.len() > 1 {
                lines.push(Line { name, points: curves::downsample::min_max(&course.points, 1000) });
            }
        }
        // Sentences have the names as the judge was told them.
        let respelt: Vec<(String, String)> = run
            .columns()
            .map(|(name, _)| (words::metric(name), words::page(name)))
            .filter(|(judged, page)| judged != page)
            .collect();
        let respelt = |text: String| {
            respelt.iter().fold(text, |text, (judged, page)| text.replace(judged.as_str(), page))
        };
        let drawn: Vec<String> = lines.iter().map(|line| line.name.clone()).collect();
        Self {
            sentences: report.summary.sentences.iter().map(|text| respelt(text.clone())).collect(),
            findings: report
                .findings
                .iter()
                .take(FINDINGS)
                .map(|one| {
                    let [severity, what, steps, advice] = finding(one);
                    [severity, what, steps, respelt(advice)]
                })
                .collect(),
            marks: plot::found(run, &drawn, words::page),
            remarks: remarks::of(run),
            settings: settings::flat(run)
                .iter()
                .map(|(name, value)| match value {
                    Value::Text(text) => (name.clone(), words::page(text)),
                    value => (name.clone(), settings::said(value)),
                })
                .collect(),
            notes: run.notes.clone(),
            described,
            metrics,
            more,
            lines,
        }
    }

    /// The name people see, else the path.
    pub(super) fn title(&self) -> String {
        let path = || words::page_path(self.described.path.as_ref());
        self.described.name().map_or_else(path, words::page)
    }
}

/// What a report is about comes first: the primary metric, what is judged, then others.
fn rank(name: &str, primary: Option<&str>, report: &curves::judge::Report) -> u8 {
    let metric = report.metrics.iter().find(|metric| metric.name == name);
    match metric {
        _ if Some(name) == primary => 0,
        Some(metric) if matches!(metric.role, Role::Loss | Role::Error | Role::Score) => 1,
        Some(metric) if metric.direction != Direction::Unknown => 2,
        Some(metric) if matches!(metric.role, Role::LearningRate | Role::GradientNorm) => 3,
        _ if name.starts_with("system/") => 5,
        _ => 4,
    }
}

fn finding(finding: &curves::judge::Finding) -> [String; 4] {
    let severity =
        if finding.severity == Severity::Note { "note".into() } else { words::in_json(&finding.severity) };
    let steps = match (finding.first_step, finding.last_step) {
        (Some(first), Some(last)) if first == last => first.to_string(),
        (Some(first), Some(last)) => format!("{first} to {last}"),
        (Some(first), None) => format!("since {first}"),
        _ => String::new(),
    };
    let what = format!("{} in {}", finding.kind.name(), words::page(&finding.metric));
    [severity, what, steps, finding.recommendation.clone()]
}

/// The cells of a metric's row.
pub(super) fn cells(name: &str, found: &Statistics) -> [String; 8] {
    let number = |value: Option<f64>| value.map(short).unwrap_or_default();
    [
        words::page(name),
        number(found.last),
        number(found.min),
        number(found.max),
        number(found.mean),
        number(found.sd),
        if found.nan + found.inf > 0 { format!("{}", found.nan + found.inf) } else { String::new() },
        found.count.to_string(),
    ]
}

/// What the columns of [`cells`] are.
pub(super) const COLUMNS: [&str; 8] = ["metric", "last", "min", "max", "mean", "std", "not finite", "values"];
