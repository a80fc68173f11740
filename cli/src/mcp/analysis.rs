//! Tools that read training curves in files below the roots. The reading is
//! done beside the session, tells which file it is at, and ends between two
//! files when nobody waits for it any more.

use std::path::Path;
use std::sync::Arc;

use serde_json::{Value, json};

use super::arguments::Arguments;
use super::desk::Desk;
use super::reply::{Reply, for_text, spelt};
use super::server::Progress;
use super::{compact, cures};
use crate::args::{AnalyzeArgs, FORMATS, ReadAs};
use crate::commands::analyze::{self, words};
use crate::exit_code::{ExitCode, Failure};

/// Findings of a run in the structured form of `anomalies`.
const FINDINGS: usize = 12;

/// `analyze`
pub(super) async fn analyze(
    desk: &Arc<Desk>,
    mut given: Arguments,
    progress: Progress,
) -> anyhow::Result<Reply> {
    let granted = given.granted();
    let tokens = for_text(granted);
    let (paths, metrics) = (given.texts("paths")?, given.texts("metrics")?);
    let format = given.text("format")?.map(|name| known(&name)).transpose()?;
    given.end()?;
    let asked = metrics.clone();
    let text = move |seen: &analyze::Seen| seen.text(&asked, tokens);
    let (text, runs) = look(desk, paths, format, progress, text).await?;
    let text = cures::text(&text, 2);
    let room = granted.saturating_sub(analyze::tokens::bound(&text));
    let rows = runs.iter().enumerate();
    // The worst run has what there is; of others less is told.
    let rows = rows.map(|(index, run)| compact::judged(run, if index == 0 { room } else { room / 2 }));
    Ok(Reply::view(&text, rows.collect()))
}

/// `anomalies`
pub(super) async fn anomalies(
    desk: &Arc<Desk>,
    mut given: Arguments,
    progress: Progress,
) -> anyhow::Result<Reply> {
    let tokens = for_text(given.granted());
    let paths = given.texts("paths")?;
    given.end()?;
    let (text, runs) = look(desk, paths, None, progress, move |seen| Ok(seen.problems(tokens))).await?;
    let rows = runs.iter().map(|run| {
        let findings = compact::findings(run, FINDINGS);
        let ended = run["ending"]["outcome"].as_str().filter(|outcome| *outcome == "failed");
        let sick = ended.is_some() || findings.as_array().is_some_and(|found| !found.is_empty());
        let mut row =
            json!({ "path": run["path"].as_str().map(|path| spelt(path, 80)), "findings": findings });
        if ended.is_some() {
            row["ended"] = json!(ended);
        }
        sick.then_some(row)
    });
    Ok(Reply::view(&cures::text(&text, 2), rows.flatten().collect()))
}

/// Reads runs beside the session: what is said of them, and all of it.
async fn look(
    desk: &Arc<Desk>,
    paths: Vec<String>,
    format: Option<ReadAs>,
    progress: Progress,
    say: impl FnOnce(&analyze::Seen) -> Result<String, Failure> + Send + 'static,
) -> anyhow::Result<(String, Vec<Value>)> {
    if paths.is_empty() {
        let help =
            "name logs, or directories of them: W&B, TensorBoard, MLflow, JSON lines, CSV, console output";
        return Err(Failure::new(ExitCode::Usage, "`paths` is missing").help(help).into());
    }
    let paths = paths.iter().map(|path| desk.path_or_run(path)).collect::<Result<Vec<_>, _>>()?;
    let args = AnalyzeArgs {
        paths,
        tokens: 0,
        format,
        metrics: Vec::new(),
        explain: false,
        schema: None,
        write_schema: false,
        json: false,
    };
    let Progress { told, ct, seat, .. } = progress;
    let (desk, runtime) = (desk.clone(), tokio::runtime::Handle::current());
    let seen = tokio::task::spawn_blocking(move || {
        let _seat = seat;
        let mut go_on = |path: &Path| {
            // Where nobody takes it, it is not told.
            let _ = told.try_send(format!("reading {}", words::path(path)));
            !ct.is_cancelled()
        };
        let seen = runtime.block_on(analyze::look(&desk.ctx, &args, &mut go_on))?;
        anyhow::Ok((say(&seen)?, seen.json(), seen.failures))
    });
    let (text, runs, failures) = seen.await??;
    let runs = runs.as_array().cloned().unwrap_or_default();
    match failures.into_iter().next().filter(|_| runs.is_empty()) {
        Some(failure) => Err(failure.into()),
        None => Ok((text, runs)),
    }
}

fn known(name: &str) -> Result<ReadAs, Failure> {
    let names = FORMATS.map(|(name, _)| name).join(", ");
    let found = FORMATS.iter().find(|(known, _)| *known == name).map(|(_, format)| ReadAs::Format(*format));
    found.ok_or_else(|| Failure::new(ExitCode::Usage, format!("the formats are {names}")))
}

#[cfg(test)]
mod tests {
    use std::sync::PoisonError;

    use tokio::runtime::Runtime;
    use tokio::sync::{Semaphore, mpsc};
    use tokio_util::sync::CancellationToken;

    use super::super::following;
    use super::*;

    /// Whoever cancels and asks again must not pile up threads.
    #[test]
    fn a_call_that_was_cancelled_keeps_its_seat_until_its_thread_ends() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("a.csv"), "step,loss\n0,1.0\n1,0.5\n").unwrap();
        let desk = Arc::new(Desk::over(dir.path()));
        let seats = Arc::new(Semaphore::new(1));
        let followers = desk.ctx.followers.clone();
        let runtime = Runtime::new().unwrap();
        let given = |value: Value| Arguments::new(value.as_object().cloned());
        for watches in [false, true] {
            // Reading goes on only behind this.
            let held = followers.lock().unwrap_or_else(PoisonError::into_inner);
            runtime.block_on(async {
                let seat = if watches { None } else { Some(seats.clone().acquire_owned().await.unwrap()) };
                let (told, _) = mpsc::channel(1);
                let progress = Progress { told, ct: CancellationToken::new(), seat, seats: seats.clone() };
                let call = async {
                    match watches {
                        true => following::watch(&desk, given(json!({ "path": "a.csv" })), &progress).await,
                        false => anomalies(&desk, given(json!({ "paths": ["a.csv"] })), progress).await,
                    }
                };
                let taken = async {
                    while seats.available_permits() > 0 {
                        tokio::task::yield_now().await;
                    }
                };
                tokio::select! {
                    biased;
                    done = call => panic!("{:?}", done.map(drop)),
                    () = taken => {}
                }
            });
            assert_eq!(seats.available_permits(), 0, "{watches}");
            drop(held);
            drop(runtime.block_on(seats.acquire()).unwrap());
        }
    }
}
