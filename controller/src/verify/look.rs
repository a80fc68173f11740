//! Reads one checkpoint, or a part of it drawn at random. What was found right
//! a moment ago is not read again: checkpoints share most of their bytes.

use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

use artifacts::manifest::ChunkRef;
use artifacts::restore::{RestoreError, load_description, verify, verify_chunks};
use artifacts::seal::{Sealed, SealedChunk};
use artifacts::{Manifest, ObjectKey};

use super::object;
use crate::core::Core;
use crate::durable::{self, Opened};
use crate::model::Checkpoint;

/// Plain bytes between two pauses.
const SLICE: u64 = 16 << 20;
/// Chunks that are remembered as right.
const KNOWN: usize = 2_000_000;

/// Which chunks are read.
#[derive(Debug, Clone, Copy)]
pub(super) struct Chosen {
    percent: u32,
    seed: [u8; 16],
}

impl Chosen {
    pub(super) fn new(percent: u32, seed: [u8; 16]) -> Self {
        Self { percent: percent.clamp(1, 100), seed }
    }

    fn takes(&self, place: &[u8; 16]) -> bool {
        if self.percent >= 100 {
            return true;
        }
        let hash = blake3::Hasher::new().update(&self.seed).update(place).finalize();
        let [a, b, c, d, ..] = *hash.as_bytes();
        u32::from_le_bytes([a, b, c, d]) % 100 < self.percent
    }
}

/// How much of the machine and of the store may be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pace {
    /// Somebody waits.
    Fast,
    /// A quarter of the time at most.
    Slow,
}

/// What goes from one checkpoint to the next.
pub(super) struct Look {
    pub(super) chosen: Chosen,
    pub(super) known: HashSet<[u8; 16]>,
    pub(super) pace: Pace,
}

/// Names a chunk at its place.
fn place(chunk: &ChunkRef) -> [u8; 16] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(chunk.digest.as_bytes()).update(chunk.pack.as_str().as_bytes());
    hasher.update(&chunk.offset.to_le_bytes()).update(&chunk.stored.to_le_bytes());
    let mut short = [0; 16];
    short.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
    short
}

impl Look {
    /// Whether the checkpoint is what it should be, as far as was chosen. The
    /// manifest and the presence of every pack are always looked at.
    pub(super) async fn at(
        &mut self,
        core: &Core,
        row: &Checkpoint,
        mut told: impl FnMut(u64),
    ) -> Result<(), RestoreError> {
        let digest = row.manifest.digest.parse().map_err(|_| RestoreError::Remote("no digest".into()))?;
        let key = object(row)?;
        let tree = load_description(&*core.objects, &key, Some(digest)).await?;
        let tree = match durable::opened(core, &key, tree)? {
            Opened::Tree(tree) => tree,
            Opened::Closed(sealed) => return self.stored(core, &sealed, told).await,
        };
        let mut ends: BTreeMap<&ObjectKey, u64> = BTreeMap::new();
        let mut chosen: Vec<(&ChunkRef, [u8; 16])> = Vec::new();
        for chunk in tree.needed() {
            let end = ends.entry(&chunk.pack).or_default();
            *end = chunk.end().max(*end);
        }
        for chunk in crate::durable::chunks(&tree) {
            let place = place(chunk);
            if !self.chosen.takes(&place) {
                continue;
            }
            if self.known.contains(&place) {
                told(u64::from(chunk.len));
            } else {
                chosen.push((chunk, place));
            }
        }
        for (pack, end) in ends {
            let size = core.objects.size(pack).await?.ok_or(RestoreError::Missing { key: pack.clone() })?;
            if size < end {
                let detail = format!("it has {size} bytes where {end} are needed");
                return Err(RestoreError::Corrupt { key: pack.clone(), detail });
            }
        }
        chosen.sort_by(|(a, _), (b, _)| (&a.pack, a.offset).cmp(&(&b.pack, b.offset)));
        let mut rest = chosen.as_slice();
        while !rest.is_empty() {
            let mut bytes = 0;
            let take = rest.iter().take_while(|(chunk, _)| {
                let fits = bytes == 0 || bytes + u64::from(chunk.len) <= SLICE;
                bytes += u64::from(chunk.len);
                fits
            });
            let (now, later) = rest.split_at(take.count());
            rest = later;
            self.slice(core, &tree, now).await?;
            told(now.iter().map(|(chunk, _)| u64::from(chunk.len)).sum());
        }
        Ok(())
    }

    /// The same without a key: the stored bytes alone.
    async fn stored(
        &mut self,
        core: &Core,
        sealed: &Sealed,
        mut told: impl FnMut(u64),
    ) -> Result<(), RestoreError> {
        for (pack, end) in sealed.ends() {
            let size = core.objects.size(&pack).await?.ok_or(RestoreError::Missing { key: pack.clone() })?;
            if size < end {
                let detail = format!("it has {size} bytes where {end} are needed");
                return Err(RestoreError::Corrupt { key: pack, detail });
            }
        }
        let drawn = |chunk: &&SealedChunk| {
            let mut short = [0; 16];
            short.copy_from_slice(&chunk.name.as_bytes()[..16]);
            self.chosen.takes(&short)
        };
        let chosen: Vec<&SealedChunk> = sealed.chunks.iter().filter(drawn).collect();
        // Some chunks of a megabyte, as a rule.
        for part in chosen.chunks(16) {
            let began = core.clock.mono_ms();
            verify_chunks(&*core.objects, part).await?;
            self.rest(core, began).await;
            told(part.iter().map(|chunk| u64::from(chunk.place.len)).sum());
        }
        Ok(())
    }

    async fn rest(&self, core: &Core, began: u64) {
        match self.pace {
            Pace::Fast => tokio::task::yield_now().await,
            Pace::Slow => {
                let took = core.clock.mono_ms().saturating_sub(began);
                tokio::time::sleep(Duration::from_millis(took.max(10) * 3)).await;
            }
        }
    }

    async fn slice(
        &mut self,
        core: &Core,
        tree: &Manifest,
        chunks: &[(&ChunkRef, [u8; 16])],
    ) -> Result<(), RestoreError> {
        let began = core.clock.mono_ms();
        let part = tree.part(chunks.iter().map(|(chunk, _)| (*chunk).clone()).collect());
        verify(&*core.objects, &part).await?;
        if self.known.len() + chunks.len() <= KNOWN {
            self.known.extend(chunks.iter().map(|(_, place)| *place));
        }
        self.rest(core, began).await;
        Ok(())
    }
}
