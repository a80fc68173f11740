//! `outlast destroy`: ends a run with all its machines, or one machine, at
//! once. Nothing is saved, so a person is asked first.

use super::{answer, can_ask, confirm, short};
use crate::app::Context;
use crate::args::DestroyArgs;
use crate::client::{Client, selector};
use crate::daemon;
use crate::exit_code::{ExitCode, Failure};

/// Does it.
///
/// # Errors
/// Where nobody agreed, or there is no such run or machine.
pub async fn perform(ctx: &Context, args: &DestroyArgs) -> anyhow::Result<ExitCode> {
    if !args.yes && !can_ask(ctx) {
        let why =
            format!("`{}` is destroyed only if you say so, and there is no terminal to ask on", args.target);
        return Err(Failure::new(ExitCode::Usage, why).help("say yes beforehand with --yes").into());
    }
    let client = Box::pin(daemon::needed(ctx)).await?;
    match client.run(&args.target).await {
        Ok(detail) => run(ctx, &client, args, &detail.run.unwrap_or_default()).await,
        Err(failure) if failure.code == ExitCode::NotFound && !failure.message.contains("ambiguous") => {
            machine(ctx, &client, args).await
        }
        Err(failure) => Err(failure.into()),
    }
}

async fn run(
    ctx: &Context,
    client: &Client,
    args: &DestroyArgs,
    run: &proto::v1::RunView,
) -> anyhow::Result<ExitCode> {
    if !args.yes && !confirm(ctx, &format!("destroy the run {} and its machines?", run.name))? {
        ctx.printer.note("nothing was destroyed");
        return Ok(ExitCode::Cancelled);
    }
    let run = answer(client.operator.clone().destroy_run(selector(&run.id)).await)?;
    if args.json {
        ctx.printer.json(&run);
    }
    ctx.printer.note(&format!(
        "{} is {}; its machines are being removed",
        run.name,
        run.state.to_lowercase()
    ));
    Ok(ExitCode::Ok)
}

async fn machine(ctx: &Context, client: &Client, args: &DestroyArgs) -> anyhow::Result<ExitCode> {
    if !args.yes && !confirm(ctx, &format!("destroy the machine {}?", args.target))? {
        ctx.printer.note("nothing was destroyed");
        return Ok(ExitCode::Cancelled);
    }
    let machine = answer(client.operator.clone().destroy_machine(selector(&args.target)).await)
        .map_err(|failure| neither(failure, &args.target))?;
    if args.json {
        ctx.printer.json(&machine);
    }
    ctx.printer.note(&format!("machine {} is being removed", short(&machine.id)));
    Ok(ExitCode::Ok)
}

fn neither(failure: Failure, target: &str) -> Failure {
    if failure.code != ExitCode::NotFound || failure.message.contains("ambiguous") {
        return failure;
    }
    Failure::new(ExitCode::NotFound, format!("there is no run and no machine `{target}`"))
        .help("see `outlast status --all` and `outlast machines`")
}
