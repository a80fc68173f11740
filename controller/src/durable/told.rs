//! What is kept of a stored manifest in rows and in the index. With a key it is
//! what the tree says; without one, what a sealed manifest says in the clear,
//! which is enough to keep, find and let go of it. A sealed part that contradicts
//! the clear one is refused wherever a key is at hand.

use artifacts::codec::Codec;
use artifacts::manifest::{ChunkRef, Description, Node};
use artifacts::restore::{RestoreError, opening_failed};
use artifacts::seal::{SealError, Sealed};
use artifacts::{Kind, Manifest, ObjectKey};
use lifecycle::{AttemptId, CheckpointState, Generation, RunId};

use crate::core::Core;
use crate::model::{Checkpoint, ManifestRef};
use crate::store::ChunkPut;

pub(crate) fn chunks(tree: &Manifest) -> impl Iterator<Item = &ChunkRef> {
    tree.entries.iter().flat_map(|entry| match &entry.node {
        Node::File { chunks, .. } => chunks.as_slice(),
        _ => &[],
    })
}

/// The packs that a tree names, as text.
pub(crate) fn packs(tree: &Manifest) -> Vec<String> {
    tree.packs().iter().map(ToString::to_string).collect()
}

/// What a checkpoint is, in a word.
fn kind(tree: &Manifest) -> String {
    if !tree.single_file {
        return "directory".into();
    }
    let ending = tree.name.rsplit_once('.').map(|(_, ending)| ending.to_lowercase());
    let plain =
        |text: &String| (1..=12).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric());
    ending.filter(plain).unwrap_or_else(|| "file".into())
}

/// What a tree adds to the index of known chunks. A difference is not known
/// by itself: it cannot be read without its base, which the index does not
/// tell.
#[must_use]
pub fn chunk_rows(tree: &Manifest) -> Vec<ChunkPut> {
    chunks(tree)
        .filter(|chunk| chunk.base.is_none())
        .map(|c| ChunkPut {
            digest: *c.name().as_bytes(),
            pack: c.pack.to_string(),
            offset: c.offset,
            len: c.len,
            stored: c.stored,
            codec: c.codec.into(),
            cipher: c.seal.as_ref().map(|seal| *seal.cipher.as_bytes()),
        })
        .collect()
}

/// What is told of a tree.
#[derive(Debug)]
pub(crate) struct Told {
    pub(crate) sealed: bool,
    pub(crate) kind: Kind,
    pub(crate) step: Option<u64>,
    /// Empty where no key opens it.
    pub(crate) name: String,
    /// All its files; where no key opens it, its chunks.
    pub(crate) bytes: u64,
    /// What it is, in a word.
    pub(crate) word: String,
    pub(crate) packs: Vec<String>,
    pub(crate) chunks: Vec<ChunkPut>,
}

impl Told {
    /// The row of a checkpoint that is durable from now on.
    pub(crate) fn committed(
        &self,
        manifest: ManifestRef,
        (run, attempt, generation): (RunId, AttemptId, Generation),
        now_ms: u64,
        new_bytes: u64,
    ) -> Checkpoint {
        Checkpoint {
            manifest,
            run,
            attempt,
            generation,
            status: CheckpointState::Committed,
            name: self.name.clone(),
            bytes: self.bytes,
            new_bytes,
            committed_ms: now_ms,
            stray: false,
            packs: self.packs.clone(),
            kind: self.word.clone(),
            verified_ms: 0,
            verified_percent: 0,
            trouble: String::new(),
        }
    }
}

impl Told {
    fn of(tree: &Manifest) -> Self {
        Self {
            sealed: tree.version >= artifacts::seal::VERSION,
            kind: tree.kind,
            step: tree.step,
            name: tree.name.clone(),
            bytes: tree.total_bytes(),
            word: kind(tree),
            packs: packs(tree),
            chunks: chunk_rows(tree),
        }
    }

    fn of_sealed(sealed: &Sealed, packs: &[ObjectKey]) -> Self {
        let known = sealed.chunks.iter().filter(|chunk| chunk.place.codec != Codec::Delta);
        Self {
            sealed: true,
            kind: sealed.kind,
            step: sealed.step,
            name: String::new(),
            bytes: sealed.chunks.iter().map(|chunk| u64::from(chunk.place.len)).sum(),
            word: "sealed".into(),
            packs: packs.iter().map(ToString::to_string).collect(),
            chunks: known
                .map(|chunk| ChunkPut {
                    digest: *chunk.name.as_bytes(),
                    pack: chunk.place.pack.to_string(),
                    offset: chunk.place.offset,
                    len: chunk.place.len,
                    stored: chunk.place.stored,
                    codec: chunk.place.codec.into(),
                    cipher: chunk.place.cipher.map(|cipher| *cipher.as_bytes()),
                })
                .collect(),
        }
    }
}

/// A manifest, with whatever keys there are.
pub(crate) enum Opened {
    /// Everybody can read it, or a key opened it.
    Tree(Manifest),
    /// No key here opens it.
    Closed(Sealed),
}

/// Opens a manifest if a key does.
///
/// # Errors
/// Where it is damaged.
pub(crate) fn opened(core: &Core, key: &ObjectKey, tree: Description) -> Result<Opened, RestoreError> {
    match tree {
        Description::Plain(tree) => Ok(Opened::Tree(tree)),
        Description::Sealed(sealed) => match core.keys.ring().open(key, &sealed) {
            Ok(tree) => Ok(Opened::Tree(tree)),
            Err(SealError::NoKey(_)) => Ok(Opened::Closed(sealed)),
            Err(error) => Err(opening_failed(key, error)),
        },
    }
}

/// What is told of a manifest, or why nothing is: what a later version sealed is
/// not damaged.
pub(super) fn told(core: &Core, key: &ObjectKey, tree: Description) -> Result<Told, RestoreError> {
    let packs = tree.packs();
    match opened(core, key, tree)? {
        Opened::Tree(tree) => Ok(Told::of(&tree)),
        Opened::Closed(sealed) => {
            tracing::warn!(%key, "no key here opens a sealed manifest: only what stands in the clear was looked at");
            Ok(Told::of_sealed(&sealed, &packs))
        }
    }
}
