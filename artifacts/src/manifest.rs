//! The description of one tree: every name in it and where the bytes lie. It
//! is put last, so its presence means the tree is stored. A manifest that is
//! read is hostile: nothing in it may name a place outside the tree.

use std::collections::{BTreeSet, HashMap, HashSet};

use serde::{Deserialize, Serialize};

use crate::codec::Codec;
use crate::digest::Digest;
use crate::index::Location;
use crate::key::{ObjectClass, ObjectKey};
use crate::path::{PathError, check_link, check_path, harmless};
use crate::seal::{self, Seal};

mod description;
mod wire;

pub use description::Description;
pub(crate) use description::ends;

/// The newest version this crate writes, where a tree needs it. It reads every
/// version up to this one: what was stored stays readable.
pub const VERSION: u32 = 3;
/// No manifest may be larger.
pub const MAX_BYTES: u64 = 64 << 20;
/// No chunk takes fewer bytes in one: its digest, four numbers of a digit, and
/// what is between them.
pub(crate) const LEAST_PER_CHUNK: u64 = 64 + 2 + 3 * 2 + 3;
const MAX_ENTRIES: usize = 2_000_000;
pub(crate) const MAX_CHUNK: u32 = 8 << 20;
const MAX_PACK: u64 = 64 << 20;

/// What a tree is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Source code of a run.
    Source,
    /// State to go on from.
    Checkpoint,
    /// Result files.
    Outputs,
}

/// One tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    /// Version of the format.
    pub version: u32,
    /// What the tree is.
    pub kind: Kind,
    /// The step a checkpoint was made at, where known.
    pub step: Option<u64>,
    /// Base name of the checkpoint's file or directory; empty for other trees.
    pub name: String,
    /// The tree is one file, to be restored as that file.
    pub single_file: bool,
    /// When it was published, in milliseconds since 1970.
    pub created_ms: u64,
    /// Chunks of earlier trees that chunks of this one are differences to.
    pub bases: Vec<ChunkRef>,
    /// Everything in the tree, sorted by path. Parents need no entry.
    pub entries: Vec<Entry>,
}

/// One name in a tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Relative, `/`-separated.
    pub path: String,
    /// What it names.
    pub node: Node,
}

/// What a name stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Node {
    /// A file.
    File {
        /// Permission bits, at most 0o777.
        mode: u32,
        /// Length in bytes: the sum of its chunks.
        size: u64,
        /// Last change, in milliseconds since 1970.
        mtime_ms: i64,
        /// Its bytes, in order.
        chunks: Vec<ChunkRef>,
    },
    /// A directory, mentioned for its mode or because it is empty.
    Dir {
        /// Permission bits, at most 0o777.
        mode: u32,
    },
    /// A symbolic link that stays inside the tree.
    Symlink {
        /// Where it points, relative to its own directory.
        target: String,
    },
}

/// A chunk and the place of its bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChunkRef {
    /// Hash of the plain bytes.
    pub digest: Digest,
    /// How many plain bytes.
    pub len: u32,
    /// The pack that holds them.
    pub pack: ObjectKey,
    /// The first stored byte within the pack.
    pub offset: u64,
    /// How many stored bytes: at most as many as plain ones, and what sealing
    /// adds.
    pub stored: u32,
    /// What makes plain bytes of them.
    pub codec: Codec,
    /// The number of its base among those of the manifest, if it is a
    /// difference.
    pub base: Option<u32>,
    /// What it has in a sealed tree.
    pub seal: Option<Box<Seal>>,
}

impl ChunkRef {
    pub(crate) fn place(&self) -> Location {
        let Self { pack, offset, len, stored, codec, seal, .. } = self;
        let cipher = seal.as_ref().map(|seal| seal.cipher);
        Location { pack: pack.clone(), offset: *offset, len: *len, stored: *stored, codec: *codec, cipher }
    }

    /// What the index calls it: its digest, and where it is sealed its name.
    #[must_use]
    pub fn name(&self) -> &Digest {
        self.seal.as_ref().map_or(&self.digest, |seal| &seal.name)
    }

    /// The end of its stored bytes within the pack.
    #[must_use]
    pub fn end(&self) -> u64 {
        self.offset.saturating_add(u64::from(self.stored))
    }

    fn check(&self, version: u32) -> Result<(), &'static str> {
        if version < self.codec.version() {
            return Err("has a chunk with a codec that its version does not know");
        }
        if self.seal.is_some() != (version >= seal::VERSION) {
            return Err("has a chunk that is sealed, or not, as its version is not");
        }
        if self.base.is_some() != (self.codec == Codec::Delta) {
            return Err("has a chunk whose codec and base do not go together");
        }
        check_place(&self.place())
    }
}

/// Whether a chunk can lie there, whoever says so: a manifest or an index.
pub(crate) fn check_place(place: &Location) -> Result<(), &'static str> {
    let Location { pack, offset, len, stored, codec, cipher } = place;
    let (offset, len, stored) = (*offset, *len, *stored);
    if !matches!(pack.seq(), Some((ObjectClass::Pack, _))) {
        return Err("has a chunk that lies in no pack");
    }
    if len == 0 || len > MAX_CHUNK {
        return Err("has a chunk of an impossible size");
    }
    let more = if cipher.is_some() { seal::OVERHEAD } else { 0 };
    if stored <= more || stored > len + more || *codec == Codec::Raw && stored != len + more {
        return Err("has a chunk that takes an impossible room");
    }
    let end = offset.saturating_add(u64::from(stored));
    if end > MAX_PACK { Err("has a chunk beyond the end of any pack") } else { Ok(()) }
}

/// Why a manifest is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ManifestError {
    /// More bytes than any manifest may have.
    #[error("the manifest has {0} bytes, more than {MAX_BYTES}: split the tree")]
    TooLarge(u64),
    /// Written by another version.
    #[error("the manifest has version {0}, this program reads up to {VERSION}: upgrade it")]
    Version(u32),
    /// Written by another version that kept the number: not damage.
    #[error("the manifest has a chunk with codec {0}, which this program does not know: upgrade it")]
    Codec(u8),
    /// Sealed: its key is needed to know what it holds.
    #[error("the manifest is sealed, and no key was given")]
    Sealed,
    /// Not the format at all.
    #[error("the manifest does not parse: {0}")]
    Malformed(String),
    /// More names than any tree may have.
    #[error("the manifest has {0} entries, more than {MAX_ENTRIES}: split the tree")]
    TooMany(usize),
    /// A name or link that could leave the tree.
    #[error(transparent)]
    Path(#[from] PathError),
    /// An entry that contradicts itself or another.
    #[error("entry `{path}` {why}")]
    Entry {
        /// Which.
        path: String,
        /// What is wrong.
        why: &'static str,
    },
    /// The tree's own name or shape is impossible.
    #[error("the manifest {0}")]
    Tree(&'static str),
}

impl Manifest {
    /// Canonical bytes: the same tree gives the same bytes.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        wire::encode(self)
    }

    /// Reads and checks a manifest that is not sealed.
    pub fn parse(bytes: &[u8]) -> Result<Self, ManifestError> {
        if bytes.len() as u64 > MAX_BYTES {
            return Err(ManifestError::TooLarge(bytes.len() as u64));
        }
        if seal::is_sealed(bytes) {
            return Err(ManifestError::Sealed);
        }
        let manifest = wire::decode(bytes)?;
        manifest.check()?;
        Ok(manifest)
    }

    /// Reads the manifest within a sealed one; its chunks lack their keys, and
    /// nothing is checked yet.
    pub(crate) fn parse_inner(bytes: &[u8]) -> Result<Self, ManifestError> {
        wire::decode(bytes)
    }

    /// Bytes of all files together.
    #[must_use]
    pub fn total_bytes(&self) -> u64 {
        let sizes = self.entries.iter().map(|entry| match &entry.node {
            Node::File { size, .. } => *size,
            Node::Dir { .. } | Node::Symlink { .. } => 0,
        });
        sizes.fold(0, u64::saturating_add)
    }

    /// How many files the tree has.
    #[must_use]
    pub fn files(&self) -> u64 {
        self.entries.iter().filter(|entry| matches!(entry.node, Node::File { .. })).count() as u64
    }

    /// Everything that must be in the store for the tree to be restored: its
    /// chunks, and the bases of those that are differences.
    pub fn needed(&self) -> impl Iterator<Item = &ChunkRef> {
        self.bases.iter().chain(self.chunks())
    }

    /// The packs the tree needs, sorted, each once; those of bases too.
    #[must_use]
    pub fn packs(&self) -> Vec<ObjectKey> {
        let mut packs = BTreeSet::new();
        let mut last = None;
        for chunk in self.needed() {
            // Neighbours mostly share a pack.
            if last != Some(&chunk.pack) {
                packs.insert(&chunk.pack);
                last = Some(&chunk.pack);
            }
        }
        packs.into_iter().cloned().collect()
    }

    /// The first version that can say what this tree holds: what needs no
    /// newer one stays readable by older programs.
    #[must_use]
    pub fn needed_version(&self) -> u32 {
        let of = |chunk: &ChunkRef| if chunk.seal.is_some() { seal::VERSION } else { chunk.codec.version() };
        self.chunks().map(of).max().unwrap_or(1)
    }

    /// Some of its chunks as a tree of one file, with those bases that they
    /// are differences to: what a part of a checkpoint is read and verified by.
    #[must_use]
    pub fn part(&self, mut chunks: Vec<ChunkRef>) -> Self {
        let size = chunks.iter().map(|chunk| u64::from(chunk.len)).sum();
        let mut bases = Vec::new();
        let mut numbers = HashMap::new();
        for base in chunks.iter_mut().filter_map(|chunk| chunk.base.as_mut()) {
            // One that is not there stays out of reach, and is refused.
            let Some(held) = self.bases.get(*base as usize) else { continue };
            *base = *numbers.entry(*base).or_insert_with(|| {
                bases.push(held.clone());
                u32::try_from(bases.len() - 1).unwrap_or(u32::MAX)
            });
        }
        let node = Node::File { mode: 0o600, size, mtime_ms: 0, chunks };
        Self {
            version: self.version,
            kind: self.kind,
            step: self.step,
            name: self.name.clone(),
            single_file: false,
            created_ms: self.created_ms,
            bases,
            entries: vec![Entry { path: "part".into(), node }],
        }
    }

    pub(crate) fn chunks(&self) -> impl Iterator<Item = &ChunkRef> {
        self.entries.iter().flat_map(|entry| match &entry.node {
            Node::File { chunks, .. } => chunks.as_slice(),
            Node::Dir { .. } | Node::Symlink { .. } => &[],
        })
    }

    /// Names what the tree holds: paths, modes, links and content, whenever it
    /// was written and wherever its bytes lie.
    #[must_use]
    pub fn content_digest(&self) -> Digest {
        let mut hasher = blake3::Hasher::new_derive_key("outlast content of a tree, version 1");
        let mut text = |tag: u8, text: &str, number: u64, chunks: &[ChunkRef]| {
            hasher.update(&[tag]).update(&(text.len() as u64).to_le_bytes()).update(text.as_bytes());
            hasher.update(&number.to_le_bytes()).update(&(chunks.len() as u64).to_le_bytes());
            for chunk in chunks {
                hasher.update(chunk.digest.as_bytes()).update(&chunk.len.to_le_bytes());
            }
        };
        for entry in self.sorted() {
            match &entry.node {
                Node::File { mode, chunks, .. } => text(b'f', &entry.path, u64::from(*mode), chunks),
                Node::Dir { mode } => text(b'd', &entry.path, u64::from(*mode), &[]),
                Node::Symlink { target } => {
                    text(b'l', &entry.path, 0, &[]);
                    text(b't', target, 0, &[]);
                }
            }
        }
        Digest::from_bytes(*hasher.finalize().as_bytes())
    }

    fn sorted(&self) -> Vec<&Entry> {
        let mut entries: Vec<&Entry> = self.entries.iter().collect();
        entries.sort_by(|a, b| a.path.cmp(&b.path));
        entries
    }

    /// Refuses what no honest tree can be. `parse` has done this already.
    pub fn check(&self) -> Result<(), ManifestError> {
        if !(1..=VERSION).contains(&self.version) {
            return Err(ManifestError::Version(self.version));
        }
        if self.entries.len() > MAX_ENTRIES {
            return Err(ManifestError::TooMany(self.entries.len()));
        }
        if !self.name.is_empty() && (self.name.contains('/') || check_path(&self.name).is_err()) {
            return Err(ManifestError::Tree("has a name that is no file name"));
        }
        if self.single_file && !matches!(self.entries.as_slice(), [Entry { node: Node::File { .. }, .. }]) {
            return Err(ManifestError::Tree("says it is one file, but it is not"));
        }
        for base in &self.bases {
            // One that needs another would make chains of unknown length.
            if base.check(self.version).is_err() || base.base.is_some() {
                return Err(ManifestError::Tree("has a base that none can be"));
            }
        }
        if self.bases.len() > self.chunks().count() {
            return Err(ManifestError::Tree("has more bases than chunks"));
        }
        let mut total = 0_u64;
        let mut previous = "";
        let mut leaves = HashSet::new();
        for entry in &self.entries {
            check_path(&entry.path)?;
            if entry.path.as_str() <= previous {
                return Err(entry.refuse("is out of order or named twice"));
            }
            previous = &entry.path;
            let size = entry.check(self.version, &self.bases)?;
            total = total.checked_add(size).ok_or_else(|| entry.refuse("makes the tree impossibly large"))?;
            if !matches!(entry.node, Node::Dir { .. }) {
                leaves.insert(entry.path.as_str());
            }
        }
        for entry in &self.entries {
            let above = entry.path.match_indices('/').map(|(at, _)| &entry.path[..at]);
            if above.into_iter().any(|above| leaves.contains(above)) {
                return Err(entry.refuse("lies below something that is no directory"));
            }
        }
        Ok(())
    }
}

impl Entry {
    /// Bytes of the file; 0 for anything else.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        match &self.node {
            Node::File { size, .. } => *size,
            Node::Dir { .. } | Node::Symlink { .. } => 0,
        }
    }

    fn refuse(&self, why: &'static str) -> ManifestError {
        ManifestError::Entry { path: harmless(&self.path), why }
    }

    fn check(&self, version: u32, bases: &[ChunkRef]) -> Result<u64, ManifestError> {
        match &self.node {
            Node::Symlink { target } => check_link(&self.path, target).map(|()| 0).map_err(Into::into),
            Node::Dir { mode } if *mode > 0o777 => Err(self.refuse("has a mode above 0777")),
            Node::Dir { .. } => Ok(0),
            Node::File { mode, .. } if *mode > 0o777 => Err(self.refuse("has a mode above 0777")),
            Node::File { size, chunks, .. } => {
                let mut sum = 0_u64;
                for chunk in chunks {
                    chunk.check(version).map_err(|why| self.refuse(why))?;
                    let base = chunk.base.map(|number| bases.get(number as usize));
                    if base.is_some_and(|base| base.is_none_or(|base| base.len != chunk.len)) {
                        return Err(self.refuse("has a chunk with an impossible base"));
                    }
                    sum = sum.saturating_add(u64::from(chunk.len));
                }
                if sum == *size {
                    Ok(sum)
                } else {
                    Err(self.refuse("has a size that its chunks do not sum to"))
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
