//! Which chunks a committed manifest already holds. An answer is only a hint
//! about bytes that need not travel again; it never makes content valid, for a
//! restore hashes every chunk.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use async_trait::async_trait;

use crate::codec::Codec;
use crate::digest::Digest;
use crate::key::ObjectKey;
use crate::manifest::{Manifest, Node};
use crate::store::StoreError;

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
}

/// Looks chunks up by digest.
#[async_trait]
pub trait ChunkIndex: Send + Sync {
    /// One answer per digest, in order; `None` for a chunk that must be sent.
    async fn locate(&self, digests: &[Digest]) -> Result<Vec<Option<Location>>, StoreError>;
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
            for chunk in chunks {
                known.entry(chunk.digest).or_insert_with(|| Location {
                    pack: chunk.pack.clone(),
                    offset: chunk.offset,
                    len: chunk.len,
                    stored: chunk.stored,
                    codec: chunk.codec,
                });
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
