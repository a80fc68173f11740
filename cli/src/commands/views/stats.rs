//! `outlast stats`: what the values of each metric are, in one line.

use curves::judge::schema::{Direction, Role, read_name};
use curves::judge::short;
use curves::view::{Course, Slope, Statistics, statistics};
use serde_json::{Value, json};

use super::budget::Lines;
use super::{Answer, load, numbers};
use crate::args::StatsArgs;
use crate::commands::analyze::words;

/// See the module.
///
/// # Errors
/// There is no such run or metric, or several.
pub(crate) fn answer(args: &StatsArgs) -> anyhow::Result<Answer> {
    let run = load::one(&args.path, args.run.as_deref(), args.shown.format.as_ref())?;
    let names: Vec<String> = if args.metrics.is_empty() {
        run.columns().map(|(name, _)| name.to_owned()).collect()
    } else {
        run.metrics(&args.metrics)?
    };
    let mut lines = Lines::new(", fewer with --metric NAME");
    lines.push(0, &format!("{}: {}", run.shown(), numbers::count(names.len(), "metric", "metrics")));
    run.notes.iter().for_each(|note| lines.push(1, &format!("  not read: {note}")));
    let mut objects = Vec::new();
    for name in &names {
        let Some(course) = run.course(name) else { continue };
        let found = statistics(course.between(args.from, args.to));
        lines.push(importance(name), &line(name, &course, &found));
        if let Some(trend) = found.recent.as_ref().or(found.whole.as_ref()) {
            lines.push(4 + importance(name), &trended(trend, &course, found.recent.is_some()));
        }
        objects.push(object(name, &course, &found));
    }
    let json = json!({
        "path": run.gathered.path().to_string_lossy(),
        "from": args.from, "to": args.to,
        "metrics": objects,
        "notes": run.notes,
    });
    Ok(Answer { text: lines.fit(args.shown.tokens as usize), json })
}

/// The rank of a metric's line: what a training is judged by comes first.
pub(crate) fn importance(name: &str) -> u8 {
    let traits = read_name(name);
    match traits.role {
        Role::Loss | Role::Error | Role::Score => 2,
        _ if name.starts_with("system/") => 5,
        Role::LearningRate | Role::GradientNorm | Role::Throughput => 3,
        _ if traits.direction != Direction::Unknown => 3,
        _ => 4,
    }
}

fn line(name: &str, course: &Course, found: &Statistics) -> String {
    let axis = course.axis.name();
    let at = |value: Option<f64>, place: Option<u64>| match (value, place) {
        (Some(value), Some(place)) => format!("{} at {axis} {place}", short(value)),
        _ => "none".to_owned(),
    };
    let mut text = format!("  {}: ", words::metric(name));
    let (Some(first), Some(last)) = (found.first_place, found.last_place) else {
        return format!("{text}no values in that range");
    };
    text.push_str(&format!(
        "last {}, min {}, max {}",
        found.last.map_or_else(|| "none".into(), short),
        at(found.min, found.min_place),
        at(found.max, found.max_place)
    ));
    if let Some(mean) = found.mean {
        text.push_str(&format!(", mean {}", short(mean)));
    }
    if let Some(sd) = found.sd {
        text.push_str(&format!(", std {}", short(sd)));
    }
    if found.nan > 0 || found.inf > 0 {
        text.push_str(&format!(", {} NaN, {} inf", found.nan, found.inf));
    }
    text.push_str(&format!("; {}, {axis} {first} to {last}", numbers::count(found.count, "value", "values")));
    if course.replaced > 0 {
        text.push_str(&format!(", {} of steps logged again left out", course.replaced));
    }
    text
}

fn trended(trend: &Slope, course: &Course, recent: bool) -> String {
    let stretch = if recent { "the last third" } else { "all" };
    let places = if course.axis.name() == "step" { "steps" } else { "rows" };
    format!(
        "    {} over {stretch}: {} in 1000 {places}, {} in all; noise of a value {}",
        trend.word(),
        short(trend.per_thousand),
        short(trend.change),
        short(trend.noise)
    )
}

fn object(name: &str, course: &Course, found: &Statistics) -> Value {
    let mut value = serde_json::to_value(found).unwrap_or_default();
    if let Some(object) = value.as_object_mut() {
        object.insert("name".into(), name.into());
        object.insert("axis".into(), course.axis.name().into());
        object.insert("replaced".into(), course.replaced.into());
        object.insert("trend".into(), found.recent.or(found.whole).map(|slope| slope.word()).into());
    }
    value
}
