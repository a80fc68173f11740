//! `outlast artifacts import`: puts a checkpoint that was made elsewhere into
//! the store, as the first one of a new run that is held.

use anyhow::Context as _;
use artifacts::publish::PublishError;
use artifacts::{KeySpace, Selection, publish};
use lifecycle::RunId;
use proto::v1;

use super::super::{answer, load, now_ms};
use crate::app::Context;
use crate::args::ImportArgs;
use crate::client::Client;
use crate::daemon;
use crate::exit_code::{ExitCode, Failure};
use crate::link::Link;
use crate::printer::bytes;
use crate::source;

/// Does it.
///
/// # Errors
/// Where there is no such file, the configuration is wrong, or the controller
/// does not accept it.
pub(super) async fn perform(ctx: &Context, args: ImportArgs) -> anyhow::Result<ExitCode> {
    let path = std::path::absolute(&args.path)?;
    // Names are read at once: a trailing slash or `..` has none.
    let path = path
        .canonicalize()
        .map_err(|error| Failure::new(ExitCode::BadInput, format!("{}: {error}", args.path.display())))?;
    let flags = [("run.name", Some(args.run.as_str()))];
    let loaded = load(ctx, &args.project, &args.config, &flags)?;
    let spec = loaded.run_spec(&args.command)?;
    let secrets = crate::secrets::read(&ctx.env, &loaded.config.secrets)?;
    let (chosen, _) = source::choose(ctx, &loaded.root, &loaded.config.source)?;
    source::warn_of_skipped(ctx, &chosen);
    let client = Box::pin(daemon::ensure(ctx, true)).await?;
    let packed = source::pack(ctx, &client.store.clone(), &loaded.root, chosen).await?;
    let selection = Selection::checkpoint(&path, Some(args.step), now_ms())
        .with_context(|| format!("look at {}", path.display()))?;
    let run = RunId::from_bytes(proto::pki::random()?);
    // No machine ever has generation 0.
    let mut keys = KeySpace { scope: run.to_string(), generation: 0, pack_seq: 0, manifest_seq: 0 };
    let published = Box::pin(publish(&selection, &mut keys, &client.store, &client.store)).await;
    let published = published.map_err(|error| refusal(&error))?;
    let ask = v1::ImportRequest {
        run_id: run.to_string(),
        spec_json: serde_json::to_string(&spec).context("write the run's description")?,
        source_key: packed.key,
        source_digest: packed.digest,
        manifest_key: published.manifest_key.to_string(),
        manifest_digest: published.manifest_digest.to_string(),
        secrets,
    };
    let wish = async |client: Client| client.operator.clone().import(ask.clone()).await;
    let run = answer(Ok(Link::new(ctx, client).ask(wish).await?))?;
    if args.json {
        ctx.printer.json(&run);
    } else {
        ctx.printer.line(&run.name);
    }
    let files = published.manifest.files();
    ctx.printer.note(&format!(
        "imported {files} {}, {}\n  go on from it: outlast resume {name}\n  with other settings: outlast fork {name} --set SECTION.KEY=VALUE",
        if files == 1 { "file" } else { "files" },
        bytes(published.total_bytes),
        name = run.name
    ));
    Ok(ExitCode::Ok)
}

fn refusal(error: &PublishError) -> Failure {
    let code = match error {
        PublishError::Store(artifacts::StoreError::Full(_)) => ExitCode::CannotWrite,
        PublishError::Store(artifacts::StoreError::Remote(_)) => ExitCode::Unreachable,
        PublishError::Store(_) => ExitCode::Internal,
        PublishError::Io { source, .. } if source.kind() == std::io::ErrorKind::PermissionDenied => {
            ExitCode::Denied
        }
        _ => ExitCode::BadInput,
    };
    Failure::new(code, format!("the checkpoint cannot be imported: {error}"))
}
