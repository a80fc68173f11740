//! `outlast artifacts`: looks into what is stored. What is read comes from the
//! store through the controller and is verified by its hashes on the way.

mod diff;
mod export;
mod import;
mod tar;
mod verify;

use std::path::Path;

use artifacts::inspect::{Piece, Stored};
use artifacts::manifest::Node;
use artifacts::restore::open_manifest;
use artifacts::seal::{Keyring, PrivateKey};
use artifacts::{Manifest, ObjectKey};
use proto::v1;
use serde::Serialize;

use super::answer;
use crate::app::Context;
use crate::args::ArtifactsVerb;
use crate::client::{Client, selector};
use crate::daemon;
use crate::exit_code::{ExitCode, Failure};
use crate::printer::bytes;
use crate::pull::refusal;

/// Bytes that are in memory at one time.
const STEP: u64 = 4 << 20;
/// Bytes of a file that holds a key.
const LONGEST_KEY: u64 = 4 << 10;
/// What a terminal can be asked to show.
const ON_TERMINAL: u64 = 1 << 20;

/// Does what was asked.
///
/// # Errors
/// Whatever could not be done.
pub async fn perform(ctx: &Context, verb: ArtifactsVerb) -> anyhow::Result<ExitCode> {
    match verb {
        ArtifactsVerb::Verify(args) => verify::perform(ctx, &args).await,
        ArtifactsVerb::Ls { checkpoint, tensors, key, json } => {
            let keys = keys(key.as_deref())?;
            Box::pin(ls(ctx, &checkpoint, keys.as_ref(), tensors, json)).await
        }
        ArtifactsVerb::Cat { checkpoint, path, key } => {
            let keys = keys(key.as_deref())?;
            Box::pin(cat(ctx, &checkpoint, keys.as_ref(), path.as_deref())).await
        }
        ArtifactsVerb::Diff { from, to, key, json } => {
            let keys = keys(key.as_deref())?;
            Box::pin(diff::perform(ctx, &from, &to, keys.as_ref(), json)).await
        }
        ArtifactsVerb::Export { checkpoint, to, key, json } => {
            let keys = keys(key.as_deref())?;
            Box::pin(export::perform(ctx, &checkpoint, &to, keys.as_ref(), json)).await
        }
        ArtifactsVerb::Import(args) => Box::pin(import::perform(ctx, args)).await,
    }
}

/// A checkpoint in the store, and what it holds.
struct Found {
    view: v1::CheckpointView,
    tree: Manifest,
}

/// The private key in a file, to be used instead of the controller's help.
fn keys(file: Option<&Path>) -> anyhow::Result<Option<Keyring>> {
    let Some(path) = file else { return Ok(None) };
    let unfit = |why: String| {
        Failure::new(ExitCode::BadInput, format!("{}: {why}", path.display()))
            .help("outlast keys recovery --out FILE writes such a file")
    };
    // A key is one line; whatever else it is, is not read.
    let size = path.metadata().map_err(|error| unfit(error.to_string()))?.len();
    if size > LONGEST_KEY {
        return Err(unfit("it is too long to hold a key".into()).into());
    }
    let text = std::fs::read_to_string(path).map_err(|error| unfit(error.to_string()))?;
    let key = PrivateKey::from_text(&text).map_err(|error| unfit(error.to_string()))?;
    let mut keys = Keyring::default();
    keys.add_private(key).map_err(|error| unfit(error.to_string()))?;
    Ok(Some(keys))
}

/// Finds a checkpoint and opens it: with these keys, or as the controller does.
async fn find(client: &Client, text: &str, keys: Option<&Keyring>) -> anyhow::Result<Found> {
    let view = answer(client.operator.clone().find_checkpoint(selector(text)).await)?;
    let odd = || Failure::new(ExitCode::Internal, format!("{} has no usable key", name(&view)));
    let key: ObjectKey = view.key.parse().map_err(|_| odd())?;
    let digest = view.digest.parse().map_err(|_| odd())?;
    let tree = match keys {
        Some(keys) => open_manifest(&client.store, &key, Some(digest), keys).await,
        None => client.store.open_manifest("", &key, digest).await,
    };
    let tree = tree.map_err(|error| refusal(&error))?;
    Ok(Found { view, tree })
}

/// A checkpoint as people name it.
fn name(view: &v1::CheckpointView) -> String {
    view.step.map_or_else(|| view.run.clone(), |step| format!("{}@{step}", view.run))
}

#[derive(Serialize)]
struct Listed {
    path: String,
    kind: &'static str,
    mode: u32,
    bytes: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    target: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pieces: Vec<ListedPiece>,
}

#[derive(Serialize)]
struct ListedPiece {
    name: String,
    dtype: Option<String>,
    shape: Option<Vec<u64>>,
    bytes: u64,
}

async fn ls(
    ctx: &Context,
    checkpoint: &str,
    keys: Option<&Keyring>,
    tensors: bool,
    json: bool,
) -> anyhow::Result<ExitCode> {
    let client = Box::pin(daemon::needed(ctx)).await?;
    let found = find(&client, checkpoint, keys).await?;
    let mut listed = Vec::new();
    for entry in &found.tree.entries {
        let (kind, mode, size, target) = match &entry.node {
            Node::File { mode, size, .. } => ("file", *mode, *size, None),
            Node::Dir { mode } => ("dir", *mode, 0, None),
            Node::Symlink { target } => ("link", 0o777, 0, Some(target.clone())),
        };
        let file = Stored::open(&client.store, &found.tree, &entry.path).filter(|_| tensors);
        let pieces = match file {
            Some(file) => file.pieces().await.map_err(|error| refusal(&error))?.unwrap_or_default(),
            None => Vec::new(),
        };
        let pieces = pieces
            .into_iter()
            .map(|Piece { name, dtype, shape, bytes, .. }| ListedPiece { name, dtype, shape, bytes })
            .collect();
        listed.push(Listed { path: entry.path.clone(), kind, mode, bytes: size, target, pieces });
    }
    if json {
        ctx.printer.json(&listed);
        return Ok(ExitCode::Ok);
    }
    let mut rows = Vec::new();
    for one in &listed {
        let path = one.target.as_ref().map_or_else(|| one.path.clone(), |to| format!("{} -> {to}", one.path));
        let size = if one.kind == "file" { bytes(one.bytes) } else { "-".into() };
        rows.push(vec![mode(one), size, path]);
        for piece in &one.pieces {
            let told = format!("  {}{}", piece.name, typed(piece.dtype.as_deref(), piece.shape.as_deref()));
            rows.push(vec![String::new(), bytes(piece.bytes), told]);
        }
    }
    ctx.printer.table(&["MODE", "SIZE", "PATH"], &rows);
    let files = found.tree.files();
    ctx.printer.note(&format!(
        "{}: {files} {}, {}",
        name(&found.view),
        if files == 1 { "file" } else { "files" },
        bytes(found.tree.total_bytes())
    ));
    Ok(ExitCode::Ok)
}

fn mode(one: &Listed) -> String {
    let letter = match one.kind {
        "dir" => 'd',
        "link" => 'l',
        _ => '-',
    };
    let bits = "rwxrwxrwx".chars().enumerate();
    let flags = bits.map(|(at, flag)| if one.mode >> (8 - at) & 1 == 1 { flag } else { '-' });
    std::iter::once(letter).chain(flags).collect()
}

/// A type and a shape, as far as they are known: ` F32 [2, 3]`.
fn typed(dtype: Option<&str>, shape: Option<&[u64]>) -> String {
    let dtype = dtype.map(|text| format!("  {text}")).unwrap_or_default();
    dtype + &shape.map(|shape| format!(" {shape:?}")).unwrap_or_default()
}

async fn cat(
    ctx: &Context,
    checkpoint: &str,
    keys: Option<&Keyring>,
    path: Option<&str>,
) -> anyhow::Result<ExitCode> {
    let client = Box::pin(daemon::needed(ctx)).await?;
    let Found { view, tree } = find(&client, checkpoint, keys).await?;
    let only = tree.entries.first().filter(|_| tree.single_file).map(|entry| entry.path.as_str());
    let Some(path) = path.or(only) else {
        let why = format!("{} has {} files: name one", name(&view), tree.files());
        return Err(Failure::new(ExitCode::Usage, why)
            .help(format!("outlast artifacts ls {}", name(&view)))
            .into());
    };
    let Some(file) = Stored::open(&client.store, &tree, path) else {
        let why = format!("{} has no file `{path}`", name(&view));
        return Err(Failure::new(ExitCode::NotFound, why)
            .help(format!("outlast artifacts ls {}", name(&view)))
            .into());
    };
    let terminal = ctx.printer.settings().stdout.terminal;
    let mut at = 0;
    while at < file.size() && !ctx.printer.is_closed() {
        let block = file.read(at..at + STEP).await.map_err(|error| refusal(&error))?;
        if terminal && at == 0 {
            fit_for_terminal(path, file.size(), &block)?;
        }
        if block.is_empty() {
            break;
        }
        at += block.len() as u64;
        if terminal {
            let text = String::from_utf8_lossy(&block);
            ctx.printer.raw(crate::printer::safe_lines(&text).as_bytes());
        } else {
            ctx.printer.raw(&block);
        }
    }
    Ok(ExitCode::Ok)
}

/// A terminal obeys what it is shown, and cannot show what is no text.
fn fit_for_terminal(path: &str, size: u64, block: &[u8]) -> Result<(), Failure> {
    let help = "send it elsewhere: outlast artifacts cat ... > FILE, or | less";
    let binary =
        block.contains(&0) || std::str::from_utf8(block).is_err_and(|error| error.error_len().is_some());
    if binary {
        let why = format!("`{path}` is no text, and stdout is a terminal");
        return Err(Failure::new(ExitCode::Usage, why).help(help));
    }
    if size > ON_TERMINAL {
        let why = format!("`{path}` has {}, too much for a terminal", bytes(size));
        return Err(Failure::new(ExitCode::Usage, why).help(help));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_terminal_gets_short_texts_only() {
        assert!(fit_for_terminal("a.json", 10, "{\"ä\": 1}".as_bytes()).is_ok());
        assert!(fit_for_terminal("a.json", 3, &"ä".as_bytes()[..1]).is_ok(), "cut within a character");
        for binary in [&b"PK\x03\x04\x00"[..], b"\xff\xfe", b"a\0"] {
            assert_eq!(fit_for_terminal("a.npz", 5, binary).unwrap_err().code, ExitCode::Usage);
        }
        assert!(fit_for_terminal("big.txt", ON_TERMINAL + 1, b"x").is_err());
    }

    #[test]
    fn modes_are_written_as_ls_does() {
        let listed = |kind, mode| Listed {
            path: String::new(),
            kind,
            mode,
            bytes: 0,
            target: None,
            pieces: Vec::new(),
        };
        assert_eq!(mode(&listed("file", 0o644)), "-rw-r--r--");
        assert_eq!(mode(&listed("dir", 0o750)), "drwxr-x---");
        assert_eq!(typed(Some("F32"), Some(&[2, 3])), "  F32 [2, 3]");
    }
}
