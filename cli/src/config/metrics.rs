//! `[metrics]`: what the names in a training's log mean, where that is not what
//! anybody would think. It says nothing of a run: curves are read by it.

use std::collections::BTreeMap;

use curves::judge::schema::{Direction, MetricSpec, Role, Split, Stage};
use serde_json::{Map, Value as Json, json};

use super::field::{Field, assign};
use super::near::nearest;
use super::problem::Problem;
use super::section::Section;
use super::value::{Name, Node, Value};

/// Names that a usual kind of training logs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Template {
    /// PyTorch Lightning's loggers.
    Lightning,
    /// The Trainer of Hugging Face Transformers.
    Transformers,
    /// Keras' callbacks.
    Keras,
    /// Any classifier.
    Classification,
    /// Any regression.
    Regression,
}

const TEMPLATES: [(&str, Template); 5] = [
    ("lightning", Template::Lightning),
    ("transformers", Template::Transformers),
    ("keras", Template::Keras),
    ("classification", Template::Classification),
    ("regression", Template::Regression),
];
const DIRECTIONS: [(&str, Direction); 3] =
    [("lower", Direction::Lower), ("higher", Direction::Higher), ("neither", Direction::Unknown)];
const SPLITS: [(&str, Split); 3] =
    [("train", Split::Train), ("validation", Split::Validation), ("unsaid", Split::Unsaid)];
const ROLES: [(&str, Role); 12] = [
    ("loss", Role::Loss),
    ("error", Role::Error),
    ("score", Role::Score),
    ("learning_rate", Role::LearningRate),
    ("gradient_norm", Role::GradientNorm),
    ("throughput", Role::Throughput),
    ("step_time", Role::StepTime),
    ("loss_scale", Role::LossScale),
    ("counter", Role::Counter),
    ("time", Role::Time),
    ("resource", Role::Resource),
    ("other", Role::Other),
];
/// What may be said of one metric.
const OF_ONE: [&str; 11] = [
    "role",
    "direction",
    "split",
    "display",
    "unit",
    "group",
    "pair",
    "target",
    "sensitivity",
    "plateau_window",
    "plateau_threshold",
];

/// Longest name of a metric.
const LONGEST: usize = 512;
/// Entries of one table.
const MOST: usize = 1000;
/// Steps end here: floating-point numbers count no further.
const LAST_STEP: i64 = 1 << 53;

/// How curves are read and judged.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Metrics {
    /// Names that are known already; what is said here counts more.
    pub template: Option<Template>,
    /// The key that counts steps.
    pub step: Option<String>,
    /// The key that tells the time.
    pub time: Option<String>,
    /// The metric that a run is judged by.
    pub primary: Option<String>,
    /// Patterns of names that are measured on held-out data.
    pub validation: Vec<String>,
    /// A pattern with `{n}`: one metric for each of some inner steps.
    pub per_step: Option<String>,
    /// Of every metric that has none of its own.
    pub sensitivity: Option<f64>,
    /// Parts of a run in order of their steps.
    pub stages: Vec<Stage>,
    /// Patterns of names by the group they are shown in.
    pub groups: BTreeMap<String, Vec<String>>,
    /// What is said of single metrics.
    pub keys: BTreeMap<String, MetricSpec>,
}

/// A field one level further in.
fn inner<'a>(field: &'a mut Field<'_>, name: &str, node: &'a Node) -> Field<'a> {
    Field { path: format!("{}.{name}", field.path), node, problems: &mut *field.problems }
}

/// Text on one line, such as a name.
fn line(field: &mut Field<'_>, example: &str) -> Option<String> {
    let text = field.string(example)?;
    if text.len() > LONGEST || text.contains(char::is_control) {
        let help = format!("at most {LONGEST} bytes without control characters, for example: {example}");
        return field.refuse("is too long or holds control characters", help);
    }
    Some(text)
}

fn within(field: &mut Field<'_>, from: f64, to: f64, example: &str) -> Option<f64> {
    let value = field.number(example)?;
    if (from..=to).contains(&value) {
        return Some(value);
    }
    field.refuse(&format!("must be from {from} to {to}"), format!("for example: {example}"))
}

/// Patterns of names, in which `*` stands for anything.
fn patterns(field: &mut Field<'_>, example: &str) -> Option<Vec<String>> {
    let before = field.problems.len();
    let list = field.strings(example)?;
    for (index, (text, node)) in list.iter().enumerate() {
        if text.trim().is_empty() || text.len() > LONGEST || text.contains(char::is_control) {
            let path = format!("{}[{index}]", field.path);
            Field { path, node, problems: &mut *field.problems }
                .refuse::<()>("is no pattern of names", format!("for example: {example}"));
        }
    }
    (field.problems.len() == before).then(|| list.into_iter().map(|(text, _)| text).collect())
}

fn per_step(field: &mut Field<'_>) -> Option<String> {
    let text = line(field, "\"loss_step_{n}\"")?;
    if text.matches("{n}").count() == 1 {
        return Some(text);
    }
    field
        .refuse("must hold {n} once, which is the number of the inner step", "for example: \"loss_step_{n}\"")
}

fn stages(field: &mut Field<'_>) -> Option<Vec<Stage>> {
    const EXAMPLE: &str = "[{ name = \"warm-up\", from = 0 }, { name = \"main\", from = 1000 }]";
    let items = match &field.node.value {
        Value::Array(items) => items.clone(),
        _ => {
            field.refuse_type("an array of tables", EXAMPLE);
            return None;
        }
    };
    let before = field.problems.len();
    let mut list: Vec<Stage> = Vec::new();
    for (index, node) in items.iter().take(MOST).enumerate() {
        let path = format!("{}[{index}]", field.path);
        let mut item = Field { path, node, problems: &mut *field.problems };
        let (Some(name), Some(from_step)) = stage(&mut item, EXAMPLE) else { continue };
        if list.last().is_some_and(|last| last.from_step >= from_step) {
            item.refuse::<()>(
                "begins before the stage in front of it ends",
                "write stages in order of their steps",
            );
            continue;
        }
        list.push(Stage { name, from_step });
    }
    (field.problems.len() == before).then_some(list)
}

fn stage(field: &mut Field<'_>, example: &str) -> (Option<String>, Option<u64>) {
    let Some(entries) = field.table(example) else { return (None, None) };
    let (mut name, mut from) = (None, None);
    for (key, node) in &entries {
        match key.text.as_str() {
            "name" => name = line(&mut inner(field, "name", node), "\"warm-up\""),
            "from" => {
                from = match node.value {
                    Value::Integer(Some(step @ 0..LAST_STEP)) => u64::try_from(step).ok(),
                    _ => inner(field, "from", node)
                        .refuse("must be a step: a whole number from 0 on", "for example: 1000"),
                }
            }
            _ => field.problems.push(unknown(key, &["name", "from"])),
        }
    }
    for missing in
        ["name", "from"].into_iter().filter(|wanted| entries.iter().all(|(key, _)| key.text != *wanted))
    {
        field.refuse::<()>(&format!("has no `{missing}`"), format!("for example: {example}"));
    }
    (name, from)
}

fn unknown(key: &Name, known: &[&str]) -> Problem {
    let problem = Problem::new(&key.at, format!("unknown key `{}`", key.text));
    match nearest(&key.text, known.iter().copied()) {
        Some(near) => problem.help(format!("did you mean `{near}`?")),
        None => problem.help(format!("keys: {}", known.join(", "))),
    }
}

/// The entries of a table by the names of metrics or groups.
fn named(field: &mut Field<'_>, example: &str) -> Option<Vec<(Name, Node)>> {
    let entries = field.table(example)?;
    if entries.len() > MOST {
        return field.refuse(&format!("has more than {MOST} entries"), "say less: names tell most of it");
    }
    for (name, _) in entries.iter().filter(|(name, _)| {
        name.text.trim().is_empty() || name.text.len() > LONGEST || name.text.contains(char::is_control)
    }) {
        field.problems.push(Problem::new(&name.at, "no name of a metric or a group".to_owned()));
    }
    Some(entries)
}

fn groups(field: &mut Field<'_>) -> Option<BTreeMap<String, Vec<String>>> {
    const EXAMPLE: &str = "[\"train/*\"]";
    let before = field.problems.len();
    let entries = named(field, "{ optimizer = [\"lr\", \"grad_norm\"] }")?;
    let groups: BTreeMap<_, _> = entries
        .iter()
        .filter_map(|(name, node)| {
            Some((name.text.clone(), patterns(&mut inner(field, &name.text, node), EXAMPLE)?))
        })
        .collect();
    (field.problems.len() == before).then_some(groups)
}

fn keys(field: &mut Field<'_>) -> Option<BTreeMap<String, MetricSpec>> {
    const EXAMPLE: &str = "{ \"val/loss\" = { direction = \"lower\" } }";
    let before = field.problems.len();
    let mut keys = BTreeMap::new();
    for (name, node) in named(field, EXAMPLE)? {
        let mut one = inner(field, &name.text, &node);
        let Some(entries) = one.table("{ direction = \"lower\" }") else { continue };
        let mut spec = MetricSpec::default();
        for (key, node) in &entries {
            let text = key.text.as_str();
            if !OF_ONE.contains(&text) {
                one.problems.push(unknown(key, &OF_ONE));
                continue;
            }
            said(&mut spec, text, &mut inner(&mut one, text, node));
        }
        keys.insert(name.text.clone(), spec);
    }
    (field.problems.len() == before).then_some(keys)
}

/// Takes in one thing that is said of a metric.
fn said(spec: &mut MetricSpec, key: &str, field: &mut Field<'_>) {
    match key {
        "role" => assign(&mut spec.role, field.choice(&ROLES).map(Some)),
        "direction" => assign(&mut spec.direction, field.choice(&DIRECTIONS).map(Some)),
        "split" => assign(&mut spec.split, field.choice(&SPLITS).map(Some)),
        "display" => assign(&mut spec.display, line(field, "\"validation loss\"").map(Some)),
        "unit" => assign(&mut spec.unit, line(field, "\"nats\"").map(Some)),
        "group" => assign(&mut spec.group, line(field, "\"optimizer\"").map(Some)),
        "pair" => assign(&mut spec.pair, line(field, "\"train/loss\"").map(Some)),
        "target" => assign(&mut spec.target, field.number("0.35").map(Some)),
        "sensitivity" => assign(&mut spec.sensitivity, within(field, 0.0, 100.0, "2").map(Some)),
        "plateau_window" => assign(&mut spec.plateau_window, within(field, 0.01, 1.0, "0.15").map(Some)),
        _ => assign(&mut spec.plateau_threshold, within(field, 1e-6, 1.0, "0.01").map(Some)),
    }
}

fn word<T: PartialEq>(words: &[(&str, T)], value: &Option<T>) -> Json {
    let value = value.as_ref();
    json!(value.and_then(|value| words.iter().find(|(_, known)| known == value)).map(|(word, _)| *word))
}

/// What is said of a metric, without what is not.
fn shown(spec: &MetricSpec) -> Json {
    let all = [
        ("role", word(&ROLES, &spec.role)),
        ("direction", word(&DIRECTIONS, &spec.direction)),
        ("split", word(&SPLITS, &spec.split)),
        ("display", json!(spec.display)),
        ("unit", json!(spec.unit)),
        ("group", json!(spec.group)),
        ("pair", json!(spec.pair)),
        ("target", json!(spec.target)),
        ("sensitivity", json!(spec.sensitivity)),
        ("plateau_window", json!(spec.plateau_window)),
        ("plateau_threshold", json!(spec.plateau_threshold)),
    ];
    let said = all.into_iter().filter(|(_, value)| !value.is_null());
    Json::Object(said.map(|(key, value)| (key.to_owned(), value)).collect())
}

impl Section for Metrics {
    fn keys(&self) -> &'static [&'static str] {
        &[
            "template",
            "step",
            "time",
            "primary",
            "validation",
            "per_step",
            "sensitivity",
            "stages",
            "groups",
            "keys",
        ]
    }

    fn set(&mut self, key: &str, field: &mut Field<'_>) {
        match key {
            "template" => assign(&mut self.template, field.choice(&TEMPLATES).map(Some)),
            "step" => assign(&mut self.step, line(field, "\"global_step\"").map(Some)),
            "time" => assign(&mut self.time, line(field, "\"timestamp\"").map(Some)),
            "primary" => assign(&mut self.primary, line(field, "\"val/loss\"").map(Some)),
            "validation" => assign(&mut self.validation, patterns(field, "[\"val/*\", \"*/heldout\"]")),
            "per_step" => assign(&mut self.per_step, per_step(field).map(Some)),
            "sensitivity" => assign(&mut self.sensitivity, within(field, 0.0, 100.0, "1").map(Some)),
            "stages" => assign(&mut self.stages, stages(field)),
            "groups" => assign(&mut self.groups, groups(field)),
            "keys" => assign(&mut self.keys, keys(field)),
            _ => {}
        }
    }

    fn get(&self, key: &str) -> Json {
        match key {
            "template" => word(&TEMPLATES, &self.template),
            "step" => json!(self.step),
            "time" => json!(self.time),
            "primary" => json!(self.primary),
            "validation" => json!(self.validation),
            "per_step" => json!(self.per_step),
            "sensitivity" => json!(self.sensitivity),
            "stages" => self
                .stages
                .iter()
                .map(|stage| json!({ "name": stage.name, "from": stage.from_step }))
                .collect(),
            "groups" => json!(self.groups),
            _ => {
                let keys: Map<String, Json> =
                    self.keys.iter().map(|(name, spec)| (name.clone(), shown(spec))).collect();
                Json::Object(keys)
            }
        }
    }
}

#[cfg(test)]
mod tests;
