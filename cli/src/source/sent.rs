//! Remembers which state of a source tree was sent last, so that an unchanged
//! one is recognised without reading a byte of its files, and of a changed one
//! only what changed travels. It is only a hint:
//! what it names is looked for in the store before it is believed.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use artifacts::index::MemoryIndex;
use artifacts::restore::load_manifest;
use artifacts::{ChunkIndex, Digest, Location, Manifest, ObjectKey, Published, Store, StoreError};
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

fn read(path: &Path) -> Option<Sent> {
    if path.metadata().ok()?.len() > MAX_BYTES {
        return None;
    }
    serde_json::from_slice(&fs::read(path).ok()?).ok()
}

/// What was sent of this very tree, if all of it is still in the store.
pub(super) async fn recall(ctx: &Context, store: &dyn Store, root: &Path, state: Digest) -> Option<Packed> {
    let sent = read(&place(ctx, root)?)?;
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

/// An index that also knows the tree that was sent last from a directory: where
/// no run used it, no other does.
pub(super) struct WithLast<'a> {
    index: &'a dyn ChunkIndex,
    last: MemoryIndex,
}

impl<'a> WithLast<'a> {
    /// Reads what that tree was, if all of it is still in the store.
    pub(super) async fn of(
        ctx: &Context,
        store: &dyn Store,
        index: &'a dyn ChunkIndex,
        root: &Path,
    ) -> WithLast<'a> {
        let last = MemoryIndex::default();
        if let Some(tree) = tree(ctx, store, root).await {
            last.add(&tree);
        }
        Self { index, last }
    }
}

/// The tree that was sent last, if all of it is there.
async fn tree(ctx: &Context, store: &dyn Store, root: &Path) -> Option<Manifest> {
    let sent = read(&place(ctx, root)?)?;
    let tree = load_manifest(store, &sent.key, Some(sent.digest)).await.ok()?;
    let mut ends: BTreeMap<&ObjectKey, u64> = BTreeMap::new();
    for chunk in tree.needed() {
        let end = ends.entry(&chunk.pack).or_default();
        *end = chunk.end().max(*end);
    }
    for (pack, end) in ends {
        store.size(pack).await.ok()?.filter(|size| *size >= end)?;
    }
    Some(tree)
}

#[tonic::async_trait]
impl ChunkIndex for WithLast<'_> {
    async fn locate(&self, digests: &[Digest]) -> Result<Vec<Option<Location>>, StoreError> {
        let mut found = self.index.locate(digests).await?;
        let last = self.last.locate(digests).await?;
        for (place, last) in found.iter_mut().zip(last).filter(|(place, _)| place.is_none()) {
            *place = last.filter(|last| last.codec.version() <= self.index.format());
        }
        Ok(found)
    }

    fn format(&self) -> u32 {
        self.index.format()
    }
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
