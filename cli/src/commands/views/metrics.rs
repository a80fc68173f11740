//! `outlast metrics`: what a run logged, however much that is. Metrics of one
//! group that were logged equally often share a line.

use std::collections::BTreeMap;

use curves::judge::schema::{Direction, read_name};
use serde_json::{Value, json};

use super::budget::Lines;
use super::stats::importance;
use super::{Answer, load, numbers, words_of};
use crate::args::MetricsArgs;
use crate::commands::analyze::words;

/// Names on one line.
const ON_A_LINE: usize = 12;

/// See the module.
///
/// # Errors
/// There is no such run, or several.
pub(crate) fn answer(args: &MetricsArgs) -> anyhow::Result<Answer> {
    let run = load::one(&args.path, args.run.as_deref(), args.shown.format.as_ref())?;
    let mut objects = Vec::new();
    let mut alike: BTreeMap<(u8, String, String), Vec<String>> = BTreeMap::new();
    for (name, column) in run.columns() {
        let steps: Vec<u64> = (0..column.values.len()).filter_map(|index| column.step(index)).collect();
        let (first, last) = (steps.iter().min(), steps.iter().max());
        let kind = if name.starts_with("system/") { "system" } else { "metric" };
        let range = match (first, last) {
            (Some(first), Some(last)) => format!("steps {first} to {last}"),
            _ => "no steps".to_owned(),
        };
        let said = format!("{}, {range}", numbers::count(column.values.len(), "value", "values"));
        let group = group(name);
        alike.entry((importance(name), group.to_owned(), said)).or_default().push(name.to_owned());
        objects.push(object(name, kind, group, (column.values.len(), first.copied(), last.copied())));
    }
    for (key, holds) in &run.data.others {
        alike.entry((6, "other".into(), words_of(holds, "no numbers"))).or_default().push(key.clone());
        objects.push(json!({ "name": key, "kind": "other", "holds": holds, "group": group(key) }));
    }
    let mut lines = Lines::new("");
    let metrics = run.columns().count();
    let others = run.data.others.len();
    let mut head = format!("{}: {}", run.shown(), numbers::count(metrics, "metric", "metrics"));
    if others > 0 {
        head.push_str(&format!(", {}", numbers::count(others, "other key", "other keys")));
    }
    lines.push(0, &head);
    run.notes.iter().for_each(|note| lines.push(1, &format!("  not read: {note}")));
    for ((rank, _, said), names) in &alike {
        for part in names.chunks(ON_A_LINE) {
            let shown: Vec<String> = part.iter().map(|name| words::metric(name)).collect();
            lines.push(*rank, &format!("  {}: {said}", shown.join(", ")));
        }
    }
    let path = run.gathered.path().to_string_lossy();
    let json = json!({ "path": path, "keys": objects, "notes": run.notes });
    Ok(Answer { text: lines.fit(args.shown.tokens as usize), json })
}

/// What stands before the last slash.
fn group(name: &str) -> &str {
    name.rsplit_once('/').map_or("", |(group, _)| group)
}

fn object(name: &str, kind: &str, group: &str, found: (usize, Option<u64>, Option<u64>)) -> Value {
    let traits = read_name(name);
    let (count, first, last) = found;
    json!({
        "name": name,
        "kind": kind,
        "group": group,
        "count": count,
        "first_step": first,
        "last_step": last,
        "role": traits.role,
        "direction": match traits.direction {
            Direction::Lower => Value::from("lower"),
            Direction::Higher => "higher".into(),
            Direction::Unknown => Value::Null,
        },
    })
}
