//! `outlast artifacts export`: a checkpoint as plain files or as one tar file.
//! It appears whole or not at all, and nothing that is there is replaced.

use std::io;
use std::path::{Path, PathBuf};

use artifacts::Manifest;
use artifacts::restore::restore;
use artifacts::seal::Keyring;
use proto::v1;
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
    packed(to)?;
    let piped = to == Path::new("-");
    if piped && (json || ctx.printer.settings().stdout.terminal) {
        let why = if json { "stdout takes the tar file or JSON, not both" } else { "stdout is a terminal" };
        return Err(Failure::new(ExitCode::Usage, why).into());
    }
    let client = Box::pin(daemon::needed(ctx)).await?;
    let Found { view, tree } = find(&client, checkpoint, keys).await?;
    if piped {
        tar::write_to(&client.store, &tree, &mut Stdout(ctx), Path::new("stdout")).await?;
        done(ctx, &view, &tree);
        return Ok(ExitCode::Ok);
    }
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
    done(ctx, &view, &tree);
    Ok(ExitCode::Ok)
}

/// The printer's stdout, as something to write to.
struct Stdout<'a>(&'a Context);

impl io::Write for Stdout<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.0.printer.is_closed() {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        self.0.printer.raw(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn done(ctx: &Context, view: &v1::CheckpointView, tree: &Manifest) {
    let files = tree.files();
    ctx.printer.note(&format!(
        "{}: {files} {}, {}, each verified",
        name(view),
        if files == 1 { "file" } else { "files" },
        bytes(tree.total_bytes())
    ));
}

/// Refuses names that say what is not done: nothing is compressed here.
fn packed(to: &Path) -> Result<(), Failure> {
    let name = to.file_name().unwrap_or_default().to_string_lossy().to_lowercase();
    let endings =
        [".tar.gz", ".tgz", ".tar.zst", ".tzst", ".tar.xz", ".txz", ".tar.bz2", ".tbz2", ".tar.lz4"];
    if !endings.iter().any(|ending| name.ends_with(ending)) || to.is_dir() {
        return Ok(());
    }
    let why = format!("{} would not be compressed, as its name says", to.display());
    Err(Failure::new(ExitCode::Usage, why)
        .help("outlast artifacts export RUN - | gzip > FILE.tar.gz, or name a FILE.tar"))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_name_says_what_is_not_done() {
        for name in ["a.tar.gz", "dir/B.TGZ", "c.tar.zst"] {
            assert!(packed(Path::new(name)).is_err(), "{name}");
        }
        for name in ["a.tar", "step-1.npz", "-", "a.gz", "directory"] {
            assert!(packed(Path::new(name)).is_ok(), "{name}");
        }
    }
}
