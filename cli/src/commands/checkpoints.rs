//! `outlast checkpoints`: what a run can go on from, and why what it saved is
//! or is not complete.

mod explain;
pub mod tree;

use proto::v1;

use super::{answer, moment, short, step};
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
    if explained && let Some(path) = explain::path(run)? {
        explain::show(ctx, &explain::of_path(&path)?, json);
        return Ok(ExitCode::Ok);
    }
    let client = Box::pin(daemon::needed(ctx)).await?;
    if explained {
        let lines = match (explain::of_run(&client, run).await, explain::bare(run)) {
            // No run is called so, and something here is.
            (Err(_), Some(path)) => explain::of_path(&path)?,
            (lines, _) => lines?,
        };
        explain::show(ctx, &lines, json);
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
                // Rows of older builds do not tell it.
                if checkpoint.new_bytes == 0 { "-".to_owned() } else { bytes(checkpoint.new_bytes) },
                moment(checkpoint.committed_ms),
                checkpoint.name.clone(),
                kind(checkpoint),
                machine(checkpoint),
                verified(checkpoint),
                checkpoint.score.map_or_else(|| "-".to_owned(), |score| score.to_string()),
            ]
        })
        .collect();
    let mut head = vec![
        "STEP",
        "STATE",
        "HEAD",
        "SIZE",
        "STORED",
        "DURABLE SINCE",
        "NAME",
        "TYPE",
        "MACHINE",
        "VERIFIED",
        "SCORE",
    ];
    let scored = checkpoints.iter().any(|checkpoint| checkpoint.score.is_some());
    // Only where the run says what is best.
    head.truncate(if scored { 11 } else { 10 });
    let rows: Vec<Vec<String>> =
        rows.into_iter().map(|row| row.into_iter().take(head.len()).collect()).collect();
    ctx.printer.table(&head, &rows);
    for bad in checkpoints.iter().filter(|checkpoint| !checkpoint.trouble.is_empty()) {
        ctx.printer.note(&format!("step {} is damaged: {}", step(bad.step), bad.trouble));
    }
    Ok(ExitCode::Ok)
}

/// What a checkpoint is.
fn kind(checkpoint: &v1::CheckpointView) -> String {
    if checkpoint.r#type.is_empty() { "-".to_owned() } else { checkpoint.r#type.clone() }
}

/// Where it was made.
fn machine(checkpoint: &v1::CheckpointView) -> String {
    if checkpoint.machine.is_empty() { "imported".to_owned() } else { short(&checkpoint.machine).to_owned() }
}

/// What is known of its being whole.
fn verified(checkpoint: &v1::CheckpointView) -> String {
    if !checkpoint.trouble.is_empty() {
        return "damaged".to_owned();
    }
    match (checkpoint.verified_ms, checkpoint.verified_percent) {
        (0, _) => "-".to_owned(),
        (at, 100) => moment(at),
        (at, percent) => format!("{} ({percent} %)", moment(at)),
    }
}
