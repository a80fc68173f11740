//! `outlast compare`: runs side by side at the same step. What is not logged
//! there is interpolated, and said to be; single runs are never called
//! significantly different.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use curves::judge::schema::Direction;
use curves::judge::short;
use curves::view::{At, Course, How, Outside, at, speed, times_as_fast};
use serde_json::{Value, json};

mod stages;

use super::budget::Lines;
use super::load::{self, Run};
use super::stats::importance;
use super::{Answer, numbers, settings};
use crate::args::CompareArgs;
use crate::commands::analyze::words;
use crate::exit_code::{ExitCode, Failure};

/// What is said of every comparison of single runs.
const CANNOT_TELL: &str = "one run each: cannot tell whether a difference is more than chance; with 3 runs of each, \
                           `outlast group` can";

/// One run with the step that was asked of it.
struct Side {
    run: Run,
    step: Option<u64>,
}

/// One metric over the runs.
struct Compared {
    name: String,
    /// `None` where a run does not have it, or not at that step.
    cells: Vec<Option<At>>,
    /// Relative change of each from the first, in percent.
    change: Vec<Option<f64>>,
}

/// See the module.
///
/// # Errors
/// A run or metric that is not there or means several.
pub(crate) fn answer(args: &CompareArgs) -> anyhow::Result<Answer> {
    let sides = args.runs.iter().map(|text| side(text, args)).collect::<Result<Vec<_>, _>>()?;
    if args.settings {
        return Ok(only_settings(&sides, args.shown.tokens as usize));
    }
    let names = shared(&sides, args)?;
    let stage = args.stage.as_deref().map(|name| stages::named(&sides, name)).transpose()?;
    let compared: Vec<Compared> = match stage {
        Some(stage) => names.iter().filter_map(|name| stages::at_end(name, &sides, stage)).collect(),
        None => names.iter().filter_map(|name| compare(name, &sides, args.at)).collect(),
    };
    let beyond = beyond(&sides, &names, args.at);
    if compared.is_empty() {
        let mut failure =
            Failure::new(ExitCode::BadInput, "the runs share no metric that is asked for at such a step");
        for text in beyond {
            failure = failure.help(text);
        }
        return Err(failure.help("`outlast metrics PATH` lists them").into());
    }
    let report = sides.first().map(|side| side.run.gathered.judge());
    let primary = report.as_ref().and_then(|report| report.primary.as_deref());
    let metrics = report.iter().flat_map(|report| &report.metrics);
    let judged = metrics.into_iter().find(|metric| Some(metric.name.as_str()) == primary);
    let direction = judged.map_or(Direction::Unknown, |metric| metric.direction);
    let faster = primary.map(|name| speeds(&sides, name, direction)).unwrap_or_default();
    let shown: Vec<&Compared> = compared.iter().filter(|one| one.exceeds(args.threshold)).collect();
    let by_stage = stages::all(&sides, &shown);
    let text = if args.csv {
        csv(&sides, &shown)
    } else {
        let mut lines = text(&sides, &compared, &shown, primary);
        beyond.iter().for_each(|text| lines.push(0, &format!("  {text}")));
        by_stage.iter().for_each(|one| lines.push(one.rank(primary), &one.line()));
        faster.iter().for_each(|(line, _)| lines.push(2, &format!("  {line}")));
        settings_of(&sides, &mut lines);
        lines.push(1, &format!("  {CANNOT_TELL}"));
        lines.fit(args.shown.tokens as usize)
    };
    let json = json!({
        "runs": sides.iter().map(Side::object).collect::<Vec<_>>(),
        "metrics": shown.iter().map(|one| one.object()).collect::<Vec<_>>(),
        "below_threshold": compared.len() - shown.len(),
        "stages": by_stage.iter().map(stages::Staged::object).collect::<Vec<_>>(),
        "speed": faster.into_iter().map(|(_, value)| value).collect::<Vec<_>>(),
        "settings": differing_objects(&sides),
        "significance": { "verdict": "cannot_tell", "text": CANNOT_TELL },
    });
    Ok(Answer { text, json })
}

fn side(text: &str, args: &CompareArgs) -> anyhow::Result<Side> {
    let whole = PathBuf::from(text);
    let split = text.rsplit_once('@').and_then(|(path, step)| Some((path, whole_step(step)?)));
    let (path, step) = match split {
        Some((path, step)) if !whole.exists() => (PathBuf::from(path), Some(step)),
        _ => (whole, None),
    };
    Ok(Side { run: load::one(Path::new(&path), None, args.shown.format.as_ref())?, step })
}

/// A step as people write it: `1000`, `1e3`, `1k`, `2M`.
fn whole_step(text: &str) -> Option<u64> {
    let (digits, scale) = match text.char_indices().next_back()? {
        (at, 'k' | 'K') => (text.get(..at)?, 1e3),
        (at, 'm' | 'M') => (text.get(..at)?, 1e6),
        _ => (text, 1.0),
    };
    let begins = digits.starts_with(|c: char| c.is_ascii_digit());
    text.parse().ok().or_else(|| {
        // Above 2^53 not every whole number has a float of its own.
        let step = digits.parse::<f64>().ok().filter(|_| begins)? * scale;
        (step.fract() == 0.0 && (0.0..9e15).contains(&step)).then_some(step as u64)
    })
}

/// The metrics to compare: those asked for, or all that the first run shares
/// with another.
fn shared(sides: &[Side], args: &CompareArgs) -> Result<Vec<String>, Failure> {
    let Some((first, others)) = sides.split_first() else { return Ok(Vec::new()) };
    if !args.metrics.is_empty() {
        return first.run.metrics(&args.metrics);
    }
    let prefix = args.prefix.as_deref().unwrap_or_default();
    let has = |name: &str| others.iter().any(|side| side.run.course(name).is_some());
    Ok(first
        .run
        .columns()
        .map(|(name, _)| name)
        .filter(|name| name.starts_with(prefix) && !name.starts_with("system/") && has(name))
        .map(str::to_owned)
        .collect())
}

/// A metric at the step asked for of each run; without one, at the last step
/// that all of them have reached.
fn compare(name: &str, sides: &[Side], step: Option<u64>) -> Option<Compared> {
    let courses: Vec<Option<Course>> = sides.iter().map(|side| side.run.course(name)).collect();
    let ends = courses.iter().flatten().filter_map(|course| course.last().map(|point| point.0));
    let common = step.or_else(|| ends.min())?;
    let cells = courses.iter().zip(sides);
    let cells = cells.map(|(course, side)| at(course.as_ref()?, side.step.unwrap_or(common)).ok());
    Compared::of(name, cells.collect())
}

/// Runs that have no value of any of the metrics at the step asked for, and where
/// their values are.
fn beyond(sides: &[Side], names: &[String], step: Option<u64>) -> Vec<String> {
    let of = |side: &Side| -> Option<(u64, u64, u64)> {
        let asked = side.step.or(step)?;
        let found = names.iter().filter_map(|name| side.run.course(name)).map(|course| at(&course, asked));
        let outside: Vec<Outside> = found.map(Result::err).collect::<Option<_>>()?;
        let first = outside.iter().map(|one| one.first).min()?;
        Some((asked, first, outside.iter().map(|one| one.last).max()?))
    };
    let told = sides.iter().enumerate().filter_map(|(index, side)| {
        let (asked, first, last) = of(side)?;
        let mark = letter(index);
        Some(format!("{mark} has no value at step {asked}: its values are of steps {first} to {last}"))
    });
    told.collect()
}

/// By how many percent a value is away from another.
fn percent(base: f64, value: f64) -> Option<f64> {
    let change = (value - base) / base.abs() * 100.0;
    change.is_finite().then_some(change)
}

impl Compared {
    /// `None` where no run has the metric.
    fn of(name: &str, cells: Vec<Option<At>>) -> Option<Self> {
        let base = cells.first().copied().flatten().map(|at| at.value);
        let change = cells.iter().map(|cell| percent(base?, cell.as_ref()?.value)).collect();
        cells.iter().any(Option::is_some).then(|| Self { name: name.to_owned(), cells, change })
    }

    /// Whether any run differs by that many percent; what has no percent always
    /// does, unless it is equal.
    fn exceeds(&self, percent: f64) -> bool {
        let first = self.cells.first().copied().flatten().map(|at| at.value);
        self.cells.iter().zip(&self.change).skip(1).any(|(cell, change)| match change {
            Some(change) => change.abs() >= percent,
            None => percent <= 0.0 || cell.map(|at| at.value) != first,
        })
    }

    fn line(&self, sides: &[Side]) -> String {
        let mut parts = Vec::new();
        let step = self.cells.iter().flatten().next().map(|at| at.step);
        for (index, cell) in self.cells.iter().enumerate() {
            let mark = letter(index);
            let Some(found) = cell else {
                parts.push(format!("{mark} none"));
                continue;
            };
            let mut part = format!("{mark} {}", short(found.value));
            if let Some(change) = self.change.get(index).copied().flatten().filter(|_| index > 0) {
                part.push_str(&format!(" ({}{}%)", if change >= 0.0 { "+" } else { "" }, short(change)));
            }
            if Some(found.step) != step || sides.iter().any(|side| side.step.is_some()) {
                part.push_str(&format!(" at step {}", found.step));
            }
            if let How::Interpolated { before, after } = found.how {
                part.push_str(&format!(" interpolated of steps {before} and {after}"));
            }
            parts.push(part);
        }
        let at = match step {
            Some(step) if sides.iter().all(|side| side.step.is_none()) => format!(" at step {step}"),
            _ => String::new(),
        };
        format!("  {}{at}: {}", words::metric(&self.name), parts.join(", "))
    }

    fn object(&self) -> Value {
        let cells: Vec<Value> = self
            .cells
            .iter()
            .zip(&self.change)
            .map(|(cell, change)| {
                let mut value = serde_json::to_value(cell).unwrap_or_default();
                if let Some(object) = value.as_object_mut() {
                    object.insert("change_percent".into(), (*change).into());
                }
                value
            })
            .collect();
        json!({ "name": self.name, "group": self.name.rsplit_once('/').map_or("", |(group, _)| group), "runs": cells })
    }
}

impl Side {
    fn object(&self) -> Value {
        let path = self.run.gathered.path().to_string_lossy();
        json!({ "path": path, "name": self.run.name(), "step": self.step, "notes": self.run.notes })
    }
}

fn letter(index: usize) -> char {
    char::from(b'A' + u8::try_from(index).unwrap_or(25).min(25))
}

/// What differs in how the runs were made, whatever they logged.
fn only_settings(sides: &[Side], tokens: usize) -> Answer {
    let mut lines = Lines::new("");
    heads(sides, &mut lines);
    if sides.iter().all(|side| side.run.data.config.is_empty()) {
        lines.push(1, "  settings: no log holds any");
    }
    settings_of(sides, &mut lines);
    let json = json!({
        "runs": sides.iter().map(Side::object).collect::<Vec<_>>(),
        "settings": differing_objects(sides),
    });
    Answer { text: lines.fit(tokens), json }
}

fn differing_objects(sides: &[Side]) -> Vec<Value> {
    let all = differing(sides).into_iter();
    all.map(|(name, values)| json!({ "name": name, "values": values })).collect()
}

fn heads(sides: &[Side], lines: &mut Lines) {
    for (index, side) in sides.iter().enumerate() {
        let step = side.step.map(|step| format!(" at step {step}")).unwrap_or_default();
        let name = side.run.name().map(|name| format!(" ({})", words::name(name))).unwrap_or_default();
        lines.push(0, &format!("{}: {}{name}{step}", letter(index), side.run.shown()));
        side.run.notes.iter().for_each(|note| lines.push(6, &format!("  not read: {note}")));
    }
}

fn text(sides: &[Side], compared: &[Compared], shown: &[&Compared], primary: Option<&str>) -> Lines {
    let mut lines = Lines::new(", fewer with --metric or --threshold");
    heads(sides, &mut lines);
    for one in shown {
        let rank = if primary == Some(one.name.as_str()) { 1 } else { 1 + importance(&one.name) };
        lines.push(rank, &one.line(sides));
    }
    let hidden = compared.len() - shown.len();
    if hidden > 0 {
        let count = numbers::count(hidden, "metric differs", "metrics differ");
        lines.push(2, &format!("  {count} by less than the threshold"));
    }
    lines
}

fn settings_of(sides: &[Side], lines: &mut Lines) {
    let differing = differing(sides);
    if differing.is_empty() && sides.iter().any(|side| !side.run.data.config.is_empty()) {
        lines.push(3, "  settings: the same");
    }
    for (name, values) in differing {
        let said: Vec<String> = values
            .iter()
            .enumerate()
            .map(|(index, value)| {
                format!("{} {}", letter(index), value.as_deref().map_or("none".into(), words::name))
            })
            .collect();
        lines.push(3, &format!("  setting {}: {}", words::metric(&name), said.join(", ")));
    }
}

/// Who reaches the level of the other first, in words and as JSON.
fn speeds(sides: &[Side], name: &str, direction: Direction) -> Vec<(String, Value)> {
    let Some((first, others)) = sides.split_first() else { return Vec::new() };
    let direction = if direction == Direction::Unknown { Direction::Lower } else { direction };
    let Some(course) = first.run.course(name) else { return Vec::new() };
    let mut told = Vec::new();
    for (index, other) in others.iter().enumerate() {
        let Some(theirs) = other.run.course(name) else { continue };
        let Some(found) = speed(&course.points, &theirs.points, direction) else { continue };
        let mark = letter(index + 1);
        let (whose, leader) = if found.of_second { (mark, 'A') } else { ('A', mark) };
        let (there, own) =
            if found.of_second { (found.first, found.second) } else { (found.second, found.first) };
        let factor = found.factor.map(|factor| if found.of_second { factor } else { 1.0 / factor });
        let times = factor.map(|factor| format!(": {}", times_as_fast(factor))).unwrap_or_default();
        let text = format!(
            "{}: {leader} reaches {whose}'s best level {} at step {there}, {whose} at step {own}{times}",
            words::metric(name),
            short(found.level)
        );
        told.push((
            text,
            json!({
                "metric": name, "level": numbers::json(found.level), "level_of": whose.to_string(),
                "leader": leader.to_string(), "leader_step": there, "own_step": own, "factor": factor,
            }),
        ));
    }
    told
}

/// Settings that are not the same in all runs, with the value of each.
fn differing(sides: &[Side]) -> Vec<(String, Vec<Option<String>>)> {
    let mut all: BTreeMap<String, Vec<Option<String>>> = BTreeMap::new();
    for (index, side) in sides.iter().enumerate() {
        for (name, value) in settings::flat(&side.run) {
            let text = match &value {
                curves::log::Value::Text(text) => text.clone(),
                other => settings::of(other).to_string(),
            };
            if let Some(cell) = all.entry(name).or_insert_with(|| vec![None; sides.len()]).get_mut(index) {
                *cell = Some(text);
            }
        }
    }
    all.into_iter().filter(|(_, values)| values.windows(2).any(|pair| pair[0] != pair[1])).collect()
}

/// One row for each metric and run.
fn csv(sides: &[Side], shown: &[&Compared]) -> String {
    let mut text = String::from("metric,run,step,value,how,change_percent\n");
    for one in shown {
        for (index, cell) in one.cells.iter().enumerate() {
            let Some(found) = cell else { continue };
            let change = one.change.get(index).copied().flatten().map(numbers::full).unwrap_or_default();
            let path = sides.get(index).map(|side| side.run.gathered.path().to_string_lossy());
            let run = words::legible(&path.unwrap_or_default());
            let how = if found.how == How::Exact { "exact" } else { "interpolated" };
            text.push_str(&format!(
                "{},{},{},{},{how},{change}\n",
                numbers::cell(&words::legible(&one.name)),
                numbers::cell(&run),
                found.step,
                numbers::full(found.value)
            ));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_read_as_people_write_them() {
        for (text, step) in [
            ("1000", Some(1000)),
            ("1e3", Some(1000)),
            ("1k", Some(1000)),
            ("1.5k", Some(1500)),
            ("2M", Some(2_000_000)),
            ("18446744073709551615", Some(u64::MAX)),
            ("", None),
            ("k", None),
            ("0.5", None),
            ("-3", None),
            ("nan", None),
            ("inf", None),
            ("1e99", None),
            ("host", None),
        ] {
            assert_eq!(whole_step(text), step, "{text}");
        }
    }
}
