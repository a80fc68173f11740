//! `outlast resume`: lets a held run go on, or goes on with the work of one
//! that has ended, as a new run.

use super::{answer, project_root};
use crate::app::Context;
use crate::args::ResumeArgs;
use crate::attach::{Attached, attach};
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
    if args.detach {
        if args.json {
            ctx.printer.json(&run);
        } else {
            ctx.printer.line(&run.name);
        }
        return Ok(ExitCode::Ok);
    }
    let how = Attached { root: project_root(ctx)?, json: args.json, chaos: None };
    Box::pin(attach(ctx, client, &run, &how)).await
}
