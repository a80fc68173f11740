//! `outlast resume`: lets a held run go on, or goes on with the work of one
//! that has ended, as a new run.

use super::{answer, follow_or_name};
use crate::app::Context;
use crate::args::ResumeArgs;
use crate::client::selector;
use crate::daemon;
use crate::exit_code::ExitCode;

/// Does it.
///
/// # Errors
/// Where there is no such run, or it goes on already.
pub async fn perform(ctx: &Context, args: &ResumeArgs) -> anyhow::Result<ExitCode> {
    let client = Box::pin(daemon::needed(ctx)).await?;
    // Asked once: a repeated wish could begin two runs.
    let run = answer(client.operator.clone().resume(selector(&args.run)).await)?;
    ctx.printer.note(&format!("outlast: {} goes on", run.name));
    Box::pin(follow_or_name(ctx, client, &run, (args.detach, args.json))).await
}
