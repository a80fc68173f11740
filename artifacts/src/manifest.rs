//! The description of one tree: every name in it and where the bytes lie. It
//! is put last, so its presence means the tree is stored. A manifest that is
//! read is hostile: nothing in it may name a place outside the tree.

use std::collections::{BTreeSet, HashSet};

use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::key::{ObjectClass, ObjectKey};
use crate::path::{PathError, check_link, check_path};

mod wire;

/// The version this crate writes and reads.
pub const VERSION: u32 = 1;
/// No manifest may be larger.
pub const MAX_BYTES: u64 = 64 << 20;
const MAX_ENTRIES: usize = 2_000_000;
const MAX_CHUNK: u32 = 8 << 20;
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
    /// Hash of the bytes.
    pub digest: Digest,
    /// How many.
    pub len: u32,
    /// The pack that holds them.
    pub pack: ObjectKey,
    /// The first byte within the pack.
    pub offset: u64,
}

/// Why a manifest is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ManifestError {
    /// More bytes than any manifest may have.
    #[error("the manifest has {0} bytes, more than {MAX_BYTES}: split the tree")]
    TooLarge(u64),
    /// Written by another version.
    #[error("the manifest has version {0}, this program reads {VERSION}: upgrade it")]
    Version(u32),
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

    /// Reads and checks a manifest.
    pub fn parse(bytes: &[u8]) -> Result<Self, ManifestError> {
        if bytes.len() as u64 > MAX_BYTES {
            return Err(ManifestError::TooLarge(bytes.len() as u64));
        }
        let manifest = wire::decode(bytes)?;
        manifest.check()?;
        Ok(manifest)
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

    /// The packs the tree needs, sorted, each once.
    #[must_use]
    pub fn packs(&self) -> Vec<ObjectKey> {
        let packs: BTreeSet<&ObjectKey> = self.chunks().map(|chunk| &chunk.pack).collect();
        packs.into_iter().cloned().collect()
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
        if self.version != VERSION {
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
        let mut total = 0_u64;
        let mut previous = "";
        let mut leaves = HashSet::new();
        for entry in &self.entries {
            check_path(&entry.path)?;
            if entry.path.as_str() <= previous {
                return Err(entry.refuse("is out of order or named twice"));
            }
            previous = &entry.path;
            let size = entry.check()?;
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
    fn refuse(&self, why: &'static str) -> ManifestError {
        ManifestError::Entry { path: self.path.chars().take(200).collect(), why }
    }

    fn check(&self) -> Result<u64, ManifestError> {
        match &self.node {
            Node::Symlink { target } => check_link(&self.path, target).map(|()| 0).map_err(Into::into),
            Node::Dir { mode } if *mode > 0o777 => Err(self.refuse("has a mode above 0777")),
            Node::Dir { .. } => Ok(0),
            Node::File { mode, .. } if *mode > 0o777 => Err(self.refuse("has a mode above 0777")),
            Node::File { size, chunks, .. } => {
                let mut sum = 0_u64;
                for chunk in chunks {
                    if !matches!(chunk.pack.seq(), Some((ObjectClass::Pack, _))) {
                        return Err(self.refuse("has a chunk that lies in no pack"));
                    }
                    if chunk.len == 0 || chunk.len > MAX_CHUNK {
                        return Err(self.refuse("has a chunk of an impossible size"));
                    }
                    if chunk.offset.saturating_add(u64::from(chunk.len)) > MAX_PACK {
                        return Err(self.refuse("has a chunk beyond the end of any pack"));
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
mod tests {
    use super::*;

    fn chunk(text: &[u8]) -> ChunkRef {
        ChunkRef {
            digest: Digest::of(text),
            len: text.len() as u32,
            pack: ObjectKey::pack("source", 1, 1).unwrap(),
            offset: 0,
        }
    }

    fn file(path: &str, text: &[u8]) -> Entry {
        let chunks = if text.is_empty() { Vec::new() } else { vec![chunk(text)] };
        let node = Node::File { mode: 0o644, size: text.len() as u64, mtime_ms: 5, chunks };
        Entry { path: path.into(), node }
    }

    fn link(path: &str, target: &str) -> Entry {
        Entry { path: path.into(), node: Node::Symlink { target: target.into() } }
    }

    fn tree(entries: Vec<Entry>) -> Manifest {
        Manifest {
            version: 1,
            kind: Kind::Source,
            step: None,
            name: String::new(),
            single_file: false,
            created_ms: 1,
            entries,
        }
    }

    fn good() -> Manifest {
        let dir = Entry { path: "d".into(), node: Node::Dir { mode: 0o755 } };
        tree(vec![file("a", b"one"), dir, file("d-x", b""), file("d/b", b"two"), link("d/l", "../a")])
    }

    #[test]
    fn bytes_are_canonical_and_survive() {
        let manifest = good();
        let bytes = manifest.to_bytes();
        let back = Manifest::parse(&bytes).unwrap();
        assert_eq!(back, manifest);
        let mut shuffled = manifest.clone();
        shuffled.entries.reverse();
        assert_eq!(shuffled.to_bytes(), bytes);
        assert_eq!(shuffled.content_digest(), manifest.content_digest());
        assert_eq!(manifest.total_bytes(), 6);
        assert_eq!(manifest.packs(), [ObjectKey::pack("source", 1, 1).unwrap()]);
    }

    #[test]
    fn content_digest_sees_content_only() {
        let manifest = good();
        let digest = manifest.content_digest();
        let mut moved = manifest.clone();
        moved.created_ms = 9;
        let Node::File { mtime_ms, chunks, .. } = &mut moved.entries[0].node else { panic!() };
        *mtime_ms = 77;
        chunks[0].pack = ObjectKey::pack("source", 2, 9).unwrap();
        chunks[0].offset = 4;
        assert_eq!(moved.content_digest(), digest);
        for change in [
            (|m: &mut Manifest| m.entries[0] = file("a", b"eno")) as fn(&mut Manifest),
            |m| m.entries[0].path = "b".into(),
            |m| m.entries[1].node = Node::Dir { mode: 0o700 },
            |m| m.entries[4] = link("d/l", "../d-x"),
        ] {
            let mut changed = manifest.clone();
            change(&mut changed);
            assert_ne!(changed.content_digest(), digest);
        }
    }

    #[test]
    fn hostile_trees_are_refused() {
        let mut setuid = file("a", b"x");
        setuid.node = Node::File { mode: 0o4755, size: 0, mtime_ms: 0, chunks: Vec::new() };
        let mut wrong_sum = file("a", b"x");
        wrong_sum.node = Node::File { mode: 0o644, size: 2, mtime_ms: 0, chunks: vec![chunk(b"x")] };
        let odd = |change: fn(&mut ChunkRef)| {
            let mut bad = chunk(b"x");
            change(&mut bad);
            let size = u64::from(bad.len);
            let node = Node::File { mode: 0o644, size, mtime_ms: 0, chunks: vec![bad] };
            vec![Entry { path: "a".into(), node }]
        };
        for entries in [
            vec![file("../a", b"")],
            vec![file("/a", b"")],
            vec![file("a/../b", b"")],
            vec![file("a", b""), file("a", b"")],
            vec![file("b", b""), file("a", b"")],
            vec![file("a", b""), file("a/b", b"")],
            vec![link("a", "b"), file("a-", b""), file("a/b", b"")],
            vec![link("a", "/etc/passwd")],
            vec![link("a", "../x")],
            vec![link("d/a", "x/../..")],
            vec![setuid],
            vec![wrong_sum],
            odd(|c| c.len = 0),
            odd(|c| c.len = MAX_CHUNK + 1),
            odd(|c| c.offset = u64::MAX),
            odd(|c| c.pack = ObjectKey::manifest("source", 1, 1).unwrap()),
            odd(|c| c.pack = "elsewhere".parse().unwrap()),
        ] {
            let bytes = tree(entries.clone()).to_bytes();
            // `to_bytes` sorts, so that order is checked on the value itself.
            let refused = Manifest::parse(&bytes).is_err() || tree(entries.clone()).check().is_err();
            assert!(refused, "{entries:?}");
        }
        for change in [
            (|m: &mut Manifest| m.single_file = true) as fn(&mut Manifest),
            |m| m.name = "a/b".into(),
            |m| m.name = "..".into(),
        ] {
            let mut bad = good();
            change(&mut bad);
            assert!(Manifest::parse(&bad.to_bytes()).is_err());
        }
    }

    #[test]
    fn other_versions_and_broken_bytes_are_told_apart() {
        let mut newer = good();
        newer.version = 2;
        assert_eq!(Manifest::parse(&newer.to_bytes()), Err(ManifestError::Version(2)));
        assert_eq!(Manifest::parse(br#"{"version":3,"shape":"new"}"#), Err(ManifestError::Version(3)));
        let bytes = good().to_bytes();
        for cut in [0, 1, bytes.len() / 2, bytes.len() - 1] {
            assert!(matches!(Manifest::parse(&bytes[..cut]), Err(ManifestError::Malformed(_))), "{cut}");
        }
        let huge = vec![b' '; MAX_BYTES as usize + 1];
        assert_eq!(Manifest::parse(&huge), Err(ManifestError::TooLarge(MAX_BYTES + 1)));
    }
}
