//! `outlast pull`: fetches the newest result files of a run, once or for as
//! long as it runs.

use std::time::Duration;

use artifacts::source::Filter;
use proto::v1;

use super::project_root;
use crate::app::Context;
use crate::args::PullArgs;
use crate::attach::default_place;
use crate::client::{Client, selector};
use crate::daemon;
use crate::exit_code::{ExitCode, Failure};
use crate::link::Link;
use crate::printer::{bytes, safe};
use crate::pull::{Outcome, results};

/// Between two looks for newer results.
const LOOK: Duration = Duration::from_secs(1);

/// Does it.
///
/// # Errors
/// Where there is no such run, or its results cannot be fetched or written.
pub async fn perform(ctx: &Context, args: PullArgs) -> anyhow::Result<ExitCode> {
    let filter = Filter::new(&args.include, &args.exclude)
        .map_err(|error| Failure::new(ExitCode::Usage, error.to_string()))?;
    let client = Box::pin(daemon::needed(ctx)).await?;
    let run = client.run(&args.run).await?.run.unwrap_or_default();
    let place = match args.dir {
        Some(dir) => std::path::absolute(dir)?,
        None => default_place(&project_root(ctx)?, &run.name)?,
    };
    let mut link = Link::new(ctx, client);
    let mut seen = String::new();
    let mut last: Option<Outcome> = None;
    loop {
        // Asked before the results: those of a run that has ended are final.
        let ended = !args.watch || ended(&mut link, &run.id).await?;
        if let Some(found) = Box::pin(results(ctx, &mut link, &run, &place, &filter, &mut seen)).await? {
            tell(ctx, &found);
            last = Some(found);
        }
        if ended {
            break;
        }
        tokio::select! {
            () = tokio::time::sleep(LOOK) => {}
            _ = tokio::signal::ctrl_c() => break,
        }
    }
    let found = last.unwrap_or_else(|| {
        ctx.printer.warn(&format!("{} has published no result files", safe(&run.name)));
        ctx.printer
            .help("name result files in [artifacts] of outlast.toml; they are kept when the program ends");
        Outcome { path: place, ..Outcome::default() }
    });
    if args.json {
        ctx.printer.json(&found);
    } else if found.files > 0 {
        ctx.printer.line(&safe(&found.path.display().to_string()));
    }
    Ok(if found.conflicts.is_empty() { ExitCode::Ok } else { ExitCode::Conflict })
}

async fn ended(link: &mut Link<'_>, run: &str) -> anyhow::Result<bool> {
    let ask = async |client: Client| client.operator.clone().get_run(selector(run)).await;
    let detail: v1::RunDetail = link.ask(ask).await?.into_inner();
    Ok(detail.run.is_none_or(|run| run.ended_ms != 0))
}

fn tell(ctx: &Context, found: &Outcome) {
    for conflict in &found.conflicts {
        ctx.printer.warn(&conflict.to_string());
    }
    let all = format!("{} files, {}", found.files, bytes(found.bytes));
    ctx.printer.note(&match found.fetched {
        0 => format!("{all}; nothing new"),
        fetched if fetched == found.files => all,
        fetched => format!("{all}; {fetched} files, {} were new", bytes(found.fetched_bytes)),
    });
}
