//! `outlast stop`: asks a run to save and end.

use proto::v1;

use super::answer;
use crate::app::Context;
use crate::args::StopArgs;
use crate::daemon;
use crate::exit_code::ExitCode;

/// Does it.
///
/// # Errors
/// Where there is no such run, or it has ended.
pub async fn perform(ctx: &Context, args: &StopArgs) -> anyhow::Result<ExitCode> {
    let client = Box::pin(daemon::needed(ctx)).await?;
    // To the wire 0 is the run's own grace; who says 0 means the shortest.
    let grace_seconds = args.grace.map_or(0, |grace| grace.as_secs().max(1));
    let ask = v1::StopRequest { run: args.run.clone(), grace_seconds };
    let run = answer(client.operator.clone().stop(ask).await)?;
    if args.json {
        ctx.printer.json(&run);
    }
    ctx.printer.note(&format!("{} was asked to end; watch it: outlast logs {0} -f", run.name));
    Ok(ExitCode::Ok)
}
