//! What a publish that failed had stored already: in memory from one try to the
//! next, and after a restart read from the ends of the packs. A hint like any
//! other: nothing here makes content valid.

use std::sync::{Mutex, PoisonError};

use async_trait::async_trait;

use super::{ChunkIndex, Location, Places};
use crate::codec::Codec;
use crate::digest::Digest;
use crate::key::{ObjectClass, ObjectKey};
use crate::manifest::{Description, MAX_BYTES, Manifest};
use crate::pack::{self, FOOT};
use crate::store::{Store, StoreError};

/// Packs whose ends are read after a restart: 128 GiB.
const PACKS: usize = 16_384;
/// Chunks kept; over it the oldest are sent again.
const CHUNKS: usize = 1_000_000;
/// The end of a pack that is read at once: most hold fewer chunks.
const TAIL: u64 = 8 << 10;

/// Chunks of one generation that are stored and that no manifest that counts
/// names.
#[derive(Debug, Default)]
pub struct Unfinished(Mutex<Places>);

impl Unfinished {
    /// Reads what a publisher before this one stored under `scope` and
    /// `generation` after its last manifest. A pack that cannot be read is
    /// passed over: its chunks are sent again.
    pub async fn recall(store: &dyn Store, scope: &str, generation: u64) -> Result<Self, StoreError> {
        let keys = store.list(&ObjectKey::prefix(scope, generation)).await?;
        let class = |key: &ObjectKey| key.seq().map(|(class, _)| class);
        let manifest = keys.iter().rfind(|key| class(key) == Some(ObjectClass::Manifest));
        let after = match manifest {
            Some(key) => newest_pack(store, key, generation).await?,
            None => None,
        };
        let packs = keys.iter().filter(|key| class(key) == Some(ObjectClass::Pack));
        let mut places = Places::default();
        for key in packs.filter(|key| after.as_ref().is_none_or(|after| *key > after)).take(PACKS) {
            let held = match tail(store, key).await {
                Ok(held) => held,
                Err(error @ (StoreError::Remote(_) | StoreError::Io { .. })) => return Err(error),
                Err(error) => {
                    tracing::debug!(%key, %error, "a pack tells nothing of what it holds");
                    continue;
                }
            };
            // A difference says only the digest of its base.
            for (digest, place) in held.into_iter().filter(|(_, held)| held.codec != Codec::Delta) {
                places.insert(digest, &place.within(key.clone()));
            }
            if places.len() > CHUNKS {
                break;
            }
        }
        Ok(Self(Mutex::new(places)))
    }

    /// Keeps the chunks that this tree has in its own generation, too: it is
    /// stored and nobody said yet that it counts. What was stored before it is
    /// as much there: the results that go with a save hold none of its chunks.
    pub fn add(&self, manifest: &Manifest, scope: &str, generation: u64) {
        let mut places = self.take();
        places.add(manifest, |pack| own(pack, scope, generation));
        self.leave(places);
    }

    /// Forgets what lies in other packs.
    pub fn retain(&self, wanted: impl Fn(&ObjectKey) -> bool) {
        let kept = self.take().within(wanted);
        self.leave(kept);
    }

    /// Forgets everything: it is named by a manifest that counts, or what is
    /// told here led to one that was not taken.
    pub fn clear(&self) {
        self.leave(Places::default());
    }

    /// How many chunks are known.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// Whether nothing is.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn take(&self) -> Places {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn leave(&self, places: Places) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = places.newest(CHUNKS);
    }
}

pub(crate) fn own(pack: &ObjectKey, scope: &str, generation: u64) -> bool {
    pack.scope() == scope && pack.generation() == Some(generation)
}

/// The last pack of a generation that a manifest names. One that cannot be
/// read names none: then more is read, and nothing is lost.
async fn newest_pack(
    store: &dyn Store,
    key: &ObjectKey,
    generation: u64,
) -> Result<Option<ObjectKey>, StoreError> {
    let Some(size) = store.size(key).await?.filter(|size| *size <= MAX_BYTES) else { return Ok(None) };
    let Ok(manifest) = Description::parse(&store.get(key, 0, size).await?) else { return Ok(None) };
    let mut packs = manifest.packs();
    packs.retain(|pack| own(pack, key.scope(), generation));
    Ok(packs.pop())
}

async fn tail(store: &dyn Store, key: &ObjectKey) -> Result<Vec<(Digest, pack::Held)>, StoreError> {
    let Some(size) = store.size(key).await? else { return Ok(Vec::new()) };
    let mut length = size.min(TAIL);
    loop {
        let bytes = store.get(key, size - length, length).await?;
        match pack::tail(&bytes, size) {
            Ok(held) => return Ok(held),
            Err(pack::PackError::More(needed)) if needed > length && needed <= size => length = needed,
            Err(_) => return Ok(Vec::new()),
        }
    }
}

const _: () = assert!(FOOT < TAIL as usize, "the end of a pack is in what is read first");

/// An index that also knows what was left unfinished.
#[derive(Clone, Copy)]
pub struct Resuming<'a> {
    /// The index of what counts.
    pub index: &'a dyn ChunkIndex,
    /// What was left.
    pub left: &'a Unfinished,
}

#[async_trait]
impl ChunkIndex for Resuming<'_> {
    async fn locate(&self, digests: &[Digest]) -> Result<Vec<Option<Location>>, StoreError> {
        self.index.locate(digests).await
    }
    fn format(&self) -> u32 {
        self.index.format()
    }
    fn unfinished(&self) -> Places {
        self.left.take()
    }
    fn leave(&self, places: Places) {
        self.left.leave(places);
    }
}
