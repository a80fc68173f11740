//! Lays new chunks end to end into packs and puts them. A chunk is sent once,
//! however often it occurs; a pack whose number is taken goes under the next.

use std::collections::HashMap;

use async_trait::async_trait;

use super::{KeySpace, PublishError};
use crate::digest::Digest;
use crate::index::{ChunkIndex, Location};
use crate::key::{ObjectClass, ObjectKey};
use crate::store::{Put, Store};

/// No pack is larger.
const PACK_BYTES: usize = 8 << 20;
const BATCH_BYTES: usize = 4 << 20;
const BATCH_CHUNKS: usize = 256;
const TAKEN_LIMIT: u32 = 512;

/// One chunk on its way.
pub(super) struct Piece {
    entry: usize,
    digest: Digest,
    bytes: Vec<u8>,
}

/// Chunks that are looked up together.
#[derive(Default)]
pub(super) struct Batch {
    pieces: Vec<Piece>,
    bytes: usize,
}

impl Batch {
    pub(super) fn full(&self) -> bool {
        self.bytes >= BATCH_BYTES || self.pieces.len() >= BATCH_CHUNKS
    }

    pub(super) fn add(&mut self, entry: usize, bytes: &[u8]) {
        self.bytes += bytes.len();
        self.pieces.push(Piece { entry, digest: Digest::of(bytes), bytes: bytes.to_vec() });
    }

    pub(super) fn into_pieces(self) -> Vec<Piece> {
        self.pieces
    }
}

/// Where chunks come from, in the order of entries; nothing means the end.
#[async_trait]
pub(super) trait Pieces: Send {
    async fn next(&mut self) -> Result<Vec<Piece>, PublishError>;
}

/// What is known once every pack is in the store.
pub(super) struct Packed<'a> {
    pub(super) keys: &'a mut KeySpace,
    /// The chunks of each entry.
    pub(super) cuts: Vec<Vec<Digest>>,
    pub(super) places: HashMap<Digest, Location>,
    pub(super) new_bytes: u64,
    pub(super) new_chunks: u64,
}

pub(super) struct Packer<'a> {
    keys: &'a mut KeySpace,
    pub(super) store: &'a dyn Store,
    index: &'a dyn ChunkIndex,
    cuts: Vec<Vec<Digest>>,
    places: HashMap<Digest, Location>,
    pack: Vec<u8>,
    /// Offset and length of each chunk in `pack`.
    pending: HashMap<Digest, (u64, u32)>,
    new_bytes: u64,
    new_chunks: u64,
}

impl<'a> Packer<'a> {
    pub(super) fn new(keys: &'a mut KeySpace, store: &'a dyn Store, index: &'a dyn ChunkIndex) -> Self {
        Self {
            keys,
            store,
            index,
            cuts: Vec::new(),
            places: HashMap::new(),
            pack: Vec::new(),
            pending: HashMap::new(),
            new_bytes: 0,
            new_chunks: 0,
        }
    }

    pub(super) async fn drain(&mut self, pieces: &mut dyn Pieces) -> Result<(), PublishError> {
        loop {
            let batch = pieces.next().await?;
            if batch.is_empty() {
                return Ok(());
            }
            self.take(batch).await?;
        }
    }

    pub(super) async fn finish(mut self) -> Result<Packed<'a>, PublishError> {
        self.flush().await?;
        let Self { keys, cuts, places, new_bytes, new_chunks, .. } = self;
        Ok(Packed { keys, cuts, places, new_bytes, new_chunks })
    }

    async fn take(&mut self, batch: Vec<Piece>) -> Result<(), PublishError> {
        self.look_up(&batch).await?;
        for Piece { entry, digest, bytes } in batch {
            if self.cuts.len() <= entry {
                self.cuts.resize_with(entry + 1, Vec::new);
            }
            self.cuts[entry].push(digest);
            if self.places.contains_key(&digest) || self.pending.contains_key(&digest) {
                continue;
            }
            if self.pack.len() + bytes.len() > PACK_BYTES {
                self.flush().await?;
            }
            self.pending.insert(digest, (self.pack.len() as u64, bytes.len() as u32));
            self.pack.extend_from_slice(&bytes);
            self.new_bytes += bytes.len() as u64;
            self.new_chunks += 1;
        }
        Ok(())
    }

    async fn look_up(&mut self, batch: &[Piece]) -> Result<(), PublishError> {
        let mut sizes = HashMap::new();
        for piece in batch {
            if !self.places.contains_key(&piece.digest) && !self.pending.contains_key(&piece.digest) {
                sizes.insert(piece.digest, piece.bytes.len() as u32);
            }
        }
        if sizes.is_empty() {
            return Ok(());
        }
        let mut asked: Vec<Digest> = sizes.keys().copied().collect();
        // A fixed order, so that a simulation replays.
        asked.sort_unstable();
        let answers = self.index.locate(&asked).await?;
        if answers.len() != asked.len() {
            return Err(PublishError::Index { asked: asked.len(), answered: answers.len() });
        }
        for (digest, answer) in asked.into_iter().zip(answers) {
            // A place that cannot be right is no place: the chunk is sent.
            let fits = |place: &Location| {
                Some(&place.len) == sizes.get(&digest)
                    && matches!(place.pack.seq(), Some((ObjectClass::Pack, _)))
            };
            if let Some(place) = answer.filter(fits) {
                self.places.insert(digest, place);
            }
        }
        Ok(())
    }

    async fn flush(&mut self) -> Result<(), PublishError> {
        if self.pack.is_empty() {
            return Ok(());
        }
        let key = self.put().await?;
        for (digest, (offset, len)) in self.pending.drain() {
            self.places.insert(digest, Location { pack: key.clone(), offset, len });
        }
        self.pack.clear();
        Ok(())
    }

    async fn put(&mut self) -> Result<ObjectKey, PublishError> {
        let mut taken = 0;
        loop {
            let key = ObjectKey::pack(&self.keys.scope, self.keys.generation, self.keys.pack_seq)?;
            let put = self.store.put_if_absent(&key, &self.pack).await?;
            self.keys.pack_seq += 1;
            if put != Put::Different {
                return Ok(key);
            }
            taken += 1;
            tracing::debug!(%key, "pack number is taken by other bytes, using the next");
            if taken == TAKEN_LIMIT {
                return Err(PublishError::PacksTaken { key });
            }
        }
    }
}
