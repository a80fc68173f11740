//! `outlast artifacts verify`: has the controller read checkpoints, shows how
//! far it is, and says what is wrong with which.

use std::time::Duration;

use proto::v1;

use super::super::{answer, step};
use crate::app::Context;
use crate::args::VerifyArgs;
use crate::client::Client;
use crate::daemon;
use crate::exit_code::{ExitCode, Failure};
use crate::link::Link;
use crate::printer::bytes;

const LOOK: Duration = Duration::from_millis(200);

/// Does it.
///
/// # Errors
/// Where nothing is meant, it could not be verified, or something is damaged.
pub(super) async fn perform(ctx: &Context, args: &VerifyArgs) -> anyhow::Result<ExitCode> {
    let client = Box::pin(daemon::needed(ctx)).await?;
    let ask = v1::VerifyRequest {
        of: args.checkpoint.clone().unwrap_or_default(),
        all: args.all,
        sample: args.sample.unwrap_or(0),
        job: 0,
    };
    let begun = answer(client.operator.clone().verify(ask).await)?;
    if args.detach {
        if args.json {
            ctx.printer.json(&begun);
        }
        ctx.printer
            .note(&format!("{} to verify; verdicts: outlast checkpoints RUN", counted(begun.checkpoints)));
        return Ok(ExitCode::Ok);
    }
    let done = wait(ctx, client, begun).await?;
    if args.json {
        ctx.printer.json(&done);
    }
    tell(ctx, args, &done)
}

/// Ctrl-C leaves it; the controller goes on.
async fn wait(ctx: &Context, client: Client, begun: v1::VerifyReply) -> anyhow::Result<v1::VerifyReply> {
    let mut link = Link::new(ctx, client);
    let mut now = begun;
    let job = now.job;
    while !matches!(now.state.as_str(), "done" | "failed") {
        let what = match now.state.as_str() {
            "waiting" => "waits for another verification".to_owned(),
            _ => format!(
                "{} of {}, {} of about {}",
                now.checkpoints_done,
                counted(now.checkpoints),
                bytes(now.bytes_done),
                bytes(now.bytes)
            ),
        };
        ctx.printer.progress(&format!("verifying: {what}"));
        tokio::time::sleep(LOOK).await;
        let ask = async |client: Client| {
            client.operator.clone().verify(v1::VerifyRequest { job, ..v1::VerifyRequest::default() }).await
        };
        now = link.ask(ask).await?.into_inner();
    }
    ctx.printer.clear_progress();
    Ok(now)
}

fn counted(checkpoints: u64) -> String {
    format!("{checkpoints} {}", if checkpoints == 1 { "checkpoint" } else { "checkpoints" })
}

fn tell(ctx: &Context, args: &VerifyArgs, done: &v1::VerifyReply) -> anyhow::Result<ExitCode> {
    let is_bad = |row: &&v1::VerifyRow| !row.trouble.is_empty() && !row.unknown;
    let bad = done.rows.iter().filter(is_bad).count() as u64;
    let unknown = done.rows.iter().filter(|row| row.unknown).count() as u64;
    if !args.json {
        let line = |row: &v1::VerifyRow| {
            let verdict = match (row.trouble.as_str(), row.unknown) {
                ("", _) => "good".to_owned(),
                (why, true) => format!("not known: {why}"),
                (why, false) => format!("damaged: {why}"),
            };
            vec![row.run.clone(), step(row.step), bytes(row.bytes), verdict]
        };
        let rows: Vec<Vec<String>> = done.rows.iter().map(line).collect();
        ctx.printer.table(&["RUN", "STEP", "SIZE", "VERDICT"], &rows);
    }
    if done.state == "failed" {
        let why = format!("the verification broke off: {}", done.problem);
        return Err(Failure::new(ExitCode::Internal, why).into());
    }
    let part = args.sample.map(|percent| format!(", {percent} % of each")).unwrap_or_default();
    let good = done.rows.len() as u64 - bad - unknown;
    ctx.printer.note(&format!(
        "{} good, {bad} damaged, {unknown} not known; read {}{part}",
        good,
        bytes(done.bytes_done)
    ));
    if bad > 0 {
        let why = format!(
            "{} damaged and used no more",
            if bad == 1 { "a checkpoint is".into() } else { format!("{bad} checkpoints are") }
        );
        let help = "runs go on from the next newest good one; `outlast checkpoints RUN` lists what there is";
        return Err(Failure::new(ExitCode::BadInput, why).help(help).into());
    }
    if unknown > 0 {
        let why = format!("{} could not be verified", counted(unknown));
        return Err(Failure::new(ExitCode::Unreachable, why)
            .help("see `outlast doctor`, and try again")
            .into());
    }
    Ok(ExitCode::Ok)
}
