//! A capsule as text: short, for a glance and for whoever pays by the word, or
//! whole. All of it comes from programs and machines: nothing that a terminal
//! or a reader obeys is let through.

use std::fmt::Write as _;

use lifecycle::cause::Cause;
use serde_json::Value;

use super::text::clip;
use super::{Capsule, Moment};

/// Characters of the short form where nobody counts tokens.
pub const SHORT: usize = 1_200;
/// Error lines in the short form.
const ERROR_LINES: usize = 4;

/// One line of it, harmless: no controls, no marks that turn text around.
fn line(text: &str, most: usize) -> String {
    let harmless = |c: &char| {
        !c.is_control()
            && !matches!(*c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
    };
    let plain: String = text.chars().map(|c| if c == '\t' { ' ' } else { c }).filter(harmless).collect();
    clip(plain.trim_end(), most)
}

/// A text of several lines, as [`line`] each.
fn lines(out: &mut String, indent: &str, text: &str) {
    for one in text.lines() {
        let _ = writeln!(out, "{indent}{}", line(one, 2_000));
    }
}

fn number(step: Option<u64>) -> String {
    step.map_or_else(|| "-".to_owned(), |step| step.to_string())
}

/// The verdict in one line.
#[must_use]
pub fn headline(capsule: &Capsule) -> String {
    let (verdict, a) = (&capsule.verdict, &capsule.attempt);
    let ending = if a.ending.is_empty() { String::new() } else { format!(" ({})", line(&a.ending, 80)) };
    let sure = match verdict.cause {
        Cause::Running | Cause::Finished => String::new(),
        _ => format!(", {}", verdict.confidence.name()),
    };
    format!("{} attempt {}: {}{sure}{ending}", line(&capsule.run.name, 60), a.number, verdict.cause)
}

/// Where it stood: steps, what is durable, what is done once more.
fn stood(capsule: &Capsule) -> Option<String> {
    let a = &capsule.attempt;
    if a.last_step.is_none() && a.durable_step.is_none() {
        return Some(
            if a.started_ms == 0 { "the program was not started" } else { "no step was heard of" }.to_owned(),
        );
    }
    let mut text = format!("step {}, durable {}", number(a.last_step), number(a.durable_step));
    if let Some(unsaved) = a.unsaved_steps.filter(|n| *n > 0) {
        let _ = write!(text, ", {unsaved} not saved");
    }
    if let Some(again) = a.repeated_steps.filter(|n| *n > 0) {
        let _ = write!(text, ", repeated {again}");
    }
    Some(text)
}

/// The last telling lines of the error stream, or of the set-up where the
/// program never ran.
fn error_lines(capsule: &Capsule) -> Vec<String> {
    let o = &capsule.output;
    let from = [&o.stderr, if capsule.attempt.started_ms == 0 { &o.setup } else { &o.stdout }];
    let stream = from.into_iter().find(|tail| !tail.text.trim().is_empty());
    let last: Vec<String> = stream
        .map(|tail| tail.lines(200))
        .unwrap_or_default()
        .into_iter()
        .filter(|text| {
            !text.trim().is_empty() && !text.trim().chars().all(|c| matches!(c, '=' | '-' | '~' | '^' | ' '))
        })
        .collect();
    last.iter().rev().take(ERROR_LINES).rev().map(|text| line(text, 160)).collect()
}

/// At most [`SHORT`] characters. What does not fit is left out from below:
/// the verdict and its evidence stay.
#[must_use]
pub fn short(capsule: &Capsule) -> String {
    short_within(capsule, SHORT, &|text| text.chars().count())
}

/// The same within another limit, by what a line costs beside its end, which
/// costs one.
#[must_use]
pub fn short_within(capsule: &Capsule, limit: usize, cost: &dyn Fn(&str) -> usize) -> String {
    let verdict = &capsule.verdict;
    let fails = !matches!(verdict.cause, Cause::Finished | Cause::Running);
    let mut parts = vec![fitting(headline(capsule), limit / 3, cost)];
    if !capsule.is_final {
        parts.push("it has not ended: this is what is known so far".to_owned());
    }
    // No line takes so much that another has no room.
    let fair = |text: String| fitting(text, limit / 5, cost);
    parts.extend(verdict.because.iter().take(4).map(|text| fair(format!("- {}", line(text, 160)))));
    let mut last = vec![];
    if let Some(stood) = stood(capsule) {
        last.push(format!("stood: {stood}"));
    }
    if fails {
        last.extend(verdict.next.iter().take(3).map(|text| fair(format!("try: {}", line(text, 150)))));
    }
    let errors = if fails { error_lines(capsule) } else { Vec::new() };
    let room = |parts: &[String]| parts.iter().map(|p| cost(p) + 1).sum::<usize>();
    let left = limit.saturating_sub(room(&parts) + room(&last) + cost("last lines:") + 3);
    let mut shown: Vec<String> = Vec::new();
    let mut used = 0;
    for text in errors.into_iter().rev().map(|text| fair(format!("  {text}"))) {
        used += cost(&text) + 1;
        if used > left {
            break;
        }
        shown.push(text);
    }
    if !shown.is_empty() {
        parts.push("last lines:".to_owned());
        parts.extend(shown.into_iter().rev());
    }
    parts.extend(last);
    let (mut text, mut used) = (String::new(), 0);
    for part in parts {
        used += cost(&part) + 1;
        if used > limit {
            break;
        }
        text.push_str(&part);
        text.push('\n');
    }
    text
}

/// As much of its beginning as costs no more.
fn fitting(text: String, limit: usize, cost: &dyn Fn(&str) -> usize) -> String {
    let mut kept = text;
    while cost(&kept) > limit && !kept.is_empty() {
        let half = kept.chars().count() * 3 / 4;
        kept = kept.chars().take(half).collect();
    }
    kept
}

fn head(out: &mut String, title: &str) {
    let _ = writeln!(out, "\n== {title}");
}

fn compact(value: &Value) -> String {
    let without: Value = match value {
        Value::Object(fields) => {
            fields.iter().filter(|(name, _)| *name != "kind").map(|(n, v)| (n.clone(), v.clone())).collect()
        }
        other => other.clone(),
    };
    line(&without.to_string(), 2_000)
}

fn values(out: &mut String, title: &str, values: &[Value]) {
    if !values.is_empty() {
        head(out, title);
        values.iter().for_each(|value| lines(out, "  ", &compact(value)));
    }
}

fn entry(out: &mut String, moment: &Moment, begin_ms: u64) {
    let (sign, after) = (if moment.at_ms < begin_ms { '-' } else { '+' }, moment.at_ms.abs_diff(begin_ms));
    let detail = match &moment.detail {
        Value::Object(fields) if fields.is_empty() => String::new(),
        Value::Null => String::new(),
        detail => format!(" {}", compact(detail)),
    };
    let _ = writeln!(
        out,
        "  {sign}{}.{:03} s {} {}{}",
        after / 1_000,
        after % 1_000,
        line(&moment.actor, 80),
        line(&moment.verb, 60),
        line(&detail, 400)
    );
}

/// All of it.
#[must_use]
pub fn whole(capsule: &Capsule) -> String {
    let mut out = String::new();
    let (c, a, v) = (capsule, &capsule.attempt, &capsule.verdict);
    let _ = writeln!(out, "{}", headline(c));
    if !c.is_final {
        let _ = writeln!(out, "it has not ended: this is what is known so far");
    }
    v.because.iter().for_each(|text| lines(&mut out, "- ", text));
    v.next.iter().for_each(|text| lines(&mut out, "try: ", text));
    if let Some(stood) = stood(c) {
        let _ = writeln!(out, "stood: {stood}");
    }
    summary(&mut out, c);
    for (title, tail) in
        [("stderr", &c.output.stderr), ("stdout", &c.output.stdout), ("setup", &c.output.setup)]
    {
        head(
            &mut out,
            &format!("{title}, {} bytes{}", tail.bytes, if tail.is_cut { ", the end of it" } else { "" }),
        );
        if tail.missing_bytes > 0 {
            let _ = writeln!(out, "  ({} bytes are missing)", tail.missing_bytes);
        }
        lines(&mut out, "  ", &tail.text);
    }
    if !c.metrics.is_empty() {
        head(&mut out, "metrics, the newest points");
    }
    for metric in &c.metrics {
        let points: Vec<String> = metric
            .points
            .iter()
            .rev()
            .take(5)
            .rev()
            .map(|(step, value)| format!("{}:{}", number(*step), compact(value)))
            .collect();
        let _ = writeln!(out, "  {}  {}", line(&metric.name, 120), points.join("  "));
    }
    if !c.kernel.is_empty() {
        head(&mut out, "kernel");
        c.kernel.iter().for_each(|text| lines(&mut out, "  ", text));
    }
    values(&mut out, "stacks", &c.stacks);
    values(&mut out, "gpus", &c.gpus);
    values(&mut out, "alerts", &c.alerts);
    values(&mut out, "history", &c.history);
    values(&mut out, "recorded exit", &c.exit.recorded);
    values(&mut out, "ranks", &c.exit.ranks);
    if !c.other.is_empty() {
        head(&mut out, "other evidence");
        c.other.iter().for_each(|value| lines(&mut out, "  ", &line(&value.to_string(), 2_000)));
    }
    head(&mut out, "timeline, from the binding");
    c.timeline.iter().for_each(|moment| entry(&mut out, moment, a.bound_ms));
    lists(&mut out, c);
    out
}

/// The figures of run, attempt, machine and cost.
fn summary(out: &mut String, c: &Capsule) {
    let a = &c.attempt;
    head(out, "attempt");
    let _ = writeln!(
        out,
        "  run {} ({}), {}, {} attempt(s)",
        line(&c.run.name, 200),
        c.run.id,
        c.run.state,
        c.run.attempts
    );
    lines(out, "  command: ", &c.run.command.join(" "));
    lines(out, "  reason: ", &c.run.reason);
    let _ = writeln!(
        out,
        "  {}, generation {}, steps {} to {}, resumed from {}, prepared in {} ms (restore {} ms)",
        a.state,
        a.generation,
        number(a.first_step),
        number(a.last_step),
        number(a.resumed_step),
        a.prepare_ms,
        a.restore_ms
    );
    if let Some(m) = &c.machine {
        let _ = writeln!(
            out,
            "  machine {} of {} ({}), {}",
            m.id,
            line(&m.provider, 100),
            line(&m.instance, 200),
            m.state
        );
        lines(out, "  machine: ", &m.reason);
        m.facts.iter().for_each(|fact| lines(out, "  machine: ", &compact(fact)));
    }
    let cost = &c.cost;
    let _ = writeln!(
        out,
        "  cost ${:.4} for this attempt, ${:.4} for its machine, ${:.4} for the run{}",
        cost.attempt_usd,
        cost.machine_usd,
        cost.run_usd,
        cost.max_usd.map_or_else(String::new, |cap| format!(" of at most ${cap:.2}"))
    );
    for (label, text) in [
        ("memory", &c.exit.out_of_memory),
        ("hang", &c.exit.hang),
        ("leave the machine", &c.exit.leave_machine),
        ("not stored", &c.exit.unpublished),
    ] {
        lines(out, &format!("  {label}: "), text);
    }
}

/// Checkpoints, packages, variables, notes, and what is not here.
fn lists(out: &mut String, c: &Capsule) {
    if !c.checkpoints.is_empty() {
        head(out, "checkpoints");
    }
    for point in &c.checkpoints {
        let _ = writeln!(
            out,
            "  {} step {}, {} bytes, {}",
            line(&point.name, 200),
            number(point.step),
            point.bytes,
            point.state
        );
    }
    if !c.environment.is_empty() {
        head(out, "environment");
        c.environment.iter().for_each(|(name, value)| lines(out, "  ", &format!("{name}={value}")));
    }
    if !c.packages.is_empty() {
        head(out, "packages");
        let _ = writeln!(out, "  {}", line(&c.packages.join(" "), 40_000));
    }
    if !c.notes.is_empty() {
        head(out, "notes");
        c.notes.iter().for_each(|note| lines(out, "  ", note));
    }
    if !c.missing.is_empty() || !c.cut.is_empty() {
        head(out, "not here");
        c.missing.iter().for_each(|(part, why)| lines(out, "  ", &format!("{part}: {why}")));
        c.cut
            .iter()
            .for_each(|(part, count)| lines(out, "  ", &format!("{part}: {count} left out for their size")));
    }
}
