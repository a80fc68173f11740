//! Looks into stored trees without restoring them: reads a part of one file,
//! tells what a file consists of (tensors, records of an archive), and in what
//! two trees differ. What is read back is hostile: headers are bounded, and a
//! file whose own account does not add up counts as one piece.

use std::collections::BTreeMap;
use std::ops::Range;

use crate::digest::Digest;
use crate::manifest::{ChunkRef, Entry, Manifest, Node};
use crate::restore::{RestoreError, read_tree};
use crate::store::Store;

mod safetensors;
mod zip;

#[cfg(test)]
mod tests;

/// Bytes that are in memory at one time.
const STEP: u64 = 8 << 20;
/// A header or directory of a file.
const LONGEST_HEADER: u64 = 64 << 20;
/// Pieces of one file.
const MOST: usize = 200_000;

/// One file of a stored tree.
#[derive(Clone, Copy)]
pub struct Stored<'a> {
    store: &'a dyn Store,
    tree: &'a Manifest,
    size: u64,
    chunks: &'a [ChunkRef],
}

/// A tensor, or a record of an archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Piece {
    /// As the file calls it.
    pub name: String,
    /// The type of its numbers, where the file tells.
    pub dtype: Option<String>,
    /// Its shape, where the file tells.
    pub shape: Option<Vec<u64>>,
    /// Its size as it is used.
    pub bytes: u64,
    at: Range<u64>,
    crc: Option<u32>,
}

/// How one name or piece differs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum How {
    /// Only the second has it.
    Added,
    /// Only the first has it.
    Removed,
    /// Both have it, with different content, type, shape, mode or target.
    Changed,
}

/// A file, link or directory in which two trees differ.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Differing {
    /// Its path.
    pub path: String,
    /// How.
    pub how: How,
    /// Its size in the first.
    pub before: Option<u64>,
    /// Its size in the second.
    pub after: Option<u64>,
    /// Pieces that differ, where both consist of pieces.
    pub pieces: Vec<(How, Option<Piece>, Option<Piece>)>,
    /// Pieces that are the same.
    pub same_pieces: u64,
}

/// In what two trees differ.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Difference {
    /// By path.
    pub entries: Vec<Differing>,
    /// Files that are the same.
    pub same_files: u64,
    /// Their bytes.
    pub same_bytes: u64,
}

impl<'a> Stored<'a> {
    /// The file of that path, if the tree has one.
    #[must_use]
    pub fn open(store: &'a dyn Store, tree: &'a Manifest, path: &str) -> Option<Self> {
        let at = tree.entries.binary_search_by(|entry| entry.path.as_str().cmp(path)).ok()?;
        match &tree.entries[at].node {
            Node::File { size, chunks, .. } => Some(Self { store, tree, size: *size, chunks }),
            Node::Dir { .. } | Node::Symlink { .. } => None,
        }
    }

    /// Its size.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The bytes of a range, cut at the file's end. The caller bounds it.
    pub async fn read(&self, range: Range<u64>) -> Result<Vec<u8>, RestoreError> {
        let end = range.end.min(self.size);
        let overlapping = self.overlapping(range.start..end);
        let Some((first, ..)) = overlapping.first() else { return Ok(Vec::new()) };
        let begin = *first;
        let chunks: Vec<ChunkRef> = overlapping.iter().map(|(_, chunk, _)| (*chunk).clone()).collect();
        let size = chunks.iter().map(|chunk| u64::from(chunk.len)).sum();
        let part = self.tree.part(chunks);
        let read = read_tree(self.store, &part, size).await?;
        let mut bytes = read.into_iter().next().map(|(_, bytes)| bytes).unwrap_or_default();
        bytes.truncate(usize::try_from(end - begin).unwrap_or(usize::MAX));
        bytes.drain(..usize::try_from(range.start - begin).unwrap_or(0).min(bytes.len()));
        Ok(bytes)
    }

    /// Where each chunk of a range begins in the file, the chunk, and which of
    /// its bytes are meant.
    fn overlapping(&self, range: Range<u64>) -> Vec<(u64, &'a ChunkRef, Range<u64>)> {
        let mut begin = 0;
        let mut found = Vec::new();
        for chunk in self.chunks {
            let end = begin + u64::from(chunk.len);
            if begin < range.end && range.start < end {
                let from = range.start.max(begin) - begin;
                found.push((begin, chunk, from..range.end.min(end) - begin));
            }
            begin = end;
        }
        found
    }

    /// What it consists of; `None`: it is one piece, or does not add up.
    pub async fn pieces(&self) -> Result<Option<Vec<Piece>>, RestoreError> {
        let head = self.read(0..16).await?;
        let found = if head.starts_with(b"PK\x03\x04") {
            zip::pieces(self).await?
        } else {
            safetensors::pieces(self, &head).await?
        };
        Ok(found.filter(|pieces| !pieces.is_empty() && pieces.len() <= MOST))
    }

    /// Whether two ranges of the same length hold the same. Bytes are read only
    /// where the chunks do not tell.
    async fn equal(&self, at: Range<u64>, other: &Self, there: Range<u64>) -> Result<bool, RestoreError> {
        let (ours, theirs) = (self.overlapping(at.clone()), other.overlapping(there.clone()));
        let lengths = |list: &[(u64, &ChunkRef, Range<u64>)]| -> Vec<(u32, Range<u64>)> {
            list.iter().map(|(_, chunk, part)| (chunk.len, part.clone())).collect()
        };
        if lengths(&ours) == lengths(&theirs) {
            let digests = |list: &[(u64, &ChunkRef, Range<u64>)]| -> Vec<Digest> {
                list.iter().map(|(_, chunk, _)| chunk.digest).collect()
            };
            if digests(&ours) == digests(&theirs) {
                return Ok(true);
            }
            let whole = |(_, chunk, part): &(u64, &ChunkRef, Range<u64>)| *part == (0..u64::from(chunk.len));
            if ours.iter().all(whole) {
                return Ok(false);
            }
        }
        let mut done = 0;
        let length = at.end - at.start;
        while done < length {
            let step = STEP.min(length - done);
            let one = self.read(at.start + done..at.start + done + step).await?;
            if one != other.read(there.start + done..there.start + done + step).await? {
                return Ok(false);
            }
            done += step;
        }
        Ok(true)
    }
}

/// In what two trees differ, with the pieces of changed files. A single file
/// is compared with a single file whatever their names are: checkpoints carry
/// their step in them.
pub async fn difference(
    store: &dyn Store,
    first: &Manifest,
    second: &Manifest,
) -> Result<Difference, RestoreError> {
    let mut found = Difference::default();
    if let (true, [one], [other]) =
        (first.single_file && second.single_file, first.entries.as_slice(), second.entries.as_slice())
    {
        let path =
            if one.path == other.path { one.path.clone() } else { format!("{} -> {}", one.path, other.path) };
        compare(store, (first, one), (second, other), path, &mut found).await?;
        return Ok(found);
    }
    let theirs: BTreeMap<&str, &Entry> = second.entries.iter().map(|e| (e.path.as_str(), e)).collect();
    let ours: BTreeMap<&str, &Entry> = first.entries.iter().map(|e| (e.path.as_str(), e)).collect();
    let size = |entry: &Entry| match &entry.node {
        Node::File { size, .. } => Some(*size),
        Node::Dir { .. } | Node::Symlink { .. } => None,
    };
    for (path, one) in &ours {
        match theirs.get(path) {
            Some(other) => {
                compare(store, (first, one), (second, other), (*path).to_owned(), &mut found).await?;
            }
            None => found.entries.push(Differing::whole(path, How::Removed, size(one), None)),
        }
    }
    let added = theirs.iter().filter(|(path, _)| !ours.contains_key(*path));
    found.entries.extend(added.map(|(path, other)| Differing::whole(path, How::Added, None, size(other))));
    found.entries.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(found)
}

impl Differing {
    fn whole(path: &str, how: How, before: Option<u64>, after: Option<u64>) -> Self {
        Self { path: path.to_owned(), how, before, after, pieces: Vec::new(), same_pieces: 0 }
    }
}

async fn compare(
    store: &dyn Store,
    (first, one): (&Manifest, &Entry),
    (second, other): (&Manifest, &Entry),
    path: String,
    found: &mut Difference,
) -> Result<(), RestoreError> {
    let (ours, theirs) = (Stored::open(store, first, &one.path), Stored::open(store, second, &other.path));
    let (Some(ours), Some(theirs)) = (ours, theirs) else {
        // Directories and links have no times that could differ.
        if one.node != other.node {
            let sizes = (ours.map(|f| f.size), theirs.map(|f| f.size));
            found.entries.push(Differing::whole(&path, How::Changed, sizes.0, sizes.1));
        }
        return Ok(());
    };
    let mode = |entry: &Entry| match entry.node {
        Node::File { mode, .. } | Node::Dir { mode } => mode,
        Node::Symlink { .. } => 0,
    };
    let same = ours.size == theirs.size && ours.equal(0..ours.size, &theirs, 0..theirs.size).await?;
    if same && mode(one) == mode(other) {
        found.same_files += 1;
        found.same_bytes += ours.size;
        return Ok(());
    }
    let mut differing = Differing::whole(&path, How::Changed, Some(ours.size), Some(theirs.size));
    if !same && let (Some(before), Some(after)) = (ours.pieces().await?, theirs.pieces().await?) {
        inside(&ours, before, &theirs, after, &mut differing).await?;
    }
    found.entries.push(differing);
    Ok(())
}

async fn inside(
    ours: &Stored<'_>,
    before: Vec<Piece>,
    theirs: &Stored<'_>,
    after: Vec<Piece>,
    into: &mut Differing,
) -> Result<(), RestoreError> {
    let mut after: BTreeMap<String, Piece> = after.into_iter().map(|p| (p.name.clone(), p)).collect();
    for one in before {
        let Some(other) = after.remove(&one.name) else {
            into.pieces.push((How::Removed, Some(one), None));
            continue;
        };
        let alike = (&one.dtype, &one.shape, one.bytes) == (&other.dtype, &other.shape, other.bytes);
        let same = alike
            && match (one.crc, other.crc) {
                (Some(a), Some(b)) => a == b,
                _ => ours.equal(one.at.clone(), theirs, other.at.clone()).await?,
            };
        if same {
            into.same_pieces += 1;
        } else {
            into.pieces.push((How::Changed, Some(one), Some(other)));
        }
    }
    into.pieces.extend(after.into_values().map(|other| (How::Added, None, Some(other))));
    let name = |(_, one, other): &(How, Option<Piece>, Option<Piece>)| {
        one.as_ref().or(other.as_ref()).map(|piece| piece.name.clone())
    };
    into.pieces.sort_by_key(name);
    Ok(())
}
