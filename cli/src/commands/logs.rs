//! `outlast logs`: what a run wrote, byte for byte.

use proto::v1;

use crate::app::Context;
use crate::args::LogsArgs;
use crate::client::{failure, passing};
use crate::daemon;
use crate::exit_code::ExitCode;
use crate::follow::Output;
use crate::link::Link;

/// Does it.
///
/// # Errors
/// Where there is no such run, or the controller cannot be reached.
pub async fn perform(ctx: &Context, args: &LogsArgs) -> anyhow::Result<ExitCode> {
    let client = Box::pin(daemon::needed(ctx)).await?;
    // The name is made sure of once: later it could mean another run too.
    let run = client.run(&args.run).await?.run.unwrap_or_default();
    let asked = [("stdout", args.stdout), ("stderr", args.stderr), ("setup", args.setup)];
    let streams = asked.iter().filter(|(_, asked)| *asked).map(|(name, _)| (*name).to_owned()).collect();
    let mut ask = v1::LogsRequest {
        run: run.id,
        follow: args.follow,
        streams,
        tail: args.tail,
        attempt: args.attempt,
        since_ms: 0,
    };
    let mut output = Output::new(&ctx.printer, false);
    if args.tail.is_some() {
        output.skip_before(run.attempts);
    }
    let mut link = Link::new(ctx, client);
    tokio::select! {
        done = Box::pin(print(ctx, &mut link, &mut ask, &mut output)) => done?,
        _ = tokio::signal::ctrl_c() => {}
    }
    Ok(ExitCode::Ok)
}

async fn print(
    ctx: &Context,
    link: &mut Link<'_>,
    ask: &mut v1::LogsRequest,
    output: &mut Output,
) -> anyhow::Result<()> {
    loop {
        match stream(ctx, link, ask, output).await {
            Ok(()) if !ask.follow || ctx.printer.is_closed() || is_over(link, &ask.run).await? => break,
            // A controller that ends closes its streams in order.
            Ok(()) => link.broke(&tonic::Status::unavailable("the controller ended the stream")).await?,
            Err(failed) => match failed.downcast_ref::<tonic::Status>() {
                Some(status) if passing(status) => link.broke(status).await?,
                Some(status) => return Err(failure(status).into()),
                None => return Err(failed),
            },
        }
    }
    Ok(())
}

async fn stream(
    ctx: &Context,
    link: &mut Link<'_>,
    ask: &mut v1::LogsRequest,
    output: &mut Output,
) -> anyhow::Result<()> {
    let client = link.client().await?;
    let mut logs = client.operator.clone().logs(ask.clone()).await?.into_inner();
    while let Some(chunk) = logs.message().await? {
        link.works();
        output.print(&chunk);
        if ctx.printer.is_closed() {
            break;
        }
        // From here on offsets say what was printed.
        ask.tail = None;
    }
    Ok(())
}

async fn is_over(link: &mut Link<'_>, run: &str) -> anyhow::Result<bool> {
    let ask = async |client: crate::client::Client| {
        client.operator.clone().get_run(crate::client::selector(run)).await
    };
    Ok(crate::chaos::is_over(link.ask(ask).await?.get_ref()))
}
