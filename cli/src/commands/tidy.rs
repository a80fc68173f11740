//! `outlast tidy`, `pin` and `unpin`: which checkpoints stay in the store, and
//! why; and letting go of the others.

use proto::v1;

use super::{answer, can_ask, confirm, moment, step};
use crate::app::Context;
use crate::args::TidyArgs;
use crate::daemon;
use crate::exit_code::{ExitCode, Failure};
use crate::printer::{bytes, safe};

/// Does it.
///
/// # Errors
/// Where nobody agreed, there is no such run, or the controller cannot be
/// asked.
pub async fn perform(ctx: &Context, args: &TidyArgs) -> anyhow::Result<ExitCode> {
    if !args.yes && !args.dry_run && !can_ask(ctx) {
        let why = "checkpoints are let go only if you say so, and there is no terminal to ask on";
        let help = "look at what would go with --dry-run, and say yes with --yes";
        return Err(Failure::new(ExitCode::Usage, why).help(help).into());
    }
    let client = Box::pin(daemon::needed(ctx)).await?;
    let mut ask = v1::TidyRequest {
        run: args.run.clone().unwrap_or_default(),
        apply: false,
        grace_seconds: args.grace.map(|grace| grace.as_secs()),
    };
    let looked = answer(client.operator.clone().tidy(ask.clone()).await)?;
    if args.dry_run {
        show(ctx, args, &looked);
        return Ok(ExitCode::Ok);
    }
    let going = looked.rows.iter().filter(|row| row.reasons.is_empty()).count();
    let left: u64 = looked.scrub.iter().map(|row| row.bytes).sum();
    let directories = match looked.scrub.len() {
        0 => String::new(),
        many => format!(", delete {many} unused directories ({})", bytes(left)),
    };
    let question = format!(
        "let go of {going} old {}{directories} and delete what nothing needs any more?",
        if going == 1 { "checkpoint" } else { "checkpoints" }
    );
    if !args.yes && !confirm(ctx, &question)? {
        ctx.printer.note("nothing was let go");
        return Ok(ExitCode::Cancelled);
    }
    ask.apply = true;
    let done = answer(client.operator.clone().tidy(ask).await)?;
    if args.json {
        ctx.printer.json(&done);
    }
    ctx.printer.note(&format!(
        "let go of {}; deleted {} objects; {} wait for the end of their grace period",
        done.unlinked, done.deleted, done.waiting
    ));
    if !done.scrub.is_empty() {
        ctx.printer.note(&format!("freed {} in the data directory", bytes(done.scrubbed_bytes)));
    }
    Ok(ExitCode::Ok)
}

fn show(ctx: &Context, args: &TidyArgs, looked: &v1::TidyReply) {
    if args.json {
        ctx.printer.json(&looked);
        return;
    }
    let line = |row: &v1::TidyRow| {
        let checkpoint = row.checkpoint.clone().unwrap_or_default();
        let why = if row.reasons.is_empty() { "goes".to_owned() } else { row.reasons.join("; ") };
        let durable = moment(checkpoint.committed_ms);
        vec![safe(&row.run).into_owned(), step(checkpoint.step), bytes(checkpoint.bytes), durable, why]
    };
    let rows: Vec<Vec<String>> = looked.rows.iter().map(line).collect();
    if rows.is_empty() {
        ctx.printer.note("no checkpoint is durable yet");
    } else {
        ctx.printer.table(&["RUN", "STEP", "SIZE", "DURABLE SINCE", "STAYS BECAUSE"], &rows);
    }
    if !looked.scrub.is_empty() {
        let line = |row: &v1::ScrubRow| {
            vec![
                safe(&row.path).into_owned(),
                bytes(row.bytes),
                moment(row.used_ms),
                format!("goes: {}", row.why),
            ]
        };
        let rows: Vec<Vec<String>> = looked.scrub.iter().map(line).collect();
        ctx.printer.line("");
        ctx.printer.table(&["DIRECTORY", "SIZE", "LAST USED", "WHY"], &rows);
    }
}

/// Pins a checkpoint, or takes that back.
///
/// # Errors
/// Where there is no such checkpoint, or the controller cannot be asked.
pub async fn pin(
    ctx: &Context,
    (run, step): (String, u64),
    unpin: bool,
    json: bool,
) -> anyhow::Result<ExitCode> {
    let client = Box::pin(daemon::needed(ctx)).await?;
    let ask = v1::PinRequest { run: run.clone(), step, unpin };
    let checkpoint = answer(client.operator.clone().pin(ask).await)?;
    if json {
        ctx.printer.json(&checkpoint);
    }
    let what = if unpin { "stays only as long as the rule says" } else { "stays until it is unpinned" };
    ctx.printer.note(&format!("step {step} of {} {what}", safe(&run)));
    Ok(ExitCode::Ok)
}
