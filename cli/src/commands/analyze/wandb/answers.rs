//! What is asked of W&B's server, and what its answers say: the questions of
//! W&B's own public client, with no field more than that asks for, as a private
//! server may be old.
//!
//! Texts and rows are handed on as data. Nothing here believes that a field is
//! there or of the right type.

use std::io;

use curves::format::parse_json;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::commands::analyze::words;

/// Measurements of the machine that are asked for, which the server picks.
pub(super) const SAMPLES: u64 = 2_000;

const FIELDS: &str = "id name displayName state config group jobType commit tags notes createdAt \
                      heartbeatAt summaryMetrics historyLineCount historyKeys sweepName";

/// The runs of a project, a page of them.
pub(super) fn runs_query() -> String {
    format!(
        "query Runs($project: String!, $entity: String!, $cursor: String, $perPage: Int = 50, $order: String) \
         {{ project(name: $project, entityName: $entity) {{ \
         runs(after: $cursor, first: $perPage, order: $order) {{ \
         edges {{ node {{ {FIELDS} }} cursor }} pageInfo {{ endCursor hasNextPage }} }} }} }}"
    )
}

/// One run.
pub(super) fn run_query() -> String {
    format!(
        "query Run($project: String!, $entity: String!, $name: String!) \
         {{ project(name: $project, entityName: $entity) {{ run(name: $name) {{ {FIELDS} }} }} }}"
    )
}

/// Rows of a run's history, all of a range of steps.
pub(super) const HISTORY_QUERY: &str = "query HistoryPage($entity: String!, $project: String!, $run: String!, $minStep: Int64!, \
     $maxStep: Int64!, $pageSize: Int!) { project(name: $project, entityName: $entity) { \
     run(name: $run) { history(minStep: $minStep, maxStep: $maxStep, samples: $pageSize) } } }";

/// Measurements of the machine.
pub(super) const EVENTS_QUERY: &str = "query RunFullHistory($project: String!, $entity: String!, $name: String!, $samples: Int) { \
     project(name: $project, entityName: $entity) { run(name: $name) { events(samples: $samples) } } }";

/// What is known of a run.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Node {
    /// Its identifier in the project.
    pub(super) name: String,
    display_name: Option<String>,
    state: Option<String>,
    config: Option<String>,
    group: Option<String>,
    job_type: Option<String>,
    commit: Option<String>,
    tags: Option<Vec<String>>,
    notes: Option<String>,
    created_at: Option<String>,
    heartbeat_at: Option<String>,
    summary_metrics: Option<String>,
    history_line_count: Option<u64>,
    history_keys: Option<Value>,
    sweep_name: Option<String>,
}

/// A page of a list of runs.
#[derive(Debug)]
pub(super) struct Page {
    pub(super) runs: Vec<Value>,
    /// Where the next page begins.
    pub(super) next: Option<String>,
}

impl Node {
    /// # Errors
    /// Where a field is of a type that it never has.
    pub(super) fn of(value: Value) -> io::Result<Self> {
        serde_json::from_value(value).map_err(|error| odd(&format!("a run: {error}")))
    }

    /// When it was made: a run of the same name that was made later is another.
    pub(super) fn created(&self) -> &str {
        self.created_at.as_deref().unwrap_or_default()
    }

    /// The server's word for how it stands.
    pub(super) fn state(&self) -> &str {
        self.state.as_deref().unwrap_or_default()
    }

    /// Whether more may come.
    pub(super) fn goes_on(&self) -> bool {
        matches!(self.state(), "running" | "pending" | "preempting")
    }

    /// When the server heard of it last.
    pub(super) fn heard(&self) -> &str {
        self.heartbeat_at.as_deref().unwrap_or_default()
    }

    /// How many rows its history has.
    pub(super) fn rows(&self) -> Option<u64> {
        self.history_line_count
    }

    /// The last step of its history; `None`: it has none.
    pub(super) fn last_step(&self) -> Option<u64> {
        let keys = match &self.history_keys {
            Some(Value::String(text)) => serde_json::from_str(text).unwrap_or_default(),
            Some(keys) => keys.clone(),
            None => Value::Null,
        };
        // A run that has only begun has -1.
        let last = keys.get("lastStep").and_then(Value::as_f64).or_else(|| {
            let summary = parse_json(self.summary_metrics.as_deref()?.as_bytes())?;
            summary.member("_step").and_then(curves::log::Value::number)
        });
        last.filter(|step| (0.0..9e15).contains(step)).map(|step| step as u64)
    }

    /// The lines of a copy that tell of it.
    pub(super) fn lines(&self, entity: &str, project: &str, lost: u64) -> String {
        let run = json!({
            "name": self.name, "displayName": self.display_name, "entity": entity, "project": project,
            "group": self.group, "jobType": self.job_type, "notes": self.notes, "commit": self.commit,
            "sweepName": self.sweep_name, "tags": self.tags, "state": self.state,
            "createdAt": self.created_at, "heartbeatAt": self.heartbeat_at,
        });
        let mut lines = format!("{}\n", json!({ "run": run }));
        for (name, text) in [("config", &self.config), ("summary", &self.summary_metrics)] {
            if let Some(text) = text.as_deref().filter(|text| !text.is_empty()) {
                lines.push_str(&wrapped(name, text));
            }
        }
        if lost > 0 {
            lines.push_str(&format!("{}\n", json!({ "lost": lost })));
        }
        lines
    }
}

/// An object that the server gave as a text, as one line of a copy. It may hold
/// NaN, for which there is no JSON: so it stays as it is. What is no object would
/// be a broken line.
fn wrapped(name: &str, text: &str) -> String {
    format!("{{\"{name}\":{}}}\n", text.replace(['\n', '\r'], " "))
}

/// A page of runs.
///
/// # Errors
/// There is no such project, or the answer is of another shape.
pub(super) fn page(data: &Value, entity: &str, project: &str) -> io::Result<Page> {
    let list = project_of(data, entity, project)?.get("runs").unwrap_or(&Value::Null);
    let edges = list.get("edges").and_then(Value::as_array).ok_or_else(|| odd("no list of runs"))?;
    let node = |edge: &Value| edge.get("node").cloned().ok_or_else(|| odd("a list of runs without one"));
    let info = list.get("pageInfo").unwrap_or(&Value::Null);
    let more = info.get("hasNextPage").and_then(Value::as_bool).unwrap_or(false);
    let next = info.get("endCursor").and_then(Value::as_str).filter(|_| more && !edges.is_empty());
    Ok(Page { runs: edges.iter().map(node).collect::<io::Result<_>>()?, next: next.map(str::to_owned) })
}

/// One run.
///
/// # Errors
/// There is none of that name, or the answer is of another shape.
pub(super) fn run<'a>(data: &'a Value, entity: &str, project: &str, run: &str) -> io::Result<&'a Value> {
    let found = project_of(data, entity, project)?.get("run").filter(|run| !run.is_null());
    found.ok_or_else(|| {
        let why =
            format!("{} has no run {}, or the key may not see it", words::name(project), words::name(run));
        io::Error::new(io::ErrorKind::NotFound, why)
    })
}

fn project_of<'a>(data: &'a Value, entity: &str, project: &str) -> io::Result<&'a Value> {
    data.get("project").filter(|project| !project.is_null()).ok_or_else(|| {
        let name = words::name(&format!("{entity}/{project}"));
        io::Error::new(io::ErrorKind::NotFound, format!("no project {name}, or the key may not see it"))
    })
}

/// Rows out of an answer: as the lines of a copy, and what became of the others.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Rows {
    pub(super) lines: String,
    /// Rows in `lines`.
    pub(super) taken: u64,
    /// Rows that the answer had.
    pub(super) came: u64,
    /// Rows that are no objects with a step.
    pub(super) broken: u64,
}

/// The rows of a range of steps; those of other steps were not asked for.
///
/// # Errors
/// The answer is of another shape.
pub(super) fn history(run: &Value, steps: std::ops::Range<u64>) -> io::Result<Rows> {
    let mut rows = Rows::default();
    for row in list(run, "history")? {
        rows.came += 1;
        let Some(row) = row.as_str() else {
            rows.broken += 1;
            continue;
        };
        let step = parse_json(row.as_bytes()).and_then(|row| row.member("_step")?.number());
        match step.filter(|step| *step >= 0.0 && step.fract() == 0.0) {
            Some(step) if steps.contains(&(step as u64)) => {
                rows.lines.push_str(&wrapped("row", row));
                rows.taken += 1;
            }
            Some(_) => {}
            None => rows.broken += 1,
        }
    }
    Ok(rows)
}

/// Measurements of the machine, as lines of a copy.
///
/// # Errors
/// The answer is of another shape.
pub(super) fn events(run: &Value) -> io::Result<String> {
    if run.get("events").is_none_or(Value::is_null) {
        return Ok(String::new());
    }
    let rows = list(run, "events")?.iter().filter_map(Value::as_str);
    Ok(rows.map(|row| wrapped("system", row)).collect())
}

fn list<'a>(run: &'a Value, key: &str) -> io::Result<&'a [Value]> {
    let rows = run.get(key).and_then(Value::as_array);
    rows.map(Vec::as_slice).ok_or_else(|| odd(&format!("no list {key:?}")))
}

fn odd(what: &str) -> io::Error {
    let why = format!("the answer is not as W&B's server gives it: {}", words::quoted_within(what, 160));
    io::Error::new(io::ErrorKind::InvalidData, why)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_of_other_steps_and_broken_ones_are_not_taken() {
        let run = json!({"history": [
            "{\"_step\":3,\"loss\":NaN}", "{\"_step\":2,\n\"a\":{\"b\":Infinity}}", "{\"_step\":9}",
            "{\"loss\":1}", "[]", "{", 7, null, "{\"_step\":-1}", "{\"_step\":2.5}",
        ]});
        let rows = history(&run, 2..9).unwrap();
        assert_eq!((rows.taken, rows.came, rows.broken), (2, 10, 7));
        let lines = "{\"row\":{\"_step\":3,\"loss\":NaN}}\n{\"row\":{\"_step\":2, \"a\":{\"b\":Infinity}}}\n";
        assert_eq!(rows.lines, lines);
        for odd in [json!({}), json!({"history": 3}), json!({"history": null})] {
            assert_eq!(history(&odd, 0..9).unwrap_err().kind(), io::ErrorKind::InvalidData);
        }
    }

    #[test]
    fn the_last_step_is_found_where_servers_have_it() {
        let node = |keys: Value, summary: &str| {
            Node::of(json!({"name": "a", "historyKeys": keys, "summaryMetrics": summary}))
                .unwrap()
                .last_step()
        };
        assert_eq!(node(json!({"lastStep": 7}), ""), Some(7));
        assert_eq!(node(json!("{\"lastStep\": 7}"), ""), Some(7));
        assert_eq!(node(Value::Null, "{\"_step\": 9, \"x\": NaN}"), Some(9));
        for keys in [json!({"lastStep": -1}), json!({"lastStep": "x"}), json!({"lastStep": 1e300}), json!([])]
        {
            assert_eq!(node(keys, "{}"), None);
        }
    }

    #[test]
    fn runs_of_another_shape_are_refused() {
        for odd in [json!({}), json!({"name": 3}), json!({"name": "a", "tags": "x"}), json!([])] {
            assert_eq!(Node::of(odd).unwrap_err().kind(), io::ErrorKind::InvalidData);
        }
        for data in [json!({"project": null}), json!({"project": {"run": null}})] {
            assert_eq!(run(&data, "e", "p", "r").unwrap_err().kind(), io::ErrorKind::NotFound);
        }
        assert_eq!(
            page(&json!({"project": {"runs": 3}}), "e", "p").unwrap_err().kind(),
            io::ErrorKind::InvalidData
        );
    }
}
