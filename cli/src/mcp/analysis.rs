//! Tools that read training curves in files below the roots. The reading is
//! done beside the session, tells which file it is at, and ends between two
//! files when nobody waits for it any more.

use std::path::Path;
use std::sync::Arc;

use serde_json::{Value, json};

use super::arguments::Arguments;
use super::desk::Desk;
use super::reply::{LEAST, Reply, spelt};
use super::server::Progress;
use super::views::for_tools;
use crate::args::{AnalyzeArgs, FORMATS, ReadAs};
use crate::commands::analyze::{self, words};
use crate::exit_code::{ExitCode, Failure};

/// Findings of a run in the structured form.
const FINDINGS: usize = 8;

/// `analyze`
pub(super) async fn analyze(
    desk: &Arc<Desk>,
    mut given: Arguments,
    progress: Progress,
) -> anyhow::Result<Reply> {
    let most = given.granted();
    let (paths, format) = (given.texts("paths")?, given.text("format")?);
    given.end()?;
    if paths.is_empty() {
        let help =
            "name logs, or directories of them: W&B, TensorBoard, MLflow, JSON lines, CSV, console output";
        return Err(Failure::new(ExitCode::Usage, "`paths` is missing").help(help).into());
    }
    let format = format.map(|name| known(&name)).transpose()?;
    let paths = paths.iter().map(|path| desk.path_or_run(path)).collect::<Result<Vec<_>, _>>()?;
    // Half is for the structured form.
    let tokens = u32::try_from((most / 2).max(LEAST - 10)).unwrap_or(u32::MAX);
    let args =
        AnalyzeArgs { paths, tokens, format, explain: false, schema: None, write_schema: false, json: false };
    let Progress { told, ct } = progress;
    let (desk, runtime) = (desk.clone(), tokio::runtime::Handle::current());
    let seen = tokio::task::spawn_blocking(move || {
        let mut go_on = |path: &Path| {
            // Where nobody takes it, it is not told.
            let _ = told.try_send(format!("reading {}", words::path(path)));
            !ct.is_cancelled()
        };
        let seen = runtime.block_on(analyze::look(&desk.ctx, &args, &mut go_on))?;
        anyhow::Ok((seen.text(tokens as usize), seen.json(), seen.failures))
    });
    let (text, runs, failures) = seen.await??;
    let runs = runs.as_array().cloned().unwrap_or_default();
    if runs.is_empty()
        && let Some(failure) = failures.into_iter().next()
    {
        return Err(failure.into());
    }
    let text = for_tools(&text);
    let reply = text.lines().fold(Reply::default(), Reply::line);
    Ok(reply.rows(runs.iter().map(row).collect()))
}

fn known(name: &str) -> Result<ReadAs, Failure> {
    let names = FORMATS.map(|(name, _)| name).join(", ");
    let found = FORMATS.iter().find(|(known, _)| *known == name).map(|(_, format)| ReadAs::Format(*format));
    found.ok_or_else(|| Failure::new(ExitCode::Usage, format!("the formats are {names}")))
}

/// What matters most of one run.
fn row(run: &Value) -> Value {
    let report = &run["report"];
    let text = |value: &Value| value.as_str().map(|text| spelt(text, 80));
    let findings = report["findings"].as_array().into_iter().flatten().take(FINDINGS);
    let findings: Vec<Value> = findings
        .map(|one| {
            json!({
                "kind": one["kind"],
                "metric": text(&one["metric"]),
                "severity": one["severity"],
                "steps": [one["first_step"], one["last_step"]],
            })
        })
        .collect();
    let primary = report["primary"].as_str();
    let metrics = report["metrics"].as_array().into_iter().flatten();
    let metric = metrics.into_iter().find(|metric| metric["name"].as_str() == primary && primary.is_some());
    let mut row = json!({
        "path": text(&run["path"]),
        "health": report["health"]["score"],
        "labels": report["health"]["labels"],
        "last_step": run["last_step"],
    });
    if let Some(metric) = metric {
        row["primary"] = json!({
            "metric": primary.map(|name| spelt(name, 80)),
            "last": metric["last"],
            "best": metric["best"],
            "best_step": metric["best_step"],
        });
    }
    if !findings.is_empty() {
        row["findings"] = json!(findings);
    }
    row
}
