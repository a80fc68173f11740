//! Where checkpoints come from and where they led: the parent of each, the runs
//! that were forked or resumed from a run, and what is different in them. All
//! of it is read from rows; nothing is decided by it.

use std::collections::{BTreeMap, BTreeSet};

use lifecycle::mask::Masker;
use lifecycle::spec::difference::Change;
use lifecycle::{AttemptId, RunId};
use proto::v1;
use serde_json::Value;

use super::views;
use crate::core::{Core, CoreError};
use crate::model::{Attempt, Checkpoint, Run, Versioned};

/// Runs of one family that are shown.
const FAMILY: usize = 500;
/// A value of a change, as it is shown.
const SHOWN: usize = 200;

/// The checkpoints of a run in the order in which they became durable.
///
/// # Errors
/// Where a store fails.
pub async fn checkpoints(core: &Core, run: &Run) -> Result<Vec<v1::CheckpointView>, CoreError> {
    let mut rows: Vec<Checkpoint> =
        core.of_run(run.id).await?.into_iter().map(|row: Versioned<_>| row.body).collect();
    rows.sort_by_key(|c| (c.committed_ms, c.manifest.key.clone()));
    let attempts: Vec<Versioned<Attempt>> = core.of_run(run.id).await?;
    let attempts: BTreeMap<AttemptId, &Attempt> = attempts.iter().map(|a| (a.body.id, &a.body)).collect();
    let scores = crate::best::of(core, run, &rows).await?;
    let parents = parents(&rows, &attempts);
    let head = run.head.as_ref().map(|head| head.key.as_str());
    let view = |c: &Checkpoint| {
        let attempt = attempts.get(&c.attempt);
        v1::CheckpointView {
            run: run.name.clone(),
            parent: parents.get(c.manifest.key.as_str()).copied().unwrap_or_default().to_owned(),
            machine: attempt.map(|a| a.machine.to_string()).unwrap_or_default(),
            attempt: attempt.map_or(0, |a| a.number),
            score: scores.get(&c.manifest.key).copied(),
            ..views::checkpoint(c, head)
        }
    };
    Ok(rows.iter().map(view).collect())
}

/// One of them.
///
/// # Errors
/// Where a store fails.
pub async fn checkpoint(core: &Core, run: &Run, one: &Checkpoint) -> Result<v1::CheckpointView, CoreError> {
    let all = checkpoints(core, run).await?;
    let found = all.into_iter().find(|view| view.key == one.manifest.key);
    Ok(found.unwrap_or_else(|| views::checkpoint(one, None)))
}

/// What each checkpoint's program had before it: the one before in the same
/// attempt, or what the attempt went on from.
fn parents<'a>(
    rows: &'a [Checkpoint],
    attempts: &BTreeMap<AttemptId, &'a Attempt>,
) -> BTreeMap<&'a str, &'a str> {
    let mut order: Vec<&Checkpoint> = rows.iter().collect();
    order.sort_by_key(|c| (c.manifest.step, c.committed_ms));
    let mut last: BTreeMap<AttemptId, &str> = attempts
        .iter()
        .filter_map(|(id, attempt)| Some((*id, attempt.restored.as_ref()?.key.as_str())))
        .collect();
    let mut parents = BTreeMap::new();
    for row in order {
        if let Some(parent) = last.insert(row.attempt, &row.manifest.key) {
            parents.insert(row.manifest.key.as_str(), parent);
        }
    }
    parents
}

/// What a run was forked from, as RUN@STEP; empty where it was not.
///
/// # Errors
/// Where a store fails.
pub async fn forked_from(core: &Core, run: &Run) -> Result<String, CoreError> {
    let (Some(fork), Some(parent)) = (&run.fork, run.parent) else { return Ok(String::new()) };
    let name = core.load::<Run>(&parent.to_string()).await?.map_or(parent.to_string(), |row| row.body.name);
    Ok(fork.checkpoint.step.map_or(name.clone(), |step| format!("{name}@{step}")))
}

/// How a fork differs from what it was forked from, in the words of the
/// configuration and without secrets.
#[must_use]
pub fn changes(run: &Run) -> Vec<String> {
    let Some(fork) = &run.fork else { return Vec::new() };
    let masker = Masker::new(&run.spec.env);
    // Its name is seen anyway.
    let told = fork.changes.iter().filter(|change| change.path != ["name"]);
    let mut lines: Vec<String> = told.map(|change| line(change, &masker)).collect();
    if fork.other_source {
        lines.push("source: another tree".into());
    }
    lines
}

fn line(change: &Change, masker: &Masker) -> String {
    let variable = match change.path.as_slice() {
        [first, name] if first == "env" => Some(name.as_str()),
        _ => None,
    };
    let shown = |value: &Option<Value>| match value {
        None | Some(Value::Null) => "nothing".to_owned(),
        Some(Value::String(text)) => match variable {
            Some(name) => masker.value(name, text),
            None => masker.text(text),
        },
        Some(value) => masker.text(&value.to_string()),
    };
    let clip = |text: String| text.chars().take(SHOWN).collect::<String>();
    let (from, to) = (clip(shown(&change.from)), clip(shown(&change.to)));
    format!("{}: {from} -> {to}", setting(&change.path))
}

/// The setting of the configuration that a place of the description is.
fn setting(path: &[String]) -> String {
    let words: Vec<&str> = path.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["env", name] => format!("run.env.{name}"),
        [one @ ("command" | "name" | "workdir" | "provider" | "pty")] => format!("run.{one}"),
        ["grace_seconds"] => "run.grace".into(),
        ["artifacts"] => "artifacts.globs".into(),
        [cap @ ("max_usd" | "max_usd_per_hour" | "max_usd_project" | "max_usd_day")] => {
            format!("budget.{cap}")
        }
        ["machine", "min_reliability"] => "machine.reliability".into(),
        ["machine", rest] => format!("machine.{}", rest.trim_end_matches("_bytes")),
        ["usd_per_hour"] => "local.usd_per_hour".into(),
        ["spool_bytes"] => "logs.spool".into(),
        ["limits", "memory_bytes"] => "limits.memory".into(),
        ["checkpoints", "keep", what] => format!("checkpoints.keep_{}", what.trim_end_matches("_days")),
        ["health", "hang", rest] => format!("hang.{}", rest.trim_end_matches("_seconds")),
        _ => path.join(".").trim_end_matches("_seconds").to_owned(),
    }
}

/// A run's whole family, the oldest run first.
///
/// # Errors
/// Where a store fails.
pub async fn family(core: &Core, run: &Run) -> Result<v1::LineageReply, CoreError> {
    let rows: Vec<Run> = core.all::<Run>().await?.into_iter().map(|row| row.body).collect();
    let by_id: BTreeMap<RunId, &Run> = rows.iter().map(|run| (run.id, run)).collect();
    let mut root = run;
    let mut above = BTreeSet::from([root.id]);
    while let Some(parent) = root.parent.and_then(|id| by_id.get(&id)) {
        if !above.insert(parent.id) {
            break;
        }
        root = parent;
    }
    let mut inside = BTreeSet::from([root.id]);
    loop {
        let known = inside.len();
        inside.extend(
            rows.iter()
                .filter(|r| r.parent.is_some_and(|id| inside.contains(&id)))
                .map(|r| r.id)
                .collect::<Vec<_>>(),
        );
        if inside.len() == known {
            break;
        }
    }
    let mut members: Vec<&Run> = rows.iter().filter(|run| inside.contains(&run.id)).collect();
    members.sort_by_key(|run| (run.created_ms, run.id));
    members.truncate(FAMILY);
    let mut runs = Vec::new();
    for member in members {
        let parent = member.parent.and_then(|id| by_id.get(&id));
        runs.push(v1::FamilyMember {
            run: Some(views::run(core, member).await?),
            checkpoints: checkpoints(core, member).await?,
            parent: parent.map(|run| run.name.clone()).unwrap_or_default(),
            origin: member.fork.as_ref().map(|fork| fork.checkpoint.key.clone()).unwrap_or_default(),
        });
    }
    Ok(v1::LineageReply { runs })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn words(path: &[&str]) -> Vec<String> {
        path.iter().map(|word| (*word).to_owned()).collect()
    }

    #[test]
    fn changes_are_told_as_settings_and_without_secrets() {
        let change = |path: &[&str], from: Value, to: Value| Change {
            path: words(path),
            from: Some(from).filter(|v| !v.is_null()),
            to: Some(to).filter(|v| !v.is_null()),
        };
        let env = BTreeMap::from([("API_TOKEN".to_owned(), "hunter2hunter2".to_owned())]);
        let masker = Masker::new(&env);
        let told = |path: &[&str], from: Value, to: Value| line(&change(path, from, to), &masker);
        assert_eq!(told(&["env", "LR"], json!("0.1"), json!("0.01")), "run.env.LR: 0.1 -> 0.01");
        assert_eq!(told(&["env", "LR"], json!(null), json!("0.01")), "run.env.LR: nothing -> 0.01");
        assert_eq!(told(&["max_usd"], json!(1.5), json!(null)), "budget.max_usd: 1.5 -> nothing");
        assert_eq!(
            told(&["checkpoints", "keep", "all_days"], json!(7), json!(1)),
            "checkpoints.keep_all: 7 -> 1"
        );
        let secret = told(&["env", "API_TOKEN"], json!("former-value-1"), json!("hunter2hunter2"));
        assert!(!secret.contains("hunter2") && !secret.contains("former"), "{secret}");
        let command = told(&["command"], json!(["x"]), json!(["x", "--key=hunter2hunter2"]));
        assert!(!command.contains("hunter2"), "{command}");
    }
}
