//! The answer for people and language models: what matters most first into a
//! bounded number of tokens, and a word on what did not fit.

use curves::judge::schema::{Direction, Split};
use curves::judge::{Finding, Going, MetricReport, Severity, short};

use super::find::Found;
use super::read::Run;
use super::{tokens, words};

/// Metrics whose course is told.
const MAIN: usize = 6;
/// Entries that were passed over and are named.
const NAMED: usize = 5;

/// One line with its rank: lines of a lower rank go first.
struct Line {
    rank: u8,
    text: String,
}

fn line(rank: u8, text: &str) -> Line {
    Line { rank, text: format!("{}\n", words::ascii(text)) }
}

/// The whole answer, of at most `most` tokens.
pub(super) fn answer(runs: &[Run], found: &Found, most: usize) -> String {
    let mut lines: Vec<Line> = runs.iter().flat_map(run).collect();
    lines.extend(passed_over(found));
    let costs: Vec<usize> = lines.iter().map(|line| tokens::bound(&line.text)).collect();
    let whole: usize = costs.iter().sum();
    if whole <= most {
        return lines.iter().map(|line| line.text.as_str()).collect();
    }
    let need = whole.div_ceil(100) * 100;
    let told = tokens::bound(&cut(lines.len(), need)).max(tokens::bound(&cut(1, need)));
    let room = most.saturating_sub(told);
    let mut order: Vec<usize> = (0..lines.len()).collect();
    order.sort_by_key(|index| lines[*index].rank);
    let mut taken = vec![false; lines.len()];
    let mut used = 0;
    for index in order {
        if used + costs[index] <= room {
            used += costs[index];
            taken[index] = true;
        }
    }
    let mut text: String =
        lines.iter().zip(&taken).filter(|(_, taken)| **taken).map(|(line, _)| line.text.as_str()).collect();
    text.push_str(&cut(taken.iter().filter(|taken| !**taken).count(), need));
    text
}

/// What is said of lines that did not fit.
fn cut(lines: usize, need: usize) -> String {
    format!(
        "cut: {}; all with --tokens {need}, everything with --json\n",
        count(lines as u64, "line", "lines")
    )
}

fn run(run: &Run) -> Vec<Line> {
    let report = &run.report;
    let labels: Vec<String> = report.health.labels.iter().map(words::in_json).collect();
    let health =
        report.health.score.map_or("health unknown".to_owned(), |score| format!("health {score} of 100"));
    let mut lines =
        vec![line(0, &format!("{}: {}, {health}", words::path(&run.source.path), labels.join(", ")))];
    for (index, sentence) in report.summary.sentences.iter().enumerate() {
        lines.push(line(1 + u8::from(index > 1), &format!("  {sentence}")));
    }
    lines.push(line(4, &format!("  {}", what(run))));
    lines.extend(losses(run));
    for (index, one) in report.findings.iter().enumerate() {
        let rank = if one.severity == Severity::Note { 8 } else { 3 };
        // The summary gives the worst one's advice already.
        let told = index == 0 && one.severity >= Severity::Warning;
        lines.push(line(rank + u8::from(index > 2), &finding(one, !told)));
        lines.push(line(9, &evidence(one)));
    }
    if !report.health.parts.is_empty() {
        let part = |part: &curves::judge::Part| {
            let (kind, metric) = (part.kind.name(), words::metric(&part.metric));
            format!("-{} {kind} in {metric} (at most {})", part.penalty, part.cap)
        };
        let parts: Vec<String> = report.health.parts.iter().map(part).collect();
        lines.push(line(7, &format!("  health: 100, {}", parts.join(", "))));
    }
    for (index, metric) in main_metrics(run).into_iter().enumerate() {
        lines.push(line(if index == 0 { 4 } else { 6 }, &course(metric)));
    }
    if let Some(ahead) = &report.forecast {
        let (low, high) = (short(ahead.low), short(ahead.high));
        lines.push(line(
            7,
            &format!("  ahead: {low} to {high} at step {}, in about 9 of 10 cases", ahead.step),
        ));
    }
    for moment in &report.moments {
        let step = moment.step.map_or("no step".to_owned(), |step| format!("step {step}"));
        lines.push(line(7, &format!("  {step}: {}", moment.text)));
    }
    lines
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

fn losses(run: &Run) -> Vec<Line> {
    let mut lines: Vec<Line> = run.notes.iter().map(|note| line(2, &format!("  note: {note}"))).collect();
    for (what, loss) in run.losses.told() {
        let first = loss.first_byte.map(|at| format!(", first at byte {at}")).unwrap_or_default();
        let grave = what.starts_with("corrupt") || what.starts_with("bytes");
        lines.push(line(if grave { 2 } else { 8 }, &format!("  lost: {} {what}{first}", loss.count)));
    }
    if run.report.dropped_points > 0 {
        let text =
            format!("  lost: {} values of metrics beyond the bound of 1000", run.report.dropped_points);
        lines.push(line(2, &text));
    }
    lines
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
    let mut text = format!("  {}: last {}", words::metric(&metric.name), short(metric.last));
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

fn passed_over(found: &Found) -> Vec<Line> {
    if found.skipped_count == 0 {
        return Vec::new();
    }
    let mut lines =
        vec![line(2, &format!("passed over: {}", count(found.skipped_count, "entry", "entries")))];
    for skipped in found.skipped.iter().take(NAMED) {
        lines.push(line(8, &format!("  {}: {}", words::path(&skipped.path), skipped.why)));
    }
    lines
}
