//! Puts a tree into a store: packs first, the manifest last. What is published
//! is never torn: every file is read through one descriptor, and a file that
//! changed or lost its name meanwhile ends the attempt before the manifest is
//! written. What was uploaded by then is only waste, never a checkpoint.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;

use crate::chunk::{Cuts, MAX, outline};
use crate::digest::Digest;
use crate::index::{ChunkIndex, Places, own};
use crate::key::{KeyError, ObjectKey};
use crate::manifest::{Entry, Kind, LEAST_PER_CHUNK, MAX_BYTES, Manifest, ManifestError, Node};
use crate::offload::{Started, offload, start};
use crate::path::{PathError, check_path, leaf};
use crate::seal::{self, SealError, Sealing};
use crate::store::{Put, Store, StoreError};

mod base;
mod flight;
mod pace;
mod pack;
mod scan;

use base::Lineage;
pub use base::{Against, Keyframe};
use pack::{Cut, Packed, Packer, Piece, Pieces, Sent, Where};
use scan::{Found, Scan};

/// The next free numbers of one generation; publishing advances them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeySpace {
    /// A run id, or `source`.
    pub scope: String,
    /// The generation whose numbers these are.
    pub generation: u64,
    /// The next pack.
    pub pack_seq: u64,
    /// The next manifest.
    pub manifest_seq: u64,
}

/// What a tree is stored with, besides the tree.
#[derive(Debug, Clone, Default)]
pub struct With {
    /// Chunks are stored as differences to those of this one where that takes
    /// clearly less.
    pub keyframe: Option<Arc<Keyframe>>,
    /// The tree is sealed.
    pub sealing: Option<Arc<Sealing>>,
}

impl From<Option<Arc<Keyframe>>> for With {
    fn from(keyframe: Option<Arc<Keyframe>>) -> Self {
        Self { keyframe, sealing: None }
    }
}

/// What to publish, already chosen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Selection {
    /// The directory that paths are relative to.
    pub root: PathBuf,
    /// Files, directories and links below the root. A directory stands for
    /// itself, not for what is in it; parents need no mention.
    pub paths: Vec<String>,
    /// What the tree is.
    pub kind: Kind,
    /// The step of a checkpoint.
    pub step: Option<u64>,
    /// Base name of the checkpoint's file or directory; empty for other trees.
    pub name: String,
    /// The one path is a file, to be restored as that file.
    pub single_file: bool,
    /// Now, in milliseconds since 1970: this crate asks no clock.
    pub created_ms: u64,
}

/// The labels of a tree that is published from memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct About {
    /// What the tree is.
    pub kind: Kind,
    /// The step of a checkpoint.
    pub step: Option<u64>,
    /// Base name of the checkpoint's file or directory; empty for other trees.
    pub name: String,
    /// The tree is one file, to be restored as that file.
    pub single_file: bool,
    /// Now, in milliseconds since 1970.
    pub created_ms: u64,
}

/// What was published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Published {
    /// Where the manifest lies.
    pub manifest_key: ObjectKey,
    /// Hash of the manifest's bytes.
    pub manifest_digest: Digest,
    /// What the tree holds, whenever and wherever it was written.
    pub content_digest: Digest,
    /// The manifest itself.
    pub manifest: Manifest,
    /// Bytes of all files together.
    pub total_bytes: u64,
    /// Bytes that were not in the store before.
    pub new_bytes: u64,
    /// Chunks that were not in the store before.
    pub new_chunks: u64,
    /// Bytes of the packs that were put: new chunks as they are stored.
    pub sent_bytes: u64,
    /// What chunks that had a base took, whatever they were stored as.
    pub against: Against,
    /// The store is known to be slower than coding, so that coding pays.
    pub pays: bool,
}

/// Why nothing was published.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// The program wrote, replaced or removed it meanwhile: try again later.
    #[error("`{path}` changed while it was read: it is published once it is at rest")]
    Changed {
        /// Which.
        path: String,
    },
    /// The files are as they were read, but what had to hold for them to be
    /// published no longer does.
    #[error("what had to hold until the end no longer does: nothing was published")]
    Withdrawn,
    /// A device, socket or pipe, or a file where the selection says otherwise.
    #[error("`{path}` {why}")]
    Unfit {
        /// Which.
        path: String,
        /// What it is.
        why: &'static str,
    },
    /// A name or link that could leave the tree.
    #[error(transparent)]
    Path(#[from] PathError),
    /// A file could not be read.
    #[error("read `{path}`: {source}")]
    Io {
        /// Which.
        path: String,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
    /// The store or the index failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The generation's numbers are used up, or the scope is no scope.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The tree cannot be described.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// Another tree has the manifest's key; the number is skipped.
    #[error("manifest key `{key}` holds another tree: publish again under the next number")]
    ManifestTaken {
        /// The key.
        key: ObjectKey,
    },
    /// Hundreds of pack numbers in a row hold other bytes.
    #[error("pack keys up to `{key}` hold other bytes: begin at a higher number")]
    PacksTaken {
        /// The last key tried.
        key: ObjectKey,
    },
    /// It is to be sealed and could not be: it is stored in no other way.
    #[error("{0}: nothing was published, for it may only be stored sealed")]
    Unsealed(&'static str),
    /// The manifest could not be sealed.
    #[error("nothing was published, for it may only be stored sealed: {0}")]
    Seal(#[from] SealError),
    /// The index answered another question.
    #[error("the chunk index gave {answered} answers to {asked} questions")]
    Index {
        /// How many digests were asked for.
        asked: usize,
        /// How many answers came.
        answered: usize,
    },
}

impl Selection {
    /// Selects a whole checkpoint: a file, or a directory with all it holds.
    /// Blocks while it lists the directory.
    pub fn checkpoint(path: &Path, step: Option<u64>, created_ms: u64) -> io::Result<Self> {
        Self::checkpoint_leaving(path, step, created_ms, |_, _| false)
    }

    /// The same; `leave` is told each path in it that cannot travel, and why,
    /// and says whether to leave it out. What stays is refused by the publish.
    pub fn checkpoint_leaving(
        path: &Path,
        step: Option<u64>,
        created_ms: u64,
        leave: impl FnMut(&str, &'static str) -> bool,
    ) -> io::Result<Self> {
        let text = path.file_name().and_then(|name| name.to_str());
        let name = text.ok_or_else(|| io::Error::other("the checkpoint has no readable name"))?.to_owned();
        let single_file = path.metadata()?.is_file();
        let (root, paths) = if single_file {
            let above = path.parent().filter(|above| !above.as_os_str().is_empty());
            (above.unwrap_or(Path::new(".")).to_owned(), vec![name.clone()])
        } else {
            (path.to_owned(), scan::everything(path, leave)?)
        };
        Ok(Self { root, paths, kind: Kind::Checkpoint, step, name, single_file, created_ms })
    }

    fn about(&self) -> About {
        let Self { kind, step, name, single_file, created_ms, .. } = self.clone();
        About { kind, step, name, single_file, created_ms }
    }
}

/// Publishes files of this machine. Memory stays below 96 MiB, whatever the size
/// of the files.
pub async fn publish(
    selection: &Selection,
    keys: &mut KeySpace,
    store: &dyn Store,
    index: &dyn ChunkIndex,
) -> Result<Published, PublishError> {
    publish_if(selection, keys, store, index, || true).await
}

/// Publishes files of this machine if, once all of them were read, stored and
/// looked at again, `still` says so, which may block. Otherwise there is no
/// manifest in the store: one that is there may be committed by whoever finds
/// it, whatever its publisher came to think of it.
pub async fn publish_if(
    selection: &Selection,
    keys: &mut KeySpace,
    store: &dyn Store,
    index: &dyn ChunkIndex,
    still: impl FnOnce() -> bool + Send + 'static,
) -> Result<Published, PublishError> {
    publish_against(With::default(), selection, keys, store, index, still).await
}

/// The same, sealed or as differences to a keyframe, as `with` says.
pub async fn publish_against(
    with: impl Into<With> + Send,
    selection: &Selection,
    keys: &mut KeySpace,
    store: &dyn Store,
    index: &dyn ChunkIndex,
    still: impl FnOnce() -> bool + Send + 'static,
) -> Result<Published, PublishError> {
    let With { keyframe, sealing } = with.into();
    let (chosen, related) = (selection.clone(), keyframe.clone());
    let least = if sealing.is_some() { seal::LEAST_PER_CHUNK } else { LEAST_PER_CHUNK };
    let scan = move || Scan::open(&chosen, least).map(|scan| scan.against(related));
    let scan = offload(scan).await.map_err(|e| lost(&e))??;
    let mut pieces = read_ahead(scan);
    let mut packer = Packer::new(keys, store, index, Where::Aside).with(keyframe, sealing);
    packer = packer.keeps_small(selection.kind == Kind::Source);
    packer.drain(&mut pieces).await?;
    packer.flush().await?;
    let scan = pieces.into_scan()?;
    // Not before everything is uploaded: the last look comes last.
    let last_look =
        move || scan.finish().and_then(|found| still().then_some(found).ok_or(PublishError::Withdrawn));
    let found = offload(last_look).await.map_err(|e| lost(&e))??;
    finish(packer, selection.about(), found).await
}

/// Publishes files that are in memory; no file system and no thread is used.
pub async fn publish_bytes(
    files: &[(String, Vec<u8>)],
    about: &About,
    keys: &mut KeySpace,
    store: &dyn Store,
    index: &dyn ChunkIndex,
) -> Result<Published, PublishError> {
    for (path, _) in files {
        check_path(path)?;
    }
    let mtime_ms = i64::try_from(about.created_ms).unwrap_or(i64::MAX);
    let mut packer = Packer::new(keys, store, index, Where::Here);
    packer.drain(&mut BytePieces::new(files)).await?;
    let found = files
        .iter()
        .map(|(path, bytes)| (path.clone(), Found::File { mode: 0o644, size: bytes.len() as u64, mtime_ms }));
    finish(packer, about.clone(), found.collect()).await
}

async fn finish(
    packer: Packer<'_>,
    about: About,
    found: Vec<(String, Found)>,
) -> Result<Published, PublishError> {
    let Packed { keys, store, index, runs, tree, lineage, sent, pays } = packer.finish().await?;
    let against = lineage.against();
    if tree.sealing.is_some() && index.format() < seal::VERSION {
        index.leave(tree.places.within(|pack| own(pack, &keys.scope, keys.generation)));
        return Err(PublishError::Unsealed("the controller does not know sealed trees: upgrade it"));
    }
    let work = move || described(tree, lineage, about, found);
    let Described { manifest, bytes, digests, rest } = match runs {
        Where::Here => work()?,
        Where::Aside => offload(work).await.map_err(|e| lost(&e))??,
    };
    let put = match ObjectKey::manifest(&keys.scope, keys.generation, keys.manifest_seq) {
        Ok(key) => store.put_if_absent(&key, &bytes).await.map(|put| (key, put)).map_err(Into::into),
        Err(error) => Err(error.into()),
    };
    // Taken, ours or unknown, the number is used.
    keys.manifest_seq += 1;
    let put =
        put.and_then(
            |(key, put)| {
                if put == Put::Different { Err(PublishError::ManifestTaken { key }) } else { Ok(key) }
            },
        );
    let mut rest = rest.within(|pack| own(pack, &keys.scope, keys.generation));
    let manifest_key = match put {
        Ok(key) => {
            index.leave(rest);
            key
        }
        Err(error) => {
            rest.add(&manifest, |pack| own(pack, &keys.scope, keys.generation));
            index.leave(rest);
            return Err(error);
        }
    };
    let Sent { new_bytes, new_chunks, sent_bytes } = sent;
    let (manifest_digest, content_digest) = digests;
    Ok(Published {
        manifest_key,
        manifest_digest,
        content_digest,
        total_bytes: manifest.total_bytes(),
        manifest,
        new_bytes,
        new_chunks,
        sent_bytes,
        against,
        pays,
    })
}

/// A tree that is ready to be put.
struct Described {
    manifest: Manifest,
    bytes: Vec<u8>,
    /// Of the bytes, and of the content.
    digests: (Digest, Digest),
    /// Chunks that are stored and are none of its.
    rest: Places,
}

/// Describes a tree. The description of a large one takes most of the room
/// there is: the table it is made from is gone when its bytes are written.
fn described(
    tree: Cut,
    mut lineage: Lineage,
    about: About,
    found: Vec<(String, Found)>,
) -> Result<Described, PublishError> {
    let mut entries = Vec::with_capacity(found.len());
    for (number, (path, found)) in found.into_iter().enumerate() {
        let node = match found {
            Found::Dir { mode } => Node::Dir { mode },
            Found::Link { target } => Node::Symlink { target },
            Found::File { mode, size, mtime_ms } => {
                let numbers = tree.of(number);
                let mut chunks = Vec::with_capacity(numbers.len());
                let placed = numbers.iter().filter_map(|number| tree.chunk(*number));
                chunks.extend(placed.map(|chunk| lineage.related(chunk, tree.sealing.as_deref())));
                Node::File { mode, size, mtime_ms, chunks }
            }
        };
        entries.push(Entry { path, node });
    }
    let sealing = tree.sealing.clone();
    let unused = |number: &u32| !tree.used.get(*number as usize).copied().unwrap_or_default();
    let rest = tree.places.only((0..tree.places.len() as u32).filter(unused));
    drop(tree);
    let bases = lineage.into_bases();
    entries.sort_by(|a, b| a.path.cmp(&b.path));
    let About { kind, step, name, single_file, created_ms } = about;
    let mut manifest = Manifest { version: 1, kind, step, name, single_file, created_ms, bases, entries };
    // An empty tree has names that are nobody else's business, too.
    manifest.version = if sealing.is_some() { seal::VERSION } else { manifest.needed_version() };
    // Nothing is published that a reader would refuse.
    manifest.check()?;
    let bytes = match sealing {
        Some(sealing) => sealing.manifest(&manifest).map_err(|error| match error {
            // It will never fit: not as if only the sealing had failed.
            SealError::Manifest(error) => PublishError::Manifest(error),
            other => PublishError::Seal(other),
        })?,
        None => manifest.to_bytes(),
    };
    if bytes.len() as u64 > MAX_BYTES {
        return Err(ManifestError::TooLarge(bytes.len() as u64).into());
    }
    let digests = (Digest::of(&bytes), manifest.content_digest());
    Ok(Described { manifest, bytes, digests, rest })
}

fn lost(error: &io::Error) -> PublishError {
    PublishError::Io { path: "the selected files".into(), source: io::Error::other(error.to_string()) }
}

/// The files of a scan, read where blocking is allowed and one batch ahead.
enum FilePieces {
    Ahead(Started<(Scan, Result<Vec<Piece>, PublishError>)>),
    Over(Option<Box<Scan>>),
}

fn read_ahead(mut scan: Scan) -> FilePieces {
    FilePieces::Ahead(start(move || {
        let read = scan.read();
        (scan, read)
    }))
}

impl FilePieces {
    /// The scan, once all of it was read.
    fn into_scan(self) -> Result<Scan, PublishError> {
        match self {
            Self::Over(Some(scan)) => Ok(*scan),
            Self::Over(None) | Self::Ahead(_) => Err(lost(&io::Error::other("the reader is gone"))),
        }
    }
}

#[async_trait]
impl Pieces for FilePieces {
    async fn next(&mut self) -> Result<Vec<Piece>, PublishError> {
        let Self::Ahead(reading) = self else { return Ok(Vec::new()) };
        let (scan, read) = reading.done().await.map_err(|e| lost(&e))?;
        *self = match &read {
            Ok(pieces) if !pieces.is_empty() => read_ahead(scan),
            _ => Self::Over(Some(Box::new(scan))),
        };
        read
    }
}

struct BytePieces<'a> {
    files: &'a [(String, Vec<u8>)],
    entry: usize,
    offset: usize,
    cuts: Option<Cuts>,
}

impl<'a> BytePieces<'a> {
    const fn new(files: &'a [(String, Vec<u8>)]) -> Self {
        Self { files, entry: 0, offset: 0, cuts: None }
    }
}

#[async_trait]
impl Pieces for BytePieces<'_> {
    async fn next(&mut self) -> Result<Vec<Piece>, PublishError> {
        let mut batch = pack::Batch::default();
        while let Some((_, bytes)) = self.files.get(self.entry).filter(|_| !batch.full()) {
            let rest = &bytes[self.offset..];
            if rest.is_empty() {
                (self.entry, self.offset, self.cuts) = (self.entry + 1, 0, None);
                continue;
            }
            let size = bytes.len() as u64;
            let cuts = self.cuts.get_or_insert_with(|| Cuts::new(outline(bytes.as_slice(), size), size));
            let length = cuts.next(&rest[..rest.len().min(MAX)]);
            batch.add(self.entry, rest[..length].to_vec(), None);
            self.offset += length;
        }
        Ok(batch.into_pieces())
    }
}

pub(crate) fn is_reserved(path: &str) -> bool {
    leaf(path).starts_with(crate::restore::SCRATCH)
}

#[cfg(test)]
mod tests;
