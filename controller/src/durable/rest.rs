//! What a new tree may rest on. The index says where chunks were put; whether
//! they are still there, and whole, is asked of the store before anybody is
//! told of them, or one pack that was lost or damaged would spoil every later
//! checkpoint, while the machine at work has the right bytes. What is bad is
//! offered to nobody any more and comes to be sent anew. Never the last word:
//! each commit asks for its packs again.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use artifacts::codec::Codec;
use artifacts::manifest::{ChunkRef, Entry, Node};
use artifacts::restore::{RestoreError, verify, verify_chunks};
use artifacts::seal::SealedChunk;
use artifacts::{Digest, Kind, Location, Manifest, ObjectKey};
use serde_json::json;

use crate::core::{Changes, Core, CoreError};
use crate::execute::SELF;
use crate::store::ChunkPut;

/// A pack is asked for again after this.
const ASKED_MS: u64 = 10_000;
/// A chunk of somebody else's is read again after this, one's own after a day.
const READ_MS: u64 = 3_600_000;
const OWN_MS: u64 = 86_400_000;
/// A publisher waits no longer than this; then the index answers alone.
const PATIENCE: Duration = Duration::from_secs(4);
/// Packs of which one journal entry tells.
const NAMED: usize = 20;

/// What was found wrong.
#[derive(Default)]
struct Looked {
    /// Gone, cut or damaged, and how.
    bad: BTreeMap<ObjectKey, String>,
    /// They could not be read now.
    unread: BTreeSet<ObjectKey>,
}

/// Of chunks that were found in the index those that are there, as far as there
/// is time to look. `own`: packs of whoever asks, which he put himself.
///
/// # Errors
/// Where the database fails.
pub(crate) async fn reliable(
    core: &Core,
    mut found: Vec<Option<ChunkPut>>,
    own: impl Fn(&ObjectKey) -> bool + Sync,
) -> Result<Vec<Option<ChunkPut>>, CoreError> {
    if !core.known.may_ask(core.clock.mono_ms()) {
        return Ok(found);
    }
    let Ok(looked) = tokio::time::timeout(PATIENCE, Box::pin(look(core, &found, own))).await else {
        core.known.was_silent(core.clock.mono_ms());
        return Ok(found);
    };
    if looked.bad.is_empty() && looked.unread.is_empty() {
        return Ok(found);
    }
    let fits = |chunk: &ChunkPut| {
        !chunk.pack.parse().is_ok_and(|pack| looked.bad.contains_key(&pack) || looked.unread.contains(&pack))
    };
    found.iter_mut().for_each(|hit| *hit = hit.take().filter(fits));
    if !looked.bad.is_empty() {
        forget(core, &looked.bad).await?;
    }
    Ok(found)
}

/// Chunks of these packs are offered to nobody any more.
///
/// # Errors
/// Where the database fails.
pub(crate) async fn forget(core: &Core, bad: &BTreeMap<ObjectKey, String>) -> Result<(), CoreError> {
    let mut changes = Changes::default();
    changes.0.forget_packs = bad.keys().map(ToString::to_string).collect();
    for (number, (pack, why)) in bad.iter().enumerate() {
        core.known.forget(pack);
        tracing::warn!(%pack, why, "nothing new rests on this pack: its chunks are stored anew");
        if number < NAMED {
            changes = changes.note(core, SELF, "pack-bad", pack, None, json!({"why": why}));
        }
    }
    core.commit_quietly(changes).await.map(|_| ())
}

async fn look(core: &Core, found: &[Option<ChunkPut>], own: impl Fn(&ObjectKey) -> bool) -> Looked {
    let mut looked = Looked::default();
    let mut packs: BTreeMap<ObjectKey, Vec<&ChunkPut>> = BTreeMap::new();
    for hit in found.iter().flatten() {
        if let Ok(pack) = hit.pack.parse() {
            packs.entry(pack).or_default().push(hit);
        }
    }
    let now = core.clock.mono_ms();
    let is_due = |pack: &&ObjectKey| core.known.seen(pack).is_none_or(|seen| seen.asked_ms + ASKED_MS <= now);
    match super::stored::sizes(core, packs.keys().filter(is_due)).await {
        Ok(sizes) => {
            let gone = sizes.into_iter().filter(|(_, size)| size.is_none());
            looked.bad = gone.map(|(pack, _)| (pack, "it is gone from the store".to_owned())).collect();
        }
        // Nobody can say now; the commit asks again.
        Err(error) => {
            tracing::debug!(%error, "packs could not be asked for");
            return looked;
        }
    }
    for (pack, hits) in &packs {
        let Some(seen) = core.known.seen(pack) else { continue };
        let end = hits.iter().map(|hit| hit.offset.saturating_add(u64::from(hit.stored))).max().unwrap_or(0);
        if seen.size < end {
            let why = format!("it has {} of {end} bytes", seen.size);
            looked.bad.insert(pack.clone(), why);
            continue;
        }
        let believed = if own(pack) { OWN_MS } else { READ_MS };
        if own(pack) && seen.named_ms.is_some_and(|at| now < at + OWN_MS) {
            continue;
        }
        let is_unread =
            |hit: &&ChunkPut| core.known.right_ms(&place(hit)).is_none_or(|at| at + believed <= now);
        let unread: Vec<&ChunkPut> = hits.iter().copied().filter(is_unread).collect();
        if unread.is_empty() || !core.known.may_read(core.clock.mono_ms()) {
            continue;
        }
        let began = core.clock.mono_ms();
        let done = read(core, pack, &unread).await;
        core.known.has_read(core.clock.mono_ms().saturating_sub(began));
        match done {
            Ok(()) => unread.iter().for_each(|hit| core.known.right(place(hit), now)),
            Err(error) if super::is_passing(&error) => {
                tracing::debug!(%pack, %error, "a pack could not be read, and nothing rests on it now");
                looked.unread.insert(pack.clone());
            }
            Err(error) => {
                looked.bad.insert(pack.clone(), error.to_string());
            }
        }
    }
    looked
}

/// Names a chunk at its place.
fn place(hit: &ChunkPut) -> [u8; 16] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&hit.digest).update(hit.pack.as_bytes()).update(&hit.offset.to_le_bytes());
    let mut short = [0; 16];
    short.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
    short
}

/// Reads chunks of one pack: sealed ones have the hash of what is stored, the
/// others of what they hold.
async fn read(core: &Core, pack: &ObjectKey, hits: &[&ChunkPut]) -> Result<(), RestoreError> {
    let mut sealed = Vec::new();
    let mut chunks = Vec::new();
    for hit in hits {
        // What a later version coded is not offered to anybody here.
        let Ok(codec) = Codec::try_from(hit.codec) else { continue };
        let (digest, cipher) = (Digest::from_bytes(hit.digest), hit.cipher.map(Digest::from_bytes));
        let (offset, len, stored) = (hit.offset, hit.len, hit.stored);
        if cipher.is_some() {
            let place = Location { pack: pack.clone(), offset, len, stored, codec, cipher };
            sealed.push(SealedChunk { name: digest, place });
        } else {
            let pack = pack.clone();
            chunks.push(ChunkRef { digest, len, pack, offset, stored, codec, base: None, seal: None });
        }
    }
    sealed.sort_by_key(|chunk| chunk.place.offset);
    verify_chunks(&*core.objects, &sealed.iter().collect::<Vec<_>>()).await?;
    if chunks.is_empty() {
        return Ok(());
    }
    let size = chunks.iter().map(|chunk| u64::from(chunk.len)).sum();
    let node = Node::File { mode: 0o600, size, mtime_ms: 0, chunks };
    let mut tree = Manifest {
        version: 1,
        kind: Kind::Source,
        step: None,
        name: String::new(),
        single_file: false,
        created_ms: 0,
        bases: Vec::new(),
        entries: vec![Entry { path: "part".into(), node }],
    };
    tree.version = tree.needed_version();
    verify(&*core.objects, &tree).await.map(drop)
}
