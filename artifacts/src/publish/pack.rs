//! Codes new chunks, lays them end to end into packs and puts those. A chunk
//! is sent once, however often it occurs; a pack whose number is taken goes
//! under the next. While one pack is put, the next is coded and the chunks
//! after it are read.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use async_trait::async_trait;

use super::base::{Coded, Keyframe, Kin, Lineage};
use super::flight::{Flight, Landed};
use super::pace::Pace;
use super::{KeySpace, PublishError, lost};
use crate::codec::{Base, Codec, Coder, Effort};
use crate::digest::Digest;
use crate::index::{ChunkIndex, Location, Places, own};
use crate::manifest::{ChunkRef, LEAST_PER_CHUNK, MAX_BYTES, ManifestError, check_place};
use crate::offload::offload;
use crate::pack::{Builder, Unsealed};
use crate::seal::{self, Sealing};
use crate::store::Store;

/// No pack is larger.
const PACK_BYTES: usize = 8 << 20;
const BATCH_BYTES: usize = 4 << 20;
const BATCH_CHUNKS: usize = 256;

/// One chunk on its way.
pub(super) struct Piece {
    entry: usize,
    digest: Digest,
    bytes: Vec<u8>,
    /// What it may be stored as the difference to.
    base: Option<Kin>,
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

    pub(super) fn add(&mut self, entry: usize, bytes: Vec<u8>, base: Option<Kin>) {
        self.bytes += bytes.len();
        self.pieces.push(Piece { entry, digest: Digest::of(&bytes), bytes, base });
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
    pub(super) store: &'a dyn Store,
    pub(super) index: &'a dyn ChunkIndex,
    pub(super) runs: Where,
    pub(super) tree: Cut,
    pub(super) lineage: Lineage,
    pub(super) sent: Sent,
    /// The store is known to be slower than coding.
    pub(super) pays: bool,
}

/// The chunks of each entry, by the numbers of their places.
#[derive(Default)]
pub(super) struct Cut {
    pub(super) places: Places,
    chunks: Vec<u32>,
    /// Where the chunks of each entry end.
    ends: Vec<usize>,
    /// Which places are some entry's, and how many.
    pub(super) used: Vec<bool>,
    distinct: u64,
    /// How they are sealed, if they are.
    pub(super) sealing: Option<Arc<Sealing>>,
}

impl Cut {
    fn add(&mut self, entry: usize, number: u32) {
        if self.ends.len() <= entry {
            self.ends.resize(entry + 1, self.chunks.len());
        }
        self.chunks.push(number);
        let at = number as usize;
        self.used.resize(self.used.len().max(at + 1), false);
        self.distinct += u64::from(!std::mem::replace(&mut self.used[at], true));
        self.ends[entry] = self.chunks.len();
    }

    pub(super) fn of(&self, entry: usize) -> &[u32] {
        let end = self.ends.get(entry).copied().unwrap_or_default();
        let start = entry.checked_sub(1).and_then(|before| self.ends.get(before)).copied();
        self.chunks.get(start.unwrap_or_default()..end).unwrap_or_default()
    }

    /// The chunk of this number, if it lies anywhere.
    pub(super) fn chunk(&self, number: u32) -> Option<ChunkRef> {
        let (digest, place) = self.places.get(number)?;
        Some(place.chunk(digest, self.sealing.as_deref()))
    }

    /// What the index calls a chunk.
    fn name(&self, digest: &Digest) -> Digest {
        self.sealing.as_ref().map_or(*digest, |sealing| sealing.name(digest))
    }

    /// Bytes that a manifest has at least. A sealed one tells each chunk once,
    /// however often it occurs; within it, as in any other, each time.
    fn least(&self) -> u64 {
        let told = self.sealing.as_ref().map_or(0, |_| self.distinct * seal::LEAST_PER_CHUNK);
        told.max(self.chunks.len() as u64 * LEAST_PER_CHUNK)
    }
}

/// What was new.
#[derive(Default, Clone, Copy)]
pub(super) struct Sent {
    pub(super) new_bytes: u64,
    pub(super) new_chunks: u64,
    pub(super) sent_bytes: u64,
}

/// What codes chunks, wherever it runs.
#[derive(Default)]
struct Bench {
    coder: Coder,
    pack: Builder,
    keyframe: Option<Arc<Keyframe>>,
    /// A base that is being used.
    base: Vec<u8>,
    /// What had a base, the base and what was stored.
    related: Vec<(Digest, Digest, Coded)>,
}

impl Bench {
    /// Codes chunks until the pack is full or none is left.
    fn fill(&mut self, pieces: &mut Vec<Piece>, effort: Effort) -> Result<(), Unsealed> {
        if !pieces.is_empty() {
            self.pack.reserve(PACK_BYTES);
        }
        // From the end: the caller has turned them round.
        while let Some(piece) = pieces.pop_if(|piece| self.pack.fits(piece.bytes.len(), PACK_BYTES)) {
            let kin = piece.base.filter(|_| effort == Effort::Dense);
            let kin = kin.filter(|kin| {
                self.keyframe.as_ref().is_some_and(|keyframe| keyframe.read(*kin, &mut self.base))
            });
            let base = kin.as_ref().map(|kin| Base { digest: &kin.digest, bytes: &self.base });
            let coded = self.pack.add(&mut self.coder, piece.digest, &piece.bytes, base, effort)?;
            self.related.extend(kin.map(|kin| (piece.digest, kin.digest, coded)));
        }
        Ok(())
    }
}

/// Whether there are threads and a clock to use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Where {
    /// In place: a simulation must replay.
    Here,
    /// Where it may block, beside everything else.
    Aside,
}

/// A chunk did not come back from sealing as it went in, or there is nothing to
/// seal it with: it is stored in no other way.
fn unsealed() -> PublishError {
    PublishError::Unsealed("a chunk could not be sealed")
}

pub(super) struct Packer<'a> {
    /// Taken when all is done; what was stored until then is left to the next
    /// publish otherwise.
    keys: Option<&'a mut KeySpace>,
    store: &'a dyn Store,
    index: &'a dyn ChunkIndex,
    runs: Where,
    tree: Cut,
    bench: Option<Bench>,
    flight: Flight<'a>,
    /// The room of a pack that is stored.
    spare: Vec<u8>,
    pace: Pace,
    /// All is made as small as can be, whatever the link.
    keeps_small: bool,
    sent: Sent,
    lineage: Lineage,
}

impl<'a> Packer<'a> {
    pub(super) fn new(
        keys: &'a mut KeySpace,
        store: &'a dyn Store,
        index: &'a dyn ChunkIndex,
        runs: Where,
    ) -> Self {
        Self {
            keys: Some(keys),
            store,
            index,
            runs,
            tree: Cut { places: index.unfinished(), ..Cut::default() },
            bench: Some(Bench::default()),
            flight: Flight::None,
            spare: Vec::new(),
            pace: Pace::default(),
            keeps_small: false,
            sent: Sent::default(),
            lineage: Lineage::default(),
        }
    }

    /// Chunks may be stored as differences to those of a keyframe, and are
    /// sealed if there is something to seal them with.
    pub(super) fn with(mut self, keyframe: Option<Arc<Keyframe>>, sealing: Option<Arc<Sealing>>) -> Self {
        let pack = Builder::new(sealing.clone());
        self.bench = Some(Bench { keyframe: keyframe.clone(), pack, ..Bench::default() });
        self.lineage = Lineage::of(keyframe);
        self.tree.places = std::mem::take(&mut self.tree.places).sealed(sealing.is_some());
        self.tree.sealing = sealing;
        self
    }

    /// What is small, sent often and kept for long is worth a core's time on
    /// any link.
    pub(super) fn keeps_small(mut self, yes: bool) -> Self {
        self.keeps_small = yes;
        self
    }

    pub(super) async fn drain(&mut self, pieces: &mut dyn Pieces) -> Result<(), PublishError> {
        loop {
            let batch = self.flight.beside(pieces.next()).await?;
            if batch.is_empty() {
                return Ok(());
            }
            self.take(batch).await?;
        }
    }

    /// Puts what is left and waits until all of it is stored.
    pub(super) async fn flush(&mut self) -> Result<(), PublishError> {
        self.send().await?;
        self.land().await?;
        // The room is needed for the manifest now.
        (self.bench, self.spare) = (None, Vec::new());
        Ok(())
    }

    pub(super) async fn finish(mut self) -> Result<Packed<'a>, PublishError> {
        self.flush().await?;
        let keys = self.keys.take().ok_or_else(|| lost(&std::io::Error::other("published twice")))?;
        let (store, index, runs, sent) = (self.store, self.index, self.runs, self.sent);
        let (tree, lineage) = (std::mem::take(&mut self.tree), std::mem::take(&mut self.lineage));
        Ok(Packed { keys, store, index, runs, tree, lineage, sent, pays: self.pace.pays() })
    }

    async fn take(&mut self, batch: Vec<Piece>) -> Result<(), PublishError> {
        self.look_up(&batch).await?;
        let mut fresh = Vec::with_capacity(batch.len());
        for mut piece in batch {
            piece.base = piece.base.filter(|kin| self.lineage.has(&kin.digest));
            let known = self.tree.places.find(&piece.digest);
            let number =
                known.unwrap_or_else(|| self.tree.places.expect(piece.digest, piece.bytes.len() as u32));
            self.tree.add(piece.entry, number);
            if known.is_none() {
                self.sent.new_bytes += piece.bytes.len() as u64;
                self.sent.new_chunks += 1;
                fresh.push(piece);
            }
        }
        let least = self.tree.least();
        if least > MAX_BYTES {
            return Err(ManifestError::TooLarge(least).into());
        }
        fresh.reverse();
        while !fresh.is_empty() {
            fresh = self.fill(fresh).await?;
            if !fresh.is_empty() {
                self.send().await?;
            }
        }
        Ok(())
    }

    /// Codes chunks into the pack; gives back those it has no room for.
    async fn fill(&mut self, mut fresh: Vec<Piece>) -> Result<Vec<Piece>, PublishError> {
        let effort = match self.index.format() {
            ..2 => Effort::Plain,
            _ if self.keeps_small => Effort::Dense,
            _ => self.pace.effort(),
        };
        // Never one that does not seal where it should.
        let mut bench = self.bench.take().ok_or_else(unsealed)?;
        if self.runs == Where::Here {
            let filled = bench.fill(&mut fresh, effort);
            self.bench = Some(bench);
            return filled.map(|()| fresh).map_err(|Unsealed| unsealed());
        }
        let (plain, before) = (bench.pack.plain_bytes(), bench.pack.len());
        let work = move || {
            let began = std::time::Instant::now();
            let filled = bench.fill(&mut fresh, effort);
            (bench, filled.map(|()| fresh), began.elapsed())
        };
        let (mut bench, fresh, took) = self.flight.beside(offload(work)).await.map_err(|e| lost(&e))?;
        let fresh = fresh.map_err(|Unsealed| unsealed())?;
        if effort == Effort::Dense {
            let stored = (bench.pack.len() - before) as u64;
            self.pace.coded(bench.pack.plain_bytes() - plain, stored, took);
        }
        self.lineage.coded(bench.related.drain(..));
        self.bench = Some(bench);
        Ok(fresh)
    }

    async fn look_up(&mut self, batch: &[Piece]) -> Result<(), PublishError> {
        let format = self.index.format();
        let sealed = self.tree.sealing.is_some();
        let mut sizes = HashMap::new();
        for piece in batch {
            self.recall(&piece.digest);
            if format >= Codec::Delta.version()
                && let Some(place) = self.lineage.known(&piece.digest)
            {
                self.tree.places.insert(piece.digest, &place);
            }
            if self.tree.places.find(&piece.digest).is_none() {
                sizes.insert(piece.digest, piece.bytes.len() as u32);
                let base = piece.base.filter(|kin| !self.lineage.has(&kin.digest));
                sizes.extend(base.map(|kin| (kin.digest, piece.bytes.len() as u32)));
            }
        }
        let bases: HashSet<Digest> =
            batch.iter().filter_map(|piece| piece.base).map(|kin| kin.digest).collect();
        if sizes.is_empty() {
            return Ok(());
        }
        let mut asked: Vec<Digest> = sizes.keys().copied().collect();
        // A fixed order, so that a simulation replays.
        asked.sort_unstable();
        let names: Vec<Digest> = asked.iter().map(|digest| self.tree.name(digest)).collect();
        let answers = self.flight.beside(self.index.locate(&names)).await?;
        if answers.len() != asked.len() {
            return Err(PublishError::Index { asked: asked.len(), answered: answers.len() });
        }
        for (digest, answer) in asked.into_iter().zip(answers) {
            // A place that cannot be right is no place: the chunk is sent.
            let fits = |place: &Location| {
                Some(&place.len) == sizes.get(&digest)
                    && place.codec.version() <= format
                    && place.cipher.is_some() == sealed
                    && check_place(place).is_ok()
            };
            if let Some(place) = answer.filter(fits) {
                if bases.contains(&digest) {
                    self.lineage.found(digest, &place);
                }
                self.tree.places.insert(digest, &place);
            }
        }
        Ok(())
    }

    /// Finds a sealed chunk that an earlier process stored: the ends of packs
    /// know it by name.
    fn recall(&mut self, digest: &Digest) {
        if self.tree.sealing.is_none() || self.tree.places.find(digest).is_some() {
            return;
        }
        let number = self.tree.places.find(&self.tree.name(digest));
        if let Some((_, place)) = number.and_then(|number| self.tree.places.get(number)) {
            self.tree.places.insert(*digest, &place);
        }
    }

    /// Sends the pack that is being filled, once the one before it is stored.
    async fn send(&mut self) -> Result<(), PublishError> {
        self.land().await?;
        let (Some(bench), Some(keys)) = (&mut self.bench, &self.keys) else { return Ok(()) };
        if bench.pack.is_empty() {
            return Ok(());
        }
        let pack = bench.pack.finish();
        bench.pack.reuse(std::mem::take(&mut self.spare));
        let next = (keys.scope.clone(), keys.generation, keys.pack_seq);
        self.flight = Flight::begin(self.store, next, pack, self.runs == Where::Aside);
        Ok(())
    }

    /// Waits for the pack that is on its way.
    async fn land(&mut self) -> Result<(), PublishError> {
        match self.flight.land().await {
            Some(landed) => self.settle(landed),
            None => Ok(()),
        }
    }

    fn settle(&mut self, landed: Landed) -> Result<(), PublishError> {
        let Landed { bytes, held, next, outcome, took } = landed;
        if let Some(keys) = &mut self.keys {
            keys.pack_seq = next;
        }
        self.tree.places.settle(&outcome?, &held);
        self.sent.sent_bytes += bytes.len() as u64;
        if let Some(took) = took {
            self.pace.sent(bytes.len() as u64, took);
        }
        self.spare = bytes;
        Ok(())
    }
}

impl Drop for Packer<'_> {
    fn drop(&mut self) {
        if let Some(landed) = self.flight.over() {
            // It ended for another reason.
            drop(self.settle(landed));
        }
        if let Some(keys) = &self.keys {
            let places = std::mem::take(&mut self.tree.places);
            let (scope, generation) = (keys.scope.as_str(), keys.generation);
            self.index.leave(places.within(|pack| own(pack, scope, generation)));
        }
    }
}
