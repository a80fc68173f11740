//! `outlast checkpoints`: what a run can go on from, and why what it saved is
//! or is not complete.

mod explain;

use super::{answer, moment, step};
use crate::app::Context;
use crate::client::selector;
use crate::daemon;
use crate::exit_code::ExitCode;
use crate::printer::bytes;

/// Does it.
///
/// # Errors
/// Where there is no such run, or the controller cannot be asked.
pub async fn perform(ctx: &Context, run: &str, explained: bool, json: bool) -> anyhow::Result<ExitCode> {
    if explained && let Some(path) = explain::path(run) {
        explain::show(ctx, &explain::of_path(&path)?, json);
        return Ok(ExitCode::Ok);
    }
    let client = Box::pin(daemon::needed(ctx)).await?;
    if explained {
        explain::show(ctx, &explain::of_run(&client, run).await?, json);
        return Ok(ExitCode::Ok);
    }
    let checkpoints = answer(client.operator.clone().list_checkpoints(selector(run)).await)?.checkpoints;
    if json {
        ctx.printer.json(&checkpoints);
        return Ok(ExitCode::Ok);
    }
    if checkpoints.is_empty() {
        ctx.printer.note("no checkpoint is durable yet");
        return Ok(ExitCode::Ok);
    }
    let rows: Vec<Vec<String>> = checkpoints
        .iter()
        .map(|checkpoint| {
            vec![
                step(checkpoint.step),
                checkpoint.state.clone(),
                if checkpoint.head { "*" } else { "" }.to_owned(),
                bytes(checkpoint.bytes),
                moment(checkpoint.committed_ms),
                checkpoint.name.clone(),
                checkpoint.key.clone(),
            ]
        })
        .collect();
    ctx.printer.table(&["STEP", "STATE", "HEAD", "SIZE", "DURABLE SINCE", "NAME", "KEY"], &rows);
    Ok(ExitCode::Ok)
}
