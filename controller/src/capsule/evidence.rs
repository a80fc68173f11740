//! Reads `evidence.jsonl`, which the machine wrote: one JSON object a line, with
//! `kind` saying what it is. Nothing about it is trusted: fields may be absent
//! or of another form, lines may be torn, and what is not known is kept as it
//! is, within a bound. Secrets are masked again.

use std::collections::BTreeMap;

use lifecycle::mask::Masker;
use serde_json::Value;

use super::Capsule;
use super::bounds::{Budget, clip_value, size};
use super::text::{clean, clip};

/// Longer lines than the agent ever writes are no evidence.
const LINE: usize = 64 << 10;
/// Lines that are read.
const LINES: usize = 20_000;
const KERNEL: usize = 50;
const VARIABLES: usize = 400;
const PACKAGES: usize = 2_000;

/// The parts that evidence makes up.
#[derive(Debug, Default)]
pub struct Collected {
    /// Kernel messages.
    pub kernel: Vec<String>,
    /// Free bytes of the fullest disk in the newest sample.
    pub disk_free: Option<u64>,
    stacks: Vec<Value>,
    environment: BTreeMap<String, String>,
    packages: Vec<String>,
    gpus: Vec<Value>,
    machine: Vec<Value>,
    history: Vec<Value>,
    alerts: Vec<Value>,
    exits: Vec<Value>,
    ranks: Vec<Value>,
    other: Vec<Value>,
}

impl Collected {
    /// Reads all lines.
    #[must_use]
    pub fn read(bytes: &[u8], mask: &Masker, budget: &mut Budget) -> Self {
        let mut read = Self::default();
        let mut torn = 0;
        for line in bytes.split(|b| *b == b'\n').filter(|line| !line.is_empty()).take(LINES) {
            let parsed = (line.len() <= LINE).then(|| serde_json::from_slice::<Value>(line).ok()).flatten();
            match parsed {
                Some(value) if value.is_object() => read.take(value, mask),
                _ => torn += 1,
            }
        }
        budget.left_out("evidence", torn);
        read.bound(budget);
        read
    }

    fn take(&mut self, mut value: Value, mask: &Masker) {
        let kind = value.get("kind").and_then(Value::as_str).unwrap_or_default().to_owned();
        if kind == "environment" {
            self.variables(&value, mask);
            return;
        }
        mask.json(&mut value);
        match kind.as_str() {
            "packages" => {
                if let Some(python) = value.get("python").filter(|python| !python.is_null()) {
                    self.variable("(python)", &plain(python), mask);
                }
                self.packages.extend(packages(&value));
            }
            "kernel" => self.kernel.extend(kernel(&value)),
            "stacks" | "stack" | "hang" | "dump" => self.stacks.push(clip_value(value, 16 << 10)),
            "sample" => {
                if let Some(free) = least_free(&value) {
                    self.disk_free = Some(free);
                }
                if let Some(gpus) = gpus(&mut value) {
                    self.gpus = gpus;
                }
                self.history.push(clip_value(value, 4 << 10));
            }
            "machine" => {
                if let Some(gpus) = gpus(&mut value).filter(|_| self.gpus.is_empty()) {
                    self.gpus = gpus;
                }
                self.machine.push(clip_value(value, 4 << 10));
            }
            "gpu" | "gpus" => {
                self.gpus = gpus(&mut value).unwrap_or_else(|| vec![clip_value(value, 4 << 10)]);
            }
            "alert" => self.alerts.push(clip_value(value, 2 << 10)),
            "exit" => self.exits.push(clip_value(value, 4 << 10)),
            "rank" | "ranks" => self.ranks.push(clip_value(value, 4 << 10)),
            _ => self.other.push(clip_value(value, 8 << 10)),
        }
    }

    /// `{"variables": {NAME: value}}`, or a list of pairs or of `NAME=value`,
    /// under any usual name.
    fn variables(&mut self, value: &Value, mask: &Masker) {
        let Some(fields) = value.as_object() else { return };
        for (name, field) in fields {
            match field {
                Value::Object(variables) => {
                    for (name, value) in variables {
                        self.variable(name, &plain(value), mask);
                    }
                }
                Value::Array(items) => {
                    for item in items {
                        let pair = item.as_str().and_then(|text| text.split_once('='));
                        let named = item.get("name").or_else(|| item.get(0)).and_then(Value::as_str);
                        let valued = item.get("value").or_else(|| item.get(1)).map(plain);
                        match (pair, named, valued) {
                            (Some((name, value)), ..) => self.variable(name, value, mask),
                            (None, Some(name), Some(value)) => self.variable(name, &value, mask),
                            _ => {}
                        }
                    }
                }
                _ if matches!(name.as_str(), "at_ms" | "kind") => {}
                // Facts beside the variables: the interpreter and its like.
                other => self.variable(&format!("({name})"), &plain(other), mask),
            }
        }
    }

    fn variable(&mut self, name: &str, value: &str, mask: &Masker) {
        if self.environment.len() < VARIABLES {
            let value = clip(&clean(mask.value(name, value).as_bytes()), 500);
            self.environment.insert(clip(&clean(name.as_bytes()), 100), value);
        }
    }

    fn bound(&mut self, budget: &mut Budget) {
        let take = std::mem::take::<Vec<Value>>;
        self.kernel = budget.newest("kernel", std::mem::take(&mut self.kernel), KERNEL, 32 << 10);
        self.stacks = budget.newest("stacks", take(&mut self.stacks), 40, 96 << 10);
        self.packages = budget.newest("packages", std::mem::take(&mut self.packages), PACKAGES, 40 << 10);
        self.gpus = budget.newest("gpus", take(&mut self.gpus), 64, 16 << 10);
        self.machine = budget.newest("machine", take(&mut self.machine), 4, 8 << 10);
        self.history = budget.thinned("history", take(&mut self.history), 64 << 10);
        self.alerts = budget.newest("alerts", take(&mut self.alerts), 100, 16 << 10);
        self.exits = budget.newest("exit", take(&mut self.exits), 4, 8 << 10);
        self.ranks = budget.newest("ranks", take(&mut self.ranks), 16, 8 << 10);
        self.other = budget.newest("other", take(&mut self.other), 100, 32 << 10);
        while size(&self.environment) > 48 << 10 {
            self.environment.pop_last();
            budget.left_out("environment", 1);
        }
    }

    /// Moves the parts into a capsule.
    pub(super) fn fill(self, capsule: &mut Capsule) {
        capsule.kernel = self.kernel;
        capsule.stacks = self.stacks;
        capsule.environment = self.environment;
        capsule.packages = self.packages;
        capsule.gpus = self.gpus;
        capsule.history = self.history;
        capsule.alerts = self.alerts;
        capsule.other = self.other;
        capsule.exit.recorded = self.exits;
        capsule.exit.ranks = self.ranks;
        if let Some(machine) = &mut capsule.machine {
            machine.facts = self.machine;
        }
    }
}

fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// Strings, or objects with `name` and `version`, in any array of the line.
fn packages(value: &Value) -> Vec<String> {
    let lists = value.as_object().into_iter().flat_map(|fields| fields.values()).filter_map(Value::as_array);
    lists
        .flatten()
        .filter_map(|item| {
            let named = || Some(format!("{}=={}", item.get("name")?.as_str()?, plain(item.get("version")?)));
            item.as_str().map(str::to_owned).or_else(named)
        })
        .map(|package| clip(&package, 120))
        .collect()
}

/// `line`, `text` or `message`, or an array `lines`.
fn kernel(value: &Value) -> Vec<String> {
    let one =
        ["line", "text", "message"].iter().find_map(|name| value.get(name)?.as_str().map(str::to_owned));
    let many = value.get("lines").and_then(Value::as_array);
    let texts = many.into_iter().flatten().filter_map(|item| item.as_str().map(str::to_owned));
    one.into_iter().chain(texts).map(|text| clip(&clean(text.as_bytes()), 400)).collect()
}

/// Free bytes of the fullest disk: `disk_free...`, or `free...` of the mounts.
fn least_free(value: &Value) -> Option<u64> {
    let mounts = ["mounts", "disks", "disk"].iter().filter_map(|name| value.get(name)?.as_array()).flatten();
    let of_mounts =
        mounts.filter_map(|m| ["free_bytes", "free"].iter().find_map(|name| m.get(name)?.as_u64()));
    let own = ["disk_free_bytes", "disk_free"].iter().filter_map(|name| value.get(name)?.as_u64());
    own.chain(of_mounts).min()
}

/// Takes the list of GPUs out of a line.
fn gpus(value: &mut Value) -> Option<Vec<Value>> {
    let fields = value.as_object_mut()?;
    let name = ["gpus", "gpu"].into_iter().find(|name| fields.get(*name).is_some_and(Value::is_array))?;
    match fields.get(name) {
        Some(Value::Array(items)) if !items.is_empty() => {
            Some(items.iter().take(64).map(|item| clip_value(item.clone(), 2 << 10)).collect())
        }
        _ => None,
    }
}
