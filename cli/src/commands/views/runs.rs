//! `outlast runs`: the runs below paths, searched and ordered. A plain question
//! becomes a filter by rules, and the filter is shown: what was understood is
//! never hidden.

use std::time::{SystemTime, UNIX_EPOCH};

use curves::judge::schema::{Direction, read_name};
use curves::judge::short;
use curves::view::filter::{Field, Filter, Subject as _, parse};
use curves::view::{Order, Question, date, understand};
use serde_json::json;

mod groups;
pub(crate) mod own;

use super::budget::Lines;
use super::described::Described;
use super::{Answer, load, numbers};
use crate::args::RunsArgs;
use crate::commands::analyze::{Skipped, words};
use crate::exit_code::{ExitCode, Failure};

/// Entries that are passed over and named.
const PASSED: usize = 3;

/// How the runs are to be shown.
struct Wish {
    filter: Filter,
    order: Option<Order>,
    metric: Option<String>,
    top: Option<usize>,
    /// It was a question.
    asked: bool,
    /// It was taken as words to be found, since as a question no rule knows this one.
    unknown: Option<String>,
}

/// See the module.
///
/// # Errors
/// A path without runs, or a filter that cannot be understood.
pub(crate) fn answer(args: &RunsArgs) -> anyhow::Result<Answer> {
    let wish = wish(args)?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
    let Listed { runs: all, passed, skipped } = describe(args)?;
    let count = all.len();
    known(&wish.filter, &all)?;
    let why = why_none(&wish.filter, &all, now);
    let mut runs: Vec<Described> = all.into_iter().filter(|run| wish.filter.takes(run, now)).collect();
    if let Some(word) = wish.unknown.as_ref().filter(|_| runs.is_empty()) {
        return Err(not_understood(&wish.filter, word).into());
    }
    let ranked = order(&mut runs, &wish, args)?;
    let found = runs.len();
    runs.truncate(wish.top.or(args.top.map(|top| top as usize)).unwrap_or(usize::MAX));
    let mut lines = Lines::new(", fewer with --top N or a filter");
    let filter = wish.filter.to_string();
    if wish.asked {
        let by = match wish.order {
            Some(Order::Best) => ", best first",
            Some(Order::Worst) => ", worst first",
            Some(Order::Newest) => ", newest first",
            Some(Order::Lowest) => ", smallest first",
            Some(Order::Highest) => ", largest first",
            None => "",
        };
        let filter = if filter.is_empty() { "all runs".to_owned() } else { words::quoted(&filter) };
        lines.push(0, &format!("understood as: {filter}{by}"));
    } else if wish.unknown.is_some() {
        let text = "searched for as words in names, tags, notes and paths: ";
        lines.push(0, &format!("{text}{}", words::quoted(&filter)));
    }
    let shown = if runs.len() < found { format!(", {} shown", runs.len()) } else { String::new() };
    let mut head = format!("{found} of {}{shown}", numbers::count(count, "run", "runs"));
    if let Some(ranked) = &ranked {
        head.push_str(&format!("; by {ranked}"));
    }
    if passed > 0 {
        head.push_str(&format!("; {passed} other entries passed over"));
    }
    if args.left_out > 0 {
        let older = numbers::count(args.left_out, "older run", "older runs");
        head.push_str(&format!("; {older} of the controller left out: give names with `*`"));
    }
    lines.push(0, &head);
    if found == 0 {
        why.iter().for_each(|text| lines.push(1, &format!("  {text}")));
    }
    let mut first = None;
    for (index, run) in runs.iter().enumerate() {
        let rank = 1 + u8::try_from(index / 5).unwrap_or(9).min(9);
        lines.push_run(rank, &line(run, ranked.is_some().then_some(index + 1), &wish, args));
        first = first.or(lines.last());
    }
    for one in skipped.iter().take(PASSED) {
        lines.push(11, &format!("  passed over {}: {}", words::path(&one.path), one.why));
    }
    if let Some(first) = first {
        let legend = "  digits: the primary metric over the run, 0 smallest, 9 largest, ! not finite";
        lines.push_under(Some(first), 3, legend);
    }
    let json = json!({
        "filter": filter,
        "question": wish.asked,
        "matching": found,
        "of": count,
        "passed_over": passed,
        "left_out": args.left_out,
        "order": ranked,
        "runs": runs.iter().map(Described::object).collect::<Vec<_>>(),
    });
    Ok(Answer { text: lines.fit(args.shown.tokens as usize), json })
}

/// All runs, with what people noted of them, and what is none.
struct Listed {
    runs: Vec<Described>,
    passed: u64,
    skipped: Vec<Skipped>,
}

fn describe(args: &RunsArgs) -> anyhow::Result<Listed> {
    let here = [args.path.clone().unwrap_or_else(|| ".".into())];
    let paths = if args.places.is_empty() { &here[..] } else { &args.places };
    let mut all = Vec::new();
    let (passed, skipped) =
        load::each_told(paths, args.shown.format.as_ref(), |run| all.push(Described::of(&run)))?;
    groups::label(&mut all);
    Ok(Listed { runs: all, passed, skipped })
}

fn wish(args: &RunsArgs) -> Result<Wish, Failure> {
    let text = args.filter.join(" ");
    let plain = !text.contains(['<', '>', '=', '~', ':', '(', '"', '\'']);
    let question = if plain && !text.trim().is_empty() { Some(understand(&text)) } else { None };
    let mut wish = match question {
        Some(Ok(Question { filter, order, metric, top })) => {
            Wish { filter: filter_of(&filter)?, order, metric, top, asked: true, unknown: None }
        }
        other => {
            let unknown = other.and_then(Result::err);
            let filter = filter_of(&text).map_err(|failure| match &unknown {
                Some(word) => failure
                    .help(format!("as a question it has a word no rule knows: {}", words::quoted(word))),
                None => failure,
            })?;
            Wish { filter, order: None, metric: None, top: None, asked: false, unknown }
        }
    };
    if let Some(metric) = &args.best {
        wish.metric = Some(metric.clone());
        wish.order = Some(Order::Best);
    }
    Ok(wish)
}

/// Reads a filter; a refusal shows the place.
pub(super) fn filter_of(text: &str) -> Result<Filter, Failure> {
    parse(text).map_err(|error| {
        let begin: String = text.chars().take(error.at.saturating_sub(1)).collect();
        let message =
            format!("the filter {}: {error}, behind {}", words::quoted(text), words::quoted(&begin));
        Failure::new(ExitCode::BadInput, message)
            .help("such as: val_acc > 0.8 and state == finished and tag:baseline since 7d")
            .help("text with spaces stands in quotes; `not`, `or` and brackets join comparisons")
    })
}

/// What finds nothing and is none of the questions that rules know.
fn not_understood(filter: &Filter, word: &str) -> Failure {
    let message = format!(
        "no run has {} in its names, tags, notes or path; as a question no rule knows the word {}",
        words::quoted(&filter.to_string()),
        words::quoted(word)
    );
    Failure::new(ExitCode::BadInput, message)
        .help("questions are such as: best 3 runs by val/loss of last week; which runs diverged; runs where lr is 0.1")
        .help("filters are such as: val_acc > 0.8 and (state == finished or tag:base) since 7d")
}

/// Which part of a filter no run is as it says.
fn why_none(filter: &Filter, all: &[Described], now: f64) -> Vec<String> {
    let parts = match filter {
        Filter::All(parts) => parts.as_slice(),
        _ => std::slice::from_ref(filter),
    };
    let told = parts.iter().map(|part| {
        let count = all.iter().filter(|run| part.takes(*run, now)).count();
        let newest = || all.iter().filter_map(|run| run.began).fold(f64::MIN, f64::max);
        let when = match part {
            Filter::Since(_) if count == 0 && newest() > 0.0 => {
                format!("; the newest began {}", date(newest()))
            }
            _ => String::new(),
        };
        format!("{}: {}{when}", words::quoted(&part.to_string()), numbers::count(count, "run", "runs"))
    });
    told.collect()
}

/// Refuses fields that no run has: a misspelt one would silently match nothing.
fn known(filter: &Filter, all: &[Described]) -> Result<(), Failure> {
    for field in filter.fields() {
        let name = field.name();
        let facts = [
            "name", "id", "tag", "group", "project", "notes", "state", "label", "format", "path", "health",
            "steps",
        ];
        let has = |run: &Described| run.number(field).is_some() || !run.texts(name).is_empty();
        if all.is_empty() || facts.contains(&name.to_lowercase().as_str()) || all.iter().any(has) {
            continue;
        }
        return Err(no_field(name, all));
    }
    Ok(())
}

fn no_field(name: &str, all: &[Described]) -> Failure {
    let mut names: Vec<&str> = all.iter().flat_map(|run| run.metrics.keys().map(String::as_str)).collect();
    names.sort_unstable();
    names.dedup();
    let listed: Vec<String> = names.iter().take(10).map(|name| words::metric(name)).collect();
    let message = format!("no run has {}; metrics are {}", words::quoted(name), listed.join(", "));
    Failure::new(ExitCode::BadInput, message).help("write one of these, or a setting of the runs")
}

/// Puts the runs in order; says by what, if by anything but the path.
fn order(runs: &mut Vec<Described>, wish: &Wish, args: &RunsArgs) -> Result<Option<String>, Failure> {
    let Some(order) = wish.order else { return sorted(runs, args) };
    if order == Order::Newest {
        runs.sort_by(|a, b| b.began.unwrap_or(0.0).total_cmp(&a.began.unwrap_or(0.0)));
        return Ok(Some("time, newest first".into()));
    }
    let metric = wish.metric.clone().or_else(|| common_primary(runs));
    let Some(metric) = metric else {
        return if runs.is_empty() {
            Ok(None)
        } else {
            Err(Failure::new(ExitCode::BadInput, "the runs are not judged by the same metric")
                .help("say by which: --best METRIC"))
        };
    };
    let field = Field::Plain(metric.clone());
    let logged = runs.iter().find_map(|run| run.metric(&metric)).map(|(name, _)| name.clone());
    // Steps, health and settings are numbers, too.
    let is_logged = logged.is_some();
    if !is_logged && !runs.iter().any(|run| run.number(&field).is_some()) {
        return if runs.is_empty() { Ok(None) } else { Err(no_field(&metric, runs)) };
    }
    let metric = logged.unwrap_or(metric);
    let higher = match order {
        Order::Highest => true,
        Order::Lowest => false,
        _ => higher(&metric, runs, args)?,
    };
    let worst = order == Order::Worst;
    let value = |run: &Described| {
        if is_logged { run.best(&metric, higher).map(|p| p.1) } else { run.number(&field) }
    };
    // A run that lost its metric is worse than any number.
    let lost =
        |run: &Described| worst && run.metric(&metric).is_some_and(|(_, figures)| !figures.last.is_finite());
    let without = runs.len();
    runs.retain(|run| value(run).is_some() || lost(run));
    let without = without - runs.len();
    runs.sort_by(|a, b| {
        let values = (value(a).unwrap_or(f64::NAN), value(b).unwrap_or(f64::NAN));
        let by_value =
            if higher == worst { values.0.total_cmp(&values.1) } else { values.1.total_cmp(&values.0) };
        lost(b).cmp(&lost(a)).then(by_value)
    });
    let way = if higher == worst { "smallest" } else { "largest" };
    let first = if runs.first().is_some_and(lost) { ", not finite first" } else { "" };
    let left = if without > 0 { format!("; {without} without it left out") } else { String::new() };
    Ok(Some(format!("{way} {}{first}{left}", words::metric(&metric))))
}

/// Which way is better: said, or told by the name.
fn higher(metric: &str, runs: &[Described], args: &RunsArgs) -> Result<bool, Failure> {
    if args.max || args.min {
        return Ok(args.max);
    }
    let name = runs.iter().find_map(|run| run.metric(metric)).map_or(metric, |(name, _)| name);
    let judged = runs.iter().find(|run| run.primary.as_deref() == Some(name)).map(|run| run.direction);
    match judged.filter(|way| *way != Direction::Unknown).unwrap_or(read_name(name).direction) {
        Direction::Higher => Ok(true),
        Direction::Lower => Ok(false),
        Direction::Unknown => {
            let message = format!("{}: its name does not say which way is better", words::metric(metric));
            Err(Failure::new(ExitCode::BadInput, message).help("add --max or --min"))
        }
    }
}

fn common_primary(runs: &[Described]) -> Option<String> {
    let first = runs.first()?.primary.clone()?;
    runs.iter().all(|run| run.metrics.contains_key(&first)).then_some(first)
}

fn sorted(runs: &mut [Described], args: &RunsArgs) -> Result<Option<String>, Failure> {
    let Some(by) = &args.sort else { return Ok(None) };
    match by.as_str() {
        "time" => runs.sort_by(|a, b| b.began.unwrap_or(0.0).total_cmp(&a.began.unwrap_or(0.0))),
        "path" => runs.sort_by(|a, b| a.path.cmp(&b.path)),
        "name" => runs.sort_by(|a, b| a.name().cmp(&b.name())),
        "state" => runs.sort_by(|a, b| a.state.cmp(b.state)),
        other => {
            let field = Field::Plain(other.to_owned());
            if !runs.is_empty() && runs.iter().all(|run| run.number(&field).is_none()) {
                let message = format!("no run has {} to sort by", words::quoted(other));
                let failure = Failure::new(ExitCode::BadInput, message);
                return Err(
                    failure.help("sort by time, path, name, state, steps, health, a metric or a setting")
                );
            }
            // What has none comes last either way.
            runs.sort_by(|a, b| match (a.number(&field), b.number(&field)) {
                (Some(a), Some(b)) => a.total_cmp(&b),
                (a, b) => b.is_some().cmp(&a.is_some()),
            });
        }
    }
    if args.reverse {
        runs.reverse();
    }
    Ok(Some(words::name(by)))
}

fn line(run: &Described, place: Option<usize>, wish: &Wish, args: &RunsArgs) -> String {
    let mut text = place.map(|place| format!("{place}. ")).unwrap_or_default();
    text.push_str(&run.shown);
    if let Some(name) = run.name().filter(|name| *name != run.path) {
        text.push_str(&format!(" ({})", words::name(name)));
    }
    if run.state != "unknown" {
        text.push_str(&format!(": {}", run.state));
    } else {
        text.push(':');
    }
    if let Some(began) = run.began {
        text.push_str(&format!(" {}", date(began)));
    }
    if let Some(steps) = run.steps {
        text.push_str(&format!(", step {steps}"));
    }
    let metric = wish.metric.as_deref().or(run.primary.as_deref());
    if let Some((name, figures)) = metric.and_then(|name| run.metric(name)) {
        text.push_str(&format!(", {} {}", words::metric(name), short(figures.last)));
        let way = if args.max {
            Direction::Higher
        } else if args.min {
            Direction::Lower
        } else {
            read_name(name).direction
        };
        let best = match way {
            Direction::Lower => figures.min,
            Direction::Higher => figures.max,
            Direction::Unknown => None,
        };
        if let Some(best) = best {
            text.push_str(&format!(" (best {} at {})", short(best.1), best.0));
        }
    }
    if !run.spark.is_empty() {
        text.push_str(&format!(", {}", run.spark));
    }
    if !run.labels.is_empty() {
        text.push_str(&format!(", {}", run.labels.join(" ")));
    }
    let tags: Vec<String> = run.all_tags().iter().map(|tag| words::name(tag)).collect();
    if !tags.is_empty() {
        text.push_str(&format!(", tag {}", tags.join(" ")));
    }
    text
}
