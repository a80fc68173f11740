//! The answer for people and language models: what matters most first into a
//! bounded number of tokens, and a word on what did not fit.

use curves::judge::schema::{Direction, Split};
use curves::judge::{Finding, Going, Label, MetricReport, Severity, short};

use super::ending::Outcome;
use super::find::Found;
use super::read::Run;
use super::words;
use crate::commands::views::budget::Lines;
use crate::commands::views::load::like;

/// Metrics whose course is told.
const MAIN: usize = 6;
/// Entries that were passed over and are named.
const NAMED: usize = 5;
/// Of several runs so many are told of in sentences before others are named.
const WORST: usize = 3;

/// The whole answer, of at most `most` tokens. `asked` are the metrics that somebody
/// wants to see, by name or with `*`.
pub(super) fn answer(runs: &[Run], found: &Found, asked: &[String], most: usize) -> String {
    let mut lines = Lines::new("");
    let mut runs: Vec<&Run> = runs.iter().collect();
    runs.sort_by_key(|run| badness(run));
    let several = runs.len() > 1;
    if several {
        let sick = runs.iter().filter(|run| is_sick(run)).count();
        lines.push(0, &format!("{} runs, the worst first; {sick} with something wrong", runs.len()));
        lines.push(1, &format!("  {}", overview(&runs)));
    }
    for (index, run) in runs.iter().enumerate() {
        let place = match (several, is_sick(run)) {
            (false, _) => Place::Only,
            (true, true) if index == 0 => Place::First,
            (true, true) if index < WORST => Place::Worst,
            (true, true) => Place::Sick,
            (true, false) => Place::Well,
        };
        self::run(run, asked, place, &mut lines);
    }
    passed_over(found, &mut lines);
    lines.fit(most)
}

/// What is wrong, and nothing else.
pub(super) fn problems(runs: &[Run], most: usize) -> String {
    let mut lines = Lines::new("");
    let mut sick: Vec<&Run> = runs.iter().filter(|run| is_sick(run)).collect();
    sick.sort_by_key(|run| badness(run));
    let of = count(runs.len() as u64, "run", "runs");
    lines.push(0, &format!("{} of {of} with something wrong", sick.len()));
    for (index, run) in sick.iter().enumerate() {
        let rank = 1 + u8::try_from(index).unwrap_or(50).min(50);
        let labels: Vec<String> = run.report.health.labels.iter().map(words::in_json).collect();
        lines.push_run(rank, &format!("{}: {}", words::path(&run.source.path), labels.join(", ")));
        if let Some(ending) = run.ending.as_ref().filter(|ending| ending.outcome == Outcome::Failed) {
            lines.push(rank, &format!("  {}", ending.sentence()));
        }
        let grave = run.report.findings.iter().filter(|finding| finding.severity > Severity::Note);
        for (index, one) in grave.enumerate() {
            // The worst of each run comes before the rest of any.
            let rank = if index == 0 { rank } else { 60 + rank };
            lines.push(rank, &finding(one, true));
        }
    }
    lines.fit(most)
}

/// Whether a metric is one that somebody wants to see.
pub(super) fn is_asked(asked: &[String], name: &str) -> bool {
    let end = |text: &str| name.rsplit('/').next().is_some_and(|end| end.eq_ignore_ascii_case(text));
    asked.iter().any(|text| name == text || like(text, name) || end(text))
}

/// The lower, the more a person should look at it.
pub(super) fn badness(run: &Run) -> u8 {
    let failed = run.report.health.labels.contains(&Label::Failed);
    // What has no number is between the sick and the healthy.
    if failed { 0 } else { run.report.health.score.map_or(85, |score| score + 1) }
}

/// Whether it is worth a word where only that is asked for.
pub(super) fn is_sick(run: &Run) -> bool {
    let findings = &run.report.findings;
    badness(run) == 0 || findings.iter().any(|finding| finding.severity >= Severity::Warning)
}

/// How many runs there are of each kind, the gravest first.
fn overview(runs: &[&Run]) -> String {
    let mut counts: std::collections::BTreeMap<Label, usize> = std::collections::BTreeMap::new();
    for label in runs.iter().filter_map(|run| run.report.health.labels.first()) {
        *counts.entry(*label).or_default() += 1;
    }
    let told: Vec<String> =
        counts.iter().map(|(label, count)| format!("{count} {}", words::in_json(label))).collect();
    told.join(", ")
}

/// Which of the runs of an answer one is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Only,
    First,
    Worst,
    Sick,
    Well,
}

impl Place {
    /// The rank of a line among those of all runs; `own`: among those of its run,
    /// where 0 is its heading and 1 and 2 are its sentences.
    fn rank(self, own: u8) -> u8 {
        match (self, own) {
            (Self::Only, own) => own,
            // Why the worst is bad matters more than which is the second.
            (Self::First, 0 | 1) => 1,
            (Self::Worst, 0) => 2,
            (Self::Worst, 1) | (Self::Sick, 0) => 3,
            (Self::First | Self::Worst, 2) => 4,
            (Self::Sick, 1) => 5,
            (Self::Well, 0) => 6,
            (Self::Sick, 2) => 7,
            (Self::Well, 1 | 2) => 8,
            (Self::First | Self::Worst | Self::Sick, own) => 10 + own,
            (Self::Well, own) => 20 + own,
        }
    }
}

fn run(run: &Run, asked: &[String], place: Place, lines: &mut Lines) {
    let report = &run.report;
    let labels: Vec<String> = report.health.labels.iter().map(words::in_json).collect();
    let health =
        report.health.score.map_or("health unknown".to_owned(), |score| format!("health {score} of 100"));
    let heading = format!("{}: {}, {health}", words::path(&run.source.path), labels.join(", "));
    lines.push_run(place.rank(0), &heading);
    let mut push = |own: u8, text: &str| lines.push(place.rank(own), text);
    // How it ended, then its course, then what is to be done, which matters more.
    let how = run.ending.as_ref().is_some_and(|ending| !ending.sentence().is_empty());
    for (index, sentence) in report.summary.sentences.iter().enumerate() {
        let own = match index {
            0 if how => 1,
            index if index == 1 + usize::from(how) => 1,
            index if index == usize::from(how) => 2,
            _ => 3,
        };
        push(own, &format!("  {sentence}"));
    }
    let of = |metric: &&MetricReport| is_asked(asked, &metric.name);
    report.metrics.iter().filter(|metric| of(metric)).for_each(|metric| push(1, &course(metric)));
    push(4, &format!("  {}", what(run)));
    let last = report.metrics.iter().map(|metric| (metric.name.as_str(), metric.last));
    run.summary.told(last).iter().for_each(|told| push(5, &format!("  {told}")));
    losses(run, &mut push);
    for (index, one) in report.findings.iter().enumerate() {
        let rank = if one.severity == Severity::Note { 8 } else { 3 };
        // The summary gives the worst one's advice already.
        let told = index == 0 && one.severity >= Severity::Warning;
        push(rank + u8::from(index > 2), &finding(one, !told));
        push(9, &evidence(one));
    }
    if !report.health.parts.is_empty() {
        let part = |part: &curves::judge::Part| {
            let (kind, metric) = (part.kind.name(), words::metric(&part.metric));
            format!("-{} {kind} in {metric} (at most {})", part.penalty, part.cap)
        };
        let parts: Vec<String> = report.health.parts.iter().map(part).collect();
        push(7, &format!("  health: 100, {}", parts.join(", ")));
    }
    for (index, metric) in main_metrics(run).into_iter().filter(|metric| !of(metric)).enumerate() {
        push(if index == 0 { 4 } else { 6 }, &course(metric));
    }
    report.stages.iter().for_each(|one| push(5, &stage(one)));
    if let Some(ahead) = &report.forecast {
        let (low, high) = (short(ahead.low), short(ahead.high));
        push(7, &format!("  ahead: {low} to {high} at step {}, in about 9 of 10 cases", ahead.step));
    }
    for moment in &report.moments {
        let step = moment.step.map_or("no step".to_owned(), |step| format!("step {step}"));
        push(7, &format!("  {step}: {}", moment.text));
    }
}

/// A part of a run that somebody named.
fn stage(stage: &curves::judge::StageReport) -> String {
    let name = words::name(&stage.name);
    let Some(to) = stage.to_step else {
        return format!("  stage {name}: from step {}, not reached", stage.from_step);
    };
    let mut text = format!("  stage {name}: steps {} to {to}", stage.from_step);
    if let Some((first, last)) = stage.first.zip(stage.last) {
        text.push_str(&format!(", from {} to {}", short(first), short(last)));
    }
    if let Some(share) = stage.share_of_gain {
        text.push_str(&format!(", {:.0} % of the gain", share * 100.0));
    }
    text
}

/// What it is and how much of it was read.
fn what(run: &Run) -> String {
    let steps = match (run.steps, run.planned) {
        (Some((first, last)), Some(planned)) => format!("steps {first} to {last} of {planned}"),
        (Some((first, last)), None) => format!("steps {first} to {last}"),
        (None, _) => "no steps".to_owned(),
    };
    let format = words::format(run.source.format);
    let mut text = format!(
        "format {format} ({}); {steps}, {}, {}",
        run.source.why,
        count(run.report.metrics.len() as u64, "metric", "metrics"),
        count(run.values, "value", "values")
    );
    if let Some(name) = run.facts.get("name") {
        text.push_str(&format!("; named {}", words::name(name)));
    }
    if let Some(code) = run.exit_code {
        text.push_str(&format!("; exit code {code}"));
    } else if run.ending.as_ref().is_some_and(|ending| ending.outcome == Outcome::Finished) {
        text.push_str("; finished");
    }
    if run.resumed > 0 {
        text.push_str(&format!("; resumed {}", count(run.resumed, "time", "times")));
    }
    if run.alerts > 0 {
        text.push_str(&format!("; {}", count(run.alerts, "alert", "alerts")));
    }
    text
}

fn count(number: u64, one: &str, more: &str) -> String {
    format!("{number} {}", if number == 1 { one } else { more })
}

fn losses(run: &Run, push: &mut impl FnMut(u8, &str)) {
    run.notes.iter().for_each(|note| push(2, &format!("  note: {note}")));
    for (what, loss) in run.losses.told() {
        let first = loss.first_byte.map(|at| format!(", first at byte {at}")).unwrap_or_default();
        let grave = what.starts_with("corrupt") || what.starts_with("bytes");
        push(if grave { 2 } else { 8 }, &format!("  lost: {} {what}{first}", loss.count));
    }
    if run.report.dropped_points > 0 {
        let count = run.report.dropped_points;
        push(2, &format!("  lost: {count} values of metrics beyond the bound of 1000"));
    }
}

fn finding(finding: &Finding, advise: bool) -> String {
    let steps = match (finding.first_step, finding.last_step) {
        (Some(first), Some(last)) if first == last => format!(", step {first}"),
        (Some(first), Some(last)) => format!(", steps {first} to {last}"),
        (Some(first), None) => format!(", since step {first}"),
        _ => String::new(),
    };
    let (severity, metric) = (words::in_json(&finding.severity), words::metric(&finding.metric));
    let advice = if advise { format!(": {}", finding.recommendation) } else { String::new() };
    format!("  {severity} {} in {metric}{steps}{advice}", finding.kind.name())
}

fn evidence(finding: &Finding) -> String {
    let facts: Vec<String> =
        finding.evidence.iter().map(|fact| format!("{} {}", fact.name, short(fact.value))).collect();
    format!(
        "    evidence of {}: {}; limit {}, {} points",
        finding.kind.name(),
        facts.join(", "),
        short(finding.threshold),
        finding.window
    )
}

/// The metric that the run is judged by, then those of validation, then others.
fn main_metrics(run: &Run) -> Vec<&MetricReport> {
    let primary = run.report.primary.as_deref();
    let mut all: Vec<&MetricReport> =
        run.report.metrics.iter().filter(|metric| metric.direction != Direction::Unknown).collect();
    let validation = Split::Validation;
    all.sort_by_key(|metric| (Some(metric.name.as_str()) != primary, metric.split != validation));
    all.truncate(MAIN);
    all
}

fn course(metric: &MetricReport) -> String {
    let unit = metric.unit.as_ref().map(|unit| format!(" {}", words::name(unit))).unwrap_or_default();
    let mut text = format!("  {}: last {}{unit}", words::metric(&metric.name), short(metric.last));
    if let Some(best) = metric.best {
        let step = metric.best_step.map(|step| format!(" at step {step}")).unwrap_or_default();
        text.push_str(&format!(", best {}{step}", short(best)));
    }
    if let Some(trend) = &metric.trend {
        let going = match trend.going {
            Going::Better => "still getting better",
            Going::Worse => "getting worse",
            Going::Level => "level: converged or stuck, as far as noise lets see",
        };
        let slope = short(trend.per_thousand);
        text.push_str(&format!(", {going} ({slope} in 1000 steps, z {}, last third)", short(trend.z)));
    }
    text
}

fn passed_over(found: &Found, lines: &mut Lines) {
    if found.skipped_count == 0 {
        return;
    }
    lines.push(9, &format!("passed over: {}", count(found.skipped_count, "entry", "entries")));
    for skipped in found.skipped.iter().take(NAMED) {
        lines.push(18, &format!("  {}: {}", words::path(&skipped.path), skipped.why));
    }
}
