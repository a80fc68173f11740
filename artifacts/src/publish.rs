//! Puts a tree into a store: packs first, the manifest last. What is published
//! is never torn: every file is read through one descriptor, and a file that
//! changed or lost its name meanwhile ends the attempt before the manifest is
//! written. What was uploaded by then is only waste, never a checkpoint.

use std::io;
use std::path::{Path, PathBuf};

use async_trait::async_trait;

use crate::chunk::{Cuts, MAX, outline};
use crate::digest::Digest;
use crate::index::{ChunkIndex, Location};
use crate::key::{KeyError, ObjectKey};
use crate::manifest::{ChunkRef, Entry, Kind, MAX_BYTES, Manifest, ManifestError, Node, VERSION};
use crate::offload::offload;
use crate::path::{PathError, check_path, leaf};
use crate::store::{Put, Store, StoreError};

mod pace;
mod pack;
mod scan;

use pack::{Packer, Piece, Pieces, Where};
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
        let text = path.file_name().and_then(|name| name.to_str());
        let name = text.ok_or_else(|| io::Error::other("the checkpoint has no readable name"))?.to_owned();
        let single_file = path.metadata()?.is_file();
        let (root, paths) = if single_file {
            let above = path.parent().filter(|above| !above.as_os_str().is_empty());
            (above.unwrap_or(Path::new(".")).to_owned(), vec![name.clone()])
        } else {
            (path.to_owned(), scan::everything(path)?)
        };
        Ok(Self { root, paths, kind: Kind::Checkpoint, step, name, single_file, created_ms })
    }

    fn about(&self) -> About {
        let Self { kind, step, name, single_file, created_ms, .. } = self.clone();
        About { kind, step, name, single_file, created_ms }
    }
}

/// Publishes files of this machine. Memory stays below some 30 MiB, whatever
/// the size of the files.
pub async fn publish(
    selection: &Selection,
    keys: &mut KeySpace,
    store: &dyn Store,
    index: &dyn ChunkIndex,
) -> Result<Published, PublishError> {
    let chosen = selection.clone();
    let scan = offload(move || Scan::open(&chosen)).await.map_err(|e| lost(&e))??;
    let mut pieces = FilePieces(Some(scan));
    let mut packer = Packer::new(keys, store, index, Where::Aside);
    packer.drain(&mut pieces).await?;
    let scan = pieces.0.take().ok_or_else(|| lost(&io::Error::other("the reader is gone")))?;
    // Not before everything is uploaded: the last look comes last.
    let found = offload(move || scan.finish()).await.map_err(|e| lost(&e))??;
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
    let store = packer.store;
    let packed = packer.finish().await?;
    let mut entries = Vec::with_capacity(found.len());
    for (number, (path, found)) in found.into_iter().enumerate() {
        let node = match found {
            Found::Dir { mode } => Node::Dir { mode },
            Found::Link { target } => Node::Symlink { target },
            Found::File { mode, size, mtime_ms } => {
                let cuts = packed.cuts.get(number).map(Vec::as_slice).unwrap_or_default();
                let chunks = cuts.iter().filter_map(|digest| {
                    let Location { pack, offset, len, stored, codec } = packed.places.get(digest)?.clone();
                    Some(ChunkRef { digest: *digest, len, pack, offset, stored, codec })
                });
                Node::File { mode, size, mtime_ms, chunks: chunks.collect() }
            }
        };
        entries.push(Entry { path, node });
    }
    entries.sort_by(|a, b| a.path.cmp(&b.path));
    let About { kind, step, name, single_file, created_ms } = about;
    let manifest = Manifest { version: VERSION, kind, step, name, single_file, created_ms, entries };
    // Nothing is published that a reader would refuse.
    manifest.check()?;
    let bytes = manifest.to_bytes();
    if bytes.len() as u64 > MAX_BYTES {
        return Err(ManifestError::TooLarge(bytes.len() as u64).into());
    }
    let keys = packed.keys;
    let key = ObjectKey::manifest(&keys.scope, keys.generation, keys.manifest_seq)?;
    let put = store.put_if_absent(&key, &bytes).await?;
    // Taken or ours, the number is used.
    keys.manifest_seq += 1;
    if put == Put::Different {
        return Err(PublishError::ManifestTaken { key });
    }
    Ok(Published {
        manifest_key: key,
        manifest_digest: Digest::of(&bytes),
        content_digest: manifest.content_digest(),
        total_bytes: manifest.total_bytes(),
        manifest,
        new_bytes: packed.new_bytes,
        new_chunks: packed.new_chunks,
        sent_bytes: packed.sent_bytes,
    })
}

fn lost(error: &io::Error) -> PublishError {
    PublishError::Io { path: "the selected files".into(), source: io::Error::other(error.to_string()) }
}

/// The files of a scan, read where blocking is allowed.
struct FilePieces(Option<Scan>);

#[async_trait]
impl Pieces for FilePieces {
    async fn next(&mut self) -> Result<Vec<Piece>, PublishError> {
        let mut scan = self.0.take().ok_or_else(|| lost(&io::Error::other("the reader is gone")))?;
        let work = move || {
            let read = scan.read();
            (scan, read)
        };
        let (scan, read) = offload(work).await.map_err(|e| lost(&e))?;
        self.0 = Some(scan);
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
            batch.add(self.entry, &rest[..length]);
            self.offset += length;
        }
        Ok(batch.into_pieces())
    }
}

pub(crate) fn is_reserved(path: &str) -> bool {
    leaf(path).starts_with(crate::restore::SCRATCH)
}
