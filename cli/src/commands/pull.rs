//! `outlast pull`: fetches the newest result files of a run.

use std::path::PathBuf;

use super::project_root;
use crate::app::Context;
use crate::attach::{default_place, results};
use crate::daemon;
use crate::exit_code::{ExitCode, Failure};
use crate::link::Link;
use crate::printer::bytes;

/// Does it.
///
/// # Errors
/// Where there is no such run, it published nothing, or it cannot be written.
pub async fn perform(ctx: &Context, run: &str, dir: Option<PathBuf>, json: bool) -> anyhow::Result<ExitCode> {
    let client = Box::pin(daemon::needed(ctx)).await?;
    let run = client.run(run).await?.run.unwrap_or_default();
    let place = match dir {
        Some(dir) => std::path::absolute(dir)?,
        None => default_place(&project_root(ctx)?, &run.name)?,
    };
    let mut link = Link::new(ctx, client);
    let found = Box::pin(results(&mut link, &run.id, &run.name, &place)).await?.ok_or_else(|| {
        let help = "name result files in [artifacts] of outlast.toml; they are kept when the program ends";
        Failure::new(ExitCode::NotFound, format!("{} has published no result files", run.name)).help(help)
    })?;
    if json {
        ctx.printer.json(&found);
    } else {
        ctx.printer.line(&crate::printer::safe(&found.path.display().to_string()));
    }
    ctx.printer.note(&format!("{} files, {}", found.files, bytes(found.bytes)));
    Ok(ExitCode::Ok)
}
