//! `outlast sync`: sends the source tree before a run needs it, or shows what
//! would be sent and what is left out, and why. It never changes a run: what a
//! run began with is what it goes on with.

use serde::Serialize;

use super::load;
use crate::app::Context;
use crate::args::SyncArgs;
use crate::daemon;
use crate::exit_code::ExitCode;
use crate::printer::bytes;
use crate::source;

/// One file that would be there.
#[derive(Debug, Serialize)]
struct FileLine {
    path: String,
    bytes: u64,
    /// Bytes of it that would be sent.
    new_bytes: u64,
}

/// What is left out.
#[derive(Debug, Serialize)]
struct LeftLine {
    path: String,
    why: String,
}

/// What would be done.
#[derive(Debug, Serialize)]
struct Rehearsal {
    files: Vec<FileLine>,
    left_out: Vec<LeftLine>,
    total_bytes: u64,
    new_bytes: u64,
}

/// What was done.
#[derive(Debug, Serialize)]
struct Done {
    source_key: String,
    source_digest: String,
    files: u64,
    total_bytes: u64,
    new_bytes: u64,
}

/// Does it.
///
/// # Errors
/// Where the configuration is wrong, the tree cannot be read, or the
/// controller cannot be asked.
pub async fn perform(ctx: &Context, args: SyncArgs) -> anyhow::Result<ExitCode> {
    let loaded = load(ctx, &args.path, &args.config, &[])?;
    let mut settings = loaded.config.source.clone();
    settings.include.extend(args.include);
    settings.exclude.extend(args.exclude);
    let (chosen, _) = source::choose(ctx, &loaded.root, &settings)?;
    let client = Box::pin(daemon::ensure(ctx, true)).await?;
    if !args.dry_run {
        source::warn_of_skipped(ctx, &chosen);
        let packed = source::pack(ctx, &client.store, &loaded.root, chosen).await?;
        if args.json {
            ctx.printer.json(&Done {
                source_key: packed.key,
                source_digest: packed.digest,
                files: packed.files,
                total_bytes: packed.total_bytes,
                new_bytes: packed.new_bytes,
            });
        }
        return Ok(ExitCode::Ok);
    }
    let skipped = chosen.skipped.iter().map(|(path, why)| (path.clone(), why.clone()));
    let slash = |directory: bool| if directory { "/" } else { "" };
    let left =
        chosen.left.iter().map(|left| (format!("{}{}", left.path, slash(left.directory)), left.why.clone()));
    let left_out = skipped.chain(left).map(|(path, why)| LeftLine { path, why }).collect();
    let (published, new, new_bytes) = source::rehearse(ctx, &client.store, &loaded.root, chosen).await?;
    let files = published.manifest.entries.iter().map(|entry| FileLine {
        path: entry.path.clone(),
        bytes: entry.bytes(),
        new_bytes: new.get(&entry.path).copied().unwrap_or(0),
    });
    let rehearsal =
        Rehearsal { files: files.collect(), left_out, total_bytes: published.total_bytes, new_bytes };
    show(ctx, &rehearsal, args.json);
    Ok(ExitCode::Ok)
}

fn show(ctx: &Context, rehearsal: &Rehearsal, json: bool) {
    if json {
        ctx.printer.json(rehearsal);
        return;
    }
    let sent = |line: &FileLine| if line.new_bytes == 0 { "-".to_owned() } else { bytes(line.new_bytes) };
    let files = rehearsal.files.iter().map(|line| vec![sent(line), bytes(line.bytes), line.path.clone()]);
    ctx.printer.table(&["SENT", "SIZE", "FILE"], &files.collect::<Vec<_>>());
    if !rehearsal.left_out.is_empty() {
        ctx.printer.line("");
        let left = rehearsal.left_out.iter().map(|line| vec![line.path.clone(), line.why.clone()]);
        ctx.printer.table(&["LEFT OUT", "BECAUSE"], &left.collect::<Vec<_>>());
    }
    ctx.printer.note(&format!(
        "{} files, {}; {} would be sent",
        rehearsal.files.len(),
        bytes(rehearsal.total_bytes),
        bytes(rehearsal.new_bytes)
    ));
}
