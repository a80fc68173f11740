//! Which chunks a committed manifest already holds. An answer is only a hint
//! about bytes that need not travel again; it never makes content valid, for a
//! restore hashes every chunk.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use async_trait::async_trait;

use crate::codec::Codec;
use crate::digest::Digest;
use crate::key::ObjectKey;
use crate::manifest::{ChunkRef, Manifest, Node, VERSION};
use crate::seal::{Seal, Sealing};
use crate::store::StoreError;

mod places;
mod unfinished;

pub use places::Places;
pub(crate) use unfinished::own;
pub use unfinished::{Resuming, Unfinished};

/// Where the bytes of a chunk lie.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Location {
    /// The pack that holds them.
    pub pack: ObjectKey,
    /// The first stored byte within the pack.
    pub offset: u64,
    /// How many plain bytes they make.
    pub len: u32,
    /// How many are stored.
    pub stored: u32,
    /// What makes plain bytes of them.
    pub codec: Codec,
    /// Hash of the stored bytes, where they are sealed.
    pub cipher: Option<Digest>,
}

impl Location {
    /// The end of its stored bytes within the pack.
    #[must_use]
    pub fn end(&self) -> u64 {
        self.offset.saturating_add(u64::from(self.stored))
    }

    /// The chunk with this hash that lies here; sealed, if it is, as its project
    /// does.
    pub(crate) fn chunk(self, digest: Digest, sealing: Option<&Sealing>) -> ChunkRef {
        let Self { pack, offset, len, stored, codec, cipher } = self;
        let seal = sealing.zip(cipher).map(|(sealing, cipher)| {
            Box::new(Seal { name: sealing.name(&digest), cipher, key: sealing.key(&digest) })
        });
        ChunkRef { digest, len, pack, offset, stored, codec, base: None, seal }
    }
}

/// Looks chunks up by digest, and sealed ones by name.
#[async_trait]
pub trait ChunkIndex: Send + Sync {
    /// One answer per digest, in order; `None` for a chunk that must be sent.
    async fn locate(&self, digests: &[Digest]) -> Result<Vec<Option<Location>>, StoreError>;

    /// The newest format that whoever is to read the tree reads, as far as is
    /// known: nothing newer is written.
    fn format(&self) -> u32 {
        VERSION
    }

    /// What a publish before this one stored without a manifest; taken away.
    fn unfinished(&self) -> Places {
        Places::default()
    }

    /// A publish ended: these chunks of its own generation are stored, and no
    /// manifest of its own names them.
    fn leave(&self, _places: Places) {}
}

/// An index for trees that every version of this program must be able to read:
/// what is found and what is written is plain.
#[derive(Clone, Copy)]
pub struct Plain<'a>(pub &'a dyn ChunkIndex);

#[async_trait]
impl ChunkIndex for Plain<'_> {
    async fn locate(&self, digests: &[Digest]) -> Result<Vec<Option<Location>>, StoreError> {
        self.0.locate(digests).await
    }
    fn format(&self) -> u32 {
        1
    }
}

/// An index of manifests given by hand; empty, it has everything sent.
#[derive(Debug, Default)]
pub struct MemoryIndex(Mutex<HashMap<Digest, Location>>);

impl MemoryIndex {
    /// Makes the chunks of a committed manifest known.
    pub fn add(&self, manifest: &Manifest) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for entry in &manifest.entries {
            let Node::File { chunks, .. } = &entry.node else { continue };
            // A difference is of no use without its base, which is not told here.
            for chunk in chunks.iter().filter(|chunk| chunk.base.is_none()) {
                known.entry(*chunk.name()).or_insert_with(|| chunk.place());
            }
        }
    }
}

#[async_trait]
impl ChunkIndex for MemoryIndex {
    async fn locate(&self, digests: &[Digest]) -> Result<Vec<Option<Location>>, StoreError> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(digests.iter().map(|digest| known.get(digest).cloned()).collect())
    }
}
