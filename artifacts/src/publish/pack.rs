//! Codes new chunks, lays them end to end into packs and puts those. A chunk
//! is sent once, however often it occurs; a pack whose number is taken goes
//! under the next. While one pack is coded and put, the next chunks are read.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use async_trait::async_trait;

use super::pace::Pace;
use super::{KeySpace, PublishError, lost};
use crate::codec::{Coder, Effort};
use crate::digest::Digest;
use crate::index::{ChunkIndex, Location};
use crate::key::{ObjectClass, ObjectKey};
use crate::offload::offload;
use crate::pack::Builder;
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
    pub(super) sent_bytes: u64,
}

/// What codes chunks, wherever it runs.
#[derive(Default)]
struct Bench {
    coder: Coder,
    pack: Builder,
}

impl Bench {
    /// Codes chunks until the pack is full or none is left.
    fn fill(&mut self, pieces: &mut Vec<Piece>, effort: Effort) {
        if !pieces.is_empty() {
            self.pack.reserve(PACK_BYTES);
        }
        // From the end: the caller has turned them round.
        while let Some(piece) = pieces.pop_if(|piece| self.pack.fits(piece.bytes.len(), PACK_BYTES)) {
            self.pack.add(&mut self.coder, piece.digest, &piece.bytes, effort);
        }
    }
}

/// Whether there are threads and a clock to use.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Where {
    /// In place: a simulation must replay.
    Here,
    /// Where it may block, beside everything else.
    Aside,
}

pub(super) struct Packer<'a> {
    keys: &'a mut KeySpace,
    pub(super) store: &'a dyn Store,
    index: &'a dyn ChunkIndex,
    runs: Where,
    cuts: Vec<Vec<Digest>>,
    places: HashMap<Digest, Location>,
    /// Chunks of the pack that is being filled.
    pending: HashSet<Digest>,
    bench: Option<Bench>,
    pace: Pace,
    new_bytes: u64,
    new_chunks: u64,
    sent_bytes: u64,
}

impl<'a> Packer<'a> {
    pub(super) fn new(
        keys: &'a mut KeySpace,
        store: &'a dyn Store,
        index: &'a dyn ChunkIndex,
        runs: Where,
    ) -> Self {
        Self {
            keys,
            store,
            index,
            runs,
            cuts: Vec::new(),
            places: HashMap::new(),
            pending: HashSet::new(),
            bench: Some(Bench::default()),
            pace: Pace::default(),
            new_bytes: 0,
            new_chunks: 0,
            sent_bytes: 0,
        }
    }

    pub(super) async fn drain(&mut self, pieces: &mut dyn Pieces) -> Result<(), PublishError> {
        let mut batch = pieces.next().await?;
        while !batch.is_empty() {
            let (taken, next) = tokio::join!(self.take(batch), pieces.next());
            taken?;
            batch = next?;
        }
        Ok(())
    }

    pub(super) async fn finish(mut self) -> Result<Packed<'a>, PublishError> {
        self.flush().await?;
        let Self { keys, cuts, places, new_bytes, new_chunks, sent_bytes, .. } = self;
        Ok(Packed { keys, cuts, places, new_bytes, new_chunks, sent_bytes })
    }

    async fn take(&mut self, batch: Vec<Piece>) -> Result<(), PublishError> {
        self.look_up(&batch).await?;
        let mut fresh = Vec::with_capacity(batch.len());
        for piece in batch {
            if self.cuts.len() <= piece.entry {
                self.cuts.resize_with(piece.entry + 1, Vec::new);
            }
            self.cuts[piece.entry].push(piece.digest);
            if !self.places.contains_key(&piece.digest) && self.pending.insert(piece.digest) {
                self.new_bytes += piece.bytes.len() as u64;
                self.new_chunks += 1;
                fresh.push(piece);
            }
        }
        fresh.reverse();
        while !fresh.is_empty() {
            fresh = self.fill(fresh).await?;
            if !fresh.is_empty() {
                self.flush().await?;
            }
        }
        Ok(())
    }

    /// Codes chunks into the pack; gives back those it has no room for.
    async fn fill(&mut self, mut fresh: Vec<Piece>) -> Result<Vec<Piece>, PublishError> {
        let effort = self.pace.effort();
        let mut bench = self.bench.take().unwrap_or_default();
        if self.runs == Where::Here {
            bench.fill(&mut fresh, effort);
            self.bench = Some(bench);
            return Ok(fresh);
        }
        let (plain, before) = (bench.pack.plain_bytes(), bench.pack.len());
        let work = move || {
            let began = std::time::Instant::now();
            bench.fill(&mut fresh, effort);
            (bench, fresh, began.elapsed())
        };
        let (bench, fresh, took) = offload(work).await.map_err(|e| lost(&e))?;
        if effort == Effort::Dense {
            let stored = (bench.pack.len() - before) as u64;
            self.pace.coded(bench.pack.plain_bytes() - plain, stored, took);
        }
        self.bench = Some(bench);
        Ok(fresh)
    }

    async fn look_up(&mut self, batch: &[Piece]) -> Result<(), PublishError> {
        let mut sizes = HashMap::new();
        for piece in batch {
            if !self.places.contains_key(&piece.digest) && !self.pending.contains(&piece.digest) {
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
                    && (1..=place.len).contains(&place.stored)
                    && matches!(place.pack.seq(), Some((ObjectClass::Pack, _)))
            };
            if let Some(place) = answer.filter(fits) {
                self.places.insert(digest, place);
            }
        }
        Ok(())
    }

    async fn flush(&mut self) -> Result<(), PublishError> {
        let Some(bench) = self.bench.as_mut().filter(|bench| !bench.pack.is_empty()) else { return Ok(()) };
        let (bytes, held) = bench.pack.finish();
        let key = self.put(&bytes).await?;
        for (digest, place) in held {
            let place = place.within(key.clone());
            self.pending.remove(&digest);
            self.places.insert(digest, place);
        }
        if let Some(bench) = &mut self.bench {
            bench.pack.reuse(bytes);
        }
        Ok(())
    }

    async fn put(&mut self, bytes: &[u8]) -> Result<ObjectKey, PublishError> {
        let mut taken = 0;
        loop {
            let key = ObjectKey::pack(&self.keys.scope, self.keys.generation, self.keys.pack_seq)?;
            let began = (self.runs == Where::Aside).then(std::time::Instant::now);
            let put = self.store.put_if_absent(&key, bytes).await?;
            self.keys.pack_seq += 1;
            if put != Put::Different {
                self.sent_bytes += bytes.len() as u64;
                self.pace.sent(bytes.len() as u64, began.map_or(Duration::ZERO, |began| began.elapsed()));
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
