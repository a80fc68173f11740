//! `outlast artifacts import`: puts a checkpoint that was made elsewhere into
//! the store, as the first one of a new run that is held.

use std::path::Path;

use anyhow::Context as _;
use artifacts::complete::{self, Completeness, Judge};
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
    whole(&path, args.force)?;
    if is_tar(&path) {
        ctx.printer.warn(
            "a tar file is taken as it is, as one file: unpack it first if the program wants what is in it",
        );
    }
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

/// Refuses what no run could go on from: what a machine would not take for a
/// finished checkpoint either.
fn whole(path: &Path, force: bool) -> Result<(), Failure> {
    let named = path.display();
    let bad = |why: String| Failure::new(ExitCode::BadInput, why);
    let meta = path.metadata().map_err(|error| bad(format!("{named}: {error}")))?;
    if !meta.is_file() && !meta.is_dir() {
        return Err(bad(format!("{named} is neither a file nor a directory")));
    }
    let why = match complete::judge(path) {
        _ if force => return Ok(()),
        _ if Judge::files(path).is_empty() => "it holds no file".to_owned(),
        Completeness::Incomplete { why } => why.to_string(),
        Completeness::Complete { .. } | Completeness::Unknown { .. } => return Ok(()),
    };
    Err(bad(format!("{named} is no complete checkpoint: {why}")).help("take it all the same: --force"))
}

fn is_tar(path: &Path) -> bool {
    path.is_file() && path.extension().is_some_and(|ending| ending.eq_ignore_ascii_case("tar"))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_torn_or_empty_is_taken_only_by_force() {
        let root = tempfile::tempdir().unwrap();
        // The root's own name is a temporary one.
        let dir = root.path().join("saves");
        std::fs::create_dir_all(dir.join("empty/below")).unwrap();
        let header = r#"{"t":{"dtype":"U8","shape":[4],"data_offsets":[0,4]}}"#;
        let tensors = |data: &[u8]| [&(header.len() as u64).to_le_bytes(), header.as_bytes(), data].concat();
        std::fs::write(dir.join("good.safetensors"), tensors(b"1234")).unwrap();
        std::fs::write(dir.join("short.safetensors"), tensors(b"123")).unwrap();
        std::fs::write(dir.join("own.bin"), b"anything").unwrap();
        let told = |name: &str| whole(&dir.join(name), false).map_err(|failure| failure.to_string());
        assert_eq!((told("good.safetensors"), told("own.bin")), (Ok(()), Ok(())));
        let short = told("short.safetensors").unwrap_err();
        assert!(
            short.contains("short.safetensors is no complete checkpoint") && short.contains("3 bytes"),
            "{short}"
        );
        assert!(told("empty").unwrap_err().contains("holds no file"));
        for name in ["short.safetensors", "empty"] {
            assert!(whole(&dir.join(name), true).is_ok(), "{name}");
        }
        let pipe = dir.join("pipe");
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
        let odd = whole(&pipe, true).unwrap_err().to_string();
        assert!(odd.ends_with("is neither a file nor a directory"), "{odd}");
    }
}
