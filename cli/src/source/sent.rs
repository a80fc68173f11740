//! Remembers which state of a source tree was sent last, so that an unchanged
//! one is recognised without reading a byte of its files. It is only a hint:
//! what it names is looked for in the store before it is believed.

use std::fs;
use std::path::{Path, PathBuf};

use artifacts::{Digest, ObjectKey, Published, Store};
use serde::{Deserialize, Serialize};

use super::Packed;
use crate::app::Context;

const MAX_BYTES: u64 = 1 << 20;

/// The tree that was sent last from one directory.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Sent {
    /// Its state, as far as it can be seen without reading.
    state: String,
    key: ObjectKey,
    digest: Digest,
    packs: Vec<ObjectKey>,
    files: u64,
    bytes: u64,
}

fn place(ctx: &Context, root: &Path) -> Option<PathBuf> {
    let name = Digest::of(root.as_os_str().as_encoded_bytes()).to_string();
    Some(ctx.home().ok()?.join("sent").join(format!("{}.json", &name[..32])))
}

/// What was sent of this very tree, if all of it is still in the store.
pub(super) async fn recall(ctx: &Context, store: &dyn Store, root: &Path, state: Digest) -> Option<Packed> {
    let path = place(ctx, root)?;
    if path.metadata().ok()?.len() > MAX_BYTES {
        return None;
    }
    let sent: Sent = serde_json::from_slice(&fs::read(&path).ok()?).ok()?;
    if sent.state != state.to_string() {
        return None;
    }
    for key in sent.packs.iter().chain([&sent.key]) {
        store.size(key).await.ok()??;
    }
    Some(Packed {
        key: sent.key.to_string(),
        digest: sent.digest.to_string(),
        files: sent.files,
        new_files: 0,
        total_bytes: sent.bytes,
        new_bytes: 0,
    })
}

/// Remembers what was sent; failing only means that it is read again.
pub(super) fn remember(ctx: &Context, root: &Path, state: Digest, published: &Published) {
    let Some(path) = place(ctx, root) else { return };
    let sent = Sent {
        state: state.to_string(),
        key: published.manifest_key.clone(),
        digest: published.manifest_digest,
        packs: published.manifest.packs(),
        files: published.manifest.files(),
        bytes: published.total_bytes,
    };
    if let Err(error) = write(&path, &serde_json::to_vec(&sent).unwrap_or_default()) {
        ctx.printer.detail(&format!("{}: {error}", path.display()));
    }
}

/// Forgets it: the controller did not take what was remembered.
pub(crate) fn forget(ctx: &Context, root: &Path) {
    if let Some(path) = root.canonicalize().ok().and_then(|root| place(ctx, &root)) {
        drop(fs::remove_file(path));
    }
}

/// Replaces a small file in one step.
pub(crate) fn write(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let above = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(above)?;
    let temporary = path.with_extension(format!("{}.tmp", std::process::id()));
    fs::write(&temporary, bytes)?;
    fs::rename(&temporary, path).inspect_err(|_| drop(fs::remove_file(&temporary)))
}
