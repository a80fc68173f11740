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
use crate::args::{AnalyzeArgs, FORMATS, HistoryArgs, MetricsArgs, SettingsArgs, Shown, StatsArgs};
use crate::commands::analyze::{self, words};
use crate::commands::views::{Answer, history, metrics, settings, stats};
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
    let paths = paths.iter().map(|path| desk.path(path)).collect::<Result<Vec<_>, _>>()?;
    // Half is for the structured form.
    let tokens = u32::try_from((most / 2).max(LEAST - 10)).unwrap_or(u32::MAX);
    let args = AnalyzeArgs { paths, tokens, format, json: false };
    let Progress { told, ct } = progress;
    let seen = tokio::task::spawn_blocking(move || {
        let seen = analyze::look(&args, &mut |path: &Path| {
            // Where nobody takes it, it is not told.
            let _ = told.try_send(format!("reading {}", words::path(path)));
            !ct.is_cancelled()
        });
        (seen.text(tokens as usize), seen.json(), seen.failures)
    });
    let (text, runs, failures) = seen.await?;
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

/// The views over one run's files.
pub(super) async fn view(desk: &Arc<Desk>, name: &str, mut given: Arguments) -> anyhow::Result<Reply> {
    let most = given.granted();
    let path = given.needed("path")?;
    let run = given.text("run")?;
    let shown = Shown { tokens: u32::try_from((most / 2).max(50)).unwrap_or(u32::MAX), ..Shown::default() };
    let asked: Asked = match name {
        "history" | "stats" => {
            let metrics = given.texts("metrics")?;
            let (from, to) = (given.whole("from", 0, u64::MAX)?, given.whole("to", 0, u64::MAX)?);
            given.end()?;
            let path = desk.path(&path)?;
            if name == "history" {
                let args = HistoryArgs { path, run, metrics, from, to, shown, ..HistoryArgs::default() };
                Box::new(move || history::answer(&args))
            } else {
                let args = StatsArgs { path, run, metrics, from, to, shown };
                Box::new(move || stats::answer(&args))
            }
        }
        "settings" => {
            let only = given.text("only")?;
            given.end()?;
            let args = SettingsArgs { path: desk.path(&path)?, run, only, shown };
            Box::new(move || settings::answer(&args))
        }
        _ => {
            given.end()?;
            let args = MetricsArgs { path: desk.path(&path)?, run, shown };
            Box::new(move || metrics::answer(&args))
        }
    };
    let answer = tokio::task::spawn_blocking(asked).await??;
    let text = for_tools(&answer.text);
    // Both forms are the same lines: everything as JSON has no bound.
    let rows = text.lines().map(Value::from).collect();
    Ok(text.lines().fold(Reply::default(), Reply::line).rows(rows))
}

/// How to get what was cut, in the words of a tool: the other form needs as
/// much again.
fn for_tools(text: &str) -> String {
    let Some((before, after)) = text.rsplit_once("--tokens ") else { return text.to_owned() };
    let (number, rest) = after.split_at(after.bytes().take_while(u8::is_ascii_digit).count());
    let twice = number.parse::<u64>().map_or_else(|_| number.to_owned(), |need| (need * 2).to_string());
    format!("{before}max_tokens {twice}{}", rest.replace(", everything with --json", ""))
}

type Asked = Box<dyn FnOnce() -> anyhow::Result<Answer> + Send>;

fn known(name: &str) -> Result<curves::format::Format, Failure> {
    let names = FORMATS.map(|(name, _)| name).join(", ");
    let found = FORMATS.iter().find(|(known, _)| *known == name).map(|(_, format)| *format);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_cut_is_had_by_an_argument() {
        let told = for_tools("a\ncut: 9 lines; all with --tokens 400, everything with --json\n");
        assert_eq!(told, "a\ncut: 9 lines; all with max_tokens 800\n");
        assert_eq!(for_tools("a\n"), "a\n");
    }
}
