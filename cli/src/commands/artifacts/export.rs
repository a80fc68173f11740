//! `outlast artifacts export`: a checkpoint as plain files or as one tar file.
//! It appears whole or not at all, and nothing that is there is replaced.

use std::path::{Path, PathBuf};

use artifacts::restore::restore;
use artifacts::seal::Keyring;
use serde_json::json;

use super::{Found, find, name, tar};
use crate::app::Context;
use crate::daemon;
use crate::exit_code::{ExitCode, Failure};
use crate::printer::{bytes, safe};
use crate::pull::refusal;

/// Does it.
///
/// # Errors
/// Where there is no such checkpoint, or the place is taken or cannot be
/// written.
pub(super) async fn perform(
    ctx: &Context,
    checkpoint: &str,
    to: &Path,
    keys: Option<&Keyring>,
    json: bool,
) -> anyhow::Result<ExitCode> {
    let client = Box::pin(daemon::needed(ctx)).await?;
    let Found { view, tree } = find(&client, checkpoint, keys).await?;
    let to = std::path::absolute(to)?;
    let archive = to.extension().is_some_and(|ending| ending.eq_ignore_ascii_case("tar")) && !to.is_dir();
    let place = if archive { to } else { inside(&to, &tree.name, &name(&view))? };
    if archive {
        tar::write(&client.store, &tree, &place).await?;
    } else {
        restore(&client.store, &tree, &place).await.map_err(|error| refusal(&error))?;
    }
    if json {
        ctx.printer.json(&json!({
            "checkpoint": name(&view), "path": place, "files": tree.files(), "bytes": tree.total_bytes(),
        }));
    } else {
        ctx.printer.line(&safe(&place.display().to_string()));
    }
    let files = tree.files();
    ctx.printer.note(&format!(
        "{}: {files} {}, {}, each verified",
        name(&view),
        if files == 1 { "file" } else { "files" },
        bytes(tree.total_bytes())
    ));
    Ok(ExitCode::Ok)
}

/// A directory that is there takes the checkpoint into it, as `cp` does.
fn inside(to: &Path, own: &str, called: &str) -> Result<PathBuf, Failure> {
    if !to.is_dir() {
        return Ok(to.to_owned());
    }
    if own.is_empty() {
        let why = format!("{called} has no name of its own, and {} is there already", to.display());
        return Err(Failure::new(ExitCode::BadInput, why).help("name a directory that is not there yet"));
    }
    Ok(to.join(own))
}
