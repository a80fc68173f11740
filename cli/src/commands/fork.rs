//! `outlast fork`: a new run that begins from a checkpoint of another one, with
//! other settings, another command or another source tree.

use std::path::Path;

use anyhow::Context as _;
use data_encoding::HEXLOWER;
use proto::v1;

use super::{answer, follow_or_name, load};
use crate::app::Context;
use crate::args::{ConfigArgs, ForkArgs};
use crate::client::{Client, selector};
use crate::config::changes;
use crate::daemon;
use crate::exit_code::ExitCode;
use crate::link::Link;
use crate::source::{self, Packed};

/// Does it.
///
/// # Errors
/// Where there is no such checkpoint, a setting is wrong, or the run is not
/// accepted or followed.
pub async fn perform(ctx: &Context, args: ForkArgs) -> anyhow::Result<ExitCode> {
    let client = Box::pin(daemon::needed(ctx)).await?;
    let from = answer(client.operator.clone().find_checkpoint(selector(&args.checkpoint)).await)?;
    let detail = client.run(&from.run).await?;
    let spec: lifecycle::RunSpec =
        serde_json::from_str(&detail.spec_json).context("read the run's description")?;
    let name = args.name.iter().map(|name| ("run.name".to_owned(), name.clone()));
    let flags: Vec<(String, String)> = args.set.iter().cloned().chain(name).collect();
    let wanted = changes(&spec, &flags, &args.command)?;
    let packed = match &args.source {
        Some(dir) => Some(pack(ctx, &client, dir).await?),
        None => None,
    };
    let (source_key, source_digest) = packed.map(|p| (p.key, p.digest)).unwrap_or_default();
    let exact = from.step.map_or_else(|| args.checkpoint.clone(), |step| format!("{}@{step}", from.run));
    let ask = v1::ForkRequest {
        checkpoint: exact.clone(),
        changes_json: serde_json::to_string(&wanted).context("write the changes")?,
        source_key,
        source_digest,
        token: HEXLOWER.encode(&proto::pki::random::<16>()?),
    };
    let wish = async |client: Client| client.operator.clone().fork(ask.clone()).await;
    let run = Link::new(ctx, client.clone()).ask(wish).await?.into_inner();
    ctx.printer.note(&format!("outlast: {} begins from {exact}", run.name));
    for change in &run.changes {
        ctx.printer.note(&format!("  {change}"));
    }
    Box::pin(follow_or_name(ctx, client, &run, (args.detach, args.json))).await
}

/// The source tree of a directory, chosen by the configuration there.
async fn pack(ctx: &Context, client: &Client, dir: &Path) -> anyhow::Result<Packed> {
    let loaded = load(ctx, dir, &ConfigArgs { config: None, set: Vec::new() }, &[])?;
    let (chosen, _) = source::choose(ctx, &loaded.root, &loaded.config.source)?;
    source::warn_of_skipped(ctx, &chosen);
    source::pack(ctx, &client.store.clone(), &loaded.root, chosen).await
}
