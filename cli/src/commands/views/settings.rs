//! `outlast settings`: the settings that a run was made with, and what else its
//! log says of it: name, tags, notes, commit, how it ended, what it says of itself
//! beside its metrics.

use curves::log::{Fact, Value as Logged};
use serde_json::{Value, json};

use super::budget::Lines;
use super::load::Run;
use super::{Answer, load, numbers};
use crate::args::SettingsArgs;
use crate::commands::analyze::words;

/// Facts with their names, in the order in which they are shown.
const FACTS: [(Fact, &str); 18] = [
    (Fact::Name, "name"),
    (Fact::RunId, "run_id"),
    (Fact::Parent, "parent"),
    (Fact::Project, "project"),
    (Fact::Entity, "entity"),
    (Fact::Group, "group"),
    (Fact::JobType, "job_type"),
    (Fact::Tag, "tag"),
    (Fact::Notes, "notes"),
    (Fact::Status, "status"),
    (Fact::Commit, "commit"),
    (Fact::Remote, "remote"),
    (Fact::Program, "program"),
    (Fact::Host, "host"),
    (Fact::Accelerator, "accelerator"),
    (Fact::Sweep, "sweep"),
    (Fact::Python, "python"),
    (Fact::Writer, "writer"),
];

/// See the module.
///
/// # Errors
/// There is no such run, or several.
pub(crate) fn answer(args: &SettingsArgs) -> anyhow::Result<Answer> {
    let run = load::one(&args.path, args.run.as_deref(), args.shown.format.as_ref())?;
    let asked = |name: &str| args.only.as_ref().is_none_or(|only| name.contains(only.as_str()));
    let all = flat(&run);
    let mut lines = Lines::new(", fewer with --only TEXT");
    let count = numbers::count(all.len(), "setting", "settings");
    lines.push(0, &format!("{}: {count}, format {}", run.shown(), run.gathered.format()));
    if all.is_empty() {
        lines.push(1, "  the log holds none; tools that keep them are W&B, MLflow, TensorBoard's hparams");
    }
    for (kind, name) in FACTS {
        let texts = run.data.meta.iter().filter(|(fact, _)| *fact == kind).map(|(_, text)| text);
        for text in texts.filter(|text| !text.is_empty()) {
            lines.push(2, &format!("  {name}: {}", words::name(text)));
        }
    }
    if let Some(code) = run.data.exit {
        lines.push(2, &format!("  exit code: {code}"));
    }
    for (name, value) in all.iter().filter(|(name, _)| asked(name)) {
        lines.push(3, &format!("  {} = {}", words::metric(name), said(value)));
    }
    let summary: Vec<(String, &Logged)> =
        run.data.summary.iter().map(|(path, value)| (path.join("."), value)).collect();
    for ((name, value), path) in summary.iter().zip(run.data.summary.keys()) {
        // Tools keep the last value of each metric by themselves.
        let last = run.data.column(&path.join("/")).and_then(|column| column.values.last());
        if asked(name) && last.is_none_or(|last| value.number() != Some(*last)) {
            lines.push(4, &format!("  summary.{} = {}", words::metric(name), said(value)));
        }
    }
    let object = |named: &mut dyn Iterator<Item = (&String, &Logged)>| -> serde_json::Map<String, Value> {
        named.filter(|(name, _)| asked(name)).map(|(name, value)| (name.clone(), of(value))).collect()
    };
    let config = object(&mut all.iter().map(|(name, value)| (name, value)));
    let summary = object(&mut summary.iter().map(|(name, value)| (name, *value)));
    let facts: Vec<Value> = run
        .data
        .meta
        .iter()
        .filter_map(|(kind, text)| {
            FACTS.iter().find(|(fact, _)| fact == kind).map(|(_, name)| json!({ "fact": name, "text": text }))
        })
        .collect();
    let json = json!({
        "path": run.gathered.path().to_string_lossy(),
        "format": run.gathered.format(),
        "settings": config,
        "summary": summary,
        "facts": facts,
        "exit_code": run.data.exit,
        "started": run.data.started,
        "ended": run.data.ended,
    });
    Ok(Answer { text: lines.fit(args.shown.tokens as usize), json })
}

/// Settings by their path joined by dots; nested ones each.
pub(super) fn flat(run: &Run) -> Vec<(String, Logged)> {
    let mut all = Vec::new();
    for (path, value) in &run.data.config {
        flatten(path.join("."), value, &mut all);
    }
    all
}

fn flatten(name: String, value: &Logged, all: &mut Vec<(String, Logged)>) {
    match value {
        Logged::Map(members) if !members.is_empty() => {
            members.iter().for_each(|(key, value)| flatten(format!("{name}.{key}"), value, all));
        }
        _ => all.push((name, value.clone())),
    }
}

/// A value in a sentence.
pub(super) fn said(value: &Logged) -> String {
    match value {
        Logged::Null => "null".into(),
        Logged::Bool(value) => value.to_string(),
        Logged::Integer(value) => value.to_string(),
        Logged::Float(value) => numbers::full(*value),
        Logged::Text(text) => words::name(text),
        Logged::List(_) | Logged::Map(_) => words::quoted(&of(value).to_string()),
    }
}

/// A value as JSON.
pub(crate) fn of(value: &Logged) -> Value {
    match value {
        Logged::Null => Value::Null,
        Logged::Bool(value) => (*value).into(),
        Logged::Integer(value) => (*value).into(),
        Logged::Float(value) => numbers::json(*value),
        Logged::Text(text) => text.as_str().into(),
        Logged::List(items) => items.iter().map(of).collect(),
        Logged::Map(members) => {
            Value::Object(members.iter().map(|(key, value)| (key.clone(), of(value))).collect())
        }
    }
}
