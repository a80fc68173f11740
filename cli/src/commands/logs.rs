//! `outlast logs`: what a run wrote, byte for byte, or as a terminal would
//! show it.

use std::time::Duration;

use proto::v1;

use crate::app::Context;
use crate::args::LogsArgs;
use crate::client::{failure, passing};
use crate::daemon;
use crate::exit_code::{ExitCode, Failure};
use crate::follow::Output;
use crate::link::Link;
use crate::screen::view::{How, Ranks};

/// Between two looks at a line that has no end yet, such as a progress bar.
const REPAINT: Duration = Duration::from_secs(1);

/// Does it.
///
/// # Errors
/// Where there is no such run, or the controller cannot be reached.
pub async fn perform(ctx: &Context, args: &LogsArgs) -> anyhow::Result<ExitCode> {
    let client = Box::pin(daemon::needed(ctx)).await?;
    // The name is made sure of once: later it could mean another run too.
    let run = client.run(&args.run).await?.run.unwrap_or_default();
    if let Some(attempt) = args.attempt.filter(|attempt| *attempt > run.attempts) {
        let text = format!("{} has no attempt {attempt}; it has {}", run.name, run.attempts);
        return Err(crate::client::failure(&tonic::Status::not_found(text)).into());
    }
    let asked = [("stdout", args.stdout), ("stderr", args.stderr), ("setup", args.setup)];
    let streams = asked.iter().filter(|(_, asked)| *asked).map(|(name, _)| (*name).to_owned()).collect();
    let mut ask = v1::LogsRequest {
        run: run.id,
        follow: args.follow,
        streams,
        tail: args.tail,
        attempt: args.attempt.unwrap_or(0),
        since_ms: args.since.unwrap_or(0),
    };
    let stdout = ctx.printer.settings().stdout;
    let how = How {
        screen: stdout.terminal && !args.raw,
        colour: stdout.colour,
        times: args.timestamps,
        pattern: args.grep.clone(),
        invert: args.invert,
        rank: args.rank,
        ranks: Ranks::default(),
    };
    let (ranks, chooses) = (how.ranks.clone(), how.chooses());
    let mut output = Output::shown(&ctx.printer, how);
    let newest = args.attempt.unwrap_or(run.attempts);
    if args.tail.is_some() {
        output.skip_before(newest);
    }
    let mut link = Link::new(ctx, client);
    let work = async {
        if let Some(lines) = args.tail.filter(|_| chooses) {
            // Which lines are the last is known once all were looked at.
            let all = v1::LogsRequest { follow: false, tail: None, attempt: newest, ..ask.clone() };
            output.hold_last(lines);
            Box::pin(print(ctx, &mut link, &mut all.clone(), &mut output)).await?;
            if !args.follow {
                output.finish();
            }
            output.release();
            ask.tail = None;
        }
        if args.follow || args.tail.is_none() || !chooses {
            Box::pin(print(ctx, &mut link, &mut ask, &mut output)).await?;
        }
        anyhow::Ok(true)
    };
    let done = tokio::select! {
        done = Box::pin(work) => done?,
        _ = tokio::signal::ctrl_c() => false,
    };
    output.release();
    output.finish();
    match args.rank.filter(|rank| done && !ranks.has(*rank)) {
        Some(rank) => Err(no_rank(&run.name, rank, &ranks).into()),
        None => Ok(ExitCode::Ok),
    }
}

/// Nothing was shown, and why.
fn no_rank(run: &str, rank: u32, ranks: &Ranks) -> Failure {
    let why = format!("no line of {run} that was asked for is marked as rank {rank}'s");
    let failure = Failure::new(ExitCode::NotFound, why);
    match ranks.words() {
        none if none.is_empty() => failure.help("no line is marked with a rank: leave out --rank"),
        words => failure.help(format!("ranks with lines: {words}")),
    }
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
    let mut repaint = tokio::time::interval(REPAINT);
    loop {
        let chunk = tokio::select! {
            chunk = logs.message() => chunk?,
            _ = repaint.tick() => {
                if let Some(text) = output.unfinished().filter(|_| output.line_is_whole()) {
                    ctx.printer.progress(&text);
                }
                continue;
            }
        };
        let Some(chunk) = chunk else { return Ok(()) };
        link.works();
        output.print(&chunk);
        if ctx.printer.is_closed() {
            return Ok(());
        }
        // From here on offsets say what was printed.
        ask.tail = None;
    }
}

async fn is_over(link: &mut Link<'_>, run: &str) -> anyhow::Result<bool> {
    let ask = async |client: crate::client::Client| {
        client.operator.clone().get_run(crate::client::selector(run)).await
    };
    Ok(crate::chaos::is_over(link.ask(ask).await?.get_ref()))
}
