//! Runs of the controller, as files that can be read like those of any tool:
//! a directory for each run with what is known of it and the points of its
//! attempts. What is there already is not fetched again.
//!
//! The directory is a copy that may go at any time. It is never the only place
//! of anything, and nothing is sent back from it.

mod known;

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Seek as _, SeekFrom, Write as _};
use std::path::{Component, Path, PathBuf};
use std::time::{Duration, SystemTime};

use proto::v1;
use serde_json::{Value, json};

use super::wandb;
use crate::app::Context;
use crate::client::{Client, failure};
use crate::exit_code::{ExitCode, Failure};
pub(crate) use known::{Known, hourly};

/// What is known of the run; its presence tells what the directory is.
pub(super) const ABOUT: &str = "outlast-run.jsonl";
/// Copies that nobody asked for in so long go.
const KEPT: Duration = Duration::from_hours(24 * 30);
/// Runs whose copies are brought up to date for one question, the newest.
pub(crate) const MOST_RUNS: usize = 200;
/// Variables of a run that count as settings.
const MOST_VARIABLES: usize = 100;
/// Points of all attempts together that are copied.
const MOST: u64 = 16 << 30;

/// Files and directories stay as they are; what is neither, but could be the
/// name of a run, becomes the directory with that run's points, and an address
/// of W&B's that with the copies of what it names.
///
/// # Errors
/// Where the controller or W&B's server knows no such run, or several, or cannot
/// be asked.
pub(crate) async fn resolve(ctx: &Context, paths: &[PathBuf]) -> anyhow::Result<Vec<PathBuf>> {
    let mut resolved = Vec::new();
    for path in paths {
        resolved.push(place(ctx, path).await?);
    }
    Ok(resolved)
}

/// Whether a directory is such a copy.
pub(crate) fn is_copy(dir: &Path) -> bool {
    dir.join(ABOUT).is_file()
}

/// The same for one.
///
/// # Errors
/// As [`resolve`].
pub(crate) async fn place(ctx: &Context, path: &Path) -> anyhow::Result<PathBuf> {
    if let Some(found) = Box::pin(wandb::fetched(ctx, path)).await? {
        return Ok(found.dir);
    }
    Ok(match name_in(path) {
        Some(name) => copy(ctx, name).await?.unwrap_or_else(|| path.to_owned()),
        None => path.to_owned(),
    })
}

/// The name of a run that a path may mean.
fn name_in(path: &Path) -> Option<&str> {
    if fs::symlink_metadata(path).is_ok() {
        return None;
    }
    let mut parts = path.components();
    match (parts.next(), parts.next()) {
        (Some(Component::Normal(name)), None) => name.to_str().filter(|name| is_plain(name)),
        _ => None,
    }
}

/// Whether a text could be a run's name.
pub(crate) fn may_be_run(text: &str) -> bool {
    is_plain(text)
}

fn is_plain(name: &str) -> bool {
    let fits = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    !name.is_empty() && name.len() <= 200 && !name.starts_with('.') && name.chars().all(fits)
}

/// The directory of a run's points, brought up to date; `None`: there is no
/// controller that could know the run.
async fn copy(ctx: &Context, name: &str) -> anyhow::Result<Option<PathBuf>> {
    Ok(fetched(ctx, name).await?.map(|(dir, _)| dir))
}

/// The same, with what is known of the run.
///
/// # Errors
/// As [`resolve`].
pub(crate) async fn fetched(ctx: &Context, name: &str) -> anyhow::Result<Option<(PathBuf, v1::RunDetail)>> {
    let Some(client) = Box::pin(crate::daemon::existing(ctx)).await? else { return Ok(None) };
    up_to_date(ctx, &client, name).await.map(Some)
}

/// The runs of the controller, the newest first.
#[derive(Debug, Default)]
pub(crate) struct Own {
    /// Directories of their points, brought up to date.
    pub(crate) places: Vec<PathBuf>,
    /// Older ones that are left out.
    pub(crate) left_out: usize,
}

/// The copies of the controller's runs whose name is as a pattern with `*` says;
/// `None`: there is no controller.
///
/// # Errors
/// As [`resolve`].
pub(crate) async fn own(ctx: &Context, fits: &(dyn Fn(&str) -> bool + Sync)) -> anyhow::Result<Option<Own>> {
    let Some(client) = Box::pin(crate::daemon::existing(ctx)).await? else { return Ok(None) };
    let listed = client.operator.clone().list_runs(v1::ListRunsRequest { all: true }).await;
    let mut runs = listed.map_err(|status| failure(&status))?.into_inner().runs;
    runs.retain(|run| fits(&run.name));
    runs.sort_by_key(|run| std::cmp::Reverse(run.created_ms));
    let mut own = Own { left_out: runs.len().saturating_sub(MOST_RUNS), ..Own::default() };
    for run in runs.iter().take(MOST_RUNS) {
        ctx.printer.progress(&format!("reading {}", run.name));
        match up_to_date(ctx, &client, &run.id).await {
            Ok((place, _)) => own.places.push(place),
            // It was let go of meanwhile.
            Err(error) if error.downcast_ref::<Failure>().is_some_and(|f| f.code == ExitCode::NotFound) => {}
            Err(error) => return Err(error),
        }
    }
    ctx.printer.clear_progress();
    Ok(Some(own))
}

async fn up_to_date(ctx: &Context, client: &Client, name: &str) -> anyhow::Result<(PathBuf, v1::RunDetail)> {
    let detail = client.run(name).await.map_err(|failed| {
        let help = "a file or directory of that name is not here either";
        if failed.code == ExitCode::NotFound { failed.help(help) } else { failed }
    })?;
    let run = detail.run.clone().unwrap_or_default();
    if !is_plain(&run.name) {
        return Err(Failure::new(ExitCode::Internal, "the controller named a run in a strange way").into());
    }
    let copies = ctx.home()?.join("cache/curves");
    forget(&copies);
    let dir = copies.join(&run.name);
    fs::create_dir_all(&dir)?;
    // Two that fetch the same run do so one after the other; who waits for that
    // leaves its thread to others, who may be the ones that are waited for.
    let lock = OpenOptions::new().create(true).truncate(false).write(true).open(dir.join(".lock"))?;
    let _held = tokio::task::spawn_blocking(move || {
        lock.lock()?;
        lock.set_modified(SystemTime::now())?;
        io::Result::Ok(lock)
    })
    .await??;
    fetch(client, &run.name, &dir).await?;
    // As it is after the points: an attempt that began meanwhile is known here.
    let detail = client.run(&run.id).await?;
    for attempt in detail.attempts.iter().filter(|attempt| attempt.number > 1) {
        if let Some(segment) = segment(attempt) {
            whole(&dir, &segment_file(attempt.number), &format!("{segment}\n"))?;
        }
    }
    Known::ask(client, &detail, &dir).await.write(&dir)?;
    whole(&dir, ABOUT, &about(&detail))?;
    Ok((dir, detail))
}

/// Copies go that nobody asked for in a long time.
fn forget(copies: &Path) {
    for entry in fs::read_dir(copies).into_iter().flatten().flatten() {
        let asked = fs::metadata(entry.path().join(".lock")).and_then(|meta| meta.modified());
        if asked.is_ok_and(|at| at.elapsed().is_ok_and(|age| age > KEPT)) {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

/// Fetches the points that are not here yet.
async fn fetch(client: &Client, run: &str, dir: &Path) -> anyhow::Result<()> {
    let mut held = Vec::new();
    for entry in fs::read_dir(dir)?.flatten() {
        let name = entry.file_name();
        let number = name.to_str().and_then(|name| name.strip_suffix("-points.jsonl")?.parse().ok());
        if let Some(attempt) = number {
            held.push(v1::MetricsHeld { attempt, bytes: entry.metadata()?.len() });
        }
    }
    let ask = v1::MetricsRequest { run: run.to_owned(), held };
    let told = client.operator.clone().metrics(ask).await.map_err(|status| failure(&status))?;
    let (mut told, mut open, mut taken) = (told.into_inner(), BTreeMap::new(), 0_u64);
    while let Some(chunk) = told.message().await.map_err(|status| failure(&status))? {
        taken += chunk.data.len() as u64;
        if taken > MOST {
            return Err(Failure::new(
                ExitCode::CannotWrite,
                format!("{run} has more than {} GiB of points", MOST >> 30),
            )
            .into());
        }
        let file = match open.entry(chunk.attempt) {
            std::collections::btree_map::Entry::Occupied(entry) => entry.into_mut(),
            std::collections::btree_map::Entry::Vacant(entry) => {
                let path = dir.join(format!("{:05}-points.jsonl", chunk.attempt));
                entry.insert(OpenOptions::new().create(true).truncate(false).write(true).open(path)?)
            }
        };
        at(file, chunk.offset, &chunk.data)?;
    }
    Ok(())
}

/// Writes at an offset, behind which there is nothing then.
fn at(file: &mut File, offset: u64, data: &[u8]) -> io::Result<()> {
    if offset > file.metadata()?.len() {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "points came with a hole between them"));
    }
    file.set_len(offset)?;
    file.seek(SeekFrom::Start(offset))?;
    file.write_all(data)
}

/// Writes a small file that is there whole or as it was.
fn whole(dir: &Path, name: &str, text: &str) -> io::Result<()> {
    let beside = dir.join(format!(".{name}.new"));
    fs::write(&beside, text)?;
    fs::rename(beside, dir.join(name))
}

fn segment_file(attempt: u32) -> String {
    // In order of names it comes before the attempt's points.
    format!("{attempt:05}-from.jsonl")
}

/// Where an attempt goes on: what came before it at this step or later is void.
/// `None`: it is not known yet.
fn segment(attempt: &v1::AttemptView) -> Option<Value> {
    let from = attempt.first_step.or(attempt.resumed_step);
    (from.is_some() || attempt.ended_ms > 0).then(|| json!({"segment": {"from": from}}))
}

/// What is known of the run, line by line.
fn about(detail: &v1::RunDetail) -> String {
    let run = detail.run.clone().unwrap_or_default();
    let mut facts = BTreeMap::from([("run_id", run.id), ("name", run.name), ("project", run.project)]);
    facts.insert("status", run.state.to_lowercase());
    facts.retain(|_, text| !text.is_empty());
    let mut lines = vec![json!({"fact": facts}), json!({"started": run.created_ms as f64 / 1000.0})];
    if run.ended_ms > 0 {
        lines.push(json!({"ended": run.ended_ms as f64 / 1000.0}));
    }
    // While it goes on, the last code is that of an earlier attempt.
    if let Some(code) = run.exit_code.filter(|_| run.ended_ms > 0) {
        lines.push(json!({"exit": code}));
    }
    let spec: Value = serde_json::from_str(&detail.spec_json).unwrap_or_default();
    let command: Vec<&str> =
        spec["command"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    if !command.is_empty() {
        lines.push(json!({"fact": {"program": command.join(" ")}}));
    }
    let given = curves::settings::of_command(command);
    let mut config: serde_json::Map<String, Value> =
        given.iter().map(|(name, value)| (name.clone(), as_json(value))).collect();
    // What decides whether another run does the same, beside its command.
    let environment = &spec["environment"];
    for (name, value) in [
        ("forked_from", json!(run.forked_from)),
        ("source", json!(run.source_digest)),
        ("workdir", spec["workdir"].clone()),
        ("environment", environment["kind"].clone()),
        ("image", environment["image"].clone()),
        ("setup", environment["setup"].clone()),
        ("data", spec["data"].clone()),
        ("provider", spec["provider"].clone()),
        ("machine", spec["machine"].clone()),
    ] {
        if let Some(value) = said(value) {
            config.insert(format!("outlast/{name}"), value);
        }
    }
    for (name, value) in spec["env"].as_object().into_iter().flatten().take(MOST_VARIABLES) {
        config.insert(format!("env/{name}"), value.clone());
    }
    if !config.is_empty() {
        lines.push(json!({"config": config}));
    }
    lines.iter().map(|line| format!("{line}\n")).collect()
}

/// What a part of what a run is asked to be says, if that is anything.
fn said(value: Value) -> Option<Value> {
    match value {
        Value::Null => None,
        Value::String(text) => (!text.is_empty()).then_some(Value::String(text)),
        Value::Array(items) => (!items.is_empty()).then_some(Value::Array(items)),
        Value::Object(members) => {
            let members: serde_json::Map<String, Value> =
                members.into_iter().filter_map(|(name, value)| Some((name, said(value)?))).collect();
            (!members.is_empty()).then_some(Value::Object(members))
        }
        value => Some(value),
    }
}

fn as_json(value: &curves::log::Value) -> Value {
    use curves::log::Value as Given;
    match value {
        Given::Bool(value) => json!(value),
        Given::Integer(value) => json!(value),
        Given::Float(value) => json!(value),
        Given::Text(text) => json!(text),
        _ => Value::Null,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_no_file_and_could_be_a_run_is_asked_for() {
        assert_eq!(name_in(Path::new("resnet-o1")), Some("resnet-o1"));
        for path in ["a/b", "../x", "/etc", ".", "..", "", ".hidden", "Cargo.toml", "a b"] {
            assert_eq!(name_in(Path::new(path)), None, "{path}");
        }
    }

    #[test]
    fn what_decides_whether_runs_are_the_same_is_written_beside_their_points() {
        let spec = json!({
            "command": ["python", "train.py", "--lr", "0.1"], "env": {"SEED": "3"}, "provider": "local",
            "environment": {"kind": "venv", "setup": [], "image": ""}, "machine": {"gpus": null},
        });
        let run = v1::RunView { name: "a-1".into(), source_digest: "b3:77".into(), ..v1::RunView::default() };
        let detail =
            v1::RunDetail { run: Some(run), spec_json: spec.to_string(), ..v1::RunDetail::default() };
        let lines: Vec<Value> =
            about(&detail).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let of = |key: &str| lines.iter().find(|line| !line[key].is_null()).unwrap()[key].clone();
        assert_eq!(
            of("config"),
            json!({
                "lr": 0.1, "env/SEED": "3", "outlast/source": "b3:77", "outlast/environment": "venv",
                "outlast/provider": "local",
            })
        );
        let program = lines.iter().find(|line| line["fact"]["program"].is_string()).unwrap();
        assert_eq!(program["fact"]["program"], "python train.py --lr 0.1");
    }

    #[test]
    fn a_run_that_goes_on_has_no_exit_code() {
        let told = |ended_ms| {
            let run = v1::RunView { exit_code: Some(143), ended_ms, ..v1::RunView::default() };
            about(&v1::RunDetail { run: Some(run), ..v1::RunDetail::default() }).contains("\"exit\"")
        };
        assert!(!told(0) && told(7));
    }

    #[test]
    fn what_comes_again_replaces_what_was_there_and_holes_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let mut file =
            OpenOptions::new().create(true).truncate(false).write(true).open(dir.path().join("p")).unwrap();
        at(&mut file, 0, b"one\ntwo\nthree\n").unwrap();
        at(&mut file, 4, b"2\n").unwrap();
        assert_eq!(fs::read_to_string(dir.path().join("p")).unwrap(), "one\n2\n");
        assert!(at(&mut file, 7, b"x").is_err());
    }
}
